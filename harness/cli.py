"""The `harness` command line.

Does: turn flags into a spec, call the pipeline, print results; usage errors end in exit code 2, failed runs in 1,
an interrupted run in 130 with the way to resume.
Doesn't: import torch or any plugin before a command needs it, so that `--help` stays fast.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness import limits
from harness.authoring import check, new
from harness.cli_diagnose import diagnose
from harness.cli_interop import evaluate, export, finished
from harness.cli_report import diff, report
from harness.errors import HarnessError, UsageError
from harness.locking import InUse

if TYPE_CHECKING:
    from harness.config import RunSpec
    from harness.stopping import Stop
    from harness.suiting import Suite

EXAMPLES = """
\b
Examples:
  harness run --domain code                       the whole comparison on the embedded model
  harness run --domain math --method one_shot     one method (base always runs)
  harness run --domain code --set method.one_shot.direction=raw
  harness run --domain code --dry-run             what it would cost
  harness run --suite sizes                       a grid of runs, prepared and put into one table
  harness resume results/runs/RUN                 go on where a run stopped
"""


class Friendly(click.Group):
    """Prints harness errors as one message with the right exit code."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for word in args:
            if not limits.is_unicode(word):  # how Python keeps bytes that are no UTF-8
                raise click.UsageError(f"{word!a} is not UTF-8: no spec, row or page could hold it")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            click.echo(f"{type(error).__name__}: {error}", err=True)
            ctx.exit(2)
        except HarnessError as error:
            click.echo(f"{type(error).__name__}: {error}", err=True)
            ctx.exit(1)


@click.group(cls=Friendly, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="oneshot-harness")
def main() -> None:
    """How much of RL with verifiable rewards can ONE gradient step do?

    One-Shot RLVR samples a huge batch of rollouts from a base model, labels each with a verifier, forms one policy
    gradient and line-searches the step. The harness compares it with its controls and baselines at one rollout budget.
    """


for command in (check, new, diagnose, report, diff, export, evaluate):
    main.add_command(command)


@main.command(context_settings={"show_default": True})
@click.option("--domain", help="problem domain: math, code, arc, or a plugin's")
@click.option("--model", help="tiny (embedded), a folder, or a hub id  [default: tiny]")
@click.option("--benchmark", help="benchmark of the domain, for training, selection and test  [default: ladder]")
@click.option("--train", multiple=True, metavar="NAME", help="benchmark to train on, repeatable")
@click.option("--test", multiple=True, metavar="NAME", help="benchmark to test on, repeatable: a row each")
@click.option(
    "--data",
    metavar="FILE.jsonl",
    help="your own rows instead of a benchmark, in a data set's field names; --train and --test take files as well",
)
@click.option("--method", "methods", multiple=True, help="method to run, repeatable; base always runs  [default: base, "
              "base_tempered, one_shot and its controls]")  # fmt: skip
