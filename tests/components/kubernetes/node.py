"""One real node: containerd, kubelet and kube-proxy in a network namespace of its own."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from streams.child_process import ChildProcess
from tests.components.kubernetes.certificates import Certificates
from tests.components.kubernetes.images import PAUSE
from tests.components.kubernetes.networks import POD_RANGES, NodeNetwork
from tests.components.namespaces import inside_command

CGROUPS = Path("/sys/fs/cgroup")

_CONTAINERD = """\
version = 2
root = {root}
state = {state}
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]
[grpc]
address = {socket}
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = {cni}
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = {runc}
"""


class Node:
    """``.name .address .namespace .containerd_socket``; `spawn` runs a program of the test on it.

    Its own are ``containerd``, ``kubelet`` and ``kube-proxy``: `kill` one, `start` it again.
    """

    def __init__(self, folder: Path, binaries: Path, network: NodeNetwork, *, ipv6: bool) -> None:
        self.folder = folder
        self.binaries = binaries
        self.network = network
        self.ipv6 = ipv6
        self.name = f"node{network.number}"
        self._commands: dict[str, list[str | Path]] = {}
        self._processes: dict[str, ChildProcess] = {}

    @property
    def namespace(self) -> str:
        """Name of its network namespace."""
        return self.network.namespace

    @property
    def netns(self) -> Path:
        """Path of its network namespace."""
        return Path("/run/netns") / self.namespace

    @property
    def address(self) -> str:
        return self.network.address

    @property
    def containerd_socket(self) -> Path:
        return self.folder / "containerd.sock"

    @property
    def static_pods(self) -> Path:
        """What the kubelet runs without being told by the API server: one Pod per file."""
        return self.folder / "static-pods"

    @property
    def processes(self) -> list[ChildProcess]:
        """The node's own, in the order in which they were started."""
        return list(self._processes.values())

    async def kill(self, name: str) -> None:
        """As if by ``kill -9``. Pods go on: they are children of nobody here."""
        await self._processes[name].kill()

    def start(self, name: str) -> None:
        """Start a program of the node's own again, just as before."""
        self._processes[name] = self.spawn(name, self._commands[name])

    def spawn(self, name: str, command: Sequence[str | Path]) -> ChildProcess:
        """Start *command* as a process of this node; the caller ends it."""
        whole = [*inside_command(self.namespace), *command]
        return ChildProcess.spawn(f"{self.name} {name}", whole, log=self.folder / f"{name}.log", folder=self.folder)

    def start_containerd(self) -> None:
        cni = self.folder / "cni"
        cni.mkdir(parents=True)
        (cni / "10-test.conflist").write_text(json.dumps(self._cni_network()))
        places = {"root": "containerd", "state": "containerd-state", "runc": "runc", "cni": "cni"}
        quoted = {key: json.dumps(str(self.folder / name)) for key, name in places.items()}
        configuration = self.folder / "containerd.toml"
        configuration.write_text(
            _CONTAINERD.format(**quoted, socket=json.dumps(str(self.containerd_socket)), pause=PAUSE)
        )
        self._start_first("containerd", ["containerd", "-c", configuration])

    def start_kubelet(self, certificates: Certificates, kubeconfig: Path) -> None:
        self._make_cgroups()
        self.static_pods.mkdir()
        configuration = self.folder / "kubelet.json"
        configuration.write_text(json.dumps(self._kubelet_configuration(certificates)))
        command: list[str | Path] = [
            self.binaries / "kubelet",
            f"--config={configuration}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}" + (f",{self.network.address6}" if self.ipv6 else ""),
            f"--root-dir={self.folder / 'kubelet'}",
            f"--cert-dir={self.folder / 'kubelet-certificates'}",
        ]
        self._start_first("kubelet", command)

    def start_kube_proxy(self, kubeconfig: Path, mode: str) -> None:
        """*mode* is ``iptables`` or ``nftables``."""
        command: list[str | Path] = [
            self.binaries / "kube-proxy",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={self.name}",
            f"--proxy-mode={mode}",
            f"--cluster-cidr={','.join(POD_RANGES if self.ipv6 else POD_RANGES[:1])}",
            f"--bind-address={self.address}",
            "--healthz-bind-address=127.0.0.1:10256",
            # Node ports as by default: with iptables at every address of the node, with nftables at its first ones.
            "--iptables-localhost-nodeports=false",  # it would take another setting of the node
            # These two would change settings of the whole machine.
            "--oom-score-adj=0",
            "--conntrack-max-per-core=0",
        ]
        self._start_first("kube-proxy", command)

    def _start_first(self, name: str, command: list[str | Path]) -> None:
        self._commands[name] = command
        self.start(name)

    def _cni_network(self) -> dict[str, object]:
        """Bridge and host-local addresses, as in many real clusters. Its name tells its results in /var/lib/cni."""
        ranges = [[{"subnet": self.network.pods}]]
        routes = [{"dst": "0.0.0.0/0"}]
        if self.ipv6:
            ranges.append([{"subnet": self.network.pods6}])
            routes.append({"dst": "::/0"})
        addresses = {
            "type": "host-local",
            "dataDir": str(self.folder / "addresses"),
            "ranges": ranges,
            "routes": routes,
        }
        bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True}
        ports = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "0.4.0", "name": self.namespace, "plugins": [{**bridge, "ipam": addresses}, ports]}

    def _kubelet_configuration(self, certificates: Certificates) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "readOnlyPort": 0,
            "healthzBindAddress": "127.0.0.1",
            "tlsCertFile": str(certificates.certificate(self.name)),
            "tlsPrivateKeyFile": str(certificates.key(self.name)),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(certificates.ca)},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": f"unix://{self.containerd_socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.namespace}",
            "failCgroupV1": False,
            "oomScoreAdj": 0,
            "resolvConf": "",
            "staticPodPath": str(self.static_pods),
            "fileCheckFrequency": "1s",
            "podLogsDir": str(self.folder / "pod-logs"),
            "volumePluginDir": str(self.folder / "volume-plugins"),
            # The machine's own fullness must not evict a test's Pods.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        }

    def _make_cgroups(self) -> None:
        """The kubelet wants its root cgroup to exist with the controllers it uses, in version 1 and 2 alike."""
        if (CGROUPS / "cgroup.controllers").exists():
            wanted = {"cpu", "cpuset", "memory", "pids"} & set((CGROUPS / "cgroup.controllers").read_text().split())
            enable = " ".join(f"+{controller}" for controller in sorted(wanted))
            (CGROUPS / "cgroup.subtree_control").write_text(enable)
            (CGROUPS / self.namespace).mkdir(exist_ok=True)
            return
        for hierarchy in CGROUPS.iterdir():
            if not (hierarchy / "cgroup.procs").exists() or (hierarchy / "cgroup.controllers").exists():
                continue  # not a hierarchy of version 1
            (hierarchy / self.namespace).mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):  # empty at first, and with them empty nothing may run there
                if (hierarchy / name).exists():
                    (hierarchy / self.namespace / name).write_text((hierarchy / name).read_text())


def node_programs_missing() -> list[str]:
    """What Debian packages bring and this machine lacks, by name of program."""
    programs = [
        name for name in ("containerd", "ctr", "runc", "ip", "nsenter", "openssl") if shutil.which(name) is None
    ]
    return programs + [
        name for name in ("bridge", "host-local", "portmap") if not (Path("/usr/lib/cni") / name).exists()
    ]
