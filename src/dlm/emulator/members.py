"""A lockspace of July 2005: control, event_done and a list of members.

Decides: what stop and start do when, what answers a join or a leave.
May not know: how recovery goes; parse rules and modes (dlm.abi.attributes2005).
Mirrors: member.c, member_sysfs.c and recoverd.c after the patch "dlm: rework recovery control" of
15 July 2005.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from dlm.core.events import Start
from dlm.emulator.misc import refuse
from dlm.emulator.space import Space

if TYPE_CHECKING:
    from dlm.emulator.module2005 import Module2005


class MembersSpace(Space):
    """A lockspace of July 2005; recovery switches locking on itself, there is no finish."""

    def __init__(self, module: Module2005, name: str) -> None:
        super().__init__(module, name, 0)
        self.next_members: tuple[int, ...] | None = None
        """The list of members that the next start takes."""
        self._module = module

    def shown_members(self) -> tuple[int, ...]:
        """Return the members; EBUSY while locking is off."""
        if self.core.stopped:
            raise refuse(errno.EBUSY, "members")
        return self.core.members

    def set_next_members(self, nodeids: tuple[int, ...]) -> None:
        """Keep the members of the next start; EINVAL while there are some."""
        if self.next_members is not None:
            raise refuse(errno.EINVAL, "members")
        self.next_members = nodeids

    def start(self) -> None:
        """control=1: recover; whoever writes it never learns that nothing was done."""
        if not self.core.stopped:
            self.log("start ignored: lockspace running")
        elif self.next_members is None:
            self.log("start ignored: existing nodeids_next")  # Quirk: it says the opposite
        else:
            nodeids, self.next_members = self.next_members, None
            self.step(Start(self._module.start_members(nodeids)))

    # ---- join and leave -------------------------------------------------------------------------

    def join_answered(self) -> bool:
        """Say whether event_done has been written, perhaps before anybody asked."""
        return self.event_done

    def join_result(self) -> int:
        """Return 0, or the positive number that was written; a negative one is an errno."""
        self.event_done = False
        if self.event_result < 0:
            raise refuse(-self.event_result, "join")
        return self.event_result

    def leave_answered(self) -> bool:
        """Say whether event_done has been written; what it says does not count."""
        return self.event_done
