"""The protocol of one node as a machine: ``handle(input, now_ms)`` gives what is to be done (docs/network.md §1).

It knows links, peers and the outline of the log, and nothing else: no sockets, no clock, no randomness but what is
handed in, no event's meaning. ``net.io`` performs its outputs over the world, the simulator over virtual time; both
run this very code. Here is the life of a connection - handshake, messages by their table, pings, blame, the end; what
the messages are about is ``exchange``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from net.proto import frame
from net.proto import message as m
from net.proto.announce import Announcer, Ear
from net.proto.budget import Deed, PeerBudget
from net.proto.conduct import Ledger, frame_deeds, host_faults
from net.proto.draw import Draw
from net.proto.exchange import Exchange
from net.proto.hands import Asked, Then
from net.proto.handshake import ClientHandshake, Door, Line, Me, ServerHandshake, Taken, keep
from net.proto.meeting import Meeting, Memory, host_of, nothing_known
from net.proto.peer import Peer
from net.proto.peers import PeerBook
from net.proto.rhythm import Rhythm
from net.proto.takers import appending, stirring, takers
from net.proto.values import (
    Admit,
    Answered,
    Appended,
    Ask,
    ClockSet,
    Close,
    Closed,
    Dial,
    DialFailed,
    Heard,
    Ingest,
    Ingested,
    Input,
    Intruded,
    Link,
    Misframed,
    Opened,
    Ordered,
    Output,
    Placed,
    Question,
    Received,
    Relate,
    Report,
    Send,
    Shout,
    Stock,
    Wake,
    Woke,
    traffic,
)
from wattswarm.kernel.refusal import Malformed, Refused

pings_unanswered_max = 3
full_mesh_peers = 12
mesh_peers = 6
questions_a_peer_max = 16


@dataclass(frozen=True, slots=True)
class Ways:
    """How this node is to behave: who it is, who is a member, how many others may read, whom it knows, what it says.

    ``memory``: what it knows of others from before. ``decode``: the message in a frame, as ``frame.decode`` reads it.
    """

    me: Me
    is_member: Callable[[bytes], bool]
    observers: int = 0
    bootstrap: Sequence[str] = ()
    announcer: Announcer | None = None
    memory: Memory = nothing_known
    decode: Callable[[bytes], m.Message | frame.Unknown] = frame.decode


class Machine:
    """One node's side of every conversation. ``draw``: where its randomness comes from."""

    def __init__(self, ways: Ways, stock: Stock, draw: Draw, now_ms: int) -> None:
        me = self.me = ways.me
        self.peers: dict[Link, Peer] = {}
        self.conduct = Ledger()
        self.exchange = Exchange(self, stock)
        ear = Ear(me.network_id, me.keys.node_id, ways.is_member, now_ms)
        book = PeerBook(me.keys.node_id, self.conduct, draw)
        self.meeting = Meeting(self, book, self.conduct, ear, ways.announcer, ways.memory, draw)
        self.meeting.bootstrap(ways.bootstrap)
        self._observers = ways.observers
        self._is_member = ways.is_member
        self._decode = ways.decode
        self._draw = draw
        self._now_ms = now_ms
        self._door = Door(ways.is_member, self._is_graylisted, self._observer_room)
        self._handlers = takers(self.exchange, self.meeting)
        self._out: list[Output] = []
        self._asked = Asked()
        self._framed: tuple[m.Message | None, bytes] = None, b""  # what goes to many is encoded once
        self._rhythm = Rhythm(draw, now_ms)
        self._wake_ms: int | None = None
        self._stirred = True
        self._meeting_ms = now_ms

    def handle(self, given: Input, now_ms: int) -> list[Output]:
        """What is to be done about one input. Never raises for what a peer sent."""
        self._now_ms = now_ms
        self._stirred = type(given) not in traffic
        match given:
            case Received():
                self._received(given)
            case Ingested() | Answered():
                self._asked.over(given, now_ms)
            case Appended():
                self.exchange.appended(given, now_ms)
                self._rhythm.compare_soon(self._now_ms)
                if any(certificate.ruling for certificate in given.certificates):
                    self._look_who_is_a_member()
            case Woke():
                self._wake_ms = None
            case Heard():
                self._stirred = self.meeting.heard(given.host, given.data, now_ms)
            case Opened():
                self._opened(given)
            case Closed():
                self._closed(given.link)
            case DialFailed():
                self.meeting.book.failed(given.address, now_ms)
            case Misframed(link, how):
                self._misframed(link, how)
            case Intruded(host):
                self.conduct.stranger_fault(host, now_ms)
            case Ordered():
                self.meeting.friends.ordered(given, now_ms)
            case Placed():
                self.meeting.placed(given)
            case ClockSet(by_ms):
                self.meeting.clock_set(by_ms)
        self._due()
        out, self._out = self._out, []
        return out

    # -- hands of the exchange --------------------------------------------------------------------------------------

    def send(self, peer: Peer, message: m.Message, *, lane: int | None = None, dropping: bool = False) -> None:
        """Queue a message to a peer that is still there."""
        if peer.link in self.peers:
            lane = m.lane(message) if lane is None else lane
            if message is not self._framed[0]:
                self._framed = message, frame.encode(message)
            self._out.append(Send(peer.link, lane, self._framed[1], dropping))

    def ask(self, question: Question, then: Callable[[Any, int], None]) -> None:
        """Ask the log; ``then`` gets the answer."""
        self._out.append(Ask(self._asked.remember(then), question))

    def ask_for(self, peer: Peer, question: Question, then: Callable[[Any, int], None]) -> None:
        """Ask the log on a peer's behalf. Whoever asks for more than a few things at a time is not answered."""
        if peer.questions >= questions_a_peer_max:
            return
        peer.questions += 1

        def answered(answer: Any, now_ms: int) -> None:
            peer.questions -= 1
            then(answer, now_ms)

        self.ask(question, answered)

    def ingest(self, events: Sequence[m.Wire], certificates: Sequence[bytes], asked: bool, then: Then) -> None:
        """Have events and certificates checked and stored; ``then`` hears what became of them."""
        self._out.append(Ingest(self._asked.remember(then), events, certificates, asked))

    def blame(self, peer: Peer, deed: Deed, now_ms: int, times: int = 1) -> None:
        """Note a peer's deed; who falls too low is cut off, and its id is not let in for a while."""
        assert peer.taken is not None
        node_id = peer.taken.node_id
        if self.conduct.note(node_id, deed, now_ms, times) and peer.link in self.peers:
            self.tell(Report("graylisted", node_id.hex(), deed))
            self.let_go(peer, "graylisted")

    def tell(self, output: Relate | Report) -> None:
        """Say something to whoever runs this."""
        self._out.append(output)

    def let_go(self, peer: Peer, reason: str) -> None:
        """Say goodbye, and forget the connection."""
        self.send(peer, m.Bye(reason))
        self._out.append(Close(peer.link, reason))
        self._closed(peer.link, reason)

    # -- connections ------------------------------------------------------------------------------------------------

    def _is_graylisted(self, node_id: bytes) -> bool:
        return self.conduct.graylisted(node_id, self._now_ms)

    def _observer_room(self) -> int:
        return self._observers - sum(peer.reads_only for peer in self.peers.values())

    def _opened(self, given: Opened) -> None:
        handshake: ServerHandshake | ClientHandshake
        if given.server_id is None:
            handshake = ServerHandshake(self.me, self._door, self._draw)
        else:
            handshake = ClientHandshake(self.me, self._door, self._draw, given.server_id)
            self.meeting.book.answered(given.address, given.server_id, self._now_ms)
        dialled, now_ms = given.server_id is not None, self._now_ms
        budget = PeerBudget(now_ms)
        peer = Peer(given.link, given.address, dialled, handshake, budget, opened_ms=now_ms, heard_ms=now_ms)
        self.peers[given.link] = peer
        if isinstance(handshake, ServerHandshake):
            self.send(peer, handshake.hello(self._now_ms))

    def _closed(self, link: Link, reason: str = "") -> None:
        self._stirred = True
        peer = self.peers.pop(link, None)
        if peer is not None and peer.taken is not None:
            broken = self.exchange.left(link, self._now_ms)
            if broken:
                self.conduct.note(peer.taken.node_id, "broken_want", self._now_ms, broken)
            self.meeting.left(peer, self._now_ms, reason)
            self._out.append(Report("left", peer.taken.node_id.hex()))

    def _misframed(self, link: Link, how: str) -> None:
        """The connection ends by itself; what is left is the blame. A known node's crash in mid-frame is no fault."""
        peer = self.peers.get(link)
        if peer is None:
            return
        self._out.append(Report("misframed", peer.address, how))
        if peer.taken is None and not peer.dialled:
            self.conduct.stranger_fault(host_of(peer.address), self._now_ms)
        elif peer.taken is not None and how in frame_deeds:
            self.blame(peer, frame_deeds[how], self._now_ms)

    def _received(self, given: Received) -> None:
        peer = self.peers.get(given.link)
        if peer is None:
            return
        peer.heard_ms = self._now_ms
        try:
            message = self._decode(given.frame)
            if isinstance(message, frame.Unknown):
                peer.unknown += 1
            else:
                self._hear(peer, message)
        except Malformed as refusal:
            self._out.append(Report("malformed", peer.address, str(refusal)))
            if peer.taken is not None:
                self.blame(peer, "malformed", self._now_ms)
            else:
                self.conduct.stranger_fault(host_of(peer.address), self._now_ms)
            if peer.link in self.peers:
                self.let_go(peer, "malformed")
        except Refused as refusal:
            self._out.append(Report("refused", peer.address, str(refusal)))
            if peer.taken is None and refusal.reason in host_faults:
                self.conduct.stranger_fault(host_of(peer.address), self._now_ms)
            self.let_go(peer, refusal.reason)

    def _hear(self, peer: Peer, message: m.Message) -> None:
        if type(message) in stirring:
            self._stirred = True
        if peer.taken is None:
            self._shake_hands(peer, message)
            return
        match message:
            case m.Ping(nonce):
                self.send(peer, m.Pong(nonce, 0))
            case m.Pong(nonce):
                peer.rtt_ms = next((self._now_ms - at for one, at in peer.pinged if one == nonce), peer.rtt_ms)
                peer.pinged.clear()
            case m.Bye(reason):
                self._out.append(Close(peer.link, "bye"))
                self._closed(peer.link, reason)
            case m.Hello() | m.Welcome():
                raise Malformed("handshake_order", "the handshake is over, and another message of it came")
            case _:
                handler = self._handlers.get(type(message))
                if handler is not None and not (peer.reads_only and type(message) in appending):
                    handler(peer, message, self._now_ms)

    def _shake_hands(self, peer: Peer, message: m.Message) -> None:
        standing = self.exchange.standing
        match peer.handshake, message:
            case ServerHandshake() as side, m.Hello():
                taken, welcome = side.on_hello(message, standing, self._now_ms)
                if self._keeps(peer, taken):
                    self.send(peer, welcome)
                    self._take(peer, taken)
            case ClientHandshake() as side, m.Hello():
                self.send(peer, side.on_hello(message, standing, self._now_ms))
            case ClientHandshake() as side, m.Welcome():
                taken = side.on_welcome(message)
                if self._keeps(peer, taken):
                    self._take(peer, taken)
            case _, m.Bye(reason):
                self._out.append(Report("turned_away", peer.address, reason))
                self._out.append(Close(peer.link, "bye"))
                self._closed(peer.link)
            case _:
                raise Malformed("handshake_order", f"{type(message).__name__} came before the handshake was over")

    def _line(self, peer: Peer, taken: Taken) -> Line:
        return Line(taken.boot_id, self.me.keys.node_id if peer.dialled else taken.node_id)

    def _keeps(self, peer: Peer, taken: Taken) -> bool:
        """Of two connections to one node, one stays."""
        for held in list(self.peers.values()):
            if held.taken is None or held.taken.node_id != taken.node_id:
                continue
            old, new = self._line(held, held.taken), self._line(peer, taken)
            loser = held if keep(old, new) == new else peer
            self.let_go(loser, "one_connection")
            if loser is peer:
                return False
        return True

    def _take(self, peer: Peer, taken: Taken) -> None:
        peer.taken = taken
        self._out.append(Admit(peer.link))
        self._out.append(Report("joined", taken.node_id.hex(), peer.address))
        self.exchange.joined(peer, eager=taken.member and self._has_room_in_mesh(), now_ms=self._now_ms)
        self.meeting.joined(peer, self._now_ms)
        self._ping(peer)
        self._rhythm.compare_soon(self._now_ms)

    def _has_room_in_mesh(self) -> bool:
        """Whether one more peer may be pushed to."""
        others = [other for other in self.peers.values() if other.taken is not None and not other.reads_only]
        return len(others) <= full_mesh_peers or len(self.exchange.gossip.eager) < mesh_peers

    def _look_who_is_a_member(self) -> None:
        """A membership version came: who is connected may belong to the network now, and may say so."""
        self._stirred = True
        self.meeting.members_changed(self._now_ms)
        for peer in list(self.peers.values()):
            if peer.taken is None or peer.taken.member or not self._is_member(peer.taken.node_id):
                continue
            read_only = peer.reads_only
            peer.taken = replace(peer.taken, member=True)
            self.meeting.admitted(peer, self._now_ms)
            if read_only:
                self.exchange.admitted(peer, eager=self._has_room_in_mesh(), now_ms=self._now_ms)

    # -- time -------------------------------------------------------------------------------------------------------

    def _due(self) -> None:
        """What the clock brought, or a change among the peers; and when to look again."""
        now_ms = self._now_ms
        next_ms = now_ms if self._stirred else self._next_ms()
        if next_ms <= now_ms:
            self._perform_due(now_ms)
            next_ms = self._next_ms()
        wake_ms = max(now_ms + 1, next_ms)
        if self._wake_ms is None or wake_ms < self._wake_ms:
            self._wake_ms = wake_ms
            self._out.append(Wake(wake_ms))

    def _next_ms(self) -> int:
        return min(self.exchange.next_ms(), self._meeting_ms, self._rhythm.next_ms)

    def _perform_due(self, now_ms: int) -> None:
        self.exchange.due(now_ms)
        if self._rhythm.pings(now_ms):
            for peer in [peer for peer in self.peers.values() if peer.taken is not None]:
                self._ping(peer)
        if self._rhythm.compares(now_ms):
            self._reconcile()
        if self._stirred or self._meeting_ms <= now_ms:
            self._meet(now_ms)

    def _meet(self, now_ms: int) -> None:
        """Whom to dial and to let go. No traffic changes that, so it does not cost a walk over all places each time."""
        targets, datagram = self.meeting.due(now_ms)
        self._out.extend(Dial(target.address, target.node_id) for target in targets)
        if datagram is not None:
            self._out.append(Shout(datagram))
        self._meeting_ms = self.meeting.next_ms(now_ms)

    def _ping(self, peer: Peer) -> None:
        if len(peer.pinged) >= pings_unanswered_max:
            self.let_go(peer, "silent")
            return
        nonce = int.from_bytes(self._draw.randbytes(8), "big")
        peer.pinged.append((nonce, self._now_ms))
        self.send(peer, m.Ping(nonce))

    def _reconcile(self) -> None:
        """Compare with somebody, whatever gossip says."""
        partners = [one for one in self.peers.values() if one.taken and one.stage == "level" and not one.reads_only]
        if partners:
            self.exchange.reconcile(partners[self._draw.randrange(len(partners))], self._now_ms)
