"""What the journal is told of an event, through a real datagram socket."""

import asyncio
import contextlib
import os
import pathlib
import socket
import struct
from collections.abc import Iterator

import pytest

from openbits.core.eventlog import CREATED, EVENTS, FAILED_TO_START, FILE_FAILED, message_id
from openbits.core.model import JobState
from openbits.service import journal as journal_module
from openbits.service.journal import Journal, encode, fields_of, tell_of_failure
from openbits.service.records import EventRecord
from support.jobs import job_in


def decode(data: bytes) -> list[tuple[str, bytes]]:
    """Read an entry as journald does."""
    fields = []
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if equals:
            fields.append((name.decode("ascii"), value))
            data = rest
            continue
        (length,) = struct.unpack_from("<Q", rest)
        fields.append((name.decode("ascii"), rest[8 : 8 + length]))
        assert rest[8 + length : 9 + length] == b"\n"
        data = rest[9 + length :]
    return fields


class Listener:
    """journald's end of the socket."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = str(path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.path)
        self.sock.settimeout(5)

    def take(self) -> dict[str, bytes]:
        """One entry, also one that comes as a memory file."""
        data, descriptors, _, _ = socket.recv_fds(self.sock, 1 << 20, 1)
        for descriptor in descriptors:
            with os.fdopen(descriptor, "rb") as file:
                assert not data
                with pytest.raises(OSError, match="not permitted"):
                    os.truncate(file.fileno(), 0)
                file.seek(0)
                data = file.read()
        fields = decode(data)
        assert len(dict(fields)) == len(fields), "a field came twice"
        return dict(fields)

    def is_empty(self) -> bool:
        """Whether nothing waits to be taken."""
        try:
            self.sock.settimeout(0)
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def listener(tmp_path: pathlib.Path) -> Iterator[Listener]:
    """A socket where the journal's would be."""
    listener = Listener(tmp_path / "socket")
    with contextlib.closing(listener.sock):
        yield listener


@pytest.fixture
def journal(listener: Listener) -> Iterator[Journal]:
    """The way to that socket."""
    journal = Journal(listener.path, lambda uid: f"account {uid}")
    yield journal
    journal.close()


def record(**changes: object) -> EventRecord:
    """An event of a job."""
    values = {
        "id": 7,
        "time": 0.0,
        "kind": "created",
        "job_id": "11111111-2222-3333-4444-555555555555",
        "text": "created by alice",
        "owner_uid": 1000,
        "event_id": CREATED,
        "fields": (("process_name", "wget"),),
    }
    return EventRecord(**(values | changes))  # type: ignore[arg-type]  # the values are those of the record


def test_an_event_has_its_fields(listener: Listener, journal: Journal) -> None:
    """Section 13: MESSAGE_ID, BITS_EVENT_ID, the job, its owner, and the event's own fields."""
    journal.write(record())
    got = listener.take()
    assert got["MESSAGE_ID"].decode() == message_id(CREATED)
    assert got["BITS_EVENT_ID"] == b"3"
    assert got["BITS_JOB_ID"] == b"11111111-2222-3333-4444-555555555555"
    assert got["BITS_OWNER"] == b"1000"
    assert got["BITS_OWNER_NAME"] == b"account 1000"
    assert got["BITS_PROCESS_NAME"] == b"wget"
    assert got["PRIORITY"] == b"6"
    assert got["SYSLOG_IDENTIFIER"] == b"bitsd"
    assert got["BITS_KIND"] == b"created"
    assert journal.sent == 1


def test_a_job_gives_its_name_and_its_owner(listener: Listener, journal: Journal) -> None:
    """BITS_JOB_NAME and BITS_OWNER_NAME are those of the job, as long as it is the event's owner's."""
    job = job_in(JobState.QUEUED)
    journal.write(record(job=job, job_id=job.id, owner_uid=job.owner.identity.uid))
    journal.write(record(job=job, job_id=job.id, owner_uid=job.owner.identity.uid + 1))
    own, former = listener.take(), listener.take()
    assert own["BITS_JOB_NAME"].decode() == job.settings.name
    assert own["BITS_OWNER_NAME"].decode() == job.owner.name
    assert former["BITS_OWNER_NAME"] == f"account {job.owner.identity.uid + 1}".encode()


@pytest.mark.parametrize(
    "hostile",
    [
        "a\nMESSAGE_ID=00000000000000000000000000000000",
        "x\n_UID=0\n",
        "\n",
        "\udcff\n",
        "a=b\nPRIORITY\n\0\0",
        "",
    ],
)
def test_a_value_cannot_become_a_field(listener: Listener, journal: Journal, hostile: str) -> None:
    """Names, URLs and answers are others' words: whatever is in them stays one value."""
    journal.write(record(text=f"said: {hostile}", fields=(("job_title", hostile), ("url", hostile))))
    got = listener.take()
    allowed = {"MESSAGE", "MESSAGE_ID", "PRIORITY", "SYSLOG_IDENTIFIER"}
    assert {name for name in got if name not in allowed and not name.startswith("BITS_")} == set()
    assert got["MESSAGE_ID"].decode() == message_id(CREATED)
    assert got["PRIORITY"] == b"6"
    assert got["BITS_URL"].decode("utf-8", "surrogateescape") == hostile


