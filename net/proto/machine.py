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
from net.proto.conduct import Ledger
from net.proto.draw import Draw
from net.proto.exchange import Exchange
from net.proto.hands import Then
from net.proto.handshake import ClientHandshake, Door, Line, Me, ServerHandshake, Taken, keep
from net.proto.meeting import Meeting, host_of
from net.proto.peer import Peer
from net.proto.values import (
    Admit,
    Answered,
    Appended,
    Ask,
    Close,
    Closed,
    Dial,
    DialFailed,
    Heard,
    Ingest,
    Ingested,
    Input,
    Link,
    Opened,
    Output,
    Question,
    Received,
    Report,
    Send,
    Shout,
    Stock,
    Wake,
    Woke,
)
from wattswarm.kernel.refusal import Malformed, Refused

ping_every_ms = 15_000
pings_unanswered_max = 3
reconcile_every_ms = 30_000
reconcile_every_ms_max = 300_000
full_mesh_peers = 12
mesh_peers = 6
questions_a_peer_max = 16

_appending: frozenset[type[m.Message]] = frozenset({m.Events, m.Have, m.Range, m.Frontier, m.CertIds, m.Cert})
"""What an observer may not send: it reads only."""


def _table(exchange: Exchange, meeting: Meeting) -> dict[type[m.Message], Callable[[Peer, Any, int], None]]:
    """Who takes which message."""
    return {
        m.Events: exchange.on_events,
        m.Have: exchange.on_have,
        m.Want: exchange.on_want,
        m.Prune: exchange.on_prune,
        m.Graft: exchange.on_graft,
        m.FrontierGet: exchange.on_frontier_get,
        m.Frontier: exchange.on_frontier,
        m.RangeGet: exchange.on_range_get,
        m.Range: exchange.on_range,
        m.NegOpen: exchange.on_neg_open,
        m.NegMsg: exchange.on_neg_msg,
        m.NegErr: exchange.on_neg_end,
        m.NegClose: exchange.on_neg_end,
        m.CertIds: exchange.certificates.on_cert_ids,
        m.CertGet: exchange.certificates.on_cert_get,
        m.Cert: exchange.certificates.on_cert,
        m.ProofGet: exchange.certificates.on_proof_get,
        m.PeersGet: meeting.on_peers_get,
        m.Peers: meeting.on_peers,
    }


@dataclass(frozen=True, slots=True)
class Ways:
    """How this node is to behave: who it is, who is a member, how many others may read, whom it knows, what it says."""

    me: Me
    is_member: Callable[[bytes], bool]
    observers: int = 0
    bootstrap: Sequence[str] = ()
    announcer: Announcer | None = None


