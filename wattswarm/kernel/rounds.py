"""How a membership version comes to be signed: Tendermint's two phases, in rounds (Buchman, Kwon, Milosevic, 2018).

One ``Book`` per predecessor version holds what its finalizers proposed, prepared and committed. The same rules judge
a signature that is on the stream and one that a finalizer is about to give, so an honest finalizer never signs what
others refuse. What makes a version valid is not here: a quorum of commits is, however it came about
(``membership.check_update``). Keeps docs/protocol.md §9, Membership.

A book is bounded: of each finalizer it keeps the newest ``signer_rounds_kept`` entries of a sort. A round that its
signers left behind that far no longer counts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

import msgspec

from wattswarm.kernel import identity, limits
from wattswarm.kernel.membership import (
    Membership,
    Network,
    Phase,
    check_quorum,
    check_version,
    signed_bytes,
    version_hash,
)
from wattswarm.kernel.payloads.fields import SignerSignature
from wattswarm.kernel.payloads.govern import (
    MembershipProposed,
    MembershipSigned,
    MembershipUpdated,
    PrepareQuorum,
    VersionBody,
)
from wattswarm.kernel.refusal import Refused

no_round = -1


class Proposed(msgspec.Struct, frozen=True, array_like=True):
    """A hash proposed in a round. ``quorum_round``: from which its proposal shows a prepare quorum (-1: none)."""

    round: int
    membership_hash: bytes
    quorum_round: int = no_round


class Signed(msgspec.Struct, frozen=True, array_like=True):
    """A hash signed in a round."""

    round: int
    membership_hash: bytes
    signature: bytes


class Signer(msgspec.Struct, array_like=True):
    """One finalizer's part, each list in the order of rounds, one entry a round."""

    proposed: list[Proposed] = []
    prepared: list[Signed] = []
    committed: list[Signed] = []

    @property
    def last_round(self) -> int:
        """The highest round it signed in; -1 before the first."""
        return max((entry.round for entry in (*self.prepared[-1:], *self.committed[-1:])), default=no_round)

    def signed(self, phase: Phase) -> list[Signed]:
        """Its signatures of a phase."""
        return self.prepared if phase == "prepare" else self.committed


class Book(msgspec.Struct, array_like=True):
    """What the finalizers of one version said about its successor. Signers by node id in hex, bodies by hash in hex."""

    signers: dict[str, Signer] = {}
    bodies: dict[str, VersionBody] = {}


Entry = TypeVar("Entry", bound=Proposed | Signed)


def _put(entries: list[Entry], entry: Entry) -> None:
    """Add or replace the entry of a round; the oldest goes."""
    entries[:] = sorted([*(held for held in entries if held.round != entry.round), entry], key=lambda held: held.round)
    del entries[: -limits.signer_rounds_kept]


def _at(entries: Sequence[Entry], round_: int) -> Entry | None:
    return next((entry for entry in entries if entry.round == round_), None)


# -- the rules -----------------------------------------------------------------------------------------------------


def _check_entry(book: Book, membership: Membership, node: bytes, round_: int) -> None:
    """A round is entered from the one before, or after a third of the finalizers."""
    last = book.signers.get(node.hex(), Signer()).last_round
    if round_ <= last + 1:
        return
    ahead = sum(signer.last_round >= round_ for signer in book.signers.values())
    if ahead < membership.third("finalizer"):
        raise Refused(
            "round_ahead",
            f"round {round_}: the finalizer signed last in round {last}, and only {ahead} finalizers signed in round "
            f"{round_} or later, expected {membership.third('finalizer')}",
        )


def _check_signing(
    book: Book, membership: Membership, node: bytes, phase: Phase, round_: int, membership_hash: bytes
) -> bool:
    """Whether ``node`` may sign. False: it already has, just so. Raises ``Refused``."""
    signer = book.signers.get(node.hex(), Signer())
    held = _at(signer.signed(phase), round_)
    if held is not None:
        if held.membership_hash == membership_hash:
            return False
        raise Refused(
            f"{phase}_twice",
            f"the finalizer signed {phase} for {held.membership_hash.hex()[:16]}… in round {round_} already",
        )
    if round_ < signer.last_round:
        raise Refused("round_over", f"round {round_}: the finalizer has signed in round {signer.last_round} already")
    _check_entry(book, membership, node, round_)
    if phase == "prepare":
        _check_prepare(book, signer, round_, membership_hash)
    else:
        _check_commit(book, membership, round_, membership_hash)
    return True


