"""one_shot_k: k = 1 is one_shot; rounds follow one another on policy; nothing overwritten; the row tells the whole way."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tabular_run import PLAIN, execute, small_spec, temporary

from harness import plugins, seeds, store
from harness.errors import UsageError
from harness.leaderboard import UNCOMPARED, Row
from harness.pipeline import Finished
from harness.types import Direction, Policy, Problem, Rollout, SampleRequest, Search, Shard
from harness_engines.tabular import Tabular

SOME = ("search.kl_targets=[0.05, 0.2]", "search.problems=32", "search.samples=2", *PLAIN)


def run(tmp_path: Path, *sets: str, method: str = "one_shot_k", **changes: Any) -> tuple[Path, Row, Finished]:
    root, rows = execute(small_spec(*SOME, *sets, methods=(method,), **changes), tmp_path)
    row = next(row for row in rows if row["method"] == method and row["seed"] == 0)
    return root, row, store.read_json(root / f"methods/{method}/0/scores.json")


def journal(root: Path, stage: str) -> list[Any]:
    files = sorted((root / "methods/one_shot_k/0/journal").glob(f"*-{stage}.json"))
    return [store.read_json(file)["result"] for file in files]


def problems_of(root: Path, split: str) -> dict[str, Problem]:
    lines = store.read_lines(root / "problems.jsonl")
    return {line["problem"].id: line["problem"] for line in lines if line["split"] == split}


@pytest.mark.parametrize("direction", ["per_tensor", "positives_only"])
def test_one_round_is_one_shot(direction: str, tmp_path: Path) -> None:
    _, ours, ours_done = run(tmp_path / "k", "method.one_shot_k.k=1", f"method.one_shot_k.direction={direction}")
    _, theirs, theirs_done = run(tmp_path / "one", f"method.one_shot.direction={direction}", method="one_shot")
    own = {*UNCOMPARED, "method", "method_version"}
    assert {k: v for k, v in ours.items() if k not in own} == {k: v for k, v in theirs.items() if k not in own}
    assert ours["step"] > 0, "a step was taken, so that the comparison means something"
    assert ours_done.search is not None
    assert theirs_done.search is not None
    assert [c.score for c in ours_done.search.candidates] == [c.score for c in theirs_done.search.candidates]


def test_one_dead_round_is_one_shot_without_signal(tmp_path: Path) -> None:
    hopeless = {"model": "tabular:.0000000001"}
    _, ours, _ = run(tmp_path / "k", "method.one_shot_k.k=1", **hopeless)
    _, theirs, _ = run(tmp_path / "one", method="one_shot", **hopeless)
    assert ours["status"] == theirs["status"]
    assert str(ours["status"]).startswith("no signal")
    _, several, _ = run(tmp_path / "several", "method.one_shot_k.k=4", **hopeless)
    assert str(several["status"]).startswith("no signal"), "where no round has a direction there is none"
    assert several["train_rollouts"] == 256


class Counting(Tabular):
    """Keeps which policy every completion was drawn from, as an outsider sees it."""

    seen: list[tuple[str, str]] = []  # noqa: RUF012 - shared by the engines of one test

    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        for shard in shards:
            Counting.seen += [(request.problem_id, policy.id) for request in shard for _ in request.seeds]
        return super().sample(shards, policy)


@pytest.mark.parametrize("k", [2, 5])
def test_rounds_spend_the_budget_on_fresh_problems_on_policy(k: int, tmp_path: Path) -> None:
    """512 rollouts are 32 problems x 16: 5 rounds of 6 or 7 problems."""
    Counting.seen = []
    found = plugins.load({})
    entry = found.registered["engine", "tabular"]
    found.registered["engine", "tabular"] = replace(entry, target=f"{__name__}:Counting")
    spec = small_spec(*SOME, f"method.one_shot_k.k={k}", methods=("one_shot_k",), budget=512)
    root, rows = execute(spec, tmp_path, found=found)
    train, selection = problems_of(root, "train/0"), problems_of(root, "selection")
    drawn = Counter(name for name, _ in Counting.seen)
    assert {drawn[name] for name in train} == {16}, "every problem once, in one round"
    row = next(row for row in rows if row["method"] == "one_shot_k" and row["seed"] == 0)
    assert row["train_rollouts"] == 512
    assert sum(drawn[name] for name in selection) <= row["selection_rollouts"] <= 512
    policies = [policy for name, policy in dict.fromkeys(Counting.seen) if name in train]
    searches = journal(root, "search")
    origins = [search.candidates[0].policy.id for search in searches]
    assert list(dict.fromkeys(policies)) == list(dict.fromkeys(origins)), "each batch from where the last round ended"
    assert len(searches) == k
    for before, after in itertools.pairwise(searches):
        assert after.candidates[0].policy == before.winner.policy


@functools.cache
def four_rounds() -> tuple[Path, Row, Finished]:
    return run(temporary(), "method.one_shot_k.k=4", budget=1024)


def test_no_round_overwrites_the_direction_of_another() -> None:
    root, row, done = four_rounds()
    moves = done.contender.policies[0].moves
    assert len(moves) > 1, "several rounds moved"
    assert len({move.path for move in moves}) == len(moves)
    engine = Tabular("tabular", root, {})
    expected = {name: tensor.clone() for name, tensor in engine.base.items()}
    for move in moves:
        assert store.digest(root / move.path) == move.digest
        for name, tensor in load_file(root / move.path).items():
            expected[name] += move.step * tensor.double()
    for name, tensor in engine.tables(done.contender.policies[0]).items():
        torch.testing.assert_close(tensor, expected[name])
    assert row["relative_step"] == pytest.approx(engine.displacement(done.contender.policies[0]).relative)


def test_the_row_tells_the_way_from_the_base() -> None:
    """KL from the base to the last policy, on the base's completions of the first search; no step of many directions."""
    root, row, done = four_rounds()
    searches: list[Search] = journal(root, "search")
    way: Search = store.read_json(root / "methods/one_shot_k/0/search.json")
    moved = [search.winner for search in searches if search.chosen]
    assert [c.policy for c in way.candidates] == [Policy(base="tabular"), *(winner.policy for winner in moved)]
    assert [c.score for c in way.candidates[1:]] == [winner.score for winner in moved]
    assert way.winner.policy == done.contender.policies[0]
    assert np.isnan(row["step"])
    assert row["entropy_base"] == searches[0].candidates[0].entropy
    assert row["entropy"] == moved[-1].entropy
    assert row["kl"] > moved[-1].kl, "farther than the last move alone"
    met = len(moved[0].score.problem_ids)  # winners meet all problems of a race, of which the first round has a quarter
    first = [problems_of(root, "selection")[name] for name in moved[0].score.problem_ids[: round(met / 4)]]
    engine, samples = Tabular("tabular", root, {}), moved[0].score.n[0]
    shard = tuple(request(problem, samples) for problem in first)
    (rollouts,) = engine.sample([shard], Policy(base="tabular"))
    scores = engine.score(rollouts, Policy(base="tabular"), temperature=1.0, kl_to=way.winner.policy)
    assert row["kl"] == pytest.approx(np.concatenate([score.kl_T for score in scores]).mean(), rel=1e-5)


