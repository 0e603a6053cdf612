# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_storm.py - all spenders at once, near the caps, through cuts, retries and kill -9: no instant exceeds a cap.

People, programs, jobs, checklists and summaries ask at the same time. An answer goes on only when more than FLOOR calls
stand before the provider, and a cap is raised by little, only when it is what keeps it from being so: most of what is
admitted takes the last that is left. Three observers, each of which would see what the others cannot:
  - the provider: what it billed, and what it still may bill for each call it has accepted;
  - a trigger in the database: spent and reserved at each reservation and each settlement, as the transaction sees them;
  - GET /v1/cost, all the time: caps, spent and reserved as the daemon tells them.
Afterwards ledger and provider are compared call by call (billing.reconcile).

What a turn says, what the provider does to each of its calls, and when the daemon is killed follow from STORM_SEED;
STORM_TURNS is how many turns are asked of the provider.
"""
import json
import os
import random
import re
import sqlite3
import threading
import time
from collections import Counter

import billing
from fake_anthropic import FakeAnthropic, text_answer, tool_answer
from gateway_client import Cut, Gateway
from harness import SLOW, World, main, toml_value, wait_for

TURNS = int(os.environ.get("STORM_TURNS", "1050"))
SEED = int(os.environ.get("STORM_SEED", "6"))
KILLS = 5
FLOOR = 24                                      # calls that stand before the provider; 16 in flight are wanted
# Who spends: a new spender joins with an actor in Storm.go and its name here.
SPENDERS = {"message", "tool", "compaction", "heartbeat", "job", "api", "batch"}
TOKEN = "q7Vx2LkP9sZtR4mWb8NcYd3HfJ6aGe"
SYSTEM = "You are a test. " * 160               # beyond the models' minimum for the cache
MODELS = ("claude-sonnet-5-5", "claude-sonnet-5-5", "claude-opus-5-5", "claude-sonnet-5")
PEOPLE, JOBS, LIST = range(3001, 3029), range(4001, 4009), 5001
CHATTERS, COMPATS, PASSES = 8, 4, 10
ANSWER = 2000                                   # anthropic.max_tokens
UNSEEN = 250                                    # tokens of an answer that may be lost with its end
TAG = re.compile(r"\[(\w+\.\d+) (\w+)\]")
VERBS = ("say",) * 8 + ("think",) * 2 + ("tools",) * 3 + ("rounds", "long")
FAULTS = (("529", {}), ("500", {}), ("429", {"retry_after": 0}), ("html", {}), ("reset", {}), ("lost", {}), ("empty", {}),
          ("cut", {"k": 0}), ("cut", {"k": 1}), ("fin", {"k": 3}), ("cut", {"k": 99999}), ("fin", {"k": 99999}),
          ("error_event", {"k": 2}), ("refusal", {}), ("refusal_mid", {"k": 2}))
BROKEN = ("lost", "empty", "cut", "fin", "error_event")          # billed, and the client is not told what
NEVER = 1 << 40

# What stands in the database at each change of what is reserved. A month has its days of this file alone.
WATCH_TABLE = """
CREATE TABLE storm(at, what, feature, user, nano, answer, day, month, own, of_feature, feature_month, reserved, own_reserved,
                   of_feature_reserved);
"""
WATCH = """
CREATE TRIGGER storm_%(name)s AFTER %(event)s ON reservations BEGIN
  INSERT INTO storm SELECT now, '%(name)s', x.feature, x.user_id, x.nano_usd, x.answer,
    (SELECT coalesce(sum(nano_usd), 0) FROM cost_days WHERE day >= today),
    (SELECT coalesce(sum(nano_usd), 0) FROM cost_days WHERE day >= month),
    (SELECT coalesce(sum(nano_usd), 0) FROM cost_days WHERE day >= today AND user_id = x.user_id),
    (SELECT coalesce(sum(nano_usd), 0) FROM cost_days WHERE day >= today AND feature = x.feature),
    (SELECT coalesce(sum(nano_usd), 0) FROM cost_days WHERE day >= month AND feature = x.feature),
    (SELECT coalesce(sum(nano_usd), 0) FROM reservations),
    (SELECT coalesce(sum(nano_usd), 0) FROM reservations WHERE user_id = x.user_id),
    (SELECT coalesce(sum(nano_usd), 0) FROM reservations WHERE feature = x.feature)
  FROM (SELECT %(row)s.feature, %(row)s.user_id, %(row)s.nano_usd, %(row)s.answer,
        CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) AS now,
        CAST(strftime('%%s', 'now', 'start of day') AS INTEGER) * 1000000 AS today,
        CAST(strftime('%%s', 'now', 'start of month') AS INTEGER) * 1000000 AS month) AS x;
