"""``python -m bench [NAME…]``: run the named measurements (all of them without a name) and print each with its goal."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import trio

from bench import (
    author,
    backfill,
    frontier,
    gossip,
    growth,
    head,
    idle,
    import_log,
    ingest,
    latency,
    mesh,
    netsim,
    reconcile,
)
from bench.figure import Figure

measurements = {
    "import": import_log.measure,
    "author": author.measure,
    "head": head.measure,
    "growth": growth.measure,
    "ingest": ingest.measure,
    "backfill": backfill.measure,
    "gossip": gossip.measure,
    "mesh": mesh.measure,
    "reconcile": reconcile.measure,
    "frontier": frontier.measure,
    "idle": idle.measure,
    "latency": latency.measure,
    "netsim": netsim.measure,
}


def main() -> int:
    """Run, print, and say by the exit code whether every goal was met."""
    names = sys.argv[1:] or list(measurements)
    unknown = [name for name in names if name not in measurements]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there is: {', '.join(measurements)}", file=sys.stderr)
        return 2
    figures: list[Figure] = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="wattswarm-bench-") as directory:
            Path(directory).chmod(0o755)
            for figure in trio.run(measurements[name], Path(directory)):
                print(figure, flush=True)
                figures.append(figure)
    return 0 if all(figure.met for figure in figures) else 1


sys.exit(main())
