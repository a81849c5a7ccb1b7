"""The `eastwest` command: a table of its parts, each imported when it is asked for."""

import importlib
from typing import Any, Final, NamedTuple

import click
from click.shell_completion import CompletionItem


class Part(NamedTuple):
    """Where a command lives, and what it is for."""

    place: str
    """``module:name``"""
    help: str


PARTS: Final = {
    "demo": Part("compose.demo.command:demo", "A small shop: policies become rules that stop real packets, here."),
    "up": Part("compose.up.command:up", "Everything in one process, against a cluster."),
    "get": Part("compose.reading.get:get", "Show the inventory, and the rules of a Pod."),
    "events": Part("compose.reading.event_log.audit:events", "What happened: list or follow the event log."),
    "export": Part("compose.reading.event_log.exporting:export", "Write a slice of the log to a file."),
    "replay": Part(
        "compose.reading.event_log.replaying:replay", "Fold a file as the PCE would; print reports and programs."
    ),
    "wait": Part("compose.waiting.command:wait", "Until every node has realized a revision, or a change of an object."),
    "check": Part("compose.checking.command:check", "Test policies: case files, expected verdicts."),
    "lab": Part("compose.lab.command:lab", "Pods as network namespaces on this machine, without a cluster."),
    "doctor": Part("compose.doctor.command:doctor", "Can this machine enforce? What to do if not."),
    "kubelink": Part("compose.roles.kubelink:kubelink", "Run the producer: the cluster's events to the log."),
    "processor": Part("compose.roles.processor:processor", "Run the PCE: the log to inventory and policy."),
    "enforcer": Part("compose.roles.enforcer:enforcer", "Run the C-VEN of this node: policy to rules."),
    "node": Part("compose.node.command:node", "On a node: ask its enforcer, verify, pause, break-glass."),
    "gate": Part(
        "compose.waiting.gate:gate", "In an init container: hold a Pod until its rules and its peers are ready."
    ),
    "uninstall": Part("compose.roles.uninstall:uninstall", "Remove every rule and set of ours from this node's Pods."),
    "schema": Part("compose.reading.schema:schema", "The JSON Schema of what travels."),
    "completion": Part("compose.completion:completion", "The script that completes commands in your shell."),
    "version": Part("compose.version:version", "Print the version."),
}

EXAMPLES: Final = """\b
Examples:
  eastwest demo                                  see it work on this machine
  eastwest up --observe                          inventory and plan of the current cluster
  eastwest get container-workloads -n shop -w    follow the Pods of a namespace
  eastwest get programs shop/web-7d4f            a Pod's rules, and the policy behind each
  eastwest events --since 1h --kind NetworkPolicy
"""


class LazyGroup(click.Group):
    """Knows its commands by a table; imports one only to run it or to show its own help."""

    def __init__(self, *arguments: Any, parts: dict[str, Part], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parts = parts

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.parts)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        part = self.parts.get(cmd_name)
        if part is None:
            return None
        module, _, name = part.place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, part.help) for name, part in self.parts.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [
            CompletionItem(name, help=part.help) for name, part in self.parts.items() if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


@click.command(cls=LazyGroup, parts=PARTS, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """See and control east-west traffic in Kubernetes: which workload may talk to which."""
