"""HTTP/1.1 as an engine needs it: our own small parser on blocking sockets, and a thread for each connection.

A request can become a raw connection (`Request.hijack`, as `docker attach` asks for) whose two directions end one
after the other, and an answer can be a stream that is flushed item by item while the handler watches whether the
client is still there. Servers made for web pages offer neither.

`wire` reads and writes what travels, `messages` is what a handler sees, `router` finds the handler, `server` and
`listeners` take connections, `tls` secures them, `websocket` speaks RFC 6455 on a connection that was hijacked, and
`trace` keeps a record of each exchange, without the secrets.
"""

from real_engine.http.headers import Headers
from real_engine.http.messages import Hijacked, Peer, Request, Response
from real_engine.http.query import Query
from real_engine.http.router import Handler, Router
from real_engine.http.server import Server

__all__ = ["Handler", "Headers", "Hijacked", "Peer", "Query", "Request", "Response", "Router", "Server"]
