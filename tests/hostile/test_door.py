"""At a daemon's door: nobody is taken for somebody else, and strangers get a bounded part of it for a short time."""

from __future__ import annotations

import resource
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from net.io.stranger import strangers_a_host_max, strangers_max
from net.io.tls import client_context
from net.proto import message as m
from net.proto.handshake import signed
from tests.cast import keys_of
from tests.daemons import eventually
from tests.hostile.rig import Enemy, Gone, Rig, loopback, tcp_to
from tests.hostile.trap import Trap
from tests.hostile.verdicts import hosts_out, id_of, nodes_out, unblamed
from tests.swarms import becomes

# -- who is there ----------------------------------------------------------------------------------------------------


def of_another_network(_enemy: Enemy, hello: m.Hello, _foe: str) -> m.Hello:
    return replace(hello, network_id=bytes(32))


def of_no_version(_enemy: Enemy, hello: m.Hello, _foe: str) -> m.Hello:
    return replace(hello, versions=(65_535,))


def of_the_node_itself(_enemy: Enemy, hello: m.Hello, _foe: str) -> m.Hello:
    return replace(hello, node_id=keys_of("ada").node_id)


def of_another_member(_enemy: Enemy, hello: m.Hello, _foe: str) -> m.Hello:
    return replace(hello, node_id=keys_of("ben").node_id)


def for_another_server(enemy: Enemy, hello: m.Hello, foe: str) -> m.Hello:
    assert hello.answer is not None
    keys, ben = keys_of(foe), keys_of("ben").node_id
    message = signed(hello.network_id, keys.node_id, ben, hello.answer.server_nonce, hello.nonce)
    return replace(hello, answer=replace(hello.answer, signature=keys.sign(message)))


def without_a_proof(_enemy: Enemy, hello: m.Hello, _foe: str) -> m.Hello:
    return replace(hello, answer=None)


def with_the_servers_nonce(_enemy: Enemy, hello: m.Hello, _foe: str) -> m.Hello:
    assert hello.answer is not None
    return replace(hello, nonce=hello.answer.server_nonce)


claims: dict[Callable[[Enemy, m.Hello, str], m.Hello], str] = {
    of_another_network: "other_network",
    of_no_version: "no_common_version",
    of_the_node_itself: "self",
    of_another_member: "bad_proof",
    for_another_server: "bad_proof",
    without_a_proof: "malformed",
    with_the_servers_nonce: "own_nonce",
}


@pytest.mark.parametrize("claim", claims, ids=lambda claim: claim.__name__)
def test_who_does_not_prove_to_be_a_member_is_not_taken_for_one(
    rig: Rig, foe: str, claim: Callable[[Enemy, m.Hello, str], m.Hello]
) -> None:
    """And nobody is blamed for what was claimed in their name."""
    with rig.unharmed():
        with rig.call("ada") as enemy:
            enemy.say(claim(enemy, enemy.answer(keys_of(foe), rig.world.network_id), foe))
            assert enemy.gone() == claims[claim]
            assert enemy.count(m.Welcome) == 0
        assert {id_of("ben"), id_of(foe)}.isdisjoint(nodes_out(rig, "ada"))
    unblamed(rig, foe)


def test_handshake_that_is_said_again_proves_nothing(rig: Rig, foe: str) -> None:
    with rig.unharmed():
        with rig.call("ada") as before:
            hello = before.answer(keys_of(foe), rig.world.network_id)
            before.say(hello)
            before.hear(m.Welcome)
        assert hello.answer is not None
        with rig.call("ada") as again:
            again.say(hello)
            assert again.gone() == "other_nonce"
        with rig.call("ada") as adapted:
            nonce = adapted.hear(m.Hello).nonce
            adapted.say(replace(hello, answer=replace(hello.answer, server_nonce=nonce)))
            assert adapted.gone() == "bad_proof"
        assert again.count(m.Welcome) == adapted.count(m.Welcome) == 0
    unblamed(rig, foe)


def test_man_in_the_middle_is_not_taken_for_the_member_that_called_him(rig: Rig, foe: str) -> None:
    """Ben is led to call the foe, who says to ben what ada says, and to ada what ben says."""
    with rig.unharmed(), rig.meet(foe, "ben") as guide:
        for as_himself in (False, True):
            before = rig.peer("ben", "ada")
            with Trap(keys_of(foe)) as trap:
                guide.say(m.Peers((trap.address,)))
                if as_himself:  # ben does not call whom he is connected to
                    guide.socket.close()
                with trap.caught() as ben, rig.call("ada") as ada:
                    hello = ada.hear(m.Hello)
                    ben.say(replace(hello, node_id=keys_of(foe).node_id) if as_himself else hello)
                    if as_himself:
                        ada.say(ben.hear(m.Hello))
                        assert ada.gone() == "bad_proof"
                    else:
                        assert ben.gone() == "other_server"
                        assert ben.count(m.Hello) == 0
                    assert ada.count(m.Welcome) == 0
            assert rig.peer("ben", "ada") == before


