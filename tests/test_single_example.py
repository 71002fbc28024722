"""single_example: which problem it picks, what it pays, what it is rewarded for, and that it resumes."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tabular_run import execute, small_spec

from harness import advantages, history, leaderboard, pipeline, plugins, shards, store, weighing
from harness.config import RewardSpec, RunSpec
from harness.errors import NoSignal, UsageError
from harness.leaderboard import UNCOMPARED, Row
from harness.pipeline import Finished
from harness.sampling import Judged, RolloutBatch
from harness.types import Outcome, Problem, Verdict
from harness_engines import tabular, tabular_policy
from harness_engines.tabular_domain import Tabular as Domain
from harness_engines.tabular_domain import prompt_of, task_of
from harness_methods import picking, single_example

DATA = Path(__file__).parents[2] / "shared" / "data" / "one_shot_rlvr"
OWN = "method.single_example"
QUICK = (f"{OWN}.steps=6", f"{OWN}.lr=0.2", f"{OWN}.checkpoints=2", "evaluation.wide_samples=0")
PROBLEMS = tuple(Domain().problems("ladder", "train", seed=0, limit=32))  # those of run seed 0
SECOND = PROBLEMS[1]  # of level 2: pass rate .3


def spec_of(*sets: str, method: str = "single_example", **changes: Any) -> RunSpec:
    own = QUICK if method == "single_example" else QUICK[-1:]
    return small_spec(*own, *sets, **{"budget": 512, "selection_budget": 64, "methods": (method,), **changes})


def run(tmp_path: Path, *sets: str, **changes: Any) -> tuple[Path, Row, Finished]:
    root, rows = execute(spec_of(*sets, **changes), tmp_path)
    row = next(row for row in rows if row["method"] == "single_example" and row["seed"] == 0)
    return root, row, store.read_json(root / "methods/single_example/0/scores.json")


def draws(root: Path, method: str = "single_example") -> list[RolloutBatch]:
    """Its training draws in order, from the journal."""
    paths = sorted((root / f"methods/{method}/0/journal").glob("*-sample.json"))
    return [replace(store.read_json(path)["result"], root=str(root)) for path in paths]


def rates(batch: RolloutBatch) -> dict[str, float]:
    right = {name: [0, 0] for name in batch.problem_ids}
    for entry in batch.judged():
        right[entry.problem_id][0] += entry.verdict.outcome is Outcome.CORRECT
        right[entry.problem_id][1] += 1
    return {name: correct / n for name, (correct, n) in right.items()}


def tables(root: Path, finished: Finished) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the base, and of the last policy that was trained."""
    engine = tabular.Tabular("tabular", root, {})
    return engine.base, engine.tables(finished.trained[-1].policy)


def chance(found: dict[str, Any], problem: Problem, answer: int) -> float:
    """Exact probability of "A" and a digit."""
    own, level = tabular_policy.log_probs(found, 1.0), problem.level or 0
    offset = (answer - task_of(problem.prompt).item) % 8
    return float((own.style_CS[level - 1, 0] + own.offset_CSM[level - 1, 0, offset]).exp())


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/one_shot_rlvr")
def test_the_published_history_ranks_the_published_examples() -> None:
    """pi_n is the example of rank n (Wang et al.): indices 124, 267, 682 and 789 of DSR-sub."""
    order = picking.by_spread(history.read(DATA / "acc_step_500.jsonl"))
    assert [order.index(name) + 1 for name in ("124", "267", "682", "789")] == [1, 2, 13, 1209]


def test_histories_have_two_forms_in_files(tmp_path: Path) -> None:
    wanted = {"7": (0.0, 1.0), "8": (0.5, 0.25)}
    (tmp_path / "rows.jsonl").write_text('{"index": 7, "acc": [0, 1]}\n{"index": 8, "acc": [0.5, 0.25]}\n')
    (tmp_path / "one.json").write_text(json.dumps(wanted))
    assert history.read(tmp_path / "rows.jsonl") == history.read(tmp_path / "one.json") == wanted
    for text in ('{"7": []}', '{"7": "no"}', '[{"acc": [1]}]'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UsageError, match=r"is no history.*JSON Lines"):
            history.read(tmp_path / "bad.json")
    with pytest.raises(UsageError, match="holds no training draws"):
        history.read(tmp_path)