def _check_prepare(book: Book, signer: Signer, round_: int, membership_hash: bytes) -> None:
    """It is proposed in the round, and a commitment to another hash is outdone by a prepare quorum since."""
    proposals = [
        entry
        for proposer in book.signers.values()
        for entry in proposer.proposed
        if (entry.round, entry.membership_hash) == (round_, membership_hash)
    ]
    if not proposals:
        raise Refused("not_proposed", f"nobody proposed {membership_hash.hex()[:16]}… in round {round_}")
    lock = signer.committed[-1] if signer.committed else None
    if lock is None or lock.membership_hash == membership_hash:
        return
    shown = max(entry.quorum_round for entry in proposals)
    if round_ <= lock.round or shown < lock.round:
        raise Refused(
            "locked",
            f"the finalizer committed {lock.membership_hash.hex()[:16]}… in round {lock.round}: it prepares another "
            "hash only in a later round whose proposal shows that hash's prepare quorum from that round on",
        )


def _check_commit(book: Book, membership: Membership, round_: int, membership_hash: bytes) -> None:
    prepared = len(_signatures(book, "prepare", round_, membership_hash))
    if prepared < membership.finality_threshold:
        raise Refused(
            "no_prepare_quorum",
            f"{prepared} finalizers prepared {membership_hash.hex()[:16]}… in round {round_}, "
            f"expected {membership.finality_threshold}",
        )


def _signatures(book: Book, phase: Phase, round_: int, membership_hash: bytes) -> dict[bytes, bytes]:
    """Node id -> signature of those who signed the hash in the round."""
    found = {}
    for node, signer in book.signers.items():
        entry = _at(signer.signed(phase), round_)
        if entry is not None and entry.membership_hash == membership_hash:
            found[bytes.fromhex(node)] = entry.signature
    return found


# -- what is on the stream -----------------------------------------------------------------------------------------


def propose(book: Book, network: Network, node: bytes, payload: MembershipProposed) -> None:
    """Take a finalizer's proposal into the book of its predecessor. Raises ``Refused``; the book is unchanged then."""
    if payload.version.previous != payload.previous:
        raise Refused("other_previous", "the proposed version names another predecessor than the proposal does")
    membership = check_version(network, payload.version)
    name = version_hash(payload.version)
    _check_entry(book, membership, node, payload.round)
    shown = no_round
    if payload.prepare_quorum is not None:
        shown = payload.prepare_quorum.round
        if shown >= payload.round:
            raise Refused("quorum_round", f"a prepare quorum of round {shown} shown in round {payload.round}")
        message = signed_bytes(network.network_id, "prepare", membership.hash, shown, name)
        check_quorum(payload.prepare_quorum.signatures, membership, message, "prepare quorum")
    signer = book.signers.get(node.hex(), Signer())
    held = _at(signer.proposed, payload.round)
    if held is not None and held.membership_hash != name:
        raise Refused("proposed_twice", f"the finalizer proposed another version in round {payload.round} already")
    if held is not None:
        shown = max(shown, held.quorum_round)
    book.signers[node.hex()] = signer
    _put(signer.proposed, Proposed(payload.round, name, shown))
    book.bodies[name.hex()] = payload.version
    _forget_bodies(book)


def _forget_bodies(book: Book) -> None:
    """Drop the bodies that no entry names any more."""
    entries: list[Proposed | Signed] = []
    for signer in book.signers.values():
        entries += [*signer.proposed, *signer.prepared, *signer.committed]
    named = {entry.membership_hash.hex() for entry in entries}
    book.bodies = {name: body for name, body in book.bodies.items() if name in named}


def sign(book: Book, network: Network, node: bytes, payload: MembershipSigned) -> None:
    """Take a finalizer's signature into the book of its predecessor. Raises ``Refused``; the book is unchanged then."""
    membership = network.version(payload.previous)
    if not _check_signing(book, membership, node, payload.phase, payload.round, payload.membership_hash):
        return
    message = signed_bytes(network.network_id, payload.phase, payload.previous, payload.round, payload.membership_hash)
    if not identity.verify(node, message, payload.signature):
        raise Refused("bad_signature", f"the {payload.phase} signature does not hold")
    signer = book.signers.setdefault(node.hex(), Signer())
    _put(signer.signed(payload.phase), Signed(payload.round, payload.membership_hash, payload.signature))
    _forget_bodies(book)