@click.option("--budget", type=int, help="training rollouts of every method  [default: 4096]")
@click.option("--selection-budget", type=int, help="rollouts each may spend on choosing a step  [default: the budget]")
@click.option("--seeds", type=int, help="number of run seeds  [default: 1]")
@click.option("--engine", help="hf, vllm, ray, ray-vllm or tabular, or a plugin's  [default: hf]")
@click.option("--spec", "file", type=click.Path(path_type=Path), help="a TOML spec; flags win over it")
@click.option(
    "--suite", help="a grid of runs: a built-in suite (pareto, ...) or FILE.toml; --domain limits it to one domain"
)
@click.option("--set", "sets", multiple=True, metavar="a.b=c", help="any key of the spec, repeatable")
@click.option("--workers", type=int, help="processes for sampling, gradients and verifying  [default: all cores]")
@click.option(
    "--jobs", type=int, help="runs of a suite at a time  [default: one a worker; 1 for 0.1B parameters and up]"
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/runs"), help="where run folders are made")
@click.option("--dry-run", is_flag=True, help="print stages, counts, tokens, memory and time; run nothing")
@click.option("--offline", is_flag=True, help="never ask a hub; a missing file is an error that names it")
@click.option("--quiet", is_flag=True, help="no progress")
def run(**flags: Any) -> None:
    """Run a comparison: leaderboard table, CSV and HTML report at the end."""
    from harness import pipeline, planning, plugins

    if flags["suite"]:
        _run_suite(flags)
        return
    if flags["jobs"]:
        raise UsageError("--jobs is the number of runs of a --suite at a time; one run takes --workers")
    spec = _spec(flags)
    _go_offline(flags["offline"])
    found = plugins.load()
    if flags["dry_run"]:
        planning.print_plan(spec, found)
        return
    _check_names(spec, found)
    if spec.model == "tiny" and spec.engine.name == "hf" and not flags["quiet"]:
        click.echo("model: the embedded tiny model (give --model PATH or HUB_ID for another)", err=True)
    root = pipeline.create(spec, out=flags["out"], command=_command())
    _execute(root, found, quiet=flags["quiet"], workers=spec.workers)


@main.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--workers", type=int, help="processes; does not change results")
@click.option("--jobs", type=int, help="runs of a suite at a time")
@click.option("--quiet", is_flag=True, help="no progress")
def resume(folder: Path, workers: int | None, jobs: int | None, quiet: bool) -> None:
    """Continue the folder of a run or of a suite: finished work is read, the rest is done."""
    from harness import plugins, suiting

    if suiting.is_suite(folder):
        suite, command = suiting.reopen(folder)
        _execute_suite(suite, folder, command=command, quiet=quiet, workers=workers or 0, jobs=jobs or 0)
        return
    if not (folder / "spec.toml").exists():
        raise UsageError(f"{folder} is no run folder (no spec.toml). Runs are made by `harness run`.")
    _execute(folder, plugins.load(), quiet=quiet, workers=workers or 0)


@main.command(name="leaderboard")
@click.argument("folders", metavar="[RUN...]", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    default=Path("results/leaderboard"),
    show_default=True,
    help="the folder of <domain>.csv files",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "md"]),
    default="table",
    show_default=True,
    help="how to show it",
)
def leaderboard_command(folders: tuple[Path, ...], into: Path, form: str) -> None:
    """Merge rows of RUNs into the leaderboard and show it."""
    from harness import leaderboard
    from harness.report import tables

    for folder in folders:
        leaderboard.merge(leaderboard.read_csv(finished(folder) / "leaderboard.csv"), into)
    rows = [row for path in sorted(into.glob("*.csv")) for row in leaderboard.read_csv(path)]
    if not rows:
        raise UsageError(f"no rows in {into}; name one or more run folders")
    tables.show(rows, form)


@main.command(name="plugins")
@click.option("--json", "as_json", is_flag=True, help="machine-readable")
def plugins_command(as_json: bool) -> None:
    """List domains, methods and engines, and plugins that failed to load."""
    from harness import doctor, plugins

    doctor.print_plugins(plugins.load(), as_json=as_json)


@main.command()
def doctor() -> None:
    """Say what this installation has and what is missing."""
    from harness import doctor as checks
    from harness import plugins

    checks.print_doctor(plugins.load())


