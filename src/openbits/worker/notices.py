"""The notices that a worker is delivering: each is answered by one NoticeEnded, and none outlives the channel."""

from __future__ import annotations

from collections.abc import Callable

from openbits.frames.operations import CallBusName, NoticeEnded, PostNotice
from openbits.frames.worker import Evaluator, EvaluatorWanted
from openbits.worker.busnames import BusCall
from openbits.worker.run import Tools
from openbits.worker.webhook import Webhook


class Notices:
    """By the numbers of their operations."""

    def __init__(
        self, tools: Tools, send: Callable[[object], None], *, on_unexpected: Callable[[Exception], None]
    ) -> None:
        self._tools = tools
        self._send = send
        self._on_unexpected = on_unexpected
        self._under_way: dict[int, BusCall | Webhook] = {}

    def __repr__(self) -> str:
        return f"<Notices under_way={len(self._under_way)}>"

    def deliver(self, order: CallBusName | PostNotice) -> None:
        """Begin."""
        if isinstance(order, CallBusName):
            notice: BusCall | Webhook = BusCall(order, self._tools.loop, self._ended)
        else:
            notice = self._webhook(order)
        self._under_way[order.operation] = notice
        notice.start()

    def _webhook(self, order: PostNotice) -> Webhook:
        return Webhook(
            order,
            self._tools,
            want_evaluator=lambda: self._want_evaluator(order),
            on_unexpected=self._on_unexpected,
            done=self._ended,
        )

    def receive_evaluator(self, message: Evaluator, fd: int | None) -> bool:
        """Whether a notice asked for this evaluator; the descriptor is its own then."""
        for notice in self._under_way.values():
            if isinstance(notice, Webhook) and notice.transfer == message.transfer:
                notice.receive_evaluator(fd, message.message)
                return True
        return False

    def close(self) -> None:
        """Drop them all: there is nobody left to be told."""
        while self._under_way:
            self._under_way.popitem()[1].drop()

    def _ended(self, ended: NoticeEnded) -> None:
        del self._under_way[ended.operation]
        self._send(ended)

    def _want_evaluator(self, order: PostNotice) -> None:
        if order.transfer:
            self._send(EvaluatorWanted(transfer=order.transfer))
        else:
            self._tools.loop.post(lambda: self._refuse_evaluator(order.operation))

    def _refuse_evaluator(self, operation: int) -> None:
        notice = self._under_way.get(operation)
        if isinstance(notice, Webhook):
            notice.receive_evaluator(None, "the service starts no process for that")
