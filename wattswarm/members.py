"""What people ask about a network's members and tell them: versions, proposals, approvals - over an open node.

Who authors when is ``kernel.intents.govern``'s to say; here it is done: signed, authored, and done again until nothing
is left to do now. Knows nothing of terminals.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from sel import approvals, views
from sel.store import Txn
from wattswarm.kernel import governance, rounds
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.genesis import all_roles
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.intents.govern import Seat, Sign, Step, next_steps
from wattswarm.kernel.intents.values import Author, Wait
from wattswarm.kernel.membership import Membership, next_version, signed_bytes, version_hash, version_of
from wattswarm.kernel.payloads.govern import MembershipProposed, MembershipSigned, VersionBody
from wattswarm.kernel.refusal import Problem, Refused
from wattswarm.node import Node

roles_in_order = ("proposer", "verifier", "committer", "finalizer")
own_events_to_come = 3
"""A node that proposes to leave authors this many events more that must count: the proposal and two signatures."""
turns_max = 64
Changes = Mapping[bytes, frozenset[str]]


# -- what is so ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proposal:
    """A version that may follow the current one. ``prepared``, ``committed``: who signed so in its newest rounds.

    ``lacking``: finalizers that have not committed; ``approved``: this node's operator did.
    """

    hash: bytes
    body: VersionBody
    proposers: Sequence[bytes]
    prepared: Sequence[bytes]
    committed: Sequence[bytes]
    lacking: Sequence[bytes]
    approved: bool

    @property
    def name(self) -> str:
        """What people call it: ``1@3fa9c2d1``."""
        return f"{self.body.number}@{self.hash.hex()[:8]}"


async def take_seat(node: Node, moved_ms: int = 0) -> Seat:
    """What this node knows about who is to follow the current version. ``moved_ms``: see ``Seat``."""
    state, stored = await node.log.governance()
    forked = {bytes.fromhex(line["author"]) for line in await views.forks(node.database)}
    approved = await approvals.approved(node.database)
    me, now_ms = node.home.keys.node_id, node.log.clock()
    return Seat(node.log.network, state, me, approved, stored, forked, now_ms, moved_ms)


def book_of(seat: Seat) -> rounds.Book:
    """What the finalizers said about the current version's successor."""
    return governance.book(seat.state, seat.network.current.hash)


def proposals(seat: Seat) -> list[Proposal]:
    """The versions that somebody proposed to follow the current one, by hash."""
    book, current = book_of(seat), seat.network.current
    found = []
    for hex_hash, body in sorted(book.bodies.items()):
        name = bytes.fromhex(hex_hash)
        committed = _newest(book, "committed", name)
        found.append(
            Proposal(
                name,
                body,
                _signers(book, "proposed", name, None),
                _newest(book, "prepared", name),
                committed,
                sorted(current.having("finalizer") - set(committed)),
                name in seat.approved,
            )
        )
    return found


def _signers(book: rounds.Book, part: str, name: bytes, round_: int | None) -> list[bytes]:
    return sorted(
        bytes.fromhex(node)
        for node, signer in book.signers.items()
        if any(entry.membership_hash == name and round_ in (None, entry.round) for entry in getattr(signer, part))
    )


def _newest(book: rounds.Book, part: str, name: bytes) -> list[bytes]:
    """Who signed in the round in which most did; of several, the latest."""
    entries = [entry for signer in book.signers.values() for entry in getattr(signer, part)]
    rounds_of = {entry.round for entry in entries if entry.membership_hash == name}
    sets = [_signers(book, part, name, round_) for round_ in sorted(rounds_of)]
    return max(sets, key=len, default=[])


def changes(previous: Membership, body: VersionBody) -> list[str]:
    """What a version changes, for people: ``+ node roles``, ``- node``, ``node roles, was roles``."""
    after = version_of(body, previous.fault_model).members
    said = [f"+ {short(node)} {written(roles)}" for node, roles in after.items() if node not in previous.members]
    said += [f"- {short(node)}" for node in previous.members if node not in after]
    both = [node for node in after if node in previous.members and after[node] != previous.members[node]]
    return said + [f"{short(node)} {written(after[node])}, was {written(previous.members[node])}" for node in both]


def short(node: bytes) -> str:
    """The first digits of an id."""
    return f"{node.hex()[:8]}…"


def written(roles: Collection[str]) -> str:
    """Roles as they are typed."""
    return ",".join(role for role in roles_in_order if role in roles)


