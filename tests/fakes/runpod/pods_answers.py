"""Pods and what else an account has, as REST v2 shows them."""

from __future__ import annotations

from typing import Any

from tests.fakes.runpod.account import StoredRegistry, Volume
from tests.fakes.runpod.clock import iso_time
from tests.fakes.runpod.pod import Pod

__all__ = ["endpoint_document", "pod_document", "public_port", "registry_document", "volume_document"]

PROXY_IP = "100.65.0.1"


def pod_document(pod: Pod, now_s: float) -> dict[str, Any]:
    """All fields; `runtime` is null until the pod runs."""
    document: dict[str, Any] = {
        "id": pod.id,
        "name": pod.name,
        "status": pod.status,
        "actions": list(pod.actions),
        "image": pod.image,
        "env": dict(pod.env),
        "ports": list(pod.ports),
        "args": pod.args,
        "disk": pod.disk,
        "registry": pod.registry,
        "mounts": dict(pod.mounts),
        "cloud": pod.cloud,
        "dataCenterId": pod.data_center_id,
        "cudaVersion": pod.cuda_version,
        "ssh": _ssh(pod),
        "template": None,
        "cost": pod.cost,
        "locked": pod.locked,
        "globalNetworking": _global_networking(pod),
        "runtime": _runtime(pod, now_s),
        "createdAt": iso_time(pod.created_s),
        "startedAt": None if pod.started_s is None else iso_time(pod.started_s),
    }
    if pod.cpu is not None:
        return {**document, "cpu": pod.cpu}
    return {**document, "gpu": {"id": pod.gpu_id, "count": pod.gpu_count}}


def public_port(pod: Pod, private: int) -> int:
    """Where a TCP port is reachable; another one after each start."""
    return 10_000 + (pod.host * 97 + pod.starts * 131 + private) % 50_000


def _runtime(pod: Pod, now_s: float) -> dict[str, Any] | None:
    if pod.status != "RUNNING":
        return None
    uptime_s = 0.0 if pod.up_since_s is None else now_s - pod.up_since_s
    load = {"util": pod.gpu_util, "memoryUtil": pod.memory_util}
    return {
        "uptime": int(uptime_s),
        "gpus": [] if pod.cpu else [load] * pod.gpu_count,
        "cpu": {"util": 5},
        "memory": {"util": 12},
        "ports": [_port(pod, text) for text in pod.ports],
    }


def _port(pod: Pod, text: str) -> dict[str, Any]:
    number, _slash, kind = text.partition("/")
    private = int(number)
    if kind == "tcp":
        return {"private": private, "public": public_port(pod, private), "type": kind, "ip": f"192.0.2.{pod.host}"}
    return {"private": private, "public": None, "type": kind, "ip": PROXY_IP}


def _ssh(pod: Pod) -> dict[str, Any]:
    if pod.status != "RUNNING":
        return {"proxy": None, "direct": None}
    user, host = f"{pod.id}-{pod.host:08x}", "ssh.runpod.io"
    direct = None
    if "22/tcp" in pod.ports:
        address, port = f"192.0.2.{pod.host}", public_port(pod, 22)
        direct = {"host": address, "port": port, "username": "root", "command": f"ssh root@{address} -p {port}"}
    proxy = {"host": host, "port": 22, "username": user, "command": f"ssh {user}@{host}"}
    return {"proxy": proxy, "direct": direct}


def _global_networking(pod: Pod) -> dict[str, Any]:
    if not pod.global_networking:
        return {"enabled": False}
    return {"enabled": True, "ip": f"10.1.0.{pod.host}", "internalDns": f"{pod.id}.runpod.internal"}


def registry_document(registry: StoredRegistry) -> dict[str, Any]:
    """Without its secret."""
    return {"id": registry.id, "name": registry.name}


def volume_document(volume: Volume) -> dict[str, Any]:
    """A network volume."""
    return {
        "id": volume.id,
        "name": volume.name,
        "size": volume.size,
        "dataCenter": volume.data_center,
        "type": volume.type,
    }


def endpoint_document(
    endpoint_id: str,
    name: str,
    *,
    created_s: float,
    workers_min: int = 0,
    workers_max: int = 3,
    pool: str = "AMPERE_24",
) -> dict[str, Any]:
    """A serverless endpoint, for `Account.endpoints`."""
    return {
        "id": endpoint_id,
        "name": name,
        "type": "QUEUE",
        "image": "you/whisper:abc1234",
        "disk": 20,
        "env": {},
        "gpu": {"pools": [pool], "count": 1, "allowedCudaVersions": [], "minCudaVersion": None},
        "workers": {"min": workers_min, "max": workers_max, "idleTimeout": 10},
        "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
        "dataCenterIds": [],
        "networkVolumes": [],
        "timeout": 0,
        "flashboot": "OFF",
        "createdAt": iso_time(created_s),
    }
