"""``wattswarm executors``: the runtimes that this node may call."""

from __future__ import annotations

from typing import Any

import click

from cli import output
from cli.options import Session, add
from wattswarm.kernel.refusal import Problem, Refused

command = group = click.Group("executors", help="The runtimes that this node may call.")


def _registry(session: Session) -> Any:
    from wattswarm.runtime.executors import Executors

    return Executors(session.config().state_dir)


@add(group, "add", "wattswarm executors add rt http://127.0.0.1:8787")
@click.argument("name")
@click.argument("url")
async def add_(session: Session, name: str, url: str) -> None:
    """Check the runtime at URL, and register it as NAME. One that fails a check is not registered."""
    from wattswarm.runtime.executors import checked

    executor = await checked(name, url)
    _registry(session).put(executor)
    if session.as_json:
        output.document(executor)
    else:
        can = executor.capabilities
        output.note(
            f"registered {name} at {executor.base_url}: {can.provider_family}/{can.model_id}, "
            f"task types {', '.join(can.task_types)}; profiles {', '.join(can.profiles)}"
        )


@add(group, "list", "wattswarm executors list")
def list_(session: Session) -> None:
    """The registered runtimes."""
    found = _registry(session).all()
    if session.as_json:
        output.document({"executors": found})
        return
    output.table(
        ("name", "url", "provider", "model", "task types", "profiles"),
        [
            (
                each.name,
                each.base_url,
                each.capabilities.provider_family,
                each.capabilities.model_id,
                ", ".join(each.capabilities.task_types),
                ", ".join(each.capabilities.profiles),
            )
            for each in found
        ],
    )


@add(group, "check", "wattswarm executors check rt")
@click.argument("name")
async def check(session: Session, name: str) -> None:
    """Check a registered runtime again: /health, /capabilities, and whether /execute and /verify are served."""
    from wattswarm.runtime.executors import check as check_url

    executor = _registry(session).get(name)
    report = await check_url(executor.base_url)
    if session.as_json:
        output.document({"name": name, "ok": report.good, "faults": report.faults})
    else:
        for path, fault in report.faults.items():
            click.echo(
                f"{click.style('FAIL', fg='red') if fault else click.style('PASS', fg='green')}  {path}  {fault}"
            )
    if not report.good:
        problems = tuple(Problem(path, fault, "a working endpoint") for path, fault in report.faults.items() if fault)
        raise Refused("executor_check", f"{name} at {executor.base_url} fails its checks", problems)


@add(group, "remove", "wattswarm executors remove rt-2")
@click.argument("name")
def remove(session: Session, name: str) -> None:
    """Forget a runtime."""
    _registry(session).remove(name)
    output.note(f"removed {name}")
