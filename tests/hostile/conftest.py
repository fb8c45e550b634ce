"""Two honest daemons that all tests of what connections can do share; each test has an enemy of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.rig import Rig, attacked
from tests.hostile.verdicts import cast, foes

fresh = foes()


@pytest.fixture(scope="package")
def rig() -> Iterator[Rig]:
    with attacked(cast) as made:
        yield made


@pytest.fixture
def foe() -> str:
    return next(fresh)
