"""What a run over daemons is measured by, in the shape of the simulator's figures, and memory through time.

An event's way is timed from its author's clock, which all hosts share, to the look at a log that first saw it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from netsim.cluster.host import Host
from netsim.cluster.seat import Standing
from netsim.measure import delays_kept_max, histogram, quantiles
from wattswarm.kernel import hlc
from wattswarm.node import now_ms

delay_ms_max = 600_000
"""What took longer was authored on a clock that was wrong."""
memory_s_min = 120
memory_growth_max, memory_slack_bytes = 1.25, 16 << 20
"""Memory is flat if the last quarter of a run needs no more than this much over its second quarter."""


class Measures:
    """Looks on and counts. Times in ms since ``began_ms``."""

    def __init__(self) -> None:
        self.began_ms = now_ms()
        self.delays: list[int] = []
        self.finality: dict[bytes, int] = {}
        self.spread: list[tuple[int, int, int]] = []
        self.memory: dict[str, list[tuple[int, int]]] = {}
        self._created: dict[bytes, int] = {}
        self._seen: dict[str, set[bytes]] = {}

    @property
    def elapsed_ms(self) -> int:
        """Since the swarm was whole."""
        return now_ms() - self.began_ms

    def heard(self, host: Host, rows: Sequence[Any]) -> None:
        """Events came to a log: (id, author, hlc, kind, stream)."""
        seen, me, at_ms = self._seen.setdefault(host.name, set()), host.home.keys.node_id, now_ms()
        for event_id, author, stamp, kind, stream in rows:
            if event_id in seen:
                continue
            seen.add(event_id)
            born_ms = hlc.wall_ms(stamp)
            if author != me and at_ms - born_ms < delay_ms_max and len(self.delays) < delays_kept_max:
                self.delays.append(max(0, at_ms - born_ms))
            if kind == "TASK_CREATED":
                self._created.setdefault(event_id, born_ms)
            elif kind == "DECISION_FINALIZED" and stream in self._created:
                self.finality.setdefault(stream, max(0, born_ms - self._created[stream]))

    def looked(self, hosts: Sequence[Host], standings: Sequence[Standing | None]) -> None:
        """A moment: how many events logs hold, and what memory daemons do."""
        counts = [standing.events for standing in standings if standing is not None]
        if counts:
            self.spread.append((self.elapsed_ms, min(counts), max(counts)))
        for host in hosts:
            rss = host.rss_bytes()
            if rss:
                self.memory.setdefault(host.name, []).append((self.elapsed_ms, rss))

    def growth(self, host: Host) -> str:
        """Why a daemon's memory is not flat; empty if it is, or if the run was too short to tell."""
        seen = [rss for _, rss in self.memory.get(host.name, [])]
        if self.elapsed_ms < memory_s_min * 1000 or len(seen) < 8:
            return ""
        quarter = len(seen) // 4
        before, after = median(seen[quarter : 2 * quarter]), median(seen[-quarter:])
        if after <= before * memory_growth_max + memory_slack_bytes:
            return ""
        return f"the memory of {host.name} grew from {before / 2**20:.0f} to {after / 2**20:.0f} MiB"

    def figures(
        self, hosts: Sequence[Host], sent: Mapping[str, int], told: Sequence[tuple[int, int, str, str]]
    ) -> dict[str, Any]:
        """All of it, ready for JSON."""
        finality = sorted(self.finality.values())
        return {
            "cluster": True,
            "nodes": len(hosts),
            "events": max((most for _, _, most in self.spread), default=0),
            "delivery_ms": quantiles(self.delays),
            "finality_ms": quantiles(finality),
            "copies": None,
            "bytes": sum(sent.values()),
            "bytes_each": dict(sorted(sent.items())),
            "bytes_per_node": sum(sent.values()) // len(hosts),
            "convergence": self.spread,
            "delays_ms": histogram(self.delays),
            "finality_all_ms": finality,
            "faults": [list(fault) for fault in told],
            "restarts": {host.name: host.restarts for host in hosts},
            "memory": self.memory,
        }
