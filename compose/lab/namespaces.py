"""The lab's namespaces by name: iproute2 keeps them as files of one folder. How they are entered is the enforcer's."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from enforcers.kernel import namespaces

T = TypeVar("T")

RUN_NETNS: Final = namespaces.RUN_NETNS
NoNamespace = namespaces.NoNamespace
CommandFailed = namespaces.CommandFailed


def path_of(namespace: str) -> Path:
    """The file that stands for *namespace*; an empty name is the own one."""
    return RUN_NETNS / namespace if namespace else namespaces.HERE


def inside_each(work: Iterable[tuple[str, Callable[[], T]]]) -> list[T]:
    """As `enforcers.kernel.namespaces.inside_each`, by name."""
    return namespaces.inside_each((path_of(name), function) for name, function in work)


def inside(namespace: str, function: Callable[[], T]) -> T:
    """`inside_each` for one."""
    return inside_each([(namespace, function)])[0]


async def run(namespace: str, command: Sequence[str], text: str = "") -> str:
    """As `enforcers.kernel.namespaces.run`, by name."""
    return await namespaces.run(path_of(namespace), command, text)
