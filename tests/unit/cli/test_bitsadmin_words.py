"""What `bitsadmin` makes of its command line and of values, without a service (inventory section 9, B1 to B21)."""

from __future__ import annotations

import io
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.cli.bitsadmin import main, switches, targets
from openbits.cli.bitsadmin.invocation import UsageFailure, number
from openbits.cli.bitsadmin.job_switches import JOB_SWITCHES
from openbits.cli.bitsadmin.jobs import read_ranges
from openbits.cli.bitsadmin.output import BANNER, Output, date_time, wrapped
from openbits.cli.bitsadmin.words import acl_flags, acl_letters, level_word, state_word, type_word
from openbits.client.values import LENGTH_TO_EOF, JobState, JobType, Range
from openbits.errors import BitsError

NAMES = [one.full_name for one in switches.all_switches()]


def read(line: str) -> tuple[tuple[str, ...], dict[str, str | None]]:
    """Return the arguments and options of a command line."""
    name, *words = line.split()
    switch = switches.find(name)
    assert switch is not None
    call = main._read(switch, words, Output(io.StringIO()))
    return call.arguments, dict(call.options)


def test_the_table_has_each_row_of_the_inventory_that_stands_here() -> None:
    assert {switch.row for switch in JOB_SWITCHES} == {f"B{number}" for number in range(2, 22)}


def test_names_are_small_and_each_is_there_once() -> None:
    found = [(one.group, name) for one in switches.all_switches() for name in (one.name, *one.aliases)]
    assert len(found) == len(set(found))
    assert all(name == name.lower() and name.startswith("/") for _, name in found)
    assert all(option == option.lower() for one in switches.all_switches() for option in one.options)


@pytest.mark.parametrize("name", NAMES)
def test_each_switch_has_a_function_and_a_line_of_help(name: str) -> None:
    group, _, last = name.rpartition(" ")
    switch = switches.find(last.upper(), group)
    assert switch is not None
    assert callable(switch.load())
    assert switch.help
    assert switch.action or switch.name == "/version", "an error would have to say what could not be done"


@pytest.mark.parametrize("switch", list(switches.all_switches()), ids=NAMES)
def test_rawreturn_counts_for_create_and_get(switch: switches.Switch) -> None:
    """It is documented for these two; elsewhere the output stays as it is."""
    if not switch.group:
        assert switch.is_raw == (switch.name == "/create" or switch.name.startswith("/get"))


def test_options_stand_anywhere_where_no_path_can_be_meant() -> None:
    assert read("/LIST /Verbose /ALLUSERS") == ((), {"/verbose": None, "/allusers": None})
    assert read("/info /verbose job") == read("/info job /VERBOSE") == (("job",), {"/verbose": None})
    assert read("/monitor /refresh 7") == ((), {"/refresh": "7"})


def test_behind_the_url_an_option_is_a_path() -> None:
    """Here, unlike on Windows, /download may be a file."""
    arguments, options = read("/transfer name /upload /priority high http://host/a /download")
    assert arguments == ("name", "http://host/a", "/download")
    assert options == {"/upload": None, "/priority": "high"}
    assert read("/transfer /upload name http://host/a /b")[0] == ("name", "http://host/a", "/b")
    assert read("/create /upload name") == (("name",), {"/upload": None})


@pytest.mark.parametrize(
    "line", ["/create", "/create a /upload", "/list job", "/info", "/transfer a b", "/addfile a b"]
)
def test_a_wrong_number_of_arguments_is_refused(line: str) -> None:
    with pytest.raises(UsageFailure, match="Invalid number of arguments"):
        read(line)


def test_modifiers_count_before_the_switch_only() -> None:
    assert main._modifiers(["/RawReturn", "/NOWRAP", "/create", "/wrap"]) == (
        ["/rawreturn", "/nowrap"],
        ["/create", "/wrap"],
    )
    assert main._modifiers(["/wrap"]) == (["/wrap"], ())


def test_setaclflag_is_setaclflags() -> None:
    assert switches.find("/setaclflag") is switches.find("/SETACLFLAGS")


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("5", 5), ("0x10", 16), ("0X1f", 31), ("18446744073709551616", 2**64)]
)
def test_numbers(text: str, value: int) -> None:
    assert number(text, "it") == value


