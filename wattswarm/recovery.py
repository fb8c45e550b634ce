"""A node that comes back: when the author guard says no, what must be known, and how to go on (docs/protocol.md §7).

What this node signed and its database lacks, others may hold. So members are asked how far they hold its chain, what
is missing comes by ordinary sync, and only then does this host become the chain's writer again; what it may have
signed besides, it does not sign anew: a fence keeps it from that for ever. A node alone on its network has nobody to
ask. Who is connected is handed in, as ``wattswarm.daemon.Neighbours.peers`` tells it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from sel.errors import StoreUnavailable
from sel.guard import AuthorGuard, Slot
from sel.log import Log
from sel.rows import Chain, Fence
from sel.store import Txn
from wattswarm.kernel import chain, hlc
from wattswarm.kernel.event import parse
from wattswarm.kernel.limits import clock_skew_tolerance_ms
from wattswarm.kernel.membership import Membership, threshold
from wattswarm.kernel.refusal import Refused

_log = logging.getLogger(__name__)
Peers = Callable[[], Sequence[dict[str, Any]]]
look_s = 0.2
mended_look_s = 1.0
first_word_s_max = 10.0
"""How long a daemon to which no member is connected waits before it authors all the same."""
word_s_max = 60.0
"""How long it waits for events of its own that a member says there are."""
quiet_s = 2.0
"""How long nothing more of its chain has to come before a node believes that it is whole: where connections come back,
they do so everywhere, and who was asked may just be learning of more."""
told_s = 1.0
"""A wait that is shorter is not worth telling: connections come to be."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """``seq``, ``event_id``: the chain's head in the database. ``unfinished``: signed events that it lacks."""

    needed: bool
    why: str
    seq: int
    event_id: bytes | None
    unfinished: int
    slot: Slot | None

    @property
    def lacks(self) -> bool:
        """Whether the guard knows of events that neither it nor the database holds."""
        return self.slot is not None and self.slot.end[0] > self.seq and not self.unfinished


async def _chain(log: Log) -> Chain:
    async def work(txn: Txn) -> Chain:
        return (await txn.chains([log.keys.node_id])).get(log.keys.node_id) or Chain(chain.Head())

    return await log.read(work)


async def diagnose(log: Log, guard: AuthorGuard) -> Diagnosis:
    """Whether authoring is refused, and why."""
    head = (await _chain(log)).head
    slot = guard.newest()
    try:
        guard.confirm(head.seq, head.id)
    except Refused as refusal:
        unfinished = 0
        if slot is not None and slot.batch and (head.seq, head.id) == (slot.base_seq, slot.base_id):
            unfinished = len(slot.batch)
        return Diagnosis(True, refusal.message, head.seq, head.id, unfinished, slot)
    return Diagnosis(False, "", head.seq, head.id, 0, slot)


# -- members are asked ---------------------------------------------------------------------------------------------


def others_of(membership: Membership, me: bytes) -> frozenset[bytes]:
    """The members who may hold events of this node's chain."""
    return frozenset(membership.members.keys() - {me})


def enough(membership: Membership, me: bytes) -> int:
    """How many others to ask: with this node as many as decide, so that what as many held before is at an honest one.

    All of them where nothing is decided without this node.
    """
    others, finalizers = len(others_of(membership, me)), membership.having("finalizer")
    if me in finalizers and membership.finality_threshold == len(finalizers):
        return others
    return min(others, threshold(len(membership.members), membership.fault_model) - 1)


def words(peers: Sequence[dict[str, Any]], membership: Membership) -> dict[bytes, int]:
    """How far the members that are connected hold this node's chain, of those that said so."""
    told = {bytes.fromhex(peer["node_id"]): peer.get("own_seq") for peer in peers}
    return {node_id: held for node_id, held in told.items() if held is not None and node_id in membership.members}


class Quiet:
    """Since when a chain has been as it is."""

    def __init__(self) -> None:
        self._seq: int | None = None
        self._since = 0.0

    def lasts(self, seq: int, now: float, *, disturbed: bool) -> float:
        """How long the chain has ended at ``seq`` by ``now``, undisturbed, in the unit of ``now``."""
        if disturbed or seq != self._seq:
            self._seq, self._since = seq, now
        return now - self._since


