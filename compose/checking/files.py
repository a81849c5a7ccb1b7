"""Case files of either form."""

from collections.abc import Iterator
from pathlib import Path

from compose.checking.cases import Case, CaseError, read_jsonl
from compose.checking.short_form import read_short_form


def read_cases(path: Path) -> Iterator[Case]:
    """The cases of *path*, by its suffix. Raises `CaseError` for what is no case file, `OSError` for no file."""
    match path.suffix:
        case ".jsonl":
            return read_jsonl(path)
        case ".yaml" | ".yml":
            return read_short_form(path)
        case _:
            raise CaseError(str(path), "the file name", "ends neither in .jsonl nor in .yaml")
