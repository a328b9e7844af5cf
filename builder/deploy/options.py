"""What the user can ask of `deploy` and `plan`: one field per option; None: as the settings say. Pure."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_TIMEOUT_S", "Wishes", "comma_list"]

DEFAULT_TIMEOUT_S = 600.0
"""How long `deploy` waits: pulling a large image on a slow host takes minutes."""


@dataclass(frozen=True)
class Wishes:
    """The options. Money in $/h, disks in GB, limits in minutes, `timeout` in seconds."""

    image: str | None = None
    gpu: str | None = None
    cloud: str | None = None
    data_center: str | None = None
    disk: int | None = None
    volume: int | None = None
    network_volume: str | None = None
    name: str | None = None
    spot: bool | None = None
    bid: float | None = None
    max_price: float | None = None
    max_minutes: int | None = None
    idle_stop: int | None = None
    terminate_after: int | None = None
    secret: str | None = None
    no_auth: bool = False
    extra: tuple[str, ...] = ()
    require_validated: bool = False
    reuse: bool = False
    replace: bool = False
    dry_run: bool = False
    yes: bool = False
    wait: bool = True
    timeout: float = DEFAULT_TIMEOUT_S
    keep: bool = False


def comma_list(text: str | None) -> tuple[str, ...]:
    """The parts of an option like `4090,a5000`; none of None."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())
