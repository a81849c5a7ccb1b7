"""Apache Kafka's jars from Maven Central, resolved once per content of `pom.xml`."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.components.caches import Unobtainable, cached

POM = Path(__file__).with_name("pom.xml")
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


def kafka_jars() -> Path:
    """The folder with the jars; made where it is missing (some seconds, needs Maven and its repository).

    Raises Unobtainable without Maven, and with Maven's words where it fails.
    """
    folder = cached("kafka", POM)
    if folder.exists():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise Unobtainable("Apache Kafka's jars are not cached and Maven is not installed", "apt install maven")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Made beside its place and renamed: an interrupted run leaves no half-filled cache, two at once do no harm.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="kafka-making-") as making:
        jars = Path(making) / "jars"
        command = [maven, "-B", "-q", "-ntp", "-Dstyle.color=never", "-f", str(POM), _COPY, f"-DoutputDirectory={jars}"]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if run.returncode != 0:
            words = next((line for line in run.stdout.splitlines() if "ERROR" in line), run.stderr)
            raise Unobtainable("Apache Kafka's jars are not cached and Maven could not fetch them", words[:300])
        if not folder.exists():
            os.rename(jars, folder)  # noqa: PTH104  # fails loudly if another run was first, instead of nesting
    return folder


if __name__ == "__main__":
    try:
        print(kafka_jars())
    except Unobtainable as error:
        sys.exit(f"tests on a real Apache Kafka will be skipped: {error}")
