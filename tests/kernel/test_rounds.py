"""Signing a membership version: two phases, rounds and locks (docs/protocol.md §9)."""

from __future__ import annotations

import pytest

from tests.cast import everything
from tests.kernel.council import Council, finalizers, node, worker
from wattswarm.kernel import limits, rounds
from wattswarm.kernel.membership import Phase, check_update, version_hash
from wattswarm.kernel.payloads import govern
from wattswarm.kernel.payloads.fields import SignerSignature
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.rounds import Stored
from wattswarm.kernel.verdict import Verdict

three = ("ada", "ben", "cy")


def opened() -> tuple[Council, govern.VersionBody, govern.VersionBody]:
    """A council and two versions that it might choose; neither is proposed."""
    council = Council()
    return council, council.version("fay"), council.version("gus")


def reason(verdict: Verdict) -> str:
    assert verdict.status == "refused", verdict
    return verdict.reason


# -- the way through -----------------------------------------------------------------------------------------------


def test_four_finalizers_sign_a_version_in_two_phases() -> None:
    council, fay, _ = opened()
    assert council.propose("ada", fay).accepted
    council.all_sign(three, "prepare", fay)
    assert rounds.update(council.book, council.previous) is None
    council.all_sign(three, "commit", fay)
    update = rounds.update(council.book, council.previous)
    assert update is not None
    assert check_update(update, council.world.network) == version_hash(fay)
    assert council.say("eli", update).accepted


def test_one_finalizer_does_it_all_at_once() -> None:
    council = Council({"ada": everything, "eli": worker})
    body = council.version("fay")
    me, version = node("ada"), council.previous
    assert council.propose("ada", body).accepted
    rounds.may_prepare(council.book, version, me, [], 0, version_hash(body))
    assert council.sign("ada", "prepare", body).accepted
    rounds.may_commit(council.book, version, me, [], 0, version_hash(body))
    assert council.sign("ada", "commit", body).accepted
    update = rounds.update(council.book, version)
    assert update is not None
    assert council.say("ada", update).accepted
    assert council.world.network.with_version(update).current.has(node("fay"), "verifier")


def test_an_update_has_as_many_signatures_as_decide_and_always_the_same() -> None:
    council, fay, _ = opened()
    council.propose("ada", fay)
    council.all_sign(finalizers, "prepare", fay)
    council.all_sign(finalizers, "commit", fay)
    update = rounds.update(council.book, council.previous)
    assert update is not None
    assert [entry.signer_node_id for entry in update.signatures] == sorted(map(node, finalizers))[:3]


def test_commits_of_two_rounds_do_not_add_up() -> None:
    council, fay, _ = opened()
    for round_ in (0, 1):
        council.propose("ada", fay, round_)
        council.all_sign(three, "prepare", fay, round_)
        council.all_sign(["ada", "ben"] if round_ == 0 else ["cy"], "commit", fay, round_)
    assert rounds.update(council.book, council.previous) is None
    council.all_sign(["ada", "ben"], "commit", fay, 1)
    assert rounds.update(council.book, council.previous) is not None


# -- proposals -----------------------------------------------------------------------------------------------------


def test_a_proposal_names_the_predecessor_that_its_version_follows() -> None:
    council, fay, _ = opened()
    later = council.world.next_version(council.world.members).id
    verdict = council.say("ada", govern.MembershipProposed(later, 0, fay))
    assert reason(verdict) == "other_previous"


def test_a_version_that_is_not_sound_cannot_be_proposed() -> None:
    council, fay, _ = opened()
    unsound = govern.VersionBody(fay.network_id, 2, fay.previous, fay.members, fay.until)
    assert reason(council.propose("ada", unsound)) == "membership_number"


def test_a_finalizer_proposes_one_version_a_round() -> None:
    council, fay, gus = opened()
    assert council.propose("ada", fay).accepted
    assert council.propose("ada", fay).accepted
    assert reason(council.propose("ada", gus)) == "proposed_twice"
    assert council.propose("ben", gus).accepted


def test_a_finalizer_changes_its_mind_in_the_next_round() -> None:
    council, fay, gus = opened()
    council.propose("ada", fay)
    assert reason(council.propose("ada", gus, 1)) == "round_ahead"
    council.all_sign(["ada"], "prepare", fay)
    assert council.propose("ada", gus, 1).accepted


