"""The queue of groups of cells; a group is handed out once all cells that it needs are finished.

Every group counts the cells that it waits for, so the cost of finishing a cell depends only on the number of groups
that need it, not on the length of the queue.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence, Set

from spoton.study.run.executors import CellGroup


class Queue:
    """Groups of cells in the best order to run them.

    Args:
        groups: All groups of the study.
        done: Names of the finished cells; a group whose cells are all finished is never handed out.
    """

    def __init__(self, groups: Sequence[CellGroup], done: Set[str]) -> None:
        self._groups: dict[int, CellGroup] = {}
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
                self._ready.append(place)  # in ascending order, which is a valid heap

    def take(self) -> CellGroup | None:
        """Removes and returns the first group that waits for nothing, or returns None."""
        return self._groups.pop(heapq.heappop(self._ready)) if self._ready else None

    def finish(self, name: str) -> None:
        """Notes that a cell is finished."""
        for place in self._needed_by.pop(name, ()):
            self._waits_for[place] -= 1
            if not self._waits_for[place]:
                heapq.heappush(self._ready, place)

    def put_back(self, group: CellGroup) -> None:
        """Puts back a group that was handed out; it comes before all others."""
        self._front -= 1
        self._groups[self._front] = group
        heapq.heappush(self._ready, self._front)
