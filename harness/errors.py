"""Errors that a user meets: each says what was tried, what exists and what to do.

The command line prints `HarnessError` without a traceback; `UsageError` ends in exit code 2, the rest in 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.types import Contender


class HarnessError(Exception):
    """Anything that ends a run with a message instead of a traceback."""


class UsageError(HarnessError):
    """A mistake in the command line or the spec."""


class UnknownName(UsageError):
    """A name that is not registered, with the nearest one that is."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        guess = f' (did you mean "{near[0]}"?)' if near else ""
        super().__init__(f'no {kind} "{name}". Known: {", ".join(names) or "none"}{guess}. {hint}'.rstrip())


class BadRow(UsageError):
    """A data row that a domain does not understand: "field answer: ..." with what was found and what is understood."""


class BudgetExceeded(HarnessError):
    """A method asked for more rollouts than its budget holds."""


class Unmoved(HarnessError):
    """A method comes to no end of its own. Recorded as a row with a status, no crash. Scored is what it had `before`, or the base."""

    status = ""
    before: Contender | None = None


class NoSignal(Unmoved):
    """Every group of a batch is dead: there is no direction."""

    status = "no signal"


class NotFinite(Unmoved):
    """A policy, a direction or a step has numbers that are NaN or infinite. Of the base itself it ends the run."""

    status = "not finite"

    def __init__(self, what: str, *, before: Contender | None = None) -> None:
        super().__init__(what)
        self.before = before


class EngineFailure(HarnessError):
    """An engine raised, or handed over something other than it was asked for."""


class VerifierFailure(HarnessError):
    """Too many verifier errors: the rewards cannot be trusted."""
