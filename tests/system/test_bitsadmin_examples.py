"""The examples of the Windows tool's public manual, typed in again: a real service, real accounts and real servers.

The command lines are the manual's, but for what a path or a program of Windows or the manual's server stands for; each
session is written down. Where the manual shows what the tool prints, ours prints lines of that form, in that order.
"""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.bitsadmin import SCRIPT, Console, fresh
from support.ca import CLIENT, Authority
from support.daemon import Daemon, running_daemon, wait_until
from support.origin import Origin, generate
from support.upload_server import UploadServer

pytestmark = needs_root

SIZE = 10_000_000
ZIP = f"/gen/{SIZE}/10"
MINE = Authority("clients").issue("myCertificate", subject=("myCertificate",), usages=(CLIENT,))
DIGEST = "A106B52356D3FBCD1853A41B619358BD"
GUID = r"\{[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}\}"
TIME = r"\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d\d:\d\d [AP]M"
SAMPLE_OF_INFO = (
    rf"GUID: {GUID} DISPLAY: '?myDownloadJob'?",
    r"TYPE: DOWNLOAD STATE: TRANSIENT_ERROR OWNER: \S+\\\S+",
    r"PRIORITY: NORMAL FILES: 0 / 1 BYTES: 0 / UNKNOWN",
    rf"CREATION TIME: {TIME} MODIFICATION TIME: {TIME}",
    r"COMPLETION TIME: UNKNOWN( ACL FLAGS:)?",
    r"NOTIFY INTERFACE: UNREGISTERED NOTIFICATION FLAGS: 3",
    r"RETRY DELAY: 600 NO PROGRESS TIMEOUT: 1209600 ERROR COUNT: [01]",
    r"PROXY USAGE: PRECONFIG PROXY LIST: NULL PROXY BYPASS LIST: NULL",
    r"ERROR FILE:    http://downloadsrv\.invalid/10mb\.zip -> \S+/10mb\.zip",
    r"ERROR CODE:    0x80072ee7 - .+",
    r"ERROR CONTEXT: 0x0000000[56] - .+",
    r"DESCRIPTION:",
    r"JOB FILES:",
    r"\s*0 / UNKNOWN WORKING http://downloadsrv\.invalid/10mb\.zip -> \S+/10mb\.zip",
    r"NOTIFICATION COMMAND LINE: none",
)
"""The manual's picture of a job in TRANSIENT_ERROR, line by line."""


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        store = pathlib.Path(account.home, ".config/openbits/certificates/MY")
        store.mkdir(parents=True)
        for path in (*MINE.write(store, "mine"), store, *list(store.parents)[:3]):
            os.chown(path, account.uid, account.gid)
        yield account


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("system") as running:
        yield running


@pytest.fixture(scope="module")
def places(daemon: Daemon, origin: Origin, alice: TestAccount) -> dict[str, str]:
    host = socket.gethostname().partition(".")[0]
    return {
        origin.url(ZIP): "http://downloadsrv/10mb.zip",
        origin.url(""): "http://downloadsrv",
        alice.home: "/home/user",
        f"{host}\\{alice.name}": "domain\\user",
        f"uid:{alice.uid}": "uid:1000",
        f"({alice.name})": "(user)",
        daemon.base: "/base",
        MINE.sha1.lower(): "SHA1",
        MINE.sha1.upper(): "SHA1",
    }


@pytest.fixture
def console(daemon: Daemon, alice: TestAccount, places: dict[str, str]) -> Iterator[Console]:
    yield from fresh(Console(daemon=daemon, account=alice, places=places))


@pytest.fixture
def root(daemon: Daemon, places: dict[str, str], console: Console) -> Console:
    del console
    return Console(daemon=daemon, places=places)


