"""What git says about a folder: the commit, and whether it is all there is."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["GIT_LIMIT_S", "GitState", "git_state", "is_tracked"]

GIT_LIMIT_S = 20.0
"""Longest wait for one git command."""


@dataclass(frozen=True)
class GitState:
    """`commit` in full; `is_dirty`: tracked files differ from it."""

    commit: str
    is_dirty: bool


def git_state(folder: Path, environ: Mapping[str, str]) -> GitState | None:
    """The folder's state; None without git, outside of a repository, or before its first commit."""
    commit = _git(folder, environ, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, environ, "status", "--porcelain", "--untracked-files=no")
    return GitState(commit.strip(), is_dirty=bool(changes and changes.strip()))


def is_tracked(path: Path, environ: Mapping[str, str]) -> bool:
    """True if `path` is in the repository, for all to see."""
    return _git(path.parent, environ, "ls-files", "--error-unmatch", "--", path.name) is not None


def _git(folder: Path, environ: Mapping[str, str], *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    # Only what git needs: no secret of ours reaches it.
    env = {name: environ[name] for name in ("PATH", "HOME") if name in environ}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=GIT_LIMIT_S, check=False, env=env
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
