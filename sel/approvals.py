"""What the operator of this node approved: membership versions that it may sign (docs/protocol.md §9).

Kept beside the log, for it is between a node and its operator; what the node then signs is on the log.
"""

from __future__ import annotations

from sel.postgres import Connection, Database
from sel.queries import named

sql = named("approvals")


async def approve(database: Database, membership_hash: bytes) -> None:
    """Remember that the operator approved a version; it is the newest approval from here on."""

    async def work(connection: Connection) -> None:
        await connection.execute(sql["approve"], membership_hash)

    await database.run(work)


async def approved(database: Database) -> list[bytes]:
    """The hashes of the versions that the operator approved, the newest last."""

    async def work(connection: Connection) -> list[bytes]:
        return [row[0] for row in await connection.fetch(sql["approved"])]

    return await database.run(work)


async def stand(database: Database, network_id: bytes) -> tuple[object, ...]:
    """Everything that this node's next step about the membership follows from but the time: equal if it is the same."""

    async def work(connection: Connection) -> tuple[object, ...]:
        return tuple(await connection.fetchrow(sql["stand"], network_id))

    return await database.run(work)
