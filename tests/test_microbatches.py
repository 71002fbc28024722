"""Where memory runs out, types of weights, and devices: what changes how the engine works and not what it finds."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_hf import BASE, batch_of, drawn, make_engine, request

from harness.errors import HarnessError
from harness.objectives import PolicyGradient
from harness.testing.engine_subject import FixedBatch
from harness.types import Move, Policy, WeightedGroup
from harness_engines import forward, hf, local
from harness_engines.forward import Micro
from harness_engines.workers import Workers


def tokens(micro: Micro) -> int:
    return sum(len(r.prompt_tokens) + len(r.completion_tokens) for r in micro.rollouts)


def on_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")


def in_main_memory() -> None:
    torch.empty(2**56, dtype=torch.uint8)


def in_numpy() -> None:
    np.empty(2**56, dtype=np.uint8)


Fault = Callable[[], None]
FAULTS = (on_a_gpu, in_main_memory, in_numpy)


def short_of_memory(monkeypatch: pytest.MonkeyPatch, *, room: int, fault: Fault = on_a_gpu) -> list[int]:
    """Forwards of more than `room` tokens fail; returns the sizes of those that were tried."""
    tried, whole = [], forward.states

    def states(model: Any, module: Any, micro: Micro, goal: Any) -> Any:
        tried.append(tokens(micro))
        if tokens(micro) > room:
            fault()
        return whole(model, module, micro, goal)

    monkeypatch.setattr(forward, "states", states)
    return tried


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Relative to the first."""
    scale = sum(float(t.square().sum()) for t in one.values()) ** 0.5
    return sum(float((other[n] - t).square().sum()) for n, t in one.items()) ** 0.5 / scale


