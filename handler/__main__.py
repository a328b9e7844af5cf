"""`python -m handler`: the serverless worker.

The model begins to load, in a process of its own, before this one imports what is heavy (voice activity, the SDK):
so the two overlap, and a cold worker has its first result earlier.
"""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":
    if "RUNPOD_WEBHOOK_GET_JOB" in os.environ:
        # At the very beginning, as the imports take a second: no job is taken yet, so the end is a clean one. A
        # container's first process would not even hear the signal without a handler, and take jobs until it is
        # killed. `serve` puts its own in the place of this one.
        signal.signal(signal.SIGTERM, lambda _signum, _frame: os._exit(0))
    elif os.getpid() == 1:
        # A local job in a container: what is not done is not done, hence the status of a process that SIGTERM ended.
        signal.signal(signal.SIGTERM, lambda signum, _frame: os._exit(128 + signum))
    # The image's entry point holds it back until here.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

# One thread for BLAS: this process multiplies small matrices only, and spinning threads would take the cores
# from the engine. Must stand before numpy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import concurrent.futures
import contextlib
import logging
import sys
from collections.abc import Sequence

from engine.errors import ConfigError, DrainingError
from engine.logs import configure_logging
from engine.settings import Settings, load_settings, unknown_variables
from handler.bridge import EngineLoop
from handler.models import ModelList, ModelPool, model_list
from handler.s3 import S3Config
from handler.sdk_import import SECRET_VARIABLES
from handler.sdk_shutdown import leave
from handler.sources import PARALLEL_SOURCES

EXIT_CONFIG = 2
SDK_PACKAGES = ("runpod", "aiohttp")
STOP_LIMIT_S = 1.0
"""What engines get to end; with the SDK's drain before it the process is gone within 8 s of SIGTERM."""
HELP = """\
usage: python -m handler [--test_input JSON] [--rp_serve_api [--rp_api_port PORT]]

The RunPod Serverless worker: takes jobs from the endpoint's queue, a superset of worker-faster_whisper.
Outside RunPod it does the job in test_input.json, prints the answer and exits.

examples:
  python -m handler                                            the job in ./test_input.json, demo model, no network
  python -m handler --test_input '{"input": {"audio": "https://example.org/talk.mp3"}}'
  WHISPER_MODEL=turbo python -m handler --rp_serve_api         RunPod's local HTTP API on http://localhost:8000
  python -m handler.schema                                     JSON Schema of a job's input

Settings come from the environment or .env: WHISPER_MODEL, WHISPER_MODELS, CONCURRENCY, HANDLER_STREAM,
STRICT_COMPAT, MAX_AUDIO_S and more; README.md lists them.
exit status: 0 drained or the local job is done, 1 it failed, or no model, 2 settings, 70 the engine is down
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the worker; returns the exit status."""
    if {"-h", "--help"} & set(sys.argv[1:] if argv is None else argv):
        sys.stdout.write(HELP)
        return 0
    try:
        # It listens nowhere, so it needs no secret of its own.
        settings = load_settings({"host": "127.0.0.1"})
        models = model_list(settings)
        configure_logging(settings.log_format, settings.log_level, _secrets(settings))
        for warning in unknown_variables(os.environ):
            logging.getLogger("handler").warning("%s", warning)
        store = S3Config.from_settings(settings)
        with EngineLoop() as loop:
            pool = loop.run(_loading_pool(settings, models))
            try:
                return _serve(settings, pool, store, loop)
            finally:
                stop_models(pool, loop)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_CONFIG
    except ModuleNotFoundError as error:
        if error.name not in SDK_PACKAGES:
            raise
        sys.stderr.write(f"error: {error.name} is missing: install the extra `serverless`, as `make job` does\n")
        return EXIT_CONFIG


def _serve(settings: Settings, pool: ModelPool, store: S3Config | None, loop: EngineLoop) -> int:
    # Here and not above: these take most of a second, in which the engine loads.
    from engine.decode import DecodeLimits, MediaDecoder

    limits = DecodeLimits(max_duration_s=settings.max_audio_s, max_input_bytes=settings.max_download_bytes)
    with MediaDecoder(limits, max_children=settings.concurrency * PARALLEL_SOURCES) as decoder:
        decoder.warm_up()
        from handler.fetch import Fetcher, FetchLimits
        from handler.job import JobRunner
        from handler.results import Delivery
        from handler.safe_json import to_safe
        from handler.upload import Uploader
        from handler.worker import serve

        runner = JobRunner(
            settings,
            pool,
            decoder,
            Fetcher(FetchLimits.from_settings(settings)),
            Delivery(Uploader(allow_private=settings.allow_private_urls), store, settings.max_result_bytes),
        )
        return serve(runner.run, settings, loop=loop, check=pool.check, to_safe=to_safe, wait_fatal=pool.wait_fatal)


def stop_models(pool: ModelPool, loop: EngineLoop, limit_s: float = STOP_LIMIT_S) -> None:
    """Unload the models; what takes longer than `limit_s` ends with the process, and changes no exit status."""
    with contextlib.suppress(concurrent.futures.TimeoutError, DrainingError):
        loop.run(pool.stop(), limit_s)


async def _loading_pool(settings: Settings, models: ModelList) -> ModelPool:
    pool = ModelPool(settings, models)
    pool.preload()
    return pool


def _secrets(settings: Settings) -> list[str]:
    hidden = (settings.auth_token, settings.bucket_access_key_id, settings.bucket_secret_access_key)
    keys = (os.environ.get(name) for name in SECRET_VARIABLES)
    return [*(secret.get_secret_value() for secret in hidden if secret), *(key for key in keys if key)]


if __name__ == "__main__":
    leave(main())
