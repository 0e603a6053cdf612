# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_incidents.py - what happened to other servers of this kind, each tried on this one."""
import itertools
import json
import os
import re
import resource
import socket
import stat
import sys
import threading
import time

from gateway_client import Connection, Cut, Gateway
from harness import SLOW, World, main
from test_gateway import SSE, TOKEN, all_done, held, refused, release, shape, world
from test_socket import Socket
from test_telegram import answer, give, voice

SCOPES = ("chat", "read", "tools", "admin")
SLOW_CLIENTS, HALF_OPEN, FDS_SPARE = 1000, 10000, 300


def routes(w):
    """(method, path) of every route that there is, with a number for each name in braces."""
    doc = w.g.ask("GET", "/openapi.json").json()
    return sorted((m.upper(), shape(p).replace("{}", "999999")) for p, item in doc["paths"].items() for m in item)


def nothing_came(listener):
    listener.settimeout(0.2)
    try:
        c, _ = listener.accept()
    except TimeoutError:
        return True
    with c:
        raise AssertionError("it went there: %r" % c.recv(1000))


def test_s1_no_address_in_a_request_is_gone_to():
    """Elsewhere a page took ?gatewayUrl=, connected there and sent its token: one click. Here nothing that a request
    names, in its address, its fields, its body or its text, is ever connected to, or repeated as a place to go to."""
    names = ("gatewayUrl", "gateway_url", "gateway", "url", "base_url", "api_base", "callback", "callback_url", "webhook", "redirect",
             "redirect_uri", "return_to", "next", "host", "proxy", "endpoint", "server", "origin", "image_url")
    fields = ("Referer", "X-Forwarded-Host", "X-Forwarded-Server", "X-Original-URL", "X-Rewrite-URL", "X-Host", "Via", "Link",
              "Location", "Content-Location", "Forwarded", "X-Gateway-Url", "Proxy")
    with socket.socket() as trap, world() as w:
        trap.bind(("127.0.0.1", 0))
        trap.listen(8)
        place = "127.0.0.1:%d" % trap.getsockname()[1]
        asked = 0
        for method, path in routes(w):
            for url in ("http://%s/x" % place, "ws://%s" % place, place):
                query = "&".join("%s=%s" % (n, url) for n in names)
                for target, more in ((path + "?" + query, {}), (path, {n: url for n in fields})):
                    r = w.g.ask(method, target, {} if method == "POST" else None, more)
                    assert r.status < 500 and r.get("Location") is None and place not in repr(r.fields), (method, target, r)
                    asked += 1
            refused(w.g.ask(method, path + "#gatewayUrl=http://" + place, {} if method == "POST" else None), 400)
        for name in names:
            refused(w.g.ask("POST", "/v1/messages", {"content": "say x", name: "http://%s/x" % place}), 400, name)
            with Socket(w.g.port) as s:
                s.send({"type": "message", "content": "say x", name: "http://%s/x" % place})
                assert s.next()["error"]["param"] == name
        assert w.g.say("say [a](http://%s/a) ![b](http://%s/b)" % (place, place))["content"].count(place) == 2
        assert asked > 60 and nothing_came(trap) and len(w.ai.requests) == 1


def test_s2_nobody_configures_it_over_the_network():
    """Elsewhere a client without a credential set the path of a program, which was then run. Here whatever changes
    something wants a credential, that of a reader is not enough, and no route takes a key of the configuration."""
    with world() as w:
        reader, changing = w.g.mint("read"), [r for r in routes(w) if r[0] not in ("GET", "HEAD")]
        code, keys, _ = w.b.cli("config", "keys")
        keys = [line.split()[0] for line in keys.splitlines()]
        assert code == 0 and "telegram.transcribe_command" in keys and len(changing) > 5
        with open(w.b.config_path, encoding="utf-8") as f:
            before = f.read()
        ran = os.path.join(w.b.dir, "ran")
        for method, path in changing:
            refused(Gateway(w.b).ask(method, path, {} if method == "POST" else None), 401)
            if not re.match(r"/v1/(session|ws-ticket)\b", path):       # what a credential does for itself
                refused(reader.ask(method, path, {} if method == "POST" else None), 403)
        for method, path in changing:
            for key in keys if method == "POST" else ():
                table, _, name = key.rpartition(".")
                for body in ({key: ["/usr/bin/touch", ran]}, {table: {name: ["/usr/bin/touch", ran]}}):
                    r = w.g.ask(method, path, body)
                    assert 400 <= r.status < 500, (method, path, body, r)
        for path in ("/config", "/v1/config", "/v1/reload", "/api/config", "/v1/restart", "/rpc"):
            for method in ("GET", "POST", "PUT", "PATCH"):
                refused(w.g.ask(method, path, {} if method != "GET" else None), 404)
        with open(w.b.config_path, encoding="utf-8") as f:
            assert f.read() == before
        answer(w, voice(w))                             # were the program set, it would run now
        assert not os.path.exists(ran)


