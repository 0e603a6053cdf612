# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_socket.py - the gateway's WebSocket: messages and their answers as frames."""
import base64
import hashlib
import json
import os
import socket
import struct
import threading

from fake_anthropic import default_answer
from gateway_client import Gateway
from harness import main
from test_gateway import TALK, TOKEN, stored, world

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Socket:
    """A client that masks, and takes only what a server may send."""

    def __init__(self, port, token=TOKEN, status=101, path="/ws", **fields):
        self.s = socket.create_connection(("127.0.0.1", port))
        self.s.settimeout(20)
        key = base64.b64encode(os.urandom(16))
        head = {"Host": "localhost", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": key.decode(), "Authorization": "Bearer " + token if token else None}
        head.update({k.replace("_", "-"): v for k, v in fields.items()})
        self.s.sendall(("GET %s HTTP/1.1\r\n" % path + "".join("%s: %s\r\n" % kv for kv in head.items() if kv[1]) + "\r\n").encode())
        self.data = b""
        while b"\r\n\r\n" not in self.data:
            self.more()
        self.head, self.data = self.data.split(b"\r\n\r\n", 1)
        assert int(self.head.split()[1]) == status, self.head
        if status == 101:
            accept = base64.b64encode(hashlib.sha1(key + MAGIC).digest())
            assert b"\r\nSec-WebSocket-Accept: " + accept in self.head, self.head

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def more(self):
        data = self.s.recv(65536)
        if not data:
            raise EOFError
        self.data += data

    def send(self, value, opcode=TEXT):
        payload = value if isinstance(value, bytes) else json.dumps(value).encode()
        mask, n = os.urandom(4), len(payload)
        size = bytes([0x80 | n]) if n < 126 else bytes([0x80 | 126]) + struct.pack(">H", n) if n < 65536 else \
            bytes([0x80 | 127]) + struct.pack(">Q", n)
        self.s.sendall(bytes([0x80 | opcode]) + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))

    def take(self, n):
        while len(self.data) < n:
            self.more()
        out, self.data = self.data[:n], self.data[n:]
        return out

    def frame(self):
        first, n = self.take(2)
        assert first & 0x80 and not first & 0x70 and not n & 0x80, (first, n)
        if n == 126:
            n = struct.unpack(">H", self.take(2))[0]
        elif n == 127:
            n = struct.unpack(">Q", self.take(8))[0]
        return first & 15, self.take(n)

    def next(self):
        opcode, payload = self.frame()
        assert opcode == TEXT, (opcode, payload)
        return json.loads(payload)

    def until(self, kind, good=True):
        """All events up to one of this type; good: without an error."""
        events = [self.next()]
        while events[-1]["type"] != kind:
            assert not good or events[-1]["type"] != "error", events
            events.append(self.next())
        return events


def text_of(events):
    out = ""
    for e in events:
        out = "" if e["type"] == "restart" else out + e["text"] if e["type"] == "delta" else out
    return out


def test_a_conversation():
    with world() as w, Socket(w.g.port) as s:
        s.send({"type": "message", "content": "say one"})
        events = s.until("done")
        session = events[-1]["session_id"]
        assert events[0] == {"type": "typing", "session_id": session}
        assert text_of(events) == events[-1]["content"] == "one"
        assert all(e["session_id"] == session for e in events)
        s.send({"type": "message", "content": "tools", "session_id": session})
        events = s.until("done")
        assert [e["name"] for e in events if e["type"] == "tool"] == ["time_now", "text_count"], events
        assert text_of(events) == events[-1]["content"]
        s.send({"type": "ping"})
        assert s.next() == {"type": "pong"}
        said = w.g.ask("GET", "/v1/sessions/%s/messages" % session).json()["messages"]
        assert [m["content"] for m in said if m["role"] == "user"] == ["say one", "tools"]


