"""Which files a confined program may read: Python's library and the C library, without installed packages.

Does: list folders, and those inside them that must stay hidden.
Doesn't: enforce anything: namespaces.py and landlock.py do.
"""

from __future__ import annotations

import glob
import os
import sys
import sysconfig
from collections.abc import Iterator

FILES = ("/etc/ld.so.cache", "/etc/localtime")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
_SYSTEM = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo")


def library() -> list[str]:
    """The folders that Python and the C library need, without what lies in another of them."""
    own = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    own += [f"{prefix}/lib" for prefix in (sys.base_prefix, sys.base_exec_prefix)]
    found = {path for path in (*_SYSTEM, *own) if os.path.isdir(path)}
    return sorted(path for path in found if not any(path.startswith(other + "/") for other in found))


def packages() -> list[str]:
    """Folders of installed packages inside `library()`: one of them may hold a benchmark with its answers."""
    return [
        path
        for folder in library()
        if not os.path.islink(folder)
        for path in glob.glob(f"{folder}/python3*/*-packages")
        if os.path.isdir(path)
    ]


def parts() -> Iterator[str]:
    """`library()` opened up so far that `packages()` can be left out, for rules that can only add."""
    hidden = set(packages())
    folders = library()
    for folder in folders:
        if os.path.islink(folder) and os.path.realpath(folder) in folders:
            continue
        versions = {os.path.dirname(path) for path in hidden if path.startswith(folder + "/")}
        yield from (path for path in sorted(glob.glob(f"{folder}/*")) if path not in versions)
        for version in sorted(versions):
            yield from (path for path in sorted(glob.glob(f"{version}/*")) if path not in hidden)
