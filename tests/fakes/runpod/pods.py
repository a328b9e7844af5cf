"""Pods of the fake as a state machine over a clock: no HTTP here, and no threads of its own.

Nothing moves by itself: every call first brings the pods to the clock's present, in the order in which things would
have happened. Methods may be called from any thread. Refusals are PodRefusedError with the status of REST v2.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.runpod.account import Account
from tests.fakes.runpod.boots import Boot, BootKind, LogSource, Step, Timing, boot_kind, boot_steps
from tests.fakes.runpod.catalog import Catalog, Cloud, Level
from tests.fakes.runpod.clock import PlaneClock
from tests.fakes.runpod.placement import NO_INSTANCES, place
from tests.fakes.runpod.pod import Pod, PodRefusedError
from tests.fakes.runpod.pods_timeline import OnChange, PodTimeline

__all__ = ["NO_INSTANCES", "OnChange", "Pod", "PodRefusedError", "PodStore"]

HOST_FULL = "There are not enough free GPUs on the host machine to start this pod."
NO_BALANCE = "Insufficient balance. Your account needs credit for at least one hour to deploy this pod."
SPEND_LIMIT = "This would exceed the spend limit of your account."
Pods = list[Pod]
Documents = list[dict[str, Any]]


class PodStore(PodTimeline):
    """All pods of the account, stock, money and scripts for what goes wrong.

    `on_change` listeners get (pod, old status or None, new status), after the store's lock is free again.
    """

    def __init__(self, clock: PlaneClock, *, seed: int = 0, balance: float = 100.0) -> None:
        super().__init__(clock)
        self.more_endpoints: Callable[[], Documents] = lambda: []
        """Those that were made through the API, in REST v2's shape."""
        self.reset(seed, balance=balance)

    def reset(self, seed: int = 0, *, balance: float = 100.0) -> None:
        """Everything new; listeners stay."""
        with self._lock:
            self._forget(balance)
            self._random = random.Random(seed)
            self.catalog = Catalog()
            self.account = Account()
            self.timing = Timing()
            self.boots: deque[Boot] = deque()
            self.refused_starts = 0
            self.hide_new_s = 0.0
            self.spend_limit_per_h = 80.0

    # Asking

    def get(self, pod_id: str) -> Pod:
        """One pod. Raises PodRefusedError 404; a terminated pod is gone."""
        with self.turn():
            pod = self.pods.get(pod_id)
            if pod is None or pod.is_over:
                raise PodRefusedError(404, "pod not found")
            return pod

    def list(self) -> Pods:
        """Pods that are not terminated and not hidden, oldest first."""
        with self.turn() as now_s:
            return [pod for pod in self.pods.values() if not pod.is_over and pod.shown_from_s <= now_s]

    @property
    def balance(self) -> float:
        """$ left."""
        with self.turn() as now_s:
            return self._credit - self.ledger.spent(now_s)

    @balance.setter
    def balance(self, usd: float) -> None:
        with self.turn() as now_s:
            self._credit = usd + self.ledger.spent(now_s)
            self._was_broke = usd <= 0

    @property
    def spend_per_h(self) -> float:
        """$/h of everything now."""
        with self.turn():
            return self.ledger.per_hour()

    def shown_endpoints(self) -> Documents:
        """The account's serverless endpoints, as REST v2 shows them."""
        return [*self.account.endpoints, *self.more_endpoints()]

    # Changing

    def create(
        self,
        body: Mapping[str, Any],
        *,
        bid: float | None = None,
        stop_at_s: float | None = None,
        terminate_at_s: float | None = None,
    ) -> Pod:
        """Rent a pod for a well-formed REST v2 body; `bid` ($/h for one GPU) makes it a spot pod.

        Raises PodRefusedError: 400 no machine, 402 no money, 404 no such volume.
        """
        with self.turn() as now_s:
            placed = place(self.catalog, self.account, body, bid)
            self._check_money(placed.price)
            pod = Pod(
                id=self.new_id(),
                name=body["name"],
                image=body["image"],
                created_s=now_s,
                cloud=placed.cloud,
                price=placed.price,
                env=dict(body.get("env") or {}),
                ports=list(body.get("ports") or []),
                args=body.get("args") or "",
                disk=body.get("disk", 20),
                mounts=dict(body.get("mounts") or {}),
                gpu_id=placed.gpu_id,
                gpu_count=placed.gpu_count,
                cpu=placed.cpu,
                data_center_id=placed.data_center,
                cuda_version=placed.cuda_version,
                registry=body.get("registry"),
                global_networking=bool(body.get("globalNetworking")),
                is_spot=bid is not None,
                bid=bid,
                stop_at_s=stop_at_s,
                terminate_at_s=terminate_at_s,
                shown_from_s=now_s + self.hide_new_s,
                host=self._random.randrange(1, 250),
            )
            self.pods[pod.id] = pod
            self._changes.append((pod, None, pod.status))
            self._boot(pod, now_s, is_new=True)
            return pod

    def update(self, pod_id: str, changes: Mapping[str, Any]) -> Pod:
        """Change fields by REST v2's names; the container sees them at its next start."""
        with self.turn() as now_s:
            pod = self.get(pod_id)
            for name, value in changes.items():
                if name == "mounts":
                    pod.mounts = {**pod.mounts, **value}
                elif name == "globalNetworking":
                    pod.global_networking = value
                elif name != "templateId":
                    setattr(pod, name, value)
            self.ledger.set_rates(pod.id, now_s, pod.rates)
            return pod

    def act(self, pod_id: str, action: str) -> Pod:
        """start, stop, restart or terminate. Raises PodRefusedError: 400 host full, 402, 404, 409."""
        with self.turn() as now_s:
            pod = self.get(pod_id)
            if pod.locked and action != "start":
                raise PodRefusedError(409, f"pod is locked and cannot be changed by {action}")
            if action not in pod.actions:
                raise PodRefusedError(409, f"action {action} is not valid for a pod that is {pod.status}")
            if action == "start":
                self._start(pod, now_s)
            elif action == "restart":
                self._boot(pod, now_s, is_new=False)
            else:
                self._end(pod, now_s, "EXITED" if action == "stop" else "TERMINATED", f"{action} container")
            return pod

    def delete(self, pod_id: str) -> None:
        """Terminate. Raises PodRefusedError: 404, 409."""
        self.act(pod_id, "terminate")

    # Scripts for tests

    def script_boot(self, kind: BootKind, *, line: str | None = None, times: int = 1) -> None:
        """The next `times` starts go like this."""
        with self._lock:
            self.boots.extend([Boot(kind, line)] * times)

    def refuse_starts(self, times: int = 1) -> None:
        """The next starts of stopped pods find their host full."""
        with self._lock:
            self.refused_starts = times

    def set_stock(
        self,
        gpu_id: str,
        level: Level,
        *,
        cloud: Cloud | None = None,
        data_center: str | None = None,
        shown: Level | None = None,
        in_s: float = 0.0,
    ) -> None:
        """See `Catalog.set_stock`; `in_s` seconds from now."""

        def change() -> None:
            self.catalog.set_stock(gpu_id, level, cloud=cloud, data_center=data_center, shown=shown)

        with self.turn() as now_s:
            if in_s <= 0:
                change()
            else:
                self._stock_plan.append((now_s + in_s, change))

    def kill(self, pod_id: str, line: str = "container ran out of memory: OOM killed") -> None:
        """The container dies and stays dead, as if on its own."""
        with self.turn() as now_s:
            self._end(self.get(pod_id), now_s, "EXITED", line)

    def fail(self, pod_id: str, line: str = "host machine is unreachable") -> None:
        """The pod gets ERROR."""
        with self.turn() as now_s:
            pod = self.get(pod_id)
            pod.steps.clear()
            self._take(pod, Step(now_s, "ERROR", line, container="dies"))

    def preempt(self, pod_id: str) -> None:
        """Somebody outbids a spot pod."""
        self.kill(pod_id, "spot instance was interrupted: outbid")

    def log(self, pod_id: str, source: LogSource, line: str) -> None:
        """Add a line to a pod's log, dead or alive."""
        with self.turn() as now_s:
            self.pods[pod_id].log(now_s, source, line)

    def alive(self) -> Pods:
        """All pods that are not terminated, hidden or not."""
        with self.turn():
            return [pod for pod in self.pods.values() if not pod.is_over]

    def new_id(self) -> str:
        """14 letters and digits, as RunPod's."""
        with self._lock:
            return "".join(self._random.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=14))

    # Parts of changes

    def _boot(self, pod: Pod, now_s: float, *, is_new: bool) -> None:
        usual = Boot(boot_kind(pod.image, pod.registry is not None))
        boot = self.boots.popleft() if self.boots else usual
        pod.starts += 1
        pod.up_since_s = None
        pod.steps = boot_steps(boot, pod.image, now_s, self.timing, is_new=is_new)
        self._set_status(pod, "PROVISIONING" if is_new else "STARTING", now_s)

    def _start(self, pod: Pod, now_s: float) -> None:
        if self.refused_starts:
            self.refused_starts -= 1
            raise PodRefusedError(400, HOST_FULL)
        self._check_money(pod.price)
        self._boot(pod, now_s, is_new=False)

    def _check_money(self, price: float) -> None:
        if self.balance < price:
            raise PodRefusedError(402, NO_BALANCE)
        if self.ledger.per_hour() + price > self.spend_limit_per_h:
            raise PodRefusedError(402, SPEND_LIMIT)
