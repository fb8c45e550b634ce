"""What goes into the machine and what comes out of it: the whole interface of the protocol to the world.

Inputs say what happened, outputs what is to be done; ``net.io`` performs them over sockets and a log, the simulator
over virtual time. A ``link`` is one connection, named by a number that is never used again. Questions to the log go
out as ``Ask`` and come back as ``Answered`` with the same token, so that the machine never waits. Times are unix ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from msgspec import Struct

from net.proto.items import Items
from net.proto.message import Standing, Wire

Link = int
Head = tuple[int, bytes]
Set = Literal[0, 1, 2]
events_set: Set = 0
ruling_set: Set = 1
decisions_set: Set = 2

# -- what happened --------------------------------------------------------------------------------------------------


class Opened(Struct, frozen=True):
    """A connection stands. ``server_id``: the node id that TLS proved, where we dialled; None where we were called."""

    link: Link
    address: str
    server_id: bytes | None


class Received(Struct, frozen=True):
    """A frame came."""

    link: Link
    frame: bytes


class Closed(Struct, frozen=True):
    """A connection is gone, whoever ended it."""

    link: Link


class DialFailed(Struct, frozen=True):
    """Nobody answered as they should at ``address``."""

    address: str


class Heard(Struct, frozen=True):
    """A datagram came from ``host``."""

    host: str
    data: bytes


class Known(NamedTuple):
    """An event as the network needs to know it. ``urgent``: it is about finality, and goes ahead of others."""

    id: bytes
    author: bytes
    author_seq: int
    seconds: int
    urgent: bool
    wire: Wire


class CertificateKnown(NamedTuple):
    """A certificate as the network needs to know it. ``ruling``: of membership or fork, not a decision. ``carried``: an
    event that is told of with it carries it."""

    id: bytes
    ruling: bool
    wire: bytes
    carried: bool = False


class Appended(Struct, frozen=True):
    """The log grew, or shrank: new live events in their order of arrival, events that became void, new certificates.

    ``heads``: of every chain that changed, how far it goes now (None: nothing of it is live). ``idle``: forks that no
    longer count. ``own``: this node authored the events. ``repaired``: they were asked for, so they are no news.
    It comes before the ``Ingested`` of the transaction that it tells of.
    """

    events: Sequence[Known]
    void: Sequence[tuple[int, bytes]]
    certificates: Sequence[CertificateKnown]
    idle: Sequence[bytes]
    heads: Mapping[bytes, Head | None]
    standing: Standing
    own: bool = False
    repaired: bool = False


class Fate(Struct, frozen=True):
    """What became of one event that was taken in. ``author_seq``: its place, where it waits for the ones before it."""

    id: bytes
    what: Literal["stored", "here", "orphan", "early", "stranger", "void", "refused", "bad"]
    author: bytes = b""
    author_seq: int = 0


class Ingested(Struct, frozen=True):
    """An ``Ingest`` is done. ``bad``: how many certificates are not sound; ``waiting``: how many wait for a version."""

    token: int
    fates: Sequence[Fate]
    bad: int = 0
    waiting: int = 0


class Answered(Struct, frozen=True):
    """The answer to an ``Ask``; its type follows from the question."""

    token: int
    answer: object


class Misframed(Struct, frozen=True):
    """What came on the link is no frame, or not in time, and it ends. ``how``: larger than a frame may be; of text; not
    whole when the other end went; not who it is within the time for that."""

    link: Link
    how: Literal["oversize", "text", "half", "slow"]


class Intruded(Struct, frozen=True):
    """Somebody at ``host`` made a connection that came to nothing, and not as honest ones do."""

    host: str


class Ordered(Struct, frozen=True):
    """The operator wants a node for a friend, or no more. ``number`` grows with every order."""

    node_id: bytes
    number: int
    wish: Literal["yes", "no"]


class Placed(Struct, frozen=True):
    """The operator wants an address, or a node (its id in hex), dialled, or not dialled any more."""

    about: str
    wanted: bool


class ClockSet(Struct, frozen=True):
    """This host's clock was set, by so much (above 0: forward)."""

    by_ms: int


