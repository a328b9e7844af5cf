"""The conservation law: every sample received is somewhere, and only once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.ledger import Ledger


@given(
    st.lists(
        st.tuples(st.sampled_from(["receive", "decoded", "silent", "refused"]), st.integers(0, 1_000)), max_size=50
    )
)
def test_samples_are_conserved(steps: list[tuple[str, int]]) -> None:
    ledger = Ledger()
    for kind, amount in steps:
        before = ledger.settled
        if kind == "receive":
            ledger.received += amount
        else:
            until = min(amount, ledger.received)
            getattr(ledger, f"settle_{kind}")(until)
            assert ledger.settled == max(before, until)
        assert ledger.received == ledger.decoded + ledger.silent + ledger.refused + ledger.buffered
        assert min(ledger.decoded, ledger.silent, ledger.refused, ledger.buffered) >= 0


def test_the_first_verdict_stands() -> None:
    ledger = Ledger(received=100)
    ledger.settle_silent(40)
    ledger.settle_decoded(30)
    ledger.settle_decoded(70)
    ledger.settle_refused(100)
    assert ledger == Ledger(received=100, decoded=30, silent=40, refused=30)
    assert ledger.buffered == 0


@pytest.mark.parametrize("kind", ["decoded", "silent", "refused"])
def test_what_was_never_received_cannot_be_settled(kind: str) -> None:
    ledger = Ledger(received=10)
    settle = getattr(ledger, f"settle_{kind}")
    settle(10)
    with pytest.raises(ValueError, match=r"sample 11 was never received \(10 were\)"):
        settle(11)
