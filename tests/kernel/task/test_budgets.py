"""docs/protocol.md §6 "Stage budgets": who pays, what for, and what is free."""

from __future__ import annotations

from typing import Any

from tests.cast import digest_of
from tests.story import Story
from tests.world import World
from wattswarm.kernel.event import Event
from wattswarm.kernel.task.state import Spent


def budgeted(explore: int = 9, verify: int = 9, finalize: int = 9, **sizes: int) -> Story:
    """A task of four members with these buckets; a quarter of them (rounded up) is one author's share."""
    changes: dict[str, Any] = {
        "budget.explore_cost_units": explore,
        "budget.verify_cost_units": verify,
        "budget.finalize_cost_units": finalize,
        **{path.replace("__", "."): size for path, size in sizes.items()},
    }
    return World.of(4).task(changes=changes)


def test_each_kind_pays_its_stage() -> None:
    story = budgeted(explore=40, verify=40)
    ada, ben = story.world.node("ada"), story.world.node("ben")
    answer = story.propose("ada", digests=[digest_of("a")])
    for said, spent in (
        (story.claim("ada"), None),
        (answer, Spent(explore=1)),
        (story.add_evidence("ada", digests=[digest_of("b")]), Spent(explore=2)),
    ):
        story.accepts(said)
        assert story.state.work.spent.get(ada) == spent
    for said, spent in (
        (story.claim("ben", "verify"), None),
        (story.available("ben", answer), Spent(verify=1)),
        (story.result("ben", answer), Spent(verify=2)),
        (story.commit("ben", answer), Spent(verify=3)),
        (story.reveal("ben", answer), Spent(verify=4)),
        (story.decide("ben", answer), Spent(verify=4, finalize=1)),
        (story.vote_finality("ben", answer), Spent(verify=4, finalize=1)),
    ):
        story.accepts(said)
        assert story.state.work.spent.get(ben) == spent


def test_free_kinds_pay_nothing() -> None:
    story = budgeted()
    story.accepts(story.claim("ada"), story.renew("ada"), story.release("ada"))
    story.tell(story.error("ada"))
    answer = story.propose("ada")
    story.decide_with(story.certificate(answer))
    story.accepts(story.vote_finality("ada", answer), story.finalize("ada", answer))
    assert story.state.work.spent == {}


def test_refused_events_do_not_pay() -> None:
    story = budgeted()
    story.refuses(story.propose("ada"), "no_lease")
    assert story.state.work.spent == {}


def test_repeats_do_not_pay() -> None:
    story = budgeted()
    story.accepts(story.claim("ada"), story.propose("ada"))
    story.ignores(story.propose("ada"))
    assert story.state.work.spent[story.world.node("ada")].explore == 1


def test_what_would_exceed_the_bucket_is_refused() -> None:
    story = budgeted(explore=2)
    story.accepts(*(story.claim(name) for name in ("ada", "ben", "cy")), story.propose("ada"), story.propose("ben"))
    story.refuses(story.propose("cy"), "budget_spent", "all 2 explore units")


def test_one_author_spends_its_share_and_no_more() -> None:
    story = budgeted(explore=5)
    story.accepts(story.claim("ada"), story.propose("ada"))
    story.accepts(story.add_evidence("ada", digests=[digest_of("a")]))
    more = story.add_evidence("ada", digests=[digest_of("b")])
    story.refuses(more, "budget_share", "used 2 of its 2 explore units")


def test_shares_of_verifiers_are_by_max_verifiers() -> None:
    story = budgeted(verify=8)
    answer = _proposed(story)
    story.accepts(story.claim("ben", "verify"), story.available("ben", answer), story.result("ben", answer))
    story.refuses(story.commit("ben", answer), "budget_share", "2 verify units")
    story.accepts(story.claim("cy", "verify"), story.result("cy", answer))


def _proposed(story: Story) -> Event:
    answer = story.propose("ada", digests=[digest_of("a")])
    story.accepts(story.claim("ada"), answer)
    return answer


def test_used_up_verify_bucket_refuses_availability_result_commit_and_reveal() -> None:
    story = budgeted(verify=2, assignment__verify__max_verifiers=1)
    answer = _proposed(story)
    story.accepts(story.claim("ben", "verify"), story.result("ben", answer), story.commit("ben", answer))
    story.refuses(story.reveal("ben", answer), "budget_share")
    story.refuses(story.available("ben", answer), "budget_share")


def test_finality_is_free_when_every_bucket_is_used_up() -> None:
    story = budgeted(explore=1, verify=3, finalize=1, assignment__verify__max_verifiers=1)
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer, *story.judge("ben", answer), story.reveal("ben", answer))
    story.accepts(story.decide("ada", answer))
    story.accepts(*(story.vote_finality(name, answer) for name in ("ada", "ben", "cy", "dee")))
