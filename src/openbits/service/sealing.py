"""What owners entrust to jobs, on its way into the store: sealed here, before anything else gets hold of it (I14).

The rule: user names and passwords leave a remote name before it becomes a part of a job; from then on nobody reads
them but the run that needs them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

from openbits.core.events import RenameRemote, SealOld
from openbits.core.http import is_same_origin
from openbits.core.model import CredentialSlot, File, Job
from openbits.core.names import split_userinfo
from openbits.service.secrets import PLAIN, Secrets, credential_place, headers_place, userinfo_place


def sealed_headers(secrets: Secrets, job_id: str, headers: str) -> str:
    """Seal checked header lines (H5); none stay none."""
    return secrets.seal(headers, headers_place(job_id)) if headers else ""


def sealed_credential(secrets: Secrets, job_id: str, slot: CredentialSlot, user_name: str, password: str) -> str:
    """Seal what SetCredentials was given (J35)."""
    return secrets.seal(json.dumps([user_name, password]), credential_place(job_id, slot.target, slot.scheme))


def opened_credential(secrets: Secrets, job_id: str, slot: CredentialSlot, sealed: str) -> tuple[str, str]:
    """The user name and the password behind a sealed text. Raises BG_E_INVALID_CREDENTIALS."""
    user_name, password = json.loads(secrets.open(sealed, credential_place(job_id, slot.target, slot.scheme)))
    return user_name, password


def sealed_files(secrets: Secrets, job_id: str, files: Sequence[File], *, first: int = 0) -> tuple[File, ...]:
    """Return checked files with nothing secret in their names; they become the job's, the first with index `first`."""
    return tuple(_sealed_file(secrets, job_id, index, file) for index, file in enumerate(files, first))


def _sealed_file(secrets: Secrets, job_id: str, index: int, file: File) -> File:
    remote_name, userinfo = split_userinfo(file.remote_name)
    if remote_name == file.remote_name:
        return file
    return replace(file, remote_name=remote_name, sealed_userinfo=_sealed_userinfo(secrets, job_id, index, userinfo))


def _sealed_userinfo(secrets: Secrets, job_id: str, index: int, userinfo: str) -> str:
    return secrets.seal(userinfo, userinfo_place(job_id, index)) if userinfo else ""


def renamed(secrets: Secrets, job: Job, names: Iterable[tuple[int, str]]) -> RenameRemote:
    """The new remote names of a job's files, by index, checked and as they were given (F4, J40).

    Names are read without user name and password: one that is written back as it was read keeps them, as long as it
    leads to the same server.  An empty user name (`http://@host/`) takes them away.
    """
    changed: list[tuple[int, str]] = []
    kept: list[tuple[int, str]] = []
    for index, name in names:
        bare, userinfo = split_userinfo(name)
        former = job.files[index]
        if userinfo:
            kept.append((index, _sealed_userinfo(secrets, job.id, index, userinfo)))
        elif bare == name and former.sealed_userinfo and is_same_origin(former.remote_name, bare):
            kept.append((index, former.sealed_userinfo))
        changed.append((index, bare))
    return RenameRemote(names=tuple(changed), userinfo=tuple(kept))


def seal_old(secrets: Secrets, job: Job) -> SealOld | None:
    """What is still to be sealed of what an earlier version of the program has written down, if there is anything."""
    headers = job.sealed_headers
    if headers.startswith(PLAIN):
        headers = sealed_headers(secrets, job.id, headers.removeprefix(PLAIN))
    files = []
    for index, file in enumerate(job.files):
        if "@" in file.remote_name:
            sealed = _sealed_file(secrets, job.id, index, file)
            if sealed is not file:
                files.append((index, sealed.remote_name, sealed.sealed_userinfo))
    if headers == job.sealed_headers and not files:
        return None
    return SealOld(headers=headers, files=tuple(files))
