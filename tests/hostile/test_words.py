"""A member that says what no honest node says is cut off and kept out, and of its words nothing stays."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from wsproto.events import BytesMessage
from wsproto.events import Ping as WebSocketPing

from net.proto import frame
from net.proto import message as m
from net.proto.items import Items
from net.proto.negentropy import Initiator
from tests.cast import keys_of
from tests.hostile.rig import Enemy, Gone, Rig
from tests.hostile.verdicts import banished, unblamed, unheard
from tests.swarms import becomes
from wattswarm.kernel import codec
from wattswarm.kernel.event import signature_context
from wattswarm.kernel.limits import counter_max

uint64_max = (1 << 64) - 1


# -- frames that no honest node sends --------------------------------------------------------------------------------

Wire = tuple[bytes, bytes]


def pushed(*wires: Wire) -> bytes:
    """The frame that pushes events, whatever they are."""
    return codec.encode([m.code(m.Events), [list(wire) for wire in wires]])


def signed(foe: str, body: bytes) -> Wire:
    """An event of any body, with the foe's good signature."""
    return body, keys_of(foe).sign(signature_context + codec.sha256(body))


def event(rig: Rig, foe: str) -> Wire:
    """A good event."""
    said = rig.world.create_task(foe)
    return said.body, said.signature


def altered(rig: Rig, foe: str, place: int, value: object) -> Wire:
    """An event with another value at one place of its body, well signed."""
    fields = codec.decode(event(rig, foe)[0])
    assert isinstance(fields, list)
    fields[place] = value
    return signed(foe, codec.encode(fields))


def bad_signature(rig: Rig, foe: str) -> bytes:
    body, signature = event(rig, foe)
    return pushed((body, signature[:-1] + bytes([signature[-1] ^ 1])))


def signature_of_another(rig: Rig, foe: str) -> bytes:
    body, _ = event(rig, foe)
    return pushed(signed("ada", body)[:1] + signed("foe-0", body)[1:])


def sound_beside_unsound(rig: Rig, foe: str) -> bytes:
    body, signature = event(rig, "cy")
    return pushed((body, signature), (body + b"\0", signature))


def body_not_canonical(rig: Rig, foe: str) -> bytes:
    body, _ = event(rig, foe)
    assert body[0] == 0x8A
    return pushed(signed(foe, b"\x98\x0a" + body[1:]))


def body_with_a_tail(rig: Rig, foe: str) -> bytes:
    return pushed(signed(foe, event(rig, foe)[0] + b"\0"))


def body_of_100_000_arrays(_rig: Rig, foe: str) -> bytes:
    return pushed(signed(foe, b"\x81" * 100_000 + b"\0"))


def event_of_another_network(rig: Rig, foe: str) -> bytes:
    return pushed(altered(rig, foe, 1, bytes(32)))


def seq_of_64_bits(rig: Rig, foe: str) -> bytes:
    return pushed(altered(rig, foe, 3, uint64_max))


def epoch_of_64_bits(rig: Rig, foe: str) -> bytes:
    return pushed(altered(rig, foe, 7, uint64_max))


def certificate_of_nothing(_rig: Rig, _foe: str) -> bytes:
    return frame.encode(m.Cert((b"\x80",)))


def range_of_64_bits(_rig: Rig, foe: str) -> bytes:
    return codec.encode([m.code(m.RangeGet), keys_of(foe).node_id, 0, uint64_max])


def frame_of_100_000_arrays(_rig: Rig, _foe: str) -> bytes:
    return b"\x82" + bytes([m.code(m.Have)]) + b"\x81" * 100_000 + b"\0"


def frame_that_announces_2_to_the_64_items(_rig: Rig, _foe: str) -> bytes:
    return b"\x82" + bytes([m.code(m.Have)]) + b"\x9b" + b"\xff" * 8


def frame_without_an_end(_rig: Rig, _foe: str) -> bytes:
    return frame.encode(m.Have((bytes(32),) * 1_000))[:-1]


def frame_with_a_tail(_rig: Rig, _foe: str) -> bytes:
    return frame.encode(m.Ping(1)) + b"\0"


