"""The membership chain: who has which role under which version, and what a network knows of its versions.

Versions form a chain by hash, not a timeline: a task pins one and keeps it. Version 0 is the genesis. A later one
counts because a threshold of its predecessor's finalizers committed to it in one round (``check_update``);
``Network`` is pass 1 of the governance stream: the set of versions known, whatever the order they came in. Knows
neither events nor how a version came to be signed. Keeps docs/protocol.md §9, Membership.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal

import msgspec

from wattswarm.kernel import codec, identity
from wattswarm.kernel.genesis import FaultModel, Genesis, Quotas, members_hold, typed_members, written_members
from wattswarm.kernel.payloads.fields import SignerSignature
from wattswarm.kernel.payloads.govern import MembershipUpdated, VersionBody
from wattswarm.kernel.refusal import Refused

signature_context = b"wattswarm/membership/v1"
Phase = Literal["prepare", "commit"]


class NotYetKnown(Refused):
    """Cannot be judged before something else arrives: ``needed`` is the membership version or author that is missing.

    Nobody's fault; what raised it is parked, not dropped.
    """

    def __init__(self, reason: str, message: str, needed: bytes) -> None:
        super().__init__(reason, message)
        self.needed = needed


class Membership(msgspec.Struct, frozen=True, dict=True):
    """One version. ``until``: node removed by it -> last author_seq that counts. Version 0's hash is the network id."""

    hash: bytes
    number: int
    previous: bytes | None
    members: dict[bytes, frozenset[str]]
    until: dict[bytes, int]
    fault_model: FaultModel

    @cached_property
    def _by_role(self) -> dict[str, frozenset[bytes]]:
        roles = {role for held in self.members.values() for role in held}
        return {role: frozenset(node for node, held in self.members.items() if role in held) for role in roles}

    def has(self, node: bytes, role: str) -> bool:
        """Whether ``node`` is a member with ``role``."""
        return role in self.members.get(node, ())

    def having(self, role: str) -> frozenset[bytes]:
        """The members with ``role``."""
        return self._by_role.get(role, frozenset())

    @property
    def finality_threshold(self) -> int:
        """How many finalizers decide."""
        return threshold(len(self.having("finalizer")), self.fault_model)

    def third(self, role: str) -> int:
        """⌊n/3⌋ + 1 of the n members with ``role``: at least one of them is honest, by the fault assumption."""
        return len(self.having(role)) // 3 + 1


