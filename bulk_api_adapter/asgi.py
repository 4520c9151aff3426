"""What a middleware around an app has to do with: the shapes of ASGI, the route that was taken, the status that was sent."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_UNKNOWN_ROUTE = "unknown"


def route_of(scope: Scope) -> str:
    """The app's own template, once the request has been answered; never what a client typed."""
    return getattr(scope.get("route"), "path", _UNKNOWN_ROUTE)


class AnsweredStatus:
    """Sends on what an app sends; `code` is the status of it, and 500 until then, as a server says when an app just ends."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.code = 500

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.code = message["status"]
        await self._send(message)
