# SPDX-License-Identifier: MIT OR Apache-2.0
"""bench.py - the figures of docs/BENCH.md: `make bench`.

Every figure stands beside a floor (the same thing done by a program that does
nothing else, floor.c, in the same run) and a bar (docs/DESIGN.md). Nothing here
fails because something was slow: a missed bar is printed as missed. Exit code 1
means that something could not be measured.

    python3 tests/bench/bench.py [build size bare memory start latency relay load turns health sockets hanging idle router money]

Environment: BLUFIO the binary (build/blufio); BENCH_DIR a directory on the disk
to be measured (a short path: a socket is made in it).
"""
import json
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BINARY = os.path.join(ROOT, os.environ.get("BLUFIO") or "build/blufio")
CC = os.environ.get("CC", "cc")
FEATURES = "telegram gateway"   # with the defaults of each kind: a complete agent
TOKEN = "bench-q7Vx2LkP9sZtR4mWb8NcYd3HfJ6aGe"
TOOLS = ("floor", "start", "load", "fake", "relay")

STARTS = 20
MESSAGES = 200                  # of the latency
GAP_MS = 20                     # between one's reply and the next
SYNCS = 100
WORDS = 1000                    # of one answer that is relayed
WORD_GAP_US = 2000
TURNS = 100000                  # of the load
WARM = 4000                     # before memory is called warm
PER_CHAT = 10                   # messages of one conversation
CONNECTIONS = 64
LOAD_S = 40                     # at most, each load
IDLE_S = 20
ROUNDS = 5                      # of what is held against something else, in alternating order
ROUND_S = 2                     # of each of them
TURN_CONNECTIONS = (1, 64, 512)
FEW = 4                         # connections that are waited for while something else hangs
HALF_OPEN, HANGING_TURNS = 200, 30
FIRST = 20                      # messages that are not counted: whoever hangs is still coming
SOCKETS = 10000
PER_ADDRESS = 50                # of them

rows, failures, children = [], [], []


# ---- small things ------------------------------------------------------------------------------


