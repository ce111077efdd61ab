"""Serves the page on this machine alone.

The address has a random token, without which every answer is 404. So other users of the machine, and other pages in the
browser, cannot read or change anything. The Host header is checked, too: else a site could point its own name to
127.0.0.1.
"""

import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tillmap import evaluation
from tillmap.core.errors import InputError, ResourceError, TillmapError
from tillmap.review.page import Json, Page

HOST = "127.0.0.1"
_STATIC = Path(__file__).with_name("static")
_COLOURS = Path(evaluation.__file__).with_name("static") / "colours.css"  # those of the report
_MAX_BODY = 2**16  # bytes
_MAX_QUERY = 200  # characters

# Nothing but the page's own files. Trusted types: the browser refuses to make HTML or scripts of text.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address has the token
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def make_app(page: Page, token: str) -> ASGIApp:
    """The application that serves a page below /TOKEN/."""

    async def start(_: Request) -> Response:
        return _json(page.start())

    async def show(request: Request) -> Response:
        return _json(page.show(_place(request.query_params.get("place"), page)))

    async def find(request: Request) -> Response:
        return _json(page.find(request.query_params.get("q", "")[:_MAX_QUERY]))

    async def decide(request: Request) -> Response:
        body = await _body(request)
        labels, twins = body.get("labels"), body.get("twins")
        some = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
        if not (some or ("labels" in body and labels is None)) or not isinstance(twins, bool):
            raise HTTPException(400, "expected place, labels and twins")
        place = _place(body.get("place"), page)
        return _json(page.decide(place, labels, twins))

    async def undo(request: Request) -> Response:
        number = (await _body(request)).get("number")
        if type(number) is not int:
            raise HTTPException(400, "expected the number of a decision")
        return _json(page.undo(number))

    async def colours(_: Request) -> Response:
        return FileResponse(_COLOURS)

    # Each call ends before the next one starts, since none of them waits. So the log needs no lock within the process.
    calls = [
        Route("/start", start),
        Route("/show", show),
        Route("/find", find),
        Route("/decide", decide, methods=["POST"]),
        Route("/undo", undo, methods=["POST"]),
        Route("/colours.css", colours),
        Mount("/", StaticFiles(directory=_STATIC, html=True)),
    ]
    app = Starlette(
        routes=[Mount("/{token}", routes=calls)],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)],
        exception_handlers={HTTPException: _refused, TillmapError: _refused, OSError: _refused},
    )
    return _guarded(app, token)


def serve(page: Page, port: int, tell: Callable[[str], None]) -> None:
    """Serve a page until Ctrl-C or SIGTERM.

    Args:
        page: the page.
        port: the port to listen on; 0 for any that is free.
        tell: is called with the address once the server listens.

    Raises ResourceError if another program listens on the port.
    """
    token = secrets.token_urlsafe(24)
    config = uvicorn.Config(
        make_app(page, token),
        lifespan="off",
        ws="none",
        log_level="warning",
        access_log=False,  # the addresses have the token
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    with _listen(port) as listener:
        tell(f"http://{HOST}:{listener.getsockname()[1]}/{token}/")
        with suppress(KeyboardInterrupt):
            _Server(config).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends at Ctrl-C and SIGTERM. uvicorn's own sends the signal again afterwards, but here this is how to end well."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise ResourceError(
            f"port {port}: {os.strerror(error.errno or 0)}; choose another one, or leave --port out for a free one"
        ) from None


def _guarded(app: ASGIApp, token: str) -> ASGIApp:
    """An application that answers only below /TOKEN/, and always with the headers."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        given = scope["path"].split("/")[1:2]
        if given and secrets.compare_digest(given[0].encode(), token.encode()):
            await app(scope, receive, send_with_headers)
        else:
            await Response("Open the address that `tillmap review` printed.\n", 404)(scope, receive, send_with_headers)

    return guarded


def _json(value: Json) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


async def _refused(_: Request, error: Exception) -> Response:
    """What went wrong, for the page to show."""
    status = {HTTPException: 400, InputError: 400, ResourceError: 409}.get(type(error), 507)
    if isinstance(error, HTTPException):
        return Response(orjson.dumps({"error": error.detail}), error.status_code, media_type="application/json")
    text = f"not saved: {error.strerror}" if isinstance(error, OSError) else str(error)
    return Response(orjson.dumps({"error": text}), status, media_type="application/json")


def _place(given: object, page: Page) -> int:
    place = int(given) if isinstance(given, str) and given.isdecimal() and len(given) < 10 else given
    if type(place) is int and 0 <= place < len(page):
        return place
    raise HTTPException(400, f"expected a place from 0 to {len(page) - 1}")


async def _body(request: Request) -> Json:
    """The JSON object that was sent."""
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > _MAX_BODY:
            raise HTTPException(413, "too long")
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise HTTPException(400, "expected a JSON object")
    return body
