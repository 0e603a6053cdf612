# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_session.py - how credentials come to people: a browser's session, a ticket for its socket, the first key on a
terminal, a device's key pair; and how all of them end."""
import json
import os
import re
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time

from gateway_client import Gateway
from harness import ROOT, Shell, Skip, World, main
from test_gateway import TOKEN, held, refused, release, shape, world
from test_socket import Socket

LIFE_S = 12 * 3600          # of a session
TICKET_S = 30
PER_KEY = 16                # sessions of a key
COOKIE, SECURE = "blufio_session", "__Host-blufio_session"
PUBLIC = "agent.example"
KEY = r"blf_sk_[0-9a-f]{64}"


class Browser(Gateway):
    """Keeps what the gateway sets, sends it with every request, and says from which page it asks."""

    def __init__(self, b, host=None):
        Gateway.__init__(self, b)
        self.host = host
        self.jar, self.csrf = {}, None

    @property
    def origin(self):
        return "https://" + self.host if self.host else "http://127.0.0.1:%d" % self.port

    def ask(self, method, path, body=None, headers=None):
        more = {}
        if self.host:
            more["Host"] = self.host
        if self.jar:
            more["Cookie"] = "; ".join("%s=%s" % kv for kv in self.jar.items())
        if method not in ("GET", "HEAD"):
            more["Origin"] = self.origin
            more["X-CSRF-Token"] = self.csrf
        r = Gateway.ask(self, method, path, body, dict(more, **(headers or {})))
        for line in r.all("Set-Cookie"):
            name, _, rest = line.partition("=")
            value, _, attributes = rest.partition("; ")
            if "Max-Age=0" in attributes.split("; "):
                self.jar.pop(name, None)
            else:
                self.jar[name] = value
        return r

    def log_in(self, key):
        r = self.ask("POST", "/v1/session", None, {"Authorization": "Bearer " + key})
        assert r.status == 201, r
        assert set(r.json()) == {"csrf_token", "expires_at"}, r
        self.csrf = r.json()["csrf_token"]
        return r

    def ticket(self):
        r = self.ask("POST", "/v1/session/ticket")
        assert r.status == 201, r
        assert set(r.json()) == {"ticket", "expires_at"}, r
        return r.json()["ticket"]


def browser(w, key=TOKEN, host=None):
    b = Browser(w.b, host)
    b.log_in(key)
    return b


def socket_by(w, ticket, status=101, **more):
    fields = dict({"Sec_WebSocket_Protocol": "blufio, blufio.ticket." + ticket}, **more)
    return Socket(w.g.port, token=None, status=status, **fields)


def ended(s):
    """The server hangs up, whatever it says before."""
    try:
        while True:
            s.more()
    except (EOFError, ConnectionResetError):
        return True


def closed_routes(w):
    """Of the route table: what wants a credential, as (method, an address)."""
    out = []
    for path, item in w.g.ask("GET", "/openapi.json").json()["paths"].items():
        for method, operation in item.items():
            if operation.get("security") != [] and path not in ("/metrics", "/ws"):
                out.append((method.upper(), shape(path).replace("{}", "999999")))
    assert len(out) > 15, out
    return out


# ---- the cookie -------------------------------------------------------------------------------------------


