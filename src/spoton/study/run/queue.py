"""What waits to be run: groups of cells, each handed out once all the cells it needs are finished.

Every group counts what it still waits for, so finishing a cell costs as much as there are groups that need it, however
many others wait.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence, Set

from spoton.study.run.executors import Group


class Queue:
    """Groups of cells in the order in which they are best run.

    Args:
        groups: All groups of the study.
        done: Names of the cells that are finished; a group of which all are is never handed out.
    """

    def __init__(self, groups: Sequence[Group], done: Set[str]) -> None:
        self._groups: dict[int, Group] = {}
        self._waits_for: dict[int, int] = {}  # place of a group -> number of unfinished cells it needs
        self._needed_by: dict[
            str, list[int]
        ] = {}  # name of an unfinished cell -> places of the groups that need it
        self._ready: list[int] = []
        self._front = 0
        for place, group in enumerate(groups):
            if all(cell.name in done for cell in group):
                continue
            needs = {name for cell in group for name in cell.needs if name not in done}
            self._groups[place], self._waits_for[place] = group, len(needs)
            for name in needs:
                self._needed_by.setdefault(name, []).append(place)
            if not needs:
                self._ready.append(place)  # in rising order, which is a heap

    def take(self) -> Group | None:
        """Returns the first group that waits for nothing, or None; it is the caller's now."""
        return self._groups.pop(heapq.heappop(self._ready)) if self._ready else None

    def finish(self, name: str) -> None:
        """Notes that a cell is finished."""
        for place in self._needed_by.pop(name, ()):
            self._waits_for[place] -= 1
            if not self._waits_for[place]:
                heapq.heappush(self._ready, place)

    def put_back(self, group: Group) -> None:
        """Takes a group back that was handed out; it comes before all others."""
        self._front -= 1
        self._groups[self._front] = group
        heapq.heappush(self._ready, self._front)
