"""libcurl handles, with everything that holds for each of their requests.

The rule: what is not set here or by a request is libcurl's default and nobody's environment: no proxy, no ~/.netrc, no
~/.curlrc, and the system's trust store, never one that a package brings along.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import pycurl

from openbits.core.proxylist import Proxy
from openbits.version import __version__
from openbits.worker.asking import BELIEF, Belief, Request

USER_AGENT: Final = f"OpenBITS/{__version__}"
_BUFFER_BYTES: Final = 512 * 1024
_UPLOAD_BUFFER_BYTES: Final = 512 * 1024
"""What libcurl asks for at once; more brings nothing, 64 KiB cost half as much again."""
_SUPPRESS_CONNECT_HEADERS: Final = 265
"""CURLOPT_SUPPRESS_CONNECT_HEADERS, for which pycurl has no name: a proxy's answer to CONNECT is not the server's."""
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_CA_CACHE_TIMEOUT: Final = 321
"""CURLOPT_CA_CACHE_TIMEOUT, for which pycurl has no name."""
_CA_CACHE_S: Final = 10
"""An authority that was added to, or taken from, the machine's store counts so soon. libcurl would take a day; to read
the store costs some 10 ms, too much for each connection."""


def make_handle(ca_file: str, connect_timeout_s: int) -> Any:
    """Return a handle for requests."""
    curl = pycurl.Curl()
    curl.setopt(pycurl.NOSIGNAL, 1)
    # Proxies never come from the environment, nor credentials from ~/.netrc (architecture, section 1): an
    # empty text is no proxy and no exception; an option that is not set would be looked up in the environment.
    curl.setopt(pycurl.PROXY, "")
    curl.setopt(pycurl.NOPROXY, "")
    curl.setopt(_SUPPRESS_CONNECT_HEADERS, 1)
    curl.setopt(pycurl.NETRC, pycurl.NETRC_IGNORED)
    curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
    curl.setopt(pycurl.FOLLOWLOCATION, 0)
    # What an owner writes is what the server reads (D6): libcurl would resolve dots in paths.
    curl.setopt(pycurl.PATH_AS_IS, 1)
    curl.setopt(pycurl.BUFFERSIZE, _BUFFER_BYTES)
    curl.setopt(pycurl.USERAGENT, USER_AGENT)
    curl.setopt(pycurl.TCP_KEEPALIVE, 1)
    curl.setopt(pycurl.CONNECTTIMEOUT, connect_timeout_s)
    curl.setopt(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
    curl.setopt(pycurl.PROXY_SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
    curl.setopt(pycurl.PROXY_SSL_VERIFYPEER, 1)
    curl.setopt(pycurl.PROXY_SSL_VERIFYHOST, 2)
    # A file that is not there ends every secure connection; left out, a default of the library's would take its place.
    curl.setopt(pycurl.CAINFO, ca_file)
    curl.setopt(pycurl.PROXY_CAINFO, ca_file)
    curl.setopt(_CA_CACHE_TIMEOUT, _CA_CACHE_S)
    set_belief(curl, BELIEF)
    return curl


def set_piece(curl: Any, most_bytes: int) -> None:
    """Say how much the handle reads from a connection at once; 0: as much as is good."""
    curl.setopt(pycurl.BUFFERSIZE, most_bytes or _BUFFER_BYTES)


def set_method(
    curl: Any,
    request: Request,
    *,
    on_read: Callable[[int], bytes | int],
    on_seek: Callable[[int, int], int],
    is_slow: bool = False,
) -> None:
    """Say how the next request asks, and where its body comes from.

    A connection that is slow on purpose carries one request at a time: of several, all but one would be sent ahead.
    """
    curl.setopt(pycurl.FRESH_CONNECT, 1 if request.fresh else 0)
    is_single = is_slow or request.method or request.connection
    curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1 if is_single else pycurl.CURL_HTTP_VERSION_2TLS)
    if request.method in ("", "GET", "HEAD"):
        is_head = request.head or request.method == "HEAD"
        curl.unsetopt(pycurl.CUSTOMREQUEST)
        curl.setopt(pycurl.NOBODY, 1 if is_head else 0)
        if not is_head:
            curl.setopt(pycurl.HTTPGET, 1)
        if request.download_method:
            curl.setopt(pycurl.CUSTOMREQUEST, request.download_method)
        return
    curl.setopt(pycurl.NOBODY, 0)
    curl.setopt(pycurl.UPLOAD, 1)
    curl.setopt(pycurl.CUSTOMREQUEST, request.method)
    # Said even when it is 0, as the upload protocol demands of every packet.
    curl.setopt(pycurl.INFILESIZE_LARGE, request.outgoing.length if request.outgoing is not None else 0)
    curl.setopt(pycurl.UPLOAD_BUFFERSIZE, _UPLOAD_BUFFER_BYTES)
    curl.setopt(pycurl.READFUNCTION, on_read)
    curl.setopt(pycurl.SEEKFUNCTION, on_seek)


def proxy_address(proxy: Proxy) -> str:
    """As libcurl has it, which resolves names itself for `socks5`, and leaves that to the proxy by another word."""
    return str(proxy).replace("socks5:", "socks5h:", 1)


def set_proxy_lines(curl: Any, lines: tuple[str, ...]) -> None:
    """Say what the proxy is told with each request from now on, and nobody else."""
    if lines:
        curl.setopt(pycurl.PROXYHEADER, [line.encode("utf-8", "surrogateescape") for line in lines])
    else:
        # An empty list would change nothing: the next proxy would be told what was for the last.
        curl.unsetopt(pycurl.PROXYHEADER)


def log_on_to_proxy(curl: Any, login: tuple[str, str] | None) -> None:
    """Give the handle the user name and the password for a SOCKS proxy, or take them from it."""
    if login is None:
        curl.unsetopt(pycurl.PROXYUSERNAME)
        curl.unsetopt(pycurl.PROXYPASSWORD)
    else:
        curl.setopt(pycurl.PROXYUSERNAME, login[0].encode())
        curl.setopt(pycurl.PROXYPASSWORD, login[1].encode())


def show_tunnels(curl: Any, *, are_shown: bool) -> None:
    """Say whether a proxy's answer to CONNECT is handed over, before the server's, or alone where there is none."""
    curl.setopt(_SUPPRESS_CONNECT_HEADERS, 0 if are_shown else 1)


def set_belief(curl: Any, belief: Belief) -> None:
    """Say whom the handle believes; a handle that has had keys cannot do without any more."""
    curl.setopt(pycurl.SSL_VERIFYPEER, 1 if belief.verifies_chain else 0)
    curl.setopt(pycurl.SSL_VERIFYHOST, 2 if belief.verifies_name else 0)
    if belief.keys:
        curl.setopt(pycurl.PINNEDPUBLICKEY, ";".join(f"sha256//{key}" for key in belief.keys))
    if belief.authorities:
        curl.setopt(pycurl.CAINFO_BLOB, belief.authorities)
    if belief.identity is not None:
        curl.setopt(pycurl.SSLCERTTYPE, "PEM")
        curl.setopt(pycurl.SSLKEYTYPE, "PEM")
        curl.setopt(pycurl.SSLCERT_BLOB, belief.identity.certificate)
        curl.setopt(pycurl.SSLKEY_BLOB, belief.identity.key)


def set_probe(curl: Any, *, wants_status: bool) -> None:
    """Let the handle only connect, and tell what the server shows."""
    curl.setopt(pycurl.CONNECT_ONLY, 1)
    # A session that is taken up again shows no chain.
    curl.setopt(pycurl.SSL_SESSIONID_CACHE, 0)
    curl.setopt(pycurl.OPT_CERTINFO, 1)
    curl.setopt(pycurl.SSL_VERIFYSTATUS, 1 if wants_status else 0)


def shown_chain(curl: Any) -> tuple[str, ...]:
    """The certificates that the server showed on a probe's connection, in PEM, its own first."""
    found = []
    for fields in curl.getinfo(pycurl.INFO_CERTINFO):
        for name, value in fields:
            if name == "Cert":
                found += _PEM.findall(value)
    return tuple(found)