@pytest.mark.parametrize("fault", FAULTS)
def test_a_microbatch_is_halved_until_it_fits(
    fault: Fault, random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(random_model, tmp_path, microbatch_tokens=1024)
    rollouts = drawn(engine)
    batch = batch_of(rollouts, sub_batches=1)
    engine.gradient(batch, BASE, PolicyGradient(), out=Path("whole.safetensors"))
    scores = engine.score(rollouts, BASE, temperature=1.0)
    engine.local._kept.clear()
    tried = short_of_memory(monkeypatch, room=200, fault=fault)
    with pytest.warns(RuntimeWarning, match="out of memory on cpu: microbatches of 256 tokens from here on"):
        engine.gradient(batch, BASE, PolicyGradient(), out=Path("halved.safetensors"))
    assert max(tried) > 200
    assert difference(load_file(tmp_path / "whole.safetensors"), load_file(tmp_path / "halved.safetensors")) < 1e-5
    tried.clear()
    again = engine.score(rollouts, BASE, temperature=1.0)
    assert max(tried) <= 200, "what was learnt about the device is kept"
    for one, other in zip(scores, again, strict=True):
        np.testing.assert_allclose(one.logprobs_T, other.logprobs_T, atol=1e-5)


def test_a_device_without_room_for_anything_ends_the_run(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(random_model, tmp_path)
    batch = batch_of(drawn(engine))
    short_of_memory(monkeypatch, room=0)
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(HarnessError, match=r"no room for a microbatch of 64 tokens.*gradient_checkpointing"),
    ):
        engine.gradient(batch, BASE, PolicyGradient(), out=Path("g.safetensors"))
    parameters = engine.local.model.parameters.values()
    assert not any(p.requires_grad or p.grad is not None for p in parameters)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_shard_that_does_not_fit_says_what_to_lower(
    fault: Fault, random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(random_model, tmp_path)
    monkeypatch.setattr(local, "sample_shard", lambda *_: fault())
    with pytest.raises(HarnessError, match=r"no room for \d+ completions at a time: lower engine\.shard_rollouts"):
        drawn(engine)


def test_another_error_is_not_taken_for_a_lack_of_memory(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    engine = make_engine(random_model, tmp_path)
    batch = batch_of(drawn(engine))
    tried = short_of_memory(monkeypatch, room=0, fault=fault)
    with pytest.raises(RuntimeError, match="mat1"):
        engine.gradient(batch, BASE, PolicyGradient(), out=Path("g.safetensors"))
    assert len(tried) == 1, "and is not tried again"


def test_bf16_microbatches_are_summed_in_fp32(random_model: Path, tmp_path: Path) -> None:
    """The sum of all is the fp32 sum of each rollout's own; summed in bf16 it would be a hundred times as far off."""
    engine = make_engine(random_model, tmp_path, dtype="bfloat16", microbatch_tokens=1)
    rollouts = drawn(engine)
    weights = engine.local.model.weights(BASE)

    def gradient(groups: tuple[WeightedGroup, ...]) -> dict[str, torch.Tensor]:
        found = engine.local.gradient_at(weights, FixedBatch((groups,), 1.0), 0, PolicyGradient())
        return dict(found.arrays)

    groups = tuple(WeightedGroup((rollout,), np.ones(1)) for rollout in rollouts)
    together = gradient(groups)
    apart = [gradient((group,)) for group in groups]
    exact = {name: sum(part[name].double() for part in apart) for name in together}
    coarse = {name: sum((part[name].bfloat16() for part in apart), torch.zeros(())) for name in together}
    assert {t.dtype for t in together.values()} == {torch.float32}
    assert difference(exact, together) < 1e-6 < 1e-3 * difference(exact, coarse)


def test_candidates_are_formed_in_fp32_and_cast_once(random_model: Path, tmp_path: Path) -> None:
    """Many steps below what bf16 can tell apart add up; cast after each, they would be lost."""
    model = make_engine(random_model, tmp_path, dtype="bfloat16").local.model
    direction = {name: t.float() / 1000 for name, t in model.base.items()}
    save_file(direction, tmp_path / "d.safetensors")
    move = Move(kind="direction", path="d.safetensors", digest="d", step=1.0)
    formed = model.weights(Policy(base="random", moves=(move,) * 50))
    for name, base in model.base.items():
        wanted = base.float()
        for _ in range(50):
            wanted = wanted + direction[name]
        assert torch.equal(formed[name], wanted.bfloat16())
        moved = (wanted - base.float()) / base.float()
        torch.testing.assert_close(moved[base != 0], torch.full_like(moved[base != 0], 0.05), rtol=1e-3, atol=0)
        assert torch.equal((base + direction[name].bfloat16()), base), "one step alone is lost"


class Told:
    """What a worker was made with."""

    def __init__(self, device: str) -> None:
        self.device = device

    def where(self, _: int) -> tuple[str, str]:
        return multiprocessing.current_process().name, self.device


def test_every_process_has_a_device_of_its_own() -> None:
    workers = Workers(Told, [("cuda:0",), ("cuda:1",)])
    try:
        seen = set(workers.run([("where", (number,)) for number in range(8)]))
    finally:
        workers.close()
    assert sorted(device for _, device in seen) == ["cuda:0", "cuda:1"]


@pytest.mark.parametrize(
    ("name", "workers", "gpus", "devices"),
    [
        ("auto", 16, 2, ["cuda:0", "cuda:1"]),
        ("auto", 1, 2, ["cuda:0"]),
        ("auto", 2, 0, ["cpu", "cpu"]),
        ("cuda", 3, 8, ["cuda:0", "cuda:1", "cuda:2"]),
        ("cuda:5", 16, 8, ["cuda:5"]),
        ("cpu", 2, 8, ["cpu", "cpu"]),
    ],
)
def test_gpus_are_shared_out_one_a_process(
    monkeypatch: pytest.MonkeyPatch, name: str, workers: int, gpus: int, devices: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert hf.devices_of({"device": name, "workers": workers}) == devices


def test_a_group_that_is_split_pads_completions_of_like_length_together(random_model: Path, tmp_path: Path) -> None:
    engine = make_engine(random_model, tmp_path)
    (rollouts,) = engine.sample([(request("x", 64, max_tokens=300),)], BASE)
    lengths = [len(r.completion_tokens) for r in rollouts]
    assert min(lengths) < 20
    assert max(lengths) > 200
    group = WeightedGroup(tuple(rollouts), np.arange(64.0))
    micros = list(forward.microbatches([group], max_tokens=600, unit="rollout", as_trees=False))
    assert sorted(w for micro in micros for w in micro.weights_B) == list(range(64))
    for micro in micros:
        assert [rollouts[int(w)].sample_idx for w in micro.weights_B] == [r.sample_idx for r in micro.rollouts]
    padded = sum(len(m.rollouts) * max(len(r.completion_tokens) for r in m.rollouts) for m in micros)
    in_order = sum(4 * max(lengths[i : i + 4]) for i in range(0, 64, 4))
    assert padded < 1.2 * sum(lengths) < in_order
