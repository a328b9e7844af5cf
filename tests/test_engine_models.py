"""Names of models and where they are found, on directory trees and with a hub of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.errors import ModelUnavailableError
from engine.models import (
    DEMO_LANGUAGES,
    DEMO_MODEL_DIR,
    Places,
    ResolvedModel,
    hub_cache_dir,
    is_english_only,
    resolve_model,
)
from tests.fakes.model_dirs import FakeHub, make_cache, make_model

ROOT = Path(__file__).resolve().parent.parent
NAME, REPO = "small.en", "Systran/faster-whisper-small.en"


@dataclass
class World:
    """A machine under a temporary directory."""

    root: Path
    hub: FakeHub = field(default_factory=FakeHub)
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def places(self) -> Places:
        return Places(
            runpod_cache=self.root / "runpod-volume/huggingface-cache/hub",
            volumes=(self.root / "runpod-volume", self.root / "workspace"),
            baked=self.root / "models",
            temporary=self.root / "tmp",
        )

    @property
    def temporary_cache(self) -> Path:
        return self.root / "tmp" / f"whisper-models-{os.getuid()}"

    def resolve(self, name: str = NAME) -> ResolvedModel:
        return resolve_model(name, environ=self.environ, hub=self.hub, places=self.places)

    def refusal(self, name: str = NAME) -> str:
        with pytest.raises(ModelUnavailableError) as caught:
            self.resolve(name)
        message = str(caught.value)
        assert "\n" not in message
        return message


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "tmp").mkdir()
    return World(tmp_path, environ={"HF_HOME": str(tmp_path / "hf")})


def test_demo_is_in_the_package_and_whole(world: World) -> None:
    assert world.resolve("demo") == ResolvedModel("demo", DEMO_MODEL_DIR, is_demo=True, origin="the package")
    assert world.hub.downloads == []
    assert DEMO_LANGUAGES == ("en", "es")


@pytest.mark.parametrize(("name", "english"), [("small.en", True), ("distil-medium.en", True), ("turbo", False)])
def test_english_only_names(world: World, name: str, english: bool) -> None:
    assert is_english_only(name) is english
    assert ResolvedModel(name, world.root, is_demo=False, origin="").is_english_only is english


def test_the_revision_is_the_name_of_a_snapshot(world: World) -> None:
    """Also of one that is given as a directory; a directory of one's own has none."""
    snapshot = make_cache(world.root / "hf/hub", REPO)
    assert world.resolve().revision == world.resolve(str(snapshot)).revision == snapshot.name
    assert world.resolve(str(make_model(world.root / "snapshots/mine"))).revision is None
    assert world.resolve("demo").revision is None


def test_the_order_of_places(world: World) -> None:
    """From the last place to the first: each time the new one wins."""
    world.hub.offers = (REPO,)
    root = world.root
    steps = [
        (make_cache(world.temporary_cache, REPO), "the temporary cache"),
        (make_model(root / "models" / REPO), "the image"),
        (make_model(root / "models" / NAME), "the image"),
        (make_cache(root / "workspace/huggingface/hub", REPO), "the network volume"),
        (make_model(root / "workspace/models" / REPO), "the network volume"),
        (make_model(root / "workspace/models" / NAME), "the network volume"),
        (make_model(root / "runpod-volume/models" / NAME), "the network volume"),
        (make_cache(root / "hf/hub", REPO), "the Hugging Face cache"),
        (make_cache(root / "runpod-volume/huggingface-cache/hub", REPO), "RunPod's model cache"),
    ]
    # What was made last is looked at first, so take away from the front.
    for path, origin in reversed(steps):
        found = world.resolve()
        assert (found.path, found.origin, found.name, found.is_demo) == (path, origin, NAME, False)
        path.rename(path.with_name("gone"))
        if path.parent.name == "snapshots":
            (path.with_name("gone")).rename(path.parent.parent / "gone")
    assert world.resolve().origin == f"a download into {root / 'runpod-volume/huggingface/hub'}"


@pytest.mark.parametrize("name", ["mine", "./mine", "{root}/mine", "~/mine"])
def test_a_directory_is_taken_as_it_is(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.root)
    monkeypatch.setenv("HOME", str(world.root))
    path = make_model(world.root / "mine")
    name = name.format(root=world.root)
    found = world.resolve(name)
    assert found.path.resolve() == path.resolve()
    assert (found.name, found.is_demo, found.origin) == (name, False, "the given directory")


def test_a_directory_with_the_name_of_a_size_is_not_meant(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.root)
    make_model(world.root / NAME)
    baked = make_model(world.root / "models" / NAME)
    assert world.resolve().path == baked
    assert world.resolve(f"./{NAME}").origin == "the given directory"


def test_a_hugging_face_id_is_looked_up_like_a_size(world: World) -> None:
    path = make_cache(world.root / "hf/hub", "someone/special-whisper")
    assert world.resolve("someone/special-whisper").path == path


@pytest.mark.parametrize(
    ("environ", "cache"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"HF_HOME": "", "XDG_CACHE_HOME": "/c", "HOME": "/d"}, "/c/huggingface/hub"),
        ({"HOME": "/d"}, "/d/.cache/huggingface/hub"),
    ],
)
def test_hub_cache_dir(environ: dict[str, str], cache: str) -> None:
    assert hub_cache_dir(environ) == Path(cache)


