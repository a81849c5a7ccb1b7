"""A case in the other address family: every IPv4 address and block becomes an IPv6 one, and nothing else changes.

Suites are written in IPv4, and all that they say holds in IPv6 as well. So each of their cells is a test of it.
"""

import ipaddress
from typing import Any, Final

import msgspec

from compose.checking.suites.cases import Action, Case, Cell, Step
from compose.checking.suites.history import implied_nodes

PREFIX: Final = ipaddress.IPv6Network("fd04::/96")
"""Where the whole of IPv4 is mapped to."""
EVERYTHING: Final = "0.0.0.0/0"
FAMILY_NAMES: Final = {"IPv4": "IPv6"}
"""As Services and EndpointSlices say it."""


class SpeaksBoth(Exception):
    """The case has IPv6 addresses already: it means what it says."""


def in_ipv6(case: Case) -> Case:
    """*case* with IPv6 in the place of IPv4; one that itself tells the families apart stays as it is."""
    try:
        return Case(
            id=case.id,
            name=case.name,
            initial=tuple(map(_moved, (*implied_nodes(case), *case.initial))),
            steps=tuple(_step(step) for step in case.steps),
            unsupported=case.unsupported,
            notes=case.notes,
            tags=case.tags,
        )
    except SpeaksBoth:
        return case


def _step(step: Step) -> Step:
    actions = tuple(Action(action.verb, _moved(action.object)) for action in step.actions)
    return Step(step.name, actions, tuple(map(_cell, step.cells)))


def _cell(cell: Cell) -> Cell:
    return msgspec.structs.replace(cell, source=_text(cell.source), destination=_text(cell.destination))


def _moved(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _moved(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_moved(item) for item in data]
    return _text(data) if isinstance(data, str) else data


def _text(text: str) -> str:
    if text == EVERYTHING:
        return "::/0"
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return FAMILY_NAMES.get(text, text)
    if found.version == 6:
        raise SpeaksBoth
    address, slash, length = text.partition("/")
    moved = PREFIX[int(ipaddress.IPv4Address(address))]
    return f"{moved}/{PREFIX.prefixlen + int(length)}" if slash else str(moved)
