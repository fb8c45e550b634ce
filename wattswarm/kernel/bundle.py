"""Offline bundles: a decision with all that its proof needs, for somebody who has no node and trusts nobody.

Genesis, membership certificates in the order of their chain, decision certificate. A bundle proves a decision *of a
network*: whoever verifies names the network, or is told which one it trusted. It cannot tell what it does not hold:
a later membership, a second decision. Keeps docs/protocol.md §7, Bundle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from wattswarm.kernel import codec, limits
from wattswarm.kernel.certificate import (
    DecisionCertificate,
    MembershipCertificate,
    parse_certificate,
    verify_certificate,
)
from wattswarm.kernel.contract import parse_contract
from wattswarm.kernel.genesis import FaultModel, Genesis, parse_genesis
from wattswarm.kernel.membership import Network, NotYetKnown
from wattswarm.kernel.payloads.work import CandidateProposed, TaskCreated
from wattswarm.kernel.refusal import Malformed, Refused

bundle_name: Final = "wattswarm/bundle/v1"


class BundleReport(msgspec.Struct, frozen=True):
    """What a sound bundle proves, and under whose authority. Times and sizes are none of its business.

    ``network_pinned``: the reader had named the network; otherwise it trusted the one that the bundle brought.
    ``later_membership_known``: the bundle holds a version above the one that signed.
    """

    network_id: bytes
    network_name: str
    network_pinned: bool
    fault_model: FaultModel
    membership_number: int
    membership_hash: bytes
    later_membership_known: bool
    task: bytes
    task_id: str
    epoch: int
    contract_digest: bytes
    candidate_id: str
    candidate_author: bytes
    candidate_hash: bytes
    output: Any
    signers: tuple[bytes, ...]
    threshold: int
    finalizers: int
    final_commit_hash: bytes


def make_bundle(genesis: Genesis, memberships: Iterable[MembershipCertificate], decision: DecisionCertificate) -> bytes:
    """The bytes of a bundle. Raises ``Refused`` if they would be more than a reader takes."""
    in_order = sorted(memberships, key=lambda certificate: (certificate.update.version.number, certificate.id))
    wires = [certificate.wire() for certificate in in_order]
    data = codec.encode([bundle_name, genesis.wire(), wires, decision.wire()])
    _check_size(data)
    return data


def verify_bundle(data: bytes, network_id: bytes | None = None) -> BundleReport:
    """Check a bundle from its bytes alone, and say what it proves. Raises ``Refused`` with what is wrong.

    ``network_id``: the only network whose decisions the reader accepts; None: any, and the report names it.
    """
    genesis_wire, membership_wires, decision_wire = _parts(data)
    genesis = parse_genesis(genesis_wire)
    if network_id is not None and genesis.network_id != network_id:
        raise Refused(
            "other_network",
            f"the bundle is of network {genesis.network_id.hex()} ({genesis.said.name!r}), expected {network_id.hex()}",
        )
    network = _network(genesis, membership_wires)
    decision = parse_certificate(decision_wire, network)
    if not isinstance(decision, DecisionCertificate):
        raise Malformed("bundle_form", f"bundle: found a {decision.kind} certificate, expected a decision certificate")
    try:
        verify_certificate(decision, network)
    except NotYetKnown as refusal:
        raise Refused(
            "bundle_membership",
            f"bundle: it lacks membership version {refusal.needed.hex()}, which signed the decision",
        ) from None
    return _report(network, decision, pinned=network_id is not None)


def _check_size(data: bytes) -> None:
    if len(data) > limits.bundle_bytes_max:
        raise Malformed("too_large", f"bundle of {len(data)} bytes, at most {limits.bundle_bytes_max}")


def _parts(data: bytes) -> tuple[bytes, Sequence[bytes], bytes]:
    _check_size(data)
    match codec.decode(data):
        case [str() as name, bytes() as genesis, list() as memberships, bytes() as decision] if name == bundle_name:
            if all(type(wire) is bytes for wire in memberships):
                return genesis, memberships, decision
    raise Malformed("bundle_form", f"not a bundle: expected {bundle_name}, genesis, membership certificates, decision")


def _network(genesis: Genesis, wires: Sequence[bytes]) -> Network:
    """The network that the genesis and the membership certificates make, each verified in its turn."""
    network = Network.of(genesis)
    for wire in wires:
        certificate = parse_certificate(wire, network)
        if not isinstance(certificate, MembershipCertificate):
            raise Malformed(
                "bundle_form", f"bundle: found a {certificate.kind} certificate, expected a membership certificate"
            )
        try:
            verify_certificate(certificate, network)
        except NotYetKnown as refusal:
            raise Refused(
                "bundle_membership",
                f"bundle: membership version {certificate.update.version.number} follows {refusal.needed.hex()}, "
                "which does not stand before it",
            ) from None
        network = network.with_version(certificate.update)
    return network


def _report(network: Network, decision: DecisionCertificate, *, pinned: bool) -> BundleReport:
    creation, proposed = decision.creation.payload, decision.candidate.payload
    assert isinstance(creation, TaskCreated)
    assert isinstance(proposed, CandidateProposed)
    contract = parse_contract(creation.contract)
    membership = network.version(creation.membership)
    return BundleReport(
        network_id=network.network_id,
        network_name=network.genesis.said.name,
        network_pinned=pinned,
        fault_model=membership.fault_model,
        membership_number=membership.number,
        membership_hash=membership.hash,
        later_membership_known=network.current.number > membership.number,
        task=decision.creation.id,
        task_id=contract.task_id,
        epoch=decision.epoch,
        contract_digest=contract.digest,
        candidate_id=proposed.candidate.candidate_id,
        candidate_author=decision.candidate.author,
        candidate_hash=decision.candidate_hash,
        output=proposed.candidate.output,
        signers=tuple(entry.signer_node_id for entry in decision.proof.signatures),
        threshold=membership.finality_threshold,
        finalizers=len(membership.having("finalizer")),
        final_commit_hash=decision.id,
    )
