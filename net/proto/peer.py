"""What this node remembers of one connection: who is there, how far the two are with each other, what it may cost.

Values only; what they lead to is in ``machine`` and ``exchange``.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from net.proto.budget import PeerBudget
from net.proto.handshake import ClientHandshake, ServerHandshake, Taken
from net.proto.values import Link

Stage = Literal["new", "ruling", "events", "settling", "decisions", "level"]
"""How far two nodes are with each other: certificates that rule first, because they say whose events count; then
ranges; then what ranges do not mend; then decisions that no event carried; then nothing is missing."""

Frontier = Literal["unasked", "asked", "told"]
"""How far a peer holds each chain: what ranges are asked of it follows from that, until there is none to ask."""


@dataclass(slots=True)
class Peer:
    """One connection. ``taken`` is None until its other end has proved who it is.

    ``events``: how many came from it as gossip, needless ones too. ``own_seq``: how far the peer holds this node's own
    chain, as it said last (-1: nothing of it); None: not said yet.
    """

    link: Link
    address: str
    dialled: bool
    handshake: ServerHandshake | ClientHandshake
    budget: PeerBudget
    opened_ms: int = 0
    taken: Taken | None = None
    stage: Stage = "new"
    frontier: Frontier = "unasked"
    own_seq: int | None = None
    served_ms: int = 0
    questions: int = 0
    wanted: deque[bytes] = field(default_factory=deque)
    serving: bool = False
    events: int = 0
    wanted_certificates: deque[bytes] = field(default_factory=deque)
    asked_certificates: tuple[bytes, ...] = ()
    comparing: bool = False
    heard_ms: int = 0
    pinged: list[tuple[int, int]] = field(default_factory=list)
    rtt_ms: int | None = None
    unknown: int = 0
    late_blamed_ms: int = 0

    @property
    def reads_only(self) -> bool:
        """Whether it is an observer here: it is served, and nothing it sends is taken."""
        return self.taken is not None and not self.taken.member and not self.dialled
