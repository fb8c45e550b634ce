"""How refusals show times and ids to people: the sentences themselves stand beside their rules.

Knows no rule. A time that no calendar has (authors may write any uint64) is shown as the number it is.
"""

from __future__ import annotations

from datetime import UTC, datetime

_CALENDAR_END_MS = 253_402_300_800_000
"""The year 10000: where ``datetime`` ends."""


def moment(unix_ms: int) -> str:
    """A unix time in milliseconds as UTC, to the millisecond: ``2026-03-01T10:00:00.250Z``."""
    if not 0 <= unix_ms < _CALENDAR_END_MS:
        return f"{unix_ms} ms"
    whole, rest = divmod(unix_ms, 1000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


def short(identity: bytes) -> str:
    """The beginning of a hash or node id, enough to find it in a list."""
    return identity.hex()[:12] + "…"
