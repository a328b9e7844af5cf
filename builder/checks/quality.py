"""`test quality`: the live path against the file path of the same server, and the window setting that follows.

`measure` streams a recording and uploads it; `PadTrial` changes WHISPER_WINDOW_PAD_S of a pod, and puts it back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from builder.checks.checks import compare
from builder.checks.health import window_pad_s
from builder.checks.listen import listen
from builder.checks.pad_rule import Measured
from builder.errors import CheckFailedError, ConflictError, InterruptError, NetworkError, NotFoundError

if TYPE_CHECKING:
    from builder.checks.targets import Target
    from builder.runtime import Runtime

__all__ = ["PadTrial", "file_text", "measure"]

VARIABLE = "WHISPER_WINDOW_PAD_S"
UPLOAD_LIMIT_S = 110.0
"""RunPod's proxy cuts an answer that has not begun after 100 s."""
RESTART_LIMIT_S = 900.0
NEW_SETTING_LIMIT_S = 300.0
"""From the restart until the server tells the new setting."""
LOOK_EVERY_S = 3.0


def file_text(target: Target, audio: Path, language: str | None) -> str:
    """The recording's text by `POST /v1/audio/transcriptions`. Raises CheckFailedError, NetworkError."""
    from builder.api.http import post_file

    fields = {"model": "whisper-1", "response_format": "verbose_json"}
    if language is not None:
        fields["language"] = language
    url = f"{target.http_url}/v1/audio/transcriptions"
    answer = post_file(url, audio, fields, timeout_s=UPLOAD_LIMIT_S, headers=target.headers)
    body = answer.body if isinstance(answer.body, dict) else {}
    if answer.status == 200 and isinstance(body.get("text"), str):
        return str(body["text"])
    error = body.get("error")
    said = error.get("message") if isinstance(error, dict) else "no answer of this server"
    hint = "the proxy waits 100 s for an answer: use a shorter recording" if answer.status in (502, 524) else None
    raise CheckFailedError(f"the file path answered HTTP {answer.status}: {said}", hint=hint)


def measure(
    run: Runtime,
    target: Target,
    audio: Path,
    expect: str | None,
    by_file: str,
    *,
    speed: float,
    timeout_s: float,
    language: str | None,
) -> tuple[Measured, str]:
    """Stream the recording and compare; with the text that came. Raises CheckFailedError, UsageError, NetworkError."""
    heard = listen(
        run, target.ws_url, audio, token=target.token, speed=speed, timeout_s=timeout_s, language=language
    ).check()
    between = compare(by_file, heard.text)
    pad_s = window_pad_s(target)
    if expect is None:
        return Measured(pad_s, between.reference_words, between.rate), heard.text
    live, file = compare(expect, heard.text), compare(expect, by_file)
    return Measured(pad_s, live.reference_words, between.rate, live.rate, file.rate), heard.text


class PadTrial:
    """One pod's WHISPER_WINDOW_PAD_S: changed by the API, in force after a restart."""

    def __init__(self, run: Runtime, target: Target) -> None:
        """Raises NotFoundError without a pod, and what the API raises."""
        if target.pod_id is None:
            raise NotFoundError("--pads changes a pod's settings, and this is no pod", hint="name the pod")
        self._run = run
        self._target = target
        self._pod_id = target.pod_id
        self._environ = dict(run.api.get_pod(target.pod_id).env)
        self._original = self._environ.get(VARIABLE)
        self._present = self._original

    def each(self, pads_s: Sequence[float], measure_one: Callable[[], Measured]) -> list[Measured]:
        """Measure with every setting in turn. Whatever ends it early, the old setting is put back first.

        Raises InterruptError for Ctrl-C, WaitTimeoutError, PodFailedError, CheckFailedError, and what the API raises.
        """
        measured = []
        try:
            for pad_s in pads_s:
                self.set(f"{pad_s:g}")
                measured.append(measure_one())
        except BaseException as error:
            self._put_back()
            if isinstance(error, KeyboardInterrupt):
                raise InterruptError(f"interrupted; {self._told()}", hint="") from None
            raise
        return measured

    def finish(self, pad_s: float | None) -> None:
        """Leave the pod with this setting, or (None) with its old one. Raises as `each`."""
        try:
            if pad_s is not None:
                self.set(f"{pad_s:g}")
            elif self._present != self._original:
                self._change(self._original)
                self._restart()
        except KeyboardInterrupt:
            raise InterruptError(f"interrupted; {self._told()}", hint="") from None

    def set(self, value: str) -> None:
        """Change the setting, restart, wait until the server tells it. Raises as `each`."""
        if self._is_told(value):
            return
        from builder.pods.wait import wait_for_pod

        clock = self._run.clock
        asked_s = clock.unix_s()
        self._change(value)
        self._restart()
        wait_for_pod(self._run, self._pod_id, until="ready", timeout_s=RESTART_LIMIT_S, since_s=asked_s)
        deadline_s = clock.monotonic_s() + NEW_SETTING_LIMIT_S
        # For a moment the old process still answers.
        while not self._is_told(value):
            if clock.monotonic_s() >= deadline_s:
                raise CheckFailedError(f"the pod was restarted and still does not pad windows to {value} s")
            clock.sleep(LOOK_EVERY_S)

    def _is_told(self, value: str) -> bool:
        with contextlib.suppress(NetworkError):
            pad_s = window_pad_s(self._target)
            return pad_s is not None and abs(pad_s - float(value)) < 0.01
        return False

    def _change(self, value: str | None) -> None:
        environ = {name: text for name, text in self._environ.items() if name != VARIABLE}
        if value is not None:
            environ[VARIABLE] = value
        # The API replaces the whole environment.
        self._run.api.update_pod(self._pod_id, {"env": environ})
        self._present = value

    def _restart(self) -> None:
        # A pod that the change itself has restarted already refuses.
        with contextlib.suppress(ConflictError):
            self._run.api.act(self._pod_id, "restart")

    def _put_back(self) -> None:
        if self._present == self._original:
            return
        self._run.console.warn("putting the old window setting back")
        try:
            self._change(self._original)
            self._restart()
        except Exception as error:
            # What ended the trial is what the user has to read; this is said besides.
            self._run.console.warn(f"the old setting could not be put back: {error}")

    def _told(self) -> str:
        if self._present == self._original:
            return "the pod has its old window setting"
        return f"the pod still has {VARIABLE}={self._present}"
