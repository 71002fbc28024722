"""Where low base pass rates break one_shot: a suite's table, its figure's data, and the batches it says are nested."""

from __future__ import annotations

import csv
import functools
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from tabular_run import invoke, small_spec, temporary

from harness import leaderboard, pipeline, plugins, selecting, suiting
from harness.report import low_rates, results
from harness.run import Run
from harness.stages import Stages
from harness_methods import weakening

SUITE = """
figure = "pass_rate"
[[prepare]]
module = "harness_methods.weakening"
arguments = ["--domain", "{domain}", "--engine", "tabular", "--model", "tabular", "--out", "OUT/{domain}", "--rate", "0.03",
             "--budget", "256"]
makes = "OUT/{domain}/stepped.json"
[shared]
engine.name = "tabular"
selection_budget = 192
workers = 1
search.kl_targets = [0.02, 0.16]
evaluation = {problems = 40, samples = 2, wide_methods = [], bin_samples = 0}
[grid]
domain = ["tabular", "math"]
"way: benchmark, model" = [
    ["base", "ladder", "tabular"],
    ["level 1", "ladder@1", "tabular:.001"],
    ["stepped 0.03", "ladder", "OUT/{domain}/0.03"],
]
"budget, methods" = [[64, ["one_shot"]], [256, ["one_shot", "one_shot_shuffled", "grpo"]]]
"""


class Made(NamedTuple):
    root: Path
    text: str


@functools.cache
def made() -> Made:
    """The suite's preparation and runs, all in this process; then the command, which finds them done."""
    out = temporary()
    path = out / "low.toml"
    path.write_text(SUITE.replace("OUT", str(out)))
    suite = suiting.load(str(path), domain="tabular", changes={}, sets=())
    (prepare,) = suite.prepare
    assert CliRunner().invoke(weakening.main, list(prepare.arguments)).exit_code == 0
    root = suite.folder(out)
    suiting.open_folder(suite, root, "harness run")
    for point in suite.points:
        pipeline.open_folder(root / point.name, point.spec, command="harness run", date="20260101-000000")
        pipeline.execute(root / point.name, plugins.load(), progress=lambda *_: None)
        pipeline.mark_done(root / point.name)
    result = invoke("run", "--suite", str(path), "--domain", "tabular", "--out", str(out), "--quiet")
    assert result.exit_code == 0, result.output
    return Made(root, result.stdout)


def found() -> list[dict[str, Any]]:
    suite = suiting.reopen(made().root).suite
    return low_rates.rows([(point, results.load(made().root / point.name)) for point in suite.points])


def test_rows_say_what_the_leaderboard_and_the_batches_say() -> None:
    board = {
        (row["run_id"], row["method"]): row
        for row in leaderboard.read_csv(made().root / "leaderboard.csv")
        if row["seed"] == "all"
    }
    rows = found()
    assert [(row["way"], row["base"], row["budget"]) for row in rows] == [
        (base.split("-")[0], base, budget) for base in ("base", "level-1", "stepped-0.03") for budget in (64, 256)
    ]
    for row, point in zip(rows, suiting.reopen(made().root).suite.points, strict=True):
        own = board[point.name, "one_shot"]
        assert row["gain"] == float(own["delta"])
        assert row["gain_free"] == pytest.approx(float(own["format_free"]) - row["base_free"])
        assert row["batch_judged"] == row["budget"]
        if own["batch_pass_rate"]:
            assert row["batch_correct"] / row["budget"] == float(own["batch_pass_rate"])
            assert row["dead"] == float(own["dead_groups"]) / (row["budget"] // 16)
        assert (row["grpo"] is None) == (row["budget"] == 64)
        if row["grpo"] is not None:
            assert row["grpo"] == float(board[point.name, "grpo"]["delta"])
            assert row["shuffled"] == float(board[point.name, "one_shot_shuffled"]["delta"])


def test_p_is_that_of_the_largest_batch_and_never_zero() -> None:
    rows = {(row["base"], row["budget"]): row for row in found()}
    for base in ("base", "stepped-0.03"):
        largest = rows[base, 256]
        assert rows[base, 64]["p"] == largest["p"] == largest["batch_correct"] / 256
        assert rows[base, 64]["correct"] == 64 * largest["p"]
    none = rows["level-1", 64]
    assert none["batch_correct"] == 0
    assert none["dead"] == 1.0
    assert (none["gain"], none["best"], none["snr"]) == (0.0, None, None), "no direction: the zero step"
    moved = rows["stepped-0.03", 256]
    assert moved["best"] == pytest.approx(moved["gain"] + moved["regret"])
    assert none["p"] in (0.5 / 256, 1 / 256, 2 / 256)


def test_the_table_and_the_figure_are_printed_and_written() -> None:
    text = made().text
    assert "where low base pass rates break one_shot: tabular" in text
    assert max(map(len, text.splitlines())) <= 200
    (line,) = [line for line in text.splitlines() if line.startswith("│ stepped-0.03 │ 0.") and " │ 64 " in line]
    (row,) = [row for row in found() if (row["base"], row["budget"]) == ("stepped-0.03", 64)]
    assert f"{row['gain']:+.3f} [{row['ci_low']:+.3f}, {row['ci_high']:+.3f}]" in line, "not wrapped"
    assert "tabular, stepped, N = 256: " in text
    assert "pass rate of the training batch" in text
    figure = made().root / "figures/gain-by-pass_rate.csv"
    assert f"figure  {figure.with_suffix('.png')}" in text
    with open(figure, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["base"], int(r["budget"]), float(r["gain"])) for r in rows] == [
        (r["base"], r["budget"], r["gain"]) for r in found()
    ]
    assert "stepped-0.03 - base" not in text, "two bases are no contrast of methods"
    drawn = figure.with_suffix(".svg").read_text()
    for word in ("tabular, level", "tabular, stepped", "tabular, temperature", "N p, expected correct rollouts"):
        assert word in drawn


