"""Our rules as the kernel takes them: one line of iptables becomes the expressions that iptables-nft makes of it.

Only the words that `rendering` uses are known; any other is `Unencodable`, and whoever asked lets the tool do it. What
the tool lists of a rule that was written so is what it lists of one it wrote itself (shown by a trial at the start).

Sources: Linux ``uapi/linux/netfilter/nf_tables.h`` (expressions), ``xt_*.h`` (the matches and targets of xtables).
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final

import msgspec

from enforcers.core.layout import CHAIN_PREFIX
from enforcers.core.netlink.expressions import (
    COMMENT_BYTES,
    EQUAL,
    REGISTER,
    compare,
    data,
    expression,
    extension,
    meta,
    number,
    payload,
    register,
    verdict,
)
from enforcers.core.netlink.messages import NESTED, attribute
from schemas.addresses import ICMP, ICMPV6, SCTP, TCP, UDP

REMEMBERED: Final = 4096
"""What need not be encoded again; some 600 bytes each."""
COMMENT_WORDS: Final = '-m comment --comment "'
PROTOCOLS: Final = {"icmp": ICMP, "tcp": TCP, "udp": UDP, "sctp": SCTP, "ipv6-icmp": ICMPV6}
FLAGS: Final = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32}
VERDICTS: Final = {"DROP": 0, "ACCEPT": 1, "RETURN": -5}
JUMP, GOTO = -3, -4
CTSTATE, CTDIR = 0x1, 0x1000
"""XT_CONNTRACK_STATE, XT_CONNTRACK_DIRECTION."""
STATES: Final = {"INVALID": 1, "ESTABLISHED": 2, "RELATED": 4, "NEW": 8}
SCTP_DESTINATION_PORTS: Final = 2
MULTIPORT_DESTINATION: Final = 1
MULTIPORT_SLOTS: Final = 15
SOURCE_BITS: Final = (2, 4)
"""xt_set: whether the first, the second dimension is looked up by the packet's source."""
COMMENT_HEAD: Final = extension("match", "comment", 0, bytes(COMMENT_BYTES))[:-COMMENT_BYTES]
COUNTER: Final = expression("counter", attribute(1, bytes(8)) + attribute(2, bytes(8)))


class Unencodable(Exception):
    """A *line* has a word that is not known here."""

    def __init__(self, line: str, word: str) -> None:
        super().__init__(f"no encoding for {word!r} in {line!r}")
        self.line = line
        self.retriable = False


class SetMatch(msgspec.Struct, frozen=True, gc=False):
    """A match of an ipset: a rule names it by its number, which differs between namespaces."""

    name: str
    sides: str


@lru_cache
def _set_match(index: int, asked: str) -> bytes:
    sides = asked.split(",")
    flags = sum(bit for side, bit in zip(sides, SOURCE_BITS, strict=False) if side == "src")
    return extension("match", "set", 4, struct.pack("=HBB", index, len(sides), flags).ljust(48, b"\0"))


Part = bytes | SetMatch


class Encoded(msgspec.Struct, frozen=True, gc=False):
    """One rule, but for the numbers of its sets."""

    compatible: bytes
    """NFTA_RULE_COMPAT: the protocol, for matches of xtables that insist on one."""
    matches: tuple[Part, ...]
    target: bytes
    """The counter and what follows it."""
    comment: bytes = b""

    def body(self, indices: Mapping[str, int]) -> bytes:
        """Its attributes. Raises `KeyError` for a set without a number."""
        matches = [
            each if isinstance(each, bytes) else _set_match(indices[each.name], each.sides) for each in self.matches
        ]
        return self.compatible + attribute(4 | NESTED, b"".join((*matches, self.comment, self.target)))


def encode(line: str) -> Encoded:
    """A rule's words as `rendering` writes them, without command and chain. Raises `Unencodable`.

    Every rule has another comment; what it does is encoded once for all that do the same.
    """
    matches, commented, rest = line.partition(COMMENT_WORDS)
    comment, _, target = rest.partition('"')
    encoded = _encode(matches + target)
    if not commented:
        return encoded
    return Encoded(encoded.compatible, encoded.matches, encoded.target, _comment(comment))


@lru_cache(maxsize=REMEMBERED)
def _encode(line: str) -> Encoded:
    parts: list[Part] = []
    target = b""
    protocol = module = ""
    for option, value in _options(line):
        try:
            if option == "-m":
                module = MODULES[value]
            elif option in ("-j", "-g"):
                target = _target(option, value)
            elif option == "--set-xmark":
                target = _mark_target(value)
            else:
                parts += _match("" if option in GENERAL else module, option, value)
                protocol = value if option == "-p" else protocol
        except (KeyError, ValueError):
            raise Unencodable(line, f"{module} {option} {value}") from None
    return Encoded(_compatible(protocol), tuple(_joined(parts)), COUNTER + target)


def _joined(parts: Iterable[Part]) -> Iterator[Part]:
    """*parts*, with all that is between two sets as one."""
    fixed = b""
    for part in parts:
        if isinstance(part, bytes):
            fixed += part
        else:
            yield from (fixed, part)
            fixed = b""
    yield fixed


def _options(line: str) -> Iterator[tuple[str, str]]:
    """Each option with its value, which may be of several words."""
    option = ""
    values: list[str] = []
    for word in line.split():
        if word.startswith("-"):
            if option or values:
                yield option, " ".join(values)
            option, values = word, []
        else:
            values.append(word)
    yield option, " ".join(values)


