"""What a run is measured by: how long events take to reach everybody, how often they come, what it costs in bytes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from netsim.clock import Timeline
from netsim.disk import Written
from netsim.network import Network
from netsim.node import SimNode
from wattswarm.kernel.event import Event
from wattswarm.kernel.payloads.judge import DecisionFinalized
from wattswarm.kernel.payloads.work import TaskCreated

delays_kept_max = 200_000


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 and the most."""
    if not values:
        return {}
    ordered = sorted(values)
    at = {f"p{share}": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in (50, 90, 99)}
    return {**at, "max": ordered[-1]}


class Measures:
    """Looks on and counts. Times in virtual ms since the run began."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._born: dict[bytes, int] = {}
        self._created: dict[bytes, int] = {}
        self.delays: list[int] = []
        self.finality: list[int] = []
        self.spread: list[tuple[int, int, int]] = []
        self.stored: Counter[str] = Counter()
        self._way: dict[bytes, dict[str, int]] = defaultdict(dict)
        self._hops: Counter[int] = Counter()

    def wrote(self, node: SimNode, written: Written) -> None:
        """A transaction of some node's."""
        now_ms = self._timeline.elapsed_ms
        self.stored[node.name] += sum(event.author != node.node_id for event in written.events)
        for event in written.events:
            born_ms = self._born.setdefault(event.id, now_ms)
            if event.author != node.node_id and len(self.delays) < delays_kept_max:
                self.delays.append(now_ms - born_ms)
            self._hopped(node, event)
            if isinstance(event.payload, TaskCreated):
                self._created.setdefault(event.id, now_ms)
            elif isinstance(event.payload, DecisionFinalized) and event.author == node.node_id:
                created_ms = self._created.get(event.task or b"")
                if created_ms is not None:
                    self.finality.append(now_ms - created_ms)

    def _hopped(self, node: SimNode, event: Event) -> None:
        """One hop more than to the node it came from; what waited for others is not counted."""
        way = self._way[event.id]
        before = -1 if event.author == node.node_id else way.get(node.intake.bearers.get(event.id, ""))
        if before is not None and node.name not in way:
            way[node.name] = before + 1
            self._hops[before + 1] += before >= 0

    def looked(self, nodes: Sequence[SimNode]) -> None:
        """A moment: the least and the most events that a node holds, for the plot of convergence."""
        counts = [node.disk.store.head.events for node in nodes]
        self.spread.append((self._timeline.elapsed_ms, min(counts), max(counts)))

    def figures(
        self, nodes: Sequence[SimNode], wires: Network, faults: Sequence[tuple[int, int, str, str]]
    ) -> dict[str, Any]:
        """All of it, ready for JSON."""
        received = sum(node.machine.exchange.gossip.received for node in nodes)
        others = sum(self.stored[node.name] for node in nodes)
        events = max((node.disk.store.head.events for node in nodes), default=0)
        return {
            "nodes": len(nodes),
            "events": events,
            "delivery_ms": quantiles(self.delays),
            "finality_ms": quantiles(self.finality),
            "hops": quantiles(list(self._hops.elements())),
            "hops_mean": round(fmean(self._hops.elements()), 2) if self._hops.total() else None,
            "copies": round(received / others, 3) if others else None,
            "frames": wires.frames,
            "bytes": sum(wires.bytes.values()),
            "bytes_each": {name: wires.bytes[name] for name in sorted(wires.hosts)},
            "bytes_per_node": sum(wires.bytes[node.name] for node in nodes) // max(1, len(nodes)),
            "convergence": self.spread,
            "delays_ms": histogram(self.delays),
            "finality_all_ms": self.finality,
            "faults": [list(fault) for fault in faults],
        }


def histogram(values: Sequence[int]) -> list[tuple[int, int]]:
    """(ms, how many), by powers of two: enough for a plot, and small."""
    found = Counter(0 if value <= 0 else 1 << (value.bit_length() - 1) for value in values)
    return sorted(found.items())