def test_s3_nobody_guesses_from_a_page_or_from_this_machine():
    """Elsewhere any page could open a WebSocket to this machine and guess, since loopback had no limit. Here a page of
    another origin is sent away before the 101 and before its guess is looked at; whoever guesses is made to wait."""
    with world() as w:
        port = w.g.port
        for _ in range(30):
            Socket(port, "guess", status=403, Origin="https://evil.example").s.close()
        with Socket(port) as s:                         # none of these counted
            s.send({"type": "ping"})
            assert s.next() == {"type": "pong"}
        for _ in range(9):
            Socket(port, "guess" + TOKEN, status=401).s.close()
        refused(Gateway(w.b, "guess").ask("GET", "/v1/cost"), 401)
        r = w.g.ask("GET", "/v1/cost")                  # not even with the right one
        refused(r, 429)
        Socket(port, status=429).s.close()
        with w.g.connect(source="127.0.0.2") as c:      # whom others do not lock out
            w.g.start("GET", "/v1/cost", connection=c)
            assert c.response().status == 200
        w.wait(lambda: w.g.ask("GET", "/v1/cost").status == 200, "its turn again")


def test_s4_scopes_are_those_of_the_row():
    """Elsewhere the scopes that a client declared were believed. Here no field, member or frame widens them."""
    names = ("scopes", "scope", "role", "admin", "is_admin", "operator", "approved", "principal", "senderIsOwner", "owner", "rights")
    values = (["chat", "read", "tools", "admin"], "admin", True, {"admin": True}, 15)
    with world() as w:
        g = w.g.mint("chat")
        for name in names:
            for prefix in ("", "X-", "Blufio-", "X-Blufio-"):
                refused(g.ask("GET", "/v1/cost", headers={prefix + name.title(): "admin read chat tools"}), 403)
            refused(g.ask("GET", "/v1/api-keys?%s=admin" % name), 403)
            for value in values:
                refused(g.ask("POST", "/v1/messages", {"content": "say x", name: value}), 400, name)
                refused(g.ask("POST", "/v1/api-keys", {"name": "x", "scopes": ["read"], name: value}), 403)
                refused(g.ask("POST", "/v1/tools/invoke", {"name": "time.now", name: value}), 403)
        for more in (g.key + " scopes=admin", g.key + ",admin", g.key + ";role=admin"):
            with g.connect(source="127.0.0.3") as c:
                g.start("GET", "/v1/cost", None, {"Authorization": "Bearer " + more}, connection=c)
                refused(c.response(), 401)
        with g.connect() as c:                          # the one, and then another: which counts? neither
            c.request("GET", "/v1/cost", headers=[("Authorization", "Bearer " + g.key), ("Authorization", "Bearer " + TOKEN)])
            assert c.response().status in (400, 401)
        with Socket(w.g.port, g.key) as s:
            for kind in ("auth", "connect", "hello", "scopes", "config.apply"):
                s.send({"type": kind, "scopes": values[0], "token": TOKEN})
                assert s.next()["error"]["param"] == "type"
            for name in names:
                for value in values:
                    s.send({"type": "message", "content": "say x", name: value})
                    assert s.next()["error"]["param"] == name
        refused(g.ask("GET", "/v1/sessions"), 403)
        assert w.b.query("SELECT count(*) FROM inbound") == [(0,)]
        assert w.b.query("SELECT scopes FROM api_keys WHERE name = 'test'") == [(1,)]


