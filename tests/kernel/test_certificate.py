"""Certificates: what proves itself, what waits, and what is refused (docs/protocol.md §3, §7)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.cast import everything, hash_of, keys_of
from tests.foreign import foreign
from tests.story import Story
from tests.world import World
from wattswarm.kernel import codec, event, finality, limits
from wattswarm.kernel.certificate import (
    Certificate,
    DecisionCertificate,
    ForkCertificate,
    MembershipCertificate,
    NotYetKnown,
    parse_certificate,
    signatures_in,
    verify_certificate,
)
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.membership import Network
from wattswarm.kernel.payloads import plain
from wattswarm.kernel.payloads.course import TaskStopped
from wattswarm.kernel.payloads.fields import SignerSignature
from wattswarm.kernel.payloads.judge import FinalityProof
from wattswarm.kernel.payloads.work import CandidateProposed
from wattswarm.kernel.refusal import Malformed, Refused, Unsupported
from wattswarm.shared_log import sorted_out

four = dict.fromkeys(("ada", "ben", "cy", "dee"), everything)


def decided(world: World, **contract: Any) -> tuple[Story, Event]:
    """A task and its candidate; nothing else needs to be said for a certificate."""
    story = world.task(changes=contract)
    story.claim("ada")
    return story, story.propose("ada")


def refusal_of(certificate: Certificate, network: Network) -> Refused:
    with pytest.raises(Refused) as refusal:
        verify_certificate(certificate, network)
    return refusal.value


def tampered(said: Event) -> Event:
    """The same event under a signature that is not its author's."""
    return msgspec.structs.replace(said, signature=b"\x01" * 64)


def wire_with(certificate: Certificate, place: int, value: Any) -> bytes:
    parts = codec.decode(certificate.wire())
    parts[place] = value
    return codec.encode(parts)


# -- decisions -----------------------------------------------------------------------------------------------------


def test_a_decision_proves_itself() -> None:
    world = World(four)
    story, candidate = decided(world)
    verify_certificate(story.certificate(candidate), world.network)


def test_a_decision_is_named_by_its_statement_and_belongs_to_its_task() -> None:
    world = World(four)
    story, candidate = decided(world)
    certificate = story.certificate(candidate)
    assert certificate.id == finality.final_commit_hash(story.statement(candidate))
    assert certificate.stream == story.task
    assert certificate.candidate_hash == hash_of(candidate)


def test_other_signers_make_the_same_certificate() -> None:
    world = World(four)
    story, candidate = decided(world)
    one = story.certificate(candidate, ["ada", "ben", "cy"])
    other = story.certificate(candidate, ["dee", "ben", "cy"])
    assert one.wire() != other.wire()
    assert one.id == other.id


def test_a_decision_holds_whatever_became_of_leases_votes_and_the_chains() -> None:
    world = World(four)
    creation = world.create_task()
    story = Story(world, creation)
    candidate = story.propose("ada")
    verify_certificate(story.certificate(candidate), world.network)


def test_a_decision_stands_under_the_version_it_pins_after_later_ones() -> None:
    world = World(four)
    story, candidate = decided(world)
    certificate = story.certificate(candidate)
    world.next_version({"eli": everything}, dict.fromkeys(four, 0))
    verify_certificate(certificate, world.network)


def test_a_decision_whose_version_is_not_known_waits_for_it() -> None:
    world = World(four)
    before = world.network
    world.next_version({**four, "eli": everything})
    story, candidate = decided(world)
    certificate = story.certificate(candidate)
    refusal = refusal_of(certificate, before)
    assert isinstance(refusal, NotYetKnown)
    assert refusal.needed == world.network.current.hash
    verify_certificate(certificate, world.network)


def test_finalizers_of_another_version_do_not_decide() -> None:
    world = World(four)
    story, candidate = decided(world)
    world.next_version({**four, "eli": everything})
    proof = story.proof(candidate)
    later = msgspec.structs.replace(proof, membership=world.network.current.hash)
    certificate = DecisionCertificate(story.creation, candidate, 1, later)
    assert refusal_of(certificate, world.network).reason == "proof_membership"


