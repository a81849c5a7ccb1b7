"""Kubelink's settings say which source, and refuse what does not go together."""

import pytest

from producers.api_server_source import ApiServerSource
from producers.capture_source import CaptureSource
from producers.lease import LeaseTurn
from producers.manifest_source import ManifestSource
from producers.settings import KubelinkSettings, source_of, turn_of
from streams.settings import InvalidSettings, documentation, fields, load


def test_the_settings_decide_the_source():
    assert isinstance(source_of(KubelinkSettings()), ApiServerSource)
    assert isinstance(source_of(KubelinkSettings(manifests=("a",))), ManifestSource)
    assert isinstance(source_of(KubelinkSettings(captures=("a",))), CaptureSource)


def test_turns_are_taken_only_where_a_lease_is_named_and_an_api_server_keeps_it():
    assert turn_of(KubelinkSettings(), "me") is None
    assert turn_of(KubelinkSettings(lease="a/b", manifests=("m",)), "me") is None
    assert isinstance(turn_of(KubelinkSettings(lease="a/b"), "me"), LeaseTurn)


@pytest.mark.parametrize(
    ("environment", "word"),
    [
        ({"EASTWEST_KUBELINK_LEASE": "no-namespace"}, "namespace/name"),
        ({"EASTWEST_KUBELINK_LEASE_SECONDS": "0.5"}, "at least 1"),
        ({"EASTWEST_KUBELINK_MANIFESTS": "a", "EASTWEST_KUBELINK_CAPTURES": "b"}, "cannot be taken together"),
        ({"EASTWEST_KUBELINK_LEESE": "a/b"}, "EASTWEST_KUBELINK_LEESE"),
        ({"EASTWEST_CLUSTER": "Not A Label"}, "DNS label"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(environment: dict[str, str], word: str):
    with pytest.raises(InvalidSettings, match=word):
        load(KubelinkSettings, environment=environment)


def test_every_setting_is_documented():
    assert fields(KubelinkSettings).keys() <= documentation(KubelinkSettings).keys()


def test_the_token_of_an_api_server_is_in_no_text():
    assert "secret" not in repr(KubelinkSettings(api_url="https://x", api_token_file="f").access)
