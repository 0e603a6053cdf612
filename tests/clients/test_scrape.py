# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_scrape.py - Prometheus itself reads GET /metrics, in both formats, and promtool has nothing to say about it."""
import http.server
import json
import os
import socket
import subprocess
import tempfile
import threading
import urllib.parse
import urllib.request

from clients import program
from gateway_client import Gateway
from harness import main, wait_for
from test_gateway import world

CONFIG = """
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
  - {job_name: openmetrics, static_configs: [{targets: ["127.0.0.1:%d"]}]}
  - {job_name: text, static_configs: [{targets: ["127.0.0.1:%d"]}]}
"""


def get(url, headers=None):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(urllib.request.Request(url, headers=headers or {}), timeout=20)


def test_promtool():
    promtool = program("promtool")
    with world() as w:
        w.g.say("tools")
        text = Gateway(w.b).ask("GET", "/metrics").body
        done = subprocess.run([promtool, "check", "metrics"], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0 and done.stdout == b"", done.stdout.decode()


class Plain(http.server.BaseHTTPRequestHandler):
    """Asks for what it is asked in the name of a reader that knows the old format alone; this one prefers the new."""
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with get("http://127.0.0.1:%d%s" % (self.server.target, self.path), {"Accept": "text/plain;version=0.0.4"}) as r:
            body, kind = r.read(), r.headers["Content-Type"]
        self.server.kinds.add(kind.split(";")[0])
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_prometheus():
    prometheus = program("prometheus")
    with world() as w, tempfile.TemporaryDirectory() as folder:
        plain = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Plain)
        plain.target, plain.kinds = w.g.port, set()
        threading.Thread(target=plain.serve_forever, daemon=True).start()
        with open(os.path.join(folder, "prometheus.yml"), "w", encoding="ascii") as f:
            f.write(CONFIG % (w.g.port, plain.server_port))
        port = free_port()
        log = open(os.path.join(folder, "log"), "w+b")
        p = subprocess.Popen([prometheus, "--config.file=prometheus.yml", "--storage.tsdb.path=data",
                              "--web.listen-address=127.0.0.1:%d" % port], cwd=folder, stdout=log, stderr=log)

        def value(query):
            """{job: value} of now."""
            try:
                with get("http://127.0.0.1:%d/api/v1/query?%s" % (port, urllib.parse.urlencode({"query": query}))) as r:
                    rows = json.load(r)["data"]["result"]
            except OSError:
                if p.poll() is not None:
                    log.seek(0)
                    raise AssertionError("prometheus ended: %r" % log.read()[-2000:])
                return {}
            return {row["metric"].get("job"): float(row["value"][1]) for row in rows}

        def both(n):
            return {"openmetrics": n, "text": n}
        try:
            for content in ("say one", "tools", "words 100"):
                w.g.say(content)
            wait_for(lambda: value("up") == both(1), 60, "two scrapes that work")
            wait_for(lambda: value('blufio_messages_total{channel="gateway"}') == both(3), 60, "three messages")
            ours = {"blufio_turns_total{outcome=\"answered\"}": 3, "count({__name__=~\"blufio_.*\"}) by (job) > bool 50": 1,
                    "sum(blufio_tokens_total{kind=\"output\"}) by (job)": w.b.query("SELECT sum(output) FROM cost_ledger")[0][0],
                    "blufio_response_latency_seconds_count": 3,
                    "histogram_quantile(1, blufio_response_latency_seconds_bucket) > bool 0": 1}
            for query, n in ours.items():
                assert value(query) == both(n), (query, n, value(query))
            assert plain.kinds == {"text/plain"}
        finally:
            p.kill()
            p.wait()
            log.close()
            plain.shutdown()
            plain.server_close()


if __name__ == "__main__":
    main(globals())
