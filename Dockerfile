# What Dockerfile.slim builds, and on request real weights (WHISPER_MODELS) and onnxruntime on the GPU (WITH_ORT_GPU=1).
# Every line of Dockerfile.slim is also here, in the same order; a test compares them.
# The base is Debian with CPython 3.11 to 3.13, or without Python: then it is installed. `make pin-base` adds a digest.
ARG BASE_IMAGE=python:3.12-slim-bookworm

# --- base: what the other stages stand on ------------------------------------------------------------------------
# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS base
# Versions of Debian's packages are the base's business, so they are not pinned here.
# hadolint ignore=DL3008
RUN set -eu; \
    set --; \
    command -v python3 >/dev/null || set -- python3; \
    dpkg --status ca-certificates >/dev/null 2>&1 || set -- "$@" ca-certificates; \
    if [ $# -gt 0 ]; then \
        apt-get update; \
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"; \
        apt-get clean; \
        rm -rf /var/lib/apt/lists/* /var/cache/ldconfig/aux-cache /var/log/apt /var/log/*.log; \
    fi; \
    python3 -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("needs Python 3.11-3.13")'; \
    groupadd --gid 10001 app; \
    useradd --uid 10001 --gid app --create-home --no-log-init --shell /usr/sbin/nologin app

# --- models: weights by revision and checksum; what has none fails here ------------------------------------------
FROM base AS models
COPY tools/bake_models.py requirements/models.json /build/
COPY engine/demo_model/model /build/engine/demo_model/model
# Names of requirements/models.json, or NAME=OWNER/REPOSITORY@REVISION:MANIFEST, separated by commas.
ARG WHISPER_MODELS=""
ARG HF_ENDPOINT=https://huggingface.co
RUN python3 /build/bake_models.py --models "$WHISPER_MODELS" --to /models \
        --table /build/models.json --root /build --hub "$HF_ENDPOINT"

# --- build: the environment and the code, byte-compiled; pip stays behind -----------------------------------------
FROM base AS build
# hadolint ignore=DL3008
RUN set -eu; \
    python3 -c 'import ensurepip' 2>/dev/null || { \
        apt-get update; \
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-venv; \
        rm -rf /var/lib/apt/lists/*; \
    }; \
    python3 -m venv /build/pip; \
    python3 -m venv --without-pip /opt/venv
COPY requirements/image.lock tools/check_onnxruntime.py /build/
COPY requirements/image-ort-gpu.lock /build/
ARG WITH_ORT_GPU=0
RUN set -eu; \
    lock=/build/image.lock; gpu=0; \
    case "$WITH_ORT_GPU" in \
        0) ;; \
        1) lock=/build/image-ort-gpu.lock; gpu=1 ;; \
        *) echo "WITH_ORT_GPU: '$WITH_ORT_GPU' is not legal; legal: 0, 1" >&2; exit 2 ;; \
    esac; \
    /build/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --progress-bar off --no-compile --no-deps --only-binary=:all: --require-hashes --requirement "$lock"; \
    /opt/venv/bin/python /build/check_onnxruntime.py "$gpu"; \
    # Packages' own tests are imported by nothing, static libraries are for compilers, and NVRTC's second build (114 MB)
    # is for programs that ask for it by its name. Of the services that botocore describes (28 MB), only S3 is used,
    # and what it asks for credentials.
    find /opt/venv -depth -type d -name tests -exec rm -rf {} +; \
    find /opt/venv -type f \( -name '*.a' -o -name 'libnvrtc*.alt.so.*' \) -delete; \
    find /opt/venv -path '*/botocore/data/*' -prune -type d ! -name s3 ! -name sts ! -name signin ! -name sso \
        ! -name sso-oidc -exec rm -rf {} +; \
    find /opt/venv -type d -path '*/site-packages/nvidia/*/lib' >/build/nvidia.conf; \
    # Files of an image never change: Python need not look whether the source is newer.
    /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib
COPY LICENSE test_input.json entrypoint.py /app/
COPY engine /app/engine
COPY realtime /app/realtime
COPY handler /app/handler
RUN set -eu; \
    chmod -R u=rwX,go=rX /app; \
    /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /app

# --- the image ----------------------------------------------------------------------------------------------------
FROM base AS image
# cuBLAS comes in a wheel, whose folder the loader does not know by itself.
COPY --from=build /build/nvidia.conf /etc/ld.so.conf.d/nvidia-wheels.conf
COPY --from=build /opt/venv /opt/venv
RUN ldconfig && rm -f /var/cache/ldconfig/aux-cache
COPY --from=models /models /app/models
COPY --from=build /app /app

# Libraries report to nobody: huggingface_hub and onnxruntime do it unless told not to.
# Nobody outside a container reaches its loopback, hence WHISPERLIVE_HOST; without a secret the server refuses to start.
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    WHISPERLIVE_HOST=0.0.0.0 \
    BAKED_MODELS_DIR=/app/models \
    HF_HUB_DISABLE_TELEMETRY=1 \
    ORT_DISABLE_TELEMETRY=1 \
    DO_NOT_TRACK=1

WORKDIR /app
# The account app, by number: some hosts refuse an image whose user they would have to look up.
USER 10001:10001
EXPOSE 9090 9999
HEALTHCHECK --interval=30s --timeout=5s --start-period=180s --retries=3 \
    CMD ["/opt/venv/bin/python", "-m", "engine.healthcheck"]
ENTRYPOINT ["/opt/venv/bin/python", "-u", "/app/entrypoint.py"]

# Last, because they differ in every build. `builder build` gives GIT_SHA.
ARG VERSION=0.1.0
ARG GIT_SHA=unknown
LABEL org.opencontainers.image.title="whisper-runpod" \
    org.opencontainers.image.description="Self-hosted live speech-to-text for a rented GPU" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${GIT_SHA}"
