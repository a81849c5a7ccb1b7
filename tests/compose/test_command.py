import os
import subprocess
import sys
from importlib.util import find_spec

import click
import pytest
from click.testing import CliRunner

from compose import contexts, targets
from compose.command import PARTS, main
from compose.options import with_settings
from streams.settings import Settings


def test_help_names_every_command_and_imports_none_of_them():
    loaded = "import sys; from click.testing import CliRunner; from compose.command import main;"
    check = "print(CliRunner().invoke(main, ['--help']).output); print(sorted(sys.modules))"
    output = subprocess.run([sys.executable, "-c", loaded + check], capture_output=True, text=True, check=True).stdout
    for name in PARTS:
        assert f"\n  {name} " in output
    for heavy in ("aiokafka", "nats.aio", "pyroute2", "kubernetes_asyncio", "aiohttp"):
        assert f"'{heavy}'" not in output


def test_the_version_is_printed():
    result = CliRunner().invoke(main, ["version", "-o", "json"])
    assert result.exit_code == 0
    assert '"eastwest":"' in result.output


def test_a_shell_gets_its_completion_and_completes_commands_without_importing_them():
    assert "_EASTWEST_COMPLETE" in CliRunner().invoke(main, ["completion", "bash"]).output
    environment = {"_EASTWEST_COMPLETE": "bash_complete", "COMP_WORDS": "eastwest uninst", "COMP_CWORD": "1"}
    assert "uninstall" in CliRunner(env=environment).invoke(main, prog_name="eastwest").output


def test_a_running_stack_is_found_by_its_runtime_file_and_only_while_it_runs(tmp_path):
    one = contexts.Context(name="one", cluster="c", nats="nats://secret@localhost", pid=1)
    with contexts.announced(one, tmp_path) as file:
        assert file.stat().st_mode & 0o077 == 0
        assert contexts.find(None, tmp_path).nats == one.nats
        two = contexts.Context(name="two", pid=1)
        with contexts.announced(two, tmp_path):
            assert contexts.find("two", tmp_path).name == two.name
            with pytest.raises(contexts.NoContext, match="several stacks run here"):
                contexts.find(None, tmp_path)
    with pytest.raises(contexts.NoContext, match="no stack runs here"):
        contexts.find(None, tmp_path)


def test_a_file_left_by_a_killed_process_is_passed_over_and_replaced(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / "default.json").write_bytes(b'{"pid":%d}' % ended.pid)
    assert contexts.running(tmp_path) == []
    with contexts.announced(contexts.Context(pid=1), tmp_path):
        assert contexts.find(None, tmp_path).pid == 1
        with (
            pytest.raises(FileExistsError, match="in use by process 1"),
            contexts.announced(contexts.Context(pid=2), tmp_path),
        ):
            pass


def test_a_stack_that_starts_removes_what_killed_ones_left_even_if_their_pid_was_given_again(tmp_path):
    (tmp_path / "gone.json").write_bytes(b'{"name":"gone","pid":%d,"started":1}' % os.getpid())
    (tmp_path / f"half.{2**22 + 1}").write_bytes(b'{"na')  # beyond the largest pid
    assert contexts.running(tmp_path) == []
    with contexts.announced(contexts.Context(pid=os.getpid()), tmp_path):
        assert [file.name for file in tmp_path.iterdir()] == ["default.json"]


def test_what_is_named_beats_what_runs_here(tmp_path, monkeypatch):
    monkeypatch.setattr(contexts, "runtime_folder", lambda: tmp_path)
    nothing = dict.fromkeys(("context", "cluster", "kafka", "log", "nats"))
    with pytest.raises(click.UsageError, match="no stack runs here"):
        targets.resolve(**nothing)
    assert targets.resolve(**nothing | {"kafka": "k:9092"}) == targets.Target(kafka="k:9092")
    running = contexts.Context(cluster="here", log="/l", nats="nats://n", pid=1)
    with contexts.announced(running, tmp_path):
        assert targets.resolve(**nothing) == targets.Target(cluster="here", log="/l", nats="nats://n")
        assert targets.resolve(**nothing | {"context": "default", "kafka": "k"}).log == ""
    with pytest.raises(click.UsageError, match="DNS label"):
        targets.resolve(**nothing | {"cluster": "A", "nats": "x"})


def test_every_setting_of_a_service_is_a_documented_flag(monkeypatch):
    class Sample(Settings, frozen=True, kw_only=True):
        quiet: bool = False
        """Says less."""
        drain_seconds: float = 1.0
        """How long it drains."""

    @click.command()
    @with_settings(Sample)
    def command(settings):
        click.echo(repr((settings.quiet, settings.drain_seconds, settings.cluster)))

    monkeypatch.setenv("EASTWEST_CLUSTER", "c")
    assert CliRunner().invoke(command, ["--quiet", "--drain-seconds", "2"]).output == "(True, 2.0, 'c')\n"
    assert "How long it drains." in CliRunner().invoke(command, ["--help"]).output
    wrong = CliRunner().invoke(command, ["--drain-seconds", "soon"])
    assert wrong.exit_code == 2
    assert "--drain-seconds: Expected `float`" in wrong.output


def is_here(place: str) -> bool:
    try:
        return find_spec(place.partition(":")[0]) is not None
    except ModuleNotFoundError:  # not even its package
        return False


@pytest.mark.parametrize("name", [name for name, part in PARTS.items() if is_here(part.place)])
def test_every_part_that_is_here_has_help(name):
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Usage: main {name}")
