"""On what terms a run uses the network: whose proxy settings it obeys and whose credentials may be sent.

Both follow the account that speaks to the network: the owner, or the helper of a NETWORK token (I15, T3).  What kind of
account that is, the configuration says as it is when the run begins: an account that may speak for the computer no
more must not do so by the jobs that it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from openbits.core.accounts import AccountRules, kind_of
from openbits.core.model import Job, Owner
from openbits.frames.network import ImplicitSpec, ProxySpec
from openbits.service.credentials import ImplicitCredentials
from openbits.service.proxies import AccountProxies
from openbits.service.secrets import Secrets, headers_place
from openbits.service.worker import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkTerms:
    """What StartTransfer says about the network."""

    proxy: ProxySpec = field(default_factory=ProxySpec)
    headers: str = field(default="", repr=False)
    """The job's custom header lines, in clear."""
    implicit: ImplicitSpec = field(default_factory=ImplicitSpec)


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
        implicit = await self._implicit.spec(job, account, worker)
        headers = self._secrets.open(job.sealed_headers, headers_place(job.id)) if job.sealed_headers else ""
        return NetworkTerms(proxy=self._proxies.spec(job, account), implicit=implicit, headers=headers)
