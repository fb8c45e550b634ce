"""Events that one peer hears of, one after the other, until a node has them too, against one core's verify rate.

As in ``bench.backfill``, but the node and the peer are level at first, and then the peer's log grows: what is new is
announced, asked for, sent, checked, stored and folded. The peer stays a little ahead, so that neither waits.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import trio

from bench.backfill import Course, follow, patience_s, rate_goal, settle
from bench.figure import Figure
from bench.limits import verify_rate
from bench.peer import Served, peer, portion_events
from tests.daemons import Daemon, daemon, place
from wattswarm.config import load
from wattswarm.node import Node, open_node

event_count = int(os.environ.get("WATTSWARM_BENCH_INGEST", "20000"))
first_events = 1_300
ahead_events = 4_096
look_s = 0.02


async def grow(node: Node, served: Served, course: Course) -> None:
    """Let the peer's log grow by whole portions, and look how the node keeps up."""
    grown, wanted = served.events, served.events + event_count // portion_events * portion_events
    course.seen.append((time.perf_counter(), served.events))
    with trio.fail_after(patience_s):
        while course.seen[-1][1] < wanted:
            while grown < wanted and grown < course.seen[-1][1] + ahead_events:
                served.grow()
                grown += portion_events
            await trio.sleep(look_s)
            course.seen.append((time.perf_counter(), (await node.log.head()).events))


async def hear(state_dir: Path, served: Served) -> Course:
    """A daemon beside the peer: level at first, then as far as the peer goes."""
    flags = ("--listen", "127.0.0.1:0", "--bootstrap", served.address, "--no-autopilot")
    course = Course()
    async with open_node(load({"state_dir": str(state_dir)}, {})) as node:
        with await trio.to_thread.run_sync(partial(daemon, state_dir, *flags)) as running:
            assert isinstance(running, Daemon)
            await follow(node, running, served.events)
            await trio.sleep(1)  # the comparison after the ranges is over
            await grow(node, served, course)
    return course


async def measure(_: Path) -> list[Figure]:
    """One figure: the rate as a share of the verify rate."""
    with place() as state_dir, peer(first_events, event_count) as served:
        settle(state_dir, served.genesis)
        course = await hear(state_dir, served)
    limit = verify_rate()
    basis = f"{course.rate():.0f} events/s of {event_count:,} from one peer, {limit:.0f} verifies/s"
    return [Figure("sustained ingest / verify", course.rate() / limit, rate_goal, basis)]
