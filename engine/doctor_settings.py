"""The doctor's looks at mode, settings, the clients' secret and the ports."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Mapping

from engine.doctor_check import Check
from engine.errors import ConfigError
from engine.healthcheck import ask_health
from engine.modes import check_ports, choose_mode, mode_variables
from engine.settings import Settings, load_settings, unknown_variables

__all__ = ["look_at_ports", "look_at_settings"]

FIRST_FREE_PORT = 1024
HEALTH_LIMIT_S = 3.0


def look_at_settings(environ: Mapping[str, str]) -> Iterator[Check]:
    """Mode, then the settings by their own rules, then the secret."""
    try:
        choice = choose_mode(environ)
        mode_variables(choice.mode, environ)
    except ConfigError as error:
        yield Check("mode", "fail", str(error), "correct that variable")
        return
    yield Check("mode", "ok", f"{choice.mode}: {choice.reason}")
    try:
        settings = load_settings({"no_auth": True})
    except ConfigError as error:
        yield Check("settings", "fail", str(error), "correct that variable")
        return
    for warning in unknown_variables(environ):
        yield Check("settings", "warn", warning, "remove it, or correct its name")
    yield Check("settings", "ok", f"valid; model {settings.effective_model}, device {settings.device}")
    if choice.mode == "serverless":
        yield Check("secret", "skip", "the worker listens nowhere")
    else:
        yield _secret(settings)


def _secret(settings: Settings) -> Check:
    try:
        secured = load_settings()
    except ConfigError as error:
        # Outside of RunPod an image is looked at before it is given its secret.
        return Check("secret", "fail" if settings.in_pod else "warn", str(error), "set WHISPER_AUTH_TOKEN")
    if secured.auth_token:
        return Check("secret", "ok", "clients must show it")
    if secured.is_loopback:
        return Check("secret", "ok", f"none; only this machine can connect ({secured.effective_host})")
    return Check("secret", "warn", "none, and everybody can connect", "set WHISPER_AUTH_TOKEN, unless a proxy asks")


def look_at_ports(environ: Mapping[str, str]) -> Iterator[Check]:
    """Whether the server could listen, or does already."""
    try:
        mode = choose_mode(environ).mode
        settings = load_settings({"no_auth": True})
        if mode != "serverless":
            check_ports(environ)
    except ConfigError as error:
        yield Check("ports", "fail", str(error), "correct that variable")
        return
    if mode == "serverless":
        yield Check("ports", "skip", "the worker listens nowhere")
        return
    for name, port in (("WHISPERLIVE_PORT", settings.port), ("HEALTH_CHECK_PORT", settings.health_port)):
        yield _port(name, settings.effective_host, port, settings.health_port)


def _port(name: str, host: str, port: int, health_port: int) -> Check:
    error = bind_error(host, port)
    if error is None:
        return Check("ports", "ok", f"{name}: {port} is free" if port else f"{name}: any free one")
    if error.errno == errno.EADDRINUSE:
        if ask_health(health_port, HEALTH_LIMIT_S, host)[0]:
            return Check("ports", "ok", f"{name}: {port} is in use, and the server here answers /health")
        return Check("ports", "fail", f"{name}: {port} is in use by another program", f"set {name} to a free port")
    says = f"{name}: {port} at {host} cannot be listened on ({error.strerror or error})"
    if error.errno == errno.EACCES and port < FIRST_FREE_PORT and os.getuid() != 0:
        return Check("ports", "fail", says, "set it to 1024 or above, or allow low ports to this user")
    return Check("ports", "fail", says, f"set {name} or WHISPERLIVE_HOST to what this machine has")


def bind_error(host: str, port: int) -> OSError | None:
    """Why one cannot listen there; None if one can."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            # As servers do: what is left of closed connections is not in the way.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1)
    except OSError as error:
        return error
    return None
