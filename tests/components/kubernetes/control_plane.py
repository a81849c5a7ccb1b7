"""A real kube-apiserver with its etcd: on the loopback by itself, or as the control plane of a cluster."""

import asyncio
import base64
import json
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from streams.child_process import ChildProcess
from tests.components.kubernetes.certificates import ADMIN_TOKEN, READER_TOKEN, Certificates, make_certificates
from tests.components.namespaces import inside, inside_command
from tests.components.ports import free_ports
from tests.components.waiting import until

_LOOPBACK = "127.0.0.1"
_TRANSIENT = (aiohttp.ClientError, OSError, TimeoutError)


class ApiError(Exception):
    """The API server answered with an error status."""

    def __init__(self, method: str, path: str, status: int, body: str) -> None:
        super().__init__(f"{method} {path}: {status} {body[:500]}")
        self.status = status


class ControlPlane:
    """etcd and kube-apiserver, ready in about 3 s, on the same address over `kill` and `start`.

    Without *namespace* it listens on the loopback of this machine and needs no root. RBAC is on; `admin_token` may do
    everything, `reader_token` nothing until a test binds it. *flags* are added to the API server's; *controllers*
    also start kube-controller-manager with exactly those.
    """

    def __init__(
        self,
        folder: Path,
        binaries: Path,
        *,
        address: str = _LOOPBACK,
        namespace: str | None = None,
        nodes: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
        controllers: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.binaries = binaries
        self.address = address
        self.namespace = namespace
        self.flags = list(flags)
        self.controllers = list(controllers)
        self.port, self._etcd_port, self._etcd_peer_port, self._controllers_port = (
            free_ports(4) if namespace is None else [6443, 2379, 2380, 10257]
        )
        self.certificates: Certificates = make_certificates(
            folder / "certificates", {_LOOPBACK, "10.96.0.1", address}, dict(nodes or {})
        )
        self.kubeconfig = self.write_kubeconfig("admin", ADMIN_TOKEN)
        self.etcd: ChildProcess | None = None
        self.server: ChildProcess | None = None
        self.others: list[ChildProcess] = []
        self._tls = ssl.create_default_context(cafile=str(self.ca))

    admin_token = ADMIN_TOKEN
    reader_token = READER_TOKEN

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self.port}"

    @property
    def ca(self) -> Path:
        """The file with the certificate authority."""
        return self.certificates.ca

    @property
    def running(self) -> bool:
        return self.server is not None and self.server.running and self.etcd is not None and self.etcd.running

    def write_kubeconfig(self, user: str, token: str) -> Path:
        """A kubeconfig for *user*, self-contained, and where it was written."""
        authority = base64.b64encode(self.ca.read_bytes()).decode()
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        }
        path = self.folder / f"{user}.kubeconfig"
        path.write_text(json.dumps(content))  # JSON is YAML
        path.chmod(0o600)
        return path

    def spawn(self, name: str, command: Sequence[str | Path]) -> ChildProcess:
        """One more process of this control plane, in its namespace."""
        return ChildProcess.spawn(
            name, [*inside_command(self.namespace), *command], log=self.folder / f"{name}.log", folder=self.folder
        )

    async def start(self) -> None:
        """Start what is not running and wait until the API server says it is ready."""
        if self.etcd is None or not self.etcd.running:
            self.etcd = self.spawn("etcd", self._etcd_command())
        if self.server is None or not self.server.running:
            self.server = self.spawn("kube-apiserver", self._server_command())
        server, etcd = self.server, self.etcd

        async def ready() -> bool:
            server.ensure_running()
            etcd.ensure_running()
            await self.api("GET", "/readyz")
            return True

        await until(
            "the API server to be ready", ready, within_seconds=60, poll_seconds=0.1, ignoring=(*_TRANSIENT, ApiError)
        )
        if self.controllers and not any(other.running for other in self.others):
            command = [
                self.binaries / "kube-controller-manager",
                "--leader-elect=false",
                f"--kubeconfig={self.kubeconfig}",
            ]
            command += [f"--controllers={','.join(self.controllers)}", f"--secure-port={self._controllers_port}"]
            command += [f"--bind-address={_LOOPBACK}", f"--root-ca-file={self.ca}"]
            command += [f"--service-account-private-key-file={self.certificates.service_account_key}"]
            self.others.append(self.spawn("kube-controller-manager", command))

    async def kill(self) -> None:
        """The API server only, as if by ``kill -9``; etcd keeps everything."""
        assert self.server is not None, "the API server was not started"
        await self.server.kill()

    async def stop(self) -> None:
        """The API server only, in good order. It drains its watches, which takes some seconds."""
        assert self.server is not None, "the API server was not started"
        await self.server.end(within_seconds=20)

    async def compact(self) -> int:
        """Forget etcd's history up to now; return the revision. See `flags` ``--watch-cache=false`` to see a 410."""
        async with aiohttp.ClientSession(f"http://{_LOOPBACK}:{self._etcd_port}") as session:
            async with session.post("/v3/kv/range", json={"key": base64.b64encode(b"/").decode()}) as response:
                response.raise_for_status()
                revision = int((await response.json())["header"]["revision"])
            async with session.post("/v3/kv/compaction", json={"revision": revision, "physical": True}) as response:
                response.raise_for_status()
        return revision

    async def api(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str = ADMIN_TOKEN,
        content_type: str = "application/json",
    ) -> Any:
        """One request; the decoded answer (a string where it is not JSON). Raises ApiError on an error status.

        For PATCH say the *content_type*, such as ``application/merge-patch+json``.
        """

        async def request() -> Any:
            timeout = aiohttp.ClientTimeout(total=20)
            headers = {"Authorization": f"Bearer {token}", "Content-Type": content_type}
            data = None if body is None else json.dumps(body)
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(method, self.url + path, data=data, headers=headers, ssl=self._tls) as response,
            ):
                text = await response.text()
                if response.status >= 400:
                    raise ApiError(method, path, response.status, text)
                return json.loads(text) if response.content_type == "application/json" else text

        return await inside(self.namespace, request)

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run the real kubectl as admin and return its output. Raises AssertionError with its words where it fails."""
        command = [
            *inside_command(self.namespace),
            self.binaries / "kubectl",
            "--kubeconfig",
            self.kubeconfig,
            *arguments,
        ]
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate(None if stdin is None else stdin.encode())
        assert process.returncode == 0, f"kubectl {' '.join(arguments)}: {errors.decode()}{output.decode()}"
        return output.decode()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (*self.others, self.server, self.etcd):
            if process is not None:  # nothing of it is used again, so nothing needs a tidy end
                await process.kill()

    def _etcd_command(self) -> list[str | Path]:
        client, peer = f"http://{_LOOPBACK}:{self._etcd_port}", f"http://{_LOOPBACK}:{self._etcd_peer_port}"
        return [
            self.binaries / "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _server_command(self) -> list[str | Path]:
        made = self.certificates
        return [
            self.binaries / "kube-apiserver",
            f"--etcd-servers=http://{_LOOPBACK}:{self._etcd_port}",
            f"--bind-address={self.address}",
            f"--secure-port={self.port}",
            f"--tls-cert-file={made.certificate('apiserver')}",
            f"--tls-private-key-file={made.key('apiserver')}",
            f"--client-ca-file={made.ca}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={made.service_account_public_key}",
            f"--service-account-signing-key-file={made.service_account_key}",
            f"--token-auth-file={made.tokens}",
            "--anonymous-auth=false",
            *([] if self.namespace else ["--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16"]),
            # Alone it serves no Pod: nobody needs the `kubernetes` Endpoints, and without a controller manager there
            # are no service accounts that a Pod could be given.
            *(
                []
                if self.namespace
                else ["--endpoint-reconciler-type=none", "--disable-admission-plugins=ServiceAccount"]
            ),
            *self.flags,
        ]
