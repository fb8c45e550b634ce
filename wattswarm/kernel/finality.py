"""Finality: the statement that finalizers sign, and what makes their signatures a proof.

A statement binds network, membership version, task, epoch and candidate; a proof is enough signatures over it, and
the reader computes what is enough from the membership chain it holds itself. When a finalizer may sign is judged
elsewhere. Keeps docs/protocol.md §7, statement and Proof.
"""

from __future__ import annotations

from collections.abc import Mapping

from wattswarm.kernel import codec, identity
from wattswarm.kernel.membership import Membership, check_quorum
from wattswarm.kernel.payloads.fields import SignerSignature
from wattswarm.kernel.payloads.judge import FinalityProof
from wattswarm.kernel.refusal import Refused

statement_context = b"wattswarm/finality/v1"


def statement(network_id: bytes, membership_hash: bytes, task: bytes, epoch: int, candidate_hash: bytes) -> bytes:
    """The bytes a finalizer signs, once per (task, epoch)."""
    return statement_context + codec.encode([network_id, membership_hash, task, epoch, candidate_hash])


def final_commit_hash(statement: bytes) -> bytes:
    """The decision's name: SHA-256 of its statement, and the id of its certificate."""
    return codec.sha256(statement)


def sign(keys: identity.Keypair, statement: bytes) -> bytes:
    """A finalizer's signature over the statement."""
    return keys.sign(statement)


def vote_holds(signer: bytes, statement: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is ``signer``'s over the statement. Its role is asked about elsewhere."""
    return identity.verify(signer, statement, signature)


def make_proof(membership: Membership, signatures: Mapping[bytes, bytes]) -> FinalityProof | None:
    """The proof that verified signatures of the pinned version's finalizers make, or None while they are too few.

    Exactly as many as decide, those of the least node ids: the same signatures give the same proof.
    """
    enough = membership.finality_threshold
    signers = sorted(signatures.keys() & membership.having("finalizer"))[:enough]
    if len(signers) < enough:
        return None
    return FinalityProof(enough, membership.hash, [SignerSignature(node, signatures[node]) for node in signers])


def check_proof(proof: FinalityProof, membership: Membership, statement: bytes) -> None:
    """Whether ``proof`` proves ``statement`` under ``membership``, the version that the task pins.

    Raises ``Refused``: another version, a wrong threshold, a signer twice or without the role, too few, a bad
    signature.
    """
    if proof.membership != membership.hash:
        raise Refused(
            "proof_membership",
            f"finality proof: names membership version {proof.membership.hex()[:16]}…, "
            f"expected {membership.hash.hex()[:16]}…, which the task pins",
        )
    if proof.threshold != membership.finality_threshold:
        raise Refused(
            "proof_threshold",
            f"finality proof: says that {proof.threshold} finalizers decide, expected {membership.finality_threshold}",
        )
    check_quorum(proof.signatures, membership, statement, "finality proof")
