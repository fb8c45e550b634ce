"""Claims about our Negentropy and the reference implementation: they say the same, and each understands the other."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from net.proto.items import Items
from net.proto.negentropy import Initiator, Responder, Style, ours, reference
from net.proto.ranges import varint
from tests.net.interop.peer import Peer, running_peer
from tests.net.proto.sets import Pair, Session, log_of, random_pair, rounds_enough, start_s

pairs = 200
frames = (4_096, 60_000)


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with running_peer() as running:
        yield running


def cases() -> Iterator[tuple[Pair, Style, int]]:
    """Each set pair with a style and a frame limit, in turn."""
    for seed in range(pairs):
        yield random_pair(Random(seed)), (ours, reference)[seed % 2], frames[seed // 2 % 2]


def test_we_ask_and_the_reference_answers(peer: Peer) -> None:
    for pair, style, frame_bytes in cases():
        peer.takes(pair.second, frame_bytes)
        initiator = Initiator(Items(pair.first), style, frame_bytes, rounds_enough)
        session, message = Session([]), initiator.open()
        while True:
            reply = peer.hears(message).says
            assert reply is not None
            assert len(reply) <= frame_bytes
            step = initiator.answer(reply)
            session.have += step.have
            session.need += step.need
            session.complete = step.complete
            if step.reply is None:
                break
            message = step.reply
            assert len(message) <= frame_bytes
        assert session.learned(pair)


def test_the_reference_asks_and_we_answer(peer: Peer) -> None:
    for pair, style, frame_bytes in cases():
        peer.takes(pair.first, frame_bytes)
        responder = Responder(Items(pair.second), style, frame_bytes, rounds_enough)
        have, need, message = set[bytes](), set[bytes](), peer.opens()
        while True:
            reply = responder.answer(message)
            assert len(reply) <= frame_bytes
            answer = peer.hears(reply)
            have.update(answer.have)
            need.update(answer.need)
            if answer.says is None:
                break
            message = answer.says
        assert (have, need) == (pair.only_first, pair.only_second)


def test_in_its_own_style_we_say_byte_for_byte_what_the_reference_says(peer: Peer) -> None:
    for seed in range(pairs, pairs + 60):
        pair = random_pair(Random(seed))
        heard, said = [], []
        initiator, responder = Initiator(Items(pair.first), reference), Responder(Items(pair.second), reference)
        peer.takes(pair.second, 0)
        message: bytes | None = initiator.open()
        while message is not None:
            reply = responder.answer(message)
            assert peer.hears(message).says == reply
            said.append(message)
            heard.append(reply)
            message = initiator.answer(reply).reply
        peer.takes(pair.first, 0)
        assert [peer.opens(), *(peer.hears(reply).says for reply in heard)] == [*said, None]


def test_a_list_with_no_room_for_all_its_ids_is_cut_where_the_reference_cuts_it(peer: Peer) -> None:
    log = log_of(500)
    for items in (log[:120], log[:121], log[:122], log[:123], log):
        for question in (b"\x61\0\0\2\0", b"\x61" + varint(start_s + 300) + b"\0\2\0"):
            peer.takes(items, 4_096)
            assert peer.hears(question).says == Responder(Items(items), reference, 4_096).answer(question)


def test_another_version_is_answered_as_the_reference_does(peer: Peer) -> None:
    peer.takes([], 0)
    assert peer.hears(b"\x62").says == Responder(Items()).answer(b"\x62") == b"\x61"
