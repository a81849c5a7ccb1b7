"""`eastwest gate`: what an init container runs, so that nothing of its Pod starts before the rules and its peers do.

It asks the enforcer of its own node, which knows it by its address, again and again until it may start or the limit
has passed. Nothing but the standard library's client: this starts with every Pod.
"""

import http.client
import signal
import sys
import time
from collections.abc import Callable
from typing import Final, NoReturn

import click
import msgspec

from schemas.gate import GATE_PATH, GATE_PORT, LONGEST_WAIT_SECONDS, GateAnswer, decode_gate_answer

ANSWER_SECONDS: Final = 1.0
"""What an answer may take beyond the time it was asked to wait."""
AGAIN_SECONDS: Final = 0.25
"""Between two questions where the enforcer could not or would not wait."""
TERMINATED: Final = 128 + signal.SIGTERM

EXAMPLES: Final = """\b
Examples, as the command of an init container (EASTWEST_HOST_IP from the downward API's status.hostIP):
  eastwest gate                                       30 s, then it fails, and the kubelet tries again
  eastwest gate --timeout 10 --on-timeout open        10 s, then the Pod starts as it would without
"""

Ask = Callable[[float], GateAnswer]
"""Asks once; the answer may take about so many seconds."""


@click.command(epilog=EXAMPLES)
@click.option(
    "--host",
    envvar="EASTWEST_HOST_IP",
    show_envvar=True,
    required=True,
    metavar="ADDRESS",
    help="The own node's (status.hostIP).",
)
@click.option("--port", default=GATE_PORT, show_default=True, help="Of its enforcer (gate_listen).")
@click.option(
    "--timeout", default=30.0, show_default=True, type=click.FloatRange(min=0), help="Seconds until it gives up."
)
@click.option(
    "--on-timeout",
    type=click.Choice(["closed", "open"]),
    default="closed",
    show_default=True,
    help="Then: fail, or let the Pod start all the same.",
)
def gate(host: str, port: int, timeout: float, on_timeout: str) -> None:
    """Wait until this Pod's node has written its rules and every node that is online knows its address.

    Ends with 0 when the Pod may start, else with 1; what was missing is said on standard error.
    """
    signal.signal(signal.SIGTERM, _end)  # the first process of a container has no default for it

    def ask(seconds: float) -> GateAnswer:
        return ask_enforcer(host, port, seconds)

    answer = wait(ask, timeout)
    if answer.open:
        click.echo(f"open: {answer.pod or 'the host network'} is {answer.holds}, and every node online knows it")
        return
    missing = "; ".join(answer.missing)
    if on_timeout == "open":
        click.echo(f"not all was there after {timeout:g} s, and it opens all the same: {missing}", err=True)
        return
    click.echo(f"closed: not all was there after {timeout:g} s: {missing}", err=True)
    sys.exit(1)


def _end(*_: object) -> NoReturn:
    sys.exit(TERMINATED)


def wait(ask: Ask, timeout: float) -> GateAnswer:
    """The first answer that is open, or the last one within *timeout* seconds; says what is missing as it changes."""
    limit = time.monotonic() + timeout
    told: tuple[str, ...] = ()
    patience = 0.0  # until nothing new is told: it may have to look itself for what it can tell
    while True:
        began = time.monotonic()
        answer = ask(patience)
        if answer.open:
            return answer
        if answer.missing != told:
            told = answer.missing
            click.echo(f"waiting: {'; '.join(told)}", err=True)
            patience = 0.0
        else:
            patience = max(0.0, limit - time.monotonic())
        now = time.monotonic()
        if now >= limit:
            return answer
        time.sleep(max(0.0, min(began + AGAIN_SECONDS, limit) - now))


def ask_enforcer(host: str, port: int, seconds: float) -> GateAnswer:
    """Ask once, for about *seconds* at most; an enforcer that does not answer is something that is missing as well."""
    patience = min(seconds, LONGEST_WAIT_SECONDS)
    connection = http.client.HTTPConnection(host, port, timeout=patience + ANSWER_SECONDS)
    try:
        connection.request("GET", f"{GATE_PATH}?wait={patience:g}", headers={"Connection": "close"})
        body = connection.getresponse().read()
        return decode_gate_answer(body)
    except (OSError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        return GateAnswer(open=False, missing=(f"the enforcer at {host} port {port} does not answer: {reason}",))
    except msgspec.MsgspecError as error:
        return GateAnswer(open=False, missing=(f"{host} port {port} is no gate: {error}",))
    finally:
        connection.close()
