"""Members that lie and strangers that flood: what Byzantine nodes do in a scenario (docs/netsim.md §3).

A twin is two honest processes with one key and a disk each (Twins, Bano et al., 2020), the second made from a copy of
the first's: whatever a node can say on both sides of its mouth, it will - forked chains and double votes come of
themselves. Double voters show their second votes to nobody but each other, so that their keys stay good. The others are
honest nodes whose outputs are bent, or who author what an honest node would not. Only liars are in here; who is hurt is
not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from msgspec.structs import replace

from net.proto import frame
from net.proto import message as m
from net.proto import values as v
from netsim.disk import Disk, SimGuard
from netsim.node import SimNode, Surroundings
from netsim.scenario import LiarKind, Load
from netsim.workload import contract
from sel.store import Wire
from wattswarm.kernel import event as events
from wattswarm.kernel import finality, hlc
from wattswarm.kernel.certificate import DecisionCertificate
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.payloads import course, judge, work
from wattswarm.kernel.reasons import Reason
from wattswarm.kernel.task.candidate import candidate_hash

flood_every_ms = 200
flood_events = 50
stranger_dials_ms = 500
stranger_says = 20
twin_looks_ms = 3_000
boasts_again_ms = 5_000
forge_every_ms = 500
forged_streams = 20


@dataclass(slots=True)
class Lies:
    """What the liars of a run do from time to time. ``accomplices``: keys of those who sign whatever helps."""

    around: Surroundings
    acts: list[tuple[int, Callable[[], None]]] = field(default_factory=list)
    accomplices: list[Keypair] = field(default_factory=list)
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
        "double_voter": _double_voter,
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


class _NoGuard(SimGuard):
    """Whatever was signed before, the next thing may be signed."""

    def confirm(self, seq: int, event_id: bytes | None) -> Sequence[Wire]:
        return ()


class _Twin(SimNode):
    """A process that asks nobody whether its key is in use elsewhere. ``asleep``: it is not to be started yet."""

    asleep: bool

    def start(self) -> None:
        """Begin, unless its time has not come."""
        if not self.asleep:
            self.disk.guard = _NoGuard()
            super().start()

    def may_author(self) -> bool:
        """It always thinks so."""
        return True


def _twin(node: SimNode, lies: Lies, nodes: list[SimNode], _draw: random.Random) -> None:
    """Some time later its disk is copied, and some time after that a process on the copy begins."""
    twin = SimNode(node.around, f"{node.name}t", node.keys, node.name, node.bootstrap, udp=node.udp)
    for one in (node, twin):
        one.honest = False
        one.__class__ = _Twin
        assert isinstance(one, _Twin)
        one.asleep = one is twin
    nodes.append(twin)
    copies: list[Disk] = []

    def act() -> None:
        assert isinstance(twin, _Twin)
        if not copies:
            copies.append(node.disk.copied())
        elif twin.asleep:
            twin.disk, twin.asleep = copies[0], False
            twin.start()

    lies.acts.append((twin_looks_ms, act))


def _double_voter(node: SimNode, lies: Lies, _nodes: list[SimNode], _draw: random.Random) -> None:
    """It votes as it should, and signs for every other candidate too: wherever that makes a proof, all are given it."""
    node.honest = False
    lies.accomplices.append(node.keys)
    given: set[bytes] = set()

    def act() -> None:
        if not node.up:
            return
        for stream in list(node.disk.store.by_stream)[-forged_streams:]:
            for certificate in _forged(node, lies.accomplices, stream):
                if certificate.id not in given:
                    given.add(certificate.id)
                    node.tell("forged", f"{stream.hex()[:8]} {certificate.candidate_hash.hex()[:8]}")
                    _throw(node, m.Cert((certificate.wire(),)))

    lies.acts.append((forge_every_ms, act))


def _forged(node: SimNode, accomplices: list[Keypair], stream: bytes) -> Iterator[DecisionCertificate]:
    """Every decision on a task that the votes seen so far, and all that the accomplices would sign, prove."""
    said = node.disk.store.by_stream[stream]
    creation = next((event for event in said if event.id == stream), None)
    if creation is None or not isinstance(creation.payload, work.TaskCreated):
        return
    membership = node.network.versions.get(creation.payload.membership)
    if membership is None:
        return
    for proposal in said:
        if isinstance(proposal.payload, work.CandidateProposed):
            name = candidate_hash(proposal.author, proposal.payload.candidate)
            statement = finality.statement(node.network.network_id, membership.hash, stream, proposal.epoch, name)
            votes = _votes(said, proposal.epoch, name)
            votes.update((keys.node_id, finality.sign(keys, statement)) for keys in accomplices)
            proof = finality.make_proof(membership, votes)
            if proof is not None:
                yield DecisionCertificate(creation, proposal, proposal.epoch, proof)


def _votes(said: Sequence[Event], epoch: int, name: bytes) -> dict[bytes, bytes]:
    return {
        event.author: event.payload.signature
        for event in said
        if isinstance(event.payload, judge.FinalityVote)
        and (event.epoch, event.payload.candidate_hash) == (epoch, name)
    }


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


def _braggart(node: SimNode, lies: Lies, _nodes: list[SimNode], _draw: random.Random) -> None:
    """It claims to hold more of every chain than there is, announces what nobody said, and comes back to be asked."""

    def bend(output: v.Output) -> list[v.Output]:
        if not isinstance(output, v.Send):
            return [output]
        said = _boasted(frame.decode(output.frame))
        return [output if said is None else replace(output, frame=frame.encode(said))]

    _bent(node, bend)
    lies.acts.append((boasts_again_ms, partial(node.around.wires.reset, [node.name])))


def _boasted(said: object) -> m.Message | None:
    match said:
        case m.Frontier(entries, more):
            return m.Frontier(
                tuple((author, seq + 1_000, sha256(head)[: len(head)]) for author, seq, head in entries), more
            )
        case m.Have(ids):
            return m.Have(tuple(sha256(name) for name in ids))
        case m.Welcome():
            return replace(said, standing=_more(said.standing))
        case m.Hello(answer=m.ClientProof() as proof):
            return replace(said, answer=replace(proof, standing=_more(proof.standing)))
    return None


def _more(standing: m.Standing) -> m.Standing:
    total = standing.events
    return replace(standing, events=m.Total(total.count + 1_000, sha256(total.sum)))


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
    node.around.wires.go()


def _backdater(node: SimNode, lies: Lies, nodes: list[SimNode], draw: random.Random) -> None:
    """It says nothing of its own until a task is there, then creates one of the same name, as of yesterday."""
    node.honest = False
    node.takes_part = False
    past_ms = 86_400_000
    said: list[Event] = []

    def act() -> None:
        rows = node.disk.store.stream_rows.values()
        names = sorted(row.facts.label for row in rows if row.facts is not None)
        if not (node.up and names):
            return
        if not said:
            made = contract(names[draw.randrange(len(names))], Load(), node.clock() + 3_600_000)
            draft = Draft(work.TaskCreated(made, node.network.current.hash), None, 1)
            clock = hlc.pack(node.clock() - past_ms)
            said.append(events.author(node.keys, node.network.network_id, 0, None, clock, draft))
        if said[0].id not in node.disk.store.number:
            _throw(node, m.Events(((said[0].body, said[0].signature),)))

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
