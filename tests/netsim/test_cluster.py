"""A scenario's faults on real daemons, wherever this host has them; the plan that a seed makes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner
from msgspec.structs import replace

from netsim.cluster.measure import Measures
from netsim.cluster.options import Wanted
from netsim.cluster.places import open_places
from netsim.cluster.plan import drawn
from netsim.cluster.run import Options, check_scenario, run
from netsim.main import cli as netsim_cli
from netsim.report import write
from netsim.scenario import Fault, Load, Scenario, check_kinds, load, names
from netsim.sweep import is_cluster, read_record, record
from tests.daemons import clean_environment
from tests.sizes import root
from tests.swarms import becomes
from wattswarm.kernel.refusal import Refused

faults = (
    Fault("partition", after_s=1, for_s=4),
    Fault("crash", after_s=3, for_s=1, share=0.25),
    Fault("stall", after_s=3, for_s=2, share=0.25),
    Fault("reset", after_s=6, for_s=0),
    Fault("postgres", after_s=7, for_s=0, share=0.25),
)
short = Scenario(
    "short", "", size="cluster", nodes=4, seconds=10, settle_s=100, load=Load(tasks_per_s=0.5, notes_per_s=0.5),
    faults=faults,
)  # fmt: skip


def test_daemons_on_loopback_are_broken_and_healed_and_hold_the_same(tmp_path: Path) -> None:
    outcome = trio.run(run, short, 1, lambda _done, _whole: None, Options(loopback=True))
    assert outcome.fault == ""
    assert outcome.tasks == 5
    assert sum(outcome.figures["ended"].values()) >= 5
    assert {kind for _, _, kind, _ in outcome.figures["faults"]} >= {"partition", "reset", "postgres"}
    assert outcome.figures["memory"].keys() == {"n000", "n001", "n002", "n003"}
    assert min(outcome.figures["bytes_each"].values()) > 1_000
    assert outcome.digest == drawn(short, 1).digest
    assert is_cluster(outcome)
    assert outcome.figures["ground"] == "loopback"
    assert not left_by(os.getpid())
    run_file = tmp_path / "run.json"
    record(short, outcome, run_file)
    drawn_files = write(read_record(run_file), tmp_path / "page.html")
    assert tmp_path / "page-memory.png" in drawn_files
    refused = CliRunner().invoke(netsim_cli, ["replay", str(run_file)])
    assert "never happens again" in str(refused.exception)


for_daemons = ("calm-lan", "flapping-partitions", "lossy-wan", "mass-restart", "old-backups", "skewed-clocks", "soak")


@pytest.mark.parametrize("name", for_daemons)
def test_what_daemons_can_meet_they_may_be_made_to_meet(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    check_scenario(load(name))


@pytest.mark.parametrize("name", ["duplicates", "reorders", "spikes", "tail_ms"])
def test_what_real_wires_cannot_be_told_is_refused_by_its_field(name: str) -> None:
    with pytest.raises(Refused) as refused:
        check_scenario(replace(short, link=replace(short.link, **{name: 0.5})))
    assert f"link.{name}" in str(refused.value)


def left_by(process: int) -> list[str]:
    """What a run has left of its directory and in its process's name."""
    found = [str(path) for path in Path("/tmp").glob(f"wscluster-{process}-*")]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if f"/wscluster-{process}-" in (said := path.read_bytes().decode(errors="replace")):
                found.append(said)
    return found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_run_that_is_ended_or_killed(how: signal.Signals, tmp_path: Path) -> None:
    """What was killed itself cannot clear away: the next run does."""
    scenario, trace = tmp_path / "mine.toml", tmp_path / "trace"
    scenario.write_text('name = "mine"\nabout = ""\nsize = "cluster"\nnodes = 2\nseconds = 300\n')
    words = ["run", str(scenario), "--cluster", "--loopback", "--trace", str(trace)]
    with subprocess.Popen(
        [sys.executable, "-m", "netsim.main", *words], env={**clean_environment, "PYTHONPATH": str(root)}
    ) as process:
        becomes(lambda: trace.exists() and trace.read_text().count("serves"), 2, 60)
        assert left_by(process.pid)
        process.send_signal(how)
        code = process.wait(60)
    if how == signal.SIGKILL:
        with open_places(1, own_disks=False):
            pass
    becomes(lambda: left_by(process.pid), [])
    assert code == (130 if how == signal.SIGINT else -how)


def test_a_seed_makes_one_plan_and_another_seed_another() -> None:
    assert drawn(short, 1) == drawn(short, 1)
    assert drawn(short, 1).digest != drawn(short, 2).digest


def test_a_plan_has_as_many_tasks_as_were_wanted_and_spares_lasting_daemons_their_end() -> None:
    soak = Wanted(True, 600, 77, None, False).changed(load("soak"))
    plan = drawn(soak, 5)
    assert sum(saying.what == "task" for saying in plan.sayings) == 77
    ends = [strike for strike in plan.strikes if strike.kind in ("crash", "wipe", "restore", "skew")]
    assert ends
    assert min(min(strike.hosts) for strike in ends) >= soak.lasting
    assert {strike.kind for strike in plan.strikes} == {fault.kind for fault in soak.faults}


def test_every_scenario_fits_a_mode() -> None:
    for name in names():
        check_kinds(load(name), cluster=load(name).size == "cluster")


def test_what_needs_a_cluster_is_refused_without_one() -> None:
    with pytest.raises(Refused, match="virtual time") as refused:
        Wanted(False, None, 200, None, False).changed(short)
    assert "--tasks" in str(refused.value)


def test_a_disk_of_ones_own_takes_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    with pytest.raises(Refused) as refused:
        check_scenario(replace(short, faults=(Fault("disk_full"),)))
    assert "disk_full" in str(refused.value)


class Grown:
    """A daemon whose memory is as it is told."""

    name = "n000"


@pytest.mark.parametrize(("last_mib", "flat"), [(80, True), (120, False)])
def test_memory_that_grows_is_told(last_mib: int, flat: bool) -> None:
    measures = Measures()
    measures.began_ms -= 300_000
    measures.memory["n000"] = [(second, (60 if second < 60 else last_mib) << 20) for second in range(80)]
    told = measures.growth(Grown())  # type: ignore[arg-type]
    assert told == ("" if flat else "the memory of n000 grew from 60 to 120 MiB")
