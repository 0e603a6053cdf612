# SPDX-License-Identifier: MIT OR Apache-2.0
"""step.py - kill -9 at every system call of a turn, one after the other.

One turn: the model is asked, asks for two tools, is asked again with their
results, and its reply is delivered. "telegram": it begins with a photo and its
caption. "gateway": a program asks, signed and with an Idempotency-Key, reads the
answer as a stream, and goes on with it after the death.

The turn runs under step.c, which counts the daemon's system calls from the
moment the message is sent; then as often as there are calls, each time with
a daemon that dies at another one. It is started again, untraced, and when the
turn is over what people saw, what the model saw and what the rows say must be
what one undisturbed turn leaves, save for the one stated window: a reply on
Telegram may arrive twice, and the second one says that it may be a repeat.

With durability "power" the daemon dies before the call is made, with "process"
after it has returned.

    step.py                             every call; STEP_MAX=n at most n points in all
    step.py WAY DURABILITY MODE N       one point again, as it is printed on failure
    JOBS=n                              points at a time
"""
import concurrent.futures
import json
import multiprocessing
import os
import re
import signal
import struct
import subprocess
import sys
import time
import traceback
import zlib
from collections import Counter

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))

from gateway_client import Cut, Device, Gateway, text_of  # noqa: E402
from harness import OWNER, Blufio, FakeAnthropic, FakeTelegram, binary, clean_up, wait_for  # noqa: E402
from test_gateway import TOKEN  # noqa: E402
from test_telegram import give, photo  # noqa: E402

MAX = int(os.environ.get("STEP_MAX") or 0)
JOBS = int(os.environ.get("JOBS") or 2)
TRACER = os.path.abspath(os.environ.get("STEP") or os.path.join(os.path.dirname(binary()), "step"))
LANES = [(way, *how) for way in ("telegram", "gateway") for how in (("power", "before"), ("process", "after"))]
COUNTED = 4                 # turns of a lane that only count its calls
NOT_PERMITTED = 77          # step.c
REPEAT = "(This may be a repeat: I was interrupted while sending it.)"
CAPTION, LOOK, SEEN = "What is this?", "Let me look.", "A grey picture, I think."
REPLY = "%s\n\n%s" % (LOOK, SEEN)
TOOLS = [("time_now", {}), ("text_count", {"text": "Gr\u00fc\u00dfe"})]
TURN_STATES = ["PREPARE", "CALL", "STREAM", "TOOLS", "REPLY", "DONE"]
DONE, SENT, STEP_DONE = 5, 2, 2
MODEL, TOOL = 0, 1


def picture(width=800, height=600):
    """A picture that takes several reads: a bit a pixel, not compressed."""
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    rows = (b"\0" + b"\x5a" * (width // 8)) * height
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b""))


def script(ask):
    if ask.results:
        return {"blocks": [{"type": "text", "text": SEEN}]}
    return {"blocks": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": LOOK}] + [
        {"type": "tool_use", "name": name, "input": value} for name, value in TOOLS]}


class Stepped(Blufio):
    """A daemon that runs under the tracer, if there is one."""
    tracer = []

    def command(self, *args):
        return self.tracer + super().command(*args)


# ---- a point ---------------------------------------------------------------------------------------


