"""The membership chain: thresholds, sound versions, quorums, and what a network knows (docs/protocol.md §9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import pytest

from tests.cast import everything, keys_of
from tests.world import World
from wattswarm.kernel import limits
from wattswarm.kernel.membership import (
    Network,
    NotYetKnown,
    check_update,
    check_version,
    next_version,
    signed_bytes,
    threshold,
    version_hash,
    version_of,
)
from wattswarm.kernel.payloads.fields import SignerSignature
from wattswarm.kernel.payloads.govern import MembershipUpdated, VersionBody
from wattswarm.kernel.refusal import Refused

worker = frozenset({"proposer", "verifier"})
Until = dict[str, int]


def node(name: str) -> bytes:
    return keys_of(name).node_id


def body_of(network: Network, members: dict[str, Any], until: Until | None = None) -> VersionBody:
    """The version after the current one, as it is: not checked."""
    return VersionBody(
        network.network_id,
        network.current.number + 1,
        network.current.hash,
        {node(name).hex(): list(roles) for name, roles in members.items()},
        {node(name).hex(): seq for name, seq in (until or {}).items()},
    )


def signed(
    network: Network, body: VersionBody, signers: Sequence[str], *, round_: int = 0, signed_round: int | None = None
) -> MembershipUpdated:
    signed_round = round_ if signed_round is None else signed_round
    message = signed_bytes(network.network_id, "commit", body.previous, signed_round, version_hash(body))
    return MembershipUpdated(
        body, round_, [SignerSignature(node(name), keys_of(name).sign(message)) for name in signers]
    )


def reason_of(call: Any, *arguments: Any) -> str:
    with pytest.raises(Refused) as refusal:
        call(*arguments)
    return refusal.value.reason


four = dict.fromkeys(("ada", "ben", "cy", "dee"), everything)


@pytest.mark.parametrize(
    ("finalizers", "byzantine", "crash"),
    [
        (1, 1, 1),
        (2, 2, 2),
        (3, 3, 2),
        (4, 3, 3),
        (5, 4, 3),
        (6, 5, 4),
        (7, 5, 4),
        (10, 7, 6),
        (100, 67, 51),
        (128, 86, 65),
    ],
)
def test_the_threshold_is_two_thirds_or_half_of_the_finalizers_and_one(
    finalizers: int, byzantine: int, crash: int
) -> None:
    assert threshold(finalizers, "byzantine") == byzantine
    assert threshold(finalizers, "crash") == crash


@pytest.mark.parametrize("finalizers", range(1, 129))
def test_two_byzantine_quorums_share_more_than_a_third_and_two_crash_quorums_share_one(finalizers: int) -> None:
    assert 2 * threshold(finalizers, "byzantine") - finalizers > finalizers / 3
    assert 2 * threshold(finalizers, "crash") - finalizers >= 1


@pytest.mark.parametrize(("members", "third"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3), (9, 4)])
def test_a_third_is_rounded_down_and_one_more(members: int, third: int) -> None:
    assert World.of(members).network.current.third("committer") == third


def test_a_membership_answers_by_node_and_by_role() -> None:
    version = World({"ada": everything, "ben": worker}).network.current
    assert version.has(node("ada"), "finalizer")
    assert not version.has(node("ben"), "finalizer")
    assert not version.has(node("cy"), "proposer")
    assert version.having("verifier") == {node("ada"), node("ben")}
    assert version.having("committer") == {node("ada")}


def test_a_version_survives_its_body() -> None:
    world = World(four)
    body = next_version(
        world.network,
        world.network.current,
        {node("ada"): everything},
        dict.fromkeys(map(node, ["ben", "cy", "dee"]), 5),
    )
    version = version_of(body, "byzantine")
    assert (version.number, version.previous) == (1, world.network_id)
    assert version.members == {node("ada"): frozenset(everything)}
    assert version.until == {node("ben"): 5, node("cy"): 5, node("dee"): 5}


# -- soundness -----------------------------------------------------------------------------------------------------


def test_a_sound_version_follows_its_predecessor() -> None:
    network = World(four).network
    assert check_version(network, body_of(network, {**four, "eli": worker})) == network.current


def test_a_version_of_another_network_is_refused() -> None:
    network = World(four).network
    body = msgspec.structs.replace(body_of(network, four), network_id=b"\x01" * 32)
    assert reason_of(check_version, network, body) == "other_network"


def test_a_version_whose_predecessor_is_not_known_waits() -> None:
    network = World(four).network
    body = msgspec.structs.replace(body_of(network, four), previous=b"\x01" * 32)
    with pytest.raises(NotYetKnown) as refusal:
        check_version(network, body)
    assert (refusal.value.reason, refusal.value.needed) == ("membership_unknown", b"\x01" * 32)


@pytest.mark.parametrize("number", [0, 2, limits.counter_max])
def test_the_number_is_the_predecessors_and_one(number: int) -> None:
    network = World(four).network
    assert reason_of(check_version, network, msgspec.structs.replace(body_of(network, four), number=number)) == (
        "membership_number"
    )


@pytest.mark.parametrize(
    "until",
    [{}, {"dee": 3, "ada": 3}, {"dee": 3, "eli": 3}, {"ada": 3}],
    ids=["nobody", "one who stays", "a stranger", "the wrong one"],
)
def test_until_names_those_who_leave_and_nobody_else(until: Until) -> None:
    network = World(four).network
    staying = {name: roles for name, roles in four.items() if name != "dee"}
    assert check_version(network, body_of(network, staying, {"dee": 3}))
    assert reason_of(check_version, network, body_of(network, staying, until)) == "membership_until"


def test_a_removed_key_never_comes_back() -> None:
    world = World(four)
    staying = {name: roles for name, roles in four.items() if name != "dee"}
    world.next_version(staying, {"dee": 3})
    assert reason_of(check_version, world.network, body_of(world.network, four)) == "membership_return"
    world.next_version({**staying, "eli": worker})
    assert reason_of(check_version, world.network, body_of(world.network, {**four, "eli": worker})) == (
        "membership_return"
    )


def test_a_version_keeps_a_finalizer() -> None:
    network = World(four).network
    assert reason_of(check_version, network, body_of(network, dict.fromkeys(four, worker))) == "finalizer_count"


def test_roles_are_named_once_in_a_version() -> None:
    network = World(four).network
    body = body_of(network, {**four, "ada": ["finalizer", "proposer", "finalizer"]})
    assert reason_of(check_version, network, body) == "role_twice"


def test_a_version_of_401_members_is_refused_when_it_is_written() -> None:
    network = World.of(1).network
    members = {number.to_bytes(32, "big"): worker for number in range(1, limits.members_max)}
    members[node("ada")] = everything
    assert len(next_version(network, network.current, members, {}).members) == limits.members_max
    members[node("ben")] = worker
    assert reason_of(next_version, network, network.current, members, {}) == "membership_form"


# -- quorums -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signers", [["ada", "ben", "cy"], ["dee", "cy", "ben"], ["ada", "ben", "cy", "dee"]])
def test_a_threshold_of_the_predecessors_finalizers_makes_a_version(signers: list[str]) -> None:
    network = World(four).network
    body = body_of(network, {**four, "eli": everything})
    assert check_update(signed(network, body, signers), network) == version_hash(body)


def test_one_finalizer_alone_makes_a_version_where_it_is_the_only_one() -> None:
    network = World({"ada": everything, "ben": worker}).network
    body = body_of(network, {"ada": everything, "ben": everything})
    assert check_update(signed(network, body, ["ada"]), network)


@pytest.mark.parametrize(
    ("signers", "reason"),
    [
        ([], "too_few_signers"),
        (["ada", "ben"], "too_few_signers"),
        (["ada", "ben", "ben"], "signer_twice"),
        (["ada", "ben", "eli"], "signer_role"),
        (["ada", "ben", "fay"], "signer_role"),
    ],
)
def test_a_quorum_is_distinct_finalizers_and_enough_of_them(signers: list[str], reason: str) -> None:
    network = World({**four, "eli": worker}).network
    update = signed(network, body_of(network, {**four, "eli": worker, "fay": everything}), signers)
    assert reason_of(check_update, update, network) == reason


def test_one_bad_signature_spoils_a_quorum_that_would_suffice_without_it() -> None:
    network = World(four).network
    update = signed(network, body_of(network, four), ["ada", "ben", "cy", "dee"])
    update.signatures[3] = SignerSignature(node("dee"), update.signatures[0].signature_hex)
    assert reason_of(check_update, update, network) == "bad_signature"


def test_commits_of_another_round_do_not_count() -> None:
    network = World(four).network
    update = signed(network, body_of(network, four), ["ada", "ben", "cy"], round_=1, signed_round=0)
    assert reason_of(check_update, update, network) == "bad_signature"


@pytest.mark.parametrize("changed", ["phase", "network", "previous", "hash"])
def test_a_signature_binds_network_phase_predecessor_and_hash(changed: str) -> None:
    network = World(four).network
    body = body_of(network, four)
    phase: Literal["prepare", "commit"] = "prepare" if changed == "phase" else "commit"
    said = [network.network_id, body.previous, version_hash(body)]
    for place, name in enumerate(("network", "previous", "hash")):
        if name == changed:
            said[place] = b"\x07" * 32
    message = signed_bytes(said[0], phase, said[1], 0, said[2])
    signatures = [SignerSignature(node(name), keys_of(name).sign(message)) for name in ("ada", "ben", "cy")]
    assert reason_of(check_update, MembershipUpdated(body, 0, signatures), network) == "bad_signature"


def test_the_predecessors_finalizers_sign_and_not_the_new_ones() -> None:
    world = World(four)
    world.next_version({**four, "eli": everything, "fay": everything})
    body = body_of(world.network, world.members)
    names = ["ada", "eli", "fay", "ben", "cy"]
    assert world.network.current.finality_threshold == 5
    assert check_update(signed(world.network, body, names), world.network)
    assert reason_of(check_update, signed(world.network, body, names[:4]), world.network) == "too_few_signers"


def test_the_crash_model_asks_for_half() -> None:
    network = World(four, fault_model="crash").network
    body = body_of(network, {**four, "eli": everything})
    assert reason_of(check_update, signed(network, body, ["ada", "ben"]), network) == "too_few_signers"
    assert check_update(signed(network, body, ["ada", "ben", "cy"]), network)


# -- what is known -------------------------------------------------------------------------------------------------


def test_a_network_is_a_value() -> None:
    world = World(four)
    before = world.network
    world.next_version({**four, "eli": worker})
    assert not before.knows_author(node("eli"))
    assert world.network.knows_author(node("eli"))
    assert len(before.versions) == 1


def test_an_author_of_any_known_version_is_known() -> None:
    world = World(four)
    world.next_version({"ada": everything}, {"ben": 1, "cy": 2, "dee": 3})
    assert all(world.network.knows_author(node(name)) for name in four)
    assert not world.network.knows_author(node("eli"))


def test_until_is_known_of_those_who_left() -> None:
    world = World(four)
    assert world.network.until(node("ben")) is None
    world.next_version({"ada": everything}, {"ben": 1, "cy": 0, "dee": 3})
    assert [world.network.until(node(name)) for name in four] == [None, 1, 0, 3]


def test_of_two_branches_the_least_until_counts_and_the_least_hash_is_current() -> None:
    world = World(four)
    staying = {name: roles for name, roles in four.items() if name != "dee"}
    bodies = [body_of(world.network, staying, {"dee": seq}) for seq in (9, 4, 6)]
    network = world.network
    for body in bodies:
        network = network.with_version(signed(network, body, ["ada", "ben", "cy"]))
    assert network.until(node("dee")) == 4
    assert network.current.hash == min(version_hash(body) for body in bodies)


def test_the_order_in_which_versions_come_to_be_known_does_not_matter() -> None:
    world = World(four)
    staying = {name: roles for name, roles in four.items() if name != "dee"}
    updates = [
        signed(world.network, body_of(world.network, staying, {"dee": seq}), ["ada", "ben", "cy"]) for seq in (9, 4)
    ]
    one = world.network.with_version(updates[0]).with_version(updates[1])
    other = world.network.with_version(updates[1]).with_version(updates[0])
    assert (dict(one.versions), one.current) == (dict(other.versions), other.current)


def test_the_current_version_has_the_highest_number() -> None:
    world = World(four)
    for added in ("eli", "fay"):
        world.next_version({**world.members, added: worker})
    assert world.network.current.number == 2
    assert [version.number for version in world.network.ancestry(world.network.current)] == [2, 1, 0]


def test_an_unknown_version_is_asked_for_by_hash() -> None:
    network = World(four).network
    assert network.version(network.network_id).number == 0
    with pytest.raises(NotYetKnown):
        network.version(b"\x05" * 32)
