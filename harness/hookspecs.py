"""The pluggy hooks of the harness, api 1.

Registration hooks receive `register(name, "package.module:Attribute", summary=..., api=1)`; the target is
imported on first use only. The other hooks are for observers: they read, and an exception in one is recorded
and takes nothing down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

API = 1
hookspec = pluggy.HookspecMarker("harness")
hookimpl = pluggy.HookimplMarker("harness")


class Register(Protocol):
    def __call__(self, name: str, target: str, *, summary: str, api: int = API) -> None: ...


@hookspec
def harness_register_domains(register: Register) -> None:
    """Register problem domains (harness.contracts.Domain)."""


@hookspec
def harness_register_methods(register: Register) -> None:
    """Register methods (harness.contracts.Method)."""


@hookspec
def harness_register_engines(register: Register) -> None:
    """Register engines (a callable `(model, root, options) -> harness.contracts.Engine`)."""


@hookspec
def harness_run_started(run: Path) -> None:
    """The run folder exists and its manifest is written."""


@hookspec
def harness_stage_finished(run: Path, stage: str, summary: Mapping[str, Any]) -> None:
    """A stage's outputs are whole on disk; `summary` is flat."""


@hookspec
def harness_run_finished(run: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """All rows of the run are written."""


@hookspec
def harness_report_sections(run: Path) -> Sequence[tuple[str, str]] | None:
    """Return (title, HTML) pairs to append to the report."""
