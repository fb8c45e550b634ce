"""Five real daemons, each with a Postgres of its own: how often an event comes, and how long until the last has it.

One process authors as each of the five in turn, over the log that it shares with the daemon, as a command would. The
clock runs from the call to the moment when the last of the other logs tells of the event. Copies: as the daemons count
what came from their peers.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from bench.figure import Figure
from bench.gossip import copies_goal, last_ms_goal
from bench.latency import percentile
from sel.news import Mark, News
from tests.daemons import contract
from tests.swarms import meshed, open_swarm
from wattswarm import tasks
from wattswarm.config import load
from wattswarm.daemon import refresh_s
from wattswarm.node import Node, now_ms, open_node

daemon_count = 5
events_a_second = 10.0
event_count = int(os.environ.get("WATTSWARM_BENCH_MESH", "200"))
patience_s = 120.0


class Watched:
    """A log, and when each event was seen in it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.seen_s: dict[bytes, float] = {}

    async def watch(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the log's news."""
        news = News(self.node.database)
        async with news.listen() as notices:
            mark: Mark = (await news.open_tasks())[0]
            task_status.started()
            async for _ in notices:
                found = await news.changed(mark)
                mark, seen_s = found.mark, time.perf_counter()
                for ids in found.events.values():
                    for event_id in ids:
                        self.seen_s.setdefault(event_id, seen_s)


def came(places: list[Path], since_ms: int) -> int | None:
    """Events that came to all daemons together, if they said so after a moment."""
    said = [json.loads((where / "node_state.json").read_bytes()) for where in places]
    if any(one["refreshed_at"] < since_ms for one in said):
        return None
    return sum(int(peer["events"]) for one in said for peer in one["peers"])


async def counted(places: list[Path]) -> int:
    """The same, when all have said it."""
    since_ms = now_ms()
    with trio.fail_after(3 * refresh_s):
        while (count := came(places, since_ms)) is None:
            await trio.sleep(0.5)
    return count


async def speak(watched: list[Watched]) -> dict[bytes, float]:
    """Author by all in turn; when each call began, by event."""
    start_s, began = trio.current_time(), dict[bytes, float]()
    for number in range(event_count):
        await trio.sleep_until(start_s + number / events_a_second)
        call_s = time.perf_counter()
        created, _ = await tasks.submit(watched[number % daemon_count].node.log, contract(f"mesh-{number}"))
        began[created.id] = call_s
    with trio.fail_after(patience_s):
        while any(event_id not in one.seen_s for one in watched for event_id in began):
            await trio.sleep(0.05)
    return began


async def measure(_: Path) -> list[Figure]:
    """Two figures: copies, and the time to the last."""
    with open_swarm(daemon_count, executors=False, flags=("--no-autopilot",)) as swarm:
        await trio.to_thread.run_sync(meshed, swarm.places)
        async with AsyncExitStack() as stack:
            homes = [load({"state_dir": str(where)}, {}) for where in swarm.places]
            watched = [Watched(await stack.enter_async_context(open_node(home))) for home in homes]
            nursery = await stack.enter_async_context(trio.open_nursery())
            for one in watched:
                await nursery.start(one.watch)
            began = await speak(watched)
            nursery.cancel_scope.cancel()
        copies = await counted(swarm.places) / event_count / (daemon_count - 1)
    took = [(max(one.seen_s[event_id] for one in watched) - call_s) * 1e3 for event_id, call_s in began.items()]
    basis = f"{event_count} events at {events_a_second:.0f}/s, {daemon_count} daemons; all came everywhere"
    half = f"p50 {percentile(took, 0.5):.0f} ms"
    return [
        Figure("copies of an event that a daemon receives", copies, copies_goal, basis, least=False),
        Figure("author to last of 5 daemons, p99 ms", percentile(took, 0.99), last_ms_goal, half, least=False),
    ]
