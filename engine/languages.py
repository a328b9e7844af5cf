"""The languages that Whisper knows: codes, English names, and other spellings of both.

A list of its own, because faster-whisper's would load the model libraries into the serving process; a test
compares the two.
"""

from __future__ import annotations

__all__ = ["LANGUAGES", "language_code"]

LANGUAGES: dict[str, str] = {
    "af": "Afrikaans", "am": "Amharic", "ar": "Arabic", "as": "Assamese", "az": "Azerbaijani", "ba": "Bashkir",
    "be": "Belarusian", "bg": "Bulgarian", "bn": "Bengali", "bo": "Tibetan", "br": "Breton", "bs": "Bosnian",
    "ca": "Catalan", "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish", "fo": "Faroese",
    "fr": "French", "gl": "Galician", "gu": "Gujarati", "ha": "Hausa", "haw": "Hawaiian", "he": "Hebrew",
    "hi": "Hindi", "hr": "Croatian", "ht": "Haitian Creole", "hu": "Hungarian", "hy": "Armenian",
    "id": "Indonesian", "is": "Icelandic", "it": "Italian", "ja": "Japanese", "jw": "Javanese", "ka": "Georgian",
    "kk": "Kazakh", "km": "Khmer", "kn": "Kannada", "ko": "Korean", "la": "Latin", "lb": "Luxembourgish",
    "ln": "Lingala", "lo": "Lao", "lt": "Lithuanian", "lv": "Latvian", "mg": "Malagasy", "mi": "Maori",
    "mk": "Macedonian", "ml": "Malayalam", "mn": "Mongolian", "mr": "Marathi", "ms": "Malay", "mt": "Maltese",
    "my": "Myanmar", "ne": "Nepali", "nl": "Dutch", "nn": "Nynorsk", "no": "Norwegian", "oc": "Occitan",
    "pa": "Punjabi", "pl": "Polish", "ps": "Pashto", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian",
    "sa": "Sanskrit", "sd": "Sindhi", "si": "Sinhala", "sk": "Slovak", "sl": "Slovenian", "sn": "Shona",
    "so": "Somali", "sq": "Albanian", "sr": "Serbian", "su": "Sundanese", "sv": "Swedish", "sw": "Swahili",
    "ta": "Tamil", "te": "Telugu", "tg": "Tajik", "th": "Thai", "tk": "Turkmen", "tl": "Tagalog", "tr": "Turkish",
    "tt": "Tatar", "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek", "vi": "Vietnamese", "yi": "Yiddish",
    "yo": "Yoruba", "yue": "Cantonese", "zh": "Chinese",
}  # fmt: skip
"""Whisper's code of each language to its English name."""

_OTHER_SPELLINGS = {
    "bokmal": "no", "bokmål": "no", "burmese": "my", "castilian": "es", "farsi": "fa", "fil": "tl", "filipino": "tl",
    "flemish": "nl", "haitian": "ht", "iw": "he", "jv": "jw", "letzeburgesch": "lb", "mandarin": "zh",
    "moldavian": "ro", "moldovan": "ro", "nb": "no", "panjabi": "pa", "pushto": "ps", "sinhalese": "si",
    "valencian": "ca",
}  # fmt: skip
"""Names and codes that people and other programs use for languages of the list."""

_CODES = {name.lower(): code for code, name in LANGUAGES.items()} | _OTHER_SPELLINGS
_MAX_CHARS = 32


def language_code(text: str) -> str | None:
    """Whisper's code for a code (`en`, `EN`, `pt-BR`) or an English name (`Spanish`); None if it has none."""
    plain = text[: _MAX_CHARS + 1].strip().lower()
    if plain in LANGUAGES:
        return plain
    if plain in _CODES:
        return _CODES[plain]
    # A region or a script after the language (`zh-Hant-TW`) is nothing that Whisper tells apart.
    base = plain.replace("_", "-").partition("-")[0]
    return base if base in LANGUAGES else _CODES.get(base) if len(base) <= 3 else None
