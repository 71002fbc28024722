"""Registers the engine "placeholder". Imports nothing heavy."""

from __future__ import annotations

from harness.hookspecs import Register, hookimpl


@hookimpl
def harness_register_engines(register: Register) -> None:
    register("placeholder", "harness_placeholder.engine:Placeholder", summary="bigrams of bytes, one table of weights")
