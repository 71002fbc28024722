"""Write a method's winning policy as a checkpoint of its own."""

from __future__ import annotations

from pathlib import Path

from harness import config, pipeline, store
from harness.errors import UnknownName, UsageError
from harness.pipeline import Finished
from harness.plugins import Plugins


def export(root: Path, method: str, *, seed: int, target: Path, plugins: Plugins) -> None:
    """Materialise the (first) policy of `method` in `target`, which must not exist.

    Raises UnknownName for a method that did not run and UsageError when the target exists.
    """
    path = root / f"methods/{method}/{seed}/scores.json"
    if not path.exists():
        known = sorted({str(p.relative_to(root / "methods").parent) for p in root.glob("methods/*/*/scores.json")})
        raise UnknownName("finished method/seed", f"{method}/{seed}", known)
    if target.exists():
        raise UsageError(f"{target} exists already; name a new folder")
    done: Finished = store.read_json(path)
    spec = config.load(None, file=root / "spec.toml", changes={"workers": 1}, sets=())
    engine = pipeline.open_engine(root, spec, plugins)
    try:
        engine.materialise(done.contender.policies[0], target)
    finally:
        engine.close()