def tolerance(membership: Membership) -> str:
    """How many finalizers decide, and how many may be away or lie, in plain words."""
    finalizers, needed = len(membership.having("finalizer")), membership.finality_threshold
    if finalizers == 1:
        return "1 finalizer decides alone: without it nothing is decided"
    away = finalizers - needed
    begin = f"{finalizers} finalizers: a decision needs {needed}; "
    if membership.fault_model == "crash":
        return f"{begin}{_up_to(away)} may be down; nothing is promised if one lies"
    if not away:
        return f"{begin}all must be there: none may be down, none may lie"
    return f"{begin}{_up_to(away)} may be down or lie"


def _up_to(count: int) -> str:
    return {0: "none", 1: "one"}.get(count, f"up to {count}")


# -- what people type ----------------------------------------------------------------------------------------------


def parse_member(text: str, option: str) -> tuple[str, frozenset[str]]:
    """``NODE_ID=role,role`` as the typed id and the roles. Raises ``Refused``."""
    name, equals, listed = text.partition("=")
    roles = [role.strip() for role in listed.split(",") if role.strip()]
    wrong = [role for role in roles if role not in all_roles]
    if not equals or not roles or wrong or len(set(roles)) != len(roles):
        expected = f"NODE_ID=role,role with each role once, of {', '.join(roles_in_order)}"
        raise Refused("member", "a member is not written as it should be", (Problem(option, repr(text), expected),))
    return name.strip(), frozenset(roles)


def parse_node_id(text: str, option: str, known: Collection[bytes] = ()) -> bytes:
    """A node id of 64 hex digits, or the beginning of one that is known and the only such. Raises ``Refused``."""
    if re.fullmatch(r"[0-9a-f]{64}", text):
        return bytes.fromhex(text)
    found = [node for node in known if node.hex().startswith(text)] if re.fullmatch(r"[0-9a-f]{4,63}", text) else []
    if len(found) == 1:
        return found[0]
    expected = "64 hex digits" + (", or at least 4 that only one known node's id begins with" if known else "")
    said = f"{text!r}, which {len(found)} known nodes begin with" if found else repr(text)
    raise Refused("node_id", "not a node id", (Problem(option, said, expected),))


def find(seat: Seat, text: str) -> Proposal:
    """The open proposal called ``text``: its number if only one has it, ``number@hash``, or the hash's beginning.

    Raises ``Refused`` that lists what there is.
    """
    open_ones = proposals(seat)
    number, at, prefix = text.partition("@")

    def called(one: Proposal) -> bool:
        digits = one.hash.hex()
        if at:
            return number == str(one.body.number) and digits.startswith(prefix)
        return text == str(one.body.number) or (len(text) >= 4 and digits.startswith(text))

    found = [one for one in open_ones if called(one)]
    if len(found) == 1:
        return found[0]
    there = ", ".join(one.name for one in open_ones) or "none"
    if found:
        raise Refused(
            "version_ambiguous", f"{len(found)} open proposals are called {text!r}: {there}; use one of these"
        )
    raise Refused(
        "version_unknown",
        f"no open proposal {text!r} here; the current version is {seat.network.current.number}, open proposals: "
        f"{there}. `wattswarm members list` shows them",
    )


def known_already(seat: Seat, text: str) -> Membership | None:
    """The version called ``text``, if it is one already: a number, ``number@hash``, or a hash's beginning."""
    for version in seat.network.versions.values():
        if text in (str(version.number), version.hash.hex(), f"{version.number}@{version.hash.hex()[:8]}"):
            return version
    return None


# -- what is done --------------------------------------------------------------------------------------------------


def need_finalizer(seat: Seat) -> None:
    """This node is a finalizer of the current version. Raises ``Refused``."""
    current = seat.network.current
    if not current.has(seat.me, "finalizer"):
        others = ", ".join(sorted(map(short, current.having("finalizer")))[:4])
        raise Refused(
            "not_finalizer",
            f"this node ({short(seat.me)}) is no finalizer of membership version {current.number}: its finalizers "
            f"propose and sign ({others})",
        )


