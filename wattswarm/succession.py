"""The daemon's part in the membership: an approval is carried through phases and rounds while the daemon runs.

It follows the log's news, with or without the autopilot, for a person has approved what it signs. Everything is found
again on the log after a restart. Keeps docs/protocol.md §9.
"""

from __future__ import annotations

import logging
import math
from contextlib import suppress

import trio
from msgspec.structs import replace

from sel import approvals
from sel.errors import StoreUnavailable
from sel.news import News
from wattswarm.kernel.event import Event
from wattswarm.kernel.intents.values import Wait
from wattswarm.kernel.refusal import Refused
from wattswarm.members import book_of, take_seat, take_turn
from wattswarm.node import Node

_log = logging.getLogger(__name__)
pause_s = 0.25
"""A busy log is looked at no more often than this."""
poll_s = 10.0
back_off_s = (1.0, 2.0, 5.0, 15.0, 60.0)


class Watch:
    """Looks at who is to follow the current version, and remembers since when nothing moved there."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._seen: object = None
        self._moved_ms = 1
        self._rests: tuple[object, float] = (None, 0)

    async def turn(self) -> float:
        """Do what is next. How long nothing can be done by itself, in seconds. Raises ``Refused``."""
        stand = await approvals.stand(self._node.database, self._node.home.genesis.network_id)
        seen, due_ms = self._rests
        if seen == stand and (left_ms := due_ms - self._node.log.clock()) > 0:
            return left_ms / 1000
        self._rests = (None, 0)
        due_s = await self._look()
        if due_s:
            self._rests = (stand, self._node.log.clock() + due_s * 1000)
        return due_s

    async def _look(self) -> float:
        seat = await take_seat(self._node)
        seen = seat.network.current.hash, book_of(seat)
        if seen != self._seen:
            self._seen, self._moved_ms = seen, seat.now_ms
        said = await take_turn(self._node, replace(seat, moved_ms=self._moved_ms))
        if isinstance(said, Wait):
            return max(0, said.until_ms - seat.now_ms) / 1000
        for event in said:
            _tell(event)
        return 0 if said else math.inf


def _tell(event: Event) -> None:
    _log.info("authored about the membership", extra={"kind": event.kind, "event_id": event.id.hex()})


async def carry_on_for_ever(node: Node) -> None:
    """Carry on what the operator approved. Raises only what is a bug, or ``StoreCorrupt``."""
    watch, failures, said = Watch(node), 0, ""
    while True:
        try:
            async with News(node.database).listen() as notices:
                while True:
                    due_s = await watch.turn()
                    failures, said = 0, ""
                    await trio.sleep(pause_s)
                    with trio.move_on_after(min(due_s, poll_s)):
                        await notices.receive()
                    with suppress(trio.WouldBlock):
                        while True:
                            notices.receive_nowait()
        except StoreUnavailable as error:
            _log.debug("the membership waits for the database", extra={"why": str(error)})
        except Refused as refusal:
            if str(refusal) != said:
                said = str(refusal)
                _log.warning("nothing can be signed about the membership; it is tried again", extra={"why": said})
        failures += 1
        await trio.sleep(back_off_s[min(failures, len(back_off_s)) - 1])
