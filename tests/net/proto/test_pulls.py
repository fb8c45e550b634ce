"""Pulling: what peers have and this node lacks is asked for, once, in order, and bounded."""

from __future__ import annotations

from net.proto import pulls
from net.proto.message import prefix_bytes
from net.proto.pulls import Pulls, Wanted
from net.proto.rhythm import never_ms
from wattswarm.kernel.limits import backfill_batch_events

ada, ben = b"\xaa" * 32, b"\xbb" * 32
tip, other = b"\x01" * 32, b"\x02" * 32  # ids; a frontier has the first bytes of them
batch = backfill_batch_events


def test_what_is_missing_is_asked_for_in_ranges_from_the_first_gap_on() -> None:
    chains = {ada: (9, tip)}
    node = Pulls(chains)
    node.joined(1)
    node.told(1, [(ada, 9 + 2 * batch, other[:prefix_bytes])])
    assert node.next(1, 0) == [Wanted(ada, 10, 9 + batch)]
    assert node.next(1, 0) == []
    node.brought(1, ada, batch, more=False)
    chains[ada] = (9 + batch, tip)
    node.came(1, ada)
    assert node.next(1, 0) == [Wanted(ada, 10 + batch, 9 + 2 * batch)]
    node.brought(1, ada, batch, more=False)
    chains[ada] = (9 + 2 * batch, other)
    node.came(1, ada)
    assert node.next(1, 0) == []
    assert node.idle(1)


def test_an_author_is_asked_of_one_peer_at_a_time() -> None:
    node = Pulls({})
    for link in (1, 2):
        node.joined(link)
        node.told(link, [(ada, 5, tip[:prefix_bytes])])
    assert node.next(1, 0) == [Wanted(ada, 0, 5)]
    assert node.next(2, 0) == []
    node.left(1)
    assert node.next(2, 0) == [Wanted(ada, 0, 5)]


def test_a_peer_is_asked_for_four_ranges_at_a_time() -> None:
    node = Pulls({})
    node.joined(1)
    authors = [bytes([number]) * 32 for number in range(6)]
    node.told(1, [(author, 0, tip[:prefix_bytes]) for author in authors])
    assert [wanted.author for wanted in node.next(1, 0)] == authors[:4]
    node.brought(1, authors[0], 1, more=False)
    node.failed(1, authors[1])
    assert [wanted.author for wanted in node.next(1, 0)] == authors[4:]


def test_the_next_range_is_asked_for_while_what_came_is_stored() -> None:
    chains: dict[bytes, tuple[int, bytes]] = {}
    node = Pulls(chains)
    node.joined(1)
    node.told(1, [(ada, 3 * batch - 1, tip)])
    assert node.next(1, 0) == [Wanted(ada, 0, batch - 1)]
    node.brought(1, ada, 100, more=True)
    assert node.next(1, 0) == []
    assert node.under_way(1, ada) == Wanted(ada, 0, batch - 1)
    node.brought(1, ada, batch - 100, more=False)
    assert node.under_way(1, ada) is None
    assert node.next_ms() == never_ms, "what is being stored is not late"
    assert node.next(1, 0) == [Wanted(ada, batch, 2 * batch - 1)]
    node.brought(1, ada, batch, more=False)
    chains[ada] = (batch - 1, tip)
    node.came(1, ada)
    assert node.next(1, 0) == [Wanted(ada, 2 * batch, 3 * batch - 1)]
    node.brought(1, ada, batch, more=False)
    chains[ada] = (3 * batch - 1, tip)
    node.came(1, ada)
    assert not node.idle(1)
    node.came(1, ada)
    assert node.next(1, 0) == []
    assert node.idle(1)


def test_after_less_than_was_asked_for_the_next_waits_for_what_is_stored() -> None:
    chains: dict[bytes, tuple[int, bytes]] = {}
    node = Pulls(chains)
    node.joined(1)
    node.told(1, [(ada, 9, tip)])
    assert node.next(1, 0) == [Wanted(ada, 0, 9)]
    node.brought(1, ada, 4, more=False)
    assert node.next(1, 0) == []
    chains[ada] = (3, other)
    node.came(1, ada)
    assert node.next(1, 0) == [Wanted(ada, 4, 9)]