@main.command()
@click.argument("file", metavar="IN.jsonl", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--domain", required=True, help="whose verifier: math, code, arc, ai2_arc, or a plugin's")
@click.option("--out", type=click.Path(path_type=Path), help="where to write verdicts  [default: standard output]")
@click.option("--workers", type=click.IntRange(min=1), help="processes  [default: all cores]")
@click.option("--timeout", type=float, help="wall seconds of one completion  [default: the domain's]")
@click.option("--require-isolation", is_flag=True, help="refuse to execute completions below level landlock")
def verify(file: Path, domain: str, **flags: Any) -> None:
    """Judge completions: {"id", "problem", "completion"} a line in ("-": standard input), a verdict a line out."""
    from harness import plugins, verify_file

    found = plugins.load().lookup("domain", domain)
    try:
        clean = verify_file.run(file, found, say=lambda text: click.echo(text, err=True), **flags)
    except KeyboardInterrupt:
        kept = f"; verdicts so far are in {flags['out']}.part" if flags["out"] else ""
        click.echo(f"\ninterrupted{kept}", err=True)
        sys.exit(130)
    sys.exit(0 if clean else 1)


def _spec(flags: dict[str, Any]) -> RunSpec:
    from harness import config

    return config.load(flags["domain"], file=flags["file"], **_given(flags))


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    """What the flags say of the spec: `changes` and `sets` of config.load."""
    if flags["data"]:
        if flags["benchmark"]:
            raise UsageError("--data and --benchmark exclude each other: both name the problems of every split")
        flags = {**flags, "benchmark": _rows_file(flags["data"])}
    names = ("model", "benchmark", "methods", "budget", "selection_budget", "seeds", "workers")
    sets = ([f"engine.name={flags['engine']}"] if flags["engine"] else []) + list(flags["sets"])
    sets = [f"data.{split}={json.dumps(list(flags[split]))}" for split in ("train", "test") if flags[split]] + sets
    return {"changes": {name: flags[name] for name in names}, "sets": sets}


def _rows_file(name: str) -> str:
    from harness import config

    if not config.is_file(name):
        raise UsageError(f"--data {name}: rows come as JSON Lines, in a file whose name ends in .jsonl")
    return name


def _command() -> str:
    return shlex.join(["harness", *sys.argv[1:]])


def _run_suite(flags: dict[str, Any]) -> None:
    from harness import conducting, plugins, suiting

    if flags["file"]:
        raise UsageError("--suite and --spec exclude each other: a suite has its own [shared] keys")
    suite = suiting.load(flags["suite"], domain=flags["domain"], **_given(flags))
    _go_offline(flags["offline"])
    found, root = plugins.load(), suite.folder(flags["out"])
    for point in suite.points:
        try:
            _check_names(point.spec, found)
        except UsageError as error:
            raise UsageError(f"{suite.source} ({point}): {error}") from error
    if flags["dry_run"]:
        click.echo("\n".join(conducting.plan(suite, root, found)))
        return
    workers, jobs = flags["workers"] or 0, flags["jobs"] or 0
    _execute_suite(suite, root, command=_command(), quiet=flags["quiet"], workers=workers, jobs=jobs)


def _execute_suite(suite: Suite, root: Path, *, command: str, quiet: bool, workers: int, jobs: int) -> None:
    from harness import completing, conducting, console, silence, suiting
    from harness.report import suites

    with (
        _resumable(root, "suite", suiting.discard_unstarted) as stop,
        console.Reporter(quiet=quiet) as reporter,
        silence.watched(reporter, say=completing.say) as progress,
    ):
        conducting.execute(
            suite,
            root,
            command=command,
            workers=workers,
            jobs=jobs,
            quiet=quiet,
            progress=progress,
            say=lambda line: None if quiet else completing.say(line),
            stop=stop,
        )
    suites.show(suite, root)
    click.echo(f"\nrows    {root / 'leaderboard.csv'}")


def _check_names(spec: RunSpec, found: Any) -> None:
    """Before a run folder exists, so that a typing mistake leaves nothing behind."""
    from harness import selecting
    from harness.methods import check_options, methods_of

    domain = found.lookup("domain", spec.domain).load()()
    selecting.names(domain, spec)
    found.lookup("engine", spec.engine.name)
    methods = methods_of(spec, found)
    check_options(spec, methods)


def _go_offline(offline: bool) -> None:
    if offline:
        from harness import config

        config.forbid_network()


def _execute(root: Path, found: Any, *, quiet: bool, workers: int) -> None:
    from harness import completing, console, leaderboard, pipeline, silence
    from harness.report import tables

    with (
        _resumable(root, "run", pipeline.discard_unstarted) as stop,
        console.Reporter(quiet=quiet) as reporter,
        silence.watched(reporter, say=completing.say) as progress,
    ):
        changed = completing.complete(root, found, progress=progress, workers=workers, stop=stop)
    if not changed:
        completing.say(f"{root} is finished: nothing was done")
    tables.show(leaderboard.read_csv(root / "leaderboard.csv"), "table")
    tables.show_pairs(root)
    click.echo(f"\nrows    {root / 'leaderboard.csv'}\nreport  {root / 'report.html'}")


@contextmanager
def _resumable(root: Path, what: str, discard_unstarted: Callable[[Path], bool]) -> Iterator[Stop]:
    """Say how to go on after an interrupt or an error; a mistake before anything ran leaves no folder."""
    from harness import stopping, store

    try:
        with stopping.on_signals() as stop, store.told_clearly(root):
            yield stop
    except KeyboardInterrupt:
        how = f"Continue with: harness resume {root}" if root.exists() else "Give the same command again to continue."
        click.echo(f"\ninterrupted; nothing finished is lost. {how}", err=True)
        sys.exit(130)
    except InUse:  # not ours to discard
        raise
    except HarnessError:
        if not discard_unstarted(root):
            click.echo(f"the {what} stopped; finished work is kept in {root}", err=True)
        raise
