"""Build an image: which base, which storage, and how a build gets through a proxy with a certificate of its own.

Honours BASE_IMAGE, SSL_CERT_FILE and CONTAINERS_*; what of the last is not set is written into the work folder.
Invariant: nothing of this machine gets into a layer. The certificates are bind-mounted for the build only (docker
has no such mount: there a proxy with its own certificate needs a BASE_IMAGE that trusts it).
"""

from __future__ import annotations

import os
import re
import resource
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.image_checks.commands import ROOT, CheckFailedError, check, ran, say
from tools.image_checks.containers import Engine

__all__ = ["LOCAL_BASE", "Base", "build", "choose_base", "default_base", "prepared"]

LOCAL_BASE = "localhost/image-check-base:1"
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
PULL_LIMIT_S = 300.0
BUILD_LIMIT_S = 3_600.0
BASE_LIMIT_S = 1_200.0
MOST_PER_CONTAINER = 4_096
"""Open files and processes; the tools lower their own limits below the hard ones, so not too near to those."""
MOUNTS_FOR_CA = {
    # pip's oldest versions trust only what they are told to; a folder, since a mount point of a file would stay.
    "/etc/xdg/pip": ("pip.conf", f"[global]\ncert = {CA_BUNDLE}\n"),
}


@dataclass(frozen=True)
class Base:
    """The base of a build; `note` is what has to be said of it."""

    image: str
    is_local: bool
    note: str


def default_base(dockerfile: str) -> str:
    """What a Dockerfile's text takes if nobody names a base. Raises CheckFailedError."""
    found = re.search(r"^ARG\s+BASE_IMAGE=(\S+)", dockerfile, re.MULTILINE)
    if found is None:
        raise CheckFailedError("the Dockerfile has no `ARG BASE_IMAGE=`")
    return found[1].strip("\"'")


