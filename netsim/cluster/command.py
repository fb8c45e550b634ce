"""Commands of the host that a cluster stands on: mounts, namespaces, packet rules."""

from __future__ import annotations

import subprocess

command_s_max = 30


class CommandFailed(Exception):
    """A command of the host did not do what it was told."""


def run_command(*words: str, given: str = "") -> str:
    """What a command says; ``given`` is its standard input. Blocking. Raises ``CommandFailed``."""
    done = subprocess.run(words, input=given, capture_output=True, text=True, check=False, timeout=command_s_max)
    if done.returncode != 0:
        raise CommandFailed(f"{' '.join(words)}: {done.stderr}")
    return done.stdout
