"""How this node meets others: whom it dials, what it calls out and hears on the local network (docs/network.md §2).

Works for the machine, which lends it its hands. Places and their worth are in ``peers``, announcements in
``announce``; here is what leads from one to the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from net.proto import message as m
from net.proto.address import split
from net.proto.announce import Announcer, Ear, Heard
from net.proto.conduct import Ledger
from net.proto.draw import Draw
from net.proto.hands import Hands
from net.proto.peer import Peer
from net.proto.peers import PeerBook, Target
from wattswarm.kernel.refusal import Malformed


def host_of(address: str) -> str:
    """The host of a connection's address; the address itself where it has no port."""
    try:
        return split(address)[0]
    except Malformed:
        return address


class Meeting:
    """The node's neighbourhood. ``announcer`` None: it calls out nothing."""

    def __init__(
        self, hands: Hands, me: bytes, conduct: Ledger, draw: Draw, ear: Ear, announcer: Announcer | None
    ) -> None:
        self.book = PeerBook(me, conduct, draw)
        self.ear = ear
        self._hands = hands
        self._conduct = conduct
        self._announcer = announcer

    def bootstrap(self, addresses: Sequence[str]) -> None:
        """Addresses that people gave."""
        for address in addresses:
            self.book.learn(address, "configured")

    def heard(self, host: str, datagram: bytes, now_ms: int) -> None:
        """A datagram came. A member that is new is tried at once, and may not have heard this node yet."""
        heard = self.ear.hear(host, datagram, now_ms)
        if isinstance(heard, Heard) and heard.new:
            self.book.heard(heard.node_id, heard.address, now_ms)
            if self._announcer is not None:
                self._announcer.prompt()

    def joined(self, peer: Peer, now_ms: int) -> None:
        """A handshake is done."""
        assert peer.taken is not None
        node_id, host = peer.taken.node_id, host_of(peer.address)
        self.book.joined(node_id, peer.address if peer.dialled else None, now_ms, member=peer.taken.member)
        self.book.introduced(node_id, host, peer.taken.listen)
        if peer.taken.member:
            self._conduct.member_came(host)
        if peer.dialled:
            self._hands.send(peer, m.PeersGet())

    def admitted(self, peer: Peer, now_ms: int) -> None:
        """Who is connected has become a member."""
        assert peer.taken is not None
        address = peer.address if peer.dialled else None
        self.book.joined(peer.taken.node_id, address, now_ms, member=True)
        self._conduct.member_came(host_of(peer.address))

    def left(self, peer: Peer, now_ms: int) -> None:
        """The last connection to a node is gone."""
        assert peer.taken is not None
        if peer.taken.member:
            self._conduct.member_left(host_of(peer.address))
        self.book.left(peer.taken.node_id, now_ms)

    def on_peers_get(self, peer: Peer, _said: m.PeersGet, now_ms: int) -> None:
        """Tell a peer where this node connected to itself."""
        if peer.budget.take("addresses", 1, now_ms):
            assert peer.taken is not None
            self._hands.send(peer, m.Peers(self.book.share(peer.taken.node_id)))

    def on_peers(self, peer: Peer, said: m.Peers, now_ms: int) -> None:
        """A peer tells where it connected to."""
        assert peer.taken is not None
        if not peer.reads_only:
            self.book.told(peer.taken.node_id, host_of(peer.address), said.addresses, now_ms)

    def due(self, now_ms: int) -> tuple[list[Target], bytes | None]:
        """Whom to dial now, and what to call out."""
        return self.book.dial(now_ms), None if self._announcer is None else self._announcer.due(now_ms)

    def next_ms(self, now_ms: int) -> int | None:
        """When ``due`` has something, at the earliest."""
        times = [self.book.next_ms(now_ms), None if self._announcer is None else self._announcer.next_ms(now_ms)]
        return min((at for at in times if at is not None), default=None)
