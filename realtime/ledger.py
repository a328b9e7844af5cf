"""Where every sample of a stream went: the conservation law.

    received = decoded + judged silent + refused + still buffered

Audio is settled from the front: `settle` moves the cursor and says what became of the stretch.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Ledger"]


@dataclass
class Ledger:
    """Counts of 16 kHz samples."""

    received: int = 0
    decoded: int = 0
    silent: int = 0
    refused: int = 0

    @property
    def settled(self) -> int:
        """The sample before which everything is accounted for."""
        return self.decoded + self.silent + self.refused

    @property
    def buffered(self) -> int:
        """Samples whose fate is still open."""
        return self.received - self.settled

    def settle_decoded(self, until: int) -> None:
        """All open audio before sample `until` has been decoded."""
        self.decoded += self._stretch(until)

    def settle_silent(self, until: int) -> None:
        """All open audio before sample `until` was judged silent."""
        self.silent += self._stretch(until)

    def settle_refused(self, until: int) -> None:
        """All open audio before sample `until` will not be decoded."""
        self.refused += self._stretch(until)

    def _stretch(self, until: int) -> int:
        if until > self.received:
            raise ValueError(f"sample {until} was never received ({self.received} were)")
        return max(0, until - self.settled)
