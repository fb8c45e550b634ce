"""``wattswarm policy``: the verifier policies that tasks can bind."""

from __future__ import annotations

import click

from cli import output
from cli.options import Session, add

command = group = click.Group("policy", help="The verifier policies that tasks can bind.")


@add(group, "list", "wattswarm policy list")
def list_(session: Session) -> None:
    """The built-in policies with their versions, parameters and hashes."""
    from wattswarm.kernel.policy import policies

    found = [
        {
            "policy_id": policy.policy_id,
            "policy_version": policy.policy_version,
            "policy_hash": policy.policy_hash,
            "params": dict(policy.params),
            "reason_codes": list(policy.reason_codes),
        }
        for policy in policies
    ]
    if session.as_json:
        output.document(found)
        return
    rows = [
        (
            str(p["policy_id"]),
            str(p["policy_version"]),
            ", ".join(f"{k} {v}" for k, v in policy.params.items()) or "-",
            str(p["policy_hash"]),
        )
        for p, policy in zip(found, policies, strict=True)
    ]
    output.table(("policy", "version", "params", "hash"), rows)