def test_rows_are_the_same_by_every_way():
    """What a conversation leaves behind does not tell how it came: with one answer, as a stream, by frames."""
    def by_stream(g, text, session):
        with g.stream(text, **({"session_id": session} if session else {})) as s:
            return s.until("message_stop").data

    def by_socket(g, text, session):
        with Socket(g.port) as s:
            s.send(dict({"type": "message", "content": text}, **({"session_id": session} if session else {})))
            return s.until("done")[-1]
    seen = []
    for way in (Gateway.say, by_stream, by_socket):
        with world() as w:
            session = None
            for text in TALK:
                session = way(w.g, text, session)["session_id"]
            seen.append(stored(w))
    for table in seen[0]:
        assert seen[0][table] == seen[1][table] == seen[2][table], (table, [s[table] for s in seen])


def test_two_at_once():
    """Messages of two conversations are in work on one socket; each event says whose it is."""
    with world() as w, Socket(w.g.port) as s:
        gate = threading.Event()
        w.ai.script = lambda ask: ("slow" in str(ask.body["messages"][-1]) and gate.wait(20) and None) or default_answer(ask)
        s.send({"type": "message", "content": "say slow"})
        slow = s.next()["session_id"]
        s.send({"type": "message", "content": "say quick"})
        quick = s.until("done")
        assert quick[-1]["content"] == "quick" and quick[-1]["session_id"] != slow
        gate.set()
        assert s.until("done")[-1]["content"] == "slow"


def test_more_than_a_socket_takes():
    with world({"agent": {"max_sessions": 20}}) as w, Socket(w.g.port) as s:
        gate = threading.Event()
        w.ai.script = lambda ask: (gate.wait(20) and None) or default_answer(ask)
        for i in range(17):
            s.send({"type": "message", "content": "say %d" % i})
        told = s.until("error", False)[-1]["error"]
        assert told["type"] == "overloaded" and "too many" in told["message"], told
        gate.set()
        done = [s.until("done")[-1]["content"] for _ in range(16)]
        assert sorted(done, key=int) == [str(i) for i in range(16)], done


def test_resume():
    """Another connection goes on behind the last seq, or begins anew when the text is not what the client has."""
    with world() as w:
        w.ai.script = lambda ask: "alpha beta gamma delta"
        with Socket(w.g.port) as s:
            s.send({"type": "message", "content": "go"})
            done = s.until("done")
        first = [e for e in done if e["type"] == "delta"][0]
        with Socket(w.g.port) as s:
            s.send({"type": "resume", "seq": first["seq"]})
            events = s.until("done")
            assert "restart" not in [e["type"] for e in events]
            assert first["text"] + text_of(events) == "alpha beta gamma delta"
            number = first["seq"].split("-")[0]
            s.send({"type": "resume", "seq": number + "-3-00000000"})
            events = s.until("done")
            assert events[0]["type"] == "restart" and text_of(events) == "alpha beta gamma delta"
            for seq in ("999-0-811c9dc5", "", "x"):
                s.send({"type": "resume", "seq": seq})
                assert s.next()["error"]["type"] == "not_found", seq


def test_resume_after_kill9():
    with world() as w:
        gate = threading.Event()
        w.ai.script = lambda ask: (gate.wait(20) and None) or default_answer(ask)
        with Socket(w.g.port) as s:
            s.send({"type": "message", "content": "say kept"})
            w.wait(lambda: w.ai.requests, "asked")
            w.b.kill9()
        gate.set()
        w.b.start()
        with Socket(w.g.port) as s:
            s.send({"type": "resume", "seq": "1-0-811c9dc5"})
            assert s.until("done")[-1]["content"] == "kept"


def test_stop():
    with world() as w, Socket(w.g.port) as s:
        gate = threading.Event()
        w.ai.script = lambda ask: (gate.wait(20) and None) or default_answer(ask)
        s.send({"type": "message", "content": "say never"})
        session = s.next()["session_id"]
        w.wait(lambda: w.ai.requests, "asked")
        s.send({"type": "stop", "session_id": session})
        assert "(Stopped.)" in s.until("done")[-1]["content"]
        gate.set()
        s.send({"type": "stop", "session_id": "99"})
        assert s.next()["error"]["type"] == "not_found"


