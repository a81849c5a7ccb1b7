"""What the containers of a Pod may do to the rules in its network namespace (`semantics.md` §5.9).

Sources: ``SecurityContext`` and ``Capabilities`` field comments; container runtimes grant NET_RAW by default.
"""

from collections.abc import Iterator
from typing import Final

from schemas.objects import Container, Pod

NET_ADMIN: Final = "NET_ADMIN"
NET_RAW: Final = "NET_RAW"


def privileges(pod: Pod) -> Iterator[tuple[Container, frozenset[str]]]:
    """The containers of *pod*, init and ephemeral ones included, each with those of the two capabilities it has.

    A privileged container has both: containers share the Pod's namespace, so the most privileged one decides.
    """
    spec = pod.spec
    for container in (*(spec.init_containers or ()), *(spec.containers or ()), *(spec.ephemeral_containers or ())):
        yield container, _granted(container)


def is_privileged(container: Container) -> bool:
    return bool(container.security_context and container.security_context.privileged)


def _granted(container: Container) -> frozenset[str]:
    if is_privileged(container):
        return frozenset((NET_ADMIN, NET_RAW))
    granted = {NET_RAW}
    capabilities = container.security_context.capabilities if container.security_context else None
    if capabilities is not None:
        granted -= _expanded(capabilities.drop)
        granted |= _expanded(capabilities.add)
    return frozenset(granted)


def _expanded(names: tuple[str, ...] | None) -> set[str]:
    known = {NET_ADMIN, NET_RAW}
    plain = {name.upper().removeprefix("CAP_") for name in names or ()}
    return known if "ALL" in plain else known & plain
