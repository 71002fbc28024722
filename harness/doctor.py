"""What this installation has: versions, cores, memory, plugins, models; said plainly, problems first in mind."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from harness import isolation, provenance
from harness.errors import HarnessError
from harness.plugins import KINDS, Plugins, Registration

EXTRAS = ("evalplus", "lm_eval", "ray", "tensorboard", "trackio", "trl", "vllm", "wandb")


def print_plugins(plugins: Plugins, *, as_json: bool) -> None:
    """Every registered name and every broken plugin; imports no target."""
    listed = sorted(plugins.registered.values(), key=lambda r: (KINDS.index(r.kind), r.name))
    if as_json:
        print(
            json.dumps(
                {
                    "plugins": [asdict(r) for r in listed],
                    "loaded": [source._asdict() for source in plugins.sources],
                    "broken": [asdict(b) for b in plugins.broken],
                },
                indent=1,
            )
        )
        return
    table = Table()
    for name in ("kind", "name", "summary", "from"):
        table.add_column(name)
    for r in listed:
        table.add_row(r.kind, r.name, r.summary, f"{r.distribution} {r.version}")
    screen = Console(markup=False, width=None if Console().is_terminal else 140)
    screen.print(table)
    screen.print(f"loaded, in this order: {', '.join(map(str, plugins.sources)) or 'none'}")
    for b in plugins.broken:
        screen.print(f"broken: {b.name} of {b.distribution} {b.version}: {b.error}", style="red")


def print_doctor(plugins: Plugins) -> None:
    """Versions, machine, extras, and whether every registered plugin imports."""
    lines = [f"python {platform.python_version()} on {platform.platform()}"]
    lines += [f"{name} {version}" for name, version in provenance.versions().items()]
    lines += [
        f"cores {os.cpu_count()}, memory {_memory()}, free disk {shutil.disk_usage('.').free >> 30} GiB",
        _device(),
    ]
    found = [name for name in EXTRAS if importlib.util.find_spec(name)]
    lines.append(f"extras installed: {', '.join(found) or 'none'}")
    for registration in plugins.registered.values():
        lines += [f"FAILED {p}" for p in _problem(registration)]
    lines += [f"BROKEN plugin {b.name} of {b.distribution} {b.version}: {b.error}" for b in plugins.broken]
    for name in plugins.names("domain"):
        registration = plugins.lookup("domain", name)
        if not _problem(registration):
            lines += _isolation(name, registration.load())
    print("\n".join(lines))


def _isolation(name: str, domain: Any) -> list[str]:
    """The level at which a domain's verifier executes completions, found by trying, and what there is to say of it."""
    try:
        level = isolation.level(domain)
    except HarnessError as error:
        return [f"FAILED verifier isolation of {name}: {error}"]
    lines = [f"verifier isolation of {name}: {level}"]
    if weak := isolation.warning(level):
        lines.append(f"  {weak}")
    return lines + [f"  {note}" for note in getattr(domain, "isolation_notes", list)()]


def _problem(registration: Registration) -> list[str]:
    try:
        registration.load()
    except HarnessError as error:
        return [str(error)]
    return []


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"GPU: {torch.cuda.get_device_name()}"
    return "no GPU: models run on the CPU, one thread a process"