def typed(console: Console, line: str, origin: Origin) -> str:
    """Type a line of the manual, with what it names on Windows replaced by what there is here."""
    home = console.account.home if console.account else console.daemon.base
    words = shlex.split(line.replace("\\", "/"))
    assert words.pop(0).lower() == "bitsadmin"
    replaced = {
        "http://downloadsrv/10mb.zip": origin.url(ZIP),
        "http://prodserver/audio.wma": origin.url("/gen/70000/3"),
        "http://stageserver": origin.url(""),
        "http://prodserver": origin.url("/mirror"),
        "c:/10mb.zip": f"{home}/10mb.zip",
        "c:/downloads/audio.wma": f"{home}/audio.wma",
        "c:/reply": f"{home}/reply",
        "files.txt": f"{home}/files.txt",
        "c:/winnt/system32/notepad.exe": "/usr/bin/touch",
        "notepad": "touch",
        "c:/eula.txt": f"{home}/eula.txt",
        DIGEST: MINE.sha1,
    }
    return console(*(replaced.get(word, word) for word in words))


# --- the page of examples ---------------------------------------------------------------------------


def test_transfer_a_file(console: Console, origin: Origin, alice: TestAccount) -> None:
    shown = typed(
        console,
        r"bitsadmin /transfer myDownloadJob /download /priority normal http://downloadsrv/10mb.zip c:\10mb.zip",
        origin,
    )
    assert "Transfer complete." in shown
    path = pathlib.Path(alice.home, "10mb.zip")
    assert path.read_bytes() == generate(SIZE, 10)
    assert path.stat().st_uid == alice.uid
    assert "Listed 0 job(s)." in console.good("/list")
    path.unlink()


def test_create_add_resume_look_complete(console: Console, origin: Origin, alice: TestAccount) -> None:
    created = typed(console, "bitsadmin /create myDownloadJob", origin)
    assert re.fullmatch(rf"Created job {GUID}\.\n", created, re.IGNORECASE)
    job_id = created.split("{")[1].split("}")[0].lower()
    typed(console, r"bitsadmin /addfile myDownloadJob http://downloadsrv/10mb.zip c:\10mb.zip", origin)
    typed(console, "bitsadmin /resume myDownloadJob", origin)
    console.daemon.wait_state(job_id, "TRANSFERRED")
    assert "STATE: TRANSFERRED" in typed(console, "bitsadmin /info myDownloadJob /verbose", origin)
    assert not os.path.exists(os.path.join(alice.home, "10mb.zip")), "not before /complete"
    typed(console, "bitsadmin /complete myDownloadJob", origin)
    assert pathlib.Path(alice.home, "10mb.zip").read_bytes() == generate(SIZE, 10)
    os.unlink(os.path.join(alice.home, "10mb.zip"))
    console.check("example_download_job")


def test_a_job_whose_server_has_no_address_looks_as_in_the_manual(console: Console, alice: TestAccount) -> None:
    job_id = console.job("myDownloadJob")
    console.good("/addfile", "myDownloadJob", "http://downloadsrv.invalid/10mb.zip", f"{alice.home}/10mb.zip")
    console.good("/resume", "myDownloadJob")
    console.daemon.wait_state(job_id, "TRANSIENT_ERROR")
    lines = console.good("/info", "myDownloadJob", "/verbose").splitlines()
    for line, sample in zip(lines, SAMPLE_OF_INFO, strict=False):
        assert re.fullmatch(sample, line), (line, sample)
    assert len(lines) >= len(SAMPLE_OF_INFO)