def test_s5_a_key_makes_none_that_may_more():
    """Elsewhere a token for pairing could make one for everything. Here what is made is within its maker, for all pairs."""
    sets = [c for n in range(1, 5) for c in itertools.combinations(SCOPES, n)]
    with world() as w:
        made = 0
        for mine in sets:
            g = w.g.mint(*mine)
            for wanted in sets:
                r = g.ask("POST", "/v1/api-keys", {"name": "x", "scopes": list(wanted)})
                if "admin" in mine and set(wanted) <= set(mine):
                    assert r.status == 201 and sorted(r.json()["scopes"]) == sorted(wanted), (mine, wanted, r)
                    assert w.g.ask("DELETE", "/v1/api-keys/%s" % r.json()["id"]).status == 200
                    made += 1
                else:
                    refused(r, 403)
            assert w.g.ask("DELETE", "/v1/api-keys/%s" % g.made["id"]).status == 200
        assert made == 1 + 3 * 3 + 3 * 7 + 15
        for bad in (["Admin"], ["admin "], ["chat,admin"], ["*"], [""], [None], [["chat"]], "chat", {}):
            refused(w.g.ask("POST", "/v1/api-keys", {"name": "x", "scopes": bad}), 400, "scopes")


def test_s6_a_credential_that_is_wrong_in_any_way():
    """Elsewhere that there was a token was enough. Here each prefix, an empty, a huge and a broken one is refused with
    the same words as any other, and so is a device whose signature is not one."""
    with world() as w:
        g = w.g.mint("chat", "read")
        tries = [t[:n] for t in (TOKEN, g.key) for n in range(1, len(t))]
        tries += [TOKEN + x for x in ("x", "\0", " ", "=", "\u00ff", "%00", ",", TOKEN)] + [TOKEN.swapcase(), g.key.swapcase()]
        tries += ["x" * n for n in (22, 1000, 8000)] + ["\u00ff\u00fe" * 20, "\u00e9" * 43, '"%s"' % TOKEN, "null", "undefined", "''"]
        tries += [g.key[:7] + "A" * 43, g.key[:7], "blf_sk_"]
        answers = set()
        for i, token in enumerate(tries):               # each from an address of its own: the wrong ones are counted
            with w.g.connect(source="127.1.%d.%d" % (i >> 8, i & 255)) as c:
                c.request("GET", "/v1/cost", headers=[("Authorization", "Bearer " + token)])
                r = c.response()
            if token == TOKEN + " ":                    # white space at a field's end is none of its value
                assert r.status == 200
            elif "\0" in token:
                refused(r, 400)
            else:
                e = refused(r, 401)
                e.pop("request_id")
                answers.add((json.dumps(e, sort_keys=True), tuple(k for k, _ in r.fields)))
        assert len(answers) == 1 and len(tries) > 90, answers
        device = {"Blufio-Device": "0" * 64, "Blufio-Timestamp": "0", "Blufio-Nonce": "0" * 32, "Blufio-Content-SHA256": "0" * 64,
                  "Blufio-Signature": "A" * 86 + "=="}
        for i, missing in enumerate([None] + list(device)):
            with w.g.connect(source="127.2.0.%d" % (i + 1)) as c:
                c.request("GET", "/v1/cost", headers=[(k, v) for k, v in device.items() if k != missing])
                refused(c.response(), 401)
        refused(Gateway(w.b).ask("GET", "/v1/cost", headers={"Authorization": "Bearer"}), 401)


def ends(read):
    """It ends although the model still holds back; comments and pings do not count as life."""
    until = time.monotonic() + 10 * SLOW
    try:
        while read() and time.monotonic() < until:
            pass
    except (EOFError, ConnectionResetError):
        pass
    return time.monotonic() < until


def test_s7_revoked_is_revoked():
    """Elsewhere a revoked token worked on until the next start. Here its next request is refused, its sockets, streams
    and kept connections end at once, and so it stays; what its holder had begun is finished for whoever may see it."""
    with world() as w:
        g, gate = w.g.mint(*SCOPES), held(w)
        idle = g.connect()
        g.start("GET", "/v1/cost", connection=idle)
        assert idle.response().status == 200
        waiting = g.start("POST", "/v1/messages", {"content": "say waiting"})
        with g.stream("say alpha beta") as s, Socket(w.g.port, g.key) as quiet, Socket(w.g.port, g.key) as busy:
            next(s)
            busy.send({"type": "message", "content": "say gamma delta"})
            busy.until("delta")
            w.wait(lambda: len(w.ai.requests) == 3, "all asked")
            assert w.g.ask("DELETE", "/v1/api-keys/%s" % g.made["id"]).status == 200
            refused(g.ask("GET", "/v1/cost"), 401)
            for read in (s.connection.more, quiet.frame, busy.frame):
                assert ends(read)
        with waiting:
            try:
                refused(waiting.response(), 401)
            except Cut:
                pass
        with idle:
            try:
                g.start("GET", "/v1/cost", connection=idle)
                refused(idle.response(), 401)
            except Cut:
                pass
        Socket(w.g.port, g.key, status=401).s.close()
        release(w, gate)
        w.wait(lambda: all_done(w), "the turns go on")
        assert sorted(m["content"] for x in w.g.sessions() for m in w.g.messages(x["id"]) if m["role"] == "assistant") == [
            "alpha beta", "gamma delta", "waiting"]
        w.b.restart(hard=True)
        refused(g.ask("GET", "/v1/cost"), 401)
        other = TOKEN[::-1]                             # and the token of the configuration, exchanged
        w.b.configure(gateway={"bearer_token": other})
        w.b.restart()
        refused(w.g.ask("GET", "/v1/cost"), 401)
        assert Gateway(w.b, other).ask("GET", "/v1/cost").status == 200


