"""A swarm on this host alone: one network over several state directories, a daemon and a Postgres each, one runtime.

``demo`` and ``dev`` stand on it. Every process is a child in a session of its own, so that Ctrl-C at a terminal reaches
whoever owns the swarm and nobody else; whatever was started ends with the context, however that is left. The nodes
find each other by a broadcast that never leaves the loopback interface, and where a host has none, by an address.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import trio

from net.io.multicast import open_multicast
from sel.embedded import EmbeddedPostgres, running
from wattswarm.config import Config, load
from wattswarm.config import file_name as config_name
from wattswarm.home import Home, network_name, open_home, write_whole
from wattswarm.kernel.genesis import all_roles, make_genesis
from wattswarm.kernel.refusal import Refused
from wattswarm.node import now_ms
from wattswarm.presence import ask_to_stop, daemon_process, read_state
from wattswarm.runtime.executors import Executors, checked
from wattswarm.runtime.local import reference_runtime

loopback_broadcast = "127.255.255.255"
runtime_name = "rt"
log_name = "node.log"
heard_s_max = 1.0
start_s_max = 90.0
meshed_s_max = 30.0
stop_s_max = 30.0
"""Longer than a daemon's own patience with itself: after that it is killed."""


def found(places: Sequence[Path], name: str, finalizers: int = 0) -> list[Home]:
    """One network, signed by a node in each of ``places``; each has every role. The places must be new.

    ``finalizers``: how many of them decide, the first ones; 0: all.
    """
    keys = [open_home(place, now_ms()).keys for place in places]
    deciding = finalizers or len(keys)
    genesis = make_genesis(
        name=name,
        created_at=now_ms() - 1_000,
        fault_model="byzantine",
        members={
            each.node_id: all_roles if number < deciding else all_roles - {"finalizer"}
            for number, each in enumerate(keys)
        },
        signers=keys,
    )
    for place in places:
        write_whole(place / network_name, genesis.wire())
    return [open_home(place, now_ms(), genesis) for place in places]


@dataclass
class Member:
    """A node of the swarm. ``process`` is None while no daemon of it runs; ``listen``: where it was reached last.

    ``within``: words before its daemon's command, such as make it run in a network namespace; ``environment``: what
    its daemon finds there besides.
    """

    name: str
    home: Home
    process: trio.Process | None = None
    listen: str = ""
    within: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """Where its daemon logs to, as with `wattswarm node up`."""
        return self.home.path / log_name

    def config(self) -> Config:
        """What its daemon is configured with, whatever the environment says."""
        return load({"state_dir": str(self.home.path)}, {})

    async def start(self) -> None:
        """Have its daemon run, and wait until it is ready. Raises ``Refused`` with what it said instead."""
        command = [*self.within, sys.executable, "-m", "cli.node_daemon", "--state-dir", str(self.home.path)]
        with self.log.open("ab") as errors, trio.CancelScope(shield=True):
            self.process = process = await trio.lowlevel.open_process(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**_environment(), **self.environment},
                start_new_session=True,
            )
        said = b""
        assert process.stdout is not None
        async with process.stdout as stdout:
            with trio.move_on_after(start_s_max):
                said = await _first_line(stdout)
        if not said.startswith(b"ready "):
            raise Refused("daemon_start", f"{self.name} did not become ready; its log {self.log} ends:\n{self._end()}")
        self.listen = said.split()[-1].partition(b"=")[2].decode()

    def _end(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-1_500:]

    async def kill(self) -> int:
        """End its daemon without a word; the process id that it had. Its Postgres goes on alone."""
        assert self.process is not None
        pid = self.process.pid
        self.process.kill()
        await self.process.wait()
        self.process = None
        return pid

    async def end(self) -> None:
        """Stop its daemon in order, whoever started it, and the Postgres that a killed one has left."""
        with trio.CancelScope(shield=True):
            if self.process is not None:
                self.process.terminate()
            ask_to_stop(self.home.path)
            deadline = trio.current_time() + stop_s_max
            while trio.current_time() < deadline:
                if daemon_process(self.home.path) is None:
                    break
                await trio.sleep(0.02)
            if self.process is not None:
                await self.kill()
            await trio.to_thread.run_sync(stop_postgres, self.home.path)


@dataclass(frozen=True)
class LocalSwarm:
    """A swarm that runs. ``udp``: its nodes found each other by calling out; else by the first one's address."""

    members: Sequence[Member]
    runtime: str
    udp: bool

    async def meshed(self) -> None:
        """Wait until each is connected to all others. Raises ``Refused`` if that takes too long."""
        deadline = trio.current_time() + meshed_s_max
        while trio.current_time() < deadline:
            if all(map(self._has_all, self.members)):
                return
            await trio.sleep(0.05)
        raise Refused("not_connected", f"the nodes did not find each other within {meshed_s_max:g} s")

    def _has_all(self, member: Member) -> bool:
        said = read_state(member.home.path)
        return said is not None and len(said.peers) == len(self.members) - 1


