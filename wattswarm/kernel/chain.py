"""An author's chain: where an event belongs on it, and what the chain itself rules out.

Places one event against the head that is held, as a value; who asks for what is missing, compares ids at a place
already taken, or makes the fork certificate, is the caller. Knows neither memberships nor the local clock. Keeps
docs/protocol.md §2, Admission and Fork.
"""

from __future__ import annotations

import msgspec

from wattswarm.kernel.event import Event
from wattswarm.kernel.genesis import Quotas
from wattswarm.kernel.hlc import counter_bits, day_ms


class Head(msgspec.Struct, frozen=True, gc=False):
    """The newest event of a chain: its seq (-1: none yet), id and hlc, and what its UTC day holds so far."""

    seq: int = -1
    id: bytes | None = None
    hlc: int = -1
    day: int = -1
    day_events: int = 0
    day_bytes: int = 0


class Next(msgspec.Struct, frozen=True, gc=False):
    """The event is next in line; ``head`` is the chain's head with it."""

    head: Head


class Past(msgspec.Struct, frozen=True, gc=False):
    """Its seq is taken: the same event again, or a fork. The ids tell."""


class Gap(msgspec.Struct, frozen=True, gc=False):
    """An orphan: its predecessor is not held. ``missing`` is the first author_seq to ask for.

    Also when the event held at the predecessor's seq is another one: the predecessor, once here, proves the fork.
    """

    missing: int


class NotAdmitted(msgspec.Struct, frozen=True, gc=False):
    """The chain itself rules the event out, for everybody and for ever."""

    reason: str
    message: str


Placement = Next | Past | Gap | NotAdmitted
_past = Past()


def place(head: Head, event: Event, genesis_created_at_ms: int, quotas: Quotas) -> Placement:
    """Where ``event`` belongs on the chain of its author that ends at ``head``."""
    seq = event.author_seq
    if seq <= head.seq:
        return _past
    created_at = event.hlc >> counter_bits
    if created_at < genesis_created_at_ms:
        return NotAdmitted(
            "before_genesis", f"created at {created_at} ms, before the network itself ({genesis_created_at_ms} ms)"
        )
    if seq > head.seq + 1:
        return Gap(head.seq + 1)
    if event.prev != head.id:
        return Gap(head.seq)
    if event.hlc <= head.hlc:
        return NotAdmitted("clock_back", f"hlc {event.hlc} is not above {head.hlc}, that of its author's event before")
    day, size = created_at // day_ms, len(event.body) + len(event.signature)
    if day != head.day:
        events = 1
    else:
        events = head.day_events + 1
        size += head.day_bytes
    if events > quotas.quota_events_per_day:
        return NotAdmitted("quota_events", f"more than {quotas.quota_events_per_day} events of its author on one day")
    if size > quotas.quota_bytes_per_day:
        return NotAdmitted("quota_bytes", f"more than {quotas.quota_bytes_per_day} bytes of its author on one day")
    return Next(Head(seq, event.id, event.hlc, day, events, size))


def head_at(event: Event) -> Head:
    """The head of a chain cut back to ``event``. For chains whose next place is void: their day is not counted on."""
    return Head(
        event.author_seq, event.id, event.hlc, event.created_at // day_ms, 1, len(event.body) + len(event.signature)
    )


def first_void(fork_seq: int | None, until: int | None) -> int | None:
    """The least seq whose event is void: from the smallest fork on, and past a removed member's ``until``."""
    if fork_seq is None:
        return None if until is None else until + 1
    return fork_seq if until is None else min(fork_seq, until + 1)
