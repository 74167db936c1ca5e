"""Short answers in words, for whoever looks at them: one line that says what is wrong."""

from __future__ import annotations

from http import HTTPStatus

from openbits.server.exchange import Exchange, Headers


async def text(exchange: Exchange, status: int, line: str, headers: Headers = ()) -> None:
    """Answer with a line of text."""
    kind = ("Content-Type", "text/plain; charset=utf-8")
    await exchange.respond(status, (*headers, kind), f"{line}\n".encode())


async def missing(exchange: Exchange) -> None:
    """There is nothing here, or nothing that anybody outside should know of."""
    await text(exchange, HTTPStatus.NOT_FOUND, "there is no file of this name")