def read(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def percentile(values, p):
    v = sorted(values)
    return v[min(len(v) - 1, int(len(v) * p / 100))]


def number(v):
    return "%.0f" % v if v >= 100 else "%.2f" % v if v >= 0.1 else "%.3g" % v


def row(what, value, unit, floor=None, bar=None, least=False, note=""):
    """One figure; bar None: told, not judged. least: the bar is a lower bound."""
    met = bar is None or (value >= bar if least else value <= bar)
    rows.append((what, number(value) + " " + unit,
                 "-" if floor is None else number(floor),
                 "-" if not floor else "%.2f" % (value / floor),
                 "-" if bar is None else (">= " if least else "<= ") + number(bar),
                 "-" if not bar else "%.2f" % (value / bar),
                 "" if bar is None else "met" if met else "missed", note))


def spread(values):
    return "n=%d p50 %s p90 %s p99 %s" % (len(values), number(percentile(values, 50)),
                                          number(percentile(values, 90)),
                                          number(percentile(values, 99)))


def run(*command, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          **more)
    if done.returncode != 0:
        raise RuntimeError("%s: %s" % (" ".join(command[:3]), done.stderr.strip()[-500:]))
    return done.stdout


def spawn(*command, **more):
    p = subprocess.Popen(command, **{"stdin": subprocess.DEVNULL, **more})
    children.append(p)
    return p


def end(p, how=signal.SIGTERM):
    if p.poll() is None:
        p.send_signal(how)
        p.wait(30)
    if p.stdout:
        p.stdout.close()
    children.remove(p)


def numbers(text, scale):
    return [int(x) / scale for x in text.split()]


class Place:
    """A temporary directory, the tools compiled into it."""

    def __init__(self):
        base = os.environ.get("BENCH_DIR")
        if base is None and self.filesystem(tempfile.gettempdir()) == "tmpfs":
            base = "/var/tmp"   # a disk that is none would flatter every durable figure
        self.dir = tempfile.mkdtemp(prefix="blufio-bench-", dir=base)
        for name in TOOLS:
            libs = ["-lcurl", "-lsqlite3", "-lz"] if name == "floor" else []
            run(CC, "-std=c11", "-O2", "-fPIE", "-pie", "-Wl,-z,now", "-Wl,--as-needed", "-o",
                self.path(name), os.path.join(HERE, name + ".c"), *libs)

    def path(self, name):
        return os.path.join(self.dir, name)

    @staticmethod
    def filesystem(path):
        best, kind = "", "unknown"
        for line in read("/proc/mounts").splitlines():
            at, fs = line.split()[1:3]
            inside = (os.path.realpath(path) + "/").startswith(at.rstrip("/") + "/")
            if inside and len(at) >= len(best):
                best, kind = at, fs
        return kind


class Daemon:
    """The binary on a directory of its own."""

    def __init__(self, place, name, durability="power", telegram=None, provider=None, connections=1024):
        self.dir = place.path(name)
        os.mkdir(self.dir)
        self.db = os.path.join(self.dir, "b.db")
        self.socket = self.db + ".sock"
        self.config = os.path.join(self.dir, "c.toml")
        text = ('[agent]\nmax_sessions = 4096\n[storage]\ndatabase_path = "%s"\ndurability = "%s"\n'
                '[providers]\ndefault = "%s"\n[cost]\ndaily_budget_usd = "1000000"\n'
                '[gateway]\nenabled = true\nport = 0\nbearer_token = "%s"\nmax_connections = %d\n'
                % (self.db, durability, "anthropic" if provider else "echo", TOKEN, connections))
        if telegram:
            text += ('[telegram]\nbot_token = "123456:bench-token-of-a-fake-bot-00000000000"\n'
                     'api_base = "%s"\nallowed_users = [%s]\npoll_timeout = 10\n'
                     % (telegram, ", ".join(str(1001 + i) for i in range(20))))
        if provider:
            text += '[anthropic]\napi_key = "sk-ant-bench-00000000"\nbase_url = "%s"\n' % provider
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(self.config, 0o600)
        self.start()

    def command(self, *args):
        return [BINARY, "--config", self.config] + list(args)

    def start(self):
        self.log = os.path.join(self.dir, "log")
        with open(self.log, "ab") as log:
            self.process = spawn(*self.command("serve"), stdout=log, stderr=log, cwd=self.dir)
        limit = time.monotonic() + 20
        while '"ready: ' not in read(self.log):
            if self.process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError("the daemon did not start: " + read(self.log)[-500:])
            time.sleep(0.01)
        self.port = int(re.search(r"listening on 127\.0\.0\.1:(\d+)", read(self.log)).group(1))
        self.gateway = "%d %s" % (self.port, TOKEN)     # as load and relay want it

    def stop(self, how=signal.SIGTERM):
        end(self.process, how)

    @property
    def pid(self):
        return self.process.pid

    def pids(self):
        """The daemon and its spawner."""
        kids = read("/proc/%d/task/%d/children" % (self.pid, self.pid)).split()
        return [self.pid] + [int(x) for x in kids]

    def status(self):
        return json.loads(run(*self.command("status", "--json"), cwd=self.dir))

    def wait_no_terminals(self):
        """A closed connection counts among the most that may be open until it is noticed."""
        for _ in range(100):
            time.sleep(0.1)
            shell = [c for c in self.status()["channels"] if c["name"] == "shell"]
            if shell[0]["terminals"] == 0:
                time.sleep(0.1)
                return
        raise RuntimeError("terminals stay open")

    def rss_kb(self):
        return memory(self.pid)["Rss"]


def fake(place, messages, gap_ms=0):
    """The C fake: the process, and the addresses of its Telegram and its provider."""
    p = spawn(place.path("fake"), str(messages), str(gap_ms), stdout=subprocess.PIPE, text=True)
    return [p] + ["http://127.0.0.1:" + x for x in p.stdout.readline().split()]


def memory(pid):
    """kB of one process."""
    text = read("/proc/%d/smaps_rollup" % pid)
    out = {k: int(v) for k, v in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
    # Private_Clean would count library pages that no other process happens to map just now;
    # Pss_Anon divides what fork shares, so that daemon and spawner can be added up.
    out["Private"] = out.get("Pss_Anon", out["Private_Dirty"])
    return out


# ---- what is measured ----------------------------------------------------------------------------


def make(place, features, *more):
    """Seconds of one make of the program in a folder of its own."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")
           and k not in ("MFLAGS", "GNUMAKEFLAGS", "B", "BLUFIO")}
    begin = time.monotonic()
    run("make", "-C", ROOT, "-j2", "B=" + place.path("build"), "FEATURES=" + features, "CC=" + CC,
        *more, env=env)
    return time.monotonic() - begin


def bench_build(place):
    """Clean build and relink; leaves the program of FEATURES for its size."""
    clean = make(place, FEATURES)
    begin = time.monotonic()
    run(CC, "-fPIE", "-pie", "-Wl,-z,now", "-o", place.path("linked"),
        os.path.join(HERE, "floor.c"), "-lcurl", "-lsqlite3", "-lz")
    one = time.monotonic() - begin
    relinks = [make(place, FEATURES + (" -echo" if i % 2 == 0 else "")) for i in range(4)]
    row("clean build, make -j2", clean, "s", None, 20, note="FEATURES=\"%s\"" % FEATURES)
    row("build after a FEATURES change", percentile(relinks, 50), "s", one, 1,
        note="n=4; floor: compile and link one file")


def bench_bare(place):
    """A clean clone on one core under 512 MB; the test lets what it built answer, too."""
    out = run(sys.executable, os.path.join(ROOT, "tests", "e2e", "test_build.py"))
    said = re.search(r"built in ([\d.]+) s on one core(?:, (\d+) MB)?", out)
    if not said:
        raise RuntimeError(out.strip()[-300:])
    row("clean clone to a complete agent, one core", float(said.group(1)), "s",
        note="under 512 MB; %s MB at most" % (said.group(2) or "?"))


def bench_size(place):
    if not os.path.exists(place.path("build/blufio")):
        make(place, FEATURES)
    for name in ("build/blufio", "floor"):
        run("strip", "-o", place.path("stripped-" + os.path.basename(name)), place.path(name))
    row("binary, stripped", os.path.getsize(place.path("stripped-blufio")) / 1024, "KB",
        os.path.getsize(place.path("stripped-floor")) / 1024, 600,
        note="FEATURES=\"%s\"" % FEATURES)


def floor_memory(place, *args):
    """What the floor program takes once it has done that."""
    p = spawn(place.path("floor"), *args)
    time.sleep(0.5)
    out = memory(p.pid)
    end(p)
    return out


def told_memory(what, pids, floor):
    m = [memory(p) for p in pids]
    rss = sum(x["Rss"] for x in m)
    row("RSS " + what, rss / 1024, "MB", floor["Rss"] / 1024, 14,
        note="daemon %d kB, spawner %s kB" % (m[0]["Rss"], sum(x["Rss"] for x in m[1:])))
    row("PSS " + what, sum(x["Pss"] for x in m) / 1024, "MB", floor["Pss"] / 1024)
    row("private " + what, sum(x["Private"] for x in m) / 1024, "MB", floor["Private"] / 1024,
        3, note="daemon %d kB, spawner %s kB"
        % (m[0]["Private"], sum(x["Private"] for x in m[1:])))


class Tls:
    """A TLS server whose certificate nobody knows: clients load their root store, then refuse."""

    def __init__(self, place):
        cert = place.path("cert.pem")
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
            "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", cert + ".key",
            "-out", cert)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(cert, cert + ".key")
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.met = threading.Event()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                c, _ = self.socket.accept()
            except OSError:
                return
            try:
                c.settimeout(5)
                self.context.wrap_socket(c, server_side=True).recv(1)
            except OSError:
                pass
            c.close()
            self.met.set()


def bench_memory(place):
    linked = floor_memory(place, "link")
    row("floor: libraries linked, RSS", linked["Rss"] / 1024, "MB")
    row("floor: libraries linked, private", linked["Private"] / 1024, "MB")
    floor = floor_memory(place, "init", place.path("floor.db"))
    f, telegram, _ = fake(place, 0)
    d = Daemon(place, "memory", telegram=telegram)
    time.sleep(2)
    told_memory("idle, Telegram polling", d.pids(), floor)
    d.stop()
    end(f)
    if shutil.which("openssl") is None:
        return
    tls = Tls(place)
    url = "https://localhost:%d" % tls.port
    floor = floor_memory(place, "init", place.path("floor.db"), url)
    tls.met.clear()
    d = Daemon(place, "tls", telegram=url)
    tls.met.wait(10)
    time.sleep(1)
    told_memory("idle, TLS used", d.pids(), floor)
    d.stop()
    tls.socket.close()


def bench_start(place):
    f, telegram, _ = fake(place, 0)
    d = Daemon(place, "again", telegram=telegram)
    d.stop()
    start, n = place.path("start"), str(STARTS)
    floor = numbers(run(start, n, place.path("floor"), "init", place.path("start.db")), 1e6)
    again = numbers(run(start, n, *d.command("serve"), cwd=d.dir), 1e6)
    row("exec to ready, p50", percentile(again, 50), "ms", percentile(floor, 50), 15,
        note=spread(again))
    fresh = place.path("fresh")
    os.mkdir(fresh)
    first = numbers(run(start, n, "sh", "-c", 'BLUFIO__STORAGE__DATABASE_PATH="$0/$1.db" '
                        'exec "$2" --config "$3" serve', fresh, "%", BINARY, d.config), 1e6)
    row("exec to ready, new database, p50", percentile(first, 50), "ms", percentile(floor, 50),
        note=spread(first) + " (a shell's exec included)")
    end(f)


def syncs(place, gap_ms):
    return numbers(run(place.path("floor"), "sync", place.path("sync"), str(SYNCS), str(gap_ms)),
                   1e6)


def latencies(process):
    out = []
    for line in process.stdout:
        if line == "end\n":
            break
        out.append(int(line) / 1e6)
    return out


def bench_latency(place):
    f, telegram, provider = fake(place, MESSAGES, GAP_MS)
    relay = spawn(place.path("floor"), "relay", telegram.split(":")[2], provider.split(":")[2])
    floor = latencies(f)
    end(f)
    relay.wait(5)
    children.remove(relay)
    row("floor: update to request by bare sockets, p50", percentile(floor, 50), "ms",
        note=spread(floor))
    busy, sync = syncs(place, 0), syncs(place, GAP_MS)
    for durability in ("process", "power"):
        f, telegram, provider = fake(place, MESSAGES, GAP_MS)
        d = Daemon(place, "latency-" + durability, durability, telegram, provider)
        ms = latencies(f)
        d.stop()
        end(f)
        what = "update to provider request, \"%s\"" % durability
        if durability == "process":
            row(what + ", p50", percentile(ms, 50), "ms", percentile(floor, 50), 0.5,
                note=spread(ms))
            row(what + ", p99", percentile(ms, 99), "ms", percentile(floor, 99), 2)
            continue
        sync += syncs(place, GAP_MS)    # half before, half after what it is held against
        row("floor: fdatasync, one after another, p50", percentile(busy, 50), "ms",
            note=spread(busy))
        row("floor: fdatasync, spaced like the messages, p50", percentile(sync, 50), "ms",
            note=spread(sync))
        row(what + ", p50", percentile(ms, 50), "ms", percentile(floor, 50) + percentile(sync, 50),
            0.5 + percentile(sync, 50), note=spread(ms) + "; floor: sockets + one fdatasync")


def bench_relay(place):
    """Provider byte to client byte: a word of the stream until a terminal, or a program, has read it."""
    for durability in ("process", "power"):
        for what in ("terminal", "event stream"):
            p = spawn(place.path("relay"), str(WORDS), str(WORD_GAP_US), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                      text=True)
            d = Daemon(place, "relay-%s-%s" % (durability, what[:5]), durability,
                       provider="http://127.0.0.1:" + p.stdout.readline().strip())
            p.stdin.write((d.socket if what == "terminal" else d.gateway) + "\n")
            p.stdin.flush()
            ms = latencies(p)
            d.stop(signal.SIGKILL)      # or it would wait for the answer's end
            p.stdin.close()
            end(p)
            if len(ms) < WORDS:
                raise RuntimeError("%d of %d words arrived" % (len(ms), WORDS))
            row("provider byte to %s, \"%s\", p50" % (what, durability), percentile(ms, 50), "ms", None, 0.2,
                note=spread(ms))


def load(place, where, tag, turns, connections=CONNECTIONS, seconds=LOAD_S):
    """Turns, turns a second, and the milliseconds of p50, p90, p99."""
    out = run(place.path("load"), where, tag, str(connections), str(turns), str(PER_CHAT), str(seconds))
    turns, took, *ms, refused = out.split()
    if int(refused):
        raise RuntimeError("%s answers were not ok" % refused)
    return int(turns), int(turns) / float(took), [float(x) for x in ms]


def answer_times(turns, ms):
    return "n=%d; message to reply p50 %s p90 %s p99 %s ms" % (turns, *(number(x) for x in ms))


def bench_load(place):
    sock = place.path("echo")
    p = spawn(place.path("floor"), "echo", sock)
    while not os.path.exists(sock):
        time.sleep(0.01)
    _, ceiling, _ = load(place, sock, "floor", 10 * TURNS)
    end(p)
    os.unlink(sock)
    row("floor: the load against a bare echo", ceiling, "/s", note="what the generator can do")
    for durability, bar in (("process", 5000), ("power", 2000)):
        d = Daemon(place, "load-" + durability, durability)
        load(place, d.socket, "warm", WARM)
        d.wait_no_terminals()
        warm = d.rss_kb()
        n, rate, ms = load(place, d.socket, "run", TURNS)
        grown = d.rss_kb() - warm
        log = os.path.getsize(d.db + "-wal") / 1048576
        row("durable turns a second, \"%s\"" % durability, rate, "/s", ceiling, bar, True, answer_times(n, ms))
        row("RSS growth over those turns", grown / 1024, "MB", None, 1,
            note="%d kB before, after %d turns" % (warm, n))
        row("database log after them", log, "MB", None, 70,
            note="WAL_BYTES_MAX and what came since")
        d.stop()


def alternate(things):
    """Yields them ROUNDS times, every other time from the last to the first."""
    for i in range(ROUNDS):
        yield from things if i % 2 == 0 else things[::-1]


def bench_turns(place):
    """POST /v1/messages; beside it the same load on the control socket."""
    daemons = {x: Daemon(place, "turns-" + x, x) for x in ("process", "power")}
    what = [(x, n) for x in daemons for n in TURN_CONNECTIONS + ("terminals",)]
    seen = {w: [] for w in what}
    for i, (durability, n) in enumerate(alternate(what)):
        d = daemons[durability]
        before = threads(d.pid, "ns")
        if n == "terminals":
            got = load(place, d.socket, "t%d" % i, TURNS, CONNECTIONS, ROUND_S)
            d.wait_no_terminals()
        else:
            got = load(place, d.gateway, "g%d" % i, TURNS, n, ROUND_S)
        seen[durability, n].append(got + ((threads(d.pid, "ns") - before) / 1e3 / got[0],))
    for durability, bar in (("process", 5000), ("power", 2000)):
        peer = percentile([x[1] for x in seen[durability, "terminals"]], 50)
        for n in TURN_CONNECTIONS:
            got = seen[durability, n]
            ms = [percentile([x[2][i] for x in got], 50) for i in range(3)]
            row("POST /v1/messages, turns a second, %d connections, \"%s\"" % (n, durability),
                percentile([x[1] for x in got], 50), "/s", peer if n == CONNECTIONS else None,
                bar if n == CONNECTIONS else None, True,
                answer_times(sum(x[0] for x in got), ms) + "; %s us of processor a turn" %
                number(percentile([x[3] for x in got], 50)) + ("; floor: terminals" if n == CONNECTIONS else ""))
    for d in daemons.values():
        d.stop()


NGINX_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
NOBODY = 65534


class Nginx:
    """One worker that answers /health with the gateway's bytes; its two own fields it does not give up."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="blufio-bench-nginx-")
        with socket.create_server(("127.0.0.1", 0)) as s:
            self.port = s.getsockname()[1]
        conf = os.path.join(self.dir, "nginx.conf")
        temps = "".join("%s_temp_path %s;" % (x, self.dir) for x in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        with open(conf, "w", encoding="utf-8") as f:
            f.write("daemon off; worker_processes 1; pid %s/pid; error_log stderr; events { worker_connections 1024; }\n"
                    "http { access_log off; server_tokens off; default_type application/json; keepalive_requests 1000000000;\n"
                    "%s server { listen 127.0.0.1:%d; location = /health { add_header X-Request-Id 0123456789abcdef;\n"
                    "add_header X-Content-Type-Options nosniff; add_header Cache-Control no-store;\n"
                    "return 200 '{\"status\":\"ok\"}'; } } }\n" % (self.dir, temps, self.port))
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        if user:
            os.chown(self.dir, NOBODY, NOBODY)
        self.process = spawn(shutil.which("nginx", path=NGINX_PATH), "-p", self.dir, "-c", conf, "-e", "stderr",
                             stderr=subprocess.DEVNULL, **user)
        limit = time.monotonic() + 10
        while not self.workers() or not answers(self.port):
            if self.process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError("nginx did not start")
            time.sleep(0.05)

    def workers(self):
        return [int(x) for x in read("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)).split()]

    def stop(self):
        end(self.process)
        shutil.rmtree(self.dir)


def answers(port):
    """The answer to GET /health, or nothing."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as s:
            s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return s.recv(4096)
    except OSError:
        return b""


def bench_health(place):
    """GET /health beside nginx: the same load in turns, the server on one core, the client on another."""
    for name in ("wrk", "nginx"):
        if shutil.which(name, path=NGINX_PATH) is None:
            raise RuntimeError("no %s; next: apt-get install --no-install-recommends wrk nginx" % name)
    cores = sorted(os.sched_getaffinity(0))
    d, peer = Daemon(place, "health"), Nginx()
    servers = [("blufio", d.port, d.pid), ("nginx", peer.port, peer.workers()[0])]
    rates, costs = {"blufio": [], "nginx": []}, {"blufio": [], "nginx": []}
    for _, _, pid in servers:
        os.sched_setaffinity(pid, cores[:1])
    for name, port, pid in alternate(servers):
        before = threads(pid, "ns")
        out = run("wrk", "-t1", "-c%d" % CONNECTIONS, "-d%ds" % ROUND_S, "http://127.0.0.1:%d/health" % port,
                  preexec_fn=lambda: os.sched_setaffinity(0, cores[-1:]))
        if "Non-2xx" in out or "Socket errors" in out:
            raise RuntimeError("%s: %s" % (name, out[-300:]))
        rates[name].append(float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)))
        costs[name].append((threads(pid, "ns") - before) / 1e3 / int(re.search(r"(\d+) requests in", out).group(1)))
    ours, theirs = (percentile(rates[x], 50) for x in ("blufio", "nginx"))
    row("GET /health a second, %d connections" % CONNECTIONS, ours, "/s", theirs, 0.95 * theirs, True,
        note="n=%d; floor: nginx; answers of %d and %d bytes; ratios of the rounds %s" % (
            ROUNDS, len(answers(d.port)), len(answers(peer.port)),
            " ".join("%.2f" % (a / b) for a, b in zip(rates["blufio"], rates["nginx"]))))
    ours, theirs = (percentile(costs[x], 50) for x in ("blufio", "nginx"))
    row("processor time of a GET /health", ours, "us", theirs, theirs / 0.95, note="n=%d; floor: nginx" % ROUNDS)
    d.stop()
    peer.stop()


def open_files(wanted):
    """As many descriptors as this process and its children may have, up to wanted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < n:
        resource.setrlimit(resource.RLIMIT_NOFILE, (n, hard))
    return n


def connect(port, source="127.0.0.1"):
    s = socket.socket()
    s.bind((source, 0))
    s.settimeout(20)
    s.connect(("127.0.0.1", port))
    return s


def bench_sockets(place):
    """Memory of WebSockets that were opened and say nothing."""
    n = open_files(SOCKETS + 200) - 200
    d = Daemon(place, "sockets", connections=n + 50)
    head = ("GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
            "Authorization: Bearer %s\r\n\r\n" % TOKEN).encode()
    warm = connect(d.port)      # what the first one needs is not needed again
    before, sockets = memory(d.pid), []
    try:
        for i in range(n):
            s = connect(d.port, "127.0.%d.%d" % divmod(i // PER_ADDRESS + 256, 256))
            sockets.append(s)
            s.sendall(head)
            if not s.recv(4096).startswith(b"HTTP/1.1 101 "):
                raise RuntimeError("WebSocket %d was refused" % i)
        after = memory(d.pid)
    finally:
        for s in sockets + [warm]:
            s.close()
    row("idle WebSocket, resident", (after["Rss"] - before["Rss"]) / n, "KB", None, 4,
        note="n=%d%s; PSS %s KB; the kernel's buffers are not in it" % (
            n, "" if n == SOCKETS else ", as many as the limit of open files leaves", number((after["Pss"] - before["Pss"]) / n)))
    d.stop()


def hang(d):
    """Clients that begin and do not go on, and turns whose model does not answer; as they come, so they stay."""
    starts = ("", "GET /health HTTP/1.1\r\nHost: loc", "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: "
              "Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{" % TOKEN)
    body = '{"content":"hang"}'
    whole = starts[2].replace("1000", str(len(body)))[:-1] + body
    out = [connect(d.port, "127.0.1.%d" % (1 + i // PER_ADDRESS)) for i in range(HALF_OPEN + HANGING_TURNS)]
    for i, s in enumerate(out):
        s.sendall((whole if i < HANGING_TURNS else starts[i % len(starts)]).encode())
    return out


def bench_hanging(place):
    """Does one channel feel it when another one hangs?"""
    f, telegram, _ = fake(place, 0)
    silent = socket.create_server(("127.0.0.1", 0), backlog=64)     # the system accepts, nobody answers
    daemons = [Daemon(place, "telegram-polls", "process", telegram), Daemon(place, "telegram-hangs", "process",
               "http://127.0.0.1:%d" % silent.getsockname()[1])]
    p99 = {d: [] for d in daemons}
    for i, d in enumerate(alternate(daemons)):
        p99[d].append(load(place, d.gateway, "h%d" % i, TURNS, FEW, ROUND_S)[2][2])
    well, hangs = (percentile(p99[d], 50) for d in daemons)
    row("gateway's turns p99, Telegram hangs", hangs, "ms", well, 1.2 * well,
        note="n=%d, %d connections; floor: Telegram holds its polls" % (ROUNDS, FEW))
    for d in daemons:
        d.stop()
    end(f)
    silent.close()

    ms = {False: [], True: []}
    for i, hanging in enumerate(alternate([False, True])):
        f, telegram, provider = fake(place, MESSAGES + FIRST, GAP_MS)
        d = Daemon(place, "hang-%d" % i, "process", telegram, provider)
        clients = hang(d) if hanging else []
        ms[hanging].append(latencies(f)[FIRST:])
        for c in clients:
            c.close()
        d.stop(signal.SIGKILL)          # or it would wait for the turns that hang
        end(f)
    well, hangs = (percentile([percentile(x, 99) for x in ms[h]], 50) for h in (False, True))
    row("update to provider request p99, gateway's clients hang", hangs, "ms", well, 1.2 * well,
        note="n=%d, %d half-open, %d turns without an answer; floor: nobody hangs; of all: %s, floor %s" % (
            ROUNDS, HALF_OPEN, HANGING_TURNS, spread(sum(ms[True], [])), spread(sum(ms[False], []))))


def threads(pid, name):
    """Sum over a process's threads: voluntary context switches, or ns on a processor."""
    total = 0
    for t in os.listdir("/proc/%d/task" % pid):
        if name == "switches":
            total += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)",
                                   read("/proc/%d/task/%s/status" % (pid, t)), re.M).group(1))
        else:
            total += int(read("/proc/%d/task/%s/schedstat" % (pid, t)).split()[0])
    return total


def bench_idle(place):
    f, telegram, _ = fake(place, 0)
    d = Daemon(place, "idle", telegram=telegram)
    time.sleep(2)
    first, second = d.status()["wakeups"], d.status()["wakeups"]
    before = [(threads(p, "switches"), threads(p, "ns")) for p in d.pids()]
    time.sleep(IDLE_S)
    after = [(threads(p, "switches"), threads(p, "ns")) for p in d.pids()]
    turns = d.status()["wakeups"] - second - (second - first)   # what asking costs is not idleness
    switches = sum(a[0] - b[0] for a, b in zip(after, before)) / IDLE_S
    ns = sum(a[1] - b[1] for a, b in zip(after, before))
    row("loop turns a second, idle", max(turns, 0) / IDLE_S, "/s", None, 1,
        note="%d s, polls of 10 s" % IDLE_S)
    row("voluntary context switches a second, idle", switches, "/s", None, 1,
        note="daemon and spawner, all threads")
    row("CPU, idle", ns / IDLE_S / 1e7, "% of a core", None, 0.1)
    d.stop()
    end(f)


def bench_router(place):
    """What a message costs before it costs anything: its tier, without the daemon around it."""
    modules = os.path.join(ROOT, "modules")
    sources = ["core/router.c", "core/router_words.c", "base/utf8.c", "base/str.c", "base/buf.c"]
    run(CC, "-std=c11", "-D_POSIX_C_SOURCE=200809L", "-O2", "-I" + modules, "-o", place.path("router"),
        os.path.join(HERE, "router.c"), *[os.path.join(modules, s) for s in sources])
    mean, slowest, long = run(place.path("router"), os.path.join(ROOT, "tests/data/messages.tsv")).split()
    row("tier of a message, mean", int(mean) / 1e3, "us", note="the labelled ones; slowest %.0f, of 1 MB %.0f us" % (
        int(slowest) / 1e3, int(long) / 1e3))


def bench_money(place):
    """What conversations cost: money.py."""
    sys.path.insert(0, HERE)
    import money
    for what, value, unit, bar, least in money.figures(place.dir):
        row(what, value, unit, bar=bar, least=least)


# ---- the run -------------------------------------------------------------------------------------


def machine(place):
    cpu = re.search(r"model name\s*: (.*)", read("/proc/cpuinfo"))
    ram = int(re.search(r"MemTotal:\s+(\d+)", read("/proc/meminfo")).group(1))
    print("machine: %s, %d cores, %.1f GB, Linux %s, %s" % (
        cpu.group(1) if cpu else os.uname().machine, os.cpu_count(), ram / 1048576,
        os.uname().release.split("-")[0], place.filesystem(place.dir)))
    print("build:   %s, CFLAGS %s" % (run(CC, "--version").splitlines()[0],
                                      os.environ.get("CFLAGS", "-O2 -g")))
    print("with:    " + run(place.path("floor"), "versions").strip())
    print("load average at the start: %.2f" % os.getloadavg()[0])


def table():
    head = ("figure", "value", "floor", "/floor", "bar", "/bar", "", "runs, ms unless said")
    wide = [max(len(r[i]) for r in rows + [head]) for i in range(7)]
    for r in [head] + rows:
        print("  ".join(x.ljust(w) if i in (0, 6) else x.rjust(w)
                        for i, (x, w) in enumerate(zip(r, wide))) + "  " + r[7])


PARTS = {"build": bench_build, "size": bench_size, "bare": bench_bare, "memory": bench_memory, "start": bench_start,
         "latency": bench_latency, "relay": bench_relay, "load": bench_load, "turns": bench_turns, "health": bench_health,
         "sockets": bench_sockets, "hanging": bench_hanging, "idle": bench_idle, "router": bench_router, "money": bench_money}


def main():
    if not os.access(BINARY, os.X_OK):
        sys.exit("no %s; next: make" % os.path.relpath(BINARY, ROOT))
    wanted = sys.argv[1:] or list(PARTS)
    begin = time.monotonic()
    place = Place()
    try:
        machine(place)
        for name in wanted:
            t = time.monotonic()
            try:
                PARTS[name](place)
            except Exception as e:      # the other figures are still worth having
                failures.append("%s: %s" % (name, e))
            print("  %-8s %5.1f s" % (name, time.monotonic() - t), flush=True)
    finally:
        for p in list(children):
            p.kill()
            p.wait()
        if not os.environ.get("BENCH_KEEP"):
            shutil.rmtree(place.dir, ignore_errors=True)
    print()
    table()
    print("\nload average at the end: %.2f; %.0f s in all" % (os.getloadavg()[0],
                                                          time.monotonic() - begin))
    for f in failures:
        print("not measured: " + f)
    print("bench: %d measured, %d missed" % (len(rows), sum(r[6] == "missed" for r in rows)))
    sys.exit(1 if failures or not rows else 0)


if __name__ == "__main__":
    main()
