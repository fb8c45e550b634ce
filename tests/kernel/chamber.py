"""A chamber: nodes that govern together, each with what it heard, in whatever order that came.

Each node folds what it heard in canonical order and does what its intents say. Only time, and what their operators
approve, come from outside. ``Chamber.judge`` looks after every act: no number may ever name two versions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from tests.cast import Roles, everything, keys_of
from tests.kernel.council import node, worker
from tests.world import World
from wattswarm.kernel.event import Event
from wattswarm.kernel.governance import GovernanceState
from wattswarm.kernel.intents.govern import Seat, Sign, Step, next_steps, round_ms
from wattswarm.kernel.intents.values import Author, Wait
from wattswarm.kernel.membership import Membership, Network, check_update, next_version, signed_bytes, version_hash
from wattswarm.kernel.payloads.fields import Payload
from wattswarm.kernel.payloads.govern import (
    MembershipProposed,
    MembershipSigned,
    MembershipUpdated,
    VersionBody,
)
from wattswarm.kernel.rounds import Stored
from wattswarm.kernel.stream import fold

four = ("ada", "ben", "cy", "dee")


class Member:
    """A node: what it heard, what it signed, what its operator approved, and how long it has heard nothing new."""

    def __init__(self, chamber: Chamber, name: str) -> None:
        self.chamber, self.name, self.id = chamber, name, node(name)
        self.heard: dict[bytes, Event] = {}
        self.stored: dict[bytes, list[Stored]] = {}
        self.approved: list[bytes] = []
        self.moved_ms = 1
        self.forked: set[bytes] = set()

    @property
    def network(self) -> Network:
        """What the certificates among what it heard make of the network, whatever their order."""
        network = Network.of(self.chamber.world.genesis)
        updates = [said.payload for said in self.heard.values() if isinstance(said.payload, MembershipUpdated)]
        for update in sorted(updates, key=lambda update: update.version.number):
            if version_hash(update.version) not in network.versions and update.version.previous in network.versions:
                check_update(update, network)
                network = network.with_version(update)
        return network

    @property
    def state(self) -> GovernanceState:
        """The governance stream as it folds what it heard, in canonical order."""
        network = self.network
        live = [
            said
            for said in self.heard.values()
            if (end := network.until(said.author)) is None or said.author_seq <= end
        ]
        state = fold(network.network_id, network, sorted(live, key=lambda said: said.sort_key), ()).state
        return state if isinstance(state, GovernanceState) else GovernanceState(sorted(network.versions))

    def seat(self, *, patient: bool = True) -> Seat:
        network = self.network
        stored = self.stored.get(network.current.hash, [])
        return Seat(
            network,
            self.state,
            self.id,
            self.approved,
            stored,
            self.forked,
            self.chamber.now_ms,
            self.moved_ms if patient else 0,
        )

    def steps(self, *, patient: bool = True) -> list[Step]:
        return next_steps(self.seat(patient=patient))

    def act(self, *, patient: bool = True) -> list[Event]:
        """Do what is next; what it said."""
        said = [self.say(self.payload(step)) for step in self.steps(patient=patient) if not isinstance(step, Wait)]
        self.chamber.judge(self)
        return said

    def payload(self, step: Step) -> Payload:
        if isinstance(step, Author):
            return step.draft.payload
        assert isinstance(step, Sign)
        message = signed_bytes(
            self.chamber.world.network_id, step.phase, step.previous, step.round, step.membership_hash
        )
        signature = keys_of(self.name).sign(message)
        mine = self.stored.setdefault(step.previous, [])
        signed = Stored(step.phase, step.round, step.membership_hash, signature)
        earlier = [one for one in mine if (one.phase, one.round) == (step.phase, step.round)]
        assert earlier in ([], [signed]), "signed twice"
        mine += [] if earlier else [signed]
        return MembershipSigned(step.phase, step.previous, step.round, step.membership_hash, signature)

    def say(self, payload: Payload) -> Event:
        """Author an event that sorts after all that this node holds, as nodes do."""
        said = self.chamber.world.author(self.name, payload)
        self.hear(said)
        return said

    def hear(self, *said: Event) -> None:
        """Take what is next in its author's chain; the rest comes again another time."""
        for event in sorted(said, key=lambda event: event.author_seq):
            next_seq = sum(held.author == event.author for held in self.heard.values())
            if event.author_seq == next_seq:
                self.heard[event.id] = event
                self.moved_ms = self.chamber.now_ms

    def propose(self, body: VersionBody) -> list[Event]:
        """What ``members propose`` does: put the version into a round and prepare it there, if nothing binds it."""
        name = version_hash(body)
        approved = [*(one for one in self.approved if one != name), name]
        steps = next_steps(replace(self.seat(patient=False), approved=approved, drafted=body))
        authored = [step.draft.payload for step in steps if isinstance(step, Author)]
        if not any(isinstance(said, MembershipProposed) and said.version == body for said in authored):
            return []
        self.approved = approved
        return [self.say(self.payload(step)) for step in steps]

    def approve(self, body: VersionBody) -> None:
        name = version_hash(body)
        self.approved = [*(one for one in self.approved if one != name), name]


class Chamber:
    """Members, and everything that they have ever said. No two versions of one number may come of it."""

    def __init__(self, roles: Mapping[str, Roles] | Sequence[str] = four) -> None:
        self.world = World(roles if isinstance(roles, Mapping) else dict.fromkeys(roles, everything))
        self.members = {name: Member(self, name) for name in self.world.members}
        self.made: dict[int, bytes] = {}

    @property
    def now_ms(self) -> int:
        return self.world.now_ms

    def version(
        self, add: Sequence[str] = (), remove: Sequence[str] = (), after: Network | None = None, until: int = 0
    ) -> VersionBody:
        network = after or Network.of(self.world.genesis)
        members = {one: roles for one, roles in network.current.members.items() if one not in set(map(node, remove))}
        members |= {node(name): frozenset(worker) for name in add}
        return next_version(network, network.current, members, {node(name): until for name in remove})

    def judge(self, member: Member) -> None:
        """Safety: a version's number names one version, for everybody."""
        for version in member.network.versions.values():
            assert self.made.setdefault(version.number, version.hash) == version.hash, "two versions of one number"

    def share(self, *names: str) -> None:
        """Those named (or all) tell each other everything they have heard."""
        those = [self.members[name] for name in names or self.members]
        whole = {event_id: said for member in those for event_id, said in member.heard.items()}
        for member in those:
            member.hear(*whole.values())

    def settle(self, *names: str) -> None:
        """Those named share and act, as daemons do, until nobody has anything to say however long they wait."""
        quiet = 0
        for _ in range(200):
            self.share(*names)
            said = [self.members[name].act() for name in names or self.members]
            quiet = 0 if any(said) else quiet + 1
            if quiet > 1:
                return
            if quiet:
                self.world.tick(round_ms)
        raise AssertionError("they talk for ever")

    def current(self, name: str) -> Membership:
        return self.members[name].network.current
