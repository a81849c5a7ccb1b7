"""What `eastwest up` runs, and how it is found.

API server or manifests ─▶ embedded world ─┬─▶ C-VEN of this node ─▶ its Pods
                                           └─▶ runtime file ─▶ other commands
"""

import asyncio
import os
from contextlib import AsyncExitStack
from typing import NamedTuple

import click

from compose.connections import data_folder
from compose.contexts import Context, announced, as_file_name
from compose.embedded.world import World, embedded
from compose.roles.enforcer import orders_of, snapshot_of, socket_of
from enforcers.enforcer import Enforcer
from enforcers.runtimes.cri import CriRuntime
from enforcers.settings import EnforcerSettings
from processors.settings import ProcessorSettings
from producers.kubelink import Phase
from producers.settings import KubelinkSettings, source_of
from streams.lifecycle import serve
from streams.telemetry import serving


class Roles(NamedTuple):
    kubelink: KubelinkSettings
    processor: ProcessorSettings
    enforcer: EnforcerSettings


async def run_everything(roles: Roles, context: str) -> None:
    """Run *roles* until a signal, announced as *context*.

    Raises `click.UsageError` where enforcing is asked for and this machine has no container runtime there.
    """
    has_runtime = os.access(roles.enforcer.runtime, os.R_OK | os.W_OK)
    if not has_runtime and not roles.enforcer.observe:
        raise click.UsageError(
            f"there is no container runtime at {roles.enforcer.runtime} that we may ask, so no Pods of this node "
            "can be programmed; name its socket by --runtime, or use --observe for inventory and plan"
        )
    folder = data_folder(roles.kubelink) / as_file_name(context)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def work(stop: asyncio.Event) -> None:
        source = source_of(roles.kubelink)
        running = embedded(
            source,
            folder,
            roles.processor,
            described=roles.kubelink.description,
            drain_seconds=roles.kubelink.drain_seconds,
        )
        async with running as world, AsyncExitStack() as stack:
            await stack.enter_async_context(serving(roles.kubelink.listen, world.health, world.registry))
            stack.enter_context(announced(_context(world, context)))
            if has_runtime:
                runtime = await stack.enter_async_context(CriRuntime(roles.enforcer.runtime))
                enforcer = Enforcer(
                    roles.enforcer,
                    world.bus,
                    runtime,
                    snapshot=snapshot_of(roles.enforcer),
                    kept_orders=orders_of(roles.enforcer),
                    local=socket_of(roles.enforcer),
                    health=world.health,
                    registry=world.registry,
                )
                world.tasks.create_task(enforcer.run(world.stop, jitter_seconds=0), name="C-VEN")
            world.tasks.create_task(_tell(world, roles, context), name="tell what runs")
            await stop.wait()
        if has_runtime and not roles.enforcer.observe:
            click.echo("stopped; the rules of this node's Pods stay (eastwest uninstall removes them)")

    await serve(work, name="up", drain_seconds=roles.enforcer.drain_seconds + roles.kubelink.drain_seconds)


def _context(world: World, name: str) -> Context:
    return Context(name=name, cluster=world.cluster, log=str(world.log_file), nats=world.nats_url, pid=os.getpid())


async def _tell(world: World, roles: Roles, context: str) -> None:
    """Progress for who sits in front of it: a list of a large cluster takes its time."""
    what = "observes" if roles.enforcer.observe else f"enforces on {roles.enforcer.node}"
    click.echo(f"eastwest {what}; reading {roles.kubelink.description} (Ctrl-C ends it)")
    told: tuple[str, ...] = ()
    while not world.stop.is_set():
        state = world.kubelink.state
        if state.synced != told:
            told = state.synced
            counts = ", ".join(f"{kind} {state.objects.get(kind, 0)}" for kind in told)
            click.echo(f"listed: {counts}")
        if state.phase is Phase.COMPLETE:
            option = "" if context == "default" else f" --context {context}"
            click.echo(f"complete; in another terminal: eastwest get container-workloads{option}")
            return
        await asyncio.sleep(0.2)