def test_too_few_finalizers_do_not_decide() -> None:
    world = World(four)
    story, candidate = decided(world)
    assert refusal_of(story.certificate(candidate, ["ada", "ben"]), world.network).reason == "too_few_signers"


def test_a_proof_for_one_candidate_does_not_decide_for_another() -> None:
    world = World(four)
    story, candidate = decided(world)
    other = story.propose("ben")
    certificate = DecisionCertificate(story.creation, other, 1, story.proof(candidate))
    assert refusal_of(certificate, world.network).reason == "bad_signature"


def test_a_proof_of_one_epoch_does_not_decide_another() -> None:
    world = World(four)
    story, candidate = decided(world)
    story.epoch = 2
    certificate = DecisionCertificate(story.creation, candidate, 2, story.proof(candidate))
    assert refusal_of(certificate, world.network).reason == "other_epoch"


def test_a_candidate_for_another_task_is_refused() -> None:
    world = World(four)
    story, _ = decided(world)
    other, candidate = decided(world)
    certificate = DecisionCertificate(story.creation, candidate, 1, story.proof(candidate))
    assert other.task != story.task
    assert refusal_of(certificate, world.network).reason == "other_task"


@pytest.mark.parametrize("which", ["creation", "candidate"])
def test_both_events_of_a_decision_are_signed_by_their_authors(which: str) -> None:
    world = World(four)
    story, candidate = decided(world)
    good = story.certificate(candidate)
    creation, proposed = good.creation, good.candidate
    if which == "creation":
        creation = tampered(creation)
    else:
        proposed = tampered(proposed)
    certificate = DecisionCertificate(creation, proposed, 1, good.proof)
    assert refusal_of(certificate, world.network).reason == "bad_signature"


def test_a_task_that_has_no_valid_contract_is_not_decided() -> None:
    world = World(four)
    creation = world.create_task(changes={"acceptance.quorum_threshold": 0})
    draft = Draft(_candidate(world), creation.id, 1)
    candidate = event.author(keys_of("ben"), world.network_id, 0, None, creation.hlc + 1, draft)
    statement = finality.statement(world.network_id, world.network_id, creation.id, 1, hash_of(candidate))
    signatures = [
        SignerSignature(world.node(name), finality.sign(keys_of(name), statement)) for name in ("ada", "ben", "cy")
    ]
    certificate = DecisionCertificate(creation, candidate, 1, FinalityProof(3, world.network_id, signatures))
    assert refusal_of(certificate, world.network).reason == "contract_invalid"


def _candidate(world: World) -> CandidateProposed:
    _, candidate = decided(world)
    assert isinstance(candidate.payload, CandidateProposed)
    return candidate.payload


def test_a_task_of_another_protocol_version_is_not_judged_here() -> None:
    world = World(four)
    story, candidate = decided(world)
    foreign = msgspec.structs.replace(story.creation, payload=None, protocol_version="9.0.0")
    certificate = DecisionCertificate(foreign, candidate, 1, story.proof(candidate))
    assert refusal_of(certificate, world.network).reason == "unsupported"


def test_a_decision_about_what_another_version_said_is_nobodys_fault() -> None:
    """A newer node relays what it has: an older one cannot read it, and must not take that for a lie."""
    world = World(four)
    story, candidate = decided(world)
    newer = foreign(world, "ada", "CANDIDATE_PROPOSED", version="0.2.0", task=story.creation.id, epoch=1)
    wire = codec.encode(["decision", story.creation.wire, newer.wire, 1, plain(story.proof(candidate))])
    with pytest.raises(Unsupported, match=r"CANDIDATE_PROPOSED is of protocol version 0\.2\.0"):
        parse_certificate(wire, world.network)
    sound = DecisionCertificate(story.creation, candidate, 1, story.proof(candidate))
    assert sorted_out([wire, b"nothing", sound.wire()], world.network) == ([sound], 1, 1)


