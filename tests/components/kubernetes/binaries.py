"""Kubernetes' own programs, built from Go modules and kept by the hash of go.mod and go.sum.

Run as ``python -m tests.components.kubernetes.binaries [NAME…]`` from the project's root to build beforehand: all of
them take about eight minutes on two cores when nothing is cached, a second when everything is.
"""

import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.components.caches import Unobtainable, cached
from tests.components.kubernetes.go_program import go_program

_MODULE = Path(__file__).parent

_PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "agnhost": "k8s.io/kubernetes/test/images/agnhost",
    "pause": "./pause",
}
_IN_IMAGES = {"agnhost", "pause"}
"""Run in an empty root file system, so they must need no C library."""

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
EVERYTHING = tuple(_PACKAGES)


def kubernetes_binaries(names: Iterable[str] = EVERYTHING) -> Path:
    """The folder with *names*; what is missing is built first.

    Raises Unobtainable where something has to be built and there is no Go, or it fails.
    """
    folder = cached("kubernetes", _MODULE / "go.mod", _MODULE / "go.sum")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "building.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at once: the second waits and then finds everything built
        for name in names:
            if not (folder / name).exists():
                _build(name, folder / name)
    return folder


def _build(name: str, target: Path) -> None:
    go = go_program()
    if go is None:
        raise Unobtainable(f"{name} is not built and there is no Go 1.24 or newer", "make test-cluster sets it up")
    print(f"building {name} …", file=sys.stderr, flush=True)
    environment = {**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false"}
    if name in _IN_IMAGES:
        environment["CGO_ENABLED"] = "0"
    unfinished = target.with_suffix(".unfinished")
    command = [go, "build", "-ldflags", _linker_flags(), "-o", str(unfinished), _PACKAGES[name]]
    if subprocess.run(command, cwd=_MODULE, env=environment, check=False, stdin=subprocess.DEVNULL).returncode != 0:
        raise Unobtainable(f"{name} is not built and Go could not build it", "its words stand above")
    unfinished.replace(target)


def _linker_flags() -> str:
    """Without its version linked in, Kubernetes calls itself v0.0.0 and refuses some of its own objects."""
    found = re.search(r"k8s\.io/kubernetes v(\d+)\.(\d+)\.\d+", (_MODULE / "go.mod").read_text())
    assert found is not None, "go.mod names no version of k8s.io/kubernetes"
    version = found[0].split()[1]
    facts = {
        "gitVersion": version,
        "gitMajor": found[1],
        "gitMinor": found[2],
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
    }
    return "-s -w " + " ".join(f"-X k8s.io/component-base/version.{key}={value}" for key, value in facts.items())


if __name__ == "__main__":
    try:
        print(kubernetes_binaries(sys.argv[1:] or EVERYTHING))
    except Unobtainable as error:
        sys.exit(f"tests on a real Kubernetes will be skipped: {error}")