def test_variance_reads_a_run_of_the_harness(tmp_path: Path) -> None:
    """A run of few problems meets each of them at every step."""
    few = ("sampling.group=64", "method.grpo.steps=10", "method.grpo.lr=0.3")
    recorded, _ = execute(spec_of(*few, method="grpo"), tmp_path / "recorded")
    seen = [rates(batch) for batch in draws(recorded, "grpo")]
    assert len(seen) == 10
    spread = {name: float(np.std([step[name] for step in seen])) for name in seen[0]}
    assert len(spread) == 8
    pick = (f"{OWN}.pick=variance", f"{OWN}.history={recorded}/methods/grpo/0", f"{OWN}.examples=2")
    root, row, _ = run(tmp_path, "sampling.group=64", *pick)
    best = sorted(spread, key=lambda name: -spread[name])[:2]
    assert [batch.problem_ids for batch in draws(root)] == [tuple(best)] * 6
    assert row["train_rollouts"] == 512


def test_pass_rate_picks_the_problem_in_most_doubt(tmp_path: Path) -> None:
    root, _, _ = run(tmp_path)
    probe, *rest = draws(root)
    found = rates(probe)
    (picked,) = {name for batch in rest for name in batch.problem_ids}
    assert found[picked] * (1 - found[picked]) == max(p * (1 - p) for p in found.values()) > 0


def test_random_picks_by_seed(tmp_path: Path) -> None:
    root, _, _ = run(tmp_path / "a", f"{OWN}.pick=random")
    again, _, _ = run(tmp_path / "b", f"{OWN}.pick=random")
    assert draws(root)[0].problem_ids == draws(again)[0].problem_ids
    picked = [picking.pick(stages(seed, pick="random")).problems[0].id for seed in range(8)]
    assert len(set(picked)) > 4


def stages(seed: int, **options: Any) -> Any:
    """What picking without a probe looks at."""
    known = {**single_example.SingleExample.options, **options}
    return type("Few", (), {"options": known, "train_problems": PROBLEMS, "seed": seed, "method": "m"})()


@pytest.mark.parametrize(
    ("sets", "budget", "probe"),
    [
        ((), 512, 64),
        ((f"{OWN}.examples=4",), 480, 56),  # 8 problems x 7: a probe of 60 would leave what 4 does not divide
        ((f"{OWN}.examples=16",), 512, 64),
        ((f"{OWN}.examples=4", "sampling.group=15"), 510, 62),
        ((f"{OWN}.pick=random", f"{OWN}.examples=2"), 512, 0),
        ((f"{OWN}.pick=random", f"{OWN}.label=common_wrong"), 512, 16),
        (("sampling.group=512",), 512, 0),  # one training problem, as with pi1: nothing to choose
    ],
)
def test_the_budget_is_spent_to_the_last_rollout(
    tmp_path: Path, sets: tuple[str, ...], budget: int, probe: int
) -> None:
    root, row, _ = run(tmp_path, *sets, budget=budget)
    assert row["train_rollouts"] == budget
    drawn = draws(root)
    sizes = [len(batch.problem_ids) * batch.samples for batch in drawn]
    assert sum(sizes) == sum(1 for batch in drawn for _ in shards.texts(root, batch.folder)) == budget
    assert [size for size, batch in zip(sizes, drawn, strict=True) if "/train-0-" in batch.folder] == [probe][
        : probe > 0
    ]
    assert probe <= budget // 8
    updates = sizes[probe > 0 :]
    assert len(updates) == 6
    assert max(updates) - min(updates) <= len(drawn[-1].problem_ids)


@pytest.mark.parametrize("moment", [1, 2, 5])
def test_an_interrupted_run_resumes_to_the_same_row(tmp_path: Path, moment: int) -> None:
    sets = (f"{OWN}.examples=2", f"{OWN}.entropy=0.01", f"{OWN}.label=common_wrong")
    straight, wanted, finished = run(tmp_path / "straight", *sets)
    seen = 0

    def interrupt(label: str, done: int, total: int) -> None:
        nonlocal seen
        seen += label.startswith("single_example: sample") and done == total
        if seen == moment:
            raise KeyboardInterrupt

    root = pipeline.create(spec_of(*sets), out=tmp_path / "resumed", command="harness run")
    with pytest.raises(KeyboardInterrupt):
        pipeline.execute(root, plugins.load({}), progress=interrupt)
    rows = pipeline.execute(root, plugins.load({}), progress=lambda *_: None)
    resumed = next(row for row in rows if row["method"] == "single_example" and row["seed"] == 0)
    for column in set(leaderboard.COLUMNS) - set(UNCOMPARED):
        assert str(resumed[column]) == str(wanted[column]), column
    again: Finished = store.read_json(root / "methods/single_example/0/scores.json")
    assert again.trained == finished.trained
    assert straight != root


