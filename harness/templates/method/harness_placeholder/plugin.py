"""Registers the method "placeholder". Imports nothing heavy."""

from __future__ import annotations

from harness.hookspecs import Register, hookimpl


@hookimpl
def harness_register_methods(register: Register) -> None:
    register("placeholder", "harness_placeholder.method:Placeholder", summary="one step, advantages chosen by option")
