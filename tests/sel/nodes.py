"""A node's log in a directory, for tests that kill things: opened here, or by ``python -m tests.sel.nodes``.

The child authors tasks until it is killed, and prints ``<author_seq> <event id>`` for each event after it was
acknowledged, so that whoever killed it knows what must be there.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from sel.errors import StoreUnavailable
from wattswarm.config import load
from wattswarm.kernel.contract_draft import contract_from_json, sample_contract
from wattswarm.kernel.event import Draft
from wattswarm.kernel.payloads.work import TaskClaimed, TaskCreated
from wattswarm.node import Node, now_ms, open_node

authority = "ed25519:" + "ab" * 32
hour_ms = 3_600_000


def created(label: str, membership: bytes) -> Draft:
    """The creation of a task called ``label``."""
    contract = contract_from_json(sample_contract(label, now_ms() + hour_ms, authority))
    return Draft(TaskCreated(contract, membership), None, 1)


def claimed(execution_id: str) -> Draft:
    """A claim to propose on the task that the same request creates."""
    return Draft(TaskClaimed("propose", execution_id, now_ms() + 4_000), None, 1, about_first=True)


@asynccontextmanager
async def node(state_dir: Path) -> AsyncIterator[Node]:
    """The node of ``state_dir``, on its embedded server."""
    async with open_node(load({"state_dir": str(state_dir)}, {})) as opened:
        yield opened


async def author_on(state_dir: Path, name: str, most: int) -> None:
    """Author tasks until ``most`` or the end, saying what was acknowledged. The server may go and come."""
    number = 0
    while number < most:
        try:
            async with node(state_dir) as opened:
                membership = opened.log.network.network_id
                while number < most:
                    label = f"{name}-{number}"
                    number += 1
                    for event in await opened.log.author(created(label, membership), claimed(f"x-{label}")):
                        print(event.author_seq, event.id.hex(), flush=True)
        except StoreUnavailable as error:
            print(error, file=sys.stderr, flush=True)


def author(state_dir: Path, name: str, most: int = 1_000_000) -> subprocess.Popen[str]:
    """``author_on`` in a process of its own."""
    command = [sys.executable, "-m", "tests.sel.nodes", str(state_dir), name, str(most)]
    root = Path(__file__).parent.parent.parent
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=root)


if __name__ == "__main__":
    trio.run(author_on, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
