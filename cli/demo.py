"""``wattswarm demo``: one node, one runtime, one task, told as it happens; then everything is checked and removed."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.options import Session, epilog, finish

if TYPE_CHECKING:
    from sel.views import EventView
    from wattswarm.node import Node

task_id = "demo-1"
prompt = "what is a decision that nobody can forge?"
story = {
    "TASK_CREATED": "the task exists: its contract, its budget and its membership are fixed by this hash",
    "TASK_CLAIMED": "a lease: the node takes on the work for a while, and only for a while",
    "CANDIDATE_PROPOSED": "the runtime's answer, as a candidate under that lease",
    "EVIDENCE_AVAILABLE": "the verifier could read the evidence that the answer names",
    "VERIFIER_RESULT_SUBMITTED": "the verifier's runtime judged the answer by the task's policy",
    "VOTE_COMMIT": "a sealed vote: nobody can read it, nobody can copy it",
    "VOTE_REVEAL": "the seal is opened; the vote counts",
    "DECISION_COMMITTED": "the approval quorum is reached",
    "FINALITY_VOTE": "a finalizer signs the decision, once and for ever",
    "DECISION_FINALIZED": "the signatures make a proof: from here on nothing can change the decision",
}


@click.command(epilog=epilog(("wattswarm demo",)))
@click.pass_obj
def command(session: Session) -> int:
    """See a task go from creation to a finality proof, in one command.

    Starts a Postgres and a reference runtime of its own in a temporary directory, runs one task, checks every byte
    of its log, verifies the decision from a file alone, and removes it all.
    """
    import_module("wattswarm.node")  # it takes a moment, in which nothing is there yet that must be removed
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wattswarm-demo-") as directory:
        Path(directory).chmod(0o755)
        finish(partial(_demo, Path(directory)))
    click.echo(f"\nDone in {time.monotonic() - began:.1f} s; nothing is left behind.")
    click.echo("Next: README.md shows the same by hand, command by command.")
    return 0


def _title(text: str) -> None:
    click.echo(f"\n{click.style(text, bold=True)}")


async def _demo(directory: Path) -> None:
    from wattswarm.config import load
    from wattswarm.node import open_node

    _title("A node and a runtime")
    click.echo("starting Postgres (a new one, for this demo alone) …")
    async with open_node(load({"state_dir": str(directory / "node")}, {})) as node:
        click.echo(f"node {_id(node.home.keys.node_id.hex())} on a network of its own, all roles in one hand")
        async with _runtime() as url:
            from wattswarm.runtime.executors import checked

            executor = await checked("demo", url)
            node.executors.put(executor)
            click.echo(f"runtime {executor.capabilities.model_id} answers on {url}")
            _title("One task, event by event")
            found = await _run(node)
        _title("The answer")
        click.echo(f"  {prompt}\n  → {click.style(str(found['final_answer']), fg='green', bold=True)}")
        bundle = await _check(node, directory)
    _verify_alone(bundle)


@asynccontextmanager
async def _runtime() -> AsyncIterator[str]:
    import trio

    from wattswarm.runtime.local import reference_runtime

    runtime = reference_runtime()
    url = await trio.to_thread.run_sync(runtime.__enter__)
    try:
        yield url
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(runtime.__exit__, None, None, None)


async def _run(node: Node) -> dict[str, Any]:
    """Run the task while its events are told."""
    import trio

    from wattswarm.kernel.contract_draft import sample_contract
    from wattswarm.node import now_ms
    from wattswarm.runtime.run_real import run_real

    contract = sample_contract(task_id, now_ms() + 3_600_000, f"ed25519:{node.home.keys.node_id.hex()}")
    contract["inputs"] = {"prompt": prompt}
    async with trio.open_nursery() as nursery:
        done = trio.Event()
        nursery.start_soon(_tell, node, done)
        found = await run_real(node.log, node.executors, "demo", "default", contract)
        await done.wait()
    return found


async def _tell(node: Node, done: Any) -> None:
    from sel.views import EventFilter, events

    seq = 0
    async with node.database.listen("wattswarm_log") as news:
        while True:
            for view in await events(node.database, node.home.genesis.network_id, EventFilter(seq)):
                seq = view.seq
                await _tell_one(view)
                if view.kind == "DECISION_FINALIZED":
                    done.set()
                    return
            await news.receive()


async def _tell_one(view: EventView) -> None:
    import trio

    role = f" ({view.payload['role']})" if "role" in view.payload else ""
    kind = click.style(f"{view.kind}{role}".ljust(26), fg="cyan")
    click.echo(f"  {view.seq:>2}  {_id(view.event_id)}  {kind}  {story[view.kind]}")
    await trio.sleep(0.12 if sys.stdout.isatty() else 0)


async def _check(node: Node, directory: Path) -> Path:
    from sel.audit import verify
    from sel.replay import replay
    from wattswarm.home import write_whole
    from wattswarm.kernel.bundle import make_bundle

    _title("Checked")
    report = await verify(node.database, node.genesis_network, lambda _: None)
    assert not report.problems, report.problems
    click.echo(f"  {report.events} events: every hash, signature, chain and certificate holds")
    before, after = await node.log.head(), await replay(node.database, node.genesis_network, lambda _: None)
    assert before.state_root == after.state_root
    click.echo(f"  replayed from nothing: the same state root {_id(output.sum_hex(after.state_root))}")
    record = await node.log.task(await node.log.resolve(task_id))
    bundle = directory / "decision.cbor"
    write_whole(bundle, make_bundle(node.home.genesis, [], record.certificates[0]))
    return bundle


def _verify_alone(bundle: Path) -> None:
    from wattswarm.kernel.bundle import verify_bundle

    _title("Proven, with no node and no log")
    data = bundle.read_bytes()
    report = verify_bundle(data)
    click.echo(f"  a file of {len(data)} bytes, written by the node, which is gone now:")
    click.echo(f"  task {report.task_id}, epoch {report.epoch}, output {report.output['answer']!r}")
    click.echo(f"  final commit {_id(report.final_commit_hash.hex())}")
    for signer in report.signers:
        click.echo(f"  signed by finalizer {_id(signer.hex())} — {report.threshold} of {report.finalizers} needed")


def _id(text: str) -> str:
    return click.style(output.short(text), fg="yellow")
