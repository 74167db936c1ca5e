"""`bitsadmin` against the real service, one recorded session a switch: what jobs are told, inventory B22 to B39."""

from __future__ import annotations

import os
import pathlib
import pty
import select
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

import openbits
from openbits.cli.bitsadmin import files, security
from openbits.cli.bitsadmin.output import BANNER
from openbits.cli.bitsadmin.property_switches import PROPERTY_SWITCHES
from openbits.client import calls
from openbits.client.certificates import CertificateStoreLocation
from support.accounts import TestAccount, file_of, needs_root, temporary_account
from support.bitsadmin import GOLDEN, SCRIPT, Console, fresh
from support.ca import CLIENT, Authority
from support.daemon import Daemon, running_daemon
from support.origin import Connection, Origin, Request
from support.upload_server import UploadServer

pytestmark = needs_root

SIZE = 150_000
FILE = f"/gen/{SIZE}/7"
PASSWORD = "tr0ub4dor&3"
ANNA = Authority("clients").issue("anna", subject=("Staff", "Anna"), usages=(CLIENT,))


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        store = pathlib.Path(account.home, ".config/openbits/certificates/MY")
        store.mkdir(parents=True)
        written = ANNA.write(store, "anna")
        for path in (*written, store, *list(store.parents)[:3]):
            os.chown(path, account.uid, account.gid)
        yield account


@pytest.fixture(scope="module")
def bob() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("system") as running:
        yield running


@pytest.fixture(scope="module")
def places(daemon: Daemon, origin: Origin, alice: TestAccount) -> dict[str, str]:
    host = socket.gethostname().partition(".")[0]
    return {
        origin.url("/gen"): "http://origin/gen",
        alice.home: "/home/alice",
        f"{host}\\{alice.name}": "HOST\\alice",
        f"{host}\\root": "HOST\\root",
        f"uid:{alice.uid} ({alice.name})": "uid:1000 (alice)",
        f"uid:{alice.uid}": "uid:1000",
        daemon.base: "/base",
        ANNA.sha1.upper(): "SHA1-OF-ANNA",
        ANNA.sha1.lower(): "SHA1-OF-ANNA",
    }


@pytest.fixture
def console(daemon: Daemon, alice: TestAccount, places: dict[str, str]) -> Iterator[Console]:
    yield from fresh(Console(daemon=daemon, account=alice, places=places))


@pytest.fixture
def root(daemon: Daemon, places: dict[str, str], console: Console) -> Console:
    del console
    return Console(daemon=daemon, places=places)


def transferred(console: Console, origin: Origin, alice: TestAccount, name: str = "job") -> str:
    """A job with one file that is here; returns its id."""
    job_id = console.job(name)
    console.good("/addfile", name, origin.url(FILE), os.path.join(alice.home, f"{name}.bin"))
    console.good("/resume", name)
    console.daemon.wait_state(job_id, "TRANSFERRED")
    return job_id


def setting(console: Console, job_id: str, name: str) -> object:
    return console.daemon.show(job_id)["settings"][name]


# --- descriptions, notifications, times (B22 to B26, B30) -------------------------------------------


def test_b22_display_name_and_description(console: Console) -> None:
    job_id = console.job()
    console("/getdisplayname", "job")
    console("/SETDISPLAYNAME", "job", "Fetch it, please")
    console("/rawreturn", "/getdisplayname", "Fetch it, please")
    console("/setdisplayname", "{" + job_id + "}", "x" * 257)
    console("/setdisplayname", "{" + job_id + "}", "")
    console("/setdisplayname", "{" + job_id + "}", "job")
    console("/getdescription", "job")
    console("/setdescription", "job", "10 mb of news")
    console("/getdescription", "job")
    console("/rawreturn", "/GetDescription", "job")
    console("/setdescription", "job", "y" * 1025)
    console("/setdescription", "job", "")
    console("/getdescription", "job")
    console("/setdescription", "job")
    console.check("descriptions")


