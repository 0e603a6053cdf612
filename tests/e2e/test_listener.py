# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_listener.py - how the gateway listens: traces, compression, kept answers, sockets and addresses, limits, pages."""
import email.utils
import gzip
import json
import os
import re
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import time

from fake_anthropic import TRACEPARENT
from gateway_client import Gateway
from harness import Skip, main
from test_commit import shim
from test_gateway import (EX_CONFIG, ROUTES, TOKEN, all_done, fails_to_start, held, need_descriptors, refused, release,
                          world)
from test_socket import Socket

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


# ---- traces ----------------------------------------------------------------------------------------


def told(w, n=0):
    """(trace id, span, flags) of each call of the model from the n-th on."""
    calls = [x["headers"].get("traceparent", "") for x in w.ai.requests[n:]]
    assert calls and all(re.match(TRACEPARENT, c) for c in calls), calls
    return [tuple(c.split("-")[1:]) for c in calls]


def lines_of(w, trace):
    return [x for x in w.b.logs() if x.get("trace") == trace]


def test_a_trace_is_taken_over():
    """Every line of the request and of its turn has it, and every call of the model, under a span of its own."""
    with world() as w:
        r = w.g.ask("POST", "/v1/messages", {"content": "tools"},
                    {"traceparent": "00-%s-%s-01" % (TRACE, SPAN), "tracestate": "vendor=1"})
        assert r.status == 200, r
        calls = told(w)
        assert len(calls) > 1 and {(t, f) for t, _, f in calls} == {(TRACE, "01")}, calls
        assert len({s for _, s, _ in calls} | {SPAN}) == len(calls) + 1, calls
        assert not [x for x in w.ai.requests if "tracestate" in x["headers"]]
        of_turn = [x for x in w.b.logs() if x.get("turn") == int(r.json()["id"])]
        assert len(of_turn) > 3 and {x.get("trace") for x in of_turn} == {TRACE}, of_turn
        # a request that has no turn
        rid = refused(w.g.ask("GET", "/nothing", headers={"traceparent": "00-%s-%s-00" % ("f" * 32, SPAN)}), 404)["request_id"]
        assert [x for x in lines_of(w, "f" * 32) if rid in x["msg"]]


def test_a_trace_is_made():
    """Without a valid one; of each message its own, on every channel."""
    bad = (None, "", "00-%s-%s" % (TRACE, SPAN), "00-%s-%s-01" % ("0" * 32, SPAN), "00-%s-%s-01" % (TRACE, "0" * 16),
           "ff-%s-%s-01" % (TRACE, SPAN), "00-%s-%s-01" % (TRACE.upper(), SPAN), "00-%s-%s-01-x" % (TRACE, SPAN))
    with world() as w:
        for header in bad:
            w.g.ask("POST", "/v1/messages", {"content": "say one"}, {"traceparent": header})
        with w.g.connect() as c:                        # two of them are none
            body = b'{"content": "say two"}'
            one = ("traceparent", "00-%s-%s-01" % (TRACE, SPAN))
            c.request("POST", "/v1/messages", body, w.g.headers(body, None) + [one, one])
            assert c.response().status == 200
        w.say("say three")
        traces = [t for t, _, _ in told(w)]
        assert len(set(traces)) == len(traces) == len(bad) + 2 and TRACE not in traces, traces
        for trace in traces:
            assert any("turn" in x for x in lines_of(w, trace)), trace
        assert w.g.ask("POST", "/v1/messages", {"content": "say four"}, {
            "traceparent": "cc-%s-%s-01-what-will-be" % (TRACE, SPAN)}).status == 200
        assert told(w)[-1][0] == TRACE                  # of a later version what is known of it


def test_a_trace_waits_with_its_message():
    """Behind another one, although its client has left; who comes after a death gets a new one."""
    with world() as w:
        session = w.g.say("say zero")["session_id"]
        gate = held(w)
        first = w.g.start("POST", "/v1/messages", {"content": "say first", "session_id": session})
        w.wait(lambda: len(w.ai.requests) == 2, "asked")
        second = w.g.start("POST", "/v1/messages", {"content": "say second", "session_id": session},
                           {"traceparent": "00-%s-%s-01" % (TRACE, SPAN)})
        w.wait(lambda: len(w.b.query("SELECT 1 FROM inbound")) == 3, "stored")
        second.close()
        release(w, gate)
        with first:
            assert first.response().status == 200
        w.wait(lambda: len(w.ai.requests) == 3 and all_done(w), "answered")
        assert told(w)[2][0] == TRACE != told(w)[1][0]
        gate = held(w)
        last = w.g.start("POST", "/v1/messages", {"content": "say last"}, {"traceparent": "00-%s-%s-01" % (TRACE, SPAN)})
        w.wait(lambda: len(w.ai.requests) == 4, "asked")
        w.b.kill9()
        last.close()
        release(w, gate)
        w.b.start()
        w.wait(lambda: len(w.ai.requests) == 5 and all_done(w), "answered")
        assert told(w)[3][0] == TRACE != told(w)[4][0]


