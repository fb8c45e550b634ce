"""Every message of the wire protocol as a frozen value with typed, bounded fields, and the table of them.

The types are the whole check of a message's shape: lengths of lists and byte strings, ranges of numbers, forms of
texts. What a message means, and whether it may be sent now, others know. Keeps docs/network.md §4.

Numbers up to 2^64 - 1 have no upper bound in their types, because the frame that carries them has no larger ones.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from net.proto.address import Address
from wattswarm.kernel import limits
from wattswarm.kernel.genesis import UnixMs
from wattswarm.kernel.identity import signature_bytes
from wattswarm.kernel.payloads.fields import Hash, NodeId, Signature

frame_bytes_max = 1 << 20
blob_bytes_max = frame_bytes_max - 128  # the one large byte string of a frame, beside its small fields
versions_max = 8
listen_max = 8
events_max = 512
range_events_max = limits.backfill_batch_events
ids_max = 1_000
frontier_entries_max = 4_096
prefix_bytes = 24
"""What a frontier says of an id: it only shows that two chains differ, and 192 bits are as good for that as 256."""
certificates_max = 64
addresses_max = 32

Uint64 = Annotated[int, Meta(ge=0)]
Uint32 = Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]
Counter = Annotated[int, Meta(ge=0, le=limits.counter_max)]
Nonce = Annotated[bytes, Meta(min_length=32, max_length=32)]
Blob = Annotated[bytes, Meta(min_length=1, max_length=blob_bytes_max)]
Slug = Annotated[str, Meta(pattern=r"\A[a-z0-9_]{1,64}\Z")]
VersionText = Annotated[str, Meta(pattern=r"\A[0-9A-Za-z.+-]{1,32}\Z")]
WireVersion = Annotated[int, Meta(ge=0, le=65_535)]
Body = Annotated[bytes, Meta(min_length=1, max_length=limits.event_bytes_max - signature_bytes)]
Wire = tuple[Body, Signature]
Prefix = Annotated[bytes, Meta(min_length=prefix_bytes, max_length=prefix_bytes)]
Ids = Annotated[tuple[Hash, ...], Meta(max_length=ids_max)]
Certificate = Annotated[bytes, Meta(min_length=1, max_length=limits.certificate_bytes_max)]


class _Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An array on the wire, its elements named by their places."""


class Total(_Part, frozen=True):
    """A set's fingerprint (docs/protocol.md §3): how many items, and their ids' sum modulo 2^256, little-endian."""

    count: Counter
    sum: Hash


class Standing(_Part, frozen=True):
    """What a node holds, so that two nodes see at once whether they hold the same. Roots compare between equal
    protocol versions only."""

    events: Total
    certificates: Total
    state_root: Hash
    protocol_version: VersionText


class ClientProof(_Part, frozen=True):
    """The client's part of a handshake: the server's nonce, and the signature that binds both nodes to it."""

    server_nonce: Nonce
    signature: Signature
    standing: Standing


# -- handshake -----------------------------------------------------------------------------------------------------


class Hello(_Part, frozen=True, tag=1):
    """Who speaks. The server says it first, with ``answer`` None; the client's carries its proof."""

    versions: Annotated[tuple[WireVersion, ...], Meta(min_length=1, max_length=versions_max)]
    network_id: Hash
    node_id: NodeId
    boot_id: Uint64
    nonce: Nonce
    time_ms: UnixMs
    listen: Annotated[tuple[Address, ...], Meta(max_length=listen_max)]
    answer: ClientProof | None


class Welcome(_Part, frozen=True, tag=2):
    """The server takes the client; ``observer``: it may read, and not append."""

    standing: Standing
    observer: bool


# -- events --------------------------------------------------------------------------------------------------------


class Events(_Part, frozen=True, tag=3):
    """Events as (body, signature), pushed or asked for."""

    events: Annotated[tuple[Wire, ...], Meta(max_length=events_max)]


class Have(_Part, frozen=True, tag=4):
    """Ids of events that the sender holds."""

    ids: Ids


class Want(_Part, frozen=True, tag=5):
    """Ids of events that the sender asks for."""

    ids: Ids


class FrontierGet(_Part, frozen=True, tag=6):
    """Asks for the frontier."""


class Frontier(_Part, frozen=True, tag=7):
    """(author, highest live seq without a gap, first bytes of the id there); ``more``: another page follows."""

    entries: Annotated[tuple[tuple[NodeId, Counter, Prefix], ...], Meta(max_length=frontier_entries_max)]
    more: bool


