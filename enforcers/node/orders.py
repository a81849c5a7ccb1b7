"""Orders given by hand on a node, kept on disk: a break-glass outlives restarts, and only `resume` ends it."""

from pathlib import Path

import msgspec
import structlog

from enforcers.runtimes.runtime import Sandbox
from schemas.status import Order

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[Order, ...]).decode
_log = structlog.get_logger("enforcers.node.orders")


class Orders:
    """Those that are to be obeyed: at most one pause, and one per release, newest last.

    They are kept at *path*, if there is one, but for what stands in the settings (*by_settings*).
    """

    def __init__(self, *by_settings: Order, path: Path | None = None) -> None:
        self.given = (*by_settings, *_load(path))
        self._path = path

    @property
    def paused(self) -> bool:
        """Whether everything stays as it is; what is released is nevertheless."""
        return any(not order.release for order in self.given)

    def releasing(self, sandbox: Sandbox) -> Order | None:
        """The newest one by which the Pod of *sandbox* shall have no rules of ours."""
        return next((each for each in reversed(self.given) if covers(each, sandbox)), None)

    def give(self, order: Order) -> None:
        """Obey *order* until it is undone; it replaces an older one of the same words."""
        self.given = (*(each for each in self.given if each.release != order.release), order)
        _log.warning("ordered by hand", order=str(order))

    def undo(self, release: str | None = None, *, by: str = "", reason: str = "") -> tuple[Order, ...]:
        """End the release of *release*, or by default every order; return what ended.

        Who ends it and why is logged, and nowhere else: what is not ordered any more has no status.
        """
        ended = tuple(each for each in self.given if release is None or (each.release and each.release == release))
        self.given = tuple(each for each in self.given if each not in ended)
        for order in ended:
            _log.warning("order undone", order=str(order), by=by or "unknown", reason=reason)
        return ended

    def keep(self) -> None:
        """Write them down. Raises OSError: they are obeyed all the same, but not after a restart."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".part")
        unfinished.write_bytes(_encode(tuple(each for each in self.given if each.since)))
        unfinished.replace(self._path)


def covers(order: Order, sandbox: Sandbox) -> bool:
    """Whether *order* releases the Pod of *sandbox*."""
    return order.covers(sandbox.namespace, sandbox.name)


def _load(path: Path | None) -> tuple[Order, ...]:
    """None where there is no file, or no readable one: rules then come back, and it is said."""
    try:
        return _decode(path.read_bytes()) if path is not None else ()
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.MsgspecError) as error:
        _log.error("orders given by hand before are lost; rules are enforced again", path=str(path), reason=str(error))
        return ()
