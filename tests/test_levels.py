"""The report's table by level: values by hand, and agreement with the rows of a run."""

from __future__ import annotations

import csv
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tabular_run import SMALL, evaluated, finished, invoke

from harness import store, student
from harness.evaluating import Evaluation
from harness.report import html as pages
from harness.report import levels, results
from harness.report.results import Results
from harness.types import Problem, Score

LEVEL_OF = {"a": 1, "b": 1, "c": 1, "d": 1, "e": 2, "f": 2, "g": None}


@pytest.fixture(scope="module")
def found() -> Results:
    return results.load(finished())


def score(correct: Sequence[int], n: Sequence[int]) -> Score:
    shares = {"format": 1.0, "truncated": 0.0, "unparsed": 0.0, "timeouts": 0.0, "errors": 0}
    counts = {"n": tuple(n), "correct": tuple(correct), "correct_free": tuple(correct)}
    return Score(problem_ids=tuple(LEVEL_OF)[: len(n)], **counts, **shares)  # type: ignore[arg-type]


def made(root: Path, found: Results, seeds: Sequence[Evaluation], level_of: Mapping[str, int | None]) -> Results:
    """Results of the base alone, with these evaluations and levels."""
    problems = [Problem(id=name, prompt=name, answer=0, level=level) for name, level in level_of.items()]
    lines = [{"split": "test/ladder", "problem": problem} for problem in problems]
    other = Problem(id="t", prompt="t", answer=0, level=3)
    store.write_lines(root / "problems.jsonl", [{"split": "train/0", "problem": other}, *lines])
    done = found.finished["base", 0]
    by_seed = {("base", seed): evaluated(done, evaluation) for seed, evaluation in enumerate(seeds)}
    return replace(found, root=root, finished=by_seed)


def sampled(*correct: int, n: int = 4, wide: Score | None = None) -> Evaluation:
    found = score(correct, [n] * len(correct))
    return Evaluation(sampled=found, greedy=found, wide=wide)


def on_logits(rate: float, half: float) -> tuple[float, float]:
    """rate +- half, as far on the logit's scale, where a step is 1 / (rate (1 - rate)) of one in the rate."""
    middle, off = math.log(rate / (1 - rate)), half / (rate * (1 - rate))
    return 1 / (1 + math.exp(off - middle)), 1 / (1 + math.exp(-off - middle))


def test_one_seed_by_hand(tmp_path: Path, found: Results) -> None:
    wide = score([1, 0, 0, 0, 17, 2], [17, 16, 16, 15, 17, 2])
    first, second = levels.rows(made(tmp_path, found, [sampled(2, 1, 2, 1, 0, 0, 4, wide=wide)], LEVEL_OF))
    assert [(r["method"], r["level"], r["problems"], r["seeds"]) for r in (first, second)] == [
        ("base", 1, 4, 1), ("base", 2, 2, 1)
    ]  # fmt: skip
    half = 3.182446 * math.sqrt(1 / 48) / 2  # t(0.975, 3), and rates of .5 and .25 have variance 1 / 48
    assert (first["pass@1"], first["ci_low"], first["ci_high"]) == pytest.approx((0.375, *on_logits(0.375, half)))
    # Nothing solved says: at most a share u of problems is solvable, where (1 - u)^2 = .025.
    assert (second["pass@1"], second["ci_low"], second["ci_high"]) == pytest.approx((0, 0, 1 - math.sqrt(0.025)))
    assert first["pass@16"] == pytest.approx(16 / 17 / 3)  # 17 draws with one right, twice none; 15 draws are too few
    assert second["pass@16"] == 1.0


