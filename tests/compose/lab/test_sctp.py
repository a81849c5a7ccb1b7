"""SCTP packets by hand."""

from hypothesis import given
from hypothesis import strategies as st

from compose.lab.talk import sctp

ports = st.integers(0, 65535)
tags = st.integers(1, 0xFFFFFFFF)


def test_the_checksum_is_crc32c() -> None:
    """RFC 3720, B.4: 32 bytes of zeros, 32 of ones; and the check value that every catalogue gives."""
    assert sctp.crc32c(bytes(32)) == 0x8A9136AA
    assert sctp.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert sctp.crc32c(b"123456789") == 0xE3069283


@given(ports, ports, tags)
def test_an_init_reads_back(source: int, destination: int, tag: int) -> None:
    packet = sctp.Packet(source_port=source, destination_port=destination, tag=0, chunk=sctp.INIT, initiate_tag=tag)
    assert sctp.decode(sctp.encode(packet)) == packet


@given(ports, ports, tags, st.text(max_size=60))
def test_an_answer_carries_who_answered_to_the_asker(source: int, destination: int, tag: int, identity: str) -> None:
    asked = sctp.Packet(source_port=source, destination_port=destination, tag=0, chunk=sctp.INIT, initiate_tag=tag)
    answered = sctp.decode(sctp.encode(sctp.answer(asked, identity)))
    assert answered is not None
    assert (answered.source_port, answered.destination_port, answered.tag) == (destination, source, tag)
    assert answered.cookie.decode() == identity


def test_a_refusal_is_an_abort() -> None:
    asked = sctp.Packet(source_port=1, destination_port=2, tag=0, chunk=sctp.INIT, initiate_tag=7)
    refused = sctp.decode(sctp.encode(sctp.answer(asked, None)))
    assert refused is not None
    assert (refused.chunk, refused.tag) == (sctp.ABORT, 7)


@given(st.binary(max_size=80))
def test_foreign_bytes_are_passed_over(data: bytes) -> None:
    sctp.decode(data)
    sctp.without_ip_header(data, 4)
