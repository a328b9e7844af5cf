"""Reads a universal lock from stdin and writes what a Linux x86_64 image on CPython 3.11 to 3.13 needs of it.

A universal lock also lists packages for other systems. What no image can ever install is left out, a
marker that is always true is dropped, and one that separates Python versions stays.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from packaging.requirements import Requirement

__all__ = ["filter_lock", "image_environments", "main"]

PYTHONS = ("3.11", "3.12", "3.13")


def image_environments() -> list[dict[str, str]]:
    """The marker variables of the environments that an image can have."""
    common = {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "sys_platform": "linux",
    }
    # A marker may also part a minor version's first release from its last.
    fulls = [(each, f"{each}.{patch}") for each in PYTHONS for patch in (0, 99)]
    return [common | {"python_version": each, "python_full_version": full} for each, full in fulls]


def filter_lock(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of the packages that an image can install, with no needless marker."""
    environments = image_environments()
    keeps = True
    for line in lines:
        if not line[:1].isspace() and line.strip() and not line.startswith("#"):
            requirement = Requirement(line.rstrip().rstrip("\\"))
            marker = requirement.marker
            verdicts = [marker.evaluate(dict(each)) for each in environments] if marker else [True]
            keeps = any(verdicts)
            if all(verdicts):
                line = line.partition(" ;")[0].removesuffix(" \\\n").rstrip() + " \\\n"
        if keeps:
            yield line


def main() -> int:
    """Filter stdin to stdout."""
    sys.stdout.writelines(filter_lock(sys.stdin))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
