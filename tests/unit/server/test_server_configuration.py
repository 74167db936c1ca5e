"""The server's own settings: the command line before the file, and nothing unknown passed over."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from openbits.server.configuration import Address, Configuration, parse_listen, read_configuration
from openbits.server.settings import Notification
from openbits.server.tables import SettingsError, Unsuitable


def read(tmp_path: pathlib.Path, text: str, top: dict[str, Any] | None = None, **properties: Any) -> Configuration:
    path = tmp_path / "bits-server.toml"
    path.write_text(text)
    return read_configuration(str(path), top=top or {}, root_properties=properties)


def test_a_root_is_enough() -> None:
    found = read_configuration(None, top={"root": "/srv"}, root_properties={})
    assert found.listen == (Address(host="127.0.0.1", port=8080),)
    assert found.uploads.find((b"any",)).settings.upload_enabled
    assert not found.proxies.networks
    assert found.downloads


def test_a_file_that_has_directories_says_where_uploads_go(tmp_path: pathlib.Path) -> None:
    found = read(tmp_path, 'root = "/srv"\n[directory."/in"]\nupload_enabled = true\n')
    assert found.uploads.find((b"in", b"x")).settings.upload_enabled
    assert not found.uploads.find((b"out",)).settings.upload_enabled


def test_the_command_line_goes_before_the_file(tmp_path: pathlib.Path) -> None:
    text = """
root = "/srv"
listen = ["0.0.0.0:80", "[::]:80"]
[directory."/"]
upload_enabled = true
session_timeout = 100
maximum_upload_size = 5
[publish]
group = "staff"
socket = "/run/a"
"""
    found = read(tmp_path, text)
    assert found.listen == (Address(host="0.0.0.0", port=80), Address(host="::", port=80))
    found = read(
        tmp_path,
        text,
        {"root": "/other", "listen": "localhost:1", "publish": {"socket": "/run/b"}},
        session_timeout=7,
        server_notification_type="value",
        server_notification_url="http://x/",
    )
    assert (found.uploads.root, found.listen) == ("/other", (Address(host="localhost", port=1),))
    assert (found.control_socket, found.publish_group) == ("/run/b", "staff")
    settings = found.uploads.find(()).settings
    assert (settings.session_timeout, settings.maximum_upload_size) == (7, 5)
    assert settings.server_notification_type is Notification.VALUE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listne = 1", "did you mean listen"),
        ("rot = 1", "did you mean root"),
        ('root = "/srv"\n[limits]\nmax_conections = 5', "did you mean max_connections"),
        ('root = "/srv"\n[limits]\nstall_timeout_s = 0', "stall_timeout_s"),
        ('root = "/srv"\n[proxy]\ntrusted = "127.0.0.1"', "list of addresses"),
        ('root = "/srv"\n[proxy]\ntrusted = ["10.0.0.1/8"]', "list of addresses"),
        ('root = "/srv"\n[proxy]\nuser_header = "X Y"', "name of a header"),
        ('root = "/srv"\ntls_key = "/k"', "belong together"),
        ('root = "/srv"\nlisten = "80"', "HOST:PORT"),
        ('root = "/srv"\nlisten = []', "HOST:PORT"),
        ('root = "/srv"\nproxy = 5', "table"),
        ("downloads = true", "root is missing"),
        ('root = "/srv"\ndownloads = "no"', "true or false"),
    ],
)
def test_what_is_not_understood_is_an_error(tmp_path: pathlib.Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read(tmp_path, text)


def test_proxies_and_limits(tmp_path: pathlib.Path) -> None:
    proxy = '[proxy]\ntrusted = ["127.0.0.1", "fd00::/8"]\nuser_header = "X-User"\n'
    found = read(tmp_path, f'root = "/srv"\n{proxy}[limits]\nidle_timeout_s = 5\n')
    assert found.proxies.names_users
    assert found.proxies.user_header == "x-user"
    assert found.limits.idle_timeout_s == 5.0


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0),
        (":80", "", 80),
        ("[::1]:8080", "::1", 8080),
        ("localhost:65535", "localhost", 65535),
    ],
)
def test_where_to_listen(text: str, host: str, port: int) -> None:
    assert parse_listen(text) == Address(host=host, port=port)


@pytest.mark.parametrize(
    "text", ["", "80", "host", "host:", "host:65536", "::1:80", "http://host:80", "[::1]", "host:80x"]
)
def test_where_nobody_can_listen(text: str) -> None:
    with pytest.raises(Unsuitable):
        parse_listen(text)