def test_a_session():
    """A key becomes a cookie that does what the key does, and no page can read."""
    with world() as w:
        g = w.g.mint("chat", "read", name="laptop")
        b = Browser(w.b)
        r = b.log_in(g.key)
        assert re.match(COOKIE + r"=[0-9a-f]{64}; Path=/; Max-Age=%d; HttpOnly; SameSite=Strict\Z" % LIFE_S,
                        r.get("Set-Cookie")), r
        assert r.get("Cache-Control") == "no-store" and r.get("Access-Control-Allow-Credentials") is None, r
        assert abs(r.json()["expires_at"] - time.time() - LIFE_S) < 60, r
        assert re.match(r"[0-9a-f]{64}\Z", b.csrf) and b.csrf != b.jar[COOKIE]
        mine = b.say("say from a page")
        assert mine["content"] == "from a page"
        assert [s["id"] for s in g.sessions()] == [mine["session_id"]] == [s["id"] for s in b.sessions()]
        refused(b.ask("POST", "/v1/tools/invoke", {"name": "time.now"}), 403)   # the key's scopes
        again = b.ask("GET", "/v1/session")             # a page that was loaded anew
        assert again.status == 200 and again.json() == r.json(), again
        assert again.get("Set-Cookie") is None and again.get("Cache-Control") == "no-store"
        refused(g.ask("GET", "/v1/session"), 409)       # a key is no session
        refused(g.ask("DELETE", "/v1/session"), 409)
        refused(b.ask("POST", "/v1/session"), 403)      # nor does one open another, which would outlive it
        w.b.restart(hard=True)
        assert b.say("say again", mine["session_id"])["content"] == "again"
        out = b.ask("DELETE", "/v1/session")
        assert out.status == 204 and b.jar == {}, out
        assert out.get("Set-Cookie") == COOKIE + "=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict", out
        b.jar[COOKIE] = r.get("Set-Cookie")[len(COOKIE) + 1:][:64]
        refused(b.ask("GET", "/v1/sessions"), 401)
        refused(b.ask("DELETE", "/v1/session"), 401)
        assert g.ask("GET", "/v1/sessions").status == 200


def test_flags_by_name():
    """By a name that is not this machine's the cookie is for TLS and for that name alone."""
    with world({"gateway": {"allowed_hosts": [PUBLIC]}}) as w:
        far = Browser(w.b, PUBLIC)
        r = far.log_in(TOKEN)
        assert re.match(SECURE + r"=[0-9a-f]{64}; Path=/; Max-Age=%d; HttpOnly; SameSite=Strict; Secure\Z" % LIFE_S,
                        r.get("Set-Cookie")), r
        assert far.say("say far")["content"] == "far"
        body = {"content": "say no"}
        refused(far.ask("POST", "/v1/messages", body, {"Origin": "http://" + PUBLIC}), 403)     # a page that came in clear
        refused(far.ask("GET", "/v1/cost", None, {"Cookie": "%s=%s" % (COOKIE, far.jar[SECURE])}), 401)  # a neighbour's
        out = far.ask("DELETE", "/v1/session")
        assert out.get("Set-Cookie") == SECURE + "=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict; Secure", out
        for host in ("localhost:%d", "127.0.0.1:%d", "LOCALHOST:%d"):
            near = Browser(w.b, host % w.g.port)
            r = near.log_in(TOKEN)
            assert r.get("Set-Cookie").startswith(COOKIE + "=") and "Secure" not in r.get("Set-Cookie"), r
            refused(near.ask("GET", "/v1/cost", None, {"Cookie": "%s=%s" % (SECURE, near.jar[COOKIE])}), 401)


