"""What an account has beside pods: registry credentials, network volumes, endpoints, templates, SSH keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Account", "StoredRegistry", "StoredSecret", "Volume"]


@dataclass(frozen=True)
class StoredRegistry:
    """A credential for private images; its secret never leaves."""

    id: str
    name: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class StoredSecret:
    """What `{{ RUNPOD_SECRET_name }}` in a pod's environment stands for; its value never leaves."""

    id: str
    name: str
    value: str = field(repr=False)


@dataclass(frozen=True)
class Volume:
    """A network volume; `size` in GB."""

    id: str
    name: str
    size: int
    data_center: str
    type: str = "STANDARD"


@dataclass
class Account:
    """By id, secrets by name; `endpoints` and `templates` hold the API's JSON, given by tests."""

    registries: dict[str, StoredRegistry] = field(default_factory=dict)
    secrets: dict[str, StoredSecret] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    endpoints: list[dict[str, Any]] = field(default_factory=list)
    templates: list[dict[str, Any]] = field(default_factory=list)
    ssh_keys: list[str] = field(default_factory=list)

    def add_volume(self, volume_id: str, name: str, size: int, data_center: str) -> Volume:
        """A volume that is there already."""
        self.volumes[volume_id] = Volume(volume_id, name, size, data_center)
        return self.volumes[volume_id]
