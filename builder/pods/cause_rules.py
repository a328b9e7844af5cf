"""The rules of `builder.pods.causes`: pattern, kind, cause, remedy. Data; the first rule that matches a line wins."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["RULES", "Confidence", "Kind", "Rule"]

Kind = Literal[
    "CAPACITY",  # no machine is free
    "PLACEMENT",  # none where it was asked for
    "TRANSIENT",  # passes by itself
    "IMAGE",  # the container image cannot be had, or not be run
    "HOST_CUDA",  # the host's driver is too old for the image, or the image for the GPU
    "HOST",  # the machine is broken
    "CUDNN",  # CUDA libraries are missing in the image
    "BUDGET",  # no credit
    "SCHEMA",  # the API rejects the request
    "DISK",  # a disk is full
    "GPU_MEMORY",  # the model does not fit
    "MEMORY",  # killed for its memory
    "MODULE",  # a Python package or a library is missing in the image
    "MODEL",  # the model cannot be had
    "PORT",  # nothing listens, or something else does
    "TOKEN",  # the pod refuses the client's token
    "KEY",  # RunPod refuses the API key
    "RATE",  # too many requests
    "SPOT",  # taken away
    "STOPPED",  # stopped itself, at its deadline or because nobody used it
]
Confidence = Literal["high", "medium", "low"]


@dataclass(frozen=True)
class Rule:
    """One text that failures are known by."""

    pattern: re.Pattern[str]
    kind: Kind
    cause: str
    remedy: str
    is_final: bool = True
    confidence: Confidence = "high"


def _rule(
    kind: Kind, pattern: str, cause: str, remedy: str, *, is_final: bool = True, confidence: Confidence = "high"
) -> Rule:
    return Rule(re.compile(pattern, re.IGNORECASE), kind, cause, remedy, is_final, confidence)


def _code(digits: str) -> str:
    """A number that is told as a status or close code; any other number is anybody's."""
    return rf"\b(http|status|code|error|received|returned|got)\W{{0,3}}(code\W{{0,2}})?{digits}\b|^\W*{digits}\b(?! ms)"


_PULL_NAME = "check the name and tag, and that it was pushed: python -m builder push"
_PULL_LOGIN = "store a credential in RunPod and name it in RUNPOD_REGISTRY_ID"

