# Every target installs what it needs into .venv: uv if it is there, else pip.
# A newcomer needs `make demo` and `make test`; `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo serve job builder fake-runpod fuzz chaos test lint types format bench bench-live bench-files bench-start bench-cli bench-gpu simulate soak soak-files fuzz-media roofline image-slim image-full image-check lock pin-base pin-models env-template clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

demo: $(VENV)/.run  ## start the server, stream a sample with live captions, check the transcript
	$(BIN)/python -m realtime.demo

serve: $(VENV)/.run  ## start the server on 127.0.0.1:9090 (ARGS="--port 9100 ..." adds options)
	$(BIN)/python -m realtime $(ARGS)

job: $(VENV)/.serverless  ## do the job in test_input.json as the serverless worker does it (ARGS="--test_input ...")
	$(BIN)/python -m handler $(ARGS)

builder: $(VENV)/.builder  ## deploy, watch and stop pods (ARGS="deploy --image ..."; without: the verbs)
	$(BIN)/python -m builder $(if $(ARGS),$(ARGS),--help)

fake-runpod: $(VENV)/.dev  ## a RunPod on this machine to try the builder on without paying
	$(BIN)/python -m tests.fakes.runpod $(ARGS)

fuzz: $(VENV)/.dev  ## the properties with examples nobody has tried yet (3 minutes a round)
	FUZZ=1 $(BIN)/python -m pytest -n 2 $$(grep -l hypothesis tests/test_*.py) $(ARGS)

chaos: $(VENV)/.dev  ## 2000 seeds of random faults over pods, endpoints and EC2: nothing paid for may be lost sight of
	CHAOS_SEEDS=$${CHAOS_SEEDS:-2000} $(BIN)/python -m pytest -s tests/test_builder_chaos*.py $(ARGS)

# What depends on time runs alone. Of the rest, the builder lives in virtual time, and bears company better.
test: $(VENV)/.dev .venv-peer/.done  ## run the tests (ARGS="-k name": only those, one after the other)
ifeq ($(ARGS),)
	$(BIN)/python -m pytest -n 4 --dist loadfile tests/test_builder_*.py tests/test_fake_*.py tests/test_image_*.py
	$(BIN)/python -m pytest -n 2 --dist loadfile $(addprefix --ignore-glob=*/test_,$(addsuffix _*,live builder fake image))
	$(BIN)/python -m pytest tests/test_live_*.py
else
	$(BIN)/python -m pytest $(ARGS)
endif

