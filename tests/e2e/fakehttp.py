# SPDX-License-Identifier: MIT OR Apache-2.0
"""fakehttp.py - the HTTP/1.1 server that both fakes stand on.

A thread per connection, keep-alive, and nothing between the fake and its
socket: http.server cannot reset a connection, drip bytes, stop answering in
the middle of a response or notice that its client went away while it waits,
and these are what the tests are about. Standard library only, Python 3.9+.

Every wait here is on a condition or on the client's end of the socket, so a
daemon that was killed never leaves a thread that answers in its name.
"""
import os
import select
import socket
import struct
import threading
import time

REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict",
    413: "Content Too Large", 429: "Too Many Requests", 500: "Internal Server Error",
    502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout", 529: "Overloaded",
}
BODY_MAX = 64 << 20
HEAD_MAX = 64 << 10


class Gone(Exception):
    """The client closed its end, or the server is being closed."""


class BadRequest(Exception):
    """Bytes that are not an HTTP/1.1 request."""


class Request:
    def __init__(self, method, target, headers, body):
        self.method, self.target, self.headers, self.body = method, target, headers, body
        self.path, _, self.query = target.partition("?")
        self.time = time.time()

    def header(self, name, default=""):
        return self.headers.get(name.lower(), default)


class Conn:
    """One accepted connection. Sending raises Gone when nobody listens."""

    def __init__(self, server, sock):
        self.server, self.sock = server, sock
        self.buf = b""
        self.chunked = False
        self.keep = True
        self.sent = 0

    # -- reading ---------------------------------------------------------------

    def _more(self):
        try:
            data = self.sock.recv(65536)
        except OSError:
            raise Gone()
        if not data:
            raise Gone()
        self.buf += data

    def _line(self, what):
        while b"\n" not in self.buf:
            if len(self.buf) > HEAD_MAX:
                raise BadRequest(what + " too long")
            self._more()
        line, self.buf = self.buf.split(b"\n", 1)
        if not line.endswith(b"\r"):
            raise BadRequest("line of the " + what + " does not end with CR LF")
        return line[:-1]

    def _exactly(self, n):
        parts, have = [self.buf], len(self.buf)
        while have < n:
            try:
                data = self.sock.recv(min(1 << 20, n - have + 4096))
            except OSError:
                raise Gone()
            if not data:
                raise Gone()
            parts.append(data)
            have += len(data)
        data = b"".join(parts)
        self.buf = data[n:]
        return data[:n]

    def read_request(self):
        """The next request, or Gone at the end of the connection."""
        first = self._line("request line").decode("latin-1")
        parts = first.split(" ")
        if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
            raise BadRequest("request line %r" % first)
        headers = {}
        while True:
            line = self._line("header").decode("latin-1")
            if not line:
                break
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise BadRequest("header line %r" % line)
            key = name.lower()
            if key in headers and key in ("content-length", "host", "content-type", "x-api-key"):
                raise BadRequest("header %s twice" % key)
            headers[key] = value.strip()
        if parts[2] == "HTTP/1.1" and "host" not in headers:
            raise BadRequest("no Host header")
        self.keep = headers.get("connection", "").lower() != "close" and parts[2] == "HTTP/1.1"
        coded = headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length")
        if coded and length is not None:
            raise BadRequest("both Content-Length and Transfer-Encoding")
        if headers.get("expect", "").lower() == "100-continue":
            self.raw(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = b""
        if coded:
            if coded != "chunked":
                raise BadRequest("Transfer-Encoding %r" % coded)
            body = self._chunks()
        elif length is not None:
            if not length.isdigit() or int(length) > BODY_MAX:
                raise BadRequest("Content-Length %r" % length)
            body = self._exactly(int(length))
        return Request(parts[0], parts[1], headers, body)

    def _chunks(self):
        body = b""
        while True:
            size = int(self._line("chunk size").split(b";")[0], 16)
            if size == 0:
                while self._line("trailer"):
                    pass
                return body
            body += self._exactly(size)
            if len(body) > BODY_MAX:
                raise BadRequest("body too big")
            self._line("chunk end")

    # -- writing ---------------------------------------------------------------

    def raw(self, data):
        try:
            self.sock.sendall(data)
        except OSError:
            raise Gone()
        self.sent += len(data)

    def head(self, status, headers):
        lines = ["HTTP/1.1 %d %s" % (status, REASONS.get(status, "Status"))]
        now = time.gmtime(time.time() + self.server.clock_skew)
        lines.append("Date: " + time.strftime("%a, %d %b %Y %H:%M:%S GMT", now))
        lines += ["%s: %s" % kv for kv in headers]
        lines.append("Connection: " + ("keep-alive" if self.keep else "close"))
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def respond(self, status, headers, body):
        self.raw(self.head(status, headers + [("Content-Length", str(len(body)))]) + body)

    def respond_drip(self, status, headers, body, every):
        """One byte of head and body at a time."""
        data = self.head(status, headers + [("Content-Length", str(len(body)))]) + body
        for i in range(len(data)):
            self.raw(data[i:i + 1])
            self.pause(every)

    def start_chunked(self, status, headers):
        self.chunked = True
        self.raw(self.head(status, headers + [("Transfer-Encoding", "chunked")]))

    def chunk(self, data):
        if data:
            self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    def end_chunked(self):
        self.raw(b"0\r\n\r\n")
        self.chunked = False

    def reset(self):
        """Ends the connection with RST, not FIN."""
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        raise Gone()

    # -- waiting ---------------------------------------------------------------

    def gone(self):
        if self.server.closed.is_set():
            return True
        try:
            ready, _, _ = select.select([self.sock], [], [], 0)
            return bool(ready) and not self.sock.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def pause(self, seconds):
        """Lets seconds pass while the client is there."""
        until = time.monotonic() + seconds
        while True:
            if self.gone():
                raise Gone()
            left = until - time.monotonic()
            if left <= 0:
                return
            self.server.closed.wait(min(left, 0.05))

    def hang(self):
        """Never answers; returns by Gone when the client gives up."""
        while True:
            self.pause(60)

    def hold(self, event):
        """Until event is set, or Gone."""
        while not event.wait(0.02):
            if self.gone():
                raise Gone()


class FakeServer:
    """Listens on 127.0.0.1; subclasses define handle(conn, request)."""

    def __init__(self):
        self.lock = threading.RLock()
        self.cond = threading.Condition(self.lock)
        self.closed = threading.Event()
        self.conns = set()
        self.connections = 0            # accepted since the start
        self.clock_skew = 0.0           # seconds that its clock is ahead
        self.refusals = []              # texts of requests that were not as they must be
        self.expected_refusals = []     # substrings that a test declared
        self.errors = []                # exceptions in the fake itself: bugs of the fake
        self.listener = None
        self.port = 0
        self.up()

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.port

    # -- life ------------------------------------------------------------------

    def up(self):
        """Listens (again, on the same port)."""
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", self.port))
        s.listen(256)
        self.port = s.getsockname()[1]
        self.listener = s
        threading.Thread(target=self._accept, args=(s,), daemon=True).start()

    def down(self):
        """Connections are refused and the open ones reset, until up()."""
        s, self.listener = self.listener, None
        if s is not None:
            # shutdown wakes the thread in accept; close alone would leave it accepting.
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()
        self.reset_all()

    def reset_all(self):
        """Every open connection gets RST: the network fell away."""
        with self.lock:
            conns = list(self.conns)
        for c in conns:
            try:
                c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                c.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.closed.set()
        self.down()
        with self.cond:
            self.cond.notify_all()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def _accept(self, s):
        while True:
            try:
                sock, _ = s.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        conn = Conn(self, sock)
        with self.lock:
            self.conns.add(conn)
            self.connections += 1
        try:
            while not self.closed.is_set():
                request = conn.read_request()
                self.handle(conn, request)
                if not conn.keep:
                    break
        except Gone:
            pass
        except (BadRequest, ValueError) as e:
            self.refuse("not HTTP: %s" % e)
            try:
                conn.keep = False
                conn.respond(400, [], b"")
            except Gone:
                pass
        except Exception as e:      # a bug of the fake must not look like the network's
            self.errors.append(repr(e))
            raise
        finally:
            with self.cond:
                self.conns.discard(conn)
                self.cond.notify_all()
            sock.close()

    def handle(self, conn, request):
        raise NotImplementedError

    # -- for tests ---------------------------------------------------------------

    def refuse(self, text):
        with self.cond:
            self.refusals.append(text)
            self.cond.notify_all()

    def expect_refusal(self, substring):
        """Refusals that contain substring are part of this test."""
        self.expected_refusals.append(substring)

    def unexpected(self):
        """What no test declared: refusals of strictness and bugs of the fake."""
        with self.lock:
            return self.errors + [r for r in self.refusals
                                  if not any(s in r for s in self.expected_refusals)]

    def changed(self):
        with self.cond:
            self.cond.notify_all()

    def wait(self, predicate, timeout=20.0, what="condition"):
        """The predicate's first true value. Checked whenever the fake's state changes."""
        timeout *= float(os.environ.get("E2E_SLOW", "1"))
        end = time.monotonic() + timeout
        with self.cond:
            while True:
                value = predicate()
                if value:
                    return value
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError("waited %.0f s for %s" % (timeout, what))
                self.cond.wait(min(left, 0.05))


class Faults:
    """What shall go wrong next: a queue for each name; "*" stands for every name."""

    def __init__(self):
        self.lock = threading.Lock()
        self.queues = {}

    def add(self, name, kind, n, **options):
        with self.lock:
            self.queues.setdefault(name.lower(), []).append([kind, n, options])

    def take(self, name):
        """(kind, options) or (None, {})."""
        with self.lock:
            for key in (name.lower(), "*"):
                queue = self.queues.get(key)
                if not queue:
                    continue
                fault = queue[0]
                fault[1] -= 1
                if fault[1] <= 0:
                    queue.pop(0)
                return fault[0], fault[2]
        return None, {}

    def clear(self):
        with self.lock:
            self.queues.clear()

    def pending(self):
        with self.lock:
            return any(self.queues.values())
