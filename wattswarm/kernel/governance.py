"""The governance stream's fold: how versions come to be signed, what was advised, which policy hashes are admitted.

Pass 1 is ``membership.Network``: the versions whose certificates are held, whatever their order. The fold runs over
the events that name no task. Late governance never touches a task, for a task pins its version. Keeps
docs/protocol.md §9 and the governance stream of §4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from wattswarm.kernel import codec, limits, rounds
from wattswarm.kernel.event import Event
from wattswarm.kernel.membership import Network, check_update
from wattswarm.kernel.payloads import govern, kinds
from wattswarm.kernel.payloads.fields import Payload
from wattswarm.kernel.policy import policies
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.verdict import ACCEPTED, UNSUPPORTED, Verdict, refused

Stage = Literal["created", "approved", "applied", "tuned"]


class Advisory(msgspec.Struct, frozen=True):
    """An advisory and how far it came. ``event`` and ``hlc`` are its ADVISORY_CREATED's, which has the reason."""

    author: bytes
    event: bytes
    hlc: int
    policy_id: str
    policy_hash: str
    stage: Stage = "created"


class Checkpoint(msgspec.Struct, frozen=True):
    """An author's newest checkpoint; its frontier is in the event."""

    event: bytes
    hlc: int
    checkpoint_id: str
    state_root: bytes


class GovernanceState(msgspec.Struct):
    """``versions``: hashes of pass 1, sorted. Keys that are ids are in hex, as canonical CBOR has text keys only.

    ``books``: open questions of succession, by predecessor; ``closed``: predecessors whose successor was announced.
    ``admitted``: policy id -> hashes that POLICY_TUNED admitted, sorted.
    """

    versions: list[bytes] = []
    books: dict[str, rounds.Book] = {}
    closed: list[bytes] = []
    advisories: dict[str, Advisory] = {}
    admitted: dict[str, list[str]] = {}
    checkpoints: dict[str, Checkpoint] = {}


def new(network: Network) -> GovernanceState:
    """The state before the first event: pass 1."""
    return GovernanceState(sorted(network.versions))


def encode_state(state: GovernanceState) -> bytes:
    """Canonical CBOR of the state; its SHA-256 is the stream's digest."""
    return codec.encode_sorting(msgspec.to_builtins(state, builtin_types=(bytes,)))


def decode_state(data: bytes) -> GovernanceState:
    """The state of stored bytes."""
    return msgspec.convert(codec.decode(data), GovernanceState, builtin_types=(bytes,))


def book(state: GovernanceState, previous: bytes) -> rounds.Book:
    """What the finalizers of version ``previous`` said about its successor so far."""
    return state.books.get(previous.hex(), rounds.Book())


def admitted_policy_hashes(state: GovernanceState) -> Mapping[str, frozenset[str]]:
    """Policy id -> the hashes that nodes accept beside the policy's own."""
    return {policy_id: frozenset(hashes) for policy_id, hashes in state.admitted.items()}


def apply(state: GovernanceState, network: Network, event: Event) -> Verdict:
    """Apply the next event of the governance stream. A refused one leaves the state as it was."""
    if event.payload is None:
        return UNSUPPORTED
    try:
        _need_role(network, event)
        _rules[type(event.payload)](state, network, event, event.payload)
    except Refused as refusal:
        return refused(refusal.reason, refusal.message)
    return ACCEPTED


def _need_role(network: Network, event: Event) -> None:
    """The author has the kind's role in the version that the payload names."""
    roles = kinds[event.kind].roles
    if not roles:
        return
    match event.payload:
        case govern.MembershipProposed(previous=named) | govern.MembershipSigned(previous=named):
            version = network.version(named)
        case _:
            version = network.version(event.payload.membership)  # type: ignore[union-attr]
    if not any(version.has(event.author, role) for role in roles):
        raise Refused(
            "role",
            f"{event.author.hex()[:16]}… is no {' or '.join(sorted(roles))} in membership version {version.number}: "
            f"{event.kind} is not its to say",
        )


# -- membership ----------------------------------------------------------------------------------------------------


def _propose(state: GovernanceState, network: Network, event: Event, payload: govern.MembershipProposed) -> None:
    if payload.previous in state.closed:
        return
    opened = book(state, payload.previous)
    rounds.propose(opened, network, event.author, payload)
    state.books[payload.previous.hex()] = opened


def _sign(state: GovernanceState, network: Network, event: Event, payload: govern.MembershipSigned) -> None:
    if payload.previous in state.closed:
        return
    opened = book(state, payload.previous)
    rounds.sign(opened, network, event.author, payload)
    state.books[payload.previous.hex()] = opened


def _update(state: GovernanceState, network: Network, _event: Event, payload: govern.MembershipUpdated) -> None:
    """The signatures decide, whoever says it. What is said about the predecessor from here on is late, and idle."""
    check_update(payload, network)
    previous = payload.version.previous
    state.books.pop(previous.hex(), None)
    if previous not in state.closed:
        state.closed = sorted([*state.closed, previous])


