"""`harness report`: the page of each run again, one that compares several, or Markdown.

Does: parse, write, print where.
Doesn't: import what draws before it is asked to.
"""

from __future__ import annotations

from pathlib import Path

import click


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
    from harness import plugins, suiting
    from harness.report import comparing, html, markdown, results

    found, roots = plugins.load(), [root for folder in folders for root in suiting.run_folders(folder)]
    pages = [html.write(root, found) for root in roots]
    if form == "md":
        runs = [results.load(root) for root in roots]
        click.echo(markdown.of_run(runs[0]) if len(runs) == 1 else markdown.of_runs(runs), nl=False)
        return
    if len(roots) > 1:
        pages.append(comparing.write(roots, out or roots[0].parent / "comparison"))
    click.echo("\n".join(map(str, pages)))
