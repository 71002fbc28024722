"""The manifest: what ran, on what, with which data, code and versions.

Does: collect and write manifest.json and problems.jsonl, once per run folder.
Doesn't: influence results.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import harness
from harness import config, isolation, selecting, store
from harness.config import RunSpec
from harness.contracts import Domain, Engine, Method
from harness.errors import HarnessError
from harness.plugins import Plugins, Registration
from harness.run import Run
from harness.types import Problem

PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "safetensors", "math-verify", "pluggy", "click", "rich")

KEYS = ("spec", "row", "tests", "engine", "methods", "data_hashes")  # what is read back of it


class Commit(NamedTuple):
    """The checkout the harness runs from; empty when it is an installed wheel."""

    commit: str
    dirty: str


def write(run: Run, plugins: Plugins, methods: Mapping[str, Method]) -> dict[str, Any]:
    """The manifest of the run folder: read when it exists, so that a resumed run keeps its own."""
    path = run.root / "manifest.json"
    if path.exists():
        known = read(run.root)
        _require_same(known["row"]["model_revision"], run.engine.identity()["revision"], "model")
        _require_same(known["tests"], tests(run), "test data")
        _require_same(known["data_hashes"], data_hashes(run), "data")
        return known
    started: dict[str, str] = store.read_json(run.root / "command.json")
    engine, spec, code = dict(run.engine.identity()), run.spec, commit()
    domain = plugins.lookup("domain", spec.domain)
    row = {
        "run_id": run.root.name,
        "date": started["date"],
        "domain": spec.domain,
        "train_benchmark": "+".join(selecting.label(name) for name in run.problems.names.train),
        "model": spec.model,
        "model_revision": engine["revision"],
        "engine": spec.engine.name,
        "device": engine.get("device", "cpu"),
        "commit": code.commit,
        "dirty": code.dirty,
        "command": started["command"],
    }
    manifest = {
        "harness": harness.__version__,
        "spec_hash": spec.hash,
        "spec": config.to_dict(spec),
        "row": row,
        "tests": tests(run),
        "engine": engine,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions(),
        "domain": {"name": domain.name, "plugin": domain.distribution, "version": domain.version},
        "plugins": _plugins(spec, plugins),
        "methods": {name: method.version for name, method in methods.items()},
        "isolation": isolation.level(domain.load()),
        "sources": run.problems.names._asdict(),
        "splits": {name: len(problems) for name, problems in splits(run).items()},
        "data_hashes": data_hashes(run),
        "max_tokens": run.max_tokens,
    }
    lines = [{"split": name, "problem": problem} for name, problems in splits(run).items() for problem in problems]
    store.write_lines(run.root / "problems.jsonl", lines)
    store.write_json(path, manifest)
    return manifest


def _plugins(spec: RunSpec, plugins: Plugins) -> dict[str, Any]:
    """Whose code decided results, and whose ran: all that were loaded, since each may observe the run."""
    methods = {spec.target(name) for name in ("base", *spec.methods)}
    names = [("domain", spec.domain), ("engine", spec.engine.name), *(("method", name) for name in sorted(methods))]
    used = {f"{kind} {name}": plugins.lookup(kind, name) for kind, name in names}
    return {
        "used": {name: f"{r.distribution} {r.version} ({r.target})" for name, r in used.items()},
        "loaded": list(map(str, plugins.sources)),
    }


def read(root: Path) -> dict[str, Any]:
    """The manifest of a run folder. Raises HarnessError where it is none."""
    found: dict[str, Any] = store.read_json(root / "manifest.json", dict)
    if missing := [key for key in KEYS if not isinstance(found.get(key), dict)]:
        raise HarnessError(f"{root / 'manifest.json'} is no manifest: it has no {missing[0]}")
    return found


def of_draws(spec: RunSpec, engine: Engine, registration: Registration, domain: Domain) -> list[Any]:
    """What rollouts and verdicts depend on besides the draw: model, engine, verifier, and the code of all of them."""
    model = [spec.model, config.to_dict(spec)["engine"], dict(engine.identity())]
    verifier = [registration.target, registration.version, domain.version, isolation.level(type(domain))]
    code = [harness.__version__, _checkout(), versions(), platform.python_version(), platform.platform()]
    return [model, verifier, code]


def splits(run: Run) -> dict[str, tuple[Problem, ...]]:
    """All problems of the run: "selection", "test/<test set>" and "train/<seed>"."""
    found = run.problems
    tests = {f"test/{name}": problems for name, problems in found.test.items()}
    return {"selection": found.selection, **tests, **{f"train/{s}": p for s, p in found.train.items()}}


def tests(run: Run) -> dict[str, str]:
    """The `data_hash` of every test set: 12 hex digits over prompts and answers."""
    return {
        name: store.fingerprint([[p.content_hash, p.answer] for p in problems])[:12]
        for name, problems in run.problems.test.items()
    }


def data_hashes(run: Run) -> dict[str, str]:
    return {name: store.fingerprint([p.content_hash for p in problems]) for name, problems in splits(run).items()}


def _require_same(before: object, now: object, what: str) -> None:
    if before != now:
        raise HarnessError(f"the {what} changed since this run began ({before}, now {now}): start a new run")


def versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in PACKAGES if _installed(name)}


def _installed(name: str) -> bool:
    return any(True for _ in metadata.distributions(name=name))


def commit() -> Commit:
    """Commit of the checkout that holds this file; dirty when code that decides results differs from it."""
    folder = Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return Commit("", "")
    head = _git(folder, "rev-parse", "--short=12", "HEAD")
    return Commit(head, str(bool(_git(folder, "status", "--porcelain", "--", "harness", "plugins"))).lower())


def _checkout() -> list[str]:
    """Commit and uncommitted changes, so that a change of code under way is a change of draws."""
    folder = Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return []
    places = ("--", "harness", "plugins")
    return [
        _git(folder, *what) for what in (("rev-parse", "HEAD"), ("diff", "HEAD", *places), ("status", "-s", *places))
    ]


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
