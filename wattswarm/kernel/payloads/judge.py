"""Payloads of judgement: verifier results, votes, decisions, finality (docs/protocol.md §5, §7)."""

from __future__ import annotations

from typing import ClassVar, Literal

from wattswarm.kernel import limits
from wattswarm.kernel.payloads.fields import (
    Count,
    Hash,
    Label,
    Payload,
    ReasonCodes,
    Signature,
    SignerSignature,
    SomeText,
    Text,
)

text = limits.text_bytes_max


class VerifierResult(Payload, frozen=True):
    """What a verifier's runtime said about a candidate. ``score`` in [0, 1]; hashes of runtimes are opaque text."""

    text_bytes_max: ClassVar[dict[str, int]] = {
        "verifier_result_hash": text,
        "provider_family": text,
        "model_id": text,
        "policy_id": text,
        "policy_version": text,
    }

    candidate_id: Label
    execution_id: Label
    verification_status: Literal["passed", "failed", "inconclusive"]
    passed: bool
    score: float
    reason_codes: ReasonCodes
    verifier_result_hash: SomeText
    provider_family: Text
    model_id: Text
    policy_id: Text
    policy_version: Text
    policy_hash: Text


class VerifierResultSubmitted(Payload, frozen=True):
    """A verifier publishes its result."""

    result: VerifierResult


class VoteCommit(Payload, frozen=True):
    """A sealed vote: ``commit_hash`` binds voter, vote and salt (``kernel.task.vote.commit_hash``)."""

    text_bytes_max: ClassVar[dict[str, int]] = {"verifier_result_hash": text}

    candidate_id: Label
    candidate_hash: Hash
    execution_id: Label
    verifier_result_hash: SomeText
    commit_hash: Hash


class VoteReveal(Payload, frozen=True):
    """The opened vote. ``salt`` is hex text of at least 32 digits."""

    text_bytes_max: ClassVar[dict[str, int]] = {"verifier_result_hash": text}

    candidate_id: Label
    candidate_hash: Hash
    execution_id: Label
    verifier_result_hash: SomeText
    vote: Literal["approve", "reject"]
    salt: Text


class DecisionCommitted(Payload, frozen=True):
    """The approval quorum is reached for this candidate."""

    candidate_id: Label
    candidate_hash: Hash


class FinalityVote(Payload, frozen=True):
    """A finalizer's signature over the finality statement (docs/protocol.md §7)."""

    candidate_hash: Hash
    signature: Signature


class FinalityProof(Payload, frozen=True):
    """Signatures over one statement. Valid iff they reach the threshold that the reader computes itself."""

    threshold: Count
    membership: Hash
    signatures: list[SignerSignature]


class DecisionFinalized(Payload, frozen=True):
    """The proof is public."""

    candidate_id: Label
    winning_candidate_hash: Hash
    finality_proof: FinalityProof
