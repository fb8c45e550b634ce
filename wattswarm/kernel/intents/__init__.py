"""What a node should do next for one task: the autopilot's brain, and run-real's.

Pure: it reads a fold, what the node remembers of its own (``Mine``), and a time that is handed in. Nodes that hold
the same state agree, without a word, whose turn it is: members stand in line by the hash of (task, epoch, duty,
node), and each waits ``turn_ms`` for everybody before it, reckoned from when it saw the work move. So one acts where
one is enough, and the next takes over where it is silent. What is said here was tried on a copy of the state, so a
node never attempts what its own state refuses, but says why it waits; races with what has not arrived yet are
settled by the fold. Keeps docs/protocol.md §6 and §7.
"""

from __future__ import annotations

from collections.abc import Iterable

from wattswarm.kernel import hlc
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.intents.finish import deciding, ending_epoch, expiring, finalizing, retrying, voting_finality
from wattswarm.kernel.intents.propose import proposing
from wattswarm.kernel.intents.values import (
    Author,
    Execute,
    Failure,
    Intent,
    Judgement,
    Mine,
    Sight,
    Verify,
    VoteFinality,
    Wait,
)
from wattswarm.kernel.intents.verify import verifying
from wattswarm.kernel.limits import LOCAL_PROTOCOL_VERSION
from wattswarm.kernel.payloads import kind_names
from wattswarm.kernel.payloads.judge import DecisionFinalized
from wattswarm.kernel.task.fold import Pins, TaskState, apply, decode_state, encode_state, status
from wattswarm.kernel.task.state import Epoch

__all__ = [
    "Author",
    "Execute",
    "Failure",
    "Intent",
    "Judgement",
    "Mine",
    "Verify",
    "VoteFinality",
    "Wait",
    "imagine",
    "next_intents",
]

_duties = (finalizing, voting_finality, deciding, proposing, verifying, retrying, ending_epoch)
"""In the order in which a node turns to them: what is nearest to the end first, a candidate before a verdict."""


def next_intents(state: TaskState, pins: Pins, me: bytes, now_ms: int, mine: Mine | None = None) -> list[Intent]:
    """What ``me`` should do now; if nothing, the waits that say why. Empty: nothing more, ever.

    One duty's actions at a time: do them in order, the ``Author``s in one request, then ask again with the new
    state. Ask again too when something arrived, and when a ``Wait`` is over.
    """
    reported = status(state)
    if reported not in ("OPEN", "SUSPENDED"):
        return []
    work = _going(state)
    sight = Sight(state, work, pins, me, now_ms, mine or Mine())
    expiry = pins.contract.expiry_ms
    if now_ms >= expiry:
        return list(expiring(sight))
    if reported == "SUSPENDED":
        return [Wait(expiry, "the task is suspended")]
    waits: list[Intent] = []
    for duty in (ending_epoch,) if work.finalized or state.decided(work.number) else _duties:
        found = list(duty(sight))
        actions: list[Intent] = [intent for intent in found if not isinstance(intent, Wait)]
        if actions:
            refusal = _refusal(sight, actions)
            if refusal is None:
                return actions
            found = [Wait(expiry, refusal)]
        waits.extend(found)
    return waits or [Wait(expiry, "waiting for others")]


def _refusal(sight: Sight, actions: Iterable[Intent]) -> str | None:
    """What the fold would say no to: tried on a copy of the state, with events that nobody signed."""
    state = decode_state(encode_state(sight.state))
    for action in actions:
        if isinstance(action, Author) and not isinstance(action.draft.payload, DecisionFinalized):
            verdict = apply(state, sight.pins, imagine(sight.pins, sight.me, sight.now, action.draft))
            if verdict.status != "accepted":
                return verdict.message
    return None


def imagine(pins: Pins, me: bytes, now_ms: int, draft: Draft) -> Event:
    """The event that ``me`` would author, as the fold reads it: to try on a copy of the state. Nobody signed it."""
    return Event(
        id=b"",
        body=b"",
        signature=b"",
        protocol_version=LOCAL_PROTOCOL_VERSION,
        network_id=pins.network_id,
        author=me,
        author_seq=0,
        prev=None,
        hlc=hlc.pack(now_ms),
        task=draft.task,
        epoch=draft.epoch,
        kind=kind_names[type(draft.payload)],
        payload=draft.payload,
    )


def _going(state: TaskState) -> Epoch:
    """The epoch that is going on: the state's, or the empty one after it."""
    work = state.work
    return work if work.ended_at is None else Epoch(work.number + 1, work.ended_at)
