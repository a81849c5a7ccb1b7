"""Who has nothing to tell begins no epoch: it would only end that of the writer at work."""

import asyncio
from pathlib import Path

import pytest

from producers.api_connection import Access
from producers.api_server_source import ApiServerSource
from producers.capture_source import CaptureSource
from producers.errors import AccessInvalid, SourceInvalid
from producers.kubelink import Kubelink, Phase
from producers.manifest_source import ManifestSource
from producers.source import Source
from schemas.events import EPOCH
from streams.log import Log
from tests.components.ports import free_ports
from tests.components.waiting import until
from tests.producers.reading import history, known
from tests.producers.running import complete, kubelink


def pods(folder: Path, *names: str) -> None:
    (folder / "pods.yaml").write_text("---\n".join(f"kind: Pod\nmetadata: {{name: {name}}}\n" for name in names))


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (ManifestSource([Path("/no/such/folder")]), SourceInvalid),
        (CaptureSource([Path("/no/such/capture")]), SourceInvalid),
        (ApiServerSource(Access(kubeconfig="/no/such/kubeconfig")), AccessInvalid),
    ],
    ids=["manifests", "capture", "kubeconfig"],
)
async def test_a_source_that_is_none_deposes_no_writer(
    log: Log, tmp_path: Path, source: Source, error: type[Exception]
):
    pods(tmp_path, "a")
    async with kubelink(log, ManifestSource([tmp_path], poll_seconds=0.02)) as working:
        await complete(working)
        with pytest.raises(error, match="/no/such"):
            await Kubelink(log, source, cluster="test").run(asyncio.Event())
        pods(tmp_path, "a", "b")

        async def followed() -> bool:
            return "Pod/default/b" in await known(log)

        await until("the first to go on", followed)
        assert [event.kind for event in await history(log)].count(EPOCH) == 1


async def test_an_api_server_that_does_not_answer_deposes_no_writer_and_is_waited_for(log: Log, tmp_path: Path):
    pods(tmp_path, "a")
    nobody = ApiServerSource(Access(url=f"https://127.0.0.1:{free_ports(1)[0]}"))
    async with kubelink(log, ManifestSource([tmp_path])) as working, kubelink(log, nobody) as waiting:
        await complete(working)
        await until("the trouble to be told", lambda: "no answer" in waiting.state.problems.get("Pod", ""))
        assert (waiting.state.phase, waiting.state.ready) == (Phase.STANDBY, False)
        assert working.state.phase is Phase.COMPLETE
        assert [event.kind for event in await history(log)].count(EPOCH) == 1