@pytest.mark.parametrize("text", ["", "-1", "1_0", "٣", "1.5", "0x", "five", "0x-1", " 1"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(UsageFailure):
        number(text, "it")


def test_ranges() -> None:
    assert read_ranges("0:100,2000:100,5000:EOF") == [Range(0, 100), Range(2000, 100), Range(5000, LENGTH_TO_EOF)]


@given(st.text(max_size=20))
def test_whatever_a_range_is_it_is_refused_or_read(text: str) -> None:
    try:
        ranges = read_ranges(text)
    except UsageFailure:
        return
    assert all(one.offset >= 0 and one.length >= LENGTH_TO_EOF for one in ranges)


@given(st.integers(0, 15))
def test_acl_flags_are_their_letters(flags: int) -> None:
    letters = acl_letters(flags)
    assert acl_flags(letters) == (flags or None)
    assert acl_flags(letters[::-1].lower() * 2) == (flags or None)


def test_acl_letters_stand_in_order() -> None:
    assert acl_letters(15) == "OGDS"
    assert acl_flags("X") is None
    assert acl_flags("") is None


def test_words() -> None:
    assert [state_word(state.name) for state in JobState][-2:] == ["ACKNOWLEDGED", "CANCELED"]
    assert [type_word(kind.value) for kind in JobType] == ["DOWNLOAD", "UPLOAD", "UPLOAD-REPLY"]
    assert [level_word(level) for level in (0x1000, 0x2000, 0x3000, 0x4000)] == ["LOW", "MEDIUM", "HIGH", "SYSTEM"]


@pytest.mark.parametrize(
    ("hour", "text"),
    [(0, "12:05:09 AM"), (1, "1:05:09 AM"), (12, "12:05:09 PM"), (13, "1:05:09 PM"), (23, "11:05:09 PM")],
)
def test_times_are_written_as_in_the_united_states(hour: int, text: str) -> None:
    # As it is, so that this machine's zone decides nothing.
    local = datetime(2003, 6, 30, hour, 5, 9).astimezone()
    assert date_time(local.astimezone(UTC)) == f"6/30/2003 {text}"


def test_a_time_that_has_not_come_is_unknown() -> None:
    assert date_time(None) == "UNKNOWN"


@pytest.mark.parametrize("text", ["{6AF46E48-41D3-453F-B7AF-A694BBC823F7}", "{6af46e48-41d3-453f-b7af-a694bbc823f7}"])
def test_a_guid_has_braces(text: str) -> None:
    assert targets.is_guid(text)
    assert not targets.is_guid(text[1:-1])
    assert not targets.is_guid(f"{text}\n")


def test_rawreturn_prints_the_value_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    output = Output(stream, is_raw=True)
    output.banner()
    output.line("a line")
    output.value("two\nlines")
    assert stream.getvalue() == "two lines"
    output.failure("get state", BitsError("BG_E_NOT_FOUND", "gone"))
    assert stream.getvalue() == "two lines"
    assert capsys.readouterr().err == "Unable to get state - 0x80200001\nBG_E_NOT_FOUND: gone\n"


def test_the_banner_is_three_lines_that_begin_as_scripts_expect() -> None:
    stream = io.StringIO()
    Output(stream).banner()
    lines = stream.getvalue().split("\n")
    assert lines == ["", "BITSADMIN version 3.0", BANNER[1], BANNER[2], "", ""]


def test_lines_are_broken_between_words() -> None:
    assert wrapped("one two three", 9) == ["one two", "three"]
    assert wrapped("\tone two", 6) == ["\tone", "two"]
    assert wrapped("abcdefgh ij", 3) == ["abc", "def", "gh", "ij"]
    assert wrapped("", 5) == [""]
    assert wrapped("one two three", None) == ["one two three"]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=80), st.integers(2, 40))
def test_no_letter_is_lost_where_lines_are_broken(text: str, columns: int) -> None:
    assert "".join("".join(wrapped(text, columns)).split()) == "".join(text.split())


def test_it_starts_without_what_it_does_not_need() -> None:
    """Scripts call it in loops: click alone would cost each call more than all of ours."""
    code = "import sys, openbits.cli.bitsadmin.main, openbits.cli.bitsadmin.values; sys.exit('click' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
