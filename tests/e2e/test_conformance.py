# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_conformance.py - cases made by others, through a socket: what the engines accept and refuse is what the
listener does, however it is cut, and at no moment with more than 4 MB of memory.

HTTP goes to the shipped binary. Octets are sent whole, in pieces of 7, one by one, and in two,
and whole to a daemon under drip.so, which reads one octet at a time: so the cuts are certain. WebSocket goes to
blufio-echo, the same objects and a route that returns each message.
"""
import json
import os
import re
import socket

from gateway_client import Gateway
from harness import ROOT, Skip, built, main
from test_gateway import TOKEN, world
from test_socket import BINARY, CLOSE, PING, PONG, TEXT, Socket

CASES = os.path.join(os.path.dirname(ROOT), "shared", "conformance")
PIECES = (0, 1, 7)
TWO_STEP = 8            # of the places to cut in two one in so many; tests/unit/test_http.c takes all
PAUSE_S = 0.1           # the record has 1 s; long enough to see that nothing comes


def cases(name):
    path = os.path.join(CASES, name + ".jsonl")
    if not os.path.exists(path):
        raise Skip("no %s" % path)
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def drip():
    if os.environ.get("E2E_MEMORY") == "0":
        raise Skip("a sanitizer wants to be loaded first")
    return {"preload": built("drip.so")}


def echo():
    return {"program": built("tests/e2e/blufio-echo")}


# ---- HTTP -----------------------------------------------------------------------------------------------------


def hosts():
    """Every name that the cases are addressed to: they shall be judged by more than that."""
    found = set()
    for name in ("llhttp", "picohttpparser", "smuggling-garden"):
        for case in cases("http/" + name):
            for field in ("hex", "hex_with_host"):
                for host in re.findall(rb"(?i)\nhost:[ \t]*([A-Za-z0-9.-]+)[ \t]*(?::\d+)?\r", bytes.fromhex(case.get(field, ""))):
                    found.add(host.decode())
    return sorted(found)


def feed(w, pieces, finish):
    """Statuses of a connection that was given these octets, until the server ends it, and does the last answer say
    that it is the last. Nothing is cut off or reset, however much the client still sends behind a refusal."""
    with w.g.connect() as c:
        for data in pieces:
            assert c.send(data), "it hung up"
        if finish:
            c.finish()
        answers = [r for r in c.responses() if r.status != 100]
        assert not c.reset, "reset behind %r" % answers
        return [r.status for r in answers], bool(answers) and answers[-1].get("Connection") == "close"


def cuts(data):
    for n in PIECES:
        yield [data] if n == 0 else [data[i:i + n] for i in range(0, len(data), n)]
    for at in range(1 + len(data) % TWO_STEP, len(data), TWO_STEP):
        yield [data[:at], data[at:]]


def as_the_engine(engine, statuses, last):
    """The listener has one answer for each request that the engine saw, and ends with its refusal; or earlier, with
    one of its own to a head whose body it does not want, and says so."""
    n, refusal = engine["heads"], engine["status"]
    if last and statuses[-1] >= 400 and statuses[-1] != refusal:
        return None if len(statuses) <= n else "the engine saw %d requests" % n
    if not refusal:
        return None if len(statuses) == n else "the engine saw %d requests" % n
    return None if len(statuses) in (n, n + 1) and statuses[-1] == refusal else "the engine's word is %d after %d" % (refusal, n)


def conformance(judge, name, **options):
    """judge(case) gives (what, octets, finish, check); check(statuses) says what is wrong with them."""
    names = {"allowed_hosts": hosts()}
    with world({"gateway": names}, **echo()) as e, world({"gateway": names}, **options) as w:
        n, ways = 0, cuts if not options else lambda data: [[data]]
        assert Gateway(w.b).ask("GET", "/health").status == 200
        with w.b.bounded() as within_bounds:
            for case in cases("http/" + name):
                for what, data, finish, check in judge(case):
                    engine, seen = e.g.ask("POST", "/engine", {"hex": data.hex()}).json(), []
                    for pieces in ways(data):
                        where = "%s (%s), in %d pieces, %r" % (case["id"], what, len(pieces), data[:200])
                        try:
                            statuses, last = feed(w, pieces, finish)
                        except AssertionError as x:
                            raise AssertionError("%s: %s" % (where, x))
                        n += 1
                        wrong = check(statuses) or as_the_engine(engine, statuses, last)
                        assert not wrong, "%s: %s: %r" % (where, wrong, statuses)
                        seen.append(statuses)
                    assert all(s == seen[0] for s in seen), "%s: depends on the pieces: %r" % (case["id"], seen)
                    within_bounds(case["id"])
        assert n > 30
        assert Gateway(w.b).ask("GET", "/health").status == 200
        assert w.b.query("SELECT count(*) FROM inbound") == [(0,)] and w.g.say("say alive")["content"] == "alive"


def at_most_one_refusal(statuses):
    if len(statuses) > 1:
        return "a second request out of a refused one"
    return None if all(s >= 400 for s in statuses) else "it was taken"


def taken(statuses):
    refusals = (400, 408, 411, 413, 414, 417, 431, 500, 501, 505)
    return None if statuses and statuses[0] not in refusals else "a good request is refused"


def garden(case):
    for field, expected in (("hex", "expected"), ("hex_with_host", "expected_with_host")):
        if field not in case:
            continue
        word, data = case[expected], bytes.fromhex(case[field])
        if word == "reject":                        # it hangs up without being asked to
            yield field, data, False, at_most_one_refusal
        elif word == "accept":
            yield field, data, True, taken
        else:                                       # "either", "wait": one answer at most
            yield field, data, True, at_most_one_refusal


def llhttp(case):
    if case["type"] != "request":                   # lenient modes, answers, addresses: not for a strict server
        return
    whole = str(case["log"]).count("message complete")

    def check(statuses):
        # refusing more than they do is fine, taking more is not
        return None if len(statuses) <= whole + 1 else "more answers than there are requests"

    def check_error(statuses):
        if len(statuses) > whole + 1:
            return "more answers than there are requests"
        return None if len(statuses) <= whole or statuses[-1] >= 400 else "it was taken"
    yield case["verdict"], bytes.fromhex(case["hex"]), True, check_error if case["verdict"] == "error" else check


def picohttpparser(case):
    good = ("POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
            "Transfer-Encoding: chunked\r\n\r\n" % TOKEN).encode()
    # behind a good body a request is heard; behind a bad one it must not be
    behind = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    data = bytes.fromhex(case["hex"])
    if case["kind"] == "request":
        # they do not ask for the Host that 1.1 wants
        fair = case["verdict"] == "ok" and not case["lenient"] and (
            b"HTTP/1.0" in data or re.search(rb"(?i)\nhost:", data))
        yield case["verdict"], data, case["verdict"] != "error", taken if fair else at_most_one_refusal
    elif case["kind"] == "chunked":
        if case["verdict"] == "ok" and not case["lenient"] and case["consume_trailer"]:
            yield "ok", good + data + behind, False, lambda s: None if s == [400, 200] else "not in step"
        elif case["verdict"] == "error":
            yield "error", good + data + b"\r\n" + behind, False, lambda s: None if s == [400] else "not one refusal"
        else:
            yield case["verdict"], good + data, True, at_most_one_refusal


def test_garden():
    conformance(garden, "smuggling-garden")


def test_llhttp():
    conformance(llhttp, "llhttp")


def test_picohttpparser():
    conformance(picohttpparser, "picohttpparser")


def test_dripping():
    """Every case again, split at every octet for certain, and so are the answers."""
    for judge, name in ((garden, "smuggling-garden"), (llhttp, "llhttp"), (picohttpparser, "picohttpparser")):
        conformance(judge, name, **drip())


# ---- WebSocket --------------------------------------------------------------------------------------------------


KINDS = {TEXT: "message 0", BINARY: "message 1", PING: "ping", PONG: "pong", CLOSE: "close"}


class Player:
    """Plays one case on a socket; .seen is what came: ("message 0", octets), ("close", …), ("pause",)."""

    def __init__(self, port):
        self.s, self.seen, self.over = Socket(port, token=None, path="/"), [], False
        self.s.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def receive(self):
        """One more event; False at the end."""
        try:
            opcode, payload = self.s.frame()
            self.seen.append((KINDS[opcode], payload))
        except EOFError:
            assert not self.s.data, "it ends in a frame: %r" % self.s.data
            self.over = True
        return not self.over

    def send(self, data, piece):
        for i in range(0, len(data), piece or len(data)):
            self.s.s.sendall(data[i:i + (piece or len(data))])

    def pause(self):
        self.s.s.settimeout(PAUSE_S)
        try:
            while self.receive():
                pass
        except TimeoutError:
            self.seen.append(("pause",))
        self.s.s.settimeout(20)

    def play(self, case, piece, finish):
        pauses = any(e["event"] == "pause_survived" for e in case["expect"])
        for step in case["client"]:
            if "pause_s" in step:
                if pauses:
                    self.pause()
                continue
            while step.get("after_reply") and len(self.seen) < len(case["expect"]) and self.receive():
                pass
            payload, mask = octets(step), os.urandom(4)
            n = len(payload)
            size = bytes([0x80 | n]) if n < 126 else b"\xfe" + n.to_bytes(2, "big") if n < 65536 else b"\xff" + n.to_bytes(8, "big")
            masked = (int.from_bytes(payload, "big") ^ int.from_bytes((mask * (n // 4 + 1))[:n], "big")).to_bytes(n, "big")
            first = step["fin"] << 7 | step["rsv"] << 4 | step["opcode"]
            self.send(bytes([first]) + size + mask + masked, step.get("chop") if piece is None else piece)
        if finish and not self.over:                # says no more, and still hears the end
            self.s.s.shutdown(socket.SHUT_WR)
        while self.receive():
            pass
        self.s.s.close()
        return self.seen


def octets(part):
    return bytes.fromhex(part["fill"]) * part["len"] if "fill" in part else bytes.fromhex(part["hex"])


def wrong_with(case, seen):
    want = []
    for e in case["expect"]:
        if e["event"] == "pause_survived":
            want.append(("pause",))
        else:
            want.append(("message %d" % e["binary"] if e["event"] == "message" else e["event"], octets(e)))
    if case.get("informational"):                   # undefined; only let it end
        return None
    if seen[:len(want)] != want:
        return "wanted %r" % want
    if len(seen) != len(want) + 1 or seen[-1][0] != "close":
        return "no close behind it"
    code = int.from_bytes(seen[-1][1][:2], "big") if seen[-1][1] else None
    if code is None and case["close"]["clean"] and case["client"][-1].get("hex") == "":
        return None                                 # the client gave none either
    return None if code in case["close"]["codes"] else "code %r" % code


def websocket(ways, finish=False, **options):
    n = 0
    with world({"gateway": {"enabled": True}}, **dict(echo(), **options)) as w:
        Player(w.g.port).s.s.close()
        with w.b.bounded() as within_bounds:
            for case in cases("websocket/autobahn-1-7"):
                if "pause_s" in case["client"][0]:  # recorded without the frames that were sent by hand
                    continue
                for piece in ways:
                    seen = Player(w.g.port).play(case, piece, finish)
                    wrong = wrong_with(case, seen)
                    assert not wrong, "%s, pieces of %r: %s, got %r" % (case["id"], piece, wrong, seen[:10])
                within_bounds(case["id"])
                n += 1
        assert n >= 180


def test_websocket():
    """As recorded, whole, in pieces of 7, and one by one."""
    websocket((None, 0, 7, 1))


def test_websocket_dripping():
    websocket((0,), finish=True, **drip())


# ---- what is not there --------------------------------------------------------------------------------------------


def test_no_release_has_the_routes_of_the_tests():
    for program in (None, echo()["program"]):
        with world(program=program) as w:
            named = set(w.g.ask("GET", "/openapi.json").json()["paths"])
            statuses = [w.g.ask("GET", "/").status, w.g.ask("POST", "/engine", {"hex": ""}).status]
            with open(w.b.program, "rb") as f:
                words = [x in f.read() for x in (b"echo_route",)]
            if program:                             # so that this test can fail
                assert {"/", "/engine"} <= named and statuses == [426, 200] and all(words), (named, statuses, words)
            else:
                assert not {"/", "/engine"} & named and statuses == [404, 404] and not any(words), (named, statuses, words)


if __name__ == "__main__":
    main(globals())
