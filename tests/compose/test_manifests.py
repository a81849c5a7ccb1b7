"""What we hand out to be applied fits: the API server takes it, and the commands in it know their settings."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from compose.command import main
from enforcers.settings import EnforcerSettings
from processors.settings import ProcessorSettings
from producers.core.resources import RESOURCES
from producers.settings import KubelinkSettings
from streams.settings import host_and_port, load
from tests.components.kubernetes.control_plane import ControlPlane

ROOT = Path(__file__).parent.parent.parent
MANIFESTS = ROOT / "compose" / "kubernetes"
COMPOSE_FILE = ROOT / "compose" / "stack" / "compose.yaml"
SETTINGS = {"kubelink": KubelinkSettings, "processor": ProcessorSettings, "enforcer": EnforcerSettings}


def objects() -> list[dict[str, Any]]:
    return [
        each
        for path in sorted(MANIFESTS.glob("[0-9]*.yaml"))
        for each in yaml.safe_load_all(path.read_text())
        if each is not None
    ]


def named(kind: str, name: str) -> dict[str, Any]:
    return next(each for each in objects() if each["kind"] == kind and each["metadata"]["name"] == name)


def containers_of_the_manifests() -> Iterator[tuple[list[str], dict[str, str]]]:
    """Arguments and environment of every container of ours."""
    for each in objects():
        for container in each.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ()):
            if not container["image"].startswith("eastwest:"):
                continue
            environment: dict[str, str] = {}
            for source in container.get("envFrom", ()):
                environment |= named("ConfigMap", source["configMapRef"]["name"])["data"]
            environment |= {
                variable["name"]: variable.get("value", "from-field") for variable in container.get("env", ())
            }
            yield container["args"], environment


def services_of_the_compose_file() -> Iterator[tuple[list[str], dict[str, str]]]:
    for service in yaml.safe_load(COMPOSE_FILE.read_text())["services"].values():
        if service["image"].startswith("eastwest:"):
            yield (
                service["command"],
                {name: re.sub(r"\$\{\w+:-(.*?)}", r"\1", str(value)) for name, value in service["environment"].items()},
            )


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [*containers_of_the_manifests(), *services_of_the_compose_file()],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_every_setting_that_is_handed_to_a_role_is_one_of_its_settings(
    arguments: list[str], environment: dict[str, str]
):
    role, *flags = arguments
    load(SETTINGS[role], environment=environment)
    command = main.get_command(click.Context(main), role)
    assert command is not None
    command.make_context(role, flags, resilient_parsing=False).close()


def test_kubelink_takes_turns_by_the_lease_that_it_may_hold():
    environments = {arguments[0]: environment for arguments, environment in containers_of_the_manifests()}
    lease = load(KubelinkSettings, environment=environments["kubelink"]).lease
    rules = named("Role", "kubelink-lease")["rules"]
    assert lease == f"{named('Role', 'kubelink-lease')['metadata']['namespace']}/{rules[1]['resourceNames'][0]}"


def test_no_service_puts_variables_into_our_pods():
    """A Service called eastwest would be ``EASTWEST_PORT`` there, which is none of the settings."""
    templates = [each["spec"]["template"]["spec"] for each in objects() if "template" in each.get("spec", {})]
    assert len(templates) == 5
    assert not any(template.get("enableServiceLinks", True) for template in templates)


def test_kubelink_may_read_the_kinds_it_lists_and_no_other():
    granted = {
        (group, plural)
        for rule in named("ClusterRole", "eastwest-kubelink")["rules"]
        if set(rule["verbs"]) == {"list", "watch"}
        for group in rule["apiGroups"]
        for plural in rule["resources"]
    }
    assert granted == {(resource.group, resource.plural) for resource in RESOURCES.values()}


def gate_of_the_example() -> dict[str, Any]:
    (example,) = yaml.safe_load_all((MANIFESTS / "example-gate.yaml").read_text())
    found: dict[str, Any] = example["spec"]["template"]["spec"]["initContainers"][0]
    return found


def test_the_example_of_a_gate_asks_where_the_manifests_enforcer_listens(monkeypatch):
    name, *flags = gate_of_the_example()["args"]
    command = main.get_command(click.Context(main), name)
    assert command is not None
    (variable,) = gate_of_the_example()["env"]
    monkeypatch.setenv(variable["name"], "192.0.2.1")
    with command.make_context(name, list(flags)) as context:
        assert context.params["host"] == "192.0.2.1"
        environments = {arguments[0]: environment for arguments, environment in containers_of_the_manifests()}
        listen = load(EnforcerSettings, environment=environments["enforcer"]).gate_listen
        assert host_and_port(listen) == ("", context.params["port"])


@pytest.mark.apiserver
async def test_a_namespace_that_admits_only_restricted_pods_admits_the_example_of_a_gate(apiserver: ControlPlane):
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
    await apiserver.api("POST", "/api/v1/namespaces", {"metadata": {"name": "shop", "labels": labels}})
    try:
        flags = ("--dry-run=server", "--validate=strict", "--warnings-as-errors")
        await apiserver.kubectl("apply", "-f", str(MANIFESTS / "example-gate.yaml"), *flags)
    finally:
        await apiserver.kubectl("delete", "namespace", "shop", "--wait=false")


@pytest.mark.apiserver
async def test_a_real_api_server_takes_the_manifests(apiserver: ControlPlane):
    await apiserver.kubectl("apply", "-f", str(MANIFESTS / "00-namespace.yaml"))  # the rest is to be checked in it
    try:
        flags = ("--dry-run=server", "--validate=strict", "--warnings-as-errors")
        words = await apiserver.kubectl("apply", "-k", str(MANIFESTS), *flags)
    finally:
        await apiserver.kubectl("delete", "namespace", "eastwest", "--wait=false")
    assert len(words.splitlines()) == len(objects())
