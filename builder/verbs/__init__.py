"""The verbs, one module per noun. Their modules import nothing heavy at the top: the bodies do."""

from __future__ import annotations

from importlib import import_module

import typer

__all__ = ["NOUNS", "register_all"]

NOUNS = (
    "setup",
    "doctor",
    "gpus",
    "image",
    "ec2",
    "deploy",
    "pods",
    "tests",
    "endpoints",
    "jobs",
    "transcribe",
    "money",
    "hub",
    "explain",
    "spec",
)
"""In the order of a first day with it, as `--help` shows them."""


def register_all(app: typer.Typer) -> None:
    """Add every verb to `app`."""
    for noun in NOUNS:
        import_module(f"builder.verbs.{noun}").register(app)
