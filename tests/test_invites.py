"""Invites: a line that says what was put into it, or is known to be damaged."""

from __future__ import annotations

from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cast import genesis_ms, keys_of
from wattswarm.invites import Invite, addresses_max, prefix, read_invite, write_invite
from wattswarm.kernel import codec
from wattswarm.kernel.genesis import local_genesis
from wattswarm.kernel.refusal import Refused

genesis = local_genesis(keys_of("ada"), genesis_ms)
addresses = ("192.0.2.7:7700", "[2001:db8::7]:7700", "node.example:1")


@pytest.mark.parametrize("count", range(4))
def test_an_invite_says_what_was_put_into_it(count: int) -> None:
    line = write_invite(genesis, addresses[:count])
    assert "\n" not in line
    assert line.isascii()
    assert read_invite(line) == Invite(genesis, addresses[:count])


def test_line_breaks_on_the_way_do_no_harm() -> None:
    line = write_invite(genesis, addresses)
    broken = "  " + "\n".join(line[at : at + 70] for at in range(0, len(line), 70)) + "\r\n"
    assert read_invite(broken).addresses == addresses


@given(st.data())
def test_an_invite_that_lost_or_changed_a_letter_is_known_as_damaged(data: st.DataObject) -> None:
    line = write_invite(genesis, addresses)
    at = data.draw(st.integers(len(prefix), len(line) - 2))
    letter = data.draw(st.sampled_from(["", "A", "z", "-", "_", "?", "é"]).filter(lambda one: one != line[at]))
    with pytest.raises(Refused, match="not whole"):
        read_invite(line[:at] + letter + line[at + 1 :])


@pytest.mark.parametrize("line", ["", "hello", "wattswarm2_abc", "wattswarm1", "x" * 500])
def test_what_is_no_invite_is_refused(line: str) -> None:
    with pytest.raises(Refused, match="not an invite"):
        read_invite(line)


@pytest.mark.parametrize("address", ["", "foo", "1.2.3.4", "1.2.3.4:0", "0.0.0.0:7", "[::]:7", "a b:1", "h:70000"])
def test_an_address_that_nobody_can_dial_is_not_carried(address: str) -> None:
    with pytest.raises(Refused, match="an address cannot be used"):
        write_invite(genesis, [address])
    with pytest.raises(Refused, match="an address cannot be used"):
        read_invite(_line([genesis.wire(), [address]]))


@pytest.mark.parametrize("said", [[], {}, [genesis.wire()], [b"", ["a:1", 2]], [genesis.wire(), "a:1"]])
def test_an_invite_of_another_shape_is_refused(said: object) -> None:
    with pytest.raises(Refused, match="understands"):
        read_invite(_line(said))


def test_a_genesis_that_nobody_signed_is_refused() -> None:
    with pytest.raises(Refused, match="no founder signed"):
        read_invite(_line([codec.encode([genesis.body, {}]), []]))


def test_more_addresses_than_an_invite_carries_are_refused_and_not_read() -> None:
    many = [f"192.0.2.1:{port}" for port in range(1, addresses_max + 2)]
    with pytest.raises(Refused, match="at most"):
        write_invite(genesis, many)
    assert len(read_invite(_line([genesis.wire(), many])).addresses) == addresses_max


def _line(said: object) -> str:
    data = codec.encode(said)
    return prefix + urlsafe_b64encode(data + codec.sha256(data)[:4]).decode().rstrip("=")
