"""What a copy keeps of its source beside the bytes: owner, group, access list, extended attributes (J42).

The rule: what was asked for is kept as a whole, or the file is not finished; what the file system of the copy has no
place for is lost, as BITS loses it on FAT.  Everything is done to open descriptors, when the last byte is there.

A worker has no privilege: it keeps an owner who is its own account, and a group in which it is.  Of the permission bits
the nine are kept; set-user-ID and the like would lend the account's rights to whoever runs the copy.  Of the attributes
those are kept that belong to the file's owner (`user.*`); the others belong to the machine.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from openbits.errors import ErrorContext
from openbits.worker.failure import Failure, account_name, local_failure, shown

_ACCESS_LIST: Final = "system.posix_acl_access"
_LIST_VERSION: Final = 2
_ENTRY: Final = struct.Struct("<HHI")
_NOBODY_IN_PARTICULAR: Final = 0xFFFF_FFFF
_OWN: Final = "user."
_HAS_NO_PLACE: Final = frozenset((errno.EOPNOTSUPP, errno.ENOSYS))
_REFUSED: Final = frozenset((errno.EPERM, errno.EACCES))


class AclFlag(enum.IntFlag):
    """J42: BG_COPY_FILE_*."""

    OWNER = 1
    GROUP = 2
    ACCESS_LIST = 4
    ATTRIBUTES = 8


class _Tag(enum.IntEnum):
    """Of entries of a POSIX access list, as the kernel stores them."""

    OWNER = 0x01
    USER = 0x02
    OWNING_GROUP = 0x04
    GROUP = 0x08
    MASK = 0x10
    OTHERS = 0x20


_Named = Mapping[tuple[int, int], int]
"""Permissions of named users and groups, by tag and id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessList:
    """A POSIX access list by what it lets people do: the mask, which takes from others, has been taken off."""

    owner: int
    group: int
    others: int
    named: _Named

    @classmethod
    def of_mode(cls, mode: int) -> AccessList:
        """That of a file which has permission bits only."""
        return cls(owner=mode >> 6 & 7, group=mode >> 3 & 7, others=mode & 7, named={})

    @classmethod
    def parse(cls, raw: bytes) -> AccessList:
        """Read what the kernel gives. Raises ValueError."""
        if len(raw) < 4 or (len(raw) - 4) % _ENTRY.size or struct.unpack_from("<I", raw)[0] != _LIST_VERSION:
            raise ValueError("this is no access list")
        single: dict[int, int] = {}
        named: dict[tuple[int, int], int] = {}
        for tag, permissions, number in _ENTRY.iter_unpack(raw[4:]):
            if tag in (_Tag.USER, _Tag.GROUP):
                named[tag, number] = permissions
            else:
                single[tag] = permissions
        mask = single.get(_Tag.MASK, 7)
        try:
            return cls(
                owner=single[_Tag.OWNER],
                group=single[_Tag.OWNING_GROUP] & mask,
                others=single[_Tag.OTHERS],
                named={key: permissions & mask for key, permissions in named.items()},
            )
        except KeyError:
            raise ValueError("this access list lacks an entry") from None

    @property
    def mode(self) -> int:
        """The permission bits that come nearest, for file systems that have nothing else."""
        return self.owner << 6 | self.group << 3 | self.others

    def joined(self, inherited: AccessList) -> AccessList:
        """This list, and whoever is named in another one and not in this (J42: what the folder hands down)."""
        return AccessList(
            owner=self.owner, group=self.group, others=self.others, named={**inherited.named, **self.named}
        )

    def encode(self) -> bytes:
        """Render it for the kernel, which wants entries in order, and a mask where anybody is named."""
        entries: list[tuple[int, int, int]] = [(_Tag.OWNER, self.owner, _NOBODY_IN_PARTICULAR)]
        entries += [(tag, self.named[tag, who], who) for tag, who in sorted(self.named) if tag == _Tag.USER]
        entries.append((_Tag.OWNING_GROUP, self.group, _NOBODY_IN_PARTICULAR))
        entries += [(tag, self.named[tag, who], who) for tag, who in sorted(self.named) if tag == _Tag.GROUP]
        if self.named:
            mask = self.group
            for permissions in self.named.values():
                mask |= permissions
            entries.append((_Tag.MASK, mask, _NOBODY_IN_PARTICULAR))
        entries.append((_Tag.OTHERS, self.others, _NOBODY_IN_PARTICULAR))
        return struct.pack("<I", _LIST_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)