def test_every_change_wants_the_token_of_the_page():
    """Each route of the table: what changes something wants the header and the page, what reads wants neither."""
    with world({"gateway": {"allowed_origins": ["https://app.example"]}}) as w:
        b = browser(w)
        other = browser(w)
        cookie = {"Cookie": "%s=%s" % (COOKIE, b.jar[COOKIE])}
        last = None
        for method, path in sorted(closed_routes(w), key=lambda r: r == ("DELETE", "/v1/session")):
            body = {} if method == "POST" else None

            def ask(**more):
                headers = dict(cookie, **{k.replace("_", "-"): v for k, v in more.items()})
                return Gateway(w.b).ask(method, path, body, headers)
            right = {"Origin": b.origin, "X_CSRF_Token": b.csrf}
            refused(ask(**dict(right, Cookie=None)), 401)
            for origin in ("https://evil.example", "null", "https://app.example", "http://localhost:%d" % w.g.port,
                           "http://127.0.0.1:1", b.origin + ".evil.example"):
                refused(ask(**dict(right, Origin=origin)), 403)
            if method == "GET":
                assert ask().status not in (401, 403), path
                assert ask(Origin=b.origin).status not in (401, 403), path
                continue
            for wrong in (None, "", "0" * 64, b.csrf[:-1], b.csrf + "0", b.csrf.upper() + " ", other.csrf, b.jar[COOKIE]):
                if wrong != b.csrf:
                    refused(ask(Origin=b.origin, X_CSRF_Token=wrong), 403)
            refused(ask(X_CSRF_Token=b.csrf), 403)
            refused(ask(), 403)
            last = ask(**right)
            # the one thing that wants the key itself
            assert (last.status not in (401, 403)) != ((method, path) == ("POST", "/v1/session")), (method, path, last)
        assert last.status == 204                       # and the last of them ended it
        refused(Gateway(w.b).ask("GET", "/v1/cost", None, cookie), 401)
        # a WebSocket is a change as well: a page of somebody else's is not let in on the cookie
        cookie = "%s=%s" % (COOKIE, other.jar[COOKIE])
        here = {"Host": "127.0.0.1:%d" % w.g.port, "Cookie": cookie, "token": None}
        Socket(w.g.port, status=403, Origin=other.origin, **here).s.close()
        Socket(w.g.port, status=403, Origin="https://evil.example", X_CSRF_Token=other.csrf, **here).s.close()
        Socket(w.g.port, Origin=other.origin, X_CSRF_Token=other.csrf, **here).s.close()
        assert w.b.query("SELECT count(*) FROM inbound") == [(0,)]


def test_a_cookie_that_was_not_given():
    """Chosen by whoever, cut, doubled, or too long; and it is nobody's lock-out."""
    with world() as w:
        chosen = "5" * 64
        b = Browser(w.b)
        b.jar[COOKIE] = chosen
        refused(b.ask("GET", "/v1/cost"), 401)
        r = b.log_in(TOKEN)                             # what the browser had before is not taken over
        mine = b.jar[COOKIE]
        assert mine != chosen and len(r.all("Set-Cookie")) == 1
        refused(Gateway(w.b).ask("GET", "/v1/cost", None, {"Cookie": "%s=%s" % (COOKIE, chosen)}), 401)

        def status(line):
            return Gateway(w.b).ask("GET", "/v1/cost", None, {"Cookie": line}).status
        good = "%s=%s" % (COOKIE, mine)
        assert status(good) == status("a=b; %s; c=d" % good) == status("a=b;%s" % good) == status("; ;" + good) == 200
        assert status("%s_=x; _%s; x%s=y; %s" % (COOKIE, good, COOKIE, good)) == 200    # other names
        for line in (good + "; " + good, good + "; %s=" % COOKIE, "%s=%s; %s" % (COOKIE, chosen, good),
                     good[:-1], good + "0", good.upper(), "%s=" % COOKIE, COOKIE, "%s=\"%s\"" % (COOKIE, mine),
                     "%s=%s" % (COOKIE, b.csrf), "%s=%s" % (COOKIE, TOKEN), "%s =%s" % (COOKIE.upper(), mine), ""):
            assert status(line) == 401, line
        with w.g.connect() as c:                        # two fields: not which one counts, but none
            c.request("GET", "/v1/cost", None, [("Cookie", good), ("Cookie", good)])
            refused(c.response(), 401)
        assert status("pad=%s; %s" % ("x" * 12000, good)) == 200
        with w.g.connect() as c:
            c.request("GET", "/v1/cost", None, [("Cookie", "pad=%s; %s" % ("x" * 16384, good))])
            refused(c.response(), 431)
        for _ in range(30):                             # a browser sends what it has, unasked
            assert status("%s=%s" % (COOKIE, chosen)) == 401
        assert status(good) == 200
        refused(b.ask("GET", "/v1/cost", None, {"Authorization": "Bearer " + TOKEN + "x"}), 401)  # what is said counts
        # a digest of it stands in the database, and it is no key either
        with open(w.b.db_path + "-wal", "rb") as f:
            stored = f.read()
        with open(w.b.db_path, "rb") as f:
            stored += f.read()
        for secret in (mine, b.csrf):
            assert secret.encode() not in stored
            refused(Gateway(w.b, secret).ask("GET", "/v1/cost"), 401)


