"""What only the author of the method "placeholder" can know: what it should do. The rest is the kit's."""

from __future__ import annotations

from pathlib import Path

from harness import config, pipeline, plugins


def test_it_learns_on_the_tabular_engine(tmp_path: Path) -> None:
    small = {"model": "tabular", "methods": ["placeholder"], "budget": 512, "workers": 1}
    sets = ("engine.name=tabular", "evaluation.problems=40", "evaluation.wide_samples=0", "search.samples=1")
    spec = config.load("tabular", file=None, changes=small, sets=sets)
    root = pipeline.create(spec, out=tmp_path, command="pytest")
    rows = pipeline.execute(root, plugins.load(), progress=lambda *_: None)
    row = next(row for row in rows if row["method"] == "placeholder")
    assert row["train_rollouts"] == 512
    assert row["pass@1"] > row["base_pass@1"]
