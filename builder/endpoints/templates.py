"""Templates of endpoints that are gone: finding and removing them. They cost nothing, but nobody else removes them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from builder.deploy.create import LOOKS_S
from builder.deploy.pod_spec import BUILDER_ID
from builder.endpoints.chosen import plain_name
from builder.errors import BadRequestError, ConflictError, NotFoundError, ServerFaultError

if TYPE_CHECKING:
    from builder.api.models_serverless import Template
    from builder.runtime import Runtime

__all__ = ["leftover_templates", "named_templates", "remove_template"]

IN_USE = (BadRequestError, ConflictError, ServerFaultError)
"""Refusals of a template whose endpoint is gone for everybody but RunPod's templates: they pass."""


def remove_template(run: Runtime, template_id: str) -> None:
    """Remove a template whose endpoint was just deleted; RunPod may still hold it in use for some seconds.

    Raises what the API raises.
    """
    for pause_s in (*LOOKS_S, None):
        try:
            run.api.delete_template(template_id)
            break
        except IN_USE:
            if pause_s is None:
                raise
            run.clock.sleep(pause_s)
    run.state.event(run.clock.unix_s(), "deleted", "template", template_id)


def named_templates(run: Runtime, given: str) -> list[Template]:
    """Templates of ours with this name or id, whose endpoint is gone. Raises NotFoundError, ConflictError."""
    begun = run.state.pending("pending-templates")
    found = [
        each
        for each in run.api.templates()
        if given in (each.id, each.name) and not each.public and (BUILDER_ID in each.env or each.name in begun)
    ]
    if not found:
        raise NotFoundError(
            f"there is no endpoint {given}, and no template of ours", hint="see: python -m builder check-all"
        )
    user = next((each for each in run.api.endpoints() if plain_name(each.name) == found[0].name), None)
    if user is not None:
        raise ConflictError(
            f"template {given} is that of endpoint {user.id}, and goes with it",
            hint=f"end both: python -m builder endpoint delete {user.id}",
        )
    return found


def leftover_templates(run: Runtime, without: Collection[str]) -> list[Template]:
    """Templates that a builder made for endpoints, but those of these names."""
    found = run.api.templates()
    return [each for each in found if BUILDER_ID in each.env and not each.public and each.name not in without]