def test_a_body_of_a_session():
    with world() as w:
        for body, status in ((None, 201), ({}, 201), ({"scopes": ["admin"]}, 400), ([], 400), (b"{", 400)):
            assert w.g.ask("POST", "/v1/session", body).status == status, body
            assert w.g.ask("POST", "/v1/session/ticket", body).status == status, body
        refused(w.g.ask("POST", "/v1/session", {"key": 1}), 400, "key")


def test_sessions_of_a_key_are_limited():
    """The oldest gives way, with what it has open; another key's stay."""
    with world() as w:
        other = browser(w)
        g, gate = w.g.mint("chat", "read"), held(w)
        first, second = browser(w, g.key), browser(w, g.key)
        s = first.events("POST", "/v1/messages", {"content": "say alpha beta"}, {
            "Cookie": "%s=%s" % (COOKIE, first.jar[COOKIE]), "Origin": first.origin, "X-CSRF-Token": first.csrf})
        next(s)
        for _ in range(PER_KEY - 2):
            browser(w, g.key)
        assert first.ask("GET", "/v1/sessions").status == 200
        browser(w, g.key)
        refused(first.ask("GET", "/v1/sessions"), 401)
        assert "message_stop" not in [e.name for e in s.ends()]
        s.connection.close()
        assert second.ask("GET", "/v1/sessions").status == other.ask("GET", "/v1/sessions").status == 200
        release(w, gate)


def test_the_end_of_a_key_is_the_end_of_its_sessions():
    """Revoked, its cookies, tickets, streams and sockets end at once, and do not come back with a restart."""
    with world() as w:
        g, gate = w.g.mint("chat", "read"), held(w)
        b, stays = browser(w, g.key), browser(w)
        unused = b.ticket()
        stream = b.events("POST", "/v1/messages", {"content": "say alpha beta"}, {
            "Cookie": "%s=%s" % (COOKIE, b.jar[COOKIE]), "Origin": b.origin, "X-CSRF-Token": b.csrf})
        next(stream)
        with socket_by(w, b.ticket()) as mine, socket_by(w, stays.ticket()) as other:
            assert w.g.ask("DELETE", "/v1/api-keys/%s" % g.made["id"]).status == 200
            assert ended(mine)
            assert "message_stop" not in [e.name for e in stream.ends()]
            stream.connection.close()
            refused(b.ask("GET", "/v1/sessions"), 401)
            refused(b.ask("POST", "/v1/messages", {"content": "x"}), 401)
            socket_by(w, unused, 401).s.close()
            other.send({"type": "ping"})
            assert other.next() == {"type": "pong"}
        assert stays.ask("GET", "/v1/sessions").status == 200
        release(w, gate)
        w.b.restart(hard=True)
        refused(b.ask("GET", "/v1/sessions"), 401)
        assert stays.ask("GET", "/v1/sessions").status == 200


def test_logging_out_ends_what_is_open():
    with world() as w:
        g = w.g.mint("chat", "read")
        b, other = browser(w, g.key), browser(w, g.key)
        unused = b.ticket()
        with socket_by(w, b.ticket()) as mine, socket_by(w, other.ticket()) as theirs, Socket(w.g.port, g.key) as by_key:
            assert b.ask("DELETE", "/v1/session").status == 204
            assert ended(mine)
            for s in (theirs, by_key):
                s.send({"type": "ping"})
                assert s.next() == {"type": "pong"}
        socket_by(w, unused, 401).s.close()
        assert other.ask("GET", "/v1/sessions").status == 200


def test_a_session_ends_with_its_key():
    """The key's own end is the cookie's, and that of a socket which is open; so is that of another token."""
    with world() as w:
        g = w.g.mint("chat", "read", expires_in_seconds=3)
        b = Browser(w.b)
        r = b.log_in(g.key)
        assert r.json()["expires_at"] <= g.made["expires_at"]
        assert int(re.search(r"Max-Age=(\d+);", r.get("Set-Cookie")).group(1)) <= 3
        with socket_by(w, b.ticket()) as s:
            assert ended(s)
        refused(b.ask("GET", "/v1/sessions"), 401)
        by_token = browser(w)
        assert by_token.ask("GET", "/v1/sessions").status == 200
        w.b.stop()
        w.b.configure(gateway={"bearer_token": TOKEN[::-1]})
        w.b.start()
        refused(by_token.ask("GET", "/v1/sessions"), 401)       # it was of a token that is no more
        assert browser(w, TOKEN[::-1]).ask("GET", "/v1/sessions").status == 200


