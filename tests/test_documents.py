"""What documents and help say of other things can be found there: pages, headings, commands, options."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from compose.command import main

ROOT = Path(__file__).parent.parent
COMMAND = re.compile(r"(?<!-n )(?<![\w/.:-])eastwest ((?:[a-z]|--|<).*)")
END = re.compile(r" #|   +| (?:&&|\||>|2>|--)(?: |$)")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(document: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path):
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        if target.startswith("http"):
            continue
        page, _, heading = target.partition("#")
        found = document.parent / page if page else document
        assert found.exists(), target
        assert not heading or heading in anchors(found), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_and_option_that_a_document_names_exists(document: Path):
    text = document.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    code = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    for said in [*code, *re.findall(r"`([^`\n]+)`", text)]:
        check(said)


def test_every_example_in_the_help_of_a_command_exists():
    seen = 0
    for command in everything(main):
        for line in (command.epilog or "").replace("\\\n", " ").splitlines():
            seen += check(line)
    assert seen > 50


def everything(command: click.Command) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from everything(found)


def check(line: str) -> bool:
    """Whether *line* runs eastwest; then the command and all its options exist.

    A word that is no command's name (``POD``, ``…``, ``<role>``) stands for something.
    """
    found = COMMAND.search(line)
    if found is None:
        return False
    words = END.split(found[1])[0].split()
    command: click.Command = main
    known = {"-h", "--help"}
    for word in words:
        if word.startswith("-"):
            assert word in known, f"{word} in: {line.strip()}"
        elif isinstance(command, click.Group) and re.fullmatch("[a-z-]+", name := word.rstrip(",;")):
            inner = command.get_command(click.Context(command), name)
            assert inner is not None, f"{name} in: {line.strip()}"
            command = inner
            known |= {option for each in inner.params for option in (*each.opts, *each.secondary_opts)}
    return True