class Point:
    """One turn with a death at the n-th call; n 0: at none, it is only counted."""
    config = {}

    def __init__(self, lane, n):
        self.lane, self.n = lane, n
        self.calls, self.place, self.state = 0, None, None
        self.wrong, self.tail = [], []
        self.ai = FakeAnthropic(seed=3)
        self.ai.script = script
        self.tg = self.telegram()
        self.b = Stepped(dict({"storage": {"durability": lane[1]}, "log": {"level": "info"}}, **self.config), self.tg, self.ai)
        self.arm_path = os.path.join(self.b.dir, "armed")

    def telegram(self):
        tg = FakeTelegram(seed=3)
        # the last request of the dead one may be read after the first of its successor
        tg.expect_refusal("terminated by other getUpdates")
        return tg

    def ready(self):
        wait_for(lambda: self.tg.polling, what="the first poll")

    def begin(self):
        give(self, photo(self, picture(), CAPTION))

    def go_on(self):
        """What the outside does after the death."""

    def check(self, good, text, *args):
        if not good:
            self.wrong.append(text % args if args else text)

    def over(self):
        """The message is stored, and nothing is left to do."""
        return not (self.tg and self.tg.unconfirmed) and self.b.query(
            "SELECT (SELECT count(*) FROM inbound), (SELECT count(*) FROM turns WHERE state < 5)"
            " + (SELECT count(*) FROM outbox WHERE state < 2) + (SELECT count(*) FROM inbound WHERE state < 2)"
        ) == [(1, 0)]

    def run(self):
        try:
            self.die()
            self.tell_state()
            before = self.remember()
            self.b.tracer = []
            self.b.start()
            self.go_on()
            wait_for(self.over, 60, "the turn to be over")
            self.verify(before)
            self.check(self.b.stop() == 0, "SIGTERM did not end it well")
            self.b.wait_no_orphans()
        except Exception:
            self.wrong.append(traceback.format_exc())
        self.tail = self.b.log_lines()[-12:] if self.wrong else []
        if self.tg:
            self.tg.close()
        self.ai.close()
        clean_up()
        return {k: getattr(self, k) for k in ("lane", "n", "calls", "place", "state", "wrong", "tail")}

    def die(self):
        """The turn, until the daemon is dead at the n-th call; or is over, and the daemon killed at rest."""
        self.b.tracer = [TRACER, self.arm_path, str(self.n), self.lane[2]]
        self.b.start()
        self.ready()
        open(self.arm_path, "w").close()
        self.begin()
        wait_for(lambda: not self.b.running() or self.over(), 60, "death or the end of the turn")
        if self.b.running():
            self.b.signal(signal.SIGTERM)       # to the tracer, which kills
        code = self.b.wait_exit()
        said = [x for x in self.b.log_lines() if x.startswith("step: ")]
        if code != 0:
            raise AssertionError("the tracer ended with %d: %s" % (code, said))
        self.b.wait_no_orphans()
        found = re.match(r"step: (\d+) calls, (?:killed at (\S+))?", said[-1])
        self.calls, self.place = int(found.group(1)), found.group(2)

    def tell_state(self):
        found = self.b.query("SELECT state FROM turns")
        self.state = TURN_STATES[found[0][0]] if found else "none"

    def remember(self):
        """What is committed at the death must stay so."""
        self.check(self.b.query("PRAGMA integrity_check") == [("ok",)], "damaged after the death")
        return {"steps": self.steps("state = %d" % STEP_DONE), "asked": len(self.ai.requests),
                "messages": self.b.query("SELECT id, seq, role, content FROM messages ORDER BY id")}

    def steps(self, where="1"):
        return self.b.query("SELECT id, kind, round, call_id, state, failed, output, ended_at FROM steps WHERE %s"
                            " ORDER BY id" % where)

    # -- what the turn left ----------------------------------------------------------------------

    def verify(self, before):
        self.check(self.b.query("PRAGMA integrity_check") == [("ok",)], "damaged at the end")
        self.verify_reply()
        self.verify_steps(before)
        self.verify_ledger(before)
        for text in (self.tg.unexpected() if self.tg else []) + self.ai.unexpected():
            self.check(False, "refused: %s", text)

    def verify_reply(self):
        rows = self.b.query("SELECT state, text FROM outbox")
        self.check(rows == [(SENT, REPLY)], "the outbox holds %r", rows)
        self.check(self.b.query("SELECT state, outcome FROM turns") == [(DONE, 1)], "the turn is not answered")
        self.verify_seen()

    def verify_seen(self):
        """The reply arrived once, or once more with a word about it; the model saw the photo each time, and the
        media folder holds it and nothing else."""
        seen = self.tg.texts(OWNER)
        marked = [x for x in seen if x.startswith(REPEAT)]
        self.check(all(x.replace(REPEAT, "", 1).strip() == REPLY for x in seen), "people saw %r", seen)
        self.check(1 <= len(seen) <= 2 and len(seen) - len(marked) <= 1 and len(marked) <= 1,
                   "%d replies arrived, %d of them marked", len(seen), len(marked))
        for r in self.ai.requests:
            kinds = [b["type"] for b in r["body"]["messages"][0]["content"]]
            self.check(kinds == ["image", "text"], "the model was shown %s", kinds)
        hashes = [x[0] for x in self.b.query("SELECT hash FROM attachments")]
        files = os.listdir(self.b.db_path + ".media")
        self.check(len(hashes) == 1 and files == hashes, "attachments %s, files %s", hashes, files)

    def verify_steps(self, before):
        """What had finished is not done again; each tool call has one row and one result."""
        steps = self.steps()
        for row in before["steps"]:
            self.check(row in steps, "a step had finished and was done again: %r", row)
        now = self.b.query("SELECT id, seq, role, content FROM messages ORDER BY id")
        self.check(now[:len(before["messages"])] == before["messages"], "the history has changed")
        tools = [s for s in steps if s[1] == TOOL]
        calls = Counter(s[3] for s in tools)
        self.check(len(tools) == len(calls) == len(TOOLS), "%d rows for %d tool calls", len(tools), len(TOOLS))
        results = Counter(b["tool_use_id"] for m in now if m[2] == "user" for b in json.loads(m[3])
                          if b["type"] == "tool_result")
        self.check(results == calls, "tool calls %s have results %s", dict(calls), dict(results))
        with self.ai.lock:
            asked = [self.round_of(r["body"]) for r in self.ai.requests]
        models = [s for s in steps if s[1] == MODEL]
        for round_ in (0, 1):
            rows = [s for s in models if s[2] == round_]
            good = [s for s in rows if s[4] == STEP_DONE and not s[5]]
            self.check(len(good) == 1 and asked.count(round_) <= len(rows), "round %d was asked %d times, journalled %d"
                       " times, answered %d times", round_, asked.count(round_), len(rows), len(good))
        for row in before["steps"]:
            if row[1] == MODEL and not row[5]:
                self.check(row[2] not in asked[before["asked"]:], "round %d was answered and asked again", row[2])

    @staticmethod
    def round_of(body):
        return int(any(b["type"] == "tool_result" for m in body["messages"] if m["role"] == "user"
                       for b in m["content"]))

    def verify_ledger(self, before):
        """At least what was billed, of an answer that the dead one did not finish, too."""
        with self.ai.lock:
            billed = sum(self.ai.cost(b) for b in self.ai.billing)
        booked = self.b.query("SELECT total(nano_usd) FROM cost_ledger")[0][0]
        self.check(booked >= billed > 0, "%d was billed, %d booked", billed, booked)


