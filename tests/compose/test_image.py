"""The image that is made without an engine: from the Dockerfile's own lines, into one archive."""

from pathlib import Path

import pytest

from compose.image.archive import read_configuration, write_archive
from compose.image.building import CHECKOUT
from compose.image.dockerfile import Configuration, Instruction, Unreadable, parse

DOCKERFILE = """\
# A comment
ARG BASE=debian
FROM ${BASE}

RUN one && \\
    two
WORKDIR /opt
ENV PATH=/venv/bin:$PATH GREETING="hello there"
USER 65532
ENTRYPOINT ["eastwest"]
"""


def test_continued_lines_are_one_instruction_and_comments_none():
    assert parse(DOCKERFILE)[:3] == [("ARG", "BASE=debian"), ("FROM", "${BASE}"), ("RUN", "one &&     two")]


def test_what_a_dockerfile_says_of_the_image_is_its_configuration():
    configuration = Configuration()
    for instruction in parse(DOCKERFILE):
        configuration.take(instruction)
    assert configuration.described() == {
        "User": "65532",
        "Entrypoint": ["eastwest"],
        "WorkingDir": "/opt",
        "Env": ["PATH=/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GREETING=hello there"],
    }


@pytest.mark.parametrize("line", ["HEALTHCHECK NONE", "COPY --chown=1 a b", "nonsense"])
def test_an_instruction_that_is_not_understood_is_named_with_its_line(line: str):
    with pytest.raises(Unreadable, match=f"line 3: '{line}'"):
        parse(f"FROM a\n\n{line}\n")


def test_the_projects_own_dockerfile_is_understood_whole():
    names = {each.name for each in parse((CHECKOUT / "compose/stack/Dockerfile").read_text())}
    assert {"FROM", "RUN", "COPY", "ENV", "USER", "ENTRYPOINT"} <= names
    assert Instruction("USER", "65532") in parse((CHECKOUT / "compose/stack/Dockerfile").read_text())


def test_an_archive_tells_what_it_was_written_with(tmp_path: Path):
    layer = tmp_path / "layer.tar"
    layer.write_bytes(b"")
    written = {"Entrypoint": ["eastwest"], "Labels": {"made-of": "this"}}
    archive = write_archive(tmp_path / "image.tar", "eastwest:1", layer, written)
    assert read_configuration(archive) == written
    assert archive.read_bytes() == write_archive(tmp_path / "again.tar", "eastwest:1", layer, written).read_bytes()


def test_an_archive_that_is_not_whole_tells_nothing(tmp_path: Path):
    archive = tmp_path / "image.tar"
    assert read_configuration(archive) == {}
    archive.write_bytes(b"\0" * 700)
    assert read_configuration(archive) == {}
