"""Payloads of the governance stream: checkpoints, the membership chain, advisories, policies (docs/protocol.md §9)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from wattswarm.kernel import limits
from wattswarm.kernel.payloads.fields import (
    Count,
    Hash,
    HexNodeId,
    LongText,
    NodeId,
    Payload,
    Role,
    Signature,
    SignerSignature,
    SomeText,
    Uint,
)

text = limits.text_bytes_max
HexHash = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Roles = Annotated[list[Role], Meta(min_length=1, max_length=4)]
LastSeq = Annotated[int, Meta(ge=0, lt=limits.counter_max)]
Members = Annotated[dict[HexNodeId, Roles], Meta(min_length=1, max_length=limits.members_max)]


class VersionBody(Payload, frozen=True):
    """A membership version: what its hash binds. ``until``: removed node -> last author_seq that counts."""

    network_id: Hash
    number: Count
    previous: Hash
    members: Members
    until: dict[HexNodeId, LastSeq]


class PrepareQuorum(Payload, frozen=True):
    """A finalizer quorum's prepare signatures in ``round``, for the hash that the proposal carries on."""

    round: Uint
    signatures: Annotated[list[SignerSignature], Meta(max_length=limits.finalizers_max)]


class MembershipProposed(Payload, frozen=True):
    """A finalizer of ``previous`` proposes the next version in a round."""

    previous: Hash
    round: Uint
    version: VersionBody
    prepare_quorum: PrepareQuorum | None = None


class MembershipSigned(Payload, frozen=True):
    """A finalizer's prepare or commit signature for one hash in one round."""

    phase: Literal["prepare", "commit"]
    previous: Hash
    round: Uint
    membership_hash: Hash
    signature: Signature


class MembershipUpdated(Payload, frozen=True):
    """The membership certificate: a version and a quorum of commit signatures of one round."""

    version: VersionBody
    round: Uint
    signatures: Annotated[list[SignerSignature], Meta(max_length=limits.finalizers_max)]


class Fingerprint(Payload, frozen=True):
    """Count of a set and the sum of its ids as little-endian integers modulo 2^256."""

    count: Uint
    sum: Hash


class Fingerprints(Payload, frozen=True):
    """Of the live events, and of the certificates."""

    events: Fingerprint
    certificates: Fingerprint


class CheckpointCreated(Payload, frozen=True):
    """What its author holds: a node with the same frontier and another root raises an alarm."""

    text_bytes_max: ClassVar[dict[str, int]] = {"checkpoint_id": text}

    membership: Hash
    checkpoint_id: SomeText
    frontier: dict[HexNodeId, Uint]
    fingerprints: Fingerprints
    state_root: Hash


class AdvisoryCreated(Payload, frozen=True):
    """A committer suggests a policy hash."""

    text_bytes_max: ClassVar[dict[str, int]] = {
        "advisory_id": text,
        "policy_id": text,
        "reason": limits.reason_text_bytes_max,
    }

    membership: Hash
    advisory_id: SomeText
    policy_id: SomeText
    suggested_policy_hash: HexHash
    reason: LongText


class AdvisoryApproved(Payload, frozen=True):
    """A finalizer approves; ``admin_node_id`` is the author."""

    text_bytes_max: ClassVar[dict[str, int]] = {"advisory_id": text}

    membership: Hash
    advisory_id: SomeText
    admin_node_id: NodeId


class AdvisoryApplied(Payload, frozen=True):
    """A committer applied the approved advisory."""

    text_bytes_max: ClassVar[dict[str, int]] = {"advisory_id": text}

    membership: Hash
    advisory_id: SomeText
    applied_policy_hash: HexHash


class PolicyTuned(Payload, frozen=True):
    """A finalizer admits a new hash for a policy, from an applied advisory."""

    text_bytes_max: ClassVar[dict[str, int]] = {"policy_id": text, "advisory_id": text}

    membership: Hash
    policy_id: SomeText
    from_policy_hash: HexHash
    to_policy_hash: HexHash
    advisory_id: SomeText
