"""`eastwest completion`."""

import click
from click.shell_completion import get_completion_class

NAME = "eastwest"


@click.command(epilog="\b\nExample:\n  eastwest completion bash > ~/.local/share/bash-completion/completions/eastwest")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes eastwest's commands in SHELL."""
    from compose.command import main

    found = get_completion_class(shell)
    assert found is not None, "click knows every shell in the choice"
    click.echo(found(main, {}, NAME, f"_{NAME.upper()}_COMPLETE").source())
