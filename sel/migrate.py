"""Numbered migrations (``migrations/NNNN_name.sql``), each applied once, in its own transaction, under one lock."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from sel.errors import StoreCorrupt
from sel.postgres import Connection

advisory_lock = 0x57415454


@cache
def migrations() -> tuple[tuple[int, str, str], ...]:
    """(number, name, SQL), in order, numbered from 1 without gaps."""
    found = sorted(path.name for path in (files("sel") / "migrations").iterdir() if path.name.endswith(".sql"))
    for index, name in enumerate(found, 1):
        assert name.startswith(f"{index:04d}_"), f"migration {name} breaks the numbering"
    return tuple(
        (index, name, (files("sel") / "migrations" / name).read_text(encoding="utf-8"))
        for index, name in enumerate(found, 1)
    )


async def migrate(connection: Connection) -> None:
    """Bring the database to this version's schema. Raises ``StoreCorrupt`` if a newer version made it."""
    known = len(migrations())
    if await connection.fetchval("SELECT to_regclass('schema_version')") is not None:
        at = await connection.fetchval("SELECT max(number) FROM schema_version")
        if at == known:
            return
        if at is not None and at > known:
            raise StoreCorrupt(
                f"the database has schema version {at}, this program knows up to {known}: it was used by a newer "
                "wattswarm; use that version, or another database"
            )
    await connection.execute("SELECT pg_advisory_lock($1)", advisory_lock)
    try:
        await _apply_missing(connection)
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", advisory_lock)


async def _apply_missing(connection: Connection) -> None:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_version ("
        "number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    done = await connection.fetchval("SELECT coalesce(max(number), 0) FROM schema_version")
    for number, name, sql in migrations()[done:]:
        async with connection.transaction():
            await connection.execute(sql)
            await connection.execute("INSERT INTO schema_version (number, name) VALUES ($1, $2)", number, name)
