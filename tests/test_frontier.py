"""The figure of a suite: which rows it has, on which line and at which place, and its files."""

from __future__ import annotations

import csv
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tabular_run import small_spec

from harness import plugins, suiting
from harness.methods import check_options, methods_of
from harness.report import frontier
from harness.report.results import Results
from harness.suiting import Point, Suite

VARIANTS = {
    "k4": {"uses": "one_shot_k", "k": 4},
    "slow": {"uses": "grpo", "steps": 16},
}
SETS = ('method.k4={uses="one_shot_k",k=4}', 'method.slow={uses="grpo",steps=16}')


def row(method: str, *, gain: float, updates: int = 0, direction: str = "", base: float = 0.2) -> dict[str, Any]:
    return {
        "method": method, "seed": "all", "updates": str(float(updates)), "direction": direction, "delta": str(gain),
        "ci_low": str(gain - 0.1) if gain else "", "ci_high": str(gain + 0.1) if gain else "", "base_pass@1": str(base),
        "pass@1": str(base + gain), "test_benchmark": "ladder", "status": "ok",
    }  # fmt: skip


def runs(*axes: dict[str, str]) -> list[tuple[Point, Results]]:
    """A run for each of `axes`, with a row of every method."""
    found = []
    for number, own in enumerate(axes):
        budget = int(own.get("budget", 256))
        spec = small_spec(*SETS, methods=("one_shot", "k4", "slow", "base_tempered"), budget=budget)
        shown = [
            row("base", gain=0), row("base_tempered", gain=0.05), row("one_shot", gain=0.1, direction="per_tensor"),
            row("k4", gain=0.2, direction="per_tensor"), row("slow", gain=0.3 + number / 10, updates=16, base=0.2 + number / 10),
        ]  # fmt: skip
        empty: Any = {"manifest": {}, "finished": {}, "probes": {}}
        found.append((Point(f"p{number}", own, spec), Results(root=Path(), rows=shown, **empty)))
    return found


def test_rows_stand_at_their_updates_on_the_line_of_their_method() -> None:
    found = frontier.rows(runs({"budget": "256"}, {"budget": "512"}), "updates")
    assert [(r["budget"], r["method"], r["line"], r["updates"]) for r in found] == [
        (budget, *place)
        for budget in (256, 512)
        for place in (("one_shot", "one_shot", 1), ("k4", "one_shot", 4), ("slow", "grpo", 16))
    ], "the base and its temperature change no weights"
    assert {r["panel"] for r in found} == {"tabular ladder"}
    assert (found[2]["gain"], found[2]["ci_low"], found[2]["ci_high"]) == (0.3, pytest.approx(0.2), 0.4)


def test_other_axes_are_panels() -> None:
    found = frontier.rows(runs({"budget": "256", "model": "a"}, {"budget": "256", "model": "b"}), "budget")
    assert [r["panel"] for r in found] == ["tabular a ladder"] * 3 + ["tabular b ladder"] * 3
    found = frontier.rows(runs({"benchmark": "ladder-1"}, {"benchmark": "ladder-2"}), "base")
    assert {r["panel"] for r in found} == {"tabular"}, "levels lie along x"
    assert [r["base"] for r in found if r["method"] == "slow"] == [0.2, pytest.approx(0.3)]


def test_a_gain_of_nothing_has_no_width() -> None:
    (point, found), *_ = runs({})
    still = row("one_shot", gain=0, direction="per_tensor")
    (only,) = frontier.rows([(point, replace(found, rows=[still]))], "updates")
    assert only["gain"] == only["ci_low"] == only["ci_high"] == 0


@pytest.mark.parametrize("along", frontier.ALONG)
def test_the_figure_and_its_data_are_files_with_labelled_axes(along: str, tmp_path: Path) -> None:
    every = runs({"budget": "256"}, {"budget": "512"})
    path = frontier.write(every, tmp_path, along)
    assert path == tmp_path / f"figures/gain-by-{along}.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    drawn = path.with_suffix(".svg").read_text()
    for words in (frontier.ALONG[along], "gain in pass@1 over the base, 95 % interval", "tabular"):
        assert words in drawn
    assert "one_shot" in drawn
    with open(path.with_suffix(".csv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["gain"]) for r in rows] == [r["gain"] for r in frontier.rows(every, along)]
    assert frontier.write([(every[0][0], replace(every[0][1], rows=[row("base", gain=0)]))], tmp_path, along) is None


def built_in(name: str) -> Suite:
    return suiting.load(name, domain=None, changes={}, sets=())


@pytest.mark.parametrize("name", suiting.names())
def test_methods_and_options_of_built_in_suites_exist(name: str) -> None:
    found = plugins.load({})
    for point in built_in(name).points:
        check_options(point.spec, methods_of(point.spec, found))


def test_the_proposal_spends_51200_rollouts_in_1_5_10_and_1000_steps() -> None:
    """1,000 steps of 3 or 4 groups of 16: 800 x 48 + 200 x 64."""
    suite = built_in("proposal")
    assert suite.figure == "updates"
    for point in suite.points:
        assert point.spec.budget == 51_200 == 3200 * point.spec.sampling.group
        assert [point.spec.method[f"one_shot_k{k}"]["k"] for k in (5, 10)] == [5, 10]
        assert point.spec.method["grpo"]["steps"] == 1000
    cuts = [3200 * step // 1000 for step in range(1001)]
    sizes = [16 * (b - a) for a, b in itertools.pairwise(cuts)]
    assert (sizes.count(48), sizes.count(64), sum(sizes)) == (800, 200, 51_200)


@pytest.mark.parametrize("domain", ["math", "arc"])
def test_ladders_have_the_problems_of_the_proposal(domain: str) -> None:
    """3,200 distinct ones. Code, whose problems take fifteen milliseconds each, was counted when the suite was made."""
    subject = plugins.load({}).lookup("domain", domain).load()()
    found = list(subject.problems("ladder", "train", seed=0, limit=3200))
    assert len({problem.content_hash for problem in found}) == 3200


def test_pareto_is_the_product_of_k_and_budget() -> None:
    suite = built_in("pareto")
    assert suite.figure == "updates"
    assert sorted({point.spec.budget for point in suite.points}) == [512, 2048, 8192]
    for point in suite.points:
        variants = [point.spec.method[name] for name in point.spec.methods if name.startswith("k")]
        assert [v["k"] for v in variants] == [1, 2, 4, 8, 16, 32]
        assert {v["uses"] for v in variants} == {"one_shot_k"}
        assert "grpo" in point.spec.methods


def test_every_budget_leaves_grpo_a_group_in_every_update() -> None:
    points = built_in("budgets").points
    assert sorted({p.spec.budget for p in points}) == [2**k for k in range(7, 15)]
    assert all(p.spec.num_train_problems >= p.spec.method["grpo"]["steps"] for p in points)
