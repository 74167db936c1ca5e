"""A size that no file can have does not get from a worker into the service, whatever a server told the worker."""

import pytest

from openbits.frames.codec import FrameError
from openbits.frames.worker import WORKER_TO_SERVICE, FileReceived


@pytest.mark.parametrize("received_bytes", [0, -1, 2**63 - 1])
def test_numbers_that_travel(received_bytes: int) -> None:
    message = FileReceived(transfer=1, index=0, received_bytes=received_bytes)
    assert WORKER_TO_SERVICE.decode(WORKER_TO_SERVICE.encode(message)) == message


@pytest.mark.parametrize("received_bytes", [2**63, -(2**63), 10**100])
def test_numbers_that_do_not(received_bytes: int) -> None:
    packet = WORKER_TO_SERVICE.encode(FileReceived(transfer=1, index=0, received_bytes=received_bytes))
    with pytest.raises(FrameError, match="too large"):
        WORKER_TO_SERVICE.decode(packet)
