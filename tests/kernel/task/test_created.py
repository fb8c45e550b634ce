"""docs/protocol.md §6 "Created": what a creation must be, and what a certificate's need not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cast import everything
from tests.world import World
from wattswarm.kernel.limits import expiry_horizon_ms_max
from wattswarm.kernel.membership import NotYetKnown
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.task.fold import new_state, open_task, pin_task
from wattswarm.kernel.task.wording import moment


def test_creation_pins_contract_membership_and_policy() -> None:
    world = World.of(3)
    creation = world.create_task(task_id="a-label")
    pins = open_task(creation, world.network)
    assert (pins.task, pins.contract.task_id) == (creation.id, "a-label")
    assert pins.membership.hash == world.network_id
    assert pins.policy.policy_hash == pins.contract.acceptance.verifier_policy.policy_hash


def test_creation_pins_its_membership_version_for_good() -> None:
    world = World.of(2)
    creation = world.create_task()
    world.next_version({"ada": everything, "ben": everything, "cy": everything})
    assert open_task(creation, world.network).membership.number == 0
    assert open_task(world.create_task("ben"), world.network).membership.number == 1


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"acceptance.quorum_threshold": 0}, "acceptance.quorum_threshold"),
        ({"acceptance.verifier_policy.policy_id": "vp.unheard_of"}, "acceptance.verifier_policy.policy_id"),
        ({"acceptance.verifier_policy.policy_version": "2"}, "acceptance.verifier_policy.policy_version"),
        ({"task_mode": "CONTINUOUS"}, "budget.mode"),
        ({"output_schema": {"$ref": "http://example.com/schema"}}, "output_schema"),
    ],
    ids=str,
)
def test_creation_with_a_bad_contract_is_refused_with_the_path(changes: dict[str, Any], path: str) -> None:
    world = World()
    with pytest.raises(Refused, match="contract") as refusal:
        open_task(world.create_task(changes=changes), world.network)
    assert any(problem.path.startswith(path) for problem in refusal.value.problems)


def test_creation_under_an_unknown_membership_waits_for_it() -> None:
    world = World()
    with pytest.raises(NotYetKnown) as refusal:
        open_task(world.create_task(membership=b"\x07" * 32), world.network)
    assert refusal.value.needed == b"\x07" * 32


def test_creation_by_no_proposer_is_refused_unless_a_certificate_carries_it() -> None:
    world = World({"ada": everything, "ben": everything - {"proposer"}})
    creation = world.create_task("ben")
    with pytest.raises(Refused, match="no proposer"):
        open_task(creation, world.network)
    assert pin_task(creation, world.network).task == creation.id


def test_expiry_must_be_after_the_creation_and_within_366_days() -> None:
    world = World()
    at = world.now_ms + 1_000
    for expiry, reason in (
        (at, "expiry_passed"),
        (at + 1, None),
        (at + expiry_horizon_ms_max, None),
        (at + expiry_horizon_ms_max + 1, "expiry_too_far"),
    ):
        world = World()
        creation = world.create_task(changes={"expiry_ms": expiry}, at_ms=at)
        if reason is None:
            open_task(creation, world.network)
            continue
        with pytest.raises(Refused) as refusal:
            open_task(creation, world.network)
        assert refusal.value.reason == reason
        assert moment(expiry) in refusal.value.message
        assert pin_task(creation, world.network).contract.expiry_ms == expiry


def test_new_task_is_open_in_its_first_epoch_from_its_creation_on() -> None:
    world = World()
    creation = world.create_task()
    state = new_state(open_task(creation, world.network), [])
    assert (state.epoch, state.work.started_at, state.closing) == (1, creation.created_at, "OPEN")
