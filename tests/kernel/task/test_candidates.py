"""docs/protocol.md §6 "Candidate", "Evidence added": what may be proposed, and by whom."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cast import digest_of, everything, hash_of, proposal
from tests.story import Story
from tests.world import World
from wattswarm.kernel.codec import encode, sha256
from wattswarm.kernel.limits import clock_skew_tolerance_ms, structured_summary_bytes_max
from wattswarm.kernel.task.candidate import candidate_hash

skew = clock_skew_tolerance_ms


def claimed(**changes: Any) -> Story:
    """A task of two members, both holding a propose lease."""
    story = World.of(2).task(changes={path.replace("__", "."): value for path, value in changes.items()})
    story.accepts(story.claim("ada"), story.claim("ben"))
    return story


def test_candidate_under_a_live_lease_is_accepted_and_kept_as_facts() -> None:
    story = claimed()
    proposed = story.propose("ada", digests=[digest_of("a"), digest_of("b"), digest_of("a")])
    story.accepts(proposed)
    facts = story.state.work.candidates[hash_of(proposed)]
    assert facts.author == story.world.node("ada")
    assert facts.output_digest == sha256(encode(proposal(proposed).output))
    assert facts.passes
    assert facts.proposed == [digest_of("a"), digest_of("b")]


def test_candidate_hash_is_of_author_and_candidate() -> None:
    story = claimed()
    proposed = story.propose("ada")
    fields = {
        "candidate_id": "ada-candidate",
        "execution_id": "ada-propose",
        "output": proposal(proposed).output,
        "evidence_inline": [],
        "evidence_refs": [],
    }
    assert hash_of(proposed) == sha256(encode([story.world.node("ada"), fields]))
    assert candidate_hash(story.world.node("ben"), proposal(proposed)) != hash_of(proposed)


def test_candidate_without_a_lease_is_refused() -> None:
    story = World().task()
    story.refuses(story.propose("ada"), "no_lease", "ada-propose")


def test_candidate_under_another_execution_is_refused() -> None:
    story = claimed()
    story.refuses(story.propose("ada", execution="another"), "no_lease", "another")


def test_candidate_under_a_verify_lease_is_refused() -> None:
    story = World().task()
    story.accepts(story.claim("ada", "verify"))
    story.refuses(story.propose("ada", execution="ada-verify"), "no_lease")


def test_candidate_within_the_skew_after_the_lease_is_accepted_and_later_refused() -> None:
    for late, accepted in ((skew, True), (skew + 1, False)):
        story = World().task()
        lease = story.claim("ada")
        story.accepts(lease)
        proposed = story.propose("ada", at_ms=lease.created_at + 5_000 + late)
        if accepted:
            story.accepts(proposed)
        else:
            story.refuses(proposed, "lease_expired")


def test_candidate_of_no_proposer_is_refused() -> None:
    story = World({"ada": everything, "ben": everything - {"proposer"}}).task()
    story.refuses(story.propose("ben"), "role", "proposer")


def test_candidate_after_time_ms_is_refused() -> None:
    story = World().task()
    end = story.creation.created_at + 30_000
    story.accepts(story.claim("ada", at_ms=end - 1))
    story.refuses(story.propose("ada", at_ms=end + 1), "time_box_over")


def test_same_candidate_again_is_a_no_op_even_after_the_lease() -> None:
    story = claimed()
    proposed = story.propose("ada")
    story.accepts(proposed, story.release("ada"))
    story.ignores(story.propose("ada"))


# -- what it may hold ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "output",
    [
        {"confidence": 0.5},
        {"answer": 7},
        "text",
        b"\x00\xff",
        {"answer": "x", "bytes": b"\x00"},
        {"answer": "x", "deep": json.loads("[" * 30 + "]" * 30), "list": [b"", {"a": b"\x01"}]},
        [],
        2**64 - 1,
    ],
    ids=repr,
)
def test_output_that_the_schema_does_not_accept_is_refused(output: Any) -> None:
    story = claimed()
    story.refuses(story.propose("ada", output=output), "output_schema", "output_schema")


def test_refusal_by_the_schema_names_the_field() -> None:
    story = claimed()
    story.refuses(story.propose("ada", output={"answer": 7}), "output_schema", "output.answer", "integer 7")


def test_output_of_the_largest_size_is_accepted_and_one_byte_more_refused() -> None:
    story = claimed()
    frame = len(encode({"answer": "x" * 60_000})) - 60_000
    fitting = "x" * (structured_summary_bytes_max - frame)
    story.refuses(story.propose("ada", output={"answer": fitting + "x"}), "output_too_large", "65537", "65536")
    story.accepts(story.propose("ada", output={"answer": fitting}))


def test_candidate_that_fails_the_policy_is_accepted_and_known_to_fail() -> None:
    story = claimed(
        acceptance__verifier_policy={
            "policy_id": "vp.crosscheck.v1",
            "policy_version": "1",
            "policy_hash": "0" * 64,
            "policy_params": {},
        }
    )
    proposed = story.propose("ada", output={"answer": "x"})
    story.accepts(proposed)
    assert not story.state.work.candidates[hash_of(proposed)].passes


@pytest.mark.parametrize(
    ("inline", "fault"),
    [
        ([("application/xml", "<a/>")], "evidence_inline[0].mime"),
        ([("text/plain", "ok"), ("image/png", "…")], "evidence_inline[1].mime"),
        ([("text/plain", "see data:image/png;base64,AAAA")], "evidence_inline[0].content"),
        ([("application/json", "{nope}")], "evidence_inline[0].content"),
        ([("application/json", "[1, NaN]")], "evidence_inline[0].content"),
        ([("text/plain", "x" * 40_000), ("text/csv", "x" * 25_537)], "65537 bytes"),
    ],
    ids=["mime", "media", "data url", "not json", "NaN", "too large"],
)
def test_inline_evidence_that_may_not_travel_is_refused(inline: list[tuple[str, str]], fault: str) -> None:
    story = claimed()
    story.refuses(story.propose("ada", inline=inline), "evidence_inline", fault)


def test_inline_evidence_of_every_allowed_kind_is_accepted() -> None:
    story = claimed()
    inline = [
        ("application/json", '{"trace": [1, 2.5e3, null]}'),
        ("text/plain", "x"),
        ("text/markdown", "# x"),
        ("text/csv", "a,b"),
    ]
    story.accepts(story.propose("ada", inline=inline))


def test_sixteen_refs_are_accepted() -> None:
    story = claimed()
    story.accepts(story.propose("ada", digests=[digest_of(str(n)) for n in range(16)]))


# -- when no more are wanted -----------------------------------------------------------------------------------------


def test_beyond_topk_candidates_are_refused_once_one_has_passed() -> None:
    story = claimed(assignment__explore__topk=1)
    first = story.propose("ada", digests=[digest_of("1")])
    story.accepts(first, story.propose("ben", digests=[digest_of("2")]))
    story.accepts(story.claim("ada", "verify"), story.result("ada", first))
    third = story.propose("ben", "third", digests=[digest_of("3")], output={"answer": f"{'ben'} says hello"})
    story.refuses(third, "enough_candidates", "topk is 1")


def test_below_topk_candidates_are_accepted_after_one_passed() -> None:
    story = claimed(assignment__explore__topk=2)
    first = story.propose("ada")
    story.accepts(first, story.claim("ada", "verify"), story.result("ada", first), story.propose("ben"))


def test_after_rounds_without_new_evidence_a_candidate_must_bring_refs() -> None:
    story = claimed(assignment__explore__stop__no_new_evidence_rounds=1)
    story.accepts(story.propose("ada"))
    story.refuses(story.propose("ben"), "no_new_evidence", "1 candidates brought 0 distinct")
    story.accepts(story.propose("ben", digests=[digest_of("new")]))


def test_evidence_added_counts_as_new_evidence() -> None:
    story = claimed(assignment__explore__stop__no_new_evidence_rounds=1)
    story.accepts(story.propose("ada"), story.add_evidence("ada", digests=[digest_of("new")]), story.propose("ben"))


def test_one_execution_gives_one_output() -> None:
    story = claimed()
    story.accepts(story.propose("ada"))
    other = story.propose("ada", "again", output={"answer": "on second thoughts"})
    story.refuses(other, "execution_output", "ada-propose", "ada-candidate")
    story.accepts(story.propose("ada", "with-more", digests=[digest_of("a")]))


def test_same_execution_id_of_another_proposer_is_another_execution() -> None:
    story = World.of(2).task()
    story.accepts(story.claim("ada", execution="x"), story.claim("ben", execution="x"))
    story.accepts(story.propose("ada", execution="x"), story.propose("ben", execution="x"))


# -- evidence added --------------------------------------------------------------------------------------------------


def test_evidence_for_ones_own_candidate_is_added_and_does_not_gate() -> None:
    story = claimed()
    proposed = story.propose("ada", digests=[digest_of("a")])
    story.accepts(proposed, story.add_evidence("ada", digests=[digest_of("a"), digest_of("b")]))
    facts = story.state.work.candidates[hash_of(proposed)]
    assert (facts.proposed, facts.added) == ([digest_of("a")], [digest_of("b")])


def test_evidence_that_is_there_already_is_a_no_op() -> None:
    story = claimed()
    story.accepts(story.propose("ada", digests=[digest_of("a")]))
    story.ignores(story.add_evidence("ada", digests=[digest_of("a")]))


def test_evidence_for_somebody_elses_candidate_is_refused() -> None:
    story = claimed()
    story.accepts(story.propose("ada"))
    story.refuses(story.add_evidence("ben", "ada-candidate", digests=[digest_of("b")]), "candidate_not_own")


def test_evidence_for_no_candidate_is_refused() -> None:
    story = claimed()
    story.refuses(story.add_evidence("ada", "nothing", digests=[digest_of("b")]), "candidate_unknown", "nothing")


def test_evidence_without_a_live_lease_is_refused() -> None:
    story = claimed()
    story.accepts(story.propose("ada"), story.release("ada"))
    story.refuses(story.add_evidence("ada", digests=[digest_of("b")]), "no_lease")


def test_evidence_after_time_ms_is_refused() -> None:
    story = World().task()
    end = story.creation.created_at + 30_000
    story.accepts(story.claim("ada", at_ms=end - 10), story.propose("ada", at_ms=end))
    story.refuses(story.add_evidence("ada", digests=[digest_of("b")], at_ms=end + 1), "time_box_over")
