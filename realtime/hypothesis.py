"""From the result of a decode to words on the sample clock, less what cannot have been said. Pure."""

from __future__ import annotations

from statistics import fmean

from engine.types import SAMPLE_RATE_HZ, WindowResult
from realtime.stability import TimedWord, normalised

__all__ = ["timed_words"]

HALLUCINATION_LOGPROB = -1.0
"""Below this mean log-probability (OpenAI's threshold) a window that sounds like no speech is dropped."""
MIN_PHRASE_SAMPLES = int(0.25 * SAMPLE_RATE_HZ)
LOW_PROBABILITY = 0.5
"""A subtitler's phrase counts only if MIN_PHRASE_SAMPLES of the window were speech, less than it takes to say the
shortest of them, and the model believes its words at least this much on average."""
SILENCE_PHRASES = frozenset(
    normalised(phrase)
    for phrase in (
        "Thank you.",
        "Thanks for watching!",
        "Thank you for watching.",
        "Please subscribe.",
        "Like and subscribe.",
        "Subtitles by the Amara.org community",
        "Sous-titrage ST' 501",
        "Sous-titres réalisés par la communauté d'Amara.org",
        "Untertitel der Amara.org-Community",
        "Untertitel im Auftrag des ZDF",
        "Subtítulos realizados por la comunidad de Amara.org",
        "Gracias por ver el video.",
        "Sottotitoli creati dalla comunità Amara.org",
        "Legendas pela comunidade Amara.org",
        "ご視聴ありがとうございました",
        "字幕由Amara.org社区提供",
        "请不吝点赞 订阅 转发 打赏支持明镜与点点栏目",
        "시청해주셔서 감사합니다",
    )
)
"""What Whisper says of silence and noise: lines from the subtitles it was trained on."""


def timed_words(
    result: WindowResult, start: int, end: int, no_speech_thresh: float, n_speech_samples: int
) -> list[TimedWord]:
    """The words of a window [start, end) in samples; none if it is no speech, or nothing but punctuation.

    `n_speech_samples`: how much of the window the voice activity detector took for speech.
    """
    if _is_unlikely(result, no_speech_thresh) or _is_phrase_of_silence(result, n_speech_samples):
        return []
    return [
        TimedWord(
            word.text,
            min(end, start + int(word.start_s * SAMPLE_RATE_HZ)),
            min(end, start + int(word.end_s * SAMPLE_RATE_HZ)),
            word.probability,
            word.tokens,
        )
        for word in result.words
        if word.text.strip()
    ]


def _is_unlikely(result: WindowResult, no_speech_thresh: float) -> bool:
    is_unlikely = result.avg_logprob < HALLUCINATION_LOGPROB and result.no_speech_prob > no_speech_thresh
    return is_unlikely or not any(normalised(word.text) for word in result.words)


def _is_phrase_of_silence(result: WindowResult, n_speech_samples: int) -> bool:
    text = normalised("".join(word.text for word in result.words))
    mean = fmean(word.probability for word in result.words)
    return (n_speech_samples < MIN_PHRASE_SAMPLES or mean < LOW_PROBABILITY) and text in SILENCE_PHRASES