# -- what a finalizer may do next ----------------------------------------------------------------------------------


class Stored(msgspec.Struct, frozen=True):
    """A signature that a finalizer's own store says it gave: that counts, whether or not the stream shows it."""

    phase: Phase
    round: int
    membership_hash: bytes
    signature: bytes


def may_prepare(
    book: Book,
    membership: Membership,
    node: bytes,
    stored: Sequence[Stored],
    round_: int,
    membership_hash: bytes,
    forked: Collection[bytes] = (),
) -> None:
    """Whether finalizer ``node`` of ``membership`` may prepare the hash in the round. Raises ``Refused``.

    ``stored``: all its signatures about the successor of ``membership``; giving one again is allowed. ``forked``:
    the authors whose fork certificates are held; an honest finalizer admits none of them anew.
    """
    _may_sign(book, membership, node, stored, "prepare", round_, membership_hash)
    body = book.bodies.get(membership_hash.hex())
    members = {bytes.fromhex(member) for member in body.members} if body is not None else set()
    back = (members - membership.members.keys()).intersection(forked)
    if back:
        raise Refused("forked_member", f"{min(back).hex()[:16]}… has forked its chain; the way back is a new key")


def may_commit(
    book: Book, membership: Membership, node: bytes, stored: Sequence[Stored], round_: int, membership_hash: bytes
) -> None:
    """Whether finalizer ``node`` of ``membership`` may commit the hash in the round. As ``may_prepare``."""
    _may_sign(book, membership, node, stored, "commit", round_, membership_hash)


def with_stored(book: Book, node: bytes, stored: Sequence[Stored]) -> Book:
    """The book as a finalizer sees it that knows all that it signed itself."""
    held = book.signers.get(node.hex(), Signer())
    mine = Signer(held.proposed, list(held.prepared), list(held.committed))
    for entry in sorted(stored, key=lambda entry: entry.round):
        _put(mine.signed(entry.phase), Signed(entry.round, entry.membership_hash, entry.signature))
    return Book({**book.signers, node.hex(): mine}, book.bodies)


def _may_sign(
    book: Book,
    membership: Membership,
    node: bytes,
    stored: Sequence[Stored],
    phase: Phase,
    round_: int,
    membership_hash: bytes,
) -> None:
    if not membership.has(node, "finalizer"):
        raise Refused("role", f"{node.hex()[:16]}… is no finalizer of membership version {membership.number}")
    seen = with_stored(book, node, stored)
    _check_signing(seen, membership, node, phase, round_, membership_hash)


def prepare_quorum(book: Book, membership: Membership, membership_hash: bytes) -> PrepareQuorum | None:
    """The newest prepare quorum for a hash, to show in a proposal of a later round; None if there is none."""
    rounds = {entry.round for signer in book.signers.values() for entry in signer.prepared}
    for round_ in sorted(rounds, reverse=True):
        quorum = _quorum(book, membership, "prepare", round_, membership_hash)
        if quorum is not None:
            return PrepareQuorum(round_, quorum)
    return None


def update(book: Book, membership: Membership) -> MembershipUpdated | None:
    """The membership certificate that the commits in the book make, or None while they are too few."""
    commits = {(entry.round, entry.membership_hash) for signer in book.signers.values() for entry in signer.committed}
    for round_, name in sorted(commits):
        quorum = _quorum(book, membership, "commit", round_, name)
        if quorum is not None and name.hex() in book.bodies:
            return MembershipUpdated(book.bodies[name.hex()], round_, quorum)
    return None


def _quorum(
    book: Book, membership: Membership, phase: Phase, round_: int, membership_hash: bytes
) -> list[SignerSignature] | None:
    """As many signatures as decide, those of the least node ids."""
    found = sorted(_signatures(book, phase, round_, membership_hash).items())[: membership.finality_threshold]
    if len(found) < membership.finality_threshold:
        return None
    return [SignerSignature(node, signature) for node, signature in found]
