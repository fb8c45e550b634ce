"""What a node keeps of whom it found: whole, bounded, and never in its way."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from net.proto.peers import places_max
from net.proto.places import Known
from tests.net.proto.books import book, connect, minute, node, now, place
from wattswarm import discovered


def test_what_was_met_or_heard_is_there_after_a_restart_and_what_others_told_is_not(tmp_path: Path) -> None:
    made = book()
    made.learn(place(1), "configured")
    (target,) = made.dial(now)
    made.answered(target.address, node(1), now)
    made.joined(node(1), target.address, now, member=True)
    made.heard(node(2), place(2), now + 1)
    made.introduced(node(3), "10.0.0.3", [place(3)])
    made.learn(place(4), "told", node(4))
    discovered.write(tmp_path, discovered.discovered(made.known(now + minute)))
    kept = discovered.known(discovered.read(tmp_path))
    assert kept == [
        Known(node(1), place(1), "reached", now + minute),
        Known(node(2), place(2), "heard", now + 1),
        Known(node(3), place(3), "called", 0),
    ]
    again = book()
    for known in kept:
        again.remember(known)
    assert {target.node_id for target in again.dial(now + minute)} == {node(1), node(2), node(3)}
    assert {known.node_id: known.seen_ms for known in again.known(now + 2 * minute)}[node(2)] == now + 1


def test_a_place_that_is_kept_and_answers_is_as_good_as_any() -> None:
    made = book()
    made.remember(Known(node(1), place(1), "reached", now - minute))
    (target,) = made.dial(now)
    connect(made, target, now)
    assert [known.seen_ms for known in made.known(now + 5)] == [now + 5]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"peers": [{"node_id": "00", "address": "a:1", "by": "heard", "last_seen": 1}]}',
        b'{"peers": [{"node_id": "' + b"0" * 64 + b'", "address": "nowhere", "by": "heard", "last_seen": 1}]}',
        b'{"peers": [' + b" " * discovered.bytes_max + b"]}",
    ],
)
def test_a_damaged_file_is_told_of_and_forgotten(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / discovered.name).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert discovered.read(tmp_path) == []
    assert "forgotten" in caplog.text


def test_no_file_is_nothing_to_tell_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert discovered.read(tmp_path) == []
    assert caplog.text == ""


def test_the_file_is_bounded_and_who_was_seen_last_stays(tmp_path: Path) -> None:
    many = [Known(node(number), place(number), "heard", now + number) for number in range(places_max + 10)]
    discovered.write(tmp_path, discovered.discovered(many))
    kept = discovered.read(tmp_path)
    assert len(kept) == places_max
    assert min(one.last_seen for one in kept) == now + 10
