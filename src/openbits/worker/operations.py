"""Work on files beside transfers: may a directory be written to, rename what is finished, delete what is not.

Every operation can be done twice: the service sends it again when it does not know whether it was
done.  It runs in a helper thread, because it ends with the directories being synced.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from typing import Final

from openbits.frames.operations import FileResult, RenameSpec
from openbits.worker.failure import Failure, account_name, local_failure, shown
from openbits.worker.files import Directories, Directory
from openbits.worker.paths import ForeignLink, open_directory

_ADVICE_DIRECTORY: Final = "create it, or choose another one"


def check_directories(paths: Iterable[str]) -> list[FileResult]:
    """Those directories in which this process may not create files (D7)."""
    results = []
    for index, path in enumerate(paths):
        problem = _directory_problem(path)
        if problem is not None:
            results.append(FileResult(index=index, error=problem[0], message=problem[1]))
    return results


def _directory_problem(path: str) -> tuple[str, str] | None:
    try:
        fd = open_directory(path)
    except ForeignLink as link:
        failure = local_failure(link, path)
        return failure.name, failure.message
    except FileNotFoundError:
        return "ERROR_PATH_NOT_FOUND", f"the directory {shown(path)} does not exist: {_ADVICE_DIRECTORY}"
    except NotADirectoryError:
        return "ERROR_PATH_NOT_FOUND", f"{shown(path)}, or a part of it, is no directory: {_ADVICE_DIRECTORY}"
    except PermissionError:
        return "E_ACCESSDENIED", f"{account_name()} may not look into the directories above {shown(path)}"
    except (OSError, ValueError) as error:
        return "ERROR_PATH_NOT_FOUND", f"the directory {shown(path)} cannot be used: {error}"
    try:
        if os.access(".", os.W_OK | os.X_OK, dir_fd=fd, effective_ids=True):
            return None
        is_read_only = os.fstatvfs(fd).f_flag & os.ST_RDONLY
    finally:
        os.close(fd)
    if is_read_only:
        return "E_ACCESSDENIED", f"{shown(path)} is on a read-only file system: choose another directory"
    return (
        "E_ACCESSDENIED",
        f"{account_name()} may not create files in {shown(path)}: get write access or choose another directory",
    )


class _BothMissing(Exception):
    """Neither the temporary file nor the final one is there."""

    def __init__(self, file: RenameSpec) -> None:
        super().__init__(
            f"{shown(file.temporary_name)}: the temporary file is gone, so {shown(file.local_name)} cannot be "
            "made: somebody deleted it; fetch the file again"
        )


class _Touched:
    """The directories that an operation changed, synced at its end."""

    def __init__(self) -> None:
        self.directories = Directories()
        self._touched: dict[Directory, list[int]] = {}

    def note(self, directory: Directory, index: int) -> None:
        if directory not in self._touched:
            self._touched[directory.hold()] = []
        self._touched[directory].append(index)

    def sync(self) -> list[FileResult]:
        results = []
        for directory, indexes in self._touched.items():
            try:
                directory.sync()
            except OSError as error:
                failure = local_failure(error, directory.path)
                results += [_result(index, failure) for index in indexes]
            directory.release()
        self.directories.close()
        return results


def rename_files(files: Iterable[RenameSpec]) -> list[FileResult]:
    """Give finished files their names; those that failed are returned."""
    touched = _Touched()
    results = []
    for file in files:
        try:
            _rename(touched, file)
        except _BothMissing as missing:
            results.append(FileResult(index=file.index, error="ERROR_FILE_NOT_FOUND", message=str(missing)))
        except OSError as error:
            failure = local_failure(error, error.filename if isinstance(error.filename, str) else file.local_name)
            results.append(_result(file.index, failure))
    return results + touched.sync()


def _rename(touched: _Touched, file: RenameSpec) -> None:
    if file.temporary_name == file.local_name and file.modified_epoch_s is None:
        return
    source, source_name = touched.directories.hold(file.temporary_name)
    try:
        _date(source, source_name, file)
        if file.temporary_name == file.local_name:
            return
        target, target_name = touched.directories.hold(file.local_name)
        try:
            # Replaces what has the name: a link too, and never what the link points to.
            os.rename(source_name, target_name, src_dir_fd=source.fd, dst_dir_fd=target.fd)
            touched.note(target, file.index)
            if source is not target:
                touched.note(source, file.index)
        except FileNotFoundError:
            _expect_done(target, target_name, file)
            touched.note(target, file.index)
        except OSError as error:
            error.filename = file.local_name
            raise
        finally:
            target.release()
    finally:
        source.release()


def _date(directory: Directory, name: str, file: RenameSpec) -> None:
    """Give the file the server's date (D9), where whoever wrote it could not; one that cannot be held is left out."""
    if file.modified_epoch_s is not None:
        nanoseconds = file.modified_epoch_s * 1_000_000_000
        with contextlib.suppress(OSError, OverflowError):
            os.utime(name, ns=(nanoseconds, nanoseconds), dir_fd=directory.fd, follow_symlinks=False)


def _expect_done(target: Directory, name: str, file: RenameSpec) -> None:
    """The first try of an operation that was cut off may have renamed the file; so may nobody else have."""
    try:
        found = os.stat(name, dir_fd=target.fd, follow_symlinks=False)
    except FileNotFoundError:
        raise _BothMissing(file) from None
    if file.size is not None and (not stat.S_ISREG(found.st_mode) or found.st_size != file.size):
        raise _BothMissing(file)


def delete_files(paths: Iterable[str]) -> list[FileResult]:
    """Delete temporary files; those that could not be deleted are returned, by position."""
    touched = _Touched()
    results = []
    for index, path in enumerate(paths):
        try:
            directory, name = touched.directories.hold(path)
            try:
                os.unlink(name, dir_fd=directory.fd)
                touched.note(directory, index)
            finally:
                directory.release()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            results.append(_result(index, local_failure(error, path)))
    return results + touched.sync()


def _result(index: int, failure: Failure) -> FileResult:
    return FileResult(index=index, error=failure.name, message=failure.message)