class Machine:
    """One node's side of every conversation. ``draw``: where its randomness comes from."""

    def __init__(self, ways: Ways, stock: Stock, draw: Draw, now_ms: int) -> None:
        me = self.me = ways.me
        self.peers: dict[Link, Peer] = {}
        self.conduct = Ledger()
        self.exchange = Exchange(self, stock)
        ear = Ear(me.network_id, me.keys.node_id, ways.is_member, now_ms)
        self.meeting = Meeting(self, me.keys.node_id, self.conduct, draw, ear, ways.announcer)
        self.meeting.bootstrap(ways.bootstrap)
        self._observers = ways.observers
        self._draw = draw
        self._now_ms = now_ms
        self._door = Door(ways.is_member, self._is_graylisted, self._observer_room)
        self._handlers = _table(self.exchange, self.meeting)
        self._out: list[Output] = []
        self._token = 0
        self._then: dict[int, Callable[[Any, int], None]] = {}
        self._period_ms = reconcile_every_ms
        self._reconcile_ms = now_ms + self._period_ms
        self._ping_ms = now_ms + ping_every_ms
        self._wake_ms: int | None = None

    def handle(self, given: Input, now_ms: int) -> list[Output]:
        """What is to be done about one input. Never raises for what a peer sent."""
        self._now_ms = now_ms
        match given:
            case Opened():
                self._opened(given)
            case Received():
                self._received(given)
            case Closed():
                self._closed(given.link)
            case DialFailed():
                self.meeting.book.failed(given.address, now_ms)
            case Heard():
                self.meeting.heard(given.host, given.data, now_ms)
            case Appended():
                self.exchange.appended(given, now_ms)
                if any(certificate.ruling for certificate in given.certificates):
                    self._let_in()
            case Ingested() | Answered():
                then = self._then.pop(given.token, None)
                if then is not None:
                    then(given if isinstance(given, Ingested) else given.answer, now_ms)
            case Woke():
                self._wake_ms = None
        self._due()
        out, self._out = self._out, []
        return out

    # -- hands of the exchange --------------------------------------------------------------------------------------

    def send(self, peer: Peer, message: m.Message, *, lane: int | None = None, dropping: bool = False) -> None:
        """Queue a message to a peer that is still there."""
        if peer.link in self.peers:
            lane = m.lane(message) if lane is None else lane
            self._out.append(Send(peer.link, lane, frame.encode(message), dropping))

    def ask(self, question: Question, then: Callable[[Any, int], None]) -> None:
        """Ask the log; ``then`` gets the answer."""
        self._out.append(Ask(self._remember(then), question))

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
        self._out.append(Ingest(self._remember(then), events, certificates, asked))

    def _remember(self, then: Callable[[Any, int], None]) -> int:
        self._token += 1
        self._then[self._token] = then
        return self._token

    def blame(self, peer: Peer, deed: Deed, now_ms: int, times: int = 1) -> None:
        """Note a peer's deed; who falls too low is cut off, and its id is not let in for a while."""
        assert peer.taken is not None
        node_id = peer.taken.node_id
        if self.conduct.note(node_id, deed, now_ms, times) and peer.link in self.peers:
            self._out.append(Report("graylisted", node_id.hex(), deed))
            self._end(peer, "graylisted")

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
        dialled = given.server_id is not None
        if given.server_id is not None:
            self.meeting.book.answered(given.address, given.server_id, self._now_ms)
        budget = PeerBudget(self._now_ms)
        peer = Peer(given.link, given.address, dialled, handshake, budget, heard_ms=self._now_ms)
        self.peers[given.link] = peer
        if isinstance(handshake, ServerHandshake):
            self.send(peer, handshake.hello(self._now_ms))

    def _closed(self, link: Link) -> None:
        peer = self.peers.pop(link, None)
        if peer is not None and peer.taken is not None:
            self.exchange.left(link)
            self.meeting.left(peer, self._now_ms)
            self._out.append(Report("left", peer.taken.node_id.hex()))

    def _end(self, peer: Peer, reason: str) -> None:
        """Say goodbye, and forget the connection."""
        self.send(peer, m.Bye(reason))
        self._out.append(Close(peer.link, reason))
        self._closed(peer.link)

    def _received(self, given: Received) -> None:
        peer = self.peers.get(given.link)
        if peer is None:
            return
        peer.heard_ms = self._now_ms
        try:
            message = frame.decode(given.frame)
            if not isinstance(message, frame.Unknown):
                self._hear(peer, message)
        except Malformed as refusal:
            self._out.append(Report("malformed", peer.address, str(refusal)))
            if peer.taken is not None:
                self.blame(peer, "malformed", self._now_ms)
            else:
                self.conduct.stranger_fault(host_of(peer.address), self._now_ms)
            if peer.link in self.peers:
                self._end(peer, "malformed")
        except Refused as refusal:
            self._out.append(Report("refused", peer.address, str(refusal)))
            self._end(peer, refusal.reason)

    def _hear(self, peer: Peer, message: m.Message) -> None:
        if peer.taken is None:
            self._shake_hands(peer, message)
            return
        match message:
            case m.Ping(nonce):
                self.send(peer, m.Pong(nonce, 0))
            case m.Pong(nonce):
                peer.rtt_ms = next((self._now_ms - at for one, at in peer.pinged if one == nonce), peer.rtt_ms)
                peer.pinged.clear()
            case m.Bye():
                self._out.append(Close(peer.link, "bye"))
                self._closed(peer.link)
            case m.Hello() | m.Welcome():
                raise Malformed("handshake_order", "the handshake is over, and another message of it came")
            case _:
                handler = self._handlers.get(type(message))
                if handler is not None and not (peer.reads_only and type(message) in _appending):
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
            self._end(loser, "one_connection")
            if loser is peer:
                return False
        return True

    def _take(self, peer: Peer, taken: Taken) -> None:
        peer.taken = taken
        self._out.append(Admit(peer.link))
        self._out.append(Report("joined", taken.node_id.hex(), peer.address))
        self.exchange.joined(peer, eager=taken.member and self._mesh_has_room(), now_ms=self._now_ms)
        self.meeting.joined(peer, self._now_ms)
        self._period_ms = reconcile_every_ms
        self._reconcile_ms = min(self._reconcile_ms, self._now_ms + self._period_ms)

    def _mesh_has_room(self) -> bool:
        others = [other for other in self.peers.values() if other.taken is not None and not other.reads_only]
        meshed = sum(other.link in self.exchange.gossip.eager for other in others)
        return len(others) <= full_mesh_peers or meshed < mesh_peers

    def _let_in(self) -> None:
        """Who became a member while connected is served and heard as one from here on."""
        for peer in list(self.peers.values()):
            if peer.taken is not None and not peer.taken.member and self._door.is_member(peer.taken.node_id):
                peer.taken = replace(peer.taken, member=True)
                self.exchange.promoted(peer, eager=self._mesh_has_room())
                self.meeting.joined(peer, self._now_ms)

    # -- time -------------------------------------------------------------------------------------------------------

    def _due(self) -> None:
        now_ms = self._now_ms
        self.exchange.due(now_ms)
        targets, datagram = self.meeting.due(now_ms)
        self._out.extend(Dial(target.address, target.node_id) for target in targets)
        if datagram is not None:
            self._out.append(Shout(datagram))
        if self._ping_ms <= now_ms:
            self._ping_ms = now_ms + ping_every_ms
            for peer in list(self.peers.values()):
                self._ping(peer)
        if self._reconcile_ms <= now_ms:
            self._reconcile()
        times = (self.exchange.next_ms(), self.meeting.next_ms(now_ms), self._ping_ms, self._reconcile_ms)
        wake_ms = max(now_ms + 1, min(at for at in times if at is not None))
        if wake_ms != self._wake_ms:
            self._wake_ms = wake_ms
            self._out.append(Wake(wake_ms))

    def _ping(self, peer: Peer) -> None:
        if peer.taken is None:
            return
        if len(peer.pinged) >= pings_unanswered_max:
            self._end(peer, "silent")
            return
        nonce = int.from_bytes(self._draw.randbytes(8), "big")
        peer.pinged.append((nonce, self._now_ms))
        self.send(peer, m.Ping(nonce))

    def _reconcile(self) -> None:
        """Compare with somebody, now and then, whatever gossip says; the more rarely, the longer all is well."""
        level = [peer for peer in self.peers.values() if peer.taken is not None and peer.stage == "level"]
        partners = [peer for peer in level if not peer.reads_only]
        if partners:
            self.exchange.reconcile(partners[self._draw.randrange(len(partners))], self._now_ms)
        self._period_ms = min(reconcile_every_ms_max, self._period_ms * 2)
        spread_ms = self._period_ms // 2
        self._reconcile_ms = self._now_ms + self._period_ms - spread_ms // 2 + self._draw.randrange(spread_ms)
