"""Answers for people: a matrix with a row per source and a column per destination and port."""

from collections.abc import Mapping
from typing import Final

from rich.table import Table
from rich.text import Text

from compose.lab.matrix import Cell
from compose.lab.plan import Plan
from compose.lab.probing import Answer, Outcome

SIGNS: Final = {
    Outcome.REACHABLE: ("✓", "green"),
    Outcome.BLOCKED: ("✗", "red"),
    Outcome.REFUSED: ("!", "yellow"),
    Outcome.UNREACHABLE: ("∅", "magenta"),
}
LEGEND: Final = "✓ reachable   ✗ blocked   ! refused   ∅ no way there"


def matrix_table(answers: Mapping[Cell, Answer]) -> Table:
    """Who reaches whom. Pairs that were not asked stay empty."""
    columns = list(dict.fromkeys((cell.destination, cell.protocol, cell.port) for cell in answers))
    sources = list(dict.fromkeys(cell.source for cell in answers))
    table = Table(caption=LEGEND, header_style="bold")
    table.add_column("from ↓  to →", no_wrap=True)
    for destination, protocol, port in columns:
        where = destination.replace("/", "/\n")
        table.add_column(f"{where}\n{port_text(protocol, port)}", justify="center")
    for source in sources:
        row = [Text(source)]
        for destination, protocol, port in columns:
            answer = answers.get(Cell(source=source, destination=destination, protocol=protocol, port=port))
            row.append(Text(*SIGNS[answer.outcome]) if answer else Text(""))
        table.add_row(*row)
    return table


def port_text(protocol: str, port: int) -> str:
    """``80``, or ``UDP/53``: TCP goes without saying; ``echo`` for ICMP."""
    if protocol == "ICMP":
        return "echo"
    return str(port) if protocol == "TCP" else f"{protocol}/{port}"


def rows(answers: Mapping[Cell, Answer]) -> list[dict[str, str | int]]:
    """The same for programs: one object per question."""
    return [
        {
            "source": cell.source,
            "destination": cell.destination,
            "protocol": cell.protocol,
            "port": cell.port,
            "outcome": answer.outcome.value,
            "answeredBy": answer.by,
        }
        for cell, answer in answers.items()
    ]


def pods_table(plan: Plan) -> Table:
    """What a lab consists of."""
    table = Table(header_style="bold")
    for head in ("Pod", "node", "addresses", "ports"):
        table.add_column(head)
    for planned in plan.pods:
        ports = ", ".join(port_text(protocol, port) for protocol, port in planned.pod.ports)
        table.add_row(planned.key, planned.pod.node, " ".join(planned.pod.addresses), ports)
    return table
