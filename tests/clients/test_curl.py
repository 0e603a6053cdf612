# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_curl.py - curl with every family of routes."""
import json
import re
import subprocess
import threading
import time

from clients import program
from harness import SLOW, main
from test_gateway import ROUTES, TOKEN, held, release, shape, world


class Curl:
    def __init__(self, w, *always):
        self.base, self.always = "http://127.0.0.1:%d" % w.g.port, always

    def command(self, *args, data=None):
        command = [program("curl"), "-q", "-sS", "--noproxy", "*"] + list(self.always)
        if data is not None:
            command += ["-H", "Content-Type: application/json", "--data-binary", "@-"]
        return command + [self.base + a if a.startswith("/") else a for a in args]

    def __call__(self, *args, data=None):
        done = subprocess.run(self.command(*args, data=data), input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=60 * SLOW)
        assert done.returncode == 0, (args, done)
        return done.stdout.decode()

    def json(self, *args, **more):
        return json.loads(self(*args, **more))


def curl(w):
    return Curl(w, "-H", "Authorization: Bearer " + TOKEN)


def test_ways_to_say_it():
    with world() as w:
        run = curl(w)
        assert run.json("/health") == {"status": "ok"}
        assert "HTTP/1.1 200" in run("-I", "/health")
        for more in ([], ["--http1.0"], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"], ["--compressed"],
                     ["--http2"]):
            try:
                out = run(*more, "/v1/messages", data=b'{"content": "say by curl"}')
            except AssertionError as e:
                if "--http2" in more and "support" in str(e):
                    continue
                raise
            assert json.loads(out)["content"] == "by curl", (more, out)
        assert run("/health", "/health").count("ok") == 2       # on one connection
        big = b'{"content": "say big"' + b" " * 300000 + b"}"
        assert run.json("/v1/messages", data=big)["content"] == "big"
        huge = run("-w", "%{http_code}", "/v1/messages", data=b" " * (3 << 20))
        assert huge.endswith("413") and json.loads(huge[:-3])["error"]["type"], huge


def test_every_family():
    """A key, a conversation and all that can be asked about it; every route that there is gets a call."""
    with world() as w:
        admin, called = curl(w), set()

        def call(c, method, path, *more, data=None):
            called.add((method, shape(re.sub(r"/\d+", "/{}", path))))
            return c("-X", method, *more, path, data=data)
        made = json.loads(call(admin, "POST", "/v1/api-keys", data=b'{"name": "curl", "scopes": ["chat", "read", "tools"]}'))
        mine = Curl(w, "--oauth2-bearer", made["key"])
        first = json.loads(call(mine, "POST", "/v1/messages", data=b'{"content": "say one", "user": "ann"}'))
        session = first["session_id"]
        assert json.loads(call(mine, "GET", "/v1/messages/" + first["id"]))["content"] == "one"
        assert [s["id"] for s in json.loads(call(mine, "GET", "/v1/sessions"))["sessions"]] == [session]
        said = json.loads(call(mine, "GET", "/v1/sessions/%s/messages" % session))["messages"]
        assert [m["content"] for m in said] == ["say one", "one"]
        assert json.loads(call(mine, "POST", "/v1/sessions/%s/stop" % session)) == {"stopped": False}
        assert call(mine, "DELETE", "/v1/sessions/" + session, "-w", "%{http_code}") == "204"
        assert "spent_nano_usd" in call(mine, "GET", "/v1/cost") and "text.count" in call(mine, "GET", "/v1/tools")
        out = call(mine, "POST", "/v1/tools/invoke", data=b'{"name": "text.count", "input": {"text": "one two"}}')
        assert re.search(r'"words\\*": ?2\b', out), out
        for path, word in (("/health", "ok"), ("/ready", "ready"), ("/v1/health", "uptime_secs"), ("/openapi.json", "3.1.0"),
                           ("/metrics", 'blufio_messages_total{channel="gateway"} 1')):
            assert word in call(mine, "GET", path), path
        batch = json.loads(call(mine, "POST", "/v1/batch", data=b'{"items": [{"model": "blufio", "messages": [{"role": "user",'
                                b' "content": "say two"}]}]}'))
        while json.loads(call(mine, "GET", "/v1/batch/" + batch["id"]))["status"] == "processing":
            time.sleep(0.05)
        assert '"two"' in call(mine, "GET", "/v1/batch/" + batch["id"])
        assert "403" in call(mine, "GET", "/v1/api-keys", "-w", "%{http_code}")
        assert made["key"] not in call(admin, "GET", "/v1/api-keys")
        assert call(admin, "DELETE", "/v1/api-keys/%d" % made["id"], "-w", "%{http_code}", "-o", "-")[-3:] in ("200", "204")
        assert '"unauthorized"' in call(mine, "GET", "/v1/cost")
        for path, methods in json.loads(admin("/openapi.json"))["paths"].items():       # and the rest, in ignorance
            for method in methods:
                if (method.upper(), shape(path)) not in called:
                    out = call(admin, method.upper(), shape(path).replace("{}", "9"), data=b"{}" if method == "post" else None)
                    takes = ("/v1/models", "/v1/session", "/v1/session/ticket", "/v1/batch")
                    assert "error" in json.loads(out) or path in takes, (method, path, out)
        assert {(m, shape(p)) for m, p in ROUTES} <= called


def test_a_stream_is_seen_as_it_comes():
    """-N: the first words while the model still holds the others back; and from there on after a hang-up."""
    with world() as w:
        gate, run = held(w), curl(w)
        args = ("-N", "-H", "Accept: text/event-stream")
        p = subprocess.Popen(run.command(*args, "/v1/messages", data=b""), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        timer = threading.Timer(60 * SLOW, p.kill)
        timer.start()
        p.stdin.write(b'{"content": "say alpha beta gamma"}')
        p.stdin.close()
        lines = [p.stdout.readline().decode()]
        while not lines[-1].startswith("data:"):
            assert lines[-1], lines
            lines.append(p.stdout.readline().decode())
        p.kill()
        p.wait()
        timer.cancel()
        assert "retry: 2000\n" in lines and "event: text_delta\n" in lines, lines
        seen = [x for x in lines if x.startswith("id:")][0].split()[1]
        release(w, gate)
        out = run(*args, "-H", "Last-Event-ID: " + seen, "/v1/messages/" + seen.split("-")[0])
        texts = [json.loads(x[5:]) for x in lines + out.splitlines() if x.startswith("data:")]
        assert "".join(x.get("text", "") for x in texts) == texts[-1]["content"] == "alpha beta gamma", texts


if __name__ == "__main__":
    main(globals())
