"""Members that lie and strangers that flood: what Byzantine nodes do in a scenario (docs/netsim.md §3).

A twin is two honest processes with one key and a disk each (Twins, Bano et al., 2020): whatever a node can say on both
sides of its mouth, it will - forked chains and double votes come of themselves. The others are honest nodes whose
outputs are bent, or who author what an honest node would not. Only liars are in here; who is hurt is not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from net.proto import frame
from net.proto import message as m
from net.proto import values as v
from netsim.node import SimNode, Surroundings
from netsim.scenario import LiarKind, Load
from netsim.workload import contract
from wattswarm.kernel import event as events
from wattswarm.kernel import hlc
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.event import Draft
from wattswarm.kernel.payloads import course, work
from wattswarm.kernel.reasons import Reason

flood_every_ms = 200
flood_events = 50
stranger_dials_ms = 500
stranger_says = 20


@dataclass(slots=True)
class Lies:
    """What the liars of a run do from time to time."""

    around: Surroundings
    acts: list[tuple[int, Callable[[], None]]] = field(default_factory=list)
    over: bool = False

    def begin(self) -> None:
        """From now on."""
        for every_ms, act in self.acts:
            self._again(every_ms, act)

    def end(self) -> None:
        """They have said all."""
        self.over = True

    def _again(self, every_ms: int, act: Callable[[], None]) -> None:
        def then() -> None:
            if not self.over:
                act()
                self._again(every_ms, act)

        self.around.timeline.after(every_ms, then)


class _Bent(SimNode):
    """A node some of whose outputs are bent: ``bend`` gives what is done instead."""

    bend: Callable[[v.Output], list[v.Output]]

    def perform(self, output: v.Output) -> None:
        """Do what the liar makes of it."""
        for bent in self.bend(output):
            super().perform(bent)


def begin_lying(kinds: Mapping[LiarKind, int], nodes: list[SimNode], around: Surroundings, draw: random.Random) -> Lies:
    """Make liars of some of ``nodes``, the last ones; twins and strangers are added to them."""
    lies = Lies(around)
    left = [*nodes]
    makers: dict[LiarKind, Callable[[SimNode, Lies, list[SimNode], random.Random], None]] = {
        "twin": _twin,
        "withholder": _withholder,
        "braggart": _braggart,
        "spammer": _spammer,
        "backdater": _backdater,
        "stranger": _stranger,
    }
    for kind in sorted(kinds, key=lambda kind: (kind != "stranger", kind)):
        for _ in range(kinds[kind]):
            makers[kind](left.pop(), lies, nodes, draw)
    return lies


def _twin(node: SimNode, _lies: Lies, nodes: list[SimNode], _draw: random.Random) -> None:
    node.honest = False
    twin = SimNode(node.around, f"{node.name}t", node.keys, node.name, node.bootstrap, udp=node.udp)
    twin.honest = False
    nodes.append(twin)


def _bent(node: SimNode, bend: Callable[[v.Output], list[v.Output]]) -> None:
    node.honest = False
    node.__class__ = _Bent
    assert isinstance(node, _Bent)
    node.bend = bend


def _withholder(node: SimNode, _lies: Lies, _nodes: list[SimNode], _draw: random.Random) -> None:
    """It takes everything and gives nothing on."""

    def bend(output: v.Output) -> list[v.Output]:
        if isinstance(output, v.Send) and isinstance(frame.decode(output.frame), m.Events | m.Range | m.Cert):
            return []
        return [output]

    _bent(node, bend)


def _braggart(node: SimNode, _lies: Lies, _nodes: list[SimNode], _draw: random.Random) -> None:
    """It claims to hold more of every chain than there is, and announces what nobody said."""

    def bend(output: v.Output) -> list[v.Output]:
        if not isinstance(output, v.Send):
            return [output]
        said = frame.decode(output.frame)
        if isinstance(said, m.Frontier):
            grown = tuple(
                (author, seq + 1_000, sha256(prefix)[: m.prefix_bytes]) for author, seq, prefix in said.entries
            )
            return [replace(output, frame=frame.encode(m.Frontier(grown, said.more)))]
        if isinstance(said, m.Have):
            made_up = tuple(sha256(name) for name in said.ids)
            return [replace(output, frame=frame.encode(m.Have(made_up)))]
        return [output]

    _bent(node, bend)


def _spammer(node: SimNode, lies: Lies, _nodes: list[SimNode], _draw: random.Random) -> None:
    """It says as much as its quota lets it, and throws orphans at everybody."""
    node.honest = False
    count = 0

    def act() -> None:
        nonlocal count
        if not node.up:
            return
        wires = []
        for _ in range(flood_events):
            count += 1
            said = course.TaskError(f"spam-{count}", "OTHER", [int(Reason.UNKNOWN)], "x" * 500)
            draft = Draft(said, sha256(b"nothing"), 1)
            prev = sha256(str(count).encode())
            clock = hlc.pack(node.clock())
            made = events.author(node.keys, node.network.network_id, 1_000_000 + count, prev, clock, draft)
            wires.append((made.body, made.signature))
        _throw(node, m.Events(tuple(wires)))

    lies.acts.append((flood_every_ms, act))


def _throw(node: SimNode, said: m.Message) -> None:
    for peer in list(node.machine.peers.values()):
        if peer.taken is not None:
            node.perform(v.Send(peer.link, m.EVENTS, frame.encode(said)))


def _backdater(node: SimNode, lies: Lies, nodes: list[SimNode], draw: random.Random) -> None:
    """It says nothing of its own until a task is there, then creates one of the same name, as of yesterday."""
    node.honest = False
    node.takes_part = False
    past_ms = 86_400_000

    def act() -> None:
        store = node.disk.store
        names = [row.facts.label for row in store.stream_rows.values() if row.facts is not None]
        if not (node.up and names) or node.node_id in store.chain_rows:
            return
        label = names[draw.randrange(len(names))]
        made = contract(label, Load(), node.clock() + 3_600_000)
        draft = Draft(work.TaskCreated(made, node.network.current.hash), None, 1)
        said = events.author(node.keys, node.network.network_id, 0, None, hlc.pack(node.clock() - past_ms), draft)
        _throw(node, m.Events(((said.body, said.signature),)))

    lies.acts.append((1_000, act))


def _stranger(node: SimNode, lies: Lies, nodes: list[SimNode], draw: random.Random) -> None:
    """It is no member, dials the members, and says everything many times."""
    _bent(node, lambda output: [output] * stranger_says if isinstance(output, v.Send) else [output])
    node.takes_part = False

    def act() -> None:
        members = [one for one in nodes if one.takes_part]
        if node.up and members:
            node.around.wires.dial(node, members[draw.randrange(len(members))].address, None)

    lies.acts.append((stranger_dials_ms, act))
