"""Shards: every draw planned once, groups whole, content independent of who samples it and when."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tabular_kit import BASE, problems

from harness import sampling, seeds, shards, store
from harness.errors import VerifierFailure
from harness.run import Run
from harness.sampling import Draw
from harness.types import Finish, Outcome, Problem, Rollout, Verdict
from harness.verifying import VerifierPool
from harness_engines.tabular import Tabular

TARGET = "harness_engines.tabular_domain:Tabular"
LEVELS = (1, 2, 3, 4, 5, 1, 2, 3)


def draw(**changes: Any) -> Draw:
    return Draw(**{"purpose": "train/0", "policy": BASE, "temperature": 1.0, "samples": 4, "max_tokens": 4, **changes})


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(TARGET) as found:
        yield found


def collect(root: Path, pool: Any, *, shard: int = 8, **changes: Any) -> Any:
    engine = Tabular("tabular", root, {"shard_rollouts": shard})
    (found,) = sampling.collect(
        [draw(**changes)], problems(LEVELS), run_seed=3, engine=engine, pool=pool, progress=lambda *_: None
    )
    return found


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("shard-*")) if p.is_file()}


@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=40),
    samples=st.integers(1, 9),
    first=st.integers(0, 5),
    rollouts=st.integers(1, 64),
)
def test_plan_covers_every_draw_once_and_splits_only_groups_above_a_shard(
    lengths: list[int], samples: int, first: int, rollouts: int
) -> None:
    items = [Problem(id=str(i), prompt="x" * length, answer=None) for i, length in enumerate(lengths)]
    plan = sampling.plan_shards(draw(samples=samples, first=first), items, run_seed=7, rollouts=rollouts)
    planned = [request for shard in plan for request in shard]
    drawn: dict[str, list[int]] = {}
    for request in planned:
        drawn.setdefault(request.problem_id, []).extend(request.sample_idxs)
        expected = [seeds.seed_for(7, "train/0", request.problem_id, i) for i in request.sample_idxs]
        assert list(request.seeds) == expected
    assert drawn == {p.id: list(range(first, first + samples)) for p in items}
    assert len(planned) == len(items) or samples > rollouts
    assert all(sum(len(request.seeds) for request in shard) <= rollouts for shard in plan)
    widths = [len(request.prompt) for request in planned]
    assert widths == sorted(widths, reverse=True), "shards hold prompts of similar length, the longest first"


@given(st.permutations(range(10)))
def test_plan_does_not_depend_on_the_order_of_problems(order: list[int]) -> None:
    items = [Problem(id=str(i), prompt="x" * (i % 3), answer=None) for i in range(10)]
    plan = sampling.plan_shards(draw(), items, run_seed=0, rollouts=12)
    assert sampling.plan_shards(draw(), [items[i] for i in order], run_seed=0, rollouts=12) == plan


def test_seeds_never_know_the_policy() -> None:
    items = problems(LEVELS)
    other = draw(policy=type(BASE)(base="other"))
    first = sampling.plan_shards(draw(), items, run_seed=0, rollouts=8)
    assert sampling.plan_shards(other, items, run_seed=0, rollouts=8) == first


def test_a_prefix_stands_before_the_prompt() -> None:
    ((request,),) = sampling.plan_shards(draw(prefix="Q: "), problems((1,)), run_seed=0, rollouts=8)
    assert request.prompt == "Q: " + problems((1,))[0].prompt


ROLLOUTS = st.builds(
    Rollout,
    problem_id=st.just(""),
    sample_idx=st.integers(0, 2**40),
    policy=st.just("p0"),
    seed=st.integers(0, 2**63 - 1),
    prompt_tokens=st.just(np.zeros(0, dtype=np.int32)),
    completion_tokens=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5).map(
        lambda t: np.array(t, dtype=np.int32)
    ),
    logprobs=st.just(np.zeros(0, dtype=np.float32)),
    text=st.text(st.characters(codec="utf-8"), max_size=6),
    finish=st.sampled_from(Finish),
)


@settings(max_examples=25, deadline=None)
@given(groups=st.lists(st.lists(ROLLOUTS, min_size=1, max_size=4), min_size=1, max_size=4))
def test_groups_come_back_as_written(groups: list[list[Rollout]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("shard") / "shard.safetensors"
    written: list[Rollout] = []
    for index, group in enumerate(groups):
        prompt = np.arange(index, dtype=np.int32)
        for rollout in group:
            count = len(rollout.completion_tokens)
            fields = {f: getattr(rollout, f) for f in Rollout.__slots__}
            fields |= {
                "problem_id": f"p{index}",
                "prompt_tokens": prompt,
                "logprobs": -np.arange(count, dtype=np.float32),
            }
            written.append(Rollout(**fields))
    shards.write(path, written)
    back = [r for index in range(len(groups)) for r in shards.read_group(path, f"p{index}")]
    assert len(back) == len(written)
    for ours, theirs in zip(written, back, strict=True):
        _assert_same(ours, theirs)


def _assert_same(left: Rollout, right: Rollout) -> None:
    for name in Rollout.__slots__:
        ours, theirs = getattr(left, name), getattr(right, name)
        if isinstance(ours, np.ndarray):
            assert ours.dtype == theirs.dtype
            assert ours.tolist() == theirs.tolist()
        else:
            assert ours == theirs, name


def test_collected_batch_holds_every_draw_with_its_verdict(tmp_path: Path, pool: VerifierPool) -> None:
    batch, cost = collect(tmp_path, pool)
    items = {p.id: p for p in problems(LEVELS)}
    judged = list(batch.judged())
    assert sorted((j.problem_id, j.sample_idx) for j in judged) == sorted((p, i) for p in items for i in range(4))
    assert batch.problem_ids == tuple(items)
    assert (cost.verifier_calls, cost.gen_tokens) == (32, 96)
    verdict_of = {(j.problem_id, j.sample_idx): j for j in judged}
    for problem_id, problem in items.items():
        for rollout in batch.group(problem_id):
            found = verdict_of[problem_id, rollout.sample_idx]
            right = rollout.text == f"A{problem.answer}"
            assert (found.verdict.outcome is Outcome.CORRECT) == right
            assert (found.free.outcome is Outcome.CORRECT) == (rollout.text[1:] == str(problem.answer))
            assert found.verdict.format_ok == (rollout.text[0] == "A")


def test_order_of_rollouts_and_verdicts_agree(tmp_path: Path, pool: VerifierPool) -> None:
    """Weights are matched to rollouts by position."""
    batch, _ = collect(tmp_path, pool)
    for problem_id in batch.problem_ids:
        ours = [j.sample_idx for j in batch.judged() if j.problem_id == problem_id]
        assert ours == [r.sample_idx for r in batch.group(problem_id)]


@pytest.mark.parametrize("lost", ["verdicts", "rollouts", "both"])
def test_a_lost_shard_alone_is_made_again_with_equal_content(
    lost: str, tmp_path: Path, pool: VerifierPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, _ = collect(tmp_path, pool)
    before = files(tmp_path)
    assert len(batch.shards) == 4
    for kind in ("verdicts", "rollouts") if lost == "both" else (lost,):
        next((tmp_path / kind).rglob("shard-00002.*")).unlink()
    asked: list[Any] = []
    real = Tabular.sample
    monkeypatch.setattr(
        Tabular, "sample", lambda self, shards, policy: asked.extend(shards) or real(self, shards, policy)
    )
    again, _ = collect(tmp_path, pool)
    drawn = [] if lost == "verdicts" else [batch.shards[2]]  # completions that are there are only judged again
    assert [tuple(r.problem_id for r in shard) for shard in asked] == drawn
    after = files(tmp_path)
    assert _without_seconds(after) == _without_seconds(before)
    assert again == batch


def _without_seconds(found: dict[str, bytes]) -> dict[str, Any]:
    """Verdict files without the seconds that judging took."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items() if "seconds" not in k}
        return [clean(v) for v in value] if isinstance(value, list) else value

    return {name: clean(json.loads(data)) if name.endswith(".json") else data for name, data in found.items()}


