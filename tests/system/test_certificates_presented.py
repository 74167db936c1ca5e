"""H1-H4, H7, H10 with everything real: command line, daemon, accounts, nginx that wants to know its clients."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import openbits
from openbits import BitsError, CertificateStoreLocation
from support.accounts import TestAccount, needs_root, temporary_account
from support.ca import CLIENT, Authority, Certified, bundle
from support.daemon import Daemon, running_daemon
from support.https_nginx import HttpsNginx, running_https_nginx

pytestmark = needs_root

CONTENT = b"for those who are known " * 1000
ROOT, CLIENTS = Authority("root"), Authority("clients")
SERVER = ROOT.issue()
ANNA = CLIENTS.issue("anna", subject=("Staff", "Anna"), usages=(CLIENT,))
STRANGER = Authority("stranger").issue("eve", subject=("Eve",), usages=(CLIENT,))


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        put(account, ANNA, "anna")
        put(account, STRANGER, "eve")
        yield account


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        trusted = bundle(Path(directory) / "ca.pem", ROOT)
        os.chmod(trusted, 0o644)
        mount = f'mount --bind {trusted} /etc/ssl/certs/ca-certificates.crt && exec "$@"'
        with running_daemon("system", prefix=("unshare", "--mount", "sh", "-c", mount, "sh")) as running:
            yield running


@pytest.fixture(scope="module")
def server() -> Iterator[HttpsNginx]:
    with running_https_nginx(SERVER, clients_of=CLIENTS) as nginx:
        (nginx.root / "secret").write_bytes(CONTENT)
        yield nginx


def put(account: TestAccount, certified: Certified, name: str, store: str = "MY") -> Path:
    """Put a certificate and its key into a store of an account's."""
    directory = Path(account.home, ".config/openbits/certificates", store)
    directory.mkdir(parents=True, exist_ok=True)
    for path in (*certified.write(directory, name), *list(directory.parents)[:4]):
        if path.is_relative_to(account.home):
            os.chown(path, account.uid, account.gid)
    os.chown(directory, account.uid, account.gid)
    return directory