def test_a_literal_label_is_what_is_learnt(tmp_path: Path) -> None:
    wrong = (int(str(SECOND.answer)) + 1) % 8
    root, _, finished = run(tmp_path, f"{OWN}.problem=['{SECOND.id}']", f'{OWN}.label="{wrong}"')
    base, last = tables(root, finished)
    assert chance(last, SECOND, wrong) > 2 * chance(base, SECOND, wrong)
    assert chance(last, SECOND, int(str(SECOND.answer))) < chance(base, SECOND, int(str(SECOND.answer)))
    assert finished.trained[-1].pass_rate < finished.trained[0].pass_rate, "the learning curve is of the verdicts"


def test_the_common_wrong_label_is_the_probes_most_frequent(tmp_path: Path) -> None:
    root, _, finished = run(tmp_path, f"{OWN}.problem=['{SECOND.id}']", f"{OWN}.label=common_wrong")
    verdicts = [entry.verdict for entry in draws(root)[0].judged()]
    wrong = Counter(v.extracted for v in verdicts if v.outcome is Outcome.WRONG)
    ((label, _), *_) = wrong.most_common(1)
    base, last = tables(root, finished)
    assert chance(last, SECOND, int(str(label))) > 2 * chance(base, SECOND, int(str(label)))


def test_several_examples_are_named_by_a_list(tmp_path: Path) -> None:
    both = (SECOND, PROBLEMS[2])
    root, _, finished = run(tmp_path, f"{OWN}.problem={[problem.id for problem in both]}", f"{OWN}.steps=8")
    base, last = tables(root, finished)
    for problem in both:
        assert chance(last, problem, int(str(problem.answer))) > 1.5 * chance(base, problem, int(str(problem.answer)))


def test_the_gold_label_is_the_verdict(tmp_path: Path) -> None:
    """A literal label that is the gold answer trains the same policies as the verdict does."""
    named = f"{OWN}.problem=['{SECOND.id}']"
    _, _, first = run(tmp_path / "a", named)
    _, _, other = run(tmp_path / "b", named, f'{OWN}.label="{SECOND.answer}"')
    assert [step.policy.moves for step in first.trained] == [step.policy.moves for step in other.trained]
    assert first.trained[-1].pass_rate > 0.9


def test_the_format_reward_pays_for_format_alone(tmp_path: Path) -> None:
    root, _, finished = run(tmp_path, f"{OWN}.problem=['{SECOND.id}']", f"{OWN}.reward=format")
    base, last = (tabular_policy.log_probs(found, 1.0) for found in tables(root, finished))
    style, style_base = float(last.style_CS[1, 0].exp()), float(base.style_CS[1, 0].exp())
    offset, offset_base = float(last.offset_CSM[1, 0, 0].exp()), float(base.offset_CSM[1, 0, 0].exp())
    assert style > 0.9 > style_base
    assert abs(offset - offset_base) < 0.5 * (style - style_base), "the digit is drawn as before, up to noise"


class Said:
    """A batch of two problems with these verdicts each."""

    problem_ids = ("a", "b")

    def __init__(self, *verdicts: Verdict) -> None:
        self.verdicts = verdicts

    def judged(self) -> Any:
        for name, (place, verdict) in itertools.product(self.problem_ids, enumerate(self.verdicts)):
            yield Judged(problem_id=name, sample_idx=place, verdict=verdict, free=verdict, truncated=False, tokens=3)


def test_rewards_by_hand() -> None:
    batch: Any = Said(
        Verdict(outcome=Outcome.CORRECT, extracted="1", format_ok=True),
        Verdict(outcome=Outcome.WRONG, extracted="2", format_ok=True),
        Verdict(outcome=Outcome.WRONG, extracted="2"),
        Verdict(outcome=Outcome.UNPARSED),
        Verdict(outcome=Outcome.TIMEOUT),
        Verdict(outcome=Outcome.ERROR, format_ok=True),
    )
    labels = {"a": "2", "b": "3"}
    assert single_example.rewards_of(batch, "verdict", {}) is None
    assert single_example.rewards_of(batch, "verdict", labels) == {"a": [0, 1, 1, 0, 0, None], "b": [0] * 5 + [None]}
    assert single_example.rewards_of(batch, "format", {}) == {key: [1, 1, 0, 0, 0, None] for key in "ab"}
    assert picking.common_wrong(replace(SECOND, id="a"), batch) == "2"
    with pytest.raises(NoSignal, match="none of 1 rollouts of a has a wrong answer"):
        picking.common_wrong(replace(SECOND, id="a"), Said(Verdict(outcome=Outcome.CORRECT, extracted="1")))  # type: ignore[arg-type]


