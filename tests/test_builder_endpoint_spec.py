"""What an endpoint is to be, from which pools, at what price, and what differs: all of it without a network."""

from __future__ import annotations

from typing import Any

import pytest

from builder.api.models import GpuType
from builder.api.models_serverless import Endpoint
from builder.deploy.throughput import memory_needed_gb
from builder.endpoints.options import EndpointWishes, scale_of
from builder.endpoints.plan import EndpointFacts, check_total, endpoint_warnings
from builder.endpoints.pools import Choice, Wanted, choose_pools, kept_choice
from builder.endpoints.spec import (
    EndpointOptions,
    drift,
    endpoint_env,
    lb_ports,
    make_endpoint,
    make_template,
    makes_release,
    patch_of,
    spec_sha,
    template_patch,
    undo_of,
)
from builder.errors import BudgetError, CapacityError, UsageError
from builder.settings import Settings, read_settings
from tests.fakes.runpod.catalog import Catalog
from tests.fakes.runpod.catalog_answers import gpu_document

IMAGE = "you/whisper:abc1234"
QUERY = {"include": "AVAILABILITY", "product": "SERVERLESS"}
A4000, A4500, RTX_4090 = "NVIDIA RTX A4000", "NVIDIA RTX A4500", "NVIDIA GeForce RTX 4090"


def catalog(stock: Catalog | None = None) -> list[GpuType]:
    stock = stock or Catalog()
    return [GpuType.model_validate(gpu_document(stock, gpu, QUERY)) for gpu in stock.gpus.values()]


def settings(**given: str) -> Settings:
    return read_settings(given, {})


def choice(**wanted: Any) -> Choice:
    return choose_pools(catalog(), Wanted(**wanted))


def options(kind: Any = "endpoint", **more: Any) -> EndpointOptions:
    wishes = more.pop("wishes", EndpointWishes())
    env = endpoint_env(
        kind,
        {"WHISPER_MODEL": "turbo"},
        more.pop("extra", {}),
        token=more.pop("token", None),
        ws_port=9090,
        health_port=9999,
    )
    found: dict[str, Any] = {
        "kind": kind,
        "image": IMAGE,
        "env": env,
        "gpu": choice().request(),
        "scale": scale_of(kind, wishes, settings()),
        "ports": lb_ports(kind, 9090),
        **more,
    }
    return EndpointOptions(**found)


def as_shown(wanted: EndpointOptions, **more: Any) -> Endpoint:
    """The endpoint as the API shows it once it is what was wanted."""
    template = make_template(wanted, name="w-1", builder_id="b1").body()
    body = make_endpoint(wanted, name="w-1", template_id="t1").body()
    gpu = {"excludedTypes": [], "allowedCudaVersions": [], **body["gpu"]}
    return Endpoint.model_validate({"id": "ep1", **template, **body, "gpu": gpu, "name": "w-1", **more})


# Pools


def test_without_a_wish_the_cheapest_pools_that_hold_the_model_are_taken() -> None:
    found = choice(min_memory_gb=memory_needed_gb("small.en", "auto") or 0)
    assert found.names == ("AMPERE_16", "AMPERE_24", "ADA_24")
    assert found.price_per_h == 1.12
    assert found.min_cuda == "12.0"
    assert found.request().body() == {
        "pools": ["AMPERE_16", "AMPERE_24", "ADA_24"],
        "count": 1,
        "minCudaVersion": "12.0",
    }


@pytest.mark.parametrize(("needed_gb", "first"), [(16, ()), (17, (A4000, "NVIDIA RTX 2000 Ada Generation"))])
def test_types_that_are_too_small_are_excluded(needed_gb: int, first: tuple[str, ...]) -> None:
    found = choice(min_memory_gb=needed_gb)
    assert found.names[0] == "AMPERE_16"
    assert set(found.pools[0].excluded) == set(first)
    assert set(found.request().excluded_types or ()) == set(first)


@pytest.mark.parametrize("needed_gb", [20, 21, 24, 25, 48, 80, 141, 180])
def test_every_gpu_of_the_choice_holds_the_model(needed_gb: int) -> None:
    found = choice(min_memory_gb=needed_gb)
    assert all(gpu.memory_gb >= needed_gb for pool in found.pools for gpu in pool.gpus)
    assert found.price_per_h == max(pool.price_per_h or 0 for pool in found.pools)


def test_more_memory_than_there_is_is_no_capacity() -> None:
    with pytest.raises(CapacityError, match="181 GB"):
        choice(min_memory_gb=181)


def test_a_pool_out_of_stock_is_left_out() -> None:
    stock = Catalog()
    for gpu in stock.gpus.values():
        if gpu.pool == "AMPERE_16":
            stock.set_stock(gpu.id, "NONE")
    assert "AMPERE_16" not in choose_pools(catalog(stock), Wanted()).names