def test_bad_frames():
    with world() as w, Socket(w.g.port) as s:
        for value, param in ((b"{", None), (b"[]", None), ({}, "type"), ({"type": "nope"}, "type"), ({"type": "message"}, "content"),
                             ({"type": "message", "content": " "}, "content"), ({"type": "message", "content": 1}, "content"),
                             ({"type": "message", "content": "x", "nope": 1}, "nope"),
                             ({"type": "message", "content": "x", "session_id": "99"}, "session_id")):
            s.send(value)
            e = s.next()
            assert e["type"] == "error" and e["error"].get("param") == param, (value, e)
        assert w.b.query("SELECT count(*) FROM inbound") == [(0,)]
        s.send(b"once more", PING)
        assert s.frame() == (PONG, b"once more")
        s.send(b"\x00", BINARY)
        assert s.frame() == (CLOSE, struct.pack(">H", 1003))
        try:
            s.more()
            raise AssertionError("open behind its close")
        except (EOFError, ConnectionResetError):
            pass
    with world() as w:
        with Socket(w.g.port) as s:
            s.send(struct.pack(">H", 1000), CLOSE)
            assert s.frame() == (CLOSE, struct.pack(">H", 1000))
        with Socket(w.g.port) as s:
            s.send(b"\xff\xfe", TEXT)
            assert s.frame() == (CLOSE, struct.pack(">H", 1007))
        with Socket(w.g.port) as s:
            s.s.sendall(b"\x81\x02{}")              # not masked
            assert s.frame() == (CLOSE, struct.pack(">H", 1002))


def test_who_may_open_one():
    with world({"gateway": {"allowed_origins": ["https://app.example"]}}) as w:
        port = w.g.port
        for status, more in ((401, {"token": None}), (401, {"token": "wrong"}), (403, {"Origin": "https://evil.example"}),
                             (403, {"Origin": "null"}), (426, {"Sec_WebSocket_Version": "8"}), (400, {"Sec_WebSocket_Key": "short"}),
                             (426, {"Upgrade": None}), (421, {"Host": "evil.example"})):
            Socket(port, status=status, **more).s.close()
        for more in ({"Origin": "https://app.example"}, {"Origin": "http://localhost"}, {}):
            with Socket(port, **more) as s:
                s.send({"type": "ping"})
                assert s.next() == {"type": "pong"}
        read = w.g.ask("POST", "/v1/api-keys", {"name": "r", "scopes": ["read"]}).json()
        Socket(port, read["key"], status=403).s.close()
        chat = w.g.ask("POST", "/v1/api-keys", {"name": "c", "scopes": ["chat"]}).json()
        with Socket(port, chat["key"]) as s:
            s.send({"type": "ping"})
            assert s.next() == {"type": "pong"}
            assert w.g.ask("DELETE", "/v1/api-keys/%s" % chat["id"]).status == 200
            try:
                s.more()
                raise AssertionError("a revoked key's socket is open")
            except (EOFError, ConnectionResetError):
                pass


def test_frames_with_the_handshake():
    """Whoever does not wait for the answer gets it first all the same, and then the others."""
    with world() as w:
        g = w.g.mint("chat")                            # its first use is written down, so the answer waits for a commit
        with g.connect() as c:
            c.send(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer "
                   + g.key.encode() + b"\r\n\r\n" + b"\x89\x82\1\2\3\4" + b"in")
            assert c.head().status == 101
            assert c.exactly(4) == b"\x8a\x02" + bytes((ord("i") ^ 1, ord("n") ^ 2))


def test_deflate():
    with world() as w, Socket(w.g.port, Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits") as s:
        assert b"Sec-WebSocket-Extensions: permessage-deflate" in s.head
        s.send({"type": "ping"})
        assert s.next() == {"type": "pong"}


if __name__ == "__main__":
    main(globals())