def test_a_chain_that_is_being_stored_is_asked_of_nobody_else() -> None:
    node = Pulls({})
    for link in (1, 2):
        node.joined(link)
        node.told(link, [(ada, 9, tip)])
    node.next(1, 0)
    node.brought(1, ada, 10, more=False)
    assert node.next(2, 0) == []
    node.failed(1, ada)
    assert node.next(2, 0) == [Wanted(ada, 0, 9)]


def test_ranges_are_shares_of_what_is_missing() -> None:
    node = Pulls({})
    node.joined(1)
    node.told(1, [(ada, 19_999, tip), (ben, 59_999, tip), (b"\xcc" * 32, 919_999, tip)])
    sizes = {wanted.author[0]: wanted.last + 1 for wanted in node.next(1, 0)}
    assert sizes == {0xAA: pulls.round_events * 2 // 100, 0xBB: pulls.round_events * 6 // 100, 0xCC: batch}


def test_nothing_is_asked_of_a_peer_that_is_behind_or_level() -> None:
    node = Pulls({ada: (5, tip), ben: (5, tip)})
    node.joined(1)
    node.told(1, [(ada, 3, other[:prefix_bytes]), (ben, 5, tip[:prefix_bytes])])
    assert node.next(1, 0) == []
    assert node.idle(1)


def test_another_event_at_the_same_place_is_nothing_that_ranges_mend() -> None:
    node = Pulls({ada: (5, tip)})
    node.joined(1)
    node.told(1, [(ada, 5, other[:prefix_bytes])])
    assert node.idle(1)


def test_a_peer_that_does_not_have_what_it_said_is_not_asked_again() -> None:
    node = Pulls({})
    for link in (1, 2):
        node.joined(link)
        node.told(link, [(ada, 1 << 62, tip[:prefix_bytes])])
    node.next(1, 0)
    node.failed(1, ada)
    assert node.next(1, 0) == []
    assert node.next(2, 0) == [Wanted(ada, 0, batch - 1)]


def test_a_range_that_does_not_come_is_late() -> None:
    node = Pulls({})
    node.joined(1)
    node.told(1, [(ada, 5, tip[:prefix_bytes])])
    node.next(1, 100)
    assert node.next_ms() == 100 + pulls.range_patience_ms
    assert node.late(99 + pulls.range_patience_ms) == []
    assert node.late(100 + pulls.range_patience_ms) == [(1, ada)]
    node.failed(1, ada)
    assert node.next_ms() == never_ms


def test_a_gap_is_asked_of_who_showed_it() -> None:
    node = Pulls({ada: (2, tip)})
    node.joined(1)
    node.missing(1, ada, 6)
    assert node.next(1, 0) == [Wanted(ada, 3, 6)]
    assert node.under_way(1, ada) == Wanted(ada, 3, 6)
    assert node.under_way(1, ben) is None
    assert node.under_way(9, ada) is None


def test_what_gossip_brought_meanwhile_is_not_asked_for() -> None:
    chains = {ada: (2, tip)}
    node = Pulls(chains)
    node.joined(1)
    node.told(1, [(ada, 4, other[:prefix_bytes])])
    chains[ada] = (4, other)
    assert node.next(1, 0) == []
    assert node.idle(1)


def test_a_frontier_without_end_is_bounded() -> None:
    node = Pulls({})
    node.joined(1)
    node.told(
        1, [(number.to_bytes(32, "big"), 0, tip[:prefix_bytes]) for number in range(pulls.authors_waiting_max + 5)]
    )
    asked = 0
    while found := node.next(1, 0):
        for wanted in found:
            node.failed(1, wanted.author)
        asked += len(found)
    assert asked == pulls.authors_waiting_max
