"""Where paths lead, by tables of mounts, and which of them no service may use (I4, I8; architecture §4, rule 4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.core.mounts import MountTable, Place, mapping_problem, session_problem

SERVICE_UID = 990


def table(*lines: str) -> MountTable:
    return MountTable("\n".join(lines).encode("latin-1") + b"\n")


ROOT = "27 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"
TMP = "30 27 0:40 / /tmp rw shared:2 - tmpfs tmpfs rw"
HOME = "31 27 0:41 /@home /home rw shared:3 - btrfs /dev/sdb rw,subvol=/@home"
RUN = "32 27 0:42 / /run rw shared:4 - tmpfs tmpfs rw"
SESSION = "33 32 0:43 / /run/user/1000 rw shared:5 - tmpfs tmpfs rw,size=10%,uid=1000"
GVFS = "34 33 0:44 / /run/user/1000/gvfs rw - fuse.gvfsd-fuse gvfsd-fuse rw,user_id=1000,group_id=1000"
PORTAL = "35 33 0:45 / /run/user/1000/doc rw - fuse.portal portal rw,user_id=1000,group_id=1000"
SSHFS = "36 31 0:46 / /home/alice/far rw - fuse.sshfs host:/ rw,user_id=1000,group_id=1000"
SHARED_FUSE = "37 31 0:47 / /home/alice/open rw - fuse.sshfs host:/ rw,user_id=1000,group_id=1000,allow_other"
MACHINE = (ROOT, TMP, HOME, RUN, SESSION, GVFS, PORTAL, SSHFS, SHARED_FUSE)


# --- where a path leads ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "device", "place"),
    [
        ("/", "8:1", "/"),
        ("/srv/data", "8:1", "/srv/data"),
        ("/tmp", "0:40", "/"),
        ("/tmp/x/y", "0:40", "/x/y"),
        ("/tmpfile", "8:1", "/tmpfile"),
        ("/home/alice/x", "0:41", "/@home/alice/x"),
        ("//home//alice/./x", "0:41", "/@home/alice/x"),
        ("/run/user/1000/gvfs/a", "0:44", "/a"),
    ],
)
def test_a_path_leads_to_a_place_of_a_file_system(path: str, device: str, place: str) -> None:
    assert table(*MACHINE).place(path) == Place(device, place)


def test_of_stacked_mounts_the_last_one_counts() -> None:
    upper = "40 30 0:50 / /tmp rw - tmpfs other rw"
    assert table(ROOT, TMP, upper).place("/tmp/x") == Place("0:50", "/x")


def test_a_mount_that_was_covered_later_does_not_count() -> None:
    inner = "41 30 0:51 / /tmp/a rw - tmpfs inner rw"
    cover = "42 30 0:52 / /tmp rw - tmpfs cover rw"
    # The inner one belongs to what is below the cover; the cover was mounted on top of /tmp.
    assert table(ROOT, TMP, inner, cover).place("/tmp/a/x") == Place("0:52", "/a/x")


def test_a_root_that_was_mounted_over_the_first_one_counts() -> None:
    first = "1 1 0:1 / / rw - rootfs rootfs rw"
    assert table(first, ROOT).place("/x") == Place("8:1", "/x")


def test_names_with_odd_bytes_are_unescaped() -> None:
    odd = r"43 27 0:53 / /mnt/a\040b\134c\012d rw - tmpfs odd rw"
    assert table(ROOT, odd).place("/mnt/a b\\c\nd/x") == Place("0:53", "/x")
    raw = b"27 1 8:1 / / rw - ext4 d rw\n44 27 0:54 / /mnt/\xff\x85\xe9 rw - tmpfs odd rw\n"
    assert MountTable(raw).place("/mnt/\udcff\udc85\udce9/x") == Place("0:54", "/x")


def test_what_was_deleted_is_nowhere() -> None:
    gone = "45 27 8:1 /srv/gone//deleted /mnt rw - ext4 /dev/sda1 rw"
    assert table(ROOT, gone).place("/mnt/x") is None


def test_a_process_without_a_root_mount_sees_no_known_place() -> None:
    assert table(TMP).place("/tmp/x") is None
    assert table().way("/") == ()


@given(st.binary(max_size=400), st.text(max_size=60))
def test_no_text_and_no_path_upsets_a_table(raw: bytes, path: str) -> None:
    mounts = MountTable(b"27 1 8:1 / / rw - ext4 d rw\n" + raw)
    mounts.place(path)
    session_problem(mounts, [path], SERVICE_UID)
    mapping_problem(mounts, MountTable(raw), [path])


# --- sessions (I4) ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/run/user/1000/x", "/run/user/1000 (tmpfs)"),
        ("/run/user/1000", "/run/user/1000 (tmpfs)"),
        ("/run/user/2000/x", "/run/user/2000"),
        ("/run/user/1000/gvfs/smb-share:server=a/x", "/run/user/1000/gvfs"),
        ("/run/user/1000/doc/x", "/run/user/1000/doc"),
        ("/home/alice/far/x", "/home/alice/far"),
    ],
)
def test_rule_4_a_sessions_mount_is_named(path: str, named: str) -> None:
    problem = session_problem(table(*MACHINE), [path], SERVICE_UID)
    assert problem is not None
    assert problem.startswith(named)


@pytest.mark.parametrize(
    "path", ["/", "/srv/x", "/tmp/x", "/home/alice/x", "/home/alice/open/x", "/run/user", "/run/users/1", "/run/x"]
)
def test_rule_4_what_stays_is_allowed(path: str) -> None:
    assert session_problem(table(*MACHINE), [path], SERVICE_UID) is None


def test_rule_4_a_link_counts_where_it_stands_and_where_it_leads() -> None:
    mounts = table(*MACHINE)
    assert session_problem(mounts, ["/srv/link", "/run/user/1000/x"], SERVICE_UID) is not None
    assert session_problem(mounts, ["/run/user/1000/link", "/srv/x"], SERVICE_UID) is not None


def test_rule_4_a_sessions_directory_that_is_mounted_elsewhere_is_still_a_sessions() -> None:
    bound = "50 27 0:43 / /srv/bound rw - tmpfs tmpfs rw,size=10%,uid=1000"
    part = "51 27 0:43 /sub /srv/part rw - tmpfs tmpfs rw,size=10%,uid=1000"
    for path in ("/srv/bound", "/srv/bound/x", "/srv/part/x"):
        problem = session_problem(table(*MACHINE, bound, part), [path], SERVICE_UID)
        assert problem is not None, path
        assert "/run/user/1000 (tmpfs)" in problem
    assert session_problem(table(*MACHINE, bound), ["/srv/other"], SERVICE_UID) is None
    # The other way round: a directory that stays, which somebody mounted into a session's.
    home = "52 33 0:41 /@home /run/user/1000/home rw - btrfs /dev/sdb rw,subvol=/@home"
    over = "53 27 0:41 /@home /run/user/1001 rw - btrfs /dev/sdb rw,subvol=/@home"
    assert session_problem(table(*MACHINE, home, over), ["/home/service"], SERVICE_UID) is None


def test_rule_4_a_fuse_mount_of_its_own_is_no_sessions() -> None:
    own = f"50 27 0:60 / /srv/far rw - fuse.s3fs s3 rw,user_id={SERVICE_UID},group_id=1"
    assert session_problem(table(ROOT, own), ["/srv/far/x"], SERVICE_UID) is None
    assert session_problem(table(ROOT, own), ["/srv/far/x"], 0) is not None


def test_rule_4_whatever_a_desktops_mount_says_of_itself() -> None:
    gvfs = "51 27 0:61 / /srv/gvfs rw - fuse.gvfsd-fuse g rw,user_id=990,group_id=1,allow_other"
    assert session_problem(table(ROOT, gvfs), ["/srv/gvfs/x"], SERVICE_UID) is not None


def test_rule_4_what_is_mounted_inside_of_a_private_mount_is_as_private() -> None:
    inner = "52 36 8:9 / /home/alice/far/disk rw - ext4 /dev/sdc rw"
    problem = session_problem(table(*MACHINE, inner), ["/home/alice/far/disk/x"], SERVICE_UID)
    assert problem is not None
    assert "/home/alice/far " in problem


# --- other namespaces ------------------------------------------------------------------------


def as_seen_by_another(*lines: str) -> tuple[str, ...]:
    """The same mounts in another namespace: all of them have other ids."""
    changed = []
    for line in lines:
        number, parent, rest = line.split(" ", 2)
        changed.append(f"{int(number) + 500} {int(parent) + 500} {rest}")
    return tuple(changed)


@pytest.mark.parametrize("path", ["/", "/srv/x", "/tmp/x", "/home/alice/x", "/run/user/1000/gvfs/x"])
def test_i8_copies_of_the_same_mounts_mean_the_same(path: str) -> None:
    assert mapping_problem(table(*MACHINE), table(*as_seen_by_another(*MACHINE)), [path]) is None


def test_i8_a_private_tmp_is_another_place_and_is_named() -> None:
    theirs = table(*as_seen_by_another(ROOT, "30 27 0:99 / /tmp rw - tmpfs private rw", HOME))
    problem = mapping_problem(table(*MACHINE), theirs, ["/tmp/x"])
    assert problem is not None
    assert "tmpfs mounted on /tmp" in problem
    assert mapping_problem(table(*MACHINE), theirs, ["/home/alice/x"]) is None


def test_i8_a_remount_for_reading_only_is_the_same_place() -> None:
    hardened = as_seen_by_another(ROOT, TMP, HOME, "60 27 8:1 /usr /usr ro - ext4 /dev/sda1 rw")
    assert mapping_problem(table(*MACHINE), table(*hardened), ["/usr/local/x"]) is None
    assert mapping_problem(table(*hardened), table(*MACHINE), ["/usr/local/x"]) is None


def test_i8_a_directory_mounted_elsewhere_is_another_place() -> None:
    bound = as_seen_by_another(ROOT, "61 27 8:1 /srv/other /data rw - ext4 /dev/sda1 rw")
    assert mapping_problem(table(ROOT), table(*bound), ["/data/x"]) is not None
    assert mapping_problem(table(ROOT), table(*bound), ["/srv/other/x"]) is None


def test_i8_a_hidden_directory_is_another_place() -> None:
    hidden = as_seen_by_another(ROOT, "62 27 0:42 /systemd/inaccessible/dir /home ro - tmpfs tmpfs rw")
    assert mapping_problem(table(ROOT, RUN), table(*hidden), ["/home/alice"]) is not None


def test_i8_another_root_directory_is_another_place() -> None:
    assert mapping_problem(table(ROOT), table(TMP), ["/srv/x"]) is not None
    # A directory of ours that is its root, by the same mount: what we call /tmp/x it calls /x.
    chrooted = table("30 27 0:40 / / rw shared:2 - tmpfs tmpfs rw")
    assert mapping_problem(table(*MACHINE), chrooted, ["/tmp/x"]) is not None
    assert mapping_problem(table(*MACHINE), chrooted, ["/x"]) is not None


def test_i8_two_deleted_directories_of_one_name_are_two_places() -> None:
    gone = "70 27 8:1 /a//deleted /mnt rw - ext4 /dev/sda1 rw"
    assert mapping_problem(table(ROOT, gone), table(*as_seen_by_another(ROOT, gone)), ["/mnt/x"]) is not None
    assert mapping_problem(table(ROOT, gone), table(ROOT, gone), ["/mnt/x"]) is None
