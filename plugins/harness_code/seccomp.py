"""The filter of system calls that a job puts on itself: numbers for two architectures, rules, and the BPF program.

Does: refuse what could make a process, send a signal, reach a network, another process, a mount or the kernel's rarer
doors; let everything through that ordinary Python, threads, timers, files and asyncio need.
Doesn't: know an allow list: C libraries differ in what they call. What came after clone3 and is not named in `LATER` is
refused as if the kernel did not have it, so new doors are closed before they are known here.

`for_platform` gives None elsewhere than on Linux x86_64 and aarch64. Refused calls fail with EPERM, they do not kill:
a program may ask for what it does not get. Two traps: a filter that does not check the architecture can be walked around
by the 32-bit entry, and on x86_64 by the x32 numbers; an argument is 64 bits wide while the kernel reads 32 of an ioctl
number (CVE-2019-10063), so the lower half is what is compared.
"""

from __future__ import annotations

import errno
import platform
import struct
import sys
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

# name, number on x86_64, number on aarch64 ("-": there is none)
_TABLE = """
accept 43 202           accept4 288 242         acct 163 89             add_key 248 217         adjtimex 159 171
bind 49 200             bpf 321 280             capset 126 91           chmod 90 -              chown 92 -
chroot 161 51           clock_adjtime 305 266   clock_settime 227 112   clone 56 220            connect 42 203
creat 85 -              delete_module 176 106   execve 59 221           execveat 322 281        fanotify_init 300 262
fchmod 91 52            fchmodat 268 53         fchown 93 55            fchownat 260 54         fcntl 72 25
finit_module 313 273    fork 57 -               fremovexattr 199 16     fsetxattr 190 7         futimesat 261 -
init_module 175 105     io_setup 206 0          io_submit 209 2         ioctl 16 29             ioperm 173 -
iopl 172 -              ioprio_set 251 30       kcmp 312 272            kexec_file_load 320 294 kexec_load 246 104
keyctl 250 219          kill 62 129             lchown 94 -             link 86 -               linkat 265 37
listen 50 201           lookup_dcookie 212 18   lremovexattr 198 15     lsetxattr 189 6         mbind 237 235
memfd_create 319 279    migrate_pages 256 238   mkdir 83 -              mkdirat 258 34          mknod 133 -
mknodat 259 33          modify_ldt 154 -        mount 165 40            move_pages 279 239      mq_open 240 180
mq_unlink 241 181       msgctl 71 187           msgget 68 186           msgrcv 70 188           msgsnd 69 189
name_to_handle_at 303 264 nfsservctl 180 42     open 2 -                open_by_handle_at 304 265 openat 257 56
perf_event_open 298 241 personality 135 92      pivot_root 155 41       prctl 157 167           prlimit64 302 261
process_vm_readv 310 270 process_vm_writev 311 271 ptrace 101 117       quotactl 179 60         reboot 169 142
removexattr 197 14      rename 82 -             renameat 264 38         renameat2 316 276       request_key 249 218
rmdir 84 -              rt_sigqueueinfo 129 138 rt_tgsigqueueinfo 297 240 sched_setaffinity 203 122
sched_setattr 314 274   sched_setparam 142 118  sched_setscheduler 144 119 seccomp 317 277      semctl 66 191
semget 64 190           semop 65 193            sendmmsg 307 269        set_mempolicy 238 237   setdomainname 171 162
sethostname 170 161     setns 308 268           setpgid 109 154         setpriority 141 140     setsid 112 157
settimeofday 164 170    setxattr 188 5          shmat 30 196            shmctl 31 195           shmget 29 194
socket 41 198           socketpair 53 199       swapoff 168 225         swapon 167 224          symlink 88 -
symlinkat 266 36        sysfs 139 -             syslog 103 116          tgkill 234 131          tkill 200 130
truncate 76 45          umount2 166 39          unlink 87 -             unlinkat 263 35         unshare 272 97
uselib 134 -            userfaultfd 323 282     ustat 136 -             utime 132 -             utimensat 280 88
utimes 235 -            vfork 58 -              vhangup 153 58          clone3 435 435          close_range 436 436
faccessat2 439 439      epoll_pwait2 441 441    mount_setattr 442 442   landlock_create_ruleset 444 444
landlock_add_rule 445 445 landlock_restrict_self 446 446 futex_waitv 449 449 fchmodat2 452 452
futex_wake 454 454      futex_wait 455 455      futex_requeue 456 456
"""
FIRST_NEW = 424  # from here on the numbers are the same on every architecture
LATER = ("close_range", "faccessat2", "epoll_pwait2", "futex_waitv", "futex_wake", "futex_wait", "futex_requeue")

# Files of which only the descriptor's owner is asked, not Landlock: modes, owners, times, attributes.
ATTRIBUTES = (
    "chmod fchmod fchmodat chown fchown fchownat lchown utime utimes utimensat futimesat "
    "setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr"
)
# Whatever changes a file or a folder by its name. Opening for writing is refused by its flags.
WRITING = (
    "creat link linkat mkdir mkdirat mknod mknodat rename renameat renameat2 rmdir symlink symlinkat truncate "
    "unlink unlinkat"
)
_DENIED = (
    "accept accept4 acct add_key adjtimex bind bpf capset chroot clock_adjtime clock_settime connect delete_module execve "
    "execveat fanotify_init finit_module fork init_module io_setup io_submit ioperm iopl ioprio_set kcmp kexec_file_load "
    "kexec_load keyctl listen lookup_dcookie mbind memfd_create migrate_pages modify_ldt mount move_pages mq_open mq_unlink "
    "msgctl msgget msgrcv msgsnd name_to_handle_at nfsservctl open_by_handle_at perf_event_open personality pivot_root "
    "process_vm_readv process_vm_writev ptrace quotactl reboot request_key rt_sigqueueinfo rt_tgsigqueueinfo "
    "sched_setaffinity sched_setattr sched_setparam sched_setscheduler seccomp semctl semget semop sendmmsg set_mempolicy "
    "setdomainname sethostname setns setpgid setpriority setsid settimeofday shmat shmctl shmget socket swapoff swapon "
    "sysfs syslog tkill umount2 unshare uselib userfaultfd ustat vfork vhangup"
)

