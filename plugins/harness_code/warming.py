"""What the interpreter imports before it forks jobs.

Does: import the modules that programs use, once, since importing costs more than running; keep what a fork has to do for
them small.
Doesn't: hold anything that a job could see of another one.
"""

from __future__ import annotations

import importlib
import os
from functools import partial
from typing import Any

MODULES = (
    "abc bisect cmath collections contextlib copy dataclasses datetime decimal enum fractions functools hashlib heapq "
    "itertools json math operator random re string textwrap time typing"
)


def import_all() -> None:
    _import_random()
    for name in MODULES.split():
        importlib.import_module(name)


def _import_random() -> None:
    """Each fork seeds the shared generator anew, as `random` has it, by the C function beneath: the Python code that
    `random` itself registers for it touches fifty pages of memory, which the kernel copies for every job."""
    hooks: list[Any] = []
    register = os.register_at_fork
    os.register_at_fork = lambda **hook: hooks.append(hook)
    try:
        generator = importlib.import_module("random")._inst
    finally:
        os.register_at_fork = register
    if hooks:
        os.register_at_fork(after_in_child=partial(super(type(generator), generator).seed))
