"""``wattswarm config``: what is configured, and where each value comes from."""

from __future__ import annotations

import click

from cli import output
from cli.options import Session, add

command = group = click.Group("config", help="What is configured, and where each value comes from.")


@add(group, "show", "wattswarm config show")
async def show(session: Session) -> None:
    """Every setting with its value and its origin, and the URL of the database that is used."""
    from wattswarm.node import home_exists, open_node

    config = session.config()
    found = {name: {"value": setting.value, "from": setting.origin} for name, setting in config.settings.items()}
    if config.pg_url is None and home_exists(config):
        async with open_node(config, make=False) as node:
            found["pg_url"] = {"value": node.database.dsn, "from": "the embedded server"}
    if session.as_json:
        output.document(found)
    else:
        rows = [(name, str(entry["value"] or "-"), str(entry["from"])) for name, entry in found.items()]
        output.table(("setting", "value", "from"), rows)