def frame_of_noise(_rig: Rig, _foe: str) -> bytes:
    return b"\xff" * 1_000


def empty_frame(_rig: Rig, _foe: str) -> bytes:
    return b""


def comparison_of_noise(_rig: Rig, _foe: str) -> bytes:
    return frame.encode(m.NegOpen(2, 0, b"\x61" + b"\xff" * 100))


def comparison_of_more_than_there_is(_rig: Rig, _foe: str) -> bytes:
    return frame.encode(m.NegOpen(2, 0, b"\x61\0\0\x02" + b"\xff" * 8 + b"\x7f"))


def second_handshake(rig: Rig, foe: str) -> bytes:
    hello = m.Hello((1,), rig.world.network_id, keys_of(foe).node_id, 1, bytes(32), 1, (), None)
    return frame.encode(hello)


words: tuple[Callable[[Rig, str], bytes], ...] = (
    bad_signature,
    signature_of_another,
    sound_beside_unsound,
    body_not_canonical,
    body_with_a_tail,
    body_of_100_000_arrays,
    event_of_another_network,
    seq_of_64_bits,
    epoch_of_64_bits,
    certificate_of_nothing,
    range_of_64_bits,
    frame_of_100_000_arrays,
    frame_that_announces_2_to_the_64_items,
    frame_without_an_end,
    frame_with_a_tail,
    frame_of_noise,
    empty_frame,
    comparison_of_noise,
    comparison_of_more_than_there_is,
    second_handshake,
)


@pytest.mark.parametrize("word", words, ids=lambda word: word.__name__)
def test_who_says_what_no_honest_node_says_is_cut_off_and_kept_out(
    rig: Rig, foe: str, word: Callable[[Rig, str], bytes]
) -> None:
    with rig.unharmed():
        with rig.meet(foe, "ada") as enemy:
            assert enemy.alive()
            enemy.send(word(rig, foe))
            assert enemy.gone() in ("graylisted", "malformed")
        assert rig.turned_away(foe, "ada") == "graylisted"
    unheard(rig, foe)


def test_whom_a_node_keeps_out_it_tells(rig: Rig, foe: str) -> None:
    with rig.meet(foe, "ada") as enemy:
        enemy.send(bad_signature(rig, foe))
        enemy.gone()
    banished(rig, foe)


# -- as much as there can be -----------------------------------------------------------------------------------------


def test_numbers_as_large_as_they_can_be_are_only_numbers(rig: Rig, foe: str) -> None:
    most = m.Total(counter_max, b"\xff" * 32)
    boasting = m.Standing(most, most, b"\xff" * 32, "9" * 32)
    latest = altered(rig, foe, 5, uint64_max)
    parked = {name: rig.head(name).parked for name in rig.daemons}
    with rig.unharmed(), rig.call("ada") as enemy:
        enemy.shake_hands(keys_of(foe), rig.world.network_id, boasting, boot_id=uint64_max)
        author = keys_of("ada").node_id
        enemy.say(
            m.Ping(uint64_max),
            m.Pong(uint64_max, (1 << 32) - 1),
            m.RangeGet(author, 0, counter_max),
            m.RangeGet(author, counter_max, counter_max),
            m.FrontierGet(),
            m.Frontier(((keys_of(foe).node_id, counter_max, bytes(m.prefix_bytes)),), more=False),
            m.NegOpen((1 << 32) - 2, 0, Initiator(Items([((1 << 40), b"\xff" * 32)])).open()),
            m.ProofGet(bytes(32), counter_max),
        )
        enemy.send(pushed(latest))
        enemy.send(codec.encode([uint64_max, uint64_max]))
        assert enemy.hear(m.Pong).nonce == uint64_max
        assert enemy.hear(m.Proof).bundle is None
        assert enemy.alive()
        rig.author("ada")
        enemy.hear(m.Events)
    assert rig.head("ada").parked <= parked["ada"] + 1
    assert rig.head("ben").parked == parked["ben"]
    unblamed(rig, foe)
    unheard(rig, foe)


# -- too much, and too little ----------------------------------------------------------------------------------------


