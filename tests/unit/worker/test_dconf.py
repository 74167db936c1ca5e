"""dconf's databases, as dconf makes them and as an enemy would: read right, or refused (architecture 4, rule 7)."""

from __future__ import annotations

import functools
import os
import struct
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbits.core.proxylist import InvalidProxyInfo
from openbits.worker import dconf
from openbits.worker.dconf import DamagedDatabase, Table, database_paths, hash_of, parse_variant, read_keys
from openbits.worker.desktop import DesktopProxies, read_desktop, understand
from support.desktops import compile_database, manual, needs_dconf

UID = 4_000_000_000
"""Nobody's, so that /run/dconf/user has nothing for it."""


def desktop(home: Path, values: dict[str, str]) -> DesktopProxies:
    compile_database(str(home / ".config/dconf/user"), values)
    return read_desktop(uid=UID, home=str(home), etc=str(home / "etc"))


def proxies(found: DesktopProxies, url: str) -> list[str]:
    return [] if found.table is None else [str(proxy) for proxy in found.table.proxies_for(url)]


# --- what GNOME means -----------------------------------------------------------------------------


@needs_dconf
def test_a_manual_proxy_is_for_both_protocols_and_not_for_this_machine(tmp_path: Path) -> None:
    found = desktop(tmp_path, manual("proxy.example", 3128))
    assert proxies(found, "http://o.example/") == ["http://proxy.example:3128"]
    assert proxies(found, "https://o.example/") == ["http://proxy.example:3128"]
    for url in ("http://localhost/", "http://127.3.4.5/", "http://[::1]/"):
        assert proxies(found, url) == []


@needs_dconf
def test_https_may_have_a_proxy_of_its_own_or_none(tmp_path: Path) -> None:
    own = {"system/proxy/https/host": "'secure.example'", "system/proxy/https/port": "8443"}
    assert proxies(desktop(tmp_path, manual("p", 1) | own), "https://o/") == ["http://secure.example:8443"]
    alone = {"system/proxy/use-same-proxy": "false"}
    assert proxies(desktop(tmp_path, manual("p", 1) | alone), "https://o/") == []


@needs_dconf
def test_hosts_that_are_ignored_are_those_that_gnome_ignores(tmp_path: Path) -> None:
    ignored = "['corp.example', '*.lan', '10.0.0.0/8', '192.168.*', 'host:81', '', 'ü']"
    found = desktop(tmp_path, manual("p", 1, ignore_hosts=ignored))
    direct = [
        "http://corp.example/",
        "http://www.corp.example/",
        "http://x.lan/",
        "http://10.9.8.7/",
        "http://host:81/",
    ]
    assert [proxies(found, url) for url in direct] == [[]] * len(direct)
    for url in ("http://localhost/", "http://192.168.1.1/", "http://host/"):
        assert proxies(found, url) == ["http://p:1"]
    assert proxies(desktop(tmp_path, manual("p", 1, ignore_hosts="@as []")), "http://localhost/") == ["http://p:1"]


@needs_dconf
def test_a_socks_proxy_is_for_the_protocols_that_have_no_other(tmp_path: Path) -> None:
    socks = {"system/proxy/mode": "'manual'", "system/proxy/socks/host": "'s'", "system/proxy/socks/port": "1081"}
    assert proxies(desktop(tmp_path, socks), "https://h/") == ["socks5://s:1081"]
    both = desktop(tmp_path, socks | manual("p", 1, use_same_proxy="false"))
    assert [proxies(both, f"{scheme}://h/") for scheme in ("http", "https")] == [["http://p:1"], ["socks5://s:1081"]]


@needs_dconf
@pytest.mark.parametrize("values", [{}, {"system/proxy/mode": "'none'"}, {"system/proxy/mode": "'manual'"}])
def test_a_desktop_without_proxies_is_none(tmp_path: Path, values: dict[str, str]) -> None:
    assert desktop(tmp_path, {"org/x/y": "1"} | values) == DesktopProxies()


@needs_dconf
def test_a_script_or_detection_is_said_and_not_taken_for_none(tmp_path: Path) -> None:
    assert desktop(tmp_path, {"system/proxy/mode": "'auto'"}).script_url == ""
    script = {"system/proxy/mode": "'auto'", "system/proxy/autoconfig-url": "'http://w/pac'"}
    assert desktop(tmp_path, script).script_url == "http://w/pac"


