"""Every block of docs/networks.md, run as it stands there (issue 5, part 5).

The page's commands change /etc and use well-known names and ports.  So this file runs itself once more, in namespaces
of its own, where `support.company` makes the company that the page speaks of.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.accounts import TestAccount, needs_root
from support.company import PASSWORD, Company
from support.daemon import BIN, wait_until
from support.impersonating import as_service

pytestmark = needs_root

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCK = re.compile(
    r"^<!-- block: (?P<name>\S+) -->\n```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
BLOCKS = {found["name"]: found["text"] for found in BLOCK.finditer(TEXT)}
USED: set[str] = set()
INSIDE = "OPENBITS_TEST_COMPANY"
PROGRAMS = ("nginx", "squid", "unshare", "kinit", "update-ca-certificates", "systemd-creds", "openssl")

outside = pytest.mark.skipif(INSIDE in os.environ, reason="runs the others")
inside = pytest.mark.skipif(INSIDE not in os.environ, reason="runs in namespaces of its own")


def block(name: str) -> str:
    USED.add(name)
    return BLOCKS[name]


@outside
def test_the_page_in_a_company_of_its_own() -> None:
    missing = [program for program in PROGRAMS if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    result = subprocess.run(
        ["unshare", "--mount", "--net", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, INSIDE: "1", "PYTEST_ADDOPTS": "", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        cwd=PAGE.parents[1],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
    assert "passed" in result.stdout


@outside
def test_every_block_of_the_page_has_a_name() -> None:
    assert TEXT.count("\n```") == 2 * len(BLOCKS)


@outside
@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", TEXT))))
def test_links_lead_somewhere(target: str) -> None:
    assert (PAGE.parent / target).exists()


# --- inside --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def company() -> Iterator[Company]:
    with Company() as made:
        made.run(block("proxy-key"))
        made.start_squid(block("squid.conf"))
        made.run(block("machine-key"))
        made.daemon.config = block("bitsd.toml") + '[logon]\nprovider = "always"\n'
        made.daemon.start()
        made.run(block("proxy-list"))
        yield made


def state(company: Company, job: str, account: str) -> dict[str, str]:
    shown = json.loads(company.run(f"bits show {job} --json", account).stdout)
    return {"state": shown["state"], "way": shown.get("proxy_in_use") or "", **(shown["error"] or {})}


def content_of(company: Company, account: str, name: str) -> bytes:
    return (company.home(account) / name).read_bytes()


@inside
def test_the_inspection_authority(company: Company) -> None:
    """First it is unknown, then the system's trust store has it."""
    company.run("bits proxy set no_proxy")
    get = "bits get https://files.example.org/public/update -o /home/update-{}"
    refused = company.run(get.format("early"), check=False)
    assert refused.returncode == 1
    assert "ERROR_WINHTTP_SECURE_INVALID_CA" in refused.stderr
    company.run(block("inspection-ca"))
    wait_until(lambda: company.run(get.format("late"), check=False).returncode == 0, "the new authority to be believed")
    assert Path("/home/update-late").read_bytes() == company.content("public/update")


@inside
def test_a_person_behind_the_kerberos_proxy(company: Company) -> None:
    company.run(block("person"), "alice", text=f"{PASSWORD}\n")
    assert content_of(company, "alice", "report") == company.content("public/report")


@inside
def test_a_system_account_speaks_for_the_machine(company: Company) -> None:
    company.run(block("service"), "updater")
    assert content_of(company, "updater", "update") == company.content("public/update")


