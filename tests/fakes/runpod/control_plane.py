"""A fake RunPod to run commands against: REST v2 over real HTTP on loopback, virtual time, faults, and a journal.

    with ControlPlane() as plane:
        ...  # run something with plane.environ() and plane.clock
        plane.assert_no_leaks()

Its methods may be called from any thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

from aiohttp import web

from tests.fakes.runpod.calls import Answer, Call, Handler, Operation, problem
from tests.fakes.runpod.clock import PlaneClock
from tests.fakes.runpod.contract import Contract
from tests.fakes.runpod.control_faults import ControlFaults
from tests.fakes.runpod.control_routes import ControlRoutes, unknown_route
from tests.fakes.runpod.control_server import ControlServer, Outcome
from tests.fakes.runpod.endpoint_answers import Bases
from tests.fakes.runpod.endpoint_queues import EndpointQueues
from tests.fakes.runpod.endpoint_routes import EndpointRoutes
from tests.fakes.runpod.endpoints import EndpointStore
from tests.fakes.runpod.graphql_facade import GraphQlFacade
from tests.fakes.runpod.job_routes import JobRoutes
from tests.fakes.runpod.journal import Entry, Journal
from tests.fakes.runpod.lb_plane import LbPlane
from tests.fakes.runpod.limits import RateLimits
from tests.fakes.runpod.pod import PodRefusedError
from tests.fakes.runpod.pods import PodStore
from tests.fakes.runpod.proxy_plane import PodPorts, ProxyPlane
from tests.fakes.runpod.v1_facade import V1Facade

__all__ = ["ControlPlane"]

API_KEY = "rpa_FAKE0KEY0FOR0TESTS0ONLY"
READ_ONLY_KEY = "rpa_FAKE0KEY0THAT0ONLY0READS"


class ControlPlane:
    """`pods` and `endpoints` are the stores, `faults` what goes wrong, `journal` what was asked, `limits` rate limits.

    `proxy` leads to the pods' ports, `balancer` to the workers of load-balancing endpoints; jobs are served below
    /jobs/v2. REST v1 and GraphQL answer from the same stores. Add routes and operations before entering.
    """

    def __init__(
        self,
        clock: PlaneClock | None = None,
        *,
        api_key: str = API_KEY,
        seed: int = 0,
        balance: float = 100.0,
        port: int = 0,
    ) -> None:
        self.clock = clock or PlaneClock()
        self.api_key = api_key
        self.read_only_key = READ_ONLY_KEY
        self.pod_keys: dict[str, str] = {}
        self.pods = PodStore(self.clock, seed=seed, balance=balance)
        self.endpoints = EndpointStore(self.pods)
        self._queues = EndpointQueues(self.endpoints)
        self.endpoints.make_queue = self._queues.make
        self.faults = ControlFaults(self.pods)
        self.limits = RateLimits(self.clock)
        self.journal = Journal()
        self.proxy = ProxyPlane(self._ports, seed=seed)
        self.balancer = LbPlane(self)
        self.is_v1_retired = False
        self.is_graphql_retired = False
        self.keeps_contract = True
        """Off for tests that break RunPod's document on purpose."""
        self._server = ControlServer(self._decide, port)
        self._v2 = ControlRoutes(self.pods).operations() + EndpointRoutes(self.endpoints, self._bases).operations()
        self._server.add_operations(self._v2)
        graphql = GraphQlFacade(self.pods, lambda: self.is_graphql_retired, self._may_write)
        self._server.add_operations(graphql.operations())
        self._server.add_operations(V1Facade(self.pods, lambda: self.is_v1_retired).operations())

    # Life

    def __enter__(self) -> ControlPlane:
        # Last, so that everything else under /v2 wins.
        self._server.add_operations(
            [
                Operation(
                    "*", "/v2{tail:.*}", lambda call: unknown_route(self._v2, call), "unknown", True, needs_key=False
                )
            ]
        )
        self._server.add_routes(self.proxy.routes())
        self._server.add_routes(JobRoutes(self._queues.find, lambda key: key == self.api_key).routes("/jobs/v2"))
        self._server.add_routes(self.balancer.routes())
        self._server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, error, trace)
        if kind is None and self.keeps_contract:
            self.assert_contract()

    def reset(self, seed: int = 0, *, balance: float = 100.0, clock: PlaneClock | None = None) -> None:
        """Fresh store, journal, faults and limits on the same server; time starts again (or is `clock`'s)."""
        if self.keeps_contract:
            self.assert_contract()
        if clock is None:
            self.clock.restart()
        else:
            self.clock = self.pods.clock = self.limits.clock = clock
        # First: what old endpoints still cost must not be paid from the new account.
        self.endpoints.reset()
        self.pods.reset(seed, balance=balance)
        self.balancer.reset()
        self.faults.restore()
        self.limits.reset()
        self.journal.clear()
        self.pod_keys.clear()
        self.proxy.reset(seed)
        self.is_v1_retired = self.is_graphql_retired = False

    @property
    def port(self) -> int:
        """Of 127.0.0.1; before it is entered 0, unless one was chosen."""
        return self._server.port

    @property
    def log_hold_s(self) -> float:
        """Real seconds for which a log connection stays open for new lines."""
        return self._server.log_hold_s

    @log_hold_s.setter
    def log_hold_s(self, seconds: float) -> None:
        self._server.log_hold_s = seconds

    def add_routes(self, routes: Sequence[web.RouteDef]) -> None:
        """aiohttp's own routes, before the start; they are not journalled, ask for no key and have no faults."""
        self._server.add_routes(routes)

    def add_operations(self, operations: Sequence[Operation]) -> None:
        """Further operations with key, faults, limits and journal, before the start."""
        self._server.add_operations(operations)

    def operation(
        self,
        method: str,
        path: str,
        handler: Handler,
        name: str,
        *,
        reads: bool | None = None,
        refuse: Callable[[PodRefusedError], Answer] = problem,
    ) -> Operation:
        """An operation for `add_operations`; `refuse` is the shape of its errors."""
        return Operation(method, path, handler, name, method == "GET" if reads is None else reads, refuse=refuse)

    # For tests

    @property
    def url(self) -> str:
        """Of the server."""
        return f"http://127.0.0.1:{self.port}"

    def environ(self, **extra: str) -> dict[str, str]:
        """What the builder needs to talk to this plane."""
        return {
            "RUNPOD_API_KEY": self.api_key,
            "RUNPOD_API_BASE": f"{self.url}/v2",
            "RUNPOD_REST_V1_BASE": f"{self.url}/v1",
            "RUNPOD_GRAPHQL_URL": f"{self.url}/graphql",
            "RUNPOD_PROXY_TEMPLATE": f"{self.url}/proxy/{{pod}}/{{port}}",
            "RUNPOD_JOB_BASE": self._bases().jobs,
            "RUNPOD_LB_TEMPLATE": self._bases().balancer,
            **extra,
        }

    def pod_key(self, pod_id: str) -> str:
        """The key that RunPod puts into a pod: good for that pod alone."""
        key = f"rpa_FAKE0KEY0OF0POD0{pod_id}"
        self.pod_keys[key] = pod_id
        return key

    def retire_v1(self) -> None:
        """REST v1 is no more."""
        self.is_v1_retired = True

    def retire_graphql(self) -> None:
        """GraphQL is no more."""
        self.is_graphql_retired = True

    def interrupt_spot(self, pod_id: str) -> None:
        """Somebody outbids a spot pod: it stops, and keeps its disk."""
        self.pods.preempt(pod_id)

    @contextmanager
    def malformed(self) -> Iterator[None]:
        """Requests within break the contract on purpose."""
        with self.journal.malformed():
            yield

    def mutations(self) -> list[Entry]:
        """Requests meant to change something."""
        return [entry for entry in list(self.journal) if entry.is_mutation]

    def requests(self, route: str) -> list[Entry]:
        """The journal's entries of a route ("GET /v2/pods/{id}")."""
        return [entry for entry in list(self.journal) if entry.route == route]

    def assert_no_leaks(self, allow: Collection[str] = ()) -> None:
        """No pod, endpoint or template (made through the API) is left but those allowed, by id or name."""
        left = [(pod.name, pod.id, f"{pod.status}, ${pod.price:g}/h") for pod in self.pods.alive()]
        left += self.endpoints.left_behind()
        shown = [f"{name} ({id_}, {text})" for name, id_, text in left if name not in allow and id_ not in allow]
        assert not shown, f"left behind: {', '.join(shown)}"

    def assert_spend_below(self, usd: float) -> None:
        """All pods and endpoints together cost less."""
        with self.pods.turn() as now_s:
            spent = self.pods.ledger.spent(now_s)
        assert spent < usd, f"spent ${spent:.4f}"

    def contract_violations(self) -> list[str]:
        """What in the journal does not fit the OpenAPI document; empty where there is none."""
        contract = Contract.found()
        if contract is None:
            return []
        return [text for entry in list(self.journal) for text in contract.violations(entry)]

    def assert_contract(self) -> None:
        """Every request and every answer of REST v2 fits the OpenAPI document, where there is one."""
        found = self.contract_violations()
        assert not found, "\n".join(found[:20])

    def assert_no_secret(self, *secrets: str, in_places: bool = False) -> None:
        """See `Journal.assert_no_secret`; the plane's own key is always among them."""
        self.journal.assert_no_secret(self.api_key, *secrets, in_places=in_places)

    # Serving

    async def _decide(self, call: Call, operation: Operation) -> Outcome:
        entry = self.journal.begin(call, self.clock.unix_s())
        headers = {"x-request-id": f"req-{entry.number:08d}"}
        fault = self.faults.next(call.route, operation.name, f"{call.method} {call.path}")
        if fault is not None:
            entry.fault = fault.name
            if fault.delay_s:
                await asyncio.sleep(fault.delay_s)
        answer = Answer(500)
        if fault is None or fault.executes:
            answer = self._answer(call, operation, headers, entry)
        if fault is not None and fault.answer is not None:
            answer = fault.answer
        ending = "answer" if fault is None else fault.ending
        if ending == "answer":
            entry.close(answer, {**headers, **answer.headers})
        cut_after = self.faults.next_log_cut() if answer.stream is not None else None
        return Outcome(answer, headers, ending, cut_after)

    def _answer(self, call: Call, operation: Operation, headers: dict[str, str], entry: Entry) -> Answer:
        try:
            if operation.needs_key:
                self._check_key(call, operation)
                wait_s, limits = self.limits.take()
                headers.update(limits)
                if wait_s is not None:
                    headers["Retry-After"] = str(wait_s)
                    raise PodRefusedError(429, f"rate limit exceeded; retry in {wait_s} s")
            answer = operation.handler(call)
            entry.executed = True
            return answer
        except PodRefusedError as refusal:
            return operation.refuse(refusal)

    def _check_key(self, call: Call, operation: Operation) -> None:
        word, _space, key = call.headers.get("Authorization", "").partition(" ")
        known = {self.api_key, self.read_only_key, *self.pod_keys}
        if word != "Bearer" or key not in known or not self.faults.takes_key():
            raise PodRefusedError(401, "missing or invalid API key")
        if key == self.read_only_key and not operation.reads:
            raise PodRefusedError(403, "the API key does not grant write access")
        if key in self.pod_keys and call.params.get("id") != self.pod_keys[key]:
            raise PodRefusedError(403, "the API key is restricted to its pod")

    def _may_write(self, call: Call) -> bool:
        return not call.headers.get("Authorization", "").endswith(self.read_only_key)

    def _ports(self, pod_id: str) -> PodPorts | None:
        try:
            pod = self.pods.get(pod_id)
        except PodRefusedError:
            return None
        return PodPorts(pod.status, tuple(pod.ports))

    def _bases(self) -> Bases:
        return Bases(f"{self.url}/jobs/v2", f"{self.url}/lb/{{endpoint}}")
