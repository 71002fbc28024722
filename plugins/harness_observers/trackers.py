"""TensorBoard, trackio and Weights & Biases, each as a log of numbers.

Does: write where each keeps its files: TensorBoard's and W&B's in the run folder, trackio's in its own cache.
Doesn't: send anything anywhere: W&B is opened offline (`wandb sync RUN/wandb/offline-run-*` sends it), trackio is local.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from harness import config
from harness.errors import UsageError

PROJECT = "oneshot-harness"


class Log(Protocol):
    def write(self, kind: str, numbers: Mapping[str, float], step: int) -> None:
        """Numbers of one stage; a number's name is `kind/name`."""
        ...

    def close(self) -> None: ...


class TensorBoard:
    """`tensorboard --logdir RUN/tensorboard`."""

    def __init__(self, run: Path) -> None:
        self._writer = _package("torch.utils.tensorboard").SummaryWriter(log_dir=str(run / "tensorboard"))
        self._writer.add_text("spec", (run / "spec.toml").read_text(encoding="utf-8"))

    def write(self, kind: str, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Trackio:
    """`trackio show --project oneshot-harness`. It has one run at a time in a process."""

    def __init__(self, run: Path) -> None:
        self._trackio = _package("trackio")
        with contextlib.redirect_stdout(sys.stderr):  # it says where its dashboard is; standard output is the run's
            self._run = self._trackio.init(
                project=PROJECT,
                name=run.name,
                config=_spec(run),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def write(self, kind: str, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(_named(kind, numbers), step=step)

    def close(self) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._trackio.finish()  # not the run's own, which is called once more when Python ends


class Wandb:
    """`wandb sync RUN/wandb/offline-run-*`. Its own steps only grow, so each kind of stage has a step of its own."""

    def __init__(self, run: Path) -> None:
        wandb = _package("wandb")
        settings = wandb.Settings(silent=True, console="off")
        self._run = wandb.init(
            project=PROJECT,
            name=run.name,
            id=run.name,
            dir=str(run),
            config=_spec(run),
            mode="offline",
            settings=settings,
        )
        self._kinds: set[str] = set()

    def write(self, kind: str, numbers: Mapping[str, float], step: int) -> None:
        if kind not in self._kinds:
            self._run.define_metric(f"{kind}/*", step_metric=f"{kind}/step")
            self._kinds.add(kind)
        self._run.log({**_named(kind, numbers), f"{kind}/step": step})

    def close(self) -> None:
        self._run.finish()


KINDS: Mapping[str, Callable[[Path], Log]] = {"tensorboard": TensorBoard, "trackio": Trackio, "wandb": Wandb}


def _named(kind: str, numbers: Mapping[str, float]) -> dict[str, float]:
    return {f"{kind}/{name}": value for name, value in numbers.items()}


def _spec(run: Path) -> dict[str, Any]:
    return config.to_dict(config.load(None, file=run / "spec.toml", changes={}, sets=()))


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"a tracker cannot be imported ({error}): pip install 'oneshot-harness[trackers]'") from error
