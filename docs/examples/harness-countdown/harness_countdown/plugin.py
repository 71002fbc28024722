"""Registers the domain "countdown". Imports nothing heavy."""

from __future__ import annotations

from harness.hookspecs import Register, hookimpl


@hookimpl
def harness_register_domains(register: Register) -> None:
    register("countdown", "harness_countdown.domain:Countdown", summary="reach a target from given numbers")