class _NotKept(Exception):
    """Something that was asked for cannot be kept; the clause says what."""


def keep(source: int, target: int, flags: int, path: str) -> Failure | None:
    """Give `target`, which will be `path`, what was asked for of `source`; return why that cannot be."""
    try:
        # In this order: who may no longer write to the copy can set no attributes, and a new group changes its bits.
        if flags & AclFlag.ATTRIBUTES:
            _keep_attributes(source, target)
        _keep_owners(source, target, flags)
        if flags & AclFlag.ACCESS_LIST:
            _keep_access_list(source, target)
    except _NotKept as not_kept:
        return Failure(
            name="E_ACCESSDENIED",
            context=ErrorContext.LOCAL_FILE,
            message=f"{shown(path)}: {not_kept}: it is tried again later",
            transient=True,
        )
    except OSError as error:
        return local_failure(error, path)
    return None


def _keep_owners(source: int, target: int, flags: int) -> None:
    wanted, found = os.fstat(source), os.fstat(target)
    if flags & AclFlag.OWNER and wanted.st_uid != found.st_uid:
        try:
            os.fchown(target, wanted.st_uid, -1)
        except OSError as error:
            _ignore_if_no_place(
                error,
                f"its source belongs to uid {wanted.st_uid}, and {account_name()} may give files to nobody else: "
                "clear the flag 1 of acl_flags, or let that account have the job",
            )
    if flags & AclFlag.GROUP and wanted.st_gid != found.st_gid:
        try:
            os.fchown(target, -1, wanted.st_gid)
        except OSError as error:
            _ignore_if_no_place(
                error,
                f"its source belongs to the group {wanted.st_gid}, in which {account_name()} is not: "
                "make it a member, or clear the flag 2 of acl_flags",
            )


def _keep_access_list(source: int, target: int) -> None:
    wanted = _access_list(source).joined(_access_list(target))
    refusal = f"{account_name()} may not set the access list of the copy, which is another account's: clear the flag 4"
    try:
        os.setxattr(target, _ACCESS_LIST, wanted.encode())
    except OSError as error:
        _ignore_if_no_place(error, f"{refusal} of acl_flags")
        try:
            os.fchmod(target, wanted.mode)
        except OSError as worse:
            _ignore_if_no_place(worse, f"{refusal} of acl_flags")


def _access_list(fd: int) -> AccessList:
    try:
        return AccessList.parse(os.getxattr(fd, _ACCESS_LIST))
    except ValueError:
        pass
    except OSError as error:
        if error.errno not in _HAS_NO_PLACE | {errno.ENODATA}:
            raise
    return AccessList.of_mode(stat.S_IMODE(os.fstat(fd).st_mode))


def _keep_attributes(source: int, target: int) -> None:
    for name in _names(source):
        try:
            value = os.getxattr(source, name)
        except OSError as error:
            if error.errno == errno.ENODATA:
                continue  # somebody has just taken it away
            raise
        try:
            os.setxattr(target, name, value)
        except OSError as error:
            _ignore_if_no_place(
                error,
                f"{account_name()} may not set the attribute {shown(name)} of the copy: clear the flag 8 of acl_flags",
            )
            return


def _names(fd: int) -> list[str]:
    try:
        return [name for name in os.listxattr(fd) if name.startswith(_OWN)]
    except OSError as error:
        if error.errno in _HAS_NO_PLACE:
            return []
        raise


def _ignore_if_no_place(error: OSError, clause: str) -> None:
    """Return for a file system that has no place for it. Raises _NotKept for lack of rights, and other errors."""
    if error.errno in _HAS_NO_PLACE:
        return
    if error.errno in _REFUSED or error.errno == errno.EINVAL:
        raise _NotKept(clause) from error
    raise error
