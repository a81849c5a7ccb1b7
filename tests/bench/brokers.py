"""The brokers of the bench, each real and its own, on the loopback."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from streams.kafka.kafka_log import KafkaSettings
from tests.bench.measuring import Unavailable
from tests.components.caches import Unobtainable
from tests.components.kafka.kafka_broker import KafkaBroker
from tests.components.kafka.kafka_jars import kafka_jars


@asynccontextmanager
async def kafka(folder: Path) -> AsyncIterator[tuple[KafkaBroker, KafkaSettings]]:
    """An Apache Kafka that starts for this, and how its logs are reached. Raises `Unavailable` where it cannot."""
    if shutil.which("java") is None:
        raise Unavailable("not installed: java; apt install default-jre-headless")
    try:
        jars = kafka_jars()
    except Unobtainable as error:
        raise Unavailable(str(error)) from error
    async with KafkaBroker(folder / "kafka", jars) as broker:
        yield broker, KafkaSettings(bootstrap=broker.bootstrap)
