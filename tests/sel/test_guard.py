"""The author guard: what a crash, a copy and a restored database each make of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from sel.guard import AuthorGuard, file_name
from wattswarm.kernel import event, hlc, identity
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.payloads.course import TaskExpired
from wattswarm.kernel.refusal import Refused

keys = identity.Keypair(b"\x07" * 32)
network = b"\x01" * 32


def chain_of(length: int) -> list[Event]:
    events: list[Event] = []
    for seq in range(length):
        prev = events[-1].id if events else None
        draft = Draft(TaskExpired(), task=b"\x02" * 32, epoch=1)
        events.append(event.author(keys, network, seq, prev, hlc.pack(1_790_000_000_000) + seq, draft))
    return events


@pytest.fixture
def guard(tmp_path: Path) -> AuthorGuard:
    made = AuthorGuard(tmp_path)
    made.create()
    return made


def wires(events: list[Event]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((e.body, e.signature) for e in events)


def test_a_new_guard_agrees_with_an_empty_database(guard: AuthorGuard) -> None:
    assert guard.confirm(-1, None) == ()


def test_a_database_at_the_end_of_the_sealed_batch_goes_on(guard: AuthorGuard) -> None:
    events = chain_of(3)
    guard.confirm(-1, None)
    guard.seal(-1, None, events)
    assert guard.confirm(2, events[2].id) == ()


def test_a_database_at_the_base_gets_the_sealed_bytes_back(guard: AuthorGuard, tmp_path: Path) -> None:
    events = chain_of(3)
    guard.confirm(-1, None)
    guard.seal(-1, None, events[:1])
    guard.confirm(0, events[0].id)
    guard.seal(0, events[0].id, events[1:])
    guard.close()
    assert tuple(AuthorGuard(tmp_path).confirm(0, events[0].id)) == wires(events[1:])


@pytest.mark.parametrize(
    ("seq", "relation"),
    [(-1, "is behind"), (1, "does not match"), (5, "is ahead of")],
    ids=["behind", "inside", "ahead"],
)
def test_any_other_database_is_refused_with_the_way_out(guard: AuthorGuard, seq: int, relation: str) -> None:
    events = chain_of(6)
    guard.confirm(-1, None)
    guard.seal(-1, None, events[:1])
    guard.confirm(0, events[0].id)
    guard.seal(0, events[0].id, events[1:4])
    with pytest.raises(Refused, match=relation) as refusal:
        guard.confirm(seq, events[seq].id if seq >= 0 else None)
    assert refusal.value.reason == "guard_mismatch"
    assert "node recover" in str(refusal.value)


def test_a_copied_guard_is_refused(guard: AuthorGuard, tmp_path: Path) -> None:
    elsewhere = tmp_path / "copy"
    elsewhere.mkdir()
    shutil.copy2(tmp_path / file_name, elsewhere / file_name)
    with pytest.raises(Refused) as refusal:
        AuthorGuard(elsewhere).confirm(-1, None)
    assert refusal.value.reason == "guard_copied"


def test_a_missing_guard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refusal:
        AuthorGuard(tmp_path).confirm(-1, None)
    assert refusal.value.reason == "guard_missing"


def test_a_write_that_a_crash_cut_leaves_the_slot_before_it(guard: AuthorGuard, tmp_path: Path) -> None:
    events = chain_of(2)
    guard.confirm(-1, None)
    guard.seal(-1, None, events[:1])
    guard.confirm(0, events[0].id)
    guard.seal(0, events[0].id, events[1:])
    size = os.path.getsize(tmp_path / file_name)
    with open(tmp_path / file_name, "r+b") as file:
        file.seek(size - 1)
        torn = file.read(1)
        file.seek(size - 1)
        file.write(bytes([torn[0] ^ 1]))
    assert AuthorGuard(tmp_path).confirm(0, events[0].id) == ()


def test_a_guard_with_no_whole_slot_is_refused(guard: AuthorGuard, tmp_path: Path) -> None:
    (tmp_path / file_name).write_bytes(b"\0" * 64)
    with pytest.raises(Refused) as refusal:
        AuthorGuard(tmp_path).confirm(-1, None)
    assert refusal.value.reason == "guard_damaged"


def test_one_turn_at_a_time(guard: AuthorGuard, tmp_path: Path) -> None:
    other = AuthorGuard(tmp_path)
    with guard.turn():
        assert not other.try_turn()
    assert other.try_turn()
    other.end_turn()


def test_who_has_an_old_file_open_takes_turns_on_the_one_that_took_its_place(
    guard: AuthorGuard, tmp_path: Path
) -> None:
    other = AuthorGuard(tmp_path)
    with other.turn():
        assert other.confirm(-1, None) == ()
    events = chain_of(3)
    guard.create(2, events[2].id)
    with other.turn():
        assert other.confirm(2, events[2].id) == ()
        assert not guard.try_turn()
