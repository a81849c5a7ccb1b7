from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from streams.settings import InvalidSettings, Settings, documentation, load


class Sample(Settings, frozen=True, kw_only=True):
    """A service."""

    section: ClassVar[str] = "processor"

    drain_seconds: float = 10.0
    """How long
    it drains."""
    names: tuple[str, ...] = ()
    """Several."""
    modes: dict[str, str] = msgspec.field(default_factory=dict)
    """Pairs."""
    quiet: bool = False
    """Says less."""


def written(folder: Path, text: str) -> Path:
    file = folder / "eastwest.toml"
    file.write_text(text)
    return file


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(tmp_path):
    file = written(tmp_path, 'cluster = "file"\n[processor]\ndrain_seconds = 1\nnames = ["file"]\nquiet = true\n')
    environment = {"EASTWEST_PROCESSOR_DRAIN_SECONDS": "2.5", "EASTWEST_PROCESSOR_NAMES": "a, b"}

    settings = load(Sample, flags={"drain_seconds": "3", "quiet": None}, environment=environment, file=file)

    assert settings == Sample(cluster="file", drain_seconds=3.0, names=("a", "b"), quiet=True)


def test_a_services_own_value_beats_the_shared_one_within_a_source(tmp_path):
    file = written(tmp_path, 'cluster = "shared"\n[processor]\ncluster = "own"\n')
    assert load(Sample, file=file).cluster == "own"
    environment = {"EASTWEST_CLUSTER": "x", "EASTWEST_PROCESSOR_CLUSTER": "y"}
    assert load(Sample, environment=environment, file=file).cluster == "y"


def test_the_environment_says_lists_and_mappings_as_text():
    environment = {"EASTWEST_PROCESSOR_MODES": "kube-*=idle, shop=selective", "EASTWEST_PROCESSOR_QUIET": "true"}
    settings = load(Sample, environment=environment)
    assert settings.modes == {"kube-*": "idle", "shop": "selective"}
    assert settings.quiet is True


def test_every_mistake_of_every_source_is_named_at_once(tmp_path):
    file = written(tmp_path, 'colour = "red"\n[processor]\ndrain_secs = 1\nnames = 3\n')
    environment = {"EASTWEST_KAKFA": "x", "EASTWEST_PROCESSOR_DRAIN_SECONDS": "soon", "EASTWEST_PROCESSOR_QUITE": "1"}

    with pytest.raises(InvalidSettings) as raised:
        load(Sample, environment=environment, file=file, flags={"loud": "1"})

    said = "\n".join(raised.value.mistakes)
    for name in ("colour", "processor.drain_secs", "processor.names", "EASTWEST_KAKFA", "EASTWEST_PROCESSOR_QUITE"):
        assert name in said
    assert "EASTWEST_PROCESSOR_DRAIN_SECONDS: Expected `float`" in said
    assert "--loud" in said
    assert len(raised.value.mistakes) == 7


def test_settings_of_other_services_in_the_same_file_and_environment_are_no_mistake(tmp_path):
    file = written(tmp_path, "[enforcer]\nanything = 1\n")
    environment = {"EASTWEST_ENFORCER_NODE": "n", "EASTWEST_RUN_DIRECTORY": "/run/elsewhere"}
    assert load(Sample, environment=environment, file=file) == Sample()


def test_a_cluster_name_that_cannot_be_part_of_a_subject_is_refused():
    with pytest.raises(InvalidSettings, match="DNS label"):
        load(Sample, flags={"cluster": "Prod.Europe"})


def test_a_file_that_is_not_toml_is_named(tmp_path):
    file = written(tmp_path, "cluster = ")
    with pytest.raises(InvalidSettings, match="not TOML"):
        load(Sample, file=file)


def test_the_docstring_under_a_field_is_its_documentation():
    documented = documentation(Sample)
    assert documented["drain_seconds"] == "How long it drains."
    assert "DNS label" in documented["cluster"]
    assert set(documented) == set(Sample.__struct_fields__)
