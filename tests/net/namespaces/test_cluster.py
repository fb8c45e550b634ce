"""A scenario's faults on real daemons, in short: what the simulator demands of logs holds of theirs."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from netsim import scenario
from netsim.cluster.places import fill_disk, free_disk, open_places
from netsim.cluster.run import Options, check_scenario, run
from netsim.scenario import Fault, Load, Scenario
from wattswarm.kernel.refusal import Refused

pytestmark = pytest.mark.usefixtures("hosts_can_be_made")


def short(**changes: object) -> Scenario:
    """Fifteen seconds of four daemons: a Postgres is killed, a daemon too, a disk is full, two lose the others."""
    faults = (
        Fault("partition", after_s=2, for_s=4),
        Fault("crash", after_s=4, for_s=2, share=0.25),
        Fault("postgres", after_s=8, for_s=1, share=0.25),
        Fault("disk_full", after_s=1, for_s=14, share=0.25),
    )
    load = Load(tasks_per_s=0.4, notes_per_s=4, expiry_s=60)
    made = Scenario("short", "", size="cluster", nodes=4, seconds=15, settle_s=120, load=load, faults=faults)
    return replace(made, **changes)


def test_daemons_that_are_broken_and_healed_hold_the_same_and_every_task_ends(tmp_path: Path) -> None:
    outcome = trio.run(run, short(), 1, lambda _done, _whole: None, Options(logs=tmp_path))
    assert outcome.fault == ""
    assert outcome.tasks == 6
    assert outcome.events > outcome.tasks * 10
    said = "".join(log.read_text() for log in tmp_path.iterdir())
    assert said.count("nothing can be stored") == said.count("there is room again") >= 1
    assert not list(Path("/tmp").glob(f"wscluster-{os.getpid()}-*"))


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        (short(liars={"twin": 1}), "liars"),
        (short(faults=(Fault("eclipse"),)), "faults[0].kind"),
        (short(nodes=33), "nodes"),
        (short(load=Load(history=1_000)), "load.history"),
    ],
)
def test_what_daemons_cannot_be_made_to_meet_is_refused_by_its_field(changed: Scenario, field: str) -> None:
    with pytest.raises(Refused) as refused:
        check_scenario(changed)
    assert field in str(refused.value)


def test_a_disk_cannot_be_full_in_virtual_time() -> None:
    with pytest.raises(Refused, match="disk_full"):
        scenario.check_kinds(short(faults=(Fault("disk_full"),)), cluster=False)


def test_a_disk_is_made_full_while_it_is_written_to() -> None:
    ended = threading.Event()

    def writes(file: Path) -> None:
        while not ended.wait(0.001):
            with suppress(OSError), file.open("ab") as growing:
                growing.write(bytes(10_000))

    with open_places(1, own_disks=True) as (state,):
        writer = threading.Thread(target=writes, args=(state.parent / "grows",))
        writer.start()
        try:
            for _ in range(10):
                fill_disk(state.parent)
                free_disk(state.parent)
        finally:
            ended.set()
            writer.join()
        fill_disk(state.parent)
        with pytest.raises(OSError, match="No space left"):
            (state.parent / "more").write_bytes(bytes(1 << 16))
