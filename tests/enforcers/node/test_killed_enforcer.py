"""An enforcer that is killed at any moment while a Pod gets its first rules, under traffic, counted at the receivers.

Whoever is allowed loses nothing, whatever was half done; and a Pod that was closed once never opens again.
"""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from enforcers.core.rendering import PRIMING
from tests.enforcers.connections.conversing import conversations
from tests.enforcers.node.killed_enforcer import BEGINS, DONE
from tests.enforcers.pod_world import World

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("either_way")]

LIVES, KILLS = 3, 4
LONGEST_SECONDS = 0.12
"""About twice as long as it takes."""


@contextmanager
def beginning(world: World, directions: str) -> Iterator[subprocess.Popen[str]]:
    """An enforcer that has just begun."""
    arguments = [str(world.path("web")), str(world.path("node")), world.chains, directions]
    started = [sys.executable, "-m", "tests.enforcers.node.killed_enforcer", *arguments]
    with subprocess.Popen(started, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == BEGINS
        try:
            yield process
        finally:
            process.kill()


def is_closed(world: World, directions: str) -> bool:
    """Whether all rules that drop are there, in both families."""
    saved = [world.rules(family=family) for family in (4, 6)]
    names = [f"EW-{'IN' if each == 'ingress' else 'OUT'}-NEW" for each in directions.split(",")]
    drops = [f"-A {name} " in text and "-j DROP" in text and PRIMING not in text for text in saved for name in names]
    return all(drops) and all("-j EW-IN" in text and "-j EW-OUT" in text for text in saved)


def kill_one(world: World, directions: str, seconds: float) -> None:
    with beginning(world, directions):
        time.sleep(seconds)  # the moment is by chance: there is nothing to wait for


def let_one_end(world: World, directions: str) -> None:
    with beginning(world, directions) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == DONE


@pytest.mark.parametrize("directions", ["ingress", "egress", "ingress,egress"])
async def test_an_enforcer_killed_at_any_moment_opens_nothing_and_cuts_nobody_who_is_allowed(world, directions):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    isolated = {each: each in directions for each in ("ingress", "egress")}
    with conversations(world) as talks:
        for _ in range(LIVES):
            world.command("web", "nft", "flush", "ruleset")
            for _ in range(KILLS):
                kill_one(world, directions, chance.random() * LONGEST_SECONDS)
                talks.await_news(**isolated)
                if is_closed(world, directions):
                    break
            else:
                let_one_end(world, directions)
            with talks.counting(**isolated) as delivered:
                for _ in range(KILLS):
                    kill_one(world, directions, chance.random() * LONGEST_SECONDS)
                let_one_end(world, directions)
                talks.await_news(**isolated)
            assert delivered
            assert not any(delivered.values())

        assert talks.lost(**isolated) == {}