lint: $(VENV)/.dev  ## ruff: rules and format; hadolint on the Dockerfiles, shellcheck on the scripts where it is installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint Dockerfile Dockerfile.slim
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run tools/*.sh; else echo "no shellcheck: scripts are not checked"; fi

types: $(VENV)/.dev  ## mypy, strict
	$(BIN)/mypy

format: $(VENV)/.dev  ## apply ruff's format and safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.run  ## four live clients at once against the demo model: lateness, word errors
	$(BIN)/python -m bench.live --clients 4 $(ARGS)

bench-live: $(VENV)/.bench .venv-peer-server/.done  ## this server and WhisperLive side by side: streams, latency, CPU (45 minutes)
	$(BIN)/python -m bench.side_by_side $(ARGS)

bench-files: $(VENV)/.run  ## files: faster-whisper's pipelines and ours, same model, same run (4 minutes)
	$(BIN)/python -m bench.files $(ARGS)

bench-start: $(VENV)/.serverless  ## worker: process start to first result, beside a replica of worker-faster_whisper (1 minute)
	$(BIN)/python -m bench.startup $(ARGS)

bench-cli: $(VENV)/.dev  ## how long `python -m builder --help` takes beside an empty typer app
	$(BIN)/python -m bench.cli_start $(ARGS)

bench-gpu: $(VENV)/.run  ## measure this machine's GPU: random weights in true shapes
	@$(call install,.[cuda])
	$(BIN)/python -m bench.gpu --output bench/results/gpu.json $(ARGS)

simulate: $(VENV)/.run  ## live streams on modelled GPUs, in virtual time (7 minutes)
	$(BIN)/python -m bench.simulate --gpu L40S,H100 --window-pad 10,30 $(ARGS)

soak: $(VENV)/.run  ## two hours of streams in virtual time, 10000 sessions: nothing slower, nothing left (2 minutes)
	$(BIN)/python -m bench.soak $(ARGS)

soak-files: $(VENV)/.run  ## a recording of three hours: memory must not follow its length (3 minutes)
	$(BIN)/python -m bench.soak_files $(ARGS)

fuzz-media: $(VENV)/.run  ## damaged media files through the decoder
	$(BIN)/python -m bench.fuzz_media $(ARGS)

roofline: $(VENV)/.run  ## physical limit of streams per GPU
	$(BIN)/python -m bench.roofline $(ARGS)

image-slim:  ## build the slim image with docker (ARGS="--build-arg BASE_IMAGE=...")
	docker build -f Dockerfile.slim -t whisper-runpod:slim --build-arg GIT_SHA=$$(git rev-parse HEAD) $(ARGS) .

image-full:  ## build the full image with docker (WHISPER_MODELS=turbo,small.en WITH_ORT_GPU=1)
	docker build -f Dockerfile -t whisper-runpod:full --build-arg GIT_SHA=$$(git rev-parse HEAD) \
		--build-arg WHISPER_MODELS='$(WHISPER_MODELS)' --build-arg WITH_ORT_GPU=$(or $(WITH_ORT_GPU),0) $(ARGS) .

image-check: $(VENV)/.dev .venv-peer-server/.done  ## build both images, with docker or buildah, and run them: live, job, balancer, SIGTERM, read-only, secrets, sizes
	$(BIN)/python tools/image_check.py $(ARGS)

lock:  ## renew the images' lock files (hashes of every package)
	tools/lock_images.sh $(ARGS)

pin-base:  ## put the base image's digest into the Dockerfiles, if the registry can be reached
	$(PYTHON) -m tools.pin_base $(ARGS)

pin-models:  ## put revisions and checksums into requirements/models.json, if the hub can be reached
	$(PYTHON) -m tools.pin_models $(ARGS)

env-template: $(VENV)/.run  ## write .env.template from the settings table
	$(BIN)/python -m engine.settings > .env.template

clean:  ## remove the environment and caches
	rm -rf $(VENV) .venv-peer .venv-peer-server .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.run: pyproject.toml
	@$(call install,.)
	@touch $@

$(VENV)/.dev: pyproject.toml
	@$(call install,.[dev])
	@touch $@ $(VENV)/.run

$(VENV)/.serverless: pyproject.toml
	@$(call install,.[serverless])
	@touch $@ $(VENV)/.run

$(VENV)/.builder: pyproject.toml
	@$(call install,.[builder])
	@touch $@ $(VENV)/.run

$(VENV)/.bench: pyproject.toml
	@$(call install,.[bench])
	@touch $@ $(VENV)/.run

define install
if command -v uv >/dev/null 2>&1; then \
	[ -x $(BIN)/python ] || uv venv --quiet --seed --python $(PYTHON) $(VENV); \
	uv pip install --quiet --python $(BIN)/python --editable '$(1)'; \
else \
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '$(1)'; \
fi
endef

# The peer whose client must keep working, in an environment of its own: without its dependencies
# (torch and a GPU stack), plus what its client module imports; PyAudio is replaced by an empty module.
.venv-peer/.done: Makefile
	@$(PYTHON) -m venv .venv-peer
	@if .venv-peer/bin/python -m pip install --quiet --disable-pip-version-check --no-deps whisper-live==0.10.0 && \
	    .venv-peer/bin/python -m pip install --quiet --disable-pip-version-check numpy scipy av websocket-client; then \
		touch "$$(.venv-peer/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pyaudio.py" $@; \
	else echo "whisper-live could not be installed: the test of its client will be skipped"; fi

# The peer of the side-by-side benchmark, in an environment of its own (1.5 GB with a CPU build of torch): its
# server, installed without its dependencies (three speech engines and a GPU stack), plus what that server imports.
.venv-peer-server/.done: bench/peer/requirements.txt
	@rm -f $@
	@$(PYTHON) -m venv .venv-peer-server
	@.venv-peer-server/bin/python -m pip install --quiet --disable-pip-version-check -r bench/peer/requirements.txt
	@.venv-peer-server/bin/python -m pip install --quiet --disable-pip-version-check --no-deps whisper-live==0.10.0
	@.venv-peer-server/bin/python -c 'import whisper_live.server'
	@touch $@
