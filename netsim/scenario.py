"""A scenario: what a swarm is like, what it works on, what goes wrong, and what must hold (docs/netsim.md §3).

TOML in, frozen values out; an unknown key or a wrong type is refused with its path. Times are seconds of virtual time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, Struct, field

from netsim.clock import Share
from netsim.intake import DatabaseTerms
from netsim.network import LinkTerms
from netsim.pilot import ExecutorTerms
from wattswarm.kernel.limits import members_max
from wattswarm.kernel.refusal import Problem, Refused

folder = Path(__file__).parent / "scenarios"
spares_max = 1_000
Count = Annotated[int, Meta(ge=0, le=100_000)]
Seconds = Annotated[float, Meta(ge=0, le=10_000_000)]
LiarKind = Literal["twin", "double_voter", "withholder", "braggart", "spammer", "backdater", "stranger"]
"""What a node that lies does: two processes with one key (equivocates, votes twice); signs for every candidate; serves
nothing of others; claims chains that it does not have; floods within and beyond its budgets; creates old tasks; is no
member and floods."""
FaultKind = Literal[
    "partition", "one_way", "reset", "crash", "wipe", "restore", "stall", "skew", "eclipse", "churn", "upgrade",
    "postgres", "disk_full",
]  # fmt: skip
Size = Literal["small", "big", "huge", "cluster"]
Times = Literal["each", "once"]
choices = {".kind`": FaultKind, ".liars`": LiarKind, ".size`": Size, ".signatures`": Times, ".folds`": Times}
"""How a fault of the decoder's ends that is about a word, and which words there are."""
simulated_only, cluster_only = ("eclipse", "churn", "upgrade"), ("postgres", "disk_full")
"""Kinds of faults that need liars, a council or a release of this program's, and those that need a real Postgres."""


class Load(Struct, frozen=True, forbid_unknown_fields=True):
    """What honest members author. ``tasks_per_s``: in all; ``notes_per_s``: small events of each node."""

    tasks_per_s: Annotated[float, Meta(ge=0, le=10_000)] = 0.0
    tasks_max: Count = 100_000
    quorum: Annotated[int, Meta(ge=1)] = 2
    verifiers: Annotated[int, Meta(ge=1)] = 2
    expiry_s: Seconds = 60
    notes_per_s: Annotated[float, Meta(ge=0, le=10_000)] = 0.0
    history: Count = 0


class Fault(Struct, frozen=True, forbid_unknown_fields=True):
    """Something that goes wrong: about ``every_s`` from ``after_s`` on, ``for_s`` long, with a ``share`` of the nodes.

    ``every_s`` 0: once. ``skew_s``: how far clocks go wrong at the most, either way.
    """

    kind: FaultKind
    after_s: Seconds = 1
    every_s: Seconds = 0
    for_s: Seconds = 5
    share: Share = 0.5
    skew_s: Seconds = 0


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole run: ``seconds`` of load and faults, then everything heals, and ``settle_s`` to come to rest.

    ``finalizers``: how many members decide, 0 for all. ``late``: nodes that begin only when the load is over.
    ``spares``: nodes beside them that are no members at first; they read along, and may become members.
    ``size``: small scenarios are swept often, big ones seldom; huge ones, and those for a cluster, are run alone.
    ``signatures``: whether each node checks those of the events that it gets, or one does for all nodes of the run.
    ``folds``: whether each works out what an event does to its log, or those whose logs are alike share that.
    ``lasting``: nodes whose daemons no fault ends (of a cluster), so that their memory is seen over a whole run.
    """

    name: str
    about: str
    size: Size = "small"
    signatures: Times = "each"
    folds: Times = "each"
    nodes: Annotated[int, Meta(ge=1, le=members_max)] = 4
    finalizers: Count = 0
    late: Count = 0
    spares: Annotated[int, Meta(ge=0, le=spares_max)] = 0
    lasting: Count = 0
    seconds: Seconds = 20
    settle_s: Seconds = 180
    udp: bool = True
    bootstrap: Count = 1
    link: LinkTerms = LinkTerms()
    database: DatabaseTerms = DatabaseTerms()
    executor: ExecutorTerms = ExecutorTerms()
    load: Load = Load()
    faults: tuple[Fault, ...] = ()
    liars: Mapping[LiarKind, Count] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.nodes < self.nodes_min:
            others = f"late: {self.late}, liars: {sum(self.liars.values())}, finalizers: {self.finalizers}"
            raise ValueError(f"nodes: {self.nodes}, expected {self.nodes_min} at least ({others})")
        if not self.udp and not self.bootstrap and self.nodes + self.spares > 1:
            raise ValueError("bootstrap: 0 without udp, so no node would ever meet another")

    @property
    def nodes_min(self) -> int:
        """So many that one is honest and there at first, and that all finalizers are there."""
        return max(1 + self.late + sum(self.liars.values()), self.finalizers)


def load(name: str) -> Scenario:
    """A scenario by its name, or by the path of a TOML file. Raises ``Refused`` saying what is wrong with it."""
    path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Scenario)
    except FileNotFoundError:
        known = ", ".join(sorted(one.stem for one in folder.glob("*.toml")))
        found = Problem("scenario", name, f"a path that ends in .toml, or one of: {known}")
        raise Refused("scenario", "there is no such scenario", (found,)) from None
    except (msgspec.DecodeError, OSError) as error:
        raise Refused("scenario", f"{path}: {error}{_words(str(error))}") from None


def _words(said: str) -> str:
    """What is expected instead of a word that does not mean anything."""
    known = [
        get_args(words) for end, words in choices.items() if said.startswith("Invalid enum") and said.endswith(end)
    ]
    return f", expected one of: {', '.join(known[0])}" if known else ""


def refuse(scenario: Scenario, field: str, found: str, expected: str) -> Refused:
    """What to raise when a field of a scenario cannot be had."""
    return Refused("scenario", f"{scenario.name} cannot be run so", (Problem(field, found, expected),))


def check_kinds(scenario: Scenario, *, cluster: bool) -> None:
    """Refuse faults that there are only in the other mode. Raises ``Refused`` naming the field."""
    there, where = (simulated_only, "without --cluster") if cluster else (cluster_only, "with --cluster")
    for number, fault in enumerate(scenario.faults):
        if fault.kind in there:
            raise refuse(scenario, f"faults[{number}].kind", fault.kind, f"such a fault only {where}")


def names() -> list[str]:
    """The scenarios that come with the program."""
    return sorted(path.stem for path in folder.glob("*.toml"))
