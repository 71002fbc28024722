"""`harness diagnose`: the command line of the diagnosis.

Does: turn flags into a call, print tables, write the page.
Doesn't: import anything heavy before the command runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--method", "trained", multiple=True, help="whose way to look at, repeatable  [default: every grpo]")
@click.option("--workers", type=int, help="processes; does not change results")
@click.option("--quiet", is_flag=True, help="no progress")
def diagnose(folder: Path, trained: tuple[str, ...], workers: int | None, quiet: bool) -> None:
    """Compare a finished run's one-shot gradient with where GRPO went; noise, linearity, first-order gain.

    RUN holds one_shot, one_shot_shuffled and grpo, best with two seeds and many kept checkpoints
    (--set method.grpo.checkpoints=32). Draws completions of its own, as many as two base batches a seed at most; finished
    parts are kept in RUN/diagnosis and read back. docs/diagnostics.md explains every number.
    """
    from harness import completing, console, diagnosing, plugins, silence, stopping
    from harness.report import diagnosis

    found = plugins.load()
    try:
        with (
            stopping.on_signals() as stop,
            console.Reporter(quiet=quiet) as reporter,
            silence.watched(stop.at(reporter), say=completing.say) as progress,
        ):
            done = diagnosing.diagnose(folder, found, progress=progress, trained=trained, workers=workers or 0)
    except KeyboardInterrupt:
        completing.say("\ninterrupted; finished parts are kept. Give the same command again to continue.")
        sys.exit(130)
    diagnosis.show(done)
    click.echo(f"\npage    {diagnosis.write(done)}\nnumbers {done.folder / 'diagnosis.json'}")