@needs_dconf
@pytest.mark.parametrize(
    "values",
    [
        {"system/proxy/mode": "'sometimes'"},
        {"system/proxy/mode": "3"},
        {"system/proxy/mode": "{'a': 1}"},
        {"system/proxy/mode": "'manual'", "system/proxy/socks/host": "'s'"},
        manual("p", 0),
        manual("p", 70_000),
        manual("p q", 1),
        manual("p=q", 1),
        manual("user@p", 1),
        manual("p", 1) | {"system/proxy/http/port": "'x'"},
        manual("p", 1) | {"system/proxy/https/host": "'q'"},
        manual("p", 1, ignore_hosts="'x'"),
        manual("p", 1, use_same_proxy="1"),
    ],
)
def test_what_cannot_be_followed_is_an_error_and_never_a_direct_connection(
    tmp_path: Path, values: dict[str, str]
) -> None:
    with pytest.raises(InvalidProxyInfo):
        desktop(tmp_path, values)


def test_an_ipv6_proxy_is_written_with_brackets() -> None:
    values: dict[str, dconf.Value] = {
        "/system/proxy/mode": "manual",
        "/system/proxy/http/host": "2001:db8::1",
        "/system/proxy/http/port": 3128,
    }
    assert proxies(understand(values), "http://o/") == ["http://[2001:db8::1]:3128"]


# --- which databases ------------------------------------------------------------------------------


def test_without_a_profile_there_is_the_accounts_own_database_only(tmp_path: Path) -> None:
    home, etc = str(tmp_path / "home"), str(tmp_path / "etc")
    assert database_paths(home=home, uid=UID, etc=etc) == [f"{home}/.config/dconf/user"]
    assert read_keys(["/system/proxy/mode"], home=home, uid=UID, etc=etc) is None


@needs_dconf
def test_the_administrators_databases_count_where_the_account_says_nothing_or_may_say_nothing(tmp_path: Path) -> None:
    home, etc = str(tmp_path / "home"), str(tmp_path / "etc")
    os.makedirs(f"{etc}/profile")
    Path(f"{etc}/profile/user").write_text(
        "# ours\nuser-db:user\nsystem-db:local # theirs\nsystem-db:../../x\nservice-db:keyfile/user\n", encoding="ascii"
    )
    assert [path.removeprefix(str(tmp_path)) for path in database_paths(home=home, uid=UID, etc=etc)] == [
        "/home/.config/dconf/user",
        "/etc/db/local",
    ]
    compile_database(f"{etc}/db/local", manual("company", 1))
    assert proxies(read_desktop(uid=UID, home=home, etc=etc), "http://o/") == ["http://company:1"]
    compile_database(f"{home}/.config/dconf/user", {"system/proxy/http/host": "'mine'", "system/proxy/http/port": "2"})
    assert proxies(read_desktop(uid=UID, home=home, etc=etc), "http://o/") == ["http://mine:2"]
    compile_database(f"{etc}/db/local", manual("company", 1), locks=["system/proxy/http/host"])
    assert proxies(read_desktop(uid=UID, home=home, etc=etc), "http://o/") == ["http://company:2"]


# --- hostile files ----------------------------------------------------------------------------------


def put(home: Path, data: bytes) -> None:
    path = home / ".config/dconf/user"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def read(home: Path) -> DesktopProxies:
    return read_desktop(uid=UID, home=str(home), etc=str(home / "etc"))


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 100,
        b"GVariant",
        b"GVariant" + struct.pack("<IIII", 0, 0, 24, 8),
        b"GVariant" + struct.pack("<IIII", 0, 0, 24, 0xFFFFFFFF),
        b"GVariant" + struct.pack("<IIII", 1, 0, 24, 24),
        b"GVariant" + struct.pack("<IIIIII", 0, 0, 24, 32, 0xFFFFFFFF, 0xFFFFFFFF),
        b"\0" * 100,
    ],
)
def test_what_is_no_database_is_an_error(tmp_path: Path, data: bytes) -> None:
    put(tmp_path, data)
    with pytest.raises(InvalidProxyInfo):
        read(tmp_path)


def test_an_empty_file_is_an_empty_database(tmp_path: Path) -> None:
    put(tmp_path, b"")
    assert read(tmp_path) == DesktopProxies()


