"""NTLM handshakes, bare or inside SPNEGO, from a user name and a password (J35).

pyspnego does the arithmetic; libcurl as it is published cannot, and is not asked to.  The rule: NTLMv2 only, and never
with what an environment variable or a file says.  All functions compute for a while and are called in a helper thread.
"""

from __future__ import annotations

import logging
from typing import Final

import spnego

from openbits.worker.gss import NoToken, Trouble

_MOST_STEPS: Final = 4
"""More have no meaning in NTLM, nor in SPNEGO around it."""
_SELF_TEST_NAME: Final = "TEST\\test"

# It would write tokens down, were anybody ever to ask for everything.
logging.getLogger("spnego").setLevel(logging.CRITICAL)


class NtlmHandshake:
    """One handshake: `step` takes what the other side said last, nothing at first, and returns the next token."""

    def __init__(self, *, user_name: str, password: str, host: str, is_in_spnego: bool) -> None:
        if not password or not user_name:
            # What is left out would be looked for in the environment.
            raise NoToken(Trouble.OTHER, "NTLM needs a user name and a password that are not empty")
        if UNAVAILABLE:
            raise NoToken(Trouble.OTHER, UNAVAILABLE)
        self._context = _context(user_name, password, host, is_in_spnego=is_in_spnego)
        self._steps = 0

    @property
    def is_greeting(self) -> bool:
        """Whether so far only a greeting was said, which cannot be enough."""
        return self._steps <= 1

    @property
    def may_go_on(self) -> bool:
        """Whether the other side may have something to say to what was said last."""
        return self._steps < _MOST_STEPS

    def step(self, token: bytes) -> bytes:
        """Return the next token. Raises NoToken."""
        try:
            answer = self._context.step(token or None)
        except Exception as error:  # noqa: BLE001 - what a hostile server says makes it raise anything at all
            raise NoToken(Trouble.OTHER, f"the handshake failed ({type(error).__name__})") from None
        self._steps += 1
        if not answer:
            raise NoToken(Trouble.OTHER, "the handshake ended before it was over")
        return bytes(answer)


def _context(user_name: str, password: str, host: str, *, is_in_spnego: bool) -> spnego.ContextProxy:
    # Nothing of the connection is to be signed or encrypted by it; the account must not be looked up anywhere.
    return spnego.client(
        user_name,
        password,
        hostname=host,
        service="HTTP",
        protocol="negotiate" if is_in_spnego else "ntlm",
        options=spnego.NegotiateOptions.use_negotiate if is_in_spnego else spnego.NegotiateOptions.use_ntlm,
        context_req=spnego.ContextReq.default,
    )


def _self_test() -> str:
    """Whether this machine lets it be computed: MD4, MD5 and RC4 are forbidden by some rules (FIPS).

    It also brings everything in that is imported late, as long as that is possible.
    """
    try:
        for is_in_spnego in (False, True):
            client = _context(_SELF_TEST_NAME, "test", "localhost", is_in_spnego=is_in_spnego)
            server = _SERVER_CHALLENGE if not is_in_spnego else None
            client.step(None)
            if server is not None:
                client.step(server)
    except Exception as error:  # noqa: BLE001 - whatever it is, NTLM cannot be spoken
        return f"NTLM cannot be spoken on this machine: {type(error).__name__}: {error}"
    return ""


_SERVER_CHALLENGE: Final = bytes.fromhex(
    "4e544c4d53535000020000000800080038000000358289e20102030405060708000000000000000018001800400000000a00614a0000000f"
    "5400450053005400020008005400450053005400070008000090d336b734c30100000000"
)
"""A challenge like any server's, for the self-test."""
UNAVAILABLE: Final = _self_test()
"""Why NTLM cannot be spoken here; empty where it can."""