@lru_cache(maxsize=REMEMBERED)
def _match(module: str, option: str, value: str) -> tuple[Part, ...]:
    return tuple(OPTIONS[module, option](value))


@lru_cache
def _target(option: str, name: str) -> bytes:
    if name == "CONNMARK":
        return b""  # its option follows
    if option == "-j" and name in VERDICTS:
        return verdict(VERDICTS[name])
    if not name.startswith(CHAIN_PREFIX):  # an extension, for all that is known here
        raise ValueError(name)
    return verdict(GOTO if option == "-g" else JUMP, name)


@lru_cache
def _mark_target(value: str) -> bytes:
    info = struct.pack("=IIIBBBx", *_masked(value), 0xFFFFFFFF, 0, 0, 0)
    return extension("target", "CONNMARK", 2, info)


@lru_cache
def _compatible(protocol: str) -> bytes:
    return attribute(5 | NESTED, number(1, _protocol(protocol) if protocol else 0) + number(2, 0))


def _protocol(name: str) -> int:
    protocol = PROTOCOLS.get(name) or int(name)
    if not protocol:  # any, for the tool
        raise ValueError(name)
    return protocol


def _link(option: str, name: str) -> list[Part]:
    if name.endswith("+"):  # any name that begins so, for the tool
        raise ValueError(name)
    return [meta(option), compare(name.encode() + b"\0")]


# --- options of matches ----------------------------------------------------------------------------------------------


def _destination_port(value: str) -> list[Part]:
    first, last = (struct.pack(">H", port) for port in _range(value))
    if first == last:
        return [payload(2, 2), compare(first)]
    within = register(1) + number(2, EQUAL) + data(3, first) + data(4, last)
    return [payload(2, 2), expression("range", within)]


def _sctp_port(value: str) -> list[Part]:
    chunks = bytes(256) + bytes(4) + b"\xff\0\0" * 4 + bytes(4)  # map, kind of match, flags (none: -1), their count
    info = struct.pack("=HHHH", *_range(value), 0, 0) + chunks + struct.pack("=II", SCTP_DESTINATION_PORTS, 0)
    return [extension("match", "sctp", 0, info)]


def _tcp_flags(value: str) -> list[Part]:
    mask, wanted = (bytes((sum(FLAGS[flag] for flag in word.split(",")),)) for word in value.split())
    masked = register(1) + number(2, REGISTER) + number(3, 1) + number(6, 0) + data(4, mask) + data(5, b"\0")
    return [payload(13, 1), expression("bitwise", masked), compare(wanted)]


def _destination_ports(value: str) -> list[Part]:
    ports: list[int] = []
    continued: list[int] = []
    for each in value.split(","):
        first, last = _range(each)
        ports += [first] if first == last else [first, last]
        continued += [0] if first == last else [1, 0]
    slots = MULTIPORT_SLOTS - len(ports)
    info = struct.pack("=BB", MULTIPORT_DESTINATION, len(ports))
    info += struct.pack(f"={MULTIPORT_SLOTS}H", *ports, *[0] * slots) + bytes((*continued, *[0] * slots, 0))
    return [extension("match", "multiport", 1, info)]


def _connection_mark(value: str) -> list[Part]:
    return [extension("match", "connmark", 1, struct.pack("=IIB", *_masked(value), 0))]


def _connection_direction(value: str) -> list[Part]:
    return [_conntrack(CTDIR, {"ORIGINAL": 0, "REPLY": CTDIR}[value], 0)]


def _connection_state(value: str) -> list[Part]:
    return [_conntrack(CTSTATE, 0, sum(STATES[state] for state in value.split(",")))]


def _conntrack(asked: int, inverted: int, states: int) -> bytes:
    info = bytes(146) + struct.pack("=HHH", asked, inverted, states)  # nothing is asked of addresses, ports, expiry
    return extension("match", "conntrack", 3, info.ljust(164, b"\0"))


def _icmp_type(match: str, value: str) -> list[Part]:
    return [extension("match", match, 0, struct.pack("=BBBB", int(value), 0, 0xFF, 0))]


def _comment(value: str) -> bytes:
    return COMMENT_HEAD + value.encode().ljust(COMMENT_BYTES, b"\0")


GENERAL: Final = ("-p", "-i", "-o")
OPTIONS: Final[Mapping[tuple[str, str], Callable[[str], list[Part]]]] = {
    ("", "-p"): lambda value: [meta("-p"), compare(bytes((_protocol(value),)))],
    ("", "-i"): lambda value: _link("-i", value),
    ("", "-o"): lambda value: _link("-o", value),
    ("tcp", "--dport"): _destination_port,
    ("udp", "--dport"): _destination_port,
    ("sctp", "--dport"): _sctp_port,
    ("tcp", "--tcp-flags"): _tcp_flags,
    ("multiport", "--dports"): _destination_ports,
    ("connmark", "--mark"): _connection_mark,
    ("conntrack", "--ctdir"): _connection_direction,
    ("set", "--match-set"): lambda value: [SetMatch(*value.split())],
    ("conntrack", "--ctstate"): _connection_state,
    ("icmp", "--icmp-type"): lambda value: _icmp_type("icmp", value),
    ("icmp6", "--icmpv6-type"): lambda value: _icmp_type("icmp6", value),
}
"""By module and option."""
MODULES: Final = {module: module for module, _ in OPTIONS if module}
"""To say one that is not known, and nothing of it, is to ask for something as well."""


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    return int(first), int(last or first)


def _masked(text: str) -> tuple[int, int]:
    value, mask = text.split("/")
    return int(value, 0), int(mask, 0)
