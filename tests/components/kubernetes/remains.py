"""Removing every trace of a cluster, knowing only its record: also of one whose test run was killed."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.components.kubernetes.node import CGROUPS

_RECORDS = Path("/run/eastwest-tests")
_SYSCTLS = ("kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory")
"""The kubelet sets these for the whole machine."""
_CNI_RESULTS = Path("/var/lib/cni/results")
_LOG_LINKS = Path("/var/log/containers")
_DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")
"""A kubelet puts a socket here whatever its root directory is."""


@dataclass(frozen=True)
class ClusterRecord:
    """What stands in /run while a cluster does: whose it is, where its files lie, and what was there before."""

    prefix: str
    pid: int
    folder: str
    namespaces: list[str]
    sysctls: dict[str, str]

    @classmethod
    def write(cls, prefix: str, folder: Path, namespaces: list[str]) -> "ClusterRecord":
        sysctls = {name: (Path("/proc/sys") / name).read_text().strip() for name in _SYSCTLS}
        record = cls(prefix, os.getpid(), str(folder), namespaces, sysctls)
        _RECORDS.mkdir(exist_ok=True)
        (_RECORDS / f"{prefix}.json").write_text(json.dumps(asdict(record)))
        return record


def sweep_dead_clusters() -> None:
    """Remove what test runs left that no longer live; the newest first, so that the oldest settings come back last."""
    for path in sorted(_RECORDS.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True):
        record = ClusterRecord(**json.loads(path.read_text()))
        if not Path(f"/proc/{record.pid}").exists():
            remove_remains(record)


def remove_remains(record: ClusterRecord) -> None:
    """Kill what still runs in the cluster's own cgroups and namespaces, then unmount and delete. Safe to repeat."""
    folder = Path(record.folder)
    _stop_everything(record.namespaces, folder)
    for name in record.namespaces:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=20)
    for cgroup in _cgroups(record.namespaces):
        for directory, _, _ in os.walk(cgroup, topdown=False):
            Path(directory).rmdir()
    for link in _LOG_LINKS.glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{folder}/"):
            link.unlink()
    for name, value in record.sysctls.items():
        (Path("/proc/sys") / name).write_text(value)
    shutil.rmtree(folder, ignore_errors=True)
    (_RECORDS / f"{record.prefix}.json").unlink(missing_ok=True)
    if not list(_RECORDS.glob("*.json")):  # the last cluster here
        (_DEVICE_PLUGINS / "kubelet.sock").unlink(missing_ok=True)
        for directory in (_DEVICE_PLUGINS, _DEVICE_PLUGINS.parent, _RECORDS):
            with contextlib.suppress(OSError):  # absent, or used by something else
                directory.rmdir()


def cut_power(namespace: str, folder: Path) -> None:
    """Leave of one node what a power cut leaves: no process, no Pod's network, no mount; the files on disk."""
    _stop_everything([namespace], folder)
    shutil.rmtree(folder / "containerd-state")  # in memory, on a real node


def _stop_everything(namespaces: list[str], folder: Path) -> None:
    _kill_all(namespaces, _cgroups(namespaces))
    for address in folder.rglob("containerd-state/io.containerd.runtime.v2.task/k8s.io/*/address"):
        Path(address.read_text().removeprefix("unix://")).unlink(missing_ok=True)  # the killed shim's socket
    _remove_pod_namespaces(namespaces)
    for mount in sorted(_mounts_below(folder), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True, timeout=20)


def _cgroups(namespaces: list[str]) -> list[Path]:
    return [path for name in namespaces for path in (CGROUPS / name, *CGROUPS.glob(f"*/{name}"))]


def _kill_all(namespaces: list[str], cgroups: list[Path]) -> None:
    """Containers by their cgroup, shims and daemons by the namespace they were started in; both are ours alone."""
    deadline = time.monotonic() + 20
    while pids := _pids(namespaces, cgroups):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes that do not die: {sorted(pids)}")
        time.sleep(0.02)


def _pids(namespaces: list[str], cgroups: list[Path]) -> set[int]:
    pids: set[int] = set()
    for cgroup in cgroups:
        for procs in cgroup.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):  # a cgroup that just went, or a threaded one
                pids.update(map(int, procs.read_text().split()))
    for name in namespaces:
        run = subprocess.run(["ip", "netns", "pids", name], check=False, capture_output=True, text=True, timeout=20)
        pids.update(map(int, run.stdout.split()))
    return pids - {os.getpid()}


def _remove_pod_namespaces(networks: list[str]) -> None:
    """CNI remembers for each Pod of a network where its namespace is mounted."""
    for network in networks:
        for result in list(_CNI_RESULTS.glob(f"{network}-*")):
            remembered = json.loads(result.read_text())
            for path in {each["sandbox"] for each in remembered["result"]["interfaces"] if each.get("sandbox")}:
                name = Path(path).name
                subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=20)
            for one in _CNI_RESULTS.glob(f"*-{remembered['containerId']}-*"):  # its loopback too
                one.unlink()


def _mounts_below(folder: Path) -> list[str]:
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{folder}/")]
