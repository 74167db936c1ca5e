"""Who may do what with whose job (inventory M3, A1, A2, A4; architecture, section 4, rule 8).

Each function returns, or raises E_ACCESSDENIED with the reason, or BG_E_NOT_FOUND.  The caller is the one that the
kernel vouches for; whether it may be served at all was decided when it connected.
"""

from __future__ import annotations

from openbits.core.model import AccountKind, Caller, Job, Owner
from openbits.errors import BitsError


def existing(job: Job | None) -> Job:
    """Return the job that a call is about. Raises BG_E_NOT_FOUND where there is none (M2)."""
    if job is None:
        raise BitsError("BG_E_NOT_FOUND", "there is no such job: 'bits list' shows what there is")
    return job


def may_read(caller: Caller, owner: Owner) -> None:
    """The owner and administrators may see a job (A1)."""
    if not owns(caller, owner) and not caller.is_administrator:
        raise BitsError(
            "E_ACCESSDENIED", "the job belongs to another account: only its owner and administrators see it"
        )


def may_change(caller: Caller, owner: Owner) -> None:
    """The owner and administrators may change a job; the system's own jobs are closed to all but root (A1, A3, A4)."""
    may_read(caller, owner)
    if owner.kind is AccountKind.LOCAL_SYSTEM and caller.identity.uid != 0:
        raise BitsError("E_ACCESSDENIED", "the job belongs to the system: only root may change it")
    if owner.is_elevated and not caller.is_administrator:
        # Its transfers have rights that this process of the same account has not.
        raise BitsError(
            "E_ACCESSDENIED",
            "the job was made, or taken over, with administrator rights: only a process that has them may change it",
        )


def may_take_ownership(caller: Caller, owner: Owner) -> None:
    """Administrators may take jobs over, their own ones too; the system's jobs only root (I8, A4)."""
    if not caller.is_administrator:
        raise BitsError("E_ACCESSDENIED", "only administrators may take the ownership of a job")
    may_change(caller, owner)


def must_own(caller: Caller, owner: Owner, what: str) -> None:
    """Some calls are the owner's alone, whoever else may change the job (A2); `what` names the call's object."""
    if not owns(caller, owner):
        raise BitsError("E_ACCESSDENIED", f"only the owner of the job may use {what}")
    may_change(caller, owner)


def may_steer(caller: Caller, job: Job) -> None:
    """Where a job goes, and whom it believes, only the owner says once the job carries what he entrusted to it.

    An administrator could else have the owner's password sent to a server of his own choice, or have a proxy of his
    own pass on to any server what proves that the owner asks.
    """
    may_change(caller, job.owner)
    if owns(caller, job.owner):
        return
    is_secret = job.explicit_credentials or job.sealed_headers or any(file.sealed_userinfo for file in job.files)
    is_allowed = job.implicit_credentials or job.settings.use_netrc or job.settings.use_stored_credentials
    if is_secret or is_allowed or job.client_certificate is not None:
        raise BitsError(
            "E_ACCESSDENIED",
            "the job carries credentials or header lines of its owner's: only the owner may say where they go; "
            "'bits take-ownership' makes it yours without them",
        )


def may_list_everyone(caller: Caller) -> None:
    """Only administrators may enumerate the jobs of all accounts (M3)."""
    if not caller.is_administrator:
        raise BitsError("E_ACCESSDENIED", "only administrators may list the jobs of all accounts")


def owns(caller: Caller, owner: Owner) -> bool:
    """Whether the caller is the account that the job belongs to."""
    return caller.identity.uid == owner.identity.uid
