"""Finalizers who govern: what they say about the next membership version, and the fold that hears it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tests.cast import everything, keys_of
from tests.world import World
from wattswarm.kernel import governance, rounds
from wattswarm.kernel.event import Event
from wattswarm.kernel.governance import GovernanceState
from wattswarm.kernel.membership import Membership, Phase, next_version, signed_bytes, version_hash
from wattswarm.kernel.payloads import govern
from wattswarm.kernel.payloads.fields import Payload, SignerSignature
from wattswarm.kernel.verdict import Verdict

finalizers = ("ada", "ben", "cy", "dee")
worker = frozenset({"proposer", "verifier"})
members = dict.fromkeys(finalizers, everything) | {"eli": worker}


def node(name: str) -> bytes:
    """A node id."""
    return keys_of(name).node_id


class Council:
    """A world whose governance stream is folded as it is spoken. Four finalizers and a worker unless told otherwise."""

    def __init__(self, roles: Mapping[str, Collection[str]] | None = None) -> None:
        self.world = World(roles or members)
        self.state: GovernanceState = governance.new(self.world.network)
        self.previous: Membership = self.world.network.current

    @property
    def book(self) -> rounds.Book:
        """What was said about the successor of the version that the council began with."""
        return governance.book(self.state, self.previous.hash)

    def hear(self, said: Event) -> Verdict:
        """Fold an event on top. A refused one must leave no trace."""
        before = governance.encode_state(self.state)
        verdict = governance.apply(self.state, self.world.network, said)
        after = governance.encode_state(self.state)
        assert verdict.accepted or after == before, "a refused event changed the state"
        assert governance.encode_state(governance.decode_state(after)) == after
        return verdict

    def say(self, name: str, payload: Payload) -> Verdict:
        """Author and fold an event."""
        return self.hear(self.world.author(name, payload))

    def version(self, *added: str) -> govern.VersionBody:
        """The next version: all members and those ``added``."""
        grown = {**self.world.members, **dict.fromkeys(added, worker)}
        typed = {node(name): frozenset(roles) for name, roles in grown.items()}
        return next_version(self.world.network, self.previous, typed, {})

    def propose(
        self, name: str, body: govern.VersionBody, round_: int = 0, quorum: govern.PrepareQuorum | None = None
    ) -> Verdict:
        """MEMBERSHIP_PROPOSED."""
        return self.say(name, govern.MembershipProposed(body.previous, round_, body, quorum))

    def signature(self, name: str, phase: Phase, body: govern.VersionBody, round_: int = 0) -> bytes:
        """A finalizer's signature."""
        message = signed_bytes(self.world.network_id, phase, body.previous, round_, version_hash(body))
        return keys_of(name).sign(message)

    def sign(self, name: str, phase: Phase, body: govern.VersionBody, round_: int = 0) -> Verdict:
        """MEMBERSHIP_SIGNED."""
        signature = self.signature(name, phase, body, round_)
        return self.say(name, govern.MembershipSigned(phase, body.previous, round_, version_hash(body), signature))

    def all_sign(self, names: Collection[str], phase: Phase, body: govern.VersionBody, round_: int = 0) -> None:
        """Signatures that must be accepted."""
        for name in names:
            verdict = self.sign(name, phase, body, round_)
            assert verdict.accepted, verdict

    def quorum(self, names: Collection[str], body: govern.VersionBody, round_: int = 0) -> govern.PrepareQuorum:
        """A prepare quorum, as a proposal shows it."""
        signatures = [SignerSignature(node(name), self.signature(name, "prepare", body, round_)) for name in names]
        return govern.PrepareQuorum(round_, signatures)

    def update(self, names: Collection[str], body: govern.VersionBody, round_: int = 0) -> govern.MembershipUpdated:
        """A membership update, signed by those named."""
        signatures = [SignerSignature(node(name), self.signature(name, "commit", body, round_)) for name in names]
        return govern.MembershipUpdated(body, round_, signatures)
