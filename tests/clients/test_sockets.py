# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_sockets.py - WebSocket clients of others: Autobahn's cases, Python's two packages, node's ws."""
import asyncio
import importlib
import json
import os
import subprocess

from clients import FOLDER, module, program
from harness import SLOW, built, main
from test_gateway import TOKEN, world

# All of the protocol and its limits; of the compressed ones, whose 216 cases take a quarter of an hour, one of each
# kind of data and of each set of parameters. AUTOBAHN="*" runs them all, AUTOBAHN="9.* 12.1.*" these.
CASES = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.*.5", "13.*.5", "12.3.12", "13.3.12")


def echo():
    return world(program=built("tests/e2e/blufio-echo"))


def words(w):
    """A bearer's header and the address."""
    return "ws://127.0.0.1:%d/ws" % w.g.port, "Bearer " + TOKEN


def test_autobahn():
    """The cases of the Autobahn test suite themselves, by a runner that needs no Python 2."""
    kosoku = module("kosoku")
    names = os.environ.get("AUTOBAHN", "").split() or CASES

    importlib.import_module("kosoku._caseindex").initialize_shims()
    compressed = importlib.import_module("case12_x_x")
    for case in compressed.Case12_X_X + compressed.Case13_X_X:  # a message that comes back uncompressed, which it may, is a str there
        case.onMessage = (lambda f: lambda self, m, binary: f(self, m.encode("latin-1" if binary else "utf-8") if isinstance(m, str) else m, binary))(case.onMessage)

    async def run(port):
        try:
            return await kosoku.run_fuzzingclient("127.0.0.1:%d" % port, cases=list(names), concurrency=2)
        except kosoku.FailureError as e:
            return e.results
    with echo() as w:
        results = asyncio.run(run(w.g.port))
    bad = ["%s %s/%s: %s" % (r.case_id, r.behavior.value, r.behavior_close.value, r.result)
           for r in results if not r.passed or r.behavior.value not in ("OK", "INFORMATIONAL")]
    print("Autobahn: %d cases" % len(results))
    assert not bad, bad
    assert len(results) >= (300 if names == CASES else 1), len(results)


def test_python_websockets():
    package = module("websockets.sync.client")
    with world() as w:
        url, bearer = words(w)
        for compression in ("deflate", None):
            with package.connect(url, additional_headers={"Authorization": bearer}, compression=compression, proxy=None) as s:
                assert bool(s.protocol.extensions) == bool(compression)
                s.ping().wait(20 * SLOW)
                s.send(json.dumps({"type": "message", "content": "words 300"}))
                events = [json.loads(s.recv(20 * SLOW))]
                while events[-1]["type"] != "done":
                    events.append(json.loads(s.recv(20 * SLOW)))
                assert "".join(e["text"] for e in events if e["type"] == "delta") == events[-1]["content"]
            assert s.protocol.close_code == 1000
        try:
            package.connect(url, proxy=None)
            raise AssertionError("no credential, and it is open")
        except module("websockets.exceptions").InvalidStatus as e:
            assert e.response.status_code == 401
    with echo() as w, package.connect("ws://127.0.0.1:%d/" % w.g.port, proxy=None, max_size=None) as s:
        for message in ("", "Grüße 🌍", b"\x00\xff", "x" * 70000, os.urandom(1 << 20), ["in ", "three ", "parts"]):
            s.send(message)
            assert s.recv(20 * SLOW) == ("".join(message) if isinstance(message, list) else message)


def test_python_websocket_client():
    package = module("websocket")
    with world() as w:
        url, bearer = words(w)
        s = package.create_connection(url, header=["Authorization: " + bearer], timeout=20 * SLOW, http_no_proxy=["*"])
        s.ping("x")
        s.send(json.dumps({"type": "message", "content": "say one"}))
        events = [json.loads(s.recv())]
        while events[-1]["type"] != "done":
            events.append(json.loads(s.recv()))
        assert events[-1]["content"] == "one"
        s.close()
    with echo() as w:
        s = package.create_connection("ws://127.0.0.1:%d/" % w.g.port, timeout=20 * SLOW, http_no_proxy=["*"])
        for message in ("", "Grüße 🌍", "x" * 70000):
            s.send(message)
            assert s.recv() == message
        s.send_binary(b"\x00\xff")
        assert s.recv() == b"\x00\xff"
        s.close()


def node(*args):
    env = dict(os.environ, NODE_PATH=os.path.join(FOLDER, "usr", "share", "nodejs") + ":/usr/share/nodejs")
    command = [program("node"), os.path.join(os.path.dirname(os.path.abspath(__file__)), "ws.js")] + list(args)
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60 * SLOW)
    if b"Cannot find module 'ws'" in done.stderr:
        module("the package ws of node")                # skips
    assert done.returncode == 0, done
    return [json.loads(x) for x in done.stdout.decode().splitlines()]


def test_node_ws():
    with world() as w:
        url, _ = words(w)
        out = node(url, TOKEN, "say one", "tools")
        assert out[0]["extensions"].startswith("permessage-deflate") and out[1] == {"pong": "here"}, out
        done = [x["content"] for x in out if x.get("type") == "done"]
        assert len(done) == 2 and done[0] == "one" and out[-1] == {"closed": 1000}, out
        assert node(url, "wrong" + TOKEN, "say never") == [{"refused": 401}]
    with echo() as w:
        out = node("ws://127.0.0.1:%d/" % w.g.port, "-", "Grüße 🌍", "0x100000", "x" * 70000)
        assert [(x["binary"], x["length"]) for x in out[2:-1]] == [(False, 12), (True, 1 << 20), (False, 70000)], out
        assert out[2]["text"] == "Grüße 🌍" and out[-1] == {"closed": 1000}


if __name__ == "__main__":
    main(globals())
