"""`eastwest lab` as a user types it: in one terminal and in another, as root and without."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from compose.command import main
from compose.lab.capability import user_namespace_obstacles
from compose.lab.wires.removing import sweep
from tests.components.presence import missing

pytestmark = pytest.mark.netns

ROOT = Path(__file__).parents[3]
NOBODY = 65534
RUN = "from compose.command import main; main()"

MANIFESTS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, ports: [{name: http, containerPort: 8080}, {containerPort: 53, protocol: UDP}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec: {containers: [{name: client}]}
"""


class Terminal:
    """Runs `eastwest` as one user, with a run directory of the test's own."""

    def __init__(self, folder: Path, *, as_nobody: bool) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "EASTWEST_RUN_DIRECTORY": str(folder / "run"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *(path for path in sys.path if "site-packages" in path)]),
            "HOME": str(folder),
            "COLUMNS": "120",
        }
        # `env` between them: setpriv keeps its rights until its own exec, and would run what the user may not.
        user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "env"] if as_nobody else []
        self.prefix = [*user, python_for(user, self.environment), "-c", RUN]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.prefix, *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    @asynccontextmanager
    async def running(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """`eastwest` with *arguments*, from the moment it says that the lab is up."""
        process = await asyncio.create_subprocess_exec(
            *self.prefix,
            *arguments,
            env=self.environment,
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said = b""
            assert process.stdout is not None
            async with asyncio.timeout(30):
                while b"Ctrl-C ends" not in said:
                    line = await process.stdout.readline()
                    assert line, f"ended before it was up: {said.decode()}"
                    said += line
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


def python_for(user: list[str], environment: dict[str, str]) -> str:
    """A Python that *user* may run; the one of a virtual environment may lie in a home that others cannot enter."""
    check = ["-c", "import msgspec, compose"]
    for candidate in (sys.executable, "/usr/bin/python3"):
        if (
            subprocess.run([*user, candidate, *check], env=environment, capture_output=True, check=False).returncode
            == 0
        ):
            return candidate
    return missing("no Python with eastwest's dependencies can be run by another user", "install Python for all users")


@pytest.fixture(params=["as we are", "as nobody"])
def terminal(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    as_nobody = request.param == "as nobody"
    if as_nobody and (os.geteuid() != 0 or shutil.which("setpriv") is None):
        pytest.skip("only root can become nobody; the other variant runs as this user")
    if as_nobody or os.geteuid() != 0:
        found = user_namespace_obstacles()
        if found:
            missing(found[0].what, found[0].remedy)
    with tempfile.TemporaryDirectory(prefix="eastwest-terminal-") as name:  # pytest's own folders are closed to others
        folder = Path(name)
        (folder / "shop.yaml").write_text(MANIFESTS)
        if as_nobody:
            os.chown(folder, NOBODY, NOBODY)
        try:
            yield Terminal(folder, as_nobody=as_nobody)
        finally:
            sweep(folder / "run")  # a failed test killed the lab's owner


async def test_a_lab_is_up_in_one_terminal_and_probed_from_another(terminal: Terminal) -> None:
    async with terminal.running("lab", "up", "-f", "shop.yaml") as held:
        probed = terminal.run("lab", "probe", "-o", "json")
        assert probed.returncode == 0, probed.stderr
        rows = json.loads(probed.stdout)
        assert len(rows) == 3 * 2 * 2
        assert {row["outcome"] for row in rows} == {"reachable"}
        assert {row["answeredBy"] for row in rows} == {"shop/web-0", "shop/web-1"}

        table = terminal.run("lab", "probe", "--from", "client", "--port", "9")
        assert "✓ reachable" in table.stdout
        assert "shop/client" in table.stdout

        services = json.loads(terminal.run("lab", "probe", "--services", "-o", "json").stdout)
        assert {(row["destination"], row["port"], row["outcome"]) for row in services} == {
            ("service shop/web", 80, "reachable")
        }

        rule = ["iptables", "-t", "mangle", "-A", "PREROUTING", "-p", "tcp", "-j", "DROP"]
        assert terminal.run("lab", "exec", "web-0", "--", *rule).returncode == 0
        rows = json.loads(terminal.run("lab", "probe", "--from", "shop/client", "-o", "json").stdout)
        blocked = {(row["destination"], row["protocol"]) for row in rows if row["outcome"] == "blocked"}
        assert blocked == {("shop/web-0", "TCP")}
        echo = json.loads(terminal.run("lab", "probe", "--port", "echo", "-o", "json").stdout)
        assert {(row["protocol"], row["outcome"]) for row in echo} == {("ICMP", "reachable")}

        listed = terminal.run("lab", "list")
        assert "shop/web-1" in listed.stdout

        down = terminal.run("lab", "down")
        assert down.returncode == 0, down.stderr
        assert await held.wait() == 0
    assert list((terminal.folder / "run").glob("lab-*")) == []


async def test_who_removes_what_a_crashed_lab_left_ends_no_other(terminal: Terminal) -> None:
    async with terminal.running("lab", "up", "-f", "shop.yaml", "--name", "alive") as held:
        crashed = terminal.folder / "run" / "lab-crashed"
        crashed.mkdir()
        swept = terminal.run("lab", "down")
        assert (swept.returncode, swept.stdout) == (0, "removed what was left of lab crashed\n")
        assert not crashed.exists()
        assert "held by process" in terminal.run("lab", "list").stdout
        assert terminal.run("lab", "down").returncode == 0
        assert await held.wait() == 0


def test_without_a_lab_the_commands_say_how_to_start_one(terminal: Terminal) -> None:
    for command in (["probe"], ["exec", "shop/web-0", "--", "true"], ["down"]):
        done = terminal.run("lab", *command)
        assert done.returncode == 1
        assert "eastwest lab up -f" in done.stderr


def test_a_manifest_that_cannot_be_read_is_named(terminal: Terminal) -> None:
    bad = terminal.folder / "bad.yaml"
    bad.write_text("kind: Pod\nmetadata: {name: p}\n---\nkind: Pod\nmetadata: {name: q}\nspec: {containers: 7}\n")
    done = terminal.run("lab", "up", "-f", "bad.yaml")
    assert done.returncode == 1
    assert "bad.yaml, document 2: Pod default/q: Expected `array | null`, got `int`" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_none_is_a_mistake_of_usage(terminal: Terminal) -> None:
    done = terminal.run("lab", "up", "-f", "shop.yaml", "--external", "nowhere")
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [[], ["up"], ["probe"], ["exec"], ["down"], ["list"]])
def test_every_command_has_help(command: list[str]) -> None:
    shown = CliRunner().invoke(main, ["lab", *command, "--help"])
    assert shown.exit_code == 0
    assert "Usage:" in shown.output
