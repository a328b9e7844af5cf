"""A worker whose jobs do what their input says: `python -m tests.handlers.scripted` under the real SDK.

Input keys, in this order: `sleep_s` (on the engine's loop, cancellable), `exits` (raises SystemExit), `ends_loop`
(the engine's loop stops for good), `progress` (a count, one each `every_s`), `segments` (a count, one each
`every_s`), `block_s` (the engine's loop stands still), `fail` (raises), `special` (a value that JSON has no room
for), `big_bytes`, `answer` (returned as it is), else the input's `echo`.
SCRIPT_CHECK=fail makes the model unavailable; SCRIPT_FATAL_S lets the engine end for good after that time.
"""

from __future__ import annotations

import asyncio
import decimal
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from engine.errors import ModelUnavailableError
from engine.logs import configure_logging
from engine.settings import Settings
from handler.bridge import EngineLoop
from handler.safe_json import to_safe
from handler.sdk_shutdown import leave
from handler.worker import serve

SPECIAL: dict[str, Any] = {
    "nan": float("nan"),
    "infinity": float("inf"),
    "decimal": decimal.Decimal("1.5"),
    "float32": np.float32(1.5),
    "array": np.zeros(3),
    "bytes": b"\x00",
    "surrogate": "a\ud800b",
    "set": {1, 2},
    "emoji": "zażółć \U0001f600 \u2028",
}


def _say(line: str) -> None:
    """Not through logging, which holds repeated lines back."""
    print(line, file=sys.stderr, flush=True)


async def run(
    job: Mapping[str, Any],
    *,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
    on_segment: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Do what the job says."""
    script = job["input"]
    if not isinstance(script, dict):
        return {"error": "input: must be an object", "error_code": "bad_input"}
    _say(f"running {job['id']}")
    try:
        await asyncio.sleep(script.get("sleep_s", 0))
        if script.get("exits"):
            sys.exit(3)
        if script.get("ends_loop"):
            asyncio.get_running_loop().stop()
            await asyncio.sleep(60)
        await _tell(script, on_progress, "progress")
        await _tell(script, on_segment, "segments")
    except asyncio.CancelledError:
        _say(f"cancelled {job['id']}")
        raise
    time.sleep(script.get("block_s", 0))  # noqa: ASYNC251 - a runner that blocks its loop is what is tried
    if "fail" in script:
        raise RuntimeError(script["fail"])
    if "special" in script:
        return {"value": SPECIAL[script["special"]]}
    if "big_bytes" in script:
        return {"text": "x" * script["big_bytes"]}
    return dict(script["answer"]) if "answer" in script else {"echo": script.get("echo")}


async def _tell(script: dict[str, Any], tell: Callable[[dict[str, Any]], None] | None, name: str) -> None:
    for number in range(script.get(name, 0)):
        if tell is not None:
            tell({"number": number, "text": script.get("echo")})
        await asyncio.sleep(script.get("every_s", 0))


async def check() -> None:
    """The model is loaded and works, or not."""
    if os.environ.get("SCRIPT_CHECK") == "fail":
        raise ModelUnavailableError("model 'nope' cannot be had")
    await asyncio.sleep(float(os.environ.get("SCRIPT_LOAD_S", "0")))


async def fatal() -> str:
    """The engine ends for good, some time."""
    await asyncio.sleep(float(os.environ.get("SCRIPT_FATAL_S", "3600")))
    return "the engine keeps failing"


def main() -> int:
    """Serve; as `python -m handler` will."""
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    configure_logging("text", settings.log_level)
    with EngineLoop() as loop:
        return serve(run, settings, loop=loop, check=check, to_safe=to_safe, wait_fatal=fatal)


if __name__ == "__main__":
    leave(main())
