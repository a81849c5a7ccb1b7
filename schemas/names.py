"""Every topic, stream, subject and key, in one place.

Node, Pod and object names may contain dots, which would split a NATS subject token, and never contain an underscore
(RFC 1123): a token writes ``.`` as ``_`` and can be read back.
"""

import re
from typing import Final

DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
NO_NAMESPACE: Final = "-"
"""Stands for the namespace of a cluster-scoped object in keys."""


class InvalidClusterName(ValueError):
    """A cluster id that is not a DNS label; it could not be part of a topic or subject."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"cluster name {name!r} is not a DNS label: use 1 to 63 characters of a-z, 0-9 and '-', "
            "beginning and ending with a letter or digit"
        )
        self.name = name


def checked_cluster(name: str) -> str:
    """Return *name* if it is a DNS label; raise `InvalidClusterName` otherwise."""
    if not DNS_LABEL.fullmatch(name):
        raise InvalidClusterName(name)
    return name


def token(name: str) -> str:
    """*name* as one NATS subject token."""
    return name.replace(".", "_")


def from_token(text: str) -> str:
    """The name that `token` wrote as *text*."""
    return text.replace("_", ".")


def key(kind: str, namespace: str, name: str) -> str:
    """The log key of one object: ``<Kind>/<namespace or ->/<name>``."""
    return f"{kind}/{namespace or NO_NAMESPACE}/{name}"


def events_topic(cluster: str) -> str:
    return f"eastwest.{cluster}.events.v1"


def status_topic(cluster: str) -> str:
    return f"eastwest.{cluster}.status.v1"


def dead_topic(cluster: str) -> str:
    return f"eastwest.{cluster}.dead.v1"


def policy_stream(cluster: str) -> str:
    return f"POLICY-{cluster}"


def policy_subjects(cluster: str) -> str:
    """All of the policy stream, as stored."""
    return f"policy.{cluster}.>"


def live_subjects(cluster: str) -> str:
    """All of the policy stream, as republished on arrival."""
    return f"live.policy.{cluster}.>"


def owned_prefix(cluster: str, owner: str) -> str:
    """Where the holder of the token *owner* publishes; the stream maps it to ``policy.<cluster>``."""
    return f"own.{cluster}.{owner}.policy"


def fence_subject(cluster: str) -> str:
    return f"policy.{cluster}.fence"


def mark_subject(cluster: str) -> str:
    return f"policy.{cluster}.mark"


def program_subject(cluster: str, node: str, uid: str) -> str:
    return f"policy.{cluster}.pod.{token(node)}.{token(uid)}"


def set_subject(cluster: str, identity: str, part: str) -> str:
    return f"policy.{cluster}.set.{identity}.{part}"


def inventory_bucket(cluster: str) -> str:
    return f"inventory-{cluster}"


def status_stream(cluster: str) -> str:
    return f"STATUS-{cluster}"


def status_subject(cluster: str, component: str, name: str) -> str:
    return f"status.{cluster}.{component}.{token(name)}"
