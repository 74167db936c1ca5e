"""The shapes of what goes over the local API about certificates: a job's own (H1-H4), and servers' (H12, 4.6)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from openbits.api.wire import Request, Response


class ClientCertificateIn(Request):
    """Which client certificate the job presents: chosen by its SHA-1 (H1) or by a part of its subject (H2)."""

    location: str | int
    """A name of BG_CERT_STORE_LOCATION in lower case, such as current_user, or its number."""
    store: str
    """MY, CA, ROOT, SPC, or a name of one's own."""
    sha1: str | None = None
    """40 hexadecimal digits; colons and blanks between them are allowed."""
    subject: str | None = None


class ValidationBegun(Response):
    """The program is set (H12); each `question` of the stream wants an answer, until `over` says that none follows.

    The stream is the program's life: when the connection ends, nobody judges for the job any more.
    """

    job_id: str
    answer_s: int
    """How long an answer may take, in seconds."""


class CertificateQuestion(Response):
    """A server's certificate, which is in order as far as the system is concerned: will it do (4.6)?"""

    question: str
    """Where the answer goes: PUT /v1/jobs/{job_id}/certificate-validation/{question}."""
    job_id: str
    file: int
    """Index of the file that is being transferred."""
    server: str
    """`host:port`"""
    certificate: str
    """DER, in base64."""
    chain: list[str]
    """What the server sent along, each DER in base64, in its order; without the certificate itself."""


class ValidationOver(Response):
    """Nobody asks this program any more."""

    reason: Literal["replaced", "cleared", "ended"]
    """Another program was set, or none; or the job has ended or changed hands."""


class CertificateAnswer(Request):
    """Null accepts the certificate; the name of an error refuses it."""

    error: str | None = None
    message: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    """Why it is refused, for people."""