class RangeGet(_Part, frozen=True, tag=8):
    """Asks for an author's events from ``first_seq`` to ``last_seq``, both included."""

    author: NodeId
    first_seq: Counter
    last_seq: Counter

    def __post_init__(self) -> None:
        if self.first_seq > self.last_seq:
            raise ValueError("first_seq: expected at most last_seq")


class Range(_Part, frozen=True, tag=9):
    """A part of an asked range, ascending; ``more``: another follows."""

    author: NodeId
    events: Annotated[tuple[Wire, ...], Meta(max_length=range_events_max)]
    more: bool


# -- reconciliation ------------------------------------------------------------------------------------------------


class NegOpen(_Part, frozen=True, tag=10):
    """Begins a reconciliation. ``set``: 0 live events, 1 certificates of membership and forks, 2 decisions."""

    session: Uint32
    set: Literal[0, 1, 2]
    message: Blob


class NegMsg(_Part, frozen=True, tag=11):
    """The next message of a reconciliation."""

    session: Uint32
    message: Blob


class NegErr(_Part, frozen=True, tag=12):
    """The session is refused or given up."""

    session: Uint32
    reason: Slug


class NegClose(_Part, frozen=True, tag=13):
    """The session is over."""

    session: Uint32


# -- what is final -------------------------------------------------------------------------------------------------


class Cert(_Part, frozen=True, tag=14):
    """Certificates, in their own encoding."""

    certificates: Annotated[tuple[Certificate, ...], Meta(max_length=certificates_max)]


class CertIds(_Part, frozen=True, tag=15):
    """Ids of certificates that the sender holds."""

    ids: Ids


class CertGet(_Part, frozen=True, tag=16):
    """Ids of certificates that the sender asks for."""

    ids: Ids


class ProofGet(_Part, frozen=True, tag=17):
    """Asks for the bundle that proves a task's decision in an epoch."""

    task: Hash
    epoch: Counter


class Proof(_Part, frozen=True, tag=18):
    """The bundle, or None: the sender has none, or none that fits a frame."""

    task: Hash
    epoch: Counter
    bundle: Blob | None


# -- the link ------------------------------------------------------------------------------------------------------


class Prune(_Part, frozen=True, tag=19):
    """Make this link lazy: announce events on it, do not push them."""


class Graft(_Part, frozen=True, tag=20):
    """Make this link eager: push events on it."""


class PeersGet(_Part, frozen=True, tag=21):
    """Asks for addresses."""


class Peers(_Part, frozen=True, tag=22):
    """Addresses that the sender itself connected to."""

    addresses: Annotated[tuple[Address, ...], Meta(max_length=addresses_max)]


class Relation(_Part, frozen=True, tag=23):
    """A step of becoming friends, or of ceasing to be."""

    action: Literal["request", "accept", "reject", "remove"]


class Ping(_Part, frozen=True, tag=24):
    """Asks for a sign of life."""

    nonce: Uint64


class Pong(_Part, frozen=True, tag=25):
    """The answer to the ``Ping`` with this nonce. ``load``: how busy the sender is, in thousandths of what it can."""

    nonce: Uint64
    load: Uint32


class Bye(_Part, frozen=True, tag=26):
    """The sender closes the connection."""

    reason: Slug


Message = (
    Hello | Welcome | Events | Have | Want | FrontierGet | Frontier | RangeGet | Range | NegOpen | NegMsg | NegErr
    | NegClose | Cert | CertIds | CertGet | ProofGet | Proof | Prune | Graft | PeersGet | Peers | Relation | Ping
    | Pong | Bye
)  # fmt: skip

FINALITY, EVENTS, BACKFILL = 0, 1, 2
_lanes: dict[int, tuple[type[Message], ...]] = {
    FINALITY: (Hello, Welcome, Cert, CertIds, CertGet, ProofGet, Proof, Relation, Ping, Pong, Bye),
    EVENTS: (Events, Have, Want, Prune, Graft, PeersGet, Peers),
    BACKFILL: (FrontierGet, Frontier, RangeGet, Range, NegOpen, NegMsg, NegErr, NegClose),
}
lanes: dict[type[Message], int] = {kind: lane for lane, kinds in _lanes.items() for kind in kinds}


def code(kind: type[Message]) -> int:
    """The number that a message has on the wire."""
    found = kind.__struct_config__.tag
    assert isinstance(found, int)
    return found


messages: dict[int, type[Message]] = {code(kind): kind for kind in lanes}


def lane(message: Message) -> int:
    """The send queue a message goes into, unless its sender knows better: 0 is emptied first."""
    return lanes[type(message)]
