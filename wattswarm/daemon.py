"""The daemon: one nursery that owns everything of a node that runs. Opened node › crew › network › what it says.

The lock is taken first and let go of last. The network is whatever is attached: an async context that begins when
node and crew are there and ends before they do. Knows no signals and no terminal; who calls it says when to stop.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol

import trio
from msgspec.structs import replace

from sel.lifetimes import single_error
from sel.news import News
from wattswarm import systemd
from wattswarm.absence import apart, told
from wattswarm.config import Config
from wattswarm.node import Node, now_ms, open_node
from wattswarm.presence import NodeState, boot_id, presence, write_state
from wattswarm.recovery import Peers, until_may_author
from wattswarm.runtime.crew import Crew, Duty
from wattswarm.runtime.staff import Staff
from wattswarm.succession import carry_on_for_ever

_log = logging.getLogger(__name__)
refresh_s = 30.0
"""How old the state file may be; what is wrong is said within ``look_s``."""
look_s = 1.0


class Neighbours(Protocol):
    """What is attached to a daemon, as far as it speaks of it. ``listen``: the real address, or empty."""

    @property
    def listen(self) -> str: ...
    def peers(self) -> list[dict[str, Any]]: ...
    def kept_out(self) -> list[dict[str, Any]]: ...
    def alarms(self) -> list[str]: ...
    def clock_off_ms(self) -> int: ...


Attach = Callable[[Node], AbstractAsyncContextManager[Neighbours]]


class Nobody:
    """The neighbours of a daemon that is alone."""

    listen = ""

    def peers(self) -> list[dict[str, Any]]:
        """None."""
        return []

    def kept_out(self) -> list[dict[str, Any]]:
        """None."""
        return []

    def alarms(self) -> list[str]:
        """None."""
        return []

    def clock_off_ms(self) -> int:
        """Nobody tells."""
        return 0


@asynccontextmanager
async def alone(_node: Node) -> AsyncIterator[Neighbours]:
    """No network."""
    yield Nobody()


def no_duties(_node: Node) -> Sequence[Duty]:
    """Nothing beside the tasks."""
    return ()


@dataclass(frozen=True, slots=True)
class Ready:
    """A daemon that serves."""

    node: Node
    listen: str


async def run_daemon(
    config: Config,
    *,
    stop: trio.Event,
    attach: Attach = alone,
    duties: Callable[[Node], Sequence[Duty]] = no_duties,
    task_status: trio.TaskStatus[Ready] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the node of ``config`` until ``stop`` is set, then close everything in order.

    Reports ``Ready`` once it serves. Raises ``Refused`` if another daemon lives in the state directory,
    ``StoreUnavailable`` if there is no database at the start; later it waits for one.
    """
    with presence(config.state_dir):
        began = NodeState(
            os.getpid(), boot_id(), version("wattswarm"), "starting", now_ms(), now_ms(), autopilot=config.autopilot
        )
        write_state(config.state_dir, began)
        with single_error():
            async with open_node(config) as node:
                await _serve(_Daemon(node, attach, duties(node), began), stop, task_status)
        _log.info("stopped")