@inside
def test_a_service_that_borrows_a_persons_network(company: Company) -> None:
    """I18."""
    # An account that is nobody on the network: whoever comes to the proxy is not it.
    company.run("useradd --create-home --system printer")
    entry = pwd.getpwnam("printer")
    printer = TestAccount(name="printer", uid=entry.pw_uid, gid=entry.pw_gid, groups=(entry.pw_gid,), home=entry.pw_dir)
    path = f"{entry.pw_dir}/borrowed"
    url = "https://files.example.org/public/report"
    done = subprocess.run(
        [*as_service(printer), sys.executable, "-W", "error", "-c", block("through_proxy.py"), "alice", url, path],
        env={"PATH": f"{BIN}:/usr/bin:/bin", "BITS_SOCKET": company.daemon.socket, "HOME": entry.pw_dir},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(path).read_bytes() == company.content("public/report")
    assert os.stat(path).st_uid == entry.pw_uid


@inside
def test_a_password_for_the_proxy(company: Company) -> None:
    company.give("updater", "proxy-password", PASSWORD.encode())
    company.run(block("password"), "updater")
    assert content_of(company, "updater", "update-basic") == company.content("public/update")


@inside
def test_netrc(company: Company) -> None:
    company.run(block("netrc"), "alice")
    assert content_of(company, "alice", "report-netrc") == company.content("basic/report")
    assert any("/basic/report user=alice" in line for line in company.asked())


@inside
def test_a_client_certificate(company: Company) -> None:
    company.run(block("client-certificate"), "alice")
    assert content_of(company, "alice", "report-members") == company.content("members/report")
    assert any("/members/report user=- cert=SUCCESS" in line for line in company.asked())


@inside
def test_revocation_is_looked_up(company: Company) -> None:
    company.run(block("crl"), "updater")
    assert content_of(company, "updater", "update-careful") == company.content("public/update")


@inside
def test_custom_headers(company: Company) -> None:
    shown = company.run(block("headers"), "alice").stdout
    assert "HTTP/2 200" in shown
    assert "5ecret" not in shown
    assert any("department=sales authorization=Bearer 5ecret" in line for line in company.asked())


@inside
@pytest.mark.parametrize("name", ["proxy-script", "proxy-detect"])
def test_scripts(company: Company, name: str) -> None:
    for where in ("proxy.pac", "wpad.dat"):
        Path(company.base, "plain", where).write_text(block("proxy.pac"), encoding="ascii")
    company.run(block(name), "alice")
    try:
        job = f"by-{name}"
        company.run(
            f"bits create {job}; bits add {job} https://files.example.org/public/report ~/{job}\n"
            f"bits set-credentials {job} --target proxy --scheme negotiate --implicit\n"
            f"bits resume {job}; bits wait {job} --timeout 60",
            "alice",
        )
        assert "proxy.example.org:3128" in state(company, job, "alice")["way"]
        company.run(f"bits complete {job}", "alice")
    finally:
        company.run("bits proxy set manual_proxy", "alice")


@inside
def test_what_is_said_of_trouble(company: Company) -> None:
    """The table at the end of the page: the first rows."""
    company.run(
        "bits create stuck; bits add stuck https://files.example.org/public/report ~/stuck; bits resume stuck", "alice"
    )
    company.run("bits wait stuck --timeout 60", "alice", check=False)
    said = company.run(block("trouble"), "alice", check=False).stdout
    assert "BG_E_HTTP_ERROR_407" in said
    assert "does not allow the credentials" in said
    assert "proxy.example.org:3128" in said
    company.run("bits cancel stuck", "alice")
    said = company.run(block("doctor"), check=False).stdout
    for words in ("stored credentials", "computer's credentials", "proxy scripts"):
        assert words in said


@inside
def test_another_account_of_the_system_is_nobody(company: Company) -> None:
    company.run("useradd --create-home --system other")
    company.run("bits proxy set --account LOCALSERVICE manual_proxy proxy.example.org:3128")
    company.run(
        "bits create nobody; bits add nobody https://files.example.org/public/report ~/x\n"
        "bits set-credentials nobody --target proxy --scheme negotiate --implicit; bits resume nobody",
        "other",
    )
    company.run("bits wait nobody --timeout 60", "other", check=False)
    seen = state(company, "nobody", "other")
    assert seen["code"] == "BG_E_HTTP_ERROR_407"
    assert "accounts.network_service" in seen["message"]


@inside
def test_the_key_as_a_systemd_credential(company: Company) -> None:
    """What systemd does with the unit's line: it opens the credential into a directory of the service."""
    shutil.copy2(f"{company.daemon.state_dir}.key", "/var/lib/openbits.key")
    company.run(block("key"))
    line = re.search(r"^LoadCredentialEncrypted=(\S+?):(\S+)$", block("key.conf"), re.MULTILINE)
    assert line is not None
    directory = Path(company.base, "credentials")
    directory.mkdir(mode=0o700)
    company.run(f"systemd-creds decrypt --name={line[1]} {line[2]} {directory}/{line[1]} && chmod 400 {directory}/*")
    assert (directory / line[1]).read_bytes() == Path("/var/lib/openbits.key").read_bytes()
    company.run(
        "bits create sealed; bits add sealed https://files.example.org/public/report ~/sealed\n"
        "bits set-credentials sealed --target proxy --scheme basic --user updater --password-stdin",
        "alice",
        text=PASSWORD,
    )
    company.daemon.stop()
    os.unlink(f"{company.daemon.state_dir}.key")
    company.daemon.environment = {"CREDENTIALS_DIRECTORY": str(directory)}
    company.daemon.start()
    assert "systemd credential" in company.run("bits doctor", check=False).stdout
    company.run("bits resume sealed; bits wait sealed --timeout 60; bits complete sealed", "alice")
    assert content_of(company, "alice", "sealed") == company.content("public/report")


@inside
def test_who_came_to_the_proxy(company: Company) -> None:
    """It writes down a tunnel when that ends: at the latest with the workers."""
    company.daemon.stop()
    expected = {
        f"200 {who} CONNECT files.example.org:443"
        for who in ("alice@EXAMPLE.ORG", "host/client.example.org@EXAMPLE.ORG", "updater")
    }
    wait_until(lambda: expected <= set(company.passed()), "the proxy's lines")
    assert not any(" other@" in line or " printer" in line for line in company.passed())


@inside
def test_every_block_was_run() -> None:
    assert set(BLOCKS) == USED
