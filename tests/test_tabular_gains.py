"""Expected gains on tabular policies: the simulated batch is the engine's, the steps' rates are exact, the grid is told."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.torch import load_file
from tabular_kit import BASE, MODEL, PolicyGradient, batch_of, draw, flat, problems

from harness import seeds
from harness_engines import tabular_gains
from harness_engines.tabular import DIGIT_0, STYLE_0, Tabular
from harness_engines.tabular_domain import ANSWERS, STYLES, task_of
from harness_engines.tabular_gains import Setting
from harness_engines.tabular_policy import expected_direction, tables_for

LEVELS = (1, 2, 3)


def setting(engine: Tabular, temperature: float = 1.0) -> Setting:
    return Setting("level", "x", engine.base, temperature, LEVELS)


def test_a_gradient_of_counts_is_that_of_the_engine(tmp_path: Path) -> None:
    """The same 24 groups, once as rollouts through the engine and once as counts."""
    engine = Tabular(MODEL, tmp_path, {})
    items = problems(LEVELS * 8)
    counts_PSM = np.zeros((len(items), len(STYLES), ANSWERS), dtype=np.int64)
    for place, (problem, rollouts) in enumerate(zip(items, draw(engine, items, 16, run=3), strict=True)):
        for rollout in rollouts:
            style, digit = rollout.completion_tokens[0] - STYLE_0, rollout.completion_tokens[1] - DIGIT_0
            counts_PSM[place, style, (digit - task_of(problem.prompt).item) % ANSWERS] += 1
    batch = batch_of(engine, items, 16, run=3, scheme="grpo")
    engine.gradient(batch, BASE, PolicyGradient(), out=Path("g.safetensors"))
    theirs, own = load_file(tmp_path / "g.safetensors"), tabular_gains.gradient(setting(engine), counts_PSM)
    assert own is not None
    assert flat(own) / (len(items) * 16) == pytest.approx(flat(theirs), abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_mean_gradient_is_the_direction_of_infinite_n(temperature: float, tmp_path: Path) -> None:
    own = setting(Tabular(MODEL, tmp_path, {}), temperature)
    found = tabular_gains.gradient(own, tabular_gains.counts(own, 30_000, seeds.generator(1)))
    assert found is not None
    wanted = flat(expected_direction(own.tables, LEVELS, group=16, scheme="grpo", temperature=temperature))
    assert np.abs(flat(found) / (30_000 * 16) - wanted).max() < 0.03 * np.abs(wanted).max()


def test_without_a_live_group_there_is_no_direction_and_no_gain(tmp_path: Path) -> None:
    own = setting(Tabular(MODEL, tmp_path, {}))
    wrong = np.zeros((6, len(STYLES), ANSWERS), dtype=np.int64)
    wrong[:, 1, 1] = 16
    assert tabular_gains.gradient(own, wrong) is None
    assert tabular_gains.outcome(own, wrong, own.tables, seeds.generator(0)) == (0.0, 0.0, 0.0, 1.0)


def test_every_way_reaches_the_pass_rates_it_names() -> None:
    found = list(tabular_gains.settings())
    for one in found:
        if one.way != "temperature":
            assert one.rate(one.tables) == pytest.approx(float(one.name), rel=1e-6)
    by_temperature = [one.rate(one.tables) for one in found if one.way == "temperature"]
    assert by_temperature == sorted(by_temperature, reverse=True)
    assert {one.way for one in found} == {"level", "temperature", "stepped"}


def test_the_race_draws_the_true_rates_and_finds_a_step_that_is_clearly_better() -> None:
    own = Setting("level", "x", tables_for([0.1]), 1.0, (1,))
    line = tabular_gains.per_tensor(own, expected_direction(own.tables, (1,), group=16, scheme="grpo"))
    lanes = tabular_gains.steps(own, line)
    assert lanes[0].rate == pytest.approx(0.1)
    for lane in (lanes[0], lanes[-1]):
        drawn = tabular_gains._right(own, lane.tables, seeds.generator(5).random((4000, 4, 2)))
        assert drawn.mean() == pytest.approx(lane.rate, abs=0.012)
    assert tabular_gains.race(own, lanes, seeds.generator(2)).rate > 0.4
    back = [lanes[0], *tabular_gains.steps(own, {name: -t for name, t in line.items()})[1:]]
    assert tabular_gains.race(own, back, seeds.generator(2)).step == 0.0, "nothing helps: the zero step wins"


def test_the_grid_is_a_table_in_which_gains_grow_with_n(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [Setting("level", "0.005", tables_for([0.005]), 1.0, (1,))]
    monkeypatch.setattr(tabular_gains, "settings", lambda: iter(few))
    result = CliRunner().invoke(tabular_gains.main, ["--out", str(tmp_path), "--replicates", "12"])
    assert result.exit_code == 0, result.output
    with open(tmp_path / "tabular.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["budget"]) for row in rows] == list(tabular_gains.BUDGETS)
    for row in rows:
        assert float(row["correct"]) == pytest.approx(0.005 * int(row["budget"]))
        assert float(row["gain"]) <= float(row["potential"]) + 1e-9
        assert 0.8 < float(row["dead"]) <= 1.0
    first, last = rows[0], rows[-1]
    assert float(first["gain"]) < 0.8 * float(last["gain"]), (
        "128 rollouts at p = .005: half of the batches are all dead"
    )
    assert float(last["potential"]) == pytest.approx(float(last["reference"]), abs=0.01)
    assert float(last["cosine"]) > 0.99
    assert "expected correct rollouts" in (tmp_path / "tabular.svg").read_text()
    assert (tmp_path / "tabular.png").stat().st_size > 5000


def test_the_words_are_those_of_made_up_gains() -> None:
    """Gains that p alone decides, of which each N recovers what N p decides."""
    rows = [
        {"way": "level", "setting": f"{p}", "p": p, "budget": n, "share": min(1.0, (n * p / 100) ** 0.05),
         "gain": p**0.3 * (1 - p) * min(1.0, (n * p / 100) ** 0.05)}
        for p in (0.001, 0.01, 0.05, 0.2, 0.5) for n in (128, 2048, 32768)
    ]  # fmt: skip
    gain, share, *_ = tabular_gains.sentences(rows)
    assert gain.startswith("tabular, level, gain: p alone")
    assert share.startswith("tabular, level, share of infinite N's gain: N p")
    broken = [{**row, "gain": 0.04 * row["p"] * row["budget"]} for row in rows]
    assert tabular_gains.break_evens(broken) == ["tabular, level, N = 128: break-even p = 0.0038, N p = 0.49"], (
        "larger budgets reach .02 below the grid"
    )
