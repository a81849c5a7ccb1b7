"""From manifests to objects: what the API server would have filled in, and no more.

Defaults are those of the API types' own comments (core/v1, networking.k8s.io/v1, discovery.k8s.io/v1) as far as the
product reads the field; null means absent, as it does to the API server.
"""

import hashlib
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from producers.core.decoding import decode_object
from producers.core.observations import Unreadable
from schemas.events import KINDS
from schemas.objects import KubernetesObject

CLUSTER_SCOPED: Final = frozenset({"Namespace", "Node"})
NAME_LABEL: Final = "kubernetes.io/metadata.name"
"""Every Namespace carries its name in this label (KEP-2161)."""


DEEPEST: Final = 500
"""Kubernetes objects are a tenth as deep. The YAML library's C code knows no limit but the process' stack."""
_BRACKET: Final = re.compile(r"[][{}]")
_BLOCKS: Final = re.compile(r"^(?: |- |\? )+", re.MULTILINE)


class Ignored(msgspec.Struct, frozen=True, gc=False):
    """A document of a kind that is no input here."""

    kind: str
    name: str


class BadDocument(msgspec.Struct, frozen=True, gc=False):
    """A document that is no Kubernetes object."""

    reason: str


Read = KubernetesObject | Ignored | Unreadable | BadDocument


def nesting(text: str) -> int:
    """About how deeply the YAML or JSON *text* is nested, seen without parsing it: never less, brackets in quotes
    apart."""
    depth = deepest = 0
    for match in _BRACKET.finditer(text):
        depth = depth + 1 if match[0] in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest + max((len(blocks) for blocks in _BLOCKS.findall(text)), default=0)


def read_document(document: object) -> Iterator[Read]:
    """The objects of one parsed document: one, several where it is a list of any kind, none where it is empty."""
    if document is None:
        return
    if not isinstance(document, dict):
        yield BadDocument(f"a Kubernetes object is a mapping, this is {_described(document)}")
        return
    kind = document.get("kind")
    if not isinstance(kind, str) or not kind:
        yield BadDocument("it has no kind")
    elif kind.endswith("List") and isinstance(document.get("items"), list):
        # The items of a typed list need not repeat their kind.
        default_kind = {"kind": kind.removesuffix("List")} if kind != "List" else {}
        for item in document["items"]:
            yield from read_document({**default_kind, **item} if isinstance(item, dict) else item)
    else:
        yield _read_object(kind, document)


def _read_object(kind: str, document: dict[Any, Any]) -> Read:
    meta = document.get("metadata")
    name = meta.get("name") if isinstance(meta, dict) else None
    if not isinstance(name, str) or not name:
        return BadDocument(f"a {kind} without metadata.name")
    if kind not in KINDS:
        return Ignored(kind, name)
    content = without_nulls(document)
    defaulted = default(kind, content)
    try:
        data = msgspec.json.encode(defaulted)
    except (TypeError, msgspec.MsgspecError) as error:
        return BadDocument(f"{kind} {name}: {error}")
    return decode_object(kind, data)


def default(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    """*content* with what the API server would have added. Its own parts are not changed."""
    meta = dict(content["metadata"])
    if kind in CLUSTER_SCOPED:
        meta.pop("namespace", None)
    else:
        meta.setdefault("namespace", "default")
    if kind == "Namespace" and isinstance(meta.get("labels", {}), dict):
        meta["labels"] = {**meta.get("labels", {}), NAME_LABEL: meta["name"]}
    meta.setdefault("uid", made_uid(kind, str(meta.get("namespace", "")), str(meta["name"])))
    content = {**content, "metadata": meta}
    meta.setdefault("resourceVersion", content_version(content))
    if kind == "Namespace":
        content["status"] = {"phase": "Active", **_mapping(content.get("status"))}
    elif kind == "NetworkPolicy" and isinstance(content.get("spec", {}), dict):
        content["spec"] = _default_policy(content.get("spec", {}))
    elif kind == "Pod":
        status = _mapping(content.get("status"))
        if status.get("podIP") and not status.get("podIPs"):
            content["status"] = {**status, "podIPs": [{"ip": status["podIP"]}]}
    elif kind == "Service":
        content["spec"] = _default_service(_mapping(content.get("spec")))
    return content


def made_uid(kind: str, namespace: str, name: str) -> str:
    """A uid in the usual form, the same for the same object in every run."""
    digits = hashlib.blake2b(f"{kind}/{namespace}/{name}".encode(), digest_size=16).hexdigest()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def content_version(content: dict[str, Any]) -> str:
    """A version that changes with the content, and only then."""
    try:
        encoded = msgspec.json.encode(content, order="deterministic")
    except (TypeError, msgspec.MsgspecError):
        return "0"  # told as a bad document when it is read
    return str(int.from_bytes(hashlib.blake2b(encoded, digest_size=6).digest()))


def without_nulls(value: Any) -> Any:
    """*value* without null fields: a null means what an absent field means. Nulls in lists stay."""
    if isinstance(value, dict):
        return {str(key): without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def _default_policy(spec: dict[str, Any]) -> dict[str, Any]:
    """``policyTypes`` always with Ingress, with Egress if there is an egress rule; ``protocol`` TCP."""
    spec = dict(spec)
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for direction in ("ingress", "egress"):
        if isinstance(rules := spec.get(direction), list):
            spec[direction] = [_default_rule(rule) for rule in rules]
    return spec


def _default_rule(rule: Any) -> Any:
    if not isinstance(rule, dict) or not isinstance(ports := rule.get("ports"), list):
        return rule
    return {**rule, "ports": [{"protocol": "TCP", **port} if isinstance(port, dict) else port for port in ports]}


def _default_service(spec: dict[str, Any]) -> dict[str, Any]:
    if isinstance(address := spec.get("clusterIP"), str) and address and not spec.get("clusterIPs"):
        spec = {**spec, "clusterIPs": [address]}
    if isinstance(ports := spec.get("ports"), list):
        # An absent target is the port itself (core/v1 ServicePort).
        spec = {
            **spec,
            "ports": [
                {"targetPort": port["port"], **port} if isinstance(port, dict) and "port" in port else port
                for port in ports
            ],
        }
    return spec


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _described(value: object) -> str:
    return "a list" if isinstance(value, list) else "plain text" if isinstance(value, str) else type(value).__name__
