"""Settings: one frozen struct per service; from flags, the environment, a TOML file and defaults, in that order.

A field's docstring is its documentation: what, why, unit, default. Durations are floats named ``…_seconds``.

    [processor]                 TOML: a table per service; what all services share stands at the top
    EASTWEST_PROCESSOR_NAME     environment: likewise, the service's name in the variable's
    --name                      flag: only the service's own and the shared ones exist
"""

import ast
import inspect
import textwrap
import tomllib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import msgspec

from schemas.names import checked_cluster

PREFIX: Final = "EASTWEST_"
SECTIONS: Final = ("kubelink", "processor", "enforcer", "up")
"""The services that have settings of their own. Names of one are no mistake to another: they often share a file."""

RESERVED: Final = frozenset({"RUN_DIRECTORY", "USER_NAMESPACE"})
"""Variables (without the prefix) that commands read and services do not."""


class InvalidSettings(ValueError):
    """Everything that is wrong with the settings given, by name; nothing was started."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("invalid settings:\n" + "\n".join(f"  {mistake}" for mistake in mistakes))
        self.mistakes = mistakes


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What every service shares; a service's own struct derives from it and names its ``section``."""

    section: ClassVar[str] = ""

    cluster: str = "default"
    """Name of the cluster, a DNS label; part of every topic, stream and subject. Default: ``default``."""
    kafka: str = ""
    """Kafka's bootstrap servers, ``host:port,…``. Empty (the default): the embedded log."""
    nats: str = ""
    """URL of the NATS server. Empty (the default): the embedded one."""
    data: str = ""
    """Folder of what this machine keeps (embedded log, NATS store). Empty (the default): the user's state folder."""
    log_format: typing.Literal["human", "json"] = "human"
    """How log lines are written: ``human`` (default) or ``json``."""
    log_level: typing.Literal["debug", "info", "warning", "error"] = "info"
    """The least severe log lines that are written. Default: ``info``."""
    listen: str = ""
    """``host:port`` of ``/healthz``, ``/readyz`` and ``/metrics``. Port 0 chooses one; empty (the default): none."""

    def __post_init__(self) -> None:
        checked_cluster(self.cluster)


S = TypeVar("S", bound=Settings)


def load(
    type_: type[S],
    *,
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> S:
    """The settings of one service.

    *flags* by field name (``None``: not given), *environment* as in `os.environ`, *file* TOML. Raises `InvalidSettings`
    with every unknown name and ill-typed value of all sources at once; OSError for a file that cannot be read.
    """
    mistakes: list[str] = []
    given: dict[str, tuple[str, Any, bool]] = {}  # field → (where it was said, value, is it text)
    for where, name, value in _from_file(type_, file, mistakes):
        given[name] = (where, value, False)
    for where, name, text in _from_environment(type_, environment or {}, mistakes):
        given[name] = (where, text, True)
    known = fields(type_)
    for name, value in (flags or {}).items():
        if name not in known:
            mistakes.append(f"--{name.replace('_', '-')}: there is no such setting")
        elif value is not None:
            given[name] = (f"--{name.replace('_', '-')}", value, isinstance(value, str))

    values: dict[str, Any] = {}
    for name, (where, value, is_text) in given.items():
        try:
            values[name] = parse(known[name], value) if is_text else msgspec.convert(value, known[name])
        except (msgspec.ValidationError, ValueError) as error:
            mistakes.append(f"{where}: {error}")
    try:
        settings = type_(**values)
    except (TypeError, ValueError) as error:  # a required field, or fields that do not go together
        mistakes.append(str(error))
    if mistakes:
        raise InvalidSettings(mistakes)
    return settings


def fields(type_: type[Settings]) -> dict[str, Any]:
    """The type of every field, by name, shared ones first."""
    hints = typing.get_type_hints(type_, include_extras=True)
    return {name: hints[name] for name in type_.__struct_fields__}


def host_and_port(text: str) -> tuple[str, int]:
    """Of ``host:port`` or ``[host]:port``; the host may be empty. Raises ValueError."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def documentation(type_: type) -> dict[str, str]:
    """The docstring under every field of a struct, by name, inherited ones included; whitespace made single."""
    found: dict[str, str] = {}
    for owner in reversed(type_.__mro__):
        if not (isinstance(owner, type) and issubclass(owner, msgspec.Struct)) or owner is msgspec.Struct:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                found[field.target.id] = " ".join(text.value.value.split())
    return found


def parse(type_: Any, text: str) -> Any:
    """*text* as a value of *type_*: lists are ``a,b``, mappings ``a=b,c=d``. Raises ValueError where it is none."""
    origin = typing.get_origin(type_)
    if origin in (tuple, list, frozenset):
        return msgspec.convert([part.strip() for part in text.split(",") if part.strip()], type_, strict=False)
    if origin is dict:
        pairs = [part.partition("=") for part in text.split(",") if part.strip()]
        if any(not separator for _, separator, _ in pairs):
            raise ValueError("Expected `name=value,…`")
        return msgspec.convert({key.strip(): value.strip() for key, _, value in pairs}, type_, strict=False)
    return msgspec.convert(text, type_, strict=False)


def _from_file(type_: type[Settings], file: Path | None, mistakes: list[str]) -> Iterator[tuple[str, str, Any]]:
    """The shared values at the top first, then those of the service's table, which therefore win."""
    if file is None:
        return
    try:
        content = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        mistakes.append(f"{file}: not TOML: {error}")
        return
    known, shared = fields(type_), fields(Settings)
    for name, value in content.items():
        if name in SECTIONS:
            continue
        if name in shared:
            yield f"{file}: {name}", name, value
        else:
            mistakes.append(f"{file}: {name}: there is no such setting")
    table = content.get(type_.section, {}) if type_.section else {}
    if not isinstance(table, dict):
        mistakes.append(f"{file}: [{type_.section}] has to be a table")
        return
    for name, value in table.items():
        if name in known:
            yield f"{file}: {type_.section}.{name}", name, value
        else:
            mistakes.append(f"{file}: {type_.section}.{name}: there is no such setting")


def _from_environment(
    type_: type[Settings], environment: Mapping[str, str], mistakes: list[str]
) -> Iterator[tuple[str, str, str]]:
    """Likewise: shared variables first. Sorted, so that shared and own ones never depend on the environment's order."""
    known, shared = fields(type_), fields(Settings)
    own = f"{PREFIX}{type_.section.upper()}_"
    others = tuple(f"{PREFIX}{section.upper()}_" for section in SECTIONS if section != type_.section)
    specific: list[tuple[str, str, str]] = []
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable.startswith(others):
            continue
        if variable.removeprefix(PREFIX) in RESERVED:
            continue
        if type_.section and variable.startswith(own):
            name = variable.removeprefix(own).lower()
            if name in known:
                specific.append((variable, name, text))
            else:
                mistakes.append(f"{variable}: there is no such setting")
        elif (name := variable.removeprefix(PREFIX).lower()) in shared:
            yield variable, name, text
        else:
            mistakes.append(f"{variable}: there is no such setting")
    yield from specific