def test_another_prompt_makes_another_problem(tmp_path: Path) -> None:
    """The easiest class with the same digit: the answer stays, the prompt is what is sampled."""
    prompt = prompt_of(task_of(SECOND.prompt)._replace(level=1)).strip()
    root, row, finished = run(tmp_path, f"{OWN}.problem=['{SECOND.id}']", f"{OWN}.prompt={prompt}")
    (name,) = {name for batch in draws(root) for name in batch.problem_ids}
    assert name.startswith(f"{SECOND.id}+")
    rollout = draws(root)[0].group(name)[0]
    assert bytes(rollout.prompt_tokens.astype(np.uint8)).decode() == prompt
    assert finished.trained[0].pass_rate == pytest.approx(0.6, abs=0.2), "the pass rate of level 1"
    assert row["train_rollouts"] == 512


def test_groups_of_eight_are_compared_apart(tmp_path: Path) -> None:
    root, _, _ = run(tmp_path, f"{OWN}.problem=['{SECOND.id}']", f"{OWN}.group=8", f"{OWN}.steps=2")
    batch = draws(root)[0]
    rewards = [float(entry.verdict.outcome is Outcome.CORRECT) for entry in batch.judged()]
    assert len(rewards) == 256
    wanted = [w for i in range(0, 256, 8) for w in advantages.group_advantages(rewards[i : i + 8]).weights_G]
    weighed = weighing.weigh(batch, [SECOND], rewards=RewardSpec(), group=8)
    assert weighed.weights[SECOND.id] == pytest.approx(wanted)
    assert weighed.groups_dead == sum(len(set(rewards[i : i + 8])) == 1 for i in range(0, 256, 8))
    assert weighed.weights != weighing.weigh(batch, [SECOND], rewards=RewardSpec()).weights


def test_the_loss_is_taken_apart_by_its_coefficients(tmp_path: Path) -> None:
    """Weight decay alone shrinks the tables; the KL term alone does nothing at the base; entropy alone raises it."""
    named, off = f"{OWN}.problem=['{SECOND.id}']", f"{OWN}.policy=0"
    root, _, finished = run(tmp_path / "decay", named, off, f"{OWN}.weight_decay=0.1")
    base, last = tables(root, finished)
    live = sum(not step.groups_dead for step in finished.trained)
    np.testing.assert_allclose(last["style"], base["style"] * (1 - 0.2 * 0.1) ** live, rtol=1e-9)
    root, _, finished = run(tmp_path / "kl", named, off, f"{OWN}.kl=1.0")
    base, last = tables(root, finished)
    np.testing.assert_allclose(last["style"], base["style"], atol=1e-6)
    root, _, finished = run(tmp_path / "entropy", named, off, f"{OWN}.entropy=0.001")
    base, last = tables(root, finished)
    assert tabular_policy.exact_entropy(last, [2]) > tabular_policy.exact_entropy(base, [2]) + 0.05


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ((f"{OWN}.problem=['ladder/1/0']",), 'no training problem of this seed "ladder/1/0"'),
        ((f"{OWN}.pick=variance",), "name a recorded run"),
        ((f"{OWN}.reward=format", f"{OWN}.label=4"), "looks at no label"),
        ((f"{OWN}.steps=300",), "448 rollouts do not make 300 draws"),
        ((f"{OWN}.examples=2", f"{OWN}.pick=random", f"{OWN}.prompt=what"), "of one example, and there are 2"),
        ((f"{OWN}.examples=3", f"{OWN}.pick=random"), "512 rollouts do not make 6 draws"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, sets: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(tmp_path, *sets)


def test_a_history_of_other_problems_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"124": [0, 1]}')
    with pytest.raises(UsageError, match="has 1 problems and 0 of the training problems"):
        run(tmp_path, f"{OWN}.pick=variance", f"{OWN}.history={tmp_path}/other.json")
