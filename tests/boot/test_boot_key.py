"""The key for stored credentials under systemd: root's file, or a credential that is sealed to the machine (I14)."""

from __future__ import annotations

import json
import re

from support.nspawn import Machine
from support.nspawn_jobs import Jobs

SECRET = "Tr0ub4dor-boot"
KEY = "/var/lib/openbits.key"
SEALED = "/etc/openbits/openbits.key.cred"


def stored_credentials(jobs: Jobs) -> tuple[bool, str]:
    """What `bits doctor` says of them to root."""
    checks = json.loads(jobs.try_bits("doctor", "--json").stdout)["checks"]
    [check] = [check for check in checks if check["name"] == "stored credentials"]
    return check["ok"], check["message"]


def test_the_key_is_roots_alone_and_the_service_cannot_read_it(machine: Machine, jobs: Jobs) -> None:
    """The unit's root has no power over other accounts' directories, and still finds a place for it."""
    jobs.bits("version")
    assert machine.run("stat", "-c", "%a %U", KEY).strip() == "600 root"
    assert re.fullmatch(r"[0-9a-f]{64}\n", machine.path(KEY).read_text(encoding="ascii"))
    become = ("setpriv", "--reuid=openbits", "--regid=openbits", "--clear-groups", "--", "cat", KEY)
    assert machine.try_run(*become).returncode != 0
    is_well, text = stored_credentials(jobs)
    assert is_well
    assert text == f"sealed by AES-256-GCM with the key in {KEY}, which only root can read"


def test_a_restart_opens_what_was_sealed_before(machine: Machine, jobs: Jobs) -> None:
    job = jobs.bits("create", "sealed", account="alice").strip()
    machine.path("/home/alice/password").write_text(SECRET, encoding="ascii")
    machine.run("chown", "alice:", "/home/alice/password")
    machine.run("chmod", "600", "/home/alice/password")
    arguments = ("--scheme", "basic", "--user", "alice", "--password-file", "/home/alice/password")
    jobs.bits("set-credentials", job, *arguments, account="alice")
    machine.run("systemctl", "restart", "openbits.service")
    assert stored_credentials(jobs)[0]
    assert SECRET not in machine.journal()


def test_a_credential_of_systemd_takes_the_keys_place(machine: Machine, jobs: Jobs) -> None:
    """As the comment in the unit says; the key that jobs were sealed by is taken along."""
    machine.run("sh", "-c", f"systemd-creds encrypt --name=openbits.key - {SEALED} <{KEY}")
    drop_in = machine.path("/etc/systemd/system/openbits.service.d/key.conf")
    drop_in.parent.mkdir(exist_ok=True)
    line = f"LoadCredentialEncrypted=openbits.key:{SEALED}"
    assert f"#{line}\n" in machine.path("/etc/systemd/system/openbits.service").read_text(encoding="utf-8")
    drop_in.write_text(f"[Service]\n{line}\n", encoding="ascii")
    machine.path(KEY).unlink()
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "openbits.service")
    assert stored_credentials(jobs) == (True, "sealed by AES-256-GCM with the systemd credential openbits.key")
    assert not machine.path(KEY).exists()
    for name, account in (("bitsd-service", "openbits"), ("bitsd-zygote", "root")):
        [pid] = jobs.pids(name, account)
        assert "CREDENTIALS_DIRECTORY" not in machine.run("cat", f"/proc/{pid}/environ"), name


def test_without_its_key_the_jobs_say_so_and_the_service_runs(machine: Machine, jobs: Jobs) -> None:
    drop_in = machine.path("/etc/systemd/system/openbits.service.d/key.conf")
    drop_in.unlink()
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "openbits.service")
    is_well, text = stored_credentials(jobs)
    assert not is_well
    assert "one job has credentials that it does not open" in text
