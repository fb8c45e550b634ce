"""The event: placement, bounds, kinds, and what an author and a receiver hold in common (docs/protocol.md §2, §5).

The form checks of bodies and payloads are vectors: tests/vectors/ids.json.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cast import digest_of, genesis_ms, keys_of
from tests.foreign import foreign
from tests.world import World
from wattswarm.kernel import codec, event, hlc, limits
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.payloads import course, govern, kind_names, kinds, plain, work
from wattswarm.kernel.refusal import Malformed

ada = keys_of("ada")
network_id, task = b"\x01" * 32, b"\x02" * 32


def said(payload: Any, *, about: bytes | None = task, epoch: int = 1, seq: int = 0, prev: bytes | None = None) -> Event:
    return event.author(ada, network_id, seq, prev, hlc.pack(genesis_ms, 9), Draft(payload, about, epoch))


def reason_of(call: Any, *arguments: Any, **more: Any) -> str:
    with pytest.raises(Malformed) as refusal:
        call(*arguments, **more)
    return refusal.value.reason


def test_a_receiver_holds_what_the_author_does() -> None:
    mine = said(course.TaskStopped("enough"))
    assert event.checked(mine.body, mine.signature, network_id) == mine
    assert event.parse_wire(mine.wire, network_id) == mine


def test_an_event_is_named_by_the_bytes_that_came() -> None:
    mine = said(course.TaskStopped("enough"))
    assert mine.id == codec.sha256(mine.body)
    assert event.parse(mine.body, b"\x00" * 64, network_id).id == mine.id


def test_created_at_is_the_milliseconds_of_the_clock() -> None:
    assert said(course.TaskExpired()).created_at == genesis_ms


def test_the_canonical_order_is_epoch_then_clock_then_id() -> None:
    first = said(course.TaskExpired())
    assert first.sort_key == (1, first.hlc, first.id)
    later = event.author(ada, network_id, 0, None, first.hlc + 1, Draft(course.TaskExpired(), task, 1))
    next_epoch = event.author(ada, network_id, 0, None, first.hlc - 1, Draft(course.TaskExpired(), task, 2))
    assert sorted([next_epoch, later, first], key=lambda entry: entry.sort_key) == [first, later, next_epoch]


def test_an_event_belongs_to_its_task_a_creation_to_itself_and_the_rest_to_governance() -> None:
    created = said(work.TaskCreated({}, network_id), about=None)
    assert created.stream == created.id
    assert said(course.TaskExpired()).stream == task
    approved = govern.AdvisoryApproved(network_id, "a-1", ada.node_id)
    assert said(approved, about=None, epoch=0).stream == network_id


@pytest.mark.parametrize("kind", kinds.values(), ids=list(kinds))
def test_every_kind_has_one_payload_type_that_names_it(kind: Any) -> None:
    assert kind_names[kind.payload] == kind.name
    assert kind.governs == kind.payload.__module__.endswith(".govern")


def test_no_payload_type_serves_two_kinds() -> None:
    assert len({kind.payload for kind in kinds.values()}) == len(kinds) == 30


@pytest.mark.parametrize("value", [None, b"", {}, [b""], [b"", b"", b""], ["body", b""], [b"", 1], "ab"])
def test_the_wire_of_an_event_is_a_pair_of_byte_strings(value: Any) -> None:
    assert reason_of(event.parse_wire, value, network_id) == "event_form"


def test_a_signature_that_is_not_the_authors_is_found_by_the_check_and_not_by_the_parser() -> None:
    mine = said(course.TaskStopped("enough"))
    forged = event.parse(mine.body, b"\x01" * 64, network_id)
    assert event.signature_holds(mine)
    assert not event.signature_holds(forged)
    assert reason_of(event.checked, mine.body, b"\x01" * 64, network_id) == "bad_signature"


def test_an_author_cannot_sign_what_receivers_would_call_malformed() -> None:
    assert reason_of(said, course.TaskExpired(), about=None) == "task"
    assert reason_of(said, course.TaskExpired(), epoch=0) == "epoch"
    assert reason_of(said, course.TaskExpired(), seq=1) == "prev"
    assert reason_of(said, course.TaskStopped("x" * (limits.reason_text_bytes_max + 1))) == "payload_form"
    assert reason_of(said, work.TaskCreated({"task_id": 1 << 64}, network_id), about=None) == "integer_range"


@pytest.mark.parametrize(
    ("letters", "fits"), [("x" * 65_536, True), ("x" * 65_537, False), ("é" * 32_768, True), ("é" * 32_769, False)]
)
def test_texts_are_bounded_in_bytes_of_utf8(letters: str, fits: bool) -> None:
    body = codec.decode(said(course.TaskStopped("enough")).body)
    body[9]["reason"] = letters
    arguments = (codec.encode(body), b"\x00" * 64, network_id)
    if fits:
        assert event.parse(*arguments).payload == course.TaskStopped(letters)
    else:
        assert reason_of(event.parse, *arguments) == "payload_form"


@pytest.mark.parametrize("field", [0, 8])
def test_a_text_that_names_an_event_has_no_nul(field: int) -> None:
    """``protocol_version`` and ``kind`` are columns of databases."""
    body = codec.decode(said(course.TaskStopped("enough")).body)
    assert isinstance(body[field], str)
    body[field] += "\0"
    assert reason_of(event.parse, codec.encode(body), b"\x00" * 64, network_id) == "field_text"


def test_no_event_is_about_a_task_that_goes_by_the_networks_name() -> None:
    """It would belong to the governance stream."""
    body = codec.decode(said(course.TaskStopped("enough")).body)
    assert body.count(task) == 1
    body[body.index(task)] = network_id
    assert reason_of(event.parse, codec.encode(body), b"\x00" * 64, network_id) == "task"


def large(output_chars: int) -> work.CandidateProposed:
    return work.CandidateProposed(work.Candidate("c", "e", "x" * output_chars, [], []))


def test_an_event_of_the_largest_size_is_carried_and_one_byte_more_is_not() -> None:
    overhead = len(said(large(100_000)).body) - 100_000
    room = limits.event_bytes_max - 64 - overhead
    assert len(said(large(room)).body) + 64 == limits.event_bytes_max
    assert reason_of(said, large(room + 1)) == "too_large"


def test_an_oversized_body_is_refused_before_it_is_read() -> None:
    assert reason_of(event.parse, b"\xff" * limits.event_bytes_max, b"\x00" * 64, network_id) == "too_large"


def test_an_optional_field_that_is_absent_is_left_out_and_may_come_as_null() -> None:
    error = course.TaskError("e", "OTHER", [1], "it failed")
    mine = said(error)
    assert "custom_reason_code" not in plain(error)
    body = codec.decode(mine.body)
    body[9]["custom_reason_code"] = None
    spelled = event.parse(codec.encode(body), mine.signature, network_id)
    assert spelled.payload == error
    assert spelled.id != mine.id


def test_every_event_of_a_tasks_life_survives_the_wire() -> None:
    world = World.of(4)
    for entry in world.full_chain():
        assert event.checked(entry.body, entry.signature, world.network_id) == entry


@given(st.data())
@settings(max_examples=150)
def test_a_body_with_any_byte_changed_is_malformed_or_another_event_that_its_author_did_not_sign(
    data: st.DataObject,
) -> None:
    mine = candidate_event
    changed = bytearray(mine.body)
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        other = event.parse(bytes(changed), mine.signature, mine.network_id)
    except Malformed:
        return
    assert other.id != mine.id
    assert not event.signature_holds(other)


@given(st.binary(max_size=300), st.binary(min_size=64, max_size=64))
def test_any_bytes_are_an_event_or_malformed(body: bytes, signature: bytes) -> None:
    with pytest.raises(Malformed):
        event.parse(body, signature, network_id)


story = World().task()
candidate_event = story.propose("ada", digests=[digest_of("an artifact")])


def test_a_later_version_is_read_where_it_is_known_and_its_bad_payloads_are_nobodys_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World.of(1)
    told = {"reason": "OTHER", "execution_id": "one", "reason_codes": [0], "message": "a note"}
    with pytest.raises(Malformed):
        foreign(world, "ada", "TASK_ERROR", task=task, epoch=1)
    both = (told, {"no": 1})
    written = [foreign(world, "ada", "TASK_ERROR", version="0.2.0", payload=one, task=task, epoch=1) for one in both]
    assert [one.payload for one in written] == [None, None]
    monkeypatch.setattr(limits, "LOCAL_PROTOCOL_VERSION", "0.2.0")
    monkeypatch.setattr(limits, "protocol_versions", ("0.1.0", "0.2.0"))
    read = [event.parse(one.body, one.signature, world.network_id) for one in written]
    assert isinstance(read[0].payload, course.TaskError)
    assert read[1].payload is None


def test_an_author_cannot_sign_in_a_later_version_what_that_would_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOCAL_PROTOCOL_VERSION", "0.2.0")
    monkeypatch.setattr(limits, "protocol_versions", ("0.1.0", "0.2.0"))
    assert said(course.TaskExpired()).protocol_version == "0.2.0"
    assert reason_of(said, course.TaskExpired(), about=None) == "payload_form"
