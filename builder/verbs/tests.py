"""Verbs that test a server: `test health`, `ws`, `e2e`, `long`, `pod`, `quality`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from builder.cli import verb
from builder.runtime import Runtime

if TYPE_CHECKING:
    from builder.checks.checks import Check
    from builder.checks.targets import Target

_Pod = Annotated[str | None, typer.Argument(help="Pod id (default: the one deployed last).", show_default=False)]
_Url = Annotated[str | None, typer.Option("--url", help="Any server instead of a pod: ws://HOST:PORT.")]
_Host = Annotated[str | None, typer.Option("--host", help="Any host instead of a pod, at the usual ports.")]
_Health = Annotated[str | None, typer.Option("--health-url", help="Its health port, as http://HOST:9999.")]
_Token = Annotated[
    Path | None, typer.Option("--token-file", help="File with the secret (default: WHISPER_AUTH_TOKEN).")
]
_Audio = Annotated[Path | None, typer.Option("--audio", help="Recording (default: one that is shipped).")]
_Expect = Annotated[str | None, typer.Option("--expect", help="What is said in it: a text, or a file that holds it.")]
_Language = Annotated[str | None, typer.Option("--language", help="Language spoken, as en (default: detect).")]
_Wer = Annotated[float, typer.Option("--max-wer", min=0.0, max=10.0, help="Most word errors per word.")]
_Fast = Annotated[bool, typer.Option("--fast", help="Send as fast as the server reads, not as speech.")]
_Timeout = Annotated[float, typer.Option("--timeout", min=1.0, max=86_400.0, help="Seconds for a stream.")]


def register(app: typer.Typer) -> None:
    """Add them."""
    group = typer.Typer(no_args_is_help=True, help="Test a pod, or any server, with real speech.")
    verb(group, "health", "test health", "test health --url ws://127.0.0.1:9090 --json")(health)
    verb(group, "ws", "test ws", "test ws abc123xyz --token-file token.txt")(ws)
    verb(group, "e2e", "test e2e", "test e2e --audio talk.mp3 --expect talk.txt --max-wer 0.1 --report out")(e2e)
    verb(group, "long", "test long --minutes 60", "test long --audio lecture.wav --speed 1")(long)
    verb(group, "pod", "test pod", "test pod abc123xyz --quick --json")(pod)
    verb(group, "quality", "test quality --audio talk.wav", "test quality --audio talk.wav --pads 30,10 --yes")(quality)
    app.add_typer(group, name="test")


def health(
    run: Runtime,
    pod: _Pod = None,
    url: _Url = None,
    host: _Host = None,
    health_url: _Health = None,
    token: _Token = None,
) -> None:
    """Ask the health answers: is it up, is it ready, how fast does it answer?"""
    from builder.checks.health import check_health

    target = _target(run, pod, url, host, health_url, token)
    _report("health", target, check_health(target), address=target.health_url).conclude(run.console)


def ws(
    run: Runtime,
    pod: _Pod = None,
    url: _Url = None,
    host: _Host = None,
    health_url: _Health = None,
    token: _Token = None,
) -> None:
    """Speak a greeting over the WebSocket, and try without the secret, which must be refused."""
    target = _target(run, pod, url, host, health_url, token)
    _report("ws", target, _ws_checks(run, target)).conclude(run.console)


def e2e(
    run: Runtime,
    pod: _Pod = None,
    url: _Url = None,
    host: _Host = None,
    health_url: _Health = None,
    token: _Token = None,
    audio: _Audio = None,
    expect: _Expect = None,
    max_wer: _Wer = 0.15,
    language: _Language = None,
    fast: _Fast = False,
    timeout: _Timeout = 900.0,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write e2e.json and e2e.txt to this directory.")
    ] = None,
) -> None:
    """Transcribe a recording and count the wrong words."""
    from builder.checks.live import check_e2e, write_report

    path, text = _recording(run, audio, expect)
    target = _target(run, pod, url, host, health_url, token)
    speed = 0.0 if fast else 1.0
    checks, heard = check_e2e(
        run, target, path, text, max_wer=max_wer, speed=speed, timeout_s=timeout, language=language
    )
    done = _report("e2e", target, checks, audio=str(path))
    if report is not None:
        write_report(run, report, "e2e", done.document(), heard.text)
    done.conclude(run.console)


def long(
    run: Runtime,
    pod: _Pod = None,
    url: _Url = None,
    host: _Host = None,
    health_url: _Health = None,
    token: _Token = None,
    audio: _Audio = None,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.1, max=1440.0, help="Length, if no recording is given.")
    ] = 10.0,
    speed: Annotated[float, typer.Option("--speed", min=0.1, max=100.0, help="Seconds sent per second.")] = 2.0,
    min_coverage: Annotated[
        float, typer.Option("--min-coverage", min=0.0, max=1.0, help="Least share of the recording with text.")
    ] = 0.8,
    language: _Language = None,
) -> None:
    """Stream for long: does text keep coming, is any lost, does the connection hold?"""
    import tempfile

    from builder.checks.long import check_long, judge, repeated_speech

    target = _target(run, pod, url, host, health_url, token)
    with tempfile.TemporaryDirectory(prefix="whisper-long-") as folder:
        path = _existing(run, audio) if audio is not None else Path(folder) / "speech.wav"
        if audio is None:
            repeated_speech(path, minutes)
        with run.console.task("streaming") as task:
            task.update(f"{minutes:g} min of shipped speech" if audio is None else path.name)
            done = check_long(run, target, path, speed=speed, language=language)
    checks, figures = judge(done, min_coverage)
    _report("long", target, checks, **figures).conclude(run.console)


def pod(
    run: Runtime,
    pod: _Pod = None,
    url: _Url = None,
    host: _Host = None,
    health_url: _Health = None,
    token: _Token = None,
    audio: _Audio = None,
    expect: _Expect = None,
    max_wer: _Wer = 0.15,
    quick: Annotated[bool, typer.Option("--quick", help="Health and a greeting only.")] = False,
    fast: _Fast = False,
    timeout: _Timeout = 900.0,
) -> None:
    """Test everything of a pod: state, health, WebSocket, and the words of a recording."""
    from builder.checks.health import check_health
    from builder.checks.live import check_e2e

    path, text = _recording(run, audio, expect)
    target = _target(run, pod, url, host, health_url, token)
    checks = [*_state(run, target), *check_health(target)]
    if all(check.ok for check in checks):
        # Without health a stream would fail for the same reason, after a minute.
        checks += _ws_checks(run, target)
    if not quick and all(check.ok for check in checks):
        speed = 0.0 if fast else 1.0
        checks += check_e2e(run, target, path, text, max_wer=max_wer, speed=speed, timeout_s=timeout)[0]
    _report("pod", target, checks, pod_id=target.pod_id).conclude(run.console)


def quality(
    run: Runtime,
    pod: _Pod = None,
    url: _Url = None,
    host: _Host = None,
    health_url: _Health = None,
    token: _Token = None,
    audio: _Audio = None,
    expect: _Expect = None,
    language: _Language = None,
    speed: Annotated[float, typer.Option("--speed", min=0.1, max=100.0, help="Seconds sent per second.")] = 1.0,
    pads: Annotated[
        str | None, typer.Option("--pads", help="Measure these window settings of the pod, as 30,10: restarts it.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before the restarts.")] = False,
    timeout: _Timeout = 3600.0,
) -> None:
    """Compare live text with file text on one recording, and say what WHISPER_WINDOW_PAD_S should be."""
    from builder.checks.pad_rule import advise, best_pad
    from builder.checks.quality import PadTrial, file_text, measure

    path, text = _recording(run, audio, expect)
    pads_s = _pads(pads)
    target = _target(run, pod, url, host, health_url, token)
    trial = PadTrial(run, target) if pads_s else None
    if trial is not None:
        run.console.confirm(f"This restarts pod {target.pod_id} up to {len(pads_s) + 1} times. Go on?", yes=yes)
    with run.console.task("measuring") as task:
        task.update("the file path")
        by_file = file_text(target, path, language)
        texts = {"file": by_file}

        def once() -> Any:
            task.update("the live path")
            measured, heard = measure(
                run, target, path, text, by_file, speed=speed, timeout_s=timeout, language=language
            )
            texts["live" if measured.pad_s is None or trial is None else f"live at {measured.pad_s:g} s"] = heard
            return measured

        measured = [once()] if trial is None else trial.each(pads_s, once)
        advice = advise(measured[0]) if trial is None else best_pad(measured)
        if trial is not None:
            task.update(
                "leaving the pod with what follows from it" if advice.is_sure else "putting the old setting back"
            )
            trial.finish(advice.pad_s if advice.is_sure else None)
    document = {
        "test": "quality",
        "address": target.ws_url,
        "audio": str(path),
        "measured": [each.document() for each in measured],
        "setting": advice.pad_s,
        "why": advice.why,
        "is_sure": advice.is_sure,
        "is_set": trial is not None and advice.is_sure,
        "texts": texts,
    }
    run.console.result(document, lambda: _show_quality(run, document))


def _show_quality(run: Runtime, document: dict[str, Any]) -> None:
    rows = [
        [_percent(each[name]) if name != "window_pad_s" else each[name] for name in _QUALITY_COLUMNS]
        for each in document["measured"]
    ]
    run.console.table(("window pad s>", "live vs file>", "live>", "file>", "gap>"), rows, title="word error rates")
    setting = "as it is" if document["setting"] is None else f"{document['setting']:g}"
    run.console.line(f"WHISPER_WINDOW_PAD_S: {setting} ({document['why']})")
    if not document["is_sure"]:
        run.console.warn("the recording is too short to decide this, nothing is set: use one with at least 100 words")


_QUALITY_COLUMNS = ("window_pad_s", "wer_live_vs_file", "wer_live", "wer_file", "gap")


def _percent(rate: float | None) -> str | None:
    return None if rate is None else f"{rate:.1%}"


def _pads(text: str | None) -> list[float]:
    from builder.errors import UsageError

    if text is None:
        return []
    try:
        pads_s = [float(part) for part in text.split(",")]
    except ValueError:
        pads_s = []
    if not 2 <= len(set(pads_s)) == len(pads_s) <= 6 or not all(0 <= pad_s <= 30 for pad_s in pads_s):
        raise UsageError(f"--pads {text}: legal: 2 to 6 different numbers from 0 to 30, by commas")
    return pads_s


def _ws_checks(run: Runtime, target: Target) -> list[Check]:
    from builder.checks.live import check_secret, check_speech

    return [check_speech(run, target), *check_secret(run, target)]


def _state(run: Runtime, target: Target) -> list[Check]:
    from builder.checks.checks import Check

    if target.pod_id is None:
        return []
    found = run.api.get_pod(target.pod_id)
    figures = {"cost_per_hour": found.cost}
    return [Check("state", found.status == "RUNNING", f"{found.status}, ${found.cost:.2f}/h", figures)]


def _recording(run: Runtime, audio: Path | None, expect: str | None) -> tuple[Path, str | None]:
    from builder.checks.checks import expected_text
    from builder.checks.listen import sample

    text = None if expect is None else expected_text(expect)
    if audio is None:
        path, said = sample()
        return path, said if text is None else text
    return _existing(run, audio), text


def _existing(run: Runtime, audio: Path) -> Path:
    from builder.errors import UsageError

    path = run.folder / audio
    if not path.is_file():
        raise UsageError(f"--audio {audio}: no such file")
    return path


def _target(
    run: Runtime, pod: str | None, url: str | None, host: str | None, health_url: str | None, token: Path | None
) -> Target:
    from builder.checks.targets import choose_target

    return choose_target(run, pod, url=url, host=host, health_url=health_url, token_file=token)


def _report(test: str, target: Target, checks: list[Check], address: str | None = None, **details: Any) -> Any:
    from builder.checks.checks import Report

    hint = None if target.pod_id else "see what the server logs"
    return Report(test, address or target.ws_url, tuple(checks), details, hint)
