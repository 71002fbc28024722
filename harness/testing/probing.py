"""One verdict looked at in a process of its own, where a verifier cannot harm the check.

Does: pickle the domain there and back, judge one completion by the copy, and say what is wrong with the verdict.
Doesn't: judge many (the pool does) or decide which completion.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from harness.types import Outcome, Problem, Verdict

SECONDS = 20.0
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from harness.testing.probing import serve; serve()"


class Probed(NamedTuple):
    """What is wrong with pickling the domain, with the verdict, and with pickling the verdict."""

    domain: list[str]
    verdict: list[str]
    pickled: list[str]


def probe(target: str, problem: Problem, completion: str) -> Probed:
    """Look at the verdict that the domain at `target` gives; that it gives none within SECONDS is a fault too."""
    command = [sys.executable, "-c", _BOOT, json.dumps(sys.path)]
    request = pickle.dumps((target, problem, completion))
    try:
        done = subprocess.run(command, input=request, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Probed([], [f"verify gave no verdict within {SECONDS:.0f} s"], [])
    lines = done.stdout.decode(errors="replace").splitlines()
    if done.returncode or not lines:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        places = [line.strip() for line in said if line.startswith('  File "')]
        ended = f"verify ended its process with status {done.returncode}"
        return Probed([], [ended, *said[-1:], *places[-1:]], [])
    return Probed(**json.loads(lines[-1]))


def serve() -> None:
    """Reads one pickled (target, problem, completion); writes one line of JSON, whatever the verifier prints."""
    target, problem, completion = pickle.loads(sys.stdin.buffer.read())
    reply, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    module, _, name = target.partition(":")
    faults, domain = _there_and_back(getattr(importlib.import_module(module), name)())
    verdict = domain.verify(problem, completion)
    getattr(domain, "close", lambda: None)()
    pickled, again = _there_and_back(verdict)
    if not pickled and again != verdict:
        pickled = ["comes back as another verdict"]
    os.write(reply, json.dumps(Probed(faults, list(_faults(verdict)), pickled)._asdict()).encode())


def _there_and_back(value: Any) -> tuple[list[str], Any]:
    """What pickling says, and the copy (or the value itself where there is none)."""
    try:
        return [], pickle.loads(pickle.dumps(value))
    except (pickle.PicklingError, TypeError, AttributeError, ImportError) as error:
        return [f"{type(error).__name__}: {error}"], value


def _faults(verdict: Any) -> Iterator[str]:
    if not isinstance(verdict, Verdict):
        yield f"verify returned {type(verdict).__name__}, not harness.types.Verdict"
        return
    if not isinstance(verdict.outcome, Outcome):
        yield f"outcome is {verdict.outcome!r}, not a harness.types.Outcome"
    if not isinstance(verdict.extracted, str | None):
        yield f"extracted is {type(verdict.extracted).__name__}, not text or None"
    if not isinstance(verdict.format_ok, bool):
        yield f"format_ok is {verdict.format_ok!r}, not True or False"
    if not isinstance(verdict.detail, str):
        yield f"detail is {type(verdict.detail).__name__}, not text"
