"""`eastwest lab`: Pods as network namespaces on this machine."""

import asyncio
import os
import resource
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import msgspec
from rich.console import Console

from compose.lab import namespaces, showing, state
from compose.lab.capability import ensure_capable
from compose.lab.choosing import explained, pod_key, running_lab, running_plan
from compose.lab.matrix import cells, declared_matrix, full_matrix, service_probes
from compose.lab.probing import DROP_SECONDS, probe_all
from compose.lab.talk.sockets import PROTOCOLS
from compose.lab.wires import removing

DOWN_SECONDS: Final = 10.0

EXAMPLES: Final = """\b
Examples:
  eastwest lab up -f manifests/            in one terminal; Ctrl-C ends it and leaves nothing
  eastwest lab probe                       in another: who reaches whom
  eastwest lab probe --from shop/web -o json
  eastwest lab exec shop/web -- ip address
  eastwest lab down

Root is not needed where the kernel lets users have namespaces of their own.
"""


class Port(click.ParamType[tuple[str, int]]):
    """``80``, ``UDP/53`` or ``udp/53``; or ``echo``, which is ICMP's."""

    name = "port"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if value.lower() == "echo":
            return "ICMP", 0
        protocol, _, number = value.rpartition("/")
        protocol = protocol.upper() or "TCP"
        if protocol not in PROTOCOLS or not number.isdigit() or not 0 < int(number) < 65536:
            self.fail(f"{value!r} is not a port: write 80, UDP/53, SCTP/9999 or echo", param, ctx)
        return protocol, int(number)


name_option = click.option("--name", default="", help="The lab's name; needed only where several run.")


@click.group(epilog=EXAMPLES)
def lab() -> None:
    """Pods as network namespaces on this machine, with real Services and real packets; no cluster."""


@lab.command(short_help="Build it, enforce its policies, hold it until Ctrl-C.")
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="Manifests: a file or a folder. Repeatable.",
)
@click.option("--node", "nodes", multiple=True, help="A node's name. Default: node-1 and node-2, or the Node objects.")
@click.option("--external", "externals", multiple=True, metavar="ADDRESS", help="An address beyond the cluster.")
@click.option("--name", default="", help="A name for the lab. Default: a random one.")
def up(files: Sequence[Path], nodes: Sequence[str], externals: Sequence[str], name: str) -> None:
    """Build the lab, enforce its policies, and hold it until Ctrl-C; changed manifests are followed.

    Pods, Services and EndpointSlices are taken as they are written; what manifests leave out (node, addresses, phase,
    endpoints) is filled in. Deployments and their like become Pods. A server listens on every declared port.
    """
    with explained():
        ensure_capable()
        raise_file_limit()
        from compose.embedded.holding import hold
        from streams.telemetry import set_up_logging

        set_up_logging("human", "warning")
        asyncio.run(hold(files, nodes=nodes, externals=externals, name=name))


@lab.command()
@name_option
@click.option("--from", "sources", multiple=True, metavar="POD", help="Only from this Pod. Repeatable.")
@click.option("--to", "destinations", multiple=True, metavar="POD", help="Only to this Pod. Repeatable.")
@click.option(
    "--port", "ports", multiple=True, type=Port(), help="Instead of the declared ports: 80, UDP/53, echo. Repeatable."
)
@click.option("--services", is_flag=True, help="The Services' virtual addresses instead of Pods.")
@click.option("-6", "version", flag_value=6, type=int, default=None, help="By IPv6; default: a Pod's first address.")
@click.option(
    "--timeout", "timeout_seconds", default=DROP_SECONDS, show_default=True, help="Silence that means blocked, s."
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def probe(
    *,
    name: str,
    sources: Sequence[str],
    destinations: Sequence[str],
    ports: Sequence[tuple[str, int]],
    services: bool,
    version: int | None,
    timeout_seconds: float,
    output: str,
) -> None:
    """Ask who reaches whom, by real connections, and show the matrix."""
    with explained():
        plan = running_plan(name)
        raise_file_limit()
        asking = [pod_key(plan, each) for each in sources] or None
        if services:
            probes = service_probes(plan, sources=asking)
        elif ports:
            probes = full_matrix(plan, ports, version=version, sources=asking)
        else:
            probes = declared_matrix(plan, version=version, sources=asking)
        wanted = {pod_key(plan, each) for each in destinations}
        probes = [each for each in probes if not wanted or each.destination in wanted]
        answers = cells(asyncio.run(probe_all(probes, timeout_seconds=timeout_seconds)))
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(showing.rows(answers))))
    else:
        Console().print(showing.matrix_table(answers))


@lab.command(
    name="exec", short_help="Run a command in a Pod's network.", context_settings={"ignore_unknown_options": True}
)
@name_option
@click.argument("pod")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, pod: str, command: Sequence[str]) -> None:
    """Run a command in the network of POD (namespace/name, or a name that only one has)."""
    with explained():
        plan = running_plan(name)
        path = namespaces.path_of(plan.pod(pod_key(plan, pod)).netns)
    os.execvp("nsenter", ["nsenter", f"--net={path}", "--", *command])


@lab.command(short_help="Remove what crashed labs left, or end one.")
@name_option
def down(name: str) -> None:
    """Remove what crashed labs left; where there is nothing, or by name, end a running lab."""
    with explained():
        swept = removing.sweep(state.run_directory())
        for each in swept:
            click.echo(f"removed what was left of lab {each}")
        if swept and (not name or name in swept):  # whoever meant the crashed one has no other ended
            return
        chosen, known = running_lab(name)
        os.kill(known.owner.pid, signal.SIGTERM)
        deadline = time.monotonic() + DOWN_SECONDS
        while state.alive(known.owner) and state.read(chosen, state.run_directory()) is not None:
            if time.monotonic() > deadline:
                raise click.ClickException(f"process {known.owner.pid} still holds lab {chosen} after {DOWN_SECONDS} s")
            time.sleep(0.02)
        click.echo(f"lab {chosen} is down")


@lab.command(name="list")
def list_labs() -> None:
    """List the labs that run, with their Pods."""
    for name, known in state.labs(state.run_directory()).items():
        if known is not None and state.alive(known.owner):
            click.echo(f"lab {name}, held by process {known.owner.pid}")
            Console().print(showing.pods_table(known.plan))


def raise_file_limit() -> None:
    """Use what the hard limit allows: every server and every probe is an open file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
