"""Watches a path that may not exist yet, may go, and may come again: what is told is a hint, never a fact.

Two places are watched: the path itself, and the deepest directory above it that exists.  Whatever
happens on the way is answered by laying both watches anew, and by one hint.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Final

from openbits.service.logon import inotify
from openbits.service.logon.inotify import Inotify

log = logging.getLogger(__name__)

_GONE: Final = inotify.DELETE_SELF | inotify.MOVE_SELF | inotify.UNMOUNT | inotify.IGNORED
_ABOVE: Final = (
    inotify.CREATE
    | inotify.MOVED_TO
    | inotify.MOVED_FROM
    | inotify.DELETE
    | inotify.DELETE_SELF
    | inotify.MOVE_SELF
    | inotify.ONLYDIR
)
_ATTEMPTS: Final = 20
"""So often the way may change under our hands while it is being watched; then what is watched must do."""


class PathWatch:
    """Calls `on_change` when something of `mask` happens to the path, and when it comes, goes or is replaced."""

    def __init__(self, path: str, *, mask: int, on_change: Callable[[], None]) -> None:
        self._path = path
        self._mask = mask
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._inotify: Inotify | None = None
        self._own = self._above = -1
        self._step = b""
        """The entry that leads from the directory above towards the path."""
        self.problem = ""
        """Why nothing can be watched; empty when it can."""

    def __repr__(self) -> str:
        state = "closed" if self._inotify is None else "there" if self._own >= 0 else "absent"
        return f"<PathWatch {self._path} {state}>"

    def start(self) -> None:
        """Begin to watch. What happened before is not told: look at the path after this."""
        self.close()
        try:
            self._watch()
        except OSError as error:
            self.close()
            self.problem = f"{self._path} cannot be watched: {error.strerror}"
            log.warning("action=watch-refused path=%s error=%s", self._path, error)
            return
        self.problem = ""
        assert self._inotify is not None
        self._loop.add_reader(self._inotify.fileno(), self._read)

    def close(self) -> None:
        """Stop watching; allowed at any time."""
        if self._inotify is not None:
            self._loop.remove_reader(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None

    def _watch(self) -> None:
        for _ in range(_ATTEMPTS):
            if self._inotify is not None:
                self._inotify.close()
            self._inotify = Inotify()
            if self._lay(self._inotify):
                return

    def _lay(self, watcher: Inotify) -> bool:
        """Watch both places; False when the way has grown meanwhile.

        The directory first: whatever becomes of the path afterwards is seen there.
        """
        path = self._path
        self._own = -1
        while True:
            above = os.path.dirname(path)
            try:
                self._above = watcher.add(above, _ABOVE)
                break
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                if above == path:
                    raise
                path = above
        self._step = os.fsencode(os.path.basename(path))
        if path != self._path:
            return not os.path.lexists(path)
        try:
            self._own = watcher.add(path, self._mask | inotify.DELETE_SELF | inotify.MOVE_SELF)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            self._own = -1
        return True

    def _read(self) -> None:
        assert self._inotify is not None
        moved = heard = False
        for event in self._inotify.read():
            if event.mask & inotify.OVERFLOW or event.mask & _GONE:
                moved = True
            elif event.watch == self._own:
                heard = True
            elif event.name == self._step:
                moved = True
        if moved:
            self.start()
        if moved or heard:
            self._on_change()
