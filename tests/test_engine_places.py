"""engine/places.py: the first folder that can be written to, on real directory trees, and as another user."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.places import Place, cache_variables, cuda_cache, hub_cache_dir, is_persistent, model_cache

ROOT = Path(__file__).resolve().parent.parent
APP_UID = 10001
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


@dataclass
class World:
    """A machine below a directory; a file in the way makes a place unusable for root, too."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.root / "tmp").mkdir()
        self.environ = {"HF_HOME": str(self.root / "hf"), "HOME": str(self.root / "home")}

    @property
    def volumes(self) -> tuple[Path, Path]:
        return (self.root / "runpod-volume", self.root / "workspace")

    @property
    def temporary(self) -> Path:
        return self.root / "tmp" / f"whisper-models-{os.getuid()}"

    def models(self) -> Place:
        return model_cache(self.environ, volumes=self.volumes, temporary=self.root / "tmp")

    def kernels(self) -> Place:
        return cuda_cache(self.environ, volumes=self.volumes, temporary=self.root / "tmp")

    def variables(self) -> dict[str, str]:
        return cache_variables(self.environ, volumes=self.volumes, temporary=self.root / "tmp")

    def block(self, name: str) -> None:
        (self.root / name).parent.mkdir(exist_ok=True, parents=True)
        (self.root / name).write_text("in the way", encoding="utf-8")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_order_of_places(world: World) -> None:
    root = world.root
    for volume in world.volumes:
        volume.mkdir()
    assert world.models().path == root / "runpod-volume/huggingface"
    assert world.models().reason == "the network volume"
    world.block("runpod-volume/huggingface")
    assert world.models().path == root / "workspace/huggingface"
    world.block("workspace/huggingface")
    assert (world.models().path, world.models().hub) == (root / "hf", root / "hf/hub")
    world.block("hf")
    place = world.models()
    assert (place.path, place.is_persistent) == (world.temporary, False)
    assert place.reason.startswith("the temporary folder; passed over: ")
    for passed in ("runpod-volume (not writable: Not a directory)", "workspace (not", "hf (not writable"):
        assert passed in place.reason


def test_looking_leaves_nothing_behind(world: World) -> None:
    world.volumes[1].mkdir()
    world.models(), world.kernels()
    assert sorted(path.name for path in world.root.rglob("*")) == ["tmp", "workspace"]


def test_a_volume_that_is_not_there_is_not_made(world: World) -> None:
    assert world.models().reason == (
        f"HF_HOME; passed over: {world.root}/runpod-volume (is not there), {world.root}/workspace (is not there)"
    )


@pytest.mark.parametrize(
    ("variable", "below", "hub"),
    [("HF_HUB_CACHE", "", ""), ("HF_HOME", "", "hub"), ("XDG_CACHE_HOME", "huggingface", "huggingface/hub")],
)
def test_the_environment_names_the_second_place(world: World, variable: str, below: str, hub: str) -> None:
    world.environ = {variable: str(world.root / "x")}
    assert world.models().path == world.root / "x" / below
    assert world.models().hub == world.root / "x" / hub
    assert world.models().reason.startswith(f"{variable};")


def test_a_temporary_folder_of_somebody_else_is_not_taken(world: World) -> None:
    world.block("hf")
    world.temporary.mkdir(mode=0o777)
    world.temporary.chmod(0o777)
    place = world.models()
    assert not place.is_writable
    assert place.reason.startswith("no place is writable: ") and "others can write" in place.reason
    assert place.make() is False
    # Named by a variable it would be trusted.
    assert world.variables() == {}


def test_a_place_that_only_looked_free_is_not_named(world: World) -> None:
    world.environ = {"HF_HOME": str(world.root / "x" / ("long" * 100)), "HOME": "/"}
    assert "CUDA_CACHE_PATH" not in world.variables()


def test_a_home_that_nobody_has(world: World) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        assert "~nobody-here" in str(hub_cache_dir({name: "~nobody-here/x"}))
    assert hub_cache_dir({"HOME": ""}).is_absolute()


