"""Every call of the local API as a value: what to send, and how to read the answer. No I/O.

Both clients, the blocking one and the asyncio one, carry out the same values, so that no call is written
twice.  What takes several calls is a script: a generator that yields calls and gets their results.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from openbits.client.http1 import encode_query, encode_request, quote
from openbits.client.transport import Answer, broken_call
from openbits.errors import BitsError, by_hresult
from openbits.version import __version__

Json = dict[str, Any]
T = TypeVar("T")
U = TypeVar("U")
Script = Generator["Call[Any]", Any, T]

PAGE_SIZE: Final = 500
MAX_FILES_PER_CALL: Final = 20_000
MAX_JOBS_PER_CALL: Final = 1_000
_HEADERS: Final = {"User-Agent": f"openbits/{__version__}"}


def _as_it_is(data: Any) -> Any:
    return data


def decode_answer(answer: Answer) -> Any:
    """Return the JSON of a good answer; raises the BitsError that a problem stands for."""
    try:
        data = json.loads(answer.body) if answer.body else None
    except ValueError as error:
        raise broken_call("its answer is not JSON") from error
    if 200 <= answer.status < 300:
        return data
    raise error_of_problem(data, answer.status)


def decode_bytes(answer: Answer) -> bytes:
    """Return the bytes of a good answer; raises the BitsError that a problem stands for."""
    if not 200 <= answer.status < 300:
        decode_answer(answer)
    return answer.body


@dataclass(frozen=True, slots=True, repr=False)
class Call(Generic[T]):
    """One request; `repeatable` says that carrying it out twice is the same as once."""

    method: str
    target: str
    body: Mapping[str, Any] | None = None
    repeatable: bool = False
    parse: Callable[[Any], T] = _as_it_is
    decode: Callable[[Answer], Any] = decode_answer
    """What a good answer holds, for `parse`."""

    def __repr__(self) -> str:
        # Passwords travel in bodies, the capability of token options in a target: neither belongs into a log.
        return f"<Call {self.method} {'/'.join(self.target.split('/')[:3])}>"

    def then(self, function: Callable[[T], U]) -> Call[U]:
        """Return the same call with `function` applied to its result."""
        parse = self.parse
        return Call(
            self.method, self.target, self.body, self.repeatable, lambda data: function(parse(data)), self.decode
        )

    def encode(self) -> bytes:
        """Return the bytes of the request.

        Names with bytes that are not UTF-8 go as lone surrogates, which JSON can say and UTF-8 cannot.
        """
        body = None if self.body is None else json.dumps(self.body, separators=(",", ":")).encode("ascii")
        if body is None and self.method != "GET":
            body = b""
        return encode_request(self.method, self.target, body, _HEADERS)

    def result(self, answer: Answer) -> T:
        """Read the answer; raises BitsError."""
        data = self.decode(answer)
        try:
            return self.parse(data)
        except (KeyError, TypeError, ValueError) as error:
            raise broken_call("its answer has another shape than this client knows") from error


def error_of_problem(data: Any, status: int) -> BitsError:
    """Return the error that a problem+json body describes."""
    problem = data if isinstance(data, dict) else {}
    name, detail, hresult = problem.get("code"), problem.get("detail"), problem.get("hresult")
    if isinstance(name, str) and isinstance(detail, str):
        try:
            return BitsError(name, detail)
        except KeyError:
            # A newer service has more names; the number may still be known.
            row = by_hresult(hresult) if isinstance(hresult, int) else None
            return BitsError(row.name if row else "E_FAIL", f"{name}: {detail}")
    return broken_call(f"it answered {status} without saying why")


def stream_request(target: str, last_event_id: int | None) -> bytes:
    """Return the request for the event stream, going on after an event."""
    headers = dict(_HEADERS)
    if last_event_id is not None:
        headers["Last-Event-ID"] = str(last_event_id)
    return encode_request("GET", target, None, headers)


def events_target(
    *,
    job_id: str | None = None,
    all_users: bool = False,
    after: int | None = None,
    follow: bool = True,
    choice: Mapping[str, str | int] | None = None,
) -> str:
    """Return the address of the event stream.

    `after` 0 begins with the oldest event that is kept; without `follow` the stream ends with the newest. `choice` has
    `newest`, `since`, `until`, `id` and `level`, as the local API takes them.
    """
    query: dict[str, str | int] = dict(choice or {})
    if job_id is not None:
        query["job"] = job_id
    if all_users:
        query["all_users"] = 1
    if after is not None:
        query["after"] = after
    if not follow:
        query["follow"] = 0
    return "/v1/events" + encode_query(query)


def audit(*, all_users: bool = False, since: str | None = None, user: str | None = None) -> Call[list[Json]]:
    """Who made which job when, with what in it: AuditOut, a list of its rows."""
    query: dict[str, str | int] = {"all_users": 1} if all_users else {}
    if since is not None:
        query["since"] = since
    if user is not None:
        query["user"] = user
    return Call("GET", "/v1/audit" + encode_query(query), repeatable=True).then(lambda answer: list(answer["jobs"]))


# About the service.


def version() -> Call[Json]:
    """VersionOut."""
    return Call("GET", "/v1/version", repeatable=True)


def whoami() -> Call[Json]:
    """WhoAmI."""
    return Call("GET", "/v1/whoami", repeatable=True)


def doctor() -> Call[Json]:
    """Doctor."""
    return Call("GET", "/v1/doctor", repeatable=True)


def statistics() -> Call[Json]:
    """Counters, for people."""
    return Call("GET", "/v1/statistics", repeatable=True)


def error_description(code: str | int) -> Call[Json]:
    """ErrorDescription (M4)."""
    text = f"{code & 0xFFFF_FFFF:#010x}" if isinstance(code, int) else code
    return Call("GET", f"/v1/errors/{quote(text)}", repeatable=True)


# Jobs.


def file_in(
    remote_name: str,
    local_name: str,
    *,
    ranges: Iterable[tuple[int, int]] = (),
    checksum: str | None = None,
) -> Json:
    """Return a FileIn."""
    data: Json = {"remote_name": remote_name, "local_name": local_name}
    pairs = [{"offset": offset, "length": length} for offset, length in ranges]
    if pairs:
        data["ranges"] = pairs
    if checksum is not None:
        data["checksum"] = checksum
    return data


def job_in(
    name: str,
    *,
    job_type: str = "download",
    settings: Mapping[str, Any] | None = None,
    files: Sequence[Json] = (),
    resume: bool = False,
    reply_file_name: str | None = None,
) -> Json:
    """Return a JobIn."""
    data: Json = {"name": name, "type": job_type}
    if settings:
        data["settings"] = dict(settings)
    if files:
        data["files"] = list(files)
    if resume:
        data["resume"] = True
    if reply_file_name is not None:
        data["reply_file_name"] = reply_file_name
    return data


def create_job(job: Json) -> Call[str]:
    """CreateJob (M1), with files and Resume where `job` has them; gives the id."""
    return Call("POST", "/v1/jobs", job, parse=lambda data: str(data["id"]))


def create_large_job(job: Json) -> Script[str]:
    """CreateJob with any number of files: what does not fit into one call is added before Resume."""
    files = job.get("files", [])
    if len(files) <= MAX_FILES_PER_CALL:
        only: str = yield create_job(job)
        return only
    first = {**job, "files": files[:MAX_FILES_PER_CALL], "resume": False}
    job_id: str = yield create_job(first)
    try:
        for start in range(MAX_FILES_PER_CALL, len(files), MAX_FILES_PER_CALL):
            yield add_files(job_id, files[start : start + MAX_FILES_PER_CALL])
    except BitsError:
        yield cancel(job_id)
        raise
    if job.get("resume"):
        yield resume(job_id)
    return job_id


def create_jobs(jobs: Sequence[Json]) -> Script[list[str]]:
    """Create many jobs, MAX_JOBS_PER_CALL at a time; each such call is all or nothing."""
    ids: list[str] = []
    for start in range(0, len(jobs), MAX_JOBS_PER_CALL):
        part = list(jobs[start : start + MAX_JOBS_PER_CALL])
        created: Json = yield Call("POST", "/v1/jobs/batch", {"jobs": part})
        ids += [one["id"] for one in created["jobs"]]
    return ids


def _job_path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id)}"


def job(job_id: str) -> Call[Json]:
    """JobDetail (M2)."""
    return Call("GET", _job_path(job_id), repeatable=True)


def job_page(
    *,
    all_users: bool = False,
    history: bool = False,
    name: str | None = None,
    after: str | None = None,
    limit: int = PAGE_SIZE,
) -> Call[Json]:
    """JobPage (M3)."""
    query: dict[str, str | int] = {"limit": limit}
    if all_users:
        query["all_users"] = 1
    if history:
        query["history"] = 1
    if name is not None:
        query["name"] = name
    if after is not None:
        query["after"] = after
    return Call("GET", "/v1/jobs" + encode_query(query), repeatable=True)


def all_jobs(*, all_users: bool = False, history: bool = False, name: str | None = None) -> Script[list[Json]]:
    """EnumJobs (M3): all pages."""
    jobs: list[Json] = []
    after: str | None = None
    while True:
        page: Json = yield job_page(all_users=all_users, history=history, name=name, after=after)
        jobs += page["jobs"]
        after = page["next"]
        if after is None:
            return jobs


def all_files(job_id: str) -> Script[list[Json]]:
    """EnumFiles (J3): all pages."""
    files: list[Json] = []
    after: int | None = None
    while True:
        query: dict[str, str | int] = {"limit": PAGE_SIZE}
        if after is not None:
            query["after"] = after
        path = f"{_job_path(job_id)}/files{encode_query(query)}"
        page: Json = yield Call("GET", path, repeatable=True)
        files += page["files"]
        after = page["next"]
        if after is None:
            return files


def add_files(job_id: str, files: Sequence[Json]) -> Call[Json]:
    """AddFile, AddFileSet, AddFileWithRanges (J1, J2, J41): all or none."""
    return Call("POST", f"{_job_path(job_id)}/files", {"files": list(files)})


def change_settings(job_id: str, changes: Mapping[str, Any]) -> Call[Json]:
    """Set properties (J14–J20, J53, J60–J64): all or none."""
    return Call("PATCH", _job_path(job_id), changes, repeatable=True)


def resume(job_id: str) -> Call[Json]:
    """J5."""
    return Call("POST", f"{_job_path(job_id)}/resume", repeatable=True)


def suspend(job_id: str) -> Call[Json]:
    """J4."""
    return Call("POST", f"{_job_path(job_id)}/suspend", repeatable=True)


def cancel(job_id: str) -> Call[Json]:
    """J6."""
    return Call("POST", f"{_job_path(job_id)}/cancel")


def complete(job_id: str) -> Call[Json]:
    """J7."""
    return Call("POST", f"{_job_path(job_id)}/complete")


def take_ownership(job_id: str) -> Call[Json]:
    """J24, I8."""
    return Call("POST", f"{_job_path(job_id)}/take-ownership")


def set_credentials(job_id: str, target: str, scheme: str, user_name: str | None, password: str | None) -> Call[Json]:
    """SetCredentials (J35)."""
    body = {"target": target, "scheme": scheme, "user_name": user_name, "password": password}
    return Call("PUT", f"{_job_path(job_id)}/credentials", body, repeatable=True)


def remove_credentials(job_id: str, target: str, scheme: str) -> Call[Json]:
    """RemoveCredentials (J36)."""
    return Call("DELETE", f"{_job_path(job_id)}/credentials{encode_query({'target': target, 'scheme': scheme})}")


def custom_headers(job_id: str) -> Call[str | None]:
    """GetCustomHeaders (H6); None where there are none."""
    return Call(
        "GET", f"{_job_path(job_id)}/custom-headers", repeatable=True, parse=lambda data: data["custom_headers"]
    )


def set_custom_headers(job_id: str, headers: str | None) -> Call[Json]:
    """SetCustomHeaders (H5)."""
    return Call("PUT", f"{_job_path(job_id)}/custom-headers", {"custom_headers": headers}, repeatable=True)


def hide_custom_headers(job_id: str) -> Call[Json]:
    """MakeCustomHeadersWriteOnly (H11)."""
    return Call("POST", f"{_job_path(job_id)}/custom-headers/write-only", repeatable=True)


def job_error(job_id: str) -> Call[Json]:
    """ErrorOut (J12)."""
    return Call("GET", f"{_job_path(job_id)}/error", repeatable=True)


def why(job_id: str) -> Call[Json]:
    """Why."""
    return Call("GET", f"{_job_path(job_id)}/why", repeatable=True)


def replace_remote_prefix(job_id: str, old: str, new: str) -> Call[Json]:
    """J40."""
    return Call("POST", f"{_job_path(job_id)}/replace-remote-prefix", {"old": old, "new": new})


# What a server replies to an upload (J31–J34).


def reply(job_id: str) -> Call[Json]:
    """ReplyOut."""
    return Call("GET", f"{_job_path(job_id)}/reply", repeatable=True)


def set_reply_file_name(job_id: str, file_name: str | None) -> Call[Json]:
    """J33."""
    return Call("PUT", f"{_job_path(job_id)}/reply", {"file_name": file_name}, repeatable=True)


def reply_data(job_id: str) -> Call[bytes | None]:
    """J32; None where the server has not replied anything."""
    target = f"{_job_path(job_id)}/reply/data"
    return Call("GET", target, repeatable=True, parse=lambda data: data or None, decode=decode_bytes)


# Helper tokens (T1–T4).


def token_options(job_id: str) -> Call[str]:
    """Access to the job's helper token; gives the capability that stands for it."""
    return Call("POST", f"{_job_path(job_id)}/token-options", parse=lambda data: str(data["capability"]))


