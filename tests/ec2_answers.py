"""An EC2 that says what it is told, and a command line whose machine is `tests.sshd_rig`'s."""

from __future__ import annotations

import base64
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from tests.builder_harness import Cli, Outcome
from tests.fakes.runpod.clock import PlaneClock
from tests.sshd_rig import HOST, SshdRig

__all__ = ["AWS_SECRET", "IMAGE", "TOKEN", "Ec2", "ec2_cli", "ec2_verb", "state", "write"]

TOKEN = "t0ken-canary-0123456789"
AWS_SECRET = "aws-canary-secret-0123456789"
IMAGE = "someone/whisper-runpod:v1"
NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"


class Ec2:
    """Answers DescribeInstances and GetConsoleOutput: `states` in order, the last again and again."""

    def __init__(self) -> None:
        self.start_over()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                action = parse_qs(body)["Action"][0]
                outer.asked.append(action)
                status, text = outer.answer(action)
                self.send_response(status)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def start_over(self) -> None:
        """A machine that runs."""
        self.states, self.reason, self.address = ["running"], "", HOST
        self.error: tuple[int, str] | None = None
        self.asked: list[str] = []
        self.console = ""

    def answer(self, action: str) -> tuple[int, str]:
        """Status and body."""
        if self.error is not None:
            status, code = self.error
            error = f"<Errors><Error><Code>{code}</Code><Message>told to</Message></Error></Errors>"
            return status, f"<Response>{error}<RequestID>r-1</RequestID></Response>"
        if action == "GetConsoleOutput":
            text = base64.b64encode(self.console.encode()).decode()
            body = f"<instanceId>i-1</instanceId><output>{text}</output>"
            return 200, f'<GetConsoleOutputResponse xmlns="{NAMESPACE}">{body}</GetConsoleOutputResponse>'
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        reason = f"<stateReason><code>x</code><message>{escape(self.reason)}</message></stateReason>"
        address = f"<ipAddress>{self.address}</ipAddress>" if self.address else ""
        item = f"<instanceId>i-1</instanceId><instanceState><name>{state}</name></instanceState>{reason}{address}"
        inner = f"<reservationSet><item><instancesSet><item>{item}</item></instancesSet></item></reservationSet>"
        return 200, f'<DescribeInstancesResponse xmlns="{NAMESPACE}">{inner}</DescribeInstancesResponse>'

    def close(self) -> None:
        """Listen no more."""
        self.server.shutdown()
        self.server.server_close()


def ec2_cli(folder: Path, rig: SshdRig, ec2: Ec2) -> Cli:
    """The command line beside an ec2.json of `rig`, with AWS at `ec2`."""
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "WHISPER_AUTH_TOKEN": TOKEN,
        "AWS_ACCESS_KEY_ID": "AKIACANARY0123456789",
        "AWS_SECRET_ACCESS_KEY": AWS_SECRET,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ec2.server.server_address[1]}",
        "RUNPOD_API_KEY": "rpa_CANARY0123456789ABCDEF0123456789",
    }
    made = Cli(environ, folder, PlaneClock())
    write(made, "ec2", rig.record())
    return made


def write(cli: Cli, name: str, document: dict[str, Any]) -> None:
    """Put a document into `artifacts`."""
    (cli.folder / "artifacts").mkdir(exist_ok=True)
    (cli.folder / "artifacts" / f"{name}.json").write_text(json.dumps(document))


def state(cli: Cli, name: str) -> Any:
    """A document of `artifacts`; None if there is none."""
    path = cli.folder / "artifacts" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def ec2_verb(cli: Cli, rig: SshdRig, verb: str, *argv: str) -> Outcome:
    """`ec2 VERB`, led to loopback."""
    return cli.run("ec2", verb, "--ssh-config", str(rig.ssh_config), *argv)
