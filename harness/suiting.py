"""Suites: a grid of runs in one TOML file, kept in one folder.

Does: read and check a suite; expand its grid into run specs; write a suite's folder and read it back.
Doesn't: run anything (conducting.py) or print tables (report/suites.py).

A suite file: `summary`; `figure`, what its figure has along x; `[[prepare]]` tables {module, arguments, makes};
`[shared]`, spec keys of every run; `[grid]`, which gives an axis its list of values. An axis is a spec key, dotted or
nested, or several with commas between, whose values are lists of one for each. "NAME: keys" gives an axis a name of
its own; the first entry of each of its values then is what that value is called. Runs are the product of the axes in
file order, the last one fastest. `{domain}` in a model or a preparation stands for the domain: a preparation that says
it is made once for each of the grid. The suite's folder is named by its expanded specs, so the same command continues
it.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness import checksums, config, limits, mending, store, toml
from harness.config import RunSpec
from harness.errors import HarnessError, UnknownName, UsageError

BUILT_IN = Path(__file__).parent / "suites"
KEYS = ("summary", "figure", "prepare", "shared", "grid")
FIGURES = ("updates", "budget", "base", "pass_rate")  # what a suite's figure may have along x
EACH = "{domain}"
OWN_FILES = {"suite.toml", "suite.json", checksums.NAME}
MOST_RUNS = 10_000
PLACE = 180  # longest part of a folder name that tells the axes
LABEL = 40  # longest part of a folder name that one axis may take


class Prepare(NamedTuple):
    """`python -m module arguments...`, needed once: `makes` is the file it writes last, so its presence means done."""

    module: str
    arguments: tuple[str, ...]
    makes: str

    def __str__(self) -> str:
        return " ".join(("python -m", self.module, *self.arguments))

    def of(self, domain: str) -> Prepare:
        arguments = tuple(argument.replace(EACH, domain) for argument in self.arguments)
        return Prepare(self.module, arguments, self.makes.replace(EACH, domain))


class Point(NamedTuple):
    """One run of the grid: folder name, the axes that vary with the label of their value here, and the spec."""

    name: str
    axes: Mapping[str, str]
    spec: RunSpec

    def __str__(self) -> str:
        return " ".join(f"{axis}={label}" for axis, label in self.axes.items()) or self.name


class Suite(NamedTuple):
    """An expanded suite. `text` is its file as it was read, `source` where from, `figure` one of FIGURES or empty."""

    name: str
    source: str
    text: str
    figure: str
    prepare: tuple[Prepare, ...]
    points: tuple[Point, ...]

    def folder(self, out: Path) -> Path:
        hashes = store.fingerprint([point.spec.hash for point in self.points])
        return out / f"suite-{_safe(self.name)}-{hashes[:8]}"


def names() -> list[str]:
    return sorted(path.stem for path in BUILT_IN.glob("*.toml"))


def load(name: str, *, domain: str | None, changes: Mapping[str, Any], sets: Sequence[str]) -> Suite:
    """Read a built-in suite or FILE.toml and expand it. `domain` limits a grid over domains to one of them; `changes`
    and `sets` are as in config.load, and win over what the file shares.

    Raises UsageError or UnknownName; a mistake in the file names the file.
    """
    path = _find(name)
    text = toml.read_text(path, "suite file")
    values = toml.parsed(text, str(path))
    try:
        values = _checked(values)
        axes = dict(_flat(values.get("grid", {})))
        shared, prepare = values.get("shared", {}), tuple(_prepare(table) for table in values.get("prepare", ()))
        points = _expand(shared, _limited(axes, domain), domain)  # valid by itself, before flags have a say
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    given = {key: value for key, value in changes.items() if value not in (None, ())}
    _refuse_axes(axes, [*given, *(text.partition("=")[0].strip() for text in sets)])
    if given or sets:
        points = _expand({**shared, **given}, _limited(axes, domain), domain, sets)
    made = tuple(dict.fromkeys(one.of(point.spec.domain) for one in prepare for point in points))
    return Suite(path.stem, str(path), text, values.get("figure", ""), made, tuple(points))


def _find(name: str) -> Path:
    if name.endswith(".toml"):
        return Path(name)
    if name not in names():
        raise UnknownName("suite", name, names(), hint="A suite of your own is given as FILE.toml.")
    return BUILT_IN / f"{name}.toml"


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    for key in values:
        if key not in KEYS:
            raise UnknownName("key of a suite", key, KEYS)
    for key in ("shared", "grid"):
        if not isinstance(values.get(key, {}), dict):
            raise UsageError(f"[{key}] is a table, got {limits.short(values[key])}")
    if values.get("figure", "") not in ("", *FIGURES):
        raise UnknownName("figure of a suite", str(values["figure"]), FIGURES)
    prepare = values.get("prepare", [])
    if not isinstance(prepare, list) or not all(isinstance(table, dict) for table in prepare):
        raise UsageError("[[prepare]] is a list of tables")
    return values


def _prepare(table: Mapping[str, Any]) -> Prepare:
    for key in table:
        if key not in Prepare._fields:
            raise UnknownName("key of [[prepare]]", key, Prepare._fields)
    missing = [key for key in ("module", "makes") if not isinstance(table.get(key), str)]
    if missing:
        raise UsageError(f"[[prepare]] needs {' and '.join(missing)}: a module to run, and the file it writes last")
    if not isinstance(table.get("arguments", []), list):
        raise UsageError(f"[[prepare]] arguments is a list, got {limits.short(table['arguments'])}")
    return Prepare(table["module"], tuple(str(a) for a in table.get("arguments", ())), table["makes"])


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Axes in file order. TOML reads a bare dotted key as nested tables: both spellings mean the same axis."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list) or not value:
            raise UsageError(f"grid.{prefix}{key} must be a list of values, got {limits.short(value)}")
        else:
            count = len(_keys(key)) + bool(_own_name(key))
            if count > 1 and not all(isinstance(item, list) and len(item) == count for item in value):
                raise UsageError(
                    f'grid."{prefix}{key}" sets {len(_keys(key))} keys: each of its values is a list of {count}'
                )
            yield f"{prefix}{key}", value


def _keys(axis: str) -> list[str]:
    return [key.strip() for key in axis.rpartition(":")[2].split(",")]


def _own_name(axis: str) -> str:
    """The name in front of the keys; empty where the first key names the axis."""
    return axis.rpartition(":")[0].strip()


def _limited(axes: Mapping[str, list[Any]], domain: str | None) -> dict[str, list[Any]]:
    if domain is None or "domain" not in axes:
        return dict(axes)
    if domain not in axes["domain"]:
        raise UnknownName("domain in this suite", domain, map(str, axes["domain"]))
    return {**axes, "domain": [domain]}


def _refuse_axes(axes: Mapping[str, list[Any]], keys: Sequence[str]) -> None:
    for axis in itertools.chain.from_iterable(map(_keys, axes)):
        for key in keys:
            if axis == key or axis.startswith(f"{key}.") or key.startswith(f"{axis}."):
                raise UsageError(
                    f"{axis} is an axis of this suite, it cannot be set as well: copy the suite's file, change the "
                    "axis there, and give it as --suite FILE.toml"
                )


def _expand(
    shared: Mapping[str, Any], axes: Mapping[str, list[Any]], domain: str | None, sets: Sequence[str] = ()
) -> list[Point]:
    labels = {axis: _labels(_first(axis, values)) for axis, values in axes.items() if len(values) > 1}
    count = math.prod(map(len, axes.values()))
    if count > MOST_RUNS:
        raise UsageError(f"the grid has {count:,} runs, and a suite at most {MOST_RUNS:,}: give its axes fewer values")
    points = []
    for chosen in itertools.product(*(range(len(values)) for values in axes.values())):
        values, own = copy.deepcopy(dict(shared)), dict(zip(axes, chosen, strict=True))
        for axis, index in own.items():
            for key, item in zip(_keys(axis), _items(axis, axes[axis][index]), strict=True):
                _assign(values, key, item)
        spec = config.load(None if "domain" in axes else domain, file=None, changes=values, sets=sets)
        spec = dataclasses.replace(spec, model=spec.model.replace(EACH, spec.domain))
        varying = {
            _own_name(axis) or _keys(axis)[0]: labels[axis][index] for axis, index in own.items() if axis in labels
        }
        place = ",".join(_safe(f"{axis}={label}") for axis, label in varying.items()) or "run"
        points.append(Point(f"{place[:PLACE]}-{spec.hash}", varying, spec))
    if len({point.spec.hash for point in points}) < len(points):
        raise UsageError("two points of the grid are the same run")
    return points


def _first(axis: str, values: Sequence[Any]) -> Sequence[Any]:
    """What names the values of an axis: their own labels, or the values of its first key."""
    return [value[0] for value in values] if _own_name(axis) or len(_keys(axis)) > 1 else values


def _items(axis: str, value: Any) -> list[Any]:
    """What a value of the axis gives each of its keys."""
    if _own_name(axis):
        return list(value[1:])
    return list(value) if len(_keys(axis)) > 1 else [value]


def _assign(values: dict[str, Any], axis: str, value: Any) -> None:
    *parents, last = axis.split(".")
    for key in parents:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise UsageError(f'grid.{axis}: "{key}" is a value, not a table')
    values[last] = copy.deepcopy(value)


def _labels(values: Sequence[Any]) -> list[str]:
    """What tells the values of an axis apart: of paths, the parts that no other value has."""
    parts = [_text(value).split("/") for value in values]
    own = [
        [part for part in mine if not any(part in others for j, others in enumerate(parts) if j != i)]
        for i, mine in enumerate(parts)
    ]
    return [_safe("-".join(kept or mine))[:LABEL] for kept, mine in zip(own, parts, strict=True)]


def _text(value: Any) -> str:
    return "+".join(map(_text, value)) if isinstance(value, list) else str(value)


def _safe(text: str) -> str:
    return re.sub(r"[^\w.=+-]+", "-", text, flags=re.ASCII).strip("-.") or "x"


def open_folder(suite: Suite, root: Path, command: str) -> None:
    """The specs are kept as expanded: a later version's defaults must not change a suite that is under way."""
    store.make_folder(root)
    checksums.begin(root)
    store.write_text(root / "suite.toml", suite.text)
    runs = [{"name": p.name, "axes": dict(p.axes), "spec": config.to_dict(p.spec)} for p in suite.points]
    record = {"name": suite.name, "source": suite.source, "figure": suite.figure, "command": command, "runs": runs}
    own = {"prepare": [p._asdict() for p in suite.prepare], "layout": mending.LAYOUT}
    store.write_json(root / "suite.json", {**record, **own})


