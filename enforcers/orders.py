"""Orders given by hand, on disk: a break-glass must outlive the enforcer's restart, and nothing else may end it."""

from pathlib import Path

import msgspec
import structlog

from schemas.status import Order

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[Order, ...]).decode
_log = structlog.get_logger("enforcers.orders")


def save(path: Path, orders: tuple[Order, ...]) -> None:
    """Replace the orders at *path*. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(_encode(orders))
    unfinished.replace(path)


def load(path: Path | None) -> tuple[Order, ...]:
    """The orders at *path*; none where there is no file, or no readable one: rules then come back, and it is said."""
    try:
        return _decode(path.read_bytes()) if path is not None else ()
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.MsgspecError) as error:
        _log.error("orders given by hand before are lost; rules are enforced again", path=str(path), reason=str(error))
        return ()
