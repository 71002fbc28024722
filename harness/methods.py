"""The methods of a run and what they are told: by name, with their options.

Does: load them, the base first; refuse options that a method does not have, of another kind than their default, or that its
own checks refuse.
Doesn't: run them (pipeline.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness import config, directing, limits
from harness.config import RunSpec
from harness.contracts import Check, Method
from harness.errors import UnknownName
from harness.plugins import Plugins


def ordered(methods: Sequence[str]) -> list[str]:
    """Base first, always; the rest as given, once each."""
    return list(dict.fromkeys(("base", *methods)))


def methods_of(spec: RunSpec, plugins: Plugins) -> dict[str, Method]:
    """By the name it has in this run."""
    return {name: plugins.lookup("method", spec.target(name)).load()() for name in ordered(spec.methods)}


def options_of(method: Method, given: Mapping[str, Any], *, name: str = "") -> dict[str, Any]:
    """Its options with what is given. Raises UsageError for an option that it has not or a value that it refuses."""
    known: Mapping[str, Any] = getattr(method, "options", {})
    checks: Mapping[str, Check] = getattr(method, "checks", {})
    own = {key: value for key, value in given.items() if key != config.USES}
    prefix = f"method.{name or method.name}"
    for key, value in own.items():
        if key not in known:
            raise UnknownName("option", f"{prefix}.{key}", [f"{prefix}.{k}" for k in known])
        limits.require_option(value, known[key], f"{prefix}.{key}")
        if key in checks:
            checks[key](value, f"{prefix}.{key}")
    return {**known, **own}


def check_options(spec: RunSpec, methods: Mapping[str, Method]) -> dict[str, dict[str, Any]]:
    """Each method's options. Raises UsageError for what no method of this run has or one refuses, and for `engine.fsdp` and a trainer."""
    for name in spec.method:
        if name not in methods:
            raise UnknownName("method in this run", name, methods, hint="Its options are set but it does not run.")
    options = {name: options_of(method, spec.method.get(name, {}), name=name) for name, method in methods.items()}
    if spec.engine.fsdp:
        directing.require_no_trainer(methods, options)
    return options
