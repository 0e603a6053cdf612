# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_listener.py - how the gateway listens: traces, compression, kept answers, sockets and addresses, limits, pages."""
import gzip
import json
import os
import re
import threading

from fake_anthropic import TRACEPARENT, default_answer
from gateway_client import Gateway
from harness import OWNER, main
from test_gateway import TOKEN, all_done, held, refused, release, world

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
        small = w.g.ask("GET", "/v1/cost", headers={"Accept-Encoding": "gzip"})
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


if __name__ == "__main__":
    main(globals())
