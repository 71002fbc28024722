"""What the values of a spec may be: bounds of numbers, texts that can be written down, names that can be folders.

Does: refuse what cannot be run, saying the key, the value and what is possible, before anything is made.
Doesn't: know keys or types (config.py), or what methods make of their options.

The upper bounds are far above what anyone has run; a number beyond one is a typing mistake that would fill the memory.
"""

from __future__ import annotations

import math
import re
import reprlib
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.config import RunSpec

MOST = 10_000_000  # of rollouts, problems and tokens
BOUNDS: dict[str, tuple[float, float]] = {
    "seeds": (1, 1000),
    "budget": (0, MOST),
    "selection_budget": (0, MOST),
    "workers": (0, 4096),
    "sampling.group": (2, MOST),
    "sampling.temperature": (0.01, 100),
    "sampling.max_tokens": (0, MOST),
    "sampling.logprob_gap": (0, math.inf),
    "search.problems": (1, MOST),
    "search.samples": (1, MOST),
    "evaluation.problems": (1, MOST),
    "evaluation.samples": (1, MOST),
    "evaluation.wide_problems": (0, MOST),
    "evaluation.wide_samples": (0, MOST),
    "evaluation.seen_problems": (0, MOST),
    "evaluation.bin_samples": (0, MOST),
    "rewards.correct": (-1e6, 1e6),
    "rewards.wrong": (-1e6, 1e6),
    "rewards.unparsed": (-1e6, 1e6),
    "rewards.timeout": (-1e6, 1e6),
    "engine.shard_rollouts": (1, MOST),
    "engine.microbatch_tokens": (0, MOST),
}
FLAGS = {"seeds": "--seeds", "budget": "--budget", "selection_budget": "--selection-budget", "workers": "--workers"}
WHY = {
    "sampling.group": ": a lone rollout has no group to be compared with",
    "sampling.temperature": ": greedy draws carry no gradient",
}
MOST_TARGETS = 64
LONGEST_NAME = 255  # of a file, in bytes
_FITS: dict[type, Any] = {float: int | float, str: str | int | float}  # text: --set a=4 means "4"
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,249}")  # no separator, no "..", no blank


def check(spec: RunSpec) -> None:
    """Raises UsageError for the first value that cannot be run."""
    for key, (low, high) in BOUNDS.items():
        _bounded(FLAGS.get(key, key), attrgetter(key)(spec), low, high, WHY.get(key, ""))
    for name in (*spec.methods, *spec.method):
        require_name(name, "a method of a run")
    if any(len(part.encode()) > LONGEST_NAME for part in spec.model.split("/")):
        raise UsageError(f"model is longer than the name of a file may be: {short(spec.model)}")
    targets, group = spec.search.kl_targets, spec.sampling.group
    if any(not 0 < target < math.inf for target in targets):
        raise UsageError("search.kl_targets must be finite and above 0: the zero step is always a candidate")
    if len(targets) > MOST_TARGETS:
        raise UsageError(f"search.kl_targets has {len(targets)} values, at most {MOST_TARGETS} are searched")
    if spec.budget < group:
        raise UsageError(
            f"a budget of {spec.budget} rollouts is smaller than one group of {group}: "
            "raise --budget or lower --set sampling.group=..."
        )
    if spec.budget % group:
        whole = spec.budget // group * group
        raise UsageError(
            f"a budget of {spec.budget} rollouts is no whole number of groups of {group}: "
            f"use {whole} or {whole + group}, so that every rollout of the budget is spent"
        )
    if 0 < spec.selection_budget < len(targets) + 1:
        raise UsageError(
            f"a selection budget of {spec.selection_budget} cannot score {len(targets) + 1} "
            "candidates once: raise --selection-budget or give fewer search.kl_targets"
        )


def _bounded(name: str, value: float, low: float, high: float, why: str) -> None:
    if value < low:
        raise UsageError(f"{name} must be at least {low:,}, got {short(value)}{why}")
    if not value <= high:  # NaN is not either
        raise UsageError(f"{name} must be at most {high:,}, got {short(value)}")


def require_name(name: str, what: str) -> None:
    """Raises UsageError for a name that could not be a folder's, or would be that of one elsewhere."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise UsageError(
            f"{short(name)} cannot be the name of {what}, which is a folder: letters, digits and _ . + = - only"
        )


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold it: no half of a surrogate pair stands alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def require_text(text: str, name: str) -> None:
    """Raises UsageError for text that no file name and no UTF-8 file can hold: a NUL, or half of a surrogate pair."""
    if "\0" in text or not is_unicode(text):
        raise UsageError(f"{name} holds a NUL or bytes that are not UTF-8: {short(text)}")


def require_option(value: Any, default: Any, name: str) -> None:
    """Raises UsageError where an option's value is of another kind than its default; a whole number does for a number."""
    if isinstance(default, list | tuple):
        if not isinstance(value, list | tuple):
            raise UsageError(f"{name} must be a list, got {short(value)}")
        for item in value if default else ():
            require_option(item, default[0], name)
        return
    kind = type(default)
    fits = isinstance(value, _FITS.get(kind, kind)) and (kind is bool) == isinstance(value, bool)
    if kind in (bool, int, float, str) and not fits:
        raise UsageError(f"{name} must be {kind.__name__}, got {short(value)}")
    if isinstance(value, float) and math.isnan(value):
        raise UsageError(f"{name} must be a number, got nan")


def short(value: Any) -> str:
    """A value as a message shows it: printable, and no longer than a line."""
    return _SHORT.repr(value).encode("ascii", "backslashreplace").decode("ascii")