RULES: tuple[Rule, ...] = (
    _rule(
        "DISK",
        r"no space left on device|disk quota exceeded|\bENOSPC\b|(insufficient|not enough|out of)( free)? disk",
        "the disk is full",
        "raise RUNPOD_CONTAINER_DISK_GB (image, model and a tenth to spare), then: python -m builder deploy --replace",
    ),
    _rule(
        "HOST_CUDA",
        r"unsatisfied condition: *(cuda|brand|driver)|forward compatibility was attempted"
        r"|driver version is insufficient|nvidia driver on your system is too old"
        r"|system has unsupported display driver",
        "the host's NVIDIA driver is too old for the image's CUDA",
        "deploy again with a higher CUDA floor, so that older hosts are left out: python -m builder deploy --replace",
    ),
    _rule(
        "HOST_CUDA",
        r"no kernel image is available|not compatible with the current PyTorch installation"
        r"|(sm_\d+|compute capability).*not (compatible|supported)",
        "the image's CUDA libraries do not know this GPU",
        "use an image built for it, or another GPU (RUNPOD_GPU_TYPE)",
    ),
    _rule(
        "HOST",
        r"driver/library version mismatch|fallen off the bus|\bXid\b.*\d|uncorrectable ECC|GPU is lost"
        r"|no CUDA-capable device|nvidia-container-cli: (initialization|device|detection) error|unknown device.*nvidia"
        r"|CUDA unknown error|could not select device driver",
        "the host's GPU or driver does not work",
        "get another host: python -m builder deploy --replace",
    ),
    _rule(
        "GPU_MEMORY",
        r"cuda.{0,40}out of memory|out of memory.{0,40}cuda|cudaErrorMemoryAllocation|CUBLAS_STATUS_ALLOC_FAILED"
        r"|CUDNN_STATUS_ALLOC_FAILED|(gpu|device|vram).{0,20}(is )?out of memory",
        "the model does not fit into the GPU's memory",
        "use WHISPER_COMPUTE_TYPE=int8_float16, a smaller WHISPER_MODEL, or a GPU with more memory",
    ),
    _rule(
        "CUDNN",
        r"cudnnCreate\w+|CUDNN_STATUS_(NOT_INITIALIZED|SUBLIBRARY\w+|VERSION_MISMATCH)"
        r"|(could not|cannot|can't|unable|not found|error|fail|invalid|no such).*lib(cudnn|cublas|cudart|cufft|curand)"
        r"|lib(cudnn|cublas|cudart|cufft|curand).*(could not|cannot|can't|unable|not found|error|fail|invalid|no such)",
        "a CUDA library is missing in the image, or of another version",
        "rebuild the image on this project's Dockerfile: python -m builder build, then push and deploy --replace",
    ),
    _rule(
        "MEMORY",
        r"oom[-_ ]?kill|out of memory: killed|memory cgroup out of memory|exit(ed)?( with)?( code| status)?[ :=(]*137\b"
        r"|cannot allocate memory|std::bad_alloc|^\s*MemoryError\b|exceeded.{0,20}memory limit",
        "the process was killed: the machine's memory does not suffice",
        "use a smaller WHISPER_MODEL, or a GPU that comes with more memory",
    ),
    _rule(
        "MODEL",
        r"RepositoryNotFoundError|GatedRepoError|LocalEntryNotFoundError|RevisionNotFoundError|Invalid model size"
        r"|Unable to open file.{0,40}model\.bin|unsupported model binary version"
        r"|(model|download).*(hugging ?face|hf\.co)"
        r"|hugging ?face.{0,80}(error|fail|not found|unreachable|timed out|max retries)|download into \S+ failed"
        r"|no (speech )?model (named|called|at)\b|model \S+ is not (known|available)",
        "the server cannot get its model",
        "check WHISPER_MODEL: a size like small.en, or a name at Hugging Face that is public",
    ),
    _rule(
        "IMAGE",
        r"toomanyrequests|pull rate limit|rate limit.{0,40}pull",
        "the registry limits anonymous downloads of images, and the host has used them up",
        _PULL_LOGIN,
    ),
    _rule(
        "IMAGE",
        r"no matching manifest|does not match the (specified|detected) (platform|host)|exec format error"
        r"|image operating system .* cannot be used",
        "the image was built for another kind of processor",
        "build for linux/amd64: python -m builder build",
    ),
    _rule(
        "IMAGE",
        r"access denied|access to the resource is denied|no basic auth credentials|denied: requested"
        r"|(pull|registry|docker|ghcr|image).*(unauthorized|authentication required|incorrect username|403 forbidden)"
        r"|unauthorized: (authentication|incorrect)",
        "the registry refuses the image: it is private, or its name is wrong",
        f"{_PULL_NAME}; if it is private, {_PULL_LOGIN}",
    ),
    _rule(
        "IMAGE",
        r"manifest( for \S+)?( is)? (unknown|not found|invalid)|not found: manifest|no such image|name unknown"
        r"|repository.{0,80} (not found|does not exist)(?!.*hugging)|docker\.io/\S+: not found"
        r"|failed to resolve reference"
        r"|image \S+ not found",
        "there is no such image",
        _PULL_NAME,
    ),
    _rule("IMAGE", r"invalid reference format|invalid image name", "that is no name of an image", _PULL_NAME),
    _rule(
        "TRANSIENT",
        r"(pull|registry|docker).*(tls handshake timeout|i/o timeout|connection reset|\bEOF\b|context deadline"
        r"|request canceled|client\.timeout|\b50[0234]\b|service unavailable|bad gateway|gateway time-?out)",
        "the download of the image was interrupted; the host tries again",
        "wait on; if it lasts, get another host: python -m builder deploy --replace",
        is_final=False,
        confidence="medium",
    ),
    _rule(
        "IMAGE",
        r"fail(ed|ure)?( to| in)? (pull|download|extract)\w*.{0,20}image|error pulling image"
        r"|image ?pull ?(failed|back-?off|error)"
        r"|ErrImagePull|failed to register layer|pull(ing)? image.{0,80}(failed|error)|failed to extract layer",
        "the image cannot be downloaded",
        f"{_PULL_NAME}; if it is private, {_PULL_LOGIN}",
        confidence="medium",
    ),
    _rule(
        "IMAGE",
        r"executable file not found|exec: .*(no such file|permission denied)|stat .*no such file or directory: unknown"
        r"|OCI runtime create failed|failed to create (shim|containerd) task",
        "the container cannot be started: the image's start command does not work",
        "rebuild the image on this project's Dockerfile: python -m builder build, then push and deploy --replace",
        confidence="medium",
    ),
    _rule(
        "MODULE",
        r"No module named|ModuleNotFoundError|ImportError: (cannot import|lib)|cannot open shared object file"
        r"|GLIBC\w*_[\d.]+.? not found",
        "a Python package or a library is missing in the image",
        "rebuild the image on this project's Dockerfile: python -m builder build, then push and deploy --replace",
    ),
    _rule(
        "MODEL",
        r"(requested|compute type).{0,60}(int8|float16|bfloat16)\w*.{0,60}(not support|do not support)"
        r"|unsupported compute type",
        "the GPU cannot compute in the number format that was asked for",
        "set WHISPER_COMPUTE_TYPE=auto",
    ),
    _rule(
        "STOPPED",
        r"stopping this pod: |this server ends: "
        r"|(stop|shut)\w*.{0,30}(pod|itself).{0,60}(deadline|idle|no client)"
        r"|(deadline|idle limit).{0,60}(stop|shut)\w*",
        "the pod stopped itself, at its deadline or because nobody used it",
        "start it for longer: python -m builder start --max-minutes N",
    ),
    _rule(
        "SPOT",
        r"outbid|(spot|interruptible).{0,60}(interrupt|reclaim|evict|preempt|taken|lost)"
        r"|(pod|instance) (was )?(preempted|evicted)",
        "the spot pod was taken away: somebody pays more",
        "deploy again, or without --spot: python -m builder deploy --replace",
    ),
    _rule(
        "PORT",
        r"address already in use|Errno 98\b|EADDRINUSE|(port|address).{0,30}(already|in use by)",
        "another program in the container has the port",
        "choose others: WHISPERLIVE_PORT, HEALTH_CHECK_PORT",
    ),
    _rule(
        "TOKEN",
        _code("4401") + r"|refuses the token|(missing|wrong|invalid|bad).{0,20}(auth )?token"
        r"|token.{0,20}(missing|wrong|invalid|mismatch)"
        r"|WebSocket.{0,60}\b(401|403)\b|rejected WebSocket connection: HTTP 40[13]",
        "the pod refuses the client's token",
        "use the token the pod was deployed with (WHISPER_AUTH_TOKEN in .env)",
    ),
    _rule(
        "BUDGET",
        r"(insufficient|not enough|low|no|zero|negative).{0,20}(balance|funds|credit)|spend(ing)? limit"
        r"|payment required"
        r"|" + _code("402") + r"|(balance|credit).{0,30}(too low|exhausted|insufficient)",
        "the account's credit does not suffice, or its spending limit is reached",
        "add credit in RunPod's console (Billing); a new pod needs credit for an hour",
    ),
    _rule(
        "CAPACITY",
        r"no longer any instances|does not have the resources|try a different machine|not enough free GPUs"
        r"|no (more |free )?(machines?|capacity|hosts?|gpus?|instances?)( \w+){0,3} (available|free|left)|out of stock"
        r"|(insufficient|no) capacity|currently unavailable.{0,20}gpu",
        "no machine of this kind is free",
        "name more GPUs (RUNPOD_GPU_TYPE=A,B,C) or RUNPOD_CLOUD_TYPE=ANY; see python -m builder gpus",
        is_final=False,
    ),
    _rule(
        "SCHEMA",
        _code("422")
        + r"|unprocessable|additional propert|missing property|is not one of|unknown field|schema validation"
        r"|does not match pattern|validation failed",
        "the API rejects the request: a field is wrong or unknown to it",
        "compare the API with what this version knows: python -m builder spec diff",
        confidence="medium",
    ),
    _rule(
        "RATE",
        _code("429") + r"|too many requests|rate.?limit(ed|s)?\b",
        "too many requests in a short time",
        "wait a minute, then try again",
        is_final=False,
    ),
    _rule(
        "KEY",
        r"(invalid|bad|missing|expired|revoked|unknown).{0,12}api.?key|\b401\b.{0,40}unauthori[sz]ed"
        r"|unauthori[sz]ed.{0,40}\b401\b"
        r"|^\W*unauthori[sz]ed\W*$|\b403\b.{0,20}forbidden"
        r"|api.?key.{0,40}(invalid|not valid|expired|revoked|permission|forbidden)",
        "RunPod refuses the API key, or the key may not do this",
        "make a key in RunPod's console (Settings, API Keys), then run: python -m builder setup",
        confidence="medium",
    ),
    _rule(
        "PORT",
        r"\b404\b.{0,60}proxy\.runpod|proxy\.runpod\S*.{0,60}\b404\b|port \d+ is not (declared|exposed)",
        "the pod does not declare this port to RunPod's proxy",
        "deploy again with this project's ports: python -m builder deploy --replace",
        confidence="medium",
    ),
    _rule(
        "TRANSIENT",
        _code("5(0[0234]|2[0-7])") + r"|something went wrong|try again later|bad gateway|gateway time-?out"
        r"|service unavailable"
        r"|internal server error|connection (was )?(reset|refused|aborted)|timed out|time-?out\b|name resolution"
        r"|unexpected EOF|TLS handshake|broken pipe",
        "a fault of the network or of RunPod that usually passes",
        "try again in a minute; if it lasts: https://uptime.runpod.io",
        is_final=False,
        confidence="low",
    ),
)
