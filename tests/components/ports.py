"""Free ports of the loopback for servers that cannot choose one themselves."""

import socket


def free_ports(count: int) -> list[int]:
    """*count* different TCP ports that were free a moment ago.

    Taken together, so that they differ. Another process may take one before its server does; a server that has to
    come back on its port needs a fixed one, so this small risk stays.
    """
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
