"""Which lab, which Pod: what the commands of `compose.lab.command` share."""

import contextlib
from collections.abc import Iterator
from typing import Final

import click

from compose.lab import state
from compose.lab.capability import NotCapable, ensure_capable, join
from compose.lab.cluster.manifests import InvalidManifest
from compose.lab.namespaces import CommandFailed, NoNamespace
from compose.lab.plan import Plan
from compose.lab.wires.checking import NotClosed, NotReady
from streams.lifecycle import leaves

EXPLAINED: Final = (
    NotCapable,
    InvalidManifest,
    NotClosed,
    NotReady,
    CommandFailed,
    NoNamespace,
    PermissionError,
    FileNotFoundError,
)
"""Errors whose message says all that a user needs."""


def running_lab(name: str) -> tuple[str, state.State]:
    """The lab called *name*, or the only one; raises `click.ClickException` where that is not one."""
    alive = {
        each: known
        for each, known in state.labs(state.run_directory()).items()
        if known is not None and state.alive(known.owner)
    }
    if name and name not in alive:
        raise click.ClickException(f"no lab {name} runs here; running: {', '.join(alive) or 'none'}")
    if not alive:
        raise click.ClickException("no lab runs here; start one with: eastwest lab up -f MANIFESTS")
    if not name and len(alive) > 1:
        raise click.ClickException(f"several labs run here; choose one with --name: {', '.join(alive)}")
    chosen = name or next(iter(alive))
    return chosen, alive[chosen]


def running_plan(name: str) -> Plan:
    """The plan of the running lab, after entering the user namespace in which it runs."""
    _, known = running_lab(name)
    join(known.owner)
    ensure_capable()
    return known.plan


def pod_key(plan: Plan, text: str) -> str:
    """The ``namespace/name`` that *text* means: all of it, or a name that only one Pod has."""
    keys = [pod.key for pod in plan.pods] + list(plan.externals)
    found = [key for key in keys if key == text] or [key for key in keys if key.partition("/")[2] == text]
    if len(found) != 1:
        raise click.ClickException(
            f"{'several Pods are' if found else 'no Pod is'} called {text}; there are {', '.join(keys)}"
        )
    return found[0]


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Errors that the user can do something about, as one message."""
    try:
        yield
    except (ExceptionGroup, ValueError, *EXPLAINED) as error:
        causes = leaves(error)
        message = "; ".join(dict.fromkeys(map(str, causes)))
        if all(isinstance(cause, EXPLAINED) for cause in causes):
            raise click.ClickException(message) from error
        if all(isinstance(cause, (ValueError, *EXPLAINED)) for cause in causes):
            raise click.UsageError(message) from error
        raise
