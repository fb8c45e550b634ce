"""Times and ids as refusals show them."""

from __future__ import annotations

import pytest

from wattswarm.kernel.task.wording import moment, short


@pytest.mark.parametrize(
    ("unix_ms", "shown"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_790_000_000_250, "2026-09-21T14:13:20.250Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (253_402_300_800_000, "253402300800000 ms"),
        (2**64 - 1, "18446744073709551615 ms"),
    ],
)
def test_any_time_that_an_author_may_write_can_be_shown(unix_ms: int, shown: str) -> None:
    assert moment(unix_ms) == shown


def test_ids_are_shown_by_their_beginning() -> None:
    assert short(bytes(range(32))) == "000102030405…"
