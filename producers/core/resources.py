"""Where the API server serves each kind, and how its RBAC calls it."""

from typing import Final

import msgspec


class Resource(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One kind as the API serves it to a whole cluster."""

    kind: str
    group: str = ""
    """Empty: the core group."""
    version: str = "v1"
    plural: str

    @property
    def path(self) -> str:
        """Collection over all namespaces."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return f"{root}/{self.plural}"

    @property
    def missing_rule(self) -> str:
        """The ClusterRole rule without which the API server answers 403."""
        return f'apiGroups: ["{self.group}"], resources: ["{self.plural}"], verbs: ["list", "watch"]'


RESOURCES: Final = {
    resource.kind: resource
    for resource in (
        Resource(kind="Namespace", plural="namespaces"),
        Resource(kind="Node", plural="nodes"),
        Resource(kind="NetworkPolicy", group="networking.k8s.io", plural="networkpolicies"),
        Resource(kind="Service", plural="services"),
        Resource(kind="EndpointSlice", group="discovery.k8s.io", plural="endpointslices"),
        Resource(kind="Pod", plural="pods"),
    )
}
