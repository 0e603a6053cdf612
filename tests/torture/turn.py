# SPDX-License-Identifier: MIT OR Apache-2.0
"""turn.py - every failure injected, over one whole turn, into the shipped binary.

A turn: a message arrives, the model streams an answer that asks for two tools,
is asked again with their results, and its reply is delivered; then the log is
folded into the file. It comes from "telegram", or from a program that repeats
its request until it is answered: as a "stream" that goes on where it broke off, by the OpenAI API ("chat"),
or on a "socket"; "mint" is no turn, but a key that is made. The n-th allocation (SQLite's and
libcurl's too) or system call in it fails, once, for every n; or everything of
a kind fails from the n-th call on, until it is over (SPANS): memory, disk,
descriptors, network. Each time

    either  the daemon lives, the message is answered or its sender is told why
            not, and the next message is answered;
    or      the daemon ends with 70 or 74 and a sentence in its log, and both
            messages are answered after a start.

Never a signal, a hang, a lost message, a second reply that does not say that
it may be one, an unpaired tool call (the fake model refuses such requests), a
key that was told and is not known or an answer that is not in the ledger.

"warm" is a turn of a daemon that had turns before, "cold" the first turn of a
process, from its very start: the message already waits at Telegram. Points are
spread over shifts, each with its own fakes, data and daemons; shifts run beside
one another because most of their time is waiting for a retry.

    turn.py                     all; TORTURE_MAX=n at most n points of each lane
    turn.py LANE N [VARIANT]    one point again, as it is printed on failure
    turn.py LANE                all points of one lane ("telegram warm call power")
    JOBS=n                      shifts at a time
"""
import concurrent.futures
import faulthandler
import json
import mmap
import multiprocessing
import os
import re
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter, defaultdict

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))

from gateway_client import Connection, Cut, EventStream, Gateway, text_of  # noqa: E402
from harness import OWNER, SLOW, Blufio, FakeAnthropic, FakeTelegram, binary, clean_up  # noqa: E402
from test_gateway import SSE, TOKEN  # noqa: E402
from test_socket import CLOSE, TEXT, Socket  # noqa: E402

MAX = int(os.environ.get("TORTURE_MAX") or 0)
JOBS = int(os.environ.get("JOBS") or 8)
ALLOC, CALL, DISK, FILES, NET = 1, 2, 4, 8, 16          # failpoint.c
KINDS = {"alloc": ALLOC, "call": CALL, "memory": ALLOC, "disk": DISK, "files": FILES, "net": NET}
SPANS = {"memory": 0.7, "disk": 0.7, "files": 0.7, "net": 0.7}  # seconds that a lasting failure lasts
SPAN_POINTS = 120           # of a lane with a lasting failure, evenly spread
SHIFT = 25                  # points of one shift
FRESH = 6                   # warm points between two /new: the history must not grow for ever
QUIET_S = 0.5               # a turn and its checkpoint are over: nothing more will be hit
BOUND_S = 90.0              # a message that takes longer hangs; SQLite gives up a lock after 10 s, thrice
SHIFT_MAX_S = 900.0
REPEAT = "(This may be a repeat: I was interrupted while sending it.)"
NO_TEXT = "(The model ended its answer without any text.)"
ANSWERED, DONE, SENT = 1, 5, 2
CONNECTIONS = 16            # that fetch.c keeps
LOGGED = re.compile(r'"level":"(error|warn)"|^blufio: ')


def lanes():
    for durability in ("power", "process"):
        for kind in KINDS:
            for start in ("warm", "cold"):
                if kind not in SPANS or start == "warm":
                    yield ("telegram", start, kind, durability)
        for way in ("stream", "socket", "chat", "mint", "batch"):
            for kind in KINDS if (way, durability) == ("stream", "power") else ("alloc", "call"):
                yield (way, "warm", kind, durability)


# ---- the library's shared page ----------------------------------------------------------------


