"""`bits proxy`: which proxies the jobs of an account use (I20, B42, B43)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from openbits.cli.common import Context, F, json_option, pass_context, print_json, say, socket_option
from openbits.cli.text import safe
from openbits.client import calls

USAGES: Final = ("no_proxy", "autodetect", "manual_proxy", "autoscript")
_NOTHING: Final = ("none", "null", '""')
_TAKES: Final = {"no_proxy": 0, "autodetect": 0, "manual_proxy": 2, "autoscript": 1}


class Account(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click only
    """The account of --account; completion offers the built-in ones."""

    name = "account"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:  # noqa: ARG002
        """Offer the accounts that stand for many."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only a shell that completes needs it

        names = ("LOCALSYSTEM", "NETWORKSERVICE", "LOCALSERVICE")
        return [CompletionItem(name) for name in names if name.startswith(incomplete.upper())]


def account_option(function: F) -> F:
    """Add --account."""
    return click.option(
        "--account",
        metavar="NAME",
        type=Account(),
        help="LOCALSYSTEM, NETWORKSERVICE or LOCALSERVICE, or an account's name (administrators only). Else: you.",
    )(function)


@click.group(no_args_is_help=False)
def proxy() -> None:
    """Show and set which proxies the jobs of an account use.

    A job whose proxy_usage is preconfig, as it is at first, uses its account's own settings; without any, a service
    account uses those of NETWORKSERVICE or LOCALSERVICE, and a person those of the desktop (GNOME's). The service
    never looks at http_proxy and its like. A job obeys the settings that are kept when it starts or is resumed.

    Proxies are written [protocol=][protocol://]server[:port] and tried in order; those with http= or https= are for
    URLs of that protocol. Hosts to reach without a proxy are names, *.domain, addresses, networks (10.0.0.0/8), or
    <local> for names without a dot.
    """


@proxy.command()
@account_option
@json_option
@socket_option
@pass_context
def show(context: Context, account: str | None, as_json: bool) -> None:
    """Show an account's settings, those of usages that are not active included."""
    settings = context.session().perform(calls.account_proxy_settings(account))
    if as_json:
        print_json(settings)
    else:
        say("\n".join(lines_of(settings)))


@proxy.command("set")
@click.argument("usage", metavar="|".join(USAGES), type=click.Choice(USAGES, case_sensitive=False))
@click.argument("values", metavar="[LIST [BYPASS]] | [URL]", nargs=-1)
@click.option("--bypass", metavar="HOSTS", help="Hosts that manual_proxy reaches without a proxy; 'none' for no such.")
@account_option
@json_option
@socket_option
@pass_context
def set_settings(
    context: Context, *, usage: str, values: tuple[str, ...], bypass: str | None, account: str | None, as_json: bool
) -> None:
    """Switch to a usage.

    manual_proxy takes a list of proxies and one of hosts to reach without, each divided by spaces (or commas, for the
    proxies) and hence in quotes; a proxy is HOST:PORT, or https://, socks5:// or socks4a://HOST:PORT. autoscript takes
    the URL of a script (PAC). What is left out is kept from an earlier call, and the values of the other usages are
    kept too.
    """
    given = parameters(usage.lower(), values, bypass)
    settings = context.session().perform(calls.set_account_proxy_settings(account, given))
    tell(settings, as_json=as_json)


@proxy.command()
@account_option
@json_option
@socket_option
@pass_context
def reset(context: Context, account: str | None, as_json: bool) -> None:
    """Forget an account's settings, the values of all usages included."""
    settings = context.session().perform(calls.reset_account_proxy_settings(account))
    tell(settings, as_json=as_json)


def parameters(usage: str, values: tuple[str, ...], bypass: str | None) -> dict[str, str]:
    """Return what the words after a usage mean. Raises click.UsageError."""
    if len(values) > _TAKES[usage]:
        raise click.UsageError(f"{usage} takes {('no value', 'one value', 'two values')[_TAKES[usage]]}: quote lists")
    given = {"usage": usage}
    if bypass is not None:
        if usage != "manual_proxy" or len(values) == 2:
            raise click.UsageError("--bypass belongs to manual_proxy, once")
        given["bypass_list"] = _list(bypass)
    if usage == "autoscript" and values:
        given["script_url"] = values[0]
    elif values:
        given["proxy_list"] = " ".join(values[0].replace(",", " ").split())
        if len(values) == 2:
            given["bypass_list"] = _list(values[1])
    return given


def _list(text: str) -> str:
    return "" if text.lower() in _NOTHING else text


def tell(settings: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what a call has come to."""
    if as_json:
        print_json(settings)
    else:
        say(f"{safe(settings['account'])}: {summary(settings)}; jobs that start from now on obey it")


def summary(settings: Mapping[str, Any]) -> str:
    """Return the active usage with its values."""
    match settings["usage"]:
        case None:
            return "nothing is stored"
        case "manual_proxy":
            bypass = f", not for {safe(settings['bypass_list'])}" if settings["bypass_list"] else ""
            return f"manual_proxy {safe(settings['proxy_list'])}{bypass}"
        case "autoscript":
            return f"autoscript {safe(settings['script_url'])}"
        case usage:
            return str(usage)


def lines_of(settings: Mapping[str, Any]) -> list[str]:
    """Return the settings of an account as `name: value` lines."""
    return [
        f"account:     {safe(settings['account'])}",
        f"usage:       {settings['usage'] or 'nothing is stored'}",
        f"proxy list:  {safe(settings['proxy_list']) or 'none'}",
        f"bypass list: {safe(settings['bypass_list']) or 'none'}",
        f"script URL:  {safe(settings['script_url']) or 'none'}",
        f"applies to:  {safe(settings['applies_to'])}",
    ]
