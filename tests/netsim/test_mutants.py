"""The checkers bite: with a promise taken away, a sweep finds a run that breaks; without, the same seeds hold."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from netsim import scenario
from netsim.sweep import run_one
from tests.netsim import mutants

seeds_max = 200
found_from = {"certificates in events only": 6, "no comparison": 31}
"""Seeds to begin with, for defects that few seeds meet: those before were swept once, and let them through."""
planted = {
    "fork handling dropped": ("equivocator", mutants.drop_forks),
    "half of the finalizers decide": ("finality-attack", mutants.half_decides),
    "one signature too few decides": ("finality-attack", mutants.one_too_few_decide),
    "vote lock forgotten on restart": ("split-votes", mutants.forget_votes),
    "fence forgotten by who was put back": ("lost-votes", mutants.forget_fence),
    "certificates in events only": ("equivocator", mutants.keep_certificates),
    "author guard ignored after a restore": ("old-backups", mutants.ignore_guard),
    "early events taken": ("skewed-clocks", mutants.take_early),
    "no comparison": ("flapping-partitions", mutants.skip_comparison),
    "folded in order of arrival": ("split-votes", mutants.fold_as_it_comes),
    "membership of now instead of the pinned one": ("membership-churn", mutants.newest_members),
    "orphans without bound": ("spammer", mutants.keep_every_orphan),
    "recovered without a moment of quiet": ("lost-votes", mutants.recover_at_once),
    "who is one too many is told nothing": ("crowded-doors", mutants.send_away_without_a_word),
}


@pytest.mark.parametrize("what", planted)
def test_a_planted_defect_is_found(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, plant = planted[what]
    chosen = scenario.load(name)
    chosen = replace(chosen, settle_s=min(chosen.settle_s, 120))
    with monkeypatch.context() as patch:
        plant(patch)
        first = found_from.get(what, 1)
        seed = next((seed for seed in range(first, seeds_max + 1) if run_one(chosen, seed).fault), None)
    assert seed is not None
    assert run_one(chosen, seed).fault == ""


def test_the_row_that_a_node_keeps_of_its_vote_is_enough_to_keep_it_from_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mutants.overlook_votes(monkeypatch)
    chosen = replace(scenario.load("split-votes"), settle_s=120)
    assert [run_one(chosen, seed).fault for seed in range(1, 5)] == [""] * 4
