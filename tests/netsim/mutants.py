"""Defects to plant: each takes one promise of the protocol away, as a careless change might. Undone with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from net.proto import meeting, peers
from net.proto import message as m
from net.proto import values as v
from net.proto.clocks import Clocks
from net.proto.exchange import Exchange
from net.proto.meeting import Meeting
from net.proto.peer import Peer
from net.proto.peers import rest_ms_max
from netsim import recovery
from netsim.disk import SimGuard
from netsim.node import SimNode
from netsim.outline import answer_of, news_of
from netsim.recovery import Return
from sel import memory
from sel.admission import Admission
from sel.memory import MemoryStore, MemoryTxn
from sel.projector import Projector
from sel.rows import Fence
from wattswarm.kernel import intents, stream
from wattswarm.kernel.certificate import ForkCertificate
from wattswarm.kernel.event import Event
from wattswarm.kernel.intents.finish import voting_finality
from wattswarm.kernel.intents.values import Intent, Sight
from wattswarm.kernel.membership import Membership, Network
from wattswarm.kernel.payloads.fields import Payload
from wattswarm.kernel.payloads.judge import FinalityVote
from wattswarm.kernel.task import fold
from wattswarm.kernel.task.turn import Turn

Plant = Callable[[pytest.MonkeyPatch], None]


def drop_forks(patch: pytest.MonkeyPatch) -> None:
    """Of two events at one place, the one that came first stays, and nobody is told."""
    real = Admission.take_certificate

    async def take(self: Admission, certificate: Any) -> Any:
        return None if isinstance(certificate, ForkCertificate) else await real(self, certificate)

    patch.setattr(Admission, "take_certificate", take)


def half_decides(patch: pytest.MonkeyPatch) -> None:
    """Half of the finalizers make a proof."""
    patch.setattr(Membership, "finality_threshold", property(lambda self: len(self.having("finalizer")) // 2))


def one_too_few_decide(patch: pytest.MonkeyPatch) -> None:
    """A proof has one signature less than it must."""
    real = Membership.finality_threshold.fget  # type: ignore[attr-defined]
    patch.setattr(Membership, "finality_threshold", property(lambda self: real(self) - 1))


def ignore_guard(patch: pytest.MonkeyPatch) -> None:
    """A host that was put back to how it was authors on from there."""
    patch.setattr(SimGuard, "confirm", lambda *_args: ())
    patch.setattr(Return, "waits", lambda _self: False)
    patch.setattr(SimGuard, "foreign", property(lambda _self: False, lambda _self, _value: None), raising=False)


def take_early(patch: pytest.MonkeyPatch) -> None:
    """Whatever its time says, an event enters when it comes."""
    real = Admission._place

    async def place(self: Admission, event: Event) -> None:
        now_ms, self.now_ms = self.now_ms, self.now_ms + 10 * 86_400_000
        await real(self, event)
        self.now_ms = now_ms

    patch.setattr(Admission, "_place", place)
    patch.setattr(Clocks, "shift", lambda *_args: None)


def skip_comparison(patch: pytest.MonkeyPatch) -> None:
    """Gossip and nothing else."""
    patch.setattr(Exchange, "_compare", lambda *_args, **_named: None)


def fold_as_it_comes(patch: pytest.MonkeyPatch) -> None:
    """Whatever arrives is applied on top."""

    def apply(self: Projector, name: bytes, events: Sequence[Event]) -> bool:
        folded = self.folds[name]
        if folded.state is None or any(event.id == name for event in events):
            return False
        last = folded.last
        for event in events:
            folded.last = None
            stream.apply(folded, self.admission.network, event)
        folded.last = max(one for one in (last, events[-1].sort_key) if one is not None)
        return True

    patch.setattr(Projector, "_apply", apply)


def newest_members(patch: pytest.MonkeyPatch) -> None:
    """Whoever belongs to the network now decides, whatever a task pins."""
    patch.setattr(Network, "version", lambda self, _name: self.current)


def keep_every_orphan(patch: pytest.MonkeyPatch) -> None:
    """What waits for its predecessors waits for ever."""
    patch.setattr(memory, "_drop_oldest", lambda *_args: None)


def forget_fence(patch: pytest.MonkeyPatch) -> None:
    """What a node that was put back may have signed before does not keep it from signing."""

    async def no_fence(_self: MemoryTxn) -> Fence:
        return Fence()

    patch.setattr(MemoryTxn, "fence", no_fence)


def overlook_votes(patch: pytest.MonkeyPatch) -> None:
    """Neither fold nor intents mind a second vote: that a node signs once is left to the row that it keeps of it."""
    rule = fold.rules[FinalityVote]

    def vote(turn: Turn, payload: FinalityVote) -> None:
        turn.work.finality_votes.pop(turn.author, None)
        rule.handle(turn, payload)

    def voting(sight: Sight) -> Iterator[Intent]:
        votes, mine = sight.work.finality_votes, sight.work.finality_votes.get(sight.me)
        if mine is None or mine.candidate_hash == sight.work.committed:
            yield from voting_finality(sight)
            return
        del votes[sight.me]
        said = list(voting_finality(sight))
        votes[sight.me] = mine
        yield from said

    rules: dict[type[Payload], fold.Rule] = {**fold.rules}
    rules[FinalityVote] = replace(rule, handle=vote)
    patch.setattr(fold, "rules", rules)
    duties = tuple(voting if duty is voting_finality else duty for duty in intents._duties)
    patch.setattr(intents, "_duties", duties)


def forget_votes(patch: pytest.MonkeyPatch) -> None:
    """With its process, a node forgets what it signed."""
    overlook_votes(patch)
    real = SimNode.start

    def start(self: SimNode) -> None:
        self.disk.store.votes.clear()
        real(self)

    patch.setattr(SimNode, "start", start)


def keep_certificates(patch: pytest.MonkeyPatch) -> None:
    """A certificate is what whoever holds the events makes of them; none is told or given to anybody."""

    def news(*given: Any, **named: Any) -> v.Appended:
        return replace(news_of(*given, **named), certificates=[])

    def answer(store: MemoryStore, question: v.Question) -> object:
        return [] if isinstance(question, v.CertificatesOf) else answer_of(store, question)

    patch.setattr("netsim.node.news_of", news)
    patch.setattr("netsim.node.answer_of", answer)


def send_away_without_a_word(patch: pytest.MonkeyPatch) -> None:
    """Whoever is one too many is let go before it hears of others, and stays away for long."""
    real = Meeting._tell_places

    def tell(self: Meeting, peer: Peer, now_ms: int, lane: int = m.EVENTS) -> None:
        if lane != m.FINALITY:
            real(self, peer, now_ms, lane)

    patch.setattr(Meeting, "_tell_places", tell)
    patch.setattr(meeting, "surplus_rest_ms", rest_ms_max)
    patch.setattr(peers, "mesh_low", 0)


def recover_at_once(patch: pytest.MonkeyPatch) -> None:
    """A host that was put back goes on as soon as enough have answered, though they may just be learning of more."""
    patch.setattr(recovery, "quiet_s", 0)