SELF = 0xFFFFFFFA  # stands for the job's own process id until the job knows it: see `bind_to`
_CLONE_THREAD = 0x10000
_WRITE_FLAGS = 0o1 | 0o2 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC: the same on both architectures


class Rule(NamedTuple):
    """A call that depends on the lower 32 bits of one argument.

    `test` "only": allowed when it is one of `values`; "with": when it has the bits; "without": when it has none of them.
    """

    name: str
    argument: int
    test: str
    values: tuple[int, ...]


_RULES = (
    Rule("clone", 0, "with", (_CLONE_THREAD,)),
    Rule("kill", 0, "only", (SELF,)),
    Rule("tgkill", 0, "only", (SELF,)),
    Rule("prlimit64", 0, "only", (0, SELF)),
    # A socket pair of another type than SOCK_STREAM can be used to write to any named socket.
    Rule("socketpair", 1, "only", (1, 1 | 0o4000, 1 | 0o2000000, 1 | 0o2004000)),
    Rule("prctl", 0, "only", (15, 16)),  # a thread's name, and nothing that would outlive the parent
    Rule("ioctl", 1, "only", (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),  # terminal?, bytes waiting, flags
    # Not F_SETOWN and F_SETSIG, which have the kernel send any signal to any process of the user.
    Rule("fcntl", 1, "only", (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1031, 1032)),
)
_READ_ONLY = (Rule("open", 1, "without", (_WRITE_FLAGS,)), Rule("openat", 2, "without", (_WRITE_FLAGS,)))

_LOAD, _EQUAL, _AT_LEAST, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_EPERM, _ENOSYS = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
_X32 = 0x40000000


class Platform(NamedTuple):
    """Call numbers by name, and the architecture as a filter sees it."""

    numbers: dict[str, int]
    audit: int


@cache
def for_platform() -> Platform | None:
    """This platform's numbers; None where the filter does not apply. Both known architectures are little-endian."""
    known = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
    if sys.platform != "linux" or platform.machine() not in known or sys.maxsize < 1 << 32:
        return None
    column, audit = known[platform.machine()]
    words = _TABLE.split()
    rows = zip(words[::3], zip(words[1::3], words[2::3], strict=True), strict=True)
    return Platform({name: int(row[column]) for name, row in rows if row[column] != "-"}, audit)


def program(here: Platform, *, keep_attributes: bool, read_only: bool) -> bytes:
    """The filter. `keep_attributes` refuses changes of modes, owners and times; `read_only` all changes of files."""
    denied = [
        *_DENIED.split(),
        *(ATTRIBUTES.split() if keep_attributes else ()),
        *(WRITING.split() if read_only else ()),
    ]
    rules = [*_RULES, *(_READ_ONLY if read_only else ())]
    later = [here.numbers[name] for name in LATER]
    code = [
        _step(_LOAD, _ARCHITECTURE_AT),
        *_unless_equal(here.audit, _KILL),
        _step(_LOAD, _NUMBER_AT),
        _step(_AT_LEAST, _X32, no=1),
        _step(_RETURN, _ENOSYS),
        _step(_AT_LEAST, FIRST_NEW, no=len(later) + 2),
        *(_step(_EQUAL, number, yes=len(later) - place) for place, number in enumerate(later)),
        _step(_RETURN, _ENOSYS),
        _step(_RETURN, _ALLOW),
    ]
    for name in denied:
        if name in here.numbers:
            code += [_step(_EQUAL, here.numbers[name], no=1), _step(_RETURN, _EPERM)]
    for rule in rules:
        if rule.name in here.numbers:
            code += _conditional(here.numbers[rule.name], rule)
    return b"".join([*code, _step(_RETURN, _ALLOW)])


def _step(operation: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", operation, yes, no, value)


def _unless_equal(value: int, action: int) -> Iterable[bytes]:
    return _step(_EQUAL, value, yes=1), _step(_RETURN, action)


def _conditional(number: int, rule: Rule) -> list[bytes]:
    """Every path of a matching call returns, so the number need not be loaded again."""
    argument = _step(_LOAD, _ARGUMENTS_AT + 8 * rule.argument)
    if rule.test == "only":
        count = len(rule.values)
        body = [_step(_EQUAL, value, yes=count - place) for place, value in enumerate(rule.values)]
        body += [_step(_RETURN, _EPERM), _step(_RETURN, _ALLOW)]
    else:
        first, second = (_ALLOW, _EPERM) if rule.test == "with" else (_EPERM, _ALLOW)
        body = [_step(_BITS, rule.values[0], no=1), _step(_RETURN, first), _step(_RETURN, second)]
    return [_step(_EQUAL, number, no=len(body) + 1), argument, *body]


def bind_to(filter_: bytes, process: int) -> bytes:
    """The filter of one job: signals and limits for that process id alone."""
    return filter_.replace(struct.pack("=I", SELF), struct.pack("=I", process))
