"""Registers the domain "placeholder". Imports nothing heavy."""

from __future__ import annotations

from harness.hookspecs import Register, hookimpl


@hookimpl
def harness_register_domains(register: Register) -> None:
    register("placeholder", "harness_placeholder.domain:Placeholder", summary="two numbers added and doubled")
