"""Who authors when about the membership: a chamber of nodes that hear of each other in any order (docs/protocol.md §9).

Each node has its own log of what it heard, folds it in canonical order, and does what its intents say. Only time
and what their operators approve come from outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.cast import Roles, everything, keys_of, step_ms
from tests.kernel.council import node, worker
from tests.world import World
from wattswarm.kernel import rounds
from wattswarm.kernel.event import Event
from wattswarm.kernel.governance import GovernanceState, book
from wattswarm.kernel.intents.govern import Seat, Sign, Step, next_steps, round_ms
from wattswarm.kernel.intents.values import Author, Wait, turn_ms
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


# -- the way through -----------------------------------------------------------------------------------------------


def test_nothing_is_signed_that_the_operator_did_not_approve() -> None:
    chamber = Chamber()
    chamber.members["ada"].propose(chamber.version(["fay"]))
    chamber.settle()
    signers = book(chamber.members["ben"].state, chamber.world.network_id).signers
    assert {name for name, signer in signers.items() if signer.prepared or signer.committed} == {node("ada").hex()}


def test_an_approval_is_carried_through_both_phases_to_the_version() -> None:
    chamber = Chamber()
    body = chamber.version(["fay"])
    chamber.members["ada"].propose(body)
    for name in ("ben", "cy"):
        chamber.members[name].approve(body)
    chamber.settle()
    assert {chamber.current(name).hash for name in four} == {version_hash(body)}
    assert chamber.current("dee").has(node("fay"), "verifier")


def test_one_finalizer_does_it_all_at_once() -> None:
    chamber = Chamber(["ada"])
    chamber.members["ada"].propose(chamber.version(["fay"]))
    chamber.settle()
    assert chamber.current("ada").number == 1
    kinds = [said.kind for said in sorted(chamber.members["ada"].heard.values(), key=lambda said: said.hlc)]
    assert kinds == ["MEMBERSHIP_PROPOSED", "MEMBERSHIP_SIGNED", "MEMBERSHIP_SIGNED", "MEMBERSHIP_UPDATED"]


def test_a_lost_finalizer_is_replaced_by_the_rest() -> None:
    chamber = Chamber()
    body = chamber.version(["fay"], ["dee"])
    chamber.members["ada"].propose(body)
    for name in ("ben", "cy"):
        chamber.members[name].approve(body)
    chamber.settle("ada", "ben", "cy")
    current = chamber.current("cy")
    assert (current.hash, node("dee") in current.members) == (version_hash(body), False)


def test_two_of_four_change_nothing() -> None:
    chamber = Chamber()
    body = chamber.version([], ["dee"])
    chamber.members["ada"].propose(body)
    chamber.members["ben"].approve(body)
    chamber.settle("ada", "ben")
    assert chamber.current("ada").number == 0


def test_who_leaves_lets_another_say_so() -> None:
    chamber = Chamber(["ada", "ben"])
    body = chamber.version([], ["ada"], until=3)
    chamber.members["ada"].propose(body)
    chamber.members["ben"].approve(body)
    chamber.settle()
    said = [said for said in chamber.members["ben"].heard.values() if said.kind == "MEMBERSHIP_UPDATED"]
    assert {event.author for event in said} == {node("ben")}
    assert chamber.current("ada").number == 1


def test_a_version_is_announced_by_the_next_in_line_when_the_first_is_silent() -> None:
    chamber = Chamber()
    body = chamber.version(["fay"])
    chamber.members["ada"].propose(body)
    for name in ("ben", "cy", "dee"):
        chamber.members[name].approve(body)
    while not any(isinstance(step, Author) for step in chamber.members["ada"].steps(patient=False)) or not _complete(
        chamber
    ):
        for name in four:
            steps = chamber.members[name].steps()
            if any(isinstance(step, Author) and isinstance(step.draft.payload, MembershipUpdated) for step in steps):
                continue
            chamber.members[name].act()
        chamber.share()
    waits = {name: chamber.members[name].steps() for name in four}
    now = [name for name, steps in waits.items() if isinstance(steps[0], Author)]
    assert len(now) == 1
    due = sorted(steps[0].until_ms for steps in waits.values() if isinstance(steps[0], Wait))
    moved = chamber.members["ada"].moved_ms
    assert [at - moved for at in due] == [turn_ms, 2 * turn_ms, 3 * turn_ms]
    chamber.world.tick(3 * turn_ms)
    assert all(isinstance(chamber.members[name].steps()[0], Author) for name in four)


def _complete(chamber: Chamber) -> bool:
    states = [book(member.state, chamber.world.network_id) for member in chamber.members.values()]
    return all(rounds.update(one, chamber.members["ada"].network.current) is not None for one in states)


def test_a_forked_key_is_not_admitted() -> None:
    chamber = Chamber(["ada"])
    ada = chamber.members["ada"]
    ada.forked = {node("fay")}
    body = chamber.version(["fay"])
    (step,) = next_steps(replace(ada.seat(), approved=[version_hash(body)], drafted=body))
    assert isinstance(step, Wait)
    assert "forked" in step.why


def test_a_member_that_is_no_finalizer_signs_nothing_but_may_announce() -> None:
    chamber = Chamber({"ada": everything, "eli": worker})
    body = chamber.version(["fay"])
    eli = chamber.members["eli"]
    eli.approve(body)
    chamber.members["ada"].propose(body)
    chamber.share()
    assert eli.steps() == []
    chamber.members["ada"].act()
    chamber.share()
    assert isinstance(eli.steps(patient=False)[0], Author)


# -- disagreement --------------------------------------------------------------------------------------------------


def split() -> tuple[Chamber, VersionBody, VersionBody]:
    """Two for fay, two for gus, all prepared: nobody can win the round."""
    chamber = Chamber()
    fay, gus = chamber.version(["fay"]), chamber.version(["gus"])
    chamber.members["ada"].propose(fay)
    chamber.members["ben"].propose(gus)
    chamber.members["cy"].approve(fay)
    chamber.members["dee"].approve(gus)
    chamber.settle()
    return chamber, fay, gus


def test_those_who_disagree_rest_until_somebody_changes_his_mind() -> None:
    chamber, fay, gus = split()
    assert all(chamber.current(name).number == 0 for name in four)
    assert all(chamber.members[name].steps(patient=False) == [] for name in four)
    chamber.members["ada"].approve(gus)
    chamber.settle()
    assert {chamber.current(name).hash for name in four} == {version_hash(gus)}
    assert chamber.made == {0: chamber.world.network_id, 1: version_hash(gus)}
    assert version_hash(fay) != version_hash(gus)


def test_a_round_that_may_still_end_well_is_waited_for_and_not_for_ever() -> None:
    chamber = Chamber()
    fay, gus = chamber.version(["fay"]), chamber.version(["gus"])
    ada, ben, cy = (chamber.members[name] for name in ("ada", "ben", "cy"))
    ada.propose(fay)
    cy.propose(gus)
    ben.approve(fay)
    chamber.settle("ada", "ben", "cy")
    cy.approve(fay)
    cy.act(patient=False)
    chamber.share("ada", "ben", "cy")
    assert book(ada.state, ada.network.current.hash).signers[cy.id.hex()].last_round == 1
    (step,) = ada.steps()
    assert isinstance(step, Wait)
    assert step.until_ms == ada.moved_ms + round_ms
    chamber.world.tick(round_ms)
    assert not isinstance(ada.steps()[0], Wait)
    chamber.settle("ada", "ben", "cy")
    assert chamber.current("ada").hash == version_hash(fay)


def test_a_commitment_binds_against_a_newer_approval() -> None:
    chamber = Chamber()
    fay, gus = chamber.version(["fay"]), chamber.version(["gus"])
    ada, ben, cy, _ = (chamber.members[name] for name in four)
    ada.propose(fay)
    for one in (ben, cy):
        one.approve(fay)
        chamber.share()
        one.act()
    ada.act()
    chamber.share()
    (commit,) = ada.act()
    assert isinstance(commit.payload, MembershipSigned)
    assert commit.payload.phase == "commit"
    assert ada.propose(gus) == []
    assert ada.steps(patient=False) == []
    assert {one.membership_hash for one in ada.stored[ada.network.current.hash]} == {version_hash(fay)}


def test_who_was_away_comes_after_the_others_round_by_round() -> None:
    chamber, _, gus = split()
    chamber.members["ada"].approve(gus)
    chamber.settle("ada", "ben")
    late = Chamber.version(chamber, ["hal"])
    for name in ("cy", "dee"):
        chamber.members[name].approve(gus)
    chamber.settle()
    assert {chamber.current(name).hash for name in four} == {version_hash(gus)}
    assert version_hash(late) != version_hash(gus)


# -- whatever comes when -------------------------------------------------------------------------------------------


@given(st.randoms(use_true_random=False), st.integers(0, 1))
@settings(max_examples=60, deadline=None)
def test_no_number_ever_names_two_versions_and_who_agrees_in_the_end_decides(chance: Random, away: int) -> None:
    """Operators approve this and that, news travel anyhow, one node may be away: then all mean one version."""
    chamber = Chamber()
    names = four[: len(four) - away]
    bodies = [chamber.version(["fay"]), chamber.version(["gus"], ["dee"]), chamber.version([], ["dee"])]
    for _ in range(chance.randint(4, 40)):
        member = chamber.members[chance.choice(names)]
        chamber.world.tick(chance.choice((step_ms, turn_ms, round_ms)))
        match chance.randint(0, 4):
            case 0 if member.network.current.number == 0:
                body = chance.choice(bodies)
                proposed = version_hash(body).hex() in book(member.state, member.network.current.hash).bodies
                if proposed:
                    member.approve(body)
                else:
                    member.propose(body)
            case 1:
                other = chamber.members[chance.choice(names)]
                news = chance.sample(sorted(other.heard), chance.randint(0, len(other.heard)))
                member.hear(*(other.heard[event_id] for event_id in news))
            case _:
                member.act(patient=chance.random() < 0.5)
    chamber.settle(*names)
    if chamber.current("ada").number == 0:
        chosen = chance.choice(bodies)
        for name in names:
            chamber.members[name].approve(chosen)
        if version_hash(chosen).hex() not in book(chamber.members["ada"].state, chamber.world.network_id).bodies:
            chamber.members["ada"].propose(chosen)
        chamber.settle(*names)
    assert {chamber.current(name).number for name in names} == {1}
    assert set(chamber.made) == {0, 1}


def test_what_was_signed_binds_also_where_the_stream_does_not_show_it() -> None:
    chamber = Chamber()
    fay, gus = chamber.version(["fay"]), chamber.version(["gus"])
    ada, ben = chamber.members["ada"], chamber.members["ben"]
    ben.propose(fay)
    chamber.share("ada", "ben")
    ada.approve(fay)
    signed = ada.act()
    ada.heard = {}
    ada.approved = []
    del chamber.world.heads[ada.id]
    ada.propose(gus)
    assert [one.membership_hash for one in ada.stored[ada.network.current.hash]] == [version_hash(fay)]
    ada.approve(fay)
    assert [said.kind for said in signed] == ["MEMBERSHIP_SIGNED"]
    assert not [step for step in ada.steps(patient=False) if isinstance(step, Sign)]


def test_what_the_stream_lost_is_said_again_and_nothing_else() -> None:
    chamber = Chamber()
    fay, gus = chamber.version(["fay"]), chamber.version(["gus"])
    ada, ben = chamber.members["ada"], chamber.members["ben"]
    ada.stored[ada.network.current.hash] = []
    ada.payload(Sign("prepare", ada.network.current.hash, 0, version_hash(fay)))
    ben.propose(gus)
    ben.propose(fay)
    chamber.share("ada", "ben")
    ada.approve(gus)
    proposed, prepared = ada.act()
    assert isinstance(proposed.payload, MembershipProposed)
    assert isinstance(prepared.payload, MembershipSigned)
    assert (prepared.payload.round, prepared.payload.membership_hash) == (0, version_hash(fay))
    *_, next_one = ada.act(patient=False)
    assert isinstance(next_one.payload, MembershipSigned)
    assert (next_one.payload.round, next_one.payload.membership_hash) == (1, version_hash(gus))
