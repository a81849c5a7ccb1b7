"""An address that changes hands leaves the one set before it joins the other, also behind a real nats-server."""

import secrets

import pytest

from schemas.policy import PolicyChange, SetChange
from streams.nats.nats_bus import NatsBus
from tests.components.nats_server import NatsServer
from tests.streams.channels.policy_world import A, B, Enforcer, Owner, addresses, policy_of, program

pytestmark = pytest.mark.nats

ROUNDS = 300
OTHERS = addresses(1000, 1050)
"""What comes and goes meanwhile, so that messages about a set are on their way when its next ones are sent."""


class Watching(Enforcer):
    """Says of each update whether anything it gains is, at that moment, in the other set as well."""

    def __init__(self, bus: NatsBus, cluster: str) -> None:
        super().__init__(bus, cluster)
        self.shared: set[bytes] = set()

    def apply(self, update):
        gained = {change.id: change.added for change in update.sets}
        lost = {change.id: change.removed & update.released for change in update.sets}
        for this, other in ((A, B), (B, A)):
            there = self.sets.get(other, frozenset()) - lost.get(other, frozenset())
            self.shared |= gained.get(this, frozenset()) & there
        super().apply(update)


async def test_no_update_gains_an_address_for_one_owner_while_it_is_anothers(nats: NatsServer):
    cluster = f"c-{secrets.token_hex(4)}"
    async with NatsBus(nats.url) as bus, Owner(bus, cluster).owning() as owner, Watching(bus, cluster).working() as it:
        (one,) = addresses(7, 8)
        await owner.publish(policy_of(program("u1", A, B), a={one}, b=frozenset()), 1)
        await it.realized(1)
        fetches = it.reader.fetches
        mine = frozenset({one})
        for revision in range(2, ROUNDS + 2):
            loser, gainer = (A, B) if revision % 2 == 0 else (B, A)
            more = OTHERS if revision % 4 < 2 else frozenset()
            sets = (
                SetChange(id=loser, removed=mine, added=more if loser == A else frozenset()),
                SetChange(id=gainer, added=mine | (more if gainer == A else frozenset())),
            )
            await owner.writer.send(PolicyChange(sets=sets, released=mine), revision, "")
            if revision % 4 >= 2:
                await owner.writer.send(PolicyChange(sets=(SetChange(id=A, removed=OTHERS),)), revision, "")
        await it.realized(ROUNDS + 1)
        assert it.updates > 10
        assert it.reader.fetches == fetches
        assert it.shared == set()