def family(b):
    """The daemon's processes and all that they started."""
    parents, found = {}, set(b.processes())
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name, encoding="latin-1") as f:
                    parents[int(name)] = int(f.read().rpartition(")")[2].split()[1])
            except OSError:
                pass
    while not {p for p in parents if parents[p] in found} <= found:
        found |= {p for p in parents if parents[p] in found}
    return found


def listening(b):
    """Addresses (hex) on which any process of the daemon listens, TCP and UDP."""
    inodes = set()
    for pid in family(b):
        for fd in os.listdir("/proc/%d/fd" % pid):
            try:
                m = re.match(r"socket:\[(\d+)\]", os.readlink("/proc/%d/fd/%s" % (pid, fd)))
            except OSError:
                continue
            inodes |= {m.group(1)} if m else set()
    found = []
    for name in ("tcp", "tcp6", "udp", "udp6"):
        with open("/proc/%d/net/%s" % (b.pid, name), encoding="ascii") as f:
            for line in list(f)[1:]:
                local, state, inode = line.split()[1], line.split()[3], line.split()[9]
                if inode in inodes and (state == "0A" or (name.startswith("udp") and state == "07")):
                    found.append((name, local.split(":")[0]))
    return found


LOOPBACK = ("tcp", "0100007F" if sys.byteorder == "little" else "7F000001")


def test_s17_it_listens_on_this_machine_alone():
    """Elsewhere 135,000 gateways stood open to the Internet. Here the default is no listener; one that is asked for is
    on loopback, and a public address takes a second word (test_gateway.py: test_a_public_address_is_refused)."""
    with World() as w:
        assert listening(w.b) == []
    with world() as w:
        assert w.g.ask("GET", "/v1/cost").status == 200 and listening(w.b) == [LOOPBACK], listening(w.b)
    with world({"gateway": {"host": "0.0.0.0", "allow_public": True}}) as w:     # so that this test can fail
        assert [a for _, a in listening(w.b)] == ["00000000"], listening(w.b)


def test_s20_no_helper_listens():
    """Elsewhere a helper process listened on every address, with a credential if somebody thought of it. Here none of
    the daemon's processes listens, also while a program of ours works; the control socket is its owner's alone."""
    with world({"telegram": {"transcribe_command": ["/bin/sh", "-c", "test -e go || exec sleep 60; echo heard", "x"]}}) as w:
        n = len(family(w.b))
        give(w, voice(w))
        w.wait(lambda: len(family(w.b)) > n, "the helper runs")
        assert listening(w.b) == [LOOPBACK], listening(w.b)
        sockets = [os.path.join(d, x) for d, _, files in os.walk(w.b.dir) for x in files
                   if stat.S_ISSOCK(os.lstat(os.path.join(d, x)).st_mode)]
        assert sockets and all(stat.S_IMODE(os.stat(x).st_mode) & 0o077 == 0 for x in sockets), sockets
        w.b.kill9()


def children_so_far(b):
    """Grows whenever a process of the daemon has waited for a child of its own, however short that lived."""
    out = {}
    for pid in b.processes():
        with open("/proc/%d/stat" % pid, encoding="latin-1") as f:
            out[pid] = int(f.read().rpartition(")")[2].split()[8])
    return out


