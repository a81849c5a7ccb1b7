"""Kubernetes objects as the API server sends them, with everything that must not leave Kubelink."""

import json
from typing import Any

SECRETS = (
    "env-secret-value",
    "command-secret",
    "arg-secret",
    "volume-secret-name",
    "annotation-secret",
    "managed-field-secret",
    "probe-secret",
)
"""Texts that no log may hold."""


def pod(name: str, *, uid: str = "u1", version: str = "1", namespace: str = "shop", **labels: str) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid,
            "resourceVersion": version,
            "labels": labels or None,
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": '{"spec":"annotation-secret"}',
                "kubernetes.io/config.mirror": "mirror-of-a-static-pod",
            },
            "managedFields": [{"manager": "managed-field-secret"}],
        },
        "spec": {
            "nodeName": "node-1",
            "volumes": [{"name": "v", "secret": {"secretName": "volume-secret-name"}}],
            "containers": [
                {
                    "name": "web",
                    "image": "web:1",
                    "command": ["command-secret"],
                    "args": ["--password=arg-secret"],
                    "env": [{"name": "PASSWORD", "value": "env-secret-value"}],
                    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                    "livenessProbe": {"httpGet": {"httpHeaders": [{"name": "X", "value": "probe-secret"}]}},
                }
            ],
        },
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
    }


def line(type_: str, item: dict[str, Any]) -> bytes:
    return json.dumps({"type": type_, "object": item}).encode()


def bookmark(version: str, *, list_complete: bool = False) -> bytes:
    annotations = {"k8s.io/initial-events-end": "true"} if list_complete else {}
    return line("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": version, "annotations": annotations}})


def error(code: int, reason: str = "", message: str = "") -> bytes:
    return line("ERROR", {"kind": "Status", "code": code, "reason": reason, "message": message})
