"""Daemons that many tests share: two for what connections can do, two for what authors can. Each test has an enemy of
its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.liars import lair, liars
from tests.hostile.rig import Rig, attacked
from tests.hostile.verdicts import cast, foes

fresh = foes()
unspent = iter(liars)


@pytest.fixture(scope="package")
def rig() -> Iterator[Rig]:
    with attacked(cast) as made:
        yield made


@pytest.fixture
def foe() -> str:
    return next(fresh)


@pytest.fixture(scope="package")
def den() -> Iterator[Rig]:
    with lair() as made:
        yield made


@pytest.fixture
def liar() -> str:
    return next(unspent)