def test_list_monitor_and_reset(console: Console, origin: Origin, alice: TestAccount) -> None:
    console.job("job1")
    job2 = console.job("job2")
    console.good("/addfile", "job2", "http://downloadsrv.invalid/10mb.zip", f"{alice.home}/10mb.zip")
    console.good("/resume", "job2")
    console.daemon.wait_state(job2, "TRANSIENT_ERROR")
    listed = typed(console, "bitsadmin /list", origin).splitlines()
    samples = (
        rf"{GUID} '?job1'? SUSPENDED 0 / 0 0 / 0",
        rf"{GUID} '?job2'? TRANSIENT_ERROR 0 / 1 0 / UNKNOWN",
        "",
        r"Listed 2 job\(s\)\.",
    )
    assert len(listed) == len(samples)
    assert all(re.fullmatch(sample, line) for sample, line in zip(samples, listed, strict=True)), listed
    job3 = console.job("job3")
    console.good("/addfile", "job3", origin.url(ZIP), f"{alice.home}/job3.zip")
    console.good("/resume", "job3")
    console.daemon.wait_state(job3, "TRANSFERRED")
    watched = typed(console, "bitsadmin /monitor", origin).splitlines()
    assert watched[0] == "MONITORING BACKGROUND COPY MANAGER(5 second refresh)"
    assert watched[1:3] == listed[:2]
    assert re.fullmatch(rf"{GUID} '?job3'? TRANSFERRED 1 / 1 {SIZE} / {SIZE}", watched[3])
    canceled = typed(console, "bitsadmin /reset", origin).splitlines()
    assert [bool(re.fullmatch(rf"{GUID} canceled\.", line)) for line in canceled] == [True, True, True, False]
    assert canceled[-1] == "3 out of 3 jobs canceled."


# --- the pages of the single switches: one job, one session each -----------------------------------------

GETTERS = (
    "bitsadmin /getaclflags myDownloadJob",
    "bitsadmin /getbytestotal myDownloadJob",
    "bitsadmin /getbytestransferred myDownloadJob",
    "bitsadmin /getcompletiontime myDownloadJob",
    "bitsadmin /getcreationtime myDownloadJob",
    "bitsadmin /getcustomheaders myDownloadJob",
    "bitsadmin /getdescription myDownloadJob",
    "bitsadmin /getdisplayname myDownloadJob",
    "bitsadmin /geterrorcount myDownloadJob",
    "bitsadmin /getfilestotal myDownloadJob",
    "bitsadmin /getfilestransferred myDownloadJob",
    "bitsadmin /getmaxdownloadtime myDownloadJob",
    "bitsadmin /getminretrydelay myDownloadJob",
    "bitsadmin /getmodificationtime myDownloadJob",
    "bitsadmin /getnoprogresstimeout myDownloadJob",
    "bitsadmin /getnotifycmdline myDownloadJob",
    "bitsadmin /getnotifyflags myDownloadJob",
    "bitsadmin /getnotifyinterface myDownloadJob",
    "bitsadmin /getowner myDownloadJob",
    "bitsadmin /getpeercachingflags myDownloadJob",
    "bitsadmin /getpriority myDownloadJob",
    "bitsadmin /getproxybypasslist myDownloadJob",
    "bitsadmin /getproxylist myDownloadJob",
    "bitsadmin /getproxyusage myDownloadJob",
    "bitsadmin /getsecurityflags myDownloadJob",
    "bitsadmin /getstate myDownloadJob",
    "bitsadmin /gettype myDownloadJob",
    "bitsadmin /info myDownloadJob",
    "bitsadmin /listfiles myDownloadJob",
    "bitsadmin /nowrap /getstate myDownloadJob",
    "bitsadmin /wrap /getstate myDownloadJob",
    "bitsadmin /rawreturn /getstate myDownloadJob",
)


def test_what_is_asked_of_a_job(console: Console, origin: Origin) -> None:
    console.job("myDownloadJob")
    for line in GETTERS:
        typed(console, line, origin)
    assert "exit status" not in console.text
    console.check("example_getters")


def test_files_by_set_and_by_ranges(console: Console, origin: Origin, alice: TestAccount) -> None:
    typed(console, "bitsadmin /create myDownloadJob", origin)
    path = os.path.join(alice.home, "files.txt")
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            f"# files to fetch\n{origin.url(ZIP)} {alice.home}/one.zip\n{origin.url(ZIP)} {alice.home}/two.zip\n"
        )
    os.chmod(path, 0o644)
    typed(console, "bitsadmin /addfileset myDownloadJob files.txt", origin)
    typed(
        console,
        r'bitsadmin /addfilewithranges myDownloadJob http://downloadsrv/10mb.zip c:\10mb.zip "0:100,2000:100,5000:eof"',
        origin,
    )
    typed(console, "bitsadmin /replaceremoteprefix myDownloadJob http://stageserver http://prodserver", origin)
    typed(console, "bitsadmin /listfiles myDownloadJob", origin)
    typed(console, "bitsadmin /cancel myDownloadJob", origin)
    console.check("example_files")


