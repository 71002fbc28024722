"""Registers the code domain. Imports nothing heavy."""

from __future__ import annotations

from harness.hookspecs import Register, hookimpl


@hookimpl
def harness_register_domains(register: Register) -> None:
    register("code", "harness_code.domain:Code", summary="Python functions, judged by what they return in a sandbox")