@pytest.fixture
def job(daemon: Daemon, alice: TestAccount, server: HttpsNginx) -> Iterator[str]:
    """A job of alice's with one file, which stands still."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        created = daemon.bits("create", "known", account=alice, check=True).stdout.strip()
        daemon.bits("add", created, server.url("secret"), f"{directory}/secret", account=alice, check=True)
        yield created
        daemon.bits("cancel", created)


def run(daemon: Daemon, alice: TestAccount, job: str) -> str:
    """Resume, wait, and return the state, or the error of the job."""
    daemon.bits("resume", job, account=alice, check=True)
    daemon.bits("wait", job, account=alice)
    shown = daemon.show(job)
    return str(shown["error"]["code"] if shown["error"] else shown["state"])


@pytest.mark.parametrize(
    "named",
    [
        ("--sha1", ANNA.sha1),
        ("--sha1", ":".join(ANNA.sha1[at : at + 2].upper() for at in range(0, 40, 2))),
        ("--subject", "anna"),
        ("--subject", "Anna", "--location", "current_user", "--store", "my"),
    ],
)
def test_h1_h2_a_server_that_wants_one_gets_it(
    daemon: Daemon, alice: TestAccount, server: HttpsNginx, job: str, named: tuple[str, ...]
) -> None:
    daemon.bits("set-client-certificate", job, *named, account=alice, check=True)
    assert run(daemon, alice, job) == "TRANSFERRED"
    daemon.bits("complete", job, account=alice, check=True)
    assert Path(daemon.show(job)["files"][0]["local_name"]).read_bytes() == CONTENT
    assert server.requests()[-1].split()[3] == "SUCCESS"


def test_h2_h3_none_and_one_that_is_not_trusted(daemon: Daemon, alice: TestAccount, job: str) -> None:
    daemon.bits("set-client-certificate", job, "--subject", "eve", account=alice, check=True)
    # nginx lets the handshake pass and answers 400: H2 has 403, which is IIS's word for the same.
    assert run(daemon, alice, job) in ("BG_E_HTTP_ERROR_400", "BG_E_HTTP_ERROR_403")
    assert daemon.bits("remove-client-certificate", job, account=alice, check=True).stderr == ""
    assert "S_FALSE" in daemon.bits("remove-client-certificate", job, account=alice, check=True).stderr
    assert run(daemon, alice, job) == "ERROR_WINHTTP_CLIENT_AUTH_CERT_NEEDED"
    # Set in ERROR, and resumed: that is how it is mended.
    daemon.bits("set-client-certificate", job, "--subject", "anna", account=alice, check=True)
    assert run(daemon, alice, job) == "TRANSFERRED"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--sha1", "00" * 20), "CRYPT_E_NOT_FOUND"),
        (("--subject", "nobody"), "CRYPT_E_NOT_FOUND"),
        (("--subject", "anna", "--store", "Missing"), "ERROR_FILE_NOT_FOUND"),
        (("--subject", "anna", "--store", "../MY"), "E_INVALIDARG"),
        (("--subject", "anna", "--store", "s" * 300), "BG_E_STRING_TOO_LONG"),
        (("--sha1", "00"), "RPC_X_BAD_STUB_DATA"),
    ],
)
def test_h1_what_is_not_there_is_refused_when_it_is_set(
    daemon: Daemon, alice: TestAccount, job: str, arguments: tuple[str, ...], error: str
) -> None:
    refused = daemon.bits("set-client-certificate", job, *arguments, account=alice)
    assert refused.returncode != 0
    assert refused.stderr.startswith(f"bits: {error} ")
    assert daemon.show(job)["state"] == "SUSPENDED"


def test_h1_only_the_owner_and_not_even_root(daemon: Daemon, alice: TestAccount, job: str) -> None:
    daemon.bits("set-client-certificate", job, "--sha1", ANNA.sha1, account=alice, check=True)
    for command in (("set-client-certificate", job, "--sha1", ANNA.sha1), ("remove-client-certificate", job)):
        refused = daemon.bits(*command)
        assert (refused.returncode, refused.stderr.split()[1]) == (4, "E_ACCESSDENIED")
    root_sees = openbits.Manager(daemon.socket).get_job(job)
    with pytest.raises(BitsError, match="RPC_X_BAD_STUB_DATA"):
        root_sees.get_client_certificate()
    assert daemon.show(job)["client_certificate"] is None
    shown = daemon.bits("show", job, account=alice, check=True).stdout
    assert f"sha1 {ANNA.sha1}, in the store MY of current_user" in shown
    as_json = json.loads(daemon.bits("show", job, "--json", account=alice, check=True).stdout)
    assert as_json["client_certificate"] == {
        "location": "current_user",
        "store": "MY",
        "sha1": ANNA.sha1,
        "subject": None,
    }


def test_h1_survives_a_kill_and_not_a_change_of_hands(daemon: Daemon, alice: TestAccount, job: str) -> None:
    with openbits.impersonate(alice.name):
        found = openbits.Manager(daemon.socket).get_job(job)
        openbits.set_proxy_blanket(found, openbits.Cloaking.STATIC)
    found.set_client_certificate_by_id(CertificateStoreLocation.CURRENT_USER, "MY", bytes.fromhex(ANNA.sha1))
    os.kill(daemon.process_named("bitsd-service").pid, signal.SIGKILL)
    daemon.wait_reachable()
    certificate = found.get_client_certificate()
    assert (certificate.sha1, certificate.store) == (bytes.fromhex(ANNA.sha1), "MY")
    daemon.bits("take-ownership", job, check=True)
    shown = daemon.show(job)
    assert (shown["owner"]["uid"], shown["client_certificate"]) == (0, None)


def test_h1_the_stores_of_the_machine_are_read_with_the_owners_rights(
    daemon: Daemon, alice: TestAccount, job: str
) -> None:
    directory = Path("/etc/openbits/certificates/ObtTest")
    directory.mkdir(parents=True)
    try:
        certificate, key = ANNA.write(directory, "machine")
        certificate.chmod(0o644)
        arguments = ("--location", "local_machine", "--store", "ObtTest", "--subject", "anna")
        refused = daemon.bits("set-client-certificate", job, *arguments, account=alice)
        assert refused.stderr.startswith("bits: ERROR_WINHTTP_CLIENT_CERT_NO_ACCESS_PRIVATE_KEY ")
        # Root's own job may.
        created = daemon.bits("create", "machine", check=True).stdout.strip()
        daemon.bits("set-client-certificate", created, *arguments, check=True)
        daemon.bits("cancel", created, check=True)
        assert key.exists()
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


def test_h7_h10_flags_and_method_by_name_and_number(daemon: Daemon, alice: TestAccount, job: str) -> None:
    words = "security_flags=ssl_enable_crl_check,ssl_ignore_unknown_ca,http_redirect_policy_allow_report"
    daemon.bits("set", job, words, account=alice, check=True)
    assert daemon.show(job)["settings"]["security_flags"] == 0x109
    daemon.bits("set", job, "security_flags=0x109", account=alice, check=True)
    shown = daemon.bits("show", job, account=alice, check=True).stdout
    assert "ssl_enable_crl_check,ssl_ignore_unknown_ca,http_redirect_policy_allow_report (0x0109)" in shown
    refused = daemon.bits("set", job, "security_flags=0x20", account=alice)
    assert refused.stderr.startswith("bits: E_NOTIMPL ")
    daemon.bits("set", job, "http_method=POST", account=alice, check=True)
    settings = daemon.show(job)["settings"]
    assert (settings["http_method"], settings["priority"]) == ("POST", "foreground")
    refused = daemon.bits("set", job, "priority=low", account=alice)
    assert refused.stderr.startswith("bits: BG_E_NOT_SUPPORTED_WITH_CUSTOM_HTTP_METHOD ")
    refused = daemon.bits("set", job, "use_stored_credentials=server", account=alice)
    assert refused.stderr.startswith("bits: BG_E_USE_STORED_CREDENTIALS_NOT_SUPPORTED ")
    daemon.bits("set", job, "use_stored_credentials=proxy", account=alice, check=True)
    # What is the owner's alone to allow, root cannot allow for him.
    assert daemon.bits("set", job, "use_stored_credentials=none").stderr.startswith("bits: E_ACCESSDENIED ")