def threshold(finalizers: int, fault_model: FaultModel) -> int:
    """How many of n finalizers decide: ⌊2n/3⌋ + 1, or ⌊n/2⌋ + 1 where finalizers only crash and never lie."""
    return (2 * finalizers // 3 if fault_model == "byzantine" else finalizers // 2) + 1


@dataclass(frozen=True)
class Network:
    """A genesis and every membership version known. An immutable value: ``with_version`` gives another."""

    genesis: Genesis
    versions: Mapping[bytes, Membership]

    @staticmethod
    def of(genesis: Genesis) -> Network:
        """The network at version 0."""
        first = Membership(genesis.network_id, 0, None, genesis.members, {}, genesis.said.fault_model)
        return Network(genesis, MappingProxyType({first.hash: first}))

    @cached_property
    def network_id(self) -> bytes:
        """SHA-256 of the genesis body."""
        return self.genesis.network_id

    @cached_property
    def created_at(self) -> int:
        """Unix ms of the genesis: no event is older."""
        return self.genesis.said.created_at

    @cached_property
    def quotas(self) -> Quotas:
        """What one author may add per day."""
        return self.genesis.said.params

    @cached_property
    def current(self) -> Membership:
        """The version with the highest number; of several, the one with the least hash."""
        return min(self.versions.values(), key=lambda version: (-version.number, version.hash))

    @cached_property
    def authors(self) -> frozenset[bytes]:
        """Everybody who is a member of some known version."""
        return frozenset(node for version in self.versions.values() for node in version.members)

    @cached_property
    def _until(self) -> dict[bytes, int]:
        least: dict[bytes, int] = {}
        for version in self.versions.values():
            for node, until in version.until.items():
                least[node] = min(until, least.get(node, until))
        return least

    def knows_author(self, node: bytes) -> bool:
        """Whether ``node`` is a member of some known version."""
        return node in self.authors

    def until(self, node: bytes) -> int | None:
        """The last author_seq of ``node`` that counts, if a known version removed it: the least such."""
        return self._until.get(node)

    def version(self, version_hash: bytes) -> Membership:
        """The version of that hash. Raises ``NotYetKnown``."""
        found = self.versions.get(version_hash)
        if found is None:
            raise NotYetKnown(
                "membership_unknown",
                f"membership version {version_hash.hex()[:16]}… is not known here (yet)",
                version_hash,
            )
        return found

    def ancestry(self, version: Membership) -> Sequence[Membership]:
        """``version``, its predecessor, and so on to the genesis."""
        line = [version]
        while line[-1].previous is not None:
            line.append(self.versions[line[-1].previous])
        return line

    def with_version(self, update: MembershipUpdated) -> Network:
        """This network and one version more. The caller has verified ``update`` (``check_update``)."""
        added = version_of(update.version, self.genesis.said.fault_model)
        assert added.previous in self.versions, "a version enters after its predecessor"
        return Network(self.genesis, MappingProxyType({**self.versions, added.hash: added}))


# -- versions ---------------------------------------------------------------------------------------------------


def version_hash(body: VersionBody) -> bytes:
    """A version's hash: SHA-256 of its body's canonical CBOR."""
    return codec.sha256(codec.encode(msgspec.to_builtins(body, builtin_types=(bytes,))))


def version_of(body: VersionBody, fault_model: FaultModel) -> Membership:
    """The typed version of a body."""
    until = {bytes.fromhex(node): seq for node, seq in body.until.items()}
    return Membership(version_hash(body), body.number, body.previous, typed_members(body.members), until, fault_model)


def next_version(
    network: Network, previous: Membership, members: Mapping[bytes, frozenset[str]], until: Mapping[bytes, int]
) -> VersionBody:
    """The body of the version after ``previous``. Raises ``Refused`` if it is not sound.

    ``until``: last author_seq that counts, of each member that leaves.
    """
    value = {
        "network_id": network.network_id,
        "number": previous.number + 1,
        "previous": previous.hash,
        "members": written_members(members),
        "until": {node.hex(): seq for node, seq in until.items()},
    }
    try:
        body = msgspec.convert(value, VersionBody, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise Refused("membership_form", f"membership version: {error}") from None
    check_version(network, body)
    return body


def check_version(network: Network, body: VersionBody) -> Membership:
    """Whether ``body`` may follow its predecessor; returns the predecessor. Raises ``Refused``.

    Its number is the predecessor's + 1; ``until`` names those who leave, all of them and nobody else; nobody who
    left before comes back. Raises ``NotYetKnown`` while the predecessor is not known.
    """
    if body.network_id != network.network_id:
        raise Refused("other_network", f"membership version of another network, {body.network_id.hex()[:16]}…")
    previous = network.version(body.previous)
    if body.number != previous.number + 1:
        raise Refused(
            "membership_number", f"membership version: found number {body.number}, expected {previous.number + 1}"
        )
    members_hold(body.members)
    members = {bytes.fromhex(node) for node in body.members}
    leaving = previous.members.keys() - members
    named = {bytes.fromhex(node) for node in body.until}
    if named != leaving:
        wrong = min(named ^ leaving)
        what = "stays or was no member" if wrong in named else "leaves"
        raise Refused(
            "membership_until",
            f"until: {wrong.hex()[:16]}… {what}; expected the members that leave, each with its last author_seq",
        )
    gone = {node for version in network.ancestry(previous) for node in version.until}
    back = gone & members
    if back:
        raise Refused("membership_return", f"{min(back).hex()[:16]}… was removed before; the way back is a new key")
    return previous


# -- signatures --------------------------------------------------------------------------------------------------


def signed_bytes(network_id: bytes, phase: Phase, previous: bytes, round_: int, membership_hash: bytes) -> bytes:
    """What a finalizer of ``previous`` signs to prepare or commit a version in a round."""
    return signature_context + codec.encode([network_id, phase, previous, round_, membership_hash])


def check_quorum(signatures: Sequence[SignerSignature], membership: Membership, message: bytes, what: str) -> None:
    """Whether distinct finalizers of ``membership``, as many as decide, all signed ``message``. Raises ``Refused``.

    ``what`` names the quorum in the refusal. Every signature counts: one bad one spoils the quorum, so that a
    quorum has no room for anything but signatures.
    """
    signers = set()
    for entry in signatures:
        name = f"{what}: {entry.signer_node_id.hex()[:16]}…"
        if entry.signer_node_id in signers:
            raise Refused("signer_twice", f"{name} is among the signers twice")
        if not membership.has(entry.signer_node_id, "finalizer"):
            raise Refused("signer_role", f"{name} is no finalizer of membership version {membership.number}")
        signers.add(entry.signer_node_id)
    if len(signers) < membership.finality_threshold:
        raise Refused(
            "too_few_signers",
            f"{what}: {len(signers)} signers, expected {membership.finality_threshold} of the "
            f"{len(membership.having('finalizer'))} finalizers of membership version {membership.number}",
        )
    for entry in signatures:
        if not identity.verify(entry.signer_node_id, message, entry.signature_hex):
            raise Refused("bad_signature", f"{what}: the signature of {entry.signer_node_id.hex()[:16]}… does not hold")


def check_update(update: MembershipUpdated, network: Network) -> bytes:
    """Whether a version is sound and a threshold of its predecessor committed to it in one round; its hash.

    Raises ``Refused``; ``NotYetKnown`` while the predecessor is not known.
    """
    previous = check_version(network, update.version)
    name = version_hash(update.version)
    message = signed_bytes(network.network_id, "commit", previous.hash, update.round, name)
    check_quorum(update.signatures, previous, message, f"membership version {update.version.number}")
    return name
