"""Who is told to be offline: members that nothing connects to this node, and that nobody passed on anything of."""

from __future__ import annotations

from net.proto.peers import mesh_full
from tests.cast import keys_of
from wattswarm.absence import apart, gone, grace_ms, silent_ms, told

me, ben, cy = (keys_of(name).node_id for name in ("ada", "ben", "cy"))
lost_at = 1_000_000


def test_moment_of_the_first_look_at_which_a_member_is_missing_stays_until_it_is_back() -> None:
    first = apart(me, {me, ben, cy}, {cy}, {}, lost_at)
    assert first == {ben.hex(): lost_at}
    later = lost_at + 5_000
    assert apart(me, {me, ben, cy}, set(), first, later) == {ben.hex(): lost_at, cy.hex(): later}
    assert apart(me, {me, ben, cy}, {ben, cy}, first, later) == {}


def test_member_that_was_never_met_is_told_of_only_after_long() -> None:
    missing = {"ben": lost_at, "cy": lost_at}
    assert told(missing, {"ben"}, lost_at) == {"ben": lost_at}
    assert told(missing, {"ben"}, lost_at + silent_ms) == missing


def test_in_a_network_larger_than_a_full_mesh_and_for_an_observer_a_missing_connection_says_nothing() -> None:
    others = {number.to_bytes(32, "big") for number in range(mesh_full)}
    assert len(apart(me, {me, *others}, set(), {}, lost_at)) == mesh_full
    assert apart(me, {me, ben, *others}, set(), {}, lost_at) == {}
    assert apart(me, {ben, cy}, set(), {}, lost_at) == {}


def test_member_is_offline_since_its_connection_was_lost_and_not_before_a_while() -> None:
    spoke = {ben: lost_at - 90_000}
    assert gone({ben: lost_at}, spoke, lost_at + grace_ms - 1) == {}
    assert gone({ben: lost_at}, spoke, lost_at + 40_000) == {ben: lost_at}
    assert gone({cy: lost_at}, {}, lost_at + 40_000) == {cy: lost_at}


def test_member_that_was_heard_of_through_others_since_is_not_offline_until_it_is_silent_for_long() -> None:
    heard = lost_at + 10_000
    assert gone({ben: lost_at}, {ben: heard}, heard + silent_ms - 1) == {}
    assert gone({ben: lost_at}, {ben: heard}, heard + silent_ms) == {ben: heard}