def test_what_a_session_makes_ends_with_it():
    """A key minted with a cookie lives no longer than the cookie may."""
    with world() as w:
        b = browser(w)
        r = b.ask("POST", "/v1/api-keys", {"name": "x", "scopes": ["read"]})
        assert r.status == 201 and 0 < r.json()["expires_at"] <= b.ask("GET", "/v1/session").json()["expires_at"], r
        refused(b.ask("POST", "/v1/api-keys", {"name": "x", "scopes": ["read"], "expires_in_seconds": LIFE_S + 60}), 403)


def test_no_log_has_it():
    with world({"log": {"level": "trace"}}) as w:
        b = browser(w)
        assert b.ask("GET", "/v1/cost").status == 200
        ticket = b.ticket()
        socket_by(w, ticket).s.close()
        socket_by(w, ticket, 401).s.close()
        refused(b.ask("GET", "/v1/nothing?x=1"), 404)
        refused(b.ask("POST", "/v1/messages", b"{"), 400)
        refused(b.ask("POST", "/v1/messages", {"content": "x"}, {"X-CSRF-Token": b.csrf[:-1]}), 403)
        b.say("say one")
        w.b.restart()
        assert b.ask("GET", "/v1/cost").status == 200
        for line in w.b.log_lines():
            for secret in (b.jar[COOKIE], b.csrf, ticket, b.csrf[:-1]):
                assert secret not in line, line


# ---- the ticket --------------------------------------------------------------------------------------------


def test_a_ticket():
    """Opens one socket, once, with the rights of who asked for it; kill -9 does not make it good again."""
    with world({"gateway": {"allowed_origins": ["https://app.example"]}}) as w:
        g = w.g.mint("chat", "read")
        r = g.ask("POST", "/v1/session/ticket")
        assert r.status == 201 and re.match(r"[0-9a-f]{64}\Z", r.json()["ticket"]), r
        assert 0 < r.json()["expires_at"] - time.time() + 60 <= TICKET_S + 61 and r.get("Cache-Control") == "no-store"
        ticket = r.json()["ticket"]
        # a page of somebody else's does not get as far as spending it
        socket_by(w, ticket, 403, Origin="https://evil.example").s.close()
        socket_by(w, ticket, 421, Host="evil.example").s.close()
        with socket_by(w, ticket, Origin="https://app.example") as s:
            assert b"\r\nSec-WebSocket-Protocol: blufio\r\n" in s.head + b"\r\n", s.head
            assert ticket.encode() not in s.head
            s.send({"type": "message", "content": "say one"})
            assert s.until("done")[-1]["content"] == "one"
        assert len(g.sessions()) == 1                   # it was the key's
        socket_by(w, ticket, 401).s.close()
        w.b.restart(hard=True)
        socket_by(w, ticket, 401).s.close()
        # the cookie that a browser sends beside it changes nothing
        b = browser(w, g.key)
        socket_by(w, b.ticket(), Cookie="%s=%s" % (COOKIE, b.jar[COOKIE]), Origin="http://localhost").s.close()
        refused(w.g.mint("read").ask("POST", "/v1/session/ticket"), 403)        # /ws wants chat
        with Socket(w.g.port, Sec_WebSocket_Protocol="blufio") as s:    # the protocol has a name without a ticket too
            assert b"Sec-WebSocket-Protocol: blufio" in s.head
        with Socket(w.g.port) as s:
            assert b"Sec-WebSocket-Protocol" not in s.head


