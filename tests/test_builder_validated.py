"""The record of images that ran on a GPU: what counts as the same image, and what a deploy is told."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from builder.ec2.validated import MAX_DIGESTS, check_validated, digest_of, record_validated, validation_of
from builder.errors import NotValidatedError, UsageError
from builder.runtime import Runtime, World
from tests.fakes.runpod.clock import PlaneClock

IMAGE = "someone/whisper-runpod:v1"
DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
ENTRY = {"image": IMAGE, "at": "2026-01-01T00:00:00Z", "instance_type": "g4dn.xlarge", "checks": ["/ready", "speech"]}


class Said:
    """A run whose words to the user are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stderr = io.StringIO()
        self.run = Runtime(World({}, folder, clock=PlaneClock(), stdout=io.StringIO(), stderr=self.stderr))

    @property
    def text(self) -> str:
        return self.stderr.getvalue()

    def put(self, name: str, document: Any) -> None:
        (self.folder / "artifacts").mkdir(exist_ok=True)
        (self.folder / "artifacts" / f"{name}.json").write_text(json.dumps(document))


@pytest.fixture
def said(tmp_path: Path) -> Said:
    return Said(tmp_path)


def test_an_image_that_was_pushed_and_tried_is_known_with_its_trial(said: Said) -> None:
    said.put("push", {"image": IMAGE, "digest": DIGEST})
    said.put("validated", {"digests": {DIGEST: ENTRY}})
    assert check_validated(said.run, IMAGE, required=False) == DIGEST
    assert check_validated(said.run, IMAGE, required=True) == DIGEST
    assert "g4dn.xlarge" in said.text and "2026-01-01T00:00:00Z" in said.text and "/ready, speech" in said.text
    assert "warning" not in said.text


def test_a_digest_in_the_reference_counts_whatever_was_pushed(said: Said) -> None:
    said.put("push", {"image": IMAGE, "digest": OTHER})
    said.put("validated", {"digests": {DIGEST: ENTRY}})
    assert check_validated(said.run, f"{IMAGE}@{DIGEST}", required=True) == DIGEST
    assert check_validated(said.run, f"another/name@{DIGEST}", required=True) == DIGEST


@pytest.mark.parametrize(
    ("push", "validated"),
    [
        (None, {"digests": {DIGEST: {**ENTRY, "image": "another/name:v1"}}}),
        ({"image": "someone/whisper-runpod:v2", "digest": DIGEST}, {"digests": {DIGEST: {**ENTRY, "image": "x:v2"}}}),
        ({"image": IMAGE, "digest": OTHER}, {"digests": {}}),
        ({"image": IMAGE, "digest": None}, {"digests": {}}),
        ({"image": IMAGE, "digest": "sha256:short"}, {"digests": {"sha256:short": ENTRY}}),
        ({"image": "NOT AN IMAGE", "digest": DIGEST}, {"digests": {DIGEST: {**ENTRY, "image": "x:v1"}}}),
        ({"image": IMAGE, "digest": DIGEST}, None),
        ({"image": IMAGE, "digest": DIGEST}, {"digests": {}}),
        ({"image": IMAGE, "digest": DIGEST}, {"digests": []}),
        ({"image": IMAGE, "digest": DIGEST}, {"digests": {DIGEST: "yes"}}),
        ({"image": IMAGE, "digest": DIGEST}, {"digest": DIGEST}),
    ],
)
def test_an_image_that_is_not_known_to_have_run_is_warned_of_or_refused(said: Said, push: Any, validated: Any) -> None:
    if push is not None:
        said.put("push", push)
    if validated is not None:
        said.put("validated", validated)
    assert check_validated(said.run, IMAGE, required=False) is None
    assert f"warning: {IMAGE} was never tried on a GPU" in said.text and "ec2 launch" in said.text
    with pytest.raises(NotValidatedError, match="never tried on a GPU") as caught:
        check_validated(said.run, IMAGE, required=True)
    assert (caught.value.code, caught.value.exit_code) == ("not_validated", 1)
    assert "ec2 run" in caught.value.hint


@pytest.mark.parametrize("push", [None, {"image": IMAGE, "digest": OTHER}])
def test_a_tag_that_was_tried_and_may_have_moved_is_told_with_its_digest(said: Said, push: Any) -> None:
    said.put("validated", {"digests": {DIGEST: ENTRY, "nonsense": ENTRY}})
    if push is not None:
        said.put("push", push)
    assert check_validated(said.run, IMAGE, required=False) is None
    assert "not certain" in said.text and f"--image someone/whisper-runpod@{DIGEST}" in said.text
    with pytest.raises(NotValidatedError) as caught:
        check_validated(said.run, IMAGE, required=True)
    assert f"@{DIGEST}" in caught.value.hint
    assert check_validated(said.run, f"someone/whisper-runpod@{DIGEST}", required=True) == DIGEST


@pytest.mark.parametrize("text", ["{", "[]", "\xff\xfe", '{"digests": ' + "[" * 5000])
def test_a_damaged_record_counts_as_none(said: Said, text: str) -> None:
    said.put("push", {"image": IMAGE, "digest": DIGEST})
    (said.folder / "artifacts" / "validated.json").write_bytes(text.encode("latin-1"))
    assert check_validated(said.run, IMAGE, required=False) is None
    with pytest.raises(NotValidatedError):
        check_validated(said.run, IMAGE, required=True)


def test_a_reference_that_is_none_is_wrong_usage(said: Said) -> None:
    for image in ("", "NOT AN IMAGE", "name@sha256:12"):
        with pytest.raises(UsageError):
            check_validated(said.run, image, required=False)
        with pytest.raises(UsageError):
            digest_of(said.run, image)


def test_what_is_recorded_is_found_and_private(said: Said) -> None:
    record_validated(said.run, DIGEST, image=IMAGE, instance_type="g5.xlarge", checks=["/ready"])
    path = said.folder / "artifacts" / "validated.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert check_validated(said.run, f"{IMAGE}@{DIGEST}", required=True) == DIGEST
    event = list(said.run.state.events())[-1]
    assert (event["action"], event["type"], event["resource_id"], event["provider"]) == (
        "validated", "image", DIGEST, "aws",
    )  # fmt: skip


def test_another_trial_of_the_same_image_adds_to_what_it_passed(said: Said) -> None:
    record_validated(said.run, DIGEST, image=IMAGE, instance_type="g4dn.xlarge", checks=["job"])
    record_validated(said.run, DIGEST, image=IMAGE, instance_type="g5.xlarge", checks=["/ready", "job"])
    found = validation_of(said.run, DIGEST)
    assert found is not None
    assert (found["checks"], found["instance_type"]) == (["job", "/ready"], "g5.xlarge")


def test_the_oldest_records_are_forgotten_beyond_the_limit(said: Said) -> None:
    for number in range(MAX_DIGESTS + 1):
        record_validated(said.run, f"sha256:{number:064x}", image=IMAGE, instance_type="g4dn.xlarge", checks=["job"])
        if number == MAX_DIGESTS - 1:
            assert validation_of(said.run, f"sha256:{0:064x}") is not None
    assert validation_of(said.run, f"sha256:{0:064x}") is None
    assert validation_of(said.run, f"sha256:{1:064x}") is not None


def test_a_record_that_was_damaged_is_made_anew(said: Said) -> None:
    said.put("validated", {"digests": "none"})
    record_validated(said.run, DIGEST, image=IMAGE, instance_type="g4dn.xlarge", checks=["job"])
    assert validation_of(said.run, DIGEST) is not None
