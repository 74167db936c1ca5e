"""J14–J20, J53, J60–J64: what may be set on a job, and when."""

import dataclasses
from typing import Any

import pytest

from openbits.core.model import JobType, Priority, Settings
from openbits.core.settings import HEADERS, PROPERTY_NAMES, SettingsWindow, change_settings, take_headers
from openbits.errors import BitsError

FRESH = SettingsWindow()
RESUMED = SettingsWindow(was_resumed=True, has_files=True)
BEFORE = Settings(name="job")


def change(window: SettingsWindow = FRESH, **changes: Any) -> Settings:
    return change_settings(BEFORE, changes, window=window)


def refusal(window: SettingsWindow = FRESH, **changes: Any) -> str:
    with pytest.raises(BitsError) as caught:
        change(window, **changes)
    return caught.value.name


def test_every_field_of_the_settings_is_a_property() -> None:
    assert set(PROPERTY_NAMES) - {HEADERS} == {field.name for field in dataclasses.fields(Settings)}


def test_everything_can_be_set_before_anything_has_happened() -> None:
    changes: dict[str, Any] = {
        "name": "new",
        "description": "text",
        "priority": Priority.LOW,
        "minimum_retry_delay": 60,
        "no_progress_timeout": 0,
        "maximum_download_time": 3600,
        "notify_flags": 0x3F,
        "cost_flags": 0x8000_0021,
        "notification_clsid": "org.example.App",
        "dynamic_content": True,
        "high_performance": True,
        "max_download_size": 2**40,
        "strict_http": True,
        "file_concurrency": 64,
        "stall_timeout": 1,
        "umask": 0o077,
        "proxy_usage": "override",
        "proxy_list": "proxy:3128",
        "proxy_bypass_list": "<local>",
        "security_flags": 0x0F1F & ~0x0700,
        "http_method": "",
        "use_netrc": True,
        "use_stored_credentials": "proxy",
        "acl_flags": 15,
        "peer_caching_flags": 7,
        "minimum_notification_interval_ms": 100,
        "notify_url": "https://example.org/hook",
    }
    assert {*changes, "upload_protocol", "custom_headers", "on_demand_mode"} == set(PROPERTY_NAMES)
    assert change(**changes) == Settings(**changes)


def test_the_upload_protocol_is_chosen_before_an_upload_is_resumed() -> None:
    window = SettingsWindow(job_type=JobType.UPLOAD)
    assert change_settings(BEFORE, {"upload_protocol": "TUS"}, window=window).upload_protocol == "tus"
    for bad, late, error in ((True, False, "E_INVALIDARG"), (False, True, "BG_E_READ_ONLY_PROPERTY_AFTER_RESUME")):
        window = SettingsWindow(job_type=JobType.UPLOAD_REPLY, was_resumed=late)
        with pytest.raises(BitsError) as raised:
            change_settings(BEFORE, {"upload_protocol": "ftp" if bad else "bits"}, window=window)
        assert raised.value.name == error
    assert refusal(upload_protocol="bits") == "E_NOTIMPL"


def test_a_change_is_all_or_nothing() -> None:
    assert refusal(description="new", priority="urgent") == "E_NOTIMPL"
    assert change() == BEFORE


def test_unknown_properties() -> None:
    assert refusal(colour="red") == "BG_E_UNKNOWN_PROPERTY_ID"


@pytest.mark.parametrize("value", ["foreground", "FOREGROUND", 0, Priority.FOREGROUND])
def test_priorities_by_name_and_number(value: Any) -> None:
    assert change(priority=value).priority is Priority.FOREGROUND


def test_unknown_priorities_and_flags_are_not_implemented() -> None:
    for value in ("urgent", 4, -1):
        assert refusal(priority=value) == "E_NOTIMPL"
    for value in (0x40, -1, 2**40):
        assert refusal(notify_flags=value) == "E_NOTIMPL"


def test_the_retry_delay_is_raised_to_its_floor() -> None:
    assert change(minimum_retry_delay=0).minimum_retry_delay == 5
    assert change(minimum_retry_delay=2**32 - 1).minimum_retry_delay == 2**32 - 1
    assert refusal(minimum_retry_delay=2**32) == "E_INVALIDARG"


