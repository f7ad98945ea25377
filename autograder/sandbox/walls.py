"""The walls around one child: namespaces, mounts, privileges and limits, put up in the order that works.

Runs inside, before any of the learner's code. Only system calls: no file of the host is in sight here.
"""

import ctypes
import os
import resource
import signal

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (1 << 17, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30)
REC_PRIVATE = 0x44000
NOSUID_NODEV = 0x6
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
CAPABILITY_VERSION_3 = 0x20080522
TMP_BYTES = 100_000_000
# The Python that forks the child has all its packages loaded, so address space counts from a high floor.
LIMITS = {
    "RLIMIT_AS": 4 << 30,
    "RLIMIT_FSIZE": 50_000_000,
    "RLIMIT_NOFILE": 128,
    "RLIMIT_CORE": 0,
}
PROCESSES = 32

_libc = ctypes.CDLL(None, use_errno=True)


def _must(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def become(uid: int) -> None:
    """Change from root to ``uid`` for good: limits on processes do not hold for root."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def hide() -> None:
    """Let no other process of the same user read or trace this one."""
    _must(_libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")


def new_namespaces() -> None:
    """Give this process a user, mount, net and ipc namespace of its own, and its children a pid namespace."""
    uid, gid = os.getuid(), os.getgid()
    _must(_libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")  # else the maps below belong to root
    _must(_libc.unshare(NEWUSER | NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def close_in(limits: dict[str, int]) -> None:
    """Cover ``/tmp`` and ``/proc``, give up every privilege, and limit what this process may use."""
    _must(_libc.mount(b"none", b"/", None, REC_PRIVATE, None), "mount /")
    _must(_libc.mount(b"tmpfs", b"/tmp", b"tmpfs", NOSUID_NODEV, f"size={TMP_BYTES}".encode()), "mount /tmp")
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # if memory runs out, this process goes first
    # A new procfs is not allowed here, and the old one shows the processes outside.
    _must(_libc.mount(b"tmpfs", b"/proc", b"tmpfs", NOSUID_NODEV | 1, b"size=4k"), "mount /proc")
    _must(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    _must(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
    _must(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    limit({**limits, "RLIMIT_NPROC": PROCESSES})


def limit(limits: dict[str, int]) -> None:
    """Set resource limits, none above what this process is allowed itself."""
    for name, value in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
