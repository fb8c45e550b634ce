"""The registry: only executors that pass their checks get in, and a damaged file is said, not lost."""

from __future__ import annotations

import subprocess
import sys
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


one = b'{"name": "a", "base_url": "http://h", "capabilities": {"task_types": [], "profiles": [],'
one += b'"provider_family": "f", "model_id": "m"}}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1]",
        b'{"executors": [{"name": "a b"}]}',
        b"\xff",
        b'{"executors": [' + one + b", " + one + b"]}",
        b'{"executors": [{"capabilities": {"x": ' + b"[" * 100_000,
    ],
)
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


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "executors.json").mkdir()
    with pytest.raises(Refused, match=r"executors\.json cannot be read"):
        Executors(tmp_path).all()
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="cannot be used"):
        Executors(tmp_path / "file").put(Executor("a", "http://127.0.0.1:1", capabilities))


def test_processes_that_register_at_once_lose_nothing(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "from wattswarm.runtime.contract import Capabilities\n"
        "from wattswarm.runtime.executors import Executor, Executors\n"
        "for n in range(10):\n"
        "    registered = Executor(f'{sys.argv[2]}-{n}', 'http://127.0.0.1:1', Capabilities([], [], 'f', 'm'))\n"
        "    Executors(pathlib.Path(sys.argv[1])).put(registered)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(n)]) for n in range(4)]
    assert [process.wait(timeout=30) for process in running] == [0] * 4
    assert len(Executors(tmp_path).all()) == 40
    assert [path.name for path in tmp_path.iterdir()] == ["executors.json"]


def test_a_disabled_executor_supports_nothing_until_it_is_registered_again(tmp_path: Path) -> None:
    registry = Executors(tmp_path)
    executor = Executor("a", "http://127.0.0.1:1", capabilities)
    registry.put(executor)
    assert registry.get("a").supports("swarm", "default")
    registry.disable("a", "POST /execute: 404")
    assert not registry.get("a").supports("swarm", "default")
    assert registry.get("a").disabled == "POST /execute: 404"
    registry.put(executor)
    assert registry.get("a").supports("swarm", "default")


@pytest.mark.parametrize(("task_type", "profile"), [("other", "default"), ("swarm", "other"), ("", "")])
def test_only_what_was_advertised_is_supported(task_type: str, profile: str) -> None:
    assert not Executor("a", "http://127.0.0.1:1", capabilities).supports(task_type, profile)
