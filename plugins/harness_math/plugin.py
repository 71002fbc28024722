"""Registers the math domain. Imports nothing heavy."""

from __future__ import annotations

from harness.hookspecs import Register, hookimpl


@hookimpl
def harness_register_domains(register: Register) -> None:
    register("math", "harness_math.domain:Math", summary="Final answers compared exactly, then as mathematics")
