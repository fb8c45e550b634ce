"""What the fold says of an event: accepted, refused with a reason, or not understood by this version.

Every event that was admitted to the log keeps its verdict, beside the state and outside its digest
(docs/protocol.md §3, §4). A value and nothing else: it knows neither rules nor states.
"""

from __future__ import annotations

from typing import Literal

import msgspec

message_chars_max = 2_000


class Verdict(msgspec.Struct, frozen=True):
    """``reason`` is a stable lower-case slug, ``message`` a sentence with the numbers, for people."""

    status: Literal["accepted", "refused", "unsupported"]
    reason: str = ""
    message: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the event counts."""
        return self.status == "accepted"


ACCEPTED = Verdict("accepted")
UNSUPPORTED = Verdict(
    "unsupported", "unsupported", "an event of another protocol version, or of a kind this one does not know"
)


def refused(reason: str, message: str) -> Verdict:
    """The verdict on an event that the rules do not accept.

    Messages quote what strangers wrote, and end up in databases and on terminals: they are cut to
    ``message_chars_max``, and what cannot be printed is replaced.
    """
    if len(message) > message_chars_max:
        message = message[: message_chars_max - 1] + "…"
    if not message.isprintable():
        message = "".join(sign if sign.isprintable() or sign == "\n" else "\ufffd" for sign in message)
    return Verdict("refused", reason, message)
