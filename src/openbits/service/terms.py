"""On what terms a run uses the network: whose proxy settings it obeys and whose credentials may be sent.

Both follow the account that speaks to the network: the owner, or the helper of a NETWORK token (I15, T3).  What kind of
account that is, the configuration says as it is when the run begins: an account that may speak for the computer no
more must not do so by the jobs that it has.  What the owner entrusted to the job is the job's, and goes along with it
whoever speaks; it is opened here, for one run, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from openbits.core.accounts import AccountRules, kind_of
from openbits.core.certificates import OF_THE_OWNER
from openbits.core.model import AccountKind, CredentialSlot, File, Job, Owner
from openbits.errors import BitsError
from openbits.frames.network import ImplicitSpec, ProxySpec
from openbits.frames.worker import TakeCredential
from openbits.service.credentials import ImplicitCredentials
from openbits.service.proxies import AccountProxies
from openbits.service.sealing import opened_credential
from openbits.service.secrets import Secrets, headers_place, userinfo_place
from openbits.service.worker import Worker

PART_CHARACTERS: Final = 8192
"""Of a password, in one frame: each may travel as two escapes of six bytes, and a frame has 128 KiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A user name and a password in clear."""

    slot: CredentialSlot
    user_name: str = field(repr=False)
    password: str = field(repr=False)

    def frames(self, transfer: int) -> Iterator[TakeCredential]:
        """What a worker is told of them, in as many parts as a long password needs."""
        parts = [
            self.password[start : start + PART_CHARACTERS] for start in range(0, len(self.password), PART_CHARACTERS)
        ] or [""]
        for position, part in enumerate(parts, 1):
            yield TakeCredential(
                transfer=transfer,
                target=self.slot.target,
                scheme=self.slot.scheme,
                user_name=self.user_name,
                password=part,
                last=position == len(parts),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkTerms:
    """What a worker is told about the network; what is in clear shows in no `repr`."""

    proxy: ProxySpec = field(default_factory=ProxySpec)
    headers: str = field(default="", repr=False)
    """The job's custom header lines, in clear."""
    implicit: ImplicitSpec = field(default_factory=ImplicitSpec)
    credentials: tuple[Credential, ...] = ()
    """What SetCredentials was given (J35)."""
    userinfo: Mapping[int, str] = field(default_factory=dict, repr=False)
    """User name and password of remote names that came with them, by the index of the file."""
    uses_netrc: bool = False
    """Whether the job allows ~/.netrc, and it is the owner who speaks: nobody else's is meant."""

    @property
    def has_passwords(self) -> bool:
        """Whether a worker that is told these terms knows a password."""
        return bool(self.credentials or self.userinfo)

    def userinfo_of(self, index: int) -> str:
        """`name:password` of a file's remote name; empty where there is none."""
        return self.userinfo.get(index, "")


