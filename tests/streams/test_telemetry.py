import json
import logging

import aiohttp
import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter

from streams.telemetry import Health, serving, set_up_logging


@pytest.fixture
def restored_logging():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


async def test_ready_and_healthy_are_told_apart_with_their_reasons():
    health = Health("log")
    registry = CollectorRegistry()
    Counter("eastwest_records", "Records.", registry=registry).inc(3)
    async with serving("127.0.0.1:0", health, registry) as address, aiohttp.ClientSession(f"http://{address}") as http:
        async with http.get("/readyz") as response:
            assert response.status == 503
            assert (await response.json())["conditions"]["log"] == {"holds": False, "reason": "not yet"}
        async with http.get("/healthz") as response:
            assert response.status == 200
        health.set_ready("log", True)
        async with http.get("/readyz") as response:
            assert response.status == 200
        async with http.get("/metrics") as response:
            assert "eastwest_records_total 3.0" in await response.text()
        health.set_alive("fold", False, "stuck")
        async with http.get("/healthz") as response:
            assert response.status == 503


async def test_no_address_serves_nothing_and_a_wrong_one_is_refused():
    async with serving("", Health(), CollectorRegistry()) as address:
        assert address == ""
    with pytest.raises(ValueError, match="not host:port"):
        async with serving("nowhere", Health(), CollectorRegistry()):
            pass


@pytest.mark.usefixtures("restored_logging")
def test_json_lines_carry_fields_and_libraries_write_in_the_same_format(capsys):
    set_up_logging("json", "info")
    structlog.get_logger().info("took over", cluster="c", revision=7)
    structlog.get_logger().debug("not written")
    logging.getLogger("library").warning("away: %s", "broker")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["took over", "away: broker"]
    assert lines[0]["cluster"] == "c"
    assert lines[0]["level"] == "info"
    assert lines[1]["logger"] == "library"
