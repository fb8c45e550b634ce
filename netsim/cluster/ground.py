"""What a cluster stands on: network namespaces on a bridge, where they can be had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from netsim.cluster.lan import Lan, open_lan
from netsim.cluster.wires import Between
from netsim.scenario import Scenario

port = 7700
runtime_port = 8787


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
def open_ground(scenario: Scenario, _places: Sequence[Path]) -> Iterator[Ground]:
    """The hosts of a scenario, and one more for the runtime."""
    with open_lan(scenario.nodes + 1) as lan:
        lan.lose(scenario.link.loss * 100)
        yield _namespaces(lan, scenario)


def _namespaces(lan: Lan, scenario: Scenario) -> Ground:
    addresses = [f"{lan.address(number)}:{port}" for number in range(scenario.nodes)]
    settings = []
    for mine in addresses:
        firsts = ",".join(other for other in addresses[: scenario.bootstrap] if other != mine)
        said = {"listen": mine, "udp_announce_enabled": "true" if scenario.udp else "false"}
        settings.append(said | ({"bootstrap": firsts} if firsts else {}))
    within = [lan.within(number) for number in range(scenario.nodes + 1)]
    return Ground("namespaces", lan, within, settings, f"{lan.address(scenario.nodes)}:{runtime_port}")
