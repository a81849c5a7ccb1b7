"""An image of one layer as one file, for ``ctr -n k8s.io images import`` and ``docker load``."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def write_archive(archive: Path, name: str, layer: Path, configuration: Mapping[str, Any]) -> Path:
    """Write *archive* (docker-archive form) with image *name* of the tar file *layer*, and return it.

    *configuration* is the image's ``config``: ``Entrypoint``, ``Env`` and so on. Equal input gives an equal archive:
    nothing in it tells a time. It is there whole or not at all.
    """
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    described = json.dumps(
        {
            "architecture": ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": dict(configuration),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created": "2026-01-01T00:00:00Z"}],
        }
    ).encode()
    described_file, layer_file = f"{hashlib.sha256(described).hexdigest()}.json", f"{digest}/layer.tar"
    manifest = json.dumps([{"Config": described_file, "RepoTags": [name], "Layers": [layer_file]}]).encode()
    unfinished = archive.with_suffix(".part")
    with tarfile.open(unfinished, "w") as tar:
        for path, text in (("manifest.json", manifest), (described_file, described)):
            entry = tarfile.TarInfo(path)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
        entry = tarfile.TarInfo(layer_file)
        entry.size = layer.stat().st_size
        with layer.open("rb") as content:
            tar.addfile(entry, content)
    unfinished.replace(archive)
    return archive


def read_configuration(archive: Path) -> dict[str, Any]:
    """What `write_archive` was given; empty where *archive* is not there, or none of its kind."""
    try:
        with tarfile.open(archive) as tar:
            (image,) = json.load(_member(tar, "manifest.json"))
            found: dict[str, Any] = json.load(_member(tar, image["Config"]))["config"]
            return found
    except (OSError, tarfile.TarError, KeyError, ValueError):
        return {}


def _member(tar: tarfile.TarFile, path: str) -> io.BufferedReader | io.BytesIO:
    content = tar.extractfile(path)
    return io.BytesIO(content.read() if content else b"")
