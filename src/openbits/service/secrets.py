"""What owners entrust to the service, sealed before it is written down: AES-256-GCM, bound to its place (I14).

The rule: nothing that was sealed is opened but for the run of the job that it belongs to, or for its owner to see;
moved to another job or another place in the store, it cannot be opened at all.
"""

from __future__ import annotations

import base64
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from openbits.errors import BitsError

KEY_BYTES: Final = 32
_VERSION: Final = "v1:"
PLAIN: Final = "plain:"
"""What an earlier version of the store held unsealed; sealed when the service starts."""
_NONCE_BYTES: Final = 12


class Secrets:
    """Seals and opens texts."""

    def __init__(self, key: bytes, source: str) -> None:
        self._cipher = AESGCM(key)
        self.source = source
        """Where the key comes from, for people."""

    def __repr__(self) -> str:
        return f"<Secrets {self.source}>"

    def health(self) -> tuple[bool, str]:
        """Whether the key is where nobody else can read it, and where that is, for people."""
        text = f"sealed by AES-256-GCM with {self.source}"
        if not self.source.startswith("/"):
            return True, text
        text = f"sealed by AES-256-GCM with the key in {self.source}"
        try:
            found = os.stat(self.source)
        except FileNotFoundError:
            return False, f"{text}, which is gone: put it back before the next start, or all credentials are lost"
        except OSError as error:
            return False, f"{text}, which cannot be looked at: {error.strerror}"
        if found.st_mode & 0o077 or found.st_uid not in (0, os.geteuid()):
            return False, f"{text}, which others may read: chmod 600 it, and set all credentials again"
        return True, f"{text}, which only {'root' if found.st_uid == 0 else 'this account'} can read"

    def seal(self, text: str, place: str) -> str:
        """Return a text that only `open` with the same place can read."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, text.encode("utf-8", "surrogatepass"), place.encode())
        return _VERSION + base64.b64encode(nonce + sealed).decode("ascii")

    def open(self, sealed: str, place: str) -> str:
        """Return what was sealed for this place. Raises BG_E_INVALID_CREDENTIALS."""
        if sealed.startswith(PLAIN):
            return sealed.removeprefix(PLAIN)
        try:
            raw = base64.b64decode(sealed.removeprefix(_VERSION), validate=True)
            return self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], place.encode()).decode(
                "utf-8", "surrogatepass"
            )
        except (ValueError, InvalidTag):
            raise BitsError(
                "BG_E_INVALID_CREDENTIALS",
                "what the job's owner entrusted to the service cannot be opened with the present key: "
                "set credentials and custom headers again, then resume the job",
            ) from None


def headers_place(job_id: str) -> str:
    """Where the custom headers of a job stand."""
    return f"{job_id}/headers"


def credential_place(job_id: str, target: str, scheme: str) -> str:
    """Where a user name and a password stand."""
    return f"{job_id}/credential/{target}/{scheme}"


def userinfo_place(job_id: str, index: int) -> str:
    """Where the user name and password of a remote name stand."""
    return f"{job_id}/userinfo/{index}"
