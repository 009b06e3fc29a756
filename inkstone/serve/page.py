"""The workbench: the web page of the server, built from `workbench/` and kept in memory.

The files are named here, one by one; nothing is looked up by a name that came in a request. The page may
load from its own server only and run no inline script (Content-Security-Policy), so a text that a model
produced, or a model card that a stranger wrote, has nothing to work with even if the page's code should
once fail to treat it as text.

File names are stable, so browsers ask each time whether they changed (ETag) and get 304 when not.
"""

from __future__ import annotations

import hashlib
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inkstone.ground.errors import InkstoneError

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
FILES = {  # route: (file, media type)
    "/": ("index.html", "text/html"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
    "/assets/workbench.js": ("assets/workbench.js", "text/javascript"),
    "/assets/workbench.css": ("assets/workbench.css", "text/css"),
}


def page_routes() -> list[Route]:
    """A route for each file of the page. Raises InkstoneError when the page was not built."""
    folder = resources.files("inkstone.serve") / "workbench"
    missing = [name for name, _ in FILES.values() if not (folder / name).is_file()]
    if missing:
        raise InkstoneError(f"the workbench is not built: {', '.join(missing)} missing. Run: make page")
    return [_route(path, (folder / name).read_bytes(), kind) for path, (name, kind) in FILES.items()]


def _route(path: str, content: bytes, media_type: str) -> Route:
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache", "ETag": etag}

    async def file(request: Request) -> Response:
        if etag in [
            tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")
        ]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    return Route(path, file, methods=["GET"], name=path)
