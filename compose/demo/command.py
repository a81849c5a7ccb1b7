"""The command, and the log lines it keeps out of the way."""

import asyncio

import click
from rich.console import Console

from compose.demo.story import tell
from compose.lab.capability import ensure_capable
from compose.lab.choosing import explained
from compose.lab.command import raise_file_limit
from streams.lifecycle import serve
from streams.telemetry import set_up_logging

EXAMPLES = """\b
Examples:
  eastwest demo              the whole story, half a minute
  eastwest demo --verbose    with what every part logs
"""


@click.command(epilog=EXAMPLES)
@click.option("--verbose", is_flag=True, help="Show the log lines of Kubelink, the PCE and the C-VENs.")
def demo(verbose: bool) -> None:
    """A shop in three namespaces: who reaches whom before and after its policies, with real rules and real packets.

    Everything is real but the cluster: Pods are network namespaces of this machine, closed to the outside. Needs root,
    or a kernel that lets users have namespaces of their own. Leaves nothing behind, also after Ctrl-C.
    """
    with explained():
        ensure_capable()
        raise_file_limit()
        set_up_logging("human", "info" if verbose else "error")
        asyncio.run(_run())


async def _run() -> None:
    async def story(stop: asyncio.Event) -> None:
        telling = asyncio.create_task(tell(Console()), name="story")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait((telling, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not telling.done():
            telling.cancel()
            await asyncio.wait([telling])
            return
        telling.result()

    await serve(story, name="demo", drain_seconds=10.0)
