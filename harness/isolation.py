"""Which isolation a domain's verifier executes completions under, and whether it is enough.

Does: ask the domain; tell levels at which a completion reaches neither the user's files nor the network from weaker ones.
Doesn't: isolate: that is the domain's own work (docs/sandbox.md).
"""

from __future__ import annotations

from typing import Any

CONFINED = ("full", "landlock")
NOTHING_EXECUTED = "none needed"


def level(domain: Any) -> str:
    """What the domain says of how it confines completions; "none needed" when it executes nothing."""
    describe = getattr(domain, "isolation", None)
    return str(describe()) if describe is not None else NOTHING_EXECUTED


def confined(level: str) -> bool:
    return level == NOTHING_EXECUTED or level.split(maxsplit=1)[0].rstrip(":;,") in CONFINED


def warning(level: str) -> str:
    """What to tell a person of a level that is not enough; empty otherwise."""
    if confined(level):
        return ""
    return "WEAK: below landlock, a hostile completion can read what this user can read; see docs/sandbox.md"
