"""Migrations: a database that came here step by step is the same as one made today."""

from __future__ import annotations

from typing import Any

import pytest

from sel import migrate
from sel.errors import StoreCorrupt
from sel.pool import Database
from sel.postgres import Connection
from tests.sel.stores import fresh_database

columns_of = """
SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
WHERE table_schema = current_schema() ORDER BY table_name, column_name"""
indexes_of = """
SELECT tablename, replace(indexdef, current_schema() || '.', '') FROM pg_indexes
WHERE schemaname = current_schema() ORDER BY 2"""
triggers_of = """
SELECT relname, tgname, tgtype, tgenabled FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
WHERE NOT tgisinternal AND relnamespace = current_schema()::regnamespace ORDER BY 1, 2"""


async def shape(database: Database) -> list[Any]:
    """Tables with their columns, indexes and triggers, whatever their order."""

    queries = (columns_of, indexes_of, triggers_of)

    async def work(connection: Connection) -> list[Any]:
        return [tuple(row) for query in queries for row in await connection.fetch(query)]

    return await database.run(work)


async def execute(database: Database, statement: str) -> None:
    async def work(connection: Connection) -> None:
        await connection.execute(statement)

    await database.run(work)


async def test_a_database_of_every_earlier_version_comes_to_the_shape_of_a_fresh_one(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = migrate.migrations()
    async with fresh_database(postgres_dsn) as database:
        wanted = await shape(database)
    assert wanted
    for last in range(1, len(known)):
        with monkeypatch.context() as patch:
            patch.setattr(migrate, "migrations", lambda last=last: known[:last])
            opened = fresh_database(postgres_dsn)
            database = await opened.__aenter__()
        try:
            assert await shape(database) != wanted
            await database.run(migrate.migrate)
            assert await shape(database) == wanted
        finally:
            await opened.__aexit__(None, None, None)


async def test_a_database_of_a_newer_program_is_left_alone(postgres_dsn: str) -> None:
    async with fresh_database(postgres_dsn) as database:
        await execute(database, "INSERT INTO schema_version (number, name) VALUES (9999, 'later')")
        with pytest.raises(StoreCorrupt, match="newer wattswarm"):
            await database.run(migrate.migrate)
