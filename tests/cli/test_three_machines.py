"""The README's three machines, each on an address of loopback: the two that join are one swarm with the first."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from tests.daemons import contract, daemon, place, states, submit, wattswarm
from tests.swarms import becomes, meshed, node_id_of, register, runtime

port = 7_700


def test_two_that_were_taken_in_one_by_one_find_each_other_and_a_first_that_begins_again() -> None:
    with ExitStack() as stack:
        first, second, third = places = [stack.enter_context(place()) for _ in range(3)]
        wattswarm(first, "network", "init", "--name", "team")
        flags = "--listen", f"127.0.0.21:{port}", "--observers", "8"
        with daemon(first, *flags):
            invite = wattswarm(first, "network", "invite", "--address", f"127.0.0.21:{port}")["invite"]
            for number, where in enumerate((second, third), 22):
                wattswarm(where, "network", "join", invite)
                stack.enter_context(daemon(where, "--listen", f"127.0.0.{number}:{port}"))
            for where in (second, third):
                wattswarm(first, "members", "propose", "--add", f"{node_id_of(where)}=proposer,verifier")
            meshed(places)
        register((second, third), stack.enter_context(runtime()))
        meshed([second, third])
        stack.enter_context(daemon(first, *flags))
        meshed(places)
        submit(third, contract("t"))
        for where in places:
            becomes(partial(states, where), {"t": "FINALIZED"})
