"""Options, order and exit code: 0 all checks held, 1 one did not, 2 wrong usage."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.arguments import command_line
from bench.report import write_document
from tools.image_checks import faults, modes
from tools.image_checks.baked import BAKED, check_baked
from tools.image_checks.building import LOCAL_BASE, Base, build, choose_base, prepared
from tools.image_checks.commands import ROOT, CheckFailedError, ran, say
from tools.image_checks.containers import Engine, find_engine
from tools.image_checks.report import Report, Result, markdown
from tools.image_checks.scan import Inside, check_scan, look_inside
from tools.image_checks.served import Target
from tools.image_checks.sizes import GB, check_size, measure
from tools.image_checks.starts import check_start, measure_starts

__all__ = ["IMAGES", "NAMES", "Plan", "main", "remove_ours"]

DEFAULT_WORK = ".image-check"
MAX_TEXT_CHARS = 1_200
KEPT_LAYERS = "24h"
OURS = (
    "base",
    "for-build",
    "graph",
    "run",
    "volumes",
    "*.conf",
    "build-*.log",
    "client-*.log",
    "image-check-*.*",
    "image.tar",
)
"""What the work folder holds of this tool."""
PLAIN: Mapping[str, Callable[[Target], str]] = {
    "confined": modes.check_confined,
    "pod": modes.check_pod,
    "serverless": modes.check_serverless,
    "lb": modes.check_balancer,
    "healthcheck": modes.check_healthcheck,
    "doctor": faults.check_doctor,
    "sigterm-live": modes.check_sigterm_live,
    "sigterm-job": modes.check_sigterm_job,
    "wrong-mode": faults.check_wrong_mode,
    "no-model": faults.check_missing_model,
    "port-in-use": faults.check_port_in_use,
    "volumes": faults.check_volumes,
}
NAMES = (*PLAIN, "baked", "secrets", "size", "start")


@dataclass(frozen=True)
class Plan:
    """An image to build: its Dockerfile, build arguments, and how large it may be without weights."""

    name: str
    dockerfile: str
    arguments: Mapping[str, str]
    limit_bytes: int

    @property
    def tag(self) -> str:
        """The image's local name."""
        return f"localhost/whisper-runpod:check-{self.name}"


IMAGES = (
    Plan("slim", "Dockerfile.slim", {}, 2 * GB),
    Plan("full", "Dockerfile", {"WHISPER_MODELS": BAKED}, 4 * GB),
)