def prepared(name: str, work: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for the engine's commands; writes the configuration that nobody gave."""
    work.mkdir(parents=True, exist_ok=True)
    if name == "docker":
        return dict(environ)
    files = {
        "CONTAINERS_STORAGE_CONF": ("storage.conf", _storage(work)),
        "CONTAINERS_CONF": ("containers.conf", _containers()),
        "CONTAINERS_REGISTRIES_CONF": ("registries.conf", 'unqualified-search-registries = ["docker.io"]\n'),
    }
    ours = {}
    for variable, (file_name, text) in files.items():
        if not environ.get(variable):
            (work / file_name).write_text(text, encoding="utf-8")
            ours[variable] = str(work / file_name)
    return {"BUILDAH_ISOLATION": "chroot", **environ, **ours}


def _storage(work: Path) -> str:
    has_overlay = "overlay" in Path("/proc/filesystems").read_text(encoding="ascii")
    driver = "overlay" if has_overlay else "vfs"
    return f'[storage]\ndriver = "{driver}"\nrunroot = "{work}/run"\ngraphroot = "{work}/graph"\n'


def _containers() -> str:
    lines = ["[engine]", 'events_logger = "file"']
    if not Path("/run/systemd/system").is_dir():
        lines.append('cgroup_manager = "cgroupfs"')
    if shutil.which("runc"):
        # The other one refuses some cgroup trees.
        lines.append('runtime = "runc"')
    # A container is not to ask for more than we may have ourselves: that needs a capability.
    limits = [f'"{kind}={_limit(number)}"' for kind, number in (("nofile", "RLIMIT_NOFILE"), ("nproc", "RLIMIT_NPROC"))]
    return "\n".join([*lines, "[containers]", f"default_ulimits = [{', '.join(limits)}]", ""])


def _limit(name: str) -> str:
    hard = resource.getrlimit(getattr(resource, name))[1]
    value = MOST_PER_CONTAINER if hard == resource.RLIM_INFINITY else min(hard, MOST_PER_CONTAINER)
    return f"{value}:{value}"


def choose_base(engine: Engine, dockerfile: Path, environ: Mapping[str, str]) -> Base:
    """BASE_IMAGE if it is set, else the Dockerfile's own, else a local Debian. Raises CheckFailedError."""
    given = environ.get("BASE_IMAGE")
    wanted = given or default_base(dockerfile.read_text(encoding="utf-8"))
    if engine.has_image(wanted):
        return Base(wanted, False, f"base {wanted} (in the local storage)")
    try:
        pulled = engine("pull", "--quiet", wanted, limit_s=PULL_LIMIT_S)
        problem = (
            "" if pulled.code == 0 else (pulled.err.strip().splitlines() or ["no reason given"])[-1].rpartition(": ")[2]
        )
    except CheckFailedError as error:
        problem = str(error)
    if not problem:
        return Base(wanted, False, f"base {wanted} (pulled)")
    check(not given, f"BASE_IMAGE={given} cannot be pulled: {problem}")
    if not engine.has_image(LOCAL_BASE):
        say(f"making a local Debian base, since {wanted} cannot be pulled")
        made = ran([ROOT / "tools" / "container_base.sh", engine.work / "base"], limit_s=BASE_LIMIT_S)
        check(made.code == 0, f"tools/container_base.sh failed: {made.tail}")
        _build(engine, [str(engine.work / "base")], LOCAL_BASE, {})
    note = f"REPLACED BASE: {wanted} cannot be pulled here ({problem}); the images stand on a local Debian instead"
    return Base(LOCAL_BASE, True, note)


def build(
    engine: Engine, dockerfile: Path, tag: str, base: Base, arguments: Mapping[str, str], stage: str | None = None
) -> float:
    """Build from the repository's root, up to `stage`; returns the seconds it took. Raises CheckFailedError."""
    words = ["-f", str(dockerfile), *(("--target", stage) if stage else ())]
    for name, value in {"BASE_IMAGE": base.image, **arguments}.items():
        words += ["--build-arg", f"{name}={value}"]
    return _build(engine, [*words, str(ROOT)], tag, engine.environ)


def _build(engine: Engine, words: list[str], tag: str, environ: Mapping[str, str]) -> float:
    if engine.name == "docker":
        command = ["docker", "build", "-t", tag]
    else:
        # Without the format HEALTHCHECK is dropped.
        command = ["buildah", "bud", "--format", "docker", "--layers", "--pull-never", "-t", tag]
        command += _mounts(engine.work, environ.get("SSL_CERT_FILE"))
    log = engine.work / f"build-{re.sub(r'[^a-z0-9]+', '-', tag)}.log"
    before = _working(engine)
    try:
        ended = ran([*command, *words], limit_s=BUILD_LIMIT_S, env=engine.environ)
    except BaseException:
        # Ended in the middle, buildah leaves its containers, and they their mounts.
        for each in _working(engine) - before:
            ran(["buildah", "rm", each], env=engine.environ)
        raise
    log.write_text(ended.text, encoding="utf-8")
    check(ended.code == 0, f"the build failed, all of it in {os.path.relpath(log)}: {ended.tail}")
    return ended.seconds


def _working(engine: Engine) -> set[str]:
    """Buildah's containers of builds; none where others may build too."""
    if not engine.owns_storage:
        return set()
    return set(ran(["buildah", "containers", "--quiet"], env=engine.environ).out.split())


def _mounts(work: Path, bundle: str | None) -> list[str]:
    if not bundle:
        return []
    check(Path(bundle).is_file(), f"SSL_CERT_FILE={bundle}: no such file; legal: a file of certificates, or unset")
    words = ["-v", f"{Path(bundle).resolve()}:{CA_BUNDLE}:ro"]
    for place, (name, text) in MOUNTS_FOR_CA.items():
        folder = work / "for-build" / place.strip("/").replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
        words += ["-v", f"{folder}:{place}:ro"]
    return words
