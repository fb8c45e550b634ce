"""Reports: a run, and what becomes of swarms as they grow, as pages that hold all they need, and as numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from netsim import growth, report
from netsim.main import cli
from netsim.sweep import Recorded, read_record, record
from netsim.world import World
from tests.netsim.test_runs import short
from wattswarm.kernel.refusal import Refused


def recorded(nodes: int, seed: int = 1) -> Recorded:
    chosen = replace(short, nodes=nodes, seconds=4)
    return Recorded(chosen, World(chosen, seed).run())


def self_contained(page: Path) -> bool:
    """Whether a page shows pictures, and asks for nothing elsewhere."""
    text = page.read_text()
    return 'src="data:image/png' in text and not re.search(r'(src|href)="(?!data:)', text)


def test_of_a_run_there_is_a_page_with_its_plots_and_the_numbers(tmp_path: Path) -> None:
    run = recorded(4)
    page, *plots, numbers = report.write(run, tmp_path / "run.html")
    assert self_contained(page)
    assert {plot.stem for plot in plots} == {
        "run-convergence",
        "run-faults",
        "run-delivery",
        "run-finality",
        "run-bytes",
    }
    assert json.loads(numbers.read_text())["outcome"]["digest"] == run.outcome.digest
    assert "Everything held." in page.read_text()


def test_of_a_run_that_failed_the_page_says_what_and_what_led_to_it(tmp_path: Path) -> None:
    run = recorded(2)
    run.outcome.fault, run.outcome.last = "n000 <lost> an event", ["     12 n000 wrote 1+0"]
    text = report.write(run, tmp_path / "run.html")[0].read_text()
    assert "n000 &lt;lost&gt; an event" in text
    assert "12 n000 wrote 1+0" in text
    assert "Everything held." not in text


def test_of_several_runs_there_is_what_an_event_costs_as_the_swarm_grows(tmp_path: Path) -> None:
    runs = [recorded(8), recorded(2), recorded(2, seed=2)]
    page, *plots, numbers = growth.write(runs, tmp_path / "grown.html")
    assert self_contained(page)
    assert {plot.stem for plot in plots} == {"grown-hops", "grown-copies", "grown-bytes", "grown-delivery"}
    points = json.loads(numbers.read_text())["points"]
    assert [(point["nodes"], point["seed"]) for point in points] == [(2, 1), (2, 2), (8, 1)]
    assert points[0]["hops"] == [1, 1]
    sent = runs[0].outcome.figures["bytes_each"].values()
    assert points[2]["bytes"] == pytest.approx(sum(sent) / len(sent) / points[2]["events"], abs=1)


def test_numbers_of_a_report_do_not_replace_a_recorded_run(tmp_path: Path) -> None:
    files = [tmp_path / f"{nodes}.json" for nodes in (2, 3)]
    for nodes, file in zip((2, 3), files, strict=True):
        run = recorded(nodes)
        record(run.scenario, run.outcome, file)
    before = read_record(files[0])
    mine = tmp_path / "mine.json"
    mine.write_text("[1]")
    for drawn, page in ((files, "2.html"), (files[1:], "2.html"), (files[1:], "2.json"), (files[:1], "mine.html")):
        with pytest.raises(Refused, match="--html"):
            cli(["report", *map(str, drawn), "--html", str(tmp_path / page)], standalone_mode=False)
    assert mine.read_text() == "[1]"
    assert read_record(files[0]) == before
    cli(["report", str(files[0]), "--html", str(tmp_path / "2.html")], standalone_mode=False)
    assert read_record(files[0]) == before, "the numbers of one run are the run"
    for drawn in (files[:1], files[1:], files):
        cli(["report", *map(str, drawn), "--html", str(tmp_path / "page.html")], standalone_mode=False)
    assert len(json.loads((tmp_path / "page.json").read_text())["points"]) == 2, "a report may follow another"


def test_a_page_says_the_command_that_made_the_run(tmp_path: Path) -> None:
    words = ["run", "calm-lan", "--nodes", "2", "--seed", "3"]
    cli([*words, "--out", str(tmp_path / "run.json")], standalone_mode=False)
    cli(["report", str(tmp_path / "run.json"), "--html", str(tmp_path / "run.html")], standalone_mode=False)
    assert "wattswarm-netsim run calm-lan --seed 3 --nodes 2<" in (tmp_path / "run.html").read_text()


def test_runs_of_daemons_are_not_drawn_among_others(tmp_path: Path) -> None:
    run = recorded(2)
    run.outcome.figures["cluster"] = True
    files = [tmp_path / "one.json", tmp_path / "other.json"]
    for file in files:
        record(run.scenario, run.outcome, file)
    with pytest.raises(Refused, match="daemons"):
        cli(["report", *map(str, files), "--html", str(tmp_path / "all.html")], standalone_mode=False)
