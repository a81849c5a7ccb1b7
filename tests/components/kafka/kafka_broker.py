"""A real Apache Kafka broker (KRaft, one node) for tests, which they may stop, kill and start again."""

import base64
import shutil
import socket
import subprocess
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from streams.child_process import ChildProcess
from tests.components.namespaces import inside, inside_command
from tests.components.ports import free_ports
from tests.components.waiting import until

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{address}:{controller_port}
controller.listener.names=CONTROLLER
listeners=BROKER://{address}:{port},CONTROLLER://{address}:{controller_port}
advertised.listeners=BROKER://{address}:{port}
inter.broker.listener.name=BROKER
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={logs}
# One node only.
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
# A test that uses a group would otherwise wait 3 s for members that never come.
group.initial.rebalance.delay.ms=0
# A topic that nobody created is a mistake of the product, and must show.
auto.create.topics.enable=false
num.network.threads=2
num.io.threads=2
num.recovery.threads.per.data.dir=1
offsets.topic.num.partitions=1
transaction.state.log.num.partitions=1
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=16777216
# After a kill the broker may register again only when its old session is over (9 s by default).
broker.session.timeout.ms=1000
broker.heartbeat.interval.ms=100
# The cleaner looks often, so that tests of compaction need not wait for its 15 s.
log.cleaner.backoff.ms=200
"""

# Short-lived test servers gain more from a quick start than from optimised code.
_JAVA_OPTIONS = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Djava.awt.headless=true"]


class KafkaBroker:
    """Starts in about 2 s, keeps its ports and log folder over `kill` and `start`.

    On the loopback of this machine, or on *address* in network namespace *namespace*.
    """

    def __init__(self, folder: Path, jars: Path, *, address: str = "127.0.0.1", namespace: str | None = None) -> None:
        self.folder = folder
        self.jars = jars
        self.address = address
        self.namespace = namespace
        self.port, self._controller_port = free_ports(2) if namespace is None else [9092, 9093]
        java = shutil.which("java")
        if java is None:
            raise FileNotFoundError("java")
        self._java = [java, *_JAVA_OPTIONS, "-cp", f"{jars}/*"]
        self._process: ChildProcess | None = None

    @property
    def bootstrap(self) -> str:
        return f"{self.address}:{self.port}"

    @property
    def process(self) -> ChildProcess:
        assert self._process is not None, "the broker was not started"
        return self._process

    async def start(self) -> None:
        """Format the log folder at the first time, start, and wait until a metadata request is answered."""
        properties = self.folder / "server.properties"
        if not properties.exists():
            self._format(properties)
        self._process = process = ChildProcess.spawn(
            "Kafka",
            [*inside_command(self.namespace), *self._java, "kafka.Kafka", properties],
            log=self.folder / "kafka.log",
            folder=self.folder,
        )

        async def answers() -> bool:
            process.ensure_running()
            socket.create_connection((self.address, self.port), timeout=1).close()  # spares the client's complaints
            client = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=2000)
            try:
                await client.start()
                return bool((await client.describe_cluster())["brokers"])
            finally:
                await client.close()

        await until(
            "Kafka to answer a metadata request",
            lambda: inside(self.namespace, answers),
            within_seconds=60,
            poll_seconds=0.1,
            ignoring=(KafkaError, OSError),
        )

    async def stop(self) -> None:
        """A controlled shutdown; it may take some seconds."""
        if self._process is not None:
            await self._process.end(within_seconds=20)

    async def kill(self) -> None:
        """As if by ``kill -9``: nothing is flushed, the log is recovered at the next start."""
        await self.process.kill()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:  # what it stored is thrown away: no reason to wait for a tidy end
            await self._process.kill()

    def _format(self, properties: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        logs = self.folder / "logs"
        properties.write_text(
            _PROPERTIES.format(address=self.address, port=self.port, controller_port=self._controller_port, logs=logs)
        )
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # One word, for an id may begin with a dash: of two words the tool would take the second for an option.
        format_logs = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", f"--config={properties}"]
        command = [*self._java, *format_logs]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=self.folder)
        assert run.returncode == 0, f"formatting Kafka's log folder failed:\n{run.stdout}{run.stderr}"
