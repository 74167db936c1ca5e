"""What an earlier version wrote down in clear is sealed at the first start, and nothing of it stays there (I14)."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import sqlite3
import time
from pathlib import Path

from openbits.service.runtime import FIRST_SEALED
from openbits.store.opening import APPLICATION_ID
from openbits.store.queries import load_migrations
from support.accounts import needs_root
from support.daemon import running_daemon
from support.vault import files_that_hold, running_vault

pytestmark = needs_root

SAMPLE = Path(__file__).parent / "store_samples" / "0003.sql"
TOKEN = f"token-{secrets.token_hex(12)}"
PASSWORD = f"pw-{secrets.token_hex(12)}"
DELETED = f"gone-{secrets.token_hex(12)}"
SHAPES = [text.encode() for text in (TOKEN, PASSWORD, DELETED)]


def older_store(path: str, url: str) -> str:
    """Make a store of the version before; return the id of a job of root's with secrets in it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        for script in load_migrations()[: FIRST_SEALED - 1]:
            connection.executescript(script)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FIRST_SEALED - 1}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(SAMPLE.read_text(encoding="utf-8"))
        connection.execute("DELETE FROM effects")
        (job, settings) = connection.execute("SELECT id, settings FROM jobs").fetchone()
        values = json.loads(settings) | {"custom_headers": f"X-Token: {TOKEN}\r\n"}
        connection.execute(
            "UPDATE jobs SET state = 3, settings = ?, owner_uid = 0, owner_gid = 0, owner_groups = '[0]',"
            " owner_name = CAST('root' AS BLOB), owner_kind = 'LOCAL_SYSTEM', error = NULL, retry_at = NULL,"
            " helper_flags = 0, reply = NULL, upload_memory = X'', cancel_until = NULL,"
            " created_at = ?, modified_at = ?",
            (json.dumps(values), time.time(), time.time()),
        )
        connection.execute("UPDATE files SET remote_name = CAST(? AS BLOB) WHERE idx = 0", (url,))
        # What a version that let it lie has deleted.
        for number in range(200):
            connection.execute(
                "INSERT INTO events VALUES (?, 1.0, 'changed', ?, CAST(? AS BLOB), 0)",
                (number + 100, job, DELETED * 99),
            )
        connection.execute("DELETE FROM events WHERE id >= 100")
        # The connection that closes last takes the log into the file.
    return str(job)


def test_nothing_in_clear_is_left_after_the_first_start() -> None:
    with running_vault() as vault, running_daemon() as daemon:
        assert daemon.stop() == 0
        path = os.path.join(daemon.state_dir, "bits.db")
        os.unlink(path)
        job = older_store(path, vault.url("/a", f"u:{PASSWORD}"))
        owner = pwd.getpwnam("openbits")
        os.chown(path, owner.pw_uid, owner.pw_gid)
        assert files_that_hold(daemon.state_dir, SHAPES) != []
        daemon.start()
        assert files_that_hold(daemon.state_dir, SHAPES) == []
        shown = daemon.show(job)
        assert shown["settings"]["custom_headers"] == f"X-Token: {TOKEN}\r\n"
        assert shown["files"][0]["remote_name"] == vault.url("/a")
        daemon.bits("set", job, "priority=low", check=True)
        assert daemon.stop() == 0
        assert files_that_hold(daemon.state_dir, SHAPES) == []
        daemon.start()
        assert daemon.show(job)["settings"]["custom_headers"] == f"X-Token: {TOKEN}\r\n"
