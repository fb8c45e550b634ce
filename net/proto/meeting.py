"""How this node meets others: whom it dials and lets go, what it calls out and hears on the local network, what their
clocks and their operators say (docs/network.md §2, §3).

Works for the machine, which lends it its hands. Places and their worth are in ``peers``, announcements in
``announce``, friends in ``friends``; here is what leads from one to the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from msgspec import Struct

from net.proto import message as m
from net.proto.address import split
from net.proto.announce import Announcer, Ear, Heard
from net.proto.budget import Buckets, allowances
from net.proto.clocks import Clocks
from net.proto.conduct import Ledger
from net.proto.draw import Draw
from net.proto.friends import Friends
from net.proto.hands import Hands
from net.proto.peer import Peer
from net.proto.peers import PeerBook, rest_ms_max
from net.proto.places import Known, Target
from net.proto.rhythm import never_ms
from net.proto.values import Link, Placed, Relation
from wattswarm.kernel.limits import clock_skew_tolerance_ms
from wattswarm.kernel.refusal import Malformed

askers_max = 1_024
clock_off_again_ms = 60_000
meet_again_ms = 1_000
ask_again_ms = 60_000
ask_soon_ms_max = 1_000
surplus_rest_ms = 30_000
"""How long both ends of a link that was one too many leave each other alone, unless one of them has too few."""


class Memory(Struct, frozen=True):
    """What a node knows of others from before it began. ``places``: where whom was reached or heard; ``unwanted``:
    addresses and node ids (in hex) that the operator does not want dialled."""

    places: Sequence[Known] = ()
    relations: Mapping[bytes, Relation] = {}
    unwanted: Sequence[str] = ()


nothing_known = Memory()


def host_of(address: str) -> str:
    """The host of a connection's address; the address itself where it has no port."""
    try:
        return split(address)[0]
    except Malformed:
        return address


