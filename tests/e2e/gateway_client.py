# SPDX-License-Identifier: MIT OR Apache-2.0
"""gateway_client.py - an HTTP client that forgives nothing.

    c = Connection(port)
    c.send(b"GET /health HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    r = c.response()                    # in the order of the requests
    c.closed()                          # the server ends the connection, and nothing more comes

    g = Gateway(blufio, key)            # requests, a connection each
    g.ask("POST", "/v1/messages", {"content": "hello"}).json()
    for event in g.stream("hello"): ...

Octets go out as they are given; what comes back must be what RFC 9110, 9112 and
the event stream standard say, or it is an AssertionError. Cut is raised when the
connection ends where it may not; a test that expects it catches it.
"""
import base64
import hashlib
import json
import os
import re
import socket
import time

from harness import SLOW, wait_for

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
DATE = (r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4}"
        r" \d\d:\d\d:\d\d GMT\Z")
ONCE = ("content-length", "content-type", "date", "transfer-encoding", "x-request-id", "etag")
LINE_MAX = 64 << 10
ANSWERS_MAX = 100       # of one connection that is read to its end


class Cut(Exception):
    """The connection ended in the middle of an answer, or before one."""


class Response:
    def __init__(self, minor, status, fields):
        self.minor, self.status, self.fields, self.body = minor, status, fields, b""

    def all(self, name):
        return [v for k, v in self.fields if k.lower() == name.lower()]

    def get(self, name):
        """The value of a field that comes at most once, or None."""
        values = self.all(name)
        assert len(values) <= 1, "%s comes %d times" % (name, len(values))
        return values[0] if values else None

    def json(self):
        kind = self.get("Content-Type") or ""
        assert re.match(r"application/json(; ?charset=utf-8)?\Z", kind, re.I), (self.status, kind)
        return json.loads(self.body.decode("utf-8"))

    def __repr__(self):
        return "%d %r %r" % (self.status, self.fields, self.body[:2000])


