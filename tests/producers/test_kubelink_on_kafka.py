"""Kubelink on a real Kafka: the broker goes and comes back in the middle of changes."""

from pathlib import Path

import pytest

from producers.manifest_source import ManifestSource
from streams.kafka_log import KafkaLogs, KafkaSettings
from streams.topics import events
from tests.components.kafka.kafka_broker import KafkaBroker
from tests.components.waiting import until
from tests.producers.reading import known
from tests.producers.running import complete, kubelink


@pytest.mark.kafka
async def test_a_broker_killed_in_the_middle_of_changes_costs_no_change(kafka: KafkaBroker, tmp_path: Path):
    def write(*names: str) -> None:
        documents = "---\n".join(f"kind: Pod\nmetadata: {{name: {name}}}\n" for name in names)
        (tmp_path / "pods.yaml").write_text(documents)

    write("a", "b")
    async with KafkaLogs(KafkaSettings(bootstrap=kafka.bootstrap)) as logs:
        log = await logs.open(events("kubelink-on-kafka"))
        async with kubelink(log, ManifestSource([tmp_path], poll_seconds=0.02)) as link:
            await complete(link)
            await kafka.kill()
            write("a", "c")
            await kafka.start()

            async def as_expected() -> bool:
                return set(await known(log)) == {"Pod/default/a", "Pod/default/c"}

            await until("the changes to be in the log", as_expected, within_seconds=60)
            await until("the trouble to be over", lambda: link.state.problems == {}, within_seconds=60)
