"""What `--dry-run` says of n workers on other machines, against sums by hand; and what a machine without Ray says."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from tabular_run import invoke, small_spec

from harness import plugins, scaling
from harness.contracts import Spending, Transfers
from harness.errors import UsageError
from harness.estimating import Pace
from harness.planning import Stage

PACE = Pace(
    measured=False, completion=100.0, trained=110.0, generating=0.01, training=0.02, weights=0.0, numbers=0.0, cache=0.0,
    processes=1, note="",
)  # fmt: skip
PLAN = (
    Stage("one_shot", 256, 100, 44, 256.0, Spending()),
    Stage("grpo", 256, 100, 44, 256.0, Spending(optimizer=True)),
)
FOUND = Transfers(gradient=16e9, policy=1e9, drawn=16.0, weighed=8.0, sharing=16)


def test_the_formula_is_the_sum_of_the_stages() -> None:
    spec = small_spec("engine.shard_rollouts=64", seeds=3)
    drawn, graded = 100 * 0.01, 110 * 0.02  # seconds of a rollout
    own = scaling.work(spec, PLAN, PACE)
    assert own.drawing == pytest.approx(3 * (400 + 144) * drawn)
    assert own.gradients == pytest.approx(3 * 256 * graded)
    assert own.alone == pytest.approx(3 * 256 * (drawn + graded))
    assert own.shards == 4
    assert own.seconds(1, sharing=16) == pytest.approx(sum(own[:3]))
    assert own.seconds(8, sharing=16) == pytest.approx(own.drawing / 4 + own.gradients / 8 + own.alone)
    four = scaling.work(small_spec(workers=4), PLAN, PACE._replace(measured=True))
    one = scaling.work(small_spec(workers=1), PLAN, PACE._replace(measured=True))
    assert four.drawing == pytest.approx(4 * one.drawing)  # the pace was that of four


def test_it_is_told_with_bytes() -> None:
    told = scaling.told(small_spec("engine.shard_rollouts=64"), PLAN, PACE, FOUND)
    hours = [544 / 3600, 256 * 2.2 / 3600, 256 * 3.2 / 3600]
    assert (
        f"{hours[0]:.1f} / min(n, 4) of sampling + {hours[1]:.1f} / min(n, 16) of gradients + {hours[2]:.1f} of" in told
    )
    assert f"{800 * 100 * 16 / 1e6:.1f} MB of rollouts" in told
    assert "brings back 16.0 GB of sums" in told
    assert f"{256 * 110 * 8 / 1e6:.1f} MB x (1 - 1/n)" in told
    assert "takes 1.0 GB to each worker" in told


def test_dry_run_tells_it_for_ray_and_not_for_hf() -> None:
    command = ("run", "--domain", "tabular", "--model", "nobody/none-2B", "--method", "one_shot", "--dry-run")
    told = " ".join(invoke(*command, "--engine", "ray").output.split())
    assert "n workers: " in told
    assert f"brings back {16 * 4 * 2:.1f} GB of sums" in told
    assert "checkpoint takes 8.0 GB to each worker" in told
    assert "n workers" not in invoke(*command).output
    assert math.isnan(scaling.work(small_spec(), PLAN, PACE._replace(generating=math.nan)).drawing)


def test_without_ray_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    engine = plugins.load({}).lookup("engine", "ray").load()
    with pytest.raises(UsageError, match=r"pip install 'oneshot-harness\[ray\]'"):
        engine("tiny", tmp_path, {})
    result = invoke("run", "--domain", "tabular", "--engine", "ray", "--out", str(tmp_path), "--quiet")
    assert result.exit_code == 2
    assert 'needs the extra "ray"' in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []
