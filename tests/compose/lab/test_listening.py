"""Servers that come and go at one address."""

import os
from contextlib import closing

import pytest

from compose.lab.listening import Listener, Listeners
from tests.components.ports import free_ports


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
async def test_a_server_that_a_child_still_holds_keeps_its_address_from_nobody(protocol: str) -> None:
    (port,) = free_ports(1)
    before, after = (
        Listener(netns="", address="127.0.0.1", protocol=protocol, port=port, identity=identity)
        for identity in ("before", "after")
    )
    async with Listeners() as listeners:
        listeners.want({before})
        # As a child has it that is being spawned, until it runs its program.
        with closing(os.fdopen(os.dup(listeners._servers[before].fileno()))):
            listeners.want({after})

            assert listeners._servers.keys() == {after}
