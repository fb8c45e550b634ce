"""What may be had before one has said who one is: few connections, little data, a short time (docs/network.md §3)."""

from __future__ import annotations

from collections import Counter

strangers_max = 64
strangers_a_host_max = 8
stranger_bytes_max = 4_096
stranger_s_max = 5.0


class Gate:
    """How many connections stand whose other end has not proved who it is."""

    def __init__(self) -> None:
        self._hosts: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._hosts.total()

    def enter(self, host: str) -> Pass | None:
        """Let one more in from ``host``; None: there are too many of them already."""
        if len(self) >= strangers_max or self._hosts[host] >= strangers_a_host_max:
            return None
        self._hosts[host] += 1
        return Pass(self, host)

    def leave(self, host: str) -> None:
        """One of them is known now, or gone."""
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]


class Pass:
    """One stranger's place, given back once."""

    def __init__(self, gate: Gate, host: str) -> None:
        self._gate: Gate | None = gate
        self._host = host

    def give_back(self) -> None:
        """Make room for another."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.leave(self._host)