@pytest.mark.parametrize(
    ("signers", "shown", "why"),
    [
        (("ada", "ben"), 0, "too_few_signers"),
        (("ada", "ben", "ben"), 0, "signer_twice"),
        (("ada", "ben", "eli"), 0, "signer_role"),
        (three, 1, "quorum_round"),
        (three, 2, "quorum_round"),
    ],
)
def test_a_shown_prepare_quorum_is_one_of_an_earlier_round(signers: tuple[str, ...], shown: int, why: str) -> None:
    council, fay, gus = opened()
    council.propose("ada", gus)
    council.all_sign(three, "prepare", gus)
    assert council.propose("ada", fay, 1, council.quorum(three, fay, 0)).accepted
    assert reason(council.propose("ben", fay, 1, council.quorum(signers, fay, shown))) == why


def test_a_prepare_quorum_for_another_version_does_not_count() -> None:
    council, fay, gus = opened()
    council.propose("ada", fay)
    council.all_sign(["ada"], "prepare", fay)
    assert reason(council.propose("ada", gus, 1, council.quorum(three, fay))) == "bad_signature"


def test_the_newest_prepare_quorum_is_the_one_to_show() -> None:
    council, fay, _ = opened()
    assert rounds.prepare_quorum(council.book, council.previous, version_hash(fay)) is None
    for round_ in (0, 1):
        council.propose("ada", fay, round_)
        council.all_sign(three, "prepare", fay, round_)
    quorum = rounds.prepare_quorum(council.book, council.previous, version_hash(fay))
    assert quorum is not None
    assert quorum.round == 1
    assert council.propose("ada", fay, 2, quorum).accepted


# -- signatures ----------------------------------------------------------------------------------------------------


def test_a_version_is_prepared_in_a_round_in_which_it_is_proposed() -> None:
    council, fay, gus = opened()
    assert reason(council.sign("ada", "prepare", fay)) == "not_proposed"
    council.propose("ben", fay)
    assert reason(council.sign("ada", "prepare", gus)) == "not_proposed"
    assert council.sign("ada", "prepare", fay).accepted
    assert reason(council.sign("ada", "prepare", fay, 1)) == "not_proposed"


def test_a_finalizer_prepares_one_version_a_round() -> None:
    council, fay, gus = opened()
    council.propose("ada", fay)
    council.propose("ben", gus)
    council.all_sign(["cy"], "prepare", fay)
    assert reason(council.sign("cy", "prepare", gus)) == "prepare_twice"
    assert council.sign("cy", "prepare", fay).accepted


def test_a_version_is_committed_after_its_prepare_quorum_in_the_round() -> None:
    council, fay, _ = opened()
    council.propose("ada", fay)
    council.all_sign(["ada", "ben"], "prepare", fay)
    assert reason(council.sign("ada", "commit", fay)) == "no_prepare_quorum"
    council.all_sign(["cy"], "prepare", fay)
    assert council.sign("ada", "commit", fay).accepted
    assert reason(council.sign("ada", "commit", fay, 1)) == "no_prepare_quorum"


def test_a_finalizer_commits_one_version_a_round() -> None:
    council, fay, gus = opened()
    council.propose("ada", fay)
    council.propose("ben", gus)
    council.all_sign(three, "prepare", fay)
    council.all_sign(["cy"], "commit", fay)
    verdict = council.sign("cy", "commit", gus)
    assert reason(verdict) == "commit_twice"
    assert f"commit for {version_hash(fay).hex()[:16]}" in verdict.message
    assert council.sign("cy", "commit", fay).accepted


def test_a_finalizer_that_did_not_prepare_may_commit() -> None:
    council, fay, _ = opened()
    council.propose("ada", fay)
    council.all_sign(three, "prepare", fay)
    assert council.sign("dee", "commit", fay).accepted


@pytest.mark.parametrize("phase", ["prepare", "commit"])
def test_a_signature_that_does_not_hold_is_refused(phase: Phase) -> None:
    council, fay, _ = opened()
    council.propose("ada", fay)
    council.all_sign(three, "prepare", fay)
    for signature in (council.signature("ada", phase, fay), council.signature("dee", phase, fay, 1), b"\x01" * 64):
        payload = govern.MembershipSigned(phase, fay.previous, 0, version_hash(fay), signature)
        assert reason(council.say("dee", payload)) == "bad_signature"
    assert council.sign("dee", phase, fay).accepted


