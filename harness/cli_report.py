"""`harness report` and `harness diff`: the page of each run again, one that compares several, or Markdown; where two runs differ.

Does: parse, write, print where.
Doesn't: import what draws before it is asked to.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from harness.errors import UsageError

SHOWN = 8  # differences of a kind


@click.command()
@click.argument("folders", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format", "form", type=click.Choice(["html", "md"]), default="html", show_default=True, help="md prints Markdown"
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="folder for the page of several runs  [default: comparison, beside the first]",
)
def report(folders: tuple[Path, ...], form: str, out: Path | None) -> None:
    """Write report.html into each run folder again, and a page that compares them when there are several.

    Of an interrupted run it shows what is finished. A suite's folder stands for its runs.
    """
    from harness import plugins
    from harness.report import comparing, html, markdown, results

    found, roots, pages = plugins.load(), [], []
    for root, among in _runs(folders):
        try:
            pages.append(html.write(root, found))
            roots.append(root)
        except UsageError as error:  # of a suite that is under way, the runs that have something to show
            if not among:
                raise
            click.echo(str(error), err=True)
    if not roots:
        raise UsageError(f"no run of {', '.join(map(str, folders))} has finished anything yet")
    if form == "md":
        runs = [results.load(root) for root in roots]
        click.echo(markdown.of_run(runs[0]) if len(runs) == 1 else markdown.of_runs(runs), nl=False)
        return
    if len(roots) > 1:
        pages.append(comparing.write(roots, out or roots[0].parent / "comparison"))
    click.echo("\n".join(map(str, pages)))


@click.command()
@click.argument("one", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("other", metavar="RUN", type=click.Path(path_type=Path))
def diff(one: Path, other: Path) -> None:
    """Say where two finished runs differ: spec, versions, problems, completions, verdicts, directions, scores, rows.

    Names, dates and seconds are not compared. Exit code 0: the same; 1: they differ. Later differences follow from the first one
    as a rule.
    """
    from harness import differing
    from harness.cli_interop import finished

    found = list(differing.differences(finished(one), finished(other)))
    for section in dict.fromkeys(difference.section for difference in found):
        texts = [difference.text for difference in found if difference.section == section]
        click.echo("\n".join([section, *(f"  {text}" for text in texts[:SHOWN])]))
        if len(texts) > SHOWN:
            click.echo(f"  and {len(texts) - SHOWN} more")
    if not found:
        click.echo("the same in all but names, dates and seconds")
    sys.exit(1 if found else 0)


def _runs(folders: tuple[Path, ...]) -> list[tuple[Path, bool]]:
    """Run folders, and whether each is one of a suite. Raises HarnessError where a file is damaged."""
    from harness import mending, suiting

    found = [(root, suiting.is_suite(folder)) for folder in folders for root in suiting.run_folders(folder)]
    for root, _ in found:
        mending.require_whole(root)
    return found