class GatewayPoint(Point):
    """The same turn for a program. Telegram is not there: its polls would be counted, too."""
    config = {"gateway": {"enabled": True, "port": 0, "bearer_token": TOKEN}}
    key = {"Idempotency-Key": "only-once"}

    def telegram(self):
        return None

    def ready(self):
        self.seen, self.device, self.signed = [], Device(b"7" * 32), {}
        made = Gateway(self.b, TOKEN).ask("POST", "/v1/api-keys", {
            "name": "d", "scopes": ["chat"], "device": self.device.public.hex()})
        assert made.status == 201, made

    def stream(self):
        """From the beginning, or behind the last event that is known."""
        g = Gateway(self.b)
        if self.seen:
            path = "/v1/messages/" + self.seen[-1].id.split("-")[0]
            more = dict(self.device.headers("GET", path), **{"Last-Event-ID": self.seen[-1].id})
            s = g.events("GET", path, headers=more)
        else:
            body = json.dumps({"content": CAPTION}).encode()
            self.signed = dict(self.device.headers("POST", "/v1/messages", body), **self.key)
            s = g.events("POST", "/v1/messages", body, self.signed)
        with s:
            for event in s:
                self.seen.append(event)

    def begin(self):
        try:
            self.stream()
        except (Cut, OSError):
            pass                        # the death; or it was counted to the end

    def go_on(self):
        """The signature of a request that was heard is worth nothing; the stream goes on."""
        heard = bool(self.seen)
        if heard:
            r = Gateway(self.b).ask("POST", "/v1/messages", json.dumps({"content": CAPTION}).encode(), self.signed)
            self.check(r.status == 401 and b"used before" in r.body, "a signature that comes again: %r", r)
        if not heard or self.seen[-1].name != "message_stop":
            self.stream()

    def verify_seen(self):
        stop = self.seen[-1]
        self.check(stop.name == "message_stop" and text_of(self.seen) == REPLY == stop.data["content"], "the stream was %r",
                   self.seen)
        body = json.dumps({"content": CAPTION}).encode()
        again = Gateway(self.b).ask("POST", "/v1/messages", body, dict(self.device.headers("POST", "/v1/messages", body), **self.key))
        self.check(again.status == 200 and {k: again.json()[k] for k in stop.data} == stop.data, "asked again: %r", again)
        self.check(self.b.query("SELECT count(*) FROM inbound") == [(1,)], "the message is there twice")


