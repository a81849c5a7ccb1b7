"""The command that plays cases, and a small case to play."""

import json
import subprocess
import sys
from pathlib import Path


def check(*arguments: str | Path, within_seconds: float = 600) -> subprocess.CompletedProcess[str]:
    """Run ``eastwest check``."""
    command = [Path(sys.executable).with_name("eastwest"), "check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=within_seconds)


def summary(done: subprocess.CompletedProcess[str]) -> str:
    """Its last line; if it did not end well, all it said."""
    return done.stdout.splitlines()[-1] if done.returncode == 0 else done.stdout + done.stderr


def case(folder: Path, **changes: object) -> Path:
    """A suite of one case: a Pod that admits only the client."""
    pods = [_pod(name, number) for number, name in enumerate(("client", "stranger", "web"), 1)]
    spec = {
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}],
    }
    policy = {"kind": "NetworkPolicy", "metadata": {"namespace": "shop", "name": "web"}, "spec": spec}
    expected = {"shop/client->shop/web": "allowed", "shop/stranger->shop/web": "blocked"}
    data = {
        "id": "one",
        "name": "only the client",
        "initial": {"namespaces": [{"kind": "Namespace", "metadata": {"name": "shop"}}], "pods": pods},
        "steps": [{"actions": [{"kind": "create_policy", "object": policy}], "expected": {"tcp/80": expected}}],
        **changes,
    }
    path = folder / "suite.jsonl"
    path.write_text(json.dumps(data) + "\n")
    return path


def _pod(name: str, number: int) -> dict[str, object]:
    address = f"10.244.0.{number}"
    return {
        "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}},
        "spec": {"containers": []},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }
