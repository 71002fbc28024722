"""Bases of wanted pass rates: the step is found where there is one, and what is written is what was measured."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness import store
from harness_engines.tabular import Tabular
from harness_engines.tabular_policy import exact_kl, pass_rate
from harness_methods import weakening
from harness_methods.weakening import Measured, reached, solve

N = 100_000


def line(step: float) -> Measured:
    """A logistic pass rate: .2 at the base, rising along the direction, with a ceiling of .7 at step 2."""
    rate = 1 / (1 + math.exp(-(math.log(0.25) + 1.1 * min(step, 4.0 - step))))
    return Measured(step, round(rate * N), N)


@pytest.mark.parametrize("target", [0.6, 0.25, 0.1, 0.01, 0.001])
def test_a_rate_that_the_line_has_is_reached(target: float) -> None:
    points = [line(0.0)]
    found = solve(lambda step: points[0] if step == 0 else line(step), target, points, first=0.3, limit=50.0)
    assert reached(found, target)
    assert found.rate == pytest.approx(target, rel=0.21)
    assert (found.step > 0) == (target > 0.2)
    assert len(points) <= 10, "every measurement is a batch of rollouts"
    again = list(points)
    assert solve(line, target, again, first=0.3, limit=50.0) == found, "what is known is not measured again"
    assert again == points


def test_a_rate_that_the_line_does_not_have_gives_the_nearest_and_says_so() -> None:
    points = [line(0.0)]
    top = solve(line, 0.95, points, first=0.3, limit=50.0)
    assert not reached(top, 0.95)
    assert top.rate == max(point.rate for point in points) > 0.55, "past the ceiling it turned back"
    low = solve(line, 0.001, [line(0.0)], first=0.3, limit=1.0)
    assert not reached(low, 0.001)
    assert low.step >= -1.0


def test_draws_that_cannot_tell_are_enough() -> None:
    assert reached(Measured(-1.0, 1, 2000), 0.001)
    assert not reached(Measured(-1.0, 20, 2000), 0.001)
    assert not reached(Measured(-1.0, 0, N), 0.001)


RATES = (0.4, 0.05)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the tabular base, as a suite calls it."""
    return run(tmp_path_factory.mktemp("made") / "bases")


def run(out: Path) -> Path:
    rates = [word for rate in RATES for word in ("--rate", str(rate))]
    arguments = ["--domain", "tabular", "--engine", "tabular", "--model", "tabular", "--budget", "512"]
    result = CliRunner().invoke(weakening.main, [*arguments, "--out", str(out), *rates])
    assert result.exit_code == 0, result.output
    return out


def test_the_checkpoints_have_the_pass_rates_and_distances_that_are_told(made: Path) -> None:
    told = json.loads((made / "stepped.json").read_text())
    base = Tabular("tabular", made, {}).base
    levels = (1, 2, 3, 4, 5)
    assert [one["rate"] for one in told["bases"]] == list(RATES)
    for one in told["bases"]:
        tables = Tabular(str(made / one["folder"]), made, {}).base
        true = sum(pass_rate(tables, level) for level in levels) / 5
        error = math.sqrt(true * (1 - true) / one["rollouts"])
        assert one["reached"]
        assert abs(one["pass_rate"] - true) < 4 * error + 0.001
        assert one["correct"] / one["rollouts"] == one["pass_rate"]
        assert one["kl"] == pytest.approx(exact_kl(base, tables, levels), rel=0.3)
        assert (one["step"] > 0) == (one["rate"] > 0.222)
        assert [one["step"], one["correct"], one["rollouts"]] in told["measured"]


def test_it_is_one_line_and_the_same_every_time(made: Path, tmp_path: Path) -> None:
    told, base = json.loads((made / "stepped.json").read_text()), Tabular("tabular", made, {}).base
    up, down = (Tabular(str(made / f"{rate:g}"), made, {}).base for rate in RATES)
    ratio = told["bases"][0]["step"] / told["bases"][1]["step"]
    assert ratio < 0
    for name, tensor in base.items():
        assert (up[name] - tensor).numpy() == pytest.approx(ratio * (down[name] - tensor).numpy(), abs=1e-9)
    again = run(tmp_path / "bases")
    for name in ("stepped.json", *(f"{rate:g}/tabular.safetensors" for rate in RATES)):
        assert store.digest(again / name) == store.digest(made / name)
    assert str(made) not in (made / "stepped.json").read_text()


def test_its_problems_are_not_those_of_a_run_that_starts_from_it(made: Path) -> None:
    drawn = [path.name for path in (made / "run/rollouts").iterdir()]
    assert sorted(drawn) == ["1", "2"], "the direction of run seed 1, the rates of run seed 2; runs have seed 0"
