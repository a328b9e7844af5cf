"""The one error hierarchy, shared by both modes.

    SttError
    ├── ClientError                 the sender can mend it
    │   ├── BadInputError           bad_input       a field has an illegal value
    │   ├── BadJsonError            bad_json        not JSON, or JSON that no peer should send
    │   ├── BadHandshakeError       bad_handshake   the first frame is no JSON object
    │   ├── BadAudioError           bad_audio       bytes that are no audio, or over a decode cap
    │   ├── FetchError              audio_fetch_failed  a job's audio cannot be fetched, or must not be
    │   ├── BadStateError           bad_state       a message at the wrong time
    │   ├── TooBigError             too_big         one message over its size limit
    │   ├── UnauthorizedError       unauthorized    no token, or a wrong one
    │   ├── IdleError               idle            no bytes for too long
    │   ├── SessionLimitError       session_limit   MAX_CONNECTION_TIME is over
    │   └── SlowReaderError         slow_reader     the peer does not read what it asked for
    └── ServerError                 our side
        ├── ResultTooLargeError     result_too_large  no way to hand the result over is left
        ├── StorageError            no_space        a recording cannot be kept on the disk
        ├── UploadError             upload_failed   the store, or the given link, did not take the result
        ├── ResultNotJsonError      result_not_json  a defect: the result holds what JSON cannot
        ├── DeadlineError           deadline        the job's time is over
        ├── ConfigError             bad_config      a setting stops the start
        ├── ModelUnavailableError   no_model        the named model cannot be had
        ├── AtCapacityError         full            an answer, not a fault: come back later
        ├── DrainingError           draining        the process is on its way out
        ├── EngineFailedError       engine_failed   this one decode failed for good
        │   ├── EngineMemoryError   engine_out_of_memory  a batch did not fit; a smaller one may
        │   └── EngineKilledError   engine_killed   the engine dies of this window, every time
        └── EngineRestartError      engine_restart  the engine process died; decode again

Every class carries a stable `code`, whether a retry can help, the HTTP status and the
WebSocket close code (RFC 6455 section 7.4; 4000-4003 are ours, see PROTOCOL.md).
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AtCapacityError",
    "BadAudioError",
    "BadHandshakeError",
    "BadInputError",
    "BadJsonError",
    "BadStateError",
    "ClientError",
    "ConfigError",
    "DeadlineError",
    "DrainingError",
    "EngineFailedError",
    "EngineKilledError",
    "EngineMemoryError",
    "EngineRestartError",
    "FetchError",
    "IdleError",
    "ModelUnavailableError",
    "ResultNotJsonError",
    "ResultTooLargeError",
    "ServerError",
    "SessionLimitError",
    "SlowReaderError",
    "StorageError",
    "SttError",
    "TooBigError",
    "UnauthorizedError",
    "UploadError",
]


class SttError(Exception):
    """Root of all errors that may reach a user; `str(error)` is the message for that user."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    http_status: ClassVar[int] = 500
    close_code: ClassVar[int] = 1011


class ClientError(SttError):
    """The sender did something that only the sender can mend."""

    code = "client_error"
    http_status = 400
    close_code = 1008


class BadInputError(ClientError):
    """A field has an illegal value; the message names field, value and legal range."""

    code = "bad_input"

    def __init__(self, field: str, value: object, legal: str) -> None:
        shown = repr(value)
        if len(shown) > 80:
            shown = shown[:77] + "..."
        super().__init__(f"{field}: {shown} is not allowed; legal: {legal}")
        self.field = field
        self.legal = legal


class BadJsonError(ClientError):
    """Text that is not JSON, or is JSON of a kind no honest peer sends (NaN, too deep, ...)."""

    code = "bad_json"
    close_code = 1007


class BadHandshakeError(ClientError):
    """The first frame is not a JSON object (RFC 6455 close code 1003: data of a wrong kind)."""

    code = "bad_handshake"
    close_code = 1003


class BadAudioError(ClientError):
    """Bytes that do not decode as audio, or decode to more than a cap allows."""

    code = "bad_audio"


class FetchError(ClientError):
    """A job's audio cannot be fetched, or must not be; the message names the host at most, never a query."""

    code = "audio_fetch_failed"


class BadStateError(ClientError):
    """A message that makes sense, but not now."""

    code = "bad_state"


class TooBigError(ClientError):
    """One message is larger than its named limit."""

    code = "too_big"
    http_status = 413
    close_code = 1009


class UnauthorizedError(ClientError):
    """No token, or a wrong one."""

    code = "unauthorized"
    http_status = 401


class IdleError(ClientError):
    """No bytes at all for IDLE_TIMEOUT_S (silence in the audio is not idleness)."""

    code = "idle"
    retryable = True
    close_code = 4000


class SessionLimitError(ClientError):
    """MAX_CONNECTION_TIME is over."""

    code = "session_limit"
    retryable = True
    close_code = 4002


class SlowReaderError(ClientError):
    """The peer has not read its messages for SLOW_READER_S."""

    code = "slow_reader"
    retryable = True
    close_code = 4003


class ServerError(SttError):
    """Our side; the sender did nothing wrong."""

    code = "server_error"
    retryable = True
    http_status = 500


class ConfigError(ServerError):
    """A setting stops the start; the message names it, its value (unless secret) and the legal range."""

    code = "bad_config"
    retryable = False


class ModelUnavailableError(ServerError):
    """The named model cannot be had; there is no silent fall-back."""

    code = "no_model"
    retryable = False


class ResultTooLargeError(ServerError):
    """The result is over the platform's limit, cannot be shrunk below it, and no store is configured."""

    code = "result_too_large"
    retryable = False


class StorageError(ServerError):
    """A recording cannot be kept on this machine's disk; other machines may have room."""

    code = "no_space"
    http_status = 507


class UploadError(ServerError):
    """The store, or the link that a job gave, did not take the result; the message names the host at most."""

    code = "upload_failed"


class ResultNotJsonError(ServerError):
    """A defect: the result holds a value that JSON cannot carry."""

    code = "result_not_json"
    retryable = False


class DeadlineError(ServerError):
    """The time that the job was given is over."""

    code = "deadline"
    http_status = 504


class AtCapacityError(ServerError):
    """At capacity, which is an answer and no fault."""

    code = "full"
    http_status = 503
    close_code = 1013


class DrainingError(ServerError):
    """The process is shutting down; reconnect, here later or elsewhere."""

    code = "draining"
    http_status = 503
    close_code = 1001


class EngineFailedError(ServerError):
    """One decode failed for good; other jobs go on."""

    code = "engine_failed"


class EngineMemoryError(EngineFailedError):
    """A batch did not fit into the device's memory; a smaller one may."""

    code = "engine_out_of_memory"


class EngineKilledError(EngineFailedError):
    """The engine process died over this stream's audio, more than once and alone: it must not be tried again."""

    code = "engine_killed"


class EngineRestartError(ServerError):
    """The engine process died or overstayed; the job can be decoded again by its successor."""

    code = "engine_restart"
