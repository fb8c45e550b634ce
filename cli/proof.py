"""``wattswarm proof``: decisions that prove themselves, offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.options import Session, add
from wattswarm.kernel.refusal import Refused

if TYPE_CHECKING:
    from wattswarm.kernel.certificate import DecisionCertificate
    from wattswarm.node import Node

command = group = click.Group("proof", help="Decisions that prove themselves.")
bundle_bytes_max = 16 << 20


async def _certificate(node: Node, task: str, epoch: int | None) -> DecisionCertificate:
    record = await node.log.task(await node.log.resolve(task))
    found = [cert for cert in record.certificates if epoch is None or cert.epoch == epoch]
    if not found:
        about = f"{task} has no decision certificate" + (f" in epoch {epoch}" if epoch else "")
        raise Refused("no_certificate", f"{about}: `wattswarm task decision {task}` says how far it is")
    return max(found, key=lambda cert: cert.epoch)


async def _bundle(node: Node, task: str, epoch: int | None) -> bytes:
    from sel.store import Txn
    from wattswarm.kernel.bundle import make_bundle
    from wattswarm.kernel.certificate import MembershipCertificate, parse_certificate

    async def read(txn: Txn) -> list[bytes]:
        return await txn.membership_certificates()

    certificate = await _certificate(node, task, epoch)
    parsed = [parse_certificate(wire, node.log.network) for wire in await node.log.read(read)]
    memberships = [cert for cert in parsed if isinstance(cert, MembershipCertificate)]
    return make_bundle(node.home.genesis, memberships, certificate)


@add(group, "show", "wattswarm proof show task-real-1")
@click.argument("task")
@click.option("--epoch", type=click.IntRange(1))
async def show(session: Session, task: str, epoch: int | None) -> None:
    """What a task's decision certificate says, and who signed it."""
    async with session.node(make=False) as node:
        _print(session, await _bundle(node, task, epoch), node.home.genesis.network_id)


@add(group, "export", "wattswarm proof export task-real-1 --out p.cbor")
@click.argument("task")
@click.option("--epoch", type=click.IntRange(1))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="the file to write")
async def export(session: Session, task: str, epoch: int | None, out: Path) -> None:
    """Write a task's decision as a bundle that anybody can verify without a node."""
    async with session.node(make=False) as node:
        _write(session, out, await _bundle(node, task, epoch))


def _write(session: Session, out: Path, data: bytes) -> None:
    from wattswarm.home import write_whole

    try:
        write_whole(out, data, mode=0o644)
    except OSError as error:
        raise Refused("file", f"{out} cannot be written: {error.strerror}") from None
    if session.as_json:
        output.document({"file": str(out), "bytes": len(data)})
    else:
        output.note(f"{len(data)} bytes written to {out}; `wattswarm proof verify {out}` checks them anywhere")


@add(group, "fetch", f"wattswarm proof fetch {'ab' * 32} --peer 127.0.0.1:7700 --out p.cbor")
@click.argument("task")
@click.option("--peer", required=True, metavar="HOST:PORT", help="the node to ask")
@click.option("--epoch", type=click.IntRange(1), default=1, show_default=True)
@click.option("--network", help="the network id (64 hex digits) that must have decided [this node's, if there is one]")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="a file to write it to")
async def fetch(session: Session, task: str, peer: str, epoch: int, network: str | None, out: Path | None) -> None:
    """Get a decision's proof from a peer, verify it, and show it; no log is needed.

    TASK is the task's id of 64 hex digits, as `wattswarm task decision` shows it.
    """
    import secrets

    from net.proto.address import split
    from wattswarm.fetch import fetch as fetched
    from wattswarm.home import exists, open_home
    from wattswarm.kernel.bundle import verify_bundle
    from wattswarm.kernel.identity import Keypair
    from wattswarm.node import now_ms
    from wattswarm.presence import daemon_process

    task_id, wanted, state_dir = _hash("TASK", task), _hash("--network", network), session.config().state_dir
    assert task_id is not None
    split(peer)
    keys = Keypair(secrets.token_bytes(32))
    if exists(state_dir):
        home = open_home(state_dir, now_ms())
        wanted = wanted or home.genesis.network_id
        if daemon_process(state_dir) is None:  # of two connections of one node its peers keep one
            keys = home.keys
    data = await fetched(peer, keys, wanted, task_id, epoch, now_ms())
    found = verify_bundle(data, wanted)
    if (found.task, found.epoch) != (task_id, epoch):
        raise Refused("other_proof", f"{peer} sent the proof of another decision: {found.task_id}, epoch {found.epoch}")
    if out is not None:
        _write(session, out, data)
    if out is None or not session.as_json:
        _print(session, data, wanted)


@add(group, "verify", "wattswarm proof verify p.cbor")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--network", help="the network id (64 hex digits) that must have decided")
def verify(session: Session, file: Path, network: str | None) -> None:
    """Verify a bundle, with no node and no log: who decided what, under which membership."""
    wanted = _hash("--network", network)
    with open(file, "rb") as source:
        data = source.read(bundle_bytes_max + 1)
    _print(session, data, wanted)


def _hash(name: str, text: str | None) -> bytes | None:
    """32 bytes of 64 hex digits. Raises ``Refused`` naming what is none."""
    try:
        value = bytes.fromhex(text) if text is not None else None
    except ValueError:
        value = b""
    if value is not None and len(value) != 32:
        raise Refused("hash", f"{name}: found {text!r}, expected 64 hex digits")
    return value


def _print(session: Session, data: bytes, network_id: bytes | None) -> None:
    from sel.views import hex_bytes
    from wattswarm.kernel.bundle import verify_bundle

    report = verify_bundle(data, network_id)
    found: dict[str, Any] = {
        "valid": True,
        "network_id": report.network_id.hex(),
        "network_name": report.network_name,
        "network_pinned": report.network_pinned,
        "fault_model": report.fault_model,
        "membership_number": report.membership_number,
        "membership_hash": report.membership_hash.hex(),
        "later_membership_known": report.later_membership_known,
        "task_id": report.task_id,
        "task": report.task.hex(),
        "epoch": report.epoch,
        "contract_digest": report.contract_digest.hex(),
        "candidate_id": report.candidate_id,
        "candidate_author": report.candidate_author.hex(),
        "candidate_hash": report.candidate_hash.hex(),
        "final_commit_hash": report.final_commit_hash.hex(),
        "threshold": report.threshold,
        "finalizers": report.finalizers,
        "signers": [signer.hex() for signer in report.signers],
        "output": hex_bytes(report.output),
    }
    if session.as_json:
        output.document(found)
        return
    if not report.network_pinned:
        output.note(
            f"trusting network {found['network_id']} ({report.network_name}), as the bundle says; --network pins it"
        )
    output.fields(found)
