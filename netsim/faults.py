"""What goes wrong, when, and with whom: drawn from the run's seed, and all of it healed in the end.

Each kind of fault is a pair of functions, one that breaks and one that mends. Only nodes that are told to break do;
what a fault means for the protocol is not known here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from netsim.clock import Timeline
from netsim.network import Network
from netsim.node import SimNode
from netsim.releases import newer
from netsim.scenario import Fault, FaultKind
from wattswarm.kernel.membership import next_version, version_hash
from wattswarm.kernel.refusal import Refused

Mend = Callable[[], None]
of_the_wires = ("partition", "one_way", "reset")
"""What may happen to liars too: two processes with one key may find themselves on different sides."""


class Faults:
    """Breaks ``nodes`` as ``plan`` says, and the wires of ``liars``, until ``until_ms``; then everything is mended."""

    def __init__(
        self,
        timeline: Timeline,
        draw: random.Random,
        wires: Network,
        nodes: list[SimNode],
        liars: list[SimNode],
        until_ms: int,
    ) -> None:
        self._timeline, self._draw, self._wires, self._nodes, self._until_ms = timeline, draw, wires, nodes, until_ms
        self._everybody = [*nodes, *liars]
        self._mends: dict[int, Mend] = {}
        self._count = 0
        self.told: list[tuple[int, int, str, str]] = []
        self._breaks: dict[str, Callable[[Fault, list[SimNode]], Mend]] = {
            "partition": self._partition,
            "one_way": self._one_way,
            "reset": self._reset,
            "crash": self._crash,
            "wipe": self._wipe,
            "restore": self._restore,
            "stall": self._stall,
            "skew": self._skew,
            "eclipse": self._eclipse,
            "churn": self._churn,
            "upgrade": self._upgrade,
        }

    def begin(self, plan: tuple[Fault, ...]) -> None:
        """From now on."""
        for fault in plan:
            self._timeline.after(round(fault.after_s * 1000), partial(self._break, fault))

    def end(self) -> None:
        """Everything is mended."""
        for mend in list(self._mends.values()):
            mend()
        self._mends.clear()

    def _break(self, fault: Fault) -> None:
        if self._timeline.now_ms >= self._until_ms:
            return
        among = self._among(fault.kind)
        if not among:
            return
        count = max(1, round(fault.share * (len(self._nodes) if fault.kind == "upgrade" else len(among))))
        chosen = sorted(self._draw.sample(among, min(count, len(among))), key=lambda node: node.name)
        mend = self._breaks[fault.kind](fault, chosen)
        for_ms = round(fault.for_s * 1000 * (0.5 + self._draw.random()))
        who = " ".join(node.name for node in chosen)
        end_ms = min(self._timeline.now_ms + for_ms, self._until_ms)
        self.told.append((self._timeline.elapsed_ms, end_ms - self._timeline.began_ms, fault.kind, who))
        chosen[0].tell(f"fault {fault.kind}", who)
        self._count += 1
        number = self._count
        self._mends[number] = mend
        self._timeline.after(for_ms, partial(self._mend, number))
        if fault.every_s:
            pause_ms = round(fault.every_s * 1000 * (0.5 + self._draw.random()))
            self._timeline.after(max(1, pause_ms), partial(self._break, fault))

    def _among(self, kind: FaultKind) -> list[SimNode]:
        if kind == "upgrade":
            return [node for node in self._nodes if node.release is not newer]
        return self._everybody if kind in of_the_wires else self._nodes

    def _mend(self, number: int) -> None:
        mend = self._mends.pop(number, None)
        if mend is not None:
            mend()

    # -- the kinds --------------------------------------------------------------------------------------------------

    def _partition(self, _fault: Fault, chosen: list[SimNode]) -> Mend:
        inside = [node.name for node in chosen]
        outside = [name for name in self._wires.hosts if name not in inside]
        self._wires.cut(inside, outside)
        self._wires.cut(outside, inside)

        def mend() -> None:
            self._wires.heal(inside, outside)
            self._wires.heal(outside, inside)

        return mend

    def _one_way(self, _fault: Fault, chosen: list[SimNode]) -> Mend:
        inside = [node.name for node in chosen]
        outside = [name for name in self._wires.hosts if name not in inside]
        self._wires.cut(inside, outside)
        return partial(self._wires.heal, inside, outside)

    def _reset(self, _fault: Fault, chosen: list[SimNode]) -> Mend:
        self._wires.reset(node.name for node in chosen)
        return lambda: None

    def _crash(self, _fault: Fault, chosen: list[SimNode]) -> Mend:
        crashed = [node for node in chosen if node.up]
        for node in crashed:
            node.crash()
        return partial(_start, crashed)

    def _wipe(self, _fault: Fault, chosen: list[SimNode]) -> Mend:
        """The log is gone, the key is not."""
        crashed = [node for node in chosen if node.up]
        for node in crashed:
            node.crash()
            node.lose_log()
        return partial(_start, crashed)

    def _restore(self, _fault: Fault, chosen: list[SimNode]) -> Mend:
        """The host is put back to how it was; what it said since is not known there."""
        backups = [(node, node.disk.copied()) for node in chosen]

        def mend() -> None:
            for node, disk in backups:
                node.crash()
                node.put_back(disk)
                node.start()

        return mend

    def _upgrade(self, _fault: Fault, chosen: list[SimNode]) -> Mend:
        """They stop, and come back with the newer release."""
        for node in chosen:
            node.crash()
            node.upgrade(newer)
        return partial(_start, chosen)

    def _stall(self, _fault: Fault, chosen: list[SimNode]) -> Mend:
        for node in chosen:
            node.stall()

        def mend() -> None:
            for node in chosen:
                node.resume()

        return mend

    def _skew(self, fault: Fault, chosen: list[SimNode]) -> Mend:
        for node in chosen:
            node.set_clock(round(fault.skew_s * 1000 * (2 * self._draw.random() - 1)))

        def mend() -> None:
            for node in chosen:
                node.set_clock(0)

        return mend

    def _eclipse(self, _fault: Fault, chosen: list[SimNode]) -> Mend:
        """One honest node hears liars only."""
        victim = [chosen[0].name]
        others = [name for name, host in self._wires.hosts.items() if name != victim[0] and _honest(host)]
        self._wires.cut(victim, others)
        self._wires.cut(others, victim)

        def mend() -> None:
            self._wires.heal(victim, others)
            self._wires.heal(others, victim)

        return mend

    def _churn(self, _fault: Fault, chosen: list[SimNode]) -> Mend:
        """Operators change who belongs to the network: a member goes, a node that is none comes; all approve it."""
        speaker = next((node for node in chosen if _sits(node)), None)
        if speaker is None or speaker.council is None:
            return lambda: None
        current = speaker.network.current
        outside = [node for node in self._nodes if node.up and node.node_id not in current.members]
        outside = [node for node in outside if not speaker.network.knows_author(node.node_id)]
        inside = [node for node in self._nodes if node.node_id in current.members and node is not speaker]
        if not outside or not inside:
            return lambda: None
        comes, goes = self._draw.choice(outside), self._draw.choice(inside)
        roles = current.members[goes.node_id]
        members = {node_id: kept for node_id, kept in current.members.items() if node_id != goes.node_id}
        line = speaker.disk.store.chain_rows.get(goes.node_id)
        until = {goes.node_id: max(0, line.head.seq if line is not None else 0)}
        version = next_version(speaker.network, current, {**members, comes.node_id: roles}, until)
        with suppress(Refused):
            speaker.council.propose(version)
        for node in self._nodes:
            if node.council is not None and node is not speaker:
                node.council.approve(version_hash(version))
        return lambda: None


def _sits(node: SimNode) -> bool:
    return node.council is not None and node.network.current.has(node.node_id, "finalizer")


def _honest(host: object) -> bool:
    return isinstance(host, SimNode) and host.honest


def upgrade(nodes: list[SimNode]) -> None:
    """Whoever is not there yet goes over to the newer release."""
    for node in nodes:
        if node.release is not newer:
            node.crash()
            node.upgrade(newer)


def _start(crashed: list[SimNode]) -> None:
    for node in crashed:
        if not node.up:
            node.start()
