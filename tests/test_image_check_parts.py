"""The pure parts of tools/image_checks: what they make of an engine's answers, of paths, of logs."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from tools.image_checks.building import default_base, prepared
from tools.image_checks.cli import NAMES, main, remove_ours
from tools.image_checks.commands import ROOT, CheckFailedError, check, ran, until
from tools.image_checks.faults import error_lines
from tools.image_checks.layers import read_layer
from tools.image_checks.scan import KEY_PATTERNS, key_names, unwanted_files
from tools.image_checks.sizes import GB, OTHERS, WEIGHTS, Size, check_size, group_of, parts, read_layers
from tools.image_checks.starts import LEFT_OUT, Start, Starts, check_start, start_parts

PACKAGES = "/opt/venv/lib/python3.12/site-packages"


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.slim"])
def test_the_base_is_read_from_the_dockerfiles(name: str) -> None:
    assert default_base((ROOT / name).read_text(encoding="utf-8")).startswith("python:3.")


def test_a_dockerfile_without_a_base_argument_is_refused() -> None:
    with pytest.raises(CheckFailedError, match="ARG BASE_IMAGE"):
        default_base("FROM debian\n")


def test_what_was_configured_from_outside_stays(tmp_path_factory: pytest.TempPathFactory) -> None:
    work = tmp_path_factory.mktemp("work")
    environ = prepared("podman", work, {"CONTAINERS_CONF": "/mine.conf", "HOME": "/x"})
    assert environ["CONTAINERS_CONF"] == "/mine.conf" and environ["HOME"] == "/x"
    assert environ["CONTAINERS_STORAGE_CONF"] == str(work / "storage.conf")
    assert str(work) in (work / "storage.conf").read_text() and not (work / "containers.conf").exists()
    assert prepared("docker", work, {"A": "b"}) == {"A": "b"}


@pytest.mark.parametrize(
    ("path", "group"),
    [
        (f"{PACKAGES}/nvidia/cublas/lib/libcublas.so.12", "nvidia/cublas"),
        (f"{PACKAGES}/nvidia_cublas_cu12-12.9.1.dist-info/RECORD", "nvidia/cublas"),
        (f"{PACKAGES}/ctranslate2.libs/libgomp.so", "ctranslate2"),
        (f"{PACKAGES}/av-15.1.0.dist-info/METADATA", "av"),
        (f"{PACKAGES}/_cffi_backend.cpython-312-x86_64-linux-gnu.so", "_cffi_backend"),
        ("/app/models/small.en/model.bin", WEIGHTS),
        ("/app/engine/demo_model/model/model.bin", "demo model"),
        ("/app/realtime/server.py", "our code"),
        ("/usr/local/lib/python3.12/json/__init__.py", "the interpreter"),
        ("/usr/lib/x86_64-linux-gnu/libc.so.6", "Debian"),
    ],
)
def test_every_file_belongs_to_something(path: str, group: str) -> None:
    assert group_of(path) == group


def test_parts_add_up_and_weights_do_not_count_against_the_limit() -> None:
    files = [("/app/models/m/model.bin", 3 * GB), ("/usr/bin/sh", GB), (f"{PACKAGES}/small/a.py", 10)]
    found = parts(files)
    assert found == [(WEIGHTS, 3 * GB), ("Debian", GB), (OTHERS, 10)]
    size = Size(4 * GB + 10, [], found)
    assert "1.00 GB of at most 2.0 GB" in check_size(size, 2 * GB)
    with pytest.raises(CheckFailedError, match="at most"):
        check_size(size, GB)


def test_layers_of_both_engines() -> None:
    podman = json.dumps([{"CreatedBy": "last", "size": 5}, {"CreatedBy": "none", "size": 0}])
    docker = '{"CreatedBy":"last","Size":"5"}\n{"CreatedBy":"first","Size":"7"}\n'
    assert [(layer.size_bytes, layer.made_by) for layer in read_layers(podman)] == [(5, "last")]
    assert [(layer.size_bytes, layer.made_by) for layer in read_layers(docker)] == [(7, "first"), (5, "last")]


def test_unwanted_files() -> None:
    bad = [
        "/usr/bin/gcc",
        "/opt/venv/bin/pip",
        "/app/.env",
        "/app/x/prod.env",
        "/root/.cache/pip/a",
        "/etc/pip.conf",
        "/app/tests/test_a.py",
        "/var/lib/apt/lists/some.host_x",
    ]
    good = [
        "/usr/bin/sh",
        "/usr/local/bin/pip",
        "/app/engine/logs.py",
        "/var/lib/apt/lists/partial",
        "/app/entrypoint.py",
    ]
    assert unwanted_files([*bad, *good], ["/usr/local/bin/pip"]) == bad


def test_key_like_strings() -> None:
    # Put together here, or a scan of this repository would find them.
    assert key_names("x " + "AKIA" + "A" * 16) == ["AWS key"]
    assert key_names("hf_" + "a1" * 17) == ["Hugging Face token"]
    assert key_names("ARG WHISPER_AUTH_TOKEN=abc") == ["WHISPER_AUTH_TOKEN="]
    assert key_names("-----BEGIN RSA " + "PRIVATE KEY-----") == ["private key"]
    assert key_names("PATH=/opt/venv/bin ARG HF_TOKEN ENV A_TOKEN= https://huggingface.co/a:b") == []


def test_the_container_engines_own_lines_are_no_errors_of_the_image() -> None:
    log = 'time="2026-01-01T00:00:00Z" level=error msg="no systemd"\n11:00:00 INFO x: fine\n11:00:01 ERROR x: port 1\n'
    assert error_lines(log) == ["11:00:01 ERROR x: port 1"]


def test_the_parts_of_a_start() -> None:
    log = 'INFO entrypoint: entrypoint {"interpreter_ms": 9}\nINFO realtime: start {"imports_ms": 300, "total_ms": 700}'
    assert start_parts(log, 0.9) == {"container": 200, "imports": 300}
    with pytest.raises(CheckFailedError, match="start"):
        start_parts("nothing", 1.0)


def test_a_slower_start_than_the_peers_fails() -> None:
    ours = [Start(1.0, 1.2, {"imports": 300})]
    assert "not compared: left out" in check_start(Starts(ours, [], LEFT_OUT))
    with pytest.raises(CheckFailedError, match="not compared: not installed"):
        check_start(Starts(ours, [], "not installed"))
    assert "first text 1.30 s" in check_start(Starts(ours, [1.3], ""))
    with pytest.raises(CheckFailedError, match="sooner"):
        check_start(Starts(ours, [1.1], ""))


def test_commands_that_hang_or_are_not_there() -> None:
    assert ran(["sh", "-c", "cat; exit 3"], given="in").code == 3
    with pytest.raises(CheckFailedError, match=r"longer than 0\.2 s; it said: here"):
        ran(["sh", "-c", "echo here; exec sleep 5"], limit_s=0.2)
    with pytest.raises(CheckFailedError, match="no such command"):
        ran(["/no/such"])
    check(True, "never")


def test_what_a_command_has_started_ends_with_it(tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! >{tmp_path}/pid; wait"
    with pytest.raises(CheckFailedError, match="took longer"):
        ran(["sh", "-c", script], limit_s=0.3)
    stat = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    until(lambda: not stat.exists() or ") Z " in stat.read_text(), "the end of sleep", 5.0)


def test_a_layer_shows_what_a_later_one_deletes() -> None:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as layer:
        for name, data in {
            "etc/pip.conf": b"hf_" + b"a1" * 17,
            "etc/.wh.other": b"",
            "usr/a": b"hf_" + b"a1" * 17,
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            layer.addfile(member, io.BytesIO(data))
    with tarfile.open(fileobj=io.BytesIO(written.getvalue()), mode="r|*") as layer:
        assert list(read_layer(layer, KEY_PATTERNS, ("/etc/",))) == [
            ("/etc/pip.conf", ["Hugging Face token"]),
            ("/usr/a", []),
        ]


def test_a_part_that_nobody_explains_fails() -> None:
    with pytest.raises(CheckFailedError, match="what it is for: torch"):
        check_size(Size(GB, [], [("torch", GB)]), 2 * GB)


def test_wiping_removes_only_what_is_ours(tmp_path: Path) -> None:
    for name in ("graph/a", "storage.conf", "mine/b", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    remove_ours(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "notes.txt"]


@pytest.mark.parametrize("words", [["--short", "--image", "full"], ["--json", "/no/such/folder/a.json"]])
def test_what_cannot_be_done_is_refused_before_anything_is_built(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", "nothing"])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and all(name in told for name in NAMES)
