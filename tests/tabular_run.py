"""Small runs on the tabular engine that several test modules share."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from harness import config, pipeline, plugins
from harness.cli import main
from harness.config import RunSpec
from harness.evaluating import Evaluation
from harness.leaderboard import Row
from harness.pipeline import Finished
from harness.plugins import Plugins

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL = (
    "--domain", "tabular", "--engine", "tabular", "--model", "tabular", "--budget", "256", "--workers", "1",
    "--set", "evaluation.problems=40", "--set", "evaluation.wide_samples=8",
)  # fmt: skip

# Nothing drawn for a report: for tests that count what an engine is asked for.
PLAIN = (
    "evaluation.wide_samples=0", "evaluation.seen_problems=0", "evaluation.bin_samples=0", "evaluation.candidate_methods=[]",
)  # fmt: skip


def small_spec(*sets: str, domain: str = "tabular", **changes: Any) -> RunSpec:
    """The spec of SMALL, with changes (keywords) and then sets ("a.b=c")."""
    basic = {"model": "tabular", "budget": 256, "workers": 1}
    small = ("engine.name=tabular", "evaluation.problems=40", "evaluation.wide_samples=8")
    return config.load(domain, file=None, changes={**basic, **changes}, sets=(*small, *sets))


def execute(spec: RunSpec, out: Path, *, found: Plugins | None = None) -> tuple[Path, list[Row]]:
    """Run without printing or a report; returns the run folder and its rows."""
    root = pipeline.create(spec, out=out, command="harness run")
    return root, pipeline.execute(root, found or plugins.load({}), progress=lambda *_: None)


def invoke(*arguments: str) -> Result:
    """The command line in this process. An exception that is no exit is raised: a user would see a traceback."""
    result = CliRunner().invoke(main, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def harness(
    *arguments: str, cwd: Path, environment: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """The installed `harness` script in a process of its own."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("harness")), *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def temporary() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="harness-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def evaluated(done: Finished, evaluation: Evaluation) -> Finished:
    """The same result with other scores on its only test set."""
    ((test, tested),) = done.tests.items()
    return replace(done, tests={test: replace(tested, evaluation=evaluation)})


@functools.cache
def finished() -> Path:
    """A finished run of the default methods with two seeds; made once, not to be changed."""
    result = invoke("run", *SMALL, "--seeds", "2", "--quiet", "--out", str(temporary()))
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("rows ")]
    return Path(line.split()[1]).parent
