"""The doctor's looks at the container itself: clock, memory, file descriptors, file system, user, versions."""

from __future__ import annotations

import os
import platform
import pwd
import resource
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from engine.cores import usable_cores
from engine.doctor_check import Check
from engine.places import CONTAINER_MARKS

__all__ = ["free_memory_bytes", "judge_clock", "judge_descriptors", "judge_memory", "look_at_host"]

PACKAGES = ("faster-whisper", "ctranslate2", "onnxruntime", "onnxruntime-gpu", "numpy", "av", "runpod")
FIRST_YEAR, LAST_YEAR = 2026, 2100
"""No certificate is valid to a clock that was never set; this program did not exist before the first."""
LEAST_MEMORY_GB, GOOD_MEMORY_GB = 0.7, 4.0
"""The demo model and its server; small.en on a CPU, or large-v3 on its way to a GPU."""
LEAST_DESCRIPTORS, GOOD_DESCRIPTORS = 256, 4_096
"""A stream is one socket, an upload a socket and a file; 512 streams and the libraries' files have room."""
NO_LIMIT = 1 << 60
"""cgroup-v1 writes about 2**63 for none."""


def look_at_host(environ: Mapping[str, str]) -> Iterator[Check]:
    """Everything that needs no library."""
    yield _versions()
    yield judge_clock(time.time())
    yield judge_memory(free_memory_bytes())
    yield judge_descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield _root_file_system()
    yield _user(environ)


def _versions() -> Check:
    names = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            names.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return Check("versions", "ok", f"{', '.join(names)}; {usable_cores()} cores")


def judge_clock(unix_s: float) -> Check:
    """Whether a clock can be right; how far it is off cannot be known without a network."""
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix_s))
    if FIRST_YEAR <= time.gmtime(unix_s).tm_year < LAST_YEAR:
        return Check("clock", "ok", f"{shown}, plausible")
    return Check("clock", "fail", f"{shown} cannot be: TLS will fail", "set the host's clock")


def free_memory_bytes(root: Path = Path("/")) -> int | None:
    """What this container may still take: the machine's free memory or the rest of its limit, if that is less."""
    rooms = [_machine_bytes(root / "proc/meminfo")]
    cgroup = root / "sys/fs/cgroup"
    for limit, used, parts, cached in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        most, taken = _number(cgroup / limit), _number(cgroup / used)
        if most is not None and taken is not None and most < NO_LIMIT:
            # Files that were read, a model for one, count as used until somebody wants the memory.
            rooms.append(max(0, most - max(0, taken - _part(cgroup / parts, cached))))
    return min((each for each in rooms if each is not None), default=None)


def judge_memory(free_bytes: int | None) -> Check:
    """Whether a model can be loaded into it."""
    if free_bytes is None:
        return Check("memory", "skip", "not known here")
    says = f"{free_bytes / 1e9:.1f} GB free"
    if free_bytes < LEAST_MEMORY_GB * 1e9:
        return Check("memory", "fail", f"{says}, {LEAST_MEMORY_GB:g} GB are needed", "raise the container's limit")
    if free_bytes < GOOD_MEMORY_GB * 1e9:
        return Check("memory", "warn", f"{says}; large models need {GOOD_MEMORY_GB:g} GB", "raise the limit for these")
    return Check("memory", "ok", says)


def judge_descriptors(limit: int) -> Check:
    """Whether there are enough of them for sockets and files."""
    if limit == resource.RLIM_INFINITY or limit >= GOOD_DESCRIPTORS:
        shown = "no limit" if limit == resource.RLIM_INFINITY else f"up to {limit}"
        return Check("file descriptors", "ok", shown)
    remedy = "docker run --ulimit nofile=65536"
    if limit < LEAST_DESCRIPTORS:
        return Check("file descriptors", "fail", f"{limit}, {LEAST_DESCRIPTORS} are needed", remedy)
    return Check("file descriptors", "warn", f"{limit}: fewer streams than 512 have room", remedy)


def _root_file_system() -> Check:
    is_read_only = bool(os.statvfs("/").f_flag & os.ST_RDONLY)
    if is_read_only:
        return Check("root file system", "ok", "read-only; caches and temporary files have their own places")
    code = Path(__file__).parent
    is_changeable = os.access(code, os.W_OK)
    says = "writable" + ("; so is the code" if is_changeable else "; the code is not")
    if is_changeable and os.getuid() != 0 and is_container():
        return Check("root file system", "warn", says, f"chown -R root {code.parent} in the image")
    return Check("root file system", "ok", says)


def _user(environ: Mapping[str, str]) -> Check:
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = "no account"
    says = f"{uid} ({name}), group {os.getgid()}, HOME={environ.get('HOME', '(unset)')}"
    if uid == 0 and is_container():
        return Check("user", "warn", says, "the image's own user is enough; leave out --user 0")
    return Check("user", "ok", says)


def is_container() -> bool:
    """True inside docker or podman."""
    return any(mark.exists() for mark in CONTAINER_MARKS)


def _machine_bytes(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return None


def _part(stat: Path, name: str) -> int:
    """A line of a cgroup's memory.stat, 0 if it is not there."""
    try:
        lines = stat.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(number) for key, _, number in (line.partition(" ") for line in lines) if key == name), 0)


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
