"""Registers the ai2_arc domain. Imports nothing heavy."""

from __future__ import annotations

from harness.hookspecs import Register, hookimpl


@hookimpl
def harness_register_domains(register: Register) -> None:
    register("ai2_arc", "harness_ai2_arc.domain:Ai2Arc", summary="Multiple-choice science questions, one letter")