# -- membership versions -------------------------------------------------------------------------------------------


def test_a_version_proves_itself_and_is_named_by_its_hash() -> None:
    world = World(four)
    before = world.network
    certificate = world.next_version({**four, "eli": everything})
    verify_certificate(certificate, before)
    assert certificate.id in world.network.versions
    assert certificate.stream == world.network_id


def test_a_version_that_is_known_is_still_a_valid_certificate() -> None:
    world = World(four)
    certificate = world.next_version({**four, "eli": everything})
    verify_certificate(certificate, world.network)


def test_a_version_whose_predecessor_is_not_known_waits_for_it() -> None:
    world = World(four)
    before = world.network
    first = world.next_version({**four, "eli": everything})
    second = world.next_version({**four, "eli": everything, "fay": everything})
    refusal = refusal_of(second, before)
    assert isinstance(refusal, NotYetKnown)
    assert refusal.needed == first.id
    verify_certificate(second, before.with_version(first.update))


def test_other_commits_of_the_same_version_make_the_same_certificate() -> None:
    world = World(four)
    certificate = world.next_version({**four, "eli": everything})
    fewer = msgspec.structs.replace(certificate.update, signatures=[], round=5)
    assert MembershipCertificate(fewer).id == certificate.id


# -- forks ---------------------------------------------------------------------------------------------------------


def test_two_events_at_one_place_prove_a_fork() -> None:
    world = World(four)
    story, candidate = decided(world)
    rival = world.rival(candidate, TaskStopped("enough"), task=story.task)
    certificate = ForkCertificate.of(candidate, rival)
    verify_certificate(certificate, world.network)
    assert (certificate.author, certificate.seq, certificate.stream) == (candidate.author, 2, None)


def test_a_fork_is_the_same_certificate_in_either_order_and_whichever_events_prove_it() -> None:
    world = World(four)
    _, candidate = decided(world)
    rivals = [world.rival(candidate, clock=candidate.hlc + step) for step in (1, 2)]
    one = ForkCertificate.of(candidate, rivals[0])
    assert one.wire() == ForkCertificate.of(rivals[0], candidate).wire()
    assert one.id == ForkCertificate.of(*rivals).id
    assert one.id == codec.sha256(codec.encode([candidate.author, candidate.author_seq]))


def test_a_fork_of_a_stranger_waits_until_the_author_is_a_member() -> None:
    world = World(four)
    before = world.network
    said = world.author("eli", TaskStopped("enough"), task=b"\x02" * 32)
    certificate = ForkCertificate.of(said, world.rival(said))
    refusal = refusal_of(certificate, before)
    assert isinstance(refusal, NotYetKnown)
    assert refusal.needed == said.author
    world.next_version({**four, "eli": everything})
    verify_certificate(certificate, world.network)


def test_a_removed_member_can_still_be_shown_to_have_forked() -> None:
    world = World(four)
    said = world.author("dee", TaskStopped("enough"), task=b"\x02" * 32)
    certificate = ForkCertificate.of(said, world.rival(said))
    world.next_version({name: everything for name in four if name != "dee"}, {"dee": 0})
    verify_certificate(certificate, world.network)


@pytest.mark.parametrize("which", ["first", "second"])
def test_nobody_can_fork_for_another(which: str) -> None:
    world = World(four)
    said = world.author("dee", TaskStopped("enough"), task=b"\x02" * 32)
    good = ForkCertificate.of(said, world.rival(said))
    first, second = (tampered(good.first), good.second) if which == "first" else (good.first, tampered(good.second))
    assert refusal_of(ForkCertificate(first, second), world.network).reason == "bad_signature"


# -- form ----------------------------------------------------------------------------------------------------------


