"""``wattswarm demo``: three daemons, one task, told as it happens; one of them is killed and comes back."""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.options import Session, epilog, finish

if TYPE_CHECKING:
    from sel.views import EventView
    from wattswarm.local_swarm import LocalSwarm
    from wattswarm.node import Node

task_id = "demo-1"
prompt = "what is a decision that nobody can forge?"
size = 3
thinking_ms = 500
"""How long the runtime takes: long enough to kill a node between an answer and the votes about it."""
waits_told_s_max = 12.0
equal_s_max = 20.0
day_ms = 86_400_000
story = {
    "TASK_CREATED": "the task exists: its contract, its budget and its membership are fixed by this hash",
    "TASK_CLAIMED": "a lease: the node takes on the work for a while, and only for a while",
    "TASK_CLAIM_RENEWED": "the lease is made longer, as the runtime still thinks",
    "TASK_CLAIM_RELEASED": "the lease is given back",
    "CANDIDATE_PROPOSED": "the runtime's answer, as a candidate under that lease",
    "EVIDENCE_AVAILABLE": "a verifier could read the evidence that the answer names",
    "VERIFIER_RESULT_SUBMITTED": "the verifier's runtime judged the answer by the task's policy",
    "VOTE_COMMIT": "a sealed vote: nobody can read it, nobody can copy it",
    "VOTE_REVEAL": "the seal is opened; the vote counts",
    "TASK_RETRY_SCHEDULED": "a round without a quorum: the vote is taken again",
    "DECISION_COMMITTED": "the approval quorum is reached",
    "FINALITY_VOTE": "a finalizer signs the decision, once and for ever",
    "DECISION_FINALIZED": "the signatures make a proof: from here on nothing can change the decision",
}


@click.command(epilog=epilog(("wattswarm demo",)))
@click.pass_obj
def command(session: Session) -> int:
    """See three nodes decide a task together, while one of them is killed and comes back.

    Starts three daemons in a temporary directory, each with a Postgres of its own, and a reference runtime. They find
    each other, work on one task, lose a node, end with the same state and with a decision that is verified from a
    file alone. All of it is removed again.
    """
    import_module("wattswarm.local_swarm")  # it takes a moment, in which nothing is there yet that must be removed
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wattswarm-demo-") as directory:
        Path(directory).chmod(0o755)
        finish(partial(_demo, Path(directory)))
    click.echo(f"\nDone in {time.monotonic() - began:.1f} s; nothing is left behind.")
    click.echo("Next: `wattswarm dev` keeps such a swarm for you; README.md shows the same on three machines.")
    return 0


def _title(text: str) -> None:
    click.echo(f"\n{click.style(text, bold=True)}")


def _say(text: str) -> None:
    click.echo(f"  {text}")
    sys.stdout.flush()


async def _demo(directory: Path) -> None:
    from wattswarm.local_swarm import local_swarm
    from wattswarm.node import open_node

    _title("Three daemons, each with a key, a log and a Postgres of its own")
    _say("starting them (and three new databases) …")
    async with local_swarm(directory, size, _say, ("--latency-ms", str(thinking_ms))) as swarm:
        await _meet(swarm)
        async with open_node(swarm.members[0].config()) as node:
            _title("One task, event by event, as node-1 hears of it")
            await _decide(swarm, node)
        bundle = await _compare(swarm, directory)
    _verify_alone(bundle)


async def _meet(swarm: LocalSwarm) -> None:
    """Wait until each is connected to all others."""
    began = time.monotonic()
    await swarm.meshed()
    how = "by calling out over UDP, with no address given" if swarm.udp else "from the first one's address"
    _say(f"found each other {how}: every node is connected to both others after {time.monotonic() - began:.1f} s")
    _say("3 of 3 must sign what they decide: so few tolerate nobody's absence (4 would tolerate one)")


async def _decide(swarm: LocalSwarm, node: Node) -> None:
    """Have the task decided, and a node killed in between."""
    import trio

    from wattswarm import tasks

    created, _ = await tasks.submit(node.log, _contract())
    answered = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tell, swarm, node, answered)
        await answered.wait()
        await _lose_one(swarm, node, created.id)
    record = await node.log.task(created.id)
    answer = tasks.decision(record)["output"]["answer"]
    _title("The answer")
    click.echo(f"  {prompt}\n  → {click.style(str(answer), fg='green', bold=True)}")


def _contract() -> dict[str, Any]:
    """A task that two verifiers must approve, and for which two must have read the evidence."""
    from wattswarm.kernel.contract_draft import sample_contract
    from wattswarm.node import now_ms

    contract = sample_contract(task_id, now_ms() + day_ms, "ed25519:" + "00" * 32)
    contract["inputs"] = {"prompt": prompt}
    contract["budget"]["time_ms"] = 300_000
    contract["assignment"]["claim"]["lease_ms"] = 60_000
    contract["acceptance"] |= {"quorum_threshold": 2, "da_quorum_threshold": 2}
    contract["assignment"]["verify"]["max_verifiers"] = 2
    contract["assignment"]["claim"]["max_concurrency"]["verify"] = 2
    return contract


