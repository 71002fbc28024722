"""`harness export` and `harness eval`: what goes out to other programs, and what another harness says of it.

Does: turn flags into calls, print where things are.
Doesn't: import anything heavy before a command runs.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from harness.errors import UsageError


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("target", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--method", required=True, help="whose winner to write")
@click.option("--seed", type=int, default=0, show_default=True, help="which run seed's winner")
@click.option(
    "--format",
    "form",
    type=click.Choice(["model", "evalplus"]),
    default="model",
    show_default=True,
    help="a checkpoint, or its programs on the test problems as EvalPlus's samples.jsonl",
)
@click.option("--test", default="", help="evalplus: which test set  [default: the first]")
@click.option("--greedy", is_flag=True, help="evalplus: the greedy completions, not the sampled ones")
def export(folder: Path, target: Path, form: str, **flags: Any) -> None:
    """Write the winning policy of a method as a checkpoint that loads like any other model, with a model card.

    With --format evalplus, DIR is a file: the programs that the policy wrote for the run's test problems, one a line.
    """
    from harness import exporting, plugins

    test, greedy = flags.pop("test"), flags.pop("greedy")
    root, found = finished(folder), plugins.load()
    if form == "evalplus":
        count = exporting.samples(root, target=target, plugins=found, test=test, greedy=greedy, **flags)
        click.echo(f"{target}: {count} samples")
        return
    if test or greedy:
        raise UsageError("--test and --greedy choose completions: they need --format evalplus")
    exporting.export(root, target=target, plugins=found, **flags)
    click.echo(str(target))


@click.command(name="eval")
@click.argument("target", metavar="MODEL|RUN")
@click.option(
    "--tasks", multiple=True, required=True, metavar="NAME|FILE.yaml", help="a task of lm-eval or a file; repeatable"
)
@click.option("--method", "methods", multiple=True, help="of a RUN, repeatable; the base always  [default: all]")
@click.option("--limit", type=click.IntRange(min=1), help="problems of each task  [default: all]")
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True, help="lm-eval's batch size")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results/runs"), help="a MODEL's folder of rows goes here"
)
@click.option("--trust-task-code", is_flag=True, help="let a FILE.yaml run Python code (its tags !function)")
@click.option("--offline", is_flag=True, help="never ask a hub; a missing file is an error that names it")
def evaluate(target: str, tasks: tuple[str, ...], methods: tuple[str, ...], **flags: Any) -> None:
    """Ask lm-eval (extra lm-eval) about the base and the winners of a RUN, or about a MODEL, in memory.

    Rows are put beside the run's own (engine "lm-eval <version>", test_benchmark the task). A MODEL is "tiny", a folder or a
    hub id. docs/interop.md says how the numbers compare.
    """
    from harness import appraising, config, lmeval, locking, plugins
    from harness.report import tables

    if flags["offline"]:
        config.forbid_network()
    names = [name for text in tasks for name in text.split(",")]
    asking = lmeval.Asking(names, flags["limit"] or 0, flags["batch"], flags["trust_task_code"])
    command, found, root = shlex.join(["harness", *sys.argv[1:]]), plugins.load(), Path(target)
    if (root / "spec.toml").exists():
        finished(root)
        with locking.alone(root):
            rows = appraising.of_run(root, asking, found, methods=methods, command=command, say=_say)
    else:
        if methods:
            raise UsageError(f"--method names methods of a run, and {target} is none (no spec.toml)")
        root, rows = appraising.of_model(target, asking, found, out=flags["out"], command=command)
    tables.show(rows, "table")
    click.echo(f"\nrows    {root / 'leaderboard.csv'}\nnumbers {root / appraising.FOLDER}")


def _say(text: str) -> None:
    click.echo(text, err=True)


def finished(folder: Path) -> Path:
    """The folder of a run with rows, unharmed. Raises HarnessError that says how to go on."""
    from harness import mending

    if not (folder / "leaderboard.csv").exists():
        hint = f"continue it with: harness resume {folder}" if (folder / "spec.toml").exists() else "no such run"
        raise UsageError(f"{folder} has no finished rows; {hint}")
    mending.require_whole(folder)
    return folder
