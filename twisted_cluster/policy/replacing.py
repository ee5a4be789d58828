"""
Which workers are missing, which are replaced next, and which are not needed any
more.

A replacement is started beside the worker that it replaces, in the same slot,
and that one is stopped when the replacement is ready.  So many at a time make a
I{batch}; and there are never more than a batch of workers beyond those that are
wanted, the leaving ones included, because of a replacement: a machine that has
the memory for that is never asked for more.
"""

from __future__ import annotations

from twisted_cluster.policy.roster import READY, STARTING, STOPPING, Member, Roster


def replaced(roster: Roster) -> list[Member]:
    """
    Find the workers whose replacement is ready.
    """
    members = roster.members.values()
    newest = {m.slot: m.worker for m in members if m.state == READY}
    found = [
        member
        for member in members
        if member.state != STOPPING and member.worker < newest.get(member.slot, 0)
    ]
    return sorted(found, key=lambda member: member.slot)


def vacant(roster: Roster, desired: int) -> list[int]:
    """
    Find the slots that nobody holds, and that do not pause.
    """
    taken = {m.slot for m in roster.members.values() if m.state != STOPPING}
    taken |= roster.pausing
    return [slot for slot in range(desired) if slot not in taken]


def surplus(roster: Roster, desired: int) -> list[Member]:
    """
    Find the workers of the slots that are given up, the highest first, as far
    as enough others serve.
    """
    spare = roster.serving - desired
    found = []
    for member in sorted(roster.members.values(), key=lambda each: -each.slot):
        if member.slot < desired:
            break
        if member.state == STARTING:
            found.append(member)
        elif member.state == READY and spare > 0:
            spare -= 1
            found.append(member)
    return found


def restartNext(roster: Roster, generation: int, desired: int, batch: int) -> list[int]:
    """
    Find the slots whose worker a restart replaces next.

    It goes no further while as many new workers as make a batch are starting, or
    have died early: what does not live is not put in the place of what does.

    @param generation: of the new workers; until one is ready, only one, the
        canary, is started.
    """
    members = roster.members.values()
    new = [member for member in members if member.generation == generation]
    proven = any(member.state == READY for member in new)
    budget = batch if proven else 1
    budget -= sum(member.state == STARTING for member in new) + len(roster.pausing)
    budget = min(budget, desired + batch - roster.living)
    renewed = {member.slot for member in new if member.state != STOPPING}
    renewed |= roster.pausing
    slots = [slot for slot in range(desired) if slot not in renewed]
    return slots[: max(0, budget)]


def recycleNext(roster: Roster, desired: int, batch: int) -> list[int]:
    """
    Find the slots whose worker is recycled next, the oldest worker first.
    """
    asked = [m for m in roster.members.values() if m.recycle is not None]
    underWay = sum(m.state == STOPPING or bool(roster.others(m)) for m in asked)
    budget = min(batch - underWay, desired + batch - roster.living)
    return [
        member.slot
        for member in asked
        if member.state == READY
        and member.slot < desired
        and member.slot not in roster.pausing
        and not roster.others(member)
    ][: max(0, budget)]
