"""Registers the arc domain. Imports nothing heavy."""

from __future__ import annotations

from harness.hookspecs import Register, hookimpl


@hookimpl
def harness_register_domains(register: Register) -> None:
    register("arc", "harness_arc.domain:Arc", summary="Output grids of rule-induction puzzles, matched exactly")
