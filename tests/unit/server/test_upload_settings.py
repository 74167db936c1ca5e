"""U1–U12: what can be set for upload directories, how it is inherited, and what is said of each mistake."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from openbits.server.settings import (
    DAY_S,
    Notification,
    Settings,
    UploadSettings,
    parse_settings,
    with_root_properties,
)
from openbits.server.tables import SettingsError, read_document
from openbits.upload.session import Finalize, Overlap, Policy


def parse(text: str) -> Settings:
    return parse_settings(tomllib.loads('root = "/srv/in"\n' + text), source="f.toml")


def root(text: str) -> UploadSettings:
    return parse('[directory."/"]\n' + text).find(()).settings


def test_defaults_are_those_of_iis() -> None:
    found = parse("").find(()).settings
    assert found.upload_enabled is False, "U1"
    assert found.session_timeout == 1_209_600, "U2"
    assert found.maximum_upload_size is None, "U3"
    assert found.server_notification_type is Notification.NONE, "U4"
    assert found.host_id_fallback_timeout == 86_400, "U7"
    assert found.allow_overwrites is False, "U8"
    assert found.cleanup_interval_s == 12 * 3600, "U9"
    assert (found.number_of_sessions_limit, found.session_limit_enable) == (50, True), "U11, U12"
    assert found.notification_timeout == 300, "U32"


def test_everything_can_be_set() -> None:
    found = root(
        """
        upload_enabled = true
        session_timeout = 60
        maximum_upload_size = 1000
        server_notification_type = "reference"
        server_notification_url = "http://app.example:8080/take?x=1"
        host_id = "node7"
        host_id_fallback_timeout = 110
        allow_overwrites = true
        cleanup_use_default = false
        cleanup_count = 5
        cleanup_units = "minutes"
        number_of_sessions_limit = 3
        session_limit_enable = false
        overlap = "refuse"
        finalize = "close"
        notification_timeout = 5
        maximum_reply_size = 0
        """
    )
    assert found.cleanup_interval_s == 300
    assert found.policy == Policy(
        is_enabled=True,
        maximum_bytes=1000,
        has_application=True,
        may_overwrite=True,
        host_id="node7",
        host_id_fallback_timeout_s=110,
        overlap=Overlap.REFUSE,
        finalize=Finalize.CLOSE,
    )


@pytest.mark.parametrize(("text", "wanted"), [('""', None), ('"1844674407370955"', 1844674407370955), ("0", 0)])
def test_u3_maximum_size_may_be_a_string_as_in_iis(text: str, wanted: int | None) -> None:
    assert root(f"maximum_upload_size = {text}").maximum_upload_size == wanted


def test_u4_u10_numbers_of_iis_are_understood() -> None:
    found = root(
        'server_notification_type = 2\nserver_notification_url = "app"\n'
        "cleanup_use_default = false\ncleanup_units = 2\ncleanup_count = 360"
    )
    assert found.server_notification_type is Notification.VALUE
    assert found.cleanup_interval_s == 360 * DAY_S


def test_u7_fallback_never_happens_where_that_is_said() -> None:
    assert root('host_id = "h"\nhost_id_fallback_timeout = "never"').policy.host_id_fallback_timeout_s is None
    assert root('host_id = "h"').policy.host_id_fallback_timeout_s == 86_400
    assert root("host_id_fallback_timeout = 5").policy.host_id_fallback_timeout_s is None


def test_u9_cleanup_is_as_often_as_sessions_can_expire() -> None:
    assert root("session_timeout = 60").cleanup_interval_s == 60


def test_properties_are_inherited_but_for_upload_enabled() -> None:
    found = parse(
        """
        [directory."/"]
        upload_enabled = true
        session_timeout = 100
        allow_overwrites = true
        [directory."/a/b"]
        upload_enabled = true
        session_timeout = 200
        [directory."/a"]
        maximum_upload_size = 5
        """
    )
    above = found.find((b"other", b"deep")).settings
    assert (above.upload_enabled, above.session_timeout) == (True, 100)
    middle = found.find((b"a", b"x")).settings
    assert (middle.upload_enabled, middle.session_timeout, middle.allow_overwrites) == (False, 100, True)
    below = found.find((b"a", b"b", b"c", b"d"))
    assert below.shown == "/a/b"
    assert (below.settings.session_timeout, below.settings.maximum_upload_size) == (200, 5)
    assert below.settings.upload_enabled is True
    assert found.find((b"ab",)).shown == "/"


def test_working_directory_is_below_the_root_unless_it_is_set() -> None:
    assert parse("").working_directory == "/srv/in/.bits-sessions"
    assert parse('working_directory = "/srv/w"').working_directory == "/srv/w"
    assert parse_settings({"root": "/"}, source="f").working_directory == "/.bits-sessions"


def test_command_line_wins_over_the_file() -> None:
    document = tomllib.loads('root = "/r"\n[directory."/"]\nsession_timeout = 9\nallow_overwrites = true')
    found = parse_settings(with_root_properties(document, {"session_timeout": 7}), source="f").find(()).settings
    assert (found.session_timeout, found.allow_overwrites) == (7, True)
    made = parse_settings(with_root_properties({"root": "/r"}, {"upload_enabled": True}), source="options")
    assert made.find(()).settings.upload_enabled is True


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("colour = 1", "f.toml: there is no key colour; there are: root, working_directory"),
        ('working_directory = "rel"', "f.toml: working_directory must be a full path, not 'rel'"),
        ("maximum_open_sessions = 0", "maximum_open_sessions must be a whole number from 1 to 2_147_483_647, not 0"),
        ("directory = 5", 'directory must be tables such as [directory."/reports"], not 5'),
        ('[directory."a"]', '[directory."a"] names no directory below the root: the name does not begin with a slash'),
        ('[directory."/a/../b"]', "names no directory below the root: a part of the path is . or .."),
        ('[directory."/a//b"]', "names no directory below the root: a part of the path is empty"),
        ('[directory."/a"]\n[directory."/a/"]', "is there twice, in different spellings"),
        ('[directory]\n"/a" = 5', 'directory."/a" must be a table'),
        ('[directory."/"]\nsession_time = 5', 'no key session_time in [directory."/"]; did you mean session_timeout?'),
        ('[directory."/"]\nsession_timeout = 0', 'session_timeout in [directory."/"] must be a whole number from 1'),
        ('[directory."/"]\nsession_timeout = true', "must be a whole number"),
        ('[directory."/"]\nupload_enabled = 1', "must be true or false, not 1"),
        ('[directory."/"]\nmaximum_upload_size = -1', "must be a number of bytes up to"),
        ('[directory."/"]\nmaximum_upload_size = "5k"', "must be a number of bytes up to"),
        ('[directory."/"]\nserver_notification_type = "ref"', 'one of "none", "reference", "value" (or 0, 1, 2)'),
        ('[directory."/"]\nserver_notification_type = true', 'one of "none", "reference", "value" (or 0, 1, 2)'),
        ('[directory."/"]\nserver_notification_type = 1', "server_notification_url is missing in"),
        ('[directory."/"]\nserver_notification_url = "https://a/"', "an address that begins with http:// (not https"),
        ('[directory."/"]\nserver_notification_url = "http:///x"', "an address that begins with http://"),
        ('[directory."/"]\nserver_notification_url = "http://a:x/"', "an address that begins with http://"),
        (f'[directory."/"]\nserver_notification_url = "{"a" * 2201}"', "of 2200 characters at most"),
        ('[directory."/"]\nhost_id = "a:80"', "a host name or address without a port"),
        (f'[directory."/"]\nhost_id = "{"a" * 301}"', "of 300 characters at most"),
        ('[directory."/"]\nhost_id_fallback_timeout = "soon"', 'must be a number of seconds, or "never"'),
        ('[directory."/"]\ncleanup_count = 5', "would have no effect: set cleanup_use_default = false"),
        (
            '[directory."/"]\ncleanup_use_default = false\ncleanup_count = 25',
            'cleanup_count in [directory."/"] must be a whole number from 1 to 24 of hours, not 25',
        ),
        ('[directory."/"]\noverlap = "both"', 'must be one of "dedupe", "refuse", not \'both\''),
    ],
)
def test_each_mistake_has_one_clear_error(text: str, wanted: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text)
    assert wanted in str(caught.value)
    assert str(caught.value).startswith("f.toml: ")


def test_root_must_be_said() -> None:
    with pytest.raises(SettingsError, match="root is missing"):
        parse_settings({}, source="f.toml")


def test_file_that_is_no_toml_or_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_document(str(path))
    path.write_text("root = ")
    with pytest.raises(SettingsError, match="is not valid TOML"):
        read_document(str(path))
    path.write_text('root = "/srv"')
    document: dict[str, Any] = read_document(str(path))
    assert parse_settings(document, source=str(path)).root == "/srv"