def test_having_signed_in_a_round_a_finalizer_signs_nothing_in_a_lower_one() -> None:
    council, fay, gus = opened()
    for round_ in (0, 1):
        council.propose("ada", fay, round_)
        council.all_sign(three, "prepare", fay, round_)
    council.propose("dee", gus, 0)
    council.all_sign(["dee"], "prepare", fay, 0)
    council.all_sign(["dee"], "prepare", fay, 1)
    assert reason(council.sign("dee", "commit", fay, 0)) == "round_over"
    assert reason(council.sign("dee", "prepare", gus, 0)) == "prepare_twice"
    assert council.sign("dee", "commit", fay, 1).accepted


def test_a_round_is_entered_from_the_one_before_or_after_a_third_of_the_finalizers() -> None:
    council, fay, _ = opened()
    council.propose("ada", fay, 0)
    council.all_sign(["ada"], "prepare", fay, 0)
    council.propose("ada", fay, 1)
    council.all_sign(["ada"], "prepare", fay, 1)
    assert reason(council.sign("dee", "prepare", fay, 1)) == "round_ahead"
    council.all_sign(["ben"], "prepare", fay, 0)
    council.all_sign(["ben"], "prepare", fay, 1)
    assert council.sign("dee", "prepare", fay, 1).accepted


# -- locks ---------------------------------------------------------------------------------------------------------


def locked() -> tuple[Council, govern.VersionBody, govern.VersionBody]:
    """``ada`` committed the first version in round 0; the other was proposed in round 1 with no quorum."""
    council, fay, gus = opened()
    council.propose("ada", fay)
    council.all_sign(three, "prepare", fay)
    council.all_sign(["ada"], "commit", fay)
    council.all_sign(["dee"], "prepare", fay)
    council.propose("dee", gus, 1)
    return council, fay, gus


def test_who_committed_prepares_no_other_version_that_shows_no_quorum() -> None:
    council, _, gus = locked()
    assert reason(council.sign("ada", "prepare", gus, 1)) == "locked"
    assert council.sign("dee", "prepare", gus, 1).accepted


def test_who_committed_prepares_the_same_version_again() -> None:
    council, fay, _ = locked()
    assert council.propose("ben", fay, 1).accepted
    assert council.sign("ada", "prepare", fay, 1).accepted


def test_a_quorum_since_the_commitment_outdoes_it() -> None:
    council, _, gus = locked()
    council.all_sign(["dee"], "prepare", gus, 1)
    assert council.propose("dee", gus, 2, council.quorum(("ben", "cy", "dee"), gus, 1)).accepted
    council.all_sign(["ben", "cy"], "prepare", gus, 1)
    council.all_sign(["ben", "cy"], "prepare", gus, 2)
    assert council.sign("ada", "prepare", gus, 2).accepted


def test_a_quorum_of_the_commitments_own_round_outdoes_it_and_one_from_before_does_not() -> None:
    council, fay, gus = opened()
    for round_ in (0, 1):
        council.propose("ada", fay, round_)
        council.all_sign(three, "prepare", fay, round_)
    council.all_sign(["ada"], "commit", fay, 1)
    council.propose("dee", gus, 0)
    for round_ in (0, 1):
        council.all_sign(["dee"], "prepare", fay, round_)
    council.propose("dee", gus, 2, council.quorum(("ben", "cy", "dee"), gus, 0))
    assert reason(council.sign("ada", "prepare", gus, 2)) == "locked"
    council.propose("dee", gus, 2, council.quorum(("ben", "cy", "dee"), gus, 1))
    assert council.sign("ada", "prepare", gus, 2).accepted


def test_a_repeated_proposal_does_not_take_its_quorum_back() -> None:
    council, _, gus = locked()
    council.all_sign(["dee"], "prepare", gus, 1)
    council.propose("dee", gus, 2, council.quorum(("ben", "cy", "dee"), gus, 1))
    council.propose("dee", gus, 2)
    council.all_sign(["ben", "cy"], "prepare", gus, 1)
    council.all_sign(["ben", "cy"], "prepare", gus, 2)
    assert council.sign("ada", "prepare", gus, 2).accepted


# -- what a finalizer may do next ----------------------------------------------------------------------------------


