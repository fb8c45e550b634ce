"""What lies between the hosts of a cluster, and how it breaks: ways are cut, silently or with a reset, and mended.

Several faults may cut the same way: it is open again when the last of them is over.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from netsim.cluster.lan import Cut, Cuts


class Between(Protocol):
    """What carries between hosts. Both block."""

    def let(self, cuts: Cuts) -> None: ...
    def sent_bytes(self, host: int) -> int: ...


class Wires:
    """The ways between hosts; ``between`` is told which are cut now."""

    def __init__(self, between: Between, size: int) -> None:
        self.between, self.size = between, size
        self._cuts: list[Cuts] = []
        self._telling = trio.Lock()

    @asynccontextmanager
    async def cut(self, ways: Iterable[tuple[int, int]], how: Cut) -> AsyncIterator[None]:
        """Cut as long as the block lasts."""
        mine = dict.fromkeys(ways, how)
        self._cuts.append(mine)
        try:
            await self._tell()
            yield
        finally:
            self._cuts = [cuts for cuts in self._cuts if cuts is not mine]
            with trio.CancelScope(shield=True):
                await self._tell()

    async def _tell(self) -> None:
        async with self._telling:
            both: dict[tuple[int, int], Cut] = {}
            for cuts in sorted(self._cuts, key=lambda cuts: "silent" in cuts.values()):
                both |= cuts
            await trio.to_thread.run_sync(self.between.let, both)

    def out_of(self, hosts: Iterable[int]) -> list[tuple[int, int]]:
        """The ways from these hosts to all others."""
        inside = set(hosts)
        return [(here, there) for here in sorted(inside) for there in range(self.size) if there not in inside]
