"""The verifier worker: one process of the pool in harness/verifying.py, which starts it and may kill it.

Does: import one domain, judge what comes on standard input, answer one line of JSON per item.
Doesn't: keep time, retry, or survive its parent.
"""

from __future__ import annotations

import copyreg
import ctypes
import importlib
import io
import json
import operator
import os
import pickle
import resource
import signal
import sys
import time
from dataclasses import fields
from typing import Any

from harness.contracts import Domain
from harness.types import Outcome, Problem

DETAIL_CHARS = 300
FIELDS = tuple(field.name for field in fields(Problem))
_values = operator.attrgetter(*FIELDS)


def serve() -> None:
    """Arguments: sys.path (used by the starter), options. Each request: eight bytes of length, pickled pairs."""
    options = json.loads(sys.argv[2])
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)  # a verifier that prints must not write into the replies
    end_with(options["parent"])

    def reply(message: dict[str, Any] | list[Any]) -> None:
        replies.write(json.dumps(message).encode() + b"\n")
        replies.flush()

    try:
        domain = _load(options["target"])
        getattr(domain, "open", lambda: None)()
    except Exception as error:  # noqa: BLE001 - the border
        reply({"failed": _describe(error)})
        return
    _bound_memory(options["memory"])
    time_limit = getattr(domain, "time_limit", lambda _: None)
    reply({"ready": f"{domain.name} {domain.version}"})
    while header := requests.read(8):
        items = pickle.loads(requests.read(int.from_bytes(header, "big")))
        reply({"limits": [time_limit(problem) for problem, _ in items]})
        for problem, completion in items:
            reply(_judge(domain, problem, completion))
    getattr(domain, "close", lambda: None)()


def pickled(pairs: list[tuple[Any, ...]]) -> bytes:
    """A request of problems and completions, as pickle.dumps but without the Python code that a frozen dataclass with slots runs at both ends."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer)
    pickler.dispatch_table = {**copyreg.dispatch_table, Problem: lambda problem: (problem_of, _values(problem))}
    pickler.dump(pairs)
    return buffer.getvalue()


def problem_of(*values: Any) -> Problem:
    """The problem with these values of its fields, in their order: how problems are unpickled."""
    return Problem(**dict(zip(FIELDS, values, strict=True)))


def _judge(domain: Domain, problem: Problem, completion: str) -> dict[str, Any] | list[Any]:
    """A verdict's values, without names since there are many of them, or what went wrong."""
    started = time.perf_counter()
    try:
        verdict = domain.verify(problem, completion)
        outcome, detail = Outcome(verdict.outcome), verdict.detail[:DETAIL_CHARS]
        return [outcome, verdict.extracted, verdict.format_ok, detail, time.perf_counter() - started]
    except MemoryError as error:
        message = {"failure": "memory", "detail": _describe(error)}
    except Exception as error:  # noqa: BLE001 - the border
        message = {"failure": "exception", "detail": _describe(error)}
    return {**message, "seconds": time.perf_counter() - started}


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:DETAIL_CHARS]


def _load(target: str) -> Domain:
    module, _, name = target.partition(":")
    domain: Domain = getattr(importlib.import_module(module), name)()
    return domain


def end_with(parent: int) -> None:
    """Die when the parent dies, also in the middle of an item. Elsewhere than on Linux: at the end of the item."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


def _bound_memory(growth: int) -> None:
    """Limit the address space relative to the present size: an absolute limit below it would fail every item."""
    if sys.platform == "linux":
        with open("/proc/self/statm") as status:
            size = int(status.read().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = size + growth if hard == resource.RLIM_INFINITY else min(size + growth, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