class Woke(Struct, frozen=True):
    """The time of the last ``Wake`` has come."""


Input: TypeAlias = (
    Opened | Received | Closed | DialFailed | Heard | Appended | Ingested | Answered | Misframed | Intruded | Ordered
    | Placed | ClockSet | Woke
)  # fmt: skip

traffic: frozenset[type[Input]] = frozenset({Received, Heard, Appended, Ingested, Answered, Woke})
"""The many inputs that seldom change who is connected or may be dialled, and then it is told."""


# -- what there is at first -----------------------------------------------------------------------------------------


class Stock(Struct, frozen=True):
    """All that is live when the machine begins, which keeps it from then on: events, ids of certificates, chains."""

    events: Items
    ruling: Iterable[bytes]
    decisions: Iterable[bytes]
    chains: Mapping[bytes, Head]
    standing: Standing


class Relation(NamedTuple):
    """How this node and another stand: the operator's newest order and its number, and whether the other asked."""

    number: int
    wish: Literal["", "yes", "no"]
    asked: bool


# -- questions to the log ------------------------------------------------------------------------------------------


class Lacking(Struct, frozen=True):
    """Which of these event ids are not in the log? -> list[bytes]"""

    ids: Sequence[bytes]


class EventsOf(Struct, frozen=True):
    """The wires of these events, live or void, that are here -> list[Wire]"""

    ids: Sequence[bytes]


class Span(Struct, frozen=True):
    """An author's live events from ``first`` to ``last``, at most ``most`` -> list[Wire]"""

    author: bytes
    first: int
    last: int
    most: int


class CertificatesOf(Struct, frozen=True):
    """These certificates -> list[bytes]"""

    ids: Sequence[bytes]


class BundleOf(Struct, frozen=True):
    """The bundle of a decision -> bytes, or None"""

    task: bytes
    epoch: int


Question: TypeAlias = Lacking | EventsOf | Span | CertificatesOf | BundleOf

# -- what is to be done ---------------------------------------------------------------------------------------------


class Send(Struct, frozen=True):
    """Put a frame into a lane of the link (0 finality, 1 events, 2 backfill). ``dropping``: it may be lost."""

    link: Link
    lane: int
    frame: bytes
    dropping: bool = False


class Close(Struct, frozen=True):
    """End the connection, when what was sent before is out."""

    link: Link
    reason: str


class Admit(Struct, frozen=True):
    """The link's other end has proved who it is: the bounds of strangers no longer hold."""

    link: Link


class Dial(Struct, frozen=True):
    """Connect to ``address``; ``node_id``: who must answer there, if that is known."""

    address: str
    node_id: bytes | None


class Shout(Struct, frozen=True):
    """Send a datagram to everybody on the local network."""

    data: bytes


class Ingest(Struct, frozen=True):
    """Check and store what came. ``asked``: it was asked for. Ends in ``Ingested`` with the same token."""

    token: int
    events: Sequence[Wire]
    certificates: Sequence[bytes]
    asked: bool


class Ask(Struct, frozen=True):
    """A question to the log. Ends in ``Answered`` with the same token."""

    token: int
    question: Question


class Relate(Struct, frozen=True):
    """Remember how this node and another stand, over a restart; without a wish and not asked: forget it."""

    node_id: bytes
    relation: Relation


class Wake(Struct, frozen=True):
    """Say ``Woke`` at this time; only the newest counts."""

    at_ms: int


class Report(Struct, frozen=True):
    """Something that a person may want to know; ``about`` names a node or an address."""

    what: str
    about: str
    detail: str = ""


Output: TypeAlias = Send | Close | Admit | Dial | Shout | Ingest | Ask | Relate | Wake | Report
