"""What authors say about one task: a method for every kind of event, and nothing that judges them.

Methods take the author's name first and return the signed event. Defaults make a valid event, arguments make a
wrong one. Execution ids are ``{name}-propose`` and ``{name}-verify`` unless given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from tests.cast import artifact, authority, hash_of, keys_of, proposal, result_hash, salt_of
from wattswarm.kernel import finality
from wattswarm.kernel.certificate import DecisionCertificate
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.event import Event
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.payloads import course, judge, work
from wattswarm.kernel.payloads.fields import Payload, SignerSignature
from wattswarm.kernel.task.feedback import feedback_text
from wattswarm.kernel.task.fold import Pins, open_task
from wattswarm.kernel.task.vote import Ballot

if TYPE_CHECKING:
    from tests.world import World

ClaimRole = Literal["propose", "verify"]
Ballots = Literal["approve", "reject"]


class Voice:
    """One task in a world. ``epoch`` is the epoch that its events are of."""

    def __init__(self, world: World, creation: Event) -> None:
        self.world = world
        self.creation = creation
        self.task = creation.id
        self.epoch = 1
        self.pins: Pins = open_task(creation, world.network)

    def say(self, name: str, payload: Payload, at_ms: int | None = None) -> Event:
        """An event about the task, in the current epoch."""
        return self.world.author(name, payload, task=self.task, epoch=self.epoch, at_ms=at_ms)

    def claim(
        self,
        name: str,
        role: ClaimRole = "propose",
        execution: str | None = None,
        *,
        lease_ms: int | None = None,
        at_ms: int | None = None,
    ) -> Event:
        """A claim for the contract's lease_ms, or ``lease_ms``."""
        at_ms = self.world.tick() if at_ms is None else at_ms
        until = at_ms + self._lease_ms(lease_ms)
        return self.say(name, work.TaskClaimed(role, execution or f"{name}-{role}", until), at_ms)

    def renew(
        self,
        name: str,
        role: ClaimRole = "propose",
        execution: str | None = None,
        *,
        lease_ms: int | None = None,
        at_ms: int | None = None,
    ) -> Event:
        """A renewal for the contract's lease_ms, or ``lease_ms``, from its own time on."""
        at_ms = self.world.tick() if at_ms is None else at_ms
        until = at_ms + self._lease_ms(lease_ms)
        return self.say(name, work.TaskClaimRenewed(role, execution or f"{name}-{role}", until), at_ms)

    def _lease_ms(self, lease_ms: int | None) -> int:
        return self.pins.contract.assignment.claim.lease_ms if lease_ms is None else lease_ms

    def release(
        self, name: str, role: ClaimRole = "propose", execution: str | None = None, *, at_ms: int | None = None
    ) -> Event:
        """The claim given back."""
        return self.say(name, work.TaskClaimReleased(role, execution or f"{name}-{role}"), at_ms)

    def propose(
        self,
        name: str,
        candidate_id: str | None = None,
        *,
        execution: str | None = None,
        output: Any = None,
        digests: Sequence[str] = (),
        inline: Sequence[tuple[str, str]] = (),
        at_ms: int | None = None,
    ) -> Event:
        """A candidate; by default with a good output and no evidence. ``inline``: (mime, content)."""
        if output is None:
            output = {"answer": f"{name} says hello", "confidence": 0.93, "check_summary": "echoed"}
        candidate = work.Candidate(
            candidate_id or f"{name}-candidate",
            execution or f"{name}-propose",
            output,
            [work.EvidenceInline(mime, content) for mime, content in inline],
            [artifact(digest) for digest in digests],
        )
        return self.say(name, work.CandidateProposed(candidate), at_ms)

    def add_evidence(
        self,
        name: str,
        candidate_id: str | None = None,
        *,
        execution: str | None = None,
        digests: Sequence[str],
        at_ms: int | None = None,
    ) -> Event:
        """More evidence for a candidate."""
        payload = work.EvidenceAdded(
            candidate_id or f"{name}-candidate",
            execution or f"{name}-propose",
            [artifact(digest) for digest in digests],
        )
        return self.say(name, payload, at_ms)

    def available(
        self,
        name: str,
        candidate: Event,
        digest: str | None = None,
        *,
        execution: str | None = None,
        at_ms: int | None = None,
    ) -> Event:
        """An artifact of a proposed candidate could be read: its first, or the one with ``digest``."""
        proposed = proposal(candidate)
        digest = digest or proposed.evidence_refs[0].digest
        payload = work.EvidenceAvailable(proposed.candidate_id, execution or f"{name}-verify", digest)
        return self.say(name, payload, at_ms)

    def result(
        self,
        name: str,
        candidate: Event,
        status: str = "passed",
        *,
        at_ms: int | None = None,
        **changes: Any,
    ) -> Event:
        """A verifier's result; ``changes`` by the names of its fields."""
        passed = status == "passed"
        codes = {"passed": [100], "failed": [101], "inconclusive": [200]}.get(status, [100])
        policy = self.pins.contract.acceptance.verifier_policy
        fields: dict[str, Any] = {
            "candidate_id": proposal(candidate).candidate_id,
            "execution_id": f"{name}-verify",
            "verification_status": status,
            "passed": passed,
            "score": 1.0 if passed else 0.0,
            "reason_codes": codes,
            "verifier_result_hash": result_hash(name, candidate),
            "provider_family": "echo",
            "model_id": "echo-1",
            "policy_id": policy.policy_id,
            "policy_version": policy.policy_version,
            "policy_hash": policy.policy_hash,
        }
        return self.say(name, judge.VerifierResultSubmitted(judge.VerifierResult(**(fields | changes))), at_ms)

    def commit(
        self,
        name: str,
        candidate: Event,
        vote: Ballots = "approve",
        *,
        attempt: int = 1,
        salt: str | None = None,
        voter: str | None = None,
        execution: str | None = None,
        at_ms: int | None = None,
    ) -> Event:
        """A sealed vote; ``voter``: whom the seal names, the author unless given."""
        chosen = hash_of(candidate)
        ballot = Ballot(
            self.task,
            self.epoch,
            attempt,
            self.world.node(voter or name),
            chosen,
            vote,
            salt_of(name) if salt is None else salt,
            result_hash(name, candidate),
        )
        payload = judge.VoteCommit(
            proposal(candidate).candidate_id,
            chosen,
            execution or f"{name}-verify",
            result_hash(name, candidate),
            ballot.commit_hash(),
        )
        return self.say(name, payload, at_ms)

    def reveal(
        self,
        name: str,
        candidate: Event,
        vote: Ballots = "approve",
        *,
        salt: str | None = None,
        at_ms: int | None = None,
        **changes: Any,
    ) -> Event:
        """The vote opened; ``changes`` by the names of the payload's fields."""
        fields: dict[str, Any] = {
            "candidate_id": proposal(candidate).candidate_id,
            "candidate_hash": hash_of(candidate),
            "execution_id": f"{name}-verify",
            "verifier_result_hash": result_hash(name, candidate),
            "vote": vote,
            "salt": salt_of(name) if salt is None else salt,
        }
        return self.say(name, judge.VoteReveal(**(fields | changes)), at_ms)

    def decide(
        self, name: str, candidate: Event, *, candidate_id: str | None = None, at_ms: int | None = None
    ) -> Event:
        """DECISION_COMMITTED for a candidate."""
        payload = judge.DecisionCommitted(candidate_id or proposal(candidate).candidate_id, hash_of(candidate))
        return self.say(name, payload, at_ms)

    def statement(self, candidate: Event) -> bytes:
        """What finalizers sign for a candidate in this epoch."""
        return finality.statement(
            self.world.network_id, self.pins.membership.hash, self.task, self.epoch, hash_of(candidate)
        )

    def vote_finality(
        self, name: str, candidate: Event, *, signature: bytes | None = None, at_ms: int | None = None
    ) -> Event:
        """A finality vote, with the author's own signature unless another is given."""
        signed = finality.sign(keys_of(name), self.statement(candidate)) if signature is None else signature
        return self.say(name, judge.FinalityVote(hash_of(candidate), signed), at_ms)

    def proof(self, candidate: Event, signers: Sequence[str] | None = None) -> judge.FinalityProof:
        """A finality proof by the first finalizers that suffice, or by ``signers``."""
        membership = self.pins.membership
        if signers is None:
            finalizers = [name for name in self.world.members if membership.has(self.world.node(name), "finalizer")]
            signers = finalizers[: membership.finality_threshold]
        statement = self.statement(candidate)
        signatures = [
            SignerSignature(self.world.node(name), finality.sign(keys_of(name), statement)) for name in signers
        ]
        return judge.FinalityProof(membership.finality_threshold, membership.hash, signatures)

    def finalize(
        self, name: str, candidate: Event, *, signers: Sequence[str] | None = None, at_ms: int | None = None
    ) -> Event:
        """DECISION_FINALIZED with a proof."""
        proposed = proposal(candidate)
        payload = judge.DecisionFinalized(proposed.candidate_id, hash_of(candidate), self.proof(candidate, signers))
        return self.say(name, payload, at_ms)

    def certificate(self, candidate: Event, signers: Sequence[str] | None = None) -> DecisionCertificate:
        """The decision certificate for a candidate in this epoch."""
        return DecisionCertificate(self.creation, candidate, self.epoch, self.proof(candidate, signers))

    def error(
        self,
        name: str,
        execution: str | None = None,
        *,
        reason: Literal["TIMEOUT", "INVALID_OUTPUT", "OTHER"] = "TIMEOUT",
        codes: Sequence[int] = (300,),
        at_ms: int | None = None,
        **custom: str,
    ) -> Event:
        """TASK_ERROR; ``custom``: its custom_reason_* fields."""
        payload = course.TaskError(execution or f"{name}-propose", reason, list(codes), "it did not work", **custom)
        return self.say(name, payload, at_ms)

    def retry(self, name: str, attempt: int = 2, *, run_at: int | None = None, at_ms: int | None = None) -> Event:
        """TASK_RETRY_SCHEDULED, to run at once unless ``run_at`` is given."""
        at_ms = self.world.tick() if at_ms is None else at_ms
        return self.say(name, course.TaskRetryScheduled(attempt, at_ms if run_at is None else run_at), at_ms)

    def expire(self, name: str, *, at_ms: int | None = None) -> Event:
        """TASK_EXPIRED, at the contract's expiry unless ``at_ms`` is given."""
        return self.say(name, course.TaskExpired(), self.pins.contract.expiry_ms if at_ms is None else at_ms)

    def end_epoch(
        self,
        name: str,
        reason: Literal["BUDGET_EXHAUSTED", "TIMEBOX_REACHED", "FINALIZED"] = "TIMEBOX_REACHED",
        *,
        at_ms: int | None = None,
    ) -> Event:
        """EPOCH_ENDED of the current epoch; the story goes on in the same epoch until ``epoch`` is set."""
        return self.say(name, course.EpochEnded(reason), at_ms)

    def stop(self, name: str, *, at_ms: int | None = None) -> Event:
        """TASK_STOPPED."""
        return self.say(name, course.TaskStopped("enough"), at_ms)

    def suspend(self, name: str, *, at_ms: int | None = None) -> Event:
        """TASK_SUSPENDED."""
        return self.say(name, course.TaskSuspended("wait"), at_ms)

    def kill(self, name: str, *, at_ms: int | None = None) -> Event:
        """TASK_KILLED."""
        return self.say(name, course.TaskKilled("harmful"), at_ms)

    def feedback(
        self,
        name: str,
        *,
        outcome: str = "BAD",
        reason: str = "wrong",
        signer: Keypair = authority,
        signed_by: str | None = None,
        timestamp: int | None = None,
        at_ms: int | None = None,
    ) -> Event:
        """TASK_FEEDBACK_REPORTED, signed by the contract's authority unless another ``signer`` is given."""
        timestamp = self.world.now_ms if timestamp is None else timestamp
        text = feedback_text(self.task, self.epoch, outcome, reason, timestamp)
        by = signed_by or "ed25519:" + signer.node_id.hex()
        return self.say(name, course.TaskFeedbackReported(outcome, reason, by, signer.sign(text), timestamp), at_ms)

    def reject_reuse(self, name: str, candidate: Event, reveals: Sequence[bytes], *, at_ms: int | None = None) -> Event:
        """REUSE_REJECT_RECORDED with the event ids of the rejecting reveals."""
        ref = course.DecisionRef("an-older-task", 1, sha256(b"an older decision"))
        return self.say(name, course.ReuseRejectRecorded(ref, hash_of(candidate), list(reveals), [101]), at_ms)
