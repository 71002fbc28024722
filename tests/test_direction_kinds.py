"""Kinds of direction that a gradient alone does not make: adam, of its moments, and lora, of its linear layers."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tabular_kit import BASE, MODEL, batch_of, problems
from tabular_run import execute, small_spec
from test_hf import BASE as RANDOM
from test_hf import batch_of as hf_batch_of
from test_hf import drawn, make_engine
from test_hidden_direction import SMALL
from transformers import AutoModelForCausalLM, GPT2Config

from harness import directing, directions, seeds, store
from harness.diagnosis import kinds
from harness.diagnosis.products import Vector
from harness.errors import UnknownName, UsageError
from harness.objectives import PolicyGradient
from harness.pipeline import Finished
from harness.testing.engine_subject import FixedBatch
from harness.types import Direction
from harness_engines.model import CausalModel
from harness_engines.tabular import Tabular

OUT, RMS = Path("g.safetensors"), Path("rms.safetensors")
RANK = 4


def stored(root: Path, direction: Direction) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = load_file(root / direction.path)
    return found


def with_rms(engine: Any, batch: Any, policy: Any) -> Direction:
    """As stages get it."""
    found = engine.moments(batch, policy, PolicyGradient(), out=OUT, rms=RMS)
    assert isinstance(found, Direction)
    return replace(found, rms=str(RMS))


def test_adam_is_the_gradient_over_the_rms_of_its_parts(tmp_path: Path) -> None:
    """Sub-batch by sub-batch, in fp64; where no part has a gradient nothing moves."""
    engine = Tabular(MODEL, tmp_path, {})
    batch = batch_of(engine, problems([1, 2, 1, 1, 2]), 8, run=1, scheme="grpo")
    raw = with_rms(engine, batch, BASE)
    made = stored(tmp_path, directions.transform(raw, "adam", root=tmp_path, out="adam.safetensors"))
    parts = [engine.sub_batch(engine.base, batch, s, PolicyGradient()) for s in range(batch.num_sub_batches)]
    for name, found in made.items():
        shares = np.stack([-part.gradient[name].numpy() / batch.normaliser for part in parts if part is not None])
        rms = np.sqrt((shares**2).mean(0))
        expected = np.divide(shares.sum(0), rms, out=np.zeros_like(rms), where=rms > 0)
        np.testing.assert_allclose(found, expected, atol=1e-9)
        assert not found[rms == 0].any()
        assert np.abs(found).max() <= len(shares) + 1e-9, "at most the number of parts, where they agree"
    assert any((found == 0).any() for found in made.values()), "the third class is in no problem"
    plain = engine.gradient(batch, BASE, PolicyGradient(), out=Path("plain.safetensors"))
    assert plain.digest == raw.digest


def test_without_noise_adam_is_sign(tmp_path: Path) -> None:
    """Of one sub-batch, or of equal ones, up to their number."""
    engine = Tabular(MODEL, tmp_path, {})
    batch = batch_of(engine, problems([1]), 16, run=0, scheme="grpo")
    for copies in (1, 3):
        batch.sub_batches = [batch.sub_batches[0]] * copies
        raw = with_rms(engine, batch, BASE)
        adam, sign = (
            stored(tmp_path, directions.transform(raw, kind, root=tmp_path, out=f"{kind}.safetensors"))
            for kind in ("adam", "sign")
        )
        for name, found in adam.items():
            moved = np.abs(stored(tmp_path, raw)[name]) > 1e-12
            np.testing.assert_allclose(found[moved], copies * sign[name][moved])


def test_adam_is_the_kind_that_the_diagnosis_makes_of_the_same_parts(random_model: Path, tmp_path: Path) -> None:
    engine = make_engine(random_model, tmp_path)
    batch = hf_batch_of(drawn(engine), sub_batches=4)
    raw = with_rms(engine, batch, RANDOM)
    made = stored(tmp_path, directions.transform(raw, "adam", root=tmp_path, out="adam.safetensors"))
    parts = []
    for number, groups in enumerate(batch.groups):
        part = engine.gradient(
            FixedBatch((groups,), batch.normaliser), RANDOM, PolicyGradient(), out=Path(f"part-{number}.safetensors")
        )
        parts.append(Vector((tmp_path / part.path,)))
    other = kinds.make(lambda: parts, ["raw", "adam"], like=tmp_path / raw.path, root=tmp_path, folder=Path("kinds"))
    theirs = load_file(other["adam"].paths[0])
    for name, found in made.items():
        np.testing.assert_allclose(found, theirs[name], rtol=1e-3, atol=1e-3)
        assert np.abs(found).max() <= 4.001


def test_small_parts_do_not_vanish_in_their_squares(random_model: Path, tmp_path: Path) -> None:
    """1e-25 squared is no number of fp32."""
    engine = make_engine(random_model, tmp_path)
    plain = hf_batch_of(drawn(engine))
    raw = with_rms(engine, FixedBatch(plain.groups, normaliser=plain.normaliser * 1e25), RANDOM)
    made = stored(tmp_path, directions.transform(raw, "adam", root=tmp_path, out="small.safetensors"))
    usual = with_rms(engine, plain, RANDOM)
    expected = stored(tmp_path, directions.transform(usual, "adam", root=tmp_path, out="usual.safetensors"))
    for name, found in made.items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("order", list(itertools.permutations(["raw", "adam"])))
def test_a_run_follows_adam_beside_raw_along_one_gradient(tmp_path: Path, order: tuple[str, ...]) -> None:
    """Whoever comes first: the rms is there for the one that needs it, and both are of the same raw gradient."""
    sets = [f"method.{name}.{option}" for name in order for option in ("uses=one_shot", f"direction={name}")]
    root, rows = execute(small_spec(*sets, "evaluation.wide_methods=[]", methods=list(order)), tmp_path)
    found = {row["method"]: row for row in rows if row["seed"] == 0}
    assert {name: found[name]["direction"] for name in order} == {"raw": "raw", "adam": "adam"}
    assert found["adam"]["ci_low"] > 0
    entries = [store.read_json(next((root / f"methods/{name}/0/journal").glob("*-direct.json"))) for name in order]
    results = [entry["result"] for entry in entries]
    assert results[0].digest == results[1].digest
    assert entries[order.index("adam")]["result"].rms
    done: Finished = store.read_json(root / "methods/adam/0/scores.json")
    assert done.direction is not None
    assert (done.direction.kind, done.direction.snr) == ("adam", results[0].snr)


def test_what_adam_and_lora_lack_is_said(tmp_path: Path) -> None:
    class Plain:
        """Names no linear layers."""

    engine: Any = Plain()
    with pytest.raises(UsageError, match='one_shot needs an engine with "linear", which Plain has not'):
        directing.linear(engine, method="one_shot")
    tabular = Tabular(MODEL, tmp_path, {})
    batch = batch_of(tabular, problems([1]), 16, run=0, scheme="grpo")
    raw = tabular.gradient(batch, BASE, PolicyGradient(), out=OUT)
    with pytest.raises(UsageError, match='kind="adam"'):
        directions.transform(raw, "adam", root=tmp_path, out="x")
    with pytest.raises(UsageError, match="no weights of linear layers"):
        directions.transform(raw, "lora16", root=tmp_path, out="x")
    for kind in ("lora", "lora0", "lora-4", "lora4x"):
        with pytest.raises(UnknownName, match="lora takes any rank"):
            directions.transform(raw, kind, root=tmp_path, out="x")


def drawn_down(name: str, width: int, *, seed: int) -> np.ndarray:
    """A of LoRA: kaiming_uniform_(a=sqrt(5)) is uniform within gain sqrt(3 / width), gain = sqrt(2 / (1 + 5))."""
    bound = math.sqrt(2 / (1 + 5)) * math.sqrt(3 / width)
    return seeds.generator(seeds.seed_for(seed, "lora", name)).uniform(-1, 1, (RANK, width)) * bound


class Adapted(torch.nn.Module):
    """A linear layer with LoRA beside it, as its paper writes it: W x + s B A x."""

    def __init__(self, inner: torch.nn.Linear, down: torch.Tensor, scale: float) -> None:
        super().__init__()
        self.inner, self.down, self.scale = inner, down, scale
        self.up = torch.nn.Parameter(torch.zeros(inner.out_features, RANK, dtype=down.dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + self.scale * (x @ self.down.T @ self.up.T)


def objective(model: Any, batch: FixedBatch) -> torch.Tensor:
    """What the gradient of the batch is the gradient of, by plain transformers in fp64."""
    total = torch.zeros((), dtype=torch.float64)
    for group in (g for part in batch.groups for g in part):
        for rollout, weight in zip(group.rollouts, group.weights_G, strict=True):
            tokens = torch.tensor(np.concatenate([rollout.prompt_tokens, rollout.completion_tokens]).astype(int))
            start = len(rollout.prompt_tokens) - 1
            logprobs = torch.log_softmax(model(tokens[None]).logits[0, start:-1], -1)
            total = total + float(weight) * logprobs.gather(1, tokens[start + 1 :, None]).sum()
    return total / batch.normaliser


def test_lora_is_the_first_update_of_an_explicit_lora(random_model: Path, tmp_path: Path) -> None:
    """The ascent step of autograd through adapters against the direction made of a raw gradient: of one in fp64 to
    rounding, of the engine's to that of fp32; half the step, half the way."""
    engine, scale, seed = make_engine(random_model, tmp_path), 2.0, 3
    batch = hf_batch_of(drawn(engine))
    raw = engine.gradient(batch, RANDOM, PolicyGradient(), out=OUT)
    plain = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float64).eval()
    objective(plain, batch).backward()  # type: ignore[no-untyped-call]
    exact = {name: p.grad.numpy() for name, p in plain.named_parameters()}
    save_file(exact, tmp_path / "exact", {"weight_norms": json.dumps(dict.fromkeys(exact, 1.0))})
    made = [
        directions.transform(replace(raw, path=path), f"lora{RANK}", root=tmp_path, out=f"{path}.lora", seed=seed,
                             linear=engine.linear)
        for path in ("exact", str(OUT))
    ]  # fmt: skip
    adapters = adapted(plain.requires_grad_(requires_grad=False), scale=scale, seed=seed)
    objective(plain, batch).backward()  # type: ignore[no-untyped-call]
    assert len(adapters) == 14, "seven linear layers in each of two blocks: no embedding, norm or head"
    assert {(found.kind, found.snr) for found in made} == {("lora4", raw.snr)}
    for found, tolerance in zip(made, (1e-12, 1e-5), strict=True):
        tensors = stored(tmp_path, found)
        assert tensors.keys() == adapters.keys()
        for lr in (0.5, 1.0):
            errors = []
            for name, adapter in adapters.items():
                way = (scale * lr * adapter.up.grad @ adapter.down).numpy()  # type: ignore[operator]
                errors.append(np.linalg.norm(tensors[name] * lr * scale**2 - way))
                assert np.linalg.matrix_rank(tensors[name], tol=1e-5 * found.norm) <= RANK
            assert np.linalg.norm(errors) <= tolerance * lr * scale**2 * found.norm


