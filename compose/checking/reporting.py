"""What a run of cases says: to people while it goes on, as JSON, and as JUnit's XML for build servers."""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from xml.etree import ElementTree

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from compose.checking.engines.results import CaseResult, totals

SHOWN: Final = 20
"""Wrong cells printed per case; the count says all."""
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Reporter:
    """Hears of each result when it is there. A context manager: while it is open, progress is shown on a terminal."""

    def __init__(self, cases: int, *, text: bool) -> None:
        """*text*: print what is to be said of a case at once."""
        self._text = text
        self._progress = Progress(
            TextColumn("cases"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task("", total=cases)
        self._wrong = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def tell(self, result: CaseResult) -> None:
        self._wrong += result.wrong_count
        self._progress.update(self._task, advance=1, description=f"{self._wrong} wrong" if self._wrong else "")
        if self._text:
            for line in text(result):
                click.echo(line)


def text(result: CaseResult) -> Iterator[str]:
    """What is to be said of one case; nothing of one that is simply right."""
    if result.unsupported or not (result.wrong_count or result.notes):
        return
    yield f"{result.file}: {result.id}: {result.name}"
    for note in result.notes:
        yield f"  {note}"
    for wrong in result.wrong[:SHOWN]:
        yield f"  wrong, {wrong}"
    if len(result.wrong) > SHOWN:
        yield f"  … and {len(result.wrong) - SHOWN} more wrong cells"
    if result.failed:
        yield f"  wrong, all {result.failed_cells} cells of {result.failed}"


def closing(results: Sequence[CaseResult]) -> Iterator[str]:
    """The last lines: what was not played, and the summary."""
    reasons = Counter(result.unsupported for result in results if result.unsupported)
    for reason, count in sorted(reasons.items()):
        yield f"unsupported, {count} case{'' if count == 1 else 's'}: {reason}"
    if again := sum(result.asked_again for result in results):
        yield f"asked again, since the machine was too busy to tell silence from a drop: {again} cells"
    yield str(totals(results))


def document(results: Sequence[CaseResult]) -> str:
    """All of it, as JSON."""
    found = {"cases": results, "summary": totals(results)}
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode()


def write_junit(path: Path, results: Iterable[CaseResult]) -> None:
    """JUnit's XML: a suite per file. Raises `OSError`."""
    suites: dict[str, list[CaseResult]] = {}
    for result in results:
        suites.setdefault(result.file, []).append(result)
    root = ElementTree.Element("testsuites", name="eastwest check")
    for file, found in suites.items():
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=_xml(file),
            tests=str(len(found)),
            failures=str(sum(bool(result.wrong_count) for result in found)),
            skipped=str(sum(bool(result.unsupported) for result in found)),
            errors="0",
            time=f"{sum(result.seconds for result in found):.3f}",
        )
        for result in found:
            _junit_case(suite, result)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _junit_case(suite: ElementTree.Element, result: CaseResult) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname=_xml(Path(result.file).stem),
        name=_xml(f"{result.id}: {result.name}"),
        time=f"{result.seconds:.3f}",
    )
    if result.unsupported:
        ElementTree.SubElement(case, "skipped", message=_xml(result.unsupported))
    elif result.wrong_count:
        cells = f"{result.wrong_count} of {result.cells} cells wrong"
        failure = ElementTree.SubElement(case, "failure", message=cells, type="wrong")
        failure.text = _xml("\n".join([*map(str, result.wrong), *filter(None, [result.failed])]))
    if result.notes:
        ElementTree.SubElement(case, "system-out").text = _xml("\n".join(result.notes))


def _xml(found: str) -> str:
    """*found* without the characters that XML cannot hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", found)
