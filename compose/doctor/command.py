"""`eastwest doctor`: whether this machine can enforce, and what to do if not."""

import sys
from itertools import chain

import click
import msgspec
from rich.console import Console

from compose.doctor.checks import examine
from compose.doctor.finding import Finding
from compose.doctor.neighbours import examine_neighbours
from enforcers.settings import EnforcerSettings

EXAMPLES = """\b
Examples:
  eastwest doctor
  sudo eastwest doctor -o json
"""


@click.command(epilog=EXAMPLES)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Default: text.")
@click.option("--runtime", default=EnforcerSettings().runtime, show_default=True, help="Socket of containerd.")
def doctor(output: str, runtime: str) -> None:
    """Try on this machine what enforcing takes: programs, capabilities, kernel modules. Changes nothing.

    Also warns of another NetworkPolicy enforcer, and of source-NAT between Pods.

    Exits with 1 where something is missing that enforcing needs.
    """
    console = Console(highlight=False, soft_wrap=True)
    findings = []
    for finding in chain(examine(runtime), examine_neighbours(runtime)):
        findings.append(finding)
        if output == "text":
            console.print(_line(finding))
    able = all(finding.ok for finding in findings if finding.needed)
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode({"able": able, "findings": findings})).decode())
    else:
        console.print("\nThis machine can enforce." if able else "\nThis machine cannot enforce yet: see above.")
    sys.exit(0 if able else 1)


def _line(finding: Finding) -> str:
    if finding.ok:
        return f"[green]ok[/]       {finding.what}"
    word = "[red]missing[/]" if finding.needed else "[yellow]warning[/]"
    detail = f": {finding.detail}" if finding.detail else ""
    return f"{word}  {finding.what}{detail}\n         → {finding.remedy}"
