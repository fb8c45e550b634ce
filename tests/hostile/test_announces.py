"""Datagrams of anybody on the local network: whom a daemon dials for them, and whom it does not."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from net.proto import message as m
from net.proto.announce import Announcement, kind, multicast_host, per_source, write
from tests.cast import keys_of
from tests.daemons import clean_environment, contract, states, submit
from tests.hostile.rig import Gone, Rig, attacked
from tests.hostile.trap import Trap
from tests.hostile.verdicts import cast, foes, honest, id_of
from tests.swarms import becomes, free_udp_port, meshed, node_id_of, open_swarm, peers_of
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.limits import counter_max
from wattswarm.node import now_ms

fresh = foes()
uint64_max = (1 << 64) - 1


class Lan:
    """The group that daemons announce themselves to, as anybody on it."""

    def __init__(self, port: int) -> None:
        self.port = port

    def shout(self, source: str, *datagrams: bytes) -> None:
        """Send datagrams from an address of this host."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as calls:
            calls.bind((source, 0))
            calls.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(source))
            for datagram in datagrams:
                calls.sendto(datagram, (multicast_host, self.port))


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    port = free_udp_port()
    clean_environment["WATTSWARM_UDP_ANNOUNCE_PORT"] = str(port)
    yield Lan(port)
    del clean_environment["WATTSWARM_UDP_ANNOUNCE_PORT"]


@pytest.fixture(scope="module")
def rig(lan: Lan) -> Iterator[Rig]:
    """Two daemons that find each other by multicast alone."""
    with attacked(cast, flags=("--no-autopilot", "--udp")) as made:
        yield made


@pytest.fixture
def foe() -> str:
    return next(fresh)


def announced(
    rig: Rig, who: str, port: int, *, keys: Keypair | None = None, boot: int = 1, counter: int = 1, ago_ms: int = 0
) -> bytes:
    """The datagram of ``who``, signed by it or with other keys."""
    said = Announcement(kind, rig.world.network_id, keys_of(who).node_id, port, boot, counter, now_ms() - ago_ms)
    return write(keys or keys_of(who), said)


def settled(rig: Rig, lan: Lan, source: str) -> None:
    """Return when the daemons have dealt with what was shouted before: a later datagram led them to call."""
    who = next(fresh)
    with Trap(keys_of(who), source) as trap:
        time.sleep(per_source.burst * per_source.per_ms / per_source.amount / 1000)  # until the source may speak again
        lan.shout(source, announced(rig, who, trap.port))
        becomes(lambda: trap.look() >= 1, True)


def test_member_that_announces_itself_is_called(rig: Rig, lan: Lan, foe: str) -> None:
    with rig.unharmed(), Trap(keys_of(foe), "127.0.0.2") as trap:
        lan.shout("127.0.0.2", announced(rig, foe, trap.port))
        becomes(lambda: trap.look() >= 2, True)  # ada and ben
        with trap.caught() as ada:
            ada.say(m.Hello((1,), rig.world.network_id, keys_of(foe).node_id, 1, bytes(32), now_ms(), (), None))
            assert ada.hear(m.Hello).node_id.hex() in {id_of(name) for name in honest}


def test_nobody_is_called_for_an_announcement_that_is_spoofed(rig: Rig, lan: Lan, foe: str) -> None:
    source = "127.0.0.3"
    with rig.unharmed(), Trap(keys_of(foe), source) as trap:
        true = announced(rig, foe, trap.port)
        lan.shout(
            source,
            announced(rig, foe, trap.port, keys=keys_of("a stranger")),
            announced(rig, "a stranger", trap.port),
            announced(rig, foe, trap.port, ago_ms=31_000),
            true[:-1] + bytes([true[-1] ^ 1]),
        )
        settled(rig, lan, source)
        assert trap.look() == 0


def test_announcement_that_is_heard_again_from_elsewhere_leads_nowhere(rig: Rig, lan: Lan, foe: str) -> None:
    with rig.unharmed(), Trap(keys_of(foe), "127.0.0.4") as trap, Trap(keys_of(foe), "127.0.0.5", trap.port) as fake:
        said = announced(rig, foe, trap.port, boot=7, counter=7)
        lan.shout("127.0.0.4", said)
        becomes(lambda: trap.look() >= 2, True)
        trap.hang_up()
        lan.shout(
            "127.0.0.5",
            said,
            announced(rig, foe, fake.port, boot=7, counter=6),
            announced(rig, foe, fake.port, boot=6, counter=counter_max),
        )
        settled(rig, lan, "127.0.0.5")
        assert fake.look() == 0


def test_announcement_of_a_member_from_elsewhere_brings_a_call_that_ends_at_the_certificate(
    rig: Rig, lan: Lan, foe: str
) -> None:
    """A datagram that was caught before it was heard leads to whoever caught it, and TLS shows that it is another."""
    with rig.unharmed(), Trap(keys_of("a stranger"), "127.0.0.6") as trap:
        lan.shout("127.0.0.6", announced(rig, foe, trap.port))
        with pytest.raises(Gone), trap.caught():
            pass
        assert rig.peer(foe, "ada") is None
        assert rig.peer("a stranger", "ada") is None


def test_thousand_announcements_a_second_from_one_host_silence_no_other(rig: Rig, lan: Lan, foe: str) -> None:
    source, crowd = "127.0.0.7", [f"foe-{number}" for number in range(30, 40)]
    with rig.unharmed(), Trap(keys_of("a stranger"), source) as trap, Trap(keys_of(foe), "127.0.0.8") as true:
        flood = [announced(rig, who, trap.port, boot=uint64_max, counter=n) for who in crowd for n in range(100)]
        flood += [b"\xff" * 512] * 100 + [b"\xff" * 60_000]
        began = time.monotonic()
        for number in range(2_000):
            lan.shout(source, flood[number % len(flood)])
            if number % 500 == 0:
                lan.shout("127.0.0.8", announced(rig, foe, true.port, counter=number))
            time.sleep(max(0, began + number / 1_000 - time.monotonic()))
        becomes(lambda: true.look() >= 2, True)
        said_s = time.monotonic() - began
        assert trap.look() <= len(rig.daemons) * (per_source.burst + per_source.amount * (1 + said_s))


def test_two_networks_on_one_local_network_are_two_swarms(rig: Rig) -> None:
    """Found by multicast alone, on one port and group."""
    ours = [rig.places[name] for name in honest]
    with open_swarm(2, udp=True, executors=False, flags=("--no-autopilot",)) as other:
        for places, label in ((ours, "ours"), (other.places, "theirs")):
            meshed(places)
            submit(places[0], contract(label))
        for places, (here, not_here) in ((ours, ("ours", "theirs")), (other.places, ("theirs", "ours"))):
            for where in places:
                becomes(partial(knows, where, here), True)
                assert not knows(where, not_here)
            first, second = places
            assert peers_of(first) == {node_id_of(second)}
            assert peers_of(second) == {node_id_of(first)}


def knows(where: Path, label: str) -> bool:
    """Whether a node has a task that a user calls so."""
    return label in states(where)
