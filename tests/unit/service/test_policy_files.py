"""Reading /etc/openbits/policy.d: order, owners, and errors that name the line; what is wrong changes nothing."""

from __future__ import annotations

import os
from datetime import UTC
from pathlib import Path

import pytest

from openbits.core.model import Priority
from openbits.core.policy import KEYS
from openbits.service.policyfiles import MOST_BYTES, PolicyFileError, directory_beside, read_policy

OWN = frozenset({os.geteuid()})


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path


def write(directory: Path, name: str, text: str | bytes, mode: int = 0o644) -> Path:
    path = directory / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def refusal(directory: Path) -> str:
    with pytest.raises(PolicyFileError) as refused:
        read_policy(str(directory), owners=OWN)
    return str(refused.value)


def test_without_a_directory_nothing_is_decided(tmp_path: Path) -> None:
    loaded = read_policy(str(tmp_path / "none"), owners=OWN)
    assert (loaded.files, loaded.sources) == ((), {})
    assert loaded.policy.allow_notification_commands


def test_of_each_key_the_last_file_counts(directory: Path) -> None:
    write(directory, "20-site.toml", "[quotas]\nmax_jobs_per_user = 5\n")
    write(directory, "10-base.toml", "[quotas]\nmax_jobs_per_user = 3\n\nmax_files_per_job = 7\n")
    write(directory, "90-off.toml.example", "[quotas]\nmax_jobs_per_user = 9\n")
    loaded = read_policy(str(directory), owners=OWN)
    assert loaded.policy.quotas == {"max_jobs_per_user": 5, "max_files_per_job": 7}
    assert loaded.sources["quotas.max_jobs_per_user"] == f"{directory}/20-site.toml:2"
    assert loaded.sources["quotas.max_files_per_job"] == f"{directory}/10-base.toml:4"


def test_one_section_may_stand_in_several_files(directory: Path) -> None:
    write(directory, "1.toml", '[maintenance]\nhours = ["sun 01:00-05:00"]\n')
    write(directory, "2.toml", "maintenance.low_kbps = 0\n")
    maintenance = read_policy(str(directory), owners=OWN).policy.maintenance
    assert maintenance is not None
    assert maintenance.limits.low == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n[quota]\nx = 1\n", ":2: there is no section [quota]; did you mean quotas?"),
        ("[quotas]\n\nmax_job_per_user = 3\n", ":3: there is no key max_job_per_user in [quotas]; did you mean"),
        ("time_zone = 'UTC'\n", ":1: there is no key time_zone; did you mean timezone?"),
        (
            "# one\n[quotas]  # two\nmax_jobs_per_user = 0\n",
            ":3: quotas.max_jobs_per_user must be a whole number",
        ),
        ("x = \n", ":1: is not valid TOML"),
        ("[a]\n[a]\n", ":2: is not valid TOML"),
        ("quotas = 3\n", ":1: quotas must be a section"),
        ("\n[maintenance]\nlow_kbps = 3\n", ":3: [maintenance] has limits and no hours"),
        (
            "timezone = 'Europe/Berln'\n",
            ":1: timezone = 'Europe/Berln': there is no time zone of this name; did",
        ),
        ("timezone = '/etc/passwd'\n", ":1: timezone = '/etc/passwd'"),
        ("timezone = '../../etc/passwd'\n", "there is no time zone of this name"),
        ("[work_schedule]\nhours = [\n  'mon 8-9',\n]\n", ":2: work_schedule.hours must be a list of days and times"),
        ("quotas.max_jobs_per_user = 'x'\n", ":1: quotas.max_jobs_per_user must be"),
        ("[work_schedule]\nhours = [{a=1}]\n", ":2: work_schedule.hours must be"),
        (b"a = '\xff'\n", ":1: is not UTF-8"),
        ("a = " + "[" * 2000, "is not valid TOML"),
    ],
)
def test_what_is_not_understood_is_an_error_that_names_the_line(
    directory: Path, text: str | bytes, expected: str
) -> None:
    path = write(directory, "50.toml", text)
    found = refusal(directory)
    assert found.startswith(str(path))
    assert expected in found


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
def test_a_file_that_others_may_write_is_refused(directory: Path, mode: int) -> None:
    write(directory, "10.toml", "[quotas]\nmax_jobs_per_user = 3\n", mode)
    assert "others may write to it" in refusal(directory)


def test_a_directory_that_others_may_write_is_refused(directory: Path) -> None:
    write(directory, "10.toml", "")
    directory.chmod(0o777)
    assert "others may write to it" in refusal(directory)


def test_a_file_of_somebody_else_is_refused(directory: Path) -> None:
    write(directory, "10.toml", "")
    with pytest.raises(PolicyFileError, match="belongs to uid"):
        read_policy(str(directory), owners=frozenset({12345}))


def test_only_regular_files_of_a_sensible_size_are_read(directory: Path) -> None:
    os.mkfifo(directory / "10.toml")
    assert "is no regular file" in refusal(directory)
    (directory / "10.toml").unlink()
    write(directory, "10.toml", b"#" * (MOST_BYTES + 1))
    assert "is larger than" in refusal(directory)


def test_the_clocks_are_those_of_the_zone(directory: Path) -> None:
    write(directory, "10.toml", 'timezone = "Asia/Kathmandu"\n')
    loaded = read_policy(str(directory), owners=OWN)
    assert loaded.zone_name == "Asia/Kathmandu"
    assert loaded.zone is not UTC


def test_p11_to_p16_are_kept(directory: Path) -> None:
    write(directory, "10.toml", "[costed_networks]\nlow = 5\n[peer_caching]\nenable = true\nmax_content_age_days = 3\n")
    policy = read_policy(str(directory), owners=OWN).policy
    assert policy.costed_networks == {Priority.LOW: 0x80000021}
    assert policy.peer_caching.enable is True
    assert policy.peer_caching.max_content_age_days == 3
    assert policy.peer_caching.disable_client is None


def test_the_directory_is_beside_the_configuration() -> None:
    assert directory_beside("/etc/openbits/bitsd.toml") == "/etc/openbits/policy.d"


def test_the_example_has_every_key_with_a_value_that_is_allowed(directory: Path) -> None:
    example = Path(__file__).parents[3] / "packaging" / "policy.d" / "50-site.toml.example"
    lines = example.read_text().splitlines()
    text = "\n".join(line[1:] if line.startswith("#") and not line.startswith("# ") else line for line in lines)
    write(directory, "50.toml", text)
    assert read_policy(str(directory), owners=OWN).sources.keys() == KEYS.keys()


def test_the_page_about_policies_names_every_key() -> None:
    page = (Path(__file__).parents[3] / "docs" / "policies.md").read_text()
    for name in KEYS:
        assert name in page or f"`{name.partition('.')[2]}`" in page, name


def test_a_number_that_is_too_long_to_be_read_is_refused_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "long.toml").write_text(f"timezone = {'9' * 5000}\n", encoding="utf-8")
    with pytest.raises(PolicyFileError, match="not valid TOML"):
        read_policy(str(tmp_path), owners=frozenset({os.getuid()}))
