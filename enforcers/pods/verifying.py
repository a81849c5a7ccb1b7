"""Comparing one Pod's namespace with what was written to it, without writing and without spawning anything.

A rule is known by what was read back after it was written: comments tell which rules should be there, and the kernel's
own words whether they are still the ones that we wrote. The kernel numbers a namespace's rule changes, so most looks
end with that number. A set whose elements come as they came before is not read again.
"""

import itertools
from collections.abc import Mapping

from enforcers.core.difference import Table
from enforcers.core.drift.verification import of_set, of_table, suspicious
from enforcers.core.layout import FAMILIES, Family, Interface, set_name
from enforcers.core.netlink import ipset, set_listing
from enforcers.core.netlink.messages import text
from enforcers.core.observation import ObservedSets, ObservedTable
from enforcers.core.set_rendering import kernel_members, of_family
from enforcers.kernel.addressing import place
from enforcers.kernel.rules import native
from enforcers.kernel.rules.native import RulesRead
from enforcers.kernel.sets.set_backends import listed as listing
from enforcers.kernel.sockets import NetlinkSocket
from enforcers.runtimes.runtime import Sandbox
from schemas.status import Difference, DriftKind


class ReadBack:
    """What is known to be right of one namespace."""

    def __init__(self) -> None:
        self.generation = -1
        """Number of the rule change up to which the rules are right; -1: not known."""
        self._tables: Mapping[Family, ObservedTable] = {}
        self._wanted: Mapping[Family, Table] = {}  # what these are right for
        self._sets: dict[str, tuple[int, bytes]] = {}  # by name: version and digest of what was found right
        self._listed: dict[str, bytes] = {}  # by name: digest of what was read last

    def forget_rules(self) -> None:
        """They are going to be written."""
        self.generation = -1
        self._tables, self._wanted = {}, {}

    def doubt(self) -> None:
        """It may not be the same namespace any more: read all of it again."""
        self.generation = -1
        self._wanted, self._sets, self._listed = {}, {}, {}

    def suspicious(self, tables: Mapping[Family, ObservedTable]) -> dict[Family, ObservedTable]:
        """*tables*, with what is not as it was read back told apart."""
        return {
            family: suspicious(table, self._tables[family]) if family in self._tables else table
            for family, table in tables.items()
        }

    def check_rules(self, netlink: NetlinkSocket, wanted: Mapping[Family, Table]) -> list[Difference]:
        """What of our rules is not as *wanted*. Raises `NetlinkRefused`. Blocks: 10 µs where no rule changed."""
        if self._wanted == wanted and native.generation(netlink).number == self.generation:
            return []
        found = native.read(netlink)
        differences = self.take(found, wanted)
        if differences and not found.settled:  # others write all the while: what is so twice is so
            again = self.take(native.read(netlink), wanted)
            differences = [each for each in differences if each in again]
        return differences

    def take(self, found: RulesRead, wanted: Mapping[Family, Table]) -> list[Difference]:
        """What of our rules as they were *found* is not as *wanted*; where nothing is, these are right from now on."""
        tables = self.suspicious(found.tables)
        differences = [each for family in FAMILIES for each in of_table(wanted[family], tables[family], family)]
        if not differences:
            self.generation, self._tables, self._wanted = found.generation, found.tables, wanted
        return differences

    def read_sets(
        self, netlink: NetlinkSocket, versions: Mapping[str, int], limits: Mapping[str, int]
    ) -> tuple[list[str], ObservedSets]:
        """Which of the sets in *versions* are not as they were last found right, and what these hold.

        *limits*: by name, how many members a set may have to be read at all.
        Raises `NetlinkRefused`. Blocks: some 30 ns per member that did not change.
        """
        names = {set_name(identity, family): identity for identity in versions for family in FAMILIES}
        listed = set_listing.by_name(listing(netlink, limits))
        self._listed = {name: each.digest for name, each in listed.items() if name in names}
        self._sets = {name: right for name, right in self._sets.items() if name in names}
        unknown = {
            identity
            for name, identity in names.items()
            if name not in listed or self._sets.get(name) != (versions[identity], listed[name].digest)
        }
        pieces = [listed[name].pieces for name, identity in names.items() if identity in unknown and name in listed]
        return sorted(unknown), ipset.read_listing(itertools.chain.from_iterable(pieces))

    def check_sets(
        self, found: ObservedSets, versions: Mapping[str, int], members: Mapping[str, frozenset[bytes]]
    ) -> list[Difference]:
        """Which of the sets in *members* do not hold these."""
        differences: list[Difference] = []
        for identity, wanted in members.items():
            whole = kernel_members(identity, wanted)
            for family in FAMILIES:
                name = set_name(identity, family)
                if difference := of_set(identity, family, of_family(whole, family), found):
                    differences.append(difference)
                elif name in self._listed:
                    self._sets[name] = (versions[identity], self._listed[name])
        return differences


def of_links(sandbox: Sandbox, named: Interface) -> Difference | None:
    """Whether other links than those that our rules name carry the Pod's addresses. Raises `NoNamespace`.

    Where none does the Pod is about to end, or nobody reaches it.
    """
    before, after = {named.name, *named.others}, set(place(sandbox.netns, sandbox.addresses).links)
    if not after or after == before:
        return None
    told = (", ".join(map(text, sorted(each.encode() for each in names))) for names in (before, after))
    return Difference(kind=DriftKind.LINK, object="link of the Pod's addresses", before=next(told), after=next(told))
