"""Rows: one per method, seed and test benchmark, plus `seed = all`; merged into results/leaderboard by one writer.

Does: compute every column from scores, searches and budgets; write and merge CSV; rank rows of equal data.
Doesn't: rank rows of different `data_hash` together, or print selection scores.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness import limits, locking, stats, stepping, store
from harness.budget import Cost
from harness.contracts import Displacement
from harness.errors import HarnessError, UsageError
from harness.evaluating import Evaluation
from harness.types import Direction, Score, Search

SCHEMA = 1
COLUMNS = (
    "schema", "run_id", "date", "status", "domain", "train_benchmark", "test_benchmark", "data_hash", "model",
    "model_revision", "method", "method_version", "direction", "engine", "seed", "temperature", "test_problems",
    "test_samples", "train_rollouts", "selection_rollouts", "eval_rollouts", "gen_tokens", "train_tokens",
    "verifier_calls", "updates", "wall_seconds", "cpu_seconds", "device", "step", "relative_step", "kl",
    "entropy_base", "entropy", "base_pass@1", "pass@1", "delta", "ci_low", "ci_high", "p_value", "base_greedy",
    "greedy", "base_pass@4", "pass@4", "base_pass@16", "pass@16", "base_format", "format", "base_format_free",
    "format_free", "base_truncated", "truncated", "base_unparsed", "unparsed", "errors", "batch_pass_rate",
    "dead_groups", "snr", "agreement", "logprob_gap", "changed_weights", "commit", "dirty", "command",
)  # fmt: skip
# What a row tells of the policy and of how it was made: it holds whoever tests the policy.
OF_THE_POLICY = (
    "run_id", "domain", "train_benchmark", "model", "model_revision", "method", "method_version", "direction", "seed",
    "train_rollouts", "selection_rollouts", "updates", "device", "step", "relative_step", "kl", "entropy_base", "entropy",
    "batch_pass_rate", "dead_groups", "snr", "agreement", "logprob_gap", "changed_weights", "commit", "dirty",
)  # fmt: skip
TEXTS = frozenset({
    "run_id", "date", "status", "domain", "train_benchmark", "test_benchmark", "data_hash", "model", "model_revision",
    "method", "method_version", "direction", "engine", "seed", "device", "commit", "dirty", "command",
})  # fmt: skip
UNCOMPARED = ("run_id", "date", "command", "wall_seconds", "cpu_seconds")  # may differ between equal rows
OK = "ok"  # status of a method that ran, with "too few" or "oracle" in parentheses; others say why it did not
Row = dict[str, Any]
Floats = npt.NDArray[np.float64]


class Outcome(NamedTuple):
    """Everything a finished method left behind, for its row. `status` is "ok" or a reason; `samples` are per problem.

    An `oracle` looked at the verdicts of the test problems: its scores are a bound.
    """

    status: str
    evaluation: Evaluation
    search: Search | None
    direction: Direction | None
    displacement: Displacement
    temperature: float
    samples: int
    cost: Cost
    oracle: bool = False


def row_of(shared: Mapping[str, Any], outcome: Outcome, base: Evaluation, *, seed: int) -> Row:
    """One method in one seed. `shared` holds the columns that identify run, method and machine."""
    row: Row = dict.fromkeys(COLUMNS, "")
    row.update({key: value for key, value in shared.items() if key in COLUMNS})
    row.update(schema=SCHEMA, status=outcome.status, seed=seed, temperature=outcome.temperature)
    row.update({key: value for key, value in outcome.cost._asdict().items() if key in COLUMNS})
    row.update(_scores("base_", base))
    if outcome.direction is not None:
        row.update(_of_direction(outcome.direction))
    sampled = outcome.evaluation.sampled
    row.update(_scores("", outcome.evaluation), errors=sampled.errors)
    row.update(test_problems=len(sampled.problem_ids), test_samples=outcome.samples)
    gain = _gain([(base.sampled, sampled)], seed=seed)
    row.update(gain)
    too_few = "ci_low" in gain and stats.too_few(*paired_rates(base.sampled, sampled))
    notes = [note for note, holds in (("oracle", outcome.oracle), ("too few", too_few)) if holds]
    if outcome.status == OK and notes:
        row.update(status=f"{OK} ({', '.join(notes)})")
    if outcome.search is not None:
        row.update(_of_search(outcome.search))
    row.update(changed_weights=outcome.displacement.changed, relative_step=outcome.displacement.relative)
    return row


def row_from_outside(known: Row, pairs: Sequence[tuple[Score, Score]], *, greedy: bool, **columns: Any) -> Row:
    """What another harness says of the policy of the row `known`: one answer a problem, right or wrong.

    `pairs` holds (base, policy) scores, one pair for each run seed that the row stands for; `columns` say who tested it on
    what; `greedy`: the answers were generated so, else chosen by likelihood. Columns that nobody measured are empty.
    """
    row: Row = {column: known.get(column, "") if column in OF_THE_POLICY else "" for column in COLUMNS}
    bases, scores = zip(*pairs, strict=True)
    row.update({"base_pass@1": _mean_accuracy(bases), "pass@1": _mean_accuracy(scores), **_gain(pairs)})
    row.update(schema=SCHEMA, status=known.get("status", OK), test_problems=len(scores[0].n), test_samples=1, **columns)
    if greedy:
        row.update({"temperature": 0.0, "base_greedy": row["base_pass@1"], "greedy": row["pass@1"]})
    if row["status"].startswith(OK):
        few = row["ci_low"] != "" and any(stats.too_few(*paired_rates(*pair)) for pair in pairs)
        row.update(status=f"{OK} (too few)" if few else OK)
    return row


def _mean_accuracy(scores: Sequence[Score]) -> float:
    return float(np.mean([score.accuracy for score in scores]))


def _scores(prefix: str, evaluation: Evaluation) -> Row:
    score = evaluation.sampled
    wide = evaluation.wide or score
    return {
        f"{prefix}pass@1": score.accuracy,
        f"{prefix}greedy": evaluation.greedy.accuracy,
        f"{prefix}pass@4": stats.pass_at_k(score.n, score.correct, 4),
        f"{prefix}pass@16": stats.pass_at_k(wide.n, wide.correct, 16),
        f"{prefix}format": score.format,
        f"{prefix}format_free": score.accuracy_free,
        f"{prefix}truncated": score.truncated,
        f"{prefix}unparsed": score.unparsed,
    }


def _of_direction(direction: Direction) -> Row:
    return {
        "direction": direction.kind,
        "batch_pass_rate": direction.batch_pass_rate,
        "dead_groups": direction.groups_dead if direction.groups_used + direction.groups_dead else None,  # of no batch
        "snr": direction.snr,
        "agreement": direction.agreement,
        "logprob_gap": direction.logprob_gap,
    }


def _of_search(search: Search) -> Row:
    winner, zero = search.winner, search.candidates[0]
    return {"step": winner.step, "kl": winner.kl, "entropy_base": zero.entropy, "entropy": winner.entropy}


class Comparison(NamedTuple):
    """One contender minus another on the same problems: mean difference, 95 % interval, sign-flip p-value.

    `too_few` says that problems or outcomes are too few for a bootstrap (harness/stats.py).
    """

    delta: float
    ci_low: float
    ci_high: float
    p_value: float
    too_few: bool


def comparison(pairs: Sequence[tuple[Score, Score]], *, seed: int = 0) -> Comparison:
    """Second minus first of each pair, one pair for each run seed: over problems, and over seeds when several."""
    rates = [(stepping.rates(first), stepping.rates(second)) for first, second in pairs]
    first_SP, second_SP = (np.array(side) for side in zip(*rates, strict=True))
    return compared(first_SP, second_SP, seed=seed)


def compared(first_SP: Floats, second_SP: Floats, *, seed: int = 0) -> Comparison:
    """`comparison` of accuracies by seed and problem, NaN where there is no verdict."""
    p_value = _pooled_p(second_SP - first_SP, seed=seed)
    if len(first_SP) == 1:
        only = stats.paired_bootstrap(first_SP[0], second_SP[0], seed=seed)
        return Comparison(only.delta, only.low, only.high, p_value, only.too_few)
    found = stats.over_seeds(second_SP - first_SP)
    too_few = any(stats.too_few(*both) for both in map(_known, first_SP, second_SP))
    return Comparison(found.delta, max(-1.0, found.low), min(1.0, found.high), p_value, too_few)


def _gain(pairs: Sequence[tuple[Score, Score]], *, seed: int = 0) -> Row:
    """delta, interval and p-value against the base; no interval when the contender is the base itself."""
    if all(base == method for base, method in pairs):
        return {"delta": 0.0}
    values = comparison(pairs, seed=seed)._asdict()
    del values["too_few"]
    return values


def paired_rates(base: Score, method: Score) -> tuple[Floats, Floats]:
    """Per-problem accuracies of both, on the problems where both have a verdict."""
    return _known(stepping.rates(base), stepping.rates(method))


def _known(left_P: Floats, right_P: Floats) -> tuple[Floats, Floats]:
    both = ~(np.isnan(left_P) | np.isnan(right_P))
    return left_P[both], right_P[both]


def aggregate(rows: Sequence[Row], pairs: Sequence[tuple[Score, Score]]) -> Row:
    """The `seed = all` row of one method: means over seeds, interval over problems and seeds (docs/metrics.md).

    `pairs` holds the (base, method) test scores of each seed.
    """
    row = dict(rows[0])
    for column in COLUMNS:
        values = [r[column] for r in rows if isinstance(r[column], int | float)]
        if column not in ("schema", "method_version") and values:
            row[column] = float(np.mean(values))
    row.update(seed="all", status=_status([str(r["status"]) for r in rows]))
    row.update(_gain(pairs))
    return row


def _pooled_p(differences_SP: Floats, *, seed: int = 0) -> float:
    """Sign flips by problem of the rates averaged over seeds; a seed without a verdict on a problem is left out."""
    known_P = ~np.isnan(differences_SP).all(axis=0)
    differences_P = np.nanmean(differences_SP[:, known_P], axis=0)
    return stats.sign_flip_p(np.zeros_like(differences_P), differences_P, seed=seed)


def _status(statuses: Sequence[str]) -> str:
    bad = [status for status in statuses if not status.startswith(OK)]
    if bad:
        return f"{len(bad)} of {len(statuses)} seeds: {bad[0]}"
    return max(statuses, key=len)  # that of most notes


def label(row: Row) -> str:
    """The method as tables name it: an oracle is called one."""
    return f"{row['method']} (oracle)" if str(row["status"]).startswith(f"{OK} (oracle") else str(row["method"])


def to_csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows([{column: _cell(row.get(column)) for column in COLUMNS} for row in rows])
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Empty for missing; enough digits to compare rows exactly."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(value) if isinstance(value, float) else value


def read_csv(path: Path) -> list[Row]:
    """Every value is text. Raises HarnessError for a file that does not hold rows, with the line and the column."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(f"{path} cannot be read: {error}") from error
    try:
        rows = of_csv(text)
        _check(rows)
    except (csv.Error, ValueError, UsageError) as error:
        raise HarnessError(f"{path} holds no rows of the harness: {error}") from error
    return rows


