"""Addresses: which texts are some, and what becomes of one that is heard from elsewhere (docs/network.md §2)."""

from __future__ import annotations

import re

import pytest

from net.proto.address import address_pattern, as_seen, is_loopback, join, split
from wattswarm.kernel.refusal import Malformed


@pytest.mark.parametrize(
    ("host", "address"),
    [("192.0.2.1", "192.0.2.1:80"), ("node.example", "node.example:80"), ("2001:db8::1", "[2001:db8::1]:80")],
)
def test_host_and_port_come_apart_as_they_were_joined(host: str, address: str) -> None:
    assert join(host, 80) == address
    assert re.search(address_pattern, address)
    assert split(address) == (host, 80)


def test_the_scope_of_an_interface_is_nobody_elses_business() -> None:
    assert join("fe80::1%eth0", 80) == "[fe80::1]:80"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host:",
        ":80",
        "host:080",
        "h ost:80",
        "h/x:80",
        "u@host:80",
        "host:٨٠",
        "host:80\n",
        "[]:80",
        "::1:80",
    ],
)
def test_what_is_no_address_does_not_look_like_one(text: str) -> None:
    assert not re.search(address_pattern, text)


@pytest.mark.parametrize("text", ["host", "host:", "host:x", "host:٨٠"])
def test_an_address_without_a_port_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        split(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST", "::ffff:127.0.0.1"])
def test_loopback_is_known_by_every_name(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    ("address", "source", "seen"),
    [
        ("192.0.2.1:80", "192.0.2.9", "192.0.2.1:80"),
        ("node.example:80", "192.0.2.9", "node.example:80"),
        ("0.0.0.0:80", "192.0.2.9", "192.0.2.9:80"),
        ("[::]:80", "2001:db8::9", "[2001:db8::9]:80"),
        ("127.0.0.1:80", "127.0.0.1", "127.0.0.1:80"),
        ("127.0.0.1:22", "192.0.2.9", None),
        ("localhost:22", "192.0.2.9", None),
        ("[::1]:22", "192.0.2.9", None),
        ("[::ffff:127.0.0.1]:22", "192.0.2.9", None),
        ("239.255.42.99:80", "192.0.2.9", None),
        ("169.254.169.254:80", "192.0.2.9", None),
        ("[fe80::1]:80", "192.0.2.9", None),
    ],
)
def test_an_address_is_read_from_where_it_is_heard(address: str, source: str, seen: str | None) -> None:
    assert as_seen(address, source) == seen
