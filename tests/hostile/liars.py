"""Members that lie in what they sign: who they are, what they forge, and what honest daemons must tell afterwards.

The connections are ``tests.hostile.rig``'s, the events ``tests.voice``'s. A coalition of nine decides alone, because
the honest have no finality votes here; everybody else lies for himself, so that each test has keys of its own to burn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec

from net.proto import message as m
from net.proto.budget import allowances
from sel import views
from sel.audit import RowProblem, verify
from tests.cast import Roles, everything, keys_of
from tests.daemons import on_node
from tests.hostile.rig import Enemy, Rig, attacked
from tests.swarms import becomes
from wattswarm import tasks
from wattswarm.kernel import codec, event
from wattswarm.kernel.certificate import Certificate, signatures_in
from wattswarm.kernel.event import Event
from wattswarm.kernel.genesis import all_roles
from wattswarm.node import Node
from wattswarm.status import status

coalition = tuple(f"plotter-{number}" for number in range(9))
threshold = 7
two_thirds = 6
worker = frozenset(all_roles) - {"finalizer"}
honest = ("ada", "ben")
bystander = "bystander"
loners = ("gossip", "heir", "bearer", "forker", "two-faced", "late", "early-forker", "orphanage", "leaver", "backdater")
liars = tuple(f"liar-{number}" for number in range(24))
"""Each lies once."""


@contextmanager
def lair() -> Iterator[Rig]:
    """Two honest daemons that author nothing by themselves, the coalition, and liars that do no finalizing."""
    members: dict[str, Roles] = {
        **dict.fromkeys(coalition, everything),
        **dict.fromkeys((*loners, *liars, bystander, *honest), worker),
    }
    with attacked(members, honest) as rig:
        yield rig


# -- forging ----------------------------------------------------------------------------------------------------------


def tampered(said: Event) -> Event:
    """The event with a signature that is not its author's."""
    return msgspec.structs.replace(said, signature=bytes([said.signature[0] ^ 1]) + said.signature[1:])


def respelled(name: str, said: Event) -> m.Wire:
    """The event in another spelling, really signed: a length that takes more bytes than it needs."""
    network_id = codec.decode(said.body)[1]
    body = said.body.replace(codec.encode(network_id), b"\x59\x00\x20" + network_id, 1)
    assert body != said.body
    return body, keys_of(name).sign(event.signature_context + codec.sha256(body))


def certify(enemy: Enemy, *certificates: Certificate) -> None:
    """Say certificates that nobody asked for."""
    enemy.say(m.Cert(tuple(certificate.wire() for certificate in certificates)))


def flood(enemy: Enemy, certificates: Sequence[Certificate]) -> None:
    """Say many certificates on a new connection, as fast as they are taken from who was not asked for them."""
    rate, spent = allowances["checks"], 0
    for start in range(0, len(certificates), 50):
        part = certificates[start : start + 50]
        checks = sum(signatures_in(one.wire()) for one in part)
        spent += checks
        if spent > rate.burst:
            time.sleep(checks * rate.per_ms / rate.amount / 1000)
        certify(enemy, *part)


def told(rig: Rig, who: str, to: str, *said: Event) -> None:
    """``who`` connects, pushes events, and waits until they were taken in."""
    with rig.meet(who, to) as enemy:
        enemy.tell(*said)
        becomes(lambda: holds(rig, to, said), True)


def holds(rig: Rig, name: str, said: Sequence[Event]) -> bool:
    """Whether a daemon has these in its log, live or void."""
    here = {view.event_id for view in rig.log(name)}
    return all(one.id.hex() in here for one in said)


# -- what daemons tell ------------------------------------------------------------------------------------------------


def decision(rig: Rig, name: str, task: bytes | str) -> dict[str, Any]:
    """What ``task decision`` tells of a task, known by its stream or by what a user calls it."""

    async def work(node: Node) -> dict[str, Any]:
        return tasks.decision(await node.log.task(await node.log.resolve(task) if isinstance(task, str) else task))

    return on_node(rig.places[name], work)


def forks(rig: Rig, name: str) -> list[dict[str, Any]]:
    """The forks that ``node status`` shows."""
    return on_node(rig.places[name], lambda node: views.forks(node.database))


def state_of(rig: Rig, name: str, task: bytes) -> str:
    """A task's state, as ``task decision`` tells it."""
    return str(decision(rig, name, task)["state"])


def everywhere(rig: Rig, question: Callable[..., Any], wanted: Any, *about: Any) -> None:
    """Wait until every daemon gives the wanted answer to ``question(rig, name, *about)``."""
    for name in rig.daemons:
        becomes(partial(question, rig, name, *about), wanted)


def wire_of(said: Event) -> m.Wire:
    """The event as it goes over the wire."""
    return said.body, said.signature


def status_of(rig: Rig, name: str) -> dict[str, Any]:
    """What ``node status`` tells."""
    return on_node(rig.places[name], status)


def problems(rig: Rig, name: str) -> list[RowProblem]:
    """What ``log verify`` finds wrong."""

    async def work(node: Node) -> list[RowProblem]:
        return (await verify(node.database, node.genesis_network, lambda _: None)).problems

    return on_node(rig.places[name], work)


def verdicts(rig: Rig, name: str) -> Mapping[str, tuple[str, str]]:
    """Event id -> (verdict, reason), as ``log show`` tells it."""
    return {view.event_id: (view.verdict, view.reason.partition(":")[0]) for view in rig.log(name)}


def nobody_is_scored(rig: Rig) -> None:
    """The honest are connected, and none of them holds anything against another, as of now: who comes is told."""
    for name in rig.daemons:
        with rig.meet(bystander, name):
            becomes(partial(is_told_of, rig, name), True)
        for other in rig.daemons.keys() - {name}:
            found = rig.peer(other, name)
            assert found is not None
            assert found["score"] >= 0


def is_told_of(rig: Rig, name: str) -> bool:
    """Whether a daemon has said that the bystander is connected."""
    return rig.peer(bystander, name) is not None


def sound(rig: Rig) -> None:
    """All daemons hold the same, every byte of it holds, and they are well with each other."""
    rig.level()
    nobody_is_scored(rig)
    for name in rig.daemons:
        assert problems(rig, name) == []
