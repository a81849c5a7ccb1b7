"""What must be published so that one policy becomes another."""

from schemas.policy import Policy, PolicyChange, SetChange


def difference(desired: Policy, published: Policy) -> PolicyChange:
    """The change that turns *published* into *desired*; false where they are equal."""
    sets: list[SetChange] = []
    for identity, members in sorted(desired.sets.items()):
        before = published.sets.get(identity)
        if before is None:
            sets.append(SetChange(id=identity, added=members))
        elif members != before:
            sets.append(SetChange(id=identity, added=members - before, removed=before - members))
    sets.extend(SetChange(id=identity, gone=True) for identity in sorted(published.sets.keys() - desired.sets.keys()))
    programs = [
        program for place, program in sorted(desired.programs.items()) if published.programs.get(place) != program
    ]
    return PolicyChange(
        sets=tuple(sets),
        programs=tuple(programs),
        gone=tuple(sorted(published.programs.keys() - desired.programs.keys())),
    )