def test_a_ticket_opens_nothing_else():
    with world() as w:
        ticket = w.g.ask("POST", "/v1/session/ticket").json()["ticket"]
        protocol = {"Sec-WebSocket-Protocol": "blufio, blufio.ticket." + ticket}
        refused(Gateway(w.b).ask("GET", "/v1/cost", None, protocol), 401)
        refused(Gateway(w.b).ask("POST", "/v1/messages", {"content": "x"}, protocol), 401)
        upgrade = dict(protocol, Upgrade="websocket", Connection="Upgrade")
        refused(Gateway(w.b).ask("GET", "/v1/cost", None, upgrade), 401)
        refused(Gateway(w.b).ask("GET", "/ws?ticket=" + ticket, None, upgrade), 400)    # never in an address
        refused(Gateway(w.b).ask("GET", "/v1/cost?ticket=x"), 400)
        refused(Gateway(w.b, ticket).ask("GET", "/v1/cost"), 401)
        refused(Gateway(w.b).ask("GET", "/v1/cost", None, {"Cookie": "%s=%s" % (COOKIE, ticket)}), 401)
        b = browser(w)
        for value in ("blufio", "blufio.ticket.", "blufio.ticket." + ticket[:-1], "blufio.ticket.%s0" % ticket,
                      "blufio.ticket.%s, blufio.ticket.%s" % (ticket, ticket), "blufio.ticket." + b.jar[COOKIE], ticket):
            socket_by(w, "", 401, Sec_WebSocket_Protocol=value).s.close()
        assert [x for x in w.b.log_lines() if "locked" in x] == []
        socket_by(w, ticket).s.close()                  # none of it has spent it


def test_wrong_tickets_are_made_to_wait():
    with world() as w:
        for i in range(10):
            socket_by(w, "%064x" % i, 401).s.close()
        socket_by(w, "0" * 64, 429).s.close()


# ---- keys and those they made ---------------------------------------------------------------------------------


def test_a_revoked_key_takes_those_it_made():
    """All of them, at once, however deep, with their streams and sockets; nobody else's."""
    with world() as w:
        top = w.g.mint("admin", "chat", "read")
        aunt = w.g.mint("chat", "read")
        child = top.mint("admin", "chat", "read")
        grandchild = child.mint("chat", "read")
        assert w.g.ask("DELETE", "/v1/api-keys/%s" % child.made["id"]).status == 200
        refused(grandchild.ask("GET", "/v1/sessions"), 401)
        assert top.ask("GET", "/v1/sessions").status == 200
        child = top.mint("admin", "chat", "read")
        grandchild, gate = child.mint("chat", "read"), held(w)
        b = browser(w, grandchild.key)
        with Socket(w.g.port, grandchild.key) as s, Socket(w.g.port, aunt.key) as other, \
                grandchild.stream("say alpha beta") as stream:
            next(stream)
            assert w.g.ask("DELETE", "/v1/api-keys/%s" % top.made["id"]).status == 200
            assert ended(s)
            assert "message_stop" not in [e.name for e in stream.ends()]
            for g in (top, child, grandchild, b):
                refused(g.ask("GET", "/v1/sessions"), 401)
            other.send({"type": "ping"})
            assert other.next() == {"type": "pong"}
        left = {k["id"] for k in w.g.ask("GET", "/v1/api-keys").json()["api_keys"]}
        assert left & {g.made["id"] for g in (top, child, grandchild)} == set() and aunt.made["id"] in left, left
        assert w.b.query("SELECT count(DISTINCT revoked_at) FROM api_keys WHERE id IN (?1, ?2, ?3)", top.made["id"],
                         child.made["id"], grandchild.made["id"]) == [(1,)]      # in one go
        release(w, gate)
        w.b.restart(hard=True)
        refused(grandchild.ask("GET", "/v1/sessions"), 401)


# ---- the first key ---------------------------------------------------------------------------------------------


def serve_on_a_terminal(w):
    return Shell(w.b.command("serve"), w.b.dir, w.b.environment(), True)


def gateway_alone(**more):
    return World({"gateway": dict({"enabled": True, "port": 0}, **more)}, start=False)


