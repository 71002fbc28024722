"""How large a model is, before it is loaded, or without it being on this machine.

Does: count parameters from the headers of a folder's weights, or read them off a name ("Qwen2.5-Math-1.5B").
Doesn't: load weights or ask a hub.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from harness.config import RunSpec

SMALL = 100_000_000  # parameters: a process for each core can hold a copy, and a probe of it takes seconds


def is_small(spec: RunSpec) -> bool:
    """Whether a copy of the model for each core is no matter. Models that an engine brings along are small."""
    if Path(spec.model).is_dir():
        return parameters(spec.model) < SMALL
    return "/" not in spec.model


def parameters(model: str) -> float:
    """Of a folder of safetensors, else what the last part of the name says; NaN where it says nothing."""
    folder = Path(model)
    if folder.is_dir():
        return float(sum(map(_numbers, folder.glob("*.safetensors")))) or math.nan
    found = re.search(r"(\d+(?:\.\d+)?)([BM])(?![a-zA-Z0-9])", model.rpartition("/")[2], re.IGNORECASE)
    return math.nan if found is None else float(found[1]) * {"b": 1e9, "m": 1e6}[found[2].lower()]


def _numbers(path: Path) -> int:
    """From the header: its length in 8 bytes, then JSON with the shape of every tensor."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
