"""Keys, node ids and signatures (docs/protocol.md §1): Ed25519 under libsodium's strict verifier, and no other.

libsodium refuses small-order public keys and points, non-canonical encodings of A, R and S. ``tests/vectors``
fixes those cases, because an implementation that accepts one of them would disagree about which events exist.
"""

from __future__ import annotations

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import CryptoError

verified_kept_max = 8_192
node_id_bytes = 32
signature_bytes = 64


class Keypair:
    """A node's signing key, made from its 32-byte seed. Never printed: ``repr`` shows the node id only."""

    __slots__ = ("_secret", "node_id")

    def __init__(self, seed: bytes) -> None:
        assert len(seed) == 32, "an Ed25519 seed has 32 bytes"
        self.node_id, self._secret = crypto_sign_seed_keypair(seed)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte detached Ed25519 signature of ``message`` (RFC 8032)."""
        return crypto_sign(message, self._secret)[:signature_bytes]

    def seed(self) -> bytes:
        """The 32 bytes that it was made from: as secret as the key."""
        return self._secret[:32]

    def __repr__(self) -> str:
        return f"Keypair({self.node_id.hex()})"


class _Memory:
    """The last good signatures, in two generations: when the new one is full it becomes the old one."""

    def __init__(self) -> None:
        self.new: set[tuple[bytes, bytes, bytes]] = set()
        self.old: set[tuple[bytes, bytes, bytes]] = set()

    def add(self, claim: tuple[bytes, bytes, bytes]) -> None:
        if len(self.new) >= verified_kept_max // 2:
            self.old, self.new = self.new, set()
        self.new.add(claim)


_sound = _Memory()


def verify(node_id: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is ``node_id``'s over ``message``. Never raises for bad bytes.

    Remembers the last good ones: one signature is met as an event's, in a certificate and in a proof.
    """
    if remembers(node_id, message, signature):
        return True
    if not holds(node_id, message, signature):
        return False
    remember(node_id, message, signature)
    return True


def remembers(node_id: bytes, message: bytes, signature: bytes) -> bool:
    """Whether it was found good lately."""
    claim = (node_id, message, signature)
    return claim in _sound.new or claim in _sound.old


def remember(node_id: bytes, message: bytes, signature: bytes) -> None:
    """Note a signature that ``holds`` found good, in this process or in a helper of it."""
    _sound.add((node_id, message, signature))


def holds(node_id: bytes, message: bytes, signature: bytes) -> bool:
    """``verify`` without a memory: the one place where signatures are checked."""
    if len(signature) != signature_bytes or len(node_id) != node_id_bytes:
        return False
    try:
        crypto_sign_open(signature + message, node_id)
    except (CryptoError, ValueError):
        return False
    return True
