"""What a netlink socket does with what the kernel says; the kernel's end is played by the test."""

import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from enforcers.core.netlink.messages import DONE, DUMP, DUMP_INTERRUPTED, REQUEST, message
from enforcers.kernel.namespaces import HERE
from enforcers.kernel.sockets import DUMP_ATTEMPTS, NETLINK_ROUTE, RECEIVE_BYTES, NetlinkRefused, NetlinkSocket

LISTED = 99
QUESTION = message(18, REQUEST | DUMP, bytes(16))
END = message(DONE, 0, bytes(4))


class Kernel:
    """Answers each question with the next of its answers: lists of datagrams."""

    def __init__(self) -> None:
        self.netlink = NetlinkSocket(HERE, NETLINK_ROUTE)
        self.netlink.close()
        self.netlink.socket, self._end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.netlink.socket.setblocking(False)
        self._thread = threading.Thread(target=self._answer, name="kernel")
        self.answers: list[list[bytes]] = []

    def __enter__(self) -> "Kernel":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.netlink.close()
        self._thread.join()
        self._end.close()

    def _answer(self) -> None:
        while self._end.recv(1024):
            for datagram in self.answers.pop(0):
                self._end.send(datagram)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel() as kernel:
        yield kernel


def test_a_listing_that_changes_underneath_is_listed_again(kernel: Kernel):
    torn = [message(LISTED, 0, b"1111"), message(LISTED, DUMP_INTERRUPTED, b"3333") + END]
    whole = [message(LISTED, 0, b"1111"), message(LISTED, 0, b"2222") + message(LISTED, 0, b"3333"), END]
    kernel.answers = [torn, torn, whole]

    assert kernel.netlink.dump(QUESTION) == [(LISTED, b"1111"), (LISTED, b"2222"), (LISTED, b"3333")]


def test_one_that_changes_without_end_is_given_up(kernel: Kernel):
    kernel.answers = [[message(DONE, DUMP_INTERRUPTED, bytes(4))]] * DUMP_ATTEMPTS

    with pytest.raises(NetlinkRefused, match="changed during each"):
        kernel.netlink.dump(QUESTION)


def test_a_listing_that_ends_in_an_error_is_not_taken_for_a_whole_one(kernel: Kernel):
    kernel.answers = [[message(LISTED, 0, b"1111") + message(DONE, 0, struct.pack("=i", -12))]]

    with pytest.raises(NetlinkRefused, match="memory"):
        kernel.netlink.dump(QUESTION)


def test_nothing_is_cut_off_in_silence(kernel: Kernel):
    kernel.answers = [[message(LISTED, 0, bytes(RECEIVE_BYTES))]]

    with pytest.raises(OSError, match="more than"):
        kernel.netlink.dump(QUESTION)