# -- advisories ----------------------------------------------------------------------------------------------------


def _create_advisory(state: GovernanceState, _network: Network, event: Event, payload: govern.AdvisoryCreated) -> None:
    own = _own_hashes(payload.policy_id)
    if not own:
        raise Refused("policy_unknown", f"advisory {payload.advisory_id!r}: no policy {payload.policy_id!r}")
    held = state.advisories.get(payload.advisory_id)
    if held is not None:
        said = (event.author, payload.policy_id, payload.suggested_policy_hash)
        if (held.author, held.policy_id, held.policy_hash) == said:
            return
        raise Refused("advisory_exists", f"advisory {payload.advisory_id!r} exists already and says something else")
    state.advisories[payload.advisory_id] = Advisory(
        event.author, event.id, event.hlc, payload.policy_id, payload.suggested_policy_hash
    )
    _forget_oldest(state, event.author)


def _forget_oldest(state: GovernanceState, author: bytes) -> None:
    """An author's open advisories are bounded: the oldest goes."""
    open_ones = [
        (advisory.hlc, advisory.event, advisory_id)
        for advisory_id, advisory in state.advisories.items()
        if advisory.author == author and advisory.stage != "tuned"
    ]
    if len(open_ones) > limits.advisories_open_max:
        del state.advisories[min(open_ones)[2]]


def _own_hashes(policy_id: str) -> frozenset[str]:
    return frozenset(policy.policy_hash for policy in policies if policy.policy_id == policy_id)


_stages: tuple[Stage, ...] = ("created", "approved", "applied", "tuned")


def _advance(state: GovernanceState, advisory_id: str, stage: Stage, policy_hash: str | None) -> bool:
    """Move an advisory from the stage before to ``stage``. False: it is there already. Raises ``Refused``.

    ``policy_hash``, where the event names one, must be the one that was suggested.
    """
    held = state.advisories.get(advisory_id)
    if held is None:
        raise Refused("advisory_unknown", f"advisory {advisory_id!r} is not known")
    if policy_hash is not None and policy_hash != held.policy_hash:
        raise Refused(
            "advisory_hash", f"advisory {advisory_id!r} suggests {held.policy_hash[:16]}…, found {policy_hash[:16]}…"
        )
    wanted, found = _stages.index(stage), _stages.index(held.stage)
    if found >= wanted:
        return False
    if found != wanted - 1:
        raise Refused("advisory_stage", f"advisory {advisory_id!r} is {held.stage}, expected {_stages[wanted - 1]}")
    state.advisories[advisory_id] = msgspec.structs.replace(held, stage=stage)
    return True


def _approve(state: GovernanceState, _network: Network, event: Event, payload: govern.AdvisoryApproved) -> None:
    if payload.admin_node_id != event.author:
        raise Refused("advisory_admin", "admin_node_id is not the author: each finalizer approves for itself")
    _advance(state, payload.advisory_id, "approved", None)


def _apply_advisory(state: GovernanceState, _network: Network, _event: Event, payload: govern.AdvisoryApplied) -> None:
    _advance(state, payload.advisory_id, "applied", payload.applied_policy_hash)


def _tune(state: GovernanceState, _network: Network, _event: Event, payload: govern.PolicyTuned) -> None:
    held = state.advisories.get(payload.advisory_id)
    if held is not None and held.policy_id != payload.policy_id:
        raise Refused("policy_other", f"advisory {payload.advisory_id!r} is about policy {held.policy_id}")
    if payload.to_policy_hash == payload.from_policy_hash:
        raise Refused("policy_same", "to_policy_hash is from_policy_hash: nothing is tuned")
    admitted = state.admitted.get(payload.policy_id, [])
    if payload.from_policy_hash not in (*_own_hashes(payload.policy_id), *admitted):
        raise Refused(
            "policy_from", f"from_policy_hash {payload.from_policy_hash[:16]}… is no admitted hash of the policy"
        )
    if _advance(state, payload.advisory_id, "tuned", payload.to_policy_hash):
        state.admitted[payload.policy_id] = sorted({*admitted, payload.to_policy_hash})


# -- checkpoints ---------------------------------------------------------------------------------------------------


def _check_in(state: GovernanceState, _network: Network, event: Event, payload: govern.CheckpointCreated) -> None:
    state.checkpoints[event.author.hex()] = Checkpoint(event.id, event.hlc, payload.checkpoint_id, payload.state_root)


_Rule = Callable[[GovernanceState, Network, Event, Any], None]

_rules: Mapping[type[Payload], _Rule] = {
    govern.MembershipProposed: _propose,
    govern.MembershipSigned: _sign,
    govern.MembershipUpdated: _update,
    govern.AdvisoryCreated: _create_advisory,
    govern.AdvisoryApproved: _approve,
    govern.AdvisoryApplied: _apply_advisory,
    govern.PolicyTuned: _tune,
    govern.CheckpointCreated: _check_in,
}
