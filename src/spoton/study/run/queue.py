"""The queue of groups of cells; a group is handed out once all cells that it needs are finished.

Every group keeps the names of the cells that it waits for, so the cost of finishing a cell depends only on the number
of groups that need it, not on the length of the queue.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence, Set

from spoton.study.run.executors import CellGroup


class Queue:
    """Groups of cells in the best order to run them.

    Args:
        groups: All groups of the study.
        done: Names of the finished cells; a group whose cells are all finished is never handed out.
        is_whole: Returns whether the cells of a group run only all together.
    """

    def __init__(
        self,
        groups: Sequence[CellGroup],
        done: Set[str],
        is_whole: Callable[[CellGroup], bool] = lambda group: False,
    ) -> None:
        self._is_whole = is_whole
        self._groups: dict[int, CellGroup] = {}
        self._waits_for: dict[int, set[str]] = {}  # place of a group -> unfinished cells it needs
        self._needed_by: dict[
            str, list[int]
        ] = {}  # name of an unfinished cell -> places of the groups that need it
        self._ready: list[int] = []
        self._front = 0
        for place, group in enumerate(groups):
            if all(cell.name in done for cell in group):
                continue
            needs = {name for cell in group for name in cell.needs if name not in done}
            self._groups[place], self._waits_for[place] = group, needs
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
            if name in self._waits_for[place]:  # else the cells that needed it have left the group
                self._waits_for[place].remove(name)
                if not self._waits_for[place]:
                    heapq.heappush(self._ready, place)

    def fail(self, name: str) -> None:
        """Notes that a cell has failed for good. Cells that need it leave their groups, so that the others can run."""
        for place in self._needed_by.pop(name, ()):
            if name not in self._waits_for[place]:
                continue
            group = self._groups.pop(place)
            kept = () if self._is_whole(group) else tuple(cell for cell in group if name not in cell.needs)
            self._waits_for[place] &= {need for cell in kept for need in cell.needs}
            if kept:
                self._groups[place] = kept
                if not self._waits_for[place]:
                    heapq.heappush(self._ready, place)
            for cell in group:
                if cell not in kept:
                    self.fail(cell.name)

    def put_back(self, group: CellGroup) -> None:
        """Puts back a group that was handed out; it comes before all others."""
        self._front -= 1
        self._groups[self._front] = group
        heapq.heappush(self._ready, self._front)
