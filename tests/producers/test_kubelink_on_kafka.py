"""Kubelink on a real Kafka: the broker goes and comes back in the middle of changes."""

import os
import signal
from pathlib import Path

import pytest

from producers.manifest_source import ManifestSource
from streams.kafka.kafka_log import KafkaLogs, KafkaSettings
from streams.topics import events
from tests.components.kafka.kafka_broker import KafkaBroker
from tests.components.waiting import until
from tests.producers.reading import compacted, fold, known, records
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


@pytest.mark.kafka
async def test_an_append_whose_outcome_is_unknown_is_followed_by_a_new_epoch(kafka: KafkaBroker, tmp_path: Path):
    def write(*names: str) -> None:
        documents = "---\n".join(f"kind: Pod\nmetadata: {{name: {name}}}\n" for name in names)
        (tmp_path / "pods.yaml").write_text(documents)

    write("a", "b")
    async with KafkaLogs(KafkaSettings(bootstrap=kafka.bootstrap, append_seconds=1.0)) as logs:
        log = await logs.open(events("outcome-unknown"))
        async with kubelink(log, ManifestSource([tmp_path], poll_seconds=0.02)) as link:
            await complete(link)
            before = link.state.epoch
            os.kill(kafka.process.pid, signal.SIGSTOP)  # it may have taken what it does not acknowledge
            try:
                write("a", "c")
                await until(
                    "the outcome to be unknown, and the epoch to be over",
                    lambda: "unknown" in link.state.problems.get(log.topic.name, "") and link.state.epoch != before,
                    within_seconds=30,
                )
            finally:
                os.kill(kafka.process.pid, signal.SIGCONT)
            await complete(link, epoch_after=before)
            for stored in (await records(log), compacted(await records(log))):
                state, epochs = fold(stored)
                assert set(state) == {"Pod/default/a", "Pod/default/c"}
                assert epochs.current == link.state.epoch
                assert epochs.complete
            assert link.state.problems == {}
