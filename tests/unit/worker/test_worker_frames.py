"""What a worker says at most of files and paths fits into a frame, whatever names they have."""

from __future__ import annotations

import pytest

from openbits.errors import error_code
from openbits.frames.operations import FileResult, OperationResults, PathPoint, PathsWalked
from openbits.frames.worker import WORKER_TO_SERVICE
from openbits.worker.failure import MESSAGE_LIMIT
from openbits.worker.main import _POINTS_PER_FRAME, _RESULTS_PER_FRAME, _shortened

LARGE = 2**40
WORST = pytest.mark.parametrize("letter", ["\U0001f600", "\udcff", "é", "\\", '"'])


@WORST
def test_messages_about_files_fit(letter: str) -> None:
    name = error_code("BG_E_NEW_OWNER_NO_FILE_ACCESS").name
    result = _shortened(FileResult(index=LARGE, error=name, message=letter * 20_000))
    assert len(result.message) == MESSAGE_LIMIT
    frame = OperationResults(operation=LARGE, results=(result,) * _RESULTS_PER_FRAME, last=True)
    assert WORKER_TO_SERVICE.decode(WORKER_TO_SERVICE.encode(frame)) == frame


@WORST
def test_points_of_paths_fit(letter: str) -> None:
    points = (PathPoint(index=LARGE, path=letter * 4096),) * _POINTS_PER_FRAME
    frame = PathsWalked(operation=LARGE, points=points, last=True)
    assert WORKER_TO_SERVICE.decode(WORKER_TO_SERVICE.encode(frame)) == frame
