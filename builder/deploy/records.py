"""Records of earlier deploys, which must be readable before another one begins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from builder.errors import ConflictError

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["check_readable"]


def check_readable(run: Runtime, names: Iterable[str], *, is_dry_run: bool) -> None:
    """Raises ConflictError if a document of these names is damaged; in a dry run it is a warning."""
    for name in names:
        if not run.state.is_damaged(name):
            continue
        path = run.state.folder / f"{name}.json"
        error = ConflictError(
            f"{path} is damaged: what an earlier deploy left is not known, and may be billed",
            hint=f"see what is there: python -m builder check-all; end it, then remove {path}",
        )
        if not is_dry_run:
            raise error
        run.console.warn(f"{error}; {error.hint}")
