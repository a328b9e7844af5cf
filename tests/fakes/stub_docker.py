"""A `docker` that does nothing but behave: writes down how it was called, answers as the real client does.

`StubDocker(folder)` puts it into `folder/bin`; `fail(verb, text)` scripts failures; `calls` tells what came.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

__all__ = ["DIGEST", "IMAGE_ID", "StubDocker"]

IMAGE_ID = "sha256:" + "1" * 64
DIGEST = "sha256:" + "a" * 64
SCRIPT = r"""#!{python} -IS
import json, os, pathlib, sys
folder = pathlib.Path({folder!r})
argv = sys.argv[1:]
verb = "inspect" if argv[:2] == ["image", "inspect"] else argv[0]
stdin = sys.stdin.read() if "--password-stdin" in argv else ""
config = os.environ.get("DOCKER_CONFIG")
call = {{"argv": argv, "verb": verb, "stdin_chars": len(stdin), "environ": sorted(os.environ), "config": config}}
call["environ_text"] = "\n".join(os.environ.values())
if verb == "login" and config:
    (pathlib.Path(config) / "logged-in").write_text("yes")
if config:
    call["logged_in"] = (pathlib.Path(config) / "logged-in").exists()
with (folder / "calls.jsonl").open("a") as file:
    file.write(json.dumps(call) + "\n")
failures = json.loads((folder / "failures.json").read_text())
if verb in failures:
    print(failures[verb], file=sys.stderr)
    sys.exit(1)
if verb == "version":
    print("28.2.2 28.2.2" if "Server" in argv[-1] else "28.2.2")
elif verb == "info":
    print(folder)
elif verb == "build":
    print("#1 building")
    print("#2 exporting")
elif verb == "inspect":
    entry = {{"Id": {image_id!r}, "Size": 3400000000, "Architecture": {architecture!r}, "RepoDigests": []}}
    print(json.dumps([entry]))
elif verb == "push":
    print("The push refers to repository [" + argv[-1] + "]")
    print("tag: digest: {digest} size: 1234")
"""


class StubDocker:
    """The script, its log and its failures."""

    def __init__(self, folder: Path, *, architecture: str = "amd64") -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        script = self.bin / "docker"
        values = {"python": sys.executable, "folder": str(folder), "image_id": IMAGE_ID, "digest": DIGEST}
        script.write_text(SCRIPT.format(**values, architecture=architecture), encoding="utf-8")
        script.chmod(0o755)
        self.fail()

    @property
    def environ(self) -> dict[str, str]:
        """An environment in which it is the docker client, and the machine's git is there."""
        return {"PATH": f"{self.bin}:{os.defpath}", "HOME": str(self.folder)}

    def fail(self, **verbs: str) -> None:
        """From now on these verbs exit with 1 after saying this; all others work."""
        (self.folder / "failures.json").write_text(json.dumps(verbs), encoding="utf-8")

    @property
    def log(self) -> str:
        """Everything that was written down, as text."""
        path = self.folder / "calls.jsonl"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The calls, oldest first."""
        return [json.loads(line) for line in self.log.splitlines()]

    @property
    def verbs(self) -> list[str]:
        """Their verbs."""
        return [call["verb"] for call in self.calls]
