"""``wattswarm doctor``: PASS or FAIL, each with the command that mends it."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import click

from cli import output
from cli.options import Session, epilog, finish

example = "wattswarm doctor"


@click.command(epilog=epilog((example,)))
@click.option("--json", "json_too", is_flag=True, help="as JSON")
@click.pass_obj
def command(session: Session, json_too: bool) -> int:
    """Check this host and this node; say how to mend what is wrong. Fails if any check fails."""

    as_json = session.as_json or json_too
    checks: list[Any] = finish(partial(_run, session, as_json))
    if as_json:
        output.document([{"name": c.name, "ok": c.passed, "found": c.found, "mend": c.mend} for c in checks])
    return 0 if all(check.passed for check in checks) else 1


async def _run(session: Session, as_json: bool) -> list[Any]:
    from contextlib import aclosing

    from wattswarm.doctor import examine

    checks = []
    async with aclosing(examine(session.config())) as found:
        async for check in found:
            checks.append(check)
            if not as_json:
                word = click.style("PASS", fg="green") if check.passed else click.style("FAIL", fg="red")
                click.echo(f"{word}  {check.name}: {check.found}")
                if check.mend:
                    click.echo(f"      mend it: {check.mend}")
                sys.stdout.flush()
    return checks
