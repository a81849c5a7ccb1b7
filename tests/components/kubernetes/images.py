"""Container images from plain files, without a registry or Docker."""

import io
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from compose.image.archive import write_archive

PAUSE = "localhost/pause:1"
AGNHOST = "localhost/agnhost:1"
"""Kubernetes' own test program: servers, clients, `connect`, `netexec`. Entry point ``/agnhost``."""


def write_image(
    archive: Path,
    name: str,
    *,
    entrypoint: Sequence[str],
    command: Sequence[str] = (),
    files: Mapping[str, Path],
    links: Mapping[str, str] | None = None,
) -> Path:
    """Write *archive* (docker-archive form, for ``ctr images import``) with image *name*, and return it.

    *files* maps a path in the image to the executable put there, *links* a path to what it points to.
    Equal input gives an equal archive: nothing in it tells a time.
    """
    with tempfile.NamedTemporaryFile() as layer:
        layer.write(_layer(files, links or {}))
        layer.flush()
        words = {"Entrypoint": list(entrypoint), "Cmd": list(command), "Env": ["PATH=/bin:/"], "WorkingDir": "/"}
        return write_archive(archive, name, Path(layer.name), words)


def default_images(binaries: Path, folder: Path) -> list[Path]:
    """The archives every node needs: what holds a Pod's namespaces, and what runs in the tests' Pods."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write_image(folder / "pause.tar", PAUSE, entrypoint=["/pause"], files={"pause": binaries / "pause"}),
        write_image(
            folder / "agnhost.tar",
            AGNHOST,
            entrypoint=["/agnhost"],
            command=["pause"],
            files={"agnhost": binaries / "agnhost"},
        ),
    ]


def _layer(files: Mapping[str, Path], links: Mapping[str, str]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for directory, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777)):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add_file(tar, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\n", 0o644)
        _add_file(tar, "etc/group", b"root:x:0:\n", 0o644)
        for path, source in files.items():
            _add_file(tar, path, source.read_bytes(), 0o755)
        for path, target in links.items():
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return content.getvalue()


def _add_file(tar: tarfile.TarFile, path: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