def test_what_a_job_is_told(console: Console, origin: Origin) -> None:
    console.job("myDownloadJob")
    for line in (
        'bitsadmin /setdescription myDownloadJob "music downloads"',
        "bitsadmin /setminretrydelay myDownloadJob 35",
        "bitsadmin /setnoprogresstimeout myDownloadJob 20",
        "bitsadmin /SetMaxDownloadTime myDownloadJob 10",
        "bitsadmin /setnotifyflags myDownloadJob 1",
        "bitsadmin /setpriority myDownloadJob NORMAL",
        "bitsadmin /setsecurityflags myDownloadJob 0x0001",
        "bitsadmin /setpeercachingflags myDownloadJob 1",
        "bitsadmin /setaclflags myDownloadJob OGDS",
        "bitsadmin /setcustomheaders myDownloadJob accept-encoding:deflate/gzip",
        "bitsadmin /makecustomheaderswriteonly myDownloadJob",
        "bitsadmin /suspend myDownloadJob",
        'bitsadmin /setdisplayname myDownloadJob "Download Music Job"',
        'bitsadmin /info "Download Music Job" /verbose',
    ):
        typed(console, line, origin)
    # Of all these one is refused: what files are resumed by is the service's own to ask for.
    assert console.text.count("Unable to") == console.text.count("E_INVALIDARG: the header accept-encoding") == 1
    console.check("example_setters")


def test_a_command_line_that_runs_when_the_job_is_done(console: Console, origin: Origin, alice: TestAccount) -> None:
    made = pathlib.Path(alice.home, "eula.txt")
    typed(console, "bitsadmin /create myDownloadJob", origin)
    typed(console, r"bitsadmin /addfile myDownloadJob http://downloadsrv/10mb.zip c:\10mb.zip", origin)
    typed(console, r"bitsadmin /setnotifycmdline myDownloadJob c:\winnt\system32\notepad.exe NULL", origin)
    typed(console, r"bitsadmin /SetNotifyCmdLine myDownloadJob NULL NULL", origin)
    typed(
        console,
        r"bitsadmin /setnotifycmdline myDownloadJob c:\winnt\system32\notepad.exe notepad c:\eula.txt",
        origin,
    )
    typed(console, "bitsadmin /getnotifycmdline myDownloadJob", origin)
    typed(console, "bitsadmin /resume myDownloadJob", origin)
    wait_until(made.exists, "the command line to run")
    assert made.stat().st_uid == alice.uid
    typed(console, "bitsadmin /complete myDownloadJob", origin)
    console.check("example_notifycmdline")
    made.unlink()
    os.unlink(os.path.join(alice.home, "10mb.zip"))


def test_proxies_of_a_job(console: Console, origin: Origin) -> None:
    console.job("myDownloadJob")
    for line in (
        "bitsadmin /SetProxySettings myDownloadJob PRECONFIG",
        "bitsadmin /setproxysettings myDownloadJob AUTODETECT",
        "bitsadmin /setproxysettings myDownloadJob NO_PROXY",
        'bitsadmin /setproxysettings myDownloadJob OVERRIDE proxy1:80 ""',
        'bitsadmin /setproxysettings myDownloadJob OVERRIDE proxy1:80 "<local>"',
        "bitsadmin /setproxysettings myDownloadJob OVERRIDE proxy1,proxy2,proxy3 NULL",
        "bitsadmin /getproxyusage myDownloadJob",
        "bitsadmin /getproxylist myDownloadJob",
        "bitsadmin /getproxybypasslist myDownloadJob",
    ):
        typed(console, line, origin)
    assert "exit status" not in console.text
    console.check("example_proxies")


