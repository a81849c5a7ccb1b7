"""The command: its few own options, and the settings of the services it runs."""

import asyncio
import os
from pathlib import Path
from typing import Any

import click

from compose.contexts import DEFAULT
from compose.roles.running import run_service
from compose.up.running import Roles, run_everything
from enforcers.settings import EnforcerSettings
from processors.settings import ProcessorSettings
from producers.settings import KubelinkSettings
from streams.settings import InvalidSettings, load
from streams.telemetry import set_up_logging

EXAMPLES = """\b
Examples:
  eastwest up --observe                       inventory and plan of the current kubeconfig context, nothing else
  eastwest up --node worker-1                 and enforce in the Pods of this node
  eastwest up --observe --manifests shop/     what these manifests would give, without a cluster
  eastwest up --observe --context dev         another context of the kubeconfig; `eastwest get … --context dev` finds it

All settings of the roles can be given as well, in the environment (EASTWEST_KUBELINK_…, EASTWEST_PROCESSOR_…,
EASTWEST_ENFORCER_…) or as tables of the --config file.
"""


@click.command(epilog=EXAMPLES)
@click.option("--observe", is_flag=True, help="Inventory and plan; program nothing.")
@click.option("--context", help="Context of the kubeconfig, and the name by which other commands find this.")
@click.option("--cluster", help="Name of the cluster, a DNS label.")
@click.option("--kubeconfig", help="Kubeconfig file. Default: as kubectl.")
@click.option("--manifests", help="Files or folders, comma-separated, instead of an API server.")
@click.option("--node", help="The Kubernetes name of the node this runs on. Default: the host's name.")
@click.option("--runtime", help="Socket of the node's container runtime.")
@click.option("--data", help="Folder of the log and the bus. Default: the user's state folder.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="TOML file with settings.")
@click.option("--verbose", is_flag=True, help="Log what every part does.")
def up(*, observe: bool, context: str | None, config: Path | None, verbose: bool, **given: str | None) -> None:
    """Run Kubelink, the PCE and this node's C-VEN in one process, with an embedded log and bus, until Ctrl-C.

    Other commands find it by themselves: `eastwest get`, `events`, `export`. Rules stay when it stops;
    `eastwest uninstall` removes them.
    """
    roles = _load({**given, "context": _kube_context(context, given)}, observe=observe, config=config)
    set_up_logging("human", "info" if verbose else "warning")
    run_service(asyncio.run, run_everything(roles, context or DEFAULT))


def _kube_context(name: str | None, given: dict[str, str | None]) -> str | None:
    """*name* where the kubeconfig knows it. Otherwise it is only a name: the current context is read, and said."""
    if name is None or given["manifests"]:
        return None
    from kubernetes_asyncio.config import ConfigException, list_kube_config_contexts

    try:
        known, current = list_kube_config_contexts(given["kubeconfig"])
    except (ConfigException, OSError, TypeError):  # whoever reads the cluster will say what is wrong with it
        return None
    if name in (each["name"] for each in known or ()):
        return name
    reading = current["name"] if current else "none"
    click.echo(f"the kubeconfig has no context {name!r}; reading its current one, {reading!r}", err=True)
    return None


def _load(given: dict[str, str | None], *, observe: bool, config: Path | None) -> Roles:
    """The settings of all roles; their mistakes are told together. Raises `click.UsageError`."""
    shared = {"cluster": given["cluster"], "data": given["data"]}
    own: dict[type[Any], dict[str, Any]] = {
        KubelinkSettings: {
            "kubeconfig": given["kubeconfig"],
            "context": given["context"],
            "manifests": given["manifests"],
        },
        ProcessorSettings: {},
        EnforcerSettings: {"node": given["node"], "runtime": given["runtime"], "observe": observe or None},
    }
    loaded: list[Any] = []
    mistakes: list[str] = []
    for type_, flags in own.items():
        try:
            loaded.append(load(type_, flags={**shared, **flags}, environment=os.environ, file=config))
        except InvalidSettings as error:
            mistakes += error.mistakes
    if mistakes:
        raise click.UsageError(str(InvalidSettings(list(dict.fromkeys(mistakes)))))
    return Roles(*loaded)
