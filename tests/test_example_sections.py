"""The report's sections by subject, after saturation and of words: values by hand, and nothing where nothing is to say."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tabular_run import evaluated, execute, small_spec

from harness import plugins, store
from harness.evaluating import Evaluation
from harness.report import html as pages
from harness.report import results, saturation, subjects, wording
from harness.report.results import Results
from harness.types import Candidate, Contender, Move, Policy, Problem, Score, Search, TrainStep

SHARES = {"format": 1.0, "truncated": 0.0, "unparsed": 0.0, "timeouts": 0.0, "errors": 0}
NAMES = tuple(
    f"{subject}{i}" for subject in ("algebra", "botany", "cubism") for i in range(12 if subject != "cubism" else 3)
)
TITLES = ("Gains by subject", "After training accuracy has saturated", "Words of reflection")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Results:
    spec = small_spec(methods=("base", "one_shot", "one_shot_shuffled"), seeds=2)
    root, _ = execute(spec, tmp_path_factory.mktemp("run"))
    return results.load(root)


def score(correct: Sequence[int]) -> Score:
    return Score(
        problem_ids=NAMES, n=(4,) * len(NAMES), correct=tuple(correct), correct_free=tuple(correct), **SHARES  # type: ignore[arg-type]
    )  # fmt: skip


def of_subjects(root: Path, found: Results, *seeds: tuple[Score, Score]) -> Results:
    """Results of the base and one method on problems of three subjects."""
    rows = [Problem(id=name, prompt=name, answer=0, subject=name.rstrip("0123456789")) for name in NAMES]
    store.write_lines(root / "problems.jsonl", [{"split": "test/ladder", "problem": problem} for problem in rows])
    done, made = found.finished["base", 0], {}
    for seed, pair in enumerate(seeds):
        for name, own in zip(("base", "one_shot"), pair, strict=True):
            made[name, seed] = evaluated(done, Evaluation(sampled=own, greedy=own, wide=None))
    return replace(found, root=root, finished=made)


def test_gains_by_subject_by_hand(tmp_path: Path, found: Results) -> None:
    base, better = score([1] * 27), score([3] * 6 + [1] * 6 + [1] * 11 + [2] + [4] * 3)
    first, second = subjects.rows(of_subjects(tmp_path, found, (base, better)))
    assert [(r["method"], r["subject"], r["problems"]) for r in (first, second)] == [
        ("one_shot", "algebra", 12), ("one_shot", "botany", 12)  # three problems of cubism tell nothing
    ]  # fmt: skip
    assert (first["base_pass@1"], first["pass@1"], first["delta"]) == pytest.approx((0.25, 0.5, 0.25))
    assert first["ci_low"] > 0
    assert second["delta"] == pytest.approx(1 / 48)
    assert second["ci_low"] < 0 < second["ci_high"]
    (algebra, botany) = subjects.table([first, second]).lines
    assert algebra[:2] == ["algebra (12)", "0.250"]
    assert botany[2].startswith("+0.021 [-0.0")


def test_gains_by_subject_over_seeds(tmp_path: Path, found: Results) -> None:
    base, better = score([1] * 27), score([3] * 12 + [1] * 15)
    first, second = subjects.rows(of_subjects(tmp_path, found, (base, better), (base, base)))
    assert (first["delta"], first["seeds"], second["delta"]) == pytest.approx((0.25, 2, 0.0))
    assert subjects.rows(of_subjects(tmp_path, found, (base, base))) == [], "a method that changes nothing"


def policy(step: int) -> Policy:
    moves = (Move(kind="checkpoint", path=f"{step}", digest=f"{step}"),) if step else ()
    return Policy(base="b", moves=moves)


def trained(rates: Sequence[float], steps: Sequence[int]) -> tuple[TrainStep, ...]:
    """Updates with these batch pass rates that left the policies of these steps."""
    return tuple(
        TrainStep(policy=policy(step), pass_rate=rate, groups_dead=0, mean_tokens=1.0, loss=0.0, grad_norm=0.0)
        for rate, step in zip(rates, steps, strict=True)
    )


def searched(found: Results, scores: dict[int, int], chosen: int) -> Search:
    """Candidates at these steps with so many of 27 problems right, the base first."""
    candidates = tuple(
        Candidate(policy=policy(step), step=0.0, relative_step=0.0, score=score([4] * right + [0] * (27 - right)))
        for step, right in scores.items()
    )
    return Search(candidates=candidates, chosen=chosen, best=chosen)


def test_saturation_by_hand(found: Results) -> None:
    """The third batch is drawn after two updates: the checkpoint of update 2 is the first one from after."""
    done = replace(
        found.finished["base", 0],
        trained=trained([0.2, 0.95, 0.96, 1.0, 0.9, 1.0], [1, 2, 3, 3, 5, 6]),  # a dead batch left update 3's policy
        search=searched(found, {0: 3, 1: 9, 2: 6, 3: 12, 6: 8}, chosen=3),
        contender=Contender(policies=(policy(3),)),
    )
    told = saturation.saturation("m", 0, done)
    assert (told.updates, told.saturated, told.chosen) == (6, 2, 3)
    assert (told.before, told.after) == pytest.approx((9 / 27, 12 / 27))
    assert saturation.table([told]).lines == [["m", "0", "6", "2", "0.333", "0.444", "3"]]


def test_a_batch_that_is_right_from_the_start_saturates_at_the_base(found: Results) -> None:
    done = replace(
        found.finished["base", 0],
        trained=trained([1.0, 1.0], [0, 2]),
        search=searched(found, {0: 5, 2: 4}, chosen=0),
        contender=Contender(policies=(policy(0),)),
    )
    told = saturation.saturation("m", 0, done)
    assert (told.saturated, told.before, told.chosen) == (0, None, 0)
    assert told.after == pytest.approx(5 / 27)


def test_words_are_counted_in_the_sampled_test_completions(found: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 problems x 4 completions in two seeds, those in style A are the ones in the demanded format."""
    monkeypatch.setattr(wording, "WORDS", ("a", "zebra"))
    counted = wording.rows(found)
    assert [one.method for one in counted] == found.methods
    for one in counted:
        shares = [found.finished[one.method, seed].evaluation.sampled.format for seed in (0, 1)]
        assert one.completions == 320
        assert one.holding == (round(160 * sum(shares)), 0)
        assert one.any == one.holding[0]
    assert counted[0].holding != counted[2].holding
    assert wording.markdown(found).startswith("**Words of reflection**")


def test_nothing_is_shown_where_nothing_is_to_say(found: Results) -> None:
    """The tabular domain has one subject and no words, and these methods train nothing."""
    assert (subjects.rows(found), wording.rows(found), saturation.rows(found)) == ([], [], [])
    assert subjects.markdown(found) == wording.markdown(found) == saturation.markdown(found) == ""
    page = pages.of_run(found)
    assert not any(title in page for title in TITLES)


def test_the_page_and_the_csv_hold_what_there_is(
    tmp_path: Path, found: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = of_subjects(tmp_path, found, (score([1] * 27), score([3] * 27)))
    done = replace(own.finished["one_shot", 0], trained=trained([1.0] * 4, [1, 2, 3, 4]))
    own.finished["one_shot", 0] = done
    monkeypatch.setattr(wording, "rows", lambda _: [wording.Counted("base", 4, (1, 0, 2), 3)])
    page = pages.of_run(own)
    assert all(f"<h3>{title}</h3>" in page for title in TITLES)
    monkeypatch.setattr(results, "load", lambda _: own)
    pages.write(tmp_path, plugins.load({}))
    with open(tmp_path / "figures/subjects.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["subject"], float(row["delta"])) for row in rows] == [("algebra", 0.5), ("botany", 0.5)]
