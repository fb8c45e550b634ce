"""Tells the history of a small swarm from a string of bytes: mostly sense, and every sort of deviation.

The bytes are drawn (``tests.strategies``), so a history shrinks as they do: a step is four bytes, and a step of
zeros moves a task one step on. Everything told is truly signed; what arrives where, and when, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice

from tests.cast import day_ms, fork_of, hash_of, names, step_ms
from tests.foreign import foreign
from tests.moves import Play, Say, live_leases, sensible, twins, wild_moves
from tests.statecraft import advise, change_members, dissent, wilful_certificate
from tests.story import Story
from tests.terms import casts, terms, wrong_terms
from tests.world import World
from wattswarm.kernel import hlc
from wattswarm.kernel.certificate import Certificate, MembershipCertificate
from wattswarm.kernel.event import Event
from wattswarm.kernel.genesis import Quotas
from wattswarm.kernel.membership import Network, version_hash
from wattswarm.kernel.payloads import course, work
from wattswarm.kernel.payloads.govern import MembershipUpdated
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.task.fold import apply, decision_of

step_bytes = 4
header_bytes = 3
plays_max = 4
forks_max = (0, 1, 1, 3)
versions_max = 3
jumps_ms = (1, 700, 3_500, 8_500, 14_000, 33_000, day_ms, 2 * day_ms)


class History:
    """What was said. ``items`` in the order of telling; ``end_ms``: when all of it is due."""

    def __init__(self, world: World, header: bytes, script: bytes) -> None:
        self.world = world
        self.header = header
        self.script = script
        self.items: list[Event | Certificate] = []
        self.end_ms = 0

    def __repr__(self) -> str:
        """How to tell it again."""
        return f"tell({self.header!r}, {self.script!r})"

    @property
    def events(self) -> list[Event]:
        """The events, in the order of telling."""
        return [item for item in self.items if isinstance(item, Event)]


class Teller:
    """Reads bytes, speaks for everybody."""

    def __init__(self, header: bytes, script: bytes) -> None:
        crowd, rules, mood = header
        quotas = Quotas(12, 1 << 30) if rules % 8 == 7 else None
        self.world = World(casts[crowd % len(casts)], quotas=quotas, fault_model="crash" if rules & 8 else "byzantine")
        self.mood = mood
        self.history = History(self.world, header, script)
        self.plays: list[Play] = []
        self.forks_left = forks_max[rules >> 4 & 3]
        self.versions = 0
        self.gone: set[str] = set()
        self.earlier = self.world.network
        self.known = list(self.world.members)

    def tell(self) -> History:
        """The history of the script."""
        self.create(self.mood)
        script = self.history.script
        for start in range(0, len(script) - step_bytes + 1, step_bytes):
            verb, who, what, how = script[start : start + step_bytes]
            step = verbs[verb % len(verbs)]
            step(self, who, what, how)
        said = self.history.events
        self.history.end_ms = max([self.world.now_ms, *(event.created_at for event in said)]) + 1
        return self.history

    # -- speaking ------------------------------------------------------------------------------------------------

    def hear(self, *items: Event | Certificate) -> None:
        """Add to the history."""
        self.history.items.extend(items)

    def moment(self, name: str, how: int = 0) -> int:
        """When ``name`` speaks: now, at the very moment of the last word, or back-dated as far as its chain allows."""
        last = self.world.heads.get(self.world.node(name))
        floor = self.world.now_ms - 5_000 if last is None else hlc.wall_ms(last.hlc)
        floor = max(floor, self.world.network.created_at)
        if how % 5 == 4:
            return min(floor + how, max(floor, self.world.now_ms))
        return max(self.world.tick(0 if how % 7 == 6 else step_ms), floor)

    def speak(self, play: Play, name: str, say: Say, how: int = 0) -> None:
        """Say it, hear it, and fold it on top as far as that is possible."""
        before = self.world.now_ms
        said = say(self.moment(name, how))
        self.world.now_ms = max(before, min(self.world.now_ms, said.created_at))
        self.hear(said)
        state = play.story.state
        if said.payload is not None and said.epoch >= state.work.number and said.task == play.story.task:
            apply(state, play.story.pins, said)
        if state.work.number == play.story.epoch and state.work.ended_at is not None:
            play.next_epoch()

    def play(self, who: int) -> Play:
        """The play that a byte names."""
        return self.plays[who % len(self.plays)]

    def name(self, who: int) -> str:
        """Whoever a byte names, members or not."""
        return self.known[who % len(self.known)]

    # -- verbs ---------------------------------------------------------------------------------------------------

    def advance(self, who: int, what: int, how: int) -> None:
        """A few sensible moves of one play."""
        play = self.play(who)
        for _ in range(1 + what % 8):
            choices = list(islice(sensible(play), 6))
            if not choices:
                return
            name, say = choices[(how % 7) * len(choices) // 14]
            self.speak(play, name, say, how if how % 8 == 6 else 0)
            self.certify(play)

    def certify(self, play: Play) -> None:
        """What a proof that was just told means for the rest of the telling."""
        said = self.history.items[-1]
        assert isinstance(said, Event)
        if said.kind != "DECISION_FINALIZED" or said.task != play.story.task:
            return
        for candidate in play.candidates:
            certificate = play.story.certificate(candidate)
            if said.payload.winning_candidate_hash == certificate.candidate_hash:  # type: ignore[union-attr]
                play.story.state.decisions.append(decision_of(certificate))
                apply(play.story.state, play.story.pins, said)
        if play.story.pins.continuous:
            if self.mood % 2:
                name = play.having("finalizer")[0]
                self.speak(play, name, lambda at_ms: play.story.end_epoch(name, "FINALIZED", at_ms=at_ms))
            else:
                play.next_epoch()

    def deviate(self, who: int, what: int, how: int) -> None:
        """Something wild, by anybody, about any candidate, perhaps back-dated, perhaps in another epoch or task."""
        play, name = self.play(who // 16), self.name(who)
        candidates = play.candidates or [play.story.creation]
        candidate = candidates[how % len(candidates)]
        if candidate is play.story.creation:
            self.advance(who, 2, how)
            return
        if how % 3 == 1:
            name = next(one for one in names if self.world.node(one) == candidate.author)
        elif how % 3 == 2:
            name = next(iter(live_leases(play, "verify" if what % 4 else "propose")), name)
        wilds = wild_moves()
        epoch, task = play.story.epoch, play.story.task
        play.story.epoch += (0, 0, 0, 1, 0, 0, 5, 0)[how % 8]
        if how % 32 == 31:
            play.story.task = candidate.id
        try:
            self.speak(play, name, lambda at_ms: wilds[what % len(wilds)](play, name, at_ms, candidate), how)
        finally:
            play.story.epoch, play.story.task = epoch, task

    def contend(self, who: int, what: int, how: int) -> None:
        """A finalizer decides and votes for another candidate than the one that is committed to."""
        play = self.play(who)
        finalizers = play.having("finalizer")
        others = [said for said in play.accepted() if hash_of(said) != play.work.committed]
        if not others or not finalizers:
            self.advance(who, what, how)
            return
        story, name, other = play.story, finalizers[what % len(finalizers)], others[how % len(others)]
        self.speak(play, name, lambda at_ms: story.decide(name, other, at_ms=at_ms))
        self.speak(play, name, lambda at_ms: story.vote_finality(name, other, at_ms=at_ms))

    def twin(self, who: int, what: int, how: int) -> None:
        """Somebody proposes two candidates that are hard to tell apart, at one moment, and speaks of them on."""
        play = self.play(who)
        proposers = play.having("proposer")
        name = proposers[what % len(proposers)]
        for say in twins(play, name)[: 2 + how % 4]:
            self.speak(play, name, say, 6)

    def create(self, who: int, what: int = 0, how: int = 0) -> None:
        """A task, with a label of its own or somebody else's."""
        if len(self.plays) >= plays_max:
            self.advance(who, 5, how)
            return
        proposers = self.world.having("proposer")
        name = proposers[who % len(proposers)]
        label = "shared" if how % 4 == 3 else None
        at_ms = self.moment(name, how)
        changes = terms[(who + what) % len(terms)]
        if how % 16 == 15:
            changes = {**changes, "expiry_ms": at_ms + 20_000}
        creation = self.world.create_task(name, label, changes=changes, at_ms=at_ms)
        self.hear(creation)
        with suppress(Refused):
            stances = {one: "reject" if (what >> place) & 3 == 3 else "approve" for place, one in enumerate(names)}
            self.plays.append(Play(Story(self.world, creation), stances))  # type: ignore[arg-type]

    def miscreate(self, who: int, what: int, how: int) -> None:
        """A task that cannot be, and a claim on it."""
        name = self.name(who)
        membership = bytes(32) if how % 8 == 7 else None
        at_ms = self.moment(name, how)
        changes = wrong_terms[what % len(wrong_terms)]
        creation = self.world.create_task(name, changes=changes, membership=membership, at_ms=at_ms)
        claim = work.TaskClaimed("propose", "x", self.world.now_ms + 1_000)
        self.hear(creation, self.world.author(name, claim, task=creation.id, at_ms=self.moment(name)))
        if how % 4 == 1:
            candidate = work.CandidateProposed(work.Candidate("c", "x", {"answer": "x"}, [], []))
            proposed = self.world.author(name, candidate, task=creation.id, at_ms=self.moment(name))
            self.hear(proposed, wilful_certificate(self.world, creation, proposed))

    def wait(self, who: int, what: int, how: int) -> None:
        """Time passes; days only now and then."""
        self.world.tick(jumps_ms[what % (5 if how % 8 else len(jumps_ms))])

    def fork(self, who: int, what: int, how: int) -> None:
        """Another event at a place of somebody's chain, perhaps with followers; or only the certificate of it."""
        name = self.name(who)
        own = [said for said in self.history.events if said.author == self.world.node(name) and said.payload]
        if not own or not self.forks_left:
            self.advance(who, what, how)
            return
        self.forks_left -= 1
        said = own[-1 - what % len(own)]
        other = course.TaskStopped("no") if said.epoch and how % 8 else None
        task = self.play(what).story.task
        rival = self.world.rival(said, other, task=task)
        if how % 4 == 3:
            self.hear(fork_of(said, rival))
            return
        self.hear(rival)
        if how % 4 == 2:
            head = self.world.heads.get(said.author)
            self.world.heads[said.author] = rival
            self.hear(self.world.author(name, course.TaskExpired(), task=task, at_ms=self.moment(name)))
            self.restore(said.author, head)

    def govern(self, who: int, what: int, how: int) -> None:
        """Advisories, tuned policies, checkpoints; every third time a change of members."""
        if what % 3 or self.versions >= versions_max:
            speech = dissent if what % 3 == 1 else advise
            self.hear(*speech(self.world, self.name(who), how, self.moment))
            return
        self.versions += 1
        known = self.world.network
        if how % 16 >= 14:  # finalizers who sign two successors of one version
            self.world.network = self.earlier
        told = change_members(self.world, self.gone, who, how, self.moment)
        self.hear(*told)
        self.earlier, self.world.network = known, known_after(known, told)
        self.known = list(dict.fromkeys([*self.known, *self.world.members, "gus"]))

    def prophesy(self, who: int, what: int, how: int) -> None:
        """Somebody speaks from the future; the others' clocks do not follow."""
        play, name, now_ms = self.play(who), self.name(what), self.world.now_ms
        at_ms = max(now_ms + jumps_ms[how % 6], self.moment(name))
        self.speak(play, name, lambda _: play.story.claim(name, at_ms=at_ms))
        self.world.now_ms = now_ms

    def certificate(self, who: int, what: int, how: int) -> None:
        """A decision certificate on its own: right, or of too few, or of a candidate that nobody knows."""
        play = self.play(who)
        finalizers = play.having("finalizer")
        if not play.candidates or not finalizers:
            self.advance(who, what, how)
            return
        candidate = play.candidates[what % len(play.candidates)]
        enough = play.story.pins.membership.finality_threshold
        signers = finalizers[: enough if how % 4 == 0 else how % enough]
        self.hear(play.story.certificate(candidate, signers))

    def babble(self, who: int, what: int, how: int) -> None:
        """Words of another version, of strangers, from before the network, against one's own clock, with a gap."""
        name, task = self.name(who), self.play(what).story.task
        node = self.world.node(name)
        last = self.world.heads.get(node)
        nothing = course.TaskExpired()
        floor = self.world.now_ms if last is None else hlc.wall_ms(last.hlc)
        match what % 6:
            case 0:
                self.hear(foreign(self.world, name, task=task, epoch=how % 3, at_ms=max(self.world.now_ms, floor) + 1))
            case 1:
                self.hear(foreign(self.world, name, "TASK_CREATED", version="9", epoch=1, at_ms=floor + 1))
            case 2:
                self.hear(self.world.author("gus", nothing, task=task, at_ms=self.moment("gus", how)))
            case 3:
                clock = hlc.pack(self.world.network.created_at - 1)
                self.hear(self.world.author(name, nothing, task=task, clock=clock))
                self.forget(node, last, how)
            case 4 if last is not None:
                self.hear(self.world.author(name, nothing, task=task, clock=last.hlc - how))
                self.forget(node, last, how)
            case _:
                self.world.author(name, nothing, task=task, at_ms=self.moment(name))
                self.hear(self.world.author(name, nothing, task=task, at_ms=self.moment(name)))
                self.forget(node, last, how)

    def forget(self, node: bytes, last: Event | None, how: int) -> None:
        """Mostly the chain goes on as if the last words had not been said: they are an error, and a fork if kept."""
        if how % 4 != 3:
            self.restore(node, last)

    def restore(self, node: bytes, last: Event | None) -> None:
        """Let a chain go on from ``last``."""
        if last is None:
            self.world.heads.pop(node)
        else:
            self.world.heads[node] = last


def known_after(network: Network, told: Iterable[Event | Certificate]) -> Network:
    """``network`` and the versions that were told of."""
    for item in told:
        update = item.update if isinstance(item, MembershipCertificate) else getattr(item, "payload", None)
        if isinstance(update, MembershipUpdated) and version_hash(update.version) not in network.versions:
            network = network.with_version(update)
    return network


Verb = Callable[[Teller, int, int, int], None]
verbs: tuple[Verb, ...] = (
    *(Teller.advance,) * 8,
    *(Teller.deviate,) * 8,
    *(Teller.create,) * 2,
    *(Teller.wait,) * 2,
    *(Teller.govern,) * 2,
    Teller.miscreate,
    Teller.fork,
    Teller.prophesy,
    Teller.certificate,
    Teller.contend,
    Teller.twin,
    Teller.babble,
)


def tell(header: bytes, script: bytes) -> History:
    """The history of a header and a script."""
    return Teller(header, script).tell()