def test_b23_priority(console: Console) -> None:
    console.job()
    console("/getpriority", "job")
    for priority in ("foreground", "HIGH", "Low", "NORMAL"):
        console("/setpriority", "job", priority)
        assert console.raw("/getpriority", "job") == priority.upper()
    console("/setpriority", "job", "urgent")
    console("/rawreturn", "/getpriority", "job")
    console("/getpriority", "another")
    console.check("priority")


def test_b24_b25_notify_flags_and_interface(console: Console) -> None:
    console.job()
    console("/getnotifyflags", "job")
    for flags in ("1", "2", "4", "0x3"):
        console("/setnotifyflags", "job", flags)
        assert console.raw("/getnotifyflags", "job") == str(int(flags, 0))
    console("/setnotifyflags", "job", "64")
    console("/setnotifyflags", "job", "all")
    console("/setnotifyflags", "job", "-1")
    console("/getnotifyinterface", "job")
    console("/rawreturn", "/getnotifyinterface", "job")
    console.check("notify_flags")


def test_b25_a_program_that_listens_is_registered(console: Console) -> None:
    job_id = console.job()
    with openbits.Manager(console.daemon.socket) as manager:
        job = manager.get_job(job_id)
        job.set_notify_interface(lambda *_: None)
        assert console.raw("/getnotifyinterface", "job") == "REGISTERED"
        job.set_notify_interface(None)
        assert console.raw("/getnotifyinterface", "job") == "UNREGISTERED"


def test_b26_times(console: Console) -> None:
    console.job()
    for name in ("minretrydelay", "noprogresstimeout", "maxdownloadtime"):
        console(f"/get{name}", "job")
        console(f"/set{name}", "job", "1234")
        console(f"/get{name}", "job")
        console("/rawreturn", f"/get{name}", "job")
        console(f"/set{name}", "job", "soon")
    console("/setminretrydelay", "job", "1")
    console.check("times")


def test_b30_notification_command_line(console: Console, root: Console) -> None:
    job_id = console.job()
    console("/getnotifycmdline", "job")
    console("/setnotifycmdline", "job", "/usr/bin/touch", "/usr/bin/touch '/tmp/it is here'")
    console("/getnotifycmdline", "job")
    console("/rawreturn", "/getnotifycmdline", "job")
    console("/setnotifycmdline", "job", "/usr/bin/true", "NULL")
    console("/getnotifycmdline", "job")
    console("/setnotifycmdline", "job", "true", "true")
    console("/setnotifycmdline", "job", "/usr/bin/true", "/usr/bin/false 1")
    console("/setnotifycmdline", "job", "NULL", "x")
    console("/setnotifycmdline", "job", "NULL", "NULL")
    console("/getnotifycmdline", "job")
    console.check("notifycmdline")
    done = root.run("/setnotifycmdline", "{" + job_id + "}", "/usr/bin/true", "NULL")
    assert (done.returncode, "0x80070005" in done.stdout) == (4, True), "it runs as the owner, who alone says what"


# --- proxies and ownership (B27 to B29) -----------------------------------------------------------


def test_b27_b28_proxies(console: Console) -> None:
    job_id = console.job()
    for name in ("/getproxyusage", "/getproxylist", "/getproxybypasslist"):
        console(name, "job")
        console("/rawreturn", name, "job")
    console("/setproxysettings", "job", "OVERRIDE", "proxy1,proxy2:3128", "*.example.org <local>")
    assert setting(console, job_id, "proxy_list") == "proxy1 proxy2:3128"
    for name in ("/getproxyusage", "/getproxylist", "/getproxybypasslist"):
        console(name, "job")
    console("/setproxysettings", "job", "override", "proxy1:80", "NULL")
    console("/getproxybypasslist", "job")
    console("/setproxysettings", "job", "override", "proxy1:80", "")
    console("/setproxysettings", "job", "OVERRIDE")
    console("/setproxysettings", "job", "OVERRIDE", "user:secret@proxy1:80", "NULL")
    console("/setproxysettings", "job", "NO_PROXY", "proxy1:80", "NULL")
    console("/setproxysettings", "job", "SOMETIMES")
    assert console.raw("/getproxylist", "job") == "proxy1:80", "nothing was changed"
    for usage in ("AUTODETECT", "no_proxy", "PRECONFIG"):
        console("/setproxysettings", "job", usage)
        assert console.raw("/getproxyusage", "job") == usage.upper()
    console("/setproxysettings", "job", "PRECONFIG", "NULL", "NULL")
    console("/getproxylist", "job")
    console.check("proxies")


