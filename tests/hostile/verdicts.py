"""Whom a daemon keeps out, what it let into its log, as its own state tells; and enemies whom nobody has met yet."""

from __future__ import annotations

from collections.abc import Iterator

from tests.cast import everything, keys_of
from tests.hostile.rig import Rig
from tests.swarms import becomes
from wattswarm.kernel.genesis import all_roles

honest = ("ada", "ben")
foes_max = 80
cast: dict[str, frozenset[str]] = {
    **dict.fromkeys(honest, everything),
    **dict.fromkeys(("cy", *(f"foe-{number}" for number in range(foes_max))), all_roles - {"finalizer"}),
}
"""Two honest members that run, one that does not, and members whose keys are in bad hands: one for each test."""


def foes() -> Iterator[str]:
    """Enemies, each once."""
    return iter([name for name in cast if name.startswith("foe-")])


def id_of(name: str) -> str:
    """A node id in hex."""
    return keys_of(name).node_id.hex()


def nodes_out(rig: Rig, at: str) -> set[str]:
    """Ids of the nodes that a daemon keeps out."""
    return {one["node_id"] for one in rig.state(at).kept_out if "node_id" in one}


def hosts_out(rig: Rig, at: str) -> set[str]:
    """The hosts that a daemon keeps out."""
    return {one["host"] for one in rig.state(at).kept_out if "host" in one}


def banished(rig: Rig, who: str, at: str = "ada") -> None:
    """A daemon keeps a node out, and says so."""
    becomes(lambda: id_of(who) in nodes_out(rig, at), True)
    assert rig.turned_away(who, at) == "graylisted"
    assert rig.peer(who, at) is None


def unblamed(rig: Rig, who: str, at: str = "ada") -> None:
    """A daemon lets a node in as before."""
    assert id_of(who) not in nodes_out(rig, at)
    with rig.meet(who, at) as visitor:
        assert visitor.alive()


def unheard(rig: Rig, *who: str) -> None:
    """Nothing that these nodes said is in any daemon's log, accepted or refused."""
    ids = {id_of(name) for name in who}
    for name in rig.daemons:
        assert ids.isdisjoint(view.author for view in rig.log(name))
        assert rig.log(name, refused=True) == []