def of_csv(text: str) -> list[Row]:
    """Rows as a reader of leaderboard.csv sees them: every value is text."""
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _check(rows: Sequence[Row]) -> None:
    """Raises ValueError for rows with other columns, or with text where a number belongs."""
    for number, row in enumerate(rows, start=2):
        if list(row) != list(COLUMNS) or None in row.values():
            odd = sorted(set(map(str, row)) ^ set(COLUMNS)) or ["fewer values than columns"]
            raise ValueError(f"line {number} has other columns ({', '.join(odd[:3])})")
        limits.require_name(row["domain"], f"a domain (line {number})")
        limits.require_name(row["method"], f"a method (line {number})")
        if row["seed"] != "all" and not row["seed"].isdecimal():
            raise ValueError(f"line {number}, column seed: {limits.short(row['seed'])} is no number and not all")
        for column in COLUMNS:
            if column not in TEXTS and row[column]:
                _number(row[column], f"line {number}, column {column}")


def _number(text: str, place: str) -> None:
    try:
        float(text)
    except ValueError as error:
        raise ValueError(f"{place}: {limits.short(text)} is no number") from error


def merge(run_rows: Sequence[Row], folder: Path) -> list[Path]:
    """Put rows into <folder>/<domain>.csv; rows of the same run, method, seed, engine and test set are replaced.

    Waits for another process that is doing so.
    """
    written = []
    domains = sorted({str(row["domain"]) for row in run_rows})
    for domain in domains:
        limits.require_name(domain, "a domain")
    store.make_folder(folder)
    with locking.alone(folder, wait=True):
        for domain in domains:
            path = folder / f"{domain}.csv"
            put(path, [row for row in run_rows if row["domain"] == domain])
            written.append(path)
    return written