@needs_root
def test_a_full_volume_is_passed_over(world: World) -> None:
    volume = world.volumes[0]
    volume.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", volume], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        assert world.models().path == volume / "huggingface"
        with contextlib.suppress(OSError), (volume / "full").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        assert "No space left on device" in world.models().reason
        assert world.models().path == world.root / "hf"
    finally:
        subprocess.run(["umount", volume], check=True)


def test_kernels_are_kept_beside_models(world: World) -> None:
    world.volumes[0].mkdir()
    assert world.kernels().path == world.root / "runpod-volume/huggingface/cuda-cache"
    world.block("runpod-volume/huggingface/cuda-cache")
    assert not world.kernels().is_writable
    assert world.kernels().reason == "the network volume; cuda-cache is not writable: Not a directory"
    world.environ["CUDA_CACHE_PATH"] = str(world.root / "kernels")
    assert (world.kernels().path, world.kernels().reason) == (world.root / "kernels", "CUDA_CACHE_PATH")
    world.block("kernels")
    assert not world.kernels().is_writable


def test_variables_are_only_set_where_nobody_did(world: World) -> None:
    world.environ = {"HOME": str(world.root / "home")}
    world.volumes[1].mkdir()
    home = world.root / "workspace/huggingface"
    assert world.variables() == {"HF_HOME": str(home), "CUDA_CACHE_PATH": str(home / "cuda-cache")}
    assert (home / "cuda-cache").is_dir()
    world.environ = {"HF_HUB_CACHE": "/a", "CUDA_CACHE_PATH": "/b"}
    assert world.variables() == {}


def test_variables_in_the_temporary_folder_are_closed_to_others(world: World) -> None:
    world.block("home")
    world.environ = {"HOME": str(world.root / "home")}
    assert world.variables()["HF_HOME"] == str(world.temporary)
    assert world.temporary.stat().st_mode & 0o777 == 0o700


MOUNTS = """\
22 1 0:21 / / rw - {root} overlay rw
23 22 0:22 / /tmp rw - tmpfs tmpfs rw
24 22 8:1 / /workspace rw,relatime - ext4 /dev/sda rw
25 22 0:30 / /runpod-volume rw - fuse mfs rw
26 22 8:2 / /with\\040blank rw - xfs /dev/sdb rw
"""


@pytest.mark.parametrize(
    ("path", "root", "in_container", "expected"),
    [
        ("/workspace/huggingface", "overlay", True, True),
        ("/runpod-volume/huggingface", "overlay", True, True),
        ("/with blank/x", "overlay", True, True),
        ("/workspaces", "overlay", True, False),
        ("/tmp/x", "overlay", True, False),
        ("/home/app", "overlay", True, False),
        ("/home/app", "ext4", True, False),  # podman's driver vfs
        ("/home/me", "ext4", False, True),
        ("/tmp/x", "ext4", False, False),
    ],
)
def test_what_outlives_a_container(path: str, root: str, in_container: bool, expected: bool) -> None:
    assert is_persistent(Path(path), MOUNTS.format(root=root), in_container=in_container) is expected


@pytest.fixture
def open_root() -> Iterator[Path]:
    """Unlike pytest's own, a folder that every user can enter."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@needs_root
def test_a_volume_of_root_falls_through_for_another_user(open_root: Path) -> None:
    """RunPod's volumes belong to root; the image's user goes on to the next place instead of failing."""
    world = World(open_root)
    for volume in world.volumes:
        volume.mkdir(mode=0o755)
    (open_root / "tmp").chmod(0o1777)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(APP_UID)
            os.setuid(APP_UID)
            place = world.models()
            os.write(writing, json.dumps([str(place.path), place.reason, place.make()]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        path, reason, is_made = json.loads(pipe.read())
    os.waitpid(pid, 0)
    assert path == str(open_root / "tmp" / f"whisper-models-{APP_UID}")
    assert is_made
    assert f"{open_root}/workspace (not writable: Permission denied)" in reason
    assert world.models().path == open_root / "runpod-volume/huggingface"


def test_import_is_light() -> None:
    script = "import engine.places, sys; assert not {'pydantic', 'numpy', 'logging'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)
