"""A proxy in the Pod as service meshes put it there: the Pod's rules lead all connections to it, both ways."""

import contextlib
import ipaddress
import socket
import threading
from typing import Final

from enforcers.kernel.namespaces import inside
from tests.enforcers.pod_world import World

INBOUND, OUTBOUND = 15006, 15001
OWN_MARK: Final = 0x539
"""On the proxy's own packets, which are not led to it again."""
SO_ORIGINAL_DST: Final = 80
LEVELS: Final = {4: socket.SOL_IP, 6: 41}
LOOPBACK: Final = {4: "127.0.0.1", 6: "::1"}


class Sidecar:
    """Runs until the world ends."""

    def __init__(self, world: World, family: int) -> None:
        self._world = world
        self._family = family
        rules = (
            "*nat\n"
            f"-A PREROUTING -p tcp -j REDIRECT --to-ports {INBOUND}\n"
            f"-A OUTPUT -m mark --mark {OWN_MARK:#x} -j RETURN\n"
            "-A OUTPUT -o lo -j RETURN\n"
            f"-A OUTPUT -p tcp -j REDIRECT --to-ports {OUTBOUND}\n"
            "COMMIT\n"
        )
        tool = "iptables-nft-restore" if family == 4 else "ip6tables-nft-restore"
        world.command("web", tool, "--noflush", text=rules)
        for port in (INBOUND, OUTBOUND):
            listener = world.open_socket("web", family)
            listener.bind(("", port))
            listener.listen(16)
            listener.settimeout(None)
            threading.Thread(target=self._serve, args=(listener, port), daemon=True).start()

    def _serve(self, listener: socket.socket, port: int) -> None:
        with contextlib.suppress(OSError):  # closed at the end of the test
            while True:
                accepted, _ = listener.accept()
                threading.Thread(target=self._proxy, args=(accepted, port), daemon=True).start()

    def _proxy(self, accepted: socket.socket, port: int) -> None:
        with accepted, self._upstream() as upstream, contextlib.suppress(OSError):
            to, number = self._meant(accepted)
            upstream.connect((LOOPBACK[self._family] if port == INBOUND else to, number))
            upstream.settimeout(None)
            back = threading.Thread(target=_copy, args=(upstream, accepted), daemon=True)
            back.start()
            _copy(accepted, upstream)
            back.join()

    def _upstream(self) -> socket.socket:
        domain = socket.AF_INET if self._family == 4 else socket.AF_INET6
        made = inside(self._world.path("web"), lambda: socket.socket(domain, socket.SOCK_STREAM))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, OWN_MARK)
        made.settimeout(1)
        return made

    def _meant(self, accepted: socket.socket) -> tuple[str, int]:
        """Where the client wanted to go."""
        found = accepted.getsockopt(LEVELS[self._family], SO_ORIGINAL_DST, 28)
        packed = found[4:8] if self._family == 4 else found[8:24]
        return str(ipaddress.ip_address(packed)), int.from_bytes(found[2:4], "big")


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def application(world: World, port: int, family: int) -> socket.socket:
    """The Pod's own server, where a sidecar looks for it."""
    listener = world.open_socket("web", family)
    listener.bind((LOOPBACK[family], port))
    listener.listen(16)
    return listener


def speaks(world: World, source: str, target: str, listener: socket.socket, family: int) -> bool:
    """Whether what *source* says to *target* is heard at *listener*, and answered: a proxy connects with anybody."""
    try:
        client = world.connect(source, target, listener.getsockname()[1], family)
        client.sendall(b"question")
        server = world.accept(listener)
        assert server.recv(16) == b"question"
        server.sendall(b"answer")
        return client.recv(16) == b"answer"
    except TimeoutError:
        return False
