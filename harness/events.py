"""What happens in a run, as its log (events.jsonl) and its observers hear it.

Does: append one line for each event; call the hooks, and log the observers that fail.
Doesn't: read the log: the report takes seconds by stage from it (report/costs.py), and no result depends on it.
"""

from __future__ import annotations

import datetime
import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.plugins import Plugins


def stage_finished(plugins: Plugins, root: Path, stage: str, summary: Mapping[str, Any]) -> None:
    clean = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in summary.items()}
    _append(root, {"stage": stage, **clean})
    tell(plugins, root, "harness_stage_finished", run=root, stage=stage, summary=clean)


def tell(plugins: Plugins, root: Path, hook: str, **arguments: Any) -> None:
    for error in plugins.observe(hook, **arguments).errors:
        _append(root, {"observer_error": error})
        warnings.warn(f"observer {error}", stacklevel=2)


def _append(root: Path, event: Mapping[str, Any]) -> None:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with open(root / "events.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"time": now, **event}) + "\n")
