"""What goes wrong at a start: each time one clear error and the right exit code. And what `doctor` says."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from tools.image_checks.commands import Ended, check
from tools.image_checks.containers import CONFINED, PYTHON
from tools.image_checks.served import Target, free_ports, served

__all__ = [
    "check_doctor",
    "check_missing_model",
    "check_port_in_use",
    "check_volumes",
    "check_wrong_mode",
    "error_lines",
]

CONFIG_EXIT = 2
MISSING_LIMIT_S = 180.0
STATES = {"ok", "warn", "fail", "skip"}
LEAST_LOOKED_AT = {"settings", "driver", "CUDA libraries", "onnxruntime", "decoding", "model", "disk", "ports", "clock"}
ABSENT_MODEL = "small.en"
ERROR = re.compile(r"\b(?:ERROR|error)\b")
ENGINES_OWN = re.compile(r'^time="[^"]*" level=')
"""Podman's lines about itself come with the container's."""
PLACE = """
import json, os
from engine.places import model_cache
place = model_cache(os.environ)
print(json.dumps({"path": str(place.path), "reason": place.reason, "is_persistent": place.is_persistent}))
"""
"""Run in the container."""


def error_lines(text: str) -> list[str]:
    """The lines of a log that report an error, without those of the container's engine about itself."""
    return [line for line in text.splitlines() if ERROR.search(line) and not ENGINES_OWN.match(line)]


def _refusal(ended: Ended, named: str, codes: set[int] | None = None) -> str:
    """The one error line; raises CheckFailedError if there is another number of them, or they say too little."""
    legal = f"{sorted(codes)}" if codes else "1 to 124"
    # Beyond 124 it is the container's engine that failed, or a signal.
    check(
        ended.code in codes if codes else 0 < ended.code < 125, f"exit code {ended.code}; legal: {legal}: {ended.tail}"
    )
    check("Traceback" not in ended.text, f"a traceback: {ended.tail}")
    lines = error_lines(ended.text)
    check(len(lines) == 1, f"{len(lines)} error lines instead of one: {ended.tail}")
    check(named in lines[0], f"the error does not name {named!r}: {lines[0]}")
    return f"exit {ended.code}: {lines[0].strip()[:200]}"


def check_wrong_mode(target: Target) -> str:
    """A wrong WHISPER_MODE: exit code 2 and one clear line."""
    ended = target.engine.once(target.image, env={"WHISPER_MODE": "gpu"})
    shown = _refusal(ended, "WHISPER_MODE", {CONFIG_EXIT})
    line = error_lines(ended.text)[0]
    check(all(word in line for word in ("gpu", "pod", "serverless", "lb")), f"value or range is missing: {line}")
    return shown


def check_missing_model(target: Target) -> str:
    """A model that is not there, and no network: a clear error in both programs, no hanging."""
    shown = []
    for mode in ("pod", "serverless"):
        flags = ("--network", "none", *CONFINED)
        # A worker without a queue works its test input, and needs the model for that.
        arguments = ("--test_input", '{"input": {"audio_base64": "UklGRg=="}}') if mode == "serverless" else ()
        settings = {"WHISPER_MODE": mode, "WHISPER_MODEL": ABSENT_MODEL, "WHISPERLIVE_HOST": "127.0.0.1"}
        ended = target.engine.once(target.image, *arguments, flags=flags, env=settings, limit_s=MISSING_LIMIT_S)
        shown.append(f"{mode} {_refusal(ended, ABSENT_MODEL)} ({ended.seconds:.1f} s)")
    return "; ".join(shown)


def check_port_in_use(target: Target) -> str:
    """Somebody else has the port: a clear error."""
    (other,) = free_ports(1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        settings = {"WHISPERLIVE_HOST": "127.0.0.1", "WHISPERLIVE_PORT": str(port), "HEALTH_CHECK_PORT": str(other)}
        return _refusal(target.engine.once(target.image, env=settings), str(port))


def check_doctor(target: Target) -> str:
    """`python -m engine.doctor --json` in the image: exit code 0 and states that are legal."""
    port, health_port = free_ports(2)
    settings = {"WHISPERLIVE_HOST": "127.0.0.1", "WHISPERLIVE_PORT": str(port), "HEALTH_CHECK_PORT": str(health_port)}

    def doctor(*arguments: str, **more: str) -> Ended:
        env: Mapping[str, str] = {**settings, **more}
        return target.engine.once(target.image, "-m", "engine.doctor", *arguments, entrypoint=PYTHON, env=env)

    ended = doctor("--json")
    try:
        report = json.loads(ended.out)
    except ValueError:
        report = None
    check(report, f"exit code {ended.code} and no JSON: {ended.tail}")
    found = report if isinstance(report, list) else report["checks"]
    states = [str(each["state"]) for each in found]
    unseen = LEAST_LOOKED_AT - {str(each["name"]) for each in found}
    check(not unseen, f"it does not look at {', '.join(sorted(unseen))}")
    failed = [each for each in found if each["state"] == "fail"]
    check(set(states) <= STATES, f"states {sorted(set(states))}; legal: {', '.join(sorted(STATES))}")
    check(ended.code == 0 and not failed, f"exit code {ended.code}, failed: {failed}")
    wrong = doctor("--no-such-option")
    check(wrong.code == CONFIG_EXIT and "Traceback" not in wrong.text, f"wrong usage: exit {wrong.code}: {wrong.tail}")
    missing = doctor("--json", WHISPER_MODEL="/nowhere")
    check(missing.code == 1, f"with a model that is not there it ends with {missing.code}, not 1: {missing.tail}")
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("ok", "warn", "skip") if state in states)
    return f"exit 0 ({counts}), 1 with a missing model, 2 with a wrong option; {ended.seconds:.1f} s"


def check_volumes(target: Target) -> str:
    """Volumes that belong to root: the model cache goes to the next place that can be written to."""
    folder = target.engine.work / "volumes"
    places = []
    try:
        for mode in (0o755, 0o777):
            volumes = [folder / f"{mode:o}" / name for name in ("runpod-volume", "workspace")]
            mounts = [word for each in volumes for word in ("-v", f"{_made(each, mode)}:/{each.name}")]
            flags = ("--network", "host", *CONFINED, *mounts)
            ended = target.engine.once(target.image, "-c", PLACE, entrypoint=PYTHON, flags=flags)
            check(ended.code == 0, f"engine.places: {ended.tail}")
            places.append(json.loads(ended.out))
            if mode == 0o755:
                with served(target, flags=flags) as server:
                    server.wait_ready()
        closed, opened = places
        check(not closed["path"].startswith(("/runpod-volume", "/workspace")), f"it chose a closed volume: {closed}")
        check("/runpod-volume" in closed["reason"], f"it does not say why the volume was passed over: {closed}")
        check(opened["path"].startswith("/runpod-volume") and opened["is_persistent"], f"not the open volume: {opened}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return f"closed to us: {closed['path']}; open: {opened['path']}"


def _made(folder: Path, mode: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(mode)
    return folder
