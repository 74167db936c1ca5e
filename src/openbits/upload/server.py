"""The server's side of the BITS upload protocol as decisions without I/O: events in, effects out (U40–U45).

The rules that it keeps:

- `step` is a pure function of (policy, session, request, event).  The first event of a request is `Asked`; what an
  effect came to is the next event; every request ends with an `Answer`, or with none where nobody listens any more.
- A session is a value that says everything that a restart of the server must find again.  `received_bytes` is what the
  file of the session holds, from the beginning and without holes: never more, and what is there is never overwritten.
- The file appears once and whole: `Publish` comes after `Seal` (every byte is durable) and `Keep` (so is the intent).
- An application is asked until it has answered, with success or 403, and never again after that (U30–U32, R2).
- Whatever a client believes, `BITS-Received-Content-Range` says what is true.

Where the documents disagree, section 11 of the digest decides; `Overlap` and `Finalize` offer the other reading.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, assert_never

from openbits.errors import ErrorContext, error_code
from openbits.upload.packets import PROTOCOL, Ack, BadPacket, FragmentRange, PacketType, Request
from openbits.upload.session import (
    Answer,
    Asked,
    BrokenOff,
    Drop,
    Effect,
    Event,
    Failed,
    Finalize,
    Keep,
    Look,
    Looked,
    Made,
    Make,
    Notified,
    Notify,
    NotNotified,
    NotStored,
    Overlap,
    Phase,
    Place,
    Policy,
    Publish,
    Published,
    Seal,
    Sealed,
    Session,
    Step,
    Store,
    Stored,
    Trouble,
)

REPLY_URL_LIMIT: Final = 2_200
_HTTP_ERRORS: Final = 0x8019_0000
_MISLEADING: Final = frozenset({413, 416})
"""An application's answers that a client would take for the upload server's own: "send less", "go on elsewhere"."""

# --- decisions ---------------------------------------------------------------------------------


def step(policy: Policy, session: Session | None, request: Request, event: Event) -> Step:
    """Take an event of a request; `session` is the one that the request names, None when there is none."""
    if isinstance(event, Asked):
        return _ask(policy, session, request)
    if session is None:
        return _go_on_creating(policy, request, event)
    match event:
        case Stored():
            return _stored(session, event.received_bytes)
        case BrokenOff():
            return Step(session=replace(session, received_bytes=event.received_bytes))
        case NotStored():
            session = replace(session, received_bytes=event.received_bytes)
            return _refuse(session, event.trouble, received_bytes=session.received_bytes)
        case Sealed():
            # Without an application the durable file is accepted by that.
            phase = Phase.COMPLETE if policy.has_application else Phase.ACCEPTED
            return _conclude(policy, replace(session, phase=phase), keeps=True)
        case Notified():
            return _notified(policy, session, event)
        case NotNotified():
            return _not_notified(session, event)
        case Published():
            session = replace(session, phase=Phase.DONE)
            return _end(session) if request.packet_type is PacketType.CLOSE_SESSION else _conclude(policy, session)
        case Failed():
            return _failed(session, request, event.trouble)
        case Looked() | Made():
            raise AssertionError(f"{event} belongs to no session")
        case _:
            assert_never(event)


def refuse_packet(bad: BadPacket, session_id: str = "") -> Answer:
    """The answer to a request that is no packet."""
    return Answer(ack=_error(bad.status, bad.name, session_id=session_id), reason=str(bad))


def _ask(policy: Policy, session: Session | None, request: Request) -> Step:
    if not policy.is_enabled:
        ack = _error(501, "E_ACCESSDENIED", session_id=request.session_id)
        return Step(session=session, effects=(Answer(ack=ack, reason="uploads are disabled here"),))
    if request.packet_type is PacketType.PING:
        return _answer(session, Ack(status=200))
    if request.packet_type is PacketType.CREATE_SESSION:
        if PROTOCOL not in request.supported_protocols:
            return _answer(None, _error(400, "E_INVALIDARG"), "no protocol in common")
        return Step(session=None, effects=(Look(),))
    if session is None:
        ack = _error(500, "BG_E_SESSION_NOT_FOUND", session_id=request.session_id)
        return _answer(None, ack, "there is no such session")
    match request.packet_type:
        case PacketType.FRAGMENT:
            assert request.range is not None
            return _take_fragment(policy, session, request.range)
        case PacketType.CLOSE_SESSION:
            return _close(policy, session)
        case PacketType.CANCEL_SESSION:
            # It takes nothing back that has its name already (U44).
            return _end(session)
        case _:
            assert_never(request.packet_type)


def _go_on_creating(policy: Policy, request: Request, event: Event) -> Step:
    match event:
        case Looked(place=Place.FREE):
            return Step(session=None, effects=(Make(),))
        case Looked(place=Place.FILE) if policy.may_overwrite:
            return Step(session=None, effects=(Make(),))
        case Looked(place=Place.FILE):
            return _refuse(None, Trouble.EXISTS)
        case Looked(place=Place.DIRECTORY):
            return _refuse(None, Trouble.DIRECTORY)
        case Looked(place=Place.MISSING):
            return _refuse(None, Trouble.MISSING)
        case Looked(place=Place.FORBIDDEN):
            return _refuse(None, Trouble.FORBIDDEN)
        case Made():
            ack = Ack(
                status=200,
                session_id=event.session_id,
                protocol=PROTOCOL,
                host_id=policy.host_id,
                host_id_fallback_timeout_s=policy.host_id_fallback_timeout_s,
            )
            return _answer(Session(id=event.session_id), ack)
        case Failed():
            return _refuse(None, event.trouble)
        case _:
            raise AssertionError(f"{event} needs a session; {request.packet_type} had none")


def _take_fragment(policy: Policy, session: Session, carried: FragmentRange) -> Step:
    wanted = session.received_bytes
    if session.total_bytes not in (None, carried.total) or wanted > carried.total:
        ack = _error(400, "E_INVALIDARG", session_id=session.id, received_bytes=wanted)
        return _answer(session, ack, f"the file had {session.total_bytes} bytes, now it has {carried.total}")
    if policy.maximum_bytes is not None and carried.total > policy.maximum_bytes:
        ack = _error(500, "BG_E_TOO_LARGE", session_id=session.id, received_bytes=wanted)
        return _answer(session, ack, f"{carried.total} bytes are more than {policy.maximum_bytes}")
    if session.phase is not Phase.RECEIVING:
        # The answer to the last fragment was lost: whatever is sent again, everything is here.
        return _conclude(policy, session)
    is_whole = wanted == carried.total
    # … and whoever stored the last byte was cut off before it was durable: a 416 would say that it is done.
    is_refused = policy.overlap is Overlap.REFUSE and carried.offset < wanted and not is_whole
    if carried.offset > wanted or is_refused:
        ack = Ack(status=416, session_id=session.id, received_bytes=wanted)
        return _answer(session, ack, f"byte {wanted} is wanted, the fragment begins at {carried.offset}")
    if carried.end <= wanted and not is_whole:
        return _answer(session, _received(session))
    store = Store(
        offset=wanted,
        skip=min(wanted, carried.end) - carried.offset,
        length=max(0, carried.end - wanted),
        total_bytes=carried.total,
    )
    return Step(session=replace(session, total_bytes=carried.total), effects=(store,))


def _stored(session: Session, received_bytes: int) -> Step:
    session = replace(session, received_bytes=received_bytes)
    if received_bytes == session.total_bytes:
        return Step(session=session, effects=(Seal(),))
    return _answer(session, _received(session))


def _conclude(policy: Policy, session: Session, *, keeps: bool = False) -> Step:
    """Every byte is here and durable: what is left to be done before the last fragment is answered."""
    keep: tuple[Effect, ...] = (Keep(),) if keeps else ()
    match session.phase:
        case Phase.COMPLETE if policy.has_application:
            return Step(session=session, effects=(*keep, Notify()))
        case Phase.COMPLETE:
            # The application has been taken out of the settings meanwhile.
            accepted = replace(session, phase=Phase.ACCEPTED, is_published=True)
            return _conclude(policy, accepted, keeps=True)
        case Phase.ACCEPTED if session.is_published and policy.finalize is Finalize.LAST_FRAGMENT:
            return Step(session=session, effects=(*keep, Publish()))
        case Phase.ACCEPTED | Phase.DONE:
            return Step(session=session, effects=(*keep, Answer(ack=_received(session))))
        case Phase.REFUSED:
            return Step(session=session, effects=(*keep, _passed_on(session, 403, None)))
        case Phase.RECEIVING:
            raise AssertionError("the file is not whole")
        case _:
            assert_never(session.phase)


def _notified(policy: Policy, session: Session, event: Notified) -> Step:
    if len(event.reply_url) > REPLY_URL_LIMIT:
        reason = f"the application's reply URL is longer than {REPLY_URL_LIMIT} characters"
        ack = _error(
            400,
            "E_INVALIDARG",
            session_id=session.id,
            received_bytes=session.received_bytes,
            context=ErrorContext.REMOTE_APPLICATION,
        )
        return _answer(session, ack, reason)
    accepted = replace(session, phase=Phase.ACCEPTED, reply_url=event.reply_url, is_published=event.wants_file)
    if not accepted.is_published:
        accepted = replace(accepted, phase=Phase.DONE)
    return _conclude(policy, accepted, keeps=True)


def _not_notified(session: Session, event: NotNotified) -> Step:
    if event.status == 403:
        session = replace(session, phase=Phase.REFUSED)
        return Step(session=session, effects=(Keep(), _passed_on(session, 403, event.error)))
    return Step(session=session, effects=(_passed_on(session, event.status, event.error),))


def _passed_on(session: Session, status: int, error: int | None) -> Answer:
    """The application's status for the client, with the context 7 (digest, section 8)."""
    ack = Ack(
        # The code still says what the application said.
        status=400 if status in _MISLEADING else status,
        session_id=session.id,
        received_bytes=session.received_bytes,
        error=_HTTP_ERRORS + status if error is None else error,
        error_context=ErrorContext.REMOTE_APPLICATION,
    )
    return Answer(ack=ack, reason="the server application did not take the file")


