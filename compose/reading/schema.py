"""`eastwest schema`: what travels, for whoever reads it with other tools."""

import typing
from typing import Any, Final

import click
import msgspec
import msgspec.structs

from compose.reading import output as printing
from schemas import events, gate, objects, policy, programs, reports, status
from streams.settings import documentation

TYPES: Final[dict[str, Any]] = {
    "event": events.Event,
    "epoch": events.EpochStart,
    "cluster": events.ClusterInfo,
    **{f"object-{kind.lower()}": type_ for kind, type_ in objects.TYPES.items()},
    "program": programs.Program,
    "set-message": policy.SetMessage,
    "mark": policy.Mark,
    "fence": policy.Fence,
    **{f"report-{prefix}": type_ for prefix, type_ in reports.PREFIXES.items()},
    "status": status.Status,
    "enforcement": status.Enforcement,
    "gate": gate.GateAnswer,
}

REPORT_PARTS: Final = (
    reports.ContainerState,
    reports.VirtualPort,
    reports.Backend,
    reports.Trouble,
    status.PodDetail,
    status.ContainerDetail,
)

REPORTS_TITLE: Final = """\
# The five reports

Values of the key-value bucket `inventory-<cluster>`, JSON. Written by `eastwest schema reports`; do not edit.

They hold only what changes when the cluster changes. `eastwest get` joins what components say of themselves (heartbeat,
lag, realized revision, containers as the node's runtime reports them), which travels as status, under `status`."""

EXAMPLES: Final = """\b
Examples:
  eastwest schema                 every type, with what it is
  eastwest schema event           the JSON Schema of an event
  eastwest schema reports         the fields of the five reports, as Markdown (docs/reports.md)
"""


@click.command(epilog=EXAMPLES)
@click.argument("name", type=click.Choice([*TYPES, "reports"]), required=False, metavar="[NAME]")
def schema(name: str | None) -> None:
    """Print the JSON Schema of what travels: events, programs, address sets, marks, reports and status."""
    if name is None:
        click.echo("\n".join(printing.aligned([(key, _purpose(type_)) for key, type_ in TYPES.items()])))
    elif name == "reports":
        click.echo(report_tables())
    else:
        click.echo(printing.document(msgspec.json.schema(_described(TYPES[name])), "json"))


def _purpose(type_: Any) -> str:
    if members := typing.get_args(type_):
        return f"One of {', '.join(member.__name__ for member in members)}."
    text = (vars(type_).get("__doc__") or "").strip().partition("\n")[0]
    return text or f"The fields of a {type_.__name__} that travel."


def _described(type_: Any) -> Any:
    """*type_*, with fields that hold JSON as it came described as objects: see the schema of their own kind."""
    if typing.get_args(type_) or not any(field.type is msgspec.Raw for field in msgspec.structs.fields(type_)):
        return type_
    found: list[tuple[str, Any, Any]] = [
        (field.encode_name, dict[str, Any] if field.type is msgspec.Raw else field.type, _default(field))
        for field in msgspec.structs.fields(type_)
    ]
    return msgspec.defstruct(type_.__name__, found, kw_only=True, namespace={"__doc__": type_.__doc__})


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.type is msgspec.Raw:
        return msgspec.field(default_factory=dict)
    return msgspec.field() if field.required else msgspec.field(default=field.default)


def report_tables() -> str:
    """The five reports' fields in Markdown, from their docstrings: ``docs/reports.md``."""
    parts = [REPORTS_TITLE]
    for prefix, type_ in reports.PREFIXES.items():
        parts.append(f"## {type_.title} (`{prefix}`)\n\n{_purpose(type_)}\n\n{_fields(type_)}")
    parts.append("# What is in them, and in a Pod's `status`")
    parts.extend(f"## {part.__name__}\n\n{_purpose(part)}\n\n{_fields(part)}" for part in REPORT_PARTS)
    return "\n\n".join(parts).replace("``", "`")  # code in docstrings is marked as in reStructuredText


def _fields(type_: Any) -> str:
    texts = documentation(type_)
    rows = (f"| `{field}` | {texts.get(field, '')} |" for field in type_.__struct_fields__)
    return "\n".join(("| field | what it says |", "| --- | --- |", *rows))
