"""`bits proxy`, and what `bits get` makes of a shell's proxy variables (I20, B42, B43; architecture 4, rule 7)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openbits.cli.main import run
from openbits.cli.proxyenv import bypass_of, settings_of
from openbits.core.proxylist import parse_table
from openbits.errors import BitsError
from support.fake_api import FakeApi, Reply, problem

Capture = pytest.CaptureFixture[str]


def state(**changes: Any) -> dict[str, Any]:
    return {
        "account": "anna",
        "usage": "manual_proxy",
        "proxy_list": "p:1 q:2",
        "bypass_list": "<local>",
        "script_url": "http://w/pac",
        "applies_to": "jobs of anna",
        **changes,
    }


def bits(api: FakeApi, *arguments: str) -> int:
    return run(["--socket", api.path, *arguments])


# --- bits proxy ------------------------------------------------------------------------------------


def test_b43_show_tells_the_parameters_of_every_usage(capsys: Capture) -> None:
    with FakeApi({"GET /v1/proxy-settings": Reply(json=state(bypass_list="\x1b[2J"))}) as api:
        assert bits(api, "proxy", "show") == 0
        out = capsys.readouterr().out
        assert "usage:       manual_proxy" in out
        assert "script URL:  http://w/pac" in out
        assert "\x1b" not in out
        assert bits(api, "proxy", "show", "--account", "LocalSystem", "--json") == 0
        assert json.loads(capsys.readouterr().out)["proxy_list"] == "p:1 q:2"
        assert api.targets()[-1] == "GET /v1/proxy-settings?account=LocalSystem"
    with FakeApi({"GET /v1/proxy-settings": Reply(json=state(usage=None, proxy_list=""))}) as api:
        assert bits(api, "proxy", "show") == 0
        assert "usage:       nothing is stored" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["no_proxy"], {"usage": "no_proxy"}),
        (["AUTODETECT"], {"usage": "autodetect"}),
        (["manual_proxy"], {"usage": "manual_proxy"}),
        (["manual_proxy", "p:1 q:2"], {"usage": "manual_proxy", "proxy_list": "p:1 q:2"}),
        (["manual_proxy", "p:1,q:2"], {"usage": "manual_proxy", "proxy_list": "p:1 q:2"}),
        (
            ["manual_proxy", "p:1", "<local> *.org"],
            {"usage": "manual_proxy", "proxy_list": "p:1", "bypass_list": "<local> *.org"},
        ),
        (["manual_proxy", "p:1", "NULL"], {"usage": "manual_proxy", "proxy_list": "p:1", "bypass_list": ""}),
        (["manual_proxy", "--bypass", "none"], {"usage": "manual_proxy", "bypass_list": ""}),
        (["autoscript", "http://w/pac"], {"usage": "autoscript", "script_url": "http://w/pac"}),
    ],
)
def test_b42_set_sends_what_was_said_and_nothing_else(words: list[str], wanted: dict[str, str]) -> None:
    with FakeApi({"PUT /v1/proxy-settings": Reply(json=state())}) as api:
        assert bits(api, "proxy", "set", *words) == 0
        assert api.requests[-1].json == wanted


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["set"],
        ["set", "sometimes"],
        ["set", "no_proxy", "p:1"],
        ["set", "autoscript", "http://w", "x"],
        ["set", "manual_proxy", "p:1", "q:2", "r:3"],
        ["set", "no_proxy", "--bypass", "x"],
        ["set", "manual_proxy", "p:1", "x", "--bypass", "y"],
        ["show", "anna"],
    ],
)
def test_wrong_usage_asks_the_service_nothing(words: list[str], capsys: Capture) -> None:
    with FakeApi({}) as api:
        assert bits(api, "proxy", *words) == 2
        assert api.requests == []
    assert capsys.readouterr().err.startswith("bits: E_INVALIDARG")


def test_set_and_reset_say_what_came_of_it(capsys: Capture) -> None:
    routes = {
        "PUT /v1/proxy-settings": Reply(json=state()),
        "DELETE /v1/proxy-settings": Reply(json=state(usage="no_proxy", account="LOCALSYSTEM")),
    }
    with FakeApi(routes) as api:
        assert bits(api, "proxy", "set", "manual_proxy", "p:1 q:2", "<local>") == 0
        assert bits(api, "proxy", "reset", "--account", "LOCALSYSTEM") == 0
        out = capsys.readouterr().out.splitlines()
        assert out[0].startswith("anna: manual_proxy p:1 q:2, not for <local>; ")
        assert out[1].startswith("LOCALSYSTEM: no_proxy; ")
        assert bits(api, "proxy", "reset", "--json") == 0
        assert json.loads(capsys.readouterr().out)["usage"] == "no_proxy"


def test_a_refusal_is_one_line_and_its_exit_status(capsys: Capture) -> None:
    refusal = problem("E_ACCESSDENIED", 0x80070005, "only root", status=403, exit_code=4)
    with FakeApi({"PUT /v1/proxy-settings": refusal}) as api:
        assert bits(api, "proxy", "set", "no_proxy", "--account", "LOCALSYSTEM") == 4
    assert capsys.readouterr().err == "bits: E_ACCESSDENIED (0x80070005): only root\n"


def test_j22_lists_of_a_job_may_be_none_again() -> None:
    answer = Reply(json={"result": "S_OK", "hresult": 0, "job": {}})
    job = "11112222-2222-3333-4444-555555555555"
    with FakeApi({f"PATCH /v1/jobs/{job}": answer}) as api:
        assert bits(api, "set", job, "proxy_usage=override", "proxy_list=http=p:1 q:2", "proxy_bypass_list=none") == 0
        assert api.requests[-1].json == {
            "proxy_usage": "override",
            "proxy_list": "http=p:1 q:2",
            "proxy_bypass_list": None,
        }


# --- the variables of a shell ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "urls", "listed", "bypass"),
    [
        ({"http_proxy": "http://p:3128"}, ["http://o/"], "http=p:3128", None),
        ({"http_proxy": "http://p:3128/"}, ["http://o/", "https://o/"], "http=p:3128", None),
        ({"http_proxy": "p"}, ["HTTP://o/"], "http=p", None),
        ({"HTTPS_PROXY": "https://p:1"}, ["https://o/"], "https=https://p:1", None),
        ({"https_proxy": "p:1", "HTTPS_PROXY": "q:1"}, ["https://o/"], "https=p:1", None),
        ({"all_proxy": "p:1"}, ["http://o/", "https://o/"], "http=p:1 https=p:1", None),
        ({"all_proxy": "socks5h://p:1"}, ["https://o/"], "https=socks5://p:1", None),
        ({"ALL_PROXY": "p:1", "http_proxy": "q:2"}, ["http://o/", "https://o/"], "http=q:2 https=p:1", None),
        ({"http_proxy": "http://[::1]:3128"}, ["http://o/"], "http=[::1]:3128", None),
        ({"http_proxy": "p:1", "no_proxy": "a.org"}, ["http://o/"], "http=p:1", "a.org *.a.org"),
        ({"http_proxy": "p:1", "NO_PROXY": "*"}, ["http://o/"], "http=p:1", "*"),
    ],
)
def test_variables_become_an_override(
    environment: dict[str, str], urls: list[str], listed: str, bypass: str | None
) -> None:
    settings, line = settings_of(environment, urls)
    assert settings["proxy_usage"] == "override"
    assert settings["proxy_list"] == listed
    assert settings.get("proxy_bypass_list") == bypass
    assert line.startswith("bits: ")
    assert "--no-proxy-env" in line
    parse_table(settings["proxy_list"], settings.get("proxy_bypass_list", ""))


@pytest.mark.parametrize(
    ("environment", "urls"),
    [
        ({}, ["http://o/"]),
        ({"http_proxy": ""}, ["http://o/"]),
        ({"HTTP_PROXY": "p:1"}, ["http://o/"]),  # a web server's CGI sets it from a request
        ({"http_proxy": "p:1"}, ["https://o/"]),
        ({"http_proxy": "p:1", "https_proxy": "p:1"}, ["file:///x"]),
        ({"no_proxy": "x"}, ["http://o/"]),
    ],
)
def test_without_a_variable_that_matters_the_job_is_left_alone(environment: dict[str, str], urls: list[str]) -> None:
    assert settings_of(environment, urls) == ({}, "")


def test_a_password_of_a_variable_goes_nowhere() -> None:
    settings, line = settings_of({"http_proxy": "http://anna:s3cr@t@p:1"}, ["http://o/"])
    assert settings["proxy_list"] == "http=p:1"
    assert "s3cr" not in line + str(settings)
    assert "anna" not in line
    assert "user name and password" in line


@pytest.mark.parametrize("value", ["socks4://p:1080", "http://", "http://anna:s3cret@", "p q", "ftp://p"])
def test_a_variable_that_cannot_be_followed_is_an_error_and_not_ignored(value: str) -> None:
    with pytest.raises(BitsError) as caught:
        settings_of({"http_proxy": value}, ["http://o/"])
    assert caught.value.name == "E_INVALIDARG"
    assert "--no-proxy-env" in caught.value.message
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize(
    ("no_proxy", "wanted"),
    [
        ("", ""),
        ("localhost,127.0.0.1", "localhost *.localhost 127.0.0.1"),
        (".corp.example, *.org", "corp.example *.corp.example org *.org"),
        ("10.0.0.0/8 ::1", "10.0.0.0/8 ::1"),
        ("host:8080", "host:8080 *.host:8080"),
        ("10.0.0.1:80,[::1]:80", "10.0.0.1:80 [::1]:80"),
        ("192.168.*,a*b,,.", ""),
    ],
)
def test_no_proxy_means_names_and_everything_below_them(no_proxy: str, wanted: str) -> None:
    assert bypass_of(no_proxy) == wanted
    parse_table("p:1", wanted)


@pytest.mark.parametrize("leaves_out", [False, True])
def test_get_says_in_one_line_that_it_uses_the_variables(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, leaves_out: bool, tmp_path: Any
) -> None:
    monkeypatch.setenv("http_proxy", "http://p:3128")
    monkeypatch.setenv("no_proxy", "localhost")
    more = ["--no-proxy-env"] if leaves_out else []
    with FakeApi({"POST /v1/jobs": Reply(status=201, json={"id": "1"})}) as api:
        assert bits(api, "get", "--async", "http://o/f", "-d", str(tmp_path), *more) == 0
        settings = api.requests[-1].json["settings"]
    captured = capsys.readouterr()
    assert captured.out == "1\n"
    if leaves_out:
        assert captured.err == ""
        assert "proxy_usage" not in settings
    else:
        assert captured.err.count("\n") == 1
        assert "http=p:3128" in captured.err
        assert (settings["proxy_usage"], settings["proxy_list"]) == ("override", "http=p:3128")
        assert settings["proxy_bypass_list"] == "localhost *.localhost"
