"""The doctor: what it finds wrong, and that what it tells to do mends it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cast import genesis_ms, keys_of
from tests.runtime import hostile
from tests.sel.stores import fresh_database
from wattswarm import doctor
from wattswarm.config import Config, load
from wattswarm.doctor import Check, examine
from wattswarm.home import network_name, open_home, seed_name
from wattswarm.kernel.genesis import local_genesis
from wattswarm.node import now_ms
from wattswarm.runtime.contract import Capabilities
from wattswarm.runtime.executors import Executor, Executors


@pytest.fixture
async def config(tmp_path: Path, postgres_dsn: str) -> AsyncIterator[Config]:
    """A node with a database of its own."""
    open_home(tmp_path, now_ms())
    async with fresh_database(postgres_dsn) as database:
        yield load({"state_dir": str(tmp_path), "pg_url": database.dsn}, {})


async def found(config: Config) -> dict[str, Check]:
    return {check.name: check async for check in examine(config)}


def failed(checks: dict[str, Check]) -> set[str]:
    for check in checks.values():
        assert check.passed or check.mend, f"a failure without a remedy: {check}"
    return {name for name, check in checks.items() if not check.passed}


async def test_node_with_an_executor_that_works_is_healthy(config: Config) -> None:
    capabilities = b'{"task_types": ["swarm"], "profiles": ["p"], "provider_family": "f", "model_id": "m"}'
    ok = hostile.answer("200 OK", b'{"status": "ok"}')
    routes = {
        "/health": hostile.says(ok),
        "/capabilities": hostile.says(hostile.answer("200 OK", capabilities)),
        "/execute": hostile.says(ok),
        "/verify": hostile.says(ok),
    }
    async with hostile.routed_server(routes) as url:
        Executors(config.state_dir).put(Executor("rt", url, Capabilities(["swarm"], ["p"], "f", "m")))
        checks = await found(config)
    assert failed(checks) == set()
    assert set(checks) == {"clock", "disk", "identity", "postgres", "author guard", "fault tolerance", "executor rt"}


async def test_executor_that_is_away_fails(config: Config) -> None:
    Executors(config.state_dir).put(Executor("rt", "http://127.0.0.1:1", Capabilities(["swarm"], ["p"], "f", "m")))
    assert failed(await found(config)) == {"executor rt"}


async def test_worker_without_an_executor_fails_and_an_observer_does_not(
    config: Config, tmp_path: Path, postgres_dsn: str
) -> None:
    assert failed(await found(config)) == {"executors"}
    open_home(tmp_path / "observer", now_ms(), local_genesis(keys_of("ada"), genesis_ms))
    async with fresh_database(postgres_dsn) as database:
        observer = load({"state_dir": str(tmp_path / "observer"), "pg_url": database.dsn}, {})
        checks = await found(observer)
    assert failed(checks) == set()
    assert checks["fault tolerance"].found.startswith("1 finalizer decides")


async def test_key_that_others_may_read_fails_with_the_command_that_mends_it(config: Config) -> None:
    seed = config.state_dir / seed_name
    seed.chmod(0o644)
    checks = await found(config)
    assert {"identity", "state directory"} <= failed(checks)
    assert f"chmod 600 {seed}" in checks["identity"].mend
    seed.chmod(0o600)
    assert "identity" not in failed(await found(config))


@pytest.mark.parametrize("name", [seed_name, network_name])
async def test_lost_file_is_found(name: str, config: Config) -> None:
    (config.state_dir / "pg").mkdir()
    (config.state_dir / name).unlink()
    assert "state directory" in failed(await found(config))


async def test_lost_guard_is_found(config: Config) -> None:
    (config.state_dir / "author_guard").unlink()
    checks = await found(config)
    assert "author guard" in failed(checks)
    assert checks["author guard"].mend == "wattswarm node recover"


async def test_server_that_is_away_is_found(config: Config) -> None:
    away = load({"state_dir": str(config.state_dir), "pg_url": "postgresql://x@127.0.0.1:1/x"}, {})
    assert "postgres" in failed(await found(away))


async def test_damaged_registry_is_found(config: Config) -> None:
    (config.state_dir / "executors.json").write_text("{")
    assert "executors" in failed(await found(config))


async def test_empty_place_is_found_and_left_empty(tmp_path: Path) -> None:
    checks = await found(load({"state_dir": str(tmp_path / "none")}, {}))
    assert failed(checks) == {"identity"}
    assert not (tmp_path / "none").exists()


async def test_full_disk_is_found(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "disk_free_bytes_min", 1 << 80)
    assert "disk" in failed(await found(config))


async def test_clock_of_another_age_is_found(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "clock_earliest_ms", 1 << 60)
    assert "clock" in failed(await found(config))
