"""A swarm on this host: found by address where UDP does not come back; whatever runs in it ends with it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from net.io.multicast import Multicast
from sel.embedded import running
from wattswarm import local_swarm as local
from wattswarm.kernel.refusal import Refused
from wattswarm.local_swarm import found, local_swarm
from wattswarm.presence import daemon_process
from wattswarm.runtime.executors import Executors


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path, as a socket lies in it."""
    with tempfile.TemporaryDirectory(prefix="wsl-", dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


async def deaf(_multicast: Multicast, _heard: Callable[[str, bytes], None]) -> None:
    """A host on which no datagram comes back."""
    await trio.sleep_forever()


def files(directory: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in directory.glob("*/*") if file.is_file()}


async def test_nodes_meet_by_address_where_udp_is_not_heard_and_end_whoever_started_them(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Multicast, "hear", deaf)
    told: list[str] = []
    async with local_swarm(directory, 2, told.append) as swarm:
        await swarm.meshed()
        assert not swarm.udp
        assert any("first one's address" in line for line in told)
        first, second = swarm.members
        assert [each.name for each in Executors(second.home.path).all()] == ["rt"]
        pid = await first.kill()
        with trio.fail_after(30):
            while daemon_process(first.home.path) is not None:
                await trio.lowlevel.checkpoint()
        up = ["-m", "cli.main", "--state-dir", str(first.home.path), "node", "up"]
        await trio.run_process([sys.executable, *up], capture_stdout=True, capture_stderr=True)
        assert daemon_process(first.home.path) not in (None, pid)
        await swarm.meshed()
    for place in (first.home.path, second.home.path):
        assert daemon_process(place) is None
        assert not running(place)


async def test_daemon_that_does_not_start_is_told_with_its_last_words_and_nothing_goes_on(directory: Path) -> None:
    homes = found([directory / "node-1"], "swarm")
    (homes[0].path / "node_seed.hex").write_text("no seed")
    member = local.Member("node-1", homes[0])
    with pytest.raises(Refused, match=r"node-1 did not become ready.*\n.*node_seed"):
        await member.start()
    await member.end()
    assert daemon_process(homes[0].path) is None


async def test_directory_that_holds_another_swarm_is_left_as_it_is(directory: Path) -> None:
    found([directory / "node-1", directory / "node-2"], "swarm")
    before = files(directory)
    with pytest.raises(Refused, match="a swarm of 2 nodes, not of 3"):
        async with local_swarm(directory, 3, lambda _: None):
            raise AssertionError("it began")
    assert files(directory) == before
