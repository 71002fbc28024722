"""Where two run folders differ, from what they were told to do to the rows that came out.

Does: compare specs, versions, problems, completions, verdicts, directions, the stage calls of every method, scores and rows.
Doesn't: count what never is the same twice: names, dates, command lines, seconds, and how many processes worked.

The first difference is the cause of the later ones as a rule: a draw is named by the policy that it comes of, so after another
direction whole draws are in one folder only.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open

from harness import config, leaderboard, shards, store
from harness.types import Rollout

SECONDS = ("seconds", "wall_seconds", "cpu_seconds")
# Of verdicts, the detail: it may tell seconds. Of manifests, the spec: it has a section of its own.
NEVER_EQUAL = (*leaderboard.UNCOMPARED, *SECONDS, "detail", "workers", "spec", "spec_hash")
COLUMNS = 3  # of a row that are shown
_MISSING = object()


class Difference(NamedTuple):
    """`section` is what differs, `text` where and how, the first folder's first."""

    section: str
    text: str


def differences(one: Path, other: Path) -> Iterator[Difference]:
    """All of them, in the order in which a run comes about. The folders are of finished runs."""
    compared: Mapping[str, Callable[[Path, Path], Iterator[str]]] = {
        "spec": _specs,
        "made with": _manifests,
        "problems": _problems,
        "rollouts": _rollouts,
        "verdicts": _verdicts,
        "directions": _directions,
        "methods": _methods,
        "rows": _rows,
    }
    for section, compare in compared.items():
        for text in compare(one, other):
            yield Difference(section, text)


def _specs(one: Path, other: Path) -> Iterator[str]:
    specs = [config.load(None, file=root / "spec.toml", changes={}, sets=()) for root in (one, other)]
    return _unequal(config.to_dict(specs[0]), config.to_dict(specs[1]))


def _manifests(one: Path, other: Path) -> Iterator[str]:
    return _unequal(_json(one / "manifest.json"), _json(other / "manifest.json"))


def _problems(one: Path, other: Path) -> Iterator[str]:
    return _unequal(_splits(one), _splits(other), but=())


