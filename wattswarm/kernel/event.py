"""The event (docs/protocol.md §2): its body, its id, its signature, and the checks that need only its bytes.

An event's id is the hash of the body bytes as they came; they are kept and passed on, never re-serialised.
Failing a form check (``Malformed``) is the sender's fault; everything that needs a chain, a membership or a
state is judged later and elsewhere. The signature check is apart (``signature_holds``) because it is the
expensive one and is done in chunks, on other threads, by whoever receives events in numbers.
"""

from __future__ import annotations

from typing import Any

import msgspec

from wattswarm.kernel import codec, hlc, identity, limits
from wattswarm.kernel.payloads import Kind, kind_names, kinds, parse_payload, plain
from wattswarm.kernel.payloads.fields import Payload
from wattswarm.kernel.refusal import Malformed

signature_context = b"wattswarm/event/v1\0"
SortKey = tuple[int, int, bytes]


class Event(msgspec.Struct, frozen=True, gc=False):
    """An event whose form is good. ``payload`` is None iff this protocol version does not know the event.

    Nor does anybody understand an event of a later version than the first whose payload is bad: those who did not
    know that version hold it already, unread, so it can be nobody's fault afterwards.

    ``body`` and ``signature`` are the bytes of wire and disk; the other fields are what they say.
    """

    id: bytes
    body: bytes
    signature: bytes
    protocol_version: str
    network_id: bytes
    author: bytes
    author_seq: int
    prev: bytes | None
    hlc: int
    task: bytes | None
    epoch: int
    kind: str
    payload: Payload | None

    @property
    def created_at(self) -> int:
        """Unix milliseconds: what every deadline of the protocol compares."""
        return self.hlc >> hlc.counter_bits

    @property
    def sort_key(self) -> SortKey:
        """Canonical order within a stream (docs/protocol.md §4)."""
        return (self.epoch, self.hlc, self.id)

    @property
    def stream(self) -> bytes:
        """The stream that folds this event: its task, itself if it creates one, else governance (network id)."""
        if self.task is not None:
            return self.task
        return self.id if self.kind == "TASK_CREATED" else self.network_id

    @property
    def wire(self) -> list[bytes]:
        """``[body, signature]``, the form of wire and disk."""
        return [self.body, self.signature]