END;
"""


def usd(nano):
    return "$%.4f" % (nano / 1e9)


# ---- the provider ----------------------------------------------------------------------------------


class Call:
    """What shall become of one call: by its turn's words, and by how many calls of the turn came before."""

    def __init__(self, ai, body):
        asked = [m["content"][-1] for m in body["messages"] if m["role"] == "user"]
        text = next(b["text"] for b in reversed(asked) if b["type"] == "text")
        found = TAG.findall(text)
        if text.startswith("<conversation>"):
            self.tag, self.verb = "summary of " + found[0][0], "summary"
        elif "format" in body.get("output_config", {}):
            self.tag, self.verb = "list", "list"
        else:
            self.tag, self.verb = found[-1]
        self.n = ai.asked[self.tag]
        ai.asked[self.tag] += 1
        rng = self.rng = random.Random("%d %s %d" % (ai.seed, self.tag, self.n))
        self.late, self.size, self.event = rng.random() < 0.4, rng.randrange(20, UNSEEN * 4), None
        self.fault, self.options = None, {}
        if rng.random() < 0.15 and len(ai.held) >= FLOOR // 2 and not ai.calm:   # not while nothing else could show that it answers
            faults = [f for f in FAULTS if self.verb != "long" or f[1].get("k", 0) < 9]
            # What is refused leaves the history with all of its rounds, which the fake's watch does not know.
            self.fault, self.options = rng.choice(faults if asked[-1]["type"] == "text" else faults[:-2])
        # Nobody says how much a call that breaks off has cost: it is booked by more than this, and not by its worst.
        uncertain = self.fault in BROKEN or self.verb in ("summary", "list", "gone")
        self.most = min(body["max_tokens"], 256) if uncertain else body["max_tokens"]


class Gate:
    """Stands where the fake holds answers: before they begin, or behind the first words."""

    def __init__(self, ai, late):
        self.ai, self.late = ai, late

    def wait(self, timeout):
        call = self.ai.local.call
        return call.late != self.late or self.ai.stand(call).wait(timeout)