@asynccontextmanager
async def local_swarm(
    directory: Path, size: int, tell: Callable[[str], None], runtime_flags: Sequence[str] = ()
) -> AsyncIterator[LocalSwarm]:
    """``size`` nodes in ``directory``/node-1, node-2 …, that are members of one network and run; ended when left.

    ``tell`` hears what happens meanwhile. Raises ``Refused`` if a daemon does not start.
    """
    members = _members(directory, size)
    tell(f"network {members[0].home.genesis.network_id.hex()[:8]}…: {size} members, and all of them signed its genesis")
    port = _free_port(socket.SOCK_DGRAM)
    udp = await _hears_itself(port)
    _configure(members, port if udp else None)
    if not udp:
        tell("UDP does not come back on this host's loopback: the nodes are given the first one's address instead")
    async with _runtime(*runtime_flags) as url:
        executor = await checked(runtime_name, url)
        for member in members:
            Executors(member.home.path).put(executor)
        async with _running(members, tell):
            yield LocalSwarm(members, url, udp)


def _members(directory: Path, size: int) -> list[Member]:
    """Those that live in the directory; a new one gets ``size``. Raises ``Refused`` if there is another number."""
    there = sorted(directory.glob("node-*/" + network_name))
    places = [directory / f"node-{number}" for number in range(1, size + 1)]
    if not there:
        homes = found(places, "swarm")
    elif {file.parent for file in there} == set(places):
        homes = [open_home(place, now_ms()) for place in places]
    else:
        raise Refused("another_swarm", f"{directory} holds a swarm of {len(there)} nodes, not of {size}")
    return [Member(home.path.name, home) for home in homes]


@asynccontextmanager
async def _running(members: Sequence[Member], tell: Callable[[str], None]) -> AsyncIterator[None]:
    async def start(member: Member) -> None:
        await member.start()
        assert member.process is not None
        node_id = member.home.keys.node_id.hex()
        tell(f"{member.name} is node {node_id[:8]}…, process {member.process.pid}, listening at {member.listen}")

    try:
        async with trio.open_nursery() as nursery:
            for member in members:
                nursery.start_soon(start, member)
        yield
    finally:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for member in members:
                    nursery.start_soon(member.end)


def _configure(members: Sequence[Member], udp_port: int | None) -> None:
    """Write each node's config.toml, so that `wattswarm node up` starts it again as it was."""
    first = f"127.0.0.1:{_free_port(socket.SOCK_STREAM)}"
    for number, member in enumerate(members):
        if udp_port is None:
            said = {"listen": "127.0.0.1:0" if number else first, "bootstrap": first}
        else:
            said = {
                "listen": "127.0.0.1:0",
                "udp_announce_enabled": "true",
                "udp_announce_mode": "broadcast",
                "udp_announce_addr": loopback_broadcast,
                "udp_announce_port": str(udp_port),
            }
        lines = (f"{name} = {msgspec.json.encode(value).decode()}\n" for name, value in said.items())
        write_whole(member.home.path / config_name, "".join(lines).encode(), 0o644)


async def _hears_itself(port: int) -> bool:
    """Whether a broadcast on loopback comes back to this host."""
    heard = trio.Event()
    try:
        with open_multicast(loopback_broadcast, port) as air:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(air.hear, lambda _host, _datagram: heard.set())
                with trio.move_on_after(heard_s_max):
                    await air.shout(b"is this heard?")
                    await heard.wait()
                nursery.cancel_scope.cancel()
    except OSError:
        return False
    return heard.is_set()


def _free_port(kind: socket.SocketKind) -> int:
    """A port that nobody listens at now."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@asynccontextmanager
async def _runtime(*flags: str) -> AsyncIterator[str]:
    runtime = reference_runtime(*flags)
    url = await trio.to_thread.run_sync(runtime.__enter__)
    try:
        yield url
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(runtime.__exit__, None, None, None)


def _environment() -> dict[str, str]:
    """This process's, without settings that are meant for another node."""
    return {key: value for key, value in os.environ.items() if not key.startswith("WATTSWARM_")}


async def _first_line(stdout: trio.abc.ReceiveStream) -> bytes:
    said = b""
    while not said.endswith(b"\n"):
        some = await stdout.receive_some()
        if not some:
            break
        said += some
    return said.strip()


def stop_postgres(state_dir: Path) -> None:
    """Stop the Postgres of a state directory that nobody uses, if it runs. Blocking."""
    if running(state_dir):
        with EmbeddedPostgres(state_dir):
            pass
