"""A replica of worker-faster_whisper's way to start and to do one job: `python -m bench.worker_replica`.

Our own few lines: the same imports, a handler that is no coroutine, input checked by the SDK's validator, audio
written to a temporary file, and the model loaded by the first job. The model's directory comes from
REPLICA_MODEL_DIR, where the original has a table of names. For the benchmark of starts; knows nothing of ours.
"""

from __future__ import annotations

import base64
import os
import sys
import tempfile
import threading
from typing import Any

import runpod
from faster_whisper import WhisperModel
from runpod.serverless.utils import download_files_from_urls, rp_cleanup, rp_cuda
from runpod.serverless.utils.rp_validator import validate

from bench.worker_options import WORKER_OPTIONS

__all__ = ["main"]

MODEL_DIR = "REPLICA_MODEL_DIR"
SCHEMA: dict[str, Any] = {
    "audio": {"type": str, "required": False, "default": None},
    "audio_base64": {"type": str, "required": False, "default": None},
    "model": {"type": str, "required": False, "default": "base"},
    "language": {"type": str, "required": False, "default": None},
}


class _Predictor:
    """One model at a time, loaded when a job needs it."""

    def __init__(self) -> None:
        self._models: dict[str, WhisperModel] = {}
        self._lock = threading.Lock()

    def predict(self, path: str, model_name: str, language: str | None) -> dict[str, Any]:
        with self._lock:
            if model_name not in self._models:
                self._models.clear()
                on_gpu = rp_cuda.is_available()
                self._models[model_name] = WhisperModel(
                    os.environ[MODEL_DIR],
                    device="cuda" if on_gpu else "cpu",
                    compute_type="float16" if on_gpu else "int8",
                )
            model = self._models[model_name]
        found, info = model.transcribe(path, language=language, **WORKER_OPTIONS)
        segments = list(found)
        return {
            "segments": [
                {
                    "id": each.id,
                    "seek": each.seek,
                    "start": each.start,
                    "end": each.end,
                    "text": each.text,
                    "tokens": each.tokens,
                    "temperature": each.temperature,
                    "avg_logprob": each.avg_logprob,
                    "compression_ratio": each.compression_ratio,
                    "no_speech_prob": each.no_speech_prob,
                }
                for each in segments
            ],
            "detected_language": info.language,
            "transcription": " ".join(each.text.lstrip() for each in segments),
            "translation": None,
            "device": model.model.device,
            "model": model_name,
        }


_predictor = _Predictor()


def handle(job: dict[str, Any]) -> dict[str, Any]:
    """Do one job, on the SDK's event loop as the original does."""
    checked = validate(job["input"], SCHEMA)
    if "errors" in checked:
        return {"error": checked["errors"]}
    job_input = checked["validated_input"]
    if job_input["audio"]:
        path = download_files_from_urls(job["id"], [job_input["audio"]])[0]
    else:
        with tempfile.NamedTemporaryFile(suffix=".wav", delete=False) as file:
            file.write(base64.b64decode(job_input["audio_base64"]))
        path = file.name
    result = _predictor.predict(path, job_input["model"], job_input["language"])
    rp_cleanup.clean(["input_objects"])
    return result


def main() -> int:
    """Take jobs until killed."""
    runpod.serverless.start({"handler": handle})
    return 0


if __name__ == "__main__":
    sys.exit(main())
