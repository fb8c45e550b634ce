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
    from wattswarm.home import write_whole

    async with session.node(make=False) as node:
        data = await _bundle(node, task, epoch)
    try:
        write_whole(out, data, mode=0o644)
    except OSError as error:
        raise Refused("file", f"{out} cannot be written: {error.strerror}") from None
    if session.as_json:
        output.document({"file": str(out), "bytes": len(data)})
    else:
        output.note(f"{len(data)} bytes written to {out}; `wattswarm proof verify {out}` checks them anywhere")


@add(group, "verify", "wattswarm proof verify p.cbor")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--network", help="the network id (64 hex digits) that must have decided")
def verify(session: Session, file: Path, network: str | None) -> None:
    """Verify a bundle, with no node and no log: who decided what, under which membership."""
    try:
        wanted = bytes.fromhex(network) if network is not None else None
    except ValueError:
        wanted = b""
    if wanted is not None and len(wanted) != 32:
        raise Refused("network", f"--network: found {network!r}, expected 64 hex digits")
    with open(file, "rb") as source:
        data = source.read(bundle_bytes_max + 1)
    _print(session, data, wanted)


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
    output.fields({name: value if isinstance(value, str) else str(value) for name, value in found.items()})
