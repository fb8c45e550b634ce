"""The genesis: what a network's founding document may say, and who signs it (docs/protocol.md §9)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cast import everything, genesis_ms, keys_of
from wattswarm.kernel import codec, limits
from wattswarm.kernel.genesis import (
    Genesis,
    Quotas,
    all_roles,
    local_genesis,
    make_genesis,
    parse_genesis,
    signature_context,
)
from wattswarm.kernel.membership import Network
from wattswarm.kernel.refusal import Malformed, Refused

ada, ben = keys_of("ada"), keys_of("ben")


def founded(**changes: Any) -> Genesis:
    fields: dict[str, Any] = {
        "name": "orchard",
        "created_at": genesis_ms,
        "fault_model": "byzantine",
        "members": {ada.node_id: everything, ben.node_id: frozenset({"verifier"})},
        "signers": [ada],
    }
    return make_genesis(**(fields | changes))


def body(**changes: Any) -> dict[str, Any]:
    """A good body as plain values; a change to None takes the field out."""
    value: dict[str, Any] = codec.decode(founded().body) | changes
    return {name: item for name, item in value.items() if item is not None}


def wire(value: Any, **signers: Any) -> bytes:
    """The wire of a body, signed by those named; a signature may be given instead of keys."""
    data = codec.encode(value)
    keys = signers or {"ada": ada}
    message = signature_context + codec.sha256(data)
    signatures = {
        keys_of(name).node_id.hex(): item if isinstance(item, bytes) else item.sign(message)
        for name, item in keys.items()
    }
    return codec.encode([data, signatures])


def test_a_genesis_survives_the_wire() -> None:
    made = founded(signers=[ben, ada], quotas=Quotas(10, 20_000))
    assert parse_genesis(made.wire()) == made


def test_the_network_id_is_the_hash_of_the_body() -> None:
    made = founded()
    assert made.network_id == codec.sha256(made.body)
    assert Network.of(made).network_id == made.network_id


def test_the_network_id_does_not_depend_on_who_signed() -> None:
    assert founded(signers=[ada]).network_id == founded(signers=[ada, ben]).network_id


def test_every_field_of_the_body_moves_the_network_id() -> None:
    others = [
        founded(name="garden"),
        founded(created_at=genesis_ms + 1),
        founded(fault_model="crash"),
        founded(members={ada.node_id: everything}),
        founded(quotas=Quotas(quota_events_per_day=5)),
    ]
    assert len({other.network_id for other in (*others, founded())}) == len(others) + 1


def test_quotas_that_are_not_written_are_the_protocols() -> None:
    read = parse_genesis(wire(body(params={})))
    assert read.said.params == Quotas(limits.quota_events_per_day, limits.quota_bytes_per_day)


def test_the_local_network_is_its_nodes_own() -> None:
    network = Network.of(local_genesis(ada, genesis_ms))
    assert network.genesis.said.name == "local"
    assert network.current.members == {ada.node_id: all_roles}
    assert network.current.finality_threshold == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"format": True},
        {"format": None},
        {"name": ""},
        {"name": "é" * 129},
        {"name": None},
        {"created_at": -1},
        {"created_at": 1 << 48},
        {"created_at": 1.0},
        {"fault_model": "none"},
        {"members": {}},
        {"members": {ada.node_id.hex().upper(): ["finalizer"]}},
        {"members": {ada.node_id.hex()[:-2]: ["finalizer"]}},
        {"members": {ada.node_id.hex(): []}},
        {"members": {ada.node_id.hex(): ["king"]}},
        {"members": {f"{number:064x}": ["finalizer"] for number in range(limits.members_max + 1)}},
        {"params": {"quota_events_per_day": 0}},
        {"params": {"quota_bytes_per_hour": 1}},
        {"params": None},
        {"motto": "more"},
    ],
    ids=lambda changes: f"{next(iter(changes))}={str(next(iter(changes.values())))[:20]}",
)
def test_a_body_of_another_form_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed) as refusal:
        parse_genesis(wire(body(**changes)))
    assert refusal.value.reason == "genesis_form"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        codec.encode([]),
        codec.encode([b"", {}, 1]),
        codec.encode(["x", {}]),
        codec.encode([b"\xff", {ada.node_id.hex(): b"s" * 64}]),
        codec.encode([founded().body, {ada.node_id.hex(): b"short"}]),
        codec.encode([founded().body, {ada.node_id.hex().upper(): b"s" * 64}]),
        founded().wire() + b"\x00",
        b"\x00" * (limits.genesis_bytes_max + 1),
    ],
    ids=[
        "empty",
        "integer",
        "no parts",
        "a part too many",
        "text body",
        "body no cbor",
        "signature",
        "signer",
        "trailing",
        "size",
    ],
)
def test_bytes_of_another_form_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_genesis(data)


def test_a_genesis_without_signatures_is_refused() -> None:
    with pytest.raises(Refused) as refusal:
        parse_genesis(codec.encode([founded().body, {}]))
    assert refusal.value.reason == "genesis_unsigned"
    with pytest.raises(Refused):
        founded(signers=[])


def test_a_signature_of_somebody_who_is_no_member_is_refused() -> None:
    with pytest.raises(Refused) as refusal:
        parse_genesis(wire(body(), ada=ada, cy=keys_of("cy")))
    assert refusal.value.reason == "genesis_stranger"


def test_one_bad_signature_spoils_the_genesis() -> None:
    with pytest.raises(Refused) as refusal:
        parse_genesis(wire(body(), ada=ada, ben=b"\x01" * 64))
    assert refusal.value.reason == "bad_signature"


def test_a_role_is_named_once() -> None:
    with pytest.raises(Refused) as refusal:
        parse_genesis(wire(body(members={ada.node_id.hex(): ["finalizer", "finalizer"]})))
    assert refusal.value.reason == "role_twice"


@pytest.mark.parametrize(("finalizers", "holds"), [(0, False), (1, True), (128, True), (129, False)])
def test_a_network_has_1_to_128_finalizers(finalizers: int, holds: bool) -> None:
    members = {ada.node_id: frozenset({"proposer", "finalizer"} if finalizers else {"proposer"})}
    members |= {number.to_bytes(32, "big"): frozenset({"finalizer"}) for number in range(1, finalizers)}
    if holds:
        assert len(Network.of(founded(members=members)).current.having("finalizer")) == finalizers
        return
    with pytest.raises(Refused) as refusal:
        founded(members=members)
    assert refusal.value.reason == "finalizer_count"


def test_the_largest_genesis_fits_its_limit() -> None:
    keys = [keys_of(f"founder {number}") for number in range(limits.members_max)]
    members = {
        key.node_id: all_roles if number < limits.finalizers_max else all_roles - {"finalizer"}
        for number, key in enumerate(keys)
    }
    made = founded(name="n" * 256, members=members, signers=keys)
    assert parse_genesis(made.wire()) == made
