"""Uploads through everything at once: whatever is dropped, killed or refused, the file arrives once and whole."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from openbits.frames.worker import TransferEnded, UploadMoved
from support.upload_orders import KIBI, MEBI, again, make, order
from support.upload_server import Packet, Talk, UploadServer
from support.worker_process import WorkerProcess

ROUNDS = 60
CALM_AFTER = 150
"""Packets after which the weather is fine."""


def storm(chance: random.Random) -> Any:
    """A server that does, with one packet of three, something that an honest one may do or suffer."""

    lost: list[Packet] = []

    def act(talk: Talk) -> None:
        lot = chance.random()
        if lot > 0.33 or len(talk.server.packets) > CALM_AFTER:
            talk.honest()
        elif lot > 0.28:
            talk.hang_up(reset=lot > 0.30)
        elif lot > 0.22:
            talk.read_body(chance.randrange(talk.packet.length + 1))
            talk.hang_up()
        elif lot > 0.16:
            talk.honest(silent=True)
            talk.hang_up()
        elif lot > 0.11:
            talk.read_body()
            talk.ack(503)
        elif lot > 0.06 and talk.packet.length > 20 * KIBI:
            talk.read_body()
            talk.ack(413)
        elif lot > 0.03 and may_lose(talk):
            # A server that loses bytes again and again is an error, and a test of its own.
            lost.append(talk.packet)
            session = talk.server.sessions[talk.packet.session]
            del session.data[chance.randrange(len(session.data) + 1) :]
            talk.ack(416, ("BITS-Received-Content-Range", str(len(session.data))))
        else:
            talk.honest()

    def may_lose(talk: Talk) -> bool:
        session = talk.server.sessions.get(talk.packet.session)
        if session is None or session.is_complete or not talk.packet.length or len(lost) >= 3:
            return False
        talk.read_body()
        return True

    return act


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_the_file_arrives_once_and_whole(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    source, content = make(tmp_path, chance.choice((0, 1, 70 * KIBI, 5 * MEBI, 30 * MEBI)), seed)
    with UploadServer() as server:
        server.on("*", storm(chance), times=100_000)
        following = order(server, source)
        worker = WorkerProcess()
        ended: TransferEnded | None = None
        try:
            for number in range(ROUNDS):
                worker.begin_upload(following, break_patience_s=1.0)
                if number < ROUNDS // 2 and chance.random() < 0.4:
                    worker.receive(chance.random() * 0.05)
                    worker.kill()
                    worker.channel.close()
                    ended = None
                else:
                    ended = worker.wait_for(TransferEnded)
                    if not ended.error:
                        break
                    assert ended.transient, ended
                if worker.all(UploadMoved) and worker.started():
                    following = again(worker, following)
                if ended is None:
                    worker = WorkerProcess()
            assert ended is not None
            assert ended.error == ""
        finally:
            with worker:
                pass
    assert server.published == ["/in/file"]
    assert server.files["/in/file"] == content