def test_gpu_names_become_their_pools_without_the_rest() -> None:
    found = choice(gpu_names=("4090", "a4500"))
    assert found.names == ("ADA_24", "AMPERE_16")
    assert A4500 not in found.pools[1].excluded
    assert A4000 in found.pools[1].excluded
    assert RTX_4090 not in (found.request().excluded_types or ())


def test_pool_names_are_taken_in_any_case() -> None:
    assert choice(pool_names=("ada_24", "Hopper_141")).names == ("ADA_24", "HOPPER_141")
    assert choice(pool_names=("ada_24", "Hopper_141")).min_cuda == "12.8"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"gpu_names": ("3070",)}, "in no pool"),
        ({"gpu_names": ("nonsense",)}, "not in RunPod's catalog"),
        ({"gpu_names": ("a100",)}, "may be any of"),
        ({"pool_names": ("ADA_23",)}, "legal: ADA_24"),
    ],
)
def test_names_that_fit_nothing(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        choice(**wanted)


def test_a_named_pool_that_is_too_small_stays_whole_and_is_warned_of() -> None:
    found = choice(pool_names=("AMPERE_16",), min_memory_gb=40)
    assert found.pools[0].excluded == ()
    facts = EndpointFacts("large-v3", 40)
    assert "small_memory" in [each.code for each in endpoint_warnings(options(), found, facts)]


@pytest.mark.parametrize(("limit", "names"), [(0.58, ("AMPERE_16",)), (0.68, ("AMPERE_16", "AMPERE_24"))])
def test_the_price_guard_holds_for_one_worker(limit: float, names: tuple[str, ...]) -> None:
    assert choice(max_price=limit).names == names
    with pytest.raises(BudgetError, match="AMPERE_16, costs"):
        choice(max_price=0.57)


def test_types_beyond_the_price_guard_are_left_out_of_their_pools() -> None:
    found = catalog()
    prices = {A4000: 0.90, A4500: None}
    for index, gpu in enumerate(found):
        if gpu.id in prices:
            price = gpu.price.model_copy(update={"serverless": prices[gpu.id]})
            found[index] = gpu.model_copy(update={"price": price})
    named = choose_pools(found, Wanted(pool_names=("AMPERE_16",), max_price=0.60, min_memory_gb=17))
    assert {A4000, A4500} < set(named.request().excluded_types or ())
    assert named.price_per_h == 0.58
    # Without a limit all of them may come, and nobody knows the price of the dearest.
    assert choose_pools(found, Wanted(pool_names=("AMPERE_16",))).price_per_h is None


def test_the_total_guard_holds_for_all_workers() -> None:
    check_total(1.12, 3, 3.36)
    check_total(None, 3, None)
    with pytest.raises(BudgetError, match="3 workers"):
        check_total(1.12, 3, 3.35)
    with pytest.raises(BudgetError, match="no price"):
        check_total(None, 3, 3.35)


def test_what_an_endpoint_has_is_kept_while_it_does() -> None:
    present = {"pools": ["ADA_48_PRO"], "excludedTypes": []}
    assert kept_choice(catalog(), present, Wanted()) is not None
    assert kept_choice(catalog(), present, Wanted(min_memory_gb=49)) is None
    assert kept_choice(catalog(), present, Wanted(max_price=1.90)) is None
    assert kept_choice(catalog(), {"pools": ["GONE"]}, Wanted()) is None
    assert kept_choice(catalog(), {}, Wanted()) is None


# Workers and scaling


def test_scaling_of_a_queue_and_of_a_load_balancer() -> None:
    queue = scale_of("endpoint", EndpointWishes(), settings())
    assert (queue.min, queue.max, queue.queue_delay_s, queue.requests_per_worker, queue.idle_s) == (0, 3, 4.0, None, 10)
    balancer = scale_of("lb", EndpointWishes(), settings())
    assert (balancer.min, balancer.queue_delay_s, balancer.requests_per_worker) == (1, None, 4)
    assert scale_of("lb", EndpointWishes(workers_min=0), settings()).min == 0
    by_count = scale_of("endpoint", EndpointWishes(requests_per_worker=2), settings())
    assert (by_count.idle_s, by_count.queue_delay_s) == (None, None)


@pytest.mark.parametrize(
    ("kind", "wishes"),
    [
        ("endpoint", EndpointWishes(gpu="4090", pool="ADA_24")),
        ("endpoint", EndpointWishes(queue_delay=1, requests_per_worker=1)),
        ("endpoint", EndpointWishes(idle_timeout=5, requests_per_worker=1)),
        ("endpoint", EndpointWishes(queue_delay=0.49)),
        ("endpoint", EndpointWishes(queue_delay=float("nan"))),
        ("endpoint", EndpointWishes(workers_min=4)),
        ("endpoint", EndpointWishes(workers_max=0)),
        ("endpoint", EndpointWishes(with_token=True)),
        ("lb", EndpointWishes(queue_delay=1)),
        ("lb", EndpointWishes(job_timeout=60)),
    ],
)
def test_what_does_not_go_together_is_refused(kind: Any, wishes: EndpointWishes) -> None:
    with pytest.raises(UsageError):
        scale_of(kind, wishes, settings())


# Bodies


def test_bodies_of_a_queue() -> None:
    wanted = options()
    template = make_template(wanted, name="w-1", builder_id="b1").body()
    assert template["env"]["WHISPER_MODE"] == "serverless"
    assert template["env"]["RUNPOD_DEBUG_LEVEL"] == "INFO"
    assert template["env"]["BUILDER_ID"] == "b1"
    assert template["env"]["BUILDER_SPEC_SHA"] == spec_sha(wanted)
    assert "WHISPER_AUTH_TOKEN" not in template["env"] and "WHISPER_NO_AUTH" not in template["env"]
    assert (template["serverless"], template["public"], template["startSsh"]) == (True, False, False)
    assert "ports" not in template
    endpoint = make_endpoint(wanted, name="w-1", template_id="t1").body()
    assert endpoint["templateId"] == "t1"
    assert endpoint["type"] == "QUEUE"
    assert endpoint["workers"] == {"min": 0, "max": 3, "idleTimeout": 10}
    assert endpoint["scaling"] == {"type": "QUEUE_DELAY", "queueDelay": 4.0}
    assert (endpoint["flashboot"], endpoint["timeout"]) == ("FLASHBOOT", 3_600_000)


def test_a_load_balancer_has_one_port_for_everything() -> None:
    wanted = options("lb")
    template = make_template(wanted, name="w-1", builder_id="b1").body()
    env = template["env"]
    assert template["ports"] == ["9090/http"]
    assert {env["PORT"], env["PORT_HEALTH"], env["WHISPERLIVE_PORT"]} == {"9090"}
    assert (env["HEALTH_CHECK_PORT"], env["WHISPER_MODE"], env["WHISPER_NO_AUTH"]) == ("9999", "pod", "1")
    endpoint = make_endpoint(wanted, name="w-1", template_id="t1").body()
    assert endpoint["scaling"] == {"type": "REQUEST_COUNT", "requestCount": 4}
    with pytest.raises(UsageError, match="both 9090"):
        endpoint_env("lb", {}, {}, token=None, ws_port=9090, health_port=9090)


def test_a_token_behind_a_load_balancer_is_wanted_only_if_asked_for() -> None:
    env = options("lb", token="t" * 16).env
    assert env["WHISPER_AUTH_TOKEN"] == "t" * 16 and "WHISPER_NO_AUTH" not in env
    codes = [
        each.code for each in endpoint_warnings(options("lb", token="t" * 16), choice(), EndpointFacts("turbo", 5))
    ]
    assert "token_behind_lb" in codes


def test_the_sha_is_of_the_workers_and_tells_no_secret() -> None:
    one = spec_sha(options())
    assert one == spec_sha(options(wishes=EndpointWishes(workers_max=9, idle_timeout=60)))
    assert one != spec_sha(options(image="you/whisper:2"))
    assert one != spec_sha(options(gpu=choice(pool_names=("ADA_24",)).request()))
    assert spec_sha(options(extra={"HF_TOKEN": "a"})) == spec_sha(options(extra={"HF_TOKEN": "b"}))


# What differs


def test_nothing_differs_from_what_was_just_made() -> None:
    for kind in ("endpoint", "lb"):
        wanted = options(kind)
        assert drift(as_shown(wanted), wanted) == ()
        assert patch_of(as_shown(wanted), wanted, (), "b1") == {}
    # What the platform fills in or adds is nobody's wish.
    wanted = options()
    shown = as_shown(wanted)
    env = {**shown.env, "FOREIGN": "1"}
    assert drift(shown.model_copy(update={"env": env, "data_center_ids": ("EU-RO-1",)}), wanted) == ()


def test_what_differs_is_named_and_patched_and_can_be_put_back() -> None:
    before = as_shown(options(extra={"FOREIGN": "1"}))
    wanted = options(
        image="you/whisper:new",
        gpu=choice(pool_names=("ADA_24",)).request(),
        flashboot=False,
        disk_gb=30,
        wishes=EndpointWishes(workers_min=1, workers_max=5, queue_delay=2, job_timeout=60),
        data_centers=("EU-RO-1",),
    )
    changes = drift(before, wanted)
    assert {each.field for each in changes} == {
        *("image", "disk", "gpu.pools", "workers.min", "workers.max", "scaling", "timeout", "flashboot"),
        "dataCenterIds",
    }
    patch = patch_of(before, wanted, changes, "b1")
    assert patch["image"] == "you/whisper:new"
    assert patch["env"]["FOREIGN"] == "1" and patch["env"]["BUILDER_SPEC_SHA"] == spec_sha(wanted)
    assert patch["gpu"] == {"pools": ["ADA_24"], "excludedTypes": [], "count": 1, "minCudaVersion": "12.0"}
    assert patch["workers"] == {"min": 1, "max": 5, "idleTimeout": 10}
    assert patch["timeout"] == 60_000
    assert makes_release(patch)
    undo = undo_of(before, patch)
    assert undo.keys() == patch.keys()
    assert (undo["image"], undo["env"], undo["timeout"]) == (before.image, before.env, before.timeout)
    after = Endpoint.model_validate({**before.model_dump(by_alias=True), **patch})
    assert drift(after, wanted) == ()
    back = Endpoint.model_validate({**after.model_dump(by_alias=True), **undo})
    assert drift(back, options(extra={"FOREIGN": "1"})) == ()


def test_scaling_alone_replaces_no_worker() -> None:
    before = as_shown(options())
    wanted = options(wishes=EndpointWishes(workers_max=7))
    patch = patch_of(before, wanted, drift(before, wanted), "b1")
    assert patch == {"workers": {"min": 0, "max": 7, "idleTimeout": 10}}
    assert not makes_release(patch)


def test_an_exact_set_of_cuda_versions_gives_way_to_the_floor() -> None:
    wanted = options()
    gpu = {"pools": ["ADA_24"], "count": 1, "allowedCudaVersions": ["12.8"], "minCudaVersion": None}
    before = as_shown(wanted).model_copy(update={"gpu": gpu})
    patch = patch_of(before, wanted, drift(before, wanted), "b1")
    assert patch["gpu"]["allowedCudaVersions"] == []
    assert undo_of(before, patch)["gpu"]["allowedCudaVersions"] == ["12.8"]
    assert undo_of(before, patch)["gpu"]["minCudaVersion"] == ""


def test_an_idle_time_that_a_queue_by_requests_has_left_over_is_not_put_back() -> None:
    wanted = options(wishes=EndpointWishes(requests_per_worker=2))
    before = as_shown(wanted, workers={"min": 0, "max": 3, "idleTimeout": 10}, registry="")
    assert drift(before, wanted) == ()
    assert undo_of(before, {"workers": {}}) == {"workers": {"min": 0, "max": 3}}


def test_secrets_differ_unseen() -> None:
    before = as_shown(options("lb", token="old-token-0123456"))
    changes = drift(before, options("lb", token="new-token-0123456"))
    assert [each.field for each in changes] == ["env.WHISPER_AUTH_TOKEN"]
    assert "token" not in changes[0].before + changes[0].after


def test_the_template_follows() -> None:
    wanted = options("lb", image="you/whisper:new")
    patch = template_patch(wanted, "b1")
    assert patch["image"] == "you/whisper:new"
    assert patch["env"]["BUILDER_ID"] == "b1" and patch["ports"] == ["9090/http"]


# Warnings


@pytest.mark.parametrize(
    ("kind", "wishes", "more", "expected"),
    [
        ("endpoint", EndpointWishes(), {}, {"cold_start"}),
        ("endpoint", EndpointWishes(workers_min=1), {"flashboot": False}, {"idle_cost", "flashboot_off"}),
        ("lb", EndpointWishes(), {}, {"idle_cost"}),
        ("lb", EndpointWishes(workers_min=0), {}, {"lb_scales_to_zero"}),
        ("endpoint", EndpointWishes(), {"image": "you/whisper:latest"}, {"cold_start", "floating_tag"}),
        ("endpoint", EndpointWishes(), {"disk_gb": 5, "image": "you/w@sha256:00"}, {"cold_start"}),
        ("endpoint", EndpointWishes(workers_max=11), {}, {"cold_start", "worker_limit"}),
    ],
)
def test_warnings(kind: Any, wishes: EndpointWishes, more: dict[str, Any], expected: set[str]) -> None:
    found = endpoint_warnings(options(kind, wishes=wishes, **more), choice(), EndpointFacts("turbo", 5, credit=100.0))
    assert {each.code for each in found} == expected


def test_the_credit_is_held_against_all_workers() -> None:
    facts = EndpointFacts("turbo", 5, credit=3.0, unused=("WHISPER_OLD",), image_bytes=19_000_000_000)
    found = {each.code: each.text for each in endpoint_warnings(options(), choice(), facts)}
    assert "54 min" in found["credit"]
    assert "WHISPER_OLD" in found["unused"]
    assert "small_disk" in found
