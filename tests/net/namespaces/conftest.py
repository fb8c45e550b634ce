"""Where no hosts can be made, what needs them is skipped; where ``WATTSWARM_CI`` is set it fails."""

from __future__ import annotations

import os

import pytest

from netsim.cluster.lan import want


@pytest.fixture(scope="package")
def hosts_can_be_made() -> None:
    wanting = want()
    if wanting and "WATTSWARM_CI" in os.environ:
        pytest.fail(wanting)
    if wanting:
        print(wanting)
        pytest.skip("no network namespaces can be made here: that takes root, iproute2 and nftables")
