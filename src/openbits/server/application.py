"""What bits-server answers: uploads by BITS_POST, downloads by GET and HEAD, and what is published beside the root.

Every path is taken apart here, once, by `beneath`; everything behind works with its components.
"""

from __future__ import annotations

import asyncio
import os
from http import HTTPStatus
from typing import Final

from openbits.server import answers
from openbits.server.beneath import UnfitPath, UrlPath, parse_url_path
from openbits.server.downloads import Below, Downloads, hand_out
from openbits.server.exchange import Exchange
from openbits.server.publications import Publication, Publications, is_member
from openbits.server.uploads import Uploads
from openbits.upload.packets import METHOD

ALLOWED: Final = (("Allow", f"GET, HEAD, OPTIONS, {METHOD}"),)


class BitsApplication:
    """An `Application`."""

    def __init__(self, *, uploads: Uploads, downloads: Downloads | None, publications: Publications) -> None:
        """Without `downloads` only replies and what is published is handed out."""
        self._uploads = uploads
        self._downloads = downloads
        self._publications = publications

    async def __call__(self, exchange: Exchange) -> None:
        """Answer an exchange."""
        head = exchange.head
        if self._uploads.is_for_uploads(head):
            await self._uploads.answer(exchange)
        elif head.method in ("GET", "HEAD"):
            await self._serve_file(exchange)
        elif head.method == "OPTIONS":
            await exchange.respond(HTTPStatus.OK, ALLOWED)
        else:
            await answers.text(exchange, HTTPStatus.METHOD_NOT_ALLOWED, f"{head.method} is not done here", ALLOWED)

    async def _serve_file(self, exchange: Exchange) -> None:
        head = exchange.head
        try:
            path = parse_url_path(head.path)
        except UnfitPath as error:
            await answers.text(exchange, HTTPStatus.BAD_REQUEST, str(error))
            return
        publication = self._publications.find(head, path)
        if publication is not None:
            await self._serve_published(exchange, publication, path)
            return
        reply_fd = None
        if self._uploads.may_be_reply(path.components):
            reply_fd = await asyncio.to_thread(self._uploads.open_reply, path.components, head.user)
        if reply_fd is None:
            await self._serve_root(exchange, path)
            return
        try:
            await hand_out(exchange, _Opened(reply_fd), b"")
        finally:
            os.close(reply_fd)

    async def _serve_root(self, exchange: Exchange, path: UrlPath) -> None:
        if self._downloads is None:
            await answers.missing(exchange)
        else:
            await self._downloads.serve(exchange, path)

    async def _serve_published(self, exchange: Exchange, publication: Publication, path: UrlPath) -> None:
        if publication.group:
            user = exchange.head.user
            if not await asyncio.to_thread(is_member, user, publication.group):
                who = "it is not known who asks" if user is None else f"{user} is not one of them"
                line = f"only members of the group {publication.group} get this, and {who}"
                await answers.text(exchange, HTTPStatus.FORBIDDEN, line)
                return
        inner = path.components[len(publication.prefix.components) :]
        if path.ends_with_slash or any(name.startswith(b".") for name in inner):
            await answers.missing(exchange)
            return
        publication.hand_outs += 1
        # A descriptor of this exchange's own: it may be unpublished meanwhile.
        fd = os.dup(publication.fd)
        try:
            source = Below(fd, inner, self._uploads.storage.private) if publication.is_directory else _Opened(fd)
            await hand_out(exchange, source, path.components[-1])
        finally:
            os.close(fd)


class _Opened:
    """A file that is open already; the descriptor stays its owner's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def open(self) -> tuple[int, os.stat_result]:
        """See `Source`."""
        return os.dup(self._fd), os.fstat(self._fd)