def adapted(model: Any, *, scale: float, seed: int) -> dict[str, Adapted]:
    """Adapters in the place of all linear layers but the head, by the names of the weights they stand beside."""
    made = {}
    for name, part in list(model.named_modules()):
        if isinstance(part, torch.nn.Linear) and name != "lm_head":
            down = torch.from_numpy(drawn_down(f"{name}.weight", part.in_features, seed=seed))
            made[f"{name}.weight"] = Adapted(part, down, scale)
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, made[f"{name}.weight"])
    return made


def test_down_projections_are_drawn_by_run_seed_and_tensor(random_model: Path, tmp_path: Path) -> None:
    wide, names = np.eye(512, dtype=np.float32), ["a.weight", "b.weight"]
    header = {"weight_norms": json.dumps(dict.fromkeys(names, 1.0))}
    save_file(dict.fromkeys(names, wide), tmp_path / "raw", header)
    raw = Direction(id="", kind="raw", norm=1.0, weight_norm=1.0, path="raw", digest="")
    first, again, other = (
        stored(
            tmp_path, directions.transform(raw, "lora64", root=tmp_path, out=f"{i}", seed=seed, linear=lambda: names)
        )
        for i, seed in enumerate((0, 0, 1))
    )
    assert all((first[name] == again[name]).all() for name in names)
    pairs = [(first["a.weight"], first["b.weight"]), (first["a.weight"], other["a.weight"])]
    for one, two in pairs:
        off = ~np.eye(512, dtype=bool)
        assert abs(np.corrcoef(one[off], two[off])[0, 1]) < 0.02
    # The gradient being the identity, what is made is A^T A: its diagonal sums 64 squares of uniforms within 1 / sqrt(512).
    assert np.diag(first["a.weight"]).mean() == pytest.approx(64 / (3 * 512), rel=0.02)


def test_linear_layers_are_told_by_what_they_are(random_model: Path, tmp_path: Path) -> None:
    names = make_engine(random_model, tmp_path).linear()
    ends = {name.split(".")[-2] for name in names}
    assert ends == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    folder = tmp_path / "gpt2"
    AutoModelForCausalLM.from_config(GPT2Config(**SMALL)).save_pretrained(folder)
    for file in random_model.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    assert CausalModel(str(folder), tmp_path, dtype="float32", device="cpu").linear == [], "its layers are convolutions"
