"""Processes that wait for each other as those of engine.fsdp do, without a model; here, since they import little."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch.distributed as dist

from harness.errors import HarnessError


class Waiting:
    """In the place of a PartLocal."""

    def __init__(self, _: Any, rank: int, size: int, meeting: str) -> None:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)

    def meet(self, fault: str) -> int:
        if dist.get_rank() == 1 and fault == "raises":
            raise HarnessError("no such file")
        if dist.get_rank() == 1 and fault == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        dist.barrier()
        return dist.get_rank()