def test_baked_directory_can_be_moved(world: World) -> None:
    world.environ["BAKED_MODELS_DIR"] = str(world.root / "elsewhere")
    path = make_model(world.root / "elsewhere" / NAME)
    assert world.resolve().path == path


# --- damage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["models/small.en", "workspace/models/small.en"])
@pytest.mark.parametrize("missing", ["model.bin", "tokenizer.json", "vocabulary.json"])
def test_incomplete_directory_is_an_error_that_names_the_file(world: World, place: str, missing: str) -> None:
    world.hub.offers = (REPO,)
    make_model(world.root / place, without=(missing,))
    message = world.refusal()
    assert f"{missing} is missing" in message and place in message
    assert world.hub.downloads == []


def test_truncated_weights_are_an_error_everywhere(world: World) -> None:
    world.hub.offers = (REPO,)
    given = make_model(world.root / "mine")
    for path in (given, make_cache(world.root / "hf/hub", REPO)):
        weights = path / "model.bin"
        weights.write_bytes(weights.read_bytes()[:-30])
    assert "model.bin is cut off" in world.refusal(str(given))
    assert "model.bin is cut off" in world.refusal()
    assert world.hub.downloads == []


def test_incomplete_cache_is_completed_by_a_download(world: World) -> None:
    world.hub.offers = (REPO,)
    make_cache(world.root / "hf/hub", REPO, without=("model.bin",))
    found = world.resolve()
    assert found.origin == f"a download into {world.root / 'hf/hub'}"


def test_incomplete_cache_is_told_when_there_is_no_download(world: World) -> None:
    make_cache(world.root / "hf/hub", REPO, without=("model.bin",))
    assert f"{world.root / 'hf/hub'} (incomplete: model.bin is missing)" in world.refusal()


def test_incomplete_download_is_an_error(world: World) -> None:
    class HalfHub(FakeHub):
        def download(self, repo_id: str, cache_dir: Path) -> Path:
            return make_cache(cache_dir, repo_id, without=("tokenizer.json",))

    world.hub = HalfHub()
    assert "tokenizer.json is missing" in world.refusal()


def test_a_place_that_may_not_be_read_is_named_and_the_next_one_is_looked_at(world: World) -> None:
    class ClosedHub(FakeHub):
        def cached(self, repo_id: str, cache_dir: Path) -> Path | None:
            raise PermissionError(13, "Permission denied", str(cache_dir))

    world.hub = ClosedHub()
    world.environ["HF_HUB_OFFLINE"] = "1"
    assert "(Permission denied)" in world.refusal()


# --- downloads and refusals -------------------------------------------------------------------------


def test_download_goes_to_the_first_writable_place(world: World) -> None:
    world.hub.offers = (REPO,)
    root = world.root
    (root / "tmp").chmod(0o700)
    (root / "runpod-volume").mkdir()
    (root / "runpod-volume/huggingface").write_text("in the way", encoding="utf-8")
    (root / "hf").write_text("in the way", encoding="utf-8")
    found = world.resolve()
    assert found.origin == f"a download into {world.temporary_cache}"
    assert world.temporary_cache.stat().st_mode & 0o077 == 0
    assert world.hub.downloads == [(REPO, world.temporary_cache)]
    assert world.resolve().origin == "the temporary cache"


def test_temporary_cache_that_others_can_write_is_not_trusted(world: World) -> None:
    make_cache(world.temporary_cache, REPO)
    world.temporary_cache.chmod(0o777)
    world.environ["HF_HUB_OFFLINE"] = "1"
    assert str(world.temporary_cache) not in world.refusal()
    del world.environ["HF_HUB_OFFLINE"]
    (world.root / "hf").write_text("in the way", encoding="utf-8")
    world.hub.offers = (REPO,)
    assert "not writable" in world.refusal()


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_offline_forbids_the_download(world: World, variable: str, value: str) -> None:
    world.hub.offers = (REPO,)
    world.environ[variable] = value
    message = world.refusal()
    assert f"{variable}={value} forbids the download" in message
    assert NAME in message and REPO in message
    assert str(world.root / "hf/hub") in message and str(world.root / "models/small.en") in message
    assert "WHISPER_MODEL" in message
    assert world.hub.downloads == []


@pytest.mark.parametrize("value", ["0", "", "false"])
def test_offline_that_is_off(world: World, value: str) -> None:
    world.hub.offers = (REPO,)
    world.environ["HF_HUB_OFFLINE"] = value
    assert world.resolve().origin.startswith("a download")


def test_failed_download_gives_its_reason_and_never_the_demo(world: World) -> None:
    message = world.refusal()
    assert message.startswith(f"model 'small.en' ({REPO}) is not available: looked in ")
    assert "failed: the hub cannot be reached" in message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smal.en", "did you mean small.en?"),
        ("demoo", "did you mean demo?"),
        ("zzz", "none of: demo, small.en, turbo"),
        ("./nowhere", "is no directory here"),
        ("a/b/c", "is no directory here"),
        ("../x", "is no directory here"),
    ],
)
def test_unknown_names(world: World, name: str, said: str) -> None:
    assert said in world.refusal(name)
    assert world.hub.downloads == []


def test_import_is_light() -> None:
    script = (
        "import engine.models, sys; "
        "assert not {'numpy', 'faster_whisper', 'ctranslate2', 'huggingface_hub', 'tqdm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)