# ---- compression and kept answers --------------------------------------------------------------------


def grown(w):
    """A conversation whose messages are worth compressing."""
    session = w.g.say("words 400")["session_id"]
    return "/v1/sessions/%s/messages" % session


def test_gzip():
    """For whoever takes it, where it is worth it; the content is the same, and HEAD tells the same."""
    with world() as w:
        path = grown(w)
        plain = w.g.ask("GET", path)
        assert plain.get("Content-Encoding") is None and len(plain.body) > 1024
        for accept in ("gzip", "deflate, gzip;q=0.5", "GZIP", "*", "br, *;q=0.1", "gzip;q=0.8, identity;q=0.5"):
            r = w.g.ask("GET", path, headers={"Accept-Encoding": accept})
            assert r.get("Content-Encoding") == "gzip" and "Accept-Encoding" in r.all("Vary"), (accept, r)
            assert gzip.decompress(r.body) == plain.body and len(r.body) < len(plain.body) / 2, accept
            with w.g.start("HEAD", path, headers={"Accept-Encoding": accept}) as c:
                head = c.response("HEAD")
            drop = ("date", "x-request-id")
            assert [f for f in head.fields if f[0].lower() not in drop] == [f for f in r.fields if f[0].lower() not in drop]
        for accept in (None, "", "identity", "gzip;q=0", "br", "gzip;q=0.5, identity", "*;q=0", "gzip;q=0, *"):
            r = w.g.ask("GET", path, headers={"Accept-Encoding": accept})
            assert r.get("Content-Encoding") is None and r.body == plain.body, (accept, r)
            assert "Accept-Encoding" in r.all("Vary"), accept
        small = w.g.ask("GET", "/ready", headers={"Accept-Encoding": "gzip"})
        assert small.get("Content-Encoding") is None and len(small.body) < 1024
        page = w.g.ask("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
        assert b"blufio_messages_total" in gzip.decompress(page.body)


def test_what_is_not_compressed():
    """Event streams; and what answers a POST, where a secret may stand beside what was asked."""
    with world() as w:
        take = {"Accept-Encoding": "gzip"}
        r = w.g.ask("POST", "/v1/messages", {"content": "words 400"}, take)
        assert r.get("Content-Encoding") is None and len(r.json()["content"]) > 1024
        with w.g.events("GET", "/v1/messages/" + r.json()["id"], headers=take) as s:
            assert s.response.get("Content-Encoding") is None and s.until("message_stop")
        r = w.g.ask("POST", "/v1/api-keys", {"name": "x" * 64, "scopes": ["chat"]}, take)
        assert r.status == 201 and r.get("Content-Encoding") is None


def test_compression_keeps_no_memory():
    with world() as w:
        path = grown(w)
        for _ in range(20):
            w.g.ask("GET", path, headers={"Accept-Encoding": "gzip"})
        before = w.b.rss_kb()
        idle = [w.g.connect() for _ in range(40)]
        for c in idle:
            w.g.start("GET", path, headers={"Accept-Encoding": "gzip"}, connection=c)
            assert c.response().get("Content-Encoding") == "gzip"
        # zlib would take 268 KB for each of them
        assert w.b.rss_kb() - before < 40 * 128 or os.environ.get("E2E_MEMORY") == "0", (before, w.b.rss_kb())
        for c in idle:
            c.close()


def test_etag():
    with world() as w:
        path, take = "/openapi.json", {"Accept-Encoding": "gzip"}
        plain, zipped = w.g.ask("GET", path), w.g.ask("GET", path, headers=take)
        assert gzip.decompress(zipped.body) == plain.body
        strong, weak = plain.get("ETag"), zipped.get("ETag")
        assert re.match(r'"[^"]+"\Z', strong) and weak == "W/" + strong
        for r in (plain, zipped):
            assert r.get("Cache-Control") == "no-cache" and "Accept-Encoding" in r.all("Vary"), r
        for match in (strong, weak, '"other", %s' % strong, "*", 'W/"other",' + weak):
            for more, tag in (({}, strong), (take, weak)):
                for method in ("GET", "HEAD"):
                    with w.g.start(method, path, headers=dict({"If-None-Match": match}, **more)) as c:
                        r = c.response(method)
                        assert r.status == 304 and r.get("ETag") == tag and r.body == b"", (match, r)
                        assert r.get("Cache-Control") == "no-cache" and "Accept-Encoding" in r.all("Vary"), r
                        assert r.get("Content-Length") is None and r.get("Content-Encoding") is None, r
                        w.g.start("GET", "/health", connection=c)       # in step
                        assert c.response().json() == {"status": "ok"}
        for match in ('"other"', strong[:-2] + '"', strong[1:-1], ""):
            assert w.g.ask("GET", path, headers={"If-None-Match": match}).body == plain.body, match
        w.b.restart(hard=True)                          # it is the content's
        assert w.g.ask("GET", path, headers={"If-None-Match": strong}).status == 304
        assert w.g.ask("GET", "/v1/cost", headers={"If-None-Match": "*"}).status == 200


# ---- a Unix socket ------------------------------------------------------------------------------------


def socket_world(config=None, **options):
    """Gateway with a Unix socket beside its address; w.path is where, w.u asks there."""
    w = world(dict({"gateway": dict({"socket": "http.sock"}, **(config or {}))}), **options)
    w.path = os.path.join(w.b.dir, "http.sock")
    w.u = Gateway(w.b, TOKEN, w.path)
    return w


def test_a_unix_socket():
    with socket_world() as w:
        mode = os.stat(w.path).st_mode
        assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600, oct(mode)
        assert w.u.say("say by socket")["content"] == "by socket" and w.g.say("say by port")["content"] == "by port"
        refused(Gateway(w.b, None, w.path).ask("GET", "/v1/cost"), 401)         # no exemption there either
        refused(Gateway(w.b, "wrong" + TOKEN, w.path).ask("GET", "/v1/cost"), 401)
        assert Gateway(w.b, None, w.path).ask("GET", "/metrics").status == 200
        refused(w.u.ask("GET", "/health", headers={"Host": "evil.example"}), 421)
        with w.u.connect() as c:                        # what connections do, they do here
            c.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nHEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
                   b"OPTIONS /v1/messages HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n"
                   b"Connection: close\r\n\r\n", 7)
            assert c.response().json() == {"status": "ok"} and c.response("HEAD").status == 200
            assert "POST" in c.response().get("Allow") and c.response().status == 200 and c.closed()
        assert w.b.stop() == 0
        assert not os.path.exists(w.path)               # and nothing is left of it


