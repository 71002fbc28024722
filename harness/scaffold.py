"""Start a plugin: a working package, from a template, in a folder of its own.

Does: check the name, copy the files of one kind of plugin with the name filled in.
Doesn't: install, overwrite, or leave half of a folder behind a refused name.

Templates (harness/templates) are working packages called "placeholder"; every/ belongs to all kinds.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from harness import plugins
from harness.errors import UsageError

TEMPLATES = Path(__file__).resolve().parent / "templates"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,29}")


def create(kind: str, name: str) -> Path:
    """Write ./harness-NAME and return it. Raises UsageError for a bad or taken name and where the folder exists."""
    _check(kind, name)
    folder = Path(f"harness-{_dashed(name)}")
    if folder.exists():
        raise UsageError(f"{folder} exists already, and nothing in it was changed. Remove it, or choose another name.")
    for template in (TEMPLATES / "every", TEMPLATES / kind):
        for source in sorted(template.rglob("*")):
            if source.is_file() and "__pycache__" not in source.parts:
                target = folder / _filled(str(source.relative_to(template)), kind, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(_filled(source.read_text(encoding="utf-8"), kind, name), encoding="utf-8")
    return folder


def _check(kind: str, name: str) -> None:
    if not _NAME.fullmatch(name) or name.endswith("_"):
        near = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_0123456789")
        guess = f' "{near}" would do.' if _NAME.fullmatch(near) else ""
        raise UsageError(f'"{name}" is no name: small letters, digits and _, a letter first, 30 at most.{guess}')
    taken = plugins.load().registered.get((kind, name))
    if taken is not None:
        raise UsageError(f'the {kind} "{name}" exists already, in {taken.distribution} {taken.version}')
    if importlib.util.find_spec(f"harness_{name}") is not None:
        raise UsageError(f"a package harness_{name} is installed already: choose another name")


def _filled(text: str, kind: str, name: str) -> str:
    camel = "".join(part.capitalize() for part in name.split("_"))
    text = text.replace("PLACEHOLDER-NAME", _dashed(name)).replace("KIND", kind)
    return text.replace("placeholder", name).replace("Placeholder", camel)


def _dashed(name: str) -> str:
    return name.replace("_", "-")
