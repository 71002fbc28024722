"""Rows: frozen columns, values by hand, aggregates over seeds, merging, and what is never ranked together."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import leaderboard, stats
from harness.budget import Cost
from harness.contracts import Displacement
from harness.evaluating import Evaluation
from harness.leaderboard import COLUMNS, UNCOMPARED, Outcome, Row
from harness.types import Candidate, Direction, Policy, Score, Search

FROZEN = """schema, run_id, date, status, domain, train_benchmark, test_benchmark, data_hash, model, model_revision,
method, method_version, direction, engine, seed, temperature, test_problems, test_samples, train_rollouts,
selection_rollouts, eval_rollouts, gen_tokens, train_tokens, verifier_calls, updates, wall_seconds,
cpu_seconds, device, step, relative_step, kl, entropy_base, entropy, base_pass@1, pass@1, delta, ci_low, ci_high,
p_value, base_greedy, greedy, base_pass@4, pass@4, base_pass@16, pass@16, base_format, format, base_format_free,
format_free, base_truncated, truncated, base_unparsed, unparsed, errors, batch_pass_rate, dead_groups, snr, agreement,
logprob_gap, changed_weights, commit, dirty, command"""


def test_columns_are_frozen() -> None:
    """Other programs read them: a change bumps SCHEMA and this list."""
    assert leaderboard.SCHEMA == 1
    assert list(COLUMNS) == FROZEN.replace("\n", " ").split(", ")
    assert set(UNCOMPARED) == {"run_id", "date", "command", "wall_seconds", "cpu_seconds"}


def score(correct: Sequence[int], n: int = 4, *, free: Sequence[int] | None = None, **shares: Any) -> Score:
    fixed = {"format": 0.5, "truncated": 0.125, "unparsed": 0.25, "timeouts": 0.0, "errors": 0}
    return Score(
        problem_ids=tuple(f"p{i}" for i in range(len(correct))), n=(n,) * len(correct), correct=tuple(correct),
        correct_free=tuple(free or correct), **{**fixed, **shares},
    )  # fmt: skip


BASE = Evaluation(sampled=score([0, 1, 2, 4], free=[1, 1, 2, 4]), greedy=score([0, 0, 1, 1], n=1), wide=None)
BETTER = Evaluation(
    sampled=score([1, 2, 4, 4], format=0.75, errors=2), greedy=score([1, 0, 1, 1], n=1),
    wide=score([1, 16], n=16),
)  # fmt: skip
SHARED = {
    "run_id": "r", "date": "d", "domain": "math", "train_benchmark": "ladder", "test_benchmark": "ladder",
    "data_hash": "abc", "model": "tiny", "model_revision": "m", "method": "one_shot", "method_version": 1,
    "engine": "hf", "device": "cpu", "commit": "c", "dirty": "false", "command": "harness run",
}  # fmt: skip
DIRECTION = Direction(
    id="d", kind="per_tensor", norm=1.0, weight_norm=1.0, path="p", digest="e", groups_dead=7, snr=2.0, agreement=0.5,
    logprob_gap=1e-6, batch_pass_rate=0.3,
)  # fmt: skip


def candidate(step: float, kl: float, entropy: float) -> Candidate:
    return Candidate(policy=Policy(base="b"), step=step, relative_step=9.0, score=score([1]), kl=kl, entropy=entropy)


def outcome(**changes: Any) -> Outcome:
    basic: dict[str, Any] = {
        "status": "ok", "evaluation": BETTER, "direction": DIRECTION, "temperature": 1.0,
        "search": Search(candidates=(candidate(0, 0, 1.5), candidate(3.0, 0.08, 1.25)), chosen=1, best=1),
        "displacement": Displacement(0.5, 0.01, 0.875),
        "samples": 4,
        "cost": Cost(train_rollouts=256, selection_rollouts=128, eval_rollouts=20, updates=1, wall_seconds=1.5),
    }  # fmt: skip
    return Outcome(**{**basic, **changes})


def row(seed: int = 0, **changes: Any) -> Row:
    return leaderboard.row_of(SHARED, outcome(**changes), BASE, seed=seed)


def test_row_by_hand() -> None:
    found = row()
    assert list(found) == list(COLUMNS)
    expected = {
        **SHARED, "schema": 1, "status": "ok (too few)", "seed": 0, "temperature": 1.0, "test_problems": 4, "test_samples": 4,
        "train_rollouts": 256, "selection_rollouts": 128, "eval_rollouts": 20, "updates": 1, "wall_seconds": 1.5,
        "direction": "per_tensor", "step": 3.0, "relative_step": 0.01, "kl": 0.08, "entropy_base": 1.5, "entropy": 1.25,
        "base_pass@1": 7 / 16, "pass@1": 11 / 16, "delta": 4 / 16, "base_greedy": 0.5, "greedy": 0.75,
        "base_pass@4": 3 / 4, "pass@4": 1.0, "pass@16": 1.0, "base_format": 0.5, "format": 0.75,
        "base_format_free": 8 / 16, "format_free": 11 / 16, "base_truncated": 0.125, "truncated": 0.125,
        "base_unparsed": 0.25, "unparsed": 0.25, "errors": 2, "batch_pass_rate": 0.3, "dead_groups": 7, "snr": 2.0,
        "agreement": 0.5, "logprob_gap": 1e-6, "changed_weights": 0.875,
    }  # fmt: skip
    for column, value in expected.items():
        assert found[column] == pytest.approx(value), column
    assert math.isnan(found["base_pass@16"])
    assert found["ci_low"] < found["delta"] < found["ci_high"]
    assert found["p_value"] == pytest.approx(2 / 8), "three equal signs of 2^3"


def test_the_base_against_itself_is_exactly_zero() -> None:
    found = row(evaluation=BASE)
    assert (found["delta"], found["ci_low"], found["p_value"], found["status"]) == (0.0, "", "", "ok")


def test_pass_at_16_comes_from_any_sixteen_draws() -> None:
    """evaluation.samples = 16 needs no wide draws."""
    many = Evaluation(sampled=score([16, 0], n=16), greedy=score([1, 0], n=1), wide=None)
    found = leaderboard.row_of(SHARED, outcome(evaluation=many), many, seed=0)
    assert found["pass@16"] == 0.5


def test_a_row_without_signal_keeps_its_reason_and_scores_the_zero_step() -> None:
    found = row(status="no signal: all dead", evaluation=BASE, search=None, direction=None)
    assert found["status"] == "no signal: all dead"
    assert (found["delta"], found["ci_low"], found["step"]) == (0.0, "", "")
    assert found["pass@1"] == found["base_pass@1"] == 7 / 16


def test_aggregate_is_the_mean_with_seeds_in_the_interval() -> None:
    evaluations = [Evaluation(sampled=score(c), greedy=BASE.greedy, wide=None) for c in ([1, 2, 4, 4], [0, 3, 3, 4])]
    rows = [row(seed, evaluation=e) for seed, e in enumerate(evaluations)]
    found = leaderboard.aggregate(rows, [(BASE.sampled, e.sampled) for e in evaluations])
    assert (found["seed"], found["status"], found["method_version"], found["schema"]) == ("all", "ok (too few)", 1, 1)
    assert found["pass@1"] == pytest.approx((11 / 16 + 10 / 16) / 2)
    assert found["delta"] == pytest.approx((4 / 16 + 3 / 16) / 2)
    assert (found["train_rollouts"], found["test_problems"]) == (256, 4)
    d_SP = np.array([[1, 1, 2, 0], [0, 2, 1, 0]]) / 4
    interval = stats.over_seeds(d_SP)
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((interval.low, interval.high))
    assert found["p_value"] == pytest.approx(2 / 8), "sign flips of the seed-averaged differences"


def test_one_seed_aggregates_to_itself() -> None:
    (only,) = [row(evaluation=BETTER)]
    found = leaderboard.aggregate([only], [(BASE.sampled, BETTER.sampled)])
    assert {c for c in COLUMNS if found[c] != only[c] and not _both_nan(found[c], only[c])} == {"seed"}


def _both_nan(left: Any, right: Any) -> bool:
    return isinstance(left, float) and isinstance(right, float) and math.isnan(left) and math.isnan(right)


@pytest.mark.parametrize("dead", [(0,), (2,), (0, 2)])
def test_seeds_without_signal_count_as_no_gain(dead: tuple[int, ...]) -> None:
    """Left out, they would flatter a method exactly where it breaks."""
    corrects = [[1, 2, 4, 4], [0, 3, 3, 4], [4, 4, 4, 4]]
    rows, pairs = [], []
    for seed, correct in enumerate(corrects):
        evaluation = BASE if seed in dead else Evaluation(sampled=score(correct), greedy=BASE.greedy, wide=None)
        status = "no signal: x" if seed in dead else "ok"
        rows.append(row(seed, evaluation=evaluation, status=status))
        pairs.append((BASE.sampled, evaluation.sampled))
    found = leaderboard.aggregate(rows, pairs)
    accuracies = [7 / 16 if s in dead else sum(c) / 16 for s, c in enumerate(corrects)]
    assert found["status"] == f"{len(dead)} of 3 seeds: no signal: x"
    assert found["pass@1"] == pytest.approx(np.mean(accuracies))
    assert found["delta"] == pytest.approx(found["pass@1"] - found["base_pass@1"])


def test_csv_round_trip_and_empty_cells(tmp_path: Path) -> None:
    rows = [row(), row(1, status='no signal: "x", y\nz', evaluation=BASE, search=None)]
    (tmp_path / "x.csv").write_text(leaderboard.to_csv(rows))
    back = leaderboard.read_csv(tmp_path / "x.csv")
    assert list(back[0]) == list(COLUMNS)
    assert back[0]["base_pass@16"] == "", "NaN is an empty cell"
    assert back[1]["kl"] == ""
    assert back[1]["status"] == 'no signal: "x", y\nz'
    for column in ("pass@1", "kl", "logprob_gap", "ci_low"):
        assert float(back[0][column]) == row()[column], "every digit"
    assert leaderboard.to_csv(back) == leaderboard.to_csv(rows)


def test_merge_replaces_equal_rows_and_keeps_the_rest(tmp_path: Path) -> None:
    def made(run: str, method: str, value: float, domain: str = "math") -> Row:
        return {**row(), "run_id": run, "method": method, "pass@1": value, "domain": domain}

    leaderboard.merge([made("r1", "a", 0.1), made("r1", "b", 0.2), made("r1", "a", 0.3, "code")], tmp_path)
    written = leaderboard.merge([made("r1", "a", 0.5), made("r2", "a", 0.6)], tmp_path)
    assert written == [tmp_path / "math.csv"]
    found = leaderboard.read_csv(tmp_path / "math.csv")
    assert [(r["run_id"], r["method"], r["pass@1"]) for r in found] == [
        ("r1", "a", "0.5"), ("r1", "b", "0.2"), ("r2", "a", "0.6")
    ]  # fmt: skip
    assert [r["pass@1"] for r in leaderboard.read_csv(tmp_path / "code.csv")] == ["0.3"]
    before = (tmp_path / "math.csv").read_bytes()
    leaderboard.merge(found, tmp_path)
    assert (tmp_path / "math.csv").read_bytes() == before, "merging again changes nothing"


def test_merge_writes_a_table_csv_readers_understand(tmp_path: Path) -> None:
    leaderboard.merge([row()], tmp_path)
    with open(tmp_path / "math.csv", newline="") as file:
        assert next(csv.reader(file)) == list(COLUMNS)


@pytest.mark.parametrize("column", ["data_hash", "test_benchmark", "domain", "model", "model_revision"])
def test_rows_of_other_data_or_models_are_never_ranked_together(column: str) -> None:
    ours = {**row(), "seed": "all"}
    groups = leaderboard.ranked([ours, {**ours, column: "other"}, {**ours, "seed": 0, "method": "single seed"}])
    assert [len(rows) for _, rows in groups] == [1, 1]


def test_rank_is_by_pass_at_1_with_missing_last() -> None:
    basic = {**row(), "seed": "all"}
    values = {"a": 0.1, "b": "0.9", "c": "", "d": 0.5, "e": None, "f": math.nan}
    ((_, found),) = leaderboard.ranked([{**basic, "method": m, "pass@1": v} for m, v in values.items()])
    assert [r["method"] for r in found][:3] == ["b", "d", "a"]


def test_ties_are_overlapping_intervals() -> None:
    leader = {**row(), "ci_low": 0.2, "ci_high": 0.4}
    assert leaderboard.tied({**row(), "ci_low": "0.1", "ci_high": "0.2"}, leader)
    assert not leaderboard.tied({**row(), "ci_low": 0.1, "ci_high": 0.19}, leader)
    assert not leaderboard.tied({**row(), "ci_low": "", "ci_high": ""}, leader)
