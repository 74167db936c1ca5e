"""What copies of file:// sources keep of them (J42), in BITS's terms, for both clients (see `objects`)."""

from __future__ import annotations

import enum

from openbits.client import calls
from openbits.client.calls import Call
from openbits.client.objects import result_of
from openbits.client.operations import operation
from openbits.client.values import Result


class FileAclFlags(enum.IntFlag):
    """BG_COPY_FILE_* (J42). What an access list and a SACL are on Windows, are here a POSIX access list with the
    permission bits, and the extended attributes of the file's owner (`user.*`)."""

    OWNER = 1
    GROUP = 2
    DACL = 4
    SACL = 8
    ALL = 15


class FileAclOperations:
    """IBackgroundCopyJob3's flags for access control lists (J42)."""

    _id: str

    @operation
    def set_file_acl_flags(self, flags: FileAclFlags | int) -> Call[Result]:
        """Set what the job's files keep of their sources (J42); 0, nothing, when nothing is said.

        It counts for file:// sources and is ignored for others. It is done when the last byte is there. What the job's
        owner has no right to keep (an owner who is somebody else, a group in which he is not) leads to
        TRANSIENT_ERROR with E_ACCESSDENIED; what the file system of the copy has no place for is lost.
        Raises E_INVALIDARG for bits that do not exist, BG_E_INVALID_STATE from TRANSFERRED on,
        BG_E_PROPERTY_SUPPORTED_FOR_DOWNLOAD_JOBS_ONLY.
        """
        return calls.change_settings(self._id, {"acl_flags": int(flags)}).then(result_of)

    @operation
    def get_file_acl_flags(self) -> Call[FileAclFlags]:
        """Return what was set (J42)."""
        return calls.job(self._id).then(lambda data: FileAclFlags(data["settings"]["acl_flags"]))
