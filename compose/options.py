"""A service's settings as command-line options: one flag per field, its docstring as the help."""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from streams.settings import InvalidSettings, Settings, documentation, fields, load

S = TypeVar("S", bound=Settings)


def with_settings(type_: type[S]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the flags of *type_* and ``--config``, and the settings loaded as its first argument.

    Flags beat the environment, which beats the file, which beats defaults; mistakes of all are told at once.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        known = fields(type_)

        @wraps(command)
        def configure(config: Path | None, **values: Any) -> Any:
            flags = {name: values.pop(name) for name in known}
            try:
                settings = load(type_, flags=flags, environment=os.environ, file=config)
            except InvalidSettings as error:
                raise click.UsageError(str(error)) from None
            return command(settings, **values)

        texts = documentation(type_)
        for name, field in reversed(known.items()):
            # Without a type: `load` parses all sources alike, and tells all mistakes at once.
            form: dict[str, Any] = {"is_flag": True, "flag_value": "true"} if field is bool else {"type": str}
            flag = f"--{name.replace('_', '-')}"
            configure = click.option(flag, name, default=None, help=texts.get(name, "").replace("``", "`"), **form)(
                configure
            )
        return click.option(
            "--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="TOML file with settings."
        )(configure)

    return decorate
