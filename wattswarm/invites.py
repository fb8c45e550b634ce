"""An invite: one line of text that carries a network's genesis and addresses of nodes on it.

``wattswarm1_`` and base64url (RFC 4648 §5, unpadded) of canonical CBOR [genesis wire, [host:port]] and the first four
bytes of its SHA-256, so that a line that lost a letter on its way is known as one. It is no secret and no permission:
who joins by it observes until the finalizers make it a member.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from net.proto.address import address_pattern, split
from wattswarm.kernel import codec
from wattswarm.kernel.genesis import Genesis, parse_genesis
from wattswarm.kernel.refusal import Problem, Refused

prefix = "wattswarm1_"
checksum_bytes = 4
addresses_max = 32
everywhere = ("0.0.0.0", "::")  # noqa: S104 - an address that nobody can dial


@dataclass(frozen=True, slots=True)
class Invite:
    """What an invite says. ``addresses``: host:port, where nodes of the network may be reached."""

    genesis: Genesis
    addresses: tuple[str, ...]


def write_invite(genesis: Genesis, addresses: Sequence[str]) -> str:
    """The line. Raises ``Refused`` if an address is none that can be dialled."""
    for address in addresses:
        _check(address, "--address")
    if len(addresses) > addresses_max:
        raise Refused("too_many_addresses", f"{len(addresses)} addresses, at most {addresses_max}")
    said = codec.encode([genesis.wire(), list(addresses)])
    return prefix + urlsafe_b64encode(said + codec.sha256(said)[:checksum_bytes]).decode().rstrip("=")


def _check(address: str, where: str) -> None:
    if not re.fullmatch(address_pattern, address) or split(address)[0] in everywhere:
        expected = "host:port that others can dial, like 192.0.2.7:7700"
        raise Refused("address", "an address cannot be used", (Problem(where, repr(address), expected),))


def read_invite(text: str) -> Invite:
    """The invite of a line; white space in it is ignored, as mail breaks lines. Raises ``Refused``."""
    line = "".join(text.split())
    if not line.startswith(prefix):
        found = f"{line[:24]!r}{'…' if len(line) > 24 else ''}"
        raise Refused("not_an_invite", "not an invite", (Problem("INVITE", found, f"a line that begins {prefix}"),))
    try:
        data = urlsafe_b64decode(line[len(prefix) :] + "=" * (-len(line[len(prefix) :]) % 4))
    except ValueError:
        data = b""
    said, checksum = data[:-checksum_bytes], data[-checksum_bytes:]
    if not said or codec.sha256(said)[:checksum_bytes] != checksum:
        raise Refused(
            "invite_damaged", "the invite is not whole: a part of it was lost or changed on its way; copy it again"
        )
    match codec.decode(said):
        case [bytes(wire), list(addresses)] if all(isinstance(one, str) for one in addresses):
            for address in addresses[:addresses_max]:
                _check(address, "INVITE")
            return Invite(parse_genesis(wire), tuple(addresses[:addresses_max]))
    raise Refused("not_an_invite", "the invite says nothing that this version of wattswarm understands")
