"""One task, told: what is said about it, its fold, and the passages that most tests need whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tests.cast import digest_of, proposal
from tests.voice import Ballots, Voice
from wattswarm.kernel.certificate import DecisionCertificate
from wattswarm.kernel.event import Event
from wattswarm.kernel.task.fold import Decision, TaskState, apply, decision_of, encode_state, new_state
from wattswarm.kernel.verdict import Verdict

if TYPE_CHECKING:
    from tests.world import World


class Story(Voice):
    """A task's events and the state that those told so far make. ``decisions``: pass 1's facts."""

    def __init__(self, world: World, creation: Event, decisions: Iterable[Decision] = ()) -> None:
        super().__init__(world, creation)
        self.state: TaskState = new_state(self.pins, decisions)

    def tell(self, *events: Event) -> Verdict:
        """Apply events on top, in the order given; the last one's verdict."""
        verdict = None
        for said in events:
            verdict = apply(self.state, self.pins, said)
        assert verdict is not None
        return verdict

    def told(self, said: Event) -> Event:
        """Apply an event that must be accepted, and hand it back."""
        verdict = self.tell(said)
        assert verdict.status == "accepted", verdict
        return said

    def accepts(self, *events: Event) -> None:
        """Every one of them must be accepted, and change the state."""
        for said in events:
            before = encode_state(self.state)
            self.told(said)
            assert encode_state(self.state) != before, f"{said.kind} changed nothing"

    def ignores(self, said: Event) -> None:
        """A repeat of what already holds: accepted, and nothing changes, no budget either."""
        before = encode_state(self.state)
        self.told(said)
        assert encode_state(self.state) == before

    def refuses(self, said: Event, reason: str, *words: str) -> None:
        """Refused for that reason, in a sentence with those words, and nothing changes."""
        before = encode_state(self.state)
        verdict = self.tell(said)
        assert (verdict.status, verdict.reason) == ("refused", reason), verdict
        assert [word for word in words if word not in verdict.message] == [], verdict.message
        assert encode_state(self.state) == before

    def decide_with(self, *certificates: DecisionCertificate) -> None:
        """Begin the state anew with pass 1's facts of ``certificates``; nothing is told yet."""
        self.state = new_state(self.pins, [decision_of(certificate) for certificate in certificates])

    def finish(self, *, proposer: str | None = None, digests: Sequence[str] | None = None) -> list[Event]:
        """From the first claim to the finality proof, by as few members as the contract and the version ask for."""
        proposer = proposer or self.world.having("proposer")[0]
        digests = [digest_of(f"{proposer} {self.task.hex()}")] if digests is None else digests
        claimed = self.claim(proposer)
        candidate = self.propose(proposer, digests=digests)
        voters = self.voters(proposer)
        verified = [said for name in voters for said in self.judge(name, candidate)]
        revealed = [self.reveal(name, candidate) for name in voters]
        return [claimed, candidate, *verified, *revealed, *self.close(candidate)]

    def voters(self, proposer: str) -> list[str]:
        """As many verifiers as the quorums ask for, the proposer only if there is nobody else."""
        verifiers = self.world.having("verifier")
        others = [name for name in verifiers if name != proposer] or verifiers
        terms = self.pins.contract.acceptance
        return others[: max(terms.quorum_threshold, terms.da_quorum_threshold)]

    def judge(self, name: str, candidate: Event, vote: Ballots = "approve", *, attempt: int = 1) -> list[Event]:
        """A verifier's work up to its sealed vote: claim, evidence, result, commit."""
        digests = [ref.digest for ref in proposal(candidate).evidence_refs]
        return [
            self.claim(name, "verify"),
            *(self.available(name, candidate, digest) for digest in dict.fromkeys(digests)),
            self.result(name, candidate, "passed" if vote == "approve" else "failed"),
            self.commit(name, candidate, vote, attempt=attempt),
        ]

    def close(self, candidate: Event) -> list[Event]:
        """The decision, the finality votes that suffice, and the proof."""
        membership = self.pins.membership
        finalizers = [name for name in self.world.members if membership.has(self.world.node(name), "finalizer")]
        signers = finalizers[: membership.finality_threshold]
        return [
            self.decide(finalizers[0], candidate),
            *(self.vote_finality(name, candidate) for name in signers),
            self.finalize(finalizers[0], candidate, signers=signers),
        ]
