"""What can be wrong with a node on this host, each check with the command that mends it.

Checks only look; none of them changes anything. A check is a value: name, whether it passes, what was found, and
what to do.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from sel.errors import StoreError
from wattswarm.config import Config
from wattswarm.home import seed_name
from wattswarm.kernel.membership import Membership
from wattswarm.kernel.refusal import Refused
from wattswarm.members import tolerance
from wattswarm.node import Node, home_exists, open_node
from wattswarm.recovery import diagnose, told_fence
from wattswarm.runtime.executors import Executors, check

disk_free_bytes_min = 1 << 30
workers = frozenset({"proposer", "verifier"})
clock_earliest_ms = 1_735_689_600_000


@dataclass(frozen=True, slots=True)
class Check:
    """One check's outcome. ``mend`` is the command or step that mends it, empty when it passes."""

    name: str
    passed: bool
    found: str
    mend: str = ""


async def examine(config: Config) -> AsyncGenerator[Check, None]:
    """All checks, one after the other."""
    yield _clock()
    yield _disk(config.state_dir)
    if not home_exists(config):
        yield Check(
            "identity",
            False,
            f"no node lives in {config.state_dir}",
            "wattswarm task sample (makes one), or --state-dir",
        )
        return
    yield _seed(config.state_dir)
    works = True
    try:
        async with open_node(config, make=False) as node:
            yield Check("postgres", True, f"answers at {node.database.dsn}")
            yield await _guard(node)
            current, me = node.log.network.current, node.home.keys.node_id
            yield _tolerance(current, me)
            works = not workers.isdisjoint(current.members.get(me, ()))
    except StoreError as error:
        yield Check("postgres", False, str(error), "see the message; `wattswarm config show` says which server is used")
    except Refused as refusal:
        yield Check("state directory", False, str(refusal), "see the message")
    async for found in _executors(Executors(config.state_dir), works):
        yield found


def _clock() -> Check:
    now = time.time_ns() // 1_000_000
    sane = now > clock_earliest_ms
    return Check("clock", sane, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()), "" if sane else "set the clock")


def _disk(state_dir: Path) -> Check:
    place = next(path for path in (state_dir.absolute(), *state_dir.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    enough = free >= disk_free_bytes_min
    return Check(
        "disk", enough, f"{free / (1 << 30):.1f} GiB free at {place}", "" if enough else "free at least 1 GiB there"
    )


def _seed(state_dir: Path) -> Check:
    path = state_dir / seed_name
    try:
        found = path.stat()
    except FileNotFoundError:
        return Check("identity", False, f"{path} is missing", "restore it from a backup, or use another --state-dir")
    private = not found.st_mode & 0o077 and found.st_uid == os.geteuid()
    mend = "" if private else f"chown {os.geteuid()} {path} && chmod 600 {path}"
    return Check("identity", private, f"{path} has mode {found.st_mode & 0o777:04o}, owner {found.st_uid}", mend)


async def _guard(node: Node) -> Check:
    found = await diagnose(node.log, node.guard)
    if found.needed:
        return Check("author guard", False, found.why, "wattswarm node recover")
    place = f"event {found.seq} is this node's last" if found.seq >= 0 else "this node has authored nothing yet"
    fence = told_fence(await node.log.fence())
    return Check("author guard", True, f"agrees with the database: {place}{f'; recovered: {fence}' if fence else ''}")


def _tolerance(membership: Membership, me: bytes) -> Check:
    """Informs; a small network is a choice, not a fault."""
    alone = membership.members.keys() == {me}
    return Check(
        "fault tolerance", True, "alone on its network: no other node is needed" if alone else tolerance(membership)
    )


async def _executors(registry: Executors, works: bool) -> AsyncGenerator[Check, None]:
    try:
        known = registry.all()
    except Refused as refusal:
        yield Check("executors", False, str(refusal), f"mend or remove {registry.path}")
        return
    if not known and works:
        yield Check("executors", False, "none is registered", "wattswarm executors add rt http://127.0.0.1:8787")
    elif not known:
        yield Check("executors", True, "none is registered, and this node neither proposes nor verifies")
    for executor in known:
        report = await check(executor.base_url)
        faults = "; ".join(fault for fault in report.faults.values() if fault)
        mend = "" if report.good else f"start the runtime, then: wattswarm executors check {executor.name}"
        yield Check(f"executor {executor.name}", report.good, faults or f"answers at {executor.base_url}", mend)
