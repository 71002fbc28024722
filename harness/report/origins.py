"""Provenance on the page: what ran, on what, isolated how, and the whole manifest.

Does: the isolation in force with its warning, the facts that tell runs apart, the manifest to unfold.
Doesn't: collect any of it (harness/provenance.py).
"""

from __future__ import annotations

import html
import json
from typing import Any

from harness import isolation
from harness.report import grids
from harness.report.page import Section
from harness.report.results import Results


def section(found: Results) -> Section:
    return Section("provenance", "Provenance", _isolation(found) + _facts(found) + _manifest(found))


def _isolation(found: Results) -> str:
    level = found.manifest["isolation"]
    warned = isolation.warning(level)
    said = f"<p>Isolation of the verifier: <b>{html.escape(level)}</b>. {html.escape(warned)}</p>"
    return f'<div class="warning">{said}</div>' if warned else said


def facts(found: Results) -> list[tuple[str, Any]]:
    manifest = found.manifest
    row, spec = manifest["row"], manifest["spec"]
    dirty = " with uncommitted changes" if row["dirty"] == "true" else ""
    return [
        ("command", row["command"]),
        ("run", row["run_id"]),
        ("model", f"{row['model']} {row['model_revision']}"),
        ("engine", f"{row['engine']} on {row['device']}"),
        ("trained on", row["train_benchmark"]),
        ("tested on", ", ".join(f"{name} (data {data_hash})" for name, data_hash in manifest["tests"].items())),
        ("problems", ", ".join(f"{name} {count}" for name, count in manifest.get("splits", {}).items())),
        (
            "budget",
            f"{spec['budget']} training rollouts, at most {spec['selection_budget'] or spec['budget']} of selection",
        ),
        ("sampling", f"groups of {spec['sampling']['group']} at temperature {spec['sampling']['temperature']:g}"),
        ("rewards", ", ".join(f"{kind} {value:g}" for kind, value in spec["rewards"].items())),
        ("commit", f"{row['commit'] or 'an installed package'}{dirty}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in manifest.get("packages", {}).items())),
    ]


def _facts(found: Results) -> str:
    return grids.grid(("", "this run"), facts(found), words=("this run",), sorts=False)


def _manifest(found: Results) -> str:
    shown = {key: value for key, value in found.manifest.items() if key != "row"}
    text = json.dumps({**found.manifest["row"], **shown}, indent=1, default=list)
    return f"<details><summary>manifest</summary><pre>{html.escape(text)}</pre></details>"
