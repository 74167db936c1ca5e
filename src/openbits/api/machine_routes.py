"""The calls about the machine and not about single jobs: policies, proxies of accounts, peer caching, events, audit."""

from __future__ import annotations

from openbits.api import audit_wire, eventlog_wire, peercaching_wire, policy_wire, wire
from openbits.api.route import ALL_USERS, Parameter, Route

_ACCOUNT = Parameter(
    name="account", kind=str, text="LOCALSYSTEM, NETWORKSERVICE, LOCALSERVICE or an account's name; else the caller's"
)
_PEERS = "/v1/peer-caching"

MACHINE_ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/v1/policy",
        handler="policy",
        text="What an administrator has decided for the machine, what holds now, and who says so (P1–P16).",
        answer=policy_wire.PolicyOut,
    ),
    Route(
        method="POST",
        path="/v1/policy/reload",
        handler="reload_policy",
        text="Have the policy files read now; administrators only. Files that are wrong change nothing.",
        answer=policy_wire.PolicyOut,
    ),
    Route(
        method="GET",
        path="/v1/proxy-settings",
        handler="proxy_settings",
        text="The proxy settings that are kept for an account, all parameters included (I20, B43).",
        answer=wire.ProxySettingsOut,
        query=(_ACCOUNT,),
    ),
    Route(
        method="PUT",
        path="/v1/proxy-settings",
        handler="set_proxy_settings",
        text="Set which proxies an account's jobs use; parameters of other usages are kept (I20, B42).",
        body=wire.ProxySettingsIn,
        answer=wire.ProxySettingsOut,
        query=(_ACCOUNT,),
    ),
    Route(
        method="DELETE",
        path="/v1/proxy-settings",
        handler="reset_proxy_settings",
        text="Forget an account's proxy settings (I20, RESET).",
        answer=wire.ProxySettingsOut,
        query=(_ACCOUNT,),
    ),
    Route(
        method="GET",
        path=_PEERS,
        handler="peer_caching",
        text="The machine's settings of peer caching, and which a policy has replaced; without effect yet (C6).",
        answer=peercaching_wire.PeerCachingOut,
    ),
    Route(
        method="PUT",
        path=_PEERS,
        handler="set_peer_caching",
        text="Set some of them; administrators only (C6).",
        body=peercaching_wire.PeerCachingIn,
        answer=peercaching_wire.PeerCachingOut,
    ),
    Route(
        method="GET",
        path=f"{_PEERS}/records",
        handler="cache_records",
        text="What is in the cache: nothing yet (C6).",
        answer=peercaching_wire.CacheRecords,
    ),
    Route(
        method="DELETE",
        path=f"{_PEERS}/records",
        handler="clear_cache_records",
        text="Empty the cache, or forget an address (S_FALSE: unknown); administrators only (C6).",
        answer=wire.CallResult,
        query=(Parameter(name="url", kind=str, text="only this address"),),
    ),
    Route(
        method="GET",
        path=f"{_PEERS}/records/{{record_id}}",
        handler="cache_record",
        text="A record of the cache; BG_E_RECORD_DELETED where there is none (C6).",
        answer=peercaching_wire.CacheRecordOut,
    ),
    Route(
        method="DELETE",
        path=f"{_PEERS}/records/{{record_id}}",
        handler="delete_cache_record",
        text="Remove a record from the cache; administrators only (C6).",
        answer=wire.CallResult,
    ),
    Route(
        method="GET",
        path=f"{_PEERS}/peers",
        handler="peers",
        text="The peers that are known: none yet (C6).",
        answer=peercaching_wire.Peers,
    ),
    Route(
        method="DELETE",
        path=f"{_PEERS}/peers",
        handler="clear_peers",
        text="Forget the peers; administrators only (C6).",
        answer=wire.CallResult,
    ),
    Route(
        method="POST",
        path=f"{_PEERS}/discover",
        handler="discover_peers",
        text="Look for peers: S_FALSE, for nobody does yet; administrators only (C6).",
        answer=wire.CallResult,
    ),
    Route(
        method="GET",
        path="/v1/event-log",
        handler="event_log",
        text="What is logged (B44).",
        answer=eventlog_wire.EventLogOut,
    ),
    Route(
        method="PUT",
        path="/v1/event-log",
        handler="set_event_log",
        text="Let events of the level verbose be logged, or not; administrators only (B44).",
        body=eventlog_wire.EventLogIn,
        answer=eventlog_wire.EventLogOut,
    ),
    Route(
        method="GET",
        path="/v1/events",
        handler="events",
        text="What happens, as server-sent events; `Last-Event-ID` or `after` continues a stream.",
        answer=(wire.EventOut, wire.JobOut, wire.ProgressOut),
        media_type="text/event-stream",
        query=(
            ALL_USERS,
            Parameter(name="job", kind=str, text="only this job; begins with a snapshot of it"),
            Parameter(name="after", kind=int, text="begin with the kept events after this one"),
            Parameter(name="newest", kind=int, text="of these, only so many, the newest"),
            Parameter(name="since", kind=str, text="only events from this time on, in ISO 8601"),
            Parameter(name="until", kind=str, text="only events before this time, in ISO 8601"),
            Parameter(name="id", kind=str, text="only events with these numbers, divided by commas"),
            Parameter(name="level", kind=str, text="only events as grave: error, warning, information, verbose"),
            Parameter(name="follow", kind=bool, text="whether to go on with what happens; default true"),
        ),
    ),
    Route(
        method="GET",
        path="/v1/audit",
        handler="audit",
        text="Who made which job when, what it fetches and what it runs, also of jobs that are gone.",
        answer=audit_wire.AuditOut,
        query=(
            ALL_USERS,
            Parameter(name="since", kind=str, text="only jobs with something to be audited since, in ISO 8601"),
            Parameter(name="user", kind=str, text="only jobs of this account, by name or uid"),
        ),
    ),
)
