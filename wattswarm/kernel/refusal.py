"""How the project says no to input: one exception that names the reason and what was expected.

``Refused`` is for what a peer, a runtime or a user sent. Our own bugs are assertions; trouble with the
database has its own tree (``sel.errors``). Reasons are stable lower-case slugs that programs may compare;
the message is a sentence for people.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in a document: where it is (``acceptance.quorum_threshold``), what was found, what was expected."""

    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}, expected {self.expected}"


class Refused(Exception):
    """Input that the rules do not accept. Nothing was stored or changed because of it."""

    def __init__(self, reason: str, message: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.problems = problems

    def __str__(self) -> str:
        if not self.problems:
            return self.message
        return "\n".join([self.message, *(f"  {problem}" for problem in self.problems)])


class Malformed(Refused):
    """Bytes that fail a form check (docs/protocol.md §2): the fault of whoever sent them."""


class Unsupported(Refused):
    """What another protocol version says, and this one cannot read: nobody's fault, and not kept."""
