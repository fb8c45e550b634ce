"""The field types that payloads share, and the one base class that bounds their texts in bytes.

``msgspec`` bounds texts in characters; the protocol bounds them in UTF-8 bytes (docs/protocol.md §1), so
``Payload`` adds the byte bounds that a struct lists in ``text_bytes_max``.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from wattswarm.kernel import limits

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
NodeId = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
HexNodeId = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Label = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._:-]{1,128}\Z")]
Text = Annotated[str, Meta(max_length=limits.text_bytes_max)]
SomeText = Annotated[str, Meta(min_length=1, max_length=limits.text_bytes_max)]
LongText = Annotated[str, Meta(max_length=limits.reason_text_bytes_max)]
Digest = Annotated[str, Meta(min_length=1, max_length=limits.evidence_digest_bytes_max)]
Uint = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
ReasonCode = Annotated[int, Meta(ge=0, le=65_535)]
ReasonCodes = Annotated[list[ReasonCode], Meta(max_length=limits.reason_codes_max)]
Role = Literal["proposer", "verifier", "committer", "finalizer"]
ClaimRole = Literal["propose", "verify"]


class Payload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A typed event payload, or a part of one. Fields listed in ``text_bytes_max`` have that bound in bytes."""

    text_bytes_max: ClassVar[dict[str, int]] = {}

    def __post_init__(self) -> None:
        for name, bound in self.text_bytes_max.items():
            text = getattr(self, name)
            if text is not None and not text.isascii() and len(text.encode()) > bound:
                raise ValueError(f"{name}: expected at most {bound} bytes of UTF-8")


class SignerSignature(Payload, frozen=True):
    """One signer's signature in a quorum. The name of the bytes is historical: in JSON they are hex."""

    signer_node_id: NodeId
    signature_hex: Signature
