"""Who authors when about the membership, in a chamber of nodes (docs/protocol.md §9)."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.cast import everything, keys_of, step_ms
from tests.kernel.chamber import Chamber, Member, four
from tests.kernel.council import node, worker
from wattswarm.kernel import rounds
from wattswarm.kernel.governance import book
from wattswarm.kernel.intents.govern import Sign, next_steps, round_ms
from wattswarm.kernel.intents.values import Author, Wait, turn_ms
from wattswarm.kernel.membership import signed_bytes, version_hash
from wattswarm.kernel.payloads.fields import SignerSignature
from wattswarm.kernel.payloads.govern import (
    MembershipProposed,
    MembershipSigned,
    MembershipUpdated,
    PrepareQuorum,
    VersionBody,
)

# -- the way through -----------------------------------------------------------------------------------------------


def test_nothing_is_signed_that_the_operator_did_not_approve() -> None:
    chamber = Chamber()
    chamber.members["ada"].propose(chamber.version(["fay"]))
    chamber.settle()
    signers = book(chamber.members["ben"].state, chamber.world.network_id).signers
    assert {name for name, signer in signers.items() if signer.prepared or signer.committed} == {node("ada").hex()}


def test_an_approval_is_carried_through_both_phases_to_the_version() -> None:
    chamber = Chamber()
    body = chamber.version(["fay"])
    chamber.members["ada"].propose(body)
    for name in ("ben", "cy"):
        chamber.members[name].approve(body)
    chamber.settle()
    assert {chamber.current(name).hash for name in four} == {version_hash(body)}
    assert chamber.current("dee").has(node("fay"), "verifier")


def test_one_finalizer_does_it_all_at_once() -> None:
    chamber = Chamber(["ada"])
    chamber.members["ada"].propose(chamber.version(["fay"]))
    chamber.settle()
    assert chamber.current("ada").number == 1
    kinds = [said.kind for said in sorted(chamber.members["ada"].heard.values(), key=lambda said: said.hlc)]
    assert kinds == ["MEMBERSHIP_PROPOSED", "MEMBERSHIP_SIGNED", "MEMBERSHIP_SIGNED", "MEMBERSHIP_UPDATED"]


def test_a_lost_finalizer_is_replaced_by_the_rest() -> None:
    chamber = Chamber()
    body = chamber.version(["fay"], ["dee"])
    chamber.members["ada"].propose(body)
    for name in ("ben", "cy"):
        chamber.members[name].approve(body)
    chamber.settle("ada", "ben", "cy")
    current = chamber.current("cy")
    assert (current.hash, node("dee") in current.members) == (version_hash(body), False)


def test_two_of_four_change_nothing() -> None:
    chamber = Chamber()
    body = chamber.version([], ["dee"])
    chamber.members["ada"].propose(body)
    chamber.members["ben"].approve(body)
    chamber.settle("ada", "ben")
    assert chamber.current("ada").number == 0


def test_who_leaves_lets_another_say_so() -> None:
    chamber = Chamber(["ada", "ben"])
    body = chamber.version([], ["ada"], until=3)
    chamber.members["ada"].propose(body)
    chamber.members["ben"].approve(body)
    chamber.settle()
    said = [said for said in chamber.members["ben"].heard.values() if said.kind == "MEMBERSHIP_UPDATED"]
    assert {event.author for event in said} == {node("ben")}
    assert chamber.current("ada").number == 1


def test_a_version_is_announced_by_the_next_in_line_when_the_first_is_silent() -> None:
    chamber = Chamber()
    body = chamber.version(["fay"])
    chamber.members["ada"].propose(body)
    for name in ("ben", "cy", "dee"):
        chamber.members[name].approve(body)
    while not any(isinstance(step, Author) for step in chamber.members["ada"].steps(patient=False)) or not _complete(
        chamber
    ):
        for name in four:
            steps = chamber.members[name].steps()
            if any(isinstance(step, Author) and isinstance(step.draft.payload, MembershipUpdated) for step in steps):
                continue
            chamber.members[name].act()
        chamber.share()
    waits = {name: chamber.members[name].steps() for name in four}
    now = [name for name, steps in waits.items() if isinstance(steps[0], Author)]
    assert len(now) == 1
    due = sorted(steps[0].until_ms for steps in waits.values() if isinstance(steps[0], Wait))
    moved = chamber.members["ada"].moved_ms
    assert [at - moved for at in due] == [turn_ms, 2 * turn_ms, 3 * turn_ms]
    chamber.world.tick(3 * turn_ms)
    assert all(isinstance(chamber.members[name].steps()[0], Author) for name in four)


def _complete(chamber: Chamber) -> bool:
    states = [book(member.state, chamber.world.network_id) for member in chamber.members.values()]
    return all(rounds.update(one, chamber.members["ada"].network.current) is not None for one in states)


def test_a_forked_key_is_not_admitted() -> None:
    chamber = Chamber(["ada"])
    ada = chamber.members["ada"]
    ada.forked = {node("fay")}
    body = chamber.version(["fay"])
    (step,) = next_steps(replace(ada.seat(), approved=[version_hash(body)], drafted=body))
    assert isinstance(step, Wait)
    assert "forked" in step.why


def test_a_member_that_is_no_finalizer_signs_nothing_but_may_announce() -> None:
    chamber = Chamber({"ada": everything, "eli": worker})
    body = chamber.version(["fay"])
    eli = chamber.members["eli"]
    eli.approve(body)
    chamber.members["ada"].propose(body)
    chamber.share()
    assert eli.steps() == []
    chamber.members["ada"].act()
    chamber.share()
    assert isinstance(eli.steps(patient=False)[0], Author)


# -- disagreement --------------------------------------------------------------------------------------------------


def split() -> tuple[Chamber, VersionBody, VersionBody]:
    """Two for fay, two for gus, all prepared: nobody can win the round."""
    chamber = Chamber()
    fay, gus = chamber.version(["fay"]), chamber.version(["gus"])
    chamber.members["ada"].propose(fay)
    chamber.members["ben"].propose(gus)
    chamber.members["cy"].approve(fay)
    chamber.members["dee"].approve(gus)
    chamber.settle()
    return chamber, fay, gus


def test_those_who_disagree_rest_until_somebody_changes_his_mind() -> None:
    chamber, fay, gus = split()
    assert all(chamber.current(name).number == 0 for name in four)
    assert all(chamber.members[name].steps(patient=False) == [] for name in four)
    chamber.members["ada"].approve(gus)
    chamber.settle()
    assert {chamber.current(name).hash for name in four} == {version_hash(gus)}
    assert chamber.made == {0: chamber.world.network_id, 1: version_hash(gus)}
    assert version_hash(fay) != version_hash(gus)


def test_a_round_that_may_still_end_well_is_waited_for_and_not_for_ever() -> None:
    chamber = Chamber()
    fay, gus = chamber.version(["fay"]), chamber.version(["gus"])
    ada, ben, cy = (chamber.members[name] for name in ("ada", "ben", "cy"))
    ada.propose(fay)
    cy.propose(gus)
    ben.approve(fay)
    chamber.settle("ada", "ben", "cy")
    cy.approve(fay)
    cy.act(patient=False)
    chamber.share("ada", "ben", "cy")
    assert book(ada.state, ada.network.current.hash).signers[cy.id.hex()].last_round == 1
    (step,) = ada.steps()
    assert isinstance(step, Wait)
    assert step.until_ms == ada.moved_ms + round_ms
    chamber.world.tick(round_ms)
    assert not isinstance(ada.steps()[0], Wait)
    chamber.settle("ada", "ben", "cy")
    assert chamber.current("ada").hash == version_hash(fay)


def test_a_commitment_binds_against_a_newer_approval() -> None:
    chamber = Chamber()
    fay, gus = chamber.version(["fay"]), chamber.version(["gus"])
    ada, ben, cy, _ = (chamber.members[name] for name in four)
    ada.propose(fay)
    for one in (ben, cy):
        one.approve(fay)
        chamber.share()
        one.act()
    ada.act()
    chamber.share()
    (commit,) = ada.act()
    assert isinstance(commit.payload, MembershipSigned)
    assert commit.payload.phase == "commit"
    assert ada.propose(gus) == []
    assert ada.steps(patient=False) == []
    assert {one.membership_hash for one in ada.stored[ada.network.current.hash]} == {version_hash(fay)}


def test_who_was_away_comes_after_the_others_round_by_round() -> None:
    chamber, _, gus = split()
    chamber.members["ada"].approve(gus)
    chamber.settle("ada", "ben")
    late = Chamber.version(chamber, ["hal"])
    for name in ("cy", "dee"):
        chamber.members[name].approve(gus)
    chamber.settle()
    assert {chamber.current(name).hash for name in four} == {version_hash(gus)}
    assert version_hash(late) != version_hash(gus)


# -- whatever comes when -------------------------------------------------------------------------------------------


@given(st.randoms(use_true_random=False), st.integers(0, 1))
@settings(max_examples=60, deadline=None)
def test_no_number_ever_names_two_versions_and_who_agrees_in_the_end_decides(chance: Random, away: int) -> None:
    """Operators approve this and that, news travel anyhow, one node may be away: then all mean one version."""
    chamber = Chamber()
    names = four[: len(four) - away]
    bodies = [chamber.version(["fay"]), chamber.version(["gus"], ["dee"]), chamber.version([], ["dee"])]
    for _ in range(chance.randint(4, 40)):
        member = chamber.members[chance.choice(names)]
        chamber.world.tick(chance.choice((step_ms, turn_ms, round_ms)))
        match chance.randint(0, 4):
            case 0 if member.network.current.number == 0:
                body = chance.choice(bodies)
                proposed = version_hash(body).hex() in book(member.state, member.network.current.hash).bodies
                if proposed:
                    member.approve(body)
                else:
                    member.propose(body)
            case 1:
                other = chamber.members[chance.choice(names)]
                news = chance.sample(sorted(other.heard), chance.randint(0, len(other.heard)))
                member.hear(*(other.heard[event_id] for event_id in news))
            case _:
                member.act(patient=chance.random() < 0.5)
    chamber.settle(*names)
    if chamber.current("ada").number == 0:
        chosen = chance.choice(bodies)
        for name in names:
            chamber.members[name].approve(chosen)
        if version_hash(chosen).hex() not in book(chamber.members["ada"].state, chamber.world.network_id).bodies:
            chamber.members["ada"].propose(chosen)
        chamber.settle(*names)
    assert {chamber.current(name).number for name in names} == {1}
    assert set(chamber.made) == {0, 1}


def test_what_was_signed_binds_also_where_the_stream_does_not_show_it() -> None:
    chamber = Chamber()
    fay, gus = chamber.version(["fay"]), chamber.version(["gus"])
    ada, ben = chamber.members["ada"], chamber.members["ben"]
    ben.propose(fay)
    chamber.share("ada", "ben")
    ada.approve(fay)
    signed = ada.act()
    ada.heard = {}
    ada.approved = []
    del chamber.world.heads[ada.id]
    ada.propose(gus)
    assert [one.membership_hash for one in ada.stored[ada.network.current.hash]] == [version_hash(fay)]
    ada.approve(fay)
    assert [said.kind for said in signed] == ["MEMBERSHIP_SIGNED"]
    assert not [step for step in ada.steps(patient=False) if isinstance(step, Sign)]


def test_what_the_stream_lost_is_said_again_and_nothing_else() -> None:
    chamber = Chamber()
    fay, gus = chamber.version(["fay"]), chamber.version(["gus"])
    ada, ben = chamber.members["ada"], chamber.members["ben"]
    ada.stored[ada.network.current.hash] = []
    ada.payload(Sign("prepare", ada.network.current.hash, 0, version_hash(fay)))
    ben.propose(gus)
    ben.propose(fay)
    chamber.share("ada", "ben")
    ada.approve(gus)
    proposed, prepared = ada.act()
    assert isinstance(proposed.payload, MembershipProposed)
    assert isinstance(prepared.payload, MembershipSigned)
    assert (prepared.payload.round, prepared.payload.membership_hash) == (0, version_hash(fay))
    *_, next_one = ada.act(patient=False)
    assert isinstance(next_one.payload, MembershipSigned)
    assert (next_one.payload.round, next_one.payload.membership_hash) == (1, version_hash(gus))


# -- rounds that went on without a node ----------------------------------------------------------------------------


def preparing(body: VersionBody, round_: int) -> Sign:
    return Sign("prepare", body.previous, round_, version_hash(body))


def prepare(member: Member, body: VersionBody, round_: int, quorum: PrepareQuorum | None = None) -> None:
    """Have a member propose and prepare a version in a round, whatever its intents say."""
    member.say(MembershipProposed(body.previous, round_, body, quorum))
    member.say(member.payload(preparing(body, round_)))


def test_a_round_that_a_third_has_reached_is_entered_at_once() -> None:
    chamber = Chamber()
    fay, gus = chamber.version(["fay"]), chamber.version(["gus"])
    ada = chamber.members["ada"]
    ada.propose(fay)
    for name in ("ben", "cy"):
        for round_, body in enumerate((gus, fay, fay)):
            prepare(chamber.members[name], body, round_)
    chamber.share()
    assert ada.steps() == [preparing(fay, 2)]


def test_what_a_node_committed_to_is_what_it_works_for_though_it_sees_no_quorum_any_more() -> None:
    chamber = Chamber()
    fay, gus = chamber.version(["fay"]), chamber.version(["gus"])
    ada, ben = chamber.members["ada"], chamber.members["ben"]
    chamber.members["cy"].propose(gus)
    prepare(ben, fay, 0)
    chamber.share()
    ada.payload(preparing(fay, 0))
    ada.payload(Sign("commit", fay.previous, 0, version_hash(fay)))
    ada.approve(fay)
    ada.approve(gus)
    assert [said.payload for said in ada.act(patient=False)] == [ada.payload(preparing(fay, 0))]
    prepare(ben, fay, 1)
    chamber.share()
    assert ada.steps(patient=False) == [preparing(fay, 1)]


def test_a_quorum_that_a_proposal_shows_goes_before_a_newer_approval() -> None:
    """The prepares themselves may be gone from the book, or not have come yet."""
    chamber = Chamber()
    fay, gus = chamber.version(["fay"]), chamber.version(["gus"])
    ada, ben = chamber.members["ada"], chamber.members["ben"]
    chamber.members["cy"].propose(gus)
    message = signed_bytes(chamber.world.network_id, "prepare", fay.previous, 0, version_hash(fay))
    signatures = [SignerSignature(node(name), keys_of(name).sign(message)) for name in ("ben", "cy", "dee")]
    prepare(ben, fay, 0)
    prepare(ben, fay, 1, PrepareQuorum(0, signatures))
    chamber.share()
    ada.approve(fay)
    ada.approve(gus)
    assert ada.steps() == [preparing(fay, 0)]
