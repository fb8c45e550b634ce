"""Hosts of their own on one machine: network namespaces on a bridge, and the faults between them.

Each host is a namespace with an address on a network that only they share; the bridge lies in one too, so nothing of
the machine's own network is touched, and several runs do not meet. Multicast goes to everybody. A fault is nft's, where
packets come in at a host: a cut says nothing, as a cable does that is pulled, or resets connections, as a firewall does
that was told to; loss takes any packet, of TCP and of UDP. Connections of a host to itself are spared.

Needs root, iproute2 and nftables. Names hold the process that made them: what a killed run left, the next removes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Literal

from netsim.cluster.command import CommandFailed, run_command

Cut = Literal["silent", "reset"]
Cuts = Mapping[tuple[int, int], Cut]
"""(from, to) -> how what goes that way ends. Hosts by their numbers."""
tools = ("ip", "nft")
hosts_max = 250  # and 10.77.0.254 is the bridge's
_named = re.compile(r"wslan-(\d+)-\d+-\w+")
_numbers = count()
_names_dir = Path("/run/netns")


def want() -> str | None:
    """What is wanting for hosts to be made here; None: nothing."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        return f"there is no {' and no '.join(missing)} here (packages iproute2, nftables)"
    return None if os.geteuid() == 0 else "only root can make network namespaces"


@dataclass
class Lan:
    """Hosts 0 to ``size`` - 1, all connected. Made by ``open_lan``."""

    name: str
    size: int
    _cuts: dict[tuple[int, int], Cut] = field(default_factory=dict)
    _loss_percent: float = 0

    def address(self, host: int) -> str:
        """Where the others reach a host."""
        return f"10.77.0.{host + 1}"

    def within(self, host: int | str) -> Sequence[str]:
        """The words before a command that make it run in a host; ``"lan"``: beside the bridge."""
        return ("ip", "netns", "exec", self.namespace(host))

    @property
    def middle_address(self) -> str:
        """Where whoever runs beside the bridge is reached."""
        return "10.77.0.254"

    def namespace(self, host: int | str) -> str:
        """The namespace of a host; ``"lan"``: the bridge's."""
        return f"{self.name}-{host}"

    def cut(self, left: Collection[int], right: Collection[int], how: Cut = "silent") -> None:
        """Let nothing through between these and those any more."""
        ways = [(here, there) for here in left for there in right]
        self.let(self._cuts | dict.fromkeys([*ways, *((there, here) for here, there in ways)], how))

    def heal(self) -> None:
        """Let everything through between all of them, as far as nothing is lost."""
        self.let({})

    def let(self, cuts: Cuts) -> None:
        """Exactly these ways are cut from now on."""
        self._cuts = dict(cuts)
        self._rule()

    def lose(self, percent: float) -> None:
        """Lose this share of all packets between hosts, at random."""
        assert 0 <= percent <= 100
        self._loss_percent = percent
        self._rule()

    def delay(self, latency_ms: tuple[int, int]) -> bool:
        """Have what hosts send take so long, least and most; whether this kernel can (netem)."""
        middle, spread = sum(latency_ms) / 2, (latency_ms[1] - latency_ms[0]) / 2
        terms = ("netem", "delay", f"{middle}ms", f"{spread}ms")
        try:
            for host in range(self.size):
                run_command(*self.within(host), "tc", "qdisc", "replace", "dev", "eth0", "root", *terms)
        except CommandFailed:
            return False
        return True

    def sent_bytes(self, host: int) -> int:
        """What a host has sent to the others since it was made."""
        told = run_command("ip", "-n", self.namespace("lan"), "-s", "-j", "link", "show", f"host{host}")
        return int(json.loads(told)[0]["stats64"]["rx"]["bytes"])

    def _rule(self) -> None:
        for host in range(self.size):
            run_command(*self.within(host), "nft", "-f", "-", given=self._rules(host))

    def _rules(self, host: int) -> str:
        """All rules of a host; what was there before goes in the same transaction."""
        rules = ['iifname != "eth0" accept']
        resets, drops = (self._sources(host, how) for how in ("reset", "silent"))
        if resets:
            rules += ["tcp flags & rst == rst accept", f"{resets} meta l4proto tcp reject with tcp reset"]
        rules += [f"{others} drop" for others in (resets, drops) if others]
        if self._loss_percent:
            rules.append(f"numgen random mod 10000 < {round(self._loss_percent * 100)} drop")
        chain = "\n".join(("type filter hook input priority 0; policy accept;", *rules))
        return f"table inet faults\ndelete table inet faults\ntable inet faults {{\nchain input {{\n{chain}\n}}\n}}\n"

    def _sources(self, host: int, how: Cut) -> str:
        """What matches packets of those who are cut from a host in this way; empty if nobody is."""
        sources = [
            self.address(here) for (here, there), cut in sorted(self._cuts.items()) if (there, cut) == (host, how)
        ]
        return "ip saddr { " + ", ".join(sources) + " }" if sources else ""


@contextmanager
def open_lan(size: int) -> Iterator[Lan]:
    """A network of ``size`` hosts; with the block go the hosts, and whatever still runs in them."""
    assert 1 <= size <= hosts_max
    for left in _left_behind():
        _remove(left)
    lan = Lan(f"wslan-{os.getpid()}-{next(_numbers)}", size)
    namespaces = [lan.namespace(which) for which in ("lan", *range(size))]
    try:
        for name in namespaces:
            run_command("ip", "netns", "add", name)
        _connect(lan)
        yield lan
    finally:
        for name in namespaces:
            _remove(name)


def _connect(lan: Lan) -> None:
    """Bridge, cables, addresses; a bridge that listens to who wants what group would need somebody who asks."""
    middle = lan.namespace("lan")
    run_command("ip", "-n", middle, "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0")
    run_command("ip", "-n", middle, "address", "add", f"{lan.middle_address}/24", "dev", "bridge")
    run_command("ip", "-n", middle, "link", "set", "bridge", "up")
    for host in range(lan.size):
        here, port = lan.namespace(host), f"host{host}"
        run_command("ip", "link", "add", "eth0", "netns", here, "type", "veth", "peer", "name", port, "netns", middle)
        run_command("ip", "-n", middle, "link", "set", port, "master", "bridge", "up")
        run_command("ip", "-n", here, "address", "add", f"{lan.address(host)}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            run_command("ip", "-n", here, "link", "set", link, "up")


def _left_behind() -> list[str]:
    """Namespaces whose maker is gone."""
    found = [_named.fullmatch(path.name) for path in _names_dir.glob("wslan-*")]
    return [match[0] for match in found if match is not None and not Path("/proc", match[1]).exists()]


def _remove(name: str) -> None:
    """End what runs in a namespace, and take it away. Its end of every cable goes with it."""
    if not Path(_names_dir, name).exists():
        return
    for pid in run_command("ip", "netns", "pids", name).split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    run_command("ip", "netns", "delete", name)
