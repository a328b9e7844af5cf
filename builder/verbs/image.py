"""Verbs for the image that pods run: build, push."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from builder.cli import verb
from builder.runtime import Runtime


def register(app: typer.Typer) -> None:
    """Add them."""
    verb(app, "build", "build", "build --slim --push", "build --dry-run --json")(build)
    verb(app, "push", "push", "push --save-credential", "push --registry ghcr.io")(push)


def build(
    run: Runtime,
    slim: Annotated[bool, typer.Option("--slim", help="The small variant, from Dockerfile.slim.")] = False,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Build every layer anew.")] = False,
    platform: Annotated[str, typer.Option(help="RunPod's hosts are linux/amd64.")] = "linux/amd64",
    tag: Annotated[str | None, typer.Option(help="Instead of the git commit.", show_default=False)] = None,
    file: Annotated[Path | None, typer.Option(help="Instead of ./Dockerfile.", show_default=False)] = None,
    push_it: Annotated[bool, typer.Option("--push", help="Push it afterwards.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    no_check: Annotated[bool, typer.Option("--no-check", help="Do not try the image.")] = False,
) -> None:
    """Build the image with docker, tagged by the git commit."""
    from builder.errors import UsageError
    from builder.image.build import PLATFORM, build_image, plan_build, push_image

    if platform != PLATFORM:
        raise UsageError(f"--platform {platform[:40]!r} is not allowed; legal: {PLATFORM}", hint="RunPod has no other")
    plan = plan_build(run, slim=slim, no_cache=no_cache, tag=tag, file=file)
    for warning in plan.warnings:
        run.console.warn(warning)
    if dry_run:
        command = ["docker", *plan.command()]
        document = {"would": [command], "images": list(plan.images), "warnings": list(plan.warnings)}
        run.console.result(document, lambda: run.console.line(shlex.join(command)))
        return
    record: dict[str, Any] = {**build_image(run, plan, check=not no_check), "warnings": list(plan.warnings)}
    if push_it:
        record["pushed"] = push_image(run)
    run.console.result(record, lambda: _show_build(run, record))


def push(
    run: Runtime,
    registry: Annotated[str | None, typer.Option(help="Host, if not Docker Hub.", show_default=False)] = None,
    save: Annotated[bool, typer.Option("--save-credential", help="Let RunPod pull it though it is private.")] = False,
) -> None:
    """Push the image that was built last."""
    from builder.image.build import push_image, save_credential

    record = push_image(run, registry=registry)
    if save:
        record["registry_id"] = save_credential(run, registry=registry)

    def show() -> None:
        _show_push(run, record)
        if save:
            run.console.line(f"RunPod's credential {record['registry_id']} is in {run.env_path.name}.")

    run.console.result(record, show)


def _show_build(run: Runtime, record: dict[str, Any]) -> None:
    run.console.line(f"Built {record['image']}, {record['size_bytes'] / 1e9:.2f} GB, in {record['took_s']:.0f} s.")
    if "pushed" in record:
        _show_push(run, record["pushed"])
    else:
        run.console.line("Next: python -m builder push")


def _show_push(run: Runtime, record: dict[str, Any]) -> None:
    run.console.line(f"Pushed {record['image']} ({record['digest'] or 'digest unknown'}).")
    run.console.line("Next: python -m builder deploy")
