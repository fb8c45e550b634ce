"""No two membership versions win while one of four finalizers lies, whatever comes when (docs/protocol.md §9)."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cast import keys_of
from tests.kernel.council import Council
from wattswarm.kernel import rounds
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.membership import Phase, signed_bytes, version_hash
from wattswarm.kernel.payloads import govern
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.rounds import Book

three = ("ada", "ben", "cy")


class Finalizer:
    """An honest finalizer with its own view of the stream, and what it signed."""

    def __init__(self, name: str) -> None:
        self.keys: Keypair = keys_of(name)
        self.book = Book()
        self.inbox: list[tuple[bytes, govern.MembershipProposed | govern.MembershipSigned]] = []


class Assembly:
    """Three honest finalizers and a liar choose between two versions; messages come late and in any order."""

    def __init__(self) -> None:
        self.council = Council()
        self.bodies = [self.council.version("fay"), self.council.version("gus")]
        self.hashes = [version_hash(body) for body in self.bodies]
        self.honest = [Finalizer(name) for name in three]
        self.liar = keys_of("dee")
        self.commits: dict[tuple[int, bytes], set[bytes]] = {}

    def send(self, author: bytes, message: govern.MembershipProposed | govern.MembershipSigned) -> None:
        for finalizer in self.honest:
            finalizer.inbox.append((author, message))

    def signed(self, keys: Keypair, phase: Phase, round_: int, choice: int) -> None:
        version = self.council.previous
        message = signed_bytes(self.council.world.network_id, phase, version.hash, round_, self.hashes[choice])
        if phase == "commit":
            self.commits.setdefault((round_, self.hashes[choice]), set()).add(keys.node_id)
        self.send(
            keys.node_id,
            govern.MembershipSigned(phase, version.hash, round_, self.hashes[choice], keys.sign(message)),
        )

    def deliver(self, finalizer: Finalizer, place: int) -> None:
        author, message = finalizer.inbox.pop(place % len(finalizer.inbox))
        try:
            if isinstance(message, govern.MembershipProposed):
                rounds.propose(finalizer.book, self.council.world.network, author, message)
            else:
                rounds.sign(finalizer.book, self.council.world.network, author, message)
        except Refused:
            finalizer.inbox.append((author, message))

    def act(self, finalizer: Finalizer, phase: Phase | None, round_: int, choice: int) -> None:
        version, keys = self.council.previous, finalizer.keys
        if phase is None:
            quorum = rounds.prepare_quorum(finalizer.book, version, self.hashes[choice])
            if quorum is not None and quorum.round >= round_:
                quorum = None
            proposal = govern.MembershipProposed(version.hash, round_, self.bodies[choice], quorum)
            self.send(keys.node_id, proposal)
            return
        may = rounds.may_prepare if phase == "prepare" else rounds.may_commit
        try:
            may(finalizer.book, version, keys.node_id, [], round_, self.hashes[choice])
        except Refused:
            return
        self.signed(keys, phase, round_, choice)
        _, message = finalizer.inbox[-1]
        assert isinstance(message, govern.MembershipSigned)
        rounds.sign(finalizer.book, self.council.world.network, keys.node_id, message)

    def winners(self) -> set[bytes]:
        return {name for (_, name), signers in self.commits.items() if len(signers) >= 3}

    def lie(self, rounds_max: int) -> None:
        """The liar prepares and commits everything, everywhere."""
        for round_ in range(rounds_max):
            for choice in (0, 1):
                self.signed(self.liar, "prepare", round_, choice)
                self.signed(self.liar, "commit", round_, choice)

    def stir(self, chance: Random) -> None:
        """Some finalizer hears a few messages, and does something in the round it is in or the one after."""
        finalizer = chance.choice(self.honest)
        for _ in range(chance.randint(0, 6)):
            if finalizer.inbox:
                self.deliver(finalizer, chance.randrange(len(finalizer.inbox)))
        signer = finalizer.book.signers.get(finalizer.keys.node_id.hex(), rounds.Signer())
        round_ = max(0, signer.last_round + chance.choice((0, 0, 1)))
        choice = chance.randint(0, 1)
        for phase in chance.sample(phases, 2):
            self.act(finalizer, phase, round_, choice)


phases: tuple[Phase | None, ...] = (None, "prepare", "commit")


@given(st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_no_two_versions_are_committed_while_one_of_four_lies(chance: Random) -> None:
    assembly = Assembly()
    assembly.lie(4)
    for _ in range(120):
        assembly.stir(chance)
    assert len(assembly.winners()) <= 1


def test_an_assembly_that_hears_everything_decides() -> None:
    assembly = Assembly()
    assembly.act(assembly.honest[0], None, 0, 1)
    for phase in phases[1:]:
        for finalizer in assembly.honest:
            while finalizer.inbox:
                assembly.deliver(finalizer, 0)
            assembly.act(finalizer, phase, 0, 1)
        for finalizer in assembly.honest:
            while finalizer.inbox:
                assembly.deliver(finalizer, 0)
    assert assembly.winners() == {assembly.hashes[1]}