def put(path: Path, rows: Sequence[Row]) -> None:
    """Write rows into a file of rows, which may be new; others stay, and the same ones are replaced."""
    kept = {_identity(row): row for row in (*(read_csv(path) if path.exists() else []), *rows)}
    store.write_text(path, to_csv(list(kept.values())))


def of_engine(path: Path, engine: str) -> list[Row]:
    """The rows that a run wrote itself, without what other harnesses have said of its policies since."""
    return [row for row in read_csv(path) if row["engine"] == engine]


def _identity(row: Row) -> tuple[str, ...]:
    return tuple(str(row[column]) for column in ("run_id", "method", "seed", "engine", "test_benchmark"))


def ranked(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Aggregate rows by (domain, test set, data), best pass@1 first; one group never mixes data hashes."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if str(row["seed"]) == "all":
            title = f"{row['domain']} / {row['test_benchmark']} / data {row['data_hash']} / model {row['model']} {row['model_revision']}"
            groups.setdefault(title, []).append(row)
    return [(title, sorted(group, key=_rank)) for title, group in sorted(groups.items())]


def _rank(row: Row) -> tuple[float, str]:
    value = row["pass@1"]
    return (-float(value) if value not in ("", None) else math.inf, str(row["method"]))


def tied(row: Row, leader: Row) -> bool:
    """Whether the intervals of the two gains over the base overlap: a rough tie, marked in tables."""
    if "" in (row["ci_high"], leader["ci_low"]):
        return False
    return float(row["ci_high"]) >= float(leader["ci_low"])
