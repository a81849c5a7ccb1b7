"""`eastwest check`: policy testing."""

import fnmatch
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, get_args

import click
import uvloop
from msgspec.structs import replace

from compose.checking import reporting
from compose.checking.engines.chain import Chain
from compose.checking.engines.interpreter import Interpreter
from compose.checking.engines.playing import Engine, play_all
from compose.checking.engines.results import CaseResult, FileCase, totals
from compose.checking.suites.cases import Case, CaseError
from compose.checking.suites.families import in_ipv6
from compose.checking.suites.files import read_cases
from compose.lab.capability import ensure_capable
from compose.lab.choosing import explained
from compose.lab.command import raise_file_limit
from enforcers.kernel.rules.chain_backends import ChainBackendName
from enforcers.kernel.sets.set_backends import BackendName
from enforcers.settings import EnforcerSettings
from streams.child_process import ChildEnded
from streams.errors import StreamError
from streams.nats.nats_child import NatsNotReady
from streams.telemetry import set_up_logging

PARALLEL: Final = {"interpreter": 4, "packets": 3}
"""Cases at a time, by engine: while some wait, for the network or for silence, others work."""

EXAMPLES: Final = """\b
Examples:
  eastwest check policies.yaml                        what the compiled policy says
  eastwest check policies.yaml --engine packets       what real packets do, in namespaces of this machine
  eastwest check policies.yaml --engine packets -6    the same in IPv6
  eastwest check cases/*.jsonl --only '*egress*' --junit report.xml
  eastwest check cases.jsonl -o json | jq .summary

\b
A case in the short form:
  case: only the client may connect
  pods:
    shop/client: {labels: {app: client}}
    shop/web: {labels: {app: web}}
    shop/stranger:
  policies:
    shop/web:
      podSelector: {matchLabels: {app: web}}
      ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]
  allow: [shop/client -> shop/web 80]
  deny: [shop/stranger -> shop/web 80]
"""


class Unreadable(click.ClickException):
    """A file that holds no cases, or a case that says what cannot be."""

    exit_code = 2


@click.command(epilog=EXAMPLES)
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=click.Path(path_type=Path))
@click.option(
    "--engine",
    type=click.Choice(["interpreter", "packets"]),
    default="interpreter",
    show_default=True,
    help="Who judges: the programs that reach the nodes, or packets between real namespaces.",
)
@click.option(
    "--set-backend",
    type=click.Choice(get_args(BackendName)),
    help="With packets: how enforcers change address sets. Default: as enforcers do.",
)
@click.option(
    "--chain-backend", type=click.Choice(get_args(ChainBackendName)), help="With packets: how they write rules."
)
@click.option("-6", "ipv6", is_flag=True, help="Play cases that are written in IPv4 in IPv6.")
@click.option("--only", metavar="PATTERN", help="Only cases whose id, name or a tag fits (* and ?), or contains it.")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Also write JUnit XML.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--parallel", type=click.IntRange(min=1), metavar="N", help="Cases at a time.")
def check(
    *,
    files: Sequence[Path],
    engine: str,
    set_backend: BackendName | None,
    chain_backend: ChainBackendName | None,
    ipv6: bool,
    only: str | None,
    junit: Path | None,
    output: str,
    parallel: int | None,
) -> None:
    """Test policies: play each FILE's cases through log, folds, NATS and readers, and compare every connection.

    Files are JSON lines or YAML. Exits with 1 if any connection came out wrong, with 2 for a file it cannot read.
    """
    backends = {"set_backend": set_backend, "chain_backend": chain_backend}
    chosen = {name: backend for name, backend in backends.items() if backend is not None}
    if chosen and engine != "packets":
        options = " and ".join(f"--{name.replace('_', '-')}" for name in chosen)
        raise click.UsageError(f"{options}: chooses how packets are judged; without --engine packets none are")
    if engine == "packets":
        with explained():
            ensure_capable()
            raise_file_limit()
    set_up_logging(level="error")
    try:
        cases = [given for given in read_files(files, ipv6=ipv6) if only is None or fits(given.case, only)]
    except OSError as error:
        raise Unreadable(f"{error.filename}: {error.strerror}") from None
    except CaseError as error:
        raise Unreadable(str(error)) from None
    try:
        with reporting.Reporter(len(cases), text=output == "text") as reporter:
            results = uvloop.run(
                run(engine, cases, parallel or PARALLEL[engine], reporter, replace(EnforcerSettings(), **chosen))
            )
    except CaseError as error:
        raise Unreadable(str(error)) from None
    except (StreamError, ChildEnded, NatsNotReady) as error:
        raise click.ClickException(str(error)) from None
    if junit is not None:
        reporting.write_junit(junit, results)
    click.echo(reporting.document(results) if output == "json" else "\n".join(reporting.closing(results)))
    if totals(results).wrong:
        raise SystemExit(1)


def read_files(files: Sequence[Path], *, ipv6: bool = False) -> list[FileCase]:
    """Every case of *files*, or what it is in IPv6. Raises `CaseError`, `OSError`."""
    return [FileCase(str(path), in_ipv6(case) if ipv6 else case) for path in files for case in read_cases(path)]


def fits(case: Case, pattern: str) -> bool:
    """Whether *pattern* means *case*."""
    whole = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return any(fnmatch.fnmatchcase(word.lower(), whole.lower()) for word in (case.id, case.name, *case.tags))


async def run(
    engine: str,
    cases: Sequence[FileCase],
    parallel: int,
    reporter: reporting.Reporter,
    settings: EnforcerSettings,
) -> list[CaseResult]:
    """Play *cases*, *parallel* at a time; *settings* are those of C-VENs, where there are any."""
    async with engines(engine, min(parallel, max(1, len(cases))), settings) as players:
        return await play_all(players, cases, reporter.tell)


@asynccontextmanager
async def engines(name: str, count: int, settings: EnforcerSettings) -> AsyncGenerator[list[Engine]]:
    """*count* engines over one chain, which leave nothing behind."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="eastwest-check-"))
        chain = await stack.enter_async_context(Chain(Path(folder)))
        if name == "interpreter":
            yield [Interpreter(chain) for _ in range(count)]
            return
        from compose.checking.engines.packets import Packets

        yield [await stack.enter_async_context(Packets(chain, settings)) for _ in range(count)]