def test_who_says_more_than_a_frame_holds_again_and_again_is_kept_out(rig: Rig, foe: str) -> None:
    with rig.unharmed():
        for _ in range(3):
            with rig.meet(foe, "ada") as enemy, suppress(Gone):
                enemy.send(bytes(m.frame_bytes_max + 1))
                enemy.gone()
        banished(rig, foe)
    unheard(rig, foe)


def begin(enemy: Enemy) -> None:
    """Half a megabyte of a message that goes on."""
    enemy.raw(enemy._ws.send(BytesMessage(bytes(1 << 19), message_finished=False)))


def left_in_mid_message(enemy: Enemy) -> None:
    begin(enemy)
    enemy.socket.shutdown(socket.SHUT_RDWR)


def left_in_mid_frame(enemy: Enemy) -> None:
    enemy.raw(enemy._ws.send(BytesMessage(bytes(1_000)))[:500])
    enemy.socket.shutdown(socket.SHUT_RDWR)


def reset_in_mid_message(enemy: Enemy) -> None:
    begin(enemy)
    enemy.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    enemy.socket.close()


def more_halves_than_a_frame_holds(enemy: Enemy) -> None:
    begin(enemy)
    begin(enemy)
    begin(enemy)


halves: tuple[Callable[[Enemy], None], ...] = (
    left_in_mid_message,
    left_in_mid_frame,
    reset_in_mid_message,
    more_halves_than_a_frame_holds,
)


@pytest.mark.parametrize("half", halves, ids=lambda half: half.__name__)
def test_half_a_message_costs_its_connection_and_no_more(rig: Rig, foe: str, half: Callable[[Enemy], None]) -> None:
    """A connection may break at any byte, and that is nobody's fault."""
    with rig.unharmed(), rig.meet(foe, "ada") as enemy:
        becomes(lambda: rig.peer(foe, "ada") is not None, True)
        with suppress(Gone):
            half(enemy)
        becomes(lambda: rig.peer(foe, "ada"), None)
    unblamed(rig, foe)


nothings = {
    "fragments": BytesMessage(b"", message_finished=False),
    "pings": WebSocketPing(),
    "messages of no known type": BytesMessage(b"\x81\x18\xff"),
}


@pytest.mark.parametrize("kind", nothings)
def test_frames_of_nothing_without_end_hold_up_nobody(rig: Rig, foe: str, kind: str) -> None:
    with rig.unharmed(), rig.meet(foe, "ada") as enemy:
        frames = enemy._ws.send(nothings[kind]) * 100_000
        enemy.socket.settimeout(0.5)
        with suppress(OSError):  # the daemon takes no more for now, or has ended the connection
            enemy.socket.sendall(frames)
        for name in rig.daemons:
            began = time.monotonic()
            rig.author(name)
            rig.level()
            assert time.monotonic() - began < 5
    unblamed(rig, foe)


# -- who is no member ------------------------------------------------------------------------------------------------


def test_observer_is_served_and_nothing_it_says_is_taken(rig: Rig, foe: str) -> None:
    rig.author("ada")
    parked = rig.head("ada").parked
    with rig.unharmed():
        with rig.meet("a stranger", "ada") as enemy:
            enemy.tell(rig.world.create_task(foe), rig.world.create_task("a stranger"))
            enemy.send(bad_signature(rig, "a stranger"))
            enemy.say(m.Have((bytes(32),)), m.Cert((b"\x80",)), m.CertIds((bytes(32),)))
            enemy.say(m.FrontierGet())
            assert enemy.hear(m.Frontier).entries
            assert enemy.alive()
            assert enemy.count(m.Want) == enemy.count(m.CertGet) == 0
        unblamed(rig, "a stranger")
    unheard(rig, "a stranger", foe)
    assert rig.head("ada").parked == parked


def test_observers_are_so_many_and_no_more_and_take_no_members_place(rig: Rig, foe: str) -> None:
    with rig.unharmed():
        observers = [rig.meet(f"stranger-{number}", "ada") for number in range(8)]
        assert rig.turned_away("stranger-8", "ada") == "not_a_member"
        unblamed(rig, foe)
        for one in observers:
            one.socket.close()
