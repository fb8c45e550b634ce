"""Faults of a cluster, each as a block: it breaks when entered and is mended when left, however that happens.

A host is had by one fault of its own at a time (``Host.busy``): what finds all its hosts taken does not happen. Wires
break and mend beside all that.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from netsim.cluster.host import Host, kill_postgres
from netsim.cluster.places import fill_disk, free_disk
from netsim.cluster.plan import Strike
from netsim.cluster.seat import Seat
from netsim.cluster.wires import Wires

Fault = Callable[["Struck", Strike], AbstractAsyncContextManager[None]]
of_the_wires = ("partition", "one_way", "reset")
reset_s_min = 2.0
"""Only what is sent meets a reset, and an idle connection sends little."""
says_full = ("disk is full", "No space left")
full_s_min = 10.0
"""A disk that was full for less may never have been written to."""


@dataclass(frozen=True)
class Struck:
    """What a fault has to do with: the hosts that it has, what sits beside their daemons, the wires, an operator.

    ``later`` runs something that may take longer than the fault. ``wrong`` is told what does not hold.
    """

    hosts: Sequence[Host]
    seats: Sequence[Seat]
    wires: Wires
    later: Callable[[Callable[[], Awaitable[object]]], None]
    wrong: Callable[[str], None]

    async def each(self, what: Callable[[Host], Awaitable[object]]) -> None:
        """Do something to all hosts at once."""
        async with trio.open_nursery() as nursery:
            for host in self.hosts:
                nursery.start_soon(partial(what, host))


@asynccontextmanager
async def _partition(struck: Struck, strike: Strike) -> AsyncIterator[None]:
    out = struck.wires.out_of(strike.hosts)
    async with struck.wires.cut([*out, *((there, here) for here, there in out)], "silent"):
        yield


@asynccontextmanager
async def _one_way(struck: Struck, strike: Strike) -> AsyncIterator[None]:
    async with struck.wires.cut(struck.wires.out_of(strike.hosts), "silent"):
        yield


@asynccontextmanager
async def _reset(struck: Struck, strike: Strike) -> AsyncIterator[None]:
    others = [(here, there) for here in strike.hosts for there in range(struck.wires.size) if here != there]
    async with struck.wires.cut([*others, *((there, here) for here, there in others)], "reset"):
        await trio.sleep(reset_s_min)
        yield


@asynccontextmanager
async def _crash(struck: Struck, _strike: Strike) -> AsyncIterator[None]:
    await struck.each(Host.crash)
    yield
    await struck.each(Host.begin)


@asynccontextmanager
async def _stall(struck: Struck, _strike: Strike) -> AsyncIterator[None]:
    for host in struck.hosts:
        host.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for host in struck.hosts:
            host.signal(signal.SIGCONT)


@asynccontextmanager
async def _wipe(struck: Struck, _strike: Strike) -> AsyncIterator[None]:
    await _stopped(struck)
    await struck.each(Host.lose_log)
    yield
    await _return(struck)


@asynccontextmanager
async def _restore(struck: Struck, _strike: Strike) -> AsyncIterator[None]:
    await _stopped(struck)
    copies = {host.name: await host.save() for host in struck.hosts}
    await _begun(struck)
    yield
    await _stopped(struck)
    for host in struck.hosts:
        await host.put_back(copies[host.name])
    await _return(struck)


async def _stopped(struck: Struck) -> None:
    """Nothing of theirs uses the state directory any more."""
    for seat in struck.seats:
        await seat.leave()
    await struck.each(Host.stop_recovering)
    await struck.each(Host.crash)


async def _begun(struck: Struck) -> None:
    await struck.each(Host.begin)
    for seat in struck.seats:
        seat.open()


async def _return(struck: Struck) -> None:
    """They begin again, and their operators have them get their chains back."""
    await _begun(struck)
    for host in struck.hosts:
        host.put_back_once = True
        struck.later(host.recover)


@asynccontextmanager
async def _skew(struck: Struck, strike: Strike) -> AsyncIterator[None]:
    skews = dict(zip(strike.hosts, strike.skews_ms, strict=True))

    async def wrong(host: Host) -> None:
        await host.set_clock(skews[int(host.name[1:])])

    await struck.each(wrong)
    yield
    await struck.each(partial(Host.set_clock, skew_ms=0))


@asynccontextmanager
async def _postgres(struck: Struck, _strike: Strike) -> AsyncIterator[None]:
    for host in struck.hosts:
        kill_postgres(host.path)
    yield


@asynccontextmanager
async def _disk_full(struck: Struck, _strike: Strike) -> AsyncIterator[None]:
    """Nothing more has room; the daemon has to say so, and to go on when there is some again."""
    disks = [host.path.parent for host in struck.hosts]
    for host, disk in zip(struck.hosts, disks, strict=True):
        host.mark()
        await trio.to_thread.run_sync(fill_disk, disk)
    began = trio.current_time()
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            for disk in disks:
                await trio.to_thread.run_sync(free_disk, disk)
    if trio.current_time() - began >= full_s_min:
        for host in struck.hosts:
            if not any(words in host.said() for words in says_full):
                struck.wrong(f"{host.name} did not say that its disk was full")


kinds: dict[str, Fault] = {
    "partition": _partition,
    "one_way": _one_way,
    "reset": _reset,
    "crash": _crash,
    "wipe": _wipe,
    "restore": _restore,
    "stall": _stall,
    "skew": _skew,
    "postgres": _postgres,
    "disk_full": _disk_full,
}
"""What breaks, and how it is mended."""
