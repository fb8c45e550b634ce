"""The wires do what a scenario says of them: what comes late, twice, in another order, or not at all."""

from __future__ import annotations

import random

import pytest

from net.proto import message as m
from net.proto import values as v
from netsim.clock import Timeline
from netsim.network import LinkTerms, Network


class Host:
    """An end that notes what comes, and when."""

    def __init__(self, timeline: Timeline, name: str) -> None:
        self.name, self.address, self.node_id, self.up = name, f"{name}:1", name.encode(), True
        self.timeline = timeline
        self.heard: list[tuple[int, v.Input]] = []

    def feed(self, given: v.Input) -> None:
        self.heard.append((self.timeline.elapsed_ms, given))

    def frames(self) -> list[tuple[int, bytes]]:
        return [(at, given.frame) for at, given in self.heard if isinstance(given, v.Received)]

    def datagrams(self) -> list[tuple[int, bytes]]:
        return [(at, given.data) for at, given in self.heard if isinstance(given, v.Heard)]


class Wired:
    """Two hosts, connected."""

    def __init__(self, **terms: object) -> None:
        self.timeline = Timeline()
        self.wires = Network(self.timeline, random.Random(7), LinkTerms(**terms))  # type: ignore[arg-type]
        self.one, self.other = Host(self.timeline, "one"), Host(self.timeline, "other")
        self.wires.joins(self.one)
        self.wires.joins(self.other)
        self.wires.dial(self.one, self.other.address, None)
        self.run(1_000)
        self.began_ms = self.timeline.elapsed_ms

    def run(self, for_ms: int) -> None:
        self.timeline.run(self.timeline.now_ms + for_ms)

    def send(self, count: int, size: int = 10) -> list[bytes]:
        frames = [number.to_bytes(4, "big") + bytes(size - 4) for number in range(count)]
        for frame in frames:
            self.wires.send(v.Send(1, m.EVENTS, frame))
        self.wires.go()
        return frames

    def lateness(self, count: int, every_ms: int) -> list[int]:
        """Send one frame after the other; how long each took. All came, in their order."""
        sent = []
        for number in range(count):
            sent.append(number.to_bytes(4, "big"))
            self.wires.send(v.Send(1, m.EVENTS, sent[-1]))
            self.wires.go()
            self.run(every_ms)
        came = self.other.frames()
        assert [frame for _, frame in came] == sent
        return [at - self.began_ms - every_ms * number for number, (at, _) in enumerate(came)]

    def shout(self, count: int) -> list[bytes]:
        said = [number.to_bytes(4, "big") for number in range(count)]
        for data in said:
            self.wires.shout(self.one, data)
            self.run(1)
        self.run(1_000)
        return said


def test_frames_take_their_latency_and_keep_their_order() -> None:
    wired = Wired(latency_ms=(20, 60))
    late = wired.lateness(200, 100)
    assert 20 <= min(late) < 25
    assert 55 < max(late) <= 60


def test_a_tail_makes_most_frames_a_little_later_and_few_much() -> None:
    wired = Wired(latency_ms=(20, 20), tail_ms=50)
    late = sorted(wired.lateness(400, 1_000))
    assert late[0] < 23
    assert 20 + 25 < late[200] < 20 + 45, "half of an exponential distribution lies below 0.69 of its mean"
    assert 20 + 150 < late[-1] < 20 + 600


def test_what_is_said_at_once_goes_by_lanes() -> None:
    wired = Wired()
    for lane, frame in ((m.BACKFILL, b"last"), (m.EVENTS, b"next"), (m.FINALITY, b"first")):
        wired.wires.send(v.Send(1, lane, frame))
    wired.wires.close(1)
    wired.run(100)
    assert wired.other.frames() == [], "nothing goes before all is said"
    wired.wires.go()
    wired.run(100)
    assert [frame for _, frame in wired.other.frames()] == [b"first", b"next", b"last"]


def test_some_frames_take_much_longer_and_hold_up_those_behind_them() -> None:
    wired = Wired(latency_ms=(1, 1), spikes=0.05, spike_ms=(500, 500))
    late = wired.lateness(400, 1_000)
    assert set(late) == {1, 501}
    assert 5 < late.count(501) < 40


def test_a_lost_packet_makes_a_frame_late_and_loses_none() -> None:
    wired = Wired(latency_ms=(1, 3), loss=0.2)
    sent = wired.send(300)
    wired.run(100_000)
    came = wired.other.frames()
    assert [frame for _, frame in came] == sent
    assert came[-1][0] - wired.began_ms > 200, "as long as TCP takes to send again, at the least"


def test_a_narrow_line_takes_its_time() -> None:
    wired = Wired(latency_ms=(1, 1), bytes_per_ms=100)
    wired.send(50, 1_000)
    wired.run(100_000)
    assert wired.other.frames()[-1][0] - wired.began_ms == 50 * 10 + 1


@pytest.mark.parametrize(("terms", "least", "most"), [({"loss": 0.3}, 600, 800), ({"duplicates": 0.3}, 1_200, 1_400)])
def test_datagrams_get_lost_and_doubled(terms: dict[str, object], least: int, most: int) -> None:
    wired = Wired(**terms)
    wired.shout(1_000)
    assert least < len(wired.other.datagrams()) < most


def test_datagrams_are_reordered() -> None:
    calm, wild = Wired(latency_ms=(1, 1)), Wired(latency_ms=(1, 1), reorders=0.3)
    said = calm.shout(300)
    assert [data for _, data in calm.other.datagrams()] == said
    wild.shout(300)
    assert sorted(data for _, data in wild.other.datagrams()) == said != [data for _, data in wild.other.datagrams()]


def test_a_cut_in_one_direction_holds_what_goes_there_alone() -> None:
    wired = Wired()
    wired.wires.cut(["one"], ["other"])
    sent = wired.send(3)
    wired.wires.send(v.Send(2, m.EVENTS, b"back"))
    wired.wires.go()
    wired.shout(2)
    assert (wired.other.frames(), wired.other.datagrams()) == ([], [])
    assert [frame for _, frame in wired.one.frames()] == [b"back"]
    wired.wires.heal(["one"], ["other"])
    wired.run(100)
    assert [frame for _, frame in wired.other.frames()] == sent


def test_who_is_cut_off_is_dialled_in_vain() -> None:
    wired = Wired()
    wired.wires.cut(["other"], ["one"])
    wired.wires.dial(wired.one, wired.other.address, None)
    wired.run(20_000)
    assert wired.one.heard[-1] == (wired.began_ms + 10_000, v.DialFailed(wired.other.address))


def test_a_reset_is_told_to_both_ends() -> None:
    wired = Wired()
    wired.wires.reset(["one"])
    wired.send(1)
    wired.run(1_000)
    assert [host.heard[-1][1] for host in (wired.one, wired.other)] == [v.Closed(1), v.Closed(2)]
    assert wired.other.frames() == []
