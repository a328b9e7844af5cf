"""`python -m engine.doctor`: what is amiss in this container, or on this machine, and what to do about it.

Downloads nothing, needs no network, and changes nothing but caches: an empty folder for models, kernels that the
driver compiles for a new GPU. `python -m builder doctor --image IMAGE` runs it in an image.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from engine.doctor_check import CHILD_LIMIT_S, Check, Look, examine
from engine.doctor_gpu import look_at_gpu
from engine.doctor_host import look_at_host
from engine.doctor_libraries import DECODE_LIMIT_S, look_at_ctranslate2, look_at_cublas, look_at_cudnn, look_at_vad
from engine.doctor_model import SHARED_MEMORY, VERIFY_LIMIT_S, look_at_disk, look_at_models, look_at_places
from engine.doctor_settings import look_at_ports, look_at_settings
from engine.errors import ConfigError
from engine.logs import Redactor
from engine.modes import choose_mode, mode_variables

__all__ = ["LOOKS", "main"]

LOOKS = (
    Look("settings", look_at_settings),
    Look("driver", look_at_gpu, limit_s=100.0),
    Look("CUDA libraries", look_at_cublas),
    Look("cuDNN", look_at_cudnn),
    Look("CTranslate2", look_at_ctranslate2, limit_s=CHILD_LIMIT_S + DECODE_LIMIT_S + 10),
    Look("onnxruntime", look_at_vad),
    Look("model", look_at_models, limit_s=VERIFY_LIMIT_S),
    Look("model cache", look_at_places, limit_s=20.0),
    Look("disk", look_at_disk, limit_s=20.0),
    Look("ports", look_at_ports, limit_s=20.0),
    Look("host", look_at_host, limit_s=20.0),
)
STATES = ("ok", "warn", "fail", "skip")
MIN_SECRET_CHARS = 8
COLOURS = {"ok": "32", "warn": "33", "fail": "31", "skip": "2"}
"""ECMA-48, "Select graphic rendition"."""
SECRETS = (
    "WHISPER_AUTH_TOKEN",
    "BUCKET_ACCESS_KEY_ID",
    "BUCKET_SECRET_ACCESS_KEY",
    "RUNPOD_API_KEY",
    "RUNPOD_AI_API_KEY",
    "HF_TOKEN",
)
EXAMPLES = """\
examples:
  python -m engine.doctor
  python -m engine.doctor --json
  docker run --rm --gpus all IMAGE doctor
  docker exec CONTAINER python -m engine.doctor

exit status: 0 nothing failed, 1 something did, 2 wrong usage
"""


def main(argv: Sequence[str] | None = None, looks: Sequence[Look] = LOOKS) -> int:
    """Look, show, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m engine.doctor",
        description="Check driver, GPU, libraries, model, caches, disk, ports, clock and settings.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    options = parser.parse_args(argv)
    # A shorter one would be found inside of words.
    redactor = Redactor(value for name in SECRETS if len(value := os.environ.get(name, "")) >= MIN_SECRET_CHARS)
    _prepare_temporary()
    _enter_mode()
    found = examine(looks, os.environ)
    checks = [Check(each.name, each.state, redactor.redact(each.says), each.remedy) for each in found]
    sys.stdout.write(as_document(checks) if options.json else as_table(checks, _has_colours(sys.stdout, os.environ)))
    sys.stdout.flush()
    return 1 if any(check.state == "fail" for check in checks) else 0


def _prepare_temporary() -> None:
    """As the entry point of the image does where the root file system is read-only."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = None
        os.environ["TMPDIR"] = str(SHARED_MEMORY)


def _enter_mode() -> None:
    """The settings that the entry point of the image makes; what is wrong is a finding of `look_at_settings`."""
    try:
        os.environ.update(mode_variables(choose_mode(os.environ).mode, os.environ))
    except ConfigError:
        return


def count(checks: Iterable[Check]) -> dict[str, int]:
    """How many findings there are of each state."""
    states: list[str] = [check.state for check in checks]
    return {state: states.count(state) for state in STATES}


def as_document(checks: Sequence[Check]) -> str:
    """One JSON document, a line per finding: what reads a container's output may cut long lines."""
    lines = ",\n".join(f"  {json.dumps(vars(check))}" for check in checks)
    return f'{{"checks": [\n{lines}\n],\n"count": {json.dumps(count(checks))}}}\n'


def as_table(checks: Sequence[Check], has_colours: bool) -> str:
    """State, name and finding in columns; remedies below what they are for."""
    width = max((len(check.name) for check in checks), default=0)
    lines = []
    for check in checks:
        state = f"{check.state:<4}"
        if has_colours:
            state = f"\033[{COLOURS[check.state]}m{state}\033[0m"
        lines.append(f"{state}  {check.name:<{width}}  {_printable(check.says)}")
        if check.remedy and check.state in ("warn", "fail"):
            lines.append(f"{'':<{width + 8}}-> {check.remedy}")
    total = count(checks)
    lines.append(f"{total['ok']} ok, {total['warn']} to look at, {total['fail']} failed, {total['skip']} left out")
    return "\n".join(lines) + "\n"


def _has_colours(stream: TextIO, environ: Mapping[str, str]) -> bool:
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def _printable(text: str) -> str:
    """Names and messages of others must not move the cursor."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _leave(signum: int, frame: object) -> None:
    os._exit(128 + signum)


if __name__ == "__main__":
    # A container's first process would not even hear SIGTERM without a handler, and looks may take minutes.
    for _signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(_signum, _leave)
    raise SystemExit(main())