def test_several_seeds_by_hand(tmp_path: Path, found: Results) -> None:
    seeds = [sampled(2, 1, 2, 1, 4, 4, 4), sampled(3, 2, 2, 1, 4, 4, 4)]
    first, second = levels.rows(made(tmp_path, found, seeds, LEVEL_OF))
    # Means over seeds 5 3 4 2 eighths by problem, 3 4 eighths by seed; residuals +-1/16 in every cell, 3 degrees of freedom.
    from_problems, seen, rest = (5 / 3) / 64 / 4, (1 / 128) / 2, 8 / 256 / 3 / 8
    df = 1 / (seen / (from_problems + seen) / 1 + from_problems / (from_problems + seen) / 3)
    half = student.quantile(0.975, df) * math.sqrt(from_problems + seen - rest)
    assert (first["pass@1"], first["ci_low"], first["ci_high"]) == pytest.approx((0.4375, *on_logits(0.4375, half)))
    assert half > 0.4375, "would reach below 0"
    assert (second["pass@1"], second["ci_low"], second["ci_high"]) == pytest.approx((1, math.sqrt(0.025), 1))
    assert first["seeds"] == 2
    assert math.isnan(first["pass@16"])


def test_intervals_stay_in_range_and_lost_problems_are_left_out(tmp_path: Path, found: Results) -> None:
    lost = Evaluation(sampled=score([4, 0, 0, 4, 0, 0], [4, 4, 0, 4, 0, 0]), greedy=score([], []), wide=None)
    first, second = levels.rows(made(tmp_path, found, [lost], LEVEL_OF))
    assert first["pass@1"] == pytest.approx(2 / 3)
    assert 0.0 < first["ci_low"] < 0.01, "t(0.975, 2) of three problems would reach far outside"
    assert 0.99 < first["ci_high"] < 1.0
    assert math.isnan(second["pass@1"])


def test_a_benchmark_without_levels_has_no_section(tmp_path: Path, found: Results) -> None:
    without = made(tmp_path, found, [sampled(1, 1, 1, 1, 1, 1, 1)], dict.fromkeys(LEVEL_OF))
    assert levels.rows(without) == []
    assert levels.markdown(without) == ""
    rows = [row for row in found.rows if row["method"] == "base"]
    assert "have no levels" in pages.of_run(replace(without, rows=rows))
    assert "have no levels" not in (finished() / "report.html").read_text(encoding="utf-8")


def test_levels_average_to_the_rows_of_the_run(found: Results) -> None:
    own = levels.rows(found)
    assert sum(row["problems"] for row in own if row["method"] == "base") == 40
    for total in found.aggregate:
        rows = [row for row in own if row["method"] == total["method"]]
        assert [row["level"] for row in rows] == [1, 2, 3, 4, 5]
        assert {row["problems"] for row in rows} == {8}
        assert sum(row["pass@1"] for row in rows) / 5 == pytest.approx(float(total["pass@1"]))
        assert all(0 <= row["ci_low"] <= row["pass@1"] <= row["ci_high"] <= 1 for row in rows)


def test_page_and_csv_hold_the_table(found: Results) -> None:
    page = (finished() / "report.html").read_text(encoding="utf-8")
    section = page.partition("<h2>By level and subject</h2>")[2].partition("<h2>")[0]
    own = levels.rows(found)
    shown = levels.table(own)
    assert shown.head == ["method", "score", *(f"level {level} (8)" for level in range(1, 6))]
    assert [line[0] for line in shown.lines] == found.methods  # 8 wide draws give no pass@16
    for cell in (*shown.head, *(cell for line in shown.lines for cell in line)):
        assert html.escape(cell) in section
    with open(finished() / "figures/levels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["method"], int(r["level"]), float(r["pass@1"])) for r in rows] == [
        (r["method"], r["level"], r["pass@1"]) for r in own
    ]
    assert {r["pass@16"] for r in rows} == {""}


def test_a_run_prints_the_table_and_a_report_does_not(tmp_path: Path) -> None:
    wide = [*SMALL, "--set", "evaluation.wide_samples=32", "--set", "evaluation.wide_problems=20"]
    result = invoke("run", *wide, "--quiet", "--method", "base", "--out", str(tmp_path))
    (root,) = tmp_path.iterdir()
    printed = levels.markdown(results.load(root))
    assert printed in result.output
    assert [line.split("|")[2].strip() for line in printed.splitlines()[4:]] == ["pass@1", "pass@16"]
    assert invoke("report", str(root)).output == f"{root / 'report.html'}\n"