@dataclass(slots=True)
class _Daemon:
    """A node, what runs on it, and what it says of itself. ``held``: why it authors nothing yet."""

    node: Node
    attach: Attach
    duties: Sequence[Duty]
    state: NodeState
    crew: Crew | None = None
    staff: Staff | None = None
    neighbours: Neighbours | None = None
    held: str = ""
    met: set[str] = field(default_factory=set)
    missing: dict[str, int] = field(default_factory=dict)

    def alarms(self) -> list[str]:
        """What goes wrong now, for people."""
        return [
            *(said for said in (self.held, self.node.log.full) if said),
            *(self.crew.alarms() if self.crew else ()),
            *(self.staff.faults() if self.staff else ()),
            *(self.neighbours.alarms() if self.neighbours else ()),
        ]

    def hold(self, why: str) -> None:
        """Tell why nothing is authored."""
        self.held = why

    def has_news(self) -> bool:
        """Whether what was said last is wrong: of tasks, of what goes wrong, of who is connected or kept out."""
        peers, neighbours = self.peers(), self.neighbours or Nobody()
        now = (self.attended(), self.alarms(), self.not_connected(peers), neighbours.kept_out())
        said = (self.state.tasks, self.state.alarms, self.state.not_connected, self.state.kept_out)
        return now != said or list(map(_standing, peers)) != list(map(_standing, self.state.peers))

    def attended(self) -> int:
        """Open tasks that this node sees to."""
        return self.crew.attended if self.crew else 0

    def peers(self) -> list[dict[str, Any]]:
        """Who is connected."""
        return self.neighbours.peers() if self.neighbours else []

    def not_connected(self, peers: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Members that ``peers`` lack, since when, as far as that is worth telling."""
        me, members = self.node.home.keys.node_id, self.node.log.network.current.members
        connected = {bytes.fromhex(peer["node_id"]) for peer in peers}
        self.met.update(node.hex() for node in connected)
        self.missing = apart(me, members, connected, self.missing, now_ms())
        return told(self.missing, self.met, now_ms())

    async def say(self, phase: str) -> None:
        """Write the state file. A full disk is told of, and no reason to stop."""
        neighbours, peers = self.neighbours, self.peers()
        self.state = replace(
            self.state,
            phase=phase,
            refreshed_at=now_ms(),
            node_id=self.node.home.keys.node_id.hex(),
            network_id=self.node.home.genesis.network_id.hex(),
            listen=neighbours.listen if neighbours else "",
            tasks=self.attended(),
            alarms=self.alarms(),
            clock_off_ms=neighbours.clock_off_ms() if neighbours else 0,
            kept_out=neighbours.kept_out() if neighbours else [],
            peers=peers,
            not_connected=self.not_connected(peers),
        )
        try:
            await trio.to_thread.run_sync(write_state, self.node.home.path, self.state)
        except OSError as error:
            _log.warning("the state file cannot be written", extra={"why": str(error)})


def _standing(peer: dict[str, Any]) -> tuple[Any, ...]:
    """What is worth telling of a peer at once; that it is useful can wait."""
    return peer["node_id"], peer.get("member"), peer["in_sync"], min(0, peer["score"]), peer.get("own_seq")


async def _serve(daemon: _Daemon, stop: trio.Event, task_status: trio.TaskStatus[Ready]) -> None:
    node = daemon.node
    async with trio.open_nursery() as nursery:
        async with daemon.attach(node) as daemon.neighbours:
            nursery.start_soon(_work, daemon, daemon.neighbours.peers)
            await daemon.say("ready")
            nursery.start_soon(_refresh, daemon)
            ready = Ready(node, daemon.neighbours.listen)
            _log.info("ready", extra={"node_id": daemon.state.node_id, "listen": ready.listen or "none"})
            systemd.notify("READY=1")
            task_status.started(ready)
            await stop.wait()
            _log.info("stopping")
            systemd.notify("STOPPING=1")
            await daemon.say("stopping")
        nursery.cancel_scope.cancel()


async def _work(daemon: _Daemon, peers: Peers) -> None:
    """Author by itself what is to be authored, once it may."""
    node = daemon.node
    await until_may_author(node.log, node.home.path, peers, daemon.hold)
    if daemon.held:
        daemon.hold("")
        await daemon.say(daemon.state.phase)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(carry_on_for_ever, node)
        if node.config.autopilot:
            daemon.staff = Staff(node.executors)
            daemon.crew = Crew(node.log, News(node.database), daemon.staff, daemon.duties)
            nursery.start_soon(daemon.crew.serve)


async def _refresh(daemon: _Daemon) -> None:
    while True:
        await trio.sleep(look_s)
        age_ms = now_ms() - daemon.state.refreshed_at
        if age_ms >= refresh_s * 1000 or daemon.has_news():
            await daemon.say("ready")
