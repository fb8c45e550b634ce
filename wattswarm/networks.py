"""Which network a state directory belongs to: founding one, joining one, leaving one's own behind.

A node without a network has one of its own, ``local``. As long as its log is empty, another takes its place; a log
that holds something is put aside, whole, and only if that is asked for: ``aside/<network id>`` under the state
directory keeps log, author guard and genesis of each network that was left, and a node that comes back to one finds
them again, for its key must never begin a second chain there (docs/protocol.md §7).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sel.embedded import unused
from sel.guard import AuthorGuard
from sel.guard import file_name as guard_name
from sel.postgres import Connection
from sel.postgres import sql as log_sql
from wattswarm import home as homes
from wattswarm.config import Config, bootstrap_name
from wattswarm.home import Home, network_name, write_whole
from wattswarm.invites import addresses_max
from wattswarm.kernel.genesis import FaultModel, Genesis, all_roles, make_genesis
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.refusal import Refused
from wattswarm.node import now_ms, open_node
from wattswarm.presence import presence

aside_name = "aside"
pg_name = "pg"
of_a_network = (pg_name, guard_name, bootstrap_name, "discovered_peers.json")
"""What belongs to one network, beside ``network.cbor``; key, executors and settings stay with the node."""


@dataclass(frozen=True, slots=True)
class Entered:
    """``put_aside``: where the log of the network before is now; ``already``: the node was on this network."""

    home: Home
    put_aside: Path | None = None
    already: bool = False


def founding(
    name: str, fault_model: FaultModel, founders: Mapping[bytes, frozenset[str]]
) -> Callable[[Keypair], Genesis]:
    """The genesis that a node signs for itself, with all roles unless ``founders`` names it too, and ``founders``."""

    def make(keys: Keypair) -> Genesis:
        members = {keys.node_id: all_roles, **founders}
        return make_genesis(name=name, created_at=now_ms(), fault_model=fault_model, members=members, signers=[keys])

    return make


async def enter(config: Config, genesis_of: Callable[[Keypair], Genesis], fresh: bool) -> Entered:
    """Make the state directory the network's that ``genesis_of`` gives for its key; a new directory gets a key.

    ``fresh``: put a log that holds something aside, instead of refusing. Raises ``Refused`` if a daemon runs, or if
    the log is in use, or not empty, or cannot be put aside.
    """
    path = config.state_dir
    with presence(path):
        home = homes.open_home(path, now_ms())
        genesis = genesis_of(home.keys)
        if genesis.network_id == home.genesis.network_id:
            return Entered(home, already=True)
        used = await _is_used(config, home)
        if used and not fresh:
            raise Refused(
                "log_not_empty",
                f"{path} holds the log of network {home.genesis.network_id.hex()[:16]}… ({home.genesis.said.name}): "
                "use another --state-dir, or put that log aside with --fresh (nothing of it is lost)",
            )
        if used and config.pg_url is not None and not await _is_empty(config):
            raise Refused(
                "database_not_empty",
                f"the database {config.pg_url} keeps the log of network {home.genesis.network_id.hex()[:16]}…: name "
                "an empty one with --pg-url",
            )
        back, guarded = _aside(path, genesis.network_id), (path / guard_name).exists()
        left = _put_aside(path, home.genesis.network_id) if used or back.exists() else None
        if back.exists():
            _bring_back(path, back)
        write_whole(path / network_name, genesis.wire())
        if guarded and not (path / guard_name).exists():
            AuthorGuard(path).create()  # never for a key that came here alone: it may have authored on that network
        return Entered(homes.open_home(path, now_ms(), genesis), left)


async def _is_used(config: Config, home: Home) -> bool:
    """Whether the key has authored on the network, or its log holds anything."""
    path = config.state_dir
    with AuthorGuard(config.state_dir) as guard:
        slot = guard.newest()
    if (path / guard_name).exists() and (slot is None or slot.end[0] >= 0):
        return True
    if config.pg_url is None and not (home.path / pg_name).exists():
        return False
    return not await _is_empty(config)


async def _is_empty(config: Config) -> bool:
    """Whether the configured database holds nothing; then it is nobody's from here on."""

    async def release(connection: Connection) -> bool:
        await connection.execute(log_sql["release_owner"])
        return (await connection.fetchrow(log_sql["owner"]))[0] is None

    async with open_node(config, make=False) as node:
        return await node.database.run(release)


def _aside(path: Path, network_id: bytes) -> Path:
    return path / aside_name / network_id.hex()


def _put_aside(path: Path, network_id: bytes) -> Path:
    """Move what belongs to the network out of the way. What a crash cut is finished by the next try."""
    place = _aside(path, network_id)
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_whole(place / network_name, (path / network_name).read_bytes())
    for name in of_a_network:
        if (path / name).exists() and (place / name).exists():
            raise Refused(
                "aside_taken", f"{place / name} is there already: move it away, so that nothing is overwritten"
            )
    if (path / pg_name).exists():
        with unused(path) as free:
            if not free:
                raise Refused("log_in_use", f"another process uses the log in {path}: end it first")
            _move(path, place, pg_name)
    for name in of_a_network[1:]:
        if (path / name).exists():
            _move(path, place, name)
    return place


def _bring_back(path: Path, place: Path) -> None:
    for name in of_a_network:
        if (place / name).exists():
            _move(place, path, name)
    (place / network_name).unlink()
    place.rmdir()


def _move(source: Path, target: Path, name: str) -> None:
    try:
        os.rename(source / name, target / name)
    except OSError as error:
        raise Refused("state_dir", f"{source / name} cannot be moved to {target}: {error.strerror}") from None


def remember_addresses(path: Path, addresses: Sequence[str]) -> None:
    """Keep the addresses of an invite: the daemon begins with them, beside those of ``--bootstrap``."""
    file = path / bootstrap_name
    known = file.read_text(encoding="utf-8").split() if file.exists() else []
    kept = list(dict.fromkeys((*addresses, *known)))[:addresses_max]
    if kept:
        write_whole(file, "".join(f"{address}\n" for address in kept).encode(), 0o644)