async def draft_version(node: Node, seat: Seat, add: Changes, remove: Collection[bytes]) -> VersionBody:
    """The version that follows the current one with ``add`` (new members, or other roles) and without ``remove``.

    Raises ``Refused`` if nothing changes, or what comes of it is not sound.
    """
    current = seat.network.current
    for member, roles in add.items():
        if current.members.get(member) == roles:
            raise Refused("member_already", f"{short(member)} is a member with these roles already: {written(roles)}")
        if member in remove:
            raise Refused("member_twice", f"{short(member)} is both to be added and to be removed")
    for member in remove:
        if member not in current.members:
            raise Refused("member_unknown", f"{short(member)} is no member of membership version {current.number}")
    members = {node_id: roles for node_id, roles in current.members.items() if node_id not in remove} | dict(add)
    if members == current.members:
        raise Refused("membership_same", "nothing changes: name members with --add or --remove")
    if not any("finalizer" in roles for roles in members.values()):
        raise Refused("no_finalizer", "that would leave no finalizer, and nobody could ever decide anything again")

    async def heads(txn: Txn) -> dict[bytes, int]:
        return {author: line.head.seq for author, line in (await txn.chains(list(remove))).items()}

    last = await node.log.read(heads)
    until = {each: max(0, last.get(each, 0)) + own_events_to_come * (each == seat.me) for each in remove}
    return next_version(seat.network, current, members, until)


async def propose(node: Node, body: VersionBody) -> list[Event]:
    """Approve a version and put it into a round, as far as it goes now. Raises ``Refused`` if this node is bound."""
    seat = await take_seat(node)
    need_finalizer(seat)
    name = version_hash(body)
    steps = next_steps(replace(seat, approved=[*seat.approved, name], drafted=body))
    if not any(isinstance(step, Author) and _proposes(step, body) for step in steps):
        bound = next((one.name for one in proposals(seat) if one.approved), "another version")
        why = next((step.why for step in steps if isinstance(step, Wait)), "")
        raise Refused("bound", f"this node works for {bound}, which must be decided first{f': {why}' if why else ''}")
    await approvals.approve(node.database, name)
    return [*await _author(node, steps), *await carry_on(node)]


def _proposes(step: Author, body: VersionBody) -> bool:
    said = step.draft.payload
    return isinstance(said, MembershipProposed) and said.version == body


async def sign(node: Node, proposal: Proposal) -> list[Event]:
    """Approve an open proposal, and sign what may be signed now."""
    need_finalizer(await take_seat(node))
    await approvals.approve(node.database, proposal.hash)
    return await carry_on(node)


async def apply(node: Node, proposal: Proposal) -> list[Event]:
    """Author the MEMBERSHIP_UPDATED of a proposal that a quorum has committed to. Raises ``Refused`` if none has."""
    seat = await take_seat(node)
    current = seat.network.current
    update = rounds.update(book_of(seat), current)
    if update is None or version_hash(update.version) != proposal.hash:
        raise Refused(
            "too_few_signers",
            f"{proposal.name}: {len(proposal.committed)} finalizers have committed to it, expected "
            f"{current.finality_threshold} of {len(current.having('finalizer'))}; still to come: "
            + ", ".join(map(short, proposal.lacking)),
        )
    return await node.log.author(Draft(update))


async def carry_on(node: Node) -> list[Event]:
    """Author what approvals and the log ask for now, until nothing more is to be done. Waits for nobody."""
    authored: list[Event] = []
    for _ in range(turns_max):
        said = await take_turn(node, await take_seat(node))
        if isinstance(said, Wait) or not said:
            break
        authored += said
    return authored


async def take_turn(node: Node, seat: Seat) -> list[Event] | Wait:
    """Author one request's worth of what is next; a ``Wait`` if it is too early. Raises ``Refused``."""
    steps = next_steps(seat)
    if steps and isinstance(steps[0], Wait):
        return steps[0]
    return await _author(node, steps) if steps else []


async def _author(node: Node, steps: Sequence[Step]) -> list[Event]:
    return await node.log.author(*drafts_of(steps, node.home.keys, node.log.network.network_id))


def drafts_of(steps: Sequence[Step], keys: Keypair, network_id: bytes) -> list[Draft]:
    """What is to be authored in one request, signed where it is to be signed."""
    signed = {step: Draft(_signed(step, keys, network_id)) for step in steps if isinstance(step, Sign)}
    return [step.draft if isinstance(step, Author) else signed[step] for step in steps if not isinstance(step, Wait)]


def _signed(step: Sign, keys: Keypair, network_id: bytes) -> MembershipSigned:
    message = signed_bytes(network_id, step.phase, step.previous, step.round, step.membership_hash)
    return MembershipSigned(step.phase, step.previous, step.round, step.membership_hash, keys.sign(message))
