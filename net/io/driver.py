"""Performs what the machine says: links, questions, intake and timers around the pure machine (docs/network.md §1).

One nursery owns all of it. The machine is fed from many tasks and never waits, so no lock is needed; what it asks for
runs beside it and comes back as an input. What several peers sent at one time is stored together.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import trio

from net.io.ports import DialFailed, Line, LineClosed, LogPort, Outside
from net.proto import values
from net.proto.draw import Draw
from net.proto.lanes import Lanes
from net.proto.machine import Machine, Ways
from net.proto.values import (
    Admit,
    Answered,
    Ask,
    ClockSet,
    Close,
    Closed,
    Dial,
    Ingest,
    Ingested,
    Input,
    Link,
    Misframed,
    Opened,
    Output,
    Received,
    Relate,
    Report,
    Send,
    Shout,
    Wake,
    Woke,
)

_log = logging.getLogger(__name__)
intake_events_max = 1_536
intake_waiting_max = 256
intakes_at_once = 3
questions_at_once = 16
goodbye_s = 1.0
clock_step_ms = 250
lull_s = 0.005
"""How long the log is left alone after its news were read: what is noticed meanwhile is read at once."""


class _Ending:
    """One line's queue, and what wakes its writer."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.lanes = Lanes()
        self.wake = trio.Event()
        self.ended = trio.Event()

    def end(self) -> None:
        """Send what waits, then close."""
        self.ended.set()
        self.wake.set()


async def _cut(ending: _Ending, whole: trio.CancelScope) -> None:
    """End what does not drain, a moment after it should have ended."""
    await ending.ended.wait()
    await trio.sleep(goodbye_s)
    whole.cancel()


