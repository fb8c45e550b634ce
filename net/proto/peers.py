"""The book of places where nodes may be reached, and the choice of whom to dial, keep and let go (docs/network.md §2).

Every small network is a full mesh: up to 12 links. Where more nodes are known, a node that has fewer than 4 links dials
up to 6, and keeps at most 8, two of them its own dials, so that those who call cannot choose all its neighbours.
Friends come on top: dialled first, never let go. Observers, who called and are no members, take no part in this.

Addresses come from people, from the local network, from nodes about themselves and about others, and are worth less
in that order: when the book is full, the least and the most often failed makes room, and only for its betters or
equals. A place is dialled again after a back-off that doubles, up to half a minute where a node is known to be, or
people say so; a connection counts as a success once it has lasted, and a node that is newly heard is tried at once.

Knows neither sockets nor frames. Whoever drives it asks ``dial`` after everything that it told, and at ``next_ms``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from net.proto.address import address_chars_max, as_seen, is_same_host, split
from net.proto.backoff import backoff_ms, backoff_ms_max, backoff_ms_max_lasting
from net.proto.budget import Buckets, allowances
from net.proto.conduct import Ledger
from net.proto.draw import Draw
from net.proto.message import addresses_max
from net.proto.places import Known, Place, Source, Target, found_by, node_named, worth, worth_keeping
from net.proto.rhythm import never_ms
from wattswarm.kernel.refusal import Refused

mesh_full = 12
mesh_low = 4
mesh_target = 6
mesh_max = 8
own_dials_min = 2
dials_at_once_max = 8
dial_ms_max = 30_000
settled_ms = 1_000
rest_ms_max = backoff_ms_max
places_max = 1_024
places_a_node_max = 8
forgotten_after_failures = 8
friends_max = 64
tellers_max = 1_024
own_addresses_max = 32
tried_again_ms_max = 2_000


@dataclass(slots=True)
class _Up:
    """A node that is connected. ``dialled``: by us. ``takes_part``: it is of the mesh."""

    since_ms: int
    dialled: bool
    takes_part: bool


class PeerBook:
    """Places, links and friends of the node ``me``. ``ledger`` tells who is graylisted."""

    def __init__(self, me: bytes, ledger: Ledger, draw: Draw) -> None:
        self._me = me
        self._ledger = ledger
        self._draw = draw
        self._places: dict[str, Place] = {}
        self._up: dict[bytes, _Up] = {}
        self._friends: set[bytes] = set()
        self._unwanted: set[str] = set()
        self._unwanted_nodes: set[bytes] = set()
        self._own: set[str] = set()
        self._tellers: Buckets[bytes] = Buckets(allowances["addresses"], tellers_max)

    def __len__(self) -> int:
        return len(self._places)

    # -- what is learned -------------------------------------------------------------------------------------------

    def learn(self, address: str, source: Source, node_id: bytes | None = None) -> bool:
        """Note a place, or more about one; its form is good. False: it is our own, or there is no room for it."""
        assert len(address) <= address_chars_max
        if address in self._own or node_id == self._me:
            return False
        place = self._places.get(address)
        if place is None:
            if not self._room_for(source, node_id):
                return False
            self._places[address] = Place(address, source, node_id)
            return True
        if worth[source] > worth[place.source]:
            place.source = source
        if place.node_id is None:
            place.node_id = node_id
        return True

    def heard(self, node_id: bytes, address: str, now_ms: int, *, new: bool = True) -> bool:
        """A node was heard on the local network (signed, by itself): it is there. ``new``: it is tried at once.

        Whether that may change whom to dial: most of what is heard was known.
        """
        known = self._places.get(address)
        before = None if known is None else known.node_id
        if not self.learn(address, "heard", node_id):
            return False
        place = self._places[address]
        told = new or before != node_id
        place.node_id = node_id
        place.seen_ms = now_ms
        if new:
            place.failures = 0  # what failed before it was silent says nothing about now
            place.due_ms = min(place.due_ms, now_ms)
        return told

    def told(self, teller: bytes, teller_host: str, addresses: Iterable[str], now_ms: int) -> int:
        """Addresses that a peer says it connected to, 32 a minute of one teller. How many are in the book now."""
        learned = 0
        for address in addresses:
            if not self._tellers.take(teller, 1, now_ms):
                break
            seen = as_seen(address, teller_host)
            learned += seen is not None and self.learn(seen, "told")
        return learned

    def introduced(self, node_id: bytes, host: str, listen: Iterable[str]) -> None:
        """Where a connected node says it can be dialled itself; ``host``: where its connection comes from."""
        for address in listen:
            seen = as_seen(address, host)
            if seen is not None and self.learn(seen, "introduced", node_id):
                place = self._places[seen]
                place.at_its_host = place.node_id == node_id and is_same_host(split(seen)[0], host)

    def share(self, asker: bytes) -> tuple[str, ...]:
        """What to tell a peer: up to 32 places, not the asker's own, that this node itself connected to, or that a
        node which called it says it listens at, on the very host that it calls from, while it is connected."""
        mine = [
            place.address
            for place in self._places.values()
            if place.node_id not in (None, asker)
            and (place.reached or (place.at_its_host and place.node_id in self._up))
        ]
        return tuple(self._draw.sample(mine, min(addresses_max, len(mine))))

    def known(self, now_ms: int) -> Iterator[Known]:
        """The places where their own nodes were met or heard: what is worth keeping over a restart."""
        for place in self._places.values():
            by = found_by(place)
            if place.node_id is not None and by is not None:
                there = by != "heard" and place.node_id in self._up
                yield Known(place.node_id, place.address, by, now_ms if there else place.seen_ms)

    def remember(self, known: Known) -> None:
        """A place that was known before this node began."""
        if self.learn(known.address, "stored", known.node_id):
            place = self._places[known.address]
            place.seen_ms, place.reached = known.seen_ms, known.by == "reached"

    def try_again(self, now_ms: int) -> None:
        """Who turned this node away may think better of it: places of which neither end ever dialled the other with
        success are tried anew, soon."""
        for place in self._places.values():
            if not place.reached and not place.at_its_host:
                due_ms = now_ms + self._draw.randrange(tried_again_ms_max)
                place.failures, place.due_ms = 0, min(place.due_ms, due_ms)

    def want(self, about: str, wanted: bool) -> None:
        """An address, or a node by its id in hex, is not to be dialled any more, or is again."""
        node_id = node_named(about)
        if wanted:
            self._unwanted.discard(about)
            self._unwanted_nodes -= {node_id}
        elif node_id is None:
            self._unwanted.add(about)
        else:
            self._unwanted_nodes.add(node_id)
        if wanted and node_id is None:
            self.learn(about, "configured")

    def is_wanted(self, address: str, node_id: bytes | None) -> bool:
        """Whether a node may be dialled there."""
        return address not in self._unwanted and node_id not in self._unwanted_nodes

    def befriend(self, node_id: bytes) -> None:
        """The node is a friend from now on. Raises ``Refused`` beyond 64 of them."""
        if node_id not in self._friends and len(self._friends) >= friends_max:
            raise Refused("friends", f"{friends_max} nodes are friends, which is all that there may be")
        self._friends.add(node_id)

    def unfriend(self, node_id: bytes) -> None:
        """The node is a friend no more."""
        self._friends.discard(node_id)

    def is_friend(self, node_id: bytes) -> bool:
        """Whether the node is a friend."""
        return node_id in self._friends

    # -- what became of dials and links ----------------------------------------------------------------------------

    def answered(self, address: str, node_id: bytes, now_ms: int) -> None:
        """A dial got through to the node that TLS proved. Whether it takes us is another matter: ``joined`` says so."""
        if node_id == self._me:
            self._places.pop(address, None)
            if len(self._own) < own_addresses_max:
                self._own.add(address)
            return
        place = self._places.get(address)
        if place is not None:
            place.node_id = node_id
            self._again_later(place, now_ms)

    def failed(self, address: str, now_ms: int) -> None:
        """A dial did not get through."""
        place = self._places.get(address)
        if place is None:
            return
        self._again_later(place, now_ms)
        if place.failures >= forgotten_after_failures and not self._lasting(place):
            del self._places[address]

    def joined(self, node_id: bytes, address: str | None, now_ms: int, *, member: bool) -> None:
        """A handshake is done. ``address``: what we dialled; None: we were called. Again for a node whose
        connection was replaced, or whose membership is known now."""
        before = self._up.get(node_id)
        since_ms = now_ms if before is None else before.since_ms
        self._up[node_id] = _Up(since_ms, address is not None, member or address is not None)
        place = None if address is None else self._places.get(address)
        if place is not None:
            place.node_id = node_id
            place.reached = True
            place.seen_ms = now_ms

    def left(self, node_id: bytes, now_ms: int, rest_ms: int = 0, spared_ms: int = 0) -> None:
        """The last connection to the node is gone. ``rest_ms``: leave it alone that long at least; ``spared_ms``: or
        while there are links enough."""
        assert 0 <= max(rest_ms, spared_ms) <= rest_ms_max
        up = self._up.pop(node_id, None)
        lasted = up is not None and now_ms - up.since_ms >= settled_ms
        for place in self._places_of(node_id):
            place.seen_ms = now_ms if place.reached or place.at_its_host else place.seen_ms
            place.failures = 1 if lasted else max(1, place.failures)
            place.due_ms = now_ms + max(rest_ms, self._backoff_ms(place))
            place.spared_ms = now_ms + spared_ms

    def _again_later(self, place: Place, now_ms: int) -> None:
        place.failures += 1
        place.dialling_since_ms = None
        place.due_ms = now_ms + self._backoff_ms(place)

    def _backoff_ms(self, place: Place) -> int:
        longest_ms = backoff_ms_max_lasting if self._lasting(place) else backoff_ms_max
        return backoff_ms(place.failures, self._draw, longest_ms)

    def _lasting(self, place: Place) -> bool:
        """Whether there is reason to expect a node there, however often it did not answer: a cut that heals is found
        soon, and the place is not forgotten."""
        return place.reached or place.source == "configured" or place.node_id in self._friends

    # -- whom to dial ----------------------------------------------------------------------------------------------

    def dial(self, now_ms: int) -> list[Target]:
        """Whom to dial now. Each ends in ``answered`` or ``failed``; after 30 s it counts as failed."""
        for place in [place for place in self._places.values() if not _under_way_still(place, now_ms)]:
            self.failed(place.address, now_ms)
        under_way = [place for place in self._places.values() if place.dialling_since_ms is not None]
        if self.lacking() <= len(under_way) and self._friends <= self._up.keys():
            return []
        friends, others = self._ready(now_ms, {place.node_id for place in under_way})
        chosen = friends + others[: max(0, self.lacking() - len(under_way))]
        chosen = chosen[: max(0, dials_at_once_max - len(under_way))]
        for place in chosen:
            place.dialling_since_ms = now_ms
        return [Target(place.address, place.node_id) for place in chosen]

    def next_ms(self, now_ms: int) -> int:
        """When ``dial`` may have something new, if nothing happens before."""
        lacking, spares = self.lacking() > 0, self._spares()
        places = self._places.values()
        dials = [place.dialling_since_ms for place in places if place.dialling_since_ms is not None]
        times = [since_ms + dial_ms_max if since_ms <= now_ms else now_ms for since_ms in dials]
        for place in places if lacking or self._friends else ():
            wanted = lacking or place.node_id in self._friends
            wanted = wanted and place.node_id not in self._up and self.is_wanted(place.address, place.node_id)
            due_ms = max(place.due_ms, place.spared_ms) if spares else place.due_ms
            if wanted and due_ms > now_ms and place.dialling_since_ms is None:
                times.append(min(due_ms, now_ms + backoff_ms_max))
        return max(now_ms, min(times)) if times else never_ms

    def _ready(self, now_ms: int, busy: set[bytes | None]) -> tuple[list[Place], list[Place]]:
        """Places that may be dialled, friends' and others', one a node, those that failed least first."""
        friends: list[Place] = []
        others: list[Place] = []
        taken = {node_id for node_id in busy if node_id is not None} | self._up.keys()
        spares = self._spares()
        mixed = self._draw.sample(list(self._places.values()), len(self._places))
        for place in sorted(mixed, key=lambda place: place.failures):
            place.due_ms = min(place.due_ms, now_ms + backoff_ms_max)  # a clock that went back keeps nobody away
            place.spared_ms = min(place.spared_ms, now_ms + backoff_ms_max)
            if place.due_ms > now_ms or (spares and place.spared_ms > now_ms) or place.dialling_since_ms is not None:
                continue
            if not self.is_wanted(place.address, place.node_id):
                continue
            if place.node_id is not None:
                if place.node_id in taken:
                    continue
                if self._ledger.graylisted(place.node_id, now_ms):
                    place.due_ms = now_ms + min(self._ledger.term_ms(place.node_id, now_ms), backoff_ms_max)
                    continue
                taken.add(place.node_id)
            (friends if place.node_id in self._friends else others).append(place)
        return friends, others

    def _spares(self) -> bool:
        """Whether there are links enough to leave alone, for a while, whoever let this node go."""
        return sum(up.takes_part for up in self._up.values()) >= mesh_low

    def lacking(self) -> int:
        """How many links to dial for, those under way included."""
        mesh = [up for up in self._up.values() if up.takes_part]
        wanted = mesh_full if self._is_small() else mesh_target if len(mesh) < mesh_low else 0
        return max(wanted - len(mesh), own_dials_min - sum(up.dialled for up in mesh))

    def _is_small(self) -> bool:
        """Whether so few nodes are known that all are linked. Who is here to read only does not count."""
        known: set[bytes] = set()
        for node_id in chain((place.node_id for place in self._places.values()), self._up):
            up = self._up.get(node_id) if node_id is not None else None
            if node_id is not None and (up is None or up.takes_part):
                known.add(node_id)
                if len(known) > mesh_full:
                    return False
        return True

    def surplus(self) -> list[bytes]:
        """Nodes to let go, at random: above 8 links where not all are linked; no friend, nor two that we dialled."""
        if len(self._up) <= mesh_max or self._is_small():
            return []
        mesh = {node_id: up for node_id, up in self._up.items() if up.takes_part}
        callers = [node_id for node_id, up in mesh.items() if not up.dialled and node_id not in self._friends]
        dialled = [node_id for node_id, up in mesh.items() if up.dialled and node_id not in self._friends]
        spare = max(0, sum(up.dialled for up in mesh.values()) - own_dials_min)
        candidates = callers + self._draw.sample(dialled, min(spare, len(dialled)))
        return self._draw.sample(candidates, min(max(0, len(mesh) - mesh_max), len(candidates)))

    # -- room ------------------------------------------------------------------------------------------------------

    def _places_of(self, node_id: bytes) -> list[Place]:
        return [place for place in self._places.values() if place.node_id == node_id]

    def _room_for(self, source: Source, node_id: bytes | None) -> bool:
        if node_id is not None:
            others = self._places_of(node_id)
            if len(others) >= places_a_node_max:
                return self._make_room(others, source)
        return len(self._places) < places_max or self._make_room(self._places.values(), source)

    def _make_room(self, among: Iterable[Place], source: Source) -> bool:
        """Forget the least of these places, if it is worth no more than a new one of ``source`` and has failed, or
        is worth less."""
        idle = [
            place
            for place in among
            if place.source != "configured"
            and place.dialling_since_ms is None
            and place.node_id not in self._up
            and place.node_id not in self._friends
        ]
        least = min(idle, key=worth_keeping, default=None)
        if least is None or worth[least.source] > worth[source]:
            return False
        if worth[least.source] == worth[source] and least.failures == 0:
            return False
        del self._places[least.address]
        return True


def _under_way_still(place: Place, now_ms: int) -> bool:
    return place.dialling_since_ms is None or 0 <= now_ms - place.dialling_since_ms < dial_ms_max
