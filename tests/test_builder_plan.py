"""What a plan says before anything is paid for: guards, worst case, warnings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builder.deploy.gpus import Candidate, Wanted
from builder.deploy.plan import Facts, Limits, Plan, affordable, check_balance, unused_names, warnings_of
from builder.deploy.pod_spec import PodOptions
from builder.errors import BalanceError, BudgetError, CapacityError

CHEAP = Candidate("NVIDIA GeForce RTX 3090", "RTX 3090", 24, "COMMUNITY", 0.23, "HIGH", "12.0", 582.0)
SAFE = Candidate("NVIDIA RTX A5000", "RTX A5000", 24, "SECURE", 0.29, "LOW", "12.0")
DEAR = Candidate("NVIDIA H200", "H200 SXM", 141, "SECURE", 3.61, "LOW", "12.8")
UNPRICED = replace(SAFE, price_per_h=None)
WANTED = Wanted(("SECURE", "COMMUNITY"), min_memory_gb=16)
TOKEN = {"WHISPER_AUTH_TOKEN": "t0ken-of-the-tests-1234"}
FACTS = Facts("turbo", 7)
STOPS = Limits(idle_stop_min=10)


def plan(*candidates: Candidate, limits: Limits = STOPS, **changes: Any) -> Plan:
    return Plan("whisper-1", "you/whisper:1", "turbo", candidates, limits, (), **changes)


def codes(
    *candidates: Candidate, facts: Facts = FACTS, limits: Limits = STOPS, env: dict[str, str] | None = None, **pod: Any
) -> list[str]:
    options = PodOptions(**({"image": "you/whisper:1", "env": TOKEN if env is None else env} | pod))
    return [each.code for each in warnings_of(options, candidates or (SAFE,), limits, facts)]


def test_the_price_guard_keeps_what_is_cheap_enough() -> None:
    assert affordable([CHEAP, DEAR, UNPRICED], 0.23, WANTED) == (CHEAP,)
    assert affordable([CHEAP, DEAR, UNPRICED], None, WANTED) == (CHEAP, DEAR, UNPRICED)


def test_the_price_guard_names_the_cheapest() -> None:
    with pytest.raises(BudgetError, match=r"RTX A5000 \(SECURE\), costs \$0\.29/h; --max-price is \$0\.1/h"):
        affordable([DEAR, SAFE], 0.1, WANTED)


def test_a_price_that_nobody_knows_is_over_any_limit() -> None:
    with pytest.raises(BudgetError, match="no price is known"):
        affordable([UNPRICED], 5.0, WANTED)


def test_no_candidate_at_all_is_a_lack_of_capacity() -> None:
    with pytest.raises(CapacityError, match="no GPU with 16 GB is offered by SECURE or COMMUNITY in EU-RO-1"):
        affordable([], None, replace(WANTED, data_centers=("EU-RO-1",)))
    with pytest.raises(CapacityError, match="no 4090, L4 is offered"):
        affordable([], None, replace(WANTED, gpu_names=("4090", "L4")))


def test_the_worst_case_is_the_dearest_for_the_whole_time() -> None:
    limited = plan(CHEAP, DEAR, limits=Limits(max_minutes=120, terminate_after_min=90))
    assert limited.dearest_per_h == 3.61
    assert limited.worst_case == pytest.approx(3.61 * 1.5)
    assert plan(CHEAP, DEAR).worst_case is None
    assert plan(UNPRICED, limits=Limits(max_minutes=60)).worst_case is None


def test_a_volume_costs_twice_as_much_while_the_pod_is_stopped() -> None:
    made = plan(CHEAP, volume_gb=20)
    assert made.volume_per_h("running") == pytest.approx(0.0027, abs=1e-4)
    assert made.volume_per_h("stopped") == pytest.approx(0.0055, abs=1e-4)


def test_the_credit_must_last_an_hour_of_the_dearest() -> None:
    check_balance(3.61, 3.61)
    check_balance(0.0, None)
    with pytest.raises(BalanceError, match=r"\$3\.60 does not last an hour at \$3\.61/h"):
        check_balance(3.60, 3.61)


def test_the_document_says_that_speeds_are_estimates() -> None:
    document = plan(CHEAP, credit=12.5).document()
    assert document["price_per_audio_h"] == "estimate from data sheets"
    assert document["candidates"][0]["price_per_audio_h_estimate"] == pytest.approx(0.23 / 582)
    assert document["credit"] == 12.5


# Warnings


def test_a_careful_plan_has_no_warning() -> None:
    assert codes() == []


@pytest.mark.parametrize("limits", [Limits(max_minutes=60), Limits(terminate_after_min=60), STOPS])
def test_any_limit_stops_a_pod(limits: Limits) -> None:
    assert codes(limits=limits) == []


def test_a_pod_that_nothing_stops() -> None:
    assert codes(limits=Limits(max_price=1.0)) == ["never_stops"]


def test_secrets_on_hosts_of_others() -> None:
    assert codes(CHEAP) == ["community_secret"]
    assert codes(CHEAP, facts=replace(FACTS, is_secret_stored=True)) == []
    assert codes(CHEAP, facts=replace(FACTS, is_secret_stored=True), env={**TOKEN, "HF_TOKEN": "x"}) == [
        "community_secret"
    ]


def test_a_pod_without_a_token() -> None:
    assert codes(env={"WHISPER_NO_AUTH": "1"}) == ["no_auth"]


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("you/whisper", ["floating_tag"]),
        ("you/whisper:latest", ["floating_tag"]),
        ("host:5000/you/whisper", ["floating_tag"]),
        ("host:5000/you/whisper:1", []),
        (f"you/whisper@sha256:{'0' * 64}", []),
    ],
)
def test_images_that_may_change(image: str, found: list[str]) -> None:
    assert codes(image=image) == found


def test_a_disk_too_small_for_image_and_model() -> None:
    large = replace(FACTS, model="large-v3", image_bytes=5_000_000_000)
    assert codes(facts=large, disk_gb=10) == ["small_disk"]
    assert codes(facts=large, disk_gb=11) == []
    assert codes(facts=large, disk_gb=10, volume_gb=20) == []


def test_gpus_that_are_too_small_too_old_or_gone() -> None:
    assert codes(replace(SAFE, memory_gb=6)) == ["small_memory"]
    assert codes(replace(SAFE, memory_gb=0)) == []
    assert codes(replace(DEAR, cuda_versions=("12.4", "12.6"))) == ["cuda_floor"]
    assert codes(replace(DEAR, cuda_versions=("12.4", "13.0"))) == []
    assert codes(replace(SAFE, stock="NONE")) == ["out_of_stock"]


def test_credit_that_ends_before_the_pod() -> None:
    two_hours = Limits(max_minutes=120)
    assert codes(facts=replace(FACTS, credit=0.57), limits=two_hours) == ["credit"]
    assert codes(facts=replace(FACTS, credit=0.58), limits=two_hours) == []
    assert codes(facts=replace(FACTS, credit=0.29)) == []


def test_what_else_a_friend_would_say() -> None:
    facts = replace(FACTS, is_spot=True, unused=("RUNPOD_COUNTRY",))
    assert codes(facts=facts, gpu_count=2) == ["gpu_count", "spot", "unused"]


def test_variables_that_nobody_reads() -> None:
    env_file = {
        "RUNPOD_API_KEY": "x",
        "RUNPOD_POD_ID": "x",
        "RUNPOD_COUNTRY": "DE",
        "WHISPER_MODEL": "turbo",
        "WHISPER_BEAM": "5",
        "MAX_CLIENTS": "4",
        "ENV_VERSION": "3",
        "HOME": "/root",
    }
    assert unused_names(env_file) == ("RUNPOD_COUNTRY", "WHISPER_BEAM")