# -- before anybody has said who they are -----------------------------------------------------------------------------


def faulty(rig: Rig, source: str) -> None:
    """Three times, say what makes no sense before one has said who one is."""
    for _ in range(3):
        with rig.call("ada", source=source) as enemy:
            enemy.say(m.FrontierGet())
            assert enemy.gone() == "malformed"


def test_host_that_does_wrong_again_and_again_is_kept_out_and_no_other(rig: Rig, foe: str) -> None:
    with rig.unharmed():
        faulty(rig, "127.0.0.2")
        becomes(lambda: hosts_out(rig, "ada"), {"127.0.0.2"})
        with pytest.raises(Gone):
            rig.call("ada", source="127.0.0.2")
        with rig.meet(foe, "ada", source="127.0.0.3") as visitor:
            assert visitor.alive()


def test_host_that_a_member_is_connected_from_is_never_kept_out(rig: Rig, foe: str) -> None:
    member = rig.peer("ben", "ada")
    assert member is not None
    assert member["address"].startswith(f"{loopback}:")
    with rig.unharmed():
        faulty(rig, loopback)
        with rig.meet(foe, "ada") as visitor:
            assert visitor.alive()
        assert loopback not in hosts_out(rig, "ada")


def test_stranger_that_says_much_is_cut_off(rig: Rig) -> None:
    with rig.unharmed(), rig.call("ada", source="127.0.0.4") as enemy:
        with suppress(Gone):
            enemy.send(b"\x82\x04" + b"\x81" * 100_000)
        assert enemy.gone() == ""


def silent(rig: Rig, source: str) -> socket.socket:
    """A connection that says nothing at all."""
    return tcp_to(rig.address("ada"), source)


def half_a_tls_hello(rig: Rig, source: str) -> socket.socket:
    """A connection that begins TLS and goes no further."""
    tcp = tcp_to(rig.address("ada"), source)
    tcp.sendall(b"\x16\x03\x01\x02\x00\x01")
    return tcp


def half_a_request(rig: Rig, source: str) -> socket.socket:
    """TLS, and the beginning of an HTTP request."""
    tls = client_context().wrap_socket(tcp_to(rig.address("ada"), source))
    tls.sendall(b"GET /watt")
    return tls


def no_hello(rig: Rig, source: str) -> socket.socket:
    """A WebSocket, and not a word of who is there."""
    return rig.call("ada", source=source).socket


slow: tuple[Callable[[Rig, str], socket.socket], ...] = (silent, half_a_tls_hello, half_a_request, no_hello)


def over(connection: socket.socket) -> bool:
    """Whether the daemon has ended a connection."""
    connection.settimeout(0.001)
    try:
        while connection.recv(65_536):
            pass
    except TimeoutError:
        return False
    except (OSError, ssl.SSLError):
        return True
    return True


def test_slow_handshakes_take_the_places_of_their_host_and_not_for_long(rig: Rig, foe: str) -> None:
    source = "127.0.0.5"
    with rig.unharmed():
        held = [way(rig, source) for way in slow for _ in range(strangers_a_host_max // len(slow))]
        with tcp_to(rig.address("ada"), source) as one_more:
            assert over_soon(one_more)
        unblamed(rig, foe)
        for connection in held:
            assert over_soon(connection)
            connection.close()
    becomes(lambda: source in hosts_out(rig, "ada"), True)


def over_soon(connection: socket.socket) -> bool:
    """Wait for the daemon to end a connection."""
    eventually(lambda: over(connection))
    return True


def files_of(rig: Rig, name: str) -> int:
    """How many files and connections a daemon holds."""
    return len(list(Path(f"/proc/{rig.daemons[name].process.pid}/fd").iterdir()))


def test_a_thousand_connections_are_sixty_four_and_members_stay(rig: Rig, foe: str) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4_096), most))
    before = files_of(rig, "ada")
    with rig.unharmed(), ExitStack() as stack:
        with rig.meet(foe, "ada") as visitor:
            for number in range(1_000):
                with suppress(OSError):
                    stack.enter_context(tcp_to(rig.address("ada"), f"127.0.1.{1 + number % 100}"))
                if number % 50 == 0:
                    assert files_of(rig, "ada") <= before + strangers_max + 16
            assert visitor.alive()
            rig.author("ben")
            rig.level()
        becomes(lambda: let_in(rig, foe), True)


def let_in(rig: Rig, who: str) -> bool:
    """Whether a member is taken now."""
    try:
        rig.meet(who, "ada").socket.close()
    except (Gone, OSError):
        return False
    return True
