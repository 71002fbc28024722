"""The verifier worker: one process of the pool in harness/verifying.py, which starts it and may kill it.

Does: import one domain, judge what comes on standard input, answer one line of JSON per item.
Doesn't: keep time, retry, or survive its parent.
"""

from __future__ import annotations

import copyreg
import ctypes
import hashlib
import importlib
import io
import json
import math
import operator
import os
import pickle
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

from harness import processes
from harness.contracts import Domain
from harness.types import Outcome, Problem, Verdict

T = TypeVar("T")
DETAIL_CHARS = 300
EXTRACTED_CHARS = 1 << 16  # of longer answers the beginning and a digest stand for the whole, so that votes stay right
TEXT_OR_NONE = (str, type(None))
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
    processes.adopt_orphans()
    forked: list[bool] = []
    os.register_at_fork(after_in_child=lambda: forked.append(True))

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
    time_limit = getattr(domain, "time_limit", None)
    reply({"ready": f"{domain.name} {domain.version}"})
    try:
        while header := requests.read(8):
            items = pickle.loads(requests.read(int.from_bytes(header, "big")))
            limits = [None if time_limit is None else _limit(time_limit, problem) for problem, _ in items]
            reply({"limits": [None if isinstance(limit, dict) else limit for limit in limits]})
            for (problem, completion), limit in zip(items, limits, strict=True):
                answer = limit if isinstance(limit, dict) else _judge(domain, problem, completion)
                if forked:
                    os._exit(0)  # a child that `verify` made and that came back as well
                reply(answer)
        getattr(domain, "close", lambda: None)()
    finally:
        processes.end_below(os.getpid())


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


def _limit(time_limit: Callable[[Problem], Any], problem: Problem) -> float | dict[str, Any] | None:
    """The seconds that the domain gives the problem, None where it gives none, or what went wrong."""

    def given() -> float | None:
        limit = time_limit(problem)
        if limit is not None and not 0 < float(limit) < math.inf:
            raise ValueError(f"time_limit gave {limit!r}, not seconds")
        return None if limit is None else float(limit)

    return _tried(given)


def _judge(domain: Domain, problem: Problem, completion: str) -> dict[str, Any] | list[Any]:
    """A verdict's values, without names since there are many of them, or what went wrong."""
    started = time.perf_counter()
    answer = _tried(lambda: _checked(domain.verify(problem, completion)))
    return answer if isinstance(answer, dict) else [*answer, time.perf_counter() - started]


def _tried(work: Callable[[], T]) -> T | dict[str, Any]:
    """What the domain's `work` gives, or what went wrong. Nobody but the verifier ends this process by an exception."""
    started = time.perf_counter()
    try:
        return work()
    except MemoryError as error:
        error.__traceback__ = None  # lets go of what its frames hold, or there is no room for an answer
        kind, detail = "memory", _describe(error)
    except BaseException as error:  # noqa: BLE001 - the border
        kind, detail = "exception", _describe(error)
    return {"failure": kind, "detail": detail, "seconds": time.perf_counter() - started}


def _checked(verdict: Any) -> list[Any]:
    """Its values, all of a type that JSON has. Raises TypeError or ValueError that says what is wrong with them."""
    if not isinstance(verdict, Verdict):
        raise TypeError(f"verify gave {type(verdict).__name__}, not a Verdict")
    extracted, format_ok, detail = verdict.extracted, verdict.format_ok, verdict.detail
    if not (isinstance(extracted, TEXT_OR_NONE) and isinstance(format_ok, bool) and isinstance(detail, str)):
        kinds = (type(value).__name__ for value in (extracted, format_ok, detail))
        raise TypeError("a Verdict's extracted, format_ok and detail are of types " + ", ".join(kinds))
    if extracted is not None and len(extracted) > EXTRACTED_CHARS:
        extracted = _short(extracted)
    return [Outcome(verdict.outcome), extracted, format_ok, detail[:DETAIL_CHARS]]


def _short(extracted: str) -> str:
    digest = hashlib.sha256(extracted.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{extracted[:DETAIL_CHARS]}... ({len(extracted)} characters, sha256 {digest})"


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:DETAIL_CHARS].removesuffix(": ")
    except Exception:  # noqa: BLE001 - the border: its own text fails
        return type(error).__name__


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
