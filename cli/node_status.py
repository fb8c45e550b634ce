"""``node status`` as a person reads it: one line a subject, ids cut short, alarms last and in red."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from cli import output


def show(found: Mapping[str, Any]) -> None:
    """Print it. ``--json`` has every id whole."""
    output.fields({subject: tell(found) for subject, tell in _subjects.items()})
    for alarm in found["alarms"]:
        output.note(click.style(f"! {alarm}", fg="red"))


def _running(found: Mapping[str, Any]) -> str:
    if not found["running"]:
        return click.style("no", fg="yellow") + "  (`wattswarm node up` starts the daemon)"
    at = f", since {output.moment(found['started_at'])}" if found["started_at"] else ""
    return f"{click.style('yes', fg='green')}  {found['phase']}, process {found['process']}{at}"


def _node(found: Mapping[str, Any]) -> str:
    return f"{found['node_id']}  {','.join(found['roles']) or 'no member: it observes'}"


def _network(found: Mapping[str, Any]) -> str:
    members = _count(found["members"], "member")
    return f"{found['network_id']}  {found['network']}, {members}, version {found['membership_version']}"


def _listens(found: Mapping[str, Any]) -> str:
    return str(found["listen"] or "-")


def _peers(found: Mapping[str, Any]) -> str:
    peers = found["peers"]
    if not peers:
        return "none"
    level = sum(bool(peer["in_sync"]) for peer in peers)
    so = "all in sync" if level == len(peers) else f"{level} in sync"
    return f"{len(peers)} connected, {so}: {', '.join(output.short(peer['node_id']) for peer in peers)}"


def _missing(found: Mapping[str, Any]) -> str:
    said = [
        f"{output.short(node_id)} since {output.moment(since)}" + (" (offline)" if node_id in found["offline"] else "")
        for node_id, since in found["not_connected"].items()
    ]
    return ", ".join(said) or "none"


def _tasks(found: Mapping[str, Any]) -> str:
    if found["open_tasks"] is None:
        return "-"
    return f"{found['open_tasks']} open" + ("" if found["autopilot"] else ", left to others: the autopilot is off")


def _log(found: Mapping[str, Any]) -> str:
    return f"{_count(found['events'], 'event')}, {_count(found['certificates'], 'certificate')}, head {found['head']}"


def _speaks(found: Mapping[str, Any]) -> str:
    others = ", ".join(f"{count} of {version}" for version, count in found["peer_protocol_distribution"].items())
    return f"{found['local_protocol_version']}{f'  (peers: {others})' if others else ''}"


def _listed(name: str) -> Any:
    def tell(found: Mapping[str, Any]) -> str:
        return click.style(str(len(found[name])), fg="red") if found[name] else "none"

    return tell


_subjects = {
    "running": _running,
    "node": _node,
    "network": _network,
    "decides": lambda found: found["fault_tolerance"],
    "protocol": _speaks,
    "listens": _listens,
    "peers": _peers,
    "missing": _missing,
    "tasks": _tasks,
    "log": _log,
    "fingerprint": lambda found: found["fingerprint"],
    "state_root": lambda found: found["state_root"],
    "recovered": lambda found: found["recovered"] or "never",
    "forks": _listed("forks"),
    "conflicts": _listed("forked_tasks"),
    "alarms": _listed("alarms"),
}


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
