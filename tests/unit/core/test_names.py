"""D6, D7, H5, J14, J15, J40, J41, M1: what may be asked for."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.core import names
from openbits.core.model import TO_EOF, ByteRange
from openbits.errors import BitsError


def refusal(function: Callable[..., object], *arguments: object) -> BitsError:
    with pytest.raises(BitsError) as caught:
        function(*arguments)
    return caught.value


def outcome(function: Callable[..., object], *arguments: object) -> str:
    """The name of the error that a call raises, or S_OK."""
    try:
        function(*arguments)
    except BitsError as error:
        return error.name
    return "S_OK"


# --- D6: remote names ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "HTTPS://EXAMPLE.org:443/",
        "http://user:secret@example.org/a%20b?q=1&r[]=2#part",
        "http://127.0.0.1:8080/file",
        "http://[::1]:80/x",
        "http://[fe80::1%25eth0]/x",
        "http://example.org./trailing-dot",
        "http://under_score.example/x",
        "http://bücher.example/liste",
        "http://xn--bcher-kva.example/liste",
        "http://host/" + "s" * 255,
        "http://host/?" + "q" * 2000,
        "file:///srv/data/file",
        "file://localhost/srv/data/file%20name",
    ],
)
def test_remote_names_that_are_taken(url: str) -> None:
    names.check_remote_name(url)


@pytest.mark.parametrize(
    ("url", "about"),
    [
        ("", "empty"),
        ("example.org/file", "http://"),
        ("ftp://example.org/file", "http://"),
        ("http:/example.org/file", "http://"),
        ("\\\\server\\share\\file", "http://"),
        ("http:///path", "no host"),
        ("http://user@/path", "no host"),
        ("http://:80/path", "no host"),
        ("http://host/a b", "' '"),
        ("http://host/a\nb", "'\\n'"),
        ("http://host/a\\b", "'\\\\'"),
        ("http://host/ü", "'\\xfc'"),
        ("http://host/\udcff", "'\\udcff'"),
        ("http://host/100%", "%25"),
        ("http://host/%zz", "%25"),
        ("http://ho st/", "host"),
        ("http://host\n/", "host"),
        ("http://-host/", "host"),
        ("http://a..b/", "host"),
        ("http://" + "a" * 64 + ".org/", "host"),
        ("http://host%00/", "host"),
        ("http://\udcff.org/", "international"),
        ("http://" + "ü" * 80 + ".org/", "international"),
        # The former standard of international names reads "strasse" here, today's xn--strae-oqa.
        ("http://straße.example/", "xn--"),
        ("http://STRAẞE.example/", "xn--"),
        ("http://βόλος.example/", "xn--"),
        ("http://नी\u200d.example/", "xn--"),
        ("http://a\u200cb.example/", "xn--"),
        ("http://Ꭰ.example/", "xn--"),
        ("http://ᴬ.example/", "xn--"),
        ("http://\u3164.example/", "xn--"),
        ("http://א1a.example/", "international"),
        ("http://b\u3002\u3002c/", "host"),
        ("http://127.1/", "IPv4"),
        ("http://0x7f000001/", "IPv4"),
        ("http://2130706433/", "IPv4"),
        ("http://127.0.0.010/", "IPv4"),
        ("http://256.0.0.1/", "IPv4"),
        ("http://[::1/", "]"),
        ("http://[::1]x/", "]"),
        ("http://[::g]/", "IPv6"),
        ("http://[::1%eth0]/", "IPv6"),
        ("http://[::1%25]/", "zone"),
        ("http://host:/", "port"),
        ("http://host:0/", "port"),
        ("http://host:65536/", "port"),
        ("http://host:http/", "port"),
        ("http://host:+80/", "port"),
        ("http://host:٨٠/", "port"),
        ("http://host/" + "s" * 256, "segment"),
        ("http://host/" + "a/" * 1095, "2200"),
        ("file://server/share/file", "this machine"),
        ("file://localhost:80/file", "this machine"),
        ("file://me@localhost/file", "this machine"),
        ("file:relative", "http://"),
        ("file:///", "full path"),
        ("file:///dir/", "full path"),
        ("file:///a%00b", "NUL"),
        ("file:///a?b", "%3F"),
        ("file:///" + "%C3%BC" * 130, "longer"),
    ],
)
def test_remote_names_that_are_refused(url: str, about: str) -> None:
    error = refusal(names.check_remote_name, url)
    assert error.name == "E_INVALIDARG"
    assert about in error.message


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.Example", "xn--bcher-kva.Example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("пример.испытание.", "xn--e1afmkfd.xn--80akhbyknj4f."),
        ("مثال.إختبار", "xn--mgbh0fb.xn--kgbechtv"),
        ("💩.example", "xn--ls8h.example"),
        ("❤\ufe0f.example", "xn--qei.example"),
        ("１２７.0.0.1", "127.0.0.1"),
        ("xn--strae-oqa.example", "xn--strae-oqa.example"),
    ],
)
def test_international_hosts_as_they_are_asked_for(host: str, expected: str) -> None:
    """D6: both standards lead to the same host, or the name is refused."""
    url = f"https://{host}:8443/liste"
    names.check_remote_name(url)
    assert names.request_url(url) == f"https://{expected}:8443/liste"
    assert names.origin_of(url) == f"https://{expected.lower()}:8443"


def test_no_character_leads_to_another_host_than_today_s_standard() -> None:
    """D6: what is taken is what UTS 46, as browsers read it, says; the rest has to be written in ASCII."""
    idna = pytest.importorskip("idna")
    taken = 0
    for code in (*range(0x80, 0x3100), *range(0xA640, 0xAC10), *range(0xF900, 0x10000), *range(0x1F000, 0x1FB00)):
        host = f"a{chr(code)}.example"
        if outcome(names.check_server, host) != "S_OK":
            continue
        try:
            expected = idna.encode(host, uts46=True, transitional=False).decode("ascii")
        except idna.IDNAError:
            continue
        taken += 1
        assert names.check_server(host) == expected, hex(code)
    assert taken > 8_000


@pytest.mark.parametrize("server", ["host", "host:80", "a.b.:1", "127.0.0.1", "[::1]", "[fe80::1%25eth0]:80"])
def test_servers_that_a_url_may_name(server: str) -> None:
    assert names.check_server(server) == server
    assert names.check_server(server.partition("]")[0] + "]:" if "[" in server else server.partition(":")[0] + ":")


@pytest.mark.parametrize("server", ["", ":80", "host:0", "host:65536", "host:x", "a b", "user@host", "[::1", "[::1]x"])
def test_servers_that_no_url_may_name(server: str) -> None:
    assert refusal(names.check_server, server).name == "E_INVALIDARG"


def test_a_remote_name_of_2200_characters_is_the_longest() -> None:
    url = "http://host/?" + "q" * (2200 - len("http://host/?"))
    names.check_remote_name(url)
    assert "2201" in refusal(names.check_remote_name, url + "q").message


@given(st.text())
def test_any_text_is_taken_or_refused_with_a_sentence(text: str) -> None:
    for url in (text, "http://" + text, "http://host" + text, "file://" + text):
        functions: list[Callable[[str], object]] = [names.check_remote_name, names.needs_network, names.request_url]
        for function in functions:
            assert outcome(function, url) in ("S_OK", "E_INVALIDARG")
        names.public_url(url)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/?#@"), min_size=8))
def test_a_password_is_never_shown(password: str) -> None:
    url = f"http://user:{password}@host:port/file"
    assert names.public_url(url) == "http://***@host:port/file"
    error = refusal(names.check_remote_name, url)
    assert password not in error.message


def test_public_url_leaves_an_at_sign_of_the_path_alone() -> None:
    assert names.public_url("https://registry.example/@scope/pkg") == "https://registry.example/@scope/pkg"


def test_request_url_has_an_ascii_host() -> None:
    assert names.request_url("HTTP://u:p@Bücher.example:81/a?b#c") == "http://u:p@xn--bcher-kva.example:81/a?b#c"
    assert names.request_url("http://[::1]/") == "http://[::1]/"


def test_file_path_gives_the_bytes_that_were_percent_encoded() -> None:
    assert names.file_path("file:///a%20b/%FF") == "/a b/\udcff"
    assert refusal(names.file_path, "http://host/x").name == "E_INVALIDARG"


@pytest.mark.parametrize(
    "url",
    [
        "file:///x",
        "http://localhost/x",
        "http://LOCALHOST.:1/x",
        "http://app.localhost/x",
        "http://127.9.9.9/x",
        "http://[::1]/x",
        "http://[::ffff:127.0.0.1]/x",
        "http://0.0.0.0/x",
        "http://[::]/x",
        "http://MyBox/x",
        "http://１２７.0.0.1/x",
    ],
)
def test_what_stays_on_this_machine_needs_no_network(url: str) -> None:
    assert not names.needs_network(url, frozenset({"mybox"}))


@pytest.mark.parametrize("url", ["http://example.org/", "http://10.0.0.1/", "http://[fe80::1%25lo]/", "http://mybox/"])
def test_what_leads_out_of_this_machine_needs_a_network(url: str) -> None:
    assert names.needs_network(url)


# --- J40 -------------------------------------------------------------------------------------


def test_replace_prefix() -> None:
    assert names.replace_prefix("http://a/x", "http://a/", "https://b/y/") == "https://b/y/x"
    assert names.replace_prefix("http://a/x", "HTTP://a/", "https://b/") is None
    for old, new in (("", "http://b/"), ("http://a/", ""), ("http://a/", "gopher://"), ("http://a/", "http://b/ ")):
        assert refusal(names.replace_prefix, "http://a/x", old, new).name == "E_INVALIDARG"


# --- D7, D8: local names ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/a", "/dir/with space/*?", "/dir/new\nline", "/dir/\udcff", "/a//b", "/ü" + "/x" * 1900, "/" + "n" * 255]
)
def test_local_names_that_are_taken(path: str) -> None:
    names.check_local_name(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "relative",
        "./relative",
        "~/file",
        "/",
        "/dir/",
        "/dir/.",
        "/dir/..",
        "/dir/../file",
        "/dir/a\0b",
        "/" + "n" * 256,
        "/" + "ü" * 128,
        "/d" * 2040 + "/file",
        "/d" * 2020,
        "/\ud800",
        "/\udcc3\udca9",
    ],
)
def test_local_names_that_are_refused(path: str) -> None:
    assert refusal(names.check_local_name, path).name == "E_INVALIDARG"


@given(st.binary(max_size=300))
def test_every_path_of_the_system_can_be_a_local_name(raw: bytes) -> None:
    path = "/dir/" + raw.decode("utf-8", "surrogateescape")
    try:
        names.check_local_name(path)
    except BitsError:
        bad = b"\0" in raw or raw.endswith(b"/") or not raw or b".." in raw.split(b"/") or raw.split(b"/")[-1] == b"."
        assert bad or any(len(part) > 255 for part in raw.split(b"/"))
        return
    temporary = names.temporary_name(path, "0a1b2c3d")
    names.check_local_name(temporary)
    assert temporary.rpartition("/")[0] == path.rpartition("/")[0]
    assert temporary.endswith("/.BIT0a1b2c3d.tmp")


def test_the_temporary_file_of_a_file_in_the_root_directory() -> None:
    assert names.temporary_name("/file", "00") == "/.BIT00.tmp"


# --- M1, J14, J15 ----------------------------------------------------------------------------


def test_display_names() -> None:
    names.check_display_name("n" * 256)
    names.check_new_display_name("Nächtlicher Spiegel ★")
    assert refusal(names.check_display_name, "n" * 257).name == "BG_E_STRING_TOO_LONG"
    assert refusal(names.check_new_display_name, "n" * 257).name == "E_INVALIDARG"
    for name in ("", "two\nlines", "\x1b[31mred", "\udcff"):
        assert refusal(names.check_display_name, name).name == "E_INVALIDARG"
        assert refusal(names.check_new_display_name, name).name == "E_INVALIDARG"


def test_descriptions() -> None:
    names.check_description("")
    names.check_description("two\nlines\t" + "d" * 1014)
    assert refusal(names.check_description, "d" * 1025).name == "BG_E_STRING_TOO_LONG"
    assert refusal(names.check_description, "\x07").name == "E_INVALIDARG"


# --- checksums and headers -------------------------------------------------------------------


def test_checksums_are_normalised() -> None:
    assert names.check_checksum("SHA256:" + "AB" * 32) == "sha256:" + "ab" * 32
    assert names.check_checksum("sha512:" + "01" * 64) == "sha512:" + "01" * 64


@pytest.mark.parametrize("text", ["", "ab" * 32, "sha256:", "sha256:xyz", "sha256:" + "a" * 63, "sha512:" + "a" * 64])
def test_what_is_no_checksum(text: str) -> None:
    assert refusal(names.check_checksum, text).name == "E_INVALIDARG"


def test_other_hash_algorithms() -> None:
    assert refusal(names.check_checksum, "md5:" + "a" * 32).name == "BG_E_INVALID_HASH_ALGORITHM"


def test_headers_are_normalised() -> None:
    assert names.check_custom_headers("") == ""
    assert names.check_custom_headers("A: 1\nB:2  ") == "A: 1\r\nB: 2\r\n"
    assert names.check_custom_headers("A: 1\r\nX-Empty:\r\n") == "A: 1\r\nX-Empty: \r\n"


@pytest.mark.parametrize(
    "text",
    [
        "no colon",
        ": no name",
        "Na me: x",
        "Name : x",
        "A: 1\r\n\r\nB: 2",
        "A: 1\rB: 2",
        "A: 1\n folded",
        "A: \0",
        "A: ü",
        "A\u2028: 1",
        "host: other",
        "RANGE: bytes=0-",
        "If-Range: x",
        "If-None-Match: x",
        "Content-Length: 3",
        "Transfer-Encoding: chunked",
        "Connection: close",
        "Accept-Encoding: gzip",
        "TE: trailers",
        "Upgrade: h2c",
    ],
)
def test_headers_that_are_refused(text: str) -> None:
    error = refusal(names.check_custom_headers, text)
    assert error.name == "E_INVALIDARG"


def test_a_refused_header_is_not_quoted() -> None:
    assert "hunter2" not in refusal(names.check_custom_headers, "Authorization Basic hunter2").message


def test_headers_have_16384_characters_with_their_nul() -> None:
    longest = "A: " + "x" * (16_383 - len("A: \r\n")) + "\r\n"
    assert names.check_custom_headers(longest) == longest
    assert refusal(names.check_custom_headers, longest.replace("x", "xx", 1)).name == "BG_E_STRING_TOO_LONG"
    assert refusal(names.check_custom_headers, "A:b\n" * 4000).name == "BG_E_STRING_TOO_LONG"


@given(st.text())
def test_no_text_smuggles_a_header(text: str) -> None:
    try:
        headers = names.check_custom_headers("X: " + text)
    except BitsError:
        return
    assert headers.isascii()
    assert headers.count("\r") == headers.count("\n") == headers.count("\r\n")
    for line in headers.split("\r\n")[:-1]:
        assert ": " in line


# --- J41 -------------------------------------------------------------------------------------


def spans(*pairs: tuple[int, int]) -> list[ByteRange]:
    return [ByteRange(offset, length) for offset, length in pairs]


def test_ranges_that_are_taken() -> None:
    names.check_ranges(spans((0, 1)), 500)
    names.check_ranges(spans((100, 10), (0, 100), (110, TO_EOF)), 500)
    names.check_ranges(spans(*((2 * index, 1) for index in range(500))), 500)
    names.check_ranges(spans(*((2 * index, 1) for index in range(501))), None)
    names.check_ranges(spans((2**63 - 2, 1)), 500)


@pytest.mark.parametrize(
    ("ranges", "error"),
    [
        ([], "E_INVALIDARG"),
        (spans((0, 0)), "BG_E_INVALID_RANGE"),
        (spans((-1, 5)), "BG_E_INVALID_RANGE"),
        (spans((0, -2)), "BG_E_INVALID_RANGE"),
        (spans((2**64 - 1, 1)), "BG_E_INVALID_RANGE"),
        (spans((2**63 - 2, 2)), "BG_E_INVALID_RANGE"),
        (spans((0, 10), (9, 1)), "BG_E_OVERLAPPING_RANGES"),
        (spans((5, 1), (5, 1)), "BG_E_OVERLAPPING_RANGES"),
        (spans((5, TO_EOF), (2**62, 1)), "BG_E_OVERLAPPING_RANGES"),
        (spans((5, TO_EOF), (6, TO_EOF)), "BG_E_OVERLAPPING_RANGES"),
        (spans(*((2 * index, 1) for index in range(501))), "BG_E_TOO_MANY_RANGES_IN_FILE"),
    ],
)
def test_ranges_that_are_refused(ranges: list[ByteRange], error: str) -> None:
    assert refusal(names.check_ranges, ranges, 500).name == error


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), min_size=1, max_size=6))
def test_overlaps_are_found_exactly(pairs: list[tuple[int, int]]) -> None:
    wanted = [byte for offset, length in pairs for byte in range(offset, offset + length)]
    overlap = len(set(wanted)) < len(wanted)
    assert outcome(names.check_ranges, spans(*pairs), 500) == ("BG_E_OVERLAPPING_RANGES" if overlap else "S_OK")