class Opened(NamedTuple):
    """A suite read back from its folder, and the command that began it."""

    suite: Suite
    command: str


def is_suite(root: Path) -> bool:
    return (root / "suite.json").exists()


def reopen(root: Path) -> Opened:
    """Raises HarnessError where the folder is damaged, or another version's."""
    mending.require_origin(root)
    record = _record(root)
    prepare = tuple(Prepare(p["module"], tuple(p["arguments"]), p["makes"]) for p in record["prepare"])
    points = tuple(
        Point(run["name"], run["axes"], config.load(None, file=None, changes=run["spec"], sets=()))
        for run in record["runs"]
    )
    text = (root / "suite.toml").read_text(encoding="utf-8")
    suite = Suite(record["name"], record["source"], text, record["figure"], prepare, points)
    return Opened(suite, record["command"])


def _record(root: Path) -> Any:
    """What `open_folder` wrote. Raises HarnessError where someone else has, names that lead out of the folder among it."""
    record = store.read_plain(root / "suite.json")
    if not isinstance(record, dict) or not {"prepare", "runs", "name", "source", "figure", "command"} <= record.keys():
        raise HarnessError(f"{root / 'suite.json'} is not what the harness writes")
    for run in record["runs"]:
        limits.require_name(run["name"].replace(",", "+"), "a run of a suite")
    return record


def run_folders(root: Path) -> list[Path]:
    """The runs of a suite's folder, or the run folder itself."""
    return [root / point.name for point in reopen(root).suite.points] if is_suite(root) else [root]


def discard_unstarted(root: Path) -> bool:
    """True when nothing is left of the suite: no folder, or one in which no run began, which is removed."""
    if not root.exists():
        return True
    if {path.name for path in root.iterdir()} != OWN_FILES:
        return False
    for name in OWN_FILES:
        (root / name).unlink()
    root.rmdir()
    return True
