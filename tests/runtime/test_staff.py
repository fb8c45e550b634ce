"""The staff: the registry is followed while it changes, and only who is well and serves a task is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.runtime import hostile
from tests.runtime.hostile import answer, says
from wattswarm.runtime import staff as staffs
from wattswarm.runtime.contract import Capabilities
from wattswarm.runtime.executors import Executor, Executors
from wattswarm.runtime.failure import RuntimeFailure
from wattswarm.runtime.staff import Staff

can_swarm = b'{"task_types": ["swarm"], "profiles": ["default"], "provider_family": "f", "model_id": "m"}'
good = {
    "/health": says(answer("200 OK", b'{"status": "ok"}')),
    "/capabilities": says(answer("200 OK", can_swarm)),
    "/execute": says(answer("200 OK", b"{}")),
    "/verify": says(answer("200 OK", b"{}")),
}
capabilities = Capabilities(["swarm"], ["default"], "f", "m", ["finalize"])


def registered(name: str, url: str, can: Capabilities = capabilities) -> Executor:
    return Executor(name, url, can)


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Staff]:
    staff = Staff(Executors(path), look_s=0.01)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(staff.serve)
        yield staff
        nursery.cancel_scope.cancel()


async def eventually(happened: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not happened():  # noqa: ASYNC110 - another process's file, another task's socket
            await trio.sleep(0.005)


async def test_nobody_is_registered_and_the_choice_says_how_to_mend_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as staff:
        assert "wattswarm executors add" in staff.choose("swarm").unable
        assert staff.faults() == []


async def test_executor_that_is_added_while_it_runs_is_checked_and_chosen(tmp_path: Path) -> None:
    async with hostile.routed_server(good) as url, serving(tmp_path) as staff:
        told: list[str] = []
        staff.changed = lambda: told.append(staff.choose("swarm").unable)
        staff.registry.put(registered("rt", url))
        await eventually(lambda: not staff.choose("swarm").unable)
        choice = staff.choose("swarm")
        assert choice.hands is not None
        assert (choice.hands.profile, choice.hands.named) == ("default", ("f", "m"))
        assert told[-1] == ""
        staff.registry.remove("rt")
        await eventually(lambda: "executors add" in staff.choose("swarm").unable)


async def test_task_type_that_nobody_advertises_is_named(tmp_path: Path) -> None:
    async with hostile.routed_server(good) as url, serving(tmp_path) as staff:
        staff.registry.put(registered("rt", url))
        await eventually(lambda: not staff.choose("swarm").unable)
        choice = staff.choose("poetry")
        assert (choice.hands, choice.unable) == (None, "no executor here serves task type 'poetry'")


async def test_executor_that_fails_a_check_is_named_with_its_stages_and_not_asked(tmp_path: Path) -> None:
    async with hostile.routed_server({**good, "/verify": hostile.closes_half_way}) as url, serving(tmp_path) as staff:
        staff.registry.put(registered("rt", url))
        await eventually(lambda: any("/verify" in fault for fault in staff.faults()))
        choice = staff.choose("swarm")
        assert "executor rt cannot be asked" in choice.unable
        assert choice.hands is not None
        assert choice.hands.stages == {"finalize"}


async def test_executor_that_cannot_be_reached_is_checked_again_until_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staffs, "check_again_s", (0.02,))
    well = [False]

    async def health(stream: trio.abc.Stream) -> None:
        await (good["/health"] if well[0] else hostile.closes_half_way)(stream)

    async with hostile.routed_server({**good, "/health": health}) as url, serving(tmp_path) as staff:
        staff.registry.put(registered("rt", url))
        await eventually(lambda: any("/health" in fault for fault in staff.faults()))
        well[0] = True
        await eventually(lambda: not staff.choose("swarm").unable)
        assert staff.faults() == []


async def test_least_busy_is_chosen_and_a_full_house_says_so(tmp_path: Path) -> None:
    async with hostile.routed_server(good) as one, hostile.routed_server(good) as two, serving(tmp_path) as staff:
        freed: list[bool] = []
        staff.freed = lambda: freed.append(True)
        staff.registry.put(registered("a", one))
        staff.registry.put(registered("b", two))
        await eventually(lambda: not staff.faults() and not staff.choose("swarm").unable)
        taken = []
        for _ in range(2 * staffs.tasks_max):
            choice = staff.choose("swarm")
            assert not choice.unable
            staff.take(choice)
            taken.append(choice)
        assert "works on 16 tasks already" in staff.choose("swarm").unable
        staff.give_back(taken[0])
        assert freed
        assert staff.choose("swarm").member is taken[0].member


async def test_endpoint_that_is_missing_disables_until_it_is_added_again(tmp_path: Path) -> None:
    routes = {**good, "/execute": says(answer("405 Method Not Allowed", b""))}
    async with hostile.routed_server(routes) as url, serving(tmp_path) as staff:
        staff.registry.put(registered("rt", url))
        await eventually(lambda: not staff.choose("swarm").unable)
        hands = staff.choose("swarm").hands
        assert hands is not None
        with pytest.raises(RuntimeFailure):
            await hands.executor.execute(None, 1_000)  # type: ignore[arg-type]
        await eventually(lambda: "no executor here serves" in staff.choose("swarm").unable)
        assert any("405" in fault for fault in staff.faults())
        staff.registry.put(registered("rt", url))
        await eventually(lambda: not staff.choose("swarm").unable)


async def test_damaged_registry_is_said_and_those_known_before_go_on(tmp_path: Path) -> None:
    async with hostile.routed_server(good) as url, serving(tmp_path) as staff:
        staff.registry.put(registered("rt", url))
        await eventually(lambda: not staff.choose("swarm").unable)
        staff.registry.path.write_text("{")
        await eventually(lambda: any("damaged" in fault for fault in staff.faults()))
        assert not staff.choose("swarm").unable


async def test_executor_without_the_usual_profile_works_in_its_first(tmp_path: Path) -> None:
    careful = b'{"task_types": ["swarm"], "profiles": ["careful", "quick"], "provider_family": "f", "model_id": "m"}'
    routes = {**good, "/capabilities": says(answer("200 OK", careful))}
    async with hostile.routed_server(routes) as url, serving(tmp_path) as staff:
        staff.registry.put(registered("rt", url))
        await eventually(lambda: not staff.choose("swarm").unable)
        hands = staff.choose("swarm").hands
        assert hands is not None
        assert hands.profile == "careful"