class _Envelope(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    protocol_version: str
    network_id: bytes
    author: bytes
    author_seq: int
    prev: bytes | None
    hlc: int
    task: bytes | None
    epoch: int
    kind: str
    payload: dict[str, Any]


def _check_envelope(body: _Envelope) -> None:
    for name, value in (
        ("network_id", body.network_id),
        ("author", body.author),
        ("prev", body.prev),
        ("task", body.task),
    ):
        if value is not None and len(value) != 32:
            raise Malformed("field_size", f"{name}: found {len(value)} bytes, expected 32")
    for name, number, most in (
        ("author_seq", body.author_seq, limits.counter_max),
        ("hlc", body.hlc, codec.INT_MAX),
        ("epoch", body.epoch, limits.counter_max),
    ):
        if not 0 <= number <= most:
            raise Malformed("field_range", f"{name}: found {number}, expected 0 to {most}")
    if (body.prev is None) != (body.author_seq == 0):
        raise Malformed("prev", "prev: expected null at author_seq 0 and only there")
    for name, text in (("protocol_version", body.protocol_version), ("kind", body.kind)):
        if not 0 < len(text.encode()) <= limits.text_bytes_max:
            raise Malformed("field_size", f"{name}: expected 1 to {limits.text_bytes_max} bytes of text")
        if "\0" in text:  # it is a column of databases, and most cannot hold one
            raise Malformed("field_text", f"{name}: expected text without NUL")
    if body.task == body.network_id:  # that names the governance stream, and no event has it for an id
        raise Malformed("task", "task: found the network id, expected the id of a TASK_CREATED event")


def _check_placement(body: _Envelope, kind: Kind) -> None:
    about_task = not kind.governs and kind.name != "TASK_CREATED"
    if (body.task is not None) != about_task:
        expected = "the id of a TASK_CREATED event" if about_task else "null"
        raise Malformed("task", f"task: expected {expected} on {kind.name}")
    if kind.governs != (body.epoch == 0):
        raise Malformed(
            "epoch",
            f"epoch: found {body.epoch}, expected {'0' if kind.governs else 'at least 1'} on {kind.name}",
        )
    if kind.name == "TASK_CREATED" and body.epoch != 1:
        raise Malformed("epoch", f"epoch: found {body.epoch}, expected 1 on TASK_CREATED")


_certified_kinds = frozenset({"TASK_CREATED", "CANDIDATE_PROPOSED"})
_met: dict[tuple[str, bytes, bytes, bytes], Event] = {}


def parse(body: bytes, signature: bytes, network_id: bytes) -> Event:
    """The event of received bytes, all form checks made except the signature. Raises ``Malformed``.

    Remembers the last events of the kinds that certificates carry, which come once alone and once in each of those.
    """
    known = _met.get((limits.LOCAL_PROTOCOL_VERSION, body, signature, network_id))
    if known is not None:
        return known
    if len(signature) != identity.signature_bytes:
        raise Malformed("signature_size", f"signature: found {len(signature)} bytes, expected 64")
    if len(body) + len(signature) > limits.event_bytes_max:
        raise Malformed("too_large", f"event of {len(body) + len(signature)} bytes, at most {limits.event_bytes_max}")
    return _remembered(_typed(codec.decode(body), codec.sha256(body), body, signature, network_id))


def parse_known(event_id: bytes, body: bytes, signature: bytes, network_id: bytes) -> Event:
    """The event of bytes that ``parse`` has accepted before: whoever kept them kept their id.

    As long as the hash of the bytes is that id they are the same, and their canonical form need not be checked
    again, which is most of the work. Raises ``Malformed`` if they are not.
    """
    known = _met.get((limits.LOCAL_PROTOCOL_VERSION, body, signature, network_id))
    if known is not None:
        return known
    if codec.sha256(body) != event_id:
        raise Malformed("changed", f"the stored bytes of event {event_id.hex()} hash to {codec.sha256(body).hex()}")
    return _remembered(_typed(codec.decode_known(body), event_id, body, signature, network_id))


def _remembered(event: Event) -> Event:
    if event.kind in _certified_kinds:
        if len(_met) >= limits.events_remembered_max:
            _met.clear()
        _met[limits.LOCAL_PROTOCOL_VERSION, event.body, event.signature, event.network_id] = event
    return event


def _typed(value: Any, event_id: bytes, body: bytes, signature: bytes, network_id: bytes) -> Event:
    try:
        envelope = msgspec.convert(value, _Envelope, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise Malformed("body_form", f"event body: {error}") from None
    _check_envelope(envelope)
    if envelope.network_id != network_id:
        raise Malformed(
            "other_network",
            f"event of network {envelope.network_id.hex()[:16]}…, ours is {network_id.hex()[:16]}…",
        )
    payload = None
    kind = kinds.get(envelope.kind)
    if kind is not None and envelope.protocol_version in limits.protocol_versions:
        try:
            _check_placement(envelope, kind)
            payload = parse_payload(kind, envelope.payload)
        except Malformed:
            if envelope.protocol_version == limits.protocol_versions[0]:
                raise
    return Event(
        event_id,
        body,
        signature,
        envelope.protocol_version,
        envelope.network_id,
        envelope.author,
        envelope.author_seq,
        envelope.prev,
        envelope.hlc,
        envelope.task,
        envelope.epoch,
        envelope.kind,
        payload,
    )


def parse_wire(value: Any, network_id: bytes) -> Event:
    """The event of a decoded ``[body, signature]`` pair. Raises ``Malformed``."""
    match value:
        case [bytes() as body, bytes() as signature]:
            return parse(body, signature, network_id)
    raise Malformed("event_form", "event: expected an array of two byte strings, body and signature")


def signature_holds(event: Event) -> bool:
    """Whether the event's signature is its author's."""
    return identity.verify(event.author, signature_context + event.id, event.signature)


def checked(body: bytes, signature: bytes, network_id: bytes) -> Event:
    """``parse`` and the signature in one: for the few. Raises ``Malformed``."""
    event = parse(body, signature, network_id)
    if not signature_holds(event):
        raise Malformed("bad_signature", "the signature is not the author's")
    return event


class Draft(msgspec.Struct, frozen=True):
    """What an author wants to say; its place in the chain and its time come with the signature.

    ``about_first``: about the task that the first draft of the same request creates, whose id only signing gives.
    """

    payload: Payload
    task: bytes | None = None
    epoch: int = 0
    about_first: bool = False


def author(keys: identity.Keypair, network_id: bytes, seq: int, prev: bytes | None, clock: int, draft: Draft) -> Event:
    """Sign ``draft`` as event ``seq`` of the key's chain at hlc ``clock``. Raises ``Malformed`` if its form is bad.

    The result is parsed from its own bytes, so that an author holds exactly what every receiver will.
    """
    kind = kind_names[type(draft.payload)]
    payload = plain(draft.payload)
    codec.check_value(payload)
    body = codec.encode(
        [
            limits.LOCAL_PROTOCOL_VERSION,
            network_id,
            keys.node_id,
            seq,
            prev,
            clock,
            draft.task,
            draft.epoch,
            kind,
            payload,
        ]
    )
    authored = parse(body, keys.sign(signature_context + codec.sha256(body)), network_id)
    if authored.payload is None:
        raise Malformed("payload_form", f"{kind}: not as protocol version {authored.protocol_version} has it")
    return authored
