"""Answers to Digest challenges (RFC 7616, and RFC 2069 where a server knows no better).

Pure: the random part comes in.  The rule: the password itself never leaves; a nonce is counted by one `Session`, so
that no count goes out twice; and what a challenge asks for that is not known here is not answered at all.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from openbits.core.challenges import Challenge

_ALGORITHMS: Final[dict[str, tuple[str, int]]] = {
    "sha-512-256": ("sha512_256", 3),
    "sha-256": ("sha256", 2),
    "md5": ("md5", 1),
}
"""Name in hashlib, and how strong it is: the strongest of several Digest challenges is answered."""
_TEXT_LIMIT: Final = 4096
"""A nonce, an opaque or a realm that is longer than this was made to be a burden."""
_UNSENDABLE: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestChallenge:
    """A Digest challenge that can be answered."""

    realm: str
    nonce: str
    algorithm: str
    """As the server wrote it; empty where it named none."""
    hash_name: str
    strength: int
    is_session: bool
    qop: str
    """`auth`, or empty for RFC 2069."""
    opaque: str | None
    is_stale: bool
    hashes_user: bool
    is_utf8: bool


def read_digest(challenge: Challenge) -> DigestChallenge | None:
    """Understand a challenge; None when it cannot be answered."""
    found = challenge.parameters
    realm, nonce = found.get("realm"), found.get("nonce")
    if challenge.scheme != "digest" or realm is None or not nonce:
        return None
    if any(len(found.get(name, "")) > _TEXT_LIMIT for name in ("realm", "nonce", "opaque")):
        return None
    name = found.get("algorithm", "")
    plain, dash, end = name.lower().rpartition("-")
    is_session = bool(dash) and end == "sess"
    known = _ALGORITHMS.get((plain if is_session else name.lower()) if name else "md5")
    if known is None or not _is_available(known[0]):
        return None
    # What protects the body too (auth-int) would need all of it before its first byte goes: `auth` is what is spoken.
    offered = {word.strip().lower() for word in found["qop"].split(",")} if "qop" in found else set()
    if offered - {""} and "auth" not in offered:
        return None
    return DigestChallenge(
        realm=_as_sent(realm),
        nonce=_as_sent(nonce),
        algorithm=name,
        hash_name=known[0],
        strength=known[1],
        is_session=is_session,
        qop="auth" if "auth" in offered else "",
        opaque=_as_sent(found["opaque"]) if "opaque" in found else None,
        is_stale=found.get("stale", "").lower() == "true",
        hashes_user=found.get("userhash", "").lower() == "true",
        is_utf8=found.get("charset", "").lower() == "utf-8",
    )


def strongest_digest(challenges: tuple[Challenge, ...]) -> DigestChallenge | None:
    """The Digest challenge to answer: the strongest algorithm, of equals the first."""
    readable = [found for found in map(read_digest, challenges) if found is not None]
    return max(readable, key=lambda found: found.strength, default=None)


def _is_available(hash_name: str) -> bool:
    """Whether this machine lets the algorithm be used: MD5 is forbidden by some rules (FIPS)."""
    try:
        hashlib.new(hash_name)
    except ValueError:
        return False
    return True


@dataclass(slots=True, kw_only=True)
class Session:
    """One nonce, and how often it was used."""

    challenge: DigestChallenge
    user_name: str = field(repr=False)
    password: str = field(repr=False)
    make_cnonce: Callable[[], str] = field(repr=False)
    _count: int = 0
    _session_secret: str = field(default="", repr=False)
    _session_cnonce: str = ""

    def answer(self, method: str, uri: str) -> str:
        """Return what stands after `Authorization: ` for the next request."""
        asked = self.challenge
        self._count += 1
        # Of a session the first client nonce stays, because it is a part of the secret.
        cnonce = self._session_cnonce or self.make_cnonce()
        secret = self._secret(cnonce)
        request = self._hash(f"{method}:{uri}")
        middle = f"{asked.nonce}:{self._count:08x}:{cnonce}:{asked.qop}" if asked.qop else asked.nonce
        parts = [
            *self._user_parts(),
            f"realm={_quoted(asked.realm)}",
            f"nonce={_quoted(asked.nonce)}",
            f"uri={_quoted(uri)}",
            f'response="{self._hash(f"{secret}:{middle}:{request}")}"',
        ]
        if asked.algorithm:
            parts.append(f"algorithm={asked.algorithm}")
        if asked.opaque is not None:
            parts.append(f"opaque={_quoted(asked.opaque)}")
        if asked.qop:
            parts.append(f"qop={asked.qop}")
            parts.append(f"nc={self._count:08x}")
        if asked.qop or asked.is_session:
            parts.append(f'cnonce="{cnonce}"')
        if asked.hashes_user:
            parts.append("userhash=true")
        return "Digest " + ", ".join(parts)

    def _secret(self, cnonce: str) -> str:
        asked = self.challenge
        if self._session_secret:
            return self._session_secret
        secret = self._hash(f"{self.user_name}:{asked.realm}:{self.password}")
        if asked.is_session:
            secret = self._session_secret = self._hash(f"{secret}:{asked.nonce}:{cnonce}")
            self._session_cnonce = cnonce
        return secret

    def _user_parts(self) -> list[str]:
        asked = self.challenge
        if asked.hashes_user:
            return [f'username="{self._hash(f"{self.user_name}:{asked.realm}")}"']
        if asked.is_utf8 and not self.user_name.isascii() and _is_text(self.user_name):
            return [f"username*=UTF-8''{_percent(self.user_name)}"]
        return [f"username={_quoted(self.user_name)}"]

    def _hash(self, text: str) -> str:
        digest: Any = hashlib.new(self.challenge.hash_name)
        digest.update(_bytes(text))
        return str(digest.hexdigest())


def is_same_nonce(session: Session, challenge: DigestChallenge) -> bool:
    """Whether a challenge brings nothing new to a session."""
    return hmac.compare_digest(_bytes(session.challenge.nonce), _bytes(challenge.nonce))


def can_be_sent(user_name: str) -> bool:
    """Whether a user name can stand in a header line."""
    return _UNSENDABLE.search(user_name) is None


def _is_text(user_name: str) -> bool:
    """Whether a user name is text at all: one of ~/.netrc or a URL may be bytes that are no UTF-8."""
    try:
        user_name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _as_sent(text: str) -> str:
    """Header text is one character for each byte; so it gets back to the very bytes that the server has."""
    return text.encode("latin-1", "replace").decode("utf-8", "surrogateescape")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _percent(text: str) -> str:
    return "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"%{byte:02X}" for byte in text.encode("utf-8"))
