"""What `bits get` makes of its arguments, before any service is asked."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.cli import targets
from openbits.cli.jobs import parse_range
from openbits.cli.properties import parse_assignments
from openbits.errors import BitsError


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://h/a/b.iso", "b.iso"),
        ("http://h/a/b.iso?x=/y#/z", "b.iso"),
        ("http://h", "index.html"),
        ("http://h?x=1", "index.html"),
        ("http://h/", "index.html"),
        ("http://h/a/", "index.html"),
        ("http://h/a%20b%C3%A4", "a bä"),
        ("http://h/%2e%2e", "index.html"),
        ("http://h/..", "index.html"),
        ("http://h/..%2f..%2fetc%2fpasswd", ".._.._etc_passwd"),
        ("http://h/a%00b%0ac%1b", "a_b_c_"),
        ("http://h/%zz", "%zz"),
        ("http://h/%FF", os.fsdecode(b"\xff")),
        ("file:///srv/a.txt", "a.txt"),
        ("http://h/" + "x" * 300 + ".tar", "x" * 251 + ".tar"),
    ],
)
def test_file_names_come_from_urls(url: str, name: str) -> None:
    assert targets.file_name(url) == name


@given(st.text())
def test_a_file_name_is_always_one_harmless_segment(rest: str) -> None:
    raw = os.fsencode(targets.file_name("http://h/" + rest.encode("utf-8", "ignore").decode()))
    assert 0 < len(raw) <= 255
    assert b"/" not in raw
    assert raw not in (b".", b"..")
    assert all(octet >= 0x20 for octet in raw)


def choose(
    *urls: str, output: str | None = None, directory: str | None = None, lines: tuple[bytes, ...] = ()
) -> list[str]:
    return [target.path for target in targets.choose_targets(urls, output=output, directory=directory, lines=lines)]


def test_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D7: the service takes absolute paths only; the client knows the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    base = str(tmp_path)
    assert choose("http://h/a") == [f"{base}/a"]
    assert choose("http://h/a", output="b") == [f"{base}/b"]
    assert choose("http://h/a", output="../b") == [f"{tmp_path.parent}/b"]
    assert choose("http://h/a", output="sub") == [f"{base}/sub/a"]
    assert choose("http://h/a", output="other/") == [f"{base}/other/a"]
    assert choose("http://h/a", "http://h/b", directory="sub") == [f"{base}/sub/a", f"{base}/sub/b"]


def test_a_list_names_urls_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = (b"# comment", b"", b"http://h/a\r", b"http://h/b\tsub/c", b"http://h/d\t/abs/\xff", b"http://h/e\t")
    assert choose(lines=lines, directory="dir") == [
        f"{tmp_path}/dir/a",
        f"{tmp_path}/dir/sub/c",
        os.fsdecode(b"/abs/\xff"),
        f"{tmp_path}/dir/e",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"urls": []}, "no URL"),
        ({"urls": ["example.org/x"]}, "did you mean 'https://example.org/x'"),
        ({"urls": ["localhost:80/x"]}, "did you mean 'https://localhost:80/x'"),
        ({"urls": ["/srv/x"]}, "did you mean 'file:///srv/x'"),
        ({"urls": ["http://h/a", "http://h/b"], "output": "x"}, "-o names one file"),
        ({"urls": ["http://h/a"], "output": "x", "directory": "y"}, "one of them"),
        ({"urls": ["http://h/a", "http://g/a"]}, "two URLs would become"),
        ({"urls": ["http://h/a", "http://h/a"]}, "two URLs would become"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(arguments: dict[str, object], words: str) -> None:
    options = {"output": None, "directory": None, **arguments}
    with pytest.raises(click.UsageError, match=words):
        targets.choose_targets(**options)  # type: ignore[arg-type]  # the table above holds the right types


def test_a_current_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(click.UsageError, match="does not exist any more"):
        choose("http://h/a")
    monkeypatch.chdir(tmp_path)


def test_headers_and_checksums_are_checked() -> None:
    assert targets.checked_headers(["A: b", "C:d"]) == "A: b\r\nC:d\r\n"
    for bad in ("no colon", ": empty", "A: b\r\nEvil: 1"):
        with pytest.raises(click.UsageError):
            targets.checked_headers([bad])
    assert targets.checked_checksum("sha256:" + "AB" * 32) == "sha256:" + "ab" * 32
    for bad in ("md5:" + "a" * 32, "sha256:12", "sha512:" + "a" * 64, "a" * 64):
        with pytest.raises(click.UsageError):
            targets.checked_checksum(bad)


def test_ranges() -> None:
    """J41."""
    assert parse_range("0:5") == (0, 5)
    assert parse_range("7:eof") == (7, -1)
    for bad in ("5", "-1:5", "1:", ":5", "a:b", "1:-1", "²:1"):
        with pytest.raises(click.UsageError):
            parse_range(bad)


def test_properties_are_read_by_their_type() -> None:
    """J14–J20, J53, J60–J64."""
    words = ["Priority=HIGH", "minimum-retry-delay=60", "dynamic_content=yes", "umask=027", "max_download_size=none"]
    words += ["description=a=b", "cost_flags=0x800000FF", "custom_headers=A: b\nC: d"]
    assert parse_assignments(words) == {
        "priority": "high",
        "minimum_retry_delay": 60,
        "dynamic_content": True,
        "umask": 0o027,
        "max_download_size": None,
        "description": "a=b",
        "cost_flags": 0x800000FF,
        "custom_headers": "A: b\r\nC: d\r\n",
    }


@pytest.mark.parametrize(
    "word", ["priority", "priority=urgent", "minimum_retry_delay=soon", "dynamic_content=2", "umask=9"]
)
def test_values_of_the_wrong_type_are_usage_errors(word: str) -> None:
    with pytest.raises(click.UsageError):
        parse_assignments([word])


def test_an_unknown_property_has_its_own_error() -> None:
    with pytest.raises(BitsError) as caught:
        parse_assignments(["colour=red"])
    assert caught.value.name == "BG_E_UNKNOWN_PROPERTY_ID"
