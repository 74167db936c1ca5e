"""How a job speaks HTTP and TLS, in BITS's terms, for both clients (see `objects`)."""

from __future__ import annotations

from openbits.client import calls, certificates
from openbits.client.calls import Call
from openbits.client.certificates import (
    CertificateStoreLocation,
    ClientCertificate,
    SecurityFlags,
    client_certificate_from,
)
from openbits.client.network_identity import member
from openbits.client.objects import result_of
from openbits.client.operations import operation
from openbits.client.values import Result
from openbits.errors import BitsError


class HttpOptionsOperations:
    """IBackgroundCopyJobHttpOptions to IBackgroundCopyJobHttpOptions3 (inventory H1-H4, H7, H10)."""

    _id: str

    @operation
    def set_client_certificate_by_id(
        self, store_location: CertificateStoreLocation | str, store_name: str, cert_hash: bytes | str
    ) -> Call[Result]:
        """Present the client certificate with this SHA-1 (H1): 20 bytes, or 40 hexadecimal digits; the owner's alone.

        `store_name` is MY, CA, ROOT, SPC or a name of one's own. Raises E_NOTIMPL (no such location),
        RPC_X_BAD_STUB_DATA (no SHA-1), BG_E_STRING_TOO_LONG, ERROR_FILE_NOT_FOUND (there is no such store),
        CRYPT_E_NOT_FOUND (it has no such certificate), E_ACCESSDENIED, BG_E_INVALID_STATE.
        """
        location = member(CertificateStoreLocation, store_location, "E_NOTIMPL").value
        sha1 = cert_hash.hex() if isinstance(cert_hash, bytes) else cert_hash
        return certificates.set_client_certificate(self._id, location, store_name, sha1=sha1).then(result_of)

    @operation
    def set_client_certificate_by_name(
        self, store_location: CertificateStoreLocation | str, store_name: str, subject_name: str
    ) -> Call[Result]:
        """Present the first client certificate of a store whose subject has this part (H2); the owner's alone.

        Several parts of a subject are divided by commas, in the reverse of the order in which it is displayed.
        Raises what `set_client_certificate_by_id` raises, and E_INVALIDARG for an empty subject.
        """
        location = member(CertificateStoreLocation, store_location, "E_NOTIMPL").value
        return certificates.set_client_certificate(self._id, location, store_name, subject=subject_name).then(result_of)

    @operation
    def remove_client_certificate(self) -> Call[Result]:
        """Present no client certificate (H3); S_FALSE when there is none."""
        return certificates.remove_client_certificate(self._id).then(result_of)

    @operation
    def get_client_certificate(self) -> Call[ClientCertificate]:
        """Return which client certificate is presented (H4).

        Raises RPC_X_BAD_STUB_DATA when there is none, and for everybody but the owner.
        """
        return certificates.client_certificate(self._id).then(client_certificate_from)

    @operation
    def set_security_flags(self, flags: SecurityFlags | int) -> Call[Result]:
        """Set how servers' certificates are checked, and where redirects may lead (H7); 0 when nothing is said.

        A run that is under way begins again by the new rules. Raises E_NOTIMPL for bits that do not exist.
        """
        return calls.change_settings(self._id, {"security_flags": int(flags)}).then(result_of)

    @operation
    def get_security_flags(self) -> Call[SecurityFlags]:
        """Return how servers' certificates are checked, and where redirects may lead (H7)."""
        return calls.job(self._id).then(lambda data: SecurityFlags(data["settings"]["security_flags"]))

    @operation
    def set_http_method(self, method: str) -> Call[Result]:
        """Set with which method files are fetched (H10), before the first Resume; GET when nothing is said.

        With another method the job is FOREGROUND for good, every error is final, and Resume begins from zero. Raises
        BG_E_READ_ONLY_PROPERTY_AFTER_RESUME, BG_E_NOT_SUPPORTED_WITH_CUSTOM_HTTP_METHOD (dynamic content, byte ranges),
        E_INVALIDARG (no method, or HEAD, CONNECT, TRACE), E_NOTIMPL (an upload: see `upload_protocol`).
        """
        if not method:
            raise BitsError("E_INVALIDARG", "there is no HTTP method: name one, such as POST")
        return calls.change_settings(self._id, {"http_method": method}).then(result_of)

    @operation
    def get_http_method(self) -> Call[str]:
        """Return the method (H10): GET for downloads and BITS_POST for uploads when none was set."""
        return calls.job(self._id).then(
            lambda data: str(data["settings"]["http_method"] or ("GET" if data["type"] == "download" else "BITS_POST"))
        )
