"""Taking labs away: one's own at the end, and what dead owners left."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

from compose.lab import namespaces, state


def sweep(root: Path) -> list[str]:
    """Remove what dead owners left; return their labs' names. Labs with a living owner stay."""
    dead = [name for name, known in state.labs(root).items() if known is None or not state.alive(known.owner)]
    for name in dead:
        discard(name, root)
    return dead


def discard(lab: str, root: Path) -> None:
    """Take *lab* away, namespaces first. Synchronous, so that a cancellation cannot come in between."""
    delete(existing(lab))
    state.remove(lab, root)


def existing(lab: str) -> list[str]:
    """The namespaces of *lab* that there are."""
    if not namespaces.RUN_NETNS.is_dir():
        return []
    prefix = state.namespace_prefix(lab)
    return sorted(path.name for path in namespaces.RUN_NETNS.iterdir() if path.name.startswith(prefix))


def delete(names: Iterable[str]) -> None:
    """Delete namespaces; one that is gone already is as good as deleted. Their links end with them."""
    text = "".join(f"netns del {name}\n" for name in names)
    if text:
        subprocess.run(["ip", "-force", "-batch", "-"], input=text.encode(), capture_output=True, check=False)
