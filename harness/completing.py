"""One run folder to its end: rows, report, DONE. Here, or as the child of a process that runs several (launching.py).

Does: run or continue the folder, or, as one of several children at the same folder, the parts that it gets; as a child,
tell the parent how far it is and why it failed, and end with the parent.
Doesn't: know what other runs there are, or print.

A child ignores Ctrl-C, which is the parent's to handle: it stops at its next shard when the parent writes to its standard
input, and ends when that does, that is when the parent wants it at once or is gone. On Linux the system ends it with the parent as well, however that died.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from harness import judging, launching, lending, locking, mending, pipeline, plugins, silence, store
from harness.errors import HarnessError, UsageError
from harness.plugins import Plugins
from harness.run import Progress
from harness.stopping import Stop

SHORT = 1.0  # seconds: of a stage that takes less, the parent hears nothing
SILENCE = 10.0  # seconds after which it hears of any stage, so that a run of short ones does not look dead
OFTEN = 0.2  # seconds between two messages of one stage
PATIENCE = 8.0  # seconds that engines and pools have for closing


def say(line: str) -> None:
    """What is said with --quiet as well."""
    print(line, file=sys.stderr)


def complete(
    root: Path,
    found: Plugins,
    *,
    progress: Progress,
    workers: int,
    shared: Path | None = None,
    stop: Stop | None = None,
) -> bool:
    """Run or continue one folder; False where it was done before. What is damaged is named and made again.

    Raises KeyboardInterrupt at the next shard once somebody asks to `stop`, as `pipeline.execute` does, HarnessError as `mending.mend` does, and InUse where another process is at it.
    """
    from harness import spreading
    from harness.report import html

    own = root / lending.SHARED
    stop = stop or Stop()
    ahead = functools.partial(spreading.side_by_side, plugins=found, shared=shared or own, progress=progress, stop=stop)
    with locking.alone(root):
        for line in mending.mend(root):
            say(line)
        if (root / "DONE").exists():
            return False
        pipeline.execute(root, found, progress=stop.at(progress), workers=workers, shared=shared, ahead=ahead)
        html.write(root, found)
        pipeline.mark_done(root)
        shutil.rmtree(own, ignore_errors=True)
    return True


def serve() -> None:
    """Arguments: sys.path (used by the starter), options. Each line out: [label, done, total] as in `Progress`,
    {"stage", "summary"} as in `Notify`, or {"failed", "usage"}."""
    options = json.loads(sys.argv[2])
    judging.end_with(options["parent"])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a plugin that prints must not write into the messages

    def tell(message: Any) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    stop = Stop()
    folder, shared, queue = Path(options["folder"]), Path(options["shared"]), options["queue"]
    work: Callable[..., object] = functools.partial(complete, stop=stop)
    if queue is not None:
        notify = functools.partial(_tell_stage, tell)
        work = functools.partial(pipeline.take_part, taken=launching.taken(queue), notify=notify)
    try:
        silence.listen()
        _end_when_asked(stop)
        with store.told_clearly(folder):
            work(folder, plugins.load(), progress=stop.at(Told(tell)), workers=options["workers"], shared=shared)
    except HarnessError as error:
        tell({"failed": f"{type(error).__name__}: {error}", "usage": isinstance(error, UsageError)})
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(launching.STOPPED)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # done: no interrupt may hit what Python does at its end


def _tell_stage(tell: Callable[[Any], None], stage: str, summary: Mapping[str, Any]) -> None:
    tell({"stage": stage, "summary": summary})


def _end_when_asked(stop: Stop) -> None:
    signal.signal(signal.SIGTERM, _interrupt)
    main = threading.get_ident()

    def watch() -> None:
        while os.read(0, 1) == launching.STOP:  # not sys.stdin, whose lock Python wants back at its end
            stop.ask()
        signal.pthread_kill(main, signal.SIGTERM)  # to the main thread: it also wakes from a system call
        time.sleep(PATIENCE)
        os._exit(launching.STOPPED)

    threading.Thread(target=watch, daemon=True).start()


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: a second one must not disturb the closing
    raise KeyboardInterrupt


class Told:
    """Progress as the parent wants to hear it: of long stages, and now and then of any."""

    def __init__(self, tell: Callable[[Any], None]) -> None:
        self._tell = tell
        self._label, self._begun, self._known, self._last = "", time.monotonic(), False, time.monotonic()

    def __call__(self, label: str, done: int, total: int) -> None:
        now = time.monotonic()
        if label != self._label:
            self._label, self._begun, self._known = label, now, False
        over = done >= total
        wanted = self._known if over else now - self._begun >= SHORT or now - self._last >= SILENCE
        if label and wanted and (over or now - self._last >= OFTEN):
            self._tell([label, done, total])
            self._last, self._known = now, not over
        if over:
            self._label = ""
