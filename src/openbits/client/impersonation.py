"""Being somebody else for a stretch of code: `with openbits.impersonate("alice"):`.

The rules:

- The calling thread, and no other.  It has alice's uid, gid and supplementary groups as its *effective* ones, and
  no capabilities; what it really is stays as it was (see `thread_rights`).
- After the block the thread is exactly what it was, or the process ends: what goes on with the wrong rights, too few
  or too many, does harm that nobody sees.
- Blocks within blocks exchange one identity for the other by way of what the thread is by itself; the inner one is
  not a matter of alice's rights.
- A thread that impersonates starts nothing (see `starts`).  A fork goes on inside the block, as its parent does.
- Nothing is awaited inside a block: the event loop would go on with other tasks, as alice.

Whatever runs in the thread by chance meanwhile (a signal handler, a finalizer) runs as alice too.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NoReturn

from openbits.client import starts, thread_rights
from openbits.client.accounts import identity_of
from openbits.client.identity import Identity, here
from openbits.errors import BitsError

EXIT_NOT_RESTORED: Final = 77
"""Exit status of a process whose thread could not go back to what it was (EX_NOPERM)."""

_ATTEMPTS: Final = 5


class _Wearing:
    """A `with` statement around a block."""

    _block: _Block | None = None

    def __exit__(self, *_: object) -> None:
        if self._block is None:
            raise BitsError("E_ILLEGAL_METHOD_CALL", "this block has been left already")
        self._block.leave()
        self._block = None

    def _begin(self, wanted: Identity) -> None:
        block = _Block(wanted)
        # A signal handler's exception may come just as __exit__ is called, which nobody calls again then. The block is
        # left with the statement's last trace. (A __del__ would be one more place for such an exception, which it
        # would swallow.)
        block.guard = weakref.ref(self, lambda _: block.leave())
        self._block = block
        try:
            block.enter()
        except BaseException:
            block.leave()
            self._block = None
            raise


class impersonate(_Wearing):  # noqa: N801 - it is used as the function that BITS's programs know
    """Be another account within a `with` block, as far as the calling thread goes.

    `account` is a name or a uid; `groups` are the supplementary groups, those of the account database when nothing is
    said. The block's value is the Identity. What a call of the client carries inside is a matter of its object's
    blanket (`set_proxy_blanket`); files are opened as the account in any case.

    Works for root, and for a process with CAP_SETUID and CAP_SETGID among its permitted capabilities. Raises
    ERROR_PRIVILEGE_NOT_HELD (nothing has changed), ERROR_NO_SUCH_USER, E_ACCESSDENIED (uid 0, for a service that is
    not root itself), E_ILLEGAL_METHOD_CALL, E_INVALIDARG.
    """

    def __init__(self, account: str | int, *, groups: Iterable[int] | None = None) -> None:
        self._account = account
        self._groups = None if groups is None else tuple(groups)

    def __repr__(self) -> str:
        return f"<impersonate {self._account!r}{', inside' if self._block else ''}>"

    def __enter__(self) -> Identity:
        if self._block is not None:
            raise BitsError("E_ILLEGAL_METHOD_CALL", "this block is in use already: each needs an object of its own")
        outside = here.outside or thread_rights.read()
        thread_rights.check(outside)
        wanted = identity_of(self._account, self._groups)
        _refuse_root(wanted, outside)
        self._begin(wanted)
        return wanted


class as_identity(_Wearing):  # noqa: N801 - as `impersonate`
    """Be an identity that is known already, for what the client does itself: opening connections."""

    def __init__(self, wanted: Identity) -> None:
        self._wanted = wanted

    def __enter__(self) -> None:
        outside = here.outside or thread_rights.read()
        if self._wanted != outside.identity:
            thread_rights.check(outside)
            _refuse_root(self._wanted, outside)
        self._begin(self._wanted)


def _refuse_root(wanted: Identity, outside: thread_rights.Rights) -> None:
    # CAP_SETUID would allow it, and whoever holds it can be root by other means. But a service that was given the
    # two capabilities to act for users must not become root because somebody handed it a uid.
    if wanted.uid == 0 and outside.uids[1] != 0:
        raise BitsError("E_ACCESSDENIED", "only root can be root here: this process runs as another account")


class _Block:
    """One stretch of code as somebody else: on the thread's stack from `enter` to `leave`."""

    def __init__(self, wanted: Identity) -> None:
        self.wanted = wanted
        self.on_event_loop = _is_on_event_loop()
        self._thread_id = threading.get_native_id()
        self._is_over = False
        self.guard: weakref.ref[_Wearing] | None = None

    def enter(self) -> None:
        starts.refuse_starts()
        sys.audit("openbits.impersonate", self.wanted.uid, self.wanted.gid)
        try:
            if here.outside is None:
                here.outside = thread_rights.read()
            # First on the stack, then worn: a signal handler that impersonates in between leaves the thread as the
            # stack says.
            here.blocks.append(self)
            _wear(here.outside, self.wanted)
        except (OSError, thread_rights.NotWorn) as error:
            raise _refused(self.wanted, error) from error

    def leave(self) -> None:
        """Make the thread what it was. What a signal handler raises meanwhile waits until that is done."""
        interruption: BaseException | None = None
        while not self._is_over:
            try:
                self._leave()
            except (OSError, thread_rights.NotWorn) as error:
                _end(f"the thread cannot go back to what it was: {error}")
            except BaseException as error:  # noqa: BLE001 - raised again below
                interruption = error
        if interruption is not None:
            raise interruption

    def _leave(self) -> None:
        if self in here.blocks:
            here.blocks.remove(self)
        elif self._thread_id != threading.get_native_id() and os.path.exists(f"/proc/self/task/{self._thread_id}"):
            # A generator that is thrown away in another thread, for instance. The one that began the block goes on as
            # somebody else, and nobody but itself can change that.
            _end("a block was left in another thread than the one it was begun in")
        outside = here.outside
        if outside is not None:
            _wear(outside, here.blocks[-1].wanted if here.blocks else outside.identity)
            if not here.blocks:
                here.outside = None
        self._is_over = True
        self.guard = None


def _wear(outside: thread_rights.Rights, wanted: Identity) -> None:
    """Become `wanted`; again, if a signal handler impersonated in the middle. Raises OSError, NotWorn."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return thread_rights.wear(outside, wanted)
        except (OSError, thread_rights.NotWorn):
            continue
    return thread_rights.wear(outside, wanted)


def _refused(wanted: Identity, error: Exception) -> BitsError:
    number = error.errno if isinstance(error, OSError) else 0
    if number == errno.EPERM:
        return BitsError("ERROR_PRIVILEGE_NOT_HELD", f"the kernel does not allow to be uid {wanted.uid}: {error}")
    if number == errno.EINVAL:
        return BitsError("E_INVALIDARG", f"uid {wanted.uid} or its groups do not exist in this namespace: {error}")
    return BitsError("E_FAIL", f"uid {wanted.uid} cannot be taken on: {error}")


def _is_on_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


def _end(problem: str) -> NoReturn:
    """End the process at once.

    An exception could be caught by somebody who then goes on as the wrong account; unwinding would write files and make
    calls as it.
    """
    with suppress(OSError):
        os.write(2, f"openbits: fatal: {problem}\n".encode("utf-8", "backslashreplace"))
    os._exit(EXIT_NOT_RESTORED)
