"""What tests of daemons wait with: every wait ends by itself.

A test that waits longer than pytest-timeout's patience is hit by an alarm in the midst of trio's loop or of an asyncio
callback; what that leaves behind may never end, and there is no second alarm.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests import daemons
from tests.daemons import first_line, on_node
from wattswarm.config import Config
from wattswarm.node import Node


def test_a_node_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @asynccontextmanager
    async def silent(_config: Config) -> AsyncIterator[None]:
        await trio.sleep_forever()
        yield

    async def work(_node: Node) -> None:
        raise AssertionError("the node is never open")

    monkeypatch.setattr(daemons, "open_node", silent)
    monkeypatch.setattr(daemons, "node_s", 0.01)
    with pytest.raises(trio.TooSlowError):
        on_node(tmp_path, work)


def test_a_process_that_never_says_anything_is_not_waited_for() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, stdout=-1, text=True) as process:
        with pytest.raises(AssertionError, match=r"says nothing for 0\.01 s"):
            first_line(process, 0.01)
        process.kill()
