"""docs/protocol.md §6 "Claim": leases, their windows, their number, their total."""

from __future__ import annotations

import pytest

from tests.cast import everything
from tests.story import Story
from tests.voice import ClaimRole
from tests.world import World
from wattswarm.kernel.limits import clock_skew_tolerance_ms
from wattswarm.kernel.payloads import work
from wattswarm.kernel.task.wording import moment

skew = clock_skew_tolerance_ms


def two(**changes: object) -> Story:
    """A task in a world of two members with all roles; one lease of a role at a time unless changed."""
    slots = {"assignment.claim.max_concurrency": {"propose": 1, "verify": 1}}
    return World.of(2).task(changes={**slots, **{path.replace("__", "."): value for path, value in changes.items()}})


def test_claim_within_the_window_is_accepted() -> None:
    story = two()
    story.accepts(story.claim("ada"))


def test_claim_that_ends_before_it_begins_is_refused() -> None:
    story = two()
    at = story.world.tick()
    story.refuses(story.claim("ada", lease_ms=0, at_ms=at), "lease_window", moment(at))


def test_claim_may_last_lease_ms_and_the_skew_and_no_longer() -> None:
    story = two(budget__time_ms=60_000)
    story.refuses(story.claim("ada", lease_ms=5_000 + skew + 1), "lease_window", "8000 ms")
    story.accepts(story.claim("ada", lease_ms=5_000 + skew))


def test_claim_at_capacity_is_refused_and_the_earlier_one_in_canonical_order_holds() -> None:
    story = two()
    first, second = story.claim("ada"), story.claim("ben")
    story.accepts(first)
    story.refuses(second, "claim_conflict", "1 of 1 propose leases", story.world.node("ada").hex()[:12])
    assert list(story.state.work.propose) == [story.world.node("ada")]


def test_capacity_is_the_smaller_of_max_concurrency_and_max_proposers() -> None:
    for concurrency, proposers, slots in ((2, 1, 1), (1, 2, 1), (2, 2, 2)):
        story = World.of(3).task(
            changes={
                "assignment.claim.max_concurrency": {"propose": concurrency, "verify": 9},
                "assignment.explore.max_proposers": proposers,
            }
        )
        verdicts = [story.tell(story.claim(name)).status for name in ("ada", "ben", "cy")]
        assert verdicts.count("accepted") == slots


def test_capacity_of_verifiers_is_counted_by_itself() -> None:
    story = two()
    story.accepts(story.claim("ada"), story.claim("ben", "verify"))
    story.refuses(story.claim("ada", "verify"), "claim_conflict", "verify leases")


def test_slot_is_free_again_after_expiry_and_skew() -> None:
    story = two()
    claimed = story.claim("ada")
    story.accepts(claimed)
    until = claimed.created_at + 5_000
    story.refuses(story.claim("ben", at_ms=until + skew), "claim_conflict")
    story.accepts(story.claim("ben", at_ms=until + skew + 1))


def test_same_claim_again_is_a_no_op() -> None:
    story = two()
    first = story.claim("ada")
    story.accepts(first)
    assert isinstance(first.payload, work.TaskClaimed)
    story.ignores(story.say("ada", first.payload))


def test_claim_of_a_live_execution_until_later_is_refused_and_points_to_renewal() -> None:
    story = two()
    story.accepts(story.claim("ada"))
    story.refuses(story.claim("ada"), "lease_live", "renew it")


def test_own_second_execution_needs_a_slot_too() -> None:
    story = two()
    story.accepts(story.claim("ada"))
    story.refuses(story.claim("ada", execution="another"), "claim_conflict")


@pytest.mark.parametrize(("role", "missing"), [("propose", "proposer"), ("verify", "verifier")])
def test_claim_needs_the_role_it_claims(role: ClaimRole, missing: str) -> None:
    world = World({"ada": everything, "ben": everything - {missing}})
    story = world.task()
    story.refuses(story.claim("ben", role), "role", missing)
    story.accepts(story.claim("ada", role))


def test_author_leases_of_a_role_total_at_most_half_the_time() -> None:
    story = two(budget__time_ms=30_000)
    at = story.world.now_ms + 10
    for turn in range(3):
        story.accepts(story.claim("ada", execution=f"x{turn}", at_ms=at))
        at += 5_000 + skew + 1
    story.refuses(story.claim("ada", execution="x3", at_ms=at), "lease_total", "20000 ms", "15000 ms")
    story.accepts(story.claim("ben", at_ms=at))


