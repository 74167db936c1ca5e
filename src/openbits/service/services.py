"""What the API may call: the service's parts that take calls, and no others."""

from __future__ import annotations

from dataclasses import dataclass

from openbits.service.analytic import AnalyticChannel
from openbits.service.audit import Audit
from openbits.service.certificates import CertificateCalls
from openbits.service.credentials import CredentialCalls
from openbits.service.demand import DemandCalls
from openbits.service.headers import HeaderCalls
from openbits.service.helpertokens import HelperTokens
from openbits.service.manager import Manager
from openbits.service.notifications import Notifications
from openbits.service.notifycommands import NotifyCommandCalls
from openbits.service.ownership import Ownership
from openbits.service.peercaching import PeerCaching
from openbits.service.policies import Policies
from openbits.service.proxies import AccountProxies
from openbits.service.uploads import Replies
from openbits.service.validators import Validators


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """One object for each group of calls."""

    manager: Manager
    analytic: AnalyticChannel
    audit: Audit
    certificates: CertificateCalls
    credentials: CredentialCalls
    demand: DemandCalls
    headers: HeaderCalls
    notifications: Notifications
    notify_commands: NotifyCommandCalls
    ownership: Ownership
    peer_caching: PeerCaching
    policies: Policies
    proxies: AccountProxies
    replies: Replies
    tokens: HelperTokens
    validators: Validators
