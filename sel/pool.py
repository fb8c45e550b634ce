"""The only file that knows asyncpg and trio-asyncio: whole units of work run as one asyncio coroutine.

A hop between trio and asyncio costs about a third of a millisecond, and acquiring a connection across the border
leaks it when cancelled; so work is handed over whole, acquires its connection on the asyncio side, and a
cancellation rolls its transaction back there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import asyncpg
import trio
import trio_asyncio

from sel.errors import StoreCorrupt, StoreFull, StoreUnavailable
from sel.lifetimes import single_error
from sel.migrate import migrate
from sel.postgres import Connection
from wattswarm.kernel.refusal import Refused

T = TypeVar("T")
connections_max = 6
connect_timeout_s = 20.0
unavailable = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.CannotConnectNowError,
    ConnectionError,
    OSError,
    TimeoutError,
)


class Database:
    """A pool of connections to one log's database. Made by ``open_database``."""

    def __init__(
        self, pool: Any, loop: trio_asyncio.BaseTrioEventLoop, dsn: str, revive: Callable[[], None] | None
    ) -> None:
        self._pool = pool
        self._revive = revive
        self._loop = loop
        self._kept: list[Any] = []
        self._places = trio.Semaphore(connections_max)
        self._writing = trio.Lock()
        self.dsn = dsn

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run an asyncio coroutine function on a connection of its own. Raises ``StoreUnavailable``.

        Connections are kept: taking one from the pool and giving it back costs more than a round trip.
        """

        async def whole() -> T:
            connection = await self._take()
            try:
                result = await work(connection)
            except (Refused, StoreCorrupt):
                self._kept.append(connection)
                raise
            except BaseException:
                await self._pool.release(connection)
                raise
            self._kept.append(connection)
            return result

        async with self._place():
            return await self._hop(whole)

    async def run_writing(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Like ``run``, one after the other."""
        async with self._writing:
            return await self.run(work)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        try:
            with trio.fail_after(connect_timeout_s):
                await self._places.acquire()
        except trio.TooSlowError:
            raise StoreUnavailable("no connection to the database became free") from None
        try:
            yield
        finally:
            self._places.release()

    async def _take(self) -> Connection:
        while self._kept:
            connection: Connection = self._kept.pop()
            if not _lost(connection):
                return connection
            await self._pool.release(connection)
        connection = await self._pool.acquire(timeout=connect_timeout_s)
        return connection

    async def release_kept(self) -> None:
        """Give the kept connections back (on the asyncio side)."""
        kept, self._kept = self._kept, []
        for connection in kept:
            await self._pool.release(connection)

    async def recover(self) -> None:
        """After ``StoreUnavailable``: bring an embedded server back, if there is one of ours."""
        if self._revive is not None:
            await trio.to_thread.run_sync(self._revive)

    @asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator[trio.MemoryReceiveChannel[str]]:
        """Payloads of NOTIFY on ``channel``; the newest is kept when the reader is slow. Ends if the server goes."""
        send, receive = trio.open_memory_channel[str](64)

        def heard(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
            with suppress(trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                send.send_nowait(str(payload))

        def ended(_connection: object) -> None:
            send.close()

        async def begin() -> Any:
            connection = await asyncpg.connect(self.dsn, timeout=connect_timeout_s)
            connection.add_termination_listener(ended)
            await connection.add_listener(channel, heard)
            return connection

        connection = await self._hop(begin)
        try:
            yield receive
        except trio.EndOfChannel:
            raise StoreUnavailable("the database went away while its news were followed; begin again") from None
        finally:
            with trio.CancelScope(shield=True):
                await trio_asyncio.aio_as_trio(connection.close, loop=self._loop)(timeout=2)

    async def _hop(self, work: Callable[[], Awaitable[T]]) -> T:
        try:
            result: T = await trio_asyncio.aio_as_trio(work, loop=self._loop)()
        except (Refused, StoreUnavailable, StoreCorrupt):
            raise
        except asyncpg.DataCorruptedError as error:
            raise StoreCorrupt(f"the database reports damaged data: {error}") from error
        except asyncpg.DiskFullError as error:
            said = f"the database's disk is full: {error}. Nothing was written; free some space and try again."
            raise StoreFull(said) from error
        except unavailable as error:
            raise StoreUnavailable(_reason(error)) from error
        return result


def _lost(connection: Any) -> bool:
    """Whether a kept connection has ended. One that ends while nobody uses it goes back to its pool by itself."""
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        return True


def _reason(error: BaseException) -> str:
    said = str(error) or type(error).__name__
    return f"the database cannot be reached or gave up: {said}"


async def _prepare(connection: Connection) -> None:
    await connection.execute("SET synchronous_commit = on")


async def _keep(_connection: Connection) -> None:
    """Nothing to undo between uses: work leaves no session state behind, and asking the server costs a round trip."""


@asynccontextmanager
async def open_database(dsn: str, revive: Callable[[], None] | None = None) -> AsyncIterator[Database]:
    """Connect, migrate, and serve until left. Raises ``StoreUnavailable`` if there is no answer.

    ``revive`` (blocking) restarts the server that this process looks after, if it does.
    """
    with single_error():
        async with trio_asyncio.open_loop() as loop:

            async def begin() -> Any:
                pool = await asyncpg.create_pool(
                    dsn,
                    min_size=0,
                    max_size=connections_max,
                    timeout=connect_timeout_s,
                    init=_prepare,
                    reset=_keep,
                )
                async with pool.acquire() as connection:
                    await migrate(connection)
                return pool

            try:
                pool = await trio_asyncio.aio_as_trio(begin, loop=loop)()
            except asyncpg.InvalidCatalogNameError as error:
                raise StoreUnavailable(f"the database does not exist: {error}") from error
            except asyncpg.InvalidAuthorizationSpecificationError as error:
                raise StoreUnavailable(f"the database refuses the login: {error}") from error
            except (*unavailable, ValueError) as error:
                raise StoreUnavailable(_reason(error)) from error
            database = Database(pool, loop, dsn, revive)

            async def end() -> None:
                await database.release_kept()
                await pool.close()

            try:
                yield database
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(5):
                    await trio_asyncio.aio_as_trio(end, loop=loop)()