def run_point(lane, n):
    signal.signal(signal.SIGINT, signal.SIG_IGN)        # the parent's interrupt is not ours
    return {"telegram": Point, "gateway": GatewayPoint}[lane[0]](lane, n).run()


# ---- all of them ---------------------------------------------------------------------------------------


def spread(count, most):
    """At most so many of 1 … count, evenly."""
    most = count if most == 0 else min(count, most)
    return [1 + i * count // most for i in range(most)]


def permitted():
    done = subprocess.run([TRACER, os.devnull, "0", "before", "/bin/true"], stdout=subprocess.DEVNULL, check=False)
    return done.returncode != NOT_PERMITTED


def tell(r):
    """1 when something is wrong with a point."""
    for text in r["wrong"]:
        print("not ok %s %s %s, call %d (%s, turn %s): %s" % (*r["lane"], r["n"], r["place"], r["state"], text[:1500]))
    if r["wrong"]:
        print("    again: python3 tests/kill/step.py %s %s %s %d" % (*r["lane"], r["n"]))
    for line in r["tail"]:
        print("    | " + line[:300])
    sys.stdout.flush()
    return 1 if r["wrong"] else 0


def all_points():
    """(passed, failed)"""
    begin = time.monotonic()
    points = failed = behind = 0
    states, places = Counter(), Counter()
    with concurrent.futures.ProcessPoolExecutor(JOBS, mp_context=multiprocessing.get_context("fork")) as pool:
        for lane in LANES:
            # no two turns are alike: a wake-up more or less; the longest of some reaches the end of most
            counted = list(pool.map(run_point, [lane] * COUNTED, [0] * COUNTED))
            failed += sum(tell(r) for r in counted)
            calls = max(r["calls"] for r in counted)
            chosen = spread(calls, MAX // len(LANES))
            for r in pool.map(run_point, [lane] * len(chosen), chosen):
                failed += tell(r)
                if r["place"] is None:      # this turn was over before; it died at rest
                    behind += 1
                    continue
                points += 1
                states[r["state"]] += 1
                places[r["place"]] += 1
            print("%s, %s, %s the call: up to %d calls" % (*lane, calls))
            sys.stdout.flush()
    print("the turn at its death: " + ", ".join("%s %d" % x for x in states.most_common()))
    print("died at: " + ", ".join("%s %d" % x for x in places.most_common()))
    print("%d points, and %d turns that were over before they came to theirs, %.0f s" % (
        points, behind, time.monotonic() - begin))
    return max(0, points - failed), failed + (points == 0)


def main():
    if not os.access(binary(), os.X_OK) or not os.access(TRACER, os.X_OK):
        print("no %s or no %s; type `make kill`" % (binary(), TRACER))
        passed, failed, skipped = 0, 1, 0
    elif not permitted():
        print("skipped: ptrace is not permitted here")
        passed, failed, skipped = 0, 0, 1
    elif len(sys.argv) > 4:
        r = run_point(tuple(sys.argv[1:4]), int(sys.argv[4]))
        print("%d calls, died at %s, turn %s" % (r["calls"], r["place"], r["state"]))
        failed, skipped = tell(r), 0
        passed = 1 - failed
    else:
        passed, failed = all_points()
        skipped = 0
    print("step.py: %d passed, %d failed, %d skipped" % (passed, failed, skipped))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
