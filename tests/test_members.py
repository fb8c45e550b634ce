"""Members proposed, prepared, committed and applied by the quorum of finalizers, on Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio

from sel import approvals
from sel.audit import verify
from sel.guard import AuthorGuard
from tests.cast import keys_of
from tests.sel.stores import fresh_database, postgres_contents
from wattswarm import members
from wattswarm.checkpoint import author_checkpoint
from wattswarm.config import load
from wattswarm.home import network_name, seed_name, write_whole
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.genesis import FaultModel, Genesis, all_roles, make_genesis
from wattswarm.kernel.membership import Membership, version_hash
from wattswarm.kernel.payloads.govern import MembershipSigned, VersionBody
from wattswarm.kernel.refusal import Refused
from wattswarm.node import Node, now_ms, open_node
from wattswarm.succession import carry_on_for_ever

four = ("ada", "ben", "cy", "dee")
worker = frozenset({"proposer", "verifier"})


@dataclass
class Swarm:
    """Open nodes of one network, by name, who hear of each other only when they are told to."""

    nodes: dict[str, Node]

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    async def share(self, *names: str) -> None:
        """Those named take what the others of them hold."""
        for source in names:
            node = self.nodes[source]
            held = await node.database.run(partial(postgres_contents, network=node.genesis_network))
            for target in names:
                if target != source:
                    await self.nodes[target].log.ingest(held.events, list(held.certificates.values()))

    async def current(self, name: str) -> Membership:
        await self.nodes[name].log.refresh()
        return self.nodes[name].log.network.current

    async def proposal(self, name: str) -> members.Proposal:
        (found,) = members.proposals(await members.take_seat(self.nodes[name]))
        return found

    async def propose(self, name: str, add: Sequence[str] = (), remove: Sequence[str] = ()) -> VersionBody:
        node = self.nodes[name]
        seat = await members.take_seat(node)
        added = {keys_of(each).node_id: worker for each in add}
        body = await members.draft_version(node, seat, added, {keys_of(each).node_id for each in remove})
        await members.propose(node, body)
        return body


def home(path: Path, name: str, genesis: Genesis) -> None:
    """The state directory of a named node: its key is the one that the name has in all tests."""
    path.mkdir(parents=True)
    AuthorGuard(path).create()
    write_whole(path / seed_name, sha256(name.encode()).hex().encode())
    write_whole(path / network_name, genesis.wire())


@pytest.fixture
async def swarm(tmp_path: Path, postgres_dsn: str) -> AsyncIterator[Swarm]:
    """Four finalizers with all roles, and eve, who observes."""
    founders = {keys_of(name).node_id: frozenset(all_roles) for name in four}
    genesis = make_genesis(
        name="four", created_at=now_ms(), fault_model="byzantine", members=founders, signers=[keys_of("ada")]
    )
    async with AsyncExitStack() as stack:
        nodes = {}
        for name in (*four, "eve"):
            home(tmp_path / name, name, genesis)
            database = await stack.enter_async_context(fresh_database(postgres_dsn))
            config = load({"state_dir": str(tmp_path / name), "pg_url": database.dsn}, {})
            nodes[name] = await stack.enter_async_context(open_node(config))
        yield Swarm(nodes)


# -- the way through -----------------------------------------------------------------------------------------------


async def test_a_lost_finalizer_is_replaced_by_the_rest_and_by_nobody_less(swarm: Swarm) -> None:
    await author_checkpoint(swarm["dee"].log)
    lost = (await author_checkpoint(swarm["dee"].log)).author_seq
    await swarm.share(*four)
    body = await swarm.propose("ada", ["fay"], ["dee"])
    assert body.until == {keys_of("dee").node_id.hex(): lost}
    await swarm.share("ada", "ben", "cy")
    await members.sign(swarm["ben"], await swarm.proposal("ben"))
    await swarm.share("ada", "ben", "cy")
    assert await members.carry_on(swarm["ada"]) == []
    assert (await swarm.current("ada")).number == 0
    await members.sign(swarm["cy"], await swarm.proposal("cy"))
    for _ in range(2):
        await swarm.share("ada", "ben", "cy")
        for name in ("ada", "ben", "cy"):
            await members.carry_on(swarm[name])
    await swarm.share("ada", "ben", "cy", "eve")
    for name in ("ada", "ben", "cy", "eve"):
        current = await swarm.current(name)
        assert current.hash == version_hash(body)
        assert keys_of("dee").node_id not in current.members
        assert current.has(keys_of("fay").node_id, "verifier")
    heads = {name: await swarm[name].log.head() for name in ("ada", "ben", "cy", "eve")}
    assert len({(head.state_root, head.events_sum) for head in heads.values()}) == 1
    assert (await verify(swarm["eve"].database, swarm["eve"].genesis_network, lambda _: None)).problems == []
    late = await author_checkpoint(swarm["dee"].log)
    taken = await swarm["ada"].log.ingest([late])
    assert taken.stored == 0


async def test_a_running_daemon_carries_the_approval_on_by_itself(swarm: Swarm) -> None:
    body = await swarm.propose("ada", ["fay"])
    await swarm.share(*four)
    for name in ("ben", "cy"):
        await members.sign(swarm[name], await swarm.proposal(name))
    async with trio.open_nursery() as nursery:
        for name in ("ada", "ben", "cy"):
            nursery.start_soon(carry_on_for_ever, swarm[name])
        with trio.fail_after(20):
            while (await swarm.current("dee")).number == 0:
                await swarm.share(*four)
        nursery.cancel_scope.cancel()
    assert (await swarm.current("dee")).hash == version_hash(body)
    said = (await swarm["dee"].log.read(lambda txn: txn.stream_events([swarm["dee"].log.network.network_id]))).values()
    kinds = [event.kind for events in said for event in events]
    assert kinds.count("MEMBERSHIP_UPDATED") == 1, "one announces it, the others wait in line"


async def test_nothing_is_signed_without_an_approval(swarm: Swarm) -> None:
    await swarm.propose("ada", ["fay"])
    await swarm.share(*four)
    assert await members.carry_on(swarm["ben"]) == []
    assert await approvals.approved(swarm["ben"].database) == []


async def test_conflicting_proposals_end_with_one_when_a_person_changes_his_mind(swarm: Swarm) -> None:
    first = await swarm.propose("ada", ["fay"])
    second = await swarm.propose("ben", ["gus"])
    await swarm.share(*four)
    open_ones = members.proposals(await members.take_seat(swarm["cy"]))
    assert {one.hash for one in open_ones} == {version_hash(first), version_hash(second)}
    with pytest.raises(Refused, match="2 open proposals are called '1'"):
        members.find(await members.take_seat(swarm["cy"]), "1")
    wanted = members.find(await members.take_seat(swarm["cy"]), f"1@{version_hash(second).hex()[:8]}")
    for name in ("ada", "cy", "dee"):
        await members.sign(swarm[name], wanted)
    for _ in range(5):
        await swarm.share(*four)
        for name in four:
            await members.carry_on(swarm[name])
    assert {(await swarm.current(name)).hash for name in four} == {version_hash(second)}


async def test_what_is_approved_again_is_the_newest_approval(swarm: Swarm) -> None:
    database = swarm["ada"].database
    for name in (b"a", b"b", b"a"):
        await approvals.approve(database, name)
    assert await approvals.approved(database) == [b"b", b"a"]


async def test_a_node_that_is_opened_again_knows_the_current_version(swarm: Swarm) -> None:
    body = await swarm.propose("ada", ["fay"])
    await swarm.share(*four)
    for name in ("ben", "cy"):
        await members.sign(swarm[name], await swarm.proposal(name))
    for _ in range(2):
        await swarm.share(*four)
        for name in ("ada", "ben", "cy"):
            await members.carry_on(swarm[name])
    async with open_node(swarm["ada"].config) as again:
        assert again.log.network.current.hash == version_hash(body)


async def test_what_was_signed_is_kept_by_the_database_itself(swarm: Swarm) -> None:
    await swarm.propose("ada", ["fay"])
    with pytest.raises(Exception, match="append-only"):
        await swarm["ada"].database.run(lambda connection: connection.execute("DELETE FROM membership_signatures"))


# -- what people get wrong -----------------------------------------------------------------------------------------


async def test_a_version_is_applied_by_hand_only_with_a_quorum(swarm: Swarm) -> None:
    await swarm.propose("ada", ["fay"])
    with pytest.raises(Refused, match="0 finalizers have committed to it, expected 3 of 4"):
        await members.apply(swarm["ada"], await swarm.proposal("ada"))


async def test_who_is_bound_to_a_version_proposes_no_other(swarm: Swarm) -> None:
    await swarm.propose("ada", ["fay"])
    await swarm.share(*four)
    for name in ("ben", "cy"):
        await members.sign(swarm[name], await swarm.proposal(name))
        await swarm.share(*four)
    signed = await members.carry_on(swarm["ada"])
    assert [said.payload.phase for said in signed if isinstance(said.payload, MembershipSigned)] == ["commit"]
    with pytest.raises(Refused, match=r"works for 1@[0-9a-f]{8}, which must be decided first"):
        await swarm.propose("ada", ["gus"])
    assert len(await approvals.approved(swarm["ada"].database)) == 1


async def test_only_finalizers_propose_and_sign(swarm: Swarm) -> None:
    await swarm.propose("ada", ["fay"])
    await swarm.share("ada", "eve")
    with pytest.raises(Refused, match="no finalizer of membership version 0"):
        await swarm.propose("eve", ["gus"])
    with pytest.raises(Refused, match="no finalizer of membership version 0"):
        await members.sign(swarm["eve"], await swarm.proposal("eve"))
    with pytest.raises(Refused, match="it observes"):
        await author_checkpoint(swarm["eve"].log)


@pytest.mark.parametrize(
    ("add", "remove", "said"),
    [
        ([], [], "nothing changes"),
        ([], ["eve"], "no member of membership version 0"),
        (["ben"], ["ben"], "both to be added and to be removed"),
        ([], [*four], "leave no finalizer"),
    ],
)
async def test_a_change_that_is_none_or_too_much_is_refused(
    swarm: Swarm, add: list[str], remove: list[str], said: str
) -> None:
    with pytest.raises(Refused, match=said):
        await swarm.propose("ada", add, remove)


async def test_roles_of_a_member_can_be_changed_and_not_to_what_they_are(swarm: Swarm) -> None:
    seat = await members.take_seat(swarm["ada"])
    ben = keys_of("ben").node_id
    body = await members.draft_version(swarm["ada"], seat, {ben: worker}, ())
    assert members.changes(seat.network.current, body) == [
        f"{ben.hex()[:8]}… proposer,verifier, was proposer,verifier,committer,finalizer"
    ]
    with pytest.raises(Refused, match="is a member with these roles already"):
        await members.draft_version(swarm["ada"], seat, {ben: frozenset(all_roles)}, ())


async def test_a_version_is_found_by_its_number_its_name_and_the_beginning_of_its_hash(swarm: Swarm) -> None:
    name = version_hash(await swarm.propose("ada", ["fay"])).hex()
    seat = await members.take_seat(swarm["ada"])
    for good in ("1", f"1@{name[:8]}", name[:8], name):
        assert members.find(seat, good).hash.hex() == name
    for wrong in ("", "2", f"2@{name[:8]}", "1@xyz", name[:3], f"x{name}"):
        with pytest.raises(Refused, match=f"no open proposal '{wrong}' here.*open proposals: 1@{name[:8]}"):
            members.find(seat, wrong)


@pytest.mark.parametrize("text", ["", "ab", "ab=", "ab=king", "ab=verifier,verifier", "ab=verifier king", "ab=,"])
def test_a_member_that_is_not_written_as_it_should_be_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refusal:
        members.parse_member(text, "--add")
    assert "--add: found" in str(refusal.value)


def test_a_node_id_may_be_cut_short_where_it_means_one_node() -> None:
    one, two = bytes.fromhex("ab" * 32), bytes.fromhex("abab" + "cd" * 30)
    assert members.parse_node_id("ab" * 32, "--add") == one
    assert members.parse_node_id("ababcd", "--remove", [one, two]) == two
    for wrong in ("abab", "aba", "abac", "ABABCD", "zz", "ab" * 33):
        with pytest.raises(Refused, match="not a node id"):
            members.parse_node_id(wrong, "--remove", [one, two])


@pytest.mark.parametrize(
    ("finalizers", "model", "said"),
    [
        (1, "byzantine", "1 finalizer decides alone: without it nothing is decided"),
        (3, "byzantine", "3 finalizers: a decision needs 3; all must be there: none may be down, none may lie"),
        (4, "byzantine", "4 finalizers: a decision needs 3; one may be down or lie"),
        (7, "byzantine", "7 finalizers: a decision needs 5; up to 2 may be down or lie"),
        (3, "crash", "3 finalizers: a decision needs 2; one may be down; nothing is promised if one lies"),
        (2, "crash", "2 finalizers: a decision needs 2; none may be down; nothing is promised if one lies"),
    ],
)
def test_tolerance_is_said_in_plain_words(finalizers: int, model: FaultModel, said: str) -> None:
    those = {bytes([number]) * 32: frozenset(all_roles) for number in range(finalizers)}
    assert members.tolerance(Membership(b"\0" * 32, 0, None, those, {}, model)) == said