def _close(policy: Policy, session: Session) -> Step:
    match session.phase:
        case Phase.RECEIVING | Phase.REFUSED | Phase.DONE:
            # A partial upload goes (U43); what is done stays.
            return _end(session)
        case Phase.COMPLETE if policy.has_application:
            # The application never took it, and the client gives up.
            return _end(session)
        case Phase.COMPLETE:
            accepted = replace(session, phase=Phase.ACCEPTED, is_published=True)
            return Step(session=accepted, effects=(Keep(), Publish()))
        case Phase.ACCEPTED if session.is_published:
            return Step(session=session, effects=(Publish(),))
        case Phase.ACCEPTED:
            return _end(session)
        case _:
            assert_never(session.phase)


def _failed(session: Session, request: Request, trouble: Trouble) -> Step:
    if request.packet_type is PacketType.FRAGMENT:
        return _refuse(session, trouble, received_bytes=session.received_bytes)
    refusal = _refuse(session, trouble)
    if _TROUBLES[trouble][0] < 500:
        # No client sends Close again after such an answer (R6): nothing will ever come of the session.
        return Step(session=None, effects=(Drop(), *refusal.effects))
    return refusal


def _end(session: Session) -> Step:
    return Step(session=None, effects=(Drop(), Answer(ack=Ack(status=200, session_id=session.id))))


