"""Case files of every form."""

from collections.abc import Iterator
from pathlib import Path

from compose.checking.suites.cases import Case, CaseError, read_jsonl
from compose.checking.suites.short_form import read_short_form
from compose.checking.suites.vectors import is_vector, read_vectors


def read_cases(path: Path) -> Iterator[Case]:
    """The cases of *path*, by its suffix. Raises `CaseError` for what is no case file, `OSError` for no file."""
    match path.suffix:
        case ".jsonl":
            return read_vectors(path) if _holds_vectors(path) else read_jsonl(path)
        case ".yaml" | ".yml":
            return read_short_form(path)
        case _:
            raise CaseError(str(path), "the file name", "ends neither in .jsonl nor in .yaml")


def _holds_vectors(path: Path) -> bool:
    """By its first line; whatever cannot be read is a case that cannot be read."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        try:
            return is_vector(next(lines, ""))
        except ValueError:
            return False
