"""A small version of `make calibrate`: worlds are the engine's, intervals cover, claims are not made where they are false."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from tabular_kit import draw, problems
from tabular_run import REPOSITORY

sys.path.insert(0, str(REPOSITORY))  # benchmarks is no part of the installed package

from benchmarks.calibration import claims, intervals, run, worlds
from benchmarks.calibration.coverage import HIGH, LOW, Case, Coverage, Measured, measure
from harness import seeds
from harness.types import Outcome
from harness_engines.tabular import Tabular
from harness_engines.tabular_domain import Tabular as Domain

RATES = (0.5, 0.2, 0.05)
REPLICATES = 400


def test_worlds_draw_what_the_engine_draws(tmp_path: Path) -> None:
    engine, items = Tabular("tabular:.5,.2,.05", tmp_path, {"shard_rollouts": 64}), problems([1, 2, 3, 2])
    groups = draw(engine, items, 60)
    uniforms_PN2 = [[seeds.generator(rollout.seed).random(2) for rollout in group] for group in groups]
    base = worlds.world(RATES, step=0.0, noise=0.0, policies=1).base
    drawn = worlds.draw(base, np.array([0, 1, 2, 1]), np.moveaxis(np.array(uniforms_PN2), 2, 0))
    for place, (item, group) in enumerate(zip(items, groups, strict=True)):
        verdicts = [Domain().verify(item, rollout.text) for rollout in group]
        assert drawn.strict_P[place] == np.mean([verdict.outcome is Outcome.CORRECT for verdict in verdicts])
    assert base.strict == pytest.approx(RATES)
    assert (base.free > base.strict).all()


def test_a_world_gains_along_its_gradient_and_less_with_noise() -> None:
    clean = worlds.world(RATES, step=0.1, noise=0.0, policies=1)
    noisy = worlds.world(RATES, step=0.1, noise=3.0, policies=20)
    assert clean.gains.mean() > noisy.gains.mean() > 0
    assert clean.base.strict == pytest.approx(RATES)


def test_coverage_is_that_of_the_textbook() -> None:
    """A mean of 25 normal numbers with 1.96 standard errors; half as wide it covers 67 %."""

    def replicate(rng: np.random.Generator, *, width: float) -> Measured:
        mean = float(rng.standard_normal(25).mean())
        return Measured(mean, mean - width * 1.96 / 5, mean + width * 1.96 / 5)

    whole, half = (
        measure(Case("mean", f"{width}", 0.0, lambda rng, width=width: replicate(rng, width=width)), 2000)
        for width in (1.0, 0.5)
    )
    assert whole.coverage == pytest.approx(0.95, abs=0.015)
    assert whole.width == pytest.approx(1.0, abs=0.05)
    assert half.coverage == pytest.approx(0.673, abs=0.03)
    assert half.width == pytest.approx(0.5, abs=0.03)
    assert whole.holds
    assert not half.holds


def _cases() -> list[Case]:
    wanted = {
        ("pass rate of the base", "mixed, 100"),
        ("gain, one seed", "mixed"),
        ("gain, several seeds", "3 seeds"),
        ("gain, several seeds", "5 seeds"),
        ("pass rate by level", "level 3, 120"),
    }
    return [
        case
        for case in intervals.cases()
        if any(case.interval == name and case.setting.startswith(start) for name, start in wanted)
    ]


@pytest.mark.parametrize("case", _cases(), ids=lambda case: f"{case.interval}, {case.setting}")
def test_intervals_cover(case: Case) -> None:
    """Within three errors of so few replicates: an interval of 88 % is found out in most settings."""
    found = measure(case, REPLICATES)
    assert LOW - 3 * found.error <= found.coverage <= min(1.0, HIGH + 3 * found.error)
    assert found.width <= found.widest * 1.15
    assert abs(found.bias) < 0.4


def test_what_does_nothing_is_seldom_declared_better() -> None:
    for claim in claims.nothing(REPLICATES):
        assert claim.holds, claim


def test_an_unchanged_model_gains_in_no_bin_but_in_one_by_its_own_draws() -> None:
    *bins, contrast = claims.unchanged(60)
    assert len(bins) >= 8
    assert all(claim.holds for claim in bins)
    assert contrast.value > 0.02, "regression to the mean"


def test_the_page_counts_what_misses() -> None:
    good = Coverage("gain", "a", 0.1, 400, 0.95, 0.02, 0.03, 1.0, 0.0, 0.0, True, 1.3, 1.0)
    bad = good._replace(setting="b", coverage=0.8)
    page = run.document([good, bad, bad._replace(held=False)], [], [], seconds=60.0)
    assert "| gain | a | 95.0% ± 1.1% |" in page
    assert page.count("**no**") == 1
    assert page.count("| – |") == 1
    assert "in the number of intervals that miss: 1." in page


def test_levels_are_fifths_of_the_classes() -> None:
    truths = [case.truth for case in intervals.by_level() if "60" in case.setting]
    assert truths == sorted(truths, reverse=True)
    assert all(0 < truth < 1 for truth in truths)
    assert math.isclose(sum(intervals.chance(0.3, low, high) for low, high in ((None, 0.0), (0.0, 0.5), (0.5, 1.0))), 1)