def test_an_own_field_does_not_stand_for_one_of_ours() -> None:
    """BITS_OWNER is what the service says, whatever the event's fields are called."""
    fields = fields_of(record(fields=(("owner", "0"), ("event_id", "9"), ("a b", "x"), ("é", "y"))), "alice")
    assert [value for name, value in fields if name == "BITS_OWNER"] == ["1000"]
    assert [value for name, value in fields if name == "BITS_EVENT_ID"] == ["3"]
    assert all(name.isascii() and " " not in name for name, _ in fields)


def test_no_url_has_a_password(listener: Listener, journal: Journal) -> None:
    """Also where somebody forgot to take it away before."""
    journal.write(
        record(text="GET http://me:secret@example.org/x", fields=(("url", "https://me:secret@example.org/"),))
    )
    assert b"secret" not in encode((name, value.decode()) for name, value in listener.take().items())


def test_a_large_event_goes_as_a_sealed_memory_file(listener: Listener, journal: Journal) -> None:
    """What does not fit into a datagram arrives whole."""
    text = "x" * 30_000_000
    journal.write(record(text=text))
    assert listener.take()["MESSAGE"].endswith(text.encode())
    assert journal.sent == 1


def test_no_journal_no_trouble(tmp_path: pathlib.Path) -> None:
    """A machine without systemd: nothing is sent, nothing dropped, and one that comes later is found."""
    journal = Journal(str(tmp_path / "socket"))
    journal.write(record())
    assert (journal.sent, journal.dropped) == (0, 0)
    assert journal.health()[0]
    listener = Listener(tmp_path / "socket")
    journal.write(record())
    assert listener.take()["BITS_EVENT"] == b"7"
    listener.sock.close()
    (tmp_path / "socket").unlink()
    journal.write(record())
    again = Listener(tmp_path / "socket")
    journal.write(record(id=8))
    assert again.take()["BITS_EVENT"] == b"8"
    again.sock.close()
    journal.close()
    nowhere = Journal("")
    nowhere.write(record())
    assert nowhere.sent == 0


def test_a_storm_waits_for_room_and_loses_nothing(listener: Listener, journal: Journal) -> None:
    """The journal's buffer holds some hundred entries; the service does not wait, and none is lost."""
    asyncio.run(_storm(listener, journal))


async def _storm(listener: Listener, journal: Journal) -> None:
    for number in range(3000):
        journal.write(record(id=number))
    assert journal.sent < 3000, "the buffer is larger than the test thinks"
    got = [int((await asyncio.to_thread(listener.take))["BITS_EVENT"]) for _ in range(3000)]
    assert got == list(range(3000))
    assert journal.dropped == 0


def test_what_is_dropped_is_counted_and_told(
    listener: Listener, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that takes nothing costs a bounded memory."""
    monkeypatch.setattr(journal_module, "MOST_WAITING", 10)
    asyncio.run(_flood(listener, journal))


async def _flood(listener: Listener, journal: Journal) -> None:
    for number in range(3000):
        journal.write(record(id=number))
    is_well, text = journal.health()
    assert not is_well
    assert f"{journal.dropped} dropped" in text
    dropped = journal.dropped
    got = [await asyncio.to_thread(listener.take) for _ in range(3000 - dropped + 1)]
    assert [int(each["BITS_EVENT"]) for each in got[:-1]] == list(range(3000 - dropped))
    assert int(got[-1]["BITS_DROPPED"]) == dropped
    assert listener.is_empty()


def test_a_service_that_fails_says_so_though_it_has_no_loop_any_more(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16392: a wrong configuration is found in the journal by its number."""
    monkeypatch.setenv(journal_module.VARIABLE, listener.path)
    tell_of_failure(FAILED_TO_START, "the service cannot start: no such key", 78)
    told = listener.take()
    assert told["MESSAGE_ID"].decode() == message_id(16392)
    assert (told["PRIORITY"], told["BITS_ERROR_CODE"]) == (b"3", b"78")
    assert told["MESSAGE"] == b"the service cannot start: no such key"


def test_a_service_that_fails_where_there_is_no_journal_fails_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits, and nothing is raised."""
    monkeypatch.setenv(journal_module.VARIABLE, "/nonexistent/journal")
    tell_of_failure(FAILED_TO_START, "the service cannot start", 78)


def test_message_ids_never_change() -> None:
    """People have them in their filters: each number has its own, for ever."""
    assert message_id(CREATED) == "636bf329630859a087e91f810f0f6e08"
    assert message_id(FILE_FAILED) == "6e80f811a5365db3bf06e3ac7b13ae69"
    assert len({message_id(number) for number in EVENTS}) == len(EVENTS)