def test_a_pipe_a_directory_a_device_or_a_giant_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / ".config/dconf/user"
    path.parent.mkdir(parents=True)
    begun = time.monotonic()
    os.mkfifo(path)
    with pytest.raises(InvalidProxyInfo, match="regular"):
        read(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises((InvalidProxyInfo, OSError)):
        read(tmp_path)
    path.rmdir()
    path.symlink_to("/dev/zero")
    with pytest.raises(InvalidProxyInfo, match="regular"):
        read(tmp_path)
    path.unlink()
    with open(path, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(InvalidProxyInfo, match="large"):
        read(tmp_path)
    assert time.monotonic() - begun < 5


def test_a_database_that_dconf_is_just_replacing_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, b"\0Variant")
    opened = []
    really_open = os.open

    def replacing_open(path: str, flags: int) -> int:
        fd = really_open(path, flags)
        opened.append(path)
        if path.endswith("/user") and len(opened) > 1:
            # What dconf does: the old file says that it is gone, and its name has another one by now.
            path_now = tmp_path / ".config/dconf/new"
            path_now.write_bytes(b"")
            path_now.rename(tmp_path / ".config/dconf/user")
        return fd

    monkeypatch.setattr(os, "open", replacing_open)
    assert read(tmp_path) == DesktopProxies()


def item(hashed: int, parent: int, key: tuple[int, int], kind: bytes, place: tuple[int, int]) -> bytes:
    return struct.pack("<IIIHccII", hashed, parent, key[0], key[1], kind, b"\0", *place)


def test_names_that_lead_in_a_circle_end(tmp_path: Path) -> None:
    """Two items that are each other's parent, with parts that are empty or never used up."""
    key = b"/system/proxy/mode"
    for part in (b"", key):
        items_at = 24 + 8 + 4
        keys_at = items_at + 2 * 24
        items = b"".join(item(hash_of(key), other, (keys_at, len(part)), b"v", (keys_at, keys_at)) for other in (1, 0))
        body = struct.pack("<III", 0, 1, 0) + items
        put(tmp_path, b"GVariant" + struct.pack("<IIII", 0, 0, 24, 24 + len(body)) + body + part)
        assert read(tmp_path) == DesktopProxies()


@functools.cache
def real_database() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "user")
        compile_database(path, manual("proxy.example", 3128, ignore_hosts="['a', 'b.c']") | {"org/x/y": "uint32 7"})
        return Path(path).read_bytes()


KEYS = ("/system/proxy/mode", "/system/proxy/http/host", "/system/proxy/http/port", "/system/proxy/ignore-hosts")


def try_all(data: bytes) -> None:
    try:
        table = Table.of_file(data)
        inner = table.table(".locks")
    except DamagedDatabase:
        return
    for key in KEYS:
        for one in (table, inner):
            if one is None:
                continue
            try:
                value = one.value(key)
            except DamagedDatabase:
                continue
            assert value is None or isinstance(value, str | int | bool | list)


@needs_dconf
@settings(max_examples=600, deadline=1000)
@given(st.lists(st.tuples(st.integers(0, 2000), st.sampled_from([0, 1, 8, 0x7F, 0x80, 0xFF, 0x76])), max_size=8))
def test_a_database_with_bytes_changed_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(real_database())
    for at, byte in changes:
        data[at % len(data)] = byte
    try_all(bytes(data))


@needs_dconf
@settings(max_examples=300, deadline=1000)
@given(st.integers(0, 400), st.integers(0, 2**32 - 1), st.integers(0, 3000))
def test_a_database_with_numbers_changed_or_cut_off_is_read_or_refused(at: int, number: int, length: int) -> None:
    data = bytearray(real_database())
    struct.pack_into("<I", data, at * 4 % (len(data) - 4), number)
    try_all(bytes(data))
    try_all(bytes(data[:length]))


@settings(max_examples=300, deadline=1000)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_database_or_refused(tail: bytes) -> None:
    try_all(tail)
    try_all(b"GVariant" + tail)
    try_all(b"GVariant" + struct.pack("<IIII", 0, 0, 24, 24 + len(tail)) + tail)


@settings(max_examples=500, deadline=1000)
@given(st.binary(max_size=60), st.sampled_from([b"s", b"as", b"b", b"i", b"u", b"v", b"a{sv}", b"", b"("]))
def test_any_bytes_are_a_value_or_refused(content: bytes, kind: bytes) -> None:
    try:
        value = parse_variant(content + b"\0" + kind)
    except DamagedDatabase:
        return
    assert isinstance(value, str | int | bool | list)


def test_values_are_read_in_either_byte_order() -> None:
    assert parse_variant(b"\x38\x0c\0\0\0i") == 3128
    assert parse_variant(b"\0\0\x0c\x38\0i", "big") == 3128
    assert parse_variant(b"\xff\xff\xff\xff\0i") == -1
    assert parse_variant(b"a\0bc\0\x02\x05\0as") == ["a", "bc"]
    assert parse_variant(b"\0as") == []
    long = [f"host{number}.example" for number in range(40)]
    joined = b"".join(name.encode() + b"\0" for name in long)
    ends = [len(name) + 1 for name in long]
    offsets = b"".join(struct.pack("<H", sum(ends[: at + 1])) for at in range(len(ends)))
    assert parse_variant(joined + offsets + b"\0as") == long
