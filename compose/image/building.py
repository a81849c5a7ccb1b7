"""Making the image of a checkout, unless it lies there already."""

import hashlib
import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from compose.image.archive import read_configuration, write_archive
from compose.image.debian import PYTHON, Unobtainable, debian_base, run
from compose.image.dockerfile import Configuration, Instruction, parse

CHECKOUT: Final = Path(__file__).parents[2]
RECIPE_LABEL: Final = "io.eastwest.recipe"
"""Tells what an image was made of."""
UNCOPIED: Final = shutil.ignore_patterns("__pycache__")


def image(checkout: Path = CHECKOUT) -> Path:
    """``dist/eastwest-VERSION.tar``, holding ``eastwest:VERSION``; made anew where the sources are others.

    Half a minute, and a minute more for the first time. Raises `Unobtainable`, `Unreadable`.
    """
    version = importlib.metadata.version("eastwest")
    archive = checkout / "dist" / f"eastwest-{version}.tar"
    instructions = parse((checkout / "compose/stack/Dockerfile").read_text())
    if os.geteuid() != 0:
        raise Unobtainable("making one needs root; with an engine: docker build -f compose/stack/Dockerfile .")
    base = debian_base()
    recipe = _digest(checkout, instructions, base)
    if read_configuration(archive).get("Labels") == {RECIPE_LABEL: recipe}:
        return archive
    with wheels(checkout), tempfile.TemporaryDirectory(prefix="eastwest-image-") as work:
        tree, layer = Path(work) / "tree", Path(work) / "layer.tar"
        tree.mkdir()
        run(["tar", "--numeric-owner", "-C", tree, "-xf", base])
        configuration = _follow(instructions, checkout, tree)
        run(["tar", "--numeric-owner", "-C", tree, "-cf", layer, "."])
        described = {**configuration.described(), "Labels": {RECIPE_LABEL: recipe}}
        return write_archive(archive, f"eastwest:{version}", layer, described)


@contextmanager
def wheels(checkout: Path = CHECKOUT) -> Iterator[None]:
    """The project's wheel and those it needs, for an image's Python, in ``dist/`` while it is built.

    Not longer: a later build would take them for the sources of then. Raises `Unobtainable`.
    """
    folder, pip = checkout / "dist", [sys.executable, "-m", "pip"]
    _remove_wheels(folder)
    try:
        run([*pip, "wheel", "-q", "--no-deps", "-w", folder, checkout])
        (own,) = folder.glob("eastwest-*.whl")
        run([*pip, "download", "-q", "--only-binary=:all:", "--python-version", PYTHON, "-d", folder, own])
        yield
    finally:
        _remove_wheels(folder)


def _remove_wheels(folder: Path) -> None:
    for each in folder.glob("*.whl"):
        each.unlink()


def _follow(instructions: list[Instruction], checkout: Path, tree: Path) -> Configuration:
    """Do in *tree*, which is the base already, what *instructions* say. No command can reach a network."""
    configuration = Configuration()
    for instruction in instructions:
        configuration.take(instruction)
        here = tree / configuration.directory.lstrip("/")
        here.mkdir(parents=True, exist_ok=True)
        if instruction.name == "COPY":
            *sources, target = instruction.argument.split()
            _copy(checkout, sources, here / target, into=target.endswith("/"))
        elif instruction.name == "RUN":
            environment = [f"{key}={value}" for key, value in configuration.environment.items()]
            command = f"cd {configuration.directory} && {instruction.argument}"
            run(["unshare", "--net", "chroot", tree, "env", "-i", *environment, "/bin/sh", "-c", command])
    return configuration


def _copy(checkout: Path, sources: list[str], target: Path, *, into: bool) -> None:
    """As COPY does: of a folder its content; a file as *target*, or *into* it."""
    for source in (found for pattern in sources for found in sorted(checkout.glob(pattern))):
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=UNCOPIED)
        else:
            (target if into else target.parent).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / source.name if into else target)


def _digest(checkout: Path, instructions: list[Instruction], base: Path) -> str:
    """Of everything that decides what the image is, but for the newest versions of what it depends on."""
    digest = hashlib.sha256(repr((instructions, base.name)).encode())
    for path in _copied(checkout, instructions):
        digest.update(f"{path.relative_to(checkout)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _copied(checkout: Path, instructions: list[Instruction]) -> Iterator[Path]:
    for instruction in instructions:
        if instruction.name == "COPY":
            for pattern in instruction.argument.split()[:-1]:
                for found in sorted(checkout.glob(pattern)):
                    files = [found] if found.is_file() else sorted(found.rglob("*"))
                    yield from (each for each in files if each.is_file() and _decides(each))


def _decides(path: Path) -> bool:
    return path.suffix != ".whl" and "__pycache__" not in path.parts