def request(problem: Problem, samples: int) -> SampleRequest:
    """The draws of run seed 0 on a selection problem."""
    return SampleRequest(
        problem_id=problem.id,
        prompt=problem.prompt,
        sample_idxs=tuple(range(samples)),
        seeds=tuple(seeds.seed_for(0, "selection", problem.id, i) for i in range(samples)),
        temperature=1.0,
        max_tokens=4,
    )


def test_rounds_that_stay_pass_their_rollouts_on(tmp_path: Path) -> None:
    """8 rounds of four problems, of five levels in turn of which only the last is ever solved: a dead round, then live ones,
    with steps that nothing shows to be good on so few selection draws."""
    hard = "tabular:.0000001,.0000001,.0000001,.0000001,.5"
    root, row, done = run(tmp_path, "method.one_shot_k.k=8", budget=512, model=hard)
    assert (row["status"], row["train_rollouts"]) == ("ok", 512)
    raw: list[Direction] = journal(root, "direct")
    assert not any(search.chosen for search in journal(root, "search"))
    assert done.contender.policies == (Policy(base=hard),)
    assert [d.groups_used + d.groups_dead for d in raw] == [4 * number for number in range(2, 9)]
    assert raw[0].groups_used == 1
    assert raw[-1].groups_used == 6, "the live groups of 32 problems"
    assert (row["kl"], row["step"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (
            ("method.one_shot_k.k=129",),
            "129 updates were asked for; 16 training problems with 16 rollouts each make 1 to 16",
        ),
        (("method.one_shot_k.k=8", "selection_budget=16"), "2 selection rollouts for a search among 3 steps, of 16"),
    ],
)
def test_budgets_too_small_for_k(sets: tuple[str, ...], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        run(tmp_path, *sets)