def test_credentials_and_certificates(console: Console, origin: Origin) -> None:
    console.job("myDownloadJob")
    for line in (
        "bitsadmin /setcredentials myDownloadJob SERVER BASIC Edward password20",
        "bitsadmin /removecredentials myDownloadJob SERVER BASIC",
        f"bitsadmin /SetClientCertificateByID myDownloadJob BG_CERT_STORE_LOCATION_CURRENT_USER MY {DIGEST}",
        "bitsadmin /getclientcertificate myDownloadJob",
        "bitsadmin /setclientcertificatebyname myDownloadJob 1 MY myCertificate",
        "bitsadmin /getclientcertificate myDownloadJob",
        "bitsadmin /removeclientcertificate myDownloadJob",
        "bitsadmin /sethelpertoken myDownloadJob",
        "bitsadmin /sethelpertokenflags myDownloadJob 3",
        "bitsadmin /gethelpertokensid myDownloadJob",
        "bitsadmin /gethelpertokenflags myDownloadJob",
        "bitsadmin /sethttpmethod myDownloadJob GET",
        "bitsadmin /gethttpmethod myDownloadJob",
    ):
        typed(console, line, origin)
    assert "exit status" not in console.text
    console.check("example_credentials")


def test_validation_of_the_third_file(console: Console, origin: Origin, alice: TestAccount) -> None:
    job_id = console.job("myDownloadJob")
    for number in range(3):
        console.good("/addfile", "myDownloadJob", origin.url(f"/gen/{1000 + number}/1"), f"{alice.home}/{number}")
    console.good("/resume", "myDownloadJob")
    console.daemon.wait_state(job_id, "TRANSFERRED")
    typed(console, "bitsadmin /setvalidationstate myDownloadJob 2 TRUE", origin)
    typed(console, "bitsadmin /getvalidationstate myDownloadJob 1", origin)
    typed(console, "bitsadmin /getvalidationstate myDownloadJob 2", origin)
    assert os.path.getsize(console.raw("/gettemporaryname", "myDownloadJob", "1")) == 1001
    console.check("example_validation")


def test_a_reply(console: Console, origin: Origin, alice: TestAccount) -> None:
    with UploadServer() as server:
        server.reply_url = "BITS-Sessions\\Replies\\{1}\\response.bin"
        server.content["/in/BITS-Sessions/Replies/{1}/response.bin"] = b"thank you"
        source = pathlib.Path(alice.home, "order")
        source.write_bytes(b"order")
        os.chown(source, alice.uid, alice.gid)
        job_id = console.job("myDownloadJob", "/upload-reply")
        typed(console, r"bitsadmin /SetReplyFileName myDownloadJob c:\reply", origin)
        typed(console, "bitsadmin /getreplyfilename myDownloadJob", origin)
        console.good("/addfile", "myDownloadJob", server.url("/in/x"), str(source))
        console.good("/resume", "myDownloadJob")
        console.daemon.wait_state(job_id, "TRANSFERRED")
        typed(console, "bitsadmin /getreplyprogress myDownloadJob", origin)
        typed(console, "bitsadmin /getreplydata myDownloadJob", origin)
        typed(console, "bitsadmin /complete myDownloadJob", origin)
    console.check("example_reply")
    assert pathlib.Path(alice.home, "reply").read_bytes() == b"thank you"