class Control:
    """struct control of failpoint.c."""
    HEAD, FRAMES, NAME = struct.Struct("=IIIIQiiQQ32s"), 24, 32
    SIZE = HEAD.size + FRAMES * (8 + NAME)

    def __init__(self, path):
        with open(path, "w+b") as f:
            f.truncate(self.SIZE)
            self.page = mmap.mmap(f.fileno(), self.SIZE)

    def put(self, at, form, value):
        struct.pack_into("=" + form, self.page, at, value)

    def arm(self, mask, n, variant, sticky):
        self.page[self.HEAD.size:] = bytes(self.SIZE - self.HEAD.size)
        self.page[32:self.HEAD.size] = bytes(self.HEAD.size - 32)
        struct.pack_into("=IIIQ", self.page, 4, mask, sticky, variant, n)
        self.put(0, "I", 1)

    def disarm(self):
        self.put(0, "I", 0)

    def new_process(self):
        self.put(24, "i", 0)

    def read(self):
        head = self.HEAD.unpack_from(self.page)
        return {"error": head[6], "count": head[7], "hits": head[8], "name": head[9].split(b"\0")[0].decode()}

    def frames(self):
        """[(address, nearest exported name)], innermost first."""
        out = []
        for i in range(self.FRAMES):
            address, = struct.unpack_from("=Q", self.page, self.HEAD.size + 8 * i)
            at = self.HEAD.size + 8 * self.FRAMES + self.NAME * i
            if address:
                out.append((address, self.page[at:at + self.NAME].split(b"\0")[0].decode()))
        return out


