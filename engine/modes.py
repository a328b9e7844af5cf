"""In which of its modes the image starts, why, and which settings a mode brings along.

    pod         the live server on WHISPERLIVE_PORT and HEALTH_CHECK_PORT: RunPod pods, any other machine
    serverless  the worker of a RunPod queue endpoint
    lb          the live server on the ports that a RunPod load-balancer endpoint names

Pure: the environment is an argument. Imports nothing heavy, since a container waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.errors import ConfigError

__all__ = ["MODES", "Choice", "check_ports", "choose_mode", "health_port", "mode_variables"]

MODES = {"pod": "realtime", "serverless": "handler", "lb": "realtime"}
"""What runs in each: `python -m ...`."""
ALIASES = {"realtime": "pod", "handler": "serverless"}
"""Names of the seed project's modes."""
VARIABLES = ("WHISPER_MODE", "MODE_TO_RUN")
"""The second is the name in RunPod's guide to workers with two modes."""
QUEUE_MARK, BALANCER_MARK = "RUNPOD_WEBHOOK_GET_JOB", "PORT_HEALTH"
ENDPOINT_MARK = "RUNPOD_ENDPOINT_ID"
"""RunPod sets it for the workers of endpoints, not for pods."""
DEFAULT_BALANCER_PORT = 80
"""RunPod's default of PORT."""
DEFAULT_PORTS = {"WHISPERLIVE_PORT": 9090, "HEALTH_CHECK_PORT": 9999}
MAX_PORT_DIGITS = 5
MAX_SHOWN_CHARS = 80


@dataclass(frozen=True)
class Choice:
    """A mode and, for the log, what decided it."""

    mode: str
    reason: str

    @property
    def module(self) -> str:
        """What runs in this mode: `python -m ...`."""
        return MODES[self.mode]


def choose_mode(environ: Mapping[str, str]) -> Choice:
    """Settle the mode: what is asked for, else what the platform's variables show, else a pod. Raises ConfigError."""
    asked = {name: _mode(name, environ[name]) for name in VARIABLES if environ.get(name, "").strip()}
    if len(set(asked.values())) > 1:
        shown = " and ".join(f"{name}={environ[name].strip()[:MAX_SHOWN_CHARS]}" for name in asked)
        raise ConfigError(f"{shown} contradict each other; legal: one of the two, or the same mode in both")
    for name, mode in asked.items():
        return Choice(mode, f"{name} says so")
    # A queue's worker may see the balancer's variables as well; the other way round it does not happen.
    if environ.get(QUEUE_MARK):
        return Choice("serverless", f"{QUEUE_MARK} is set: the worker of a queue endpoint")
    if environ.get(BALANCER_MARK):
        return Choice("lb", f"{BALANCER_MARK} is set: the worker of a load-balancer endpoint")
    return Choice("pod", f"none of {', '.join((*VARIABLES, QUEUE_MARK, BALANCER_MARK))} is set")


def _mode(name: str, value: str) -> str:
    folded = value.strip().lower()
    mode = ALIASES.get(folded, folded)
    if mode not in MODES:
        raise ConfigError(f"{name}: {value[:MAX_SHOWN_CHARS]!r} is not allowed; legal: {', '.join(MODES)}")
    return mode


def mode_variables(mode: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that `mode` adds to the environment, or changes in it. Raises ConfigError for an illegal port."""
    if mode != "lb":
        return {}
    port = _port("PORT", environ, DEFAULT_BALANCER_PORT)
    ping_port = _port(BALANCER_MARK, environ, port)
    added = {"WHISPERLIVE_PORT": str(port)}
    if ping_port != port:
        # The main port answers /ping as well, and so does the health port: one of them is where RunPod asks.
        added["HEALTH_CHECK_PORT"] = str(ping_port)
    if not environ.get("WHISPERLIVE_HOST"):
        # Loopback would be out of the balancer's reach.
        added["WHISPERLIVE_HOST"] = "0.0.0.0"  # noqa: S104
    secrets = ("WHISPER_AUTH_TOKEN", "WHISPER_AUTH_TOKEN_FILE", "WHISPER_NO_AUTH")
    if environ.get(ENDPOINT_MARK, "").strip() and not any(environ.get(name) for name in secrets):
        # RunPod itself lets nobody through without a key of the account: the Authorization header is checked
        # before a request, or an upgrade to a WebSocket, comes here. A secret of our own counts all the same.
        # Elsewhere (a pod in whose template PORT_HEALTH is left over) nobody asks, and the server refuses to start.
        added["WHISPER_NO_AUTH"] = "1"
    return added


def _port(name: str, environ: Mapping[str, str], default: int) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    port = int(text) if text.isascii() and text.isdecimal() and len(text) <= MAX_PORT_DIGITS else 0
    if not 1 <= port <= 65_535:
        raise ConfigError(f"{name}: {text[:MAX_SHOWN_CHARS]!r} is not allowed; legal: 1 to 65535")
    return port


def check_ports(environ: Mapping[str, str]) -> None:
    """Raise ConfigError if the two ports of the live server are one. What is no port is the server's to say."""
    main, health = (_listened(name, environ) for name in DEFAULT_PORTS)
    if main == health and main not in (None, 0):
        names = " and ".join(DEFAULT_PORTS)
        raise ConfigError(f"{names} are both {main}; legal: two different ports")


def _listened(name: str, environ: Mapping[str, str]) -> int | None:
    text = environ.get(name, "").strip() or str(DEFAULT_PORTS[name])
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MAX_PORT_DIGITS else None


def health_port(environ: Mapping[str, str]) -> int | None:
    """Where /health answers in a container with this environment; None if nowhere. Raises ConfigError."""
    mode = choose_mode(environ).mode
    if MODES[mode] != "realtime":
        return None
    return _listened("HEALTH_CHECK_PORT", {**environ, **mode_variables(mode, environ)})
