"""One model over two processes (engine.fsdp): the directions, draws and scores of one process, half of the memory in each,
and an error of one that ends both."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.distributed as dist
from gloo_pair import Waiting
from model_kit import VOCABULARY, save_model
from safetensors.torch import load_file, save_file
from test_architectures import CONFIGS, SHAPE
from test_config import load
from test_hf import BASE, OPTIONS, batch_of, drawn, make_engine, shards
from test_microbatches import difference
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig

from harness import plugins, seeds
from harness.contracts import Optimizer, TokenBatch
from harness.errors import HarnessError, UsageError
from harness.methods import check_options, methods_of
from harness.objectives import PolicyGradient
from harness.testing.engine_subject import FixedBatch
from harness.types import Direction, Move, Policy, Rollout, WeightedGroup
from harness_engines import chunking, fsdp, hf, local
from harness_engines.hf import HfEngine
from harness_engines.model import CausalModel

TOKENS = 96  # of a microbatch
SIZES = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 6}
MODELS = {
    "tied": CONFIGS["qwen2"],
    "untied": CONFIGS["qwen3"],
    "large": LlamaConfig(**{**SHAPE, **SIZES}, tie_word_embeddings=True),  # beside whose weights nothing else is
    "smooth": LlamaConfig(**{**SHAPE, "initializer_range": 0.02}, tie_word_embeddings=True),  # where bf16 costs little
}


class Objective:
    """Of all that a batch tells; the second process has no room for it, if that is wanted."""

    needs = frozenset({"entropy", "ref_logprob"})
    unit = "rollout"

    def __init__(self, *, fits: bool = True) -> None:
        self.fits = fits

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        if not self.fits and dist.get_rank() == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        assert batch.entropy_BT is not None
        assert batch.ref_logprobs_BT is not None
        ahead_BT = batch.logprobs_BT - batch.ref_logprobs_BT
        terms_BT = batch.weights_B[:, None] * batch.logprobs_BT + 0.2 * batch.entropy_BT.square() + ahead_BT.square()
        return -(terms_BT * batch.mask_BT).sum()


class Measured(fsdp.PartLocal):
    """A process of the group, looked into; it fails where it would wait for ever."""

    def __init__(self, *arguments: Any) -> None:
        fsdp.LIMIT = timedelta(seconds=30)
        super().__init__(*arguments)

    def open(self, folder: str, root: Path, numbers: int, checkpointing: bool, dtype: str) -> None:
        """Another model, and chunks of so many logits."""
        self.spec = self.spec._replace(path=folder, root=root, gradient_checkpointing=checkpointing, dtype=dtype)
        self.model, chunking.CHUNK_NUMBERS = self._load(), numbers
        self._kept.clear()

    def reduced_in(self) -> set[torch.dtype | None]:
        parts = [part for part in self.model.module.modules() if isinstance(part, FSDPModule)]
        assert len(parts) == len(self.model.residual.layers) + 1
        return {group._reduce_dtype for part in parts for group in part._get_fsdp_state()._fsdp_param_groups}

    def leave_out(self) -> None:
        """In the second process, what stands for an expert that none of its tokens is sent to."""
        if dist.get_rank() == 1:
            self.model.residual.layers[0].mlp.forward = lambda hidden: hidden

    def copies(self, rollouts: list[Rollout], policies: Sequence[Policy]) -> int:
        """How often weights are copied into the module when these are scored."""
        made, copy = [], self.model._copy  # type: ignore[attr-defined]
        self.model._copy = lambda tensors: made.append(copy(tensors))  # type: ignore[attr-defined]
        for policy in policies:
            self.score(rollouts, policy, 1.0, None)
        return len(made)

    def memory(self, batch: FixedBatch) -> Memory:
        """The second time, when what FSDP gathers into is known: parameters that take up nothing in between."""
        self.gradient(batch, 0, BASE, Objective())
        known = [thing for thing in gc.get_objects() if type(thing) is torch.nn.Parameter]
        seen: list[int] = []
        for module in (*self.model.residual.layers, self.model.module):
            module.register_forward_pre_hook(lambda *_: seen.append(bytes_of(known)))
        for parameter in self.model.parameters.values():
            parameter.requires_grad_(True)
            parameter.register_post_accumulate_grad_hook(lambda _: seen.append(bytes_of(known)))
        found = self.gradient(batch, 0, BASE, Objective())
        kept = bytes_of([*self.model.base.values(), *self.model.parameters.values()])
        return Memory(kept, max(seen), sum(array.nbytes for array in found.arrays.values()))


class Memory(NamedTuple):
    """Bytes: of weights that are kept, of those gathered at the most, of the sum of gradients."""

    kept: int
    gathered: int
    gradient: int


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """Of this process, each storage once."""
    stores = [(t.to_local() if isinstance(t, DTensor) else t).untyped_storage() for t in tensors]
    return sum({store.data_ptr(): store.nbytes() for store in stores}.values())


class Shared:
    """One group of two processes for all tests, for as long as no error ends it."""

    def __init__(self) -> None:
        self.group: fsdp.Group | None = None

    def engine(
        self,
        folder: Path,
        root: Path,
        *,
        numbers: int = chunking.CHUNK_NUMBERS,
        checkpointing: bool = False,
        dtype: str = "float32",
    ) -> HfEngine:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fsdp, "PartLocal", Measured)
            found = hf.opened(str(folder), root, {**OPTIONS, "workers": 2, "fsdp": True, "microbatch_tokens": TOKENS})
            if self.group is None or not self.group._processes:
                self.group = fsdp.Group(found._specs)
        found._workers = self.group
        self.ask("open", str(folder), root, numbers, checkpointing, dtype)
        return found

    def ask(self, name: str, *arguments: Any) -> list[Any]:
        """Of each process."""
        assert self.group is not None
        try:
            return self.group._answers((name, arguments))
        except HarnessError:
            self.group.close()
            raise


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    found = Shared()
    yield found
    if found.group is not None:
        found.group.close()


def mixed(rollouts: list[Rollout]) -> FixedBatch:
    """Some groups share enough to become trees, some completions have one token; an odd number of microbatches of both kinds."""
    first, second, third, fourth = batch_of(rollouts, sub_batches=1).groups[0]
    copies = tuple(replace(rollout, sample_idx=i) for i, rollout in enumerate([second.rollouts[0]] * 4))
    short = [
        replace(r, completion_tokens=r.completion_tokens[:1], logprobs=r.logprobs[:1], entropies=r.entropies[:1])
        for r in third.rollouts
    ]
    groups = (first, WeightedGroup(copies, second.weights_G), WeightedGroup(tuple(short), third.weights_G), fourth)
    return FixedBatch((groups, (first, second)), 32.0)


def moved(engine: HfEngine, root: Path) -> Policy:
    """By a direction, a vector to steer by in it, by noise and to a checkpoint of two tensors."""
    rng = seeds.generator(seeds.seed_for(5, "moved"))
    tensors = {n: torch.from_numpy(rng.normal(size=t.shape)).float() for n, t in engine.local.model.base.items()}
    vector = torch.from_numpy(rng.normal(size=32)).float()
    save_file({**tensors, "steer/0": vector}, root / "d.safetensors")
    save_file({n: engine.local.model.base[n] / 2 for n in list(tensors)[1:3]}, root / "c.safetensors")
    direction = Move(kind="direction", path="d.safetensors", digest="d", step=0.05)
    checkpoint = Move(kind="checkpoint", path="c.safetensors", digest="c", step=1.0)
    noise = Move(kind="noise", path="", digest="ab", step=0.1)
    return Policy(base="random", moves=(direction, checkpoint, noise))


Found = tuple[Direction, dict[str, torch.Tensor]]


def gradient(engine: HfEngine, batch: FixedBatch, policy: Policy, objective: Any = None) -> Found:
    found = engine.gradient(batch, policy, objective or Objective(), out=Path("g.safetensors"))
    return found, load_file(engine.root / "g.safetensors")


@pytest.mark.parametrize(
    ("kind", "chunked"), [("tied", True), ("untied", False)], ids=["tied-chunked-recomputed", "untied-whole-kept"]
)
def test_directions_draws_and_scores_are_those_of_one_process(
    shared: Shared, tmp_path: Path, kind: str, chunked: bool
) -> None:
    folder = save_model(tmp_path / "model", MODELS[kind])
    one = make_engine(folder, tmp_path, microbatch_tokens=TOKENS)
    two = shared.engine(folder, tmp_path, numbers=600 if chunked else chunking.CHUNK_NUMBERS, checkpointing=chunked)
    rollouts, away = drawn(one), moved(one, tmp_path)
    batch = mixed(rollouts)
    passes = [micro.passes for micro in one.local._microbatches(list(batch.read(0)), unit="rollout")]
    assert {1, 2} == set(passes), "trees and rows"
    assert passes.count(1) % 2 or passes.count(2) % 2, "and one without a partner"
    (_, expected), (_, tensors) = (gradient(engine, batch, BASE) for engine in (one, two))
    assert difference(expected, tensors) < 1e-5, "before any other policy was in the module"
    for one_shard, other in zip(one.sample(shards(), away), two.sample(shards(), away), strict=True):
        for a, b in zip(one_shard, other, strict=True):
            np.testing.assert_array_equal(a.completion_tokens, b.completion_tokens)
            np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5)
    scores = (engine.score(rollouts, away, temperature=0.8, kl_to=BASE) for engine in (one, two))
    for a, b in zip(*scores, strict=True):
        for name in ("logprobs_T", "entropy_T", "kl_T"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-5)
    for policy in (away, BASE):
        (wanted, expected), (found, tensors) = (gradient(engine, batch, policy) for engine in (one, two))
        assert difference(expected, tensors) < 1e-5
        assert (found.tokens, found.groups_used) == (wanted.tokens, wanted.groups_used)
        assert (found.norm, found.weight_norm) == pytest.approx((wanted.norm, wanted.weight_norm), rel=1e-5)
        assert found.logprob_gap == pytest.approx(wanted.logprob_gap, rel=1e-4)
    for wanted, found in zip(
        *(e.hidden(batch, BASE, depths=(0.5, 1.0), out=Path("h")) for e in (one, two)), strict=True
    ):
        assert (found.kind, found.norm) == (wanted.kind, pytest.approx(wanted.norm, rel=1e-5))


def test_bf16_gradients_are_as_near_to_those_of_fp32_as_one_process_has_them(
    shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients of a hundred chunks, one position each, that add up alike: in bf16 the sum would lose the last ones.

    The error is .47 % in one process and .48 % in two, and 1.02 % where two add chunks up in bf16. In which type two
    processes add up makes no difference, since bf16 rounds a sum of two once in any case; of more it does.
    """
    folder = save_model(tmp_path / "model", MODELS["smooth"])
    weights = load_file(folder / "model.safetensors")
    save_file({n: t.bfloat16().float() for n, t in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    exact, one = (make_engine(folder, tmp_path, dtype=dtype) for dtype in ("float32", "bfloat16"))
    two = shared.engine(folder, tmp_path, numbers=VOCABULARY, dtype="bfloat16")
    assert shared.ask("reduced_in") == [{torch.float32}] * 2
    groups = tuple(WeightedGroup((rollout,), np.ones(1)) for rollout in drawn(exact, count=1, max_tokens=100))
    monkeypatch.setattr(chunking, "CHUNK_NUMBERS", VOCABULARY)
    (_, wanted), *found = (gradient(e, FixedBatch((groups,), 4.0), BASE, PolicyGradient()) for e in (exact, one, two))
    apart, together = (difference(wanted, tensors) for _, tensors in found)
    assert together < 1.2 * apart < 0.01


def test_processes_that_use_other_weights_do_not_wait_for_each_other(
    random_model: Path, shared: Shared, tmp_path: Path
) -> None:
    engine = shared.engine(random_model, tmp_path)
    batch = batch_of(drawn(engine))
    shared.ask("leave_out")
    _, tensors = gradient(engine, batch, BASE)
    for name, tensor in tensors.items():
        assert float(tensor.abs().sum()) > 0, name


def test_what_a_policy_shares_with_the_base_stays_when_another_is_in_the_module(shared: Shared, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", MODELS["untied"])
    one, two = make_engine(folder, tmp_path), shared.engine(folder, tmp_path, numbers=600)
    save_file({"steer/0": torch.ones(32)}, tmp_path / "s.safetensors")
    steered = Policy(base="random", moves=(Move(kind="direction", path="s.safetensors", digest="s", step=0.5),))
    noisy = Policy(base="random", moves=(Move(kind="noise", path="", digest="ab", step=0.1),))
    rollouts = drawn(one)
    for policy in (steered, noisy, steered, BASE):
        scores = (engine.score(rollouts, policy, temperature=1.0) for engine in (one, two))
        for a, b in zip(*scores, strict=True):
            np.testing.assert_allclose(a.logprobs_T, b.logprobs_T, atol=1e-5)
    assert shared.ask("copies", rollouts, (BASE, noisy, noisy)) == [1, 1], "for dozens of chunks"


def test_each_process_holds_half(shared: Shared, tmp_path: Path) -> None:
    large = save_model(tmp_path / "large", MODELS["large"])
    engine = shared.engine(large, tmp_path)
    whole = bytes_of(engine.local.model.base.values())
    for part in shared.ask("memory", batch_of(drawn(engine, count=2, max_tokens=4))):
        assert part.kept < 0.51 * whole
        assert part.gradient < 0.51 * whole
        assert 0 < part.gathered < 0.4 * whole, "two of the six layers, and what is no layer"


def test_memory_that_runs_out_in_one_process_ends_both_with_a_message(
    random_model: Path, shared: Shared, tmp_path: Path
) -> None:
    engine = shared.engine(random_model, tmp_path)
    batch = batch_of(drawn(engine))
    assert shared.group is not None
    processes = list(shared.group._processes)
    with pytest.raises(
        HarnessError, match=r"no room for a microbatch of 96 tokens beside its part.*gradient_checkpointing"
    ):
        engine.gradient(batch, BASE, Objective(fits=False), out=Path("g.safetensors"))
    assert not any(process.is_alive() for process in processes)


@pytest.mark.parametrize(
    ("fault", "message"), [("raises", "^no such file$"), ("dies", "an engine worker died.*harness resume RUN")]
)
def test_nobody_waits_for_a_process_that_failed(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, message: str
) -> None:
    monkeypatch.setattr(fsdp, "PartLocal", Waiting)
    engine = hf.opened(str(random_model), tmp_path, {**OPTIONS, "workers": 2, "fsdp": True})
    engine._workers = fsdp.Group(["", ""])  # type: ignore[list-item]
    assert list(engine._run("meet", [("",), ("",)])) == [0, 0]
    processes, start = engine._workers._processes, time.monotonic()
    with pytest.raises(HarnessError, match=message):
        list(engine._run("meet", [(fault,)]))
    assert time.monotonic() - start < 10
    assert not any(process.is_alive() for process in processes)


def test_a_model_without_a_list_of_its_layers_is_refused_at_the_start(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = local.Local._load

    def loaded(self: local.Local) -> CausalModel:
        found = whole(self)
        found.module.config.num_hidden_layers = 3  # there are two in the list
        return found

    monkeypatch.setattr(local.Local, "_load", loaded)
    with pytest.raises(
        UsageError, match=r"LlamaForCausalLM has no list of 3 decoder layers, which.*engine\.fsdp.*need"
    ):
        hf.opened(str(random_model), tmp_path, {**OPTIONS, "workers": 2, "fsdp": True})


def test_beside_gpus_threads_stay_with_the_process_that_sums(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine_of, before = {**OPTIONS, "workers": 2, "fsdp": True}, torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with monkeypatch.context() as patch:
            patch.setattr(hf, "devices_of", lambda _: ["cuda:0", "cuda:1"])
            assert hf.opened(str(random_model), tmp_path, engine_of).local.model.device.type == "cpu"
        assert torch.get_num_threads() == 2
        hf.opened(str(random_model), tmp_path, engine_of)
        assert torch.get_num_threads() == 1, "of CPUs, each process has one"
    finally:
        torch.set_num_threads(before)


def test_what_cannot_be_done_is_said_before_anything_is(random_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is one, on cpu: it takes two GPUs or more, --workers 2"):
        hf.opened(str(random_model), tmp_path, {**OPTIONS, "fsdp": True})
    with pytest.raises(UsageError, match=r"engine\.fsdp is for --engine hf: vllm has"):
        load("engine.fsdp=true", "engine.name=vllm")
    spec, found = load("engine.fsdp=true", "methods=['one_shot', 'grpo']"), plugins.load()
    with pytest.raises(UsageError, match=r"grpo trains step by step, which engine\.fsdp does not do: leave grpo out"):
        check_options(spec, methods_of(spec, found))
    engine = hf.opened(str(random_model), tmp_path, {**OPTIONS, "workers": 2, "fsdp": True})
    with pytest.raises(UsageError, match=r"engine\.fsdp does not train step by step"):
        engine.trainer(BASE, Optimizer(lr=1.0))
