"""Level "full": namespaces of users, processes, mounts, network, IPC and host name, and a file system of a few folders.

Does: move the interpreter that forks jobs into them (`enter`), and give each job its own /tmp (`private_folder`).
Doesn't: limit resources or system calls. Needs Linux 5.12 and user namespaces that may mount.

Traps: a process namespace can be entered again only where our own user namespace owns it, hence the fork in `enter`;
bind mounts made from a locked parent keep its flags, hence one recursive `mount_setattr` at the end.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import NoReturn

from harness_code import kernel, visible

FOLDER = "/tmp"
_FOLDER_OPTIONS = b"size=64m,nr_inodes=4096,mode=1777"

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
_NOBODY, _NOBODY_INSIDE = 65534, 1
_DESCRIPTORS = 1 << 16  # more than are open
_READ_ONLY = (1 | 2).to_bytes(8, "little") + bytes(24)  # struct mount_attr: read-only and nosuid, to be set


def enter() -> int:
    """Move into namespaces of our own; returns a descriptor of the process namespace. Raises OSError.

    The caller goes on in a child. The process that was started waits for it outside, and each dies with the other.
    """
    _own_users()
    child = os.fork()
    if child:
        _wait_outside(child)
    kernel.die_with_parent()
    kernel.call("unshare", _NEWNS | _NEWNET | _NEWIPC | _NEWUTS | _NEWCGROUP)
    processes = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    _change_root()
    return processes


def _own_users() -> None:
    """Namespaces of users and processes. We are number 0 in it; where root has started us, jobs can be another one.

    The kernel's limit on processes does not bind root's own number, under whatever number it goes inside.
    """
    user, group = os.getuid(), os.getgid()
    moved, tell = os.pipe()
    # Its own maps may name one number alone: a second one is for a process outside to write.
    helper = os.fork() if user == 0 and os.stat(os.__file__).st_mode & stat.S_IROTH else -1
    if helper == 0:
        os.close(tell)
        os.read(moved, 1)
        _map_two(os.getppid())
    try:
        kernel.call("unshare", _NEWUSER | _NEWPID)
    finally:
        os.close(tell)
        os.close(moved)
        if helper > 0:
            os.waitpid(helper, 0)
    with open("/proc/self/uid_map") as file:
        mapped = bool(file.read())
    if not mapped:
        _write("/proc/self/uid_map", f"0 {user} 1")
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/gid_map", f"0 {group} 1")


def _map_two(process: int) -> NoReturn:
    with suppress(OSError):
        _write(f"/proc/{process}/uid_map", f"0 0 1\n{_NOBODY_INSIDE} {_NOBODY} 1")
    os._exit(0)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def be_nobody() -> None:
    """For a job: another user than root, where there is one."""
    with suppress(OSError):
        os.setresuid(_NOBODY_INSIDE, _NOBODY_INSIDE, _NOBODY_INSIDE)


def _wait_outside(child: int) -> NoReturn:
    """Hold nothing that the child holds: the other side learns of its death by the end of the control socket."""
    kernel.die_with_parent()
    os.closerange(3, _DESCRIPTORS)
    os.waitpid(child, 0)
    os._exit(0)


def _change_root() -> None:
    """Built over /proc, a folder that is there and that nothing shown lies in: so none need be made, or removed."""
    root = "/proc"
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