class Driver:
    """One node on the network. Made by ``open_driver``; ``serve`` is called for every connection."""

    def __init__(
        self, machine: Machine, log_port: LogPort, outside: Outside, clock: Callable[[], int], nursery: trio.Nursery
    ) -> None:
        self.machine = machine
        self._outside = outside
        self._log_port = log_port
        self._clock = clock
        self._nursery = nursery
        self._lines: dict[Link, _Ending] = {}
        self._next = 0
        self._send_intake, self._intake = trio.open_memory_channel[Ingest](intake_waiting_max)
        self._questions = trio.CapacityLimiter(questions_at_once)
        self._timer = trio.Event()
        self._wake_ms: int | None = None
        self._reading = trio.Lock()
        self._began_ms = self._apart_ms()

    # -- links ------------------------------------------------------------------------------------------------------

    async def serve(self, line: Line) -> None:
        """Speak on a connection until it ends, whoever ends it."""
        self._next += 1
        link, ending = self._next, _Ending(line)
        self._lines[link] = ending
        self.feed(Opened(link, line.address, line.server_id))
        try:
            with suppress(LineClosed):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, ending, nursery.cancel_scope)
                    nursery.start_soon(_cut, ending, nursery.cancel_scope)
                    await self._read(link, line)
        except* LineClosed:
            pass
        finally:
            self._lines.pop(link, None)
            self.feed(Closed(link))
            with trio.move_on_after(goodbye_s, shield=True):
                await line.aclose()

    async def _read(self, link: Link, line: Line) -> None:
        try:
            while True:
                self.feed(Received(link, await line.receive()))
        except LineClosed as closed:
            if closed.how and link in self._lines:
                self.feed(Misframed(link, closed.how))
            raise

    async def _write(self, ending: _Ending, whole: trio.CancelScope) -> None:
        while True:
            frame = ending.lanes.take()
            if frame is not None:
                await ending.line.send(frame)
            elif ending.ended.is_set():
                whole.cancel()
                return
            else:
                ending.wake = trio.Event()
                await ending.wake.wait()

    # -- the machine --------------------------------------------------------------------------------------------------

    def feed(self, given: Input) -> None:
        """One input, and what follows from it at once."""
        for output in self.machine.handle(given, self._clock()):
            self._perform(output)

    def _perform(self, output: Output) -> None:
        match output:
            case Send(link, lane, frame, dropping) if link in self._lines:
                ending = self._lines[link]
                if not ending.lanes.put(lane, frame, dropping=dropping):
                    ending.end()
                ending.wake.set()
            case Close(link) if link in self._lines:
                self._lines[link].end()
            case Admit(link) if link in self._lines:
                self._lines[link].line.authenticated()
            case Ask():
                self._nursery.start_soon(self._answer, output)
            case Ingest():
                self._take(output)
            case Wake(at_ms):
                self._wake_ms = at_ms
                self._timer.set()
            case Dial():
                self._nursery.start_soon(self._dial, output)
            case Shout(datagram):
                self._nursery.start_soon(self._outside.shout, datagram)
            case Relate():
                self._nursery.start_soon(self._outside.relate, output)
            case Report():
                _log.info(output.what, extra={"about": output.about, "detail": output.detail})

    def _take(self, given: Ingest) -> None:
        try:
            self._send_intake.send_nowait(given)
        except trio.WouldBlock:
            self.feed(Ingested(given.token, ()))

    async def _dial(self, wanted: Dial) -> None:
        try:
            async with self._outside.dial(wanted.address, wanted.node_id) as line:
                await self.serve(line)
        except DialFailed as error:
            _log.debug("dial failed", extra={"address": wanted.address, "why": str(error)})
            self.feed(values.DialFailed(wanted.address))

    async def _answer(self, asked: Ask) -> None:
        async with self._questions:
            answer = await self._log_port.answer(asked.question)
        self.feed(Answered(asked.token, answer))

    # -- what runs beside it ------------------------------------------------------------------------------------------

    async def keep_time(self) -> None:
        """Say when the time has come; the first time is now."""
        self.feed(Woke())
        while True:
            self._timer = trio.Event()
            wait_s = math.inf if self._wake_ms is None else max(0, self._wake_ms - self._clock()) / 1000
            with trio.move_on_after(wait_s):
                await self._timer.wait()
                continue
            self._wake_ms = None
            self._look_at_the_clock()
            self.feed(Woke())

    def _apart_ms(self) -> int:
        """The host's time less the time that only passes."""
        return self._clock() - int(trio.current_time() * 1000)

    def _look_at_the_clock(self) -> None:
        """Tell the machine if the host's clock was set since the last time."""
        apart_ms = self._apart_ms()
        if abs(apart_ms - self._began_ms) > clock_step_ms:
            by_ms, self._began_ms = apart_ms - self._began_ms, apart_ms
            self.feed(ClockSet(by_ms))

    async def take_in(self) -> None:
        """Store what came, several peers' at a time. More than one does it: what came next is checked meanwhile."""
        async for first in self._intake:
            batch, size = [first], len(first.events)
            while size < intake_events_max:
                try:
                    batch.append(self._intake.receive_nowait())
                except trio.WouldBlock:
                    break
                size += len(batch[-1].events)
            for asked in (False, True):
                some = [given for given in batch if given.asked == asked]
                if some:
                    await self._store(some, asked)

    async def _store(self, batch: Sequence[Ingest], asked: bool) -> None:
        events = [wire for given in batch for wire in given.events]
        certificates = [wire for given in batch for wire in given.certificates]
        done = await self._log_port.intake(events, certificates, asked=asked)
        await self.read_news()
        at = 0
        for given in batch:
            fates = done.fates[at : at + len(given.events)]
            at += len(given.events)
            certified = bool(given.certificates)
            self.feed(Ingested(given.token, fates, done.bad * certified, done.waiting * certified))

    async def follow(self) -> None:
        """Tell the machine what others of this host's processes wrote."""
        async with self._log_port.notices() as notices:
            await self.read_news()
            async for _ in notices:
                with suppress(trio.WouldBlock):
                    while True:
                        notices.receive_nowait()
                await self.read_news()
                await trio.sleep(lull_s)

    async def read_news(self) -> None:
        """Tell the machine what the log has now."""
        async with self._reading:
            for news in await self._log_port.news():
                self.feed(news)


@asynccontextmanager
async def open_driver(
    log_port: LogPort, outside: Outside, ways: Ways, draw: Draw, clock: Callable[[], int]
) -> AsyncIterator[Driver]:
    """A node on the network until left; connections are brought to it by ``serve``. ``clock``: unix ms."""
    stock = await log_port.stock()
    machine = Machine(ways, stock, draw, clock())
    async with trio.open_nursery() as nursery:
        driver = Driver(machine, log_port, outside, clock, nursery)
        nursery.start_soon(driver.keep_time)
        for _ in range(intakes_at_once):
            nursery.start_soon(driver.take_in)
        nursery.start_soon(driver.follow)
        yield driver
        nursery.cancel_scope.cancel()
