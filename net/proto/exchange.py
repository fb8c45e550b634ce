"""How two nodes come to hold the same: gossip, ranges and reconciliation, message by message (docs/network.md §5, §6).

Works for the machine, which lends it its hands: ``send``, ``ask``, ``ingest`` and ``blame``. Everything a peer sends
here was checked for its form, and its sender is known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from net.proto import frame
from net.proto import message as m
from net.proto.certificates import Certificates
from net.proto.gossip import Gossip
from net.proto.hands import Hands, portions
from net.proto.items import Items
from net.proto.peer import Peer
from net.proto.pulls import Pulls
from net.proto.reconcile import Found, Sessions
from net.proto.serving import Serving
from net.proto.settling import Settling
from net.proto.values import (
    Appended,
    Fate,
    Head,
    Ingested,
    Lacking,
    Link,
    Set,
    Stock,
    decisions_set,
    events_set,
    ruling_set,
)
from wattswarm.kernel.codec import sha256

untold_max = 4_096
ingest_events_max = 8_192
promises_a_fault = 100
"""How many promises that are broken at one time count as one fault: a node whose database is away for a while breaks
some, who announces what there is not breaks thousands."""
late_blame_ms = 30_000


class Exchange:
    """What this node holds, in outline, and everything that is under way to make others hold it too."""

    def __init__(self, hands: Hands, stock: Stock) -> None:
        self.hands = hands
        self.sets: dict[Set, Items] = {
            events_set: stock.events,
            ruling_set: Items((0, one) for one in stock.ruling),
            decisions_set: Items((0, one) for one in stock.decisions),
        }
        self.chains: dict[bytes, Head] = dict(stock.chains)
        self.standing = stock.standing
        self.gossip = Gossip()
        self.pulls = Pulls(self.chains)
        self.sessions = Sessions(self.sets)
        self.serving = Serving(hands, self.gossip.make_eager)
        self.certificates = Certificates(hands, self.sets, self._certified)
        self.storing = 0  # events that came and are not stored yet
        self._taking: set[bytes] = set()  # ids of what gossip brought and is being stored
        self._settling = Settling()

    # -- links ------------------------------------------------------------------------------------------------------

    def joined(self, peer: Peer, *, eager: bool, now_ms: int) -> None:
        """A peer whose id is proved. Equal standings mean that there is nothing to do."""
        assert peer.taken is not None
        if peer.reads_only:
            self.gossip.reads(peer.link)
        else:
            self.gossip.joined(peer.link, eager=eager)
            self.pulls.joined(peer.link)
        theirs, ours = peer.taken.standing, self.standing
        if theirs.certificates != ours.certificates:
            peer.stage = "ruling"
            if peer.dialled:
                self._compare(peer, ruling_set, now_ms)
        elif theirs.events != ours.events:
            peer.stage = "ruling"
            if peer.dialled:
                self._pull(peer)
        else:
            peer.stage = "level"
            peer.own_seq = self.chains.get(self.hands.me.keys.node_id, (-1, b""))[0]

    def admitted(self, peer: Peer, *, eager: bool, now_ms: int) -> None:
        """Who only read is a member now: what it holds was not asked for until now, and it cannot know that it is."""
        self.gossip.joined(peer.link, eager=eager)
        self.pulls.joined(peer.link)
        peer.stage = "ruling"
        self._compare(peer, ruling_set, now_ms)

    def left(self, link: Link, now_ms: int) -> int:
        """The connection is gone: what it was asked for is asked of others. How many faults it leaves behind."""
        broken = self.gossip.left(link, now_ms)
        self.pulls.left(link)
        self.sessions.left(link)
        self._settling.left(link)
        self._pump_all(now_ms)
        return -(-broken // promises_a_fault)

    # -- what the log has now ---------------------------------------------------------------------------------------

    def appended(self, news: Appended, now_ms: int) -> None:
        """The log changed: bring the outline up to date, and pass on what is new."""
        self.standing = news.standing
        self.sets[events_set].update((event.seconds, event.id) for event in news.events)
        for seconds, event_id in news.void:
            self.sets[events_set].remove(seconds, event_id)
        for certificate in news.certificates:
            self.sets[ruling_set if certificate.ruling else decisions_set].insert(0, certificate.id)
        for certificate_id in news.idle:
            self.sets[ruling_set].remove(0, certificate_id)
        for author, head in news.heads.items():
            if head is None:
                self.chains.pop(author, None)
            else:
                self.chains[author] = head
        self._spread(news, now_ms)

    def _spread(self, news: Appended, now_ms: int) -> None:
        wires = {event.id: event for event in news.events}
        alike: dict[tuple[bytes, ...], list[Link]] = defaultdict(list)
        for link, ids in self.gossip.spread(wires, now_ms, own=news.own, repaired=news.repaired).items():
            alike[tuple(ids)].append(link)
        for pushed, links in alike.items():
            for lane, urgent in ((m.FINALITY, True), (m.EVENTS, False)):
                for events in frame.packed(wires[one].wire for one in pushed if wires[one].urgent == urgent):
                    message = m.Events(tuple(events))
                    for link in links:
                        self.hands.send(self.hands.peers[link], message, lane=lane, dropping=True)
        alone = tuple(one.id for one in news.certificates if one.ruling or not one.carried)
        for peer in self.hands.peers.values() if alone else ():
            if peer.taken is not None:
                self.certificates.announce(peer, alone)

    def _members(self) -> Iterable[Peer]:
        return [peer for peer in self.hands.peers.values() if peer.taken is not None and not peer.reads_only]

    # -- gossip -----------------------------------------------------------------------------------------------------

    def on_events(self, peer: Peer, said: m.Events, now_ms: int) -> None:
        """Events, pushed or asked for. What is more than this node can take is left to repair."""
        peer.events += len(said.events)
        wires = {sha256(body): (body, signature) for body, signature in said.events}
        asked = self.gossip.asked(peer.link, wires)
        fresh, needless = self.gossip.came(peer.link, wires)
        if needless and peer.link in self.gossip.eager:
            self.gossip.make_lazy(peer.link)
            self.hands.send(peer, m.Prune())
        size = sum(len(wires[one][0]) for one in fresh)
        fits = self.storing + len(fresh) <= ingest_events_max
        if not asked and not (
            fits and peer.budget.take("bytes", size, now_ms) and peer.budget.take("checks", len(fresh), now_ms)
        ):
            self.gossip.lost(fresh)
            return
        if not fresh:
            return
        self.storing += len(fresh)
        self._taking.update(fresh)

        def then(done: Ingested, now_ms: int) -> None:
            self.storing -= len(fresh)
            self._taking.difference_update(fresh)
            self._judge(peer, done.fates, asked, now_ms)

        self.hands.ingest([wires[one] for one in fresh], (), asked, then)

    def _judge(self, peer: Peer, fates: Sequence[Fate], asked: bool, now_ms: int) -> None:
        """What came of a peer's events: useful ones speak for it, bad ones against it, gaps are asked about."""
        bad = [fate.id for fate in fates if fate.what == "bad"]
        useful = sum(fate.what == "stored" for fate in fates)
        self.gossip.lost(fate.id for fate in fates if fate.what in ("bad", "refused", "void"))
        if bad:
            self.hands.blame(peer, "bad_signature", now_ms)
            return
        if peer.link not in self.hands.peers or peer.reads_only:
            return
        if useful and not asked:
            self.hands.blame(peer, "useful", now_ms, useful)
        for fate in fates:
            if fate.what == "orphan":
                self.pulls.missing(peer.link, fate.author, fate.author_seq - 1)
        if any(fate.what == "stranger" for fate in fates) and not self.sessions.asks(peer.link):
            self._compare(peer, ruling_set, now_ms)
        self._pump(peer, now_ms)

    def on_have(self, peer: Peer, said: m.Have, now_ms: int) -> None:
        """Announcements: what nobody has met is looked up, and asked for if it is not here."""
        if not peer.budget.take("haves", 1, now_ms):
            return
        unknown = self.gossip.told(peer.link, said.ids)[:untold_max]
        if not unknown:
            return

        def then(lacking: Sequence[bytes], now_ms: int) -> None:
            missing = set(lacking)
            self.gossip.has(one for one in unknown if one not in missing)
            if peer.link in self.hands.peers:
                self.gossip.lacks(peer.link, lacking, now_ms)

        self.hands.ask_for(peer, Lacking(unknown), then)

    def on_prune(self, peer: Peer, _said: m.Prune, _now_ms: int) -> None:
        """The other end gets these events on a better way."""
        self.gossip.make_lazy(peer.link)

    def on_graft(self, peer: Peer, _said: m.Graft, _now_ms: int) -> None:
        """The other end wants to be pushed to."""
        self.gossip.make_eager(peer.link)

    # -- ranges -----------------------------------------------------------------------------------------------------

    def _pull(self, peer: Peer) -> None:
        """Ask how far the peer holds each chain, unless it was asked already."""
        if peer.frontier == "unasked" and not peer.reads_only:
            peer.frontier, peer.stage = "asked", "events"
            self.hands.send(peer, m.FrontierGet())

    def on_frontier_get(self, peer: Peer, _said: m.FrontierGet, now_ms: int) -> None:
        """Say how far each chain goes here; and the other end's frontier is of interest too."""
        if not peer.budget.take("rounds", 1, now_ms):
            return
        peer.served_ms = now_ms
        entries = [(author, seq, head[: m.prefix_bytes]) for author, (seq, head) in sorted(self.chains.items())]
        pages = portions(entries, m.frontier_entries_max) or [()]
        for number, page in enumerate(pages, 1):
            self.hands.send(peer, m.Frontier(tuple(page), number < len(pages)))
        self._pull(peer)

    def on_frontier(self, peer: Peer, said: m.Frontier, now_ms: int) -> None:
        """What the peer has, as it says."""
        if peer.frontier != "asked":
            return
        self.pulls.told(peer.link, said.entries)
        me = self.hands.me.keys.node_id
        peer.own_seq = next((seq for author, seq, _ in said.entries if author == me), peer.own_seq)
        if not said.more:
            peer.frontier = "told"
            peer.own_seq = -1 if peer.own_seq is None else peer.own_seq
            self._pump(peer, now_ms)

    def _pump(self, peer: Peer, now_ms: int) -> None:
        """Ask for what is missing; when nothing is, see what ranges did not mend."""
        if self.storing < ingest_events_max:
            for wanted in self.pulls.next(peer.link, now_ms):
                self.hands.send(peer, m.RangeGet(wanted.author, wanted.first, wanted.last))
        if peer.frontier == "told" and self.pulls.idle(peer.link):
            peer.frontier, peer.stage = "unasked", "settling"
            if peer.dialled:
                self._settling.begin(peer.link, now_ms)

    def _pump_all(self, now_ms: int) -> None:
        """Whose chain was asked of somebody, and is not any more, may be asked of others that said they have it."""
        for peer in self._members():
            if not self.pulls.idle(peer.link):
                self._pump(peer, now_ms)

    def on_range(self, peer: Peer, said: m.Range, now_ms: int) -> None:
        """A part of what was asked for. What nobody asked for is not taken."""
        wanted = self.pulls.under_way(peer.link, said.author)
        if wanted is None:
            return
        self.storing += len(said.events)

        def then(done: Ingested, now_ms: int) -> None:
            self.storing -= len(said.events)
            if not said.more:
                head = self.chains.get(said.author)
                if head is not None and head[0] >= wanted.first:
                    self.pulls.came(peer.link, said.author)
                else:
                    self.pulls.failed(peer.link, said.author)
                    if not said.events:  # it said that it has them; what it gives of a forked chain is no lie
                        self.hands.blame(peer, "broken_want", now_ms)
            self._judge(peer, [fate for fate in done.fates if fate.what != "orphan"], True, now_ms)
            self._pump_all(now_ms)

        self.hands.ingest(said.events, (), True, then)
        self.pulls.brought(peer.link, said.author, len(said.events), more=said.more)
        self._pump(peer, now_ms)

    def _certified(self, peer: Peer, now_ms: int) -> None:
        """The peer's certificates are in: who is a member is known, and what was waiting for that goes on."""
        waits = peer.stage == "ruling" or peer.comparing
        if waits and not self.sessions.asks(peer.link):
            peer.comparing = False
            self._next_stage(peer, ruling_set, now_ms)

    # -- reconciliation ---------------------------------------------------------------------------------------------

    def _compare(self, peer: Peer, which: Set, now_ms: int) -> None:
        if not self.sessions.asks(peer.link):
            self.hands.send(peer, self.sessions.open(peer.link, which, now_ms, dialled=peer.dialled))

    def reconcile(self, peer: Peer, now_ms: int) -> None:
        """Look for anything that gossip and ranges missed, on one connection."""
        self._compare(peer, ruling_set, now_ms)

    def on_neg_open(self, peer: Peer, said: m.NegOpen, now_ms: int) -> None:
        """The peer compares a set."""
        if peer.budget.take("rounds", 1, now_ms):
            self.hands.send(peer, self.sessions.opened(peer.link, said, now_ms))
        else:
            self.hands.send(peer, m.NegErr(said.session, "busy"))

    def on_neg_msg(self, peer: Peer, said: m.NegMsg, now_ms: int) -> None:
        """A session goes on, on either side."""
        if not peer.budget.take("rounds", 1, now_ms):
            self.hands.send(peer, m.NegErr(said.session, "busy"))
            return
        reply, found = self.sessions.came(peer.link, said, now_ms)
        if self.sessions.idle(peer.link, said.session):
            self.hands.blame(peer, "idle_round", now_ms)
        if reply is not None:
            self.hands.send(peer, reply)
        if found is not None:
            self._found(peer, found, now_ms)

    def on_neg_end(self, peer: Peer, said: m.NegErr | m.NegClose, now_ms: int) -> None:
        """The other side ends a session; what comes after it goes on without. Who dialled compares decisions last."""
        if isinstance(said, m.NegClose) and self.sessions.answers(peer.link, said.session) == decisions_set:
            peer.stage = "level" if peer.stage == "settling" else peer.stage
        which = self.sessions.ended(peer.link, said.session)
        if which is not None:
            self._next_stage(peer, which, now_ms)

    def _found(self, peer: Peer, found: Found, now_ms: int) -> None:
        """Fetch what only the peer has, announce what only this node has."""
        if found.which == events_set:
            for ids in portions(found.have, m.ids_max):
                self.hands.send(peer, m.Have(ids), lane=m.BACKFILL)
            need = [one for one in found.need if one not in self._taking]
            self.gossip.lost(need)  # what was met and is not here was parked, and made room for others
            self.gossip.lacks(peer.link, need, now_ms)
        else:
            self.certificates.announce(peer, found.have)
            self.certificates.fetch(peer, found.need)
        if found.which == ruling_set and peer.asked_certificates:
            peer.comparing = True
        elif found.over:
            self._next_stage(peer, found.which, now_ms)

    def _next_stage(self, peer: Peer, after: Set, now_ms: int) -> None:
        match after:
            case 1 if peer.stage == "ruling":
                self._pull(peer)
            case 1:
                self._compare(peer, events_set, now_ms)
            case 0:
                peer.stage = "decisions"
                self._compare(peer, decisions_set, now_ms)
            case _:
                peer.stage = "level"

    # -- time -------------------------------------------------------------------------------------------------------

    def due(self, now_ms: int) -> None:
        """What the clock brought."""
        due = self.gossip.due(now_ms)
        for link, ids in due.have.items():
            for portion in portions(ids, m.ids_max):
                self.hands.send(self.hands.peers[link], m.Have(portion), dropping=True)
        for link, ids in due.want.items():
            self.gossip.make_eager(link)
            for portion in portions(ids, m.ids_max):
                self.hands.send(self.hands.peers[link], m.Want(portion))
        for link, promises in due.broken.items():
            if link in self.hands.peers:
                self.hands.blame(self.hands.peers[link], "broken_want", now_ms, -(-promises // promises_a_fault))
        self._late(now_ms)
        for link, which in self.sessions.silent(now_ms):
            self._next_stage(self.hands.peers[link], which, now_ms)
        for peer in self._settling.due(self.hands.peers, now_ms):
            self._compare(peer, events_set, now_ms)

    def _late(self, now_ms: int) -> None:
        """Ranges that did not come: asked of others, and a promise not kept, but seldom: its database may be away."""
        late = self.pulls.late(now_ms)
        for link, author in late:
            self.pulls.failed(link, author)
            peer = self.hands.peers.get(link)
            if peer is not None and peer.late_blamed_ms + late_blame_ms <= now_ms:
                peer.late_blamed_ms = now_ms
                self.hands.blame(peer, "broken_want", now_ms)
            if peer is not None and link in self.hands.peers:
                self._pump(peer, now_ms)
        if late:
            self._pump_all(now_ms)

    def next_ms(self) -> int:
        """When ``due`` has something, at the earliest."""
        return min(self.gossip.next_ms(), self.pulls.next_ms(), self.sessions.next_ms(), self._settling.next_ms())