class Connection:
    """One connection to a port here or to a Unix socket's path, exact octets out and strict answers in."""

    def __init__(self, port, timeout=20.0, receive_buffer=None, source=None):
        unix = isinstance(port, str)
        self.socket = socket.socket(socket.AF_UNIX if unix else socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout * SLOW)
        try:
            if source:                                  # 127.x.y.z: another address of this machine
                self.socket.bind((source, 0))
            self.socket.connect(port if unix else ("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        if not unix:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.host = "localhost" if unix else "127.0.0.1:%d" % port
        self.port, self.data, self.reset = port, b"", False

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.close()

    def close(self):
        self.socket.close()

    # -- out -------------------------------------------------------------------------------

    def send(self, data, piece=0):
        """All of it, in pieces of so many octets; False when the other side hung up meanwhile."""
        try:
            for at in range(0, len(data), piece or len(data) or 1):
                self.socket.sendall(data[at:at + (piece or len(data))])
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def request(self, method, path, body=None, headers=(), minor=1):
        """A well-formed request; body: bytes, or a list of chunks."""
        names = [k.lower() for k, _ in headers]
        lines = ["%s %s HTTP/1.%d" % (method, path, minor)]
        if "host" not in names:
            lines.append("Host: " + self.host)
        lines += ["%s: %s" % h for h in headers]
        if isinstance(body, list):
            lines.append("Transfer-Encoding: chunked")
            body = b"".join(b"%x\r\n%s\r\n" % (len(x), x) for x in body) + b"0\r\n\r\n"
        elif body is not None and "content-length" not in names:
            lines.append("Content-Length: %d" % len(body))
        return self.send("".join(x + "\r\n" for x in lines + [""]).encode("latin-1") + (body or b""))

    def finish(self):
        """Nothing more will be sent."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    # -- in ----------------------------------------------------------------------------------

    def more(self):
        """Waits for octets; False at the end."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            self.reset = True
            return False
        except socket.timeout:
            raise AssertionError("nothing came within the time; so far %r" % self.data[-500:])
        self.data += data
        return bool(data)

    def exactly(self, n):
        while len(self.data) < n:
            if not self.more():
                raise Cut("%d of %d octets" % (len(self.data), n))
        out, self.data = self.data[:n], self.data[n:]
        return out

    def line(self):
        """A line without its CRLF; a bare CR or LF is an error."""
        while b"\r\n" not in self.data:
            assert len(self.data) < LINE_MAX, "an endless line"
            if not self.more():
                raise Cut("in the line %r" % self.data[:200])
        line, _, self.data = self.data.partition(b"\r\n")
        assert b"\r" not in line and b"\n" not in line, line
        return line

    def head(self):
        """Status line and fields of the next answer."""
        if not self.data and not self.more():
            raise Cut("before an answer")
        line = self.line()
        m = re.match(rb"HTTP/1\.([01]) ([1-5][0-9]{2}) [\t -~]*\Z", line)
        assert m, "status line %r" % line
        fields = []
        while True:
            line = self.line()
            if not line:
                break
            f = re.match(rb"(%s):[ \t]*([!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?[ \t]*\Z" % TOKEN, line)
            assert f, "field line %r" % line
            fields.append((f.group(1).decode(), (f.group(2) or b"").decode("latin-1")))
        r = Response(int(m.group(1)), int(m.group(2)), fields)
        for name in ONCE:
            r.get(name)
        if r.status >= 200:
            assert re.match(DATE, r.get("Date") or ""), r
        return r

    def pieces(self, r, method="GET", asked_minor=1):
        """The body of the answer whose head was read, as it comes."""
        length, coding = r.get("Content-Length"), r.get("Transfer-Encoding")
        assert length is None or re.match(r"[0-9]+\Z", length), r
        if r.status < 200 or r.status == 204:
            assert length is None and coding is None, r
            return
        if method == "HEAD" or r.status == 304:
            return
        if coding is not None:
            assert coding.lower() == "chunked" and length is None and asked_minor == 1 and r.minor == 1, r
            while True:
                line = self.line()
                assert re.match(rb"[0-9A-Fa-f]{1,16}\Z", line), "chunk size %r" % line
                n = int(line, 16)
                if n == 0:
                    assert self.line() == b"", "a trailer"
                    return
                yield self.exactly(n)
                assert self.exactly(2) == b"\r\n", "no CRLF behind a chunk"
        elif length is not None:
            left = int(length)
            while left:
                if not self.data and not self.more():
                    raise Cut("%d octets of the body are missing" % left)
                out = self.exactly(min(left, len(self.data)))
                left -= len(out)
                yield out
        else:
            assert (r.get("Connection") or "").lower() == "close" or r.minor == 0, "a body without an end: %r" % r
            while self.data or self.more():
                out, self.data = self.data, b""
                yield out
            if self.reset:
                raise Cut("in a body that ends with the connection")

    def response(self, method="GET", asked_minor=1):
        """The next answer, complete; one of 100 to 199 is an answer of its own."""
        r = self.head()
        r.body = b"".join(self.pieces(r, method, asked_minor))
        return r

    def responses(self):
        """All answers until the server ends the connection."""
        out = []
        while self.data or self.more():
            out.append(self.response())
            assert len(out) < ANSWERS_MAX, "answers without end: %r" % out[-3:]
        return out

    def closed(self):
        """The server ends the connection, and without another octet."""
        while self.more():
            pass
        assert self.data == b"", "after the last answer came %r" % self.data[:500]
        return True


# ---- event streams ---------------------------------------------------------------------------


class Event:
    def __init__(self, name, number, data):
        self.name, self.id, self.data = name, number, data

    def __repr__(self):
        return "%s %s %r" % (self.name, self.id, self.data)


class EventStream:
    """Iterates over the events of an answer whose head has been read."""

    def __init__(self, connection, response):
        self.connection, self.response = connection, response
        self.retry, self.comments, self.events = [], 0, []
        self._pieces = connection.pieces(response)
        self._data = b""

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.connection.close()

    def _line(self):
        while b"\n" not in self._data:
            piece = next(self._pieces, None)
            if piece is None:
                assert self._data == b"", "the stream ends in a line: %r" % self._data
                return None
            self._data += piece
        line, _, self._data = self._data.partition(b"\n")
        assert b"\r" not in line, line
        return line.decode("utf-8")

    def __iter__(self):
        return self

    def __next__(self):
        fields = {}
        while True:
            line = self._line()
            if line is None:
                assert not fields, "the stream ends in an event: %r" % fields
                raise StopIteration
            if line.startswith(":"):
                self.comments += 1
            elif line:
                name, colon, value = line.partition(":")
                assert colon and name in ("event", "id", "data", "retry"), "line %r" % line
                assert name not in fields, "%s twice in one event" % name
                fields[name] = value[1:] if value.startswith(" ") else value
            elif fields:
                if "retry" in fields:
                    assert not self.events, "retry behind an event"
                    self.retry.append(int(fields.pop("retry")))
                if not fields:
                    continue
                assert set(fields) == {"event", "id", "data"}, fields
                event = Event(fields["event"], fields["id"], json.loads(fields["data"]))
                self.events.append(event)
                return event

    def until(self, name):
        """The next event of that name; those before it are in .events."""
        for event in self:
            if event.name == name:
                return event
        raise AssertionError("the stream ended without %s: %r" % (name, self.events))

    def ends(self):
        """Reads to the end, clean or cut; the events that came."""
        n = len(self.events)
        try:
            for _ in self:
                pass
        except Cut:
            pass
        return self.events[n:]


def text_of(events):
    """What a client shows after these events."""
    text = ""
    for e in events:
        if e.name == "restart":
            text = ""
        elif e.name == "text_delta":
            text += e.data["text"]
    return text


# ---- signatures --------------------------------------------------------------------------------


class Device:
    """A key pair and what it signs: Ed25519 as RFC 8032 says it, in affine coordinates."""
    P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
    D = -121665 * pow(121666, -1, P) % P
    BASE = (15112221349535400772501151409588531511454012693041857206046113283949847762202, 4 * pow(5, -1, P) % P)

    def __init__(self, seed=None):
        h = hashlib.sha512(seed or os.urandom(32)).digest()
        self.secret, self.prefix = int.from_bytes(h[:32], "little") & ~7 & (2**255 - 1) | 2**254, h[32:]
        self.public = self.times(self.secret)

    def times(self, n):
        """n times the base point, encoded."""
        def add(a, b):
            k = self.D * a[0] * b[0] * a[1] * b[1]
            return ((a[0] * b[1] + b[0] * a[1]) * pow(1 + k, -1, self.P) % self.P,
                    (a[1] * b[1] + a[0] * b[0]) * pow(1 - k, -1, self.P) % self.P)
        sum_, double = (0, 1), self.BASE
        while n:
            sum_ = add(sum_, double) if n & 1 else sum_
            double, n = add(double, double), n >> 1
        return (sum_[1] | (sum_[0] & 1) << 255).to_bytes(32, "little")

    def sign(self, text):
        def number(*parts):
            return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % self.L
        r = number(self.prefix, text)
        point = self.times(r)
        return point + ((r + number(point, self.public, text) * self.secret) % self.L).to_bytes(32, "little")

    def headers(self, method, path, body=b"", nonce=None):
        """The fields of one request; a nonce is good once."""
        out = {"Blufio-Content-SHA256": hashlib.sha256(body).hexdigest(), "Blufio-Timestamp": str(int(time.time())),
               "Blufio-Nonce": nonce or os.urandom(16).hex()}
        signature = self.sign("\n".join([method, path] + list(out.values())).encode())
        return dict(out, **{"Blufio-Device": self.public.hex(), "Blufio-Signature": base64.b64encode(signature).decode()})


# ---- requests ----------------------------------------------------------------------------------


class Gateway:
    """Asks the newest daemon of a directory, with one credential; where: another port of it, or a socket's path."""

    def __init__(self, b, key=None, where=None):
        self.b, self.key, self.where = b, key, where

    def listening(self):
        """The port, as soon as the log tells it."""
        for entry in self.b.logs(running=True):
            m = re.match(r"listening on 127\.0\.0\.1:(\d+)\Z", str(entry.get("msg", "")))
            if entry.get("component") == "gateway" and m:
                return int(m.group(1))
        return None

    @property
    def port(self):
        return self.where if self.where is not None else wait_for(self.listening, 20, "the gateway to listen")

    def connect(self, **options):
        return Connection(self.port, **options)

    def headers(self, body, more):
        """Credential and type, unless more names them (None: not at all)."""
        out = {}
        if self.key is not None:
            out["Authorization"] = "Bearer " + self.key
        if body is not None:
            out["Content-Type"] = "application/json"
        out.update(more or {})
        return [(k, v) for k, v in out.items() if v is not None]

    @staticmethod
    def octets(body):
        """Bytes and chunks (a list of bytes) as they are, all else as JSON."""
        raw = body is None or isinstance(body, bytes) or (
            isinstance(body, list) and body and isinstance(body[0], bytes))
        return body if raw else json.dumps(body).encode()

    def start(self, method, path, body=None, headers=None, connection=None):
        """The connection with the request on its way."""
        body = self.octets(body)
        c = connection or self.connect()
        c.request(method, path, body, self.headers(body, headers))
        return c

    def ask(self, method, path, body=None, headers=None):
        with self.start(method, path, body, headers) as c:
            return c.response(method)

    def events(self, method, path, body=None, headers=None):
        """The stream that must answer."""
        c = self.start(method, path, body, dict({"Accept": "text/event-stream"}, **(headers or {})))
        r = c.head()
        if r.status != 200:
            r.body = b"".join(c.pieces(r))
        assert r.status == 200 and (r.get("Content-Type") or "").split(";")[0] == "text/event-stream", r
        assert r.get("Cache-Control") == "no-cache" and r.get("X-Accel-Buffering") == "no", r
        return EventStream(c, r)

    # -- what tests do most -----------------------------------------------------------------------

    def say(self, content, session=None, **more):
        """A message and its answer's object."""
        body = dict({"content": content}, **more)
        if session is not None:
            body["session_id"] = session
        r = self.ask("POST", "/v1/messages", body)
        assert r.status == 200, r
        return r.json()

    def stream(self, content, headers=None, **more):
        return self.events("POST", "/v1/messages", dict({"content": content}, **more), headers)

    def sessions(self):
        r = self.ask("GET", "/v1/sessions")
        assert r.status == 200, r
        return r.json()["sessions"]

    def messages(self, session):
        r = self.ask("GET", "/v1/sessions/%s/messages" % session)
        assert r.status == 200, r
        return r.json()["messages"]

    def mint(self, *scopes, **more):
        """A Gateway with a new key of these scopes; .made is the answer."""
        r = self.ask("POST", "/v1/api-keys", dict({"name": "test", "scopes": list(scopes)}, **more))
        assert r.status == 201, r
        out = Gateway(self.b, r.json()["key"])
        out.made = r.json()
        return out
