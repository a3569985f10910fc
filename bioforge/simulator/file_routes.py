"""HTTP routes of `/v1/files`: upload, retrieve, list, delete and download."""

from __future__ import annotations

from aiohttp import web

from bioforge.simulator.batch_faults import faults_at, parse_batch_faults
from bioforge.simulator.counters import Counters
from bioforge.simulator.errors import no_such_path, wrong_method, wrong_value
from bioforge.simulator.files import File, Files
from bioforge.simulator.folder import Folder
from bioforge.simulator.http_exchange import HttpExchange
from bioforge.simulator.options import SimulatorOptions
from bioforge.simulator.pagination import limit_of, listed, page
from bioforge.simulator.uploads import receive

PATH = "/v1/files"

_CHUNK = 256 * 1024
_MAX_PAGE = 10_000


class FileRoutes:
    """Answers all paths under `/v1/files`."""

    def __init__(self, options: SimulatorOptions, folder: Folder, files: Files, counters: Counters) -> None:
        self._options = options
        self._folder = folder
        self._files = files
        self._counters = counters

    async def handle(self, exchange: HttpExchange, path: str) -> web.StreamResponse:
        """Answer a request; raise `ApiError` to refuse it."""
        method = exchange.request.method
        name, _, rest = path.removeprefix(PATH).removeprefix("/").partition("/")
        match name, rest, method:
            case "", "", "POST":
                exchange.require("POST")
                return await self._upload(exchange)
            case "", "", "GET":
                exchange.require("GET")
                return self._list(exchange)
            case "", "", _:
                raise wrong_method(method, path, "GET, POST")
            case _, "", "GET":
                exchange.require("GET")
                return exchange.send_json(self._files.get(name).view())
            case _, "", "DELETE":
                exchange.require("DELETE")
                self._files.delete(self._files.get(name).id)
                return exchange.send_json({"object": "file", "deleted": True, "id": name})
            case _, "", _:
                raise wrong_method(method, path, "GET, DELETE")
            case _, "content", _:
                exchange.require("GET")
                return await self._download(exchange, self._files.get(name))
        raise no_such_path(method, path)

    async def _upload(self, exchange: HttpExchange) -> web.StreamResponse:
        file = await receive(exchange.request, self._folder, self._files)
        exchange.ledger.count_upload()
        if file.purpose == "batch":
            text = faults_at(self._counters.upload(), self._options.batch_script, self._options.batch_faults)
            if "upload_lost" in parse_batch_faults(text):
                return exchange.drop("upload_lost")
        return exchange.send_json(file.view())

    def _list(self, exchange: HttpExchange) -> web.Response:
        query = exchange.request.query
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise wrong_value("order", f"value '{order}' is not one of 'asc', 'desc'.")
        purpose = query.get("purpose")
        files = {file.id: file for file in self._files.all() if purpose in (None, file.purpose)}
        names = list(files) if order == "asc" else list(reversed(files))
        chosen, more = page(names, query, limit_of(query, _MAX_PAGE, _MAX_PAGE))
        return exchange.send_json(listed([files[name].view() for name in chosen], more))

    async def _download(self, exchange: HttpExchange, file: File) -> web.StreamResponse:
        cut = file.cut_downloads > 0
        if cut:
            file.cut_downloads -= 1
            self._files.save(file)
        remaining = file.bytes // 2 if cut else file.bytes
        with self._files.path(file).open("rb") as content:
            fault = "download_truncated" if cut else None
            exchange.headers["content-disposition"] = f'attachment; filename="{file.id}.jsonl"'
            response = await exchange.begin(file.bytes, "application/octet-stream", fault)
            try:
                while remaining and (chunk := content.read(min(_CHUNK, remaining))):
                    await response.write(chunk)
                    remaining -= len(chunk)
            except ConnectionError:
                # the client disconnected
                return response
        if cut:
            exchange.close()
        return response
