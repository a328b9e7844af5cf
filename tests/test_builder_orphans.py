"""What is paid for, and what of it is forgotten."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from builder.api.models import GpuType, NetworkVolume, Pod
from builder.api.models_serverless import Endpoint, Template, Worker
from builder.ec2.inventory import Ec2Resource
from builder.money.aws_rows import aws_rows
from builder.money.endpoint_rows import EndpointRecords, endpoint_rows
from builder.money.orphans import Records, find_rows, read_records
from builder.money.prices import dollars, network_volume_rate, pod_rate
from builder.money.rows import Row, totals

NOW_S = 1_767_225_600.0
OURS = {"BUILDER_ID": "b1"}


def pod(**fields: Any) -> Pod:
    return Pod.model_validate(
        {"id": "p1", "name": "whisper-1", "status": "RUNNING", "cost": 0.5, "disk": 20, "env": OURS} | fields
    )


def volume(**fields: Any) -> NetworkVolume:
    return NetworkVolume.model_validate({"id": "v1", "name": "v", "size": 100, "dataCenter": "EU-RO-1"} | fields)


def endpoint(**fields: Any) -> Endpoint:
    workers, gpu = {"min": 2, "max": 3}, {"pools": ["ADA_24"], "count": 1}
    return Endpoint.model_validate({"id": "e1", "name": "e", "workers": workers, "gpu": gpu} | fields)


def gpu_type(**fields: Any) -> GpuType:
    row = {"id": "G", "name": "G", "pool": "ADA_24", "memory": 24, "secure": True, "community": True}
    return GpuType.model_validate(row | {"price": {"serverless": 1.1}} | fields)


def rows_of(*pods: Pod, records: Records | None = None, **others: Any) -> list[Row]:
    endpoints = others.pop("endpoints", [])
    records = records or Records(frozenset({"p1"}), current_id="p1")
    volumes = others.pop("volumes", [])
    found = find_rows(pods=pods, volumes=volumes, records=records, api_base="https://api.test/v2", now_s=NOW_S)
    return found + serverless_rows(endpoints, **others)


def serverless_rows(endpoints: list[Endpoint], **given: Any) -> list[Row]:
    everything: dict[str, Any] = {"templates": [], "workers": {}, "catalog": [], "records": EndpointRecords()} | given
    return endpoint_rows(endpoints, **everything)


def price_of(endpoint: Endpoint, n_workers: int, catalog: list[GpuType]) -> float | None:
    workers = [Worker(id=f"w{number}", status="RUNNING") for number in range(n_workers)]
    (row,) = serverless_rows([endpoint], workers={endpoint.id: workers}, catalog=catalog)
    return row.rate.machine_per_h


def resource(**fields: Any) -> Ec2Resource:
    base: dict[str, Any] = {
        "kind": "ec2 instance",
        "id": "i-1",
        "name": "whisper-ec2-1",
        "region": "us-east-2",
        "state": "running",
        "price_per_h": 0.526,
        "created_at": "2025-12-31T23:00:00Z",
        "deadline": "2026-01-01T00:30:00Z",
        "is_ours": True,
        "recorded": True,
    }
    return Ec2Resource(**(base | fields))


def persistent(size: int) -> dict[str, Any]:
    return {"persistent": {"size": size, "path": "/workspace"}}


def test_a_running_pod_pays_for_machine_and_disks() -> None:
    rate = pod_rate(pod(mounts=persistent(53)))
    assert rate.machine_per_h == 0.5
    assert rate.storage_per_h == pytest.approx((20 + 53) * 0.10 / 730)
    assert rate.per_month == pytest.approx(0.5 * 730 + 7.3)


def test_a_stopped_pod_pays_double_for_its_volume_and_nothing_for_its_container_disk() -> None:
    rate = pod_rate(pod(status="EXITED", cost=0, mounts=persistent(50)))
    assert rate.machine_per_h == 0.0
    assert rate.per_month == pytest.approx(10.0)
    assert pod_rate(pod(status="EXITED", cost=0)).per_hour == 0


@pytest.mark.parametrize(
    ("size", "kind", "per_month"), [(100, "STANDARD", 7), (2000, "STANDARD", 120), (100, "HIGH_PERFORMANCE", 14)]
)
def test_network_volumes_get_cheaper_beyond_a_terabyte(size: int, kind: str, per_month: float) -> None:
    assert network_volume_rate(volume(size=size, type=kind)).per_month == pytest.approx(per_month)


def test_workers_that_are_always_kept_cost_the_dearest_gpu_of_their_pools() -> None:
    catalog = [gpu_type(), gpu_type(price={"serverless": 0.7}), gpu_type(pool="HOPPER_141", price={"serverless": 5})]
    assert price_of(endpoint(), 0, catalog) == pytest.approx(2.2)
    assert price_of(endpoint(), 3, catalog) == pytest.approx(3.3)
    assert price_of(endpoint(gpu=None), 0, catalog) is None
    assert price_of(endpoint(gpu={"pools": 5}), 0, catalog) is None
    without_dearest = endpoint(gpu={"pools": ["ADA_24"], "excludedTypes": ["G"], "count": 2})
    dear, cheap = gpu_type(), gpu_type(id="H", price={"serverless": 0.7})
    assert price_of(without_dearest, 0, [dear, cheap]) == pytest.approx(2.8)
    # One that is there costs what its GPU costs.
    on_cheap = Worker(id="w", status="IDLE", gpu_type_id="H")
    (row,) = serverless_rows([endpoint()], workers={"e1": [on_cheap]}, catalog=[dear, cheap])
    assert row.rate.per_hour == pytest.approx(0.7 + 1.1)
    assert rows_of(endpoints=[endpoint(workers={"min": 0, "max": 3})], records=Records()) == []


def test_workers_that_run_now_are_paid_for_though_none_is_kept() -> None:
    (row,) = serverless_rows(
        [endpoint(workers={"min": 0, "max": 3})],
        workers={"e1": [Worker(id="w", status="RUNNING")]},
        catalog=[gpu_type()],
    )
    assert row.rate.per_hour == pytest.approx(1.1) and row.is_running
    assert row.command == "python -m builder endpoint scale e1 --park"


@pytest.mark.parametrize(
    ("records", "word"),
    [
        (EndpointRecords(), "not the present endpoint"),
        (EndpointRecords(pending={"e": "2026-01-01T00:00:00Z"}), "never finished"),
        (EndpointRecords(current={"endpoint_id": "e1"}, pending={"e": "2026-01-01T00:00:00Z"}), ""),
    ],
)
def test_forgotten_endpoints_are_told(records: EndpointRecords, word: str) -> None:
    (row,) = serverless_rows([endpoint(env=OURS, workers={"min": 0, "max": 3})], records=records)
    assert bool(row.reasons) == bool(word) and word in "".join(row.reasons)
    assert row.command == "python -m builder endpoint delete e1" and row.rate.per_hour == 0


def test_flashboot_changes_a_name_and_hides_nothing() -> None:
    named = endpoint(name="e -fb", env=OURS, workers={})
    template = Template.model_validate({"id": "t1", "name": "e", "env": OURS})
    (row,) = serverless_rows([named], templates=[template], records=EndpointRecords(pending={"e": "then"}))
    assert row.kind == "endpoint" and "begun at then" in row.reasons[0]


def test_the_endpoint_that_the_settings_name_is_not_forgotten_and_its_workers_are_counted() -> None:
    (row,) = serverless_rows([endpoint(env=OURS)], records=EndpointRecords(named_id="e1"), catalog=[gpu_type()])
    assert row.reasons == () and row.status == "workers: 2 (2 to 3)" and totals([row]).n_running == 2


def test_templates_of_ours_without_an_endpoint_are_told() -> None:
    def template(**fields: Any) -> Template:
        return Template.model_validate({"id": "t1", "name": "e", "env": OURS} | fields)

    assert serverless_rows([endpoint(workers={})], templates=[template()]) == []
    assert serverless_rows([], templates=[template(env={})]) == []
    (row,) = serverless_rows([], templates=[template(name="x y")])
    assert row.reasons == ("made by the builder, and has no endpoint",)
    assert row.command == "python -m builder endpoint delete t1"


def test_an_endpoint_that_is_recorded_and_gone_is_told() -> None:
    (row,) = serverless_rows([], records=EndpointRecords({"endpoint_id": "e9", "name": "n"}))
    assert (row.status, row.reasons) == ("GONE", ("recorded here, and gone",))


def test_ec2_machines_cost_while_they_run_and_are_forgotten_past_their_deadline() -> None:
    (row,) = aws_rows([resource()], NOW_S)
    assert row.rate.per_hour == pytest.approx(0.526) and not row.reasons and row.is_running
    (late,) = aws_rows([resource()], NOW_S + 3600)
    assert late.reasons == ("runs 30m00s past its deadline",)
    assert late.command == "python -m builder ec2 terminate whisper-ec2-1"
    (stray,) = aws_rows([resource(recorded=False)], NOW_S)
    assert "not recorded here" in stray.reasons[0]
    assert not aws_rows([resource(price_per_h=None)], NOW_S)[0].rate.is_known
    assert aws_rows([resource(state="terminated")], NOW_S) == []


def test_what_belongs_to_a_machine_is_forgotten_without_it() -> None:
    group = resource(kind="security group", id="sg-1", state="", price_per_h=None)
    volume = resource(kind="ec2 volume", id="vol-1", state="available", price_per_h=8 / 730)
    assert [row.kind for row in aws_rows([resource(), group, volume], NOW_S)] == ["ec2 instance", "ec2 volume"]
    rows = {row.kind: row for row in aws_rows([group, volume], NOW_S)}
    assert rows["security group"].reasons == ("its machine is gone",) and rows["security group"].rate.per_hour == 0
    assert rows["ec2 volume"].rate.per_month == pytest.approx(8.0)


def test_machines_of_others_are_shown_with_a_command_of_aws() -> None:
    assert aws_rows([resource(name="")], NOW_S)[0].command.endswith("ec2 terminate i-1")
    group = resource(kind="security group", id="sg-1", state="", price_per_h=None)
    (stopping,) = aws_rows([resource(state="stopping"), group], NOW_S)
    assert stopping.kind == "ec2 instance" and stopping.rate.per_hour == 0
    (row,) = aws_rows([resource(is_ours=False, recorded=False, deadline=None)], NOW_S)
    assert row.command == "aws ec2 terminate-instances --region us-east-2 --instance-ids i-1"
    assert row.notes == ("not made by the builder",) and not row.reasons


@pytest.mark.parametrize(
    ("found", "records", "word"),
    [
        (pod(), Records(), "not recorded here"),
        (pod(env={}), Records(pending={"whisper-1": "2026-01-01T00:00:00Z"}), "never finished"),
        (
            pod(env=OURS | {"POD_DEADLINE": "2025-12-31T23:30:00Z"}),
            Records(frozenset({"p1"}), current_id="p1"),
            "30m00s past its deadline",
        ),
        (pod(), Records(frozenset({"p1"}), frozenset({"p1"}), current_id="p1"), "still there"),
        (pod(), Records(frozenset({"p1", "p2"}), current_id="p2"), "not the present pod"),
        (pod(status="EXITED", cost=0, mounts=persistent(20)), Records(frozenset({"p1"})), "pays for its disk of 20 GB"),
    ],
)
def test_orphans_are_told_with_their_reason(found: Pod, records: Records, word: str) -> None:
    row = rows_of(found, records=records)[0]
    assert len(row.reasons) == 1 and word in row.reasons[0]
    assert row.command == "python -m builder terminate p1"


@pytest.mark.parametrize(
    "found",
    [
        pod(),
        pod(id="p9", env={}),
        pod(status="EXITED", cost=0, env=OURS | {"POD_DEADLINE": "2025-01-01T00:00:00Z"}),
        pod(env=OURS | {"POD_DEADLINE": "2026-01-01T01:00:00Z"}),
        pod(env=OURS | {"POD_DEADLINE": "tomorrow"}),
    ],
)
def test_pods_in_order_are_no_orphans(found: Pod) -> None:
    row = rows_of(found)[0]
    assert row.reasons == ()


def test_a_recorded_pod_that_is_gone_is_told_and_costs_nothing() -> None:
    (row,) = rows_of(pod(status="TERMINATED"), records=Records(frozenset({"p1"}), current_id="p1"))
    assert (row.status, row.rate.per_hour, row.reasons) == ("GONE", 0.0, ("recorded here, and gone",))


def test_records_come_from_pod_json_and_the_diary() -> None:
    events: list[dict[str, Any]] = [
        {"type": "pod", "action": "created", "resource_id": "a"},
        {"type": "pod", "action": "terminated", "resource_id": "a"},
        {"type": "pod", "action": "stopped", "resource_id": "b"},
        {"type": "image", "action": "pushed", "resource_id": "c"},
        {"nonsense": 1},
    ]
    records = read_records({"pod_id": "d", "pod_name": "n"}, {"w": "t"}, events)
    assert records.known_ids >= {"a", "b", "d"} and "c" not in records.known_ids
    assert records.terminated_ids == {"a"}
    assert (records.current_id, records.current_name, records.pending) == ("d", "n", {"w": "t"})


def test_totals_add_up_and_say_when_a_price_is_missing() -> None:
    rows = rows_of(pod(), pod(id="p2"), volumes=[volume()], endpoints=[endpoint()])
    sums = totals(rows)
    assert sums.rate.per_hour == pytest.approx(sum(row.rate.per_hour for row in rows))
    assert (sums.n_running, sums.n_orphans, sums.is_complete) == (4, 1, False)


def test_commands_for_what_no_verb_ends_keep_the_key_out_of_the_list_of_processes() -> None:
    commands = [row.command for row in rows_of(volumes=[volume()], records=Records())]
    assert any(command.endswith("-X DELETE https://api.test/v2/network-volumes/v1") for command in commands)
    # echo is a part of the shell; curl is a process, and sees the key on its standard input.
    assert all("RUNPOD_API_KEY" not in command.split("|")[1] for command in commands)


def test_small_amounts_keep_their_digits() -> None:
    assert [dollars(each) for each in (0, 0.0027, 1.378, -0.5, 12)] == ["$0.00", "$0.0027", "$1.38", "-$0.50", "$12.00"]


def test_what_cannot_be_judged_is_a_row_and_hides_nothing() -> None:
    records = Records(frozenset({"p1", "p2"}), current_id="p2")
    odd_endpoint, odd_volume = endpoint(workers={"min": "abc"}), volume(size=10**400)
    rows = rows_of(
        pod(disk=10**400),
        pod(id="p2"),
        records=records,
        endpoints=[odd_endpoint],
        volumes=[odd_volume, volume(id="v2")],
    )
    odd = {row.id: row for row in rows if any("cannot be judged" in note for note in row.notes)}
    assert set(odd) == {"p1", "e1", "v1"} and {row.id for row in rows} == {"p1", "p2", "e1", "v1", "v2"}
    assert odd["p1"].command == "python -m builder terminate p1"
    assert not totals(rows).is_complete and odd["p1"].is_running


def test_a_command_runs_nothing_but_itself() -> None:
    evil = "x; touch /tmp/x #"
    records = Records(current_id=evil)
    rows = rows_of(pod(id=f"{evil}1"), records=records, endpoints=[endpoint(id=evil)], volumes=[volume(id=evil)])
    assert len(rows) == 4
    for row in rows:
        assert len([word for word in shlex.split(row.command) if "touch" in word]) == 1


@pytest.mark.parametrize("persistent", [{"size": "abc"}, {"size": None}, {"size": 10**400}, {"size": -1}, [1], "x"])
def test_an_odd_disk_is_no_disk(persistent: Any) -> None:
    assert pod(mounts={"persistent": persistent}).volume_gb == 0
