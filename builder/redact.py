"""Secrets never leave by text: whatever is printed, logged or written passes through here.

Pure. Known secrets are replaced wherever they stand, also inside URLs, JSON, HTML and Python's quotes; what looks
like a RunPod key, a bearer header or a password in a URL is replaced even if nobody announced it.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

__all__ = ["HIDDEN", "MIN_SECRET_CHARS", "Redactor", "is_secret_name"]

HIDDEN = "[hidden]"
MIN_SECRET_CHARS = 6
"""Shorter values would blot out innocent text."""
_PATTERNS = (
    (re.compile(r"\b(rpa|rps)_[A-Za-z0-9]{16,}"), HIDDEN),
    (re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]{6,}"), rf"\1{HIDDEN}"),
    # Neither goes past a quote, escaped or not: what is JSON stays JSON.
    (re.compile(r"(?i)\b(api_key=|token=|password=)(?:[^&\s\"'\\]|\\[^\"'])+"), rf"\1{HIDDEN}"),
    (re.compile(r"(://[^/\s:@\"]+:)[^/\s@\"]+(@)"), rf"\1{HIDDEN}\2"),
)
_SECRET_WORDS = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_?KEY|_(?:KEY|PASS|PWD|PAT)$", re.IGNORECASE
)


def is_secret_name(name: str) -> bool:
    """True if a variable of this name probably holds a secret."""
    return _SECRET_WORDS.search(name) is not None


class Redactor:
    """Remembers secrets and takes them out of texts."""

    def __init__(self) -> None:
        self._forms: set[str] = set()

    def add(self, secret: str | None) -> None:
        """Hide `secret` from now on; None and values shorter than MIN_SECRET_CHARS are ignored."""
        if secret is not None:
            self._forms |= {form for form in _forms_of(secret.strip()) if len(form) >= MIN_SECRET_CHARS}

    def clean(self, text: str) -> str:
        """`text` with every secret replaced by HIDDEN."""
        # The longest first: one secret may be the beginning of another.
        for form in sorted(self._forms, key=len, reverse=True):
            text = text.replace(form, HIDDEN)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text


def _forms_of(secret: str) -> Iterator[str]:
    """A secret as texts may hold it; none if it is too short."""
    if len(secret) < MIN_SECRET_CHARS:
        return
    encoded = (quote(secret, safe=""), quote(secret), quote_plus(secret))
    yield from (secret, " ".join(secret.split()), repr(secret)[1:-1], *encoded)
    yield from (re.sub("%..", lambda code: code[0].lower(), form) for form in encoded)
    for is_ascii in (True, False):
        form = json.dumps(secret, ensure_ascii=is_ascii)[1:-1]
        yield from (form, form.replace("/", "\\/"))
    for with_quotes in (True, False):
        yield html.escape(secret, quote=with_quotes)
