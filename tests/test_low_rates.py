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
from harness.evaluating import Evaluation
from harness.report import low_rates, results
from harness.run import Run
from harness.stages import Stages
from harness.types import Score
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
    assert none["p"] in (0.5 / 256, 1 / 256, 2 / 256)


def test_the_table_and_the_figure_are_printed_and_written() -> None:
    text = made().text
    assert "where low base pass rates break one_shot" in text
    assert "tabular stepped-0.03" in text
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


def score(*correct: int) -> Score:
    ids = tuple(map(str, range(len(correct))))
    shares = {"format": 1.0, "truncated": 0.0, "unparsed": 0.0, "timeouts": 0.0}
    return Score(problem_ids=ids, n=(4,) * len(ids), correct=correct, correct_free=correct, errors=0, **shares)


def test_the_best_step_is_chosen_and_scored_on_different_problems() -> None:
    """Even problems prefer the first step, odd ones the second: each is scored where it was not chosen."""
    base = Evaluation(sampled=score(0, 0, 0, 0), greedy=score(0, 0, 0, 0), wide=None)
    steps = (score(0, 0, 0, 0), score(4, 0, 4, 0), score(0, 2, 0, 2))
    own = Evaluation(sampled=steps[0], greedy=steps[0], wide=None, candidates=steps)
    assert low_rates.best_gain(base, own) == 0.0, "the largest of the means is .5: luck of four problems"
    alike = Evaluation(sampled=steps[0], greedy=steps[0], wide=None, candidates=(steps[0], score(2, 3, 2, 3)))
    assert low_rates.best_gain(base, alike) == pytest.approx(0.625)
    assert low_rates.best_gain(base, base) is None


def row(base: str, budget: int, gain: float, low: float) -> dict[str, Any]:
    return {"domain": "d", "way": "level", "base": base, "budget": budget, "p": 0.1, "gain": gain, "ci_low": low,
            "base_pass": 0.2}  # fmt: skip


def test_shares_are_of_a_largest_gain_that_is_clear() -> None:
    rows = [row("a", 64, 0.1, 0.0), row("a", 256, 0.4, 0.3), row("b", 64, 0.1, 0.05), row("b", 256, 0.1, -0.1)]
    assert low_rates.shares(rows) == [("d a", 0.1, 64, pytest.approx(0.25))]
    assert [gain.value for gain in low_rates.gains(rows)] == pytest.approx([0.125, 0.5, 0.125, 0.125])


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
