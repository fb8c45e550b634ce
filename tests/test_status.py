"""What ``node status`` says of a log in which others did what no honest node does, and how a person reads it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cli.node_status import show
from tests.cast import fork_of, genesis_ms
from tests.sel.stores import fresh_database
from tests.test_members import home
from tests.world import World
from wattswarm.config import load
from wattswarm.kernel.certificate import Certificate
from wattswarm.kernel.payloads import course
from wattswarm.node import Node, open_node
from wattswarm.status import status


@pytest.fixture
def world() -> World:
    return World.of(4)


@pytest.fixture
async def observer(
    world: World, tmp_path: Path, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Node]:
    """A node that holds whatever the world's members say."""
    monkeypatch.setattr("wattswarm.node.now_ms", lambda: genesis_ms + 3_600_000)
    home(tmp_path / "eve", "eve", world.genesis)
    async with fresh_database(postgres_dsn) as database:
        config = load({"state_dir": str(tmp_path / "eve"), "pg_url": database.dsn}, {})
        async with open_node(config) as node:
            yield node


def shown(found: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, str], str]:
    """Subject -> what is said of it; and the words beside."""
    show(found)
    said = capsys.readouterr()
    return dict(line.split(None, 1) for line in said.out.splitlines()), said.err


async def test_a_log_without_trouble_has_no_alarm(
    world: World, observer: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    await observer.log.ingest(world.full_chain())
    found = await status(observer)
    assert (found["alarms"], found["forks"], found["forked_tasks"], found["roles"]) == ([], [], [], [])
    lines, beside = shown(found, capsys)
    assert beside == ""
    assert lines["alarms"] == lines["forks"] == lines["conflicts"] == "none"
    assert lines["node"].endswith("no member: it observes")
    assert "4 members" in lines["network"]
    assert lines["decides"] == "4 finalizers: a decision needs 3; one may be down or lie"


async def test_a_forked_author_and_a_task_decided_twice_are_alarms(
    world: World, observer: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    story = world.task(task_id="twice")
    events = [
        story.creation,
        story.claim("ada"),
        story.propose("ada"),
        story.propose("ada", "b", output={"answer": "b"}),
    ]
    one = story.stop("dee")
    rival = world.rival(one, course.TaskStopped("no"), task=story.creation.id)
    certificates: list[Certificate] = [story.certificate(events[2]), story.certificate(events[3]), fork_of(one, rival)]
    await observer.log.ingest([*events, one], certificates)

    found = await status(observer)
    assert found["forks"] == [{"author": world.node("dee").hex(), "void_from": one.author_seq}]
    assert [task["task_id"] for task in found["forked_tasks"]] == ["twice"]
    forked, twice = found["alarms"]
    assert f"node {world.node('dee').hex()[:8]}… signed two different chains" in forked
    assert "to be replaced" in forked
    assert "task twice" in twice
    assert "two proven decisions" in twice
    lines, beside = shown(found, capsys)
    assert (lines["alarms"], lines["forks"], lines["conflicts"]) == ("2", "1", "1")
    assert forked in beside
    assert twice in beside
