"""``wattswarm``: the groups, loaded when they are asked for, and the one place where errors become exit codes.

Exit codes: 0 done, 1 refused or failed (the reason on stderr), 2 usage. A user's mistake never shows a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

import click

from cli.options import Interrupted, Session
from wattswarm.kernel.refusal import Refused

groups = {
    "config": ("cli.config", "What is configured, and where each value comes from."),
    "demo": ("cli.demo", "See three nodes decide a task together, while one is killed and comes back."),
    "dev": ("cli.dev", "Keep a swarm of daemons on this host until Ctrl-C."),
    "doctor": ("cli.doctor", "Check this host and this node; say how to mend what is wrong."),
    "executors": ("cli.executors", "The runtimes that this node may call."),
    "log": ("cli.log", "The signed event log of this node."),
    "members": ("cli.members", "Who belongs to the network, and how that is changed."),
    "network": ("cli.network", "The network that this node belongs to."),
    "node": ("cli.node", "This node itself."),
    "peers": ("cli.peers", "The nodes that this one is connected to."),
    "policy": ("cli.policy", "The verifier policies that tasks can bind."),
    "proof": ("cli.proof", "Decisions that prove themselves."),
    "task": ("cli.task", "Tasks: write, submit, follow, steer."),
}


class Groups(click.Group):
    """Commands that are imported only when they run, so that ``--help`` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(groups)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in groups:
            return None
        found = getattr(import_module(groups[cmd_name][0]), "command", None)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, groups[name][1]) for name in sorted(groups)])


def dashes(name: str) -> str:
    """Option and command names with underscores are the same names with dashes."""
    return name.replace("_", "-")


@click.group(
    cls=Groups,
    context_settings={"token_normalize_func": dashes, "help_option_names": ["-h", "--help"]},
    epilog="Example: wattswarm demo",
)
@click.option("--state-dir", metavar="DIR", help="where this node lives [.wattswarm, or WATTSWARM_STATE_DIR]")
@click.option("--pg-url", metavar="URL", help="a PostgreSQL server, instead of the embedded one [WATTSWARM_PG_URL]")
@click.option("--db", "--store", "ignored", hidden=True, expose_value=False, help="accepted for old scripts, no effect")
@click.option("--json", "as_json", is_flag=True, help="one JSON document on stdout")
@click.option("-v", "--verbose", is_flag=True, help="show the traceback of an unexpected error")
@click.version_option(package_name="wattswarm")
@click.pass_context
def cli(ctx: click.Context, state_dir: str | None, pg_url: str | None, as_json: bool, verbose: bool) -> None:
    """The coordination kernel that agent networks run on."""
    ctx.obj = Session({"state_dir": state_dir, "pg_url": pg_url}, as_json, verbose)


def main() -> None:
    """The console script."""
    sys.exit(run(lambda: cli(standalone_mode=False)))


def run(command: Callable[[], object]) -> int:
    """Run a command; its errors as one line on stderr and an exit code."""
    try:
        result = command()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Abort:
        click.echo("aborted", err=True)
        return 1
    except Interrupted as stop:
        click.echo("interrupted", err=True)
        return stop.code
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:  # noqa: BLE001 - the outermost edge: it reports
        return report(error)
    return result if isinstance(result, int) else 0


def report(error: BaseException) -> int:
    """Say an error on stderr; the exit code 1."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            report(part)
        return 1
    if isinstance(error, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    if isinstance(error, Refused) or type(error).__module__ == "sel.errors":
        click.echo(f"error: {error}", err=True)
        return 1
    if "-v" in sys.argv or "--verbose" in sys.argv:
        sys.excepthook(type(error), error, error.__traceback__)
    else:
        click.echo(f"error: unexpected {type(error).__name__}: {error} (run with -v to see where)", err=True)
    return 1


if __name__ == "__main__":
    main()
