"""TLS 1.3 whose certificate is signed with the node's own Ed25519 key (docs/network.md §3).

Names, dates and authorities mean nothing here. What the handshake proves is that the server holds the key that its
certificate shows (RFC 8446 §4.4.3), and that key is a node id; who the client is, it proves inside.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from contextlib import suppress
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from wattswarm.kernel.identity import Keypair

_from, _until = datetime(2020, 1, 1), datetime(9999, 12, 31, 23, 59, 59)


def _bare(purpose: int) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def server_context(keys: Keypair) -> ssl.SSLContext:
    """What a node answers with. Sessions are not resumed: every connection proves the key anew."""
    context = _bare(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    key = Ed25519PrivateKey.from_private_bytes(keys.seed())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, keys.node_id.hex())])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, _from, _until)
    certificate = builder.sign(key, None).public_bytes(Encoding.PEM)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor, path = tempfile.mkstemp(prefix="wattswarm-")  # mode 0600; ssl reads keys from files only
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(private + certificate)
        context.load_cert_chain(path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)
    return context


def client_context() -> ssl.SSLContext:
    """What a node calls with: it takes any certificate, and ``node_id_of`` says whose it is."""
    return _bare(ssl.PROTOCOL_TLS_CLIENT)


def node_id_of(certificate: bytes | None) -> bytes | None:
    """The node id that a server's certificate (DER) shows; None if its key is no Ed25519 key."""
    if certificate is None:
        return None
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw) if isinstance(key, Ed25519PublicKey) else None
