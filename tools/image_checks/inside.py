"""Runs inside a container, as root, handed in through standard input: lists every file, and what should not be there.

    python - '{"patterns": {NAME: REGEX}, "read": [FOLDER]}'   prints {"files": [[PATH, BYTES]], "found": ..., ...}

Needs Python alone. Knows no judgement: `tools.image_checks.scan` and `.sizes` make sense of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from typing import Any

MAX_READ_BYTES = 1 << 20
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def main() -> None:
    """Print what there is."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    patterns = {name: re.compile(text.encode()) for name, text in asked["patterns"].items()}
    files: list[list[Any]] = []
    found: list[list[str]] = []
    # A file with two names takes its room once.
    seen: set[tuple[int, int]] = set()
    device = os.stat("/").st_dev  # noqa: PTH116
    for folder, names, file_names in os.walk("/"):
        names[:] = [name for name in names if _is_on(device, os.path.join(folder, name))]  # noqa: PTH118
        for file_name in file_names:
            path = os.path.join(folder, file_name)  # noqa: PTH118
            status = os.lstat(path)
            if status.st_dev != device:
                continue
            key = (status.st_dev, status.st_ino)
            files.append([path, 0 if key in seen else status.st_size])
            seen.add(key)
            is_text = status.st_size <= MAX_READ_BYTES and not os.path.islink(path)  # noqa: PTH114
            if is_text and path.startswith(tuple(asked["read"])):
                data = _read(path)
                found.extend([name, path] for name, pattern in patterns.items() if pattern.search(data))
    bundle = hashlib.sha256(_read(CA_BUNDLE)).hexdigest()
    sys.stdout.write(json.dumps({"files": files, "found": found, "bundle": bundle}))


def _is_on(device: int, path: str) -> bool:
    try:
        return os.lstat(path).st_dev == device
    except OSError:
        return False


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return b""


main()
