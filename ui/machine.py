"""The models that all visitors share: they may still be loading, and they serve one visitor at a time, in order."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from assistant.lanes.lane import Lane
from assistant.limits import MAX_WAITING


class Crowded(Exception):
    """Too many visitors are waiting already."""


class Place:
    """A visitor's place in the line, from `Machine.place`."""

    def __init__(self, machine: "Machine") -> None:
        self._machine = machine

    def ahead(self, timeout: float) -> int | None:
        """How many visitors come first, 0 while the models are loading; None when it is this visitor's turn.

        Waits up to `timeout` seconds for that turn: whoever calls this in a loop notices a visitor who left.
        """
        return self._machine._ahead(self, timeout)


class Machine:
    """The lanes by name, once they are there, and the line of those who wait for them."""

    def __init__(self, lanes: dict[str, Lane] | None = None) -> None:
        self._lanes = lanes
        self._line: list[Place] = []
        self._changed = threading.Condition()
        self._started = time.monotonic()

    @property
    def lanes(self) -> dict[str, Lane]:
        """The loaded lanes; whoever has had a turn may rely on them.

        Raises
        ------
        RuntimeError
            They are still loading.
        """
        if self._lanes is None:
            raise RuntimeError("The models are not loaded yet.")
        return self._lanes

    @property
    def loading(self) -> float | None:
        """Seconds that the models have been loading for; None once they are there."""
        return None if self._lanes is not None else time.monotonic() - self._started

    def provide(self, lanes: dict[str, Lane]) -> None:
        """The models are there: the first in line may begin."""
        with self._changed:
            self._lanes = lanes
            self._changed.notify_all()

    def wait(self, timeout: float) -> None:
        """Return when the models are there, or after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._lanes is not None, timeout)

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place at the end of the line, given up on leaving the context, whether it had its turn or not.

        Raises
        ------
        Crowded
            `MAX_WAITING` visitors stand there.
        """
        place = Place(self)
        with self._changed:
            if len(self._line) >= MAX_WAITING:
                raise Crowded
            self._line.append(place)
        try:
            yield place
        finally:
            with self._changed:
                self._line.remove(place)
                self._changed.notify_all()

    def _ahead(self, place: Place, timeout: float) -> int | None:
        with self._changed:
            if self._changed.wait_for(lambda: self._lanes is not None and self._line[0] is place, timeout):
                return None
            return self._line.index(place)
