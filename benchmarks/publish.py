"""Make the committed results: run the default comparison in each domain, merge its rows, keep an example report.

Does: for every domain run `benchmarks/<domain>/default.toml` with several seeds (or resume it), merge the rows into
results/leaderboard/, copy report and figure to results/examples/<domain>/, and rewrite the tables of README.md.
Doesn't: commit anything.

    python benchmarks/publish.py --seeds 3 [DOMAIN...]
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click

from harness import config, leaderboard
from harness.report import formats, results, tables

ROOT = Path(__file__).resolve().parent.parent
DOMAINS = ("math", "code", "arc")
FIGURES = ("line_search", "training", "gain_by_pass_rate")
HARNESS = [sys.executable, "-c", "from harness.cli import main; main()"]


@click.command()
@click.argument("domains", nargs=-1)
@click.option("--seeds", type=int, default=3, show_default=True)
def main(domains: tuple[str, ...], seeds: int) -> None:
    for domain in domains or DOMAINS:
        run = finished_run(domain, seeds=seeds)
        (ROOT / "results" / "leaderboard" / f"{domain}.csv").unlink(missing_ok=True)  # rows of an earlier version
        subprocess.run([*HARNESS, "leaderboard", str(run)], cwd=ROOT, check=True)
        keep_example(run, ROOT / "results" / "examples" / domain)
        write_table(domain, run)


def finished_run(domain: str, *, seeds: int) -> Path:
    """The newest run folder of this spec, resumed or started, and brought to its end."""
    runs = f"results/runs/published-{seeds}-seeds"  # relative: the command line becomes a column
    file = Path("benchmarks") / domain / "default.toml"
    name = f"*-{domain}-{config.load(None, file=ROOT / file, changes={'seeds': seeds}, sets=()).hash}"
    found = sorted((ROOT / runs).glob(name))
    if not found:
        arguments = ["run", "--spec", str(file), "--seeds", str(seeds), "--out", runs]
        subprocess.run([*HARNESS, *arguments], cwd=ROOT, check=True)
    elif not (found[-1] / "DONE").exists():
        subprocess.run([*HARNESS, "resume", str(found[-1])], cwd=ROOT, check=True)
    return sorted((ROOT / runs).glob(name))[-1]


def keep_example(run: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    figures = [f"figures/{name}.{kind}" for name in FIGURES for kind in ("png", "csv")]
    for name in ("report.html", *figures, "spec.toml"):
        shutil.copyfile(run / name, folder / Path(name).name)


def write_table(domain: str, run: Path) -> None:
    """Put the run's verdict and table between the README's markers of this domain."""
    readme = ROOT / "README.md"
    begin, end = f"<!-- results {domain} -->", f"<!-- end {domain} -->"
    found = results.load(run)
    ((_, group),) = leaderboard.ranked(found.rows)
    words = f"{results.verdict(found)} {formats.sentence(found)}".strip()
    block = f"{begin}\n{words}\n\n{tables.markdown(group)}\n{end}"
    text = readme.read_text(encoding="utf-8")
    if begin not in text:
        raise click.ClickException(f"README.md has no marker {begin}")
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    readme.write_text(re.sub(pattern, lambda _: block, text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
