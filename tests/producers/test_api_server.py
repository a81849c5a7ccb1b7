"""Kubelink against a real kube-apiserver: lists, watches, and everything that interrupts them."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from producers.api_connection import Access
from producers.api_server_source import ApiServerSource, Patience
from producers.writing import EpochWriter
from schemas.events import EventType
from streams.log import Entry, Log
from streams.sqlite.sqlite_log import SqliteLogs
from streams.topics import events
from tests.components.kubernetes.control_plane import ControlPlane
from tests.components.waiting import until
from tests.producers.objects import SECRETS
from tests.producers.objects import pod as full_pod
from tests.producers.reading import compacted, fold, history, known, records
from tests.producers.running import complete, kubelink
from tests.producers.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(180)]

_numbers = itertools.count()


def access(server: ControlPlane, **changes: str) -> Access:
    return Access(**{"url": server.url, "ca_file": str(server.ca), "token": server.admin_token, **changes})


def source(server: ControlPlane, **options: Any) -> ApiServerSource:
    return ApiServerSource(access(server), **options)


async def namespace(server: ControlPlane) -> str:
    """A namespace of the test's own."""
    name = f"kl-{next(_numbers)}"
    await server.api("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return name


def pod(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


async def create(server: ControlPlane, space: str, *names: str, **labels: str) -> None:
    for name in names:
        await server.api("POST", f"/api/v1/namespaces/{space}/pods", pod(name, **labels))


async def delete(server: ControlPlane, space: str, *names: str) -> None:
    for name in names:
        await server.api("DELETE", f"/api/v1/namespaces/{space}/pods/{name}?gracePeriodSeconds=0")


async def pods_of(log: Log, space: str) -> set[str]:
    return {key.rpartition("/")[2] for key in await known(log) if key.startswith(f"Pod/{space}/")}


async def until_pods(log: Log, space: str, *expected: str) -> None:
    async def as_expected() -> bool:
        return await pods_of(log, space) == set(expected)

    await until(f"the log to know exactly {expected} in {space}", as_expected, within_seconds=40)


async def a_fresh_list(server: ControlPlane, logs: SqliteLogs) -> dict[str, Any]:
    """What an undisturbed Kubelink makes of the cluster as it is now."""
    log = await logs.open(events(f"fresh-{next(_numbers)}"))
    async with kubelink(log, source(server)) as link:
        await complete(link)
    return without_version(await known(log))


def without_version(state: dict[str, Any]) -> dict[str, Any]:
    """*state* without what the server says of itself, which is asked for on its own."""
    return {key: item for key, item in state.items() if key != "Cluster/-/-"}


@pytest.fixture
async def own_server(control_plane_binaries: Path, tmp_path: Path) -> AsyncIterator[ControlPlane]:
    """One that the test may start with flags of its own."""
    server = ControlPlane(tmp_path / "own", control_plane_binaries)
    try:
        yield server
    finally:
        await server.__aexit__(None, None, None)


async def test_what_the_api_server_has_is_in_the_log_and_changes_follow(apiserver: ControlPlane, log: Log):
    space = await namespace(apiserver)
    await create(apiserver, space, "before", app="a")
    async with kubelink(log, source(apiserver)) as link:
        await complete(link)
        state = await known(log)
        assert state[f"Pod/{space}/before"]["metadata"]["labels"] == {"app": "a"}
        assert state[f"Namespace/-/{space}"]["status"] == {"phase": "Active"}
        await create(apiserver, space, "after")
        await delete(apiserver, space, "before")
        await until_pods(log, space, "after")

        async def introduced() -> bool:
            return "Cluster/-/-" in await known(log)

        await until("the server's version to be in the log", introduced)
        assert (await known(log))["Cluster/-/-"]["version"].startswith("v1.")
        assert link.state.problems == {}


async def test_no_secret_reaches_the_log(apiserver: ControlPlane, log: Log):
    space = await namespace(apiserver)
    secret = full_pod("full", namespace=space)
    del secret["metadata"]["uid"], secret["metadata"]["resourceVersion"], secret["metadata"]["managedFields"]
    del secret["metadata"]["annotations"]["kubernetes.io/config.mirror"], secret["status"], secret["spec"]["nodeName"]
    secret["spec"]["containers"][0]["livenessProbe"]["httpGet"].update({"port": 80, "path": "/"})
    await apiserver.api("POST", f"/api/v1/namespaces/{space}/pods", secret)
    sent = str(await apiserver.api("GET", f"/api/v1/namespaces/{space}/pods/full"))
    async with kubelink(log, source(apiserver)) as link:
        await complete(link)
    assert f"Pod/{space}/full" in await known(log)
    stored = b"".join(record.value or b"" for record in await records(log))
    wanted = [text for text in SECRETS if text in sent]
    assert len(wanted) == len(SECRETS) - 1  # the server writes managed fields itself
    assert [text for text in (*wanted, "managedFields") if text.encode() in stored] == []


async def test_a_restarted_kubelink_writes_only_what_differs(apiserver: ControlPlane, log: Log):
    space = await namespace(apiserver)
    await create(apiserver, space, "stays", "goes")
    async with kubelink(log, source(apiserver)) as link:
        await complete(link)
    before = len(await history(log))
    await delete(apiserver, space, "goes")
    await create(apiserver, space, "comes")
    async with kubelink(log, source(apiserver)) as link:
        await complete(link)
    news = [event for event in (await history(log))[before:] if event.namespace == space]
    assert sorted((event.type, event.name) for event in news) == [
        (EventType.ADDED, "comes"),
        (EventType.DELETED, "goes"),
    ]


@pytest.mark.parametrize("manner", ["kill", "stop"])
async def test_a_restart_of_the_server_during_changes_ends_as_a_fresh_list(
    apiserver: ControlPlane, log: Log, logs: SqliteLogs, manner: str
):
    space = await namespace(apiserver)
    async with kubelink(log, source(apiserver)) as link:
        await complete(link)
        await create(apiserver, space, *(f"a{number}" for number in range(10)))
        await (apiserver.kill() if manner == "kill" else apiserver.stop())
        await until("the trouble to be told", lambda: "Pod" in link.state.problems)
        await apiserver.start()
        await delete(apiserver, space, *(f"a{number}" for number in range(5)))
        await create(apiserver, space, "b1")
        await until_pods(log, space, *(f"a{number}" for number in range(5, 10)), "b1")
        await until("the trouble to be over", lambda: link.state.problems == {}, within_seconds=40)
        assert without_version(await known(log)) == await a_fresh_list(apiserver, logs)


async def test_a_version_that_etcd_has_forgotten_leads_to_a_new_list(own_server: ControlPlane, log: Log):
    own_server.flags.append("--watch-cache=false")
    await own_server.start()
    space = await namespace(own_server)
    await create(own_server, space, "goes", "stays")
    async with TcpProxy(own_server.port) as proxy:
        through = access(own_server, url=f"https://127.0.0.1:{proxy.port}")
        watching = ApiServerSource(through, patience=Patience(silence_seconds=3.0))
        async with kubelink(log, watching) as link:
            await complete(link)
            await create(own_server, space, "seen")
            await until_pods(log, space, "goes", "stays", "seen")  # by the watch: it is open, and will be silenced
            assert watching.watches["Pod"].expired == 0
            proxy.stall()
            await delete(own_server, space, "goes")
            await create(own_server, space, "comes")
            await own_server.compact()
            await until_pods(log, space, "stays", "seen", "comes")
            assert watching.watches["Pod"].expired >= 1
            assert link.state.epoch == 0  # it listed again, within its epoch


async def test_a_version_older_than_a_restarted_server_leads_to_a_new_list(apiserver: ControlPlane, log: Log):
    space = await namespace(apiserver)
    await create(apiserver, space, "goes")
    async with TcpProxy(apiserver.port) as proxy:
        through = access(apiserver, url=f"https://127.0.0.1:{proxy.port}")
        watching = ApiServerSource(through, patience=Patience(silence_seconds=8.0))
        async with kubelink(log, watching) as link:
            await complete(link)
            await create(apiserver, space, "seen")
            await until_pods(log, space, "goes", "seen")  # by the watch: it is open, and will be silenced
            proxy.stall()
            await delete(apiserver, space, "goes")
            await create(apiserver, space, "comes")
            await apiserver.kill()
            await apiserver.start()
            await until_pods(log, space, "seen", "comes")
            assert watching.watches["Pod"].expired >= 1


async def test_a_half_open_connection_is_noticed_by_its_silence(apiserver: ControlPlane, log: Log):
    space = await namespace(apiserver)
    async with TcpProxy(apiserver.port) as proxy:
        through = access(apiserver, url=f"https://127.0.0.1:{proxy.port}")
        async with kubelink(log, ApiServerSource(through, patience=Patience(silence_seconds=2.0))) as link:
            await complete(link)
            await until("every kind to be watched", lambda: proxy.open >= 6)
            proxy.stall()
            await create(apiserver, space, "unseen")
            await until_pods(log, space, "unseen")
            await until("no trouble to be left", lambda: link.state.problems == {})


async def test_a_server_without_streaming_lists_is_listed_by_pages(own_server: ControlPlane, log: Log, monkeypatch):
    own_server.flags.append("--feature-gates=WatchList=false")
    await own_server.start()
    monkeypatch.setattr("producers.core.watching.PAGE_ITEMS", 3)
    space = await namespace(own_server)
    names = [f"p{number}" for number in range(10)]
    await create(own_server, space, *names)
    watching = source(own_server)
    async with kubelink(log, watching) as link:
        await complete(link)
        assert not watching.watches["Pod"].streaming_lists
        assert await pods_of(log, space) == set(names)
        await create(own_server, space, "later")
        await until_pods(log, space, *names, "later")


async def test_what_rbac_forbids_is_named_and_comes_once_it_is_allowed(apiserver: ControlPlane, log: Log):
    reader = ApiServerSource(access(apiserver, token=apiserver.reader_token), patience=Patience(quiet_seconds=0.2))
    role = f"kl-reader-{next(_numbers)}"
    async with kubelink(log, reader) as link:
        await until("the refusals to be told", lambda: len(link.state.problems) >= 6)
        assert 'apiGroups: [""], resources: ["pods"], verbs: ["list", "watch"]' in link.state.problems["Pod"]
        assert link.state.epoch == -1  # it has nothing to tell: it must not replace one that has
        rules = [
            {
                "apiGroups": ["", "networking.k8s.io", "discovery.k8s.io"],
                "resources": ["*"],
                "verbs": ["list", "watch"],
            },
            {"nonResourceURLs": ["/version"], "verbs": ["get"]},
        ]
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        await apiserver.api("POST", f"{rbac}/clusterroles", {"metadata": {"name": role}, "rules": rules})
        user = await apiserver.api(
            "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, token=apiserver.reader_token
        )
        subject = {
            "kind": "User",
            "apiGroup": "rbac.authorization.k8s.io",
            "name": user["status"]["userInfo"]["username"],
        }
        reference = {"kind": "ClusterRole", "apiGroup": "rbac.authorization.k8s.io", "name": role}
        binding = {"metadata": {"name": role}, "roleRef": reference, "subjects": [subject]}
        await apiserver.api("POST", f"{rbac}/clusterrolebindings", binding)
        try:
            await complete(link)
            await until("the refusals to be over", lambda: link.state.problems == {}, within_seconds=40)
        finally:
            await apiserver.api("DELETE", f"{rbac}/clusterrolebindings/{role}")
            await apiserver.api("DELETE", f"{rbac}/clusterroles/{role}")


async def test_refused_credentials_are_told_and_read_again(apiserver: ControlPlane, log: Log, tmp_path: Path):
    config = apiserver.write_kubeconfig("kl-stale", "no-such-token")
    async with kubelink(log, ApiServerSource(Access(kubeconfig=str(config)))) as link:
        await until("the refusal to be told", lambda: "401" in link.state.problems.get("Pod", ""))
        assert link.state.epoch == -1
        config.write_text(apiserver.kubeconfig.read_text())  # as an exec plugin or a rotation would
        await complete(link)
        await until("the refusal to be over", lambda: link.state.problems == {}, within_seconds=40)


async def test_a_token_file_is_read_again_for_every_request(apiserver: ControlPlane, log: Log, tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("stale\n")
    by_file = Access(url=apiserver.url, ca_file=str(apiserver.ca), token_file=str(token))
    async with kubelink(log, ApiServerSource(by_file)) as link:
        await until("the refusal to be told", lambda: "401" in link.state.problems.get("Pod", ""))
        token.write_text(apiserver.admin_token + "\n")
        await complete(link)


async def test_watches_end_and_go_on_by_themselves(apiserver: ControlPlane, log: Log):
    space = await namespace(apiserver)
    asked = 0

    def short(low: float, high: float) -> float:
        nonlocal asked
        asked += 1
        return 1.0

    async with kubelink(log, source(apiserver, uniform=short)) as link:
        await complete(link)
        await until("watches to have ended several times", lambda: asked > 18)
        await create(apiserver, space, "later")
        await until_pods(log, space, "later")
        assert link.state.problems == {}


async def test_a_corrupt_record_is_named_and_written_over(apiserver: ControlPlane, log: Log):
    space = await namespace(apiserver)
    await create(apiserver, space, "web")
    async with kubelink(log, source(apiserver)) as link:
        await complete(link)
        (offset,) = await log.append([Entry(f"Pod/{space}/web", b"\x00 not an event")])

        async def mended() -> bool:
            return f"Pod/{space}/web" in fold(compacted(await records(log)))[0]

        await until("the key to be written again", mended)
        assert f"Pod/{space}/web" in link.state.problems[f"eastwest.test.events.v1 offset {offset}"]
        await create(apiserver, space, "next")
        await until_pods(log, space, "web", "next")


async def test_what_a_replaced_kubelink_still_writes_is_ignored_and_written_over(apiserver: ControlPlane, log: Log):
    space = await namespace(apiserver)
    await create(apiserver, space, "web")
    paused = await EpochWriter.begin(log, cluster="test", kinds=("Pod",), writer="paused")
    async with kubelink(log, source(apiserver)) as link:
        await complete(link)
        key = f"Pod/{space}/web"
        late = next(record for record in await records(log) if record.key == key)
        assert late.value is not None
        old = late.value.replace(f'"epoch":{link.state.epoch}'.encode(), f'"epoch":{paused.epoch}'.encode())
        await log.append([Entry(key, old), Entry(f"Pod/{space}/ghost", old.replace(b'"web"', b'"ghost"'))])

        async def mended() -> bool:
            state, _ = fold(compacted(await records(log)))
            return key in state and f"Pod/{space}/ghost" not in state

        await until("the late writes to be written over", mended)
        assert await pods_of(log, space) == {"web"}
