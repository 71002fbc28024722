"""A run folder before it is used: files that are not what was written are named, put aside, and made again by the run.

Does: refuse a folder of another layout, and one whose spec is damaged; move damaged files into its folder `damaged`, with
all that was computed from them and cannot be computed from what is left.
Doesn't: make anything again: the run does, since what is not there is not done.

Draws and gradients are found by their content, so a method that starts again takes no completion and no gradient twice; what
it repeats is its own arithmetic, such as optimizer steps, of which only the last state is kept. Selection draws whose scores
are journalled are not needed again.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from harness import checksums, store
from harness.errors import HarnessError

LAYOUT = 2  # of run folders and suite folders; 1 had no checksums
ASIDE = "damaged"
ORIGINS = ("spec.toml", "command.json", "suite.toml", "suite.json")  # what nothing else tells
DRAWN = ("rollouts", "verdicts", "directions")  # then /<seed>/<name>...


def require_whole(root: Path) -> None:
    """Raises HarnessError when a file is damaged or the layout is another: for those who only read."""
    require_origin(root)
    if found := checksums.damaged(root):
        raise HarnessError(f"{_told(root, found)}. To have it made again: harness resume {root}")


def require_origin(root: Path) -> None:
    """Raises HarnessError where what says what the run or suite is was damaged, or is of another version's making."""
    if lost := checksums.damaged(root, only=ORIGINS):
        raise HarnessError(f"{_told(root, lost)}, and nothing else tells what it said. Begin a new run instead")
    origin = next((root / name for name in ("command.json", "suite.json") if (root / name).exists()), None)
    if origin is None:
        return
    said = store.read_plain(origin)
    layout = said.get("layout", 1) if isinstance(said, dict) else None
    if layout != LAYOUT:
        raise HarnessError(
            f"{root} has layout {layout} of run folders and this version of the harness knows {LAYOUT}: use the version that "
            f"made it{_maker(root)}, or begin a new run with: harness run --spec {root}/spec.toml"
        )


def _maker(root: Path) -> str:
    try:
        return f" ({json.loads((root / 'manifest.json').read_text(encoding='utf-8'))['harness']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def mend(root: Path) -> list[str]:
    """Put aside what is damaged, and with it what depends on it; says what, a line each. The caller is its only writer.

    Raises as `require_origin`.
    """
    require_origin(root)
    found = checksums.damaged(root)
    for path in found:
        _put_aside(root, path)
    if found:
        (root / "DONE").unlink(missing_ok=True)
    return [f"{_told(root, [path])}: put into {root / ASIDE}, and made again where it is needed" for path in found]


def _told(root: Path, paths: list[Path]) -> str:
    more = f" and {len(paths) - 1} more files" if len(paths) > 1 else ""
    size = (root / paths[0]).stat().st_size if (root / paths[0]).exists() else 0
    return f"{root / paths[0]}{more} ({size} bytes) is not what was written"


def _put_aside(root: Path, path: Path) -> None:
    match path.parts:
        case ("methods", method, seed, *_):
            _move(root, Path("methods", method, seed))
        case (place, seed, name, *_) if place in DRAWN:
            _move(root, path)
            _start_again(root, seed, f"{seed}/{name.partition('.')[0]}")
        case ("diagnosis", *_):
            _move(root, Path("diagnosis"))
        case ("manifest.json" | "problems.jsonl",):
            _move(root, Path("manifest.json"))
            _move(root, Path("problems.jsonl"))
        case _:
            _move(root, path)


def _start_again(root: Path, seed: str, name: str) -> None:
    """The methods of a seed that asked for what is called `name`; the others only look at their test draws again."""
    for part in root.glob(f"methods/*/{seed}"):
        if any(name in entry.read_text(encoding="utf-8") for entry in (part / "journal").glob("*.json")):
            _move(root, part.relative_to(root))
        else:
            (part / "scores.json").unlink(missing_ok=True)


def _move(root: Path, path: Path) -> None:
    """Under the same name in the folder of damaged files, or one with a number where that name is taken."""
    if not (root / path).exists():  # with another damaged file
        return
    target, number = root / ASIDE / path, 1
    while target.exists():
        target, number = target.with_name(f"{path.name}~{number}"), number + 1
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(root / path, target)