def test_curl_by_socket():
    curl = shutil.which("curl")
    if curl is None:
        raise Skip("no curl")
    with socket_world() as w:
        for more, data in (([], None), (["-H", "Authorization: Bearer " + TOKEN], b'{"content": "say by curl"}')):
            command = [curl, "-q", "-sS", "--fail-with-body", "--unix-socket", w.path] + more
            if data:
                command += ["-H", "Content-Type: application/json", "-H", "Expect: 100-continue", "--data-binary", "@-"]
            done = subprocess.run(command + ["http://localhost" + ("/v1/messages" if data else "/health")], input=data or b"",
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
            assert done.returncode == 0, done
            doc = json.loads(done.stdout.decode())
            assert doc.get("content") == "by curl" if data else doc == {"status": "ok"}, doc


def test_a_socket_alone():
    """With an empty host no address is listened on."""
    with socket_world({"host": "", "port": 3000}) as w:
        assert w.u.say("say alone")["content"] == "alone"
        listening = [x["msg"] for x in w.b.logs() if x.get("component") == "gateway"]
        assert listening == ["listening on " + w.path], listening
        w.b.restart()
        assert w.u.say("say again")["content"] == "again"
    fails_to_start({"host": ""}, (EX_CONFIG,), "gateway.host", "127.0.0.1")


def test_a_stale_socket_is_replaced():
    with socket_world() as w:
        w.b.kill9()
        assert os.path.exists(w.path)
        w.b.start()
        assert w.u.say("say once more")["content"] == "once more"


def test_a_socket_of_others_stays():
    """One that somebody listens on, and whatever is no socket."""
    with socket_world(start=False) as w:
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(w.path)
            s.listen(1)
            will_not_start(w, (EX_CONFIG,), w.path, "another process listens", "gateway.socket")
            with socket.socket(socket.AF_UNIX) as c:    # it is still his
                c.connect(w.path)
        os.unlink(w.path)
        with open(w.path, "w") as f:
            f.write("precious")
        will_not_start(w, (EX_CONFIG,), w.path, "no socket", "gateway.socket")
        with open(w.path) as f:
            assert f.read() == "precious"
        os.unlink(w.path)
        w.b.configure(gateway={"socket": "no/such/http.sock"})
        will_not_start(w, (EX_CONFIG,), "no/such/http.sock", "No such file", "gateway.socket")
        w.b.configure(gateway={"socket": "x" * 120})
        will_not_start(w, (EX_CONFIG,), "gateway.socket", "longer", "bytes)", "shorter")


# ---- an address for metrics ---------------------------------------------------------------------------


def metrics_port(w):
    return int(re.match(r"metrics on 127\.0\.0\.1:(\d+)\Z", next(
        x["msg"] for x in w.b.logs(running=True) if str(x.get("msg", "")).startswith("metrics on"))).group(1))


def test_metrics_have_an_address_of_their_own():
    with world({"prometheus": {"listen": "127.0.0.1:0"}}) as w:
        m = Gateway(w.b, None, metrics_port(w))
        w.g.say("say one")
        page = m.ask("GET", "/metrics")
        assert b'blufio_messages_total{channel="gateway"} 1\n' in page.body
        assert m.ask("GET", "/health").json() == {"status": "ok"}
        m.key = TOKEN
        for method, path in [r for r in ROUTES if r[1] != "/health"] + [("GET", "/ws"), ("GET", "/"), ("POST", "/metricsx")]:
            path = re.sub(r"\{[^}]*\}", "1", path)
            refused(m.ask(method, path, {} if method == "POST" else None), 404)
        refused(m.ask("POST", "/metrics", {}), 405)
        refused(w.g.ask("GET", "/metrics"), 404)        # there, and not here
        refused(m.ask("GET", "/metrics", headers={"Host": "evil.example"}), 421)
    with world({"prometheus": {"listen": "127.0.0.1:0", "require_auth": True}}) as w:
        m = Gateway(w.b, None, metrics_port(w))
        refused(m.ask("GET", "/metrics"), 401)
        m.key = w.g.mint("read").key
        assert m.ask("GET", "/metrics").status == 200


def test_metrics_without_the_gateway():
    with world({"gateway": {"enabled": False}, "prometheus": {"listen": "127.0.0.1:0"}}) as w:
        w.say("say one")
        assert b'blufio_messages_total{channel="telegram"} 1\n' in Gateway(w.b, None, metrics_port(w)).ask("GET", "/metrics").body
        assert not [x for x in w.b.logs() if str(x.get("msg", "")).startswith("listening")]


def test_metrics_of_a_public_name():
    """Whoever comes by another name than this machine's, through a server in front, shows a credential."""
    with world({"gateway": {"allowed_hosts": ["agent.example"]}}) as w:
        nobody = Gateway(w.b)
        assert nobody.ask("GET", "/metrics").status == 200
        refused(nobody.ask("GET", "/metrics", headers={"Host": "agent.example"}), 401)
        assert w.g.ask("GET", "/metrics", headers={"Host": "agent.example"}).status == 200


def test_bad_addresses_for_metrics():
    for value in ("9100", ":9100", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:x", "::1:9100", "[::1:9100",
                  "name.example:9100", "127.0.0.1:-1"):
        with world({"prometheus": {"listen": value}}, start=False) as w:
            will_not_start(w, (EX_CONFIG,), "prometheus.listen", value, "127.0.0.1:9100")
    for value in ("0.0.0.0:9100", "[::]:9100"):
        for auth in (False, True):                      # a credential would go there unencrypted
            with world({"prometheus": {"listen": value, "require_auth": auth}}, start=False) as w:
                will_not_start(w, (EX_CONFIG,), "prometheus.listen", "TLS", "allow_public")


# ---- starting, and what is said of it -------------------------------------------------------------------


def will_not_start(w, codes, *words, run=None):
    code, out, err = run() if run else w.b.cli("serve", timeout=30)
    said = [x for x in (out + err).splitlines() if x.startswith("blufio: ")]
    assert code in codes and len(said) == 1, (code, out, err)
    assert all(x in said[0] for x in words) and ("next: " in said[0] or "TLS" in said[0]), said
    return said[0]


def test_who_has_the_port():
    with world() as w, world({"gateway": {"port": w.g.port}}, start=False) as other:
        said = will_not_start(other, (EX_CONFIG,), str(w.g.port), "Address already in use", "gateway.port 3001")
        assert "by process %d)" % w.b.pid in said, said
        other.b.configure(gateway={"port": 0}, prometheus={"listen": "127.0.0.1:%d" % w.g.port})
        said = will_not_start(other, (EX_CONFIG,), str(w.g.port), "prometheus.listen")
        assert "by process %d)" % w.b.pid in said, said


def test_a_privileged_port():
    """As somebody who is not root."""
    with world({"gateway": {"port": 81}}, start=False) as w:
        def nobody():
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)

        def bind():
            nobody()
            with socket.socket() as s:
                try:
                    s.bind(("127.0.0.1", 81))
                except PermissionError:
                    os._exit(0)
                except OSError:
                    pass
            os._exit(1)
        pid = os.fork()
        if pid == 0:
            bind()
        if os.waitpid(pid, 0)[1] != 0:
            raise Skip("anybody may have port 81 here")
        if os.getuid() == 0:
            os.chown(w.b.dir, 65534, 65534)
            os.chown(w.b.config_path, 65534, 65534)

        def run():
            done = subprocess.run(w.b.command("serve"), cwd=w.b.dir, env=w.b.environment(), preexec_fn=nobody, timeout=60,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            return done.returncode, done.stdout.decode(), done.stderr.decode()
        will_not_start(w, (EX_CONFIG,), "127.0.0.1 port 81", "Permission denied", "gateway.port 3001", "1024", run=run)


def test_status_says_where():
    with socket_world() as w:
        code, out, _ = w.b.cli("status")
        assert code == 0 and "gateway: on 127.0.0.1:%d, on %s, 0 connection(s)\n" % (w.g.port, w.path) in out, out
        doc = json.loads(w.b.cli("status", "--json")[1])
        mine = next(c for c in doc["channels"] if c["name"] == "gateway")
        assert mine == {"name": "gateway", "address": "127.0.0.1:%d" % w.g.port, "socket": w.path, "connections": 0}, mine
    with world({"prometheus": {"listen": "127.0.0.1:0"}}) as w:
        assert ", metrics on 127.0.0.1:%d," % metrics_port(w) in w.b.cli("status")[1]


def test_what_a_reload_cannot_change():
    with socket_world() as w:
        port = w.g.port
        w.b.configure(gateway={"host": "localhost", "port": 1, "socket": "other.sock", "bearer_token": TOKEN[::-1],
                               "reply_timeout": 7}, prometheus={"listen": "127.0.0.1:0"})
        code, out, _ = w.b.cli("reload")
        later = {x.split()[0] for x in out.splitlines() if x.endswith(" changes at the next start")}
        assert code == 0 and later == {"gateway.host", "gateway.port", "gateway.socket", "gateway.bearer_token",
                                       "prometheus.listen"}, out
        assert TOKEN not in out and TOKEN[::-1] not in out
        assert w.g.port == port and w.u.say("say as before")["content"] == "as before"
        assert Gateway(w.b).ask("GET", "/metrics").status == 200        # its new address is not there yet


# ---- limits -------------------------------------------------------------------------------------------


LIMITS = ("connections", "descriptors", "peer", "unauthenticated", "head_time", "body_time", "idle_time", "write_time",
          "socket_time", "head_bytes", "body_bytes", "output_bytes", "socket_messages", "rate")


def figure(w, name, **labels):
    """One value of /metrics."""
    want = name + "".join('{%s="%s"}' % x for x in labels.items()) + " "
    found = [x for x in w.g.ask("GET", "/metrics").body.decode().splitlines() if x.startswith(want)]
    assert len(found) == 1, (want, found)
    return float(found[0].rsplit(" ", 1)[1])


def limit(w, name):
    return figure(w, "blufio_gateway_limits_total", limit=name)


def strangers(port, n, host="127.0.0.1", family=socket.AF_INET, source=None):
    """n connections that have begun a request and do not go on."""
    need_descriptors(n)
    out = []
    for _ in range(n):
        s = socket.socket(family, socket.SOCK_STREAM)
        s.settimeout(20)
        if source:
            s.bind((source, 0))
        s.connect((host, port))
        try:
            s.sendall(b"GET /health HTTP/1.1\r\nHost:")
        except ConnectionResetError:
            pass
        out.append(s)
    return out


def alive(connections):
    """Those that the server has not ended."""
    out = 0
    for s in connections:
        s.setblocking(False)
        try:
            out += s.recv(1) != b""
        except BlockingIOError:
            out += 1
        except ConnectionResetError:
            pass
    return out


def close(connections):
    for c in connections:
        c.close()


def test_limits_are_there_at_0():
    with world() as w:
        for name in LIMITS:
            assert limit(w, name) == 0, name
        page = w.g.ask("GET", "/metrics").body.decode()
        assert page.count("blufio_gateway_limits_total{") == len(LIMITS)
        for code in ("1xx", "3xx", "4xx", "5xx"):
            assert figure(w, "blufio_gateway_requests_total", code=code) == 0, code
        assert figure(w, "blufio_gateway_requests_total", code="2xx") == len(LIMITS) + 1 + 4
        assert figure(w, "blufio_gateway_connections", credential="shown") == 0     # /metrics asks for none


def test_limits_are_counted():
    with world() as w:
        with w.g.connect() as c:
            c.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20000 + b"\r\n\r\n")
            refused(c.response(), 431)
        with w.g.start("POST", "/v1/messages", b"", {"Content-Length": str(3 << 20)}) as c:
            refused(c.response(), 413)
        assert (limit(w, "head_bytes"), limit(w, "body_bytes")) == (1, 1)
        with w.g.connect() as c:
            w.g.start("GET", "/v1/cost", connection=c)
            assert c.response().status == 200
            assert figure(w, "blufio_gateway_connections", credential="shown") == 1
        w.wait(lambda: figure(w, "blufio_gateway_connections", credential="shown") == 0, "it is gone")
        wrong = Gateway(w.b, "wrong" + TOKEN)
        n = [wrong.ask("GET", "/v1/cost").status for _ in range(14)].count(429)
        assert n > 0 and limit(w, "rate") == n
        assert figure(w, "blufio_gateway_requests_total", code="4xx") == 2 + 14


def test_waits_have_an_end():
    """For a head, for a body, for a client that takes nothing: each ends by itself, and is counted as what it was."""
    with world() as w:
        head, body, deaf = w.g.connect(timeout=90), w.g.connect(timeout=90), w.g.connect(timeout=90, receive_buffer=4096)
        path = grown(w)
        head.send(b"GET /health HTTP/1.1\r\nHost:")
        w.g.start("POST", "/v1/messages", b'{"content"', {"Content-Length": "100"}, connection=body)
        one = b"GET %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n" % (path.encode(), TOKEN.encode())
        deaf.socket.settimeout(2)
        try:
            while deaf.send(one * 100):
                pass
        except socket.timeout:
            pass
        with head, body, deaf:
            assert [r.status for r in head.responses()] in ([], [408])
            refused(body.response(), 408)
            w.wait(lambda: limit(w, "write_time") == 1, "the deaf one to be dropped", 60)
        assert (limit(w, "head_time"), limit(w, "body_time"), limit(w, "idle_time")) == (1, 1, 0)


def test_places_are_kept_for_credentials():
    """However many have none, who has shown one stays, and who has one gets in."""
    with world({"gateway": {"max_connections": 64}}) as w:
        known = [w.g.connect() for _ in range(20)]
        for c in known:
            w.g.start("GET", "/v1/cost", connection=c)
            assert c.response().status == 200
        gate = held(w)
        with w.g.stream("say alpha beta gamma") as s:
            next(s)
            crowd = strangers(w.g.port, 200)
            assert w.g.ask("GET", "/v1/cost").status == 200
            release(w, gate)
            assert s.until("message_stop").data["content"] == "alpha beta gamma"
        assert alive(crowd) <= 32 and limit(w, "unauthenticated") >= 168
        assert figure(w, "blufio_gateway_connections", credential="none") <= 32
        assert figure(w, "blufio_gateway_connections", credential="shown") == 20
        for c in known:
            w.g.start("GET", "/v1/cost", connection=c)
            assert c.response().status == 200
        # all places taken by those who may: the one that has been idle for longest goes
        close(crowd)
        w.wait(lambda: figure(w, "blufio_gateway_connections", credential="none") <= 1, "they are forgotten")
        for _ in range(64):
            c = w.g.connect()
            w.g.start("GET", "/v1/cost", connection=c)
            assert c.response().status == 200
            known.append(c)
        assert limit(w, "connections") > 0 and known[0].closed()
        close(known)


def test_one_address_elsewhere():
    """Has a quarter of the places, of IPv6 with its network; this machine's have all. In a network of its own."""
    if not os.environ.get("E2E_NETWORK"):
        if os.getuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"):
            raise Skip("no network of its own to be had")
        if subprocess.run(["unshare", "-n", "true"], stderr=subprocess.DEVNULL).returncode != 0:
            raise Skip("no network of its own to be had")
        done = subprocess.run(["unshare", "-n", sys.executable, __file__, "test_one_address_elsewhere"], timeout=300,
                              env=dict(os.environ, E2E_NETWORK="1"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0 and b" 1 passed" in done.stdout, done.stdout.decode()
        return
    for command in ("link set lo up", "addr add 192.0.2.1/32 dev lo", "addr add 192.0.2.2/32 dev lo"):
        subprocess.run(["ip"] + command.split(), check=True)
    six = all(subprocess.run(["ip", "-6", "addr", "add", a, "dev", "lo", "nodad"], stderr=subprocess.DEVNULL).returncode == 0
              for a in ("2001:db8::1/128", "2001:db8::2/128", "2001:db8:0:1::1/128"))
    with world({"gateway": {"max_connections": 64, "host": "::" if six else "0.0.0.0", "allow_public": True}}) as w:
        port = int(re.search(r":(\d+)\Z", next(x["msg"] for x in w.b.logs() if x["msg"].startswith("listening on"))).group(1))
        w.g.where = port                                # from 127.0.0.1
        refused(Gateway(w.b, None, port).ask("GET", "/metrics"), 401)   # public: with a credential
        crowd = strangers(port, 40, "192.0.2.1", source="192.0.2.1")
        w.wait(lambda: alive(crowd) == 16, "a quarter of 64")
        assert limit(w, "peer") == 24
        other = strangers(port, 10, "192.0.2.1", source="192.0.2.2")
        assert alive(other) == 10 and alive(crowd) == 16 and limit(w, "peer") == 24
        close(crowd + other)
        w.wait(lambda: figure(w, "blufio_gateway_connections", credential="none") == 0, "they are forgotten")
        here = strangers(port, 30)                      # as from a server in front
        assert alive(here) == 30 and limit(w, "peer") == 24
        close(here)
        w.wait(lambda: figure(w, "blufio_gateway_connections", credential="none") == 0, "they are forgotten")
        if six:
            crowd = [strangers(port, 10, "2001:db8::1", socket.AF_INET6, a) for a in ("2001:db8::1", "2001:db8::2")]
            w.wait(lambda: alive(sum(crowd, [])) == 16, "one network")
            assert alive(strangers(port, 10, "2001:db8::1", socket.AF_INET6, "2001:db8:0:1::1")) == 10


def under(w, soft, hard):
    """Starts the daemon with so many descriptors."""
    if os.environ.get("BLUFIO_WRAP") or not shutil.which("prlimit"):
        raise Skip("no limit can be set")
    os.environ["BLUFIO_WRAP"] = "prlimit --nofile=%d:%d" % (soft, hard)
    try:
        w.b.start()
    finally:
        del os.environ["BLUFIO_WRAP"]


def test_the_limit_of_descriptors_is_raised():
    with world(start=False) as w:
        under(w, 64, 4096)
        with open("/proc/%d/limits" % w.b.pid) as f:
            assert int(re.search(r"Max open files\s+(\d+)", f.read()).group(1)) >= 1024 + 64
        assert figure(w, "process_max_fds") >= 1024 + 64


def test_descriptors_are_kept_for_other_work():
    """With a crowd at the door and few descriptors, storage, the model and Telegram have theirs."""
    for most in (96, 64):
        with world(start=False) as w:
            under(w, most, most)
            assert w.b.wait_log("limit of open files")
            crowd = strangers(w.g.port, 150)
            try:
                w.wait(lambda: limit(w, "descriptors") > 50, "all heard")
                assert w.b.fds() <= most - 32 + 4, w.b.fds()
                assert w.g.say("tools")["content"]
                assert w.say("say here too") == "here too"
                assert w.b.cli("status")[0] == 0
                assert alive(crowd) > 10 and limit(w, "unauthenticated") == 0   # it was they who waited, not the others
            finally:
                close(crowd)


# ---- pages ---------------------------------------------------------------------------------------------


def pages(g, path, name, **query):
    """The items of all pages, as a client collects them; and how many pages there were."""
    items, n = [], 0
    while True:
        r = g.ask("GET", path + "?" + "&".join("%s=%s" % x for x in query.items()))
        assert r.status == 200, r
        doc = r.json()
        assert set(doc) == {name, "has_more", "next"} and len(r.body) < 8 << 20, r
        items += doc[name]
        n += 1
        if not doc["has_more"]:
            assert doc["next"] is None, doc
            return items, n
        assert doc[name] and doc["next"] == doc[name][-1]["id"]
        query["after"] = doc["next"]


def filled(w, sessions, messages):
    """So many conversations of the configured token, the first with so many messages."""
    first = w.g.say("say one")["session_id"]
    w.b.stop()
    db = sqlite3.connect(w.b.db_path)
    row = db.execute("SELECT agent, channel, thread, user_id, chat FROM sessions WHERE id = ?", (first,)).fetchone()
    db.executemany("INSERT INTO sessions(agent, channel, thread, user_id, chat, created_at) VALUES(?, ?, ?, ?, ?, 1)",
                   [row[:4] + ("%s/n%d" % (row[4].split("/")[0], i),) for i in range(sessions - 1)])
    db.executemany("INSERT INTO messages(session_id, seq, turn_id, role, content, created_at) VALUES(?, ?, 1, 'user', ?, 1)",
                   [(first, i, json.dumps([{"type": "text", "text": "m%d" % i}])) for i in range(3, messages + 1)])
    db.commit()
    db.close()
    w.b.start()
    return first


def test_pages_of_sessions():
    with world() as w:
        filled(w, 250, 2)
        doc = w.g.ask("GET", "/v1/sessions").json()
        ids = [int(s["id"]) for s in doc["sessions"]]
        assert len(ids) == 100 and ids == sorted(ids, reverse=True) and doc["has_more"] is True
        all_of, n = pages(w.g, "/v1/sessions", "sessions")
        ids = [int(s["id"]) for s in all_of]
        assert n == 3 and len(set(ids)) == 250 and ids == sorted(ids, reverse=True)
        up, n = pages(w.g, "/v1/sessions", "sessions", order="asc", limit=125)
        assert n == 2 and up == all_of[::-1]
        assert pages(w.g, "/v1/sessions", "sessions", limit=250)[1] == 1      # just full, and no empty page behind it
        assert pages(w.g, "/v1/sessions", "sessions", limit=1000) == (all_of, 1)
        other = w.g.mint("chat", "read")
        mine = other.say("say mine")["session_id"]
        assert [s["id"] for s in pages(other, "/v1/sessions", "sessions", limit=1)[0]] == [mine]


def test_pages_of_messages():
    with world() as w:
        path = "/v1/sessions/%s/messages" % filled(w, 1, 330)
        all_of, n = pages(w.g, path, "messages")
        assert n == 4 and [m["content"] for m in all_of] == ["say one", "one"] + ["m%d" % i for i in range(3, 331)]
        newest, _ = pages(w.g, path, "messages", order="desc", limit=7)
        assert newest == all_of[::-1]
        doc = w.g.ask("GET", path + "?after=" + all_of[-2]["id"]).json()        # what is new since then
        assert doc["messages"] == all_of[-1:] and doc["has_more"] is False


def test_a_page_is_not_without_measure():
    """However long the messages are, an answer has some megabytes at most, and all come."""
    with world() as w:
        path = "/v1/sessions/%s/messages" % filled(w, 1, 2)
        w.b.stop()
        db = sqlite3.connect(w.b.db_path)
        texts = ["x" * (1 << 20), "\x01" * (1 << 20), "y" * (1 << 20)]         # the middle one grows to 6 MB
        db.executemany("INSERT INTO messages(session_id, seq, turn_id, role, content, created_at) VALUES(1, ?, 1, 'user', ?, 1)",
                       [(3 + i, json.dumps([{"type": "text", "text": t}])) for i, t in enumerate(texts)])
        db.commit()
        db.close()
        w.b.start()
        items, n = pages(w.g, path, "messages")
        assert [m["content"] for m in items] == ["say one", "one"] + texts and n == 3, n


def test_bad_pages():
    with world() as w:
        session = w.g.say("say one")["session_id"]
        for path in ("/v1/sessions", "/v1/sessions/%s/messages" % session):
            for query, param in (("limit=0", "limit"), ("limit=1001", "limit"), ("limit=", "limit"), ("limit", "limit"),
                                 ("limit=ten", "limit"), ("limit=-1", "limit"), ("limit=1&limit=2", "limit"),
                                 ("limit=%zz", "limit"), ("after=x", "after"), ("after=-5", "after"),
                                 ("after=99999999999999999999", "after"), ("order=up", "order"), ("order=", "order"),
                                 ("order=asc&order=asc", "order"), ("page=2", "page"), ("limit=5&Limit=6", "Limit"),
                                 ("before=1", "before"), ("a%20b=1", "a b")):
                refused(w.g.ask("GET", path + "?" + query), 400, param)
            for query in ("", "limit=1000", "limit=1&order=desc", "after=1", "&limit=1&", "lim%69t=2"):
                assert w.g.ask("GET", path + "?" + query).status == 200, query


# ---- HTTP's conveniences: the rest is in test_gateway.py ------------------------------------------------


def test_conveniences():
    with world() as w:
        with w.g.connect() as c:
            c.send(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n")
            r = c.response()
            assert r.status == 204 and {"GET", "HEAD", "POST", "DELETE", "OPTIONS"} <= set(r.get("Allow").split(", ")), r
            sent = email.utils.parsedate_to_datetime(r.get("Date")).timestamp()
            assert abs(time.time() - sent) < 60, r
            c.send(b"GET /health HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n" * 2)
            for _ in range(2):                          # kept where 1.0 asks for it
                r = c.response(asked_minor=0)
                assert r.status == 200 and r.get("Connection").lower() == "keep-alive", r
            c.send(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
            assert c.response(asked_minor=0).status == 200 and c.closed()


# ---- what is told is stored ----------------------------------------------------------------------------


def test_stop_on_a_socket_is_told_when_it_is_stored():
    with world(start=False) as w:
        outage = os.path.join(w.b.dir, "outage")
        w.b.start(env={"LD_PRELOAD": shim(), "KP_LOG": os.path.join(w.b.dir, "points"), "KP_FAIL_WHILE": outage,
                       "KP_FAIL": "pwrite:db-wal#1:EIO:inf"})
        with Socket(w.g.port) as s:
            gate = held(w)
            s.send({"type": "message", "content": "say alpha beta gamma"})
            session = s.until("delta")[-1]["session_id"]
            open(outage, "w").close()                   # what is written now is not committed
            s.send({"type": "message", "content": "/stop", "session_id": session})
            events = [s.next()]
            while events[-1]["type"] != "error":        # deltas of the answer may come before
                assert events[-1]["type"] != "done", events
                events.append(s.next())
            assert events[-1]["error"]["type"] == "storage", events
            os.unlink(outage)
            w.wait(lambda: w.g.ask("GET", "/ready").status == 200, "it works again")
            release(w, gate)
            w.wait(lambda: all_done(w), "answered")
            assert w.b.query("SELECT text FROM inbound") == [("say alpha beta gamma",)]
        with Socket(w.g.port) as s:                     # and when all is well, it is told
            gate = held(w)
            s.send({"type": "message", "content": "say alpha beta gamma"})
            session = s.until("delta")[-1]["session_id"]
            s.send({"type": "message", "content": "/stop", "session_id": session})
            done = {e["content"] for e in (s.until("done")[-1], s.until("done")[-1])}
            assert "Stopping." in done and any("(Stopped.)" in x for x in done), done
            release(w, gate)


def test_a_refused_repeat_leaves_nothing():
    """The key came with a conversation; now it comes without one: 409, and no empty conversation beside it."""
    with world() as w:
        session = w.g.say("say zero")["session_id"]
        key, body = {"Idempotency-Key": "k"}, {"content": "say one", "session_id": session}
        first = w.g.ask("POST", "/v1/messages", body, key)
        assert first.json()["content"] == "one"
        before = w.b.query("SELECT count(*) FROM sessions"), w.b.query("SELECT count(*) FROM users")
        refused(w.g.ask("POST", "/v1/messages", {"content": "say one"}, key), 409)
        refused(w.g.ask("POST", "/v1/messages", {"content": "say one", "user": "ann"}, key), 409)
        refused(w.g.ask("POST", "/v1/messages", {"content": "say two", "session_id": session}, key), 409)
        assert (w.b.query("SELECT count(*) FROM sessions"), w.b.query("SELECT count(*) FROM users")) == before
        assert len(w.g.sessions()) == 1 and w.g.ask("POST", "/v1/messages", body, key).json() == first.json()
        # the other way round: the conversation that the first one began may be named
        begun = w.g.ask("POST", "/v1/messages", {"content": "say new"}, {"Idempotency-Key": "n"}).json()
        named = dict({"content": "say new"}, session_id=begun["session_id"])
        assert w.g.ask("POST", "/v1/messages", named, {"Idempotency-Key": "n"}).json() == begun


if __name__ == "__main__":
    main(globals())
