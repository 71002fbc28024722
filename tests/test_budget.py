"""CPU seconds of a process tree, against what children say that they used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import budget, processes

BURN = "import time\nwhile time.process_time() < .3: pass\nprint('done', flush=True)\ninput()"
NESTED = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])"


@pytest.mark.skipif(not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="the system lists no children")
def test_grandchildren_are_found_and_counted_running_and_ended() -> None:
    before = budget.tree_cpu_seconds()
    line = [sys.executable, "-c", NESTED]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "done\n"
        assert child.pid in processes.tree(os.getpid())
        assert sorted(processes.tree(os.getpid())) == sorted(processes._among_all(os.getpid()))
        running = budget.tree_cpu_seconds() - before
        child.communicate("\n")
    assert 0.299 <= running <= budget.tree_cpu_seconds() - before  # a difference of two floats: 0.3 may come out below
