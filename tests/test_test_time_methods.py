"""majority, best_of_n, in_context, random_search_vote: answers counted again by hand, costs where they arise, oracles marked."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from tabular_run import execute, small_spec, temporary

from harness import console, leaderboard, plugins, seeds, store
from harness.contracts import EngineLimits
from harness.leaderboard import Row
from harness.pipeline import Finished
from harness.plugins import Plugins
from harness.report import html as pages
from harness.report import results, tables
from harness.types import Outcome, Policy, Problem, Rollout, SampleRequest, Search, Shard
from harness_engines.tabular import Tabular
from harness_engines.tabular_domain import ANSWERS, task_of
from harness_engines.tabular_domain import Tabular as Domain
from harness_engines.tabular_policy import pass_rate

MODEL = "tabular"
METHODS = ("one_shot", "majority", "best_of_n", "random_search", "random_search_vote")
FEW = tuple(
    f"method.{name}.{option}"
    for name in ("random_search", "random_search_vote")
    for option in ("perturbations=15", "sigmas=[0.1, 0.2]")
)


@functools.cache
def finished() -> tuple[Path, dict[str, Row]]:
    root, rows = execute(small_spec(*FEW, "method.random_search_vote.keep=3", methods=METHODS), temporary())
    return root, {row["method"]: row for row in rows if row["seed"] == 0}


def done(root: Path, method: str) -> Finished:
    found: Finished = store.read_json(root / f"methods/{method}/0/scores.json")
    return found


def problems(root: Path, split: str) -> list[Problem]:
    lines = store.read_lines(root / "problems.jsonl")
    return [line["problem"] for line in lines if line["split"].startswith(split)]


def drawn(engine: Tabular, problem: Problem, policy: Policy, *, n: int, greedy: bool = False) -> list[str]:
    """Texts of the test draws of run seed 0 (greedy ones have no seed of their own)."""
    request = SampleRequest(
        problem_id=problem.id,
        prompt=problem.prompt,
        sample_idxs=tuple(range(n)),
        seeds=tuple(seeds.seed_for(0, "test", problem.id, i) for i in range(n)),
        temperature=0.0 if greedy else 1.0,
        max_tokens=4,
    )
    ((*rollouts,),) = engine.sample([(request,)], policy)
    return [rollout.text for rollout in rollouts]


def elected(problem: Problem, texts: Sequence[str]) -> bool:
    """Whether the most frequent number after an "A" is right; the first of equals wins, and no number is wrong."""
    votes = Counter(text[1:] for text in texts if text.startswith("A") and text[1:].isdigit())
    return bool(votes) and votes.most_common(1)[0][0] == str(problem.answer)


def test_majority_is_the_vote_of_sixteen_draws_of_the_base() -> None:
    root, rows = finished()
    tests, engine = problems(root, "test"), Tabular(MODEL, root, {})
    expected = tuple(int(elected(p, drawn(engine, p, Policy(base=MODEL), n=16))) for p in tests)
    score = done(root, "majority").evaluation.sampled
    assert score.correct == expected
    assert set(score.n) == {1}
    assert rows["majority"]["pass@1"] == pytest.approx(sum(expected) / len(tests))


def test_best_of_n_is_one_minus_the_chance_that_all_fail() -> None:
    root, rows = finished()
    tests, tables_ = problems(root, "test"), Tabular(MODEL, root, {}).base
    chances = [1 - (1 - pass_rate(tables_, p.level or 0)) ** 16 for p in tests]
    spread = math.sqrt(sum(c * (1 - c) for c in chances)) / len(tests)
    assert rows["best_of_n"]["pass@1"] == pytest.approx(sum(chances) / len(tests), abs=3.5 * spread)
    base = done(root, "base").evaluation.sampled
    best = done(root, "best_of_n").evaluation.sampled
    assert all(b for b, c in zip(best.correct, base.correct, strict=True) if c), "the base's draws are among them"


@pytest.mark.parametrize("method", ["majority", "best_of_n"])
def test_what_is_spent_at_test_time_is_counted_there(method: str) -> None:
    _, rows = finished()
    row = rows[method]
    assert (row["train_rollouts"], row["selection_rollouts"], row["updates"]) == (0, 0, 0)
    assert (row["eval_rollouts"], row["test_samples"]) == (40 * 16 + 40, 16)
    assert row["greedy"] == rows["base"]["greedy"], "greedy completions of one policy all agree"
    assert math.isnan(row["pass@4"])
    assert math.isnan(row["pass@16"])
    assert row["relative_step"] == 0


def test_rows_and_tables_call_an_oracle_one(tmp_path: Path) -> None:
    root, rows = finished()
    assert rows["best_of_n"]["status"] == "ok (oracle, too few)"
    assert rows["majority"]["status"] == "ok (too few)"
    aggregates = [row for row in leaderboard.read_csv(root / "leaderboard.csv") if row["seed"] == "all"]
    ((_, group),) = leaderboard.ranked(aggregates)
    screen = Console(width=200, record=True, file=open(tmp_path / "screen", "w"))  # noqa: SIM115
    screen.print(console.table("", group))
    found = results.load(root)
    for text in (screen.export_text(), tables.markdown(group), pages.write(root, Plugins()).read_text()):
        assert "best_of_n (oracle)" in text
        assert "majority (oracle)" not in text
    assert {p["other"] for p in results.pairs(found)} >= {"best_of_n (oracle)", "majority", "base"}


def test_an_oracle_stays_one_over_seeds() -> None:
    assert leaderboard._status(["ok (oracle)", "ok (oracle, too few)"]) == "ok (oracle, too few)"
    assert leaderboard._status(["ok", "no signal: x", "ok"]) == "1 of 3 seeds: no signal: x"


def test_the_best_of_the_probe_vote_greedily() -> None:
    root, rows = finished()
    probe: Search = store.read_json(root / "methods/random_search_vote/0/probe.json")
    ranked = sorted(probe.candidates[1:], key=lambda c: -c.score.accuracy)
    contender = done(root, "random_search_vote").contender
    assert contender.policies == tuple(c.policy for c in ranked[:3])
    tests, engine = problems(root, "test"), Tabular(MODEL, root, {})
    texts = {p.id: [drawn(engine, p, policy, n=1, greedy=True)[0] for policy in contender.policies] for p in tests}
    expected = tuple(int(elected(p, texts[p.id])) for p in tests)
    assert done(root, "random_search_vote").evaluation.sampled.correct == expected
    row = rows["random_search_vote"]
    assert row["temperature"] == 0
    assert row["greedy"] == row["pass@1"]
    assert row["eval_rollouts"] == 3 * 40, "each voter once for each problem: greedy is not drawn again"
    assert (row["train_rollouts"], row["selection_rollouts"]) == (256, 0)


def test_the_vote_and_the_single_policy_share_one_probe() -> None:
    root, _ = finished()
    probes = [store.read_json(root / f"methods/{m}/0/probe.json") for m in ("random_search", "random_search_vote")]
    assert probes[0] == probes[1]
    assert len(list((root / "rollouts/0").glob("probe-*"))) == 16, "the base and 15 perturbations, drawn once"


# in_context


class Watching(Tabular):
    """Keeps the prompts it was asked for, by problem."""

    prompts: list[tuple[str, str]] = []  # noqa: RUF012 - shared by the engines of one test

    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        Watching.prompts += [(request.problem_id, request.prompt) for shard in shards for request in shard]
        return super().sample(shards, policy)


class Helped(Watching):
    """Always right behind an example of level 2."""

    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        for shard, rollouts in zip(shards, super().sample(shards, policy), strict=True):
            told = {request.problem_id: request.prompt for request in shard}
            helped = {n for n, p in told.items() if p.startswith("class 2 ") and p.count("class ") > 1}
            right = {name: f"A{task_of(told[name]).item % ANSWERS}" for name in helped}
            yield [replace(r, text=right.get(r.problem_id, r.text)) for r in rollouts]


class Cramped(Watching):
    context = 0

    def limits(self) -> EngineLimits:
        return super().limits()._replace(context=self.context)


def shown(
    tmp_path: Path, *sets: str, engine: type[Tabular] = Watching, budget: int = 256
) -> tuple[Path, Row, list[str]]:
    """A run of in_context, its row, and the prefixes that its selection draws had, in order."""
    Watching.prompts = []
    found = plugins.load({})
    entry = found.registered["engine", "tabular"]
    found.registered["engine", "tabular"] = replace(entry, target=f"{__name__}:{engine.__name__}")
    root, rows = execute(small_spec(*sets, methods=("in_context",), budget=budget), tmp_path, found=found)
    selection: Mapping[str, Problem] = {p.id: p for p in problems(root, "selection")}
    asked = [p.removesuffix(selection[name].prompt) for name, p in Watching.prompts if name in selection]
    row = next(row for row in rows if row["method"] == "in_context" and row["seed"] == 0)
    return root, row, list(dict.fromkeys(asked))


def test_examples_are_solved_training_problems_of_the_base_batch(tmp_path: Path) -> None:
    root, row, prefixes = shown(tmp_path, 'method.in_context.separator=" ; "')
    train = {p.prompt: p for p in problems(root, "train/0")}
    assert prefixes[0] == ""
    assert len(prefixes) == 8
    used = []
    for prefix in prefixes[1:]:
        (prompt,) = [prompt for prompt in train if prefix.startswith(prompt)]
        completion = prefix.removeprefix(prompt).removesuffix(" ; ")
        assert Domain().verify(train[prompt], completion).outcome is Outcome.CORRECT
        used.append(prompt)
    assert len(set(used)) == 7, "of different problems"
    assert (row["train_rollouts"], row["updates"]) == (256, 0)
    assert row["selection_rollouts"] == 256


def test_an_example_that_changes_nothing_is_not_chosen(tmp_path: Path) -> None:
    """This engine reads the last task of a prompt, so no example has an effect: all score alike, and none is safest."""
    root, row, _ = shown(tmp_path)
    search: Search = store.read_json(root / "methods/in_context/0/search.json")
    assert len({c.score.correct for c in search.candidates}) == 1
    assert search.chosen == 0
    assert done(root, "in_context").contender.prefix == ""
    assert (row["delta"], row["ci_low"]) == (0.0, "")


def test_the_chosen_example_stands_before_every_test_prompt(tmp_path: Path) -> None:
    root, row, prefixes = shown(tmp_path, engine=Helped)
    search: Search = store.read_json(root / "methods/in_context/0/search.json")
    helpful = [prefix.startswith("class 2 ") for prefix in prefixes]
    assert True in helpful
    assert search.chosen == helpful.index(True)
    assert done(root, "in_context").contender.prefix == prefixes[search.chosen]
    assert (row["pass@1"], row["greedy"]) == (1.0, 1.0)


def test_an_example_leaves_room_for_a_prompt_and_a_whole_completion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of this engine are bytes, here all of one length; a completion is 3 tokens, and may be 4."""
    root, _, everything = shown(tmp_path / "all")
    (length,) = {len(p.prompt) for p in problems(root, "train/0")}
    monkeypatch.setattr(Cramped, "context", 2 * length + 3 + 4)
    assert shown(tmp_path / "enough", engine=Cramped)[2] == everything
    monkeypatch.setattr(Cramped, "context", 2 * length + 3 + 4 - 1)
    _, row, prefixes = shown(tmp_path / "one short", engine=Cramped)
    assert prefixes == [], "nothing was drawn on selection problems"
    assert f"room for a prompt in a context of {2 * length + 6} tokens" in row["status"]


def test_without_a_solved_problem_there_is_nothing_to_show(tmp_path: Path) -> None:
    _, rows = execute(small_spec(methods=("in_context",), model="tabular:.0000000001"), tmp_path)
    row = next(row for row in rows if row["method"] == "in_context")
    assert str(row["status"]).startswith("no signal: the base solved no training problem")
    assert row["train_rollouts"] == 256
