"""The monitor's loop: descriptors, signals and deadlines, and no wake-up without one of them."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from openbits.frames.channel import Channel, ChannelClosed
from openbits.frames.codec import FrameError
from openbits.monitor.permits import Violation

_READ: Final = selectors.EVENT_READ
_WRITE: Final = selectors.EVENT_WRITE


class Reactor:
    """Waits, and calls whoever it concerns."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._deadlines: dict[str, tuple[float, Callable[[], None]]] = {}

    def watch(self, fd: int, ready: Callable[[int], None]) -> None:
        """Call `ready` with the events whenever the descriptor is readable."""
        self._selector.register(fd, _READ, ready)

    def watch_for(self, fd: int, events: int) -> None:
        """Change what a watched descriptor is watched for."""
        self._selector.modify(fd, events, self._selector.get_key(fd).data)

    def unwatch(self, fd: int) -> None:
        """Forget a descriptor, before it is closed."""
        self._selector.unregister(fd)

    def after(self, name: str, delay_s: float, due: Callable[[], None]) -> None:
        """Call `due` once after a time; a deadline of the same name is replaced."""
        self._deadlines[name] = (time.monotonic() + delay_s, due)

    def cancel(self, name: str) -> None:
        """Forget a deadline, if it is there."""
        self._deadlines.pop(name, None)

    def turn(self) -> None:
        """Wait for something to happen, and see to all that has happened."""
        timeout_s = None
        if self._deadlines:
            timeout_s = max(0.0, min(at for at, _ in self._deadlines.values()) - time.monotonic())
        for key, events in self._selector.select(timeout_s):
            known = self._selector.get_map().get(key.fd)
            # A callback before this one may have closed the descriptor, and its number may be in use again.
            if known is not None and known.data is key.data:
                key.data(events)
        now = time.monotonic()
        for name, (at, due) in list(self._deadlines.items()):
            if at <= now and self._deadlines.get(name) == (at, due):
                del self._deadlines[name]
                due()

    @contextlib.contextmanager
    def signals(self, numbers: Iterable[signal.Signals], handle: Callable[[int], None]) -> Iterator[None]:
        """Let signals wake the loop and be handled there, not in the middle of something."""
        receiver, sender = socket.socketpair()
        receiver.setblocking(False)
        sender.setblocking(False)

        def read(_events: int) -> None:
            with contextlib.suppress(BlockingIOError):
                while True:
                    for number in receiver.recv(64):
                        handle(number)

        before = {number: signal.signal(number, lambda _number, _frame: None) for number in numbers}
        wakeup_before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        self.watch(receiver.fileno(), read)
        try:
            yield
        finally:
            self.unwatch(receiver.fileno())
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            receiver.close()
            sender.close()

    def close(self) -> None:
        """Give the descriptor of the loop back."""
        self._selector.close()


class Link:
    """A channel in the loop.

    While the peer does not read, nothing more is taken from it: it cannot fill this process's memory
    with answers that it never fetches.  Descriptors that came with a frame are closed after it was handled.
    """

    def __init__(
        self,
        who: str,
        channel: Channel,
        *,
        reactor: Reactor,
        on_frame: Callable[[object, list[int]], None],
        on_end: Callable[[], None],
    ) -> None:
        self.who = who
        self._channel = channel
        self._reactor = reactor
        self._on_frame = on_frame
        self._on_end = on_end
        self._watched = True
        channel.on_wants_write = self._watch_for_write
        reactor.watch(channel.fileno(), self._ready)

    def __repr__(self) -> str:
        return f"<Link {self.who} {self._channel!r}>"

    def send(self, frame: object, descriptors: tuple[int, ...] = ()) -> None:
        """Send a frame; to a peer that has gone it is lost, and the loop will notice the end by itself."""
        with contextlib.suppress(ChannelClosed):
            self._channel.send(frame, descriptors)

    def read(self) -> None:
        """Handle every frame that has arrived. Raises Violation."""
        try:
            while (received := self._channel.receive()) is not None:
                frame, descriptors = received
                try:
                    self._on_frame(frame, descriptors)
                finally:
                    for fd in descriptors:
                        os.close(fd)
        except FrameError as error:
            raise Violation(f"the {self.who} sent what is no frame: {error}") from None
        except ChannelClosed:
            self._end()

    def close(self) -> None:
        """Close this end."""
        self._unwatch()
        self._channel.close()

    def _ready(self, events: int) -> None:
        if events & _WRITE:
            try:
                self._channel.flush()
            except ChannelClosed:
                self._end()
        if events & _READ and self._watched:
            self.read()

    def _watch_for_write(self, wanted: bool) -> None:
        if self._watched:
            self._reactor.watch_for(self._channel.fileno(), _WRITE if wanted else _READ)

    def _end(self) -> None:
        if self._watched:
            self._unwatch()
            self._on_end()

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._reactor.unwatch(self._channel.fileno())
