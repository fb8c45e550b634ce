"""A handshake proves both ends to each other, and what is said in one is of no use in another (docs/network.md §3)."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec
import pytest

from net.proto import frame
from net.proto.handshake import ClientHandshake, Door, Line, Me, ServerHandshake, Taken, keep, signed
from net.proto.message import ClientProof, Hello, Standing, Total, Welcome
from tests.net.proto.said import standing
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.refusal import Malformed, Refused

network = b"n" * 32
alice, bob, carol, mallory = (Keypair(bytes([number]) * 32) for number in range(1, 5))
now = 1_700_000_000_000
others_standing = Standing(Total(3, b"s" * 32), Total(1, b"c" * 32), b"r" * 32, "0.1.0")


def me(keys: Keypair, boot_id: int = 1) -> Me:
    return Me(keys, network, boot_id, (f"192.0.2.{boot_id}:4000",))


def door(*members: Keypair, graylisted: tuple[Keypair, ...] = (), observers: int = 0) -> Door:
    ids = {keys.node_id for keys in members}
    gray = {keys.node_id for keys in graylisted}
    return Door(ids.__contains__, gray.__contains__, lambda: observers)


everybody = door(alice, bob, carol)


def server(keys: Keypair = bob, at: Door = everybody, seed: int = 1) -> ServerHandshake:
    return ServerHandshake(me(keys, 2), at, random.Random(seed))


def client(keys: Keypair = alice, at: Door = everybody, calls: Keypair = bob, seed: int = 2) -> ClientHandshake:
    return ClientHandshake(me(keys, 1), at, random.Random(seed), calls.node_id)


def travelled(message: Hello | Welcome) -> Hello | Welcome:
    got = frame.decode(frame.encode(message))
    assert isinstance(got, Hello | Welcome)
    return got


def meet(server_side: ServerHandshake, client_side: ClientHandshake) -> tuple[Taken, Taken]:
    """What the server and the client end with, everything said as frames."""
    hello = travelled(server_side.hello(now))
    assert isinstance(hello, Hello)
    answer = travelled(client_side.on_hello(hello, others_standing, now + 5))
    assert isinstance(answer, Hello)
    taken, welcome = server_side.on_hello(answer, standing, now + 20)
    welcome_got = travelled(welcome)
    assert isinstance(welcome_got, Welcome)
    return taken, client_side.on_welcome(welcome_got)


def answer_to(server_side: ServerHandshake, client_side: ClientHandshake | None = None) -> Hello:
    return (client_side or client()).on_hello(server_side.hello(now), others_standing, now)


def refusal_of(server_side: ServerHandshake, hello: Hello) -> str:
    with pytest.raises(Refused) as refusal:
        server_side.on_hello(hello, standing, now)
    return refusal.value.reason


# -- taken ---------------------------------------------------------------------------------------------------------


def test_two_members_take_each_other_and_tell_what_they_hold() -> None:
    by_server, by_client = meet(server(), client())
    assert by_server == Taken(alice.node_id, 1, 1, ("192.0.2.1:4000",), others_standing, True, -15)
    assert by_client == Taken(bob.node_id, 2, 1, ("192.0.2.2:4000",), standing, True, -5)


def test_the_highest_common_version_is_spoken() -> None:
    old = ServerHandshake(replace(me(bob, 2), versions=(1, 2, 7)), everybody, random.Random(1))
    new = ClientHandshake(replace(me(alice), versions=(9, 2, 1)), everybody, random.Random(2), bob.node_id)
    assert {taken.version for taken in meet(old, new)} == {2}


def test_a_clock_that_is_ahead_shows() -> None:
    host = server()
    hello = msgspec.structs.replace(answer_to(host), time_ms=now + 90_000)
    assert host.on_hello(hello, standing, now)[0].ahead_ms == 90_000


def test_an_observer_is_taken_where_there_is_room_and_told_that_it_is_one() -> None:
    welcoming = door(bob, observers=1)
    by_server, by_client = meet(server(at=welcoming), client(keys=mallory))
    assert (by_server.member, by_server.observer) == (False, False)
    assert by_client.observer


def test_a_member_is_no_observer_and_needs_no_room() -> None:
    by_server, by_client = meet(server(at=door(alice, observers=0)), client())
    assert by_server.member
    assert not by_client.observer


def test_a_node_that_knows_no_member_yet_may_still_call_one() -> None:
    _, by_client = meet(server(), client(at=door()))
    assert not by_client.member


# -- refused by the server -----------------------------------------------------------------------------------------


def test_an_observer_is_refused_where_there_is_no_room() -> None:
    host = server(at=door(bob, observers=0))
    assert refusal_of(host, answer_to(host, client(keys=mallory))) == "not_a_member"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"network_id": b"m" * 32}, "other_network"),
        ({"versions": (2, 3)}, "no_common_version"),
        ({"node_id": bob.node_id}, "self"),
        ({"node_id": carol.node_id}, "bad_proof"),
        ({"nonce": b"x" * 32}, "bad_proof"),
        ({"answer": None}, "no_proof"),
    ],
)
def test_a_hello_that_says_something_else_is_refused(change: dict[str, object], reason: str) -> None:
    host = server()
    assert refusal_of(host, msgspec.structs.replace(answer_to(host), **change)) == reason


def test_who_is_graylisted_is_refused_before_anything_is_verified() -> None:
    host = server(at=door(alice, graylisted=(alice,)))
    unsigned = answer_to(host)
    assert unsigned.answer is not None
    broken = msgspec.structs.replace(unsigned.answer, signature=bytes(64))
    assert refusal_of(host, msgspec.structs.replace(unsigned, answer=broken)) == "graylisted"


def test_an_answer_replayed_to_the_same_server_is_refused() -> None:
    first = server(seed=1)
    heard = answer_to(first)
    first.on_hello(heard, standing, now)
    later = server(seed=3)
    assert refusal_of(later, heard) == "other_nonce"
    assert heard.answer is not None
    patched = msgspec.structs.replace(heard.answer, server_nonce=later.hello(now).nonce)
    assert refusal_of(server(seed=3), msgspec.structs.replace(heard, answer=patched)) == "bad_proof"


def test_a_handshake_takes_one_answer_only() -> None:
    host = server()
    heard = answer_to(host)
    host.on_hello(heard, standing, now)
    assert refusal_of(host, heard) == "handshake_order"


def test_a_handshake_is_over_after_a_refusal() -> None:
    host = server()
    heard = answer_to(host)
    assert refusal_of(host, msgspec.structs.replace(heard, network_id=b"m" * 32)) == "other_network"
    assert refusal_of(host, heard) == "handshake_order"


def test_an_answer_relayed_to_another_server_is_refused() -> None:
    """Mallory, called by Alice, calls Bob with what Alice says."""
    host = server()
    relayed = msgspec.structs.replace(host.hello(now), node_id=mallory.node_id)
    heard = client(calls=mallory).on_hello(relayed, others_standing, now)
    assert refusal_of(host, heard) == "bad_proof"


def test_a_signature_with_another_key_is_refused() -> None:
    host = server()
    heard = answer_to(host)
    forged = mallory.sign(signed(network, alice.node_id, bob.node_id, host.hello(now).nonce, heard.nonce))
    assert heard.answer is not None
    proof = msgspec.structs.replace(heard.answer, signature=forged)
    assert refusal_of(host, msgspec.structs.replace(heard, answer=proof)) == "bad_proof"


def test_a_signature_for_another_network_is_refused() -> None:
    host = server()
    heard = answer_to(host)
    nonce = host.hello(now).nonce
    elsewhere = alice.sign(signed(b"m" * 32, alice.node_id, bob.node_id, nonce, heard.nonce))
    proof = ClientProof(nonce, elsewhere, standing)
    assert refusal_of(host, msgspec.structs.replace(heard, answer=proof)) == "bad_proof"


def test_a_servers_nonce_is_not_taken_back_as_the_clients() -> None:
    host = server()
    nonce = host.hello(now).nonce
    signature = alice.sign(signed(network, alice.node_id, bob.node_id, nonce, nonce))
    reflected = msgspec.structs.replace(answer_to(host), nonce=nonce, answer=ClientProof(nonce, signature, standing))
    assert refusal_of(host, reflected) == "own_nonce"


def test_every_handshake_has_a_nonce_of_its_own() -> None:
    source = random.Random(5)
    nonces = {ServerHandshake(me(bob), everybody, source).hello(now).nonce for _ in range(100)}
    assert len(nonces) == 100


# -- refused by the client -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"network_id": b"m" * 32}, "other_network"),
        ({"versions": (2, 3)}, "no_common_version"),
        ({"node_id": alice.node_id}, "self"),
        ({"node_id": carol.node_id}, "other_server"),
        ({"answer": ClientProof(b"x" * 32, b"y" * 64, standing)}, "handshake_order"),
    ],
)
def test_a_server_that_says_something_else_gets_no_proof(change: dict[str, object], reason: str) -> None:
    with pytest.raises(Refused) as refusal:
        client().on_hello(msgspec.structs.replace(server().hello(now), **change), standing, now)
    assert refusal.value.reason == reason


def test_a_graylisted_server_gets_no_proof() -> None:
    with pytest.raises(Refused) as refusal:
        client(at=door(bob, graylisted=(bob,))).on_hello(server().hello(now), standing, now)
    assert refusal.value.reason == "graylisted"


def test_a_client_that_meets_its_own_nonce_says_no() -> None:
    with pytest.raises(Refused) as refusal:
        client(seed=1).on_hello(server(seed=1).hello(now), standing, now)
    assert refusal.value.reason == "own_nonce"


def test_a_client_answers_once_and_is_welcomed_once_and_after_that() -> None:
    caller = client()
    with pytest.raises(Malformed):
        caller.on_welcome(Welcome(standing, False))
    caller.on_hello(server().hello(now), standing, now)
    with pytest.raises(Malformed):
        caller.on_hello(server().hello(now), standing, now)
    caller.on_welcome(Welcome(standing, False))
    with pytest.raises(Malformed):
        caller.on_welcome(Welcome(standing, False))


# -- two connections to one node -----------------------------------------------------------------------------------

small, great = sorted((alice.node_id, bob.node_id))


def test_of_two_dials_that_crossed_both_ends_keep_the_smaller_ids() -> None:
    mine, theirs = Line(5, small), Line(5, great)
    assert keep(mine, theirs) == keep(theirs, mine) == mine


def test_the_connection_of_the_newer_boot_stays_whoever_dialled_it() -> None:
    old, new = Line(5, small), Line(6, great)
    assert keep(old, new) == keep(new, old) == new


def test_who_dials_again_has_lost_the_first_connection() -> None:
    held, new = Line(5, small), Line(5, small)
    assert keep(held, new) is new
