"""What a node should author next about the membership: the brain of ``members`` and of the daemon's part in it.

Pure: it reads the governance stream's fold, what this node's operator approved, what the node has signed, and a time
that is handed in. A node signs nothing that its operator did not approve; an approval is carried through both phases
and through rounds. A round is left only when it can be of no more use: when the node means another version than the
one it prepared there, or when others went on with the one it means. So nodes that disagree rest until a person
changes his mind, and nodes that agree decide, however they came to it. What may be signed is ``rounds``' to say.
Keeps docs/protocol.md §9, Membership.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy

from msgspec import Struct

from wattswarm.kernel import governance, rounds
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.event import Draft
from wattswarm.kernel.governance import GovernanceState
from wattswarm.kernel.intents.values import Author, Wait, turn_ms
from wattswarm.kernel.limits import counter_max
from wattswarm.kernel.membership import Membership, Network, Phase, version_hash
from wattswarm.kernel.payloads.govern import MembershipProposed, MembershipUpdated, VersionBody
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.rounds import Book, Signer, Stored

round_ms = 10_000
"""How long a round that could still end well is waited for when others have gone on to a later one."""


class Sign(Struct, frozen=True):
    """Sign a version in a round, and author it as a MEMBERSHIP_SIGNED."""

    phase: Phase
    previous: bytes
    round: int
    membership_hash: bytes


class Seat(Struct, frozen=True):
    """One look at who is to follow the current version, from the seat of ``me``.

    ``approved``: hashes that the operator approved, the newest last. ``stored``: what the node has signed about the
    current version's successor. ``forked``: authors whose fork certificates are held. ``moved_ms``: when what is known
    about the successor last changed here (unix ms); 0: wait for nobody, as when a person asks. ``drafted``: a version
    that the operator approved and nobody proposed yet.
    """

    network: Network
    state: GovernanceState
    me: bytes
    approved: Sequence[bytes]
    stored: Sequence[Stored]
    forked: Collection[bytes]
    now_ms: int
    moved_ms: int = 0
    drafted: VersionBody | None = None


Step = Author | Sign | Wait


def next_steps(seat: Seat) -> list[Step]:
    """What to author now, in one request, all or none; then ask again with the new state. Or one ``Wait``.

    Empty: nothing before something arrives or the operator approves something.
    """
    version = seat.network.current
    book = governance.book(seat.state, version.hash)
    update = rounds.update(book, version)
    if update is not None:
        return _announce(seat, version, update)
    bodies = dict(book.bodies)
    if seat.drafted is not None:
        bodies[version_hash(seat.drafted).hex()] = seat.drafted
    approved = [name for name in seat.approved if name.hex() in bodies]
    if not version.has(seat.me, "finalizer") or not approved:
        return []
    return _Desk(seat, version, book, bodies, approved).steps()


def _announce(seat: Seat, version: Membership, update: MembershipUpdated) -> list[Step]:
    """The certificate is complete: members that stay stand in line to say so, finalizers first."""
    line = sorted(
        (node for node in version.members if node.hex() not in update.version.until),
        key=lambda node: (not version.has(node, "finalizer"), sha256(version.hash + node)),
    )
    if seat.me not in line:
        return []
    due_ms = seat.moved_ms + line.index(seat.me) * turn_ms
    if seat.moved_ms and seat.now_ms < due_ms:
        return [Wait(due_ms, "another member announces the version")]
    return [Author(Draft(update))]


class _Desk:
    """A finalizer's papers: what it meant, what it signed, what it means now (``choice``)."""

    def __init__(
        self, seat: Seat, version: Membership, book: Book, bodies: Mapping[str, VersionBody], approved: Sequence[bytes]
    ) -> None:
        self.seat, self.version, self.book, self.bodies, self.approved = seat, version, book, bodies, approved
        self.mine = rounds.with_stored(book, seat.me, seat.stored).signers.get(seat.me.hex(), Signer())
        held = {name: rounds.prepare_quorum(book, version, name) for name in approved}
        self.quorums = {name: quorum.round for name, quorum in held.items() if quorum is not None}
        self.choice = self._choice()

    def _choice(self) -> bytes:
        """The version that this node works for: what it is bound to, what a quorum prepared, what was approved last."""
        since = {name: max(self._shown(name), self.quorums.get(name, rounds.no_round)) for name in self.approved}
        newest = max(since, key=lambda name: (since[name], name))
        lock = self.mine.committed[-1] if self.mine.committed else None
        if lock is not None and since[newest] <= lock.round:
            return lock.membership_hash
        return newest if since[newest] != rounds.no_round else self.approved[-1]

    def _shown(self, name: bytes) -> int:
        """The newest round of which a proposal showed the version's prepare quorum; the book may have dropped it."""
        entries = [entry for signer in self.book.signers.values() for entry in signer.proposed]
        return max((one.quorum_round for one in entries if one.membership_hash == name), default=rounds.no_round)

    def steps(self) -> list[Step]:
        return self._say_again() or self._commit() or self._prepare()

    def _say_again(self) -> list[Step]:
        """The stream does not show what this node prepared last, as when who proposed it forked: say the same again."""
        last = self.mine.last_round
        prepared = [entry for entry in self.mine.prepared if entry.round == last]
        shown = self.book.signers.get(self.seat.me.hex(), Signer()).last_round
        if not prepared or shown >= last or prepared[0].membership_hash.hex() not in self.bodies:
            return []
        return self._enter(last, prepared[0].membership_hash, ())

    def _commit(self) -> list[Step]:
        """A quorum prepared a version in this round or a later one: commit to it there."""
        for name in sorted(self.quorums, key=lambda name: -self.quorums[name]):
            round_ = self.quorums[name]
            if any(entry.round == round_ for entry in self.mine.committed):
                continue
            try:
                rounds.may_commit(self.book, self.version, self.seat.me, self.seat.stored, round_, name)
            except Refused:
                continue
            return [Sign("commit", self.version.hash, round_, name)]
        return []

    def _prepare(self) -> list[Step]:
        """Prepare the choice in the round that is to be entered, if there is one now."""
        last, ahead = self.mine.last_round, self._round_of_a_third()
        if last == rounds.no_round or ahead > last:
            return self._enter(max(ahead, 0), self.choice, self.seat.stored)
        signed = (*self.mine.prepared, *self.mine.committed)
        meant = next(entry.membership_hash for entry in signed if entry.round == last)
        if meant == self.choice and not self._is_alive_after(last):
            return []
        due_ms = self.seat.moved_ms + round_ms
        if self.seat.moved_ms and self.seat.now_ms < due_ms and self._may_win(last, meant):
            return [Wait(due_ms, f"round {last} may still end well")]
        return self._enter(last + 1, self.choice, self.seat.stored)

    def _round_of_a_third(self) -> int:
        """The highest round that ⌊n/3⌋ + 1 finalizers have signed in, or beyond: an honest one among them."""
        reached = sorted((signer.last_round for signer in self.book.signers.values()), reverse=True)
        needed = self.version.third("finalizer")
        return reached[needed - 1] if len(reached) >= needed else rounds.no_round

    def _is_alive_after(self, round_: int) -> bool:
        """Whether anybody works for the choice in a later round."""
        later: set[bytes] = set()
        for signer in self.book.signers.values():
            later.update(entry.membership_hash for entry in signer.proposed if entry.round > round_)
            signed = (*signer.prepared, *signer.committed)
            later.update(entry.membership_hash for entry in signed if entry.round > round_)
        return self.choice in later

    def _may_win(self, round_: int, name: bytes) -> bool:
        """Whether a version may still get its quorum in a round from finalizers that did not prepare another."""
        lost = sum(
            any(entry.round == round_ and entry.membership_hash != name for entry in signer.prepared)
            for signer in self.book.signers.values()
        )
        return len(self.version.having("finalizer")) - lost >= self.version.finality_threshold

    def _enter(self, round_: int, name: bytes, stored: Sequence[Stored]) -> list[Step]:
        """Prepare a version in the round, and propose it there first if nobody did so that it can be prepared."""
        seat, version = self.seat, self.version
        if name.hex() not in self.bodies:
            return [_rest("the version that this node has committed to is not known here any more")]
        signed = Sign("prepare", version.hash, round_, name)
        try:
            rounds.may_prepare(self.book, version, seat.me, stored, round_, name, seat.forked)
        except Refused as refusal:
            if refusal.reason not in ("not_proposed", "locked"):
                return [_rest(refusal.message)]
        else:
            return [signed]
        quorum = rounds.prepare_quorum(self.book, version, name)
        shown = quorum if quorum is not None and quorum.round < round_ else None
        proposal = MembershipProposed(version.hash, round_, self.bodies[name.hex()], shown)
        imagined = deepcopy(self.book)
        try:
            rounds.propose(imagined, seat.network, seat.me, proposal)
            rounds.may_prepare(imagined, version, seat.me, stored, round_, name, seat.forked)
        except Refused as refusal:
            return [_rest(refusal.message)]
        return [Author(Draft(proposal)), signed]


def _rest(why: str) -> Wait:
    return Wait(counter_max, why)
