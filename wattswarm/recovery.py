"""``node recover`` on one host: when the author guard says no, what is known, and how to go on (docs/protocol.md §7).

On a network with other members the chain must be fetched from them first; here only the node that is alone on its
network can be recovered, because then nobody else can hold events of its chain that this database lacks.
"""

from __future__ import annotations

from dataclasses import dataclass

from sel.guard import AuthorGuard, Slot
from sel.log import Log
from sel.store import Txn
from wattswarm.kernel import chain
from wattswarm.kernel.event import parse
from wattswarm.kernel.refusal import Refused


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """``seq``, ``event_id``: the chain's head in the database. ``unfinished``: signed events that it lacks."""

    needed: bool
    why: str
    seq: int
    event_id: bytes | None
    unfinished: int
    slot: Slot | None


async def _head(log: Log) -> chain.Head:
    async def work(txn: Txn) -> chain.Head:
        line = (await txn.chains([log.keys.node_id])).get(log.keys.node_id)
        return line.head if line else chain.Head()

    return await log.read(work)


async def diagnose(log: Log, guard: AuthorGuard) -> Diagnosis:
    """Whether authoring is refused, and why."""
    head = await _head(log)
    slot = guard.newest()
    try:
        guard.confirm(head.seq, head.id)
    except Refused as refusal:
        unfinished = 0
        if slot is not None and slot.batch and (head.seq, head.id) == (slot.base_seq, slot.base_id):
            unfinished = len(slot.batch)
        return Diagnosis(True, refusal.message, head.seq, head.id, unfinished, slot)
    return Diagnosis(False, "", head.seq, head.id, 0, slot)


async def make_writer(log: Log, guard: AuthorGuard, found: Diagnosis) -> None:
    """Insert what was signed and is not here, and begin a new guard at the chain's head.

    Raises ``Refused`` if other members could hold more of the chain, if the guard knows of events that are neither
    in the database nor in the guard, or if the two know different chains.
    """
    others = log.network.authors - {log.keys.node_id}
    if others:
        raise Refused(
            "recover_from_members",
            f"this network has {len(others)} other members, who may hold newer events of this node's chain; "
            "import an export of one of them first (`wattswarm log import`), on a node of this network that has them",
        )
    slot = found.slot
    if slot is not None:
        await _check_one_chain(log, slot)
    if slot is not None and slot.end[0] > found.seq and not found.unfinished:
        raise Refused(
            "events_lost",
            f"the author guard knows events up to {slot.end[0]}, the database ends at {found.seq}: import an export "
            "that has them (`wattswarm log import FILE`), or begin anew in another --state-dir",
        )
    if slot is not None and found.unfinished:
        await log.ingest([parse(body, signature, log.network.network_id) for body, signature in slot.batch])
    head = await _head(log)
    guard.create(head.seq, head.id)


async def _check_one_chain(log: Log, slot: Slot) -> None:
    """What the guard knows and what the database holds must be one chain. Raises ``Refused`` if it is a fork."""
    me = log.keys.node_id
    known = {(me, seq): name for seq, name in ((slot.base_seq, slot.base_id), slot.end) if name is not None}

    async def work(txn: Txn) -> dict[tuple[bytes, int], bytes]:
        return await txn.ids_at(list(known))

    for place, held in (await log.read(work)).items():
        if held != known[place]:
            raise Refused(
                "two_chains",
                f"this key has signed two events {place[1]}: the author guard knows {known[place].hex()[:16]}…, the "
                f"database holds {held.hex()[:16]}…. Two hosts have used it; the way back is a new key, in another "
                "--state-dir",
            )