async def _lose_one(swarm: LocalSwarm, node: Node, stream: bytes) -> None:
    """Kill a node, tell what the task waits for meanwhile, and bring it back."""
    import trio

    record = await node.log.task(stream)
    proposer = next(event.author for event in record.events if event.kind == "CANDIDATE_PROPOSED")
    victim = next(member for member in swarm.members[:0:-1] if member.home.keys.node_id != proposer)
    name = click.style(victim.name, bold=True)
    _say(click.style(f"✗ {victim.name} is killed: SIGKILL, process {await victim.kill()}", fg="red"))
    with trio.move_on_after(waits_told_s_max):
        async for waits in _waits(node, stream):
            _say(f"  the task is {click.style(_named(swarm, waits), fg='magenta')}")
            if "offline" in waits:
                break
    await victim.start()
    assert victim.process is not None
    _say(f"{click.style('✓', fg='green')} {name} is back, as process {victim.process.pid}, with its key and its log")


async def _waits(node: Node, stream: bytes) -> AsyncIterator[str]:
    """What the task waits for, whenever that changes, until it waits for nothing."""
    import trio

    from wattswarm import tasks
    from wattswarm.absence import offline

    shown, waits = "", " "
    while waits:
        record = await node.log.task(stream)
        waits = tasks.waits_for(record, node.log.clock(), await offline(node))
        if waits and re.sub(r"\d+ s\b", "", waits) != shown:
            shown = re.sub(r"\d+ s\b", "", waits)
            yield waits
        await trio.sleep(0.2)


def _named(swarm: LocalSwarm, text: str) -> str:
    """The same words with the nodes' names for their ids."""
    for member in swarm.members:
        text = text.replace(f"node {member.home.keys.node_id.hex()[:4]}…", member.name)
    return text


async def _tell(swarm: LocalSwarm, node: Node, answered: Any) -> None:
    """Tell every event once node-1 holds it, to the end; set ``answered`` when there is a candidate."""
    from sel.views import EventFilter, events

    names = {member.home.keys.node_id.hex(): member.name for member in swarm.members}
    seq = 0
    async with node.database.listen("wattswarm_log") as news:
        while True:
            for view in await events(node.database, node.home.genesis.network_id, EventFilter(seq)):
                seq = view.seq
                _tell_one(view, names[view.author])
                if view.kind == "CANDIDATE_PROPOSED":
                    answered.set()
                if view.kind == "DECISION_FINALIZED":
                    return
            await news.receive()


def _tell_one(view: EventView, author: str) -> None:
    role = f" ({view.payload['role']})" if "role" in view.payload else ""
    kind = click.style(f"{view.kind}{role}".ljust(25), fg="cyan")
    said = story.get(view.kind, "") if view.verdict == "accepted" else f"{view.verdict}: {view.reason}"
    _say(f"{view.seq:>2}  {_id(view.event_id)}  {author}  {kind}  {said}")


async def _compare(swarm: LocalSwarm, directory: Path) -> Path:
    """Show that all hold the same; write the decision as a file."""
    from sel.audit import verify
    from wattswarm.home import write_whole
    from wattswarm.kernel.bundle import make_bundle
    from wattswarm.node import open_node

    _title("The same everywhere")
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(open_node(member.config())) for member in swarm.members]
        for member, (events, fingerprint, root) in zip(swarm.members, await _equal(nodes), strict=True):
            _say(f"{member.name}: {events} events, fingerprint {_id(fingerprint)}, state root {_id(root)}")
        last = nodes[-1]
        report = await verify(last.database, last.genesis_network, lambda _: None)
        assert not report.problems, report.problems
        name = swarm.members[-1].name
        _say(f"{name} checked all {report.events}: every hash, signature, chain and certificate holds")
        record = await last.log.task(await last.log.resolve(task_id))
    bundle = directory / "decision.cbor"
    write_whole(bundle, make_bundle(last.home.genesis, [], record.certificates[0]))
    return bundle


async def _equal(nodes: Sequence[Node]) -> list[tuple[int, str, str]]:
    """(events, fingerprint, state root) of each, once they are the same."""
    import trio

    with trio.fail_after(equal_s_max):
        while True:
            heads = [await node.log.head() for node in nodes]
            held = [(head.events, output.sum_hex(head.events_sum), output.sum_hex(head.state_root)) for head in heads]
            if len(set(held)) == 1:
                return held
            await trio.sleep(0.05)


def _verify_alone(bundle: Path) -> None:
    from wattswarm.kernel.bundle import verify_bundle

    _title("Proven, with no node and no log")
    data = bundle.read_bytes()
    report = verify_bundle(data)
    _say(f"a file of {len(data)} bytes, written by nodes that are gone now:")
    _say(f"task {report.task_id}, epoch {report.epoch}, output {report.output['answer']!r}")
    _say(f"final commit {_id(report.final_commit_hash.hex())}")
    for signer in report.signers:
        _say(f"signed by finalizer {_id(signer.hex())} — {report.threshold} of {report.finalizers} needed")


def _id(text: str) -> str:
    return click.style(output.short(text), fg="yellow")
