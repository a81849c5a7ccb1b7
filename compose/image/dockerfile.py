"""Reading a Dockerfile: the instructions that ours uses, and no other."""

import json
import re
import shlex
import string
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

KNOWN: Final = ("ARG", "FROM", "RUN", "COPY", "ENV", "WORKDIR", "USER", "ENTRYPOINT", "CMD")


class Unreadable(Exception):
    """Line *number* says *text*, which is not understood here."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"Dockerfile, line {number}: {text!r} is not understood")
        self.number = number
        self.text = text


class Instruction(NamedTuple):
    name: str
    argument: str


def parse(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, continued lines joined. Raises `Unreadable`."""
    return [_instruction(number, line) for number, line in _logical_lines(text)]


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    begun, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        first = first or number
        begun += line
        if begun.endswith("\\"):
            begun = begun[:-1]
            continue
        yield first, begun
        begun, first = "", 0


def _instruction(number: int, line: str) -> Instruction:
    name, _, argument = line.strip().partition(" ")
    if name not in KNOWN or re.match(r"\s*--", argument):
        raise Unreadable(number, line)
    return Instruction(name, argument.strip())


class Configuration:
    """What the instructions that run nothing add up to; begins as an image's without any."""

    def __init__(self) -> None:
        self.environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.directory = "/"
        self._words: dict[str, Any] = {}

    def take(self, instruction: Instruction) -> None:
        """``ENV``, ``WORKDIR``, ``USER``, ``ENTRYPOINT`` and ``CMD``; others pass."""
        match instruction:
            case ("ENV", argument):
                for word in shlex.split(argument):
                    key, _, value = word.partition("=")
                    self.environment[key] = string.Template(value).substitute(self.environment)
            case ("WORKDIR", argument):
                self.directory = argument
            case ("USER", argument):
                self._words["User"] = argument
            case ("ENTRYPOINT", argument):
                self._words["Entrypoint"] = json.loads(argument)
            case ("CMD", argument):
                self._words["Cmd"] = json.loads(argument)

    def described(self) -> dict[str, Any]:
        """As an image's ``config``."""
        environment = [f"{key}={value}" for key, value in self.environment.items()]
        return {**self._words, "Env": environment, "WorkingDir": self.directory}
