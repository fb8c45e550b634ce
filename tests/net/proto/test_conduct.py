"""Who behaves badly is kept out for a while, and nobody for what another did (docs/network.md §7)."""

from __future__ import annotations

import pytest

from net.proto import conduct
from net.proto.budget import Deed
from net.proto.conduct import Ledger

now = 1_700_000_000_000
alice, bob = b"a" * 32, b"b" * 32
host = "192.0.2.1"
ten_minutes = 600_000


@pytest.mark.parametrize("deed", ["malformed", "bad_signature"])
def test_one_malformed_message_of_a_node_without_merit_graylists_it(deed: Deed) -> None:
    ledger = Ledger()
    assert ledger.note(alice, deed, now)
    assert ledger.graylisted(alice, now)
    assert not ledger.graylisted(bob, now)


def test_below_minus_fifty_is_below_it() -> None:
    ledger = Ledger()
    assert not ledger.note(alice, "broken_want", now, 10)
    assert ledger.note(alice, "broken_want", now)


def test_merit_is_worth_something() -> None:
    ledger = Ledger()
    ledger.note(alice, "useful", now, 50)
    assert not ledger.note(alice, "malformed", now)
    assert ledger.score(alice, now) == -50


def test_the_graylist_ends_after_ten_minutes_and_the_node_may_behave_again() -> None:
    ledger = Ledger()
    ledger.note(alice, "malformed", now, 1_000)
    assert ledger.graylisted(alice, now + ten_minutes - 1)
    assert ledger.term_ms(alice, now + ten_minutes - 1) == 1
    assert not ledger.graylisted(alice, now + ten_minutes)
    assert ledger.term_ms(alice, now + ten_minutes) == 0
    assert not ledger.note(alice, "useful", now + ten_minutes)


def test_a_clock_that_goes_back_does_not_lengthen_the_graylist() -> None:
    ledger = Ledger()
    ledger.note(alice, "malformed", now)
    earlier = now - 10**9
    assert ledger.graylisted(alice, earlier)
    assert not ledger.graylisted(alice, earlier + ten_minutes)


def test_faults_that_are_forgotten_add_up_to_nothing() -> None:
    ledger = Ledger()
    assert not any(ledger.note(alice, "oversize", now + place * ten_minutes) for place in range(50))


def test_a_host_is_blocked_for_its_third_fault_before_it_was_known_who_is_there() -> None:
    ledger = Ledger()
    for _ in range(2):
        ledger.stranger_fault(host, now)
        assert not ledger.blocked(host, now)
    ledger.stranger_fault(host, now)
    assert ledger.blocked(host, now + ten_minutes - 1)
    assert not ledger.blocked("192.0.2.2", now)
    assert not ledger.blocked(host, now + ten_minutes)


def test_a_fault_now_and_then_blocks_no_host() -> None:
    ledger = Ledger()
    for place in range(20):
        ledger.stranger_fault(host, now + place * 400_000)
        assert not ledger.blocked(host, now + place * 400_000)


def test_what_a_proved_node_does_blocks_no_host() -> None:
    ledger = Ledger()
    ledger.note(alice, "malformed", now, 100)
    assert not ledger.blocked(host, now)


def test_a_host_is_not_blocked_while_a_member_is_connected_from_it() -> None:
    ledger = Ledger()
    ledger.member_came(host)
    ledger.member_came(host)
    for _ in range(5):
        ledger.stranger_fault(host, now)
    assert not ledger.blocked(host, now)
    ledger.member_left(host)
    assert not ledger.blocked(host, now)
    ledger.member_left(host)
    assert ledger.blocked(host, now)


def test_everything_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "nodes_max", 10)
    monkeypatch.setattr(conduct, "hosts_max", 10)
    ledger = Ledger()
    nodes = [number.to_bytes(32, "big") for number in range(100)]
    for node in nodes:
        ledger.note(node, "malformed", now)
        for _ in range(4):
            ledger.stranger_fault(node.hex(), now)
        ledger.stranger_fault(f"once {node.hex()}", now)
    assert sum(ledger.graylisted(node, now) for node in nodes) == 10
    assert sum(ledger.blocked(node.hex(), now) for node in nodes) == 10
    assert sum(ledger.score(node, now) != 0 for node in nodes) == 10
    assert ledger.remembered() == 40
    assert ledger.graylisted(nodes[-1], now), "the newest are remembered"


def test_who_was_quiet_longest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "nodes_max", 2)
    ledger = Ledger()
    carol = b"c" * 32
    for node in (alice, bob, alice, carol):
        ledger.note(node, "malformed", now)
    assert [ledger.score(node, now) != 0 for node in (alice, bob, carol)] == [True, False, True]
    assert [ledger.graylisted(node, now) for node in (alice, bob, carol)] == [True, False, True]


def test_the_time_for_three_faults_is_ten_minutes() -> None:
    for last_ms, blocked in ((ten_minutes - 1, True), (ten_minutes, False)):
        ledger = Ledger()
        for at in (now, now, now + last_ms):
            ledger.stranger_fault(host, at)
        assert ledger.blocked(host, now + last_ms) is blocked