def test_author_leases_may_total_lease_ms_when_half_the_time_is_less() -> None:
    story = two(budget__time_ms=6_000, budget__reuse_verify_time_ms=0)
    story.accepts(story.claim("ada"))
    story.refuses(story.renew("ada", lease_ms=5_001), "lease_total", "5000 ms")


def test_totals_are_by_role() -> None:
    story = two(budget__time_ms=6_000, budget__reuse_verify_time_ms=0)
    story.accepts(story.claim("ada"), story.claim("ada", "verify"))


def test_claim_at_the_end_of_time_ms_is_accepted_and_after_it_refused() -> None:
    story = two()
    end = story.creation.created_at + 30_000
    story.accepts(story.claim("ada", at_ms=end))
    story.refuses(story.claim("ben", "verify", at_ms=end + 1), "time_box_over", moment(end))


# -- renew -----------------------------------------------------------------------------------------------------------


def test_renewal_extends_a_live_lease() -> None:
    story = two()
    claimed = story.claim("ada")
    story.accepts(claimed)
    renewed = story.renew("ada", at_ms=claimed.created_at + 4_000)
    story.accepts(renewed)
    assert story.state.work.propose[story.world.node("ada")].leases[0].until == renewed.created_at + 5_000
    assert story.state.work.propose[story.world.node("ada")].held_ms == 9_000


def test_renewal_to_an_earlier_end_is_a_no_op() -> None:
    story = two()
    story.accepts(story.claim("ada"))
    story.ignores(story.renew("ada", lease_ms=100))


def test_renewal_within_the_skew_is_accepted_and_later_refused() -> None:
    for late, reason in ((skew, ""), (skew + 1, "lease_expired")):
        story = two()
        claimed = story.claim("ada")
        story.accepts(claimed)
        renewal = story.renew("ada", at_ms=claimed.created_at + 5_000 + late)
        if reason:
            story.refuses(renewal, reason, moment(claimed.created_at + 5_000), moment(renewal.created_at))
        else:
            story.accepts(renewal)


def test_renewal_keeps_to_the_same_window() -> None:
    story = two()
    story.accepts(story.claim("ada"))
    story.refuses(story.renew("ada", lease_ms=5_000 + skew + 1), "lease_window")


def test_renewal_of_somebody_elses_lease_is_refused() -> None:
    story = two()
    story.accepts(story.claim("ada"))
    story.refuses(story.renew("ben", execution="ada-propose"), "no_lease")


def test_renewals_count_into_the_total() -> None:
    story = two()
    claimed = story.claim("ada")
    story.accepts(claimed)
    for turn in (1, 2):
        story.accepts(story.renew("ada", at_ms=claimed.created_at + turn * 5_000))
    story.refuses(story.renew("ada", at_ms=claimed.created_at + 15_000), "lease_total")


def test_a_verify_lease_may_be_renewed_after_time_ms() -> None:
    story = two()
    end = story.creation.created_at + 30_000
    story.accepts(story.claim("ada", "verify", at_ms=end - 1_000), story.renew("ada", "verify", at_ms=end + 1_000))


# -- release ---------------------------------------------------------------------------------------------------------


def test_release_frees_the_slot_at_once() -> None:
    story = two()
    story.accepts(story.claim("ada"), story.release("ada"), story.claim("ben"))


def test_release_gives_back_the_time_that_is_left() -> None:
    story = two()
    claimed = story.claim("ada")
    story.accepts(claimed, story.release("ada", at_ms=claimed.created_at + 1_000))
    assert story.state.work.propose[story.world.node("ada")].held_ms == 1_000


def test_release_again_is_a_no_op() -> None:
    story = two()
    story.accepts(story.claim("ada"), story.release("ada"))
    story.ignores(story.release("ada"))


def test_release_without_a_lease_is_refused() -> None:
    story = two()
    story.refuses(story.release("ada"), "no_lease", "ada-propose")


def test_release_of_an_expired_lease_is_refused() -> None:
    story = two()
    claimed = story.claim("ada")
    story.accepts(claimed)
    story.refuses(story.release("ada", at_ms=claimed.created_at + 5_000 + skew + 1), "lease_expired")


def test_released_execution_may_be_claimed_anew() -> None:
    story = two()
    story.accepts(story.claim("ada"), story.release("ada"), story.claim("ada"), story.release("ada"))


def test_executions_are_keyed_by_claimer() -> None:
    story = World.of(2).task()
    story.accepts(story.claim("ada", execution="same"), story.claim("ben", execution="same"))