def _splits(root: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    path = root / "problems.jsonl"
    with store.as_written(path):
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line:
                entry = json.loads(line)
                found.setdefault(entry["split"], []).append(entry["problem"])
    return found


def _rollouts(one: Path, other: Path) -> Iterator[str]:
    for draw, mine, theirs in _draws(one / "rollouts", other / "rollouts", "*.safetensors"):
        first, second = (dict(_completions(paths)) for paths in (mine, theirs))
        apart = [key for key in first.keys() & second.keys() if not _same(first[key], second[key])]
        yield from _counted(draw, first.keys() ^ second.keys(), "only on one side")
        if apart:
            key = min(apart)
            how = _apart(first[key], second[key])
            yield f"{draw}: {len(apart)} completions differ, such as {key[0]} number {key[1]}: {how}"


def _completions(paths: Iterable[Path]) -> Iterator[tuple[tuple[str, int], Rollout]]:
    for path in paths:
        with store.as_written(path), safe_open(path, framework="np") as file:
            groups = json.loads(file.metadata()["index"])["groups"]
        for problem_id in groups:
            for rollout in shards.read_group(path, problem_id):
                yield (problem_id, rollout.sample_idx), rollout


def _same(one: Rollout, other: Rollout) -> bool:
    return np.array_equal(one.completion_tokens, other.completion_tokens) and np.array_equal(
        one.logprobs, other.logprobs
    )


def _apart(one: Rollout, other: Rollout) -> str:
    length = min(len(one.completion_tokens), len(other.completion_tokens))
    places = np.flatnonzero(one.completion_tokens[:length] != other.completion_tokens[:length])
    if len(places) or len(one.completion_tokens) != len(other.completion_tokens):
        return f"other tokens from {int(places[0]) if len(places) else length} on"
    return f"the same tokens, log-probabilities up to {float(np.abs(one.logprobs - other.logprobs).max()):.3g} apart"


def _verdicts(one: Path, other: Path) -> Iterator[str]:
    for draw, mine, theirs in _draws(one / "verdicts", other / "verdicts", "*.json"):
        first, second = (
            {(j["problem_id"], j["sample_idx"]): j for path in paths for j in _json(path)["judged"]}
            for paths in (mine, theirs)
        )
        yield from _counted(draw, first.keys() ^ second.keys(), "only on one side")
        apart = {key: next(_unequal(first[key], second[key]), "") for key in first.keys() & second.keys()}
        if apart := {key: text for key, text in apart.items() if text}:
            key = min(apart)
            yield f"{draw}: {len(apart)} verdicts differ, such as {key[0]} number {key[1]}: {apart[key]}"


def _counted(draw: str, keys: Iterable[Any], text: str) -> Iterator[str]:
    if count := len(list(keys)):
        yield f"{draw}: {count} {text}"


def _draws(one: Path, other: Path, pattern: str) -> Iterator[tuple[str, list[Path], list[Path]]]:
    """Draws that both have, with the shards that are not the same file. Others are told of by the stage calls."""
    names = ({path.parent.relative_to(root).as_posix() for path in root.rglob(pattern)} for root in (one, other))
    for draw in sorted(set.intersection(*names)):
        mine, theirs = ({p.name: store.digest(p) for p in (root / draw).glob(pattern)} for root in (one, other))
        if mine != theirs:
            files = [[n for n in own if own[n] != also.get(n)] for own, also in ((mine, theirs), (theirs, mine))]
            yield draw, [one / draw / name for name in files[0]], [other / draw / name for name in files[1]]


def _directions(one: Path, other: Path) -> Iterator[str]:
    names = [{path.relative_to(root) for path in (root / "directions").rglob("*.safetensors")} for root in (one, other)]
    for name in sorted(names[0] & names[1]):
        if store.digest(one / name) != store.digest(other / name):
            yield f"{name}: {_distance(one / name, other / name):.3g} of its norm apart"
    for root, only in ((one, names[0] - names[1]), (other, names[1] - names[0])):
        yield from (f"{name}: only in {root}" for name in sorted(only))


def _distance(one: Path, other: Path) -> float:
    apart = whole = 0.0
    with safe_open(one, framework="np") as first, safe_open(other, framework="np") as second:
        if sorted(first.keys()) != sorted(second.keys()):
            return math.inf
        for name in first.keys():  # noqa: SIM118
            tensor = first.get_tensor(name).astype(np.float64)
            apart += float(np.square(tensor - second.get_tensor(name)).sum())
            whole += float(np.square(tensor).sum())
    return math.sqrt(apart / whole) if whole else math.sqrt(apart)


def _methods(one: Path, other: Path) -> Iterator[str]:
    parts = [{path.relative_to(root) for path in root.glob("methods/*/*")} for root in (one, other)]
    for part in sorted(parts[0] | parts[1]):
        if part not in parts[0] & parts[1]:
            yield f"{part.relative_to('methods')}: only in {one if part in parts[0] else other}"
            continue
        calls = ({path.name: path for path in (root / part / "journal").glob("*.json")} for root in (one, other))
        yield from _first_call(part, *calls)
        for text in itertools.islice(
            _unequal(_json(one / part / "scores.json"), _json(other / part / "scores.json")), 1
        ):
            yield f"{part.relative_to('methods')}: scores: {text}"


def _first_call(part: Path, one: Mapping[str, Path], other: Mapping[str, Path]) -> Iterator[str]:
    """The first stage call that differs; those after it follow from it."""
    for name in sorted({*one, *other}):
        told = "" if name in one and name in other else "only on one side"
        if told := told or _call(_json(one[name]), _json(other[name])):
            yield f"{part.relative_to('methods')}: call {name.removesuffix('.json')}: {told}"
            return


def _call(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return "other arguments" if one["key"] != other["key"] else next(_unequal(one, other), "")


def _rows(one: Path, other: Path) -> Iterator[str]:
    rows = [
        {(r["method"], r["seed"], r["test_benchmark"]): r for r in leaderboard.read_csv(root / "leaderboard.csv")}
        for root in (one, other)
    ]
    for key in dict.fromkeys((*rows[0], *rows[1])):
        name = f"{key[0]}, seed {key[1]}, on {key[2]}"
        if key not in rows[0] or key not in rows[1]:
            yield f"{name}: only in {one if key in rows[0] else other}"
            continue
        if texts := list(_unequal(rows[0][key], rows[1][key])):
            more = f" and {len(texts) - COLUMNS} more columns" if len(texts) > COLUMNS else ""
            yield f"{name}: {'; '.join(texts[:COLUMNS])}{more}"


def _unequal(one: Any, other: Any, place: str = "", *, but: Sequence[str] = NEVER_EQUAL) -> Iterator[str]:
    """Each leaf of two JSON-like values that differs, with its place; keys in `but` are passed over."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys((*one, *other)):
            if key not in but:
                where = f"{place}.{key}".lstrip(".")
                yield from _unequal(one.get(key, _MISSING), other.get(key, _MISSING), where, but=but)
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for index, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            yield from _unequal(mine, theirs, f"{place}[{index}]", but=but)
    elif one != other and not (_is_nan(one) and _is_nan(other)):
        yield f"{place} {_shown(one)}, {_shown(other)}"


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _shown(value: Any) -> str:
    text = "nothing" if value is _MISSING else json.dumps(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _json(path: Path) -> Any:
    return store.read_plain(path) if path.exists() else {}
