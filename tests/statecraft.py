"""What finalizers and committers say to govern: the next version in two phases, advisories, tuned policies."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from tests.cast import Roles, everything, hash_of, keys_of, names
from tests.world import World
from wattswarm.kernel import finality
from wattswarm.kernel.certificate import Certificate, DecisionCertificate, MembershipCertificate
from wattswarm.kernel.event import Event
from wattswarm.kernel.membership import Phase, next_version, signed_bytes, version_hash
from wattswarm.kernel.payloads import govern
from wattswarm.kernel.payloads.fields import Payload
from wattswarm.kernel.policy import SCHEMA_ONLY, registry

Moment = Callable[[str], int]
"""When somebody speaks, in unix ms."""

tuned_hash = "11" * 32


def advise(world: World, name: str, how: int, moment: Moment) -> list[Event]:
    """One or all steps of an advisory, or a checkpoint, by ``name``."""
    version = world.network.current.hash
    own = registry[SCHEMA_ONLY, "1"].policy_hash
    fingerprint = govern.Fingerprint(0, bytes(32))
    steps = (
        govern.AdvisoryCreated(version, "advice", SCHEMA_ONLY, tuned_hash, "because"),
        govern.AdvisoryApproved(version, "advice", world.node(name)),
        govern.AdvisoryApplied(version, "advice", tuned_hash),
        govern.PolicyTuned(version, SCHEMA_ONLY, own, tuned_hash, "advice"),
        govern.AdvisoryCreated(version, "other", "no such policy", tuned_hash, "because"),
        govern.AdvisoryApplied(version, "advice", "22" * 32),
        govern.PolicyTuned(version, SCHEMA_ONLY, "33" * 32, tuned_hash, "advice"),
        govern.PolicyTuned(version, "vp.crosscheck.v1", own, tuned_hash, "advice"),
        govern.AdvisoryApproved(version, "advice", bytes(32)),
        govern.PolicyTuned(version, SCHEMA_ONLY, own, own, "advice"),
        govern.CheckpointCreated(version, "c", {}, govern.Fingerprints(fingerprint, fingerprint), bytes(32)),
    )
    chosen = steps[:4] if how % 16 >= 12 else (steps[how % len(steps)],)
    return [world.author(name, step, at_ms=moment(name)) for step in chosen]


def wilful_certificate(world: World, creation: Event, candidate: Event) -> DecisionCertificate:
    """A decision about a task that its own creation is refused for: finalizers may sign what they want."""
    version = world.network.current
    said = finality.statement(world.network_id, version.hash, creation.id, 1, hash_of(candidate))
    signers = sorted(name for name in names if version.has(world.node(name), "finalizer"))
    proof = finality.make_proof(version, {world.node(name): finality.sign(keys_of(name), said) for name in signers})
    assert proof is not None
    return DecisionCertificate(creation, candidate, 1, proof)


def dissent(world: World, name: str, how: int, moment: Moment) -> list[Event]:
    """What a finalizer must not say about the next version, or not yet, or not as well."""
    previous = world.network.current
    members = {node: roles for node, roles in previous.members.items() if node != world.node("joe")}
    version = next_version(world.network, previous, members, {})
    other = next_version(world.network, previous, {**members, world.node("joe"): everything}, {})
    wrong = structs.replace(version, number=version.number + 1)
    elsewhere = structs.replace(version, previous=bytes(32))

    def signed(phase: Phase, round_: int, body: govern.VersionBody, key: str = name) -> govern.MembershipSigned:
        message = signed_bytes(world.network_id, phase, previous.hash, round_, version_hash(body))
        return govern.MembershipSigned(phase, previous.hash, round_, version_hash(body), keys_of(key).sign(message))

    def proposed(round_: int, body: govern.VersionBody, shown: int | None = None) -> govern.MembershipProposed:
        quorum = None if shown is None else govern.PrepareQuorum(shown, [])
        return govern.MembershipProposed(previous.hash, round_, body, quorum)

    chosen: tuple[tuple[Payload, ...], ...] = (
        (proposed(0, version), proposed(0, other)),
        (proposed(0, version), proposed(0, other), signed("prepare", 0, version), signed("prepare", 0, other)),
        (proposed(0, version), signed("prepare", 0, version, "joe")),
        (proposed(7, version),),
        (proposed(1, version, 1), proposed(1, version, 0)),
        (proposed(0, wrong), proposed(0, elsewhere)),
        (proposed(0, version), signed("prepare", 0, version), proposed(1, other), signed("prepare", 1, other)),
        (signed("prepare", 0, other), signed("commit", 0, other)),
    )
    return [world.author(name, payload, at_ms=moment(name)) for payload in chosen[how % len(chosen)]]


def change_members(world: World, gone: set[str], who: int, how: int, moment: Moment) -> list[Event | Certificate]:
    """The next version: ``gus`` comes, or somebody goes, or roles change; told whole, in part, or as a certificate.

    ``gone``: who left, for they do not come back.
    """
    previous = world.network.current
    members: dict[str, Roles] = {
        name: previous.members[world.node(name)] for name in names if world.node(name) in previous.members
    }
    until: dict[str, int] = {}
    leaver = list(members)[who % len(members)]
    if how % 3 == 0 and leaver != "ada":
        del members[leaver]
        last = world.heads.get(world.node(leaver))
        until[leaver] = max(0, (0 if last is None else last.author_seq) - (how // 3) % 4 + 1)
    elif how % 3 == 1 and "gus" not in members and "gus" not in gone:
        members["gus"] = everything
    else:
        members[leaver] = frozenset(members[leaver]) - {"committer"} or members[leaver]
    finalizers = [name for name in members if previous.has(world.node(name), "finalizer")]
    if not any("finalizer" in roles for roles in members.values()):
        return []
    certificate = world.next_version(members, until)
    gone.update(until)
    if how % 8 == 7:
        return [certificate]
    return _told(world, certificate, finalizers[: previous.finality_threshold], how, moment)


def _told(
    world: World, certificate: MembershipCertificate, signers: list[str], how: int, moment: Moment
) -> list[Event | Certificate]:
    version, previous = certificate.update.version, certificate.update.version.previous
    name_of = version_hash(version)
    told: list[Event | Certificate] = []
    if signers:
        told.append(world.author(signers[0], govern.MembershipProposed(previous, 0, version), at_ms=moment(signers[0])))
    for phase in ("prepare", "commit"):
        for name in signers[how % 2 :] if how % 16 == 13 else signers:
            message = signed_bytes(world.network_id, phase, previous, 0, name_of)
            signed = govern.MembershipSigned(phase, previous, 0, name_of, keys_of(name).sign(message))
            told.append(world.author(name, signed, at_ms=moment(name)))
    announcer = next(iter(world.members))
    told.append(world.author(announcer, certificate.update, at_ms=moment(announcer)))
    return told
