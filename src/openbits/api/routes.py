"""Every call of the local API, as data: the server serves this table, and the OpenAPI page is drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from openbits.api import (
    audit_wire,
    certificate_wire,
    demand_wire,
    eventlog_wire,
    notification_wire,
    peercaching_wire,
    policy_wire,
    wire,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A query parameter."""

    name: str
    kind: type[int | bool | str]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One call: `handler` is the name of a method of api.handlers.Handlers; a tuple of answers is one of them."""

    method: str
    path: str
    handler: str
    text: str
    answer: Any
    body: Any = None
    status: int = 200
    query: tuple[Parameter, ...] = ()
    media_type: str = "application/json"


_LIMIT = Parameter(name="limit", kind=int, text="how many at most: 1 to 10,000, default 500")
_ALL_USERS = Parameter(name="all_users", kind=bool, text="the jobs of all accounts; administrators only")
_ACCOUNT = Parameter(
    name="account", kind=str, text="LOCALSYSTEM, NETWORKSERVICE, LOCALSERVICE or an account's name; else the caller's"
)
_JOB = "/v1/jobs/{job_id}"
_VALIDATION = f"{_JOB}/certificate-validation"
_OPTIONS = "/v1/token-options/{capability}"
_PEERS = "/v1/peer-caching"

ROUTES: tuple[Route, ...] = (
    Route(method="GET", path="/v1/version", handler="version", text="What answers.", answer=wire.VersionOut),
    Route(
        method="GET",
        path="/v1/whoami",
        handler="whoami",
        text="The caller, as the kernel tells it.",
        answer=wire.WhoAmI,
    ),
    Route(method="GET", path="/v1/doctor", handler="doctor", text="The service's health.", answer=wire.Doctor),
    Route(
        method="GET", path="/v1/statistics", handler="statistics", text="Counters, for people.", answer=dict[str, int]
    ),
    Route(
        method="GET",
        path="/v1/errors/{code}",
        handler="error_description",
        text="What an error means, by name or HRESULT (M4).",
        answer=wire.ErrorDescription,
    ),
    Route(
        method="GET",
        path="/v1/jobs",
        handler="list_jobs",
        text="Jobs, oldest first, in pages (M3).",
        answer=wire.JobPage,
        query=(
            _ALL_USERS,
            _LIMIT,
            Parameter(name="after", kind=str, text="the cursor that the last page gave"),
            Parameter(name="name", kind=str, text="only jobs of this display name"),
            Parameter(name="history", kind=bool, text="also jobs that have ended and are still kept"),
        ),
    ),
    Route(
        method="POST",
        path="/v1/jobs",
        handler="create_job",
        text="Create a job; with files and `resume`, a whole download or upload (M1, J2, J5).",
        body=wire.JobIn,
        answer=wire.Created,
        status=201,
    ),
    Route(
        method="POST",
        path="/v1/jobs/batch",
        handler="create_jobs",
        text="Create several jobs, all or none.",
        body=wire.JobsIn,
        answer=wire.CreatedMany,
        status=201,
    ),
    Route(method="GET", path=_JOB, handler="get_job", text="A job and its properties (M2).", answer=wire.JobDetail),
    Route(
        method="PATCH",
        path=_JOB,
        handler="change_settings",
        text="Set properties, all or none (J14–J20, J53, J60–J64).",
        body=wire.SettingsIn,
        answer=wire.VerbResult,
    ),
    Route(
        method="GET",
        path=f"{_JOB}/files",
        handler="list_files",
        text="Files of a job, in pages (J3).",
        answer=wire.FilePage,
        query=(_LIMIT, Parameter(name="after", kind=int, text="the index that the last page gave")),
    ),
    Route(
        method="POST",
        path=f"{_JOB}/files",
        handler="add_files",
        text="Add files, all or none (J1, J2, J41).",
        body=wire.FilesIn,
        answer=wire.VerbResult,
    ),
    Route(
        method="GET", path=f"{_JOB}/files/{{index}}", handler="get_file", text="A file (F1–F7).", answer=wire.FileOut
    ),
    Route(
        method="PATCH",
        path=f"{_JOB}/files/{{index}}",
        handler="change_file",
        text="Set the remote name or the validation state of a file (F4, F6).",
        body=wire.FileChange,
        answer=wire.VerbResult,
    ),
    Route(
        method="GET",
        path=f"{_JOB}/files/{{index}}/ranges",
        handler="get_ranges",
        text="Which ranges of a file are here, and which are wanted (F13).",
        answer=demand_wire.PiecesOut,
    ),
    Route(
        method="POST",
        path=f"{_JOB}/files/{{index}}/ranges",
        handler="request_ranges",
        text="Ask for ranges of a file of a job in on-demand mode (F12).",
        body=demand_wire.RangesIn,
        answer=wire.VerbResult,
    ),
    Route(
        method="PUT",
        path=f"{_JOB}/files/{{index}}/position",
        handler="update_position",
        text="Let what is missing from a byte on be fetched first, in on-demand mode (F11).",
        body=demand_wire.PositionIn,
        answer=wire.VerbResult,
    ),
    Route(
        method="POST",
        path=f"{_JOB}/replace-remote-prefix",
        handler="replace_remote_prefix",
        text="Replace the beginning of all remote names; S_FALSE when none begins so (J40).",
        body=wire.PrefixIn,
        answer=wire.VerbResult,
    ),
    Route(method="POST", path=f"{_JOB}/resume", handler="resume", text="Queue the job (J5).", answer=wire.VerbResult),
    Route(method="POST", path=f"{_JOB}/suspend", handler="suspend", text="Stop the job (J4).", answer=wire.VerbResult),
    Route(
        method="POST",
        path=f"{_JOB}/cancel",
        handler="cancel",
        text="End the job and delete its files (J6).",
        answer=wire.VerbResult,
    ),
    Route(
        method="POST",
        path=f"{_JOB}/complete",
        handler="complete",
        text="End the job and put its files under their names (J7).",
        answer=wire.VerbResult,
    ),
    Route(
        method="PUT",
        path=f"{_JOB}/credentials",
        handler="set_credentials",
        text="Set the credentials for a target and a scheme; the owner's alone (J35).",
        body=wire.CredentialsIn,
        answer=wire.VerbResult,
    ),
    Route(
        method="DELETE",
        path=f"{_JOB}/credentials",
        handler="remove_credentials",
        text="Remove the credentials for a target and a scheme; S_FALSE when there are none (J36).",
        answer=wire.VerbResult,
        query=(
            Parameter(name="target", kind=str, text="server or proxy"),
            Parameter(name="scheme", kind=str, text="basic, digest, ntlm, negotiate or passport"),
        ),
    ),
    Route(
        method="GET",
        path=f"{_JOB}/custom-headers",
        handler="get_custom_headers",
        text="The custom headers; the owner's alone, and nobody's once they are write-only (H6).",
        answer=wire.CustomHeadersOut,
    ),
    Route(
        method="PUT",
        path=f"{_JOB}/custom-headers",
        handler="set_custom_headers",
        text="Set the custom headers, or clear them; the owner's alone (H5).",
        body=wire.CustomHeadersIn,
        answer=wire.VerbResult,
    ),
    Route(
        method="POST",
        path=f"{_JOB}/custom-headers/write-only",
        handler="hide_custom_headers",
        text="From now on nobody reads the custom headers; they are sent as before (H11).",
        answer=wire.VerbResult,
    ),
    Route(
        method="PUT",
        path=f"{_JOB}/client-certificate",
        handler="set_client_certificate",
        text="Set which client certificate is presented, by its hash or its subject; the owner's alone (H1, H2).",
        body=certificate_wire.ClientCertificateIn,
        answer=wire.VerbResult,
    ),
    Route(
        method="GET",
        path=f"{_JOB}/client-certificate",
        handler="get_client_certificate",
        text="Which client certificate is presented; for the owner alone (H4).",
        answer=wire.ClientCertificateOut,
    ),
    Route(
        method="DELETE",
        path=f"{_JOB}/client-certificate",
        handler="remove_client_certificate",
        text="Present no client certificate; S_FALSE when there is none (H3).",
        answer=wire.VerbResult,
    ),
    Route(
        method="POST",
        path=_VALIDATION,
        handler="validate_certificates",
        text="Judge servers' certificates for a SUSPENDED job while the stream of questions is read (H12).",
        answer=(
            certificate_wire.ValidationBegun,
            certificate_wire.CertificateQuestion,
            certificate_wire.ValidationOver,
        ),
        media_type="text/event-stream",
    ),
    Route(
        method="DELETE",
        path=_VALIDATION,
        handler="clear_certificate_validation",
        text="Let no program judge servers' certificates any more, for a SUSPENDED job (H12).",
        answer=wire.VerbResult,
    ),
    Route(
        method="PUT",
        path=f"{_VALIDATION}/{{question}}",
        handler="judge_certificate",
        text="Answer a question about a server's certificate (4.6).",
        body=certificate_wire.CertificateAnswer,
        answer=wire.CallResult,
    ),
    Route(
        method="POST",
        path="/v1/notifications",
        handler="listen",
        text="Listen to jobs while the stream of notices is read: one stream for all jobs of a program (J18).",
        answer=(notification_wire.ListeningBegun, notification_wire.NoticeOut, notification_wire.ListeningOver),
        media_type="text/event-stream",
    ),
    Route(
        method="POST",
        path="/v1/notifications/{stream}/acknowledgements",
        handler="acknowledge",
        text="Answer a notice of one's stream (N4).",
        body=notification_wire.AcknowledgementIn,
        answer=wire.CallResult,
    ),
    Route(
        method="PUT",
        path=f"{_JOB}/notify-interface",
        handler="set_notify_interface",
        text="Let a stream hear of the job, also of what has happened already; the last that is set counts (J18, N5).",
        body=notification_wire.NotifyInterfaceIn,
        answer=wire.VerbResult,
    ),
    Route(
        method="DELETE",
        path=f"{_JOB}/notify-interface",
        handler="clear_notify_interface",
        text="Let no program hear of the job any more (J18).",
        answer=wire.VerbResult,
    ),
    Route(
        method="PUT",
        path=f"{_JOB}/notify-command",
        handler="set_notify_command",
        text="Set what is run when the job is TRANSFERRED or in ERROR; the owner's alone (J30).",
        body=notification_wire.NotifyCommandIn,
        answer=wire.VerbResult,
    ),
    Route(
        method="GET",
        path=f"{_JOB}/notify-command",
        handler="get_notify_command",
        text="What is run when the job is TRANSFERRED or in ERROR (J30).",
        answer=notification_wire.NotifyCommandState,
    ),
    Route(
        method="DELETE",
        path=f"{_JOB}/notify-command",
        handler="clear_notify_command",
        text="Run nothing; the owner's alone (J30).",
        answer=wire.VerbResult,
    ),
    Route(
        method="POST",
        path=f"{_JOB}/take-ownership",
        handler="take_ownership",
        text="The job becomes the caller's, who must be an administrator (J24, I8).",
        answer=wire.VerbResult,
    ),
    Route(
        method="GET",
        path=f"{_JOB}/reply",
        handler="get_reply",
        text="Name and progress of the reply to an upload-reply job (J31, J34).",
        answer=wire.ReplyOut,
    ),
    Route(
        method="PUT",
        path=f"{_JOB}/reply",
        handler="set_reply_file_name",
        text="Set where the reply is to stand, until it begins to come (J33).",
        body=wire.ReplyNameIn,
        answer=wire.VerbResult,
    ),
    Route(
        method="GET",
        path=f"{_JOB}/reply/data",
        handler="get_reply_data",
        text="The reply itself, of at most 1 MiB, once the job is TRANSFERRED; empty if there is none (J32).",
        answer=bytes,
        media_type="application/octet-stream",
    ),
    Route(
        method="GET", path=f"{_JOB}/error", handler="get_error", text="Why the job failed (J12).", answer=wire.ErrorOut
    ),
    Route(method="GET", path=f"{_JOB}/why", handler="why", text="What the job waits for.", answer=wire.Why),
    Route(
        method="POST",
        path=f"{_JOB}/token-options",
        handler="token_options",
        text="Access to the job's helper token; the owner's alone (T1–T4).",
        answer=wire.TokenOptionsOut,
        status=201,
    ),
    Route(
        method="GET",
        path=_OPTIONS,
        handler="helper_token",
        text="Whose helper token there is, and for what it is used (T3, T4).",
        answer=wire.HelperTokenOut,
    ),
    Route(
        method="PUT",
        path=f"{_OPTIONS}/helper",
        handler="set_helper_token",
        text="The caller becomes the job's helper, as the kernel tells who calls (T1).",
        answer=wire.CallResult,
    ),
    Route(
        method="DELETE",
        path=f"{_OPTIONS}/helper",
        handler="clear_helper_token",
        text="The job has no helper any more (T2).",
        answer=wire.CallResult,
    ),
    Route(
        method="PUT",
        path=f"{_OPTIONS}/flags",
        handler="set_helper_token_flags",
        text="For what the helper token is used (T3).",
        body=wire.HelperFlagsIn,
        answer=wire.CallResult,
    ),
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
            _ALL_USERS,
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
            _ALL_USERS,
            Parameter(name="since", kind=str, text="only jobs with something to be audited since, in ISO 8601"),
            Parameter(name="user", kind=str, text="only jobs of this account, by name or uid"),
        ),
    ),
    Route(method="GET", path="/v1/openapi.json", handler="openapi", text="This description.", answer=dict[str, Any]),
)
