"""How an executor fails to answer: one exception, whose ``kind`` a caller maps to a TASK_ERROR or a reason code.

Knows nothing of HTTP libraries. Keeps docs/protocol.md §8: 201 is a ``timeout``, 200 an ``unreachable``.
"""

from __future__ import annotations

from typing import Literal

FailureKind = Literal["timeout", "unreachable", "http_status", "too_large", "not_json", "bad_shape"]


class RuntimeFailure(Exception):
    """An executor did not answer as the contract says. ``status``: the HTTP status, for ``http_status``."""

    def __init__(self, kind: FailureKind, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status

    @property
    def missing(self) -> bool:
        """Whether the executor lacks the endpoint: such an executor is not used again."""
        return self.status in (404, 405)