class Terms:
    """Works out the terms of a run, and gives its worker what it needs for them."""

    def __init__(
        self,
        *,
        implicit: ImplicitCredentials,
        proxies: AccountProxies,
        secrets: Secrets,
        rules: Callable[[], AccountRules],
    ) -> None:
        self._secrets = secrets
        self._rules = rules
        self._implicit = implicit
        self._proxies = proxies

    async def prepare(self, job: Job, account: Owner, worker: Worker) -> NetworkTerms:
        """Return the terms of a run of `job` whose network side is `account`, in `worker`.

        Raises BitsError when the job cannot be run on any terms, and WorkerGone.
        """
        kind, _ = kind_of(account.identity.uid, account.name, self._rules())
        account = replace(account, kind=kind)
        _check_certificate(job, account)
        entrusted = self._opened(job)
        return replace(
            entrusted,
            proxy=await self._proxies.spec(job, account),
            implicit=await self._implicit.spec(job, account, worker),
            uses_netrc=job.settings.use_netrc and account.identity.uid == job.owner.identity.uid,
        )

    async def proxy(self, job: Job, account: Owner) -> ProxySpec:
        """Return whose proxies `account` goes by for `job`, where nothing is sent that proves who asks."""
        kind, _ = kind_of(account.identity.uid, account.name, self._rules())
        return await self._proxies.spec(job, replace(account, kind=kind))

    def health(self, jobs: Iterable[Job]) -> tuple[bool, str]:
        """How that is kept which jobs were entrusted with, and whether this key opens it; for people."""
        is_well, text = self._secrets.health()
        shut = sum(1 for job in jobs if not job.state.is_final and self._is_shut(job))
        if not shut:
            return is_well, text
        count = "one job has" if shut == 1 else f"{shut} jobs have"
        return False, f"{text}; {count} credentials that it does not open: bring the right key, or set them again"

    def _is_shut(self, job: Job) -> bool:
        try:
            self._opened(job)
        except BitsError:
            return True
        return False

    def _opened(self, job: Job) -> NetworkTerms:
        """What the owner entrusted to the job, in clear.

        Raises BG_E_INVALID_CREDENTIALS, which names everything that cannot be opened: it is all set again or nothing
        of it helps.
        """
        shut: list[str] = []
        headers = ""
        if job.sealed_headers:
            try:
                headers = self._secrets.open(job.sealed_headers, headers_place(job.id))
            except BitsError:
                shut.append("the custom headers")
        credentials = []
        for each in job.explicit_credentials:
            try:
                user_name, password = opened_credential(self._secrets, job.id, each.slot, each.sealed)
            except BitsError:
                shut.append(f"the credentials for {each.slot.target} and {each.slot.scheme}")
            else:
                credentials.append(Credential(slot=each.slot, user_name=user_name, password=password))
        userinfo, names = self._opened_names(job)
        shut += names
        if shut:
            raise BitsError(
                "BG_E_INVALID_CREDENTIALS",
                f"{_listed(shut)} cannot be opened: the service's key for stored credentials is another one than when "
                "they were set; set them again, or remove them, then resume the job",
            )
        return NetworkTerms(headers=headers, credentials=tuple(credentials), userinfo=userinfo)

    def _opened_names(self, job: Job) -> tuple[dict[int, str], list[str]]:
        userinfo: dict[int, str] = {}
        shut: list[int] = []
        for index, file in enumerate(job.files):
            if file.sealed_userinfo and not _is_over(job, file):
                try:
                    userinfo[index] = self._secrets.open(file.sealed_userinfo, userinfo_place(job.id, index))
                except BitsError:
                    shut.append(index)
        if not shut:
            return userinfo, []
        more = f" and of {len(shut) - 1} more" if len(shut) > 1 else ""
        return userinfo, [f"user name and password in the remote name of file {shut[0]}{more}"]


def _check_certificate(job: Job, account: Owner) -> None:
    """The client certificate is the owner's (T3): a helper cannot show it, but for those that the machine has for all.

    Raises ERROR_WINHTTP_CLIENT_CERT_NO_ACCESS_PRIVATE_KEY.
    """
    certificate = job.client_certificate
    if certificate is None or account.identity.uid == job.owner.identity.uid:
        return
    if job.owner.kind is not AccountKind.LOCAL_SYSTEM or certificate.location in OF_THE_OWNER:
        raise BitsError(
            "ERROR_WINHTTP_CLIENT_CERT_NO_ACCESS_PRIVATE_KEY",
            f"the client certificate belongs to {job.owner.name}, and the network is used by the helper "
            f"{account.name}, who may not use its key: take BG_TOKEN_NETWORK from the helper token's flags, or the "
            "certificate from the job, then resume it",
        )


def _is_over(job: Job, file: File) -> bool:
    """Whether nothing is asked of the file's server any more; an upload's reply may still be to be fetched there."""
    return file.transferred and not job.is_upload


def _listed(things: list[str]) -> str:
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"
