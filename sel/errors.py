"""What can go wrong with the database, as types: it cannot be had now, or what it holds is damaged.

Bad input is not here (that is ``wattswarm.kernel.refusal``), and neither are our own bugs (those are assertions).
"""

from __future__ import annotations


class StoreError(Exception):
    """The database's fault, or its host's. The message says what happened and what a person can do about it."""


class StoreUnavailable(StoreError):
    """The database cannot be reached, started or written now. Nothing that was acknowledged is lost."""


class StoreFull(StoreUnavailable):
    """The database's disk is full: it answers, and can store nothing."""


class StoreCorrupt(StoreError):
    """The database holds something that this program cannot have given it, or cannot read what it holds."""
