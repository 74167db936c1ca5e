"""What certificates a job shows and takes: the values, and the calls of the local API about them (H1-H4, H7, H12).

No I/O here; see `calls`.
"""

from __future__ import annotations

import base64
import enum
from dataclasses import dataclass
from typing import Final

from openbits.client.calls import Call, Json
from openbits.client.http1 import quote

FINGERPRINT_BYTES: Final = 20


class SecurityFlags(enum.IntFlag):
    """BITS's security flags (H7): how a server's certificate is checked, and where redirects may lead.

    Each BG_SSL_IGNORE flag ignores its own thing only. Without a redirect flag, redirects are followed silently.
    """

    BG_SSL_ENABLE_CRL_CHECK = 0x0001
    BG_SSL_IGNORE_CERT_CN_INVALID = 0x0002
    BG_SSL_IGNORE_CERT_DATE_INVALID = 0x0004
    BG_SSL_IGNORE_UNKNOWN_CA = 0x0008
    BG_SSL_IGNORE_CERT_WRONG_USAGE = 0x0010
    BG_HTTP_REDIRECT_POLICY_ALLOW_SILENT = 0x0000
    BG_HTTP_REDIRECT_POLICY_ALLOW_REPORT = 0x0100
    BG_HTTP_REDIRECT_POLICY_DISALLOW = 0x0200
    BG_HTTP_REDIRECT_POLICY_MASK = 0x0700
    BG_HTTP_REDIRECT_POLICY_ALLOW_HTTPS_TO_HTTP = 0x0800


class CertificateStoreLocation(enum.Enum):
    """BG_CERT_STORE_LOCATION (H1), in its order; which directories these are, docs/networks.md says."""

    CURRENT_USER = "current_user"
    LOCAL_MACHINE = "local_machine"
    CURRENT_SERVICE = "current_service"
    SERVICES = "services"
    USERS = "users"
    CURRENT_USER_GROUP_POLICY = "current_user_group_policy"
    LOCAL_MACHINE_GROUP_POLICY = "local_machine_group_policy"
    LOCAL_MACHINE_ENTERPRISE = "local_machine_enterprise"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """Which client certificate a job presents (H4); None where it was not chosen by that."""

    location: CertificateStoreLocation
    store: str
    sha1: bytes | None
    subject: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateQuestion:
    """A server's certificate that a program is to judge (4.6)."""

    name: str
    file_index: int
    server: str
    """`host:port`"""
    certificate: bytes
    chain: list[bytes]


def client_certificate_from(data: Json) -> ClientCertificate:
    """Read the answer about a job's client certificate."""
    return ClientCertificate(
        location=CertificateStoreLocation(data["location"]),
        store=data["store"],
        sha1=None if data["sha1"] is None else bytes.fromhex(data["sha1"]),
        subject=data["subject"],
    )


def question_from(data: Json) -> CertificateQuestion:
    """Read a question of the stream."""
    return CertificateQuestion(
        name=str(data["question"]),
        file_index=int(data["file"]),
        server=str(data["server"]),
        certificate=base64.b64decode(data["certificate"]),
        chain=[base64.b64decode(each) for each in data["chain"]],
    )


def _client_certificate_target(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id)}/client-certificate"


def client_certificate(job_id: str) -> Call[Json]:
    """GetClientCertificate (H4)."""
    return Call("GET", _client_certificate_target(job_id), repeatable=True)


def set_client_certificate(
    job_id: str, location: str, store: str, *, sha1: str | None = None, subject: str | None = None
) -> Call[Json]:
    """SetClientCertificateByID (H1), SetClientCertificateByName (H2)."""
    body: Json = {"location": location, "store": store}
    if sha1 is not None:
        body["sha1"] = sha1
    if subject is not None:
        body["subject"] = subject
    return Call("PUT", _client_certificate_target(job_id), body, repeatable=True)


def remove_client_certificate(job_id: str) -> Call[Json]:
    """RemoveClientCertificate (H3)."""
    return Call("DELETE", _client_certificate_target(job_id))


def validation_target(job_id: str) -> str:
    """Where a program becomes the one that judges servers' certificates (H12)."""
    return f"/v1/jobs/{quote(job_id)}/certificate-validation"


def begin_validation(job_id: str) -> Call[Json]:
    """SetServerCertificateValidationInterface (H12); the answer is a stream, and whoever reads it judges."""
    return Call("POST", validation_target(job_id))


def clear_validation(job_id: str) -> Call[Json]:
    """SetServerCertificateValidationInterface(NULL) (H12)."""
    return Call("DELETE", validation_target(job_id), repeatable=True)


def answer_question(job_id: str, question: str, error: str | None, message: str) -> Call[Json]:
    """Say whether a server's certificate will do (4.6); no error accepts it."""
    return Call("PUT", f"{validation_target(job_id)}/{quote(question)}", {"error": error, "message": message})