def test_a_finished_batch_is_read_and_charged_the_same(tmp_path: Path, pool: VerifierPool) -> None:
    first = collect(tmp_path, pool)
    engine = SimpleNamespace(
        root=tmp_path,
        limits=Tabular("tabular", tmp_path, {"shard_rollouts": 8}).limits,
        sample=lambda shards, _: iter(shards),
    )
    (again,) = sampling.collect(
        [draw()], problems(LEVELS), run_seed=3, engine=engine, pool=None, progress=lambda *_: None
    )  # type: ignore[arg-type]
    assert again == first


def test_different_draws_never_share_a_folder(tmp_path: Path, pool: VerifierPool) -> None:
    changes: list[dict[str, Any]] = [
        {}, {"purpose": "train/1"}, {"temperature": 0.5}, {"samples": 2}, {"first": 4}, {"prefix": "x "},
        {"max_tokens": 3}, {"policy": type(BASE)(base="tabular", moves=())},
    ]  # fmt: skip
    folders = [collect(tmp_path, pool, **change)[0].folder for change in changes]
    assert len(set(folders)) == len(changes) - 1, "only the equal policy shares"


class BrokenPool:
    def verify(self, items: Sequence[Any]) -> list[Verdict]:
        return [Verdict(outcome=Outcome.ERROR, detail="no compiler") for _ in items]


def _run(root: Path, pool: Any) -> Run:
    engine: Any = Tabular("tabular", root, {"shard_rollouts": 8})
    nothing: Any = None
    return Run(
        root=root, spec=nothing, engine=engine, pool=pool, problems=nothing,
        progress=lambda *_: None, notify=lambda *_: None,
    )  # fmt: skip


def test_a_failing_verifier_stops_the_run_and_a_repaired_one_continues_it(tmp_path: Path, pool: VerifierPool) -> None:
    with pytest.raises(VerifierFailure, match="no compiler"):
        _run(tmp_path, BrokenPool()).collect([draw()], problems(LEVELS), run_seed=3, label="")
    ((batch, _),) = _run(tmp_path, pool).collect([draw()], problems(LEVELS), run_seed=3, label="")
    assert all(j.verdict.outcome is not Outcome.ERROR for j in batch.judged()), "verdicts of the broken verifier stayed"
    whole, _ = collect(tmp_path / "whole", pool)
    assert [[r.text for r in batch.group(p)] for p in batch.problem_ids] == [
        [r.text for r in whole.group(p)] for p in whole.problem_ids
    ]


def test_common_random_numbers_across_policies(tmp_path: Path, pool: VerifierPool) -> None:
    """An equal policy under another name meets the same draws."""
    first, _ = collect(tmp_path, pool)
    other, _ = collect(tmp_path, pool, policy=type(BASE)(base="alias"))
    for problem_id in first.problem_ids:
        assert [r.text for r in first.group(problem_id)] == [r.text for r in other.group(problem_id)]
    assert first.folder != other.folder
    assert store.fingerprint(draw()) == store.fingerprint(draw())
