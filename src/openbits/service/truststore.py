"""By whom servers are believed on this machine, for `bits doctor` (H1, I13): nothing of it is decided here."""

from __future__ import annotations

from openbits.paths import trust_store

_BEGIN = b"-----BEGIN CERTIFICATE-----"
_TOKENS = "keys of client certificates are read from files: the TLS library here cannot use tokens (PKCS#11)"


def trust_health() -> tuple[bool, str]:
    """Whether the trust store that workers use can be read, and what it is."""
    path = trust_store()
    try:
        with open(path, "rb") as file:
            count = file.read().count(_BEGIN)
    except OSError as error:
        return False, f"{path}: {error.strerror}: no https server is believed; install ca-certificates"
    if not count:
        return False, f"{path} names nobody: no https server is believed; install ca-certificates"
    return True, f"{count} authorities in {path}; {_TOKENS}"
