"""The registry: only executors that pass their checks get in, and a damaged file is said, not lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime import hostile
from tests.runtime.hostile import answer, says
from wattswarm.kernel.refusal import Refused
from wattswarm.runtime.contract import Capabilities
from wattswarm.runtime.executors import Executor, Executors, checked

capabilities = Capabilities(["swarm"], ["default"], "f", "m")


def test_executors_come_back_by_name(tmp_path: Path) -> None:
    registry = Executors(tmp_path)
    registry.put(Executor("b", "http://127.0.0.1:2", capabilities))
    registry.put(Executor("a", "http://127.0.0.1:1", capabilities))
    registry.put(Executor("b", "http://127.0.0.1:3", capabilities))
    assert [(e.name, e.base_url) for e in Executors(tmp_path).all()] == [
        ("a", "http://127.0.0.1:1"),
        ("b", "http://127.0.0.1:3"),
    ]


def test_removing_forgets_one(tmp_path: Path) -> None:
    registry = Executors(tmp_path)
    registry.put(Executor("a", "http://127.0.0.1:1", capabilities))
    registry.remove("a")
    assert registry.all() == []


def test_an_unknown_name_is_refused_with_those_there_are(tmp_path: Path) -> None:
    registry = Executors(tmp_path)
    registry.put(Executor("a", "http://127.0.0.1:1", capabilities))
    with pytest.raises(Refused, match="there is: a"):
        registry.get("b")


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"executors": [{"name": "a b"}]}', b"\xff"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "executors.json").write_bytes(content)
    with pytest.raises(Refused, match=r"executors\.json is damaged"):
        Executors(tmp_path).all()


async def test_an_executor_that_fails_a_check_is_not_registered() -> None:
    async with hostile.server(says(answer("200 OK", b'{"status": "ok"}'))) as url:
        with pytest.raises(Refused) as refusal:
            await checked("rt", url)
    assert [problem.path for problem in refusal.value.problems] == ["/capabilities"]


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "é"])
async def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(Refused) as refusal:
        await checked(name, "http://127.0.0.1:1")
    assert refusal.value.problems[0].path == "name"
