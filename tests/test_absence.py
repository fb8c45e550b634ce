"""Who is told to be offline: members that nothing connects to this node, and that nobody passed on anything of."""

from __future__ import annotations

from net.proto.peers import mesh_full
from tests.cast import keys_of
from wattswarm.absence import apart, gone, grace_ms, silent_ms

ben, cy = keys_of("ben").node_id, keys_of("cy").node_id
lost_at = 1_000_000


def test_moment_of_the_first_look_at_which_a_member_is_missing_stays_until_it_is_back() -> None:
    first = apart({ben}, 3, {}, lost_at)
    assert first == {ben.hex(): lost_at}
    assert apart({ben, cy}, 3, first, lost_at + 5_000) == {ben.hex(): lost_at, cy.hex(): lost_at + 5_000}
    assert apart(set(), 3, first, lost_at + 5_000) == {}


def test_in_a_network_larger_than_a_full_mesh_a_missing_connection_says_nothing() -> None:
    assert apart({ben}, mesh_full, {}, lost_at)
    assert apart({ben}, mesh_full + 1, {}, lost_at) == {}


def test_member_is_offline_since_its_connection_was_lost_and_not_before_a_while() -> None:
    spoke = {ben: lost_at - 90_000}
    assert gone({ben: lost_at}, spoke, lost_at + grace_ms - 1) == {}
    assert gone({ben: lost_at}, spoke, lost_at + 40_000) == {ben: lost_at}
    assert gone({cy: lost_at}, {}, lost_at + 40_000) == {cy: lost_at}


def test_member_that_was_heard_of_through_others_since_is_not_offline_until_it_is_silent_for_long() -> None:
    heard = lost_at + 10_000
    assert gone({ben: lost_at}, {ben: heard}, heard + silent_ms - 1) == {}
    assert gone({ben: lost_at}, {ben: heard}, heard + silent_ms) == {ben: heard}
