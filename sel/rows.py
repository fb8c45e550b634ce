"""What the log keeps, as values: the head row, chains, streams, verdicts, parked events, and outcomes of intake.

Shared by every store (Postgres, in-memory) and by the algorithms above them. Sums and roots are integers
modulo 2^256 (docs/protocol.md §3, §4).
"""

from __future__ import annotations

from copy import copy
from typing import Literal

import msgspec

from wattswarm.kernel import chain
from wattswarm.kernel.certificate import Certificate
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.event import Event, SortKey
from wattswarm.kernel.rounds import Stored as StoredSignature
from wattswarm.kernel.verdict import Verdict

sum_modulus = 1 << 256
ParkedWhy = Literal["orphan", "early", "stranger"]


def id_as_number(event_id: bytes) -> int:
    """An id as the little-endian integer that fingerprints add up."""
    return int.from_bytes(event_id, "little")


def root_share(stream: bytes, digest: bytes) -> int:
    """What one stream adds to the state root: SHA-256(stream ‖ digest)."""
    return int.from_bytes(sha256(stream + digest), "little")


class LogHead(msgspec.Struct):
    """The one row that every writer locks: totals of the log. ``seq`` is the last local arrival number (0: none)."""

    seq: int = 0
    events: int = 0
    events_sum: int = 0
    certificates: int = 0
    certificates_sum: int = 0
    state_root: int = 0
    max_hlc: int = 0
    parked: int = 0
    memberships: int = 0

    def copy(self) -> LogHead:
        """A working copy: the original stays as it was read."""
        return copy(self)

    def add_event(self, event: Event) -> None:
        """Count a live event."""
        self.events += 1
        self.events_sum = (self.events_sum + id_as_number(event.id)) % sum_modulus

    def drop_event(self, event_id: bytes) -> None:
        """Uncount an event that became void."""
        self.events -= 1
        self.events_sum = (self.events_sum - id_as_number(event_id)) % sum_modulus

    def add_certificate(self, certificate_id: bytes) -> None:
        """Count a certificate."""
        self.certificates += 1
        self.certificates_sum = (self.certificates_sum + id_as_number(certificate_id)) % sum_modulus

    def drop_certificate(self, certificate_id: bytes) -> None:
        """Uncount a fork that another mark made idle."""
        self.certificates -= 1
        self.certificates_sum = (self.certificates_sum - id_as_number(certificate_id)) % sum_modulus

    def swap_root(self, stream: bytes, old: bytes | None, new: bytes | None) -> None:
        """Replace a stream's digest in the state root; None: the stream is outside the root."""
        if old is not None:
            self.state_root -= root_share(stream, old)
        if new is not None:
            self.state_root += root_share(stream, new)
        self.state_root %= sum_modulus


class Chain(msgspec.Struct):
    """An author's chain as the log holds it: its head, and from which seq on its events are void (None: none)."""

    head: chain.Head
    void_from: int | None = None

    def voids(self, seq: int) -> bool:
        """Whether the event at ``seq`` has no authority (docs/protocol.md §2, Fork)."""
        return self.void_from is not None and seq >= self.void_from


class StreamRow(msgspec.Struct, frozen=True):
    """A stream's stored fold. ``state`` None: refused or not begun, outside the root.

    ``last``: the order of its last event, None before the first. ``awaits``: a membership version that is not here.
    ``unproven``: it has a DECISION_FINALIZED whose certificate is not complete.
    """

    stream: bytes
    state: bytes | None = None
    digest: bytes | None = None
    last: SortKey | None = None
    facts: TaskFacts | None = None
    awaits: bytes | None = None
    unproven: bool = False


class TaskFacts(msgspec.Struct, frozen=True):
    """The query columns of a task's stream. Times in unix ms."""

    label: str
    status: str
    epoch: int
    task_type: str
    creator: bytes
    membership: bytes
    created_at: int
    expiry_ms: int


class VoteRow(msgspec.Struct, frozen=True):
    """This node's one finality vote on (task, epoch): what ``never twice`` is kept by (docs/protocol.md §7)."""

    task: bytes
    epoch: int
    candidate_hash: bytes
    event_id: bytes


class SignatureRow(msgspec.Struct, frozen=True):
    """This node's one signature of a phase and round about the successor of membership version ``previous``."""

    previous: bytes
    signed: StoredSignature
    event_id: bytes


class Fence(msgspec.Struct, frozen=True):
    """What a node whose chain was recovered does not sign: it may have signed before what this log does not know of.

    ``until_ms``: it casts no finality vote on tasks created then or before (unix ms). ``membership``: it signs nothing
    about successors of versions up to this number. -1: no such bound.
    """

    until_ms: int = -1
    membership: int = -1


class Parked(msgspec.Struct, frozen=True):
    """An event that waits: for its predecessor, for its time (``due_ms``), or for its author to become known."""

    event: Event
    why: ParkedWhy
    due_ms: int = 0


class Changes(msgspec.Struct):
    """All that one transaction writes. ``verdicts`` holds every event whose verdict is not plain acceptance."""

    events: list[Event] = msgspec.field(default_factory=list)
    certificates: list[Certificate] = msgspec.field(default_factory=list)
    chains: dict[bytes, Chain] = msgspec.field(default_factory=dict)
    streams: list[StreamRow] = msgspec.field(default_factory=list)
    refolded: set[bytes] = msgspec.field(default_factory=set)
    verdicts: list[tuple[bytes, bytes, Verdict]] = msgspec.field(default_factory=list)
    park: list[Parked] = msgspec.field(default_factory=list)
    unpark: list[bytes] = msgspec.field(default_factory=list)
    park_certificates: list[bytes] = msgspec.field(default_factory=list)
    unpark_certificates: list[bytes] = msgspec.field(default_factory=list)
    votes: list[VoteRow] = msgspec.field(default_factory=list)
    signatures: list[SignatureRow] = msgspec.field(default_factory=list)
    fence: Fence | None = None
    head: LogHead = msgspec.field(default_factory=LogHead)

    @property
    def additions_only(self) -> bool:
        """Whether it does nothing but put events on top of chains and folds."""
        parked = (self.park, self.unpark, self.park_certificates, self.unpark_certificates)
        more = (self.certificates, self.refolded, self.votes, self.signatures, self.fence, *parked)
        return not any(more)

    @property
    def nothing(self) -> bool:
        """Whether the log stays as it is."""
        return self.additions_only and not (self.events or self.chains or self.streams or self.verdicts)


class Stored(msgspec.Struct, frozen=True):
    """Admitted to the log, with what the rules say of it."""

    verdict: Verdict


class Duplicate(msgspec.Struct, frozen=True):
    """Already here."""


class Waiting(msgspec.Struct, frozen=True):
    """Parked; not part of the set. ``missing`` is the first author_seq that is not here, for an orphan."""

    why: ParkedWhy
    missing: int | None = None


class Void(msgspec.Struct, frozen=True):
    """Its author forked at or before it, or was removed: no part of the set."""

    void_from: int


class NotAdmitted(msgspec.Struct, frozen=True):
    """The author's own chain rules it out: quota, a clock that went back, a time before genesis."""

    reason: str
    message: str


Outcome = Stored | Duplicate | Waiting | Void | NotAdmitted
