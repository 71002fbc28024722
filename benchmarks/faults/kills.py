"""Runs killed with SIGKILL at random moments, again and again until they end, against their uninterrupted twins.

Does: for each family of methods run the smoke spec once, then again under kills; compare the two folders with
`harness diff`: completions, verdicts, directions, stage calls, scores and rows.
Doesn't: kill engine workers alone (tests/test_pooling.py, tests/test_ray.py) or damage files (tests/test_damage.py).

Attempts are forks of this process, which has everything imported, so a kill costs no start; a run is in one process and its
verifier worker, which ends with it.

    python -m benchmarks.faults.kills [--kills N] [--seed S] [--family NAME]
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from harness import differing
from harness.cli import main as harness
from harness.report import html  # noqa: F401 - what a run imports late would be imported by every attempt

ROOT = Path(__file__).resolve().parent.parent
FAMILIES: Mapping[str, tuple[str, tuple[str, ...]]] = {  # by name: the domain of its smoke spec, and its methods
    "one update": ("tabular", ("one_shot", "one_shot_shuffled", "random_direction", "one_shot_k")),
    "one batch": ("tabular", ("one_batch_many_steps", "rejection_sft", "dpo")),
    "iterating": ("tabular", ("grpo", "single_example", "extrapolate")),
    "value head": ("tabular", ("ppo",)),
    "entropy": ("tabular", ("entropy_min", "entropy_bonus")),
    "weight search": ("tabular", ("random_search", "random_search_vote", "evolution")),
    "test time": ("tabular", ("base_tempered", "majority", "best_of_n", "in_context")),
    "tiny model": ("code", ("one_shot", "grpo", "hidden_direction")),
}


class Killed(NamedTuple):
    """What became of one family: `differences` as `harness diff` tells them."""

    family: str
    kills: int
    seconds: float
    differences: list[str]


def attempt(arguments: Sequence[str], *, patience: float = float("inf")) -> bool:
    """Whether the command ended well within `patience` seconds; it is killed then. Raises RuntimeError where it failed."""
    child = os.fork()
    if not child:
        _become(arguments)
    started = time.monotonic()
    while time.monotonic() - started < patience:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended and status:
            raise RuntimeError(f"`harness {' '.join(arguments)}` ended with status {os.waitstatus_to_exitcode(status)}")
        if ended:
            return True
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _become(arguments: Sequence[str]) -> None:
    """The command, in a child that never returns."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        harness(list(arguments), standalone_mode=False)
    except SystemExit as end:
        os._exit(int(end.code or 0))
    finally:
        sys.stderr.flush()
        os._exit(1 if sys.exc_info()[0] else 0)


def under_kills(family: str, *, kills: int, seed: int, out: Path) -> Killed:
    """Kill a run of the family `kills` times, at moments that are uniform over what is left of it, then let it end."""
    domain, methods = FAMILIES[family]
    named = [f"--method={name}" for name in methods]
    run = ["run", "--spec", str(ROOT / domain / "smoke.toml"), *named, "--workers", "1", "--quiet", "--out"]
    started = time.monotonic()
    attempt([*run, str(out / "straight")])
    whole = time.monotonic() - started
    moments, done = random.Random(f"{seed} {family}"), 0
    command = [*run, str(out / "killed")]
    while done < kills:
        patience = moments.uniform(0.02, 2 * whole / kills)
        if attempt(command, patience=patience):
            break
        done += 1
        command = resumed(out / "killed", command)
    attempt(command)
    (straight,), (killed,) = ((path.parent for path in (out / name).glob("*/DONE")) for name in ("straight", "killed"))
    found = [f"{section}: {text}" for section, text in differing.differences(straight, killed)]
    return Killed(family, done, time.monotonic() - started, found)


def resumed(out: Path, command: list[str]) -> list[str]:
    """How to go on: with the folder where there is a run in it, else with the same command."""
    folders = [folder for folder in out.glob("*") if (folder / "spec.toml").exists()]
    return ["resume", str(folders[0]), "--workers", "1", "--quiet"] if folders else command


@click.command(context_settings={"show_default": True})
@click.option("--kills", default=13, help="of each family")
@click.option("--seed", default=0, help="of the moments")
@click.option(
    "--family", "families", multiple=True, type=click.Choice(list(FAMILIES)), help="repeatable  [default: all]"
)
def main(kills: int, seed: int, families: tuple[str, ...]) -> None:
    """Kill a run of every family again and again; exit code 1 when one differs from its twin."""
    found = []
    for family in families or FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            found.append(under_kills(family, kills=kills, seed=seed, out=Path(folder)))
        told = found[-1]
        click.echo(f"{family}: {told.kills} kills, {told.seconds:.0f} s, {len(told.differences)} differences")
        click.echo("".join(f"  {text}\n" for text in told.differences[:8]), nl=False)
    click.echo(
        f"{sum(one.kills for one in found)} kills, {sum(bool(one.differences) for one in found)} runs that differ"
    )
    sys.exit(any(one.differences for one in found))


if __name__ == "__main__":
    main()