def _token_path(capability: str) -> str:
    return f"/v1/token-options/{quote(capability)}"


def helper_token(capability: str) -> Call[Json]:
    """What is known of the helper: `sid`, `name`, `flags`."""
    return Call("GET", _token_path(capability), repeatable=True)


def set_helper_token(capability: str) -> Call[Json]:
    """SetHelperToken (T1): the helper is whoever makes this call."""
    return Call("PUT", f"{_token_path(capability)}/helper", repeatable=True)


def clear_helper_token(capability: str) -> Call[Json]:
    """ClearHelperToken (T2)."""
    return Call("DELETE", f"{_token_path(capability)}/helper", repeatable=True)


def set_helper_token_flags(capability: str, flags: int) -> Call[Json]:
    """SetHelperTokenFlags (T3)."""
    return Call("PUT", f"{_token_path(capability)}/flags", {"flags": flags}, repeatable=True)


# Proxy settings of accounts (I20).


def _proxy_settings_target(account: str | None) -> str:
    return "/v1/proxy-settings" + encode_query({} if account is None else {"account": account})


def account_proxy_settings(account: str | None) -> Call[Json]:
    """The settings kept for an account; without one, for the caller."""
    return Call("GET", _proxy_settings_target(account), repeatable=True)


def set_account_proxy_settings(account: str | None, settings: Mapping[str, Any]) -> Call[Json]:
    """Replace the usage; parameters that are not named are kept."""
    return Call("PUT", _proxy_settings_target(account), settings, repeatable=True)


def reset_account_proxy_settings(account: str | None) -> Call[Json]:
    """Forget what is kept for an account."""
    return Call("DELETE", _proxy_settings_target(account), repeatable=True)


# Files.


def file(job_id: str, index: int) -> Call[Json]:
    """FileOut (F1–F7)."""
    return Call("GET", f"{_job_path(job_id)}/files/{index}", repeatable=True)


def change_file(job_id: str, index: int, changes: Mapping[str, Any]) -> Call[Json]:
    """SetRemoteName and SetValidationState (F4, F6)."""
    return Call("PATCH", f"{_job_path(job_id)}/files/{index}", changes, repeatable=True)