def test_s21_no_value_of_a_request_reaches_a_program():
    """Elsewhere a request's value became part of a shell's command line, without a credential. Here no route starts a
    process at all, whatever it is told; there is none that restarts the daemon."""
    with world({"telegram": {"transcribe_command": ["/bin/echo", "heard"]}}) as w:
        ran = os.path.join(w.b.dir, "ran")
        values = ["; touch %s" % ran, "$(touch %s)" % ran, "`touch %s`" % ran, "| touch %s" % ran, "'\n touch %s\n" % ran, "--help", "-rf"]
        w.g.say("say once")
        before = children_so_far(w.b)
        for method, path in routes(w):
            for value in values:
                body = None if method != "POST" else {"content": value, "user": value, "session_id": value, "name": value, "input": {"text": value}}
                for g in (w.g, Gateway(w.b)):
                    headers = {"User-Agent": value.replace("\n", " "), "X-Request-Id": value.replace("\n", " "), "Accept": "application/json"}
                    r = g.ask(method, path + "?x=" + value.encode().hex(), body, headers)
                    assert r.status < 500 or r.status == 503, (method, path, r)
        for value in values:
            w.g.say("say " + value, user=value.replace("/", ".")[:60])
            w.g.ask("POST", "/v1/tools/invoke", {"name": "text.count", "input": {"text": value}})
            w.g.ask("POST", "/v1/api-keys", {"name": value, "scopes": ["read"]})
        for path in ("/restart", "/v1/restart", "/api/gateway/restart", "/v1/exec", "/v1/shell"):
            refused(w.g.ask("POST", path, {"args": values}), 404)
        assert children_so_far(w.b) == before and not os.path.exists(ran)
        answer(w, voice(w))                             # so that this test can fail: a program that may run is seen
        assert children_so_far(w.b) != before


# ---- S23: a crowd ------------------------------------------------------------------------------------------------


def room_for(n):
    """How many of n connections can be had; the limit of open files is raised for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < n + FDS_SPARE:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(n + FDS_SPARE, hard), hard))
        n = min(n, hard - FDS_SPARE)
    return n


def test_s23_a_crowd_does_not_stop_a_client():
    """Elsewhere upgrades without a credential used a server up. Here 10,000 connections that begin and do not go on,
    and 1,000 that send a byte now and then, leave the client that was there its socket, and let a new one in, all
    the while; the daemon keeps its own measure of descriptors and memory."""
    starts = (b"", b"G", b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
              b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Le", b"\r\n")
    n = room_for(HALF_OPEN)
    if n < HALF_OPEN:
        print("only %d connections: the limit of open files is %d" % (n, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    head = b"GET /v1/cost HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 500
    with world() as w, Socket(w.g.port) as paired, w.b.bounded():
        port, many, done = w.g.port, [], threading.Event()

        def says(i):
            paired.send({"type": "message", "content": "say %d" % i})
            assert paired.until("done")[-1]["content"] == str(i)
            assert w.g.ask("GET", "/v1/cost").status == 200     # a connection of its own each time
            assert w.b.fds() < 1200, w.b.fds()
        try:
            for i in range(n):
                c = Connection(port)
                c.send(starts[i % len(starts)])
                many.append(c)
                if i % (n // 20) == 0:
                    says(i)
            for c in many:
                c.close()
            many = [Connection(port) for _ in range(min(n, SLOW_CLIENTS))]

            def drip():
                for at in range(len(head)):
                    for c in many:
                        if done.is_set():
                            return
                        c.send(head[at:at + 1])
            dripping = threading.Thread(target=drip)
            dripping.start()
            for i in range(20):
                says(i)
            done.set()
            dripping.join()
        finally:
            done.set()
            for c in many:
                c.close()
        w.wait(lambda: w.b.fds() < 100, "they are forgotten", timeout=60)


# ---- channels beside one another -----------------------------------------------------------------------------------


def test_clients_that_read_nothing_do_not_stop_telegram():
    """Streams, sockets and pipelines whose clients take no byte: the other channel answers meanwhile."""
    with world() as w:
        deaf = [w.g.connect(receive_buffer=4096) for _ in range(6)]
        try:
            for i, c in enumerate(deaf):
                c.socket.settimeout(0.3 * SLOW)
                if i % 3 == 0:
                    w.g.start("POST", "/v1/messages", {"content": "words 3000"}, SSE, connection=c)
                try:
                    while i % 3 and c.send(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100):
                        pass
                except TimeoutError:
                    pass                                # what it owes is full: it reads no more
            for i in range(3):
                assert w.say("say %d" % i) == str(i) and w.g.say("say %d" % i)["content"] == str(i)
        finally:
            for c in deaf:
                c.close()
        w.wait(lambda: all_done(w), "all done")


if __name__ == "__main__":
    main(globals())