# --- answers -----------------------------------------------------------------------------------

_TROUBLES: Final[dict[Trouble, tuple[int, str | None, str]]] = {
    Trouble.EXISTS: (403, "E_ACCESSDENIED", "the file exists, and overwriting is not allowed"),
    Trouble.DIRECTORY: (400, "E_INVALIDARG", "the URL names a directory"),
    Trouble.MISSING: (404, None, "there is no such directory"),
    Trouble.FORBIDDEN: (403, "E_ACCESSDENIED", "no file may be put there"),
    Trouble.VANISHED: (404, None, "the file of the session is gone"),
    Trouble.NO_ROOM: (500, "ERROR_DISK_FULL", "there is no room on the disk"),
    Trouble.TOO_LARGE: (500, "BG_E_TOO_LARGE", "the file system holds no file of this size"),
    Trouble.TOO_MANY: (503, None, "there are too many open sessions"),
    Trouble.BROKEN: (500, "E_FAIL", "the server failed"),
}
"""Status, error name and reason of each (digest, section 6); the client needs no name where the status says it all."""


def _refuse(session: Session | None, trouble: Trouble, *, received_bytes: int | None = None) -> Step:
    status, name, reason = _TROUBLES[trouble]
    session_id = session.id if session is not None else ""
    if name is None:
        ack = Ack(status=status, session_id=session_id, received_bytes=received_bytes)
    else:
        ack = _error(status, name, session_id=session_id, received_bytes=received_bytes)
    return _answer(session, ack, reason)


def _answer(session: Session | None, ack: Ack, reason: str = "") -> Step:
    return Step(session=session, effects=(Answer(ack=ack, reason=reason),))


def _received(session: Session) -> Ack:
    return Ack(status=200, session_id=session.id, received_bytes=session.received_bytes, reply_url=session.reply_url)


def _error(
    status: int,
    name: str,
    *,
    session_id: str = "",
    received_bytes: int | None = None,
    context: ErrorContext = ErrorContext.REMOTE_FILE,
) -> Ack:
    return Ack(
        status=status,
        session_id=session_id,
        received_bytes=received_bytes,
        error=error_code(name).hresult,
        error_context=context,
    )
