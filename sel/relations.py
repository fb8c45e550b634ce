"""What this node's operator wants of other nodes, and which of them asked to be friends (docs/network.md §2).

Commands write it here, and the daemon follows: NOTIFY says that there is something new, numbers say what. It is kept
beside the log, for it is between a node and its operator.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sel.postgres import Connection, Database
from sel.queries import named

sql = named("relations")
channel = "wattswarm_peers"
places_max = 512
Wish = Literal["", "yes", "no"]


class RelationRow(NamedTuple):
    """How this node and another stand. ``number``: of the operator's newest order; ``asked``: the other's wish."""

    node_id: bytes
    number: int
    wish: Wish
    asked: bool

    @property
    def state(self) -> str:
        """In one word for people."""
        if self.wish == "yes":
            return "friend" if self.asked else "asked"
        return "asks you" if self.asked and not self.wish else ""


class PlaceRow(NamedTuple):
    """An address, or a node id in hex, that is to be dialled, or not to be."""

    about: str
    number: int
    wanted: bool


@dataclass(frozen=True, slots=True)
class Orders:
    """All that there is, the newest order last."""

    relations: list[RelationRow]
    places: list[PlaceRow]


async def read(database: Database) -> Orders:
    """What the operator ordered, and what became of it."""

    async def work(connection: Connection) -> Orders:
        relations = [RelationRow(*row) for row in await connection.fetch(sql["relations"])]
        return Orders(relations, [PlaceRow(*row) for row in await connection.fetch(sql["places"])])

    return await database.run(work)


async def order_friend(database: Database, node_id: bytes, wish: Wish) -> None:
    """The operator wants a node for a friend, or no more."""

    async def work(connection: Connection) -> None:
        await connection.execute(sql["order_friend"], node_id, wish)

    await _telling(database, work)


async def order_place(database: Database, about: str, wanted: bool) -> None:
    """The operator wants an address or a node dialled, or no more. The oldest orders above 512 are forgotten."""

    async def work(connection: Connection) -> None:
        await connection.execute(sql["order_place"], about, wanted)
        await connection.execute(sql["forget_places"], places_max)

    await _telling(database, work)


async def _telling(database: Database, work: Callable[[Connection], Awaitable[None]]) -> None:
    """Do it, and tell the daemon."""

    async def whole(connection: Connection) -> None:
        async with connection.transaction():
            await work(connection)
            await connection.execute(sql["tell"])

    await database.run(whole)


async def relate(database: Database, row: RelationRow) -> None:
    """Keep what the daemon knows of a node; nothing wished and nothing asked is not kept."""

    async def work(connection: Connection) -> None:
        if row.wish or row.asked:
            await connection.execute(sql["relate"], *row)
        else:
            await connection.execute(sql["forget_relation"], row.node_id, row.number)

    await database.run(work)
