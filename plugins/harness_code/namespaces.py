"""Level "full": namespaces of users, processes, mounts, network, IPC and host name, and a file system of a few folders.

Does: move the interpreter that forks jobs into them (`enter`), and give each job its own /tmp (`private_folder`).
Doesn't: limit resources or system calls. Needs Linux 5.12 and user namespaces that may mount.

Traps: a process namespace can be entered again only where our own user namespace owns it, hence the fork in `enter`;
bind mounts made from a locked parent keep its flags, hence one recursive `mount_setattr` at the end.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from typing import NoReturn

from harness_code import kernel, visible

FOLDER = "/tmp"
_FOLDER_OPTIONS = b"size=64m,nr_inodes=4096,mode=700"

_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
    0x20000,
    0x2000000,
    0x4000000,
    0x8000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
_NOSUID, _NODEV, _BIND, _RECURSIVE, _PRIVATE = 2, 4, 1 << 12, 1 << 14, 1 << 18
_DETACH, _HERE, _ALL_BELOW = 2, -100, 0x8000
_READ_ONLY = (1 | 2).to_bytes(8, "little") + bytes(24)  # struct mount_attr: read-only and nosuid, to be set


def enter() -> int:
    """Move into namespaces of our own; returns a descriptor of the process namespace. Raises OSError.

    The caller goes on in a child. The process that was started waits for it outside, and each dies with the other.
    """
    user, group, root = os.getuid(), os.getgid(), tempfile.mkdtemp(prefix="harness-root-")
    settled, tell = os.pipe()
    try:
        kernel.call("unshare", _NEWUSER | _NEWPID)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        child = os.fork()
    except OSError:
        os.rmdir(root)
        raise
    if child:
        os.close(tell)
        _wait_outside(child, settled, root)
    os.close(settled)
    kernel.die_with_parent()
    kernel.call("unshare", _NEWNS | _NEWNET | _NEWIPC | _NEWUTS | _NEWCGROUP)
    processes = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    _change_root(root)
    os.close(tell)
    return processes


def _wait_outside(child: int, settled: int, root: str) -> NoReturn:
    """Hold nothing that the child holds: the other side learns of its death by the end of the control socket."""
    kernel.die_with_parent()
    os.closerange(3, settled)
    os.read(settled, 1)
    with suppress(OSError):
        os.rmdir(root)
    os.waitpid(child, 0)
    os._exit(0)


def _change_root(root: str) -> None:
    kernel.call("mount", None, b"/", None, _RECURSIVE | _PRIVATE, None)
    kernel.call("mount", b"tmpfs", root.encode(), b"tmpfs", _NOSUID | _NODEV, b"size=4m,mode=755")
    for path in (*visible.library(), *filter(os.path.exists, (*visible.FILES, *visible.DEVICES))):
        _show(path, root)
    for path in visible.packages():
        kernel.call("mount", b"tmpfs", (root + path).encode(), b"tmpfs", _NOSUID | _NODEV, b"size=4k")
    for name in (FOLDER, "/old"):
        os.makedirs(root + name, exist_ok=True)
    kernel.call("pivot_root", root.encode(), f"{root}/old".encode())
    os.chdir("/")
    kernel.call("umount2", b"/old", _DETACH)
    os.rmdir("/old")
    kernel.call("mount_setattr", _HERE, b"/", _ALL_BELOW, _READ_ONLY, len(_READ_ONLY))


def _show(path: str, root: str) -> None:
    """Make `path` visible under the new root; a link to a folder (/lib) stays a link."""
    place = root + path
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if os.path.islink(path) and os.path.isdir(path):
        os.symlink(os.readlink(path), place)
        return
    if os.path.isdir(path):
        os.makedirs(place, exist_ok=True)
    else:
        open(place, "w").close()
    kernel.call("mount", path.encode(), place.encode(), None, _BIND | _RECURSIVE, None)


def split_processes() -> None:
    """The next child is number 1 of a process namespace of its own."""
    kernel.call("unshare", _NEWPID)


def rejoin(processes: int) -> None:
    kernel.call("setns", processes, _NEWPID)


def private_folder() -> None:
    """For a job: a fresh and bounded /tmp, gone with the job, as the working directory."""
    kernel.call("unshare", _NEWNS)
    kernel.call("mount", b"tmpfs", FOLDER.encode(), b"tmpfs", _NOSUID | _NODEV, _FOLDER_OPTIONS)
    os.chdir(FOLDER)