class Meeting:
    """The node's neighbourhood. ``announcer`` None: it calls out nothing."""

    def __init__(
        self,
        hands: Hands,
        book: PeerBook,
        conduct: Ledger,
        ear: Ear,
        announcer: Announcer | None,
        memory: Memory,
        draw: Draw,
    ) -> None:
        self.book = book
        self.ear = ear
        self.clocks = Clocks()
        self.friends = Friends(hands, book, memory.relations)
        self._hands = hands
        self._conduct = conduct
        self._announcer = announcer
        self._draw = draw
        self._askers: Buckets[bytes] = Buckets(allowances["addresses"], askers_max)
        self._clock_again_ms = 0
        self._to_meet: deque[Link] = deque()
        self._meet_again_ms = 0
        self._ask_ms = 0
        for known in memory.places:
            book.remember(known)
        for about in memory.unwanted:
            book.want(about, False)

    def bootstrap(self, addresses: Sequence[str]) -> None:
        """Addresses that people gave."""
        for address in addresses:
            self.book.learn(address, "configured")

    def placed(self, order: Placed) -> None:
        """The operator wants somebody dialled, or not any more: what was dialled is let go."""
        self.book.want(order.about, order.wanted)
        for peer in list(self._hands.peers.values()):
            named = peer.taken is not None and order.about in (peer.address, peer.taken.node_id.hex())
            if named and peer.dialled and not order.wanted:
                self._hands.let_go(peer, "unwanted")

    def heard(self, host: str, datagram: bytes, now_ms: int) -> bool:
        """A datagram came. A member that is new is tried at once, and may not have heard this node yet. Whether there
        is a reason to look at what is due."""
        heard = self.ear.hear(host, datagram, now_ms)
        if not isinstance(heard, Heard):
            return False
        if heard.new and self._announcer is not None:
            self._announcer.prompt()
        return self.book.heard(heard.node_id, heard.address, now_ms, new=heard.new) or heard.new

    def joined(self, peer: Peer, now_ms: int) -> None:
        """A handshake is done."""
        assert peer.taken is not None
        node_id, host = peer.taken.node_id, host_of(peer.address)
        self.book.joined(node_id, peer.address if peer.dialled else None, now_ms, member=peer.taken.member)
        self.book.introduced(node_id, host, peer.taken.listen)
        if peer.taken.member:
            self._conduct.member_came(host)
            self.clocks.heard(node_id, peer.taken.ahead_ms, now_ms - peer.opened_ms)
            self.friends.joined(node_id, now_ms)
        if peer.dialled:
            self._hands.send(peer, m.PeersGet())
            self._ask_ms = now_ms + ask_again_ms
        if peer.dialled and not self.book.is_wanted(peer.address, node_id):
            self._hands.let_go(peer, "unwanted")

    def admitted(self, peer: Peer, now_ms: int) -> None:
        """Who is connected has become a member."""
        assert peer.taken is not None
        address = peer.address if peer.dialled else None
        self.book.joined(peer.taken.node_id, address, now_ms, member=True)
        self._conduct.member_came(host_of(peer.address))

    def members_changed(self, now_ms: int) -> None:
        """A membership version came: who turned this node away may take it now, and others may be told of."""
        self.book.try_again(now_ms)
        self._ask_ms = min(self._ask_ms, now_ms + self._draw.randrange(ask_soon_ms_max))

    def left(self, peer: Peer, now_ms: int, reason: str) -> None:
        """The last connection to a node is gone; either end may have said why."""
        assert peer.taken is not None
        rest_ms = rest_ms_max if reason == "unwanted" else 0
        spared_ms = surplus_rest_ms if reason == "surplus" else 0
        if peer.taken.member:
            self._conduct.member_left(host_of(peer.address))
        self.book.left(peer.taken.node_id, now_ms, rest_ms, spared_ms)

    def on_peers_get(self, peer: Peer, _said: m.PeersGet, now_ms: int) -> None:
        """Tell a peer where this node connected to itself: 32 addresses a minute."""
        self._tell_places(peer, now_ms)

    def _tell_places(self, peer: Peer, now_ms: int, lane: int = m.EVENTS) -> None:
        assert peer.taken is not None
        addresses = self.book.share(peer.taken.node_id)
        while not self._askers.take(peer.taken.node_id, max(1, len(addresses)), now_ms):
            if len(addresses) <= 1:
                return
            addresses = addresses[: len(addresses) // 2]
        self._hands.send(peer, m.Peers(addresses), lane=lane)

    def on_peers(self, peer: Peer, said: m.Peers, now_ms: int) -> None:
        """A peer tells where it connected to."""
        assert peer.taken is not None
        if not peer.reads_only:
            self.book.told(peer.taken.node_id, host_of(peer.address), said.addresses, now_ms)

    def due(self, now_ms: int) -> tuple[list[Target], bytes | None]:
        """Whom to dial now, and what to call out."""
        self._let_go(now_ms)
        self.friends.due(now_ms)
        if not 0 < self._ask_ms - now_ms <= ask_again_ms:
            self._ask_for_places(now_ms)
        return self.book.dial(now_ms), None if self._announcer is None else self._announcer.due(now_ms)

    def _let_go(self, now_ms: int) -> None:
        """Whom this node has too much of, who hears where else to go; and one whose clock is to be asked again, for
        only a HELLO tells it."""
        surplus = self.book.surplus()
        for peer in [peer for peer in self._hands.peers.values() if peer.taken and peer.taken.node_id in surplus]:
            self._tell_places(peer, now_ms, m.FINALITY)  # in another lane the goodbye would overtake it
            self._hands.let_go(peer, "surplus")
        if self.clocks.off_ms and self._clock_again_ms <= now_ms:
            self._ask_a_clock(now_ms)
        if self._to_meet and not 0 < self._meet_again_ms - now_ms <= meet_again_ms:
            self._meet_again(now_ms)

    def clock_set(self, by_ms: int) -> None:
        """This host's clock was set, by so much. If that is more than is allowed for, all peers are met again, one
        after the other: what either end knows of the other's clock is old."""
        self.clocks.shift(by_ms)
        if abs(by_ms) > clock_skew_tolerance_ms:
            self._to_meet = deque(self._hands.peers)

    def _meet_again(self, now_ms: int) -> None:
        self._meet_again_ms = now_ms + meet_again_ms
        while self._to_meet:
            peer = self._hands.peers.get(self._to_meet.popleft())
            if peer is not None and peer.taken is not None and peer.taken.member:
                self._hands.let_go(peer, "clock")
                return

    def _ask_for_places(self, now_ms: int) -> None:
        """Ask somebody for addresses while there are too few links: who came after this node met its peers is news."""
        self._ask_ms = now_ms + ask_again_ms
        peers = [peer for peer in self._hands.peers.values() if peer.taken is not None and not peer.reads_only]
        if peers and self.book.lacking() > 0:
            self._hands.send(self._draw.sample(peers, 1)[0], m.PeersGet())

    def _ask_a_clock(self, now_ms: int) -> None:
        members = [peer for peer in self._hands.peers.values() if peer.taken and peer.taken.member]
        old = [peer for peer in members if peer.opened_ms + clock_off_again_ms <= now_ms]
        if old:
            self._clock_again_ms = now_ms + clock_off_again_ms
            self._hands.let_go(min(old, key=lambda peer: peer.opened_ms), "clock")

    def next_ms(self, now_ms: int) -> int:
        """When ``due`` has something, at the earliest."""
        announce_ms = never_ms if self._announcer is None else self._announcer.next_ms(now_ms)
        meet_ms = self._meet_again_ms if self._to_meet else never_ms
        clock_ms = min(self._clock_ms(), meet_ms)
        return min(self.book.next_ms(now_ms), announce_ms, self.friends.next_ms(), clock_ms, self._ask_ms)

    def _clock_ms(self) -> int:
        """When a clock may be asked again, if there is need to and somebody to ask."""
        if not self.clocks.off_ms:
            return never_ms
        opened = [peer.opened_ms for peer in self._hands.peers.values() if peer.taken and peer.taken.member]
        return max(self._clock_again_ms, min(opened) + clock_off_again_ms) if opened else never_ms
