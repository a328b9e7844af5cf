"""Names of GPUs, what they need and cost, and the order in which they are tried."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.roofline import main as roofline_main
from builder.api.models import Cloud, GpuType
from builder.deploy import throughput
from builder.deploy.gpus import (
    MAX_CANDIDATES,
    Candidate,
    Wanted,
    architecture,
    clouds_of,
    cuda_floor,
    find_candidates,
    fits_name,
    has_cuda,
    list_candidates,
    pick,
    resolve,
)
from builder.errors import UsageError

IDS = {
    "NVIDIA GeForce RTX 3070": ("RTX 3070", 8, 0.2, 0.1),
    "NVIDIA GeForce RTX 3090": ("RTX 3090", 24, 0.4, 0.2),
    "NVIDIA GeForce RTX 3090 Ti": ("RTX 3090 Ti", 24, 0.5, 0.3),
    "NVIDIA GeForce RTX 4090": ("RTX 4090", 24, 0.7, 0.34),
    "NVIDIA RTX A5000": ("RTX A5000", 24, 0.27, 0.0),
    "NVIDIA RTX 6000 Ada Generation": ("RTX 6000 Ada", 48, 0.8, 0.6),
    "NVIDIA L4": ("L4", 24, 0.43, 0.0),
    "NVIDIA L40": ("L40", 48, 0.9, 0.0),
    "NVIDIA L40S": ("L40S", 48, 0.86, 0.0),
    "NVIDIA A100 80GB PCIe": ("A100 PCIe", 80, 1.6, 1.2),
    "NVIDIA A100-SXM4-80GB": ("A100 SXM", 80, 1.9, 0.0),
    "NVIDIA H100 80GB HBM3": ("H100 SXM", 80, 2.9, 0.0),
    "AMD Instinct MI300X OAM": ("MI300X", 192, 0.1, 0.0),
}


def gpu(gpu_id: str, **changes: object) -> GpuType:
    name, memory, secure, community = IDS[gpu_id]
    row = {
        "id": gpu_id,
        "name": name,
        "memory": memory,
        "secure": secure > 0,
        "community": community > 0,
        "price": {"secure": secure, "community": community},
        "maxCount": {"secure": 8, "community": 4},
        "availability": "HIGH",
    }
    return GpuType.model_validate(row | changes)


def catalogs(**stock: str) -> dict[Cloud, list[GpuType]]:
    """Both clouds; `stock` by short name (`RTX_3090="NONE"`)."""
    rows = [gpu(each, availability=stock.get(IDS[each][0].replace(" ", "_"), "HIGH")) for each in IDS]
    return {"SECURE": rows, "COMMUNITY": rows}


CATALOG = [gpu(each) for each in IDS]


@pytest.mark.parametrize(
    ("name", "gpu_id"),
    [
        ("4090", "NVIDIA GeForce RTX 4090"),
        ("RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("rtx4090", "NVIDIA GeForce RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("a5000", "NVIDIA RTX A5000"),
        ("3090", "NVIDIA GeForce RTX 3090"),
        ("3090TI", "NVIDIA GeForce RTX 3090 Ti"),
        ("L40", "NVIDIA L40"),
        ("l40s", "NVIDIA L40S"),
        ("6000 ada", "NVIDIA RTX 6000 Ada Generation"),
        ("H100", "NVIDIA H100 80GB HBM3"),
        ("a100 pcie", "NVIDIA A100 80GB PCIe"),
    ],
)
def test_short_names_find_the_id(name: str, gpu_id: str) -> None:
    assert resolve([name], CATALOG) == [gpu_id]


def test_a_name_that_fits_several_lists_them() -> None:
    with pytest.raises(UsageError, match=r"may be any of: NVIDIA A100 80GB PCIe, NVIDIA A100-SXM4-80GB"):
        resolve(["A100"], CATALOG)


@pytest.mark.parametrize("name", ["5090", "", "nvidia", "rtx"])
def test_a_name_that_fits_none_lists_what_there_is(name: str) -> None:
    with pytest.raises(UsageError, match="not in RunPod's catalog; known: "):
        resolve([name], CATALOG)


def test_the_same_gpu_by_two_names_counts_once() -> None:
    assert resolve(["4090", "L4", "RTX 4090"], CATALOG) == ["NVIDIA GeForce RTX 4090", "NVIDIA L4"]


def test_names_fit_a_pod_that_is_there() -> None:
    assert fits_name("NVIDIA RTX A5000", "a5000")
    assert not fits_name("NVIDIA RTX A5000", "4090")
    assert not fits_name("NVIDIA RTX A5000", "rtx")


@pytest.mark.parametrize(
    ("gpu_id", "kind", "floor"),
    [
        ("NVIDIA GeForce RTX 3070", "ampere", "12.0"),
        ("NVIDIA GeForce RTX 3080TI", "ampere", "12.0"),
        ("NVIDIA RTX A4000", "ampere", "12.0"),
        ("NVIDIA A40", "ampere", "12.0"),
        ("NVIDIA A100-SXM4-80GB", "ampere", "12.0"),
        ("NVIDIA RTX 2000 Ada Generation", "ada", "12.0"),
        ("NVIDIA GeForce RTX 4080 SUPER", "ada", "12.0"),
        ("NVIDIA L4", "ada", "12.0"),
        ("NVIDIA L40S", "ada", "12.0"),
        ("NVIDIA H100 NVL", "hopper", "12.8"),
        ("NVIDIA H200", "hopper", "12.8"),
        ("NVIDIA B200", "blackwell", "12.8"),
        ("NVIDIA GeForce RTX 5090", "blackwell", "12.8"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "blackwell", "12.8"),
        ("Tesla V100-PCIE-16GB", "volta", "12.0"),
        ("AMD Instinct MI300X OAM", None, "12.8"),
        ("NVIDIA Something New", None, "12.8"),
    ],
)
def test_architectures_and_the_cuda_that_they_need(gpu_id: str, kind: str | None, floor: str) -> None:
    assert architecture(gpu_id) == kind
    assert cuda_floor(gpu_id) == floor


def test_cuda_versions_are_compared_by_numbers() -> None:
    assert has_cuda(["12.4", "12.11"], "12.8")
    assert has_cuda(["13.0"], "12.8")
    assert not has_cuda(["12.2", "11.8"], "12.8")


def test_preference_rules_then_price_and_what_is_sold_out_is_tried_last() -> None:
    wanted = Wanted(clouds_of("any"), ("4090", "3090", "L4"))
    found = find_candidates(catalogs(RTX_4090="NONE"), wanted)
    assert [(each.name, each.cloud, each.price_per_h) for each in found] == [
        ("RTX 3090", "COMMUNITY", 0.2),
        ("RTX 3090", "SECURE", 0.4),
        ("L4", "SECURE", 0.43),
        ("RTX 4090", "COMMUNITY", 0.34),
        ("RTX 4090", "SECURE", 0.7),
    ]


def test_without_names_the_cheapest_that_fit_are_tried() -> None:
    found = find_candidates(catalogs(RTX_3090="NONE"), Wanted(clouds_of("any"), min_memory_gb=20))
    assert len(found) == MAX_CANDIDATES
    assert [each.name for each in found[:3]] == ["RTX A5000", "RTX 3090 Ti", "RTX 4090"]
    prices = [each.price_per_h or 0.0 for each in found]
    assert prices == sorted(prices)
    assert not {"RTX 3070", "RTX 3090", "MI300X"} & {each.name for each in found}


def test_several_gpus_cost_their_sum_and_need_a_machine_that_large() -> None:
    found = list_candidates(catalogs(), Wanted(clouds_of("any"), ("4090",), count=6))
    assert [(each.cloud, each.price_per_h) for each in found] == [("SECURE", 4.2)]


def test_stock_counts_in_the_data_centers_asked_for() -> None:
    centers = [{"id": "EU-RO-1", "availability": "LOW"}, {"id": "US-KS-2", "availability": "HIGH"}]
    rows: dict[Cloud, list[GpuType]] = {"SECURE": [gpu("NVIDIA L4", dataCenters=centers)]}

    def stock(*places: str) -> str:
        return list_candidates(rows, Wanted(("SECURE",), data_centers=places))[0].stock

    assert (stock(), stock("EU-RO-1"), stock("EU-RO-1", "US-KS-2"), stock("AP-JP-1")) == ("HIGH", "LOW", "HIGH", "NONE")


def test_picking_wants_stock_memory_and_a_host_with_the_cuda() -> None:
    def offer(name: str, price: float, **changes: object) -> Candidate:
        values: dict[str, object] = {"memory_gb": 24, "stock": "LOW", "min_cuda": "12.0", "cloud": "SECURE"}
        return Candidate(name, name, price_per_h=price, **(values | changes))  # type: ignore[arg-type]

    offers = [
        offer("NVIDIA L4", 0.1, stock="NONE"),
        offer("NVIDIA A40", 0.2, memory_gb=8),
        offer("NVIDIA H100 PCIe", 0.3, min_cuda="12.8", cuda_versions=("12.4",)),
        offer("AMD MI300X", 0.3),
        offer("NVIDIA L40", 0.4, stock="?"),
        offer("NVIDIA L40S", 0.6),
        offer("NVIDIA RTX A5000", 0.5, cuda_versions=("12.4", "12.8")),
    ]
    best = pick(offers, 16)
    assert best is not None
    assert best.gpu_id == "NVIDIA RTX A5000"
    assert pick(offers, 100) is None


def test_an_unknown_cloud_is_refused() -> None:
    with pytest.raises(UsageError, match="legal: any, secure, community"):
        clouds_of("moon")


# Throughput


def test_the_figures_are_those_of_the_roofline(capsys: pytest.CaptureFixture[str]) -> None:
    assert roofline_main(["--json"]) == 0
    stored = (Path(throughput.__file__).parent / "throughput.json").read_text(encoding="utf-8")
    assert json.loads(stored) == json.loads(capsys.readouterr().out), "python -m bench.roofline --json makes it anew"


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        ("small.en", "small"),
        ("turbo", "large-v3-turbo"),
        ("large-v2", "large-v3"),
        ("deepdml/faster-whisper-large-v3-turbo-ct2", "large-v3-turbo"),
        ("Systran/faster-distil-whisper-large-v3", "distil-large-v3"),
        ("distil-large-v3.5", "distil-large-v3"),
        ("/models/medium", "medium"),
        ("distil-small.en", None),
        ("demo", None),
    ],
)
def test_models_are_known_by_their_names(model: str, shape: str | None) -> None:
    assert throughput.shape_of(model) == shape


def test_the_price_of_an_hour_of_audio() -> None:
    speed = throughput.speed("NVIDIA GeForce RTX 3090", "turbo")
    assert speed == 582
    assert throughput.price_per_audio_hour(0.22, speed) == pytest.approx(0.22 / 582)
    assert throughput.speed("NVIDIA Something New", "turbo") is None
    assert throughput.speed("NVIDIA L4", "my-model") is None
    assert throughput.price_per_audio_hour(None, speed) is None
    assert throughput.price_per_audio_hour(0.22, None) is None


def test_memory_grows_with_the_model_and_shrinks_with_int8() -> None:
    needed = [throughput.memory_needed_gb(model) for model in ("tiny", "small", "turbo", "medium", "large-v3")]
    assert needed == [3, 5, 7, 9, 12]
    assert throughput.memory_needed_gb("large-v3", "int8") == 11
    assert throughput.memory_needed_gb("large-v3", "float32") == 16
    assert throughput.memory_needed_gb("my-model") is None