def test_the_unmoved_base_stands_in_both_ways_that_begin_there() -> None:
    placed = [(row["way"], row["base"]) for row in low_rates.panelled(found()) if row["budget"] == 64]
    assert placed == [("temperature", "base"), ("stepped", "base"), ("level", "level-1"), ("stepped", "stepped-0.03")]


def test_bases_stepped_up_are_no_low_rates() -> None:
    rows = [
        {"way": "stepped", "p": 0.6},
        {"way": "stepped", "p": 0.1},
        {"way": "base", "p": 0.2},
        {"way": "level", "p": 0.9},
    ]
    assert low_rates.unspent(rows, base=0.2) == rows[1:]


def test_break_evens_are_of_the_bases_of_a_way_at_one_budget() -> None:
    suite = suiting.reopen(made().root).suite
    told = low_rates.break_evens([(point, results.load(made().root / point.name)) for point in suite.points])
    names = [f"tabular, stepped, N = {what}" for what in ("64", "256", "256, half of grpo's gain")]
    assert list(told) == names, "other ways have one base here"
    rates = {(row["base"], row["budget"]): row["p"] for row in found()}
    for name, crossed in told.items():
        assert (crossed.points, "half of grpo" in name) == (2, "50% of grpo" in crossed.goal)
        assert {crossed.lowest, crossed.highest} == {rates["base", 256], rates["stepped-0.03", 256]}


def test_shares_are_of_a_largest_gain_that_is_clear() -> None:
    rows = found()
    largest = {row["base"]: row for row in rows if row["budget"] == 256}
    for row in rows:
        clear = largest[row["base"]]["ci_low"] > 0
        assert row["share"] == (pytest.approx(row["gain"] / largest[row["base"]]["gain"]) if clear else None)
    assert [gain.base for gain in low_rates.shares(rows)] == [
        f"tabular {base}" for base, of in largest.items() if of["ci_low"] > 0
    ]
    assert {gain.budget for gain in low_rates.shares(rows)} == {64}
    assert low_rates.gains(rows)[0].value == pytest.approx(rows[0]["gain"] / (1 - rows[0]["base_pass"]))


@pytest.mark.parametrize("domain", ["math", "code", "arc"])
@pytest.mark.parametrize("benchmark", ["ladder", "ladder@5"])
def test_training_problems_of_a_budget_are_the_first_of_a_larger_one(domain: str, benchmark: str) -> None:
    own = plugins.load().lookup("domain", domain).load()()
    small, large = (list(selecting._drawn(own, benchmark, "train", seed=0, limit=limit)) for limit in (3, 9))
    assert small == large[:3]


def texts(run: Run) -> dict[str, list[tuple[int, str]]]:
    stages = Stages(run, method="one_shot", seed=0, options={})
    batch = stages.base_batch()
    return {name: [(r.seed, r.text) for r in batch.group(name)] for name in batch.problem_ids}


@pytest.mark.parametrize(("engine", "domain"), [("tabular", "tabular"), ("hf", "arc")])
def test_batches_of_one_base_are_nested(engine: str, domain: str, tmp_path: Path) -> None:
    """Shards are cut anew for each budget, yet every completion is the same one."""
    drawn = []
    for budget in (64, 256):
        model = "tabular" if engine == "tabular" else "tiny"
        spec = small_spec(f"engine.name={engine}", domain=domain, budget=budget, model=model)
        with pipeline.opened(tmp_path / str(budget), spec, plugins.load(), progress=lambda *_: None) as run:
            drawn.append(texts(run))
    small, large = drawn
    assert list(small) == list(large)[:4]
    assert small == {name: large[name] for name in small}


def test_the_built_in_suite_moves_the_pass_rate_in_three_ways() -> None:
    suite = suiting.load("low_pass_rate", domain="code", changes={}, sets=())
    assert {point.spec.budget for point in suite.points} == {512, 2048, 8192}
    assert len({(p.spec.selection_total, p.spec.evaluation, p.spec.search) for p in suite.points}) == 1
    (prepare,) = suite.prepare
    rates = {argument for argument in prepare.arguments if argument.replace(".", "").isdecimal()}
    for point in suite.points:
        way, _, what = point.axes["way"].partition("-")
        moved = {"base": ("ladder", 1.0, "tiny"), "level": (f"ladder@{what}", 1.0, "tiny")}
        if way in moved:
            wanted = moved[way]
        elif way == "temperature":
            wanted = ("ladder", float(what), "tiny")
        else:
            assert what in rates
            wanted = ("ladder", 1.0, f"results/models/stepped-code/{what}")
        assert (point.spec.benchmark, point.spec.sampling.temperature, point.spec.model) == wanted
    assert prepare.makes == "results/models/stepped-code/stepped.json"