async def ask_members(
    log: Log, guard: AuthorGuard, peers: Peers, most: int | None, tell: Callable[[str], None]
) -> frozenset[bytes]:
    """Wait until ``most`` other members (None: enough) hold no more of this node's chain than is here; who they are.

    For 2 s nothing more may have come: what a member has besides comes by ordinary sync. Where the guard knows of
    events that nobody gave yet, all are asked. ``tell`` hears what is waited for.
    """
    asked: frozenset[bytes] = frozenset()
    said = ""
    quiet = Quiet()
    while True:
        await log.refresh()
        current, me = log.network.current, log.keys.node_id
        others, found = others_of(current, me), await diagnose(log, guard)
        told = words(peers(), current)
        asked = (asked | {node_id for node_id, held in told.items() if held <= found.seq}) & others
        wanted = len(others) if found.lacks else enough(current, me)
        wanted = wanted if most is None else min(most, len(others))
        few = len(asked) < wanted
        waited_s = quiet.lasts(found.seq, trio.current_time(), disturbed=few)
        whole = not found.needed and max(told.values(), default=-1) <= found.seq
        if waited_s >= quiet_s or whole or not wanted:
            return asked
        knows = f", its guard knows of event {found.slot.end[0]}" if found.lacks and found.slot else ""
        awaited = f"{wanted}" if few else f"{quiet_s:g} s without more"
        now = (
            f"{len(asked)} of {len(others)} other members asked, waiting for {awaited}; this node's chain is here up "
            f"to event {found.seq}{knows}"
        )
        if now != said:
            tell(now)
            said = now
        await trio.sleep(look_s)


async def until_may_author(log: Log, state_dir: Path, peers: Peers, tell: Callable[[str], None]) -> None:
    """Wait, at a daemon's start, for one member's word on this node's chain, and for a guard that agrees.

    A guard and a database that went back together (a snapshot) agree: only others know more. Whoever cannot reach
    anybody authors after a while all the same. ``tell`` hears what is waited for. Raises nothing but bugs, and
    ``StoreCorrupt``.
    """
    began, said = trio.current_time(), ""
    while True:
        waited_s = trio.current_time() - began
        try:
            waits = await _waits_for_word(log, peers(), waited_s)
            with AuthorGuard(state_dir) as guard:
                found = await diagnose(log, guard)
        except StoreUnavailable:
            await trio.sleep(mended_look_s)
            continue
        why = found.why if found.needed else waits
        if not why:
            return
        if why != said and (found.needed or waited_s >= told_s):
            said = why
            tell(why)
            _log.warning("nothing is authored", extra={"why": why})
        await trio.sleep(mended_look_s if found.needed else look_s)


async def _waits_for_word(log: Log, peers: Sequence[dict[str, Any]], waited_s: float) -> str:
    """What members have not said yet, for people; empty if no word is waited for."""
    await log.refresh()
    current, me = log.network.current, log.keys.node_id
    if not others_of(current, me) or me not in current.members:
        return ""
    told, here = words(peers, current), (await _chain(log)).head.seq
    if told and max(told.values()) <= here:
        return ""
    connected = any(bytes.fromhex(peer["node_id"]) in current.members for peer in peers)
    if waited_s >= (word_s_max if connected else first_word_s_max):
        return ""
    if told:
        return f"nothing is authored yet: a member holds this node's chain up to {max(told.values())}, here is {here}"
    so_far = "has said how far it holds this node's chain" if connected else "is connected that knows this node's chain"
    return f"nothing is authored yet: no member {so_far}"


# -- and this host writes on ---------------------------------------------------------------------------------------


async def make_writer(log: Log, guard: AuthorGuard, asked: frozenset[bytes] = frozenset()) -> Diagnosis:
    """Insert what was signed and is not here, raise a fence, and begin a new guard at the chain's head.

    ``asked``: the members that were. Raises ``Refused`` if the guard knows of events that are neither in the database
    nor in the guard, or if two chains of this key are known. What was found; ``needed`` False: nothing was to be done.
    """
    found = await diagnose(log, guard)
    if not found.needed:
        return found
    line, slot = await _chain(log), found.slot
    if slot is not None:
        await _check_one_chain(log, slot)
    if line.void_from is not None:
        raise Refused(
            "author_void",
            f"this node's chain is void from event {line.void_from} on (a fork, or removal from the membership): the "
            "way back is a new key, in another --state-dir",
        )
    if slot is not None and found.lacks:
        raise Refused(
            "events_lost",
            f"the author guard knows events up to {slot.end[0]}, the database ends at {found.seq}: connect a member or "
            "import an export that has them (`wattswarm log import FILE`), or begin anew in another --state-dir",
        )
    if slot is not None and found.unfinished:
        await log.ingest([parse(body, signature, log.network.network_id) for body, signature in slot.batch])
    await log.raise_fence(await _fence(log, asked))
    head = (await _chain(log)).head
    guard.create(head.seq, head.id)
    return found


async def _fence(log: Log, asked: frozenset[bytes]) -> Fence:
    """Whatever was created by now, by any clock that this node believed, and every version that is known by now."""
    latest_ms = max(log.clock(), hlc.wall_ms((await log.head()).max_hlc))
    current = log.network.current
    unasked = others_of(current, log.keys.node_id) - asked
    return Fence(latest_ms + clock_skew_tolerance_ms, current.number if unasked else -1)


def told_fence(fence: Fence) -> str:
    """What a recovered node does not sign, for people; empty if nothing."""
    if fence.until_ms < 0:
        return ""
    when = datetime.fromtimestamp(fence.until_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    members = (
        ""
        if fence.membership < 0
        else f", no signature about successors of membership versions up to {fence.membership}"
    )
    return f"no finality vote on tasks created before {when}{members}"


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
