"""Certificates and proofs that prove nothing, or too much, said to real daemons."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec
import pytest

from net.proto import message as m
from tests.cast import fork_of, hash_of, keys_of, proposal
from tests.daemons import on_node
from tests.hostile.liars import (
    certify,
    coalition,
    decision,
    everywhere,
    flood,
    forks,
    honest,
    nobody_is_scored,
    sound,
    state_of,
    status_of,
    tampered,
    threshold,
    told,
    two_thirds,
    verdicts,
)
from tests.hostile.rig import Rig
from tests.story import Story
from tests.swarms import becomes
from wattswarm.kernel import event
from wattswarm.kernel.certificate import Certificate, DecisionCertificate, ForkCertificate
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.limits import parked_certificates_max
from wattswarm.kernel.payloads import judge, work
from wattswarm.kernel.payloads.fields import SignerSignature

Forge = Callable[[Story, Event], judge.FinalityProof]
few, enough = coalition[:two_thirds], coalition[:threshold]


def lowered(story: Story, candidate: Event) -> judge.FinalityProof:
    """Exactly two thirds, called enough."""
    return msgspec.structs.replace(story.proof(candidate, few), threshold=two_thirds)


def misread(story: Story, candidate: Event) -> judge.FinalityProof:
    """The signatures of another candidate, that nobody was told of."""
    return story.proof(story.propose(coalition[1], "another"), enough)


def of_later(story: Story, candidate: Event) -> judge.FinalityProof:
    """The signatures of another epoch."""
    later = Story(story.world, story.creation)
    later.epoch = 2
    return later.proof(candidate, enough)


def broken(story: Story, candidate: Event) -> judge.FinalityProof:
    """One signature that does not hold."""
    proof = story.proof(candidate, enough)
    first, *rest = proof.signatures
    wrong = SignerSignature(first.signer_node_id, rest[0].signature_hex)
    return msgspec.structs.replace(proof, signatures=[wrong, *rest])


forgeries: dict[str, Forge] = {
    "exactly-two-thirds": lambda story, candidate: story.proof(candidate, few),
    "lowered-threshold": lowered,
    "signer-twice": lambda story, candidate: story.proof(candidate, (*few, few[0])),
    "no-finalizer": lambda story, candidate: story.proof(candidate, (*few, "bearer")),
    "no-member": lambda story, candidate: story.proof(candidate, (*few, "a stranger")),
    "another-candidate": misread,
    "another-epoch": of_later,
    "bad-signature": broken,
}
unsound = ("creation", "candidate", "fork", "garbage")


@pytest.fixture(scope="module")
def rig(den: Rig) -> Rig:
    return den


def proposed(rig: Rig, label: str) -> tuple[Story, Event]:
    """A task that both daemons know, and a candidate for it."""
    proposer = coalition[0]
    story = Story(rig.world, rig.world.create_task(proposer, label))
    said = [story.creation, story.claim(proposer), story.propose(proposer)]
    told(rig, "gossip", "ada", *said)
    rig.level()
    return story, said[-1]


def decisions(rig: Rig, task: bytes) -> list[tuple[str, str | None]]:
    """What each daemon says of a task."""
    found = [decision(rig, name, task) for name in honest]
    return [(one["state"], one["finalized_candidate_id"]) for one in found]


def is_cut_off(rig: Rig, who: str, *certificates: Certificate) -> None:
    """Whoever says these is let go, and not let in again."""
    with rig.meet(who, "ada") as enemy:
        certify(enemy, *certificates)
        assert enemy.gone() == "graylisted"
    assert rig.turned_away(who, "ada") == "graylisted"


@pytest.mark.parametrize("how", forgeries)
def test_certificate_whose_proof_proves_nothing_is_its_senders_fault_and_decides_nothing(
    rig: Rig, liar: str, how: str
) -> None:
    story, candidate = proposed(rig, f"as {how}".replace(" ", "-"))
    before = rig.head("ada").certificates
    forged = DecisionCertificate(story.creation, candidate, 1, forgeries[how](story, candidate))
    is_cut_off(rig, liar, forged)
    assert rig.head("ada").certificates == before
    assert decisions(rig, story.task) == [("OPEN", None)] * 2


def test_proofs_that_prove_nothing_are_refused_where_events_carry_them_and_whoever_carries_them_is_not_blamed(
    rig: Rig,
) -> None:
    story, candidate = proposed(rig, "carried")
    candidate_id, name = proposal(candidate).candidate_id, hash_of(candidate)
    carried = [
        story.say("bearer", judge.DecisionFinalized(candidate_id, name, forge(story, candidate)))
        for forge in forgeries.values()
    ]
    with rig.meet("gossip", "ada") as enemy:
        enemy.tell(*carried)
        becomes(lambda: carried[-1].id.hex() in verdicts(rig, "ada"), True)
        assert enemy.alive()
    rig.level()
    for daemon in honest:
        found = verdicts(rig, daemon)
        assert [found[said.id.hex()][0] for said in carried] == ["refused"] * len(forgeries)
    assert decisions(rig, story.task) == [("OPEN", None)] * 2
    proven = story.finalize("bearer", candidate, signers=enough)
    told(rig, "gossip", "ben", proven)
    rig.level()
    assert decisions(rig, story.task) == [("FINALIZED", candidate_id)] * 2


@pytest.mark.parametrize("what", unsound)
def test_certificate_that_is_not_sound_ends_the_connection_and_is_not_kept(rig: Rig, liar: str, what: str) -> None:
    story, candidate = proposed(rig, f"unsound-{what}")
    proof = story.proof(candidate, enough)
    before, known = rig.head("ada"), forks(rig, "ada")
    match what:
        case "creation":
            is_cut_off(rig, liar, DecisionCertificate(tampered(story.creation), candidate, 1, proof))
        case "candidate":
            is_cut_off(rig, liar, DecisionCertificate(story.creation, tampered(candidate), 1, proof))
        case "fork":
            is_cut_off(rig, liar, fork_of(story.creation, tampered(rig.world.rival(story.creation))))
        case "garbage":
            with rig.meet(liar, "ada") as enemy:
                enemy.say(m.Cert((b"\x83\x64fork\xf6\xf6",)))
                assert enemy.gone() == "graylisted"
    assert rig.head("ada") == before
    assert forks(rig, "ada") == known
    assert decisions(rig, story.task) == [("OPEN", None)] * 2


def rivals(rig: Rig, name: str, count: int, *, seq: int = 0) -> list[Event]:
    """Different events of one author at one place."""
    keys, world = keys_of(name), rig.world
    clock = world.tick() << 16
    payload = work.TaskCreated(world.contract("told-twice"), world.network.current.hash)
    prev = None if seq == 0 else bytes(32)
    drafts = Draft(payload, None, 1)
    return [event.author(keys, world.network_id, seq, prev, clock + number, drafts) for number in range(count)]


def parked_certificates(rig: Rig, name: str) -> int:
    return len(on_node(rig.places[name], lambda node: node.log.read(lambda txn: txn.parked_certificates())))


def test_forks_of_who_is_no_member_are_not_taken_and_fill_nothing(rig: Rig) -> None:
    before, known = rig.head("ada"), forks(rig, "ada")
    strangers = [ForkCertificate.of(*rivals(rig, f"stranger {number}", 2)) for number in range(1_100)]
    with rig.unharmed(), rig.meet("gossip", "ada") as enemy:
        flood(enemy, strangers)
        becomes(partial(parked_certificates, rig, "ada"), parked_certificates_max)
        assert enemy.alive()
    assert rig.head("ada").certificates == before.certificates
    assert forks(rig, "ada") == known
    nobody_is_scored(rig)


def test_a_flood_of_forks_of_one_author_is_one_certificate(rig: Rig) -> None:
    first, *others = rivals(rig, "forker", 400)
    before = rig.head("ada").certificates
    shown = [ForkCertificate.of(first, other) for other in others]
    later = [ForkCertificate.of(*rivals(rig, "forker", 2, seq=seq)) for seq in range(1, 50)]
    with rig.unharmed(), rig.meet("gossip", "ada") as enemy, rig.meet("heir", "ada") as other:
        flood(enemy, [*shown, *later])
        other.tell(*others)
        assert (enemy.alive(), other.alive()) == (True, True)
        becomes(lambda: rig.head("ada").certificates, before + 1)
    for name in honest:
        assert rig.head(name).certificates == before + 1
        assert not {view.author for view in rig.log(name)} & {keys_of("forker").node_id.hex()}
    nobody_is_scored(rig)


def test_two_proven_decisions_of_one_task_are_kept_by_all_reported_by_none_and_an_alarm(rig: Rig) -> None:
    story, candidate = proposed(rig, "two-faced")
    rival = story.propose(coalition[2], "rival")
    with rig.meet(coalition[0], "ada") as here, rig.meet(coalition[1], "ben") as there:
        certify(here, story.certificate(candidate, enough))
        certify(there, story.certificate(rival, coalition[-threshold:]))
        everywhere(rig, state_of, "FORKED", story.task)
    rig.level()
    assert decisions(rig, story.task) == [("FORKED", None)] * 2
    for name in honest:
        said = decision(rig, name, "two-faced")
        assert (said["state"], said["finalized_candidate_id"]) == ("FORKED", None)
        assert "output" not in said
        (alarm,) = [alarm for alarm in status_of(rig, name)["alarms"] if "two proven decisions" in alarm]
        assert alarm.startswith("task two-faced (")
        with rig.meet("gossip", name) as reader:
            reader.say(m.ProofGet(story.task, 1))
            assert reader.hear(m.Proof).bundle is None
            ids = (story.certificate(candidate).id, story.certificate(rival).id)
            reader.say(m.CertGet(ids))
            assert len(reader.hear(m.Cert).certificates) == 2
    nobody_is_scored(rig)


def test_a_flood_of_decisions_of_one_task_is_a_fork_and_no_more(rig: Rig) -> None:
    story, _ = proposed(rig, "many-faced")
    candidates = [story.propose(coalition[3], f"face-{number}") for number in range(100)]
    before = rig.head("ada").certificates
    with rig.unharmed(), rig.meet(coalition[0], "ada") as enemy:
        flood(enemy, [story.certificate(each, enough) for each in candidates])
        becomes(lambda: rig.head("ben").certificates, before + 100)
        assert enemy.alive()
    assert decisions(rig, story.task) == [("FORKED", None)] * 2


def test_proof_of_one_membership_is_none_under_the_next_and_stands_for_the_tasks_that_pin_it(rig: Rig) -> None:
    old, of_old = proposed(rig, "under-the-old")
    before, left = rig.world.network.current, coalition[-1]
    stay = {name: roles for name, roles in rig.world.members.items() if name != left}
    successor = rig.world.next_version(stay, {left: 1_000})
    with rig.meet("heir", "ada") as enemy:
        certify(enemy, successor)
        becomes(lambda: rig.head("ben").memberships, 1)
    new, of_new = proposed(rig, "under-the-new")
    statement = Story(rig.world, old.creation).proof(of_old, enough)
    replayed = (
        statement,
        msgspec.structs.replace(statement, membership=rig.world.network.current.hash, threshold=two_thirds),
        new.proof(of_new, (*coalition[:5], left)),
        msgspec.structs.replace(new.proof(of_new, coalition[:6]), membership=before.hash, threshold=threshold),
    )
    assert new.pins.membership.finality_threshold == 6
    name = hash_of(of_new)
    carried = [
        new.say("bearer", judge.DecisionFinalized(proposal(of_new).candidate_id, name, each)) for each in replayed
    ]
    told(rig, "gossip", "ada", *carried)
    rig.level()
    assert [verdicts(rig, "ben")[said.id.hex()][0] for said in carried] == ["refused"] * 4
    assert decisions(rig, new.task) == [("OPEN", None)] * 2
    told(rig, "gossip", "ada", old.finalize("bearer", of_old, signers=(*coalition[:6], left)))
    rig.level()
    assert decisions(rig, old.task) == [("FINALIZED", proposal(of_old).candidate_id)] * 2
    sound(rig)