def main(argv: Sequence[str]) -> int:
    """Build and check; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    unknown = set(args.only) - set(NAMES)
    if unknown:
        parser.error(f"--only {', '.join(sorted(unknown))}: legal: {', '.join(NAMES)}")
    if args.short and args.image not in (None, IMAGES[0].name):
        parser.error(f"--short: it is of the image {IMAGES[0].name} alone, not of {args.image}")
    if args.json is not None and not args.json.absolute().parent.is_dir():
        parser.error(f"--json {args.json}: there is no such folder")
    work = Path(os.environ.get("W") or ROOT / DEFAULT_WORK).resolve()
    try:
        engine = _engine(args, work)
        if args.wipe:
            _wipe(engine)
            return 0
        report = _run(engine, args)
    except CheckFailedError as error:
        say(f"FAIL {error}")
        return 1
    say()
    for line in markdown(report, is_short=args.short):
        say(line)
    if args.json is not None:
        write_document(args.json, report.as_document(command_line("tools.image_check", argv)))
    failed = [f"{result.image} {result.name}" for result in report.results if not result.ok]
    say()
    if report.is_base_replaced:
        say(f"note: {report.base}")
    say(
        f"{len(report.results)} checks, "
        + (f"FAILED: {', '.join(failed)}" if failed else "all ok" if report.results else "FAILED: nothing was checked")
    )
    return 0 if report.is_ok else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/image_check.py",
        description="Build the images, run them in every mode and measure them.",
        epilog="BASE_IMAGE, SSL_CERT_FILE and CONTAINERS_* are honoured; W is the work folder "
        f"(default {DEFAULT_WORK}), where layers stay for the next run. checks: " + ", ".join(NAMES),
    )
    add = parser.add_argument
    add("--short", action="store_true", help="the slim image alone, without the other server and the long tables")
    add("--image", choices=[plan.name for plan in IMAGES], help="only this one")
    add("--only", action="append", default=[], metavar="NAME", help="only this check (may be repeated)")
    add("--engine", choices=("docker", "podman"), help="default: docker if its engine answers, else podman")
    add("--keep", action="store_true", help="leave the containers, stopped, for a look at them")
    add("--json", type=Path, metavar="FILE", help="write the report here")
    add("--wipe", action="store_true", help="only remove the images, the layers and the work folder")
    return parser


def _engine(args: argparse.Namespace, work: Path) -> Engine:
    name = find_engine(args.engine)
    return Engine(name, work, prepared(name, work, os.environ), keep=args.keep)


def _run(engine: Engine, args: argparse.Namespace) -> Report:
    plans = [plan for plan in IMAGES if args.image in (None, plan.name) and (plan.name == "slim" or not args.short)]
    base = choose_base(engine, ROOT / plans[0].dockerfile, os.environ)
    say(f"{engine.name}; {base.note}")
    report = Report(engine.name, base.note if base.is_local else base.image, base.is_local)
    for plan in plans:
        built_s = build(engine, ROOT / plan.dockerfile, plan.tag, base, plan.arguments)
        report.builds_s[plan.name] = built_s
        say(f"built {plan.name} from {plan.dockerfile} in {built_s:.0f} s")
        _check_image(Target(engine, plan.tag), plan, base, args, report)
    if engine.owns_storage:
        # Layers of builds long past; those of today make the next build a matter of seconds.
        engine("image", "prune", "-f", "--filter", f"until={KEPT_LAYERS}", limit_s=300.0)
    return report


def _check_image(target: Target, plan: Plan, base: Base, args: argparse.Namespace, report: Report) -> None:
    inside: list[Inside] = []

    def looked() -> Inside:
        if not inside:
            inside.append(look_inside(target))
        return inside[0]

    def size() -> str:
        report.sizes[plan.name] = measured = measure(target, looked())
        return check_size(measured, plan.limit_bytes)

    def start() -> str:
        # One comparison is enough: the other server does not change with our image.
        is_short = args.short or plan.name != "slim"
        report.starts[plan.name] = starts = measure_starts(target, is_short=is_short)
        return check_start(starts)

    checks: dict[str, Callable[[], str]] = {name: _bound(function, target) for name, function in PLAIN.items()}
    if plan.arguments:
        checks["baked"] = lambda: check_baked(target, ROOT / plan.dockerfile, base)
    checks |= {"secrets": lambda: check_scan(target, looked(), base.image), "size": size, "start": start}
    for name, function in checks.items():
        if not args.only or name in args.only:
            report.add(_result(name, plan.name, function))


def _bound(function: Callable[[Target], str], target: Target) -> Callable[[], str]:
    return lambda: function(target)


def _result(name: str, image: str, function: Callable[[], str]) -> Result:
    began_s = time.monotonic()
    try:
        text, ok = function(), True
    except CheckFailedError as error:
        text, ok = " ".join(str(error).split()), False
    except Exception as error:
        # An answer of another shape than it should have, say: that check failed, the others go on.
        text, ok = f"{type(error).__name__}: {error}", False
    return Result(name, image, ok, time.monotonic() - began_s, text[:MAX_TEXT_CHARS])


def _wipe(engine: Engine) -> None:
    for plan in IMAGES:
        engine("rmi", "-f", plan.tag)
    engine("rmi", "-f", LOCAL_BASE)
    if engine.owns_storage:
        ran(["buildah", "rm", "--all"], env=engine.environ)
        engine("rmi", "-f", "-a", limit_s=300.0)
        for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()[::-1]:
            place = line.split()[1]
            if place.startswith(f"{engine.work}/"):
                with contextlib.suppress(CheckFailedError):
                    engine("unshare", "umount", place) if os.getuid() else _umount(place)
        if os.getuid():
            # Some files belong to the users of a container.
            engine("unshare", "rm", "-rf", str(engine.work / "graph"), str(engine.work / "run"))
    remove_ours(engine.work)


def remove_ours(work: Path) -> None:
    """Of the work folder only what is ours: W may name one that holds other things too."""
    for place in [each for pattern in OURS for each in work.glob(pattern)]:
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        work.rmdir()


def _umount(place: str) -> None:
    ran(["umount", place])