def test_the_first_key():
    """Shown once, on a terminal, when there is no credential at all; it works, also after kill -9."""
    with gateway_alone() as w:
        w.b.configure(log={"file": w.b.log_path})
        s = serve_on_a_terminal(w)
        try:
            s.expect("Authorization: Bearer KEY")
            key = s.expect(re.compile(KEY)).group(0)
            w.b.wait_log("ready: ")
            assert s.text.count("blf_sk_") == 1
            assert w.b.query("SELECT name, kind, scopes, minted_by FROM api_keys") == [("first", 0, 15, 0)]
            assert Gateway(w.b, key).say("say one")["content"] == "one"
            s.process.kill()
            s.wait_exit()
        finally:
            s.cleanup()
        assert not [x for x in w.b.log_lines() if key in x]
        w.b.logged = w.b.log_size()
        s = serve_on_a_terminal(w)                      # told once
        try:
            w.b.wait_log("ready: ")
            assert not re.search("blf_sk_", s.text), s.text
            assert Gateway(w.b, key).ask("GET", "/v1/cost").status == 200
            s.interrupt()
            assert s.wait_exit() == 0
        finally:
            s.cleanup()
        assert w.b.query("SELECT count(*) FROM api_keys") == [(1,)]


def test_no_first_key():
    """Not without a terminal (the log says what to do), not beside a token, not where there were keys, not when it is off."""
    with gateway_alone() as w:
        w.b.start()
        w.b.wait_log("blufio pair --gateway")
        assert w.b.query("SELECT count(*) FROM api_keys") == [(0,)]
        assert not [x for x in w.b.log_lines() if "blf_sk_" in x]
        assert w.b.cli("pair", "--gateway")[0] == 0
        key = w.b.query("SELECT id FROM api_keys")[0][0]
        w.b.restart()
        assert not [x for x in w.b.log_lines(running=True) if "pair --gateway" in x]
        w.b.stop()
        db = sqlite3.connect(w.b.db_path)               # a key that is revoked was one
        db.execute("UPDATE api_keys SET revoked_at = 1 WHERE id = ?", (key,))
        db.commit()
        db.close()
        for config in ({"gateway": {}}, {"gateway": {"bearer_token": TOKEN}}, {"gateway": {"enabled": False}}):
            w.b.configure(**config)
            s = serve_on_a_terminal(w)
            try:
                s.expect(re.compile(r"\bready: "))
                s.interrupt()
                assert s.wait_exit() == 0
                assert "blf_sk_" not in s.text, s.text
            finally:
                s.cleanup()
        assert w.b.query("SELECT count(*) FROM api_keys") == [(1,)]
    with gateway_alone(bearer_token=TOKEN) as w:
        s = serve_on_a_terminal(w)
        try:
            s.expect(re.compile(r"\bready: "))
            s.interrupt()
            assert s.wait_exit() == 0 and "blf_sk_" not in s.text
        finally:
            s.cleanup()


# ---- a device ----------------------------------------------------------------------------------------------------