def test_b29_take_ownership(console: Console, root: Console) -> None:
    job_id = "{" + console.job() + "}"
    console("/takeownership", job_id)
    console.check("takeownership_refused")
    root("/takeownership", job_id)
    root("/getowner", job_id)
    root("/takeownership", job_id)
    root.check("takeownership")


# --- credentials, headers, methods (B31 to B33) ---------------------------------------------------


def slots(console: Console, job_id: str) -> list[tuple[str, str, bool]]:
    """What SetCredentials was called for, as the owner sees it."""
    with openbits.impersonate(console.account.name if console.account else "root"):
        manager = openbits.Manager(console.daemon.socket)
        openbits.set_proxy_blanket(manager, openbits.Cloaking.DYNAMIC)
        shown = manager._session.perform(calls.job(job_id), manager._call_identity())
    return [(one["target"], one["scheme"], one["implicit"]) for one in shown["credentials"]]


def test_b31_credentials(console: Console, root: Console) -> None:
    job_id = console.job()
    console("/setcredentials", "job", "SERVER", "BASIC", "anna", PASSWORD)
    console("/setcredentials", "job", "proxy", "negotiate", "NULL", "NULL")
    assert slots(console, job_id) == [("proxy", "negotiate", True), ("server", "basic", False)]
    console("/setcredentials", "job", "SERVER", "BASIC", "NULL", "NULL")
    console("/setcredentials", "job", "SERVER", "BASIC", "anna", "NULL")
    console("/setcredentials", "job", "SERVER", "PASSPORT", "anna", PASSWORD)
    console("/setcredentials", "job", "FRIEND", "BASIC", "anna", PASSWORD)
    console("/setcredentials", "job", "SERVER", "TRUST", "anna", PASSWORD)
    console("/setcredentials", "job", "SERVER", "BASIC", "a" * 301, PASSWORD)
    console("/setcredentials", "job", "SERVER", "BASIC", "anna")
    console("/removecredentials", "job", "SERVER", "BASIC")
    console("/removecredentials", "job", "SERVER", "BASIC")
    console("/removecredentials", "job", "PROXY", "NEGOTIATE")
    assert slots(console, job_id) == []
    console.check("credentials")
    done = root.run("/setcredentials", "{" + job_id + "}", "SERVER", "BASIC", "anna", PASSWORD)
    assert (done.returncode, "0x80070005" in done.stdout) == (4, True), "A2: not even root's"


def test_b31_a_password_is_printed_nowhere_and_logged_nowhere(console: Console) -> None:
    job_id = console.job()
    done = console.run("/setcredentials", "job", "SERVER", "DIGEST", "anna", PASSWORD)
    assert done.returncode == 0
    assert "WARNING" in done.stderr
    assert console.daemon.log is not None
    shown = str(console.daemon.show(job_id)) + str(console.daemon.events()) + console.good("/info", "job", "/verbose")
    for text in (done.stdout, done.stderr, console.daemon.log.text, shown):
        assert PASSWORD not in text


