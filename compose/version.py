"""`eastwest version`."""

import importlib.metadata
import platform

import click
import msgspec


@click.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def version(output: str) -> None:
    """Print the version of eastwest, and of Python."""
    found = {"eastwest": importlib.metadata.version("eastwest"), "python": platform.python_version()}
    if output == "json":
        click.echo(msgspec.json.encode(found))
    else:
        click.echo(f"eastwest {found['eastwest']} (Python {found['python']})")
