"""Runs: reproducible from their seed, healed in the end, refused with a reason when asked for nonsense."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace

from netsim import scenario
from netsim.main import cli
from netsim.node import SimNode
from netsim.scenario import Fault, Scenario
from netsim.sweep import read_record, record, seeds_of, sweep, workers
from netsim.world import Outcome, World
from sel.log import TaskRecord
from tests.sizes import root
from wattswarm.kernel.refusal import Refused

short = Scenario(
    name="short",
    about="A little of everything.",
    nodes=4,
    seconds=8,
    load=scenario.Load(tasks_per_s=1.0, notes_per_s=0.5),
    faults=(
        Fault("partition", after_s=1, for_s=2),
        Fault("crash", after_s=2, for_s=1, share=0.3),
        Fault("reset", after_s=3, for_s=0),
    ),
)


def digest_of(seed: int) -> str:
    outcome = World(short, seed).run()
    assert outcome.fault == ""
    return outcome.digest


def test_the_same_seed_gives_the_same_trace_and_another_seed_another() -> None:
    assert digest_of(3) == digest_of(3) != digest_of(4)


small = [name for name in scenario.names() if scenario.load(name).size == "small"]


def outcome_of(name: str) -> Outcome:
    """A small scenario, a part of it where it is long."""
    chosen = scenario.load(name)
    return World(replace(chosen, seconds=min(chosen.seconds, 15)), 1).run()


@pytest.fixture(scope="module")
def elsewhere() -> dict[str, str]:
    """The digest of every small scenario, in a Python that has other hashes."""
    program = f"from tests.netsim.test_runs import *; print(*[outcome_of(name).digest for name in {small}])"
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(small, said.stdout.split(), strict=True))


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("every", {"small": (5, 6, 7), "big": (5,)}),
        ("small", {"small": (5, 6, 7)}),
        ("big", {"big": (5, 6, 7)}),
        ("calm-lan", {"calm-lan": (5, 6, 7)}),
    ],
)
def test_a_sweep_runs_the_scenarios_that_a_word_stands_for_the_big_ones_first(
    which: str, expected: dict[str, tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[tuple[str, str, tuple[int, ...]]] = []

    def noted(chosen: Scenario, seeds: range, _pool: object) -> list[Outcome]:
        swept.append((chosen.name, chosen.size, tuple(seeds)))
        return []

    monkeypatch.setattr("netsim.sweep.sweep", noted)
    assert cli(["sweep", which, "--seeds", "5..7"], standalone_mode=False) == 0
    named = {one.name: one.size for one in map(scenario.load, scenario.names())}
    found = {(name, some) for name, _, some in swept}
    assert found == {(name, some) for size, some in expected.items() for name in named if size in (name, named[name])}
    assert [size for _, size, _ in swept] == sorted(size for _, size, _ in swept)


@pytest.mark.parametrize("name", small)
def test_every_small_scenario_holds_and_the_hash_seed_of_python_changes_nothing(
    name: str, elsewhere: dict[str, str]
) -> None:
    outcome = outcome_of(name)
    assert outcome.fault == ""
    assert outcome.digest == elsewhere[name]


kept = (
    ("crowded-doors", 1),
    ("crowded-doors", 7),
    ("lost-votes", 235),
    ("lost-votes", 262),
    ("lost-votes", 311),
    ("skewed-clocks", 809),
)
"""Seeds that failed once: what they found was mended."""


@pytest.mark.parametrize(("name", "seed"), kept)
def test_a_seed_that_failed_once_holds(name: str, seed: int) -> None:
    assert World(scenario.load(name), seed).run().fault == ""


def test_whoever_checks_signatures_the_run_is_the_same() -> None:
    assert World(replace(short, signatures="once"), 3).run().digest == digest_of(3)


def test_every_python_has_the_same_trace() -> None:
    assert digest_of(3) == "3d3dfd402dfdd7d70f30a8a7e7269b2ce51bca39b67a7c36d406fafb53fedbc4", (
        "if what nodes do was changed on purpose, record the new digest here"
    )


def test_a_sweep_on_several_processes_gives_each_scenario_its_own_and_what_one_process_gives() -> None:
    few = [replace(short, name=name, seconds=1) for name in ("one", "other")]
    with workers(1) as alone, workers(2) as pool:
        here, there = ([sweep(chosen, range(1, 4), where) for chosen in few] for where in (alone, pool))
        found = [[{(run.scenario, run.seed, run.digest) for run in runs} for runs in some] for some in (here, there)]
    assert found[0] == found[1]
    assert [len(runs) for runs in found[0]] == [3, 3]
    assert [{name for name, _, _ in runs} for runs in found[1]] == [{"one"}, {"other"}]


def test_a_run_is_written_down_and_run_again(tmp_path: Path) -> None:
    outcome = World(short, 5).run()
    file = tmp_path / "run.json"
    record(short, outcome, file)
    read = read_record(file)
    assert (read.scenario, read.outcome.seed, read.outcome.digest) == (short, 5, outcome.digest)
    assert World(read.scenario, read.outcome.seed).run().digest == outcome.digest


def test_a_record_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text("{}")
    with pytest.raises(Refused, match=r"run\.json is no recorded run"):
        read_record(file)


def test_a_scenario_with_a_key_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('name = "mine"\nabout = ""\nnodez = 3\n')
    with pytest.raises(Refused, match="nodez"):
        scenario.load(str(file))
    with pytest.raises(Refused, match="calm-lan"):
        scenario.load("calm-len")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("[link]\nlatency_ms = [60, 20]", "60, 20"),
        ("[link]\nspikes = 7.0", "link.spikes"),
        ("[database]\ncommit_ms = [-1, 2]", "commit_ms"),
        ("[executor]\nlatency_ms = [9, 3]", "9, 3"),
        ("nodes = 401", r"400 - at `\$.nodes`"),
        ("finalizers = 9", "nodes: 4, expected 9 at least"),
        ("late = 1\n[liars]\ntwin = 3", "nodes: 4, expected 5 at least .late: 1, liars: 3"),
        ("udp = false\nbootstrap = 0", "bootstrap: 0 without udp"),
        ('folds = "often"', r"\$.folds`, expected one of: each, once"),
        ('[[faults]]\nkind = "boom"', r"kind`, expected one of: partition, "),
        ("[liars]\nboom = 1", r"liars`, expected one of: twin, "),
    ],
)
def test_a_scenario_of_what_cannot_be_is_refused(said: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'name = "mine"\nabout = ""\n{said}\n')
    with pytest.raises(Refused, match=why):
        scenario.load(str(file))


@pytest.mark.parametrize(("text", "seeds"), [("1..3", range(1, 4)), ("7", range(7, 8)), ("0..0", range(1))])
def test_seeds_are_counted_with_both_ends(text: str, seeds: range) -> None:
    assert seeds_of(text) == seeds


@pytest.mark.parametrize("text", ["", "3..1", "a..b", "-1..2", "1..", "1...2"])
def test_what_is_no_seeds_is_refused(text: str) -> None:
    with pytest.raises(Refused, match=r"A\.\.B"):
        seeds_of(text)


@pytest.mark.parametrize(
    "words", [("run", "calm-lan", "--out"), ("run", "calm-lan", "--trace"), ("report", __file__, "--html")]
)
@pytest.mark.parametrize("place", ["nowhere/file", "there/file"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_done(
    words: tuple[str, ...], place: str, tmp_path: Path
) -> None:
    (tmp_path / "there").write_text("a file, no folder")
    with pytest.raises(Refused, match=words[-1]):
        cli([*words, str(tmp_path / place)], standalone_mode=False)


def test_a_run_and_its_trace_are_two_files(tmp_path: Path) -> None:
    file = str(tmp_path / "file")
    with pytest.raises(Refused, match="--trace"):
        cli(["run", "calm-lan", "--out", file, "--trace", file], standalone_mode=False)
    assert not Path(file).exists()


def test_who_only_reads_must_hold_the_same_in_the_end() -> None:
    world = World(Scenario("reading", "", nodes=3, spares=1, seconds=4, load=scenario.Load(notes_per_s=2)), 1)
    members, reader = [node.name for node in world.nodes[:3]], world.nodes[3].name
    world.wires.cut(members, [reader])
    assert re.search(rf"n00. and {reader} hold different sets", world.run().fault)


def test_hops_are_counted_along_the_way_that_an_event_took() -> None:
    two = replace(short, nodes=2, faults=())
    assert World(two, 1).run().figures["hops"] == {"p50": 1, "p90": 1, "p99": 1, "max": 1}
    many = World(replace(two, nodes=24, seconds=3, signatures="once", folds="once"), 1).run().figures
    assert 1 < many["hops_mean"] <= many["hops"]["max"] < 24


def test_what_leaves_a_task_as_it_is_makes_nobody_look_at_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: Counter[tuple[str, bytes]] = Counter()
    real = SimNode.record

    def record(self: SimNode, task: bytes) -> TaskRecord | None:
        looks[self.name, task] += 1
        return real(self, task)

    monkeypatch.setattr(SimNode, "record", record)
    outcome = World(Scenario("notes", "", nodes=3, seconds=6, load=scenario.Load(notes_per_s=5)), 1).run()
    assert outcome.fault == ""
    assert outcome.events > 60, "notes in three streams"
    assert len(looks) == 9, "each node looked at each stream"
    assert max(looks.values()) <= 2


@pytest.mark.parametrize(("name", "nodes"), [("hundred-nodes", 6), ("hundred-nodes", 401), ("equivocator", 0)])
def test_another_number_of_nodes_is_refused_if_the_scenario_cannot_be_with_it(name: str, nodes: int) -> None:
    with pytest.raises(Refused, match=rf"nodes: found {nodes}, expected \d+ to 400"):
        cli(["run", name, "--nodes", str(nodes)], standalone_mode=False)
