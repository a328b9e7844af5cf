"""Runs the unmodified client of whisper-live in its own environment; prints what it recorded.

    python whisper_live_client.py file|stream PORT AUDIO.wav OUTPUT.srt

`file` is what its command line does with a recording: real time, 15 s of waiting, END_OF_AUDIO,
SRT. `stream` is its newer streaming class, END_OF_AUDIO right after the last sample.
"""

from __future__ import annotations

import json
import sys
import wave

import pyaudio


class NoSoundCard:
    """Stands in for PyAudio on a machine without one; its client copes with a missing microphone."""

    def open(self, **_: object) -> object:
        raise OSError("no sound card")


pyaudio.paInt16 = 8
pyaudio.PyAudio = NoSoundCard


def run_file(port: int, audio: str, srt: str) -> list[dict[str, object]]:
    from whisper_live.client import TranscriptionClient

    client = TranscriptionClient(
        "127.0.0.1", port, lang=None, model="small", output_transcription_path=srt, mute_audio_playback=True
    )
    client(audio)
    return list(client.client.transcript)


def run_stream(port: int, audio: str) -> list[dict[str, object]]:
    from whisper_live.client import StreamingTranscriptionClient

    with wave.open(audio, "rb") as file, StreamingTranscriptionClient("127.0.0.1", port, lang="en") as client:
        while data := file.readframes(4096):
            client.send(data, "int16")
        client.close()
        return list(client.transcript)


def main() -> None:
    mode, port, audio, srt = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    transcript = run_file(port, audio, srt) if mode == "file" else run_stream(port, audio)
    sys.stdout.write("TRANSCRIPT " + json.dumps(transcript) + "\n")


if __name__ == "__main__":
    main()
