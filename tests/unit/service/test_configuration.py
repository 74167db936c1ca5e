"""The configuration file: P3–P7, and that nothing in it is ever ignored."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from openbits.service import configuration as module
from openbits.service.configuration import (
    Configuration,
    ConfigurationError,
    account_rules,
    parse_configuration,
    read_configuration,
    read_configuration_if_any,
)

SAMPLE = Path(__file__).parents[3] / "packaging" / "bitsd.toml"


def refusal(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_configuration(tomllib.loads(text), source="/etc/x.toml")
    assert str(caught.value).startswith("/etc/x.toml: ")
    return str(caught.value)


def test_the_sample_file_changes_nothing() -> None:
    assert read_configuration(str(SAMPLE)) == Configuration()


def test_the_sample_file_lists_every_key_with_its_default() -> None:
    uncommented = re.sub(r"^#(?=\w+ = )", "", SAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    document = tomllib.loads(uncommented)
    defaults = dataclasses.asdict(Configuration())
    assert {name: list(section) for name, section in document.items()} == {
        name: list(section) for name, section in defaults.items()
    }
    for name, section in defaults.items():
        for key, value in section.items():
            assert document[name][key] == (list(value) if isinstance(value, tuple) else value), key
    assert parse_configuration(document, source="sample") == Configuration()


def test_an_empty_file_is_good() -> None:
    assert parse_configuration({}, source="x") == Configuration()


def test_values_are_taken() -> None:
    text = '[quotas]\nmax_jobs_per_user = 5\n[accounts]\nnetwork_service = ["_apt", 42]\n[worker]\ncheckpoint_s = 1\n'
    configuration = parse_configuration(tomllib.loads(text), source="x")
    assert configuration.quotas.max_jobs_per_user == 5
    assert configuration.quotas.max_jobs_per_machine == 300
    assert configuration.accounts.network_service == ("_apt", "42")
    assert configuration.worker.checkpoint_s == 1.0
    assert configuration.warnings() == []


def test_misspelt_names_are_errors_that_help() -> None:
    assert "[quota]; did you mean quotas?" in refusal("[quota]\n")
    assert "did you mean max_jobs_per_user?" in refusal("[quotas]\nmax_job_per_user = 5\n")
    assert "there are: job_inactivity_s, max_download_time_s" in refusal("[timeouts]\nzzz = 5\n")
    assert "write [quotas]" in refusal("quotas = 5\n")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('[quotas]\nmax_jobs_per_user = "5"\n', "quotas.max_jobs_per_user must be a whole number from 1"),
        ("[quotas]\nmax_jobs_per_user = true\n", "a whole number"),
        ("[quotas]\nmax_jobs_per_user = 5.0\n", "a whole number"),
        ("[quotas]\nmax_jobs_per_user = 0\n", "from 1"),
        ("[timeouts]\nbreak_patience_s = nan\n", "a number from 0 to 86400"),
        ("[timeouts]\nbreak_patience_s = inf\n", "a number"),
        ("[worker]\ncheckpoint_s = false\n", "a number"),
        ("[worker]\ncheckpoint_bytes = 1\n", "from 1_048_576"),
        ("[accounts]\nadministrators_group = 5\n", "the name of a group"),
        ('[accounts]\nadministrators_group = "a b"\n', "the name of a group"),
        ('[accounts]\nnetwork_service = "_apt"\n', "a list"),
        ("[accounts]\nnetwork_service = [-1]\n", "a list"),
        ("[accounts]\nnetwork_service = [0]\n", "a list"),
        ('[accounts]\nlocal_service = [""]\n', "a list"),
        ('[accounts]\nlocal_service = ["a"]\nnetwork_service = ["a"]\n', "not in both"),
    ],
)
def test_wrong_values_say_what_is_allowed(text: str, wanted: str) -> None:
    assert wanted in refusal(text)


def test_p5_above_p4_is_a_warning() -> None:
    configuration = parse_configuration({"quotas": {"max_jobs_per_user": 400}}, source="x")
    assert "max_jobs_per_machine (300)" in configuration.warnings()[0]
    configuration = parse_configuration({"api": {"max_connections": 5}}, source="x")
    assert len(configuration.warnings()) == 1


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.toml")
    assert read_configuration_if_any(missing) == Configuration()
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_configuration(missing)
    (tmp_path / "bad.toml").write_text("[accounts\n", encoding="utf-8")
    (tmp_path / "odd.toml").write_bytes(b"\xff\n")
    for name in ("bad.toml", "odd.toml"):
        with pytest.raises(ConfigurationError, match="not valid TOML"):
            read_configuration_if_any(str(tmp_path / name))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_configuration_if_any(str(tmp_path))


def test_account_rules_take_uid_min_from_the_system(tmp_path: Path) -> None:
    defs = tmp_path / "login.defs"
    defs.write_text("UID_MIN 500\n", encoding="utf-8")
    configuration = parse_configuration({"accounts": {"local_service": ["kiosk"]}}, source="x")
    rules = account_rules(configuration, str(defs))
    assert rules.uid_min == 500
    assert rules.local_service == {"kiosk"}
    assert account_rules(configuration, str(tmp_path / "none")).uid_min == 1000


def test_every_default_passes_its_own_check() -> None:
    for name, checks in module._KEYS.items():
        section = getattr(Configuration(), name)
        for key, check in checks.items():
            value = getattr(section, key)
            assert check(list(value) if isinstance(value, tuple) else value) == value