class Book(billing.Book):
    """Knows at each moment what it may still have to bill."""

    def __init__(self, ai):
        super().__init__()
        self.ai, self.worst, self.sums = ai, {}, Counter()
        self.area, self.first = 0.0, time.monotonic()
        self.since = self.first

    def begin(self, *args):
        self.tick()
        return super().begin(*args)

    def charge(self, entry, now):
        super().charge(entry, now)
        usage = entry["usage"]
        if not entry["completed"]:
            usage = dict(usage, output_tokens=max(usage["output_tokens"], self.ai.local.call.most))
        self.account(entry, billing.nano(entry["model"], usage, entry["geo"]))

    def end(self, entry, now):
        self.tick()
        super().end(entry, now)
        self.account(entry, entry["nano"])

    def account(self, entry, worst):
        day = int(entry["time"] // 86400)
        self.sums[day] += worst - self.worst.get(entry["id"], 0)
        self.worst[entry["id"]] = worst
        if self.sums[day] > self.ai.cap:
            self.ai.over.append("%s: %d billed or to be billed, %d allowed" % (entry["id"], self.sums[day], self.ai.cap))

    def tick(self):
        now = time.monotonic()
        self.area += self.open * (now - self.since)
        self.since = now


class Provider(FakeAnthropic):
    def __init__(self, seed):
        super().__init__()
        self.seed, self.local = seed, threading.local()
        self.asked, self.turns, self.kinds, self.verbs = Counter(), set(), Counter(), {}
        self.held, self.floor, self.together, self.long, self.calm = [], FLOOR, [], 0, False
        self.cap, self.over, self.lowered = 0, [], 0
        self.noise, self.piece, self.script = False, 60, self.words
        self.book = Book(self)
        self.log = self.book.calls
        self.faults = self
        self.hold, self.hold_after_first_delta = Gate(self, False), Gate(self, True)

    def take(self, name):
        """In the place of a queue of faults."""
        call = self.local.call
        return (call.fault, call.options) if name == "messages" else (None, {})

    def serve(self, conn, request_id, body, check, record, entry):
        with self.lock:
            call = self.local.call = Call(self, body)
            self.verbs[entry["id"]] = call.verb
            self.kinds[call.fault] += 1
        try:
            super().serve(conn, request_id, body, check, record, entry)
        finally:
            with self.lock:
                if call in self.held:
                    self.held.remove(call)
                if call.event and call.event.is_set() and call.verb == "long":
                    self.long -= 1

    def count(self, *args):
        self.local.call = None
        super().count(*args)

    def words(self, ask):
        call = self.local.call
        with self.lock:
            self.turns.add(call.tag)
            self.lowered += call.verb not in ("list", "summary") and ask.body["max_tokens"] < ANSWER and \
                not call.tag.startswith("pass")
        if call.verb == "list":
            return json.dumps({"notify": True, "message": "It is time."})
        if call.verb == "summary":
            return "A %s: the person talked about everyday things at length, and was answered at length." % call.tag
        rounds = 0
        for role, blocks in reversed(ask.groups):
            rounds += any(b["type"] == "tool_use" for b in blocks)
            if role == "user" and any(b["type"] == "text" for b in blocks):
                break
        if rounds < {"tools": 1, "rounds": 3}.get(call.verb, 0):
            return tool_answer([("time_now", {}), ("text_count", {"text": call.tag})][:1 + call.rng.randrange(2)],
                               say="Let me look.")
        size = ask.body["max_tokens"] * 4 + 100 if call.verb == "long" else call.size
        answer = text_answer(("%s " % call.tag * (size // len(call.tag)))[:size].strip())
        if call.verb == "think":
            answer["blocks"].insert(0, {"type": "thinking", "thinking": ""})
        return answer

    def unexpected(self):
        """What is condensed is no smaller when a long message stands behind it, and the watch knows no other sign."""
        return [p for p in super().unexpected() if '"text":"What was said before in this conversation' not in p]

    # -- the gate

    def stand(self, call):
        with self.lock:
            if call.event is None:
                call.event = threading.Event()
                self.held.append(call)
                self.let_go(self.floor)
        return call.event

    def let_go(self, floor):
        with self.lock:
            self.floor = floor
            while len(self.held) > self.floor:
                if floor:
                    self.together.append(len(self.held))
                call = self.held.pop(0 if self.calm else self.rng.randrange(len(self.held)))
                self.long += call.verb == "long"
                call.event.set()


# ---- those who spend -----------------------------------------------------------------------------------


class Storm:
    def __init__(self, w):
        self.w, self.ai, self.b, self.rng = w, w.ai, w.b, random.Random(SEED)
        self.up, self.over, self.kills, self.mean = threading.Event(), False, 0, 0.0
        self.g = Gateway(self.b, TOKEN, os.path.join(w.b.dir, "gateway.sock"))
        self.caps = []                  # (milliseconds, what they were from then on at the latest)
        self.wrong, self.lost, self.told = [], set(), None
        self.answers = Counter()
        self.stalls, self.moved = 0, time.monotonic()
        self.up.set()

    def turn(self, who, n, verbs=VERBS):
        """The words of a turn, and its dice."""
        rng = random.Random("%d %s %d" % (SEED, who, n))
        return "[%s.%d %s] %s" % (who, n, rng.choice(verbs), "And so on. " * rng.choice((1, 10, 30, 60, 60, 400))), rng

    def ask(self, path, body):
        def once():
            with self.g.start("POST", path, body, connection=self.g.connect(timeout=120)) as c:
                return c.response("POST")
        return self.attempt(once)

    def attempt(self, what, always=False):
        """None when the daemon was killed meanwhile."""
        while not self.over:
            if not self.up.wait(0.1) or (self.ai.calm and not always):
                time.sleep(0.02)
                continue
            kills = self.kills
            try:
                return what()
            except (OSError, Cut):
                if kills == self.kills and self.up.is_set():
                    raise
        return None

    def people(self):
        """Each says the next thing when the last is answered."""
        sent, seen, last, at = Counter(), Counter(), {}, 0
        while not self.over:
            log = self.w.tg.log
            for m in log[at:]:
                seen[m["chat_id"]] += m["bot"]
                self.answers["told of a budget"] += m["bot"] and "udget" in m["text"]
                at += 1
            for person in PEOPLE if not self.ai.calm else ():
                if seen[person] >= sent[person] and time.monotonic() - last.get(person, 0) > 0.1:
                    n = sent[person]
                    model = MODELS[person % len(MODELS)]
                    self.w.tg.send_text(person, self.turn("tg%d" % person, n)[0] if n else "/model " + model)
                    sent[person] = max(sent[person], seen[person]) + 1
                    last[person] = time.monotonic()
            time.sleep(0.02)

    def chatter(self, i):
        session, n = None, 0
        while not self.over:
            n += 1
            text, _ = self.turn("chat%d" % i, n)
            body = dict({"content": text, "user": "u%d" % i}, **({"session_id": session} if session else {}))
            r = self.ask("/v1/messages", body)
            self.answers["messages %s" % (r and r.status)] += 1
            session = r.json()["session_id"] if r and r.status == 200 else None

    def compat(self, i):
        n, talk = 0, []
        while not self.over:
            n += 1
            text, rng = self.turn("compat%d" % i, n)
            talk = (talk if len(talk) < 6 else []) + [{"role": "user", "content": text}]
            r = self.ask("/v1/chat/completions", {"model": "blufio", "messages": talk})
            self.answers["blufio %s" % (r and r.status)] += 1
            talk = talk + [r.json()["choices"][0]["message"]] if r and r.status == 200 else []

    def passer(self, i):
        n = 0
        while not self.over:
            n += 1
            text, rng = self.turn("pass%d" % i, n, ("say",) * 6 + ("think", "long", "gone"))
            body = {"model": rng.choice(MODELS + ("claude-haiku-5-5",)), "messages": [{"role": "user", "content": text}],
                    "max_tokens": rng.choice((300, 1024, 1500, 3000)), "stream": rng.random() < 0.5}
            if " gone]" in text:
                body["stream"] = True
                self.attempt(lambda: self.leave(body, rng))
                continue
            for again in range(100):
                r = self.ask("/v1/chat/completions", body)
                code = r and r.status != 200 and r.json()["error"]["code"]
                self.answers["as it is %s" % (r and (code or r.status))] += 1
                if not code:
                    break
                time.sleep(0.2 + 0.4 * rng.random())

    def batcher(self):
        """One batch after another, half of it for the agent."""
        n, made = 0, None
        while not self.over:
            items = []
            for n in range(n, n + 8):
                text, rng = self.turn("batch", n, ("say",) * 4 + ("think", "long"))
                items.append({"model": rng.choice(MODELS + ("blufio",) * 4), "messages": [{"role": "user", "content": text}]})
            r = self.ask("/v1/batch", {"items": items})
            self.answers["batch %s" % (r and r.status)] += 1
            made = r.json()["id"] if r and r.status == 202 else None
            while made and not self.over:
                r = self.attempt(lambda: self.g.ask("GET", "/v1/batch/" + made))
                if r and r.json()["status"] == "completed":
                    break
                time.sleep(0.2)

    def leave(self, body, rng):
        """Asks and does not wait for all of it."""
        with self.g.start("POST", "/v1/chat/completions", body) as c:
            c.socket.settimeout(rng.random() * SLOW)
            try:
                c.head()
                c.exactly(rng.randrange(200))
            except AssertionError:
                pass                    # nothing came so soon
        self.answers["left"] += 1

    def observer(self):
        while not self.over:
            r = self.attempt(lambda: self.g.ask("GET", "/v1/cost"), always=True)
            if r:
                caps = {c["key"]: c for c in r.json()["caps"]}
                for c in caps.values():
                    if c["spent_nano_usd"] + c["reserved_nano_usd"] > c["cap_nano_usd"]:
                        self.wrong.append("told by /v1/cost: %s" % c)
                self.told = caps
                self.answers["looks"] += 1
            time.sleep(0.05)

    # -- the weather

    def configure(self, caps, reload=True):
        """From now on, at the latest; a new checklist with it."""
        self.caps.append((int(time.time() * 1000), caps))
        self.ai.cap = min(caps["daily"], caps["monthly"])
        with open(os.path.join(self.b.dir, "list.md"), "w", encoding="utf-8") as f:
            f.write("- [ ] Thing number %d\n" % len(self.caps))
        usd = {k: v / 10**9 for k, v in caps.items()}
        self.b.configure(cost={"daily_budget_usd": usd["daily"], "monthly_budget_usd": usd["monthly"],
                               "user_daily_usd": usd["user"]}, jobs={"daily_usd": usd["job"]}, batch={"daily_usd": usd["batch"]},
                         heartbeat={"daily_usd": usd["beats"], "monthly_usd": usd["beats_month"]})
        if reload:
            code, _, err = self.b.cli("reload")
            assert code == 0, err

    def room(self, total, each):
        """Caps that leave so much in all, and a little of their own to a person, to jobs and to the checklist."""
        job, batch, beats, person = self.b.query(
            "SELECT (SELECT coalesce(sum(nano_usd), 0) FROM cost_days WHERE feature = 'job'),"
            " (SELECT coalesce(sum(nano_usd), 0) FROM cost_days WHERE feature = 'batch'),"
            " (SELECT coalesce(sum(nano_usd), 0) FROM cost_days WHERE feature = 'heartbeat'),"
            " (SELECT coalesce(max(n), 0) FROM (SELECT sum(nano_usd) AS n FROM cost_days WHERE user_id > 0 GROUP BY user_id))")[0]
        names = ["daily", "monthly"]
        self.rng.shuffle(names)                 # now the one is in the way, now the other
        return dict(zip(names, (total, total + self.rng.randrange(4 * each))), user=person + 2 * each, job=job + 2 * each,
                    batch=batch + 2 * each,
                    beats=beats + 10**6, beats_month=beats + 2 * 10**6)

    def raise_caps(self, flood):
        """A little more room, when a cap is what keeps FLOOR from being reached; or room for everybody."""
        told, self.told = self.told, None
        if told is None or (len(self.ai.held) > FLOOR and not flood):
            return
        limit = 3 if flood or time.monotonic() - self.moved > 0.1 else 0.2
        day, month = told["cost.daily_budget_usd"], told["cost.monthly_budget_usd"]
        each = min(max(day["reserved_nano_usd"] // max(self.ai.book.open, 1), 5 * 10**6), 50 * 10**6)
        left = min(c["cap_nano_usd"] - c["spent_nano_usd"] - c["reserved_nano_usd"] for c in (day, month))
        if left > limit * each:
            return                              # something fits, or something will come that does
        new = self.room(self.ai.cap + self.rng.randrange(each // 4, each), each)
        if flood:
            new = {k: v if k in ("job", "batch") else v + 5 * each for k, v in new.items()}
        self.configure({k: max(v, self.caps[-1][1][k]) for k, v in new.items()})

    def at_rest(self, change):
        """Statements on the database of a daemon that does not run."""
        db = sqlite3.connect(self.b.db_path)
        with db:
            out = change(db)
        db.close()
        return out

    def kill(self):
        self.ai.let_go(NEVER)                   # nobody begins
        wait_for(self.long_booked, what="the long answers")
        self.up.clear()
        self.kills += 1
        self.b.kill9()
        wait_for(lambda: not self.ai.book.open, what="the provider to see it")

        def look(db):
            db.execute("UPDATE jobs SET due_at = ? WHERE over = 0", (int(time.time() - 2) * 10**6,))
            return ({r[0] for r in db.execute("SELECT request_id FROM cost_ledger")},
                    db.execute("SELECT count(*), sum(nano_usd) FROM reservations").fetchone(),
                    db.execute("SELECT sum(nano_usd) FROM cost_days").fetchone()[0])
        booked, (reserved, most), spent = self.at_rest(look)
        lost = self.final() - booked - self.lost - self.left()
        if len(lost) > reserved:
            self.wrong.append("at a death %d calls are neither booked nor reserved" % (len(lost) - reserved))
        self.lost |= lost
        new = self.room(spent + most, most // reserved)         # less than before in all: nothing runs
        self.configure(dict(self.caps[-1][1], daily=new["daily"], monthly=new["monthly"]), reload=False)
        self.b.start()
        self.up.set()

    def long_booked(self):
        """More than UNSEEN of an answer may not be on the way when the daemon dies: no model writes so fast."""
        done = {x for x in self.final() if self.ai.verbs[x] == "long"}
        return self.ai.long == 0 and done - self.lost <= {r["request_id"] for r in self.b.ledger()}

    def final(self):
        return {c["id"] for c in self.ai.log if c["outcome"] in billing.FINAL and c["nano"]}

    def left(self):
        """Calls whose end the daemon did not wait for."""
        return {x for x, verb in self.ai.verbs.items() if verb in ("gone", "summary", "list")}

    def blow(self, until):
        looked = asked = 0
        while not self.wrong and not self.ai.over:
            self.raise_caps(self.ai.calm)
            if self.ai.ids != asked:
                asked, self.moved = self.ai.ids, time.monotonic()
            elif time.monotonic() - self.moved > 5 * SLOW:      # too few who could ask
                self.stalls += 1
                self.ai.let_go(max(len(self.ai.held) - 1, 0))
                self.ai.let_go(FLOOR)
                self.moved = time.monotonic()
            if not self.ai.calm or time.monotonic() - looked > 0.2:
                looked = time.monotonic()
                if until():
                    break
            time.sleep(0.01)

    def go(self):
        threads = [threading.Thread(target=self.guard, args=(f,) + args, daemon=True) for f, args in
                   [(self.people, ()), (self.observer, ()), (self.batcher, ())] + [(self.chatter, (i,)) for i in range(CHATTERS)]
                   + [(self.compat, (i,)) for i in range(COMPATS)] + [(self.passer, (i,)) for i in range(PASSES)]]
        for t in threads:
            t.start()
        for i in range(KILLS + 1):
            enough = len(self.ai.turns) + TURNS // (KILLS + 1)
            self.blow(lambda: len(self.ai.turns) >= enough and len(self.ai.held) >= FLOOR)
            if i < KILLS and not self.wrong and not self.ai.over:
                self.kill()
                self.ai.calm = True             # nothing shall die twice: it would have to run alone
                self.ai.let_go(0)
                self.blow(lambda: not self.b.query("SELECT 1 FROM turns WHERE deaths > 0 AND state < 5"))
                self.ai.calm = False
                self.ai.let_go(FLOOR)
        self.mean = self.ai.book.area / (time.monotonic() - self.ai.book.first)
        before = self.refused()
        self.ai.let_go(0)                       # and now the money ends
        wait_for(lambda: self.refused() >= before + 10 or self.wrong or self.ai.over, 60, "what is left to be spent")
        self.over = True
        for t in threads:
            t.join(120 * SLOW)
        self.configure({k: v + 10**10 for k, v in self.caps[-1][1].items()})
        self.w.wait(lambda: not self.b.query("SELECT 1 FROM turns WHERE state < 5 UNION ALL SELECT 1 FROM batches WHERE completed_at = 0"),
                    "all turns and batches over", 60)
        self.w.wait(lambda: not self.b.query("SELECT 1 FROM reservations"), "all calls over", 60)

    def refused(self):
        return self.answers["as it is insufficient_quota"] + self.answers["told of a budget"]

    def guard(self, f, *args):
        try:
            f(*args)
        except BaseException as e:
            self.wrong.append("%s%r: %r" % (f.__name__, args, e))

    # -- the judgement

    def watched(self):
        """Each change of what is reserved, against the caps of its time: (what is wrong, how many are near, admitted)."""
        wrong, near, admitted = [], 0, 0
        for r in self.b.db().execute("SELECT * FROM storm ORDER BY rowid"):
            caps = [c for at, c in self.caps if at <= r["at"] + 5][-1]
            sums = {"daily": r["day"] + r["reserved"], "monthly": r["month"] + r["reserved"]}
            if r["user"]:
                sums["user"] = r["own"] + r["own_reserved"]
            if r["feature"] in ("job", "batch"):
                sums[r["feature"]] = r["of_feature"] + r["of_feature_reserved"]
            if r["feature"] == "heartbeat":
                sums["beats"] = r["of_feature"] + r["of_feature_reserved"]
                sums["beats_month"] = r["feature_month"] + r["of_feature_reserved"]
            wrong += ["%s of %s: %d of %s %d" % (r["what"], r["feature"], n, k, caps[k]) for k, n in sums.items() if n > caps[k]]
            if r["what"] == "begin":
                admitted += 1
                near += min(caps[k] - n for k, n in sums.items()) < r["nano"]      # before it: less than twice its own
        return wrong, near, admitted


def world():
    users = list(PEOPLE) + list(JOBS) + [LIST]
    w = World({"agent": {"system_prompt": SYSTEM, "max_sessions": 128}, "anthropic": {"max_tokens": ANSWER},
               "context": {"budget": 6000}, "telegram": {"allowed_users": users}, "log": {"level": "info"},
               "gateway": {"enabled": True, "host": "", "socket": "gateway.sock", "bearer_token": TOKEN},
               "heartbeat": {"enabled": True, "chat": "telegram:%d" % LIST, "checklist": "list.md", "quiet_hours": ""},
               "jobs": {"j%d" % user: {"schedule": "@yearly", "prompt": "[job%d.0 tools] It is time." % user,
                                       "chat": "telegram:%d" % user} for user in JOBS}},
              start=False, ai=Provider(SEED))
    for user in users:
        w.tg.add_chat(user)
    with open(os.path.join(w.b.dir, "list.md"), "w", encoding="utf-8") as f:
        f.write("- [x] Nothing\n")
    w.b.start()
    for user in users:
        w.tg.send_text(user, "/help")
    w.wait(lambda: all(w.tg.texts(user) for user in users), "everybody to be known")
    assert w.b.stop() == 0
    return w


def test_storm():
    print("STORM_SEED=%d STORM_TURNS=%d" % (SEED, TURNS))
    begin = time.monotonic()
    with world() as w:
        s = Storm(w)
        s.at_rest(lambda db: db.executescript(WATCH_TABLE + WATCH % {"name": "begin", "event": "INSERT", "row": "NEW"}
                                              + WATCH % {"name": "end", "event": "DELETE", "row": "OLD"}))
        s.configure(dict(daily=2 * 10**8, monthly=3 * 10**8, user=10**8, job=10**8, batch=10**8, beats=10**6,
                         beats_month=10**6), reload=False)
        w.b.start()
        s.go()
        wrong = s.wrong + w.ai.over + w.settle_up(lost=s.lost | s.left())
        more, near, admitted = s.watched()
        rows = w.b.ledger()
        spent = Counter(r["feature"] for r in rows)
        days = w.b.query("SELECT sum(nano_usd) FROM cost_days")[0][0]
        booked, billed = sum(r["nano_usd"] for r in rows), sum(c["nano"] for c in w.ai.log)
        guessed = [r for r in rows if r["estimated"]]
        outcomes = Counter(c["outcome"] for c in w.ai.log)
        print("    turns %d in %.1f s, calls %d: %s" % (
            len(w.ai.turns), time.monotonic() - begin, len(w.ai.log), dict(outcomes)))
        print("    in flight %.1f by time, %.1f as answers begin, %d stalls" % (
            s.mean, sum(w.ai.together) / max(len(w.ai.together), 1), s.stalls))
        print("    admitted %d, near a cap %d (%.0f %%), answers shortened %d, caps raised %d times, refused %d" % (
            admitted, near, 100 * near / admitted, w.ai.lowered, len(s.caps) - 1, s.refused()))
        print("    calls by feature: %s" % dict(spent))
        print("    kills %d (%d answers lost with them), faults %s" % (
            s.kills, len(s.lost), {k: n for k, n in w.ai.kinds.items() if k}))
        print("    billed %s, booked %s, of that %s in %d estimates; cap %s; answers %s" % (
            usd(billed), usd(booked), usd(sum(r["nano_usd"] for r in guessed)), len(guessed), usd(w.ai.cap), dict(s.answers)))
        wrong += more
        assert not wrong, "%d wrong, as\n%s" % (len(wrong), "\n".join(wrong[:20]))
        assert booked == days and booked >= billed
        assert set(spent) == SPENDERS, spent
        assert sum(w.ai.together) >= FLOOR * len(w.ai.together) and near * 10 >= 3 * admitted
        assert s.kills == KILLS and len(w.ai.turns) >= TURNS


if __name__ == "__main__":
    main(globals())
