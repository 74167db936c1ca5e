"""What a service tells a worker of uploads, and what is expected when they are done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from openbits.frames.worker import FileSpec, TransferEnded, UploadFile, UploadMoved
from support.origin import generate
from support.upload_server import UploadServer
from support.worker_process import WorkerProcess

KIBI = 1024
MEBI = 1024 * 1024


def order(server: UploadServer, source: Path, **more: Any) -> UploadFile:
    """What the service sends for a new job."""
    file = FileSpec(index=0, remote_name=server.url("/in/file"), local_name=str(source), temporary_name="")
    return UploadFile(**{"transfer": 1, "file": file, "protocol": "bits", "memory": "", **more})


def again(worker: WorkerProcess, before: UploadFile, **more: Any) -> UploadFile:
    """What the service sends for the next run: everything that it was told."""
    moved = worker.all(UploadMoved)[-1]
    started = worker.started()[-1]
    file = replace(
        before.file, durable_bytes=moved.acknowledged_bytes, size=started.size, last_modified=started.last_modified
    )
    return replace(before, **{"transfer": before.transfer + 1, "file": file, "memory": moved.memory, **more})


def make(directory: Path, size: int, seed: int = 1) -> tuple[Path, bytes]:
    content = generate(size, seed)
    path = directory / f"source{seed}"
    path.write_bytes(content)
    return path, content


def assert_done(ended: TransferEnded, worker: WorkerProcess, server: UploadServer, content: bytes) -> None:
    assert (ended.error, ended.message) == ("", "")
    assert [(file.index, file.size) for file in worker.done] == [(0, len(content))]
    assert server.files["/in/file"] == content
    assert not server.sessions
