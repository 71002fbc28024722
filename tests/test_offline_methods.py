"""Methods that learn from the one base batch: what they keep, their closed forms, their budgets, and resuming them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tabular_kit import BASE, MODEL, flat
from tabular_run import execute, small_spec

from harness import leaderboard, pipeline, plugins, sampling, store, weighing
from harness.contracts import silent
from harness.objectives import ClippedPolicy, PolicyGradient, Preference
from harness.pipeline import Finished
from harness.sampling import Judged, RolloutBatch
from harness.types import Move, Outcome, Policy, Problem, Verdict
from harness.weighing import GradientBatch
from harness_engines import tabular_policy
from harness_engines.tabular import Tabular, TabularTrainer
from harness_engines.tabular_domain import Tabular as Domain
from harness_methods import rejection_sft

METHODS = ("rejection_sft", "one_batch_many_steps", "dpo")
SHIFTED = Policy(base="tabular", moves=(Move(kind="noise", path="", digest=f"{3:016x}", step=0.5),))


@dataclass
class Completion:
    text: str


class Recorded:
    """A batch of one problem, made of (text, outcome)."""

    problem_ids = ("p",)

    def __init__(self, entries: Sequence[tuple[str, Outcome]]) -> None:
        self.entries = entries

    def judged(self) -> list[Judged]:
        verdicts = [Verdict(outcome=outcome) for _, outcome in self.entries]
        return [
            Judged(problem_id="p", sample_idx=i, verdict=verdict, free=verdict, truncated=False, tokens=1)
            for i, verdict in enumerate(verdicts)
        ]

    def group(self, problem_id: str) -> tuple[Completion, ...]:
        return tuple(Completion(text) for text, _ in self.entries)


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(list(Outcome))), min_size=1, max_size=12),
    st.booleans(),
    st.integers(0, 5),
)
def test_what_is_kept(entries: list[tuple[str, Outcome]], dedupe: bool, cap: int) -> None:
    batch: Any = Recorded(entries)
    (chosen,) = rejection_sft.kept(batch, dedupe=dedupe, cap=cap).values()
    assert set(chosen) <= {0.0, 1.0}
    texts = [text for (text, _), reward in zip(entries, chosen, strict=True) if reward]
    right = Counter(text for text, outcome in entries if outcome is Outcome.CORRECT)
    distinct = Counter(dict.fromkeys(right, 1)) if dedupe else right
    assert Counter(texts) <= distinct
    assert len(texts) == min(cap or math.inf, distinct.total())


@pytest.fixture
def engine(tmp_path: Path) -> Tabular:
    return Tabular(MODEL, tmp_path, {"shard_rollouts": 64})


class Judge:
    """The domain itself, without a pool."""

    def verify(self, items: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [Domain().verify(problem, text) for problem, text in items]


@dataclass
class Drawn:
    problems: list[Problem]
    batch: RolloutBatch


@pytest.fixture
def drawn(engine: Tabular) -> Drawn:
    problems, pool = list(Domain().problems("ladder", "train", seed=0, limit=12)), Judge()
    draw = sampling.Draw(purpose="train/0", policy=BASE, temperature=1.0, samples=16, max_tokens=4)
    ((batch, _),) = sampling.collect(
        [draw],
        problems,
        run_seed=0,
        engine=engine,
        pool=pool,
        progress=silent,  # type: ignore[arg-type]
    )
    return Drawn(problems, batch)


def ascent(
    engine: Tabular, batch: GradientBatch, objective: Any, policy: Policy = SHIFTED
) -> Mapping[str, torch.Tensor]:
    return load_file(engine.root / engine.gradient(batch, policy, objective, out=Path("g.safetensors")).path)


def assert_close(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    torch.testing.assert_close(dict(found), dict(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("count", [1, 4, 1000])
def test_minibatches_of_pairs_average_to_the_batch(engine: Tabular, drawn: Drawn, count: int) -> None:
    whole = weighing.pair(drawn.batch, drawn.problems, per_problem=3, seed=0)
    parts = weighing.pair_minibatches(whole, count, seed=1)
    dealt = sorted((name, one) for part in parts for name, own in part.pairs.items() for one in own)
    assert dealt == sorted((name, one) for name, own in whole.pairs.items() for one in own)
    sizes = [part.normaliser for part in parts]
    assert len(parts) == min(count, whole.normaliser)
    assert max(sizes) - min(sizes) <= 1
    assert len({part.key for part in parts}) == len(parts)
    check_mean(engine, whole, parts, Preference(beta=0.7))


def check_mean(engine: Tabular, whole: GradientBatch, parts: Sequence[GradientBatch], goal: Any) -> None:
    """The parts' gradients, weighted by what they are divided by, make the whole batch's."""
    total = {name: torch.zeros_like(t) for name, t in engine.base.items()}
    for part in parts:
        for name, tensor in ascent(engine, part, goal).items():
            total[name] += tensor * (part.normaliser / whole.normaliser)
    assert_close(total, ascent(engine, whole, goal))


@pytest.mark.parametrize("scheme", ["grpo", "reinforce"])
def test_minibatches_of_groups_average_to_the_batch(engine: Tabular, drawn: Drawn, scheme: str) -> None:
    rewards = rejection_sft.kept(drawn.batch, dedupe=False, cap=0)
    whole = weighing.weigh(drawn.batch, drawn.problems, rewards=rewards, scheme=scheme)
    goal = ClippedPolicy(aggregation="token_mean", tokens=whole.mean_tokens)
    check_mean(engine, whole, weighing.minibatches(whole, 3, seed=2), goal)


def test_a_first_preference_step_is_half_beta_times_the_difference_of_likelihoods(
    engine: Tabular, drawn: Drawn
) -> None:
    pairs = weighing.pair(drawn.batch, drawn.problems, per_problem=3, seed=0)
    found = ascent(engine, pairs, Preference(beta=0.3), BASE)
    difference = ascent(engine, pairs, PolicyGradient(), BASE)  # weights 1 and -1
    assert_close(found, {name: 0.15 * tensor for name, tensor in difference.items()})


def run(out: Path, *sets: str, methods: Sequence[str] = METHODS, **changes: Any) -> Path:
    own = [f"method.{name}.lr=0.05" for name in methods if name in METHODS]
    few = ["evaluation.problems=60", "search.kl_targets=[0.1,0.4]", "evaluation.wide_methods=[]"]
    root, _ = execute(small_spec(*few, *own, *sets, methods=list(methods), **{"budget": 512, **changes}), out)
    return root


def finished(root: Path, method: str) -> Finished:
    done: Finished = store.read_json(root / f"methods/{method}/0/scores.json")
    return done


def row(root: Path, method: str) -> dict[str, str]:
    found = leaderboard.read_csv(root / "leaderboard.csv")
    return next(r for r in found if r["method"] == method and r["seed"] == "0")


def correct_by_level(root: Path, *, once: bool) -> list[int]:
    """Correct rollouts of the base batch at levels 1 to 5, or problems that have any."""
    shards = [store.read_json(path) for path in sorted((root / "verdicts/0").glob("train-0-*/*.json"))]
    right = [j.problem_id for shard in shards for j in shard.judged if j.verdict.outcome is Outcome.CORRECT]
    counts = Counter(int(name.split("/")[1]) for name in (set(right) if once else right))
    return [counts[level] for level in range(1, 6)]


def test_one_base_batch_for_all_and_exact_budgets(tmp_path: Path) -> None:
    """Everyone pays for all of it; updates and candidates are as many as the options say."""
    sets = ["method.rejection_sft.minibatch=8", "method.rejection_sft.dedupe=true", "method.dpo.minibatch=8"]
    root = run(tmp_path, *sets, methods=("one_shot", *METHODS))
    assert len(list((root / "rollouts/0").glob("train-*"))) == 1
    kept = sum(correct_by_level(root, once=True))
    wanted = {"rejection_sft": 4 * round(kept / 8), "one_batch_many_steps": 32}
    for method in METHODS:
        found, done = row(root, method), finished(root, method)
        assert found["status"].startswith("ok")
        assert int(found["train_rollouts"]) == 512
        assert 0 < int(found["selection_rollouts"]) <= 512
        assert int(found["updates"]) == len(done.trained) == wanted.get(method, len(done.trained))
        assert done.search is not None
        assert len({candidate.policy.id for candidate in done.search.candidates}) == 5, "the base and four epochs"
        assert float(found["ci_low"]) > 0.05, "it learns"
    assert finished(root, "dpo").trained[0].loss == pytest.approx(math.log(2))


@pytest.mark.parametrize(("dedupe", "cap"), [(True, 4), (False, 0)])
def test_one_step_follows_the_log_likelihood_of_what_is_kept(tmp_path: Path, dedupe: bool, cap: int) -> None:
    """A problem has one right text here: without dedupe every correct rollout counts, with it every solved problem."""
    sets = ["mode=one_step", "direction=raw", f"dedupe={str(dedupe).lower()}", f"cap={cap}"]
    root = run(tmp_path, *(f"method.rejection_sft.{s}" for s in sets), methods=["rejection_sft"])
    done, counts_C = finished(root, "rejection_sft"), torch.tensor(correct_by_level(root, once=dedupe))
    assert done.direction is not None
    base = Tabular("tabular", tmp_path, {"shard_rollouts": 64}).base
    live = {name: t.clone().requires_grad_() for name, t in base.items()}
    style_CS, offset_CSM = tabular_policy.log_probs(live, 1.0)
    (((style_CS[:, 0] + offset_CSM[:, 0, 0]) * counts_C).sum() / counts_C.sum()).backward()
    assert_close(load_file(root / done.direction.path), {name: t.grad for name, t in live.items()})
    assert row(root, "rejection_sft")["updates"] == "0"
    assert float(row(root, "rejection_sft")["ci_low"]) > 0


def test_epochs_end_at_the_greatest_likelihood(tmp_path: Path) -> None:
    """Trained to the end on all that is right, the policy gives the one right text with certainty."""
    sets = ["epochs=60", "minibatch=100000", "lr=0.5", "checkpoints=1", "dedupe=false"]
    root = run(tmp_path, *(f"method.rejection_sft.{s}" for s in sets), methods=["rejection_sft"])
    last = finished(root, "rejection_sft").trained[-1].policy
    tables = Tabular("tabular", root, {"shard_rollouts": 64}).tables(last)
    rates = [tabular_policy.pass_rate(tables, level) for level in range(1, 6)]
    seen = correct_by_level(root, once=False)
    assert min(rate for rate, count in zip(rates, seen, strict=True) if count) > 0.99


def test_a_single_update_is_the_sign_of_the_one_shot_gradient(tmp_path: Path) -> None:
    """Ratios are 1, and the first step of Adam is lr x sign."""
    sets = ["epochs=1", "updates_per_batch=1", "checkpoints=1", "aggregation=sequence_sum", "clip_norm=0"]
    one = [f"method.one_batch_many_steps.{s}" for s in sets]
    methods = ["one_shot", "one_batch_many_steps"]
    root = run(tmp_path, *one, "method.one_shot.direction=raw", methods=methods)
    engine = Tabular("tabular", root, {"shard_rollouts": 64})
    (step,), direction = finished(root, "one_batch_many_steps").trained, finished(root, "one_shot").direction
    assert direction is not None
    raw = torch.from_numpy(flat(load_file(root / direction.path)))
    moved = torch.from_numpy(flat(engine.tables(step.policy)) - flat(engine.base))
    seen = raw.abs() > 1e-5
    assert int(seen.sum()) > 20
    torch.testing.assert_close(moved[seen], 0.05 * raw[seen].sign(), rtol=2e-3, atol=0)
    assert step.grad_norm == pytest.approx(float(raw.norm()), rel=1e-6)


def test_nothing_correct_is_the_zero_step(tmp_path: Path) -> None:
    root = run(tmp_path, methods=METHODS, model="tabular:1e-12")
    for method in METHODS:
        found = row(root, method)
        assert found["status"].startswith("no signal")
        assert (found["train_rollouts"], found["selection_rollouts"], found["updates"]) == ("512", "0", "0")
        assert float(found["delta"]) == 0
    assert "nothing to imitate" in row(root, "rejection_sft")["status"]


def test_all_correct_leaves_no_pairs_but_likelihood(tmp_path: Path) -> None:
    root = run(tmp_path, methods=("rejection_sft", "dpo"), model="tabular:.999999")
    assert row(root, "rejection_sft")["status"].startswith("ok")
    assert row(root, "dpo")["status"].startswith("no signal")


def test_resumed_equals_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each method is killed within an update; finished updates are not done again."""
    short = [f"method.{name}.epochs=2" for name in METHODS]
    sets = ["method.dpo.minibatch=8", "method.rejection_sft.minibatch=8", *short]
    straight = run(tmp_path / "straight", *sets)
    plain, calls = TabularTrainer.step, Counter[str]()

    def failing(self: TabularTrainer, batch: Any, objective: Any) -> Any:
        calls["all"] += 1
        method = type(objective).__name__
        calls[method] += 1
        if calls[method] == 5:
            raise KeyboardInterrupt
        return plain(self, batch, objective)

    monkeypatch.setattr(TabularTrainer, "step", failing)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", *sets)
    (root,) = (tmp_path / "killed").iterdir()
    for left in (2, 1, 0):
        try:
            pipeline.execute(root, plugins.load({}), progress=lambda *_: None)
        except KeyboardInterrupt:
            assert left
    for method in METHODS:
        for column in set(leaderboard.COLUMNS) - set(leaderboard.UNCOMPARED):
            assert row(root, method)[column] == row(straight, method)[column], (method, column)
    assert calls["all"] == sum(len(finished(straight, method).trained) for method in METHODS) + 3