def test_a_device_is_paired():
    """The private half goes into a file that is this user's alone, once; the daemon gets the public half."""
    with gateway_alone() as w:
        w.b.start()
        code, out, err = w.b.cli("pair", "--gateway", "laptop", "--device")
        path = w.b.db_path + ".laptop.key"
        assert code == 0 and out == path + "\n" and "docs/API.md" in err, (code, out, err)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600 and stat.S_ISREG(os.lstat(path).st_mode)
        with open(path, encoding="ascii") as f:
            before = f.read()
        assert re.match(r"-----BEGIN PRIVATE KEY-----\n[A-Za-z0-9+/]{64}\n-----END PRIVATE KEY-----\n\Z", before), before
        kind, name, public, scopes = w.b.query("SELECT kind, name, hash, scopes FROM api_keys")[0]
        assert (kind, name, scopes) == (1, "laptop", 15) and re.match(r"[0-9a-f]{64}\Z", public)
        openssl = subprocess.run(["openssl", "pkey", "-in", path, "-noout", "-text"], stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL, check=False)
        if openssl.returncode == 0:                     # another library finds the same public half in it
            assert public in re.sub(r"[\s:]", "", openssl.stdout.decode()), openssl.stdout
        # never over a file that is there, nor through a link
        code, out, err = w.b.cli("pair", "--gateway", "laptop", "--device")
        assert code == 74 and path in err and "next: " in err, (code, out, err)
        os.symlink(os.path.join(w.b.dir, "elsewhere"), w.b.db_path + ".phone.key")
        code, out, err = w.b.cli("pair", "--gateway", "--device", "phone")
        assert code == 74 and not os.path.exists(os.path.join(w.b.dir, "elsewhere")), (code, out, err)
        with open(path, encoding="ascii") as f:
            assert f.read() == before
        for name in ("a/b", "../up", ".", "a b", "é", "x" * 65, ""):
            code, out, err = w.b.cli("pair", "--gateway", name, "--device")
            assert code == 64 and out == "", (name, code, out, err)
        assert w.b.cli("pair", "--device")[0] == 64
        with socket.socket(socket.AF_UNIX) as s:        # whatever else asks the daemon
            s.connect(w.b.db_path + ".sock")
            s.settimeout(20)
            for value in (public, public.upper(), public[:-1], "", 7, None):
                s.sendall(json.dumps({"cmd": "pair_gateway", "name": "x", "device": value}).encode() + b"\n")
                said = json.loads(s.recv(65536))
                assert not said["ok"] and ("was registered" if value == public else "64 lower-case") in said["error"], said
        assert w.b.query("SELECT count(*) FROM api_keys") == [(1,)]
        assert not [x for x in w.b.log_lines() if before.splitlines()[1] in x]
        w.b.stop()
        code, out, err = w.b.cli("pair", "--gateway", "late", "--device")       # nobody to register it with
        assert code == 3 and out == "" and not os.path.exists(w.b.db_path + ".late.key"), (code, out, err)
        w.b.configure(gateway={"enabled": False})
        w.b.start()
        code, out, err = w.b.cli("pair", "--gateway", "late", "--device")
        assert code != 0 and not os.path.exists(w.b.db_path + ".late.key"), (code, out, err)


def reference_client():
    """The one block of Python in docs/API.md, as it stands there."""
    with open(os.path.join(ROOT, "docs", "API.md"), encoding="utf-8") as f:
        blocks = re.findall(r"^```python\n(.*?)^```$", f.read(), re.M | re.S)
    assert len(blocks) == 1, len(blocks)
    return blocks[0]


def test_the_reference_client():
    """docs/API.md's client signs with another library and is understood."""
    pythons = [p for p in (sys.executable, "/usr/bin/python3") if os.access(p, os.X_OK) and subprocess.run(
        [p, "-c", "from cryptography.hazmat.primitives.asymmetric import ed25519"], stderr=subprocess.DEVNULL).returncode == 0]
    if not pythons:
        raise Skip("no Python has the library cryptography (package python3-cryptography)")
    with gateway_alone() as w, tempfile.TemporaryDirectory() as d:
        w.b.start()
        path = w.b.cli("pair", "--gateway", "laptop", "--device")[1].strip()
        client = os.path.join(d, "client.py")
        with open(client, "w", encoding="utf-8") as f:
            f.write(reference_client())

        address = "127.0.0.1:%d" % Gateway(w.b).port

        def run(text):
            done = subprocess.run([pythons[0], client, path, address, text], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  timeout=120, check=False)
            return done.returncode, done.stdout.decode(), done.stderr.decode()
        assert run("say signed") == (0, "signed\n", ""), run("say signed")
        assert run("say caf\u00e9") == (0, "caf\u00e9\n", "")
        owner = w.b.query("SELECT id FROM api_keys")[0][0]
        assert {chat.split("/")[0] for chat, in w.b.query("SELECT chat FROM sessions")} == {str(owner)}
        key = w.b.cli("pair", "--gateway")[1].strip()
        assert Gateway(w.b, key).ask("DELETE", "/v1/api-keys/%d" % owner).status == 200
        code, out, err = run("say no")
        assert code == 1 and "does not fit" in out, (code, out, err)


if __name__ == "__main__":
    main(globals())
