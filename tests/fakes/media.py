"""Media files made on the spot: honest, cut, hostile. Encoders are libsndfile's and FFmpeg's own."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import numpy as np
import soundfile

from engine.types import FloatArray

ROOT = Path(__file__).resolve().parent.parent.parent
HELLO = ROOT / "engine/demo_model/samples/hello_en.wav"
"""2.9 s of English speech, mono 16 kHz."""


def tone(seconds: float, rate: int = 16_000, channels: int = 1, hz: float = 440.0) -> FloatArray:
    mono = 0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(mono[:, None], channels, axis=1).astype(np.float32)


def encoded(samples: FloatArray, rate: int, container: str = "WAV", subtype: str = "PCM_16") -> bytes:
    """Encode float32 [frames] or [frames, channels] with libsndfile (in pieces: its Vorbis dies of long ones)."""
    file = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(file, "w", rate, channels, subtype, format=container) as out:
        for at in range(0, len(samples), 65_536):
            out.write(samples[at : at + 65_536])
    return file.getvalue()


def muxed(samples: FloatArray, container: str, codec: str, rate: int) -> bytes:
    """Encode mono 16 kHz speech with FFmpeg."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate)
        frame = av.AudioFrame.from_ndarray((samples * 32_767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            out.mux(stream.encode(piece))
    return file.getvalue()


def with_subtitles(samples: FloatArray) -> bytes:
    """A Matroska file with mono 16 kHz speech and a subtitle track."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        audio = out.add_stream("pcm_s16le", rate=16_000, layout="mono")
        assert isinstance(audio, av.AudioStream)
        titles = out.add_stream("ass")
        frame = av.AudioFrame.from_ndarray((samples * 32_767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        out.mux(audio.encode(frame))
        title = av.Packet(b"0,0,Default,,0,0,0,,hello")
        title.stream, title.pts, title.dts, title.duration = titles, 0, 0, 500
        out.mux(title)
    return file.getvalue()


def wav_header(
    channels: int, rate: int, data: bytes, riff_bytes: int | None = None, data_bytes: int | None = None
) -> bytes:
    riff = 36 + len(data) if riff_bytes is None else riff_bytes
    body = len(data) if data_bytes is None else data_bytes
    align = 2 * channels
    head = struct.pack(
        "<4sI4s4sIHHIIHH", b"RIFF", riff, b"WAVE", b"fmt ", 16, 1, channels, rate, rate * align, align, 16
    )
    return head + struct.pack("<4sI", b"data", body) + data


def without_length(flac: bytes) -> bytes:
    """STREAMINFO with `total samples` zeroed, as an encoder writes it that cannot seek."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]


def likeness(found: FloatArray, expected: FloatArray) -> float:
    """Best correlation of two recordings over shifts of up to 60 ms (codec delay)."""
    size = 2 * max(len(found), len(expected))
    product = np.fft.irfft(np.fft.rfft(found, size) * np.conj(np.fft.rfft(expected, size)), size)
    near = np.concatenate([product[:960], product[-960:]])
    return float(near.max() / (np.linalg.norm(found) * np.linalg.norm(expected)))


def mp4_index(samples: int) -> bytes:
    """An MP4 of some 600 bytes whose index announces `samples` AAC frames."""

    def box(name: bytes, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return struct.pack(">I4s", 8 + len(body), name) + body

    def full(name: bytes, *parts: bytes) -> bytes:
        return box(name, bytes(4), *parts)

    config = bytes.fromhex("031900000004114015000000000000000000000005021190060102")
    entry = box(
        b"mp4a", bytes(6) + b"\0\1" + bytes(8), struct.pack(">HHHHI", 1, 16, 0, 0, 16_000 << 16), full(b"esds", config)
    )
    table = box(
        b"stbl",
        full(b"stsd", b"\0\0\0\1", entry),
        full(b"stts", struct.pack(">III", 1, samples, 1_024)),
        full(b"stsc", struct.pack(">IIII", 1, 1, samples, 1)),
        full(b"stsz", struct.pack(">II", 1, samples)),
        full(b"stco", struct.pack(">II", 1, 40)),
    )
    media = box(
        b"mdia",
        full(b"mdhd", struct.pack(">IIIIHH", 0, 0, 16_000, 0, 0, 0)),
        full(b"hdlr", bytes(4), b"soun", bytes(13)),
        box(
            b"minf", full(b"smhd", bytes(4)), box(b"dinf", full(b"dref", b"\0\0\0\1", box(b"url ", b"\0\0\0\1"))), table
        ),
    )
    track = box(b"trak", full(b"tkhd", struct.pack(">IIIII", 0, 0, 1, 0, 1_000), bytes(60)), media)
    movie = box(b"moov", full(b"mvhd", struct.pack(">IIII", 0, 0, 1_000, 1_000), bytes(80)), track)
    return box(b"ftyp", b"isom\0\0\0\1isom") + box(b"mdat", bytes(16)) + movie


def tricks(port: int) -> dict[str, bytes]:
    """Texts that FFmpeg would follow; `port` is a listener on loopback."""
    url = f"http://127.0.0.1:{port}/a.wav"
    return {
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n".encode(),
        "hls file": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        "hls http": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n".encode(),
        "hls own speech": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{HELLO}\n#EXT-X-ENDLIST\n".encode(),
        "ffconcat": b"ffconcat version 1.0\nfile '/etc/hostname'\n",
        "ffconcat speech": f"ffconcat version 1.0\nfile '{HELLO}'\n".encode(),
        "ffconcat http": f"ffconcat version 1.0\nfile '{url}'\n".encode(),
        "dash": (
            '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="x">'
            f"<BaseURL>{url}</BaseURL></MPD>"
        ).encode(),
        "smil": f'<smil><body><audio src="{url}"/></body></smil>'.encode(),
        "asx": f'<asx version="3.0"><entry><ref href="{url}"/></entry></asx>'.encode(),
        "pls": f"[playlist]\nFile1={url}\nNumberOfEntries=1\n".encode(),
        "rtsp text": f"[Reference]\nRef1={url}\n".encode(),
        "mp4 external data": external_mp4(),
    }


def external_mp4() -> bytes:
    """An MP4 whose samples are said to be in another file."""
    return mp4_index(samples=4).replace(b"url \0\0\0\1", b"url \0\0\0\0")