def test_peer_caching_and_the_cache(root: Console, origin: Origin) -> None:
    for line in (
        "bitsadmin /peercaching /getconfigurationflags myDownloadJob",
        "bitsadmin /peercaching /setconfigurationflags myDownloadJob 1",
        "bitsadmin /peers /list",
        "bitsadmin /peers /discover",
        "bitsadmin /peers /clear",
        "bitsadmin /cache /list",
        "bitsadmin /cache /getlimit",
        "bitsadmin /cache /setlimit 50",
        "bitsadmin /cache /getexpirationtime",
        "bitsadmin /cache /setexpirationtime 60",
        "bitsadmin /cache /info {6511FB02-E195-40A2-B595-E8E2F8F47702}",
        "bitsadmin /cache /delete {6511FB02-E195-40A2-B595-E8E2F8F47702}",
        "bitsadmin /cache /deleteurl https://www.contoso.com/en/us/default.aspx",
        "bitsadmin /cache /clear",
        "bitsadmin /peercaching /setconfigurationflags 0",
    ):
        typed(root, line, origin)
    # A cache that forgets after a minute is below what the interface allows, and there is no such record.
    failures = re.findall(r"Unable to .* - (0x[0-9a-f]{8})", root.text)
    assert failures == ["0x80070057", "0x80200042", "0x80200042"]
    root.check("example_peercaching")
    root.good("/cache", "/setlimit", "1")


def test_utilities(root: Console, origin: Origin) -> None:
    for line in (
        "bitsadmin /util /version",
        "bitsadmin /util /setieproxy localsystem AUTODETECT",
        "bitsadmin /util /setieproxy localsystem MANUAL_PROXY proxy1,proxy2,proxy3 NULL",
        "bitsadmin /util /setieproxy localsystem MANUAL_PROXY proxy1:80",
        "bitsadmin /util /SetIEProxy NetworkService NO_PROXY",
        "bitsadmin /util /getieproxy NETWORKSERVICE",
        "bitsadmin /util /setieproxy localsystem RESET",
        "bitsadmin /util /setieproxy networkservice RESET",
        "bitsadmin /util /enableanalyticchannel TRUE",
        "bitsadmin /util /enableanalyticchannel FALSE",
    ):
        typed(root, line, origin)
    assert "exit status" not in root.text
    root.check("example_util")


def test_take_ownership(console: Console, root: Console, origin: Origin) -> None:
    job_id = console.job("myDownloadJob")
    done = root.run("/takeownership", "myDownloadJob")
    assert done.returncode == 3, "a name is one of one's own jobs"
    assert "Ownership" in root.good("/takeownership", "{" + job_id.upper() + "}")
    typed(root, "bitsadmin /getowner myDownloadJob", origin)
    assert "\\root\n" in root.session[-1]


# --- as people write it into scripts ---------------------------------------------------------------------


def test_the_session_as_a_shell_script(console: Console, origin: Origin, alice: TestAccount) -> None:
    """Create, add, resume, poll the state, complete: with /rawreturn and exit statuses, and nothing else."""
    script = """
        set -eu
        job=$(bitsadmin /rawreturn /create myDownloadJob)
        bitsadmin /addfile "$job" "$1" "$2" > /dev/null
        bitsadmin /setpriority "$job" FOREGROUND > /dev/null
        bitsadmin /resume "$job" > /dev/null
        while :; do
            case $(bitsadmin /rawreturn /getstate "$job") in
                TRANSFERRED) break ;;
                ERROR) bitsadmin /geterror "$job" >&2; bitsadmin /cancel "$job" > /dev/null; exit 1 ;;
            esac
        done
        bitsadmin /complete "$job" > /dev/null
        bitsadmin /list | tail -n 1
    """
    target = os.path.join(alice.home, "by-script.zip")

    def run(url: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", script, "sh", url, target],
            env=console.environment,
            user=alice.uid,
            group=alice.gid,
            extra_groups=list(alice.groups),
            cwd="/",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    done = run(origin.url(ZIP))
    assert (done.returncode, done.stdout) == (0, "Listed 0 job(s).\n"), done
    failed = run(origin.url("/status/404"))
    assert (failed.returncode, failed.stdout) == (1, ""), failed
    assert "0x80190194" in failed.stderr
    assert pathlib.Path(target).read_bytes() == generate(SIZE, 10)
    assert os.path.basename(SCRIPT) == "bitsadmin"
