"""An announcement is a hint: what is wrong with it drops it, and no flood of them costs much (docs/network.md §2)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from net.proto import announce
from net.proto.announce import Announcement, Announcer, Ear, Heard, kind, signature_context, write
from wattswarm.kernel import codec
from wattswarm.kernel.identity import Keypair

network = b"n" * 32
me, alice, bob, mallory = (Keypair(bytes([number]) * 32) for number in range(1, 5))
now = 1_700_000_000_000
host = "192.0.2.1"
u64_max = (1 << 64) - 1


def ear(*wanted: Keypair) -> Ear:
    ids = {keys.node_id for keys in wanted or (me, alice, bob)}
    return Ear(network, me.node_id, ids.__contains__, now)


def said(keys: Keypair = alice, counter: int = 1, **changes: Any) -> Announcement:
    plain = Announcement(kind, network, keys.node_id, 4_000, 10, counter, now)
    return msgspec.structs.replace(plain, **changes)


def datagram(keys: Keypair = alice, counter: int = 1, **changes: Any) -> bytes:
    return write(keys, said(keys, counter, **changes))


# -- kept ----------------------------------------------------------------------------------------------------------


def test_a_wanted_node_that_is_heard_may_be_dialled_where_its_datagram_came_from() -> None:
    listening = ear()
    assert listening.hear(host, datagram(), now) == Heard(alice.node_id, "192.0.2.1:4000", True)
    assert list(listening.here(now)) == [(alice.node_id, "192.0.2.1:4000")]


def test_ipv6_sources_are_dialled_in_brackets() -> None:
    assert ear().hear("2001:db8::1", datagram(), now) == Heard(alice.node_id, "[2001:db8::1]:4000", True)


def test_only_a_node_that_was_silent_moved_or_restarted_is_new() -> None:
    listening = ear()
    news = [
        listening.hear(host, datagram(counter=1), now),
        listening.hear(host, datagram(counter=2), now),
        listening.hear("192.0.2.2", datagram(counter=3), now + 10_000),
        listening.hear("192.0.2.2", datagram(counter=1, boot_id=11), now + 15_000),
        listening.hear("192.0.2.2", datagram(counter=2, boot_id=11, time_ms=now + 45_000), now + 45_000),
        listening.hear("192.0.2.2", datagram(counter=3, boot_id=11, time_ms=now + 75_001), now + 75_001),
    ]
    assert [one.new for one in news if isinstance(one, Heard)] == [True, False, True, True, False, True]


def test_an_entry_ends_after_thirty_seconds_of_silence() -> None:
    listening = ear()
    listening.hear(host, datagram(), now)
    assert len(list(listening.here(now + 30_000))) == 1
    assert list(listening.here(now + 30_001)) == []
    listening.hear(host, datagram(bob, time_ms=now + 31_000), now + 31_000)
    assert len(listening) == 1, "what ended is forgotten"


@pytest.mark.parametrize("off_ms", [-30_000, 30_000])
def test_a_clock_thirty_seconds_off_is_still_heard(off_ms: int) -> None:
    assert isinstance(ear().hear(host, datagram(time_ms=now + off_ms), now), Heard)


# -- dropped -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off_ms", [-30_001, 30_001, -now, (1 << 48) - 1 - now])
def test_a_clock_further_off_is_dropped(off_ms: int) -> None:
    assert ear().hear(host, datagram(time_ms=now + off_ms), now) == "time"


def test_another_network_is_dropped() -> None:
    assert ear().hear(host, datagram(network_id=b"m" * 32), now) == "other_network"


def test_a_nodes_own_announcements_are_dropped() -> None:
    assert ear().hear(host, datagram(me), now) == "own"


def test_a_stranger_is_dropped() -> None:
    assert ear().hear(host, datagram(mallory), now) == "stranger"


def test_a_bad_signature_is_dropped_and_leaves_no_trace() -> None:
    listening = ear()
    body = codec.encode(msgspec.to_builtins(said(), builtin_types=(bytes,)))
    for signature in (bytes(64), mallory.sign(signature_context + body), alice.sign(body)):
        assert listening.hear(host, codec.encode([body, signature]), now) == "bad_signature"
    assert len(listening) == 0
    assert isinstance(listening.hear(host, datagram(), now), Heard)


@pytest.mark.parametrize(("boot_id", "counter"), [(10, 7), (10, 6), (10, 0), (9, 8), (0, 1 << 62)])
def test_an_old_counter_or_boot_is_dropped(boot_id: int, counter: int) -> None:
    listening = ear()
    assert isinstance(listening.hear(host, datagram(counter=7), now), Heard)
    assert listening.hear(host, datagram(counter=counter, boot_id=boot_id), now) == "old_counter"


@pytest.mark.parametrize(("boot_id", "counter"), [(10, 8), (11, 0), (u64_max, 0)])
def test_a_later_counter_or_boot_is_heard(boot_id: int, counter: int) -> None:
    listening = ear()
    listening.hear(host, datagram(counter=7), now)
    assert isinstance(listening.hear(host, datagram(counter=counter, boot_id=boot_id), now), Heard)


@pytest.mark.parametrize("after_ms", range(0, 70_001, 5_000))
def test_a_replay_is_never_heard_whenever_it_comes(after_ms: int) -> None:
    """Also of a node whose clock is ahead, whose datagram stays in time the longest."""
    listening = ear()
    first = datagram(time_ms=now + 30_000)
    assert isinstance(listening.hear(host, first, now), Heard)
    listening.hear(host, datagram(bob, counter=1, time_ms=now + after_ms), now + after_ms)
    assert listening.hear("198.51.100.66", first, now + after_ms) in ("old_counter", "time")


def test_more_than_512_bytes_are_dropped_unread() -> None:
    assert ear().hear(host, b"\x00" * 513, now) == "too_large"
    assert ear().hear(host, b"\x00" * 512, now) == "malformed"


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "wattswarm_udp_announce_v2"},
        {"network_id": b"n" * 31},
        {"node_id": b"n" * 33},
        {"port": 0},
        {"port": 65_536},
        {"boot_id": -1},
        {"counter": -1},
        {"counter": 1 << 63},
        {"time_ms": -1},
        {"time_ms": 1 << 48},
        {"time_ms": u64_max},
        {"port": 4_000.0},
        {"port": True},
    ],
)
def test_a_field_out_of_its_range_is_malformed(change: dict[str, Any]) -> None:
    assert ear().hear(host, datagram(**change), now) == "malformed"


@given(st.binary(max_size=512))
def test_any_bytes_are_malformed(data: bytes) -> None:
    assert ear().hear(host, data, now) == "malformed"


@given(st.integers(0, 300), st.integers(1, 255))
def test_a_damaged_announcement_is_dropped(place: int, flip: int) -> None:
    damaged = bytearray(datagram())
    damaged[place % len(damaged)] ^= flip
    assert isinstance(ear().hear(host, bytes(damaged), now), str)


def test_what_follows_an_announcement_drops_it() -> None:
    assert ear().hear(host, datagram() + b"\x00", now) == "malformed"


# -- budgets -------------------------------------------------------------------------------------------------------


def test_a_source_is_heard_five_times_a_second() -> None:
    listening = ear()
    outcomes = [listening.hear(host, datagram(counter=counter), now) for counter in range(8)]
    assert outcomes[5:] == ["source_budget"] * 3
    assert isinstance(listening.hear("192.0.2.2", datagram(counter=9), now), Heard), "others are heard"
    assert isinstance(listening.hear(host, datagram(counter=10), now + 200), Heard)


def test_a_source_has_sixteen_entries() -> None:
    nodes = [Keypair(number.to_bytes(32, "big")) for number in range(100, 118)]
    listening = ear(*nodes)
    outcomes = [
        listening.hear(host, datagram(keys, time_ms=now + 1_000 * place), now + 1_000 * place)
        for place, keys in enumerate(nodes)
    ]
    assert outcomes[16:] == ["source_entries"] * 2
    assert len(listening) == 16
    stays = datagram(nodes[15], counter=2, time_ms=now + 19_000)
    assert isinstance(listening.hear(host, stays, now + 19_000), Heard), "who is there stays"
    assert isinstance(listening.hear("192.0.2.2", datagram(nodes[16], counter=2), now + 20_000), Heard)
    later = now + 21_000
    assert isinstance(listening.hear("192.0.2.2", datagram(nodes[0], counter=2, time_ms=later), later), Heard)
    moved = listening.hear(host, datagram(nodes[17], counter=2, time_ms=later), later)
    assert isinstance(moved, Heard), "who moves makes room where it was"


def test_there_are_never_more_than_1024_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    assert announce.entries_max == 1_024
    monkeypatch.setattr(announce, "entries_max", 3)
    nodes = [Keypair(number.to_bytes(32, "big")) for number in range(100, 105)]
    listening = ear(*nodes)
    outcomes = [listening.hear(f"192.0.2.{place}", datagram(keys), now) for place, keys in enumerate(nodes)]
    assert outcomes[3:] == ["entries", "entries"]
    assert isinstance(listening.hear("192.0.2.0", datagram(nodes[0], counter=2), now), Heard), "who is there stays"


def test_made_up_sources_do_not_buy_more_checks() -> None:
    listening = ear()
    body = codec.encode(msgspec.to_builtins(said(), builtin_types=(bytes,)))
    forged = codec.encode([body, bytes(64)])
    outcomes = [listening.hear(f"10.0.{place // 256}.{place % 256}", forged, now) for place in range(2_000)]
    assert outcomes.count("bad_signature") == 200
    assert outcomes.count("check_budget") == 1_024 - 200
    assert outcomes.count("source_budget") == 2_000 - 1_024


def test_a_clock_that_goes_back_does_not_deafen() -> None:
    listening = ear()
    listening.hear(host, datagram(), now)
    earlier = now - 3_600_000
    assert list(listening.here(earlier)) == []
    assert isinstance(listening.hear(host, datagram(counter=2, time_ms=earlier), earlier), Heard)
    assert isinstance(listening.hear(host, datagram(bob, time_ms=earlier), earlier), Heard)


# -- announcing ----------------------------------------------------------------------------------------------------


def announcer() -> Announcer:
    return Announcer(alice, network, 4_000, 10)


def test_a_node_announces_itself_at_the_start_and_every_five_seconds() -> None:
    talking = announcer()
    times = [at for at in range(now, now + 16_000, 100) if talking.due(at) is not None]
    assert times == [now, now + 5_000, now + 10_000, now + 15_000]


def test_what_is_announced_is_heard_each_time() -> None:
    talking, listening = announcer(), ear()
    for at in range(now, now + 30_000, 5_000):
        sent = talking.due(at)
        assert sent is not None
        assert isinstance(listening.hear(host, sent, at), Heard)


def test_a_prompted_node_announces_sooner_but_once_a_second() -> None:
    talking = announcer()
    times = []
    for at in range(now, now + 3_000, 100):
        if talking.due(at) is not None:
            times.append(at)
        talking.prompt()
    assert times == [now, now + 1_000, now + 2_000]


def test_a_prompt_is_good_for_one_announcement() -> None:
    talking = announcer()
    talking.due(now)
    talking.prompt()
    assert talking.due(now + 1_000) is not None
    assert talking.next_ms(now + 1_000) == now + 6_000


def test_a_clock_that_goes_back_does_not_silence() -> None:
    talking = announcer()
    talking.due(now)
    assert talking.next_ms(now - 3_600_000) == now - 3_600_000 + 5_000


def test_the_largest_announcement_fits_its_datagram() -> None:
    largest = said(port=65_535, boot_id=u64_max, counter=(1 << 63) - 1, time_ms=(1 << 48) - 1)
    assert len(write(alice, largest)) <= 512