def callers(frames, maps):
    """Names of the functions that led to a hit; ours by the binary's own symbols."""
    out, ours = [], []
    for address, near in frames:
        for low, high, offset, path in maps:
            if low <= address < high:
                mine = path == os.path.realpath(binary())
                out.append(near or os.path.basename(path))
                if mine:
                    ours.append((len(out) - 1, address - low + offset))
    if ours:
        # the address behind a call may belong to the next line: one less is the call itself
        done = subprocess.run(["addr2line", "-f", "-s", "-e", binary()] + ["%x" % (a - 1) for _, a in ours],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        lines = done.stdout.decode().split("\n")
        for (i, _), name, place in zip(ours, lines[0::2], lines[1::2]):
            out[i] = "%s (%s)" % (name, place.split(" ")[0])
    return out


# ---- what is said --------------------------------------------------------------------------------


def number_of(ask):
    return re.match(r"#(\d{4}) ", ask.user_texts[-1]).group(1)


def answer(number, kind):
    if kind == "say":
        return "#%s said" % number
    return "Let me look, #%s.\n\n#%s " % (number, number) + " ".join("%sw%d" % (number, i) for i in range(60))


def script(ask):
    number, kind = number_of(ask), ask.user_texts[-1][6:]
    if kind == "tools" and not ask.results:
        return {"blocks": [
            {"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Let me look, #%s." % number},
            {"type": "tool_use", "name": "time_now", "input": {}},
            {"type": "tool_use", "name": "text_count", "input": {"text": "Gr\u00fc\u00dfe " + number}}]}
    return {"blocks": [{"type": "text", "text": answer(number, kind).split("\n\n")[-1]}]}


def key_of(body):
    """(message number, round) of a request: its newest numbered text, tool results after it."""
    number, rounds = None, 0
    for m in body["messages"]:
        blocks = m["content"] if isinstance(m["content"], list) else [{"type": "text", "text": m["content"]}]
        for b in blocks if m["role"] == "user" else []:
            found = re.match(r"#(\d{4}) ", b["text"]) if b["type"] == "text" else None
            if found:
                number, rounds = found.group(1), 0
        rounds += m["role"] == "user" and any(b["type"] == "tool_result" for b in blocks)
    return number, rounds


def words_of(text):
    """What is said, however it is dressed."""
    return " ".join(text.replace("`", "").split())


# ---- a shift ----------------------------------------------------------------------------------------


class Wrong(Exception):
    pass


class Shift:
    """Points of one lane on one data directory."""
    armed_kind = "tools"                # the message that a failure befalls

    def __init__(self, lane, points, shim):
        self.lane, self.points = lane, points
        self.way, self.start_kind, self.kind, durability = lane
        self.ai, self.tg = FakeAnthropic(seed=5), None
        self.ai.script = script
        self.b = Blufio({"storage": {"durability": durability}, "cost": {"daily_budget_usd": 1000},
                         "agent": {"drain_timeout": 10}, "log": {"level": "info"}}, None, self.ai, preload=shim)
        # libcurl resolves a name, as with the real servers
        self.b.configure(anthropic={"base_url": self.ai.url.replace("127.0.0.1", "localhost")})
        self.open()
        self.control = Control(os.path.join(self.b.dir, "failpoint"))
        self.b.env["FAILPOINT"] = os.path.join(self.b.dir, "failpoint")
        self.sent = []                  # (number, kind, (n, variant))
        self.files = None               # what the daemon has open at rest
        self.known = set()              # refusals that are told already
        self.maps = []
        self.outcomes, self.labels, self.told = Counter(), Counter(), Counter()
        self.done, self.wrong, self.slowest = 0, [], (0.0, None)
        self.count = 0

    # -- Telegram, in place of which a program may stand ---------------------------------------

    def open(self):
        self.tg = FakeTelegram(seed=5)
        self.b.configure(telegram={"bot_token": self.tg.token, "api_base": self.tg.url.replace("127.0.0.1", "localhost"),
                                   "allowed_users": [OWNER], "poll_timeout": 5})
        self.tg.add_chat(OWNER)
        # a poll whose answer was lost is asked again before the fake knows that its first one is gone
        self.tg.expect_refusal("terminated by other getUpdates")

    def say(self, number, kind):
        self.tg.send_text(OWNER, "#%s %s" % (number, kind))

    def taken(self, number):
        return not self.tg.unconfirmed

    def fresh(self):
        """A new conversation."""
        seen = len(self.tg.messages(OWNER))
        self.tg.send_text(OWNER, "/new")
        self.wait(lambda: len(self.tg.messages(OWNER)) > seen and self.idle(self.last()), "/new")

    # -- the daemon ------------------------------------------------------------------------

    def alive(self):
        return self.b.running()

    def start(self):
        self.control.new_process()
        self.b.start(wait=False)

    def ended(self):
        """The process is gone by itself: with a code and a sentence that are allowed?"""
        code = self.b.wait_exit()
        self.b.wait_no_orphans()
        if code not in (70, 74):
            raise Wrong("ended with %d" % code)
        if not any(LOGGED.search(line) for line in self.b.log_lines(running=True)):
            raise Wrong("ended with %d without a sentence" % code)
        return code

    def stop(self):
        code = self.b.stop()
        self.b.wait_no_orphans()
        if code != 0:
            raise Wrong("SIGTERM: exit code %d" % code)

    def refused(self):
        """What a fake has refused since it was asked last."""
        all_of_them = (self.tg.unexpected() if self.tg else []) + self.ai.unexpected()
        fresh = [x for x in all_of_them if x not in self.known]
        self.known.update(fresh)
        return fresh

    def read_maps(self):
        self.maps = []
        try:
            with open("/proc/%d/maps" % self.b.pid) as f:
                for line in f:
                    fields = line.split(None, 5)
                    if len(fields) == 6 and "x" in fields[1]:
                        low, high = (int(x, 16) for x in fields[0].split("-"))
                        self.maps.append((low, high, int(fields[2], 16), fields[5].strip()))
        except OSError:
            pass                        # it is gone already

    def open_files(self):
        """(what is open beside sockets, how many sockets). Of the database file itself SQLite keeps another descriptor
        when a second connection was closed, and uses it again unless a stat fails; of its log each has its own."""
        names = []
        for fd in os.listdir("/proc/%d/fd" % self.b.pid):
            try:
                names.append(re.sub(r"\[\d+\]", "", os.readlink("/proc/%d/fd/%s" % (self.b.pid, fd))))
            except OSError:
                pass                    # closed meanwhile
        return sorted(x for x in names if x not in ("socket:", self.b.db_path)), names.count("socket:")

    # -- rows ----------------------------------------------------------------------------------

    def rows(self, sql, *values):
        """None while the files change under the copy."""
        try:
            return self.b.query(sql, *values)
        except (OSError, sqlite3.Error):
            return None
        finally:
            for name in os.listdir(self.b.dir):
                if name.startswith("copy-"):
                    os.unlink(os.path.join(self.b.dir, name))

    def idle(self, number):
        """That message is done with, and nothing else is left to do."""
        if not self.taken(number[1:]):
            return False
        rows = self.rows("SELECT (SELECT count(*) FROM turns WHERE state < 5) + (SELECT count(*) FROM outbox WHERE"
                         " state < 2) + (SELECT count(*) FROM inbound WHERE state < 2),"
                         " (SELECT count(*) FROM inbound WHERE text LIKE ?1)", number + "%")
        return bool(rows) and rows[0] == (0, 0 if (number[1:], "mint") in [x[:2] for x in self.sent] else 1)

    def wait(self, predicate, what, bound=BOUND_S):
        """True, or False when the daemon ended."""
        begin = time.monotonic()
        while True:
            if predicate():
                return True
            if not self.alive():
                return False
            if time.monotonic() - begin > bound * SLOW:
                raise Wrong("waited %.0f s for %s" % (bound * SLOW, what))
            time.sleep(0.01)

    def send(self, kind, point=(0, 0)):
        number = "#%04d" % (len(self.sent) + 1)
        self.sent.append((number[1:], kind, point))
        self.say(number[1:], kind)
        return number

    def last(self):
        return "#" + self.sent[-1][0] if self.sent else "%"

    # -- a point -------------------------------------------------------------------------------------

    def settle(self, message, what):
        """Until the message is done with, starting the daemon again when it ends; the exit codes."""
        codes = []
        while not self.wait(lambda: self.idle(message), what):
            codes.append(self.ended())
            if len(codes) > 3:
                raise Wrong("ends again and again")
            self.control.disarm()
            self.start()
        return codes

    def armed_turn(self, n, variant):
        """A message with the n-th call of it failing: exit codes."""
        mask, sticky = KINDS[self.kind], self.kind in SPANS
        if self.start_kind == "cold":
            if self.alive():
                self.stop()
            message = self.send(self.armed_kind, (n, variant))
            self.control.arm(mask, n, variant, sticky)
            self.start()
            self.read_maps()
        else:
            self.control.arm(mask, n, variant, sticky)
            message = self.send(self.armed_kind, (n, variant))
        begin = time.monotonic()
        if sticky:
            self.wait(lambda: self.control.read()["hits"] or self.idle(message), "the outage")
            end = time.monotonic() + SPANS[self.kind]
            self.wait(lambda: time.monotonic() > end, "the end of the outage")
            self.control.disarm()
        codes = self.settle(message, "message %s" % message)
        took = time.monotonic() - begin
        if took > self.slowest[0]:
            self.slowest = (took, n)
        # then the checkpoint: the whole of it when counting, else until the point is hit
        end = time.monotonic() + QUIET_S
        if not sticky:
            self.wait(lambda: time.monotonic() > end or (n and self.control.read()["hits"]), "rest")
        return codes

    def point(self, n, variant):
        codes = self.armed_turn(n, variant)
        seen = self.control.read()
        self.control.disarm()
        if n and not seen["hits"]:
            return                      # the turn was shorter this time
        number = self.sent[-1][0]
        follow = self.send("say", (n, variant))
        codes += self.settle(follow, "the next message")
        refused = self.refused()
        if refused:
            self.describe(n, variant, "refused: " + "; ".join(refused))
            self.fresh()                # or the next point meets the history that this one damaged
        if self.alive() and not self.maps:
            self.read_maps()
        row = self.rows("SELECT t.outcome, o.text FROM turns t JOIN inbound i ON i.id = t.inbound_id JOIN outbox o ON"
                        " o.turn_id = t.id WHERE i.text LIKE ?1", "#" + number + "%")
        said = "answered" if row and row[0][0] == ANSWERED else "told" if row else "minted"
        if said == "told" and row:
            self.told[row[0][1].split("\n")[-1]] += 1
        if n:
            self.done += 1
            self.outcomes["exit %d, %s" % (codes[0], said) if codes else said] += 1
            self.labels[seen["name"]] += 1
        else:
            self.count = max(self.count, seen["count"])

    def describe(self, n, variant, why):
        seen = self.control.read()
        names = callers(self.control.frames(), self.maps)
        self.wrong.append({"lane": " ".join(self.lane), "n": n, "variant": variant, "why": why, "name": seen["name"],
                           "errno": os.strerror(seen["error"]) if seen["error"] else "", "callers": names[:14],
                           "log": self.b.log_lines()[-14:]})

    def run(self):
        n = variant = at = 0
        try:
            self.start()
            self.read_maps()
            self.settle(self.send("say"), "the first message")
            self.files, sockets = self.open_files()
            for at, (n, variant) in enumerate(self.points):
                if at % FRESH == FRESH - 1 and self.start_kind == "warm" and n:
                    self.fresh()
                self.point(n, variant)
            n, variant, at = 0, 0, len(self.points)     # what is wrong from here on belongs to no point
            if not self.alive():
                self.start()
                self.settle(self.send("say"), "the last message")
            # a failure may cost a connection, but nothing stays open
            extra = Counter(self.open_files()[0]) - Counter(self.files)
            self.wait(lambda: self.open_files()[0] == self.files, "%s to be closed" % dict(extra), 5.0)
            if self.open_files()[1] > sockets + CONNECTIONS:
                raise Wrong("%d sockets are open" % self.open_files()[1])
            self.verify()
            self.stop()
        except Wrong as e:
            self.describe(n, variant, str(e))
        except Exception:
            self.describe(n, variant, traceback.format_exc())
        result = {"lane": self.lane, "done": self.done, "outcomes": self.outcomes, "labels": self.labels, "told": self.told,
                  "wrong": self.wrong, "count": self.count, "slowest": self.slowest,
                  "counts": not self.points[0][0], "rest": self.points[at + 1:]}
        if self.tg:
            self.tg.close()
        self.ai.close()
        if self.wrong and os.environ.get("E2E_KEEP"):
            print("kept: %s" % self.b.dir)
        clean_up()
        return result

    # -- the end of a shift: rows, fakes and what a person saw ----------------------------------------

    def bad(self, number, text, *args):
        """Something is wrong with the message of that number, or with none."""
        n, variant = dict((s[0], s[2]) for s in self.sent).get(number, (0, 0))
        self.wrong.append({"lane": " ".join(self.lane), "n": n, "variant": variant, "why": text % args, "name": "",
                           "errno": "", "callers": [], "log": []})

    def verify(self):
        c = self.b.db()
        try:
            if [r[0] for r in c.execute("PRAGMA integrity_check")] != ["ok"]:
                self.bad(None, "the database is damaged")
            self.verify_turns(c)
            self.verify_seen(c)
            self.verify_calls(c)
        finally:
            c.close()
        for text in self.refused():
            self.bad(None, "refused: %s", text)

    def verify_turns(self, c):
        turns = defaultdict(list)
        for r in c.execute("SELECT t.id, t.state, t.outcome, i.text FROM turns t JOIN inbound i ON i.id = t.inbound_id"):
            turns[r["text"][1:5]].append(r)
        for number, kind, _ in self.sent:
            if kind == "mint":
                continue
            mine = turns[number]
            if len(mine) != 1 or mine[0]["state"] != DONE:
                self.bad(number, "message %s has %d turns", number, len(mine))
                continue
            replies = c.execute("SELECT text, state FROM outbox WHERE turn_id = ?1 AND kind = 0", (mine[0]["id"],)).fetchall()
            if len(replies) != 1 or replies[0]["state"] != SENT:
                self.bad(number, "message %s has %d replies", number, len(replies))
            elif mine[0]["outcome"] == ANSWERED and replies[0]["text"] != answer(number, kind):
                self.bad(number, "message %s was answered %r", number, replies[0]["text"])
            elif mine[0]["outcome"] != ANSWERED and (kind == "say" or NO_TEXT in replies[0]["text"]):
                self.bad(number, "message %s (%s) was told %r", number, kind, replies[0]["text"])

    def verify_seen(self, c):
        """Every reply once; once more only when it says so; nothing that nobody said."""
        want, number = Counter(), {}
        for r in c.execute("SELECT o.text, i.text AS asked FROM outbox o LEFT JOIN turns t ON t.id = o.turn_id LEFT JOIN"
                           " inbound i ON i.id = t.inbound_id WHERE o.state = 2"):
            want[words_of(r["text"])] += 1
            number[words_of(r["text"])] = (r["asked"] or "")[1:5]
        fresh, copies = Counter(), Counter()
        for m in self.tg.messages(OWNER):
            text = words_of(m["text"].replace(REPEAT, "", 1))
            copies[text] += 1
            fresh[text] += not m["text"].startswith(REPEAT)
        for text, n in want.items():
            if copies[text] < n or fresh[text] > n:
                self.bad(number[text], "%d of %d arrived, %d of them unmarked: %r", copies[text], n, fresh[text], text[:100])
        for text in copies:
            if text not in want:
                self.bad(None, "nobody said %r", text[:100])

    def verify_calls(self, c):
        """A call has its row before it is asked, its tools one result each, and its cost in the ledger."""
        with self.ai.lock:
            asked = Counter(key_of(r["body"]) for r in self.ai.requests)
            key = {r["id"]: key_of(r["body"]) for r in self.ai.requests}
            billed = defaultdict(list)
            for b in self.ai.billing:
                if b["completed"]:
                    u = b["usage"]
                    billed[key[b["id"]]].append((u["input_tokens"], u["output_tokens"], u["cache_read_input_tokens"],
                                                 u["cache_creation"]["ephemeral_5m_input_tokens"]))
        results = Counter()
        for r in c.execute("SELECT content FROM messages WHERE role = 'user' AND void = 0"):
            results.update(b["tool_use_id"] for b in json.loads(r[0]) if b["type"] == "tool_result")
        for t in c.execute("SELECT t.id, i.text FROM turns t JOIN inbound i ON i.id = t.inbound_id").fetchall():
            number, good, journalled = t["text"][1:5], Counter(), Counter()
            cut = failed = 0
            for s in c.execute("SELECT * FROM steps WHERE turn_id = ?1", (t["id"],)):
                if s["kind"] == 1:
                    if results[s["call_id"]] != 1:
                        self.bad(number, "#%s: tool call %s has %d results", number, s["name"], results[s["call_id"]])
                    continue
                journalled[s["round"]] += 1
                good[s["round"]] += s["state"] == 2 and not s["failed"]
                failed += s["state"] == 2 and s["failed"]
                cut += s["state"] == 3
            for round_, n in journalled.items():
                if asked[(number, round_)] > n or good[round_] > 1:
                    self.bad(number, "#%s: round %d was asked %d times, journalled %d times, answered %d times", number, round_,
                             asked[(number, round_)], n, good[round_])
            ledger = c.execute("SELECT * FROM cost_ledger WHERE turn_id = ?1", (t["id"],)).fetchall()
            exact = Counter((r["input"], r["output"], r["cache_read"], r["write_5m"]) for r in ledger if not r["estimated"])
            estimates = sum(r["estimated"] for r in ledger)
            for round_, n in good.items():
                fits = [u for u in billed[(number, round_)] if exact[u]]
                if n and not fits:
                    self.bad(number, "#%s: round %d is billed %s, booked %s", number, round_, billed[(number, round_)], dict(exact))
            # one that was answered whole and could not be kept is booked to the token, though it is asked again
            booked, answered = sum(exact.values()), sum(good.values())
            if booked < answered or estimates < cut or booked + estimates > answered + cut + failed:
                self.bad(number, "#%s: %d answered, %d cut, %d failed calls; %d rows and %d estimates in the ledger", number,
                         sum(good.values()), cut, failed, sum(exact.values()), estimates)


class PatientGateway(Gateway):
    def connect(self):
        return Connection(self.port, BOUND_S)


class GatewayShift(Shift):
    """The same with a program. Each request has a thread of its own, which repeats it until it is answered."""

    def __init__(self, lane, points, shim):
        super().__init__(lane, points, shim)
        self.armed_kind = "mint" if self.way == "mint" else "tools"
        self.answers, self.keys, self.seen = {}, {}, defaultdict(list)
        self.trouble = None             # of a thread

    def open(self):
        self.b.configure(gateway={"enabled": True, "port": 0, "bearer_token": TOKEN})
        self.gateway = PatientGateway(self.b, TOKEN)

    def say(self, number, kind):
        form = self.by_post if kind == "say" else getattr(self, "by_" + self.way)
        body, key = {"content": "#%s %s" % (number, kind)}, {"Idempotency-Key": "order-" + number}
        threading.Thread(target=self.repeat, args=(form, number, body, key), daemon=True).start()

    def taken(self, number):
        if self.trouble:
            raise Wrong(self.trouble)
        return number in self.answers

    def fresh(self):
        """Each message begins a conversation."""

    def repeat(self, form, number, body, key):
        try:
            while number not in self.answers:
                try:
                    if self.gateway.listening():
                        form(number, body, key)
                except (Cut, EOFError, OSError):
                    pass                # said again
                time.sleep(0.02)
        except Exception:
            self.trouble = "a client of message %s: %s" % (number, traceback.format_exc())

    def by_post(self, number, body, key):
        r = self.gateway.ask("POST", "/v1/messages", body, key)
        assert r.status in (200, 503), r
        if r.status == 200:
            self.answers[number] = r.json()["content"]

    def by_stream(self, number, body, key):
        seen = self.seen[number]
        if seen:
            request = "GET", "/v1/messages/" + seen[-1].id.split("-")[0], None, dict(SSE, **{"Last-Event-ID": seen[-1].id})
        else:
            request = "POST", "/v1/messages", body, dict(SSE, **key)
        with self.gateway.start(*request) as c:
            r = c.head()
            assert r.status in (200, 503), r
            if r.status == 200:
                for event in EventStream(c, r):
                    seen.append(event)
                assert seen and seen[-1].name == "message_stop" and text_of(seen) == seen[-1].data["content"], seen
                self.answers[number] = seen[-1].data["content"]

    def by_chat(self, number, body, key):
        """A stream of the OpenAI API; what it is told instead of an answer is an error, and the reply."""
        ask = {"model": "blufio", "stream": True, "messages": [{"role": "system", "content": "Be brief."},
                                                               {"role": "user", "content": body["content"]}]}
        with self.gateway.start("POST", "/v1/chat/completions", ask, key) as c:
            r = c.head()
            data = b"".join(c.pieces(r))
            assert r.status in (200, 502, 503), (r, data)
            if r.status == 200:
                lines = [x[6:] for x in data.decode().split("\n\n") if x.startswith("data: ")]
                chunks = [json.loads(x) for x in lines if x != "[DONE]"]
                if lines[-1] != "[DONE]":
                    assert "error" in chunks[-1], chunks
                    self.failed_by(number, chunks[-1]["error"])
                else:
                    assert chunks[-1]["choices"][0]["finish_reason"] == "stop", chunks[-1]
                    self.answers[number] = "".join(x["choices"][0]["delta"].get("content", "") for x in chunks)
            else:
                self.failed_by(number, json.loads(data)["error"])

    def failed_by(self, number, error):
        if error["code"] == "agent_failed":
            self.answers[number] = error["message"]
        else:
            assert error["code"] in ("storage", "overloaded", "unavailable", "begun_anew"), error

    def by_batch(self, number, body, key):
        """A request that is answered in time."""
        item = {"model": "blufio", "messages": [{"role": "user", "content": body["content"]}]}
        r = self.gateway.ask("POST", "/v1/batch", {"items": [item]}, key)
        assert r.status in (202, 503), r
        while r.status == 202 and number not in self.answers:
            time.sleep(0.05)
            told = self.gateway.ask("GET", "/v1/batch/" + r.json()["id"])
            assert told.status in (200, 503), told
            item = told.json()["items"][0] if told.status == 200 else {"status": "pending"}
            if item["status"] == "completed":
                self.answers[number] = item["response"]["choices"][0]["message"]["content"]
            elif item["status"] == "failed":
                self.failed_by(number, item["error"])

    def by_socket(self, number, body, key):
        seen = self.seen[number]
        last = [e["seq"] for e in seen if "seq" in e]
        try:
            s = Socket(self.gateway.port)
        except AssertionError as e:
            assert b" 503 " in e.args[0], e
            return
        with s:
            s.send({"type": "resume", "seq": last[-1]} if last else
                   dict(body, type="message", idempotency_key=key["Idempotency-Key"]))
            while True:
                opcode, payload = s.frame()
                if opcode == CLOSE and payload == struct.pack(">H", 1011):
                    return              # no memory for the frame
                assert opcode == TEXT, (opcode, payload)
                e = json.loads(payload)
                if e["type"] == "error":
                    assert e["error"]["type"] in ("storage", "overloaded", "unavailable"), e
                    return
                seen.append(e)
                if e["type"] == "done":
                    break
        text = ""
        for e in seen:
            text = "" if e["type"] == "restart" else text + e.get("text", "")
        assert text == seen[-1]["content"], seen
        self.answers[number] = text

    def by_mint(self, number, body, key):
        r = self.gateway.ask("POST", "/v1/api-keys", {"name": "key " + number, "scopes": ["read"]})
        assert r.status in (201, 503), r
        if r.status == 201:
            self.keys[number] = r.json()["key"]
            self.answers[number] = ""

    def verify_seen(self, c):
        """What a program was told is the reply; a key that was told is good."""
        for r in c.execute("SELECT o.text, i.text AS asked FROM outbox o JOIN turns t ON t.id = o.turn_id JOIN inbound i ON"
                           " i.id = t.inbound_id WHERE o.kind = 0"):
            number = r["asked"][1:5]
            if self.answers[number] != r["text"]:
                self.bad(number, "a program was told %r, the reply is %r", self.answers[number], r["text"])
        for number, key in self.keys.items():
            r = Gateway(self.b, key).ask("GET", "/v1/sessions")
            if r.status != 200:
                self.bad(number, "a key that was made is told %r", r)


def run_shift(lane, points, shim):
    signal.signal(signal.SIGINT, signal.SIG_IGN)        # the parent's interrupt is not ours
    faulthandler.dump_traceback_later(SHIFT_MAX_S * SLOW, exit=True)
    try:
        return (Shift if lane[0] == "telegram" else GatewayShift)(lane, points, shim).run()
    finally:
        faulthandler.cancel_dump_traceback_later()


# ---- all of them -------------------------------------------------------------------------------------


def spread(count, most):
    """At most so many of 1 … count, evenly."""
    most = count if most == 0 else min(count, most)
    return [1 + i * count // most for i in range(most)]


def choose(lane, count):
    _, _, kind, durability = lane
    most = min(x for x in (MAX, SPAN_POINTS if kind in SPANS else 0, count) if x) if count else 0
    # which errno: the two durabilities see different ones at the same place
    return [(n, n + (durability == "process")) for n in spread(count, most)] if most else []


def tell(wrong):
    print("not ok %s, point %d: %s" % (wrong["lane"], wrong["n"], wrong["why"]))
    if wrong["name"]:
        print("    %s: %s, called by %s" % (wrong["name"], wrong["errno"], " < ".join(wrong["callers"])))
    if wrong["n"]:
        print("    again: python3 tests/torture/turn.py %s %d %d" % (wrong["lane"], wrong["n"], wrong["variant"]))
    for line in wrong["log"]:
        print("    | " + line[:300])
    sys.stdout.flush()


def campaign(chosen, shim):
    begin = time.monotonic()
    totals, outcomes, labels, told = Counter(), defaultdict(Counter), Counter(), Counter()
    counts, failed, slowest = {}, 0, (0.0, None, None)
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(JOBS, mp_context=context) as pool:
        # three turns that only count say how many points a lane has
        running = {pool.submit(run_shift, lane, [(0, 0)] * 3, shim) for lane in chosen}
        while running:
            done, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                r = future.result()
                lane = r["lane"]
                for wrong in r["wrong"]:
                    failed += 1
                    tell(wrong)
                if r["rest"]:           # what comes after one that ended the shift
                    running.add(pool.submit(run_shift, lane, r["rest"], shim))
                if r["counts"]:
                    counts[lane] = r["count"]
                    points = choose(lane, r["count"])
                    for i in range(0, len(points), SHIFT):
                        running.add(pool.submit(run_shift, lane, points[i:i + SHIFT], shim))
                    continue
                totals[lane] += r["done"]
                outcomes[lane].update(r["outcomes"])
                labels.update(r["labels"])
                told.update(r["told"])
                if r["slowest"][0] > slowest[0]:
                    slowest = (r["slowest"][0], lane, r["slowest"][1])
    print("%-30s %6s of %6s   outcomes" % ("lane", "points", "calls"))
    for lane in chosen:
        print("%-30s %6d of %6d   %s" % (" ".join(lane), totals[lane], counts.get(lane, 0), ", ".join(
            "%s: %d" % x for x in sorted(outcomes[lane].items()))))
        if totals[lane] == 0:
            failed += 1
            print("not ok %s: no point at all" % " ".join(lane))
    print("places: " + ", ".join("%s %d" % x for x in labels.most_common()))
    for text, n in told.most_common():
        print("told %d: %s" % (n, text))
    if slowest[1]:
        print("the slowest: %.1f s, %s %d" % (slowest[0], " ".join(slowest[1]), slowest[2]))
    points = sum(totals.values())
    print("turn: %d points, %d bad, %.0f s" % (points, failed, time.monotonic() - begin))
    return points, failed


def main():
    shim = os.path.abspath(os.environ.get("FAILPOINT_SO") or os.path.join(os.path.dirname(binary()), "failpoint.so"))
    if not os.access(binary(), os.X_OK) or not os.path.exists(shim):
        print("no %s or no %s; type `make torture`" % (binary(), shim))
        print("turn.py: 0 passed, 1 failed, 0 skipped")
        return 1
    words = sys.argv[1:]
    chosen = [x for x in lanes() if all(w in x for w in words[:4])]
    if len(words) > 4:
        variant = int(words[5]) if len(words) > 5 else 0
        r = run_shift(chosen[0], [(int(words[4]), variant)], shim)
        for wrong in r["wrong"]:
            tell(wrong)
        print("outcomes: %s at %s, %.1f s" % (dict(r["outcomes"]), dict(r["labels"]), r["slowest"][0]))
        points, failed = r["done"], len(r["wrong"])
    else:
        points, failed = campaign(chosen, shim)
    print("turn.py: %d passed, %d failed, 0 skipped" % (max(0, points - failed), failed))
    return 1 if failed or not points else 0


if __name__ == "__main__":
    sys.exit(main())