def stored(council: Council, name: str, phase: Phase, body: govern.VersionBody, round_: int = 0) -> Stored:
    return Stored(phase, round_, version_hash(body), council.signature(name, phase, body, round_))


def test_what_the_store_says_was_signed_counts_though_the_stream_does_not_show_it() -> None:
    council, fay, gus = opened()
    council.propose("ada", fay)
    council.propose("ben", gus)
    me, version = node("cy"), council.previous
    rounds.may_prepare(council.book, version, me, [], 0, version_hash(gus))
    with pytest.raises(Refused) as refusal:
        rounds.may_prepare(council.book, version, me, [stored(council, "cy", "prepare", fay)], 0, version_hash(gus))
    assert refusal.value.reason == "prepare_twice"


def test_a_stored_commitment_locks() -> None:
    council, _, gus = locked()
    me, version = node("dee"), council.previous
    rounds.may_prepare(council.book, version, me, [], 1, version_hash(gus))
    fay_hash = council.book.signers[node("ada").hex()].committed[0].membership_hash
    commitment = Stored("commit", 0, fay_hash, b"\x01" * 64)
    with pytest.raises(Refused) as refusal:
        rounds.may_prepare(council.book, version, me, [commitment], 1, version_hash(gus))
    assert refusal.value.reason == "locked"


def test_asking_does_not_change_the_book() -> None:
    council, fay, _ = opened()
    council.propose("ada", fay)
    before = council.book.signers
    rounds.may_prepare(
        council.book, council.previous, node("ada"), [stored(council, "ada", "prepare", fay)], 0, version_hash(fay)
    )
    assert council.book.signers == before
    assert council.book.signers[node("ada").hex()].prepared == []


def test_a_finalizer_may_commit_after_the_quorum_and_not_before() -> None:
    council, fay, _ = opened()
    council.propose("ada", fay)
    council.all_sign(["ada", "ben"], "prepare", fay)
    me, version = node("cy"), council.previous
    with pytest.raises(Refused):
        rounds.may_commit(council.book, version, me, [], 0, version_hash(fay))
    rounds.may_commit(council.book, version, me, [stored(council, "cy", "prepare", fay)], 0, version_hash(fay))


def test_who_is_no_finalizer_may_sign_nothing() -> None:
    council, fay, _ = opened()
    council.propose("ada", fay)
    for ask in (rounds.may_prepare, rounds.may_commit):
        with pytest.raises(Refused) as refusal:
            ask(council.book, council.previous, node("eli"), [], 0, version_hash(fay))
        assert refusal.value.reason == "role"


def test_an_honest_finalizer_admits_no_forked_key_but_keeps_signing_with_one_that_is_a_member() -> None:
    council, fay, _ = opened()
    council.propose("ada", fay)
    name = version_hash(fay)
    rounds.may_prepare(council.book, council.previous, node("ben"), [], 0, name, forked=[node("eli")])
    with pytest.raises(Refused) as refusal:
        rounds.may_prepare(council.book, council.previous, node("ben"), [], 0, name, forked=[node("fay")])
    assert refusal.value.reason == "forked_member"


# -- bounds --------------------------------------------------------------------------------------------------------


def test_a_book_keeps_a_finalizers_newest_rounds_and_no_body_that_nobody_names() -> None:
    council = Council()
    bodies = [council.version(f"new {number}") for number in range(3 * limits.signer_rounds_kept)]
    for round_, body in enumerate(bodies):
        assert council.propose("ada", body, round_).accepted
        council.all_sign(["ada"], "prepare", body, round_)
    signer = council.book.signers[node("ada").hex()]
    assert len(signer.proposed) == len(signer.prepared) == limits.signer_rounds_kept
    assert signer.last_round == len(bodies) - 1
    assert set(council.book.bodies) == {version_hash(body).hex() for body in bodies[-limits.signer_rounds_kept :]}


def test_a_quorum_helper_gives_only_signatures_that_hold() -> None:
    council, fay, _ = opened()
    council.propose("ada", fay)
    council.all_sign(finalizers, "prepare", fay)
    quorum = rounds.prepare_quorum(council.book, council.previous, version_hash(fay))
    assert quorum is not None
    names = sorted(finalizers, key=node)[:3]
    assert quorum.signatures == [SignerSignature(node(name), council.signature(name, "prepare", fay)) for name in names]
