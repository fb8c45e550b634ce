"""The governance fold: who may say what, succession, advisories, checkpoints (docs/protocol.md §9)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.cast import everything, in_order
from tests.kernel.council import Council, finalizers, members, node, worker
from wattswarm.kernel import governance, limits
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.event import Event
from wattswarm.kernel.membership import version_hash
from wattswarm.kernel.payloads import govern
from wattswarm.kernel.policy import SCHEMA_ONLY, SCHEMA_THRESHOLDS, policies
from wattswarm.kernel.verdict import Verdict

three = ("ada", "ben", "cy")
own_hash = next(policy.policy_hash for policy in policies if policy.policy_id == SCHEMA_ONLY)
new_hash, other_hash = "ab" * 32, "cd" * 32


def reason(verdict: Verdict) -> str:
    assert verdict.status == "refused", verdict
    return verdict.reason


def council() -> Council:
    """Four with all roles, ``eli`` a proposer and verifier, ``kim`` a committer and no more."""
    return Council(members | {"kim": frozenset({"committer"})})


# -- who may say what ----------------------------------------------------------------------------------------------


def said_by(hall: Council, kind: str, version: bytes) -> Any:
    """A payload of each kind that is good if its author has the role."""
    body = hall.version("fay")
    signature = hall.signature("ada", "prepare", body)
    payloads = {
        "MEMBERSHIP_PROPOSED": govern.MembershipProposed(version, 0, body),
        "MEMBERSHIP_SIGNED": govern.MembershipSigned("prepare", version, 0, version_hash(body), signature),
        "ADVISORY_CREATED": govern.AdvisoryCreated(version, "a-1", SCHEMA_ONLY, new_hash, "better"),
        "ADVISORY_APPROVED": govern.AdvisoryApproved(version, "a-1", node("ada")),
        "ADVISORY_APPLIED": govern.AdvisoryApplied(version, "a-1", new_hash),
        "POLICY_TUNED": govern.PolicyTuned(version, SCHEMA_ONLY, own_hash, new_hash, "a-1"),
        "CHECKPOINT_CREATED": checkpoint(version),
    }
    return payloads[kind]


def checkpoint(version: bytes, name: str = "c-1") -> govern.CheckpointCreated:
    empty = govern.Fingerprint(0, b"\x00" * 32)
    return govern.CheckpointCreated(version, name, {}, govern.Fingerprints(empty, empty), sha256(name.encode()))


roles_of_kinds = {
    "MEMBERSHIP_PROPOSED": "finalizer",
    "MEMBERSHIP_SIGNED": "finalizer",
    "ADVISORY_CREATED": "committer",
    "ADVISORY_APPROVED": "finalizer",
    "ADVISORY_APPLIED": "committer",
    "POLICY_TUNED": "finalizer",
    "CHECKPOINT_CREATED": "committer",
}


@pytest.mark.parametrize(("kind", "role"), roles_of_kinds.items())
def test_each_kind_is_for_those_with_its_role(kind: str, role: str) -> None:
    hall = council()
    has_not = "eli" if role == "committer" else "kim"
    for name in (has_not, "eli", "stranger"):
        assert reason(hall.say(name, said_by(hall, kind, hall.previous.hash))) == "role"
    verdict = hall.say("ada", said_by(hall, kind, hall.previous.hash))
    assert verdict.reason != "role"


@pytest.mark.parametrize("kind", roles_of_kinds)
def test_a_version_that_is_not_known_is_named_in_the_refusal(kind: str) -> None:
    hall = council()
    verdict = hall.say("ada", said_by(hall, kind, b"\x07" * 32))
    assert reason(verdict) == "membership_unknown"
    assert "0707" in verdict.message


def test_a_role_is_asked_for_in_the_version_that_the_event_names() -> None:
    hall = council()
    later = hall.world.next_version({**hall.world.members, "eli": everything}).id
    assert reason(hall.say("eli", checkpoint(hall.previous.hash))) == "role"
    assert hall.say("eli", checkpoint(later)).accepted


def test_an_event_of_another_protocol_version_is_not_judged() -> None:
    hall = council()
    said = hall.world.author("ada", checkpoint(hall.previous.hash))
    foreign = msgspec.structs.replace(said, payload=None, kind="MEMBERSHIP_DISSOLVED")
    assert hall.hear(foreign).status == "unsupported"


# -- succession ----------------------------------------------------------------------------------------------------


def test_an_update_is_accepted_from_anybody_whose_signatures_hold() -> None:
    hall = council()
    body = hall.version("fay")
    assert hall.say("eli", hall.update(three, body)).accepted


@pytest.mark.parametrize(
    ("signers", "why"),
    [((), "too_few_signers"), (("ada", "ben"), "too_few_signers"), (("ada", "ben", "eli"), "signer_role")],
)
def test_an_update_without_its_quorum_is_refused_whoever_says_it(signers: tuple[str, ...], why: str) -> None:
    hall = council()
    assert reason(hall.say("ada", hall.update(signers, hall.version("fay")))) == why


def test_an_update_that_nobody_proposed_or_prepared_is_a_version_all_the_same() -> None:
    hall = council()
    assert hall.book.signers == {}
    assert hall.say("ada", hall.update(three, hall.version("fay"))).accepted


def test_an_update_closes_the_book_and_what_comes_after_is_idle() -> None:
    hall = council()
    fay, gus = hall.version("fay"), hall.version("gus")
    hall.propose("ada", fay)
    hall.all_sign(three, "prepare", fay)
    assert hall.say("ada", hall.update(three, fay)).accepted
    closed = governance.encode_state(hall.state)
    assert hall.state.books == {}
    assert hall.propose("dee", gus).accepted
    assert hall.sign("dee", "prepare", gus).accepted
    assert governance.encode_state(hall.state) == closed


def test_a_repeated_update_changes_nothing() -> None:
    hall = council()
    fay = hall.version("fay")
    assert hall.say("ada", hall.update(three, fay)).accepted
    before = governance.encode_state(hall.state)
    assert hall.say("ben", hall.update(("ben", "cy", "dee"), fay)).accepted
    assert governance.encode_state(hall.state) == before


def test_the_state_begins_with_the_versions_that_are_known() -> None:
    hall = council()
    later = hall.world.next_version({**hall.world.members, "fay": worker}).id
    state = governance.new(hall.world.network)
    assert state.versions == sorted([hall.previous.hash, later])
    assert governance.encode_state(state) != governance.encode_state(hall.state)


def test_two_predecessors_have_two_books() -> None:
    hall = council()
    first = hall.previous
    hall.propose("ada", hall.version("fay"))
    hall.world.next_version(hall.world.members)
    hall.previous = hall.world.network.current
    hall.propose("ada", hall.version("gus"))
    assert set(hall.state.books) == {first.hash.hex(), hall.previous.hash.hex()}


# -- advisories ----------------------------------------------------------------------------------------------------


class Advice:
    """An advisory to tune a policy, and every step of its way."""

    def __init__(self) -> None:
        self.hall = council()
        self.version = self.hall.previous.hash

    def create(self, name: str = "kim", advisory: str = "a-1", **changes: Any) -> Verdict:
        made = govern.AdvisoryCreated(self.version, advisory, SCHEMA_ONLY, new_hash, "better")
        return self.hall.say(name, msgspec.structs.replace(made, **changes))

    def approve(self, name: str = "ada", advisory: str = "a-1", admin: str | None = None) -> Verdict:
        return self.hall.say(name, govern.AdvisoryApproved(self.version, advisory, node(admin or name)))

    def apply(self, name: str = "kim", advisory: str = "a-1", policy_hash: str = new_hash) -> Verdict:
        return self.hall.say(name, govern.AdvisoryApplied(self.version, advisory, policy_hash))

    def tune(self, name: str = "ben", **changes: Any) -> Verdict:
        made = govern.PolicyTuned(self.version, SCHEMA_ONLY, own_hash, new_hash, "a-1")
        return self.hall.say(name, msgspec.structs.replace(made, **changes))

    def up_to(self, stage: str) -> Advice:
        for name, step in (("created", self.create), ("approved", self.approve), ("applied", self.apply)):
            assert step().accepted
            if name == stage:
                return self
        assert self.tune().accepted
        return self

    @property
    def admitted(self) -> dict[str, frozenset[str]]:
        return dict(governance.admitted_policy_hashes(self.hall.state))


def test_an_advisory_that_goes_all_its_way_admits_a_policy_hash() -> None:
    advice = Advice()
    assert advice.admitted == {}
    advice.up_to("tuned")
    assert advice.admitted == {SCHEMA_ONLY: frozenset({new_hash})}


@pytest.mark.parametrize("stage", ["created", "approved", "applied"])
def test_no_hash_is_admitted_before_the_policy_is_tuned(stage: str) -> None:
    assert Advice().up_to(stage).admitted == {}


@pytest.mark.parametrize(
    ("stage", "step"),
    [
        ("created", "apply"),
        ("created", "tune"),
        ("approved", "tune"),
    ],
)
def test_no_stage_is_skipped(stage: str, step: str) -> None:
    assert reason(getattr(Advice().up_to(stage), step)()) == "advisory_stage"


@pytest.mark.parametrize("step", ["approve", "apply", "tune"])
def test_an_advisory_that_was_not_created_goes_nowhere(step: str) -> None:
    assert reason(getattr(Advice(), step)()) == "advisory_unknown"


@pytest.mark.parametrize("step", ["create", "approve", "apply", "tune"])
def test_a_step_that_was_taken_may_be_repeated_and_changes_nothing(step: str) -> None:
    advice = Advice().up_to("tuned")
    before = governance.encode_state(advice.hall.state)
    assert getattr(advice, step)().accepted
    assert governance.encode_state(advice.hall.state) == before


def test_an_approval_is_its_authors_own() -> None:
    assert reason(Advice().up_to("created").approve("ada", admin="ben")) == "advisory_admin"


def test_what_is_applied_is_what_was_approved() -> None:
    advice = Advice().up_to("approved")
    assert reason(advice.apply(policy_hash=other_hash)) == "advisory_hash"
    assert advice.apply().accepted


def test_the_tuned_hash_is_the_applied_one() -> None:
    assert reason(Advice().up_to("applied").tune(to_policy_hash=other_hash)) == "advisory_hash"


def test_the_tuned_hash_differs_from_the_old() -> None:
    advice = Advice()
    advice.create(suggested_policy_hash=own_hash)
    advice.approve()
    advice.apply(policy_hash=own_hash)
    assert reason(advice.tune(to_policy_hash=own_hash)) == "policy_same"


def test_the_old_hash_is_the_policys_own_or_an_admitted_one() -> None:
    advice = Advice().up_to("tuned")
    advice.create(advisory="a-2", suggested_policy_hash=other_hash)
    advice.approve(advisory="a-2")
    advice.apply(advisory="a-2", policy_hash=other_hash)
    again = {"advisory_id": "a-2", "to_policy_hash": other_hash}
    assert reason(advice.tune(from_policy_hash="ee" * 32, **again)) == "policy_from"
    assert advice.tune(from_policy_hash=new_hash, **again).accepted
    assert advice.admitted == {SCHEMA_ONLY: frozenset({new_hash, other_hash})}


def test_an_advisory_tunes_the_policy_that_it_is_about() -> None:
    advice = Advice().up_to("applied")
    assert reason(advice.tune(policy_id=SCHEMA_THRESHOLDS)) == "policy_other"


def test_an_advisory_is_about_a_known_policy() -> None:
    assert reason(Advice().create(policy_id="vp.unknown.v1")) == "policy_unknown"


@pytest.mark.parametrize(
    ("name", "changes"),
    [("ada", {}), ("kim", {"suggested_policy_hash": other_hash}), ("kim", {"policy_id": SCHEMA_THRESHOLDS})],
)
def test_an_advisory_id_is_taken_once(name: str, changes: dict[str, Any]) -> None:
    advice = Advice().up_to("created")
    assert reason(advice.create(name, **changes)) == "advisory_exists"


def test_an_authors_open_advisories_are_bounded_and_the_oldest_goes() -> None:
    advice = Advice().up_to("tuned")
    advice.create("ada", "another's")
    for number in range(limits.advisories_open_max + 1):
        assert advice.create(advisory=f"b-{number}").accepted
    assert reason(advice.approve(advisory="b-0")) == "advisory_unknown"
    assert advice.approve(advisory="b-1").accepted
    assert {"a-1", "another's"} < advice.hall.state.advisories.keys()
    assert len(advice.hall.state.advisories) == limits.advisories_open_max + 2


# -- checkpoints ---------------------------------------------------------------------------------------------------


def test_an_authors_newest_checkpoint_is_kept() -> None:
    hall = council()
    for name in ("c-1", "c-2"):
        assert hall.say("kim", checkpoint(hall.previous.hash, name)).accepted
    hall.say("ada", checkpoint(hall.previous.hash, "c-3"))
    kept = {author: entry.checkpoint_id for author, entry in hall.state.checkpoints.items()}
    assert kept == {node("kim").hex(): "c-2", node("ada").hex(): "c-3"}
    assert hall.state.checkpoints[node("kim").hex()].state_root == sha256(b"c-2")


# -- the fold ------------------------------------------------------------------------------------------------------


def test_folding_from_stored_bytes_at_every_step_gives_the_same_state() -> None:
    hall = council()
    body = hall.version("fay")
    events = _history(hall, body)
    whole = governance.new(hall.world.network)
    verdicts = [governance.apply(whole, hall.world.network, said) for said in events]
    stepped = governance.new(hall.world.network)
    for said, verdict in zip(events, verdicts, strict=True):
        stepped = governance.decode_state(governance.encode_state(stepped))
        assert governance.apply(stepped, hall.world.network, said) == verdict
    assert governance.encode_state(stepped) == governance.encode_state(whole)
    assert {verdict.status for verdict in verdicts} == {"accepted", "refused"}


def _history(hall: Council, body: govern.VersionBody) -> list[Event]:
    """A bit of everything, in canonical order."""
    version = hall.previous.hash
    payloads: list[tuple[str, Any]] = [
        ("kim", govern.AdvisoryCreated(version, "a-1", SCHEMA_ONLY, new_hash, "better")),
        ("ada", govern.AdvisoryApproved(version, "a-1", node("ada"))),
        ("ada", govern.MembershipProposed(version, 0, body)),
        ("eli", checkpoint(version)),
        ("kim", checkpoint(version)),
    ]
    for phase in ("prepare", "commit"):
        for name in finalizers:
            signature = hall.signature(name, phase, body)
            payloads.append((name, govern.MembershipSigned(phase, version, 0, version_hash(body), signature)))
    payloads += [
        ("kim", govern.AdvisoryApplied(version, "a-1", new_hash)),
        ("ben", govern.PolicyTuned(version, SCHEMA_ONLY, own_hash, new_hash, "a-1")),
        ("eli", hall.update(three, body)),
        ("dee", govern.MembershipProposed(version, 0, hall.version("gus"))),
    ]
    return in_order(hall.world.author(name, payload) for name, payload in payloads)


def test_verdicts_before_an_update_stay_when_its_certificate_becomes_known() -> None:
    hall = council()
    body = hall.version("fay")
    events = _history(hall, body)
    later = hall.world.network.with_version(hall.update(three, body))
    verdicts = []
    for network in (hall.world.network, later):
        state = governance.new(network)
        verdicts.append([governance.apply(state, network, said) for said in events])
    assert verdicts[0] == verdicts[1]
