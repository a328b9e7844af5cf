"""`test ws` and `test e2e`: does the server turn live speech into the right text, and only for those who may?"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from builder.checks.checks import Check, compare
from builder.checks.listen import EXIT_UNAUTHORIZED, GREETING, LiveResult, listen, sample

if TYPE_CHECKING:
    from builder.checks.targets import Target
    from builder.runtime import Runtime

__all__ = ["check_e2e", "check_secret", "check_speech", "write_report"]

CONNECT_LIMIT_S = 60.0
"""For a stream of a few seconds, with a model that works."""
TOO_MANY_FAILURES = "HTTP 429"
"""What a server answers who has refused wrong secrets too often: a refusal, too."""


def check_speech(run: Runtime, target: Target) -> Check:
    """A greeting at the speed of speech: does text come, and how soon? Raises UsageError."""
    audio, _ = sample(GREETING)
    heard = listen(run, target.ws_url, audio, token=target.token, speed=1.0, timeout_s=CONNECT_LIMIT_S)
    first_s = heard.first_text_s
    figures = {
        "first_text_s": None if first_s is None else round(first_s, 2),
        "duration_s": round(heard.duration_s, 2),
        "text": heard.text,
    }
    if heard.code:
        return Check("speech", False, heard.complaint, figures)
    if first_s is None or not heard.text:
        return Check("speech", False, "no text came for a greeting", figures)
    return Check("speech", True, f"{heard.text!r}, first text {first_s:.1f} s after the first sound", figures)


def check_secret(run: Runtime, target: Target) -> list[Check]:
    """Are those without the secret, and with a wrong one, refused? One check that says so where none is set."""
    if target.token is None:
        return [
            Check(
                "secret",
                True,
                "none is shown here: if it asks for none, whoever knows the address may stream",
                {"is_set": False},
            )
        ]
    return [
        _refused(run, target, "without the secret", None),
        _refused(run, target, "with a wrong secret", secrets.token_urlsafe(24)),
    ]


def _refused(run: Runtime, target: Target, name: str, token: str | None) -> Check:
    audio, _ = sample(GREETING)
    heard = listen(run, target.ws_url, audio, token=token, speed=0.0, timeout_s=CONNECT_LIMIT_S)
    if heard.code == EXIT_UNAUTHORIZED or TOO_MANY_FAILURES in heard.complaint:
        return Check(name, True, "refused")
    if heard.code == 0:
        return Check(name, False, "the server takes it: set WHISPER_AUTH_TOKEN in the pod")
    return Check(name, False, f"not refused as it should be: {heard.complaint}")


def check_e2e(
    run: Runtime,
    target: Target,
    audio: Path,
    expect: str | None,
    *,
    max_wer: float,
    speed: float,
    timeout_s: float,
    language: str | None = None,
) -> tuple[list[Check], LiveResult]:
    """A recording, and the share of wrong words in its text; `expect` None: any text will do. Raises UsageError."""
    heard = listen(run, target.ws_url, audio, token=target.token, speed=speed, timeout_s=timeout_s, language=language)
    told = f"{len(heard.text.split())} words of {heard.audio_s:.1f} s in {heard.duration_s:.1f} s"
    figures = {"audio_s": heard.audio_s, "duration_s": round(heard.duration_s, 2), "text": heard.text}
    if heard.code:
        return [Check("transcript", False, heard.complaint, figures)], heard
    checks = [Check("transcript", bool(heard.text), told if heard.text else "no text came", figures)]
    if expect is not None:
        checks.append(_words(expect, heard.text, max_wer))
    return checks, heard


def _words(expect: str, text: str, max_wer: float) -> Check:
    errors = compare(expect, text)
    detail = f"{errors.rate:.1%} of {errors.reference_words} words wrong (limit {max_wer:.1%})"
    figures = {
        "wer": round(errors.rate, 4),
        "max_wer": max_wer,
        "substitutions": errors.substitutions,
        "deletions": errors.deletions,
        "insertions": errors.insertions,
    }
    return Check("word error rate", errors.rate <= max_wer, detail, figures)


def write_report(run: Runtime, folder: Path, name: str, document: object, text: str) -> None:
    """`NAME.json` and `NAME.txt` in `folder`, readable by their owner. Raises DiskFullError, BuilderError."""
    import json

    from builder.state import write_private

    written = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    write_private(folder / f"{name}.json", run.redactor.clean(written))
    write_private(folder / f"{name}.txt", text + "\n")
