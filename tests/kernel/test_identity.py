"""Keys and signatures (docs/protocol.md §1). The awkward Ed25519 cases are vectors: tests/vectors/signatures.json."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattswarm.kernel.identity import Keypair, node_id_bytes, signature_bytes, verify

seeds = st.binary(min_size=32, max_size=32)
ada = Keypair(b"\x01" * 32)


@given(seeds, st.binary(max_size=200))
def test_what_a_key_signs_verifies_under_its_node_id(seed: bytes, message: bytes) -> None:
    keys = Keypair(seed)
    signature = keys.sign(message)
    assert (len(keys.node_id), len(signature)) == (node_id_bytes, signature_bytes)
    assert verify(keys.node_id, message, signature)


@given(seeds, st.binary(max_size=50))
def test_signing_is_deterministic(seed: bytes, message: bytes) -> None:
    assert Keypair(seed).sign(message) == Keypair(seed).sign(message)


@given(st.binary(min_size=1, max_size=50), st.integers(0, 511))
def test_no_turned_bit_of_a_signature_verifies(message: bytes, bit: int) -> None:
    signature = bytearray(ada.sign(message))
    signature[bit // 8] ^= 1 << bit % 8
    assert not verify(ada.node_id, message, bytes(signature))


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_bytes_of_any_length_are_judged_and_never_raise(node_id: bytes, signature: bytes) -> None:
    assert not verify(node_id, b"message", signature)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_seed_has_32_bytes(size: int) -> None:
    with pytest.raises(AssertionError):
        Keypair(b"\x01" * size)


def test_a_key_is_never_printed() -> None:
    assert repr(ada) == str(ada) == f"Keypair({ada.node_id.hex()})"
