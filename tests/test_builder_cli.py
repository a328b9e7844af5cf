"""The command line as a whole: help, shared options, exit codes, what is imported when."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
import typer

from builder import errors
from builder.cli import build_app, verb
from builder.console import Console
from builder.errors import BuilderError
from builder.redact import HIDDEN, Redactor
from builder.runtime import Runtime
from builder.settings import ROWS, is_placeholder, read_settings
from builder.state import State
from builder.verbs import NOUNS
from tests.builder_harness import Cli, Terminal
from tests.fakes.runpod.clock import PlaneClock

ROOT = Path(__file__).parent.parent
HEAVY = ("requests", "pydantic", "boto3", "runpod", "faster_whisper", "numpy", "engine", "realtime", "handler")


def verbs() -> Iterator[tuple[str, ...]]:
    """Every verb as the words that call it."""
    app = build_app()
    yield from ((str(command.name),) for command in app.registered_commands)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from ((str(group.name), str(command.name)) for command in group.typer_instance.registered_commands)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli({"HOME": str(tmp_path)}, tmp_path, PlaneClock())


@pytest.mark.parametrize("words", list(verbs()), ids=" ".join)
def test_every_verb_explains_itself(words: tuple[str, ...], capsys: pytest.CaptureFixture[str], cli: Cli) -> None:
    assert cli.run(*words, "--help").code == 0
    shown = capsys.readouterr().out
    assert "--json" in shown
    assert "Examples:" in shown
    assert f"python -m builder {' '.join(words)}" in shown


def test_every_verb_the_product_promises_is_there() -> None:
    promised = (
        "setup config doctor gpus plan build push deploy wait status logs start restart stop terminate check-all guard "
        "cost events explain transcribe"
    )
    groups = {
        "test": "health ws e2e long pod quality",
        "spec": "diff",
        "endpoint": "list status scale purge delete",
        "job": "run status stream cancel retry",
        "ec2": "launch wait run logs status stop ssh terminate",
        "hub": "lint",
    }
    expected: set[tuple[str, ...]] = {(word,) for word in promised.split()}
    expected |= {(group, word) for group, words in groups.items() for word in words.split()}
    assert expected <= set(verbs())
    assert all((ROOT / "builder" / "verbs" / f"{noun}.py").is_file() for noun in NOUNS)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from builder.cli import build_app; import typer; typer.main.get_command(build_app()); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "[]", result.stderr


def test_modules_of_verbs_import_nothing_heavy_at_the_top() -> None:
    """Nor anything of the builder that does."""
    light = {f"builder.{name}" for name in ("cli", "runtime", "errors", "settings", "state", "deploy.options")}
    for path in sorted((ROOT / "builder" / "verbs").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("builder"):
                assert node.module in light | {"builder.verbs"}, f"{path.name} imports {node.module}"


@pytest.mark.parametrize(
    "kind",
    [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, BuilderError)],
    ids=lambda kind: kind.__name__,
)
def test_errors_are_in_the_table_of_their_module(kind: type[BuilderError]) -> None:
    if kind is BuilderError:
        assert (kind.code, kind.exit_code) == ("error", 1)
        return
    assert re.search(rf"{kind.__name__}\s+{kind.exit_code}\s+{kind.code}\b", errors.__doc__ or "")


def one_verb(failure: BaseException | None) -> typer.Typer:
    app = typer.Typer()

    def fail(run: Runtime, number: Annotated[int, typer.Option(help="A number.")] = 1) -> None:
        """Fail."""
        if failure is not None:
            raise failure
        run.console.result({"number": number}, lambda: run.console.line(f"number {number}"))

    verb(app, "fail", "fail --number 2")(fail)
    verb(app, "other")(fail)
    return app


def test_an_error_is_a_line_with_a_hint_and_an_exit_code(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    error = errors.BalanceError("the account has $0.02", request_id="r-1", status=402)
    monkeypatch.setattr("builder.cli._command", lambda: typer.main.get_command(one_verb(error)))
    plain = cli.run("fail")
    assert (plain.code, plain.out) == (10, "")
    assert plain.err == f"error: the account has $0.02 (request r-1)\n  {error.hint}\n"
    as_json = cli.run("fail", "--json")
    assert as_json.code == 10
    assert as_json.problem == {
        "error": "the account has $0.02",
        "code": "no_balance",
        "status": 402,
        "request_id": "r-1",
        "hint": error.hint,
    }


def test_an_interrupted_verb_ends_with_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.cli._command", lambda: typer.main.get_command(one_verb(KeyboardInterrupt())))
    assert cli.run("fail").code == 130


def test_results_go_to_stdout_as_text_or_as_one_document(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.cli._command", lambda: typer.main.get_command(one_verb(None)))
    assert cli.run("fail", "--number", "2").out == "number 2\n"
    assert cli.run("fail", "--json").document == {"number": 1}


@pytest.mark.parametrize("argv", [("fail", "--bogus"), ("fail", "--number", "many"), ("nothing",)])
def test_wrong_usage_ends_with_2(
    argv: tuple[str, ...], cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("builder.cli._command", lambda: typer.main.get_command(one_verb(None)))
    outcome = cli.run(*argv)
    assert outcome.code == 2
    shown = outcome.err + capsys.readouterr().err
    assert "Traceback" not in shown
    assert argv[1 if len(argv) > 1 else 0] in shown


def test_wrong_usage_is_an_object_too_with_value_and_range(cli: Cli) -> None:
    outcome = cli.run("gpus", "--min-vram", "0", "--json")
    assert (outcome.code, outcome.out, outcome.problem["code"]) == (2, "", "usage_error")
    assert "--min-vram" in outcome.problem["error"]
    assert outcome.problem["error"].endswith("given: '0'; legal: 1 to 1000")
    assert cli.run("nothing", "--json").problem["code"] == "usage_error"


def test_an_env_file_that_is_named_must_be_there(cli: Cli) -> None:
    outcome = cli.run("gpus", "--env-file", str(cli.folder / "prod.en"))
    assert (outcome.code, outcome.err) == (2, f"error: --env-file: there is no {cli.folder / 'prod.en'}\n")


def test_the_end_of_input_is_no_answer() -> None:
    console = Console(Redactor(), stdin=Terminal(""), stderr=io.StringIO())
    with pytest.raises(errors.InterruptError):
        console.confirm("Go on?", yes=False)


def test_a_bad_setting_ends_with_2_and_names_value_and_range(cli: Cli) -> None:
    cli.environ |= {"RUNPOD_GPU_COUNT": "9", "RUNPOD_API_KEY": "rpa_0123456789abcdef0123"}
    outcome = cli.run("gpus")
    assert outcome.code == 2
    assert outcome.err.splitlines()[0] == "error: RUNPOD_GPU_COUNT: '9' is not allowed; legal: 1 to 8"


@pytest.mark.parametrize("row", [row for row in ROWS if row.high is not None], ids=lambda row: row.env)
def test_bounds_of_settings_hold_at_the_limit_and_one_past_it(row: object) -> None:
    assert isinstance(row, type(ROWS[0]))
    assert row.low is not None and row.high is not None
    for legal in (row.low, row.high):
        assert getattr(read_settings({row.env: f"{legal:g}"}, {}), row.field) == legal
    step = 1 if row.kind == "integer" else 0.001
    for illegal in (row.low - step, row.high + step):
        with pytest.raises(errors.UsageError, match=row.env):
            read_settings({row.env: f"{illegal:.10g}"}, {})
    for nonsense in ("many", "nan", "1e999"):
        with pytest.raises(errors.UsageError, match=row.env):
            read_settings({row.env: nonsense}, {})


def test_the_environment_wins_over_the_file_and_placeholders_count_as_unset() -> None:
    settings = read_settings({"WHISPER_MODEL": "turbo"}, {"WHISPER_MODEL": "base", "DOCKER_TAG": "{{DOCKER_TAG}}"})
    assert (settings.model, settings.docker_tag) == ("turbo", None)
    assert settings.pod_environ == {"WHISPER_MODEL": "turbo"}
    assert is_placeholder(" ") and not is_placeholder("{{ RUNPOD_SECRET_token }}")


def test_secrets_are_hidden_in_every_form() -> None:
    redactor = Redactor()
    redactor.add('p"ss/w rd')
    redactor.add("ab")  # too short to be told from innocent text
    shown = redactor.clean('p"ss/w rd, p%22ss%2Fw%20rd, {"x": "p\\"ss/w rd"}, ab')
    assert shown == f'{HIDDEN}, {HIDDEN}, {{"x": "{HIDDEN}"}}, ab'
    unknown = redactor.clean("rpa_ABCDEFGHIJKLMNOPQRST Bearer abcdefgh https://me:secret@host/?api_key=123456")
    assert not {"ABCDEFGHIJKLMNOPQRST", "abcdefgh", "secret", "123456"} & set(re.findall(r"\w+", unknown))


def test_tables_in_a_pipe_have_no_colours_and_cut_nothing() -> None:
    out = io.StringIO()
    Console(Redactor(), stdout=out).table(["name", "$/h>"], [["x" * 100, 0.5], ["y", None]])
    assert "\x1b" not in out.getvalue()
    assert "x" * 100 in out.getvalue()


def test_json_cannot_smuggle_a_secret_out() -> None:
    redactor, out = Redactor(), io.StringIO()
    redactor.add("canary-value")
    Console(redactor, as_json=True, stdout=out).result({"nested": {"key": "xcanary-valuex"}})
    assert json.loads(out.getvalue()) == {"nested": {"key": f"x{HIDDEN}x"}}


def test_json_stays_json_whatever_is_hidden() -> None:
    redactor, out = Redactor(), io.StringIO()
    for secret in ("status", 'pä"ss-wörd'):
        redactor.add(secret)
    document = {
        "status": "RUNNING",
        "reason": 'say "token=abc" now',
        "text": 'is pä"ss-wörd',
        "ok": True,
        "n": [1, None],
    }
    Console(redactor, as_json=True, stdout=out).result(document)
    shown = json.loads(out.getvalue())
    assert shown["status"] == "RUNNING" and shown["ok"] is True and shown["n"] == [1, None]
    assert (shown["reason"], shown["text"]) == (f'say "token={HIDDEN}" now', f"is {HIDDEN}")


HOSTILE = "A\x1b[31mB\x1b]52;c;aGk=\x07\rC\x9b2J\u202eD\ud800 [/] [red]é"


@pytest.mark.parametrize("as_json", [True, False])
def test_text_of_others_cannot_steer_the_terminal(as_json: bool) -> None:
    out, err = Terminal(), Terminal()
    console = Console(Redactor(), as_json=as_json, stdout=out, stderr=err)
    with console.task(HOSTILE) as task:
        task.update(HOSTILE)
    console.warn(HOSTILE)
    console.error(BuilderError(HOSTILE))
    console.result({"name": HOSTILE}, lambda: console.table(["name"], [[HOSTILE]], title=HOSTILE))
    if not as_json:
        console.line(HOSTILE)
    # Our own colours and the spinner's moves of the cursor are all there is.
    assert not [part for part in PARTS if part in out.getvalue() + err.getvalue()]
    assert "[/] [red]é" in out.getvalue().replace("\n", "")


PARTS = ("\x1b[31mB", "\x1b]52", "\x07", "\rC", "\x9b2J", "\u202e", "\ud800")


def test_a_pipe_without_the_letters_gets_escapes() -> None:
    raw = io.BytesIO()
    pipe = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    Console(Redactor(), stdout=pipe).line("é")
    assert raw.getvalue() == b"\\xe9\n"


def test_questions_nobody_can_answer_are_refused(cli: Cli) -> None:
    console = Console(Redactor(), stdin=io.StringIO(), stderr=io.StringIO())
    with pytest.raises(errors.UsageError, match="Nobody can be asked"):
        console.confirm("Go on?", yes=False)
    console.confirm("Go on?", yes=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_verb_that_is_asked_to_end_ends_as_by_ctrl_c(
    number: signal.Signals, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(number)
    app, cleaned = typer.Typer(), []

    def handler(number: int, frame: object) -> None:
        pass

    def work(run: Runtime) -> None:
        """Work."""
        try:
            os.kill(os.getpid(), number)
            time.sleep(0.2)
        finally:
            cleaned.append(True)

    verb(app, "work")(work)
    verb(app, "other")(work)
    monkeypatch.setattr("builder.cli._command", lambda: typer.main.get_command(app))
    # Whatever happens, it must not end the tests.
    signal.signal(number, handler)
    try:
        assert (cli.run("work").code, cleaned) == (130, [True])
        assert signal.getsignal(number) is handler
        signal.signal(number, signal.SIG_IGN)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        assert cli.run("work").code == 0
    finally:
        signal.signal(number, before)


def test_verbs_that_read_no_settings_hide_secrets_too(cli: Cli) -> None:
    token, password = "canary token 0123456789", "canary-password"
    cli.environ["WHISPER_AUTH_TOKEN"] = token
    (cli.folder / ".env").write_text(f"DOCKER_PASSWORD={password}\nMY_SECRET_ACCESS_KEY=canary-other\n")
    text = f"manifest unknown for {token} {password} canary-other"
    for argv in (("explain", text), ("explain", text, "--json"), ("config", "set", password), ("config", "get", token)):
        outcome = cli.run(*argv)
        assert HIDDEN in outcome.out + outcome.err, argv
        assert "canary" not in outcome.out + outcome.err, argv
    cut = cli.run("explain", "manifest unknown " + "x" * 470 + token)
    assert "canary" not in cut.out


def test_a_file_that_cannot_be_read_stops_only_those_who_need_it(cli: Cli) -> None:
    (cli.folder / ".env").write_text("A='open\n")
    assert cli.run("explain", "manifest unknown").code == 0
    assert cli.run("config", "show").code == 2


def test_secrets_are_hidden_in_the_forms_that_others_write() -> None:
    redactor = Redactor()
    for secret in ("back\\sl'ash", "a/b c&d<e", "two  spaces here"):
        redactor.add(secret)
    forms = (repr("back\\sl'ash")[1:-1], "a%2fb%20c%26d%3ce", "a%2Fb+c%26d%3Ce", "a/b c&amp;d&lt;e", "a\\/b c&d<e")
    for form in (*forms, "two spaces here"):
        assert redactor.clean(f"<{form}>") == f"<{HIDDEN}>"


def test_what_is_hidden_in_json_text_leaves_it_json() -> None:
    text = json.dumps({"a": 'say "token=abc\\" now', "b": "http://u:1", "c": "d@e"})
    assert json.loads(Redactor().clean(text)) == {"a": f'say "token={HIDDEN}" now', "b": "http://u:1", "c": "d@e"}


def test_two_processes_do_not_lose_each_others_pending_names(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from builder.state import State; state = State(Path(sys.argv[1]))\n"
        "for number in range(40):\n"
        "    state.begin_pending(f'{sys.argv[2]}-{number}', 0.0)\n"
        "    if number % 2: state.end_pending(f'{sys.argv[2]}-{number}')\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], cwd=ROOT) for name in ("a", "b")]
    assert [each.wait(60) for each in both] == [0, 0]
    assert set(State(tmp_path).pending()) == {f"{name}-{number}" for name in "ab" for number in range(0, 40, 2)}
