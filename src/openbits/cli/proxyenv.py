"""The proxies of the caller's shell, as the proxy settings of a job (architecture, section 4, rule 7).

The service never reads http_proxy and its like; `bits get` may, as any client, and says so.  The variables are read as
curl reads them: http_proxy only in lower case, because a web server's CGI sets HTTP_PROXY from a request.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Final

from openbits.cli.text import safe
from openbits.errors import BitsError

_VARIABLES: Final = {
    "http": ("http_proxy", "all_proxy", "ALL_PROXY"),
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
}
_SPOKEN: Final = ("http", "https", "socks5", "socks4a")
"""With socks5 names are the proxy's to resolve here, which curl calls socks5h."""
_PROXY: Final = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*)://)?(?:[^/]*(@))?([^/@\s]+)/?")

_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?(?::[0-9]{1,5})?")


def settings_of(environment: Mapping[str, str], urls: Iterable[str]) -> tuple[dict[str, str], str]:
    """Return the settings for a job with these URLs, and a line that says so; both empty where no variable matters.

    Raises E_INVALIDARG for a variable that cannot be followed: to ignore it would lead past the proxy.
    """
    wanted = {url.partition(":")[0].lower() for url in urls}
    items, has_password = [], False
    for protocol, names in _VARIABLES.items():
        name = next((name for name in names if environment.get(name, "").strip()), None)
        if name is None or protocol not in wanted:
            continue
        item, had_user = _item(name, environment[name].strip())
        items.append(f"{protocol}={item}")
        has_password = has_password or had_user
    if not items:
        return {}, ""
    bypass = bypass_of(environment.get("no_proxy") or environment.get("NO_PROXY") or "")
    settings = {"proxy_usage": "override", "proxy_list": " ".join(items)}
    line = f"bits: by the environment of this shell the job goes through {safe(' '.join(items))}"
    if bypass:
        settings["proxy_bypass_list"] = bypass
        line += f", but not to {safe(bypass)}"
    if has_password:
        line += " (without the user name and password: they do not belong into a list that others may see)"
    return settings, f"{line}; --no-proxy-env leaves that out"


def _item(name: str, value: str) -> tuple[str, bool]:
    match = _PROXY.fullmatch(value)
    # Not shown: it may hold a password.
    if match is None:
        raise BitsError("E_INVALIDARG", f"{name} names no proxy: correct it, or leave it out with --no-proxy-env")
    scheme, user, place = (match[1] or "http").lower(), match[2], match[3]
    scheme = "socks5" if scheme == "socks5h" else scheme
    if scheme not in _SPOKEN:
        raise BitsError(
            "E_INVALIDARG",
            f"{name} names a proxy of the kind {scheme}, and only {', '.join(_SPOKEN)} are supported: "
            "leave it out with --no-proxy-env",
        )
    return (place if scheme == "http" else f"{scheme}://{place}"), user is not None


def bypass_of(no_proxy: str) -> str:
    """Return no_proxy as a bypass list (J23): a name there means all names below it too."""
    items = []
    for item in no_proxy.replace(",", " ").split():
        name = item.removeprefix("*.").removeprefix(".")
        if item == "*" or _is_address(name):
            items.append(name if item != "*" else "*")
        elif _NAME.fullmatch(name):
            items += [name, f"*.{name}"]
        # What is neither is no exception: the proxy is asked.
    return " ".join(items)


def _is_address(text: str) -> bool:
    host = text.rpartition("]")[0].removeprefix("[") if text.startswith("[") else text
    for candidate in (host, host.partition(":")[0]):
        try:
            ipaddress.ip_network(candidate, strict=False)
        except ValueError:
            continue
        return True
    return False
