"""OpenBITS: the Background Intelligent Transfer Service for Linux.

    import openbits

    job = openbits.Manager().create_job("kernel")
    job.add_file("https://cdn.kernel.org/pub/linux/kernel/v6.x/linux-6.12.tar.xz", "/srv/linux-6.12.tar.xz")
    job.resume()
    if job.wait() is openbits.JobState.TRANSFERRED:
        job.complete()

`openbits.aio` has the same with `await`.  Names are loaded when they are first used, because every program of the
project imports this package, and most of them need none of the client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openbits.version import __version__

if TYPE_CHECKING:
    from openbits import aio
    from openbits.client.certificates import CertificateStoreLocation, ClientCertificate, SecurityFlags
    from openbits.client.cloaking import (
        Blanket,
        Cloaking,
        copy_proxy,
        initialize_security,
        query_proxy_blanket,
        set_proxy_blanket,
    )
    from openbits.client.enumerator import Enumerator
    from openbits.client.file_acl import FileAclFlags
    from openbits.client.identity import Identity
    from openbits.client.impersonation import impersonate
    from openbits.client.job_properties import JobProperty
    from openbits.client.manager import File, Job, JobError, Manager, TokenOptions
    from openbits.client.network_identity import (
        AccountProxySettings,
        AccountProxyUsage,
        AuthScheme,
        AuthTarget,
        ProxySettings,
        ProxyUsage,
        TokenFlags,
    )
    from openbits.client.notifications import Notification, NotificationEvent, NotifyCommandLine
    from openbits.client.peercaching import CacheRecord, Peer, PeerCacheAdministration, PeerCachingFlags
    from openbits.client.pieces import PeerDownloadStats
    from openbits.client.values import (
        LENGTH_TO_EOF,
        Event,
        FileInfo,
        FileProgress,
        FileSpec,
        JobErrorInfo,
        JobInfo,
        JobSpec,
        JobState,
        JobTimes,
        JobType,
        NotifyFlags,
        Owner,
        Priority,
        Progress,
        Range,
        ReplyProgress,
        Result,
    )
    from openbits.errors import BitsError, ErrorContext

__all__ = [
    "LENGTH_TO_EOF",
    "AccountProxySettings",
    "AccountProxyUsage",
    "AuthScheme",
    "AuthTarget",
    "BitsError",
    "Blanket",
    "CacheRecord",
    "CertificateStoreLocation",
    "ClientCertificate",
    "Cloaking",
    "Enumerator",
    "ErrorContext",
    "Event",
    "File",
    "FileAclFlags",
    "FileInfo",
    "FileProgress",
    "FileSpec",
    "Identity",
    "Job",
    "JobError",
    "JobErrorInfo",
    "JobInfo",
    "JobProperty",
    "JobSpec",
    "JobState",
    "JobTimes",
    "JobType",
    "Manager",
    "Notification",
    "NotificationEvent",
    "NotifyCommandLine",
    "NotifyFlags",
    "Owner",
    "Peer",
    "PeerCacheAdministration",
    "PeerCachingFlags",
    "PeerDownloadStats",
    "Priority",
    "Progress",
    "ProxySettings",
    "ProxyUsage",
    "Range",
    "ReplyProgress",
    "Result",
    "SecurityFlags",
    "TokenFlags",
    "TokenOptions",
    "__version__",
    "aio",
    "copy_proxy",
    "impersonate",
    "initialize_security",
    "query_proxy_blanket",
    "set_proxy_blanket",
]

_MODULES = {
    "AccountProxySettings": "openbits.client.network_identity",
    "AccountProxyUsage": "openbits.client.network_identity",
    "AuthScheme": "openbits.client.network_identity",
    "AuthTarget": "openbits.client.network_identity",
    "BitsError": "openbits.errors",
    "Blanket": "openbits.client.cloaking",
    "CertificateStoreLocation": "openbits.client.certificates",
    "ClientCertificate": "openbits.client.certificates",
    "CacheRecord": "openbits.client.peercaching",
    "Cloaking": "openbits.client.cloaking",
    "Enumerator": "openbits.client.enumerator",
    "ErrorContext": "openbits.errors",
    "File": "openbits.client.manager",
    "FileAclFlags": "openbits.client.file_acl",
    "Identity": "openbits.client.identity",
    "Job": "openbits.client.manager",
    "JobError": "openbits.client.manager",
    "JobProperty": "openbits.client.job_properties",
    "Manager": "openbits.client.manager",
    "Notification": "openbits.client.notifications",
    "NotificationEvent": "openbits.client.notifications",
    "NotifyCommandLine": "openbits.client.notifications",
    "Peer": "openbits.client.peercaching",
    "PeerCacheAdministration": "openbits.client.peercaching",
    "PeerCachingFlags": "openbits.client.peercaching",
    "PeerDownloadStats": "openbits.client.pieces",
    "ProxySettings": "openbits.client.network_identity",
    "ProxyUsage": "openbits.client.network_identity",
    "SecurityFlags": "openbits.client.certificates",
    "TokenFlags": "openbits.client.network_identity",
    "TokenOptions": "openbits.client.manager",
    "copy_proxy": "openbits.client.cloaking",
    "impersonate": "openbits.client.impersonation",
    "initialize_security": "openbits.client.cloaking",
    "query_proxy_blanket": "openbits.client.cloaking",
    "set_proxy_blanket": "openbits.client.cloaking",
}


def __getattr__(name: str) -> Any:
    import importlib  # noqa: PLC0415 - not needed by the programs that import a submodule

    if name == "aio":
        return importlib.import_module("openbits.aio")
    if name not in __all__:
        raise AttributeError(f"module 'openbits' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES.get(name, "openbits.client.values")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
