"""Run in a mount namespace of its own: a run on a disk that is full, and has a little more room after each stop, until it ends.

Arguments: an empty folder to mount the disk on, a folder for what is said, the command. Prints how often it stopped; the
finished run folder is copied beside what was said.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from harness.cli import main
from harness.report import html  # noqa: F401 - imported once, not by every attempt

FIRST, MORE = 150, 1.3  # KiB; the factor after each stop


def attempt(arguments: list[str], told: Path) -> int:
    """The exit status of the command, run in a fork; what it says on standard error is in `told`."""
    child = os.fork()
    if not child:
        os.dup2(os.open(told, os.O_WRONLY | os.O_CREAT), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        main(arguments)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def mount(disk: Path, *options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(disk)], check=True)


disk, said, size = Path(sys.argv[1]), Path(sys.argv[2]), float(FIRST)
mount(disk, f"size={FIRST}k")
stops = 0
while True:
    roots = [folder for folder in disk.glob("*") if (folder / "spec.toml").exists()]
    command = ["resume", str(roots[0]), "--workers", "1", "--quiet"] if roots else sys.argv[3:]
    if not (status := attempt(command, said / f"{stops:03d}.{size:.0f}")):
        break
    if status != 1:
        sys.exit(f"ended with status {status}")
    stops, size = stops + 1, size * MORE
    mount(disk, "remount", f"size={size:.0f}k")
shutil.copytree(roots[0], said / "run")
print(stops)