def test_lengths_of_texts() -> None:
    assert refusal(name="n" * 257) == "BG_E_STRING_TOO_LONG"
    assert refusal(description="d" * 1025) == "BG_E_STRING_TOO_LONG"


def test_headers_are_kept_as_lines_and_cleared_by_null() -> None:
    assert take_headers({"custom_headers": "A:1", "umask": 0}) == ("A: 1\r\n", {"umask": 0})
    assert take_headers({"custom_headers": None}) == ("", {})
    assert take_headers({"umask": 0}) == (None, {"umask": 0})
    for wrong, error in (("A: " + "x" * 16_384, "BG_E_STRING_TOO_LONG"), (5, "E_INVALIDARG")):
        with pytest.raises(BitsError) as refused:
            take_headers({"custom_headers": wrong})
        assert refused.value.name == error


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", None),
        ("name", 5),
        ("description", None),
        ("priority", None),
        ("priority", True),
        ("minimum_retry_delay", "600"),
        ("minimum_retry_delay", True),
        ("minimum_retry_delay", 1.5),
        ("no_progress_timeout", -1),
        ("no_progress_timeout", None),
        ("maximum_download_time", -1),
        ("notify_flags", "3"),
        ("cost_flags", 0x100),
        ("cost_flags", 2**32),
        ("notification_clsid", "no-dot"),
        ("notification_clsid", "org.example." + "a" * 250),
        ("notification_clsid", "org.1example"),
        ("notification_clsid", None),
        ("dynamic_content", 1),
        ("high_performance", "yes"),
        ("max_download_size", "big"),
        ("strict_http", None),
        ("file_concurrency", 0),
        ("file_concurrency", 65),
        ("stall_timeout", 0),
        ("stall_timeout", 86_401),
        ("umask", 0o1000),
        ("umask", -1),
    ],
)
def test_values_that_are_invalid(name: str, value: Any) -> None:
    assert refusal(**{name: value}) == "E_INVALIDARG"


def test_optional_values_go_back_to_their_default() -> None:
    given = dataclasses.replace(BEFORE, maximum_download_time=5, cost_flags=1, max_download_size=7)
    cleared = change_settings(
        given, {"maximum_download_time": None, "cost_flags": None, "max_download_size": None}, window=FRESH
    )
    assert cleared == BEFORE


@pytest.mark.parametrize("value", [0, -1, 2**63])
def test_maximum_download_sizes_that_are_invalid(value: Any) -> None:
    assert refusal(max_download_size=value) == "BG_E_MAX_DOWNLOAD_SIZE_INVALID_VALUE"


def test_what_is_fixed_by_the_first_resume() -> None:
    assert refusal(RESUMED, dynamic_content=True) == "BG_E_READ_ONLY_PROPERTY_AFTER_RESUME"
    assert refusal(RESUMED, max_download_size=1) == "BG_E_READ_ONLY_PROPERTY_AFTER_RESUME"
    assert change(RESUMED, cost_flags=0xFF).cost_flags == 0xFF


def test_what_is_fixed_by_the_first_file() -> None:
    window = SettingsWindow(has_files=True)
    assert refusal(window, high_performance=True) == "BG_E_READ_ONLY_PROPERTY_AFTER_ADDFILE"
    assert change(window, dynamic_content=True).dynamic_content


def test_what_exists_for_downloads_only() -> None:
    window = SettingsWindow(job_type=JobType.UPLOAD)
    for name, value in (("dynamic_content", True), ("high_performance", True), ("max_download_size", 1)):
        assert refusal(window, **{name: value}) == "BG_E_PROPERTY_SUPPORTED_FOR_DOWNLOAD_JOBS_ONLY"


def test_dynamic_content_excludes_ranges() -> None:
    window = SettingsWindow(has_files=True, has_ranges=True)
    assert refusal(window, dynamic_content=True) == "BG_E_UNSUPPORTED_JOB_CONFIGURATION"
    assert not change(window, dynamic_content=False).dynamic_content
