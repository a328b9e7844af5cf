"""Tells documents from audio by their first bytes: pages and error texts that servers send with status 200.

Pure. Not a list of what is audio: that is the decoder's to find out. Invariant: no audio container that is decoded
begins with what is refused here.
"""

from __future__ import annotations

import re

__all__ = ["HEAD_BYTES", "document_kind"]

HEAD_BYTES = 512
"""What is looked at; a page's first tag stands within it."""

_PAGE = re.compile(rb"<(!doctype\s+html|html|head|body|script|!--)[\s>]?", re.IGNORECASE)
_XML = re.compile(rb"<[?!a-z][^\x00-\x08]*\Z", re.IGNORECASE | re.DOTALL)
_JSON = re.compile(rb"""[{\[]\s*(["{\[\]}]|-?\d|true|false|null)[^\x00-\x08]*\Z""", re.DOTALL)


def document_kind(head: bytes) -> str | None:
    """What a file that begins with `head` is, if it is a document; None if it may be audio."""
    text = head[:HEAD_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip()
    if _PAGE.match(text):
        return "a web page"
    if _XML.match(text):
        return "an XML document"
    if _JSON.match(text):
        return "a JSON document"
    return None
