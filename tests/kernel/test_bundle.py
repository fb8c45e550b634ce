"""Bundles: a decision checked with no node, from bytes that nobody is trusted with (docs/protocol.md §7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cast import everything, genesis_ms, hash_of, keys_of, proposal
from tests.story import Story
from tests.world import World
from wattswarm.kernel import codec, limits
from wattswarm.kernel.bundle import make_bundle, verify_bundle
from wattswarm.kernel.certificate import DecisionCertificate, ForkCertificate, MembershipCertificate
from wattswarm.kernel.event import Event
from wattswarm.kernel.genesis import local_genesis, make_genesis
from wattswarm.kernel.refusal import Malformed, Refused

four = dict.fromkeys(("ada", "ben", "cy", "dee"), everything)


class Case:
    """A decision under version ``versions`` of a network, and one version after it if ``later``."""

    def __init__(self, versions: int = 0, later: bool = False) -> None:
        self.world = World(four)
        self.chain: list[MembershipCertificate] = []
        for number in range(versions):
            self.grow(f"new {number}")
        self.story: Story = self.world.task()
        self.candidate: Event = self.story.propose("ada")
        self.decision: DecisionCertificate = self.story.certificate(self.candidate)
        if later:
            self.grow("later")

    def grow(self, name: str) -> None:
        self.chain.append(self.world.next_version({**self.world.members, name: frozenset({"verifier"})}))

    def data(self) -> bytes:
        return make_bundle(self.world.genesis, self.chain, self.decision)

    def with_part(self, place: int, value: Any) -> bytes:
        parts = codec.decode(self.data())
        parts[place] = value
        return codec.encode(parts)


def reason_of(data: bytes, network_id: bytes | None = None) -> str:
    with pytest.raises(Refused) as refusal:
        verify_bundle(data, network_id)
    return refusal.value.reason


def test_a_bundle_names_network_membership_task_contract_output_and_signers() -> None:
    case = Case()
    report = verify_bundle(case.data(), case.world.network_id)
    assert (report.network_id, report.network_name) == (case.world.network_id, "a world")
    assert (report.membership_number, report.membership_hash) == (0, case.world.network_id)
    assert (report.task, report.task_id, report.epoch) == (case.story.task, "task-1", 1)
    assert report.contract_digest == case.story.pins.contract.digest
    assert report.candidate_hash == hash_of(case.candidate)
    assert report.output == proposal(case.candidate).output
    assert set(report.signers) == {case.world.node(name) for name in ("ada", "ben", "cy")}
    assert (report.threshold, report.finalizers, report.fault_model) == (3, 4, "byzantine")
    assert report.final_commit_hash == case.decision.id


def test_a_bundle_with_later_versions_verifies_under_the_version_that_signed() -> None:
    case = Case(versions=2, later=True)
    report = verify_bundle(case.data())
    assert (report.membership_number, report.membership_hash) == (2, case.chain[1].id)
    assert report.later_membership_known


@pytest.mark.parametrize("versions", [0, 1, 2])
def test_a_bundle_whose_last_version_signed_knows_no_later_one(versions: int) -> None:
    assert not verify_bundle(Case(versions).data()).later_membership_known


def test_versions_are_put_in_the_order_of_their_chain() -> None:
    case = Case(versions=3)
    assert make_bundle(case.world.genesis, reversed(case.chain), case.decision) == case.data()


def test_who_pins_the_network_is_told_so_and_who_does_not_is_told_which_it_trusted() -> None:
    case = Case()
    assert verify_bundle(case.data(), case.world.network_id).network_pinned
    trusting = verify_bundle(case.data())
    assert not trusting.network_pinned
    assert trusting.network_id == case.world.network_id


def test_a_bundle_of_another_network_than_the_pinned_one_is_refused() -> None:
    assert reason_of(Case().data(), b"\x01" * 32) == "other_network"


def test_a_bundle_without_the_version_that_signed_is_refused() -> None:
    case = Case(versions=2)
    assert reason_of(make_bundle(case.world.genesis, case.chain[:1], case.decision)) == "bundle_membership"
    assert reason_of(make_bundle(case.world.genesis, case.chain[1:], case.decision)) == "bundle_membership"


def test_a_bundle_under_somebody_elses_genesis_is_refused() -> None:
    other = local_genesis(keys_of("eli"), genesis_ms)
    assert reason_of(make_bundle(other, [], Case().decision)) == "other_network"


def test_a_genesis_with_the_same_founders_and_other_roles_is_another_network() -> None:
    case = Case()
    other = make_genesis(
        name="a world",
        created_at=genesis_ms,
        fault_model="crash",
        members=case.world.genesis.members,
        signers=[keys_of("ada")],
    )
    assert reason_of(make_bundle(other, [], case.decision)) == "other_network"


def test_too_few_signers_do_not_make_a_bundle() -> None:
    case = Case()
    case.decision = case.story.certificate(case.candidate, ["ada", "ben"])
    assert reason_of(case.data()) == "too_few_signers"


def test_a_version_that_was_not_signed_is_refused() -> None:
    case = Case(versions=1)
    forged = case.chain[0].update
    del forged.signatures[0]
    assert reason_of(case.data()) == "too_few_signers"


def _not_bytes(case: Case) -> bytes:
    return case.with_part(2, [1])


def _fork(case: Case) -> bytes:
    return ForkCertificate.of(case.candidate, case.world.rival(case.candidate)).wire()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda case: b"", "not_cbor"),
        (lambda case: b"<html>", "not_cbor"),
        (lambda case: case.data()[:-1], "not_cbor"),
        (lambda case: case.data() + b"\0", "not_canonical"),
        (lambda case: codec.encode({}), "bundle_form"),
        (lambda case: codec.encode(["wattswarm/bundle/v1"]), "bundle_form"),
        (lambda case: case.with_part(0, "wattswarm/bundle/v2"), "bundle_form"),
        (lambda case: case.with_part(1, "genesis"), "bundle_form"),
        (lambda case: case.with_part(2, {}), "bundle_form"),
        (_not_bytes, "bundle_form"),
        (lambda case: case.with_part(2, [case.decision.wire()]), "bundle_form"),
        (lambda case: case.with_part(3, None), "bundle_form"),
        (lambda case: case.with_part(3, _fork(case)), "bundle_form"),
        (lambda case: case.with_part(3, b"\x80"), "certificate_form"),
        (lambda case: case.with_part(1, codec.encode([b"\xa0", {}])), "genesis_form"),
        (lambda case: b"\x00" * (limits.bundle_bytes_max + 1), "too_large"),
    ],
)
def test_damage_of_each_kind_has_its_reason(damage: Callable[[Case], bytes], reason: str) -> None:
    with pytest.raises(Malformed) as refusal:
        verify_bundle(damage(Case()))
    assert refusal.value.reason == reason


whole = Case(versions=1)
whole_bytes = whole.data()


@given(st.integers(0, len(whole_bytes) - 1), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_no_changed_byte_makes_a_bundle_say_anything_else(place: int, change: int) -> None:
    changed = bytearray(whole_bytes)
    changed[place] ^= change
    with pytest.raises(Refused):
        verify_bundle(bytes(changed), whole.world.network_id)


def test_a_bundle_too_large_for_its_readers_is_not_made() -> None:
    case = Case(versions=1)
    many = case.chain * (limits.bundle_bytes_max // len(case.chain[0].wire()) + 1)
    with pytest.raises(Refused) as refusal:
        make_bundle(case.world.genesis, many, case.decision)
    assert refusal.value.reason == "too_large"
