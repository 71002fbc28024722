"""`make calibrate`: how often the report's intervals and claims hold, into docs/calibration.md.

Does: measure every case, print it, write the page.
Doesn't: fail where something does not hold: the page says so. tests/test_calibration.py holds a small version of it.

    python -m benchmarks.calibration.run [--replicates N] [--out docs/calibration.md]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.calibration import breaking, claims, intervals
from benchmarks.calibration.claims import Claim, Modelled
from benchmarks.calibration.coverage import HIGH, LOW, WIDEST, Coverage, measure
from harness import store

OUT = Path(__file__).resolve().parent.parent.parent / "docs" / "calibration.md"
HEAD = f"""# Do the intervals hold?

Every number here is made by `make calibrate`: runs of the harness are drawn a thousand times in worlds whose truth is known
(softmax policies of the tabular engine, pass rates by enumeration), and what the report would print is compared with that
truth. A small version runs with the tests. The worlds are in benchmarks/calibration/worlds.py: 40 classes of problems whose
pass rates follow a beta distribution (mean .27 "mixed", .07 "hard"), policies a step along the policy gradient with noise,
four draws a problem. "Own draws": base and method meet different random numbers, the harder case; the harness gives them
the same ones.

Demanded: coverage of {LOW:.0%} to {HIGH:.0%}, and a mean width of at most {WIDEST} times what the estimator's own spread gives
(3.92 standard deviations over the replicates), with 100 problems and 20 expected successes or more. A dash stands where
nothing is demanded: too few problems or successes (the report says "too few"), one or two seeds where what is asked
is a property of all seeds. Three seeds are held to coverage alone: seeds tell their own spread with two degrees of freedom, and no
interval that covers can be narrow (Student's t is 1.94 times as wide). Five seeds are enough for both.
"""
MODELLED = """
## Direction noise, modelled

Where no run with more rollouts stands beside it, the report takes what a cleaner direction would gain from the snr (harness/
passrates/losing.py): (best - base) / cos, cos^2 = snr / (1 + snr). Gains of the best step (KL .04, .16, .64) by enumeration,
means over {count} noises: the model says too much, since a longer step makes up for noise that does no harm. Read the modelled
share as an upper bound.
"""


@click.command()
@click.option("--replicates", type=int, default=1000, show_default=True, help="Runs drawn for each interval and claim.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, help="The page that is written.")
def main(replicates: int, out: Path) -> None:
    started = time.process_time()
    found = [_told(measure(case, replicates)) for case in intervals.cases()]
    found += [_told(measure(case, max(50, replicates // 4))) for case in breaking.cases()]
    made = list(claims.claims(replicates))
    page = document(found, made, list(claims.modelled()), seconds=time.process_time() - started)
    store.write_text(out, page)
    click.echo(
        f"{out}: {sum(one.held and not one.holds for one in found)} of {sum(one.held for one in found)} intervals miss"
    )


def _told(one: Coverage) -> Coverage:
    click.echo(f"{one.interval}, {one.setting}: covers {one.coverage:.3f}, width {one.width:.2f}")
    sys.stdout.flush()
    return one


def document(found: Sequence[Coverage], made: Sequence[Claim], models: Sequence[Modelled], *, seconds: float) -> str:
    missing = sum(one.held and not one.holds for one in found)
    last = f"`make calibrate` took {seconds / 60:.0f} CPU minutes and ended in the number of intervals that miss: {missing}."
    return "\n".join(
        [
            HEAD,
            _coverage(found),
            "\n## Claims\n",
            _claims(made),
            MODELLED.format(count=claims.DIRECTIONS),
            _models(models),
            "",
            last,
            "",
        ]
    )


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def _coverage(found: Sequence[Coverage]) -> str:
    lines = [
        [
            one.interval,
            one.setting,
            f"{one.coverage:.1%} ± {one.error:.1%}",
            f"{one.below:.1%} / {one.above:.1%}",
            f"{one.width:.2f}",
            f"{one.bias:+.2f}",
            f"{one.too_few:.0%}",
            ("yes" if one.holds else "**no**") if one.held else "–",
        ]
        for one in found
    ]
    head = (
        "interval",
        "setting",
        "covers",
        "interval below / above the truth",
        "width",
        "bias (sd)",
        "too few",
        "holds",
    )
    return table(head, lines)


def _claims(made: Sequence[Claim]) -> str:
    lines = [
        [
            c.claim,
            c.setting,
            f"{c.value:.4f} ± {c.error:.4f}",
            c.demanded,
            ("yes" if c.holds else "**no**") if c.demanded else "–",
        ]
        for c in made
    ]
    return table(("claim", "setting", "found", "demanded", "holds"), lines)


def _models(found: Sequence[Modelled]) -> str:
    lines = [[m.world, f"{m.snr:g}", f"{m.noisy:.3f}", f"{m.noiseless:.3f}", f"{m.model:.3f}"] for m in found]
    return table(("world", "snr", "best step, noisy", "noiseless", "modelled"), lines)


if __name__ == "__main__":
    main()
