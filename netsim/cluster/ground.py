"""What a cluster stands on: network namespaces on a bridge where they can be had, else this host's loopback.

Namespaces have cuts and loss by the kernel, and latency too where it has netem. Where it has not, where lines are to be
narrow, and on loopback, a relay stands before every daemon (netsim/cluster/relay.py): others get to know its address.
"""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from netsim.cluster.lan import Cuts, Lan, open_lan, want
from netsim.cluster.relay import Change, Front, Terms
from netsim.cluster.wires import Between
from netsim.network import LinkTerms
from netsim.scenario import Scenario, refuse

port = 7700
runtime_port = 8787
stop_s = 10
Address = tuple[str, int]


@dataclass(frozen=True)
class Ground:
    """Where hosts are. ``within``: words before a host's commands; the last one's are the runtime's.

    ``settings``: a daemon's configuration. ``runtime``: where the runtime listens.
    """

    what: str
    between: Between
    within: Sequence[Sequence[str]]
    settings: Sequence[Mapping[str, str]]
    runtime: str


@contextmanager
def open_ground(scenario: Scenario, places: Sequence[Path], *, loopback: bool) -> Iterator[Ground]:
    """Hosts for daemons in ``places``, and one more for the runtime. ``loopback``: though there might be namespaces."""
    if loopback or want() is not None:
        if scenario.link.loss:
            raise refuse(scenario, "link.loss", str(scenario.link.loss), f"0 on loopback ({want() or 'as was wanted'})")
        with _on_loopback(scenario, places) as ground:
            yield ground
        return
    with open_lan(scenario.nodes + 1) as lan:
        lan.lose(scenario.link.loss * 100)
        with _in_namespaces(lan, scenario) as ground:
            yield ground


@contextmanager
def _in_namespaces(lan: Lan, scenario: Scenario) -> Iterator[Ground]:
    size, link = scenario.nodes, scenario.link
    within = [lan.within(number) for number in range(size + 1)]
    runtime = f"{lan.address(size)}:{runtime_port}"
    daemons = [(lan.address(number), port) for number in range(size)]
    if not link.bytes_per_ms and (link.latency_ms == LinkTerms().latency_ms or lan.delay(link.latency_ms)):
        settings = _settings(scenario, daemons, daemons, udp=scenario.udp)
        yield Ground("namespaces", lan, within, settings, runtime)
        return
    fronts = [(lan.middle_address, port + number) for number in range(size)]
    who = [lan.address(number) for number in range(size)]
    terms = Terms(tuple(map(Front, fronts, daemons, who)), link.latency_ms, link.bytes_per_ms, False, scenario.name)
    with _relay(terms, lan.within("lan")) as between:
        settings = _settings(scenario, daemons, fronts, udp=False)
        yield Ground("namespaces with a relay", between, within, settings, runtime)


@contextmanager
def _on_loopback(scenario: Scenario, places: Sequence[Path]) -> Iterator[Ground]:
    found = [("127.0.0.1", free) for free in steady_ports(2 * len(places))]
    daemons, fronts = found[: len(places)], found[len(places) :]
    who = [str(place) for place in places]
    link = scenario.link
    terms = Terms(tuple(map(Front, fronts, daemons, who)), link.latency_ms, link.bytes_per_ms, True, scenario.name)
    with _relay(terms) as between:
        settings = _settings(scenario, daemons, fronts, udp=False)
        within: list[Sequence[str]] = [()] * len(places)
        yield Ground("loopback", between, [*within, ends_with_its_parent()], settings, "127.0.0.1:0")


def ends_with_its_parent() -> Sequence[str]:
    """Words before a command that make it end when this process does, however that ends (util-linux)."""
    return ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()


def _settings(
    scenario: Scenario, daemons: Sequence[Address], fronts: Sequence[Address], *, udp: bool
) -> list[Mapping[str, str]]:
    """Each daemon's configuration; whoever cannot call out knows an address at least."""
    known = scenario.bootstrap if udp else max(1, scenario.bootstrap)
    settings: list[Mapping[str, str]] = []
    for number, (host, at) in enumerate(daemons):
        firsts = ",".join(f"{host}:{at}" for other, (host, at) in enumerate(fronts[:known]) if other != number)
        said = {
            "listen": f"{host}:{at}",
            "advertise": "{}:{}".format(*fronts[number]),
            "udp_announce_enabled": "true" if udp else "false",
        }
        settings.append(said | ({"bootstrap": firsts} if firsts else {}))
    return settings


def steady_ports(count: int) -> list[int]:
    """TCP ports of loopback for listeners that come and go: free now, and none that the system gives to connections."""
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            sock = stack.enter_context(socket.socket())
            with suppress(OSError):
                sock.bind(("127.0.0.1", random.randrange(16_384, 32_768)))
                found.append(int(sock.getsockname()[1]))
        return found


class Relayed:
    """Hosts behind a relay that runs as a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._sent: dict[int, int] = {}
        self._cuts: Cuts = {}

    def let(self, cuts: Cuts) -> None:
        """Exactly these ways are cut from now on."""
        self._cuts = cuts
        change = Change(tuple((here, there, how) for (here, there), how in cuts.items()))
        answer = _asked(self._process, msgspec.json.encode(change).decode())
        self._sent = msgspec.json.decode(answer, type=dict[int, int])

    def sent_bytes(self, host: int) -> int:
        """What a host has sent to the others since it was made."""
        self.let(self._cuts)
        return self._sent.get(host, 0)


def _asked(process: subprocess.Popen[str], line: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return process.stdout.readline()


@contextmanager
def _relay(terms: Terms, within: Sequence[str] = ()) -> Iterator[Relayed]:
    command = [*within, sys.executable, "-m", "netsim.cluster.relay"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            answer = _asked(process, msgspec.json.encode(terms).decode())
            assert answer == "ready\n", "a relay on free ports starts"
            yield Relayed(process)
        finally:
            process.kill()