def _three(world: World) -> list[Certificate]:
    story, candidate = decided(world)
    before = world.network
    version = world.next_version({**four, "eli": everything})
    world.network = before
    return [story.certificate(candidate), version, ForkCertificate.of(candidate, world.rival(candidate))]


@pytest.mark.parametrize("which", [0, 1, 2], ids=["decision", "membership", "fork"])
def test_a_certificate_survives_the_wire(which: int) -> None:
    world = World(four)
    certificate = _three(world)[which]
    parsed = parse_certificate(certificate.wire(), world.network)
    assert (parsed.kind, parsed.id, parsed.wire()) == (certificate.kind, certificate.id, certificate.wire())
    assert parsed == certificate
    verify_certificate(parsed, world.network)


def test_the_signatures_of_a_certificate_are_counted_without_reading_it() -> None:
    decision, version, fork = _three(World(four))
    assert isinstance(decision, DecisionCertificate)
    assert isinstance(version, MembershipCertificate)
    assert signatures_in(decision.wire()) == 2 + len(decision.proof.signatures)
    assert signatures_in(version.wire()) == len(version.update.signatures)
    assert signatures_in(fork.wire()) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        codec.encode([]),
        codec.encode("decision"),
        codec.encode(["verdict", 1, 2]),
        codec.encode(["decision", 1, 2]),
        codec.encode(["membership", {}]),
        codec.encode(["fork", [b"", b""], [b"", b""]]),
        b"\x00" * (limits.certificate_bytes_max + 1),
    ],
)
def test_bytes_of_another_form_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_certificate(data, World(four).network)


@pytest.mark.parametrize(
    ("place", "value"),
    [(3, 0), (3, -1), (3, 1.0), (3, limits.counter_max + 1), (4, {}), (4, None), (1, None), (1, [b"x", b"y"])],
)
def test_a_decision_of_another_form_is_malformed(place: int, value: Any) -> None:
    world = World(four)
    with pytest.raises(Malformed):
        parse_certificate(wire_with(_three(world)[0], place, value), world.network)


@pytest.mark.parametrize("place", [1, 2])
def test_a_decision_is_made_of_a_creation_and_a_candidate(place: int) -> None:
    world = World(four)
    story, candidate = decided(world)
    claim = story.claim("ben")
    with pytest.raises(Malformed, match="TASK_CLAIMED"):
        parse_certificate(wire_with(story.certificate(candidate), place, claim.wire), world.network)


@pytest.mark.parametrize("which", [0, 2], ids=["decision", "fork"])
def test_events_of_another_network_are_malformed(which: int) -> None:
    certificate = _three(World(four))[which]
    with pytest.raises(Malformed) as refusal:
        parse_certificate(certificate.wire(), World(four, fault_model="crash").network)
    assert refusal.value.reason == "other_network"


def test_a_version_of_another_network_is_refused() -> None:
    certificate = _three(World(four))[1]
    assert refusal_of(certificate, World(four, fault_model="crash").network).reason == "other_network"


def test_a_fork_is_one_author_one_seq_and_two_events() -> None:
    world = World(four)
    one, two = (world.author("dee", TaskStopped("enough"), task=b"\x02" * 32) for _ in range(2))
    other = world.author("ada", TaskStopped("enough"), task=b"\x02" * 32)
    rival = world.rival(one)
    lesser, greater = sorted((one, rival), key=lambda said: said.id)
    for first, second in ((one, two), (one, other), (one, one), (greater, lesser)):
        with pytest.raises(Malformed):
            parse_certificate(codec.encode(["fork", first.wire, second.wire]), world.network)
    parse_certificate(codec.encode(["fork", lesser.wire, greater.wire]), world.network)


def test_the_largest_certificates_fit_their_limit() -> None:
    bodies = 2 * limits.event_bytes_max
    signatures = limits.finalizers_max * (32 + 64 + 40)
    assert bodies + signatures + 1024 < limits.certificate_bytes_max
