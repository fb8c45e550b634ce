"""The genesis: the document a network begins with, and whose hash is the network's name for ever.

Its body says who founded the network, with which roles, under which fault model and with which quotas; the
founders' signatures say that they meant it. It is membership version 0. What follows from it (thresholds, later
versions) is ``kernel.membership``'s. Keeps docs/protocol.md §9, Genesis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from wattswarm.kernel import codec, identity, limits
from wattswarm.kernel.hlc import counter_bits
from wattswarm.kernel.payloads.fields import HexNodeId, Payload, Signature, SomeText
from wattswarm.kernel.payloads.govern import Members
from wattswarm.kernel.refusal import Malformed, Refused

signature_context = b"wattswarm/genesis/v1\0"
FaultModel = Literal["byzantine", "crash"]
all_roles = frozenset(("proposer", "verifier", "committer", "finalizer"))

Quota = Annotated[int, Meta(ge=1, le=limits.counter_max)]
_Wire = tuple[bytes, Annotated[dict[HexNodeId, Signature], Meta(max_length=limits.members_max)]]
UnixMs = Annotated[int, Meta(ge=0, lt=1 << (64 - counter_bits))]


class Quotas(Payload, frozen=True):
    """What one author may add to the log per UTC day of its own clock. Bytes are those of bodies and signatures."""

    quota_events_per_day: Quota = limits.quota_events_per_day
    quota_bytes_per_day: Quota = limits.quota_bytes_per_day


class GenesisBody(Payload, frozen=True):
    """What the network id is the hash of. ``created_at`` in unix ms: no event is older."""

    text_bytes_max: ClassVar[dict[str, int]] = {"name": limits.text_bytes_max}

    format: Literal[1]
    name: SomeText
    created_at: UnixMs
    fault_model: FaultModel
    members: Members
    params: Quotas


class Genesis(msgspec.Struct, frozen=True):
    """A genesis whose form and signatures are good. ``signatures``: node id -> signature of the network id."""

    network_id: bytes
    body: bytes
    said: GenesisBody
    signatures: dict[bytes, bytes]

    def wire(self) -> bytes:
        """Canonical CBOR [body, {node id in hex: signature}]: the form of files, invites and bundles."""
        return codec.encode([self.body, {node.hex(): signature for node, signature in self.signatures.items()}])

    @property
    def members(self) -> dict[bytes, frozenset[str]]:
        """Node id -> roles."""
        return typed_members(self.said.members)


def typed_members(members: Mapping[str, Sequence[str]]) -> dict[bytes, frozenset[str]]:
    """Members as a document writes them (hex, lists), as values: node id -> roles."""
    return {bytes.fromhex(node): frozenset(roles) for node, roles in members.items()}


def written_members(members: Mapping[bytes, frozenset[str]]) -> dict[str, list[str]]:
    """The other way round: roles sorted, so that equal members are written equally."""
    return {node.hex(): sorted(roles) for node, roles in members.items()}


def members_hold(members: Mapping[str, Sequence[str]]) -> None:
    """The rules for the members of any version. Raises ``Refused``."""
    for node, roles in members.items():
        if len(set(roles)) != len(roles):
            raise Refused("role_twice", f"member {node[:16]}…: a role is named twice in {', '.join(roles)}")
    finalizers = sum("finalizer" in roles for roles in members.values())
    if not 1 <= finalizers <= limits.finalizers_max:
        raise Refused("finalizer_count", f"{finalizers} members are finalizers, expected 1 to {limits.finalizers_max}")


def make_genesis(
    *,
    name: str,
    created_at: int,
    fault_model: FaultModel,
    members: Mapping[bytes, frozenset[str]],
    signers: Sequence[identity.Keypair],
    quotas: Quotas | None = None,
) -> Genesis:
    """Write and sign a genesis. Raises ``Refused`` if it would not be one that others accept."""
    value: dict[str, Any] = {
        "format": 1,
        "name": name,
        "created_at": created_at,
        "fault_model": fault_model,
        "members": written_members(members),
        "params": msgspec.to_builtins(quotas or Quotas()),
    }
    body = codec.encode_checked(value)
    message = signature_context + codec.sha256(body)
    return _checked(body, {keys.node_id: keys.sign(message) for keys in signers})


def local_genesis(keys: identity.Keypair, created_at: int) -> Genesis:
    """The network of one that a node without a network makes for itself: all roles are its own."""
    members = {keys.node_id: all_roles}
    return make_genesis(name="local", created_at=created_at, fault_model="byzantine", members=members, signers=[keys])


def parse_genesis(data: bytes) -> Genesis:
    """The genesis of received bytes, its rules and signatures checked. Raises ``Malformed`` or ``Refused``."""
    if len(data) > limits.genesis_bytes_max:
        raise Malformed("too_large", f"genesis of {len(data)} bytes, at most {limits.genesis_bytes_max}")
    try:
        body, signatures = msgspec.convert(codec.decode(data), _Wire, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise Malformed("genesis_form", f"genesis: {error}") from None
    return _checked(body, {bytes.fromhex(node): signature for node, signature in signatures.items()})


def _checked(body: bytes, signatures: dict[bytes, bytes]) -> Genesis:
    try:
        said = msgspec.convert(codec.decode(body), GenesisBody, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise Malformed("genesis_form", f"genesis: {error}") from None
    members_hold(said.members)
    network_id = codec.sha256(body)
    if not signatures:
        raise Refused("genesis_unsigned", "genesis: no founder signed it")
    for node, signature in signatures.items():
        if node.hex() not in said.members:
            raise Refused("genesis_stranger", f"genesis: signed by {node.hex()[:16]}…, who is not among its members")
        if not identity.verify(node, signature_context + network_id, signature):
            raise Refused("bad_signature", f"genesis: the signature of {node.hex()[:16]}… does not hold")
    return Genesis(network_id, body, said, signatures)