def test_b31_a_password_leaves_the_process_list_before_the_service_is_asked(
    console: Console, alice: TestAccount
) -> None:
    """A service that takes the connection and never answers holds the command where it can be looked at."""
    place = os.path.join(alice.home, "silent.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(place)
        os.chmod(place, 0o777)
        listener.listen()
        listener.settimeout(30)
        environment = {**console.environment, "BITS_SOCKET": place}
        command = [SCRIPT, "/setcredentials", "job", "SERVER", "BASIC", "anna", PASSWORD]
        with subprocess.Popen(
            command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        ) as process:
            try:
                with listener.accept()[0]:
                    shown = pathlib.Path(f"/proc/{process.pid}/cmdline").read_bytes()
            finally:
                process.kill()
    assert b"/setcredentials" in shown
    assert PASSWORD.encode() not in shown
    os.unlink(place)


def test_b31_without_a_password_the_terminal_is_asked(console: Console, alice: TestAccount) -> None:
    job_id = console.job()
    pid, terminal = pty.fork()
    if pid == 0:
        os.setgroups(alice.groups)
        os.setgid(alice.gid)
        os.setuid(alice.uid)
        os.execve(SCRIPT, [SCRIPT, "/setcredentials", "job", "SERVER", "BASIC", "anna"], console.environment)
    shown = read_until(terminal, b"Password for anna: ")
    os.write(terminal, PASSWORD.encode() + b"\n")
    shown += read_until(terminal, b"set.")
    assert os.waitpid(pid, 0)[1] == 0
    os.close(terminal)
    assert b"SERVER BASIC: the credentials of 'anna' set." in shown
    assert PASSWORD.encode() not in shown
    assert b"WARNING" not in shown
    assert slots(console, job_id) == [("server", "basic", False)]


def read_until(terminal: int, text: bytes) -> bytes:
    """Read from a terminal until a text came."""
    came, deadline = b"", time.monotonic() + 30
    while text not in came:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, came
        came += os.read(terminal, 4096)
    return came


def test_b32_custom_headers(console: Console, root: Console) -> None:
    job_id = console.job()
    console("/getcustomheaders", "job")
    console("/setcustomheaders", "job", "accept-encoding:deflate/gzip")
    console("/getcustomheaders", "job")
    console("/setcustomheaders", "job", "X-One: 1", "X-Two: 2")
    console("/getcustomheaders", "job")
    console("/rawreturn", "/getcustomheaders", "job")
    console("/setcustomheaders", "job", "nonsense")
    assert console.run("/setcustomheaders", "job", "X-Bad: 1\r\nHost: elsewhere").returncode == 2
    console("/setcustomheaders", "job", "NULL")
    console("/getcustomheaders", "job")
    console("/setcustomheaders", "job", "X-Key: k")
    console("/makecustomheaderswriteonly", "job")
    console("/getcustomheaders", "job")
    console.check("customheaders")
    assert "X-Key" not in console.good("/info", "job", "/verbose")
    root("/getcustomheaders", "{" + job_id + "}")
    root.check("customheaders_of_others")


def test_b32_headers_and_b33_a_method_reach_the_server(console: Console, origin: Origin, alice: TestAccount) -> None:
    asked = []

    def answer(request: Request, connection: Connection) -> None:
        asked.append((request.method, request.headers.get("x-one"), request.headers.get("x-two")))
        connection.send_whole(200, b"made")

    origin.serve("/make", answer)
    job_id = console.job()
    console.good("/addfile", "job", origin.url("/make"), os.path.join(alice.home, "made"))
    console("/gethttpmethod", "job")
    console("/sethttpmethod", "job", "POST")
    console("/rawreturn", "/gethttpmethod", "job")
    console("/sethttpmethod", "job", "HEAD")
    console.good("/setcustomheaders", "job", "X-One: 1", "X-Two: 2")
    console("/setpriority", "job", "LOW")
    console.good("/resume", "job")
    console.daemon.wait_state(job_id, "TRANSFERRED")
    console("/sethttpmethod", "job", "PUT")
    console.check("httpmethod")
    assert asked[-1] == ("POST", "1", "2")


# --- certificates and flags (B34, B35) ------------------------------------------------------------


def test_b34_client_certificates(console: Console, root: Console) -> None:
    job_id = console.job()
    console("/getclientcertificate", "job")
    console("/setclientcertificatebyid", "job", "1", "MY", ANNA.sha1)
    console("/getclientcertificate", "job")
    assert console.daemon.show(job_id)["client_certificate"] is None, "for the owner alone"
    console("/removeclientcertificate", "job")
    console("/removeclientcertificate", "job")
    console("/setclientcertificatebyname", "job", "1", "MY", "Anna")
    console("/getclientcertificate", "job")
    console("/rawreturn", "/getclientcertificate", "job")
    console("/setclientcertificatebyname", "job", "CURRENT_USER", "MY", "Nobody")
    console("/setclientcertificatebyid", "job", "0", "MY", ANNA.sha1)
    console("/setclientcertificatebyid", "job", "9", "MY", ANNA.sha1)
    console("/setclientcertificatebyid", "job", "1", "MY", "abc")
    console("/setclientcertificatebyid", "job", "1", "OURS", ANNA.sha1)
    console.check("clientcertificate")
    done = root.run("/getclientcertificate", "{" + job_id + "}")
    assert (done.returncode != 0, "0x800706f7" in done.stdout) == (True, True)


def test_b34_locations_count_from_one() -> None:
    for number, location in enumerate(CertificateStoreLocation, 1):
        assert security._location(str(number)) is security._location(location.value) is location
    assert security._location("8").value == "local_machine_enterprise"


def test_b35_security_flags(console: Console) -> None:
    job_id = console.job()
    console("/getsecurityflags", "job")
    console("/setsecurityflags", "job", "0x091F")
    assert setting(console, job_id, "security_flags") == 0x091F
    console("/getsecurityflags", "job")
    console("/rawreturn", "/getsecurityflags", "job")
    console("/setsecurityflags", "job", "512")
    console("/getsecurityflags", "job")
    console("/setsecurityflags", "job", "0x8000")
    console("/setsecurityflags", "job", "all")
    console.check("securityflags")


# --- files, peers, replies (B36 to B38) -----------------------------------------------------------


def test_b36_files(console: Console, origin: Origin, alice: TestAccount) -> None:
    job_id = transferred(console, origin, alice)
    temporary = console.raw("/gettemporaryname", "job", "0")
    assert os.path.getsize(temporary) == SIZE
    assert os.path.dirname(temporary) == alice.home
    console("/getvalidationstate", "job", "0")
    console("/setvalidationstate", "job", "0", "true")
    console("/getvalidationstate", "job", "0")
    console("/rawreturn", "/getvalidationstate", "job", "0")
    console("/getpeerstats", "job", "0")
    console("/rawreturn", "/getpeerstats", "job", "0")
    console("/setvalidationstate", "job", "0", "perhaps")
    console("/getvalidationstate", "job", "1")
    console("/gettemporaryname", "job", "first")
    console("/setvalidationstate", "job", "0", "FALSE")
    assert console.daemon.show(job_id)["error"]["code"] == "BG_E_VALIDATION_FAILED"
    console("/getstate", "job")
    console.job("empty")
    console.good("/addfile", "empty", origin.url(FILE), os.path.join(alice.home, "later"))
    console("/setvalidationstate", "empty", "0", "TRUE")
    console.check("files")


def test_b37_peer_caching_flags(console: Console) -> None:
    console.job()
    console("/getpeercachingflags", "job")
    console("/setpeercachingflags", "job", "3")
    console("/getpeercachingflags", "job")
    console("/rawreturn", "/getpeercachingflags", "job")
    console("/setpeercachingflags", "job", "8")
    console.check("peercachingflags")


def test_b38_replies(console: Console, alice: TestAccount) -> None:
    with UploadServer() as server:
        server.reply_url = "BITS-Sessions\\Replies\\{1}\\response.bin"
        server.content["/in/BITS-Sessions/Replies/{1}/response.bin"] = b"received: \x00\xffwith many thanks"
        job_id = console.job("job", "/upload-reply")
        console("/getreplyfilename", "job")
        console("/getreplyprogress", "job")
        console("/getreplydata", "job")
        console("/setreplyfilename", "job", os.path.join(alice.home, "reply.bin"))
        console("/getreplyfilename", "job")
        console("/setreplyfilename", "job", "reply.bin")
        console.good("/addfile", "job", server.url("/in/x"), file_of(alice, b"order"))
        console.good("/resume", "job")
        console.daemon.wait_state(job_id, "TRANSFERRED")
        console("/getreplyprogress", "job")
        console("/rawreturn", "/getreplyprogress", "job")
        console("/getreplydata", "job")
        console("/rawreturn", "/getreplydata", "job")
        console("/setreplyfilename", "job", os.path.join(alice.home, "other.bin"))
        console.good("/complete", "job")
    console.job("download")
    for name in ("/getreplyfilename", "/getreplyprogress", "/getreplydata"):
        console(name, "download")
    console.check("replies")


def test_b38_a_dump_shows_offset_bytes_and_text() -> None:
    assert list(files.dumped(b"")) == []
    assert list(files.dumped(bytes(range(0x30, 0x42)))) == [
        "00000000: 30 31 32 33 34 35 36 37 38 39 3A 3B 3C 3D 3E 3F  0123456789:;<=>?",
        "00000010: 40 41                                            @A",
    ]


# --- helper tokens (B39) --------------------------------------------------------------------------


def test_b39_helper_tokens(console: Console, root: Console) -> None:
    job_id = console.job()
    console("/gethelpertokensid", "job")
    console("/gethelpertokenflags", "job")
    console("/sethelpertokenflags", "job", "2")
    console("/sethelpertoken", "job")
    console("/gethelpertokensid", "job")
    console("/rawreturn", "/gethelpertokensid", "job")
    console("/sethelpertokenflags", "job", "3")
    console("/gethelpertokenflags", "job")
    console("/rawreturn", "/gethelpertokenflags", "job")
    console("/sethelpertokenflags", "job", "4")
    console("/sethelpertoken", "job", "anna@example.org", PASSWORD)
    console("/sethelpertokenflags", "job", "0")
    assert PASSWORD not in "".join(line for line in console.session if not line.startswith("$"))
    console.check("helpertoken")
    done = root.run("/sethelpertoken", "{" + job_id + "}")
    assert (done.returncode, "0x80070005" in done.stdout) == (4, True), "access is checked as the owner (T1)"


# --- others' jobs (A1, A2) ------------------------------------------------------------------------


def test_a1_no_switch_reaches_anothers_job(console: Console, bob: TestAccount, origin: Origin) -> None:
    """Each switch of the table, with arguments that would do for one's own."""
    job_id = console.job()
    console.good("/addfile", "job", origin.url(FILE), "/tmp/never")
    other = Console(daemon=console.daemon, account=bob)
    before = {**console.daemon.show(job_id), "modification_time": None}
    for switch in PROPERTY_SWITCHES:
        arguments = ["{" + job_id + "}", *SUITABLE.get(switch.name, ["1"] * (switch.arguments[0] - 1))]
        done = other.run(switch.name, *arguments)
        assert (done.returncode, "0x80070005" in done.stdout) == (4, True), (switch.name, done)
    assert {**console.daemon.show(job_id), "modification_time": None} == before


SUITABLE = {
    "/setpriority": ["LOW"],
    "/setproxysettings": ["NO_PROXY"],
    "/setnotifycmdline": ["/usr/bin/true"],
    "/setcredentials": ["SERVER", "BASIC", "a", "b"],
    "/removecredentials": ["SERVER", "BASIC"],
    "/setcustomheaders": ["X: y"],
    "/setclientcertificatebyid": ["1", "MY", "0" * 40],
    "/setclientcertificatebyname": ["1", "MY", "x"],
    "/setvalidationstate": ["0", "TRUE"],
    "/getvalidationstate": ["0"],
    "/gettemporaryname": ["0"],
    "/getpeerstats": ["0"],
    "/setreplyfilename": ["/tmp/x"],
}


def test_every_switch_has_a_recorded_session() -> None:
    recorded = "\n".join(path.read_text(encoding="utf-8") for path in GOLDEN.iterdir()).lower()
    missing = [switch.name for switch in PROPERTY_SWITCHES if f"{switch.name} " not in recorded]
    assert missing == []


def test_the_banner_is_on_none_of_the_lines_of_a_value(console: Console) -> None:
    console.job()
    for switch in PROPERTY_SWITCHES:
        if switch.is_raw and switch.arguments == (1, 1):
            done = console.run("/rawreturn", switch.name, "job")
            assert BANNER[0] not in done.stdout, switch.name
            assert not done.stdout.endswith("\n"), switch.name
