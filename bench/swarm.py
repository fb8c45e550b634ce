"""A made-up swarm's history: 16 members, tasks from creation to finality proof, as any number of nodes would sign it.

Four members are finalizers (three of them decide), everybody proposes and verifies in turn. Each task is a full
chain of 13 events by six different authors; all of it is valid, so that a log that takes it does all of its work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from wattswarm.kernel import event, finality, hlc
from wattswarm.kernel.certificate import DecisionCertificate
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.contract_draft import contract_from_json, sample_contract
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.genesis import make_genesis
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.payloads import judge, work
from wattswarm.kernel.payloads.fields import Payload, SignerSignature
from wattswarm.kernel.reasons import Reason
from wattswarm.kernel.task.candidate import candidate_hash
from wattswarm.kernel.task.vote import Ballot

author_count = 16
finalizer_count = 4
events_a_task = 13
start_ms = 1_790_000_000_000
step_ms = 3


@dataclass
class Swarm:
    """Sixteen keys with their chains, and a clock that moves as they speak."""

    keys: list[Keypair] = field(default_factory=lambda: [Keypair(sha256(bytes([n]))) for n in range(author_count)])
    now_ms: int = start_ms

    def __post_init__(self) -> None:
        every = {"proposer", "verifier", "committer"}
        members = {
            key.node_id: frozenset(every | {"finalizer"} if number < finalizer_count else every)
            for number, key in enumerate(self.keys)
        }
        self.genesis = make_genesis(
            name="bench", created_at=self.now_ms - 1000, fault_model="byzantine", members=members, signers=self.keys[:1]
        )
        self.network_id = self.genesis.network_id
        self.heads: dict[bytes, tuple[int, bytes | None]] = {key.node_id: (-1, None) for key in self.keys}

    def say(self, key: Keypair, payload: Payload, task: bytes | None = None) -> Event:
        """One more event of ``key``'s chain."""
        self.now_ms += step_ms
        seq, prev = self.heads[key.node_id]
        said = event.author(key, self.network_id, seq + 1, prev, hlc.pack(self.now_ms), Draft(payload, task, 1))
        self.heads[key.node_id] = (said.author_seq, said.id)
        return said

    def task(self, number: int) -> list[Event]:
        """The thirteen events of task ``number``, in the order they were said."""
        proposer = self.keys[number % author_count]
        verifier = self.keys[(number + 5) % author_count]
        finalizers = [self.keys[(number + place) % finalizer_count] for place in range(3)]
        label = f"bench-{number}"
        contract = contract_from_json(
            sample_contract(label, self.now_ms + 86_400_000, "ed25519:" + self.keys[0].node_id.hex())
        )
        created = self.say(proposer, work.TaskCreated(contract, self.network_id))
        task = created.id
        candidate = self._propose(proposer, task, label)
        voted = self._judge(verifier, task, proposer, candidate)
        decided = self._decide(finalizers, task, proposer, candidate)
        return [created, *self._last, *voted, *decided]

    def _propose(self, proposer: Keypair, task: bytes, label: str) -> work.Candidate:
        execution = f"{label}-propose"
        claimed = self.say(proposer, work.TaskClaimed("propose", execution, self.now_ms + 4_000), task)
        digest = "sha256:" + sha256(label.encode()).hex()
        ref = work.EvidenceRef(f"http://127.0.0.1/{label}", digest, 120, "text/plain", self.now_ms, "bench")
        output = {"answer": f"default::{label}", "confidence": 0.93, "check_summary": "echoed"}
        candidate = work.Candidate(f"{label}-c", execution, output, [], [ref])
        proposed = self.say(proposer, work.CandidateProposed(candidate), task)
        self._last = [claimed, proposed]
        return candidate

    def _judge(self, verifier: Keypair, task: bytes, proposer: Keypair, candidate: work.Candidate) -> list[Event]:
        name, execution = candidate.candidate_id, f"{candidate.candidate_id}-verify"
        chosen = candidate_hash(proposer.node_id, candidate)
        policy = sample_contract("x", 1, "ed25519:" + "00" * 32)["acceptance"]["verifier_policy"]
        binding = contract_from_json(sample_contract("x", start_ms, "ed25519:" + self.keys[0].node_id.hex()))[
            "acceptance"
        ]["verifier_policy"]
        result_hash, salt = sha256(chosen).hex(), "5a" * 16
        result = judge.VerifierResult(
            name,
            execution,
            "passed",
            True,
            1.0,
            [int(Reason.SCHEMA_OK)],
            result_hash,
            "bench",
            "bench-1",
            policy["policy_id"],
            policy["policy_version"],
            binding["policy_hash"],
        )
        sealed = Ballot(task, 1, 1, verifier.node_id, chosen, "approve", salt, result_hash).commit_hash()
        digest = candidate.evidence_refs[0].digest
        return [
            self.say(verifier, work.TaskClaimed("verify", execution, self.now_ms + 4_000), task),
            self.say(verifier, work.EvidenceAvailable(name, execution, digest), task),
            self.say(verifier, judge.VerifierResultSubmitted(result), task),
            self.say(verifier, judge.VoteCommit(name, chosen, execution, result_hash, sealed), task),
            self.say(verifier, judge.VoteReveal(name, chosen, execution, result_hash, "approve", salt), task),
        ]

    def _decide(
        self, finalizers: list[Keypair], task: bytes, proposer: Keypair, candidate: work.Candidate
    ) -> list[Event]:
        chosen = candidate_hash(proposer.node_id, candidate)
        statement = finality.statement(self.network_id, self.network_id, task, 1, chosen)
        said = [self.say(finalizers[0], judge.DecisionCommitted(candidate.candidate_id, chosen), task)]
        signatures = []
        for finalizer in finalizers:
            signature = finalizer.sign(statement)
            signatures.append(SignerSignature(finalizer.node_id, signature))
            said.append(self.say(finalizer, judge.FinalityVote(chosen, signature), task))
        proof = judge.FinalityProof(len(finalizers), self.network_id, signatures)
        said.append(self.say(finalizers[0], judge.DecisionFinalized(candidate.candidate_id, chosen, proof), task))
        return said


def history(swarm: Swarm, event_count: int) -> Iterator[list[Event]]:
    """Whole tasks, until at least ``event_count`` events were said."""
    for number in range(-(-event_count // events_a_task)):
        yield swarm.task(number)


def certificate(events: list[Event]) -> DecisionCertificate:
    """The decision certificate of one task's events."""
    payload = events[-1].payload
    assert isinstance(payload, judge.DecisionFinalized)
    proposed = next(said for said in events if isinstance(said.payload, work.CandidateProposed))
    return DecisionCertificate(events[0], proposed, 1, payload.finality_proof)
