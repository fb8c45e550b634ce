"""Nodes that share what an event does to a log end with the same, step for step, as nodes that work it out each."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from netsim import scenario
from netsim.world import World


@pytest.mark.parametrize(
    "name",
    ["calm-lan", "equivocator", "lossy-wan", "mass-restart", "membership-churn", "rolling-upgrade", "skewed-clocks"],
)
def test_whoever_works_out_a_step_the_run_is_the_same(name: str) -> None:
    each = replace(scenario.load(name), seconds=12)
    alone, shared = World(each, 5), World(replace(each, folds="once"), 5)
    assert alone.run().digest == shared.run().digest
    assert alone.steps.shared == 0
    assert shared.steps.shared > 0
