"""Secrets never leave by text: whatever is printed, logged or written passes through here.

Pure. Known secrets are replaced wherever they stand, also percent-encoded and inside JSON; what looks like a
RunPod key, a bearer header or a password in a URL is replaced even if nobody announced it.
"""

from __future__ import annotations

import json
import re
from urllib.parse import quote

__all__ = ["HIDDEN", "MIN_SECRET_CHARS", "Redactor"]

HIDDEN = "[hidden]"
MIN_SECRET_CHARS = 6
"""Shorter values would blot out innocent text."""
_PATTERNS = (
    (re.compile(r"\b(rpa|rps)_[A-Za-z0-9]{16,}"), HIDDEN),
    (re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]{6,}"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b(api_key=|token=|password=)[^&\s\"']+"), rf"\1{HIDDEN}"),
    (re.compile(r"(://[^/\s:@]+:)[^/\s@]+(@)"), rf"\1{HIDDEN}\2"),
)


class Redactor:
    """Remembers secrets and takes them out of texts."""

    def __init__(self) -> None:
        self._forms: set[str] = set()

    def add(self, secret: str | None) -> None:
        """Hide `secret` from now on; None and values shorter than MIN_SECRET_CHARS are ignored."""
        if secret is None or len(secret) < MIN_SECRET_CHARS:
            return
        self._forms |= {secret, quote(secret, safe=""), json.dumps(secret)[1:-1]}

    def clean(self, text: str) -> str:
        """`text` with every secret replaced by HIDDEN."""
        # The longest first: one secret may be the beginning of another.
        for form in sorted(self._forms, key=len, reverse=True):
            text = text.replace(form, HIDDEN)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text
