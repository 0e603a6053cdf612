# SPDX-License-Identifier: MIT OR Apache-2.0
"""campaign.py - kill -9 anywhere, restart, and nothing is lost, doubled or forgotten.

A day is a scripted day of messages between the real binary and the two fakes,
which survive, and of programs that talk through the gateway (programs.py). The daemon runs under killpoint.so and dies again and again: at
the k-th time it executes a certain SQL statement, writes or syncs a certain
file, sends bytes or wakes up; at once it is started again and the day goes on.
At each death the rows are looked at, at the end of the day everything is
compared with the script. Where the next death happens is chosen by what has
been seen too rarely: every turn state, every outbox state, every writing SQL
statement and every kind of system call has to see CELL_MIN deaths.

A turn that dies three times in a row without finishing a round is set aside by
design, so no day kills a turn a third time; the day "poison" does, and counts.

    campaign.py                     the campaign, then the same with planted bugs
    campaign.py --day JSON          one day again, with the kills that are printed on failure
    KILLS=n  DAYS_MAX=n  JOBS=n     at least n kills, at most n days, n days at a time
    PLANTED=0, PLANTED=only         without the planted bugs, only with them
"""
import concurrent.futures
import faulthandler
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, defaultdict

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))

from harness import SLOW, Blufio, FakeAnthropic, FakeTelegram, binary, clean_up  # noqa: E402
from test_telegram import document, photo  # noqa: E402
from programs import CONFIG, STOP_KILLS, Programs  # noqa: E402
from schedules import Schedules, is_unasked, speak  # noqa: E402
from step import picture  # noqa: E402

CELL_MIN = 10
KILLS = int(os.environ.get("KILLS") or 500)
DAYS_MAX = int(os.environ.get("DAYS_MAX") or max(80, KILLS // 5))
JOBS = int(os.environ.get("JOBS") or 2)
DAY_KILLS = 60              # of one day; then it ends in peace
ITEM_KILLS = 6
TOOL_DONE = "step:UPDATE steps SET state = ?2, failed = ?3, output = ?4, ended"
# States that only these items bring about: there the database is watched for them.
WATCH = {"retry": "turn CALL", "flood": "outbox ready", "blocked": "outbox failed"}
# Most of the time, or of a day's deaths, goes into these; they are left out unless they serve a rare place.
SLOW_ITEMS = {"retry": "turn CALL", "flood": "outbox ready", "slow": "step:UPDATE turns SET partial = ",
              "lost": "step:UPDATE outbox SET state = ?2, next_at = ?3, attempts",
              "fetch": "step:UPDATE attachments SET attempts", "quota": "step:UPDATE media SET gone",
              "page": "step:DELETE FROM logins WHERE id =", "pages": "step:DELETE FROM logins WHERE id IN"}
WAIT_S = 30.0
DAY_MAX_S = 240.0           # one that takes longer hangs
CUT_TOKENS = 256            # an answer that was cut is booked at least so long (cost.c)
LOOK_S = 0.015              # the grain of looking at the database while it changes
ANN, BEN, CAT, SAM = 1001, 1002, 1003, 777      # CAT blocks the bot, SAM is a stranger
GROUP, MOVED = -555, -1001234567890             # a group, and what it becomes
CHATS = (ANN, BEN, CAT, SAM, GROUP, MOVED)
REPEAT = "(This may be a repeat: I was interrupted while sending it.)"
TURN_STATES = ["PREPARE", "CALL", "STREAM", "TOOLS", "REPLY", "DONE"]
OUTBOX_STATES = ["ready", "sending", "sent", "failed"]
STATES = (["turn " + s for s in TURN_STATES] + ["outbox " + s for s in OUTBOX_STATES])
CALLS = ["send:socket", "recv:socket", "epoll", "pwrite:db-wal", "fdatasync:db-wal", "pwrite:db"]
DONE = 5
ANSWERED, STOPPED, FAILED, REFUSED, NO_BUDGET, SET_ASIDE = range(1, 7)
CHECKS = ("integrity", "answers", "models", "tools", "history", "ledger", "intake", "files", "backup",
          "fakes", "life", "programs", "schedules")
ATTACHMENT_READY, ATTACHMENT_FAILED = 1, 2


# ---- which statements there are --------------------------------------------------------------


def statements():
    """Labels of every statement in store.c that writes, and of what sqlite.c runs itself."""
    with open(os.path.join(ROOT, "modules/core/store.c"), encoding="utf-8") as f:
        source = f.read()
    with open(os.path.join(ROOT, "modules/core/core.h"), encoding="utf-8") as f:
        version = int(re.search(r"#define SCHEMA_VERSION (\d+)", f.read()).group(1))
    labels = {"step:BEGIN IMMEDIATE", "step:COMMIT", "step:PRAGMA journal_mode = WAL"}
    labels |= {"step:PRAGMA user_version = %d" % (v + 1) for v in range(version)}
    # A run of adjacent string literals is one text.
    for run in re.findall(r'"(?:[^"\\\n]|\\.)*"(?:\s*(?:/\*.*?\*/\s*)?"(?:[^"\\\n]|\\.)*")*', source, re.S):
        text = "".join(re.findall(r'"((?:[^"\\\n]|\\.)*)"', run))
        for sql in re.findall(r"(?:ALTER|CREATE|INSERT|UPDATE|DELETE|PRAGMA)\b[^;]*;?", text):
            schema = text.startswith(("CREATE", "ALTER"))
            if not schema and not text.startswith(("INSERT", "UPDATE", "DELETE")):
                continue
            if not sql.startswith(("ALTER", "CREATE", "PRAGMA")) if schema else not text.startswith(sql[:20]):
                continue
            if sql == "UPDATE ":        # a macro puts the table behind it; days learn what it makes
                continue
            labels.add("step:" + sql[:60])
    return labels


def is_birth(label):
    return label.startswith(("step:ALTER", "step:CREATE", "step:PRAGMA"))


# ---- a day --------------------------------------------------------------------------------------


class Wrong(Exception):
    """The day cannot go on; what is wrong has been noted."""


def is_summary(content):
    return isinstance(content, list) and content[0].get("text", "").startswith("<conversation>")


def number_of(text):
    """The NNN of a message "#NNN KIND"; of what a job asks the job and its time; else empty."""
    found = re.match(r"#(\d{3}) |Scheduled job (\d+), due \S+ (\S+) (\d\d:\d\d)", text)
    return (found.group(1) or "%s@%sT%s" % found.group(2, 3, 4)) if found else ""


def key_of(body):
    """(message number, round) of a request: its newest numbered text, tool results after it."""
    if is_summary(body["messages"][0]["content"]):
        return "summary", 0
    if is_unasked(body):
        return "unasked", 0
    number, rounds = None, 0
    for m in body["messages"]:
        if m["role"] != "user":
            continue
        blocks = m["content"] if isinstance(m["content"], list) else [{"type": "text", "text": m["content"]}]
        for b in blocks:
            found = number_of(b["text"]) if b["type"] == "text" else None
            if found:
                number, rounds = found, 0
        rounds += any(b["type"] == "tool_result" for b in blocks)
    return number, rounds


def answer(number, kind):
    """What the model says to a text "#NNN KIND"; the round of tools aside."""
    if kind.startswith("words"):
        return "#%s " % number + " ".join("%sw%d" % (number, i) for i in range(int(kind.split()[1])))
    return "#%s answered" % number


def script(ask):
    if is_summary(ask.body["messages"][0]["content"]):
        return "Many numbers were said."
    if is_unasked(ask.body):
        return speak(ask.body)
    text = ask.user_texts[-1]
    number, kind = number_of(text), text.split("\n\n" if text[0] != "#" else " ", 1)[1]
    thought = [{"type": "thinking", "thinking": "hm"}] if kind.startswith("think ") else []
    kind = kind[6:] if thought else kind
    if kind == "refuse":
        return {"blocks": [], "stop_reason": "refusal", "stop_details": {
            "type": "refusal", "category": "cyber", "explanation": "no"}}
    if kind == "tools" and not ask.results:
        return {"blocks": thought + [
            {"type": "text", "text": "Let me look, #%s." % number},
            {"type": "tool_use", "name": "time_now", "input": {}},
            {"type": "tool_use", "name": "text_count", "input": {"text": "Gr\u00fc\u00dfe " + number}}]}
    return {"blocks": thought + [{"type": "text", "text": answer(number, kind)}]}


def words_of(text):
    """What is said, however it is dressed."""
    return text.replace("`", "").split()


class Day(Programs, Schedules):
    """spec: seed, kind, partials, durability, rich, sessions, binary, shim, short, profile, plan."""

    def __init__(self, spec):
        self.spec = spec
        self.rng = random.Random(spec["seed"])
        self.short = Counter(spec["short"])     # cell -> deaths still wanted
        self.profile = spec["profile"]          # item -> label -> how often
        self.items = self.make_items()
        self.plan = list(spec["plan"]) if spec.get("plan") is not None else None
        self.times = {}
        self.kills = []
        self.cells = Counter()
        self.wrong = []                         # (check, what)
        self.labels = defaultdict(dict)         # what this day saw, as profile
        self.item, self.item_kills, self.item_over = "start", 0, False
        self.target, self.armed = None, False
        self.sent = []                          # (update, user or group, number or None, text)
        self.given = {}                         # number -> how many files came with it
        self.rounds = {}                        # key -> requests before the death that found it committed
        self.tool_rows, self.history = {}, {}
        self.updates = set()
        self.paired = False
        self.last_look = self.last_watch = 0.0
        self.final = False
        os.environ["BLUFIO"] = spec["binary"]
        os.environ.pop("BLUFIO_BIN", None)
        self.tg = FakeTelegram(seed=spec["seed"])
        self.ai = FakeAnthropic(seed=spec["seed"])
        self.ai.script = script
        self.b = Blufio({
            "agent": {"max_sessions": spec["sessions"], "drain_timeout": 20},
            "storage": {"durability": spec["durability"], "media_quota": 1},
            "cost": {"daily_budget_usd": 1000}, "context": {"budget": 4000 if spec["kind"] == "compact" else 80000},
            "telegram": {"partials": spec["partials"], "rich": spec["rich"], "allowed_users": [ANN, BEN, CAT]},
            "gateway": CONFIG, "log": {"level": "info"}}, self.tg, self.ai, preload=spec["shim"])
        self.begin_programs()
        self.begin_schedules()
        self.arm_path = os.path.join(self.b.dir, "armed")
        self.log_path = os.path.join(self.b.dir, "points")
        self.log_at = 0
        for user in (ANN, BEN, CAT, SAM):
            self.tg.add_chat(user)
        self.tg.add_chat(GROUP, "group")
        self.tg.block(CAT)
        self.tg.expect_refusal("bot was blocked by the user")
        # the last request of the dead one may be read after the first of its successor
        self.tg.expect_refusal("terminated by other getUpdates")
        # an edit whose receipt was lost is made again; groups have no drafts
        self.tg.expect_refusal("message is not modified")

    def bad(self, check, text, *args):
        if len(self.wrong) < 40:
            self.wrong.append((check, text % args if args else text))
        if self.spec.get("first"):
            raise Wrong()

    # -- deaths ----------------------------------------------------------------------------

    def weight(self, cell):
        return max(0, self.short[cell] - self.cells[cell])

    def choose(self, item, labels):
        """A target (cell, k, when) among labels (label -> how often), the rarest first."""
        if item in WATCH and self.weight(WATCH[item]) and self.rng.random() < 0.7:
            return [WATCH[item], 0, "watch"]
        # the loop turn in which tools run is too short to be seen from outside
        if item in ("tools", "thinking") and self.weight("turn TOOLS") and self.rng.random() < 0.5:
            return [TOOL_DONE, self.rng.choice((4, 5)), "before"]
        names = [x for x in labels if not is_birth(x)]
        if not names:
            return ["epoll", self.rng.randint(1, 12), "before"]
        wanted = [x for x in names if self.weight(x)]
        if wanted and self.rng.random() < 0.9:
            # what only this item can do goes first
            rare = [self.weight(x) / sum(x in seen for seen in self.profile.values()) ** 2 for x in wanted]
            name = self.rng.choices(wanted, rare)[0]
        else:
            name = self.rng.choice(names)
        often = max(1, int(labels[name]))
        k = 1 if self.rng.random() < 0.4 else self.rng.randint(1, often)
        return [name, k, self.rng.choice(("before", "before", "after"))]

    def next_target(self, deaths):
        """Where the daemon that is started now dies; and from when on its steps count."""
        if self.plan is not None:
            step = self.plan.pop(0) if self.plan else None
            if step is None:
                return None, False
            return step[:3], step[3]
        if self.final or len(self.kills) >= self.spec.get("kills", DAY_KILLS):
            return None, False
        labels = dict(self.profile.get(self.item, {}))
        for k, v in self.profile.get("start", {}).items():
            labels[k] = max(v, labels.get(k, 0))
        # when little is left to hit, the day's deaths are kept for where it is
        much = len(self.short) > 15 or any(self.weight(x) for x in labels)
        if deaths == 0 and not self.item_over and self.item_kills < ITEM_KILLS and self.rng.random() < (0.75 if much else 0.25):
            return self.choose(self.item, labels), True
        return self.choose(self.coming(), self.profile.get(self.coming(), {})), False

    def coming(self):
        """The item behind the one that runs."""
        names = [n for n, _ in self.items]
        i = names.index(self.item) if self.item in names else -1
        return names[i + 1] if i + 1 < len(names) else self.item

    def arm(self):
        if self.target and not self.armed:
            self.armed = True
            open(self.arm_path, "w").close()

    def launch(self, target, at_once):
        self.target, self.at_once, self.armed = target, at_once, False
        if os.path.exists(self.arm_path):
            os.unlink(self.arm_path)
        env = {"KP_LOG": self.log_path, "KP_ARM": self.arm_path, "KP_CLOCK": str(self.ahead)}
        if target and target[2] in ("before", "after"):
            env.update(KP_AT="%s#%d" % (target[0], target[1]), KP_WHEN=target[2])
        if at_once:
            self.arm()
        self.start_at = self.log_at_end()
        self.b.start(wait=False, env=env)

    def log_at_end(self):
        return os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0

    def read_points(self, begin):
        if not os.path.exists(self.log_path):
            return []
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            f.seek(begin)
            return [line.split(" ", 1)[1] for line in f.read().splitlines() if " " in line]

    def died(self):
        """The process is gone: look at what it left, then start it again."""
        code = self.b.wait_exit()
        if code != -signal.SIGKILL:
            self.bad("life", "the daemon ended by itself with %d during %s" % (code, self.item))
            raise Wrong()
        try:
            self.b.wait_no_orphans(5)
        except AssertionError as e:
            self.bad("life", "%s" % e)
        label, k, when = self.target or ["outside", 0, ""]
        first = [x for x in self.read_points(self.start_at)]
        if "epoll" in first:
            for x, n in Counter(first[:first.index("epoll")]).items():
                self.labels["start"][x] = max(n, self.labels["start"].get(x, 0))
        deaths, cells = self.inspect()
        if when in ("before", "after"):
            cells.append(label)
        self.cells.update(cells)
        self.item_kills += 1
        self.kills.append([label, k, when, self.at_once, self.item, cells])
        target, at_once = self.next_target(deaths)
        self.launch(target, at_once)

    def kill(self):
        if self.b.process.poll() is None:
            self.b.process.kill()
        self.b.process.wait()

    def alive(self):
        return self.b.process.poll() is None

    def wait(self, predicate, what, timeout=WAIT_S):
        """Until the predicate is true, whatever happens to the daemon meanwhile."""
        end = time.monotonic() + timeout * SLOW
        while True:
            if not self.alive():
                self.died()
                end = max(end, time.monotonic() + timeout * SLOW / 2)
            value = predicate()
            if value:
                return value
            if self.target and self.armed and self.target[2] == "watch" and self.in_state(self.target[0]):
                self.kill()
                continue
            if time.monotonic() > end:
                self.bad("answers", "item %s: waited in vain for %s" % (self.item, what))
                raise Wrong()
            time.sleep(0.002)

    # -- looking at the rows -----------------------------------------------------------------

    def copy(self, name="look"):
        """A copy of the database with its log, as a reader would find it after a crash."""
        path = os.path.join(self.b.dir, name + ".db")
        for end in ("", "-wal", "-shm"):
            if os.path.exists(path + end):
                os.unlink(path + end)
        for end in ("-wal", ""):
            if os.path.exists(self.b.db_path + end):
                shutil.copyfile(self.b.db_path + end, path + end)
        c = sqlite3.connect(path)
        c.row_factory = sqlite3.Row
        return c

    def look(self, sql, *values):
        """Rows while it runs; None when the copy was taken in the middle of a checkpoint."""
        try:
            c = self.copy()
        except OSError:
            return None
        try:
            return c.execute(sql, values).fetchall()
        except sqlite3.Error:
            return None
        finally:
            c.close()

    def in_state(self, cell):
        now = time.monotonic()
        if now - self.last_watch < 0.004:
            return False
        self.last_watch = now
        table, name = cell.split()
        names = {"turn": TURN_STATES, "outbox": OUTBOX_STATES}[table]
        table = {"turn": "turns", "outbox": "outbox"}[table]
        return bool(self.look("SELECT 1 FROM %s WHERE state = ?1 AND updated_at = (SELECT max(updated_at) FROM %s)"
                              % (table, table), names.index(name)))

    def quiet(self):
        """Nothing is left to do, and everything that was sent has been taken."""
        if self.tg.unconfirmed or not self.alive():
            return False
        now = time.monotonic()
        if now - self.last_look < LOOK_S:
            return False
        self.last_look = now
        rows = self.look("SELECT (SELECT count(*) FROM turns WHERE state < 5) + (SELECT count(*) FROM outbox"
                         " WHERE state < 2) + (SELECT count(*) FROM inbound WHERE state < 2)")
        return bool(rows) and rows[0][0] == 0

    def inspect(self):
        """What a death left: ([deaths of the unluckiest open turn], [cells])."""
        if not os.path.exists(self.b.db_path):
            return 0, []
        c = self.copy("dead")
        try:
            ok = [r[0] for r in c.execute("PRAGMA integrity_check")]
            if ok != ["ok"]:
                self.bad("integrity", "after kill %d: %s" % (len(self.kills) + 1, ok[:3]))
                raise Wrong()
            if c.execute("PRAGMA user_version").fetchone()[0] == 0:
                return 0, []
            self.inspect_promises(c)
            turns = c.execute("SELECT state, deaths FROM turns ORDER BY updated_at, id").fetchall()
            items = c.execute("SELECT state FROM outbox ORDER BY updated_at, id").fetchall()
        finally:
            c.close()
        cells = {"turn " + TURN_STATES[t["state"]] for t in turns if t["state"] < DONE}
        if turns and turns[-1]["state"] == DONE:
            cells.add("turn DONE")
        cells |= {"outbox " + OUTBOX_STATES[i["state"]] for i in items if i["state"] < 2}
        if items and items[-1]["state"] >= 2:
            cells.add("outbox " + OUTBOX_STATES[items[-1]["state"]])
        return max([t["deaths"] for t in turns if t["state"] < DONE] or [0]), sorted(cells)

    def inspect_promises(self, c):
        """What is committed now must stay so; what was acknowledged must be committed."""
        with self.ai.lock:
            n = len(self.ai.requests)
        for r in c.execute("SELECT i.text, s.round FROM steps s JOIN turns t ON t.id = s.turn_id JOIN inbound i ON"
                           " i.id = t.inbound_id WHERE s.kind = 0 AND s.state = 2 AND s.failed = 0 AND i.text <> ''"):
            self.rounds.setdefault((number_of(r["text"]), r["round"]), n)
        for r in c.execute("SELECT id, output FROM steps WHERE kind = 1 AND state = 2"):
            self.tool_rows.setdefault(r["id"], r["output"])
        for r in c.execute("SELECT session_id, seq, role, content FROM messages"):
            self.history.setdefault((r["session_id"], r["seq"]), (r["role"], r["content"]))
        self.inspect_programs(c)
        self.inspect_schedules(c)
        stored = {int(r[0].split(":")[0]) for r in c.execute("SELECT dedup FROM inbound WHERE channel = 'telegram' AND"
                                                             " dedup NOT LIKE 'job:%'")}
        with self.tg.lock:
            confirmed = set(self.tg.received_updates)
        for update, user, number, text in self.sent:
            if update in confirmed and update not in stored and (user != SAM or number):
                self.bad("intake", "update %d (%s) was acknowledged but is not stored" % (update, text))

    # -- the script --------------------------------------------------------------------------

    def send(self, user, text):
        """A text; of one that a model answers the number is put before it."""
        number = None
        if text[0] != "/" and not (user == SAM and not self.paired):
            number = self.next_number()
            text = "#%s %s" % (number, text)
        with self.tg.lock:
            update = self.tg.next_update
            message = self.tg.send_text(user, text)
        self.sent.append((update, user, number, text))
        return message

    def next_number(self):
        return "%03d" % (1 + sum(1 for s in self.sent if s[2]))

    def give(self, user, *files, chat=None, kind="say"):
        """Files, or none, with a numbered caption under the first; several are an album. In a group the bot is named."""
        number = self.next_number()
        text, who = "#%s %s" % (number, kind), chat or user
        more = dict(chat_id=chat, chat_type=self.tg.add_chat(chat)["type"]) if chat else {}
        self.given[number] = len(files)
        with self.tg.lock:
            for i, content in enumerate(files or ({},)):
                content = dict(content)
                if len(files) > 1:
                    content["media_group_id"] = number
                if i == 0:
                    content["caption" if files else "text"] = ("@blufio_test_bot " if chat else "") + text
                self.sent.append((self.tg.next_update, who, None if i else number, "" if i else text))
                self.tg.push_update({"message": self.tg.user_message(user, **content, **more)})
        return number

    def picture(self):
        """One that did not come before."""
        return photo(self, picture(80, 60 + len(self.sent)))

    def settle(self):
        self.wait(self.quiet, "peace")

    def say(self, *texts):
        for user, text in texts:
            self.send(user, text)
        self.settle()

    def item_stop(self):
        self.ai.hold_after_first_delta = gate = threading.Event()
        number = self.send(ANN, "words 3000") and self.sent[-1][2]
        try:
            self.wait(lambda: self.requests_of(number), "the call to be stopped")
            self.send(ANN, "/stop")
            self.wait(lambda: self.look("SELECT 1 FROM turns t JOIN inbound i ON i.id = t.inbound_id WHERE t.state"
                                        " >= 4 AND i.text LIKE ?1 || '%'", "#" + number), "/stop to work")
        finally:
            self.ai.hold_after_first_delta = None
            gate.set()
        self.settle()

    def requests_of(self, number):
        with self.ai.lock:
            return [r for r in self.ai.requests if key_of(r["body"])[0] == number]

    def item_retry(self):
        self.ai.fail_next("529", n=2)
        self.say((ANN, "say"))
        self.ai.faults.clear()

    def item_flood(self):
        for method in ("sendRichMessage", "sendMessage", "editMessageText"):
            self.tg.fail_next(method, "429", n=2, retry_after=1)
        self.say((BEN, "say"), (ANN, "think tools"))
        self.tg.faults.clear()

    def item_lost(self):
        for method in ("sendRichMessage", "sendMessage"):
            self.tg.fail_next(method, "reset_after", n=2)
        self.say((BEN, "words 900"))
        self.tg.faults.clear()

    def item_signature(self):
        self.say((ANN, "think say"))
        self.ai.fail_next("signature")
        self.say((ANN, "think say"))
        self.ai.faults.clear()

    def item_slow(self):
        self.ai.delay, self.ai.piece = 0.05, 60
        try:
            self.say((BEN, "words 260"))
        finally:
            self.ai.delay, self.ai.piece = 0.0, None

    def item_pair(self):
        def code():
            found = [re.search(r"[2-9A-Z]{4}-[2-9A-Z]{4}", t) for t in self.tg.texts(SAM)]
            return [m.group(0) for m in found if m]

        def done():
            return self.look("SELECT 1 FROM identities WHERE external_id = ?1 AND paired_at IS NOT NULL", str(SAM))
        told = False
        code = self.wait(code, "a pairing code")[0]
        tries = 0
        while not done():
            tries += 1
            if told or tries > 100:
                self.bad("answers", "`pair` said done but it was not kept" if told else
                         "the pairing code that was told is not known")
                raise Wrong()
            if self.alive():
                told = self.b.cli("pair", code)[0] == 0
            self.wait(lambda: True, "a daemon")
        self.paired = True
        self.wait(lambda: any("paired now" in t for t in self.tg.texts(SAM)), "the welcome")
        self.say((SAM, "say"))

    def item_edited(self):
        with self.tg.lock:
            message = [m for m in self.tg.log if m["chat_id"] == ANN and not m["bot"]][0]["message_id"]
        self.tg.edit_text(ANN, message, "too late")
        self.settle()

    def item_idle(self):
        """Long enough for the log to be folded into the file."""
        end = time.monotonic() + 0.4
        self.wait(lambda: time.monotonic() > end, "time to pass")

    def item_photo(self):
        self.give(ANN, self.picture())
        self.settle()

    def item_document(self):
        words = ("Gr\u00fc\u00dfe %d\n" % len(self.sent)).encode()
        self.give(BEN, document(self, words, "notes.md"), kind="tools")
        self.settle()

    def item_album(self):
        self.give(ANN, *[self.picture() if i != 1 else photo(self, picture(160, 90)) for i in range(3)])
        self.settle()

    def item_group(self):
        self.give(ANN, self.picture(), chat=GROUP)
        self.settle()

    def item_moved(self):
        """The group becomes another one, and its conversation goes along."""
        with self.tg.lock:
            self.tg.add_chat(MOVED, "supergroup")
            self.tg.chats[GROUP]["migrated"] = MOVED
            message = self.tg.user_message(ANN, chat_id=GROUP, chat_type="group", migrate_to_chat_id=MOVED)
            self.tg.push_update({"message": message})
        self.settle()
        self.sent = [(s[0], MOVED if s[1] == GROUP else s[1]) + s[2:] for s in self.sent]
        self.give(ANN, chat=MOVED)
        self.settle()

    def item_fetch(self):
        self.tg.fail_next("getFile", "500", n=2)
        self.item_photo()
        self.tg.faults.clear()

    def item_dropped(self):
        """/stop while the picture is on its way."""
        self.tg.fail_next("getFile", "hang", n=50)
        begin = len(self.tg.called("getFile"))
        number = self.give(ANN, self.picture())
        try:
            self.wait(lambda: len(self.tg.called("getFile")) > begin, "the file to be asked for")
            self.send(ANN, "/stop")
            self.wait(lambda: self.look("SELECT 1 FROM turns t JOIN inbound i ON i.id = t.inbound_id WHERE t.state"
                                        " >= 4 AND i.text LIKE ?1 || '%'", "#" + number), "/stop to work")
        finally:
            self.tg.faults.clear()
        self.settle()

    def item_quota(self):
        """More than storage.media_quota: the oldest go, from histories too."""
        for i in range(2):
            self.forget()
            self.give(BEN, photo(self, picture(2000, 2400 + len(self.sent))))
            self.settle()
            self.forget()
        self.say((BEN, "/new"), (BEN, "say"))

    def item_model(self):
        for text in ("/model haiku", "say", "/model default"):
            self.say((BEN, text))
        self.forget()               # thinking of another model is left out

    def forget(self):
        """What the model is shown of earlier messages may differ from now on."""
        with self.ai.lock:
            self.ai.watch.forget_all()

    def make_items(self):
        items = [
            ("hello", lambda: self.say((ANN, "say"))),
            ("programs", self.item_programs),
            ("burst", lambda: self.say((ANN, "say"), (BEN, "think say"), (ANN, "say"))),
            ("tools", lambda: self.say((ANN, "tools"))),
            ("photo", self.item_photo),
            ("stream", self.item_stream),
            ("stranger", lambda: self.say((SAM, "hello?"))),
            ("long", lambda: self.say((BEN, "words 3000"), (ANN, "say"))),
            ("keys", self.item_keys),
            ("batch", self.item_batch),
            ("thinking", lambda: self.say((ANN, "think tools"))),
            ("stop", self.item_stop),
            ("socket", self.item_socket),
            ("document", self.item_document),
            ("group", self.item_group),
            ("device", self.item_device),
            ("blocked", lambda: self.say((CAT, "say"), (ANN, "say"))),
            ("page", self.item_page),
            ("pair", self.item_pair),
            ("moved", self.item_moved),
            ("erase", self.item_erase),
            ("album", self.item_album),
            ("dropped", self.item_dropped),
            ("pages", self.item_pages),
            ("retry", self.item_retry),
            ("flood", self.item_flood),
            ("idle", self.item_idle),
            ("lost", self.item_lost),
            ("new", lambda: self.say((ANN, "/new"))),
            ("refused", lambda: self.say((ANN, "refuse"))),
            ("signature", self.item_signature),
            ("edited", self.item_edited),
            ("fetch", self.item_fetch),
            ("model", self.item_model),
            ("quota", self.item_quota),
            ("slow", self.item_slow),
            ("help", lambda: self.say((BEN, "/help"), (BEN, "say"))),
            ("last", lambda: self.say((BEN, "tools"), (SAM, "say"), (ANN, "say"))),
        ]
        def wanted(name):
            place = SLOW_ITEMS.get(name)
            return place is None or self.rng.random() < 0.25 or any(x.startswith(place) for x in self.short)
        return [x for x in items[:self.spec.get("items")] if wanted(x[0])]

    def play(self):
        """The whole day. Each item meets a daemon that is to die in it."""
        self.item = "dawn"
        self.launch(*self.next_target(0))
        for name, act in self.items:
            self.item, self.item_kills, self.item_over = name, 0, False
            since = time.monotonic()
            begin = self.log_at_end()
            self.arm()
            act()
            if self.armed and self.alive():
                self.target, self.item_over = ["outside", 0, ""], True      # it was missed: one for the next item
                self.kill()
            self.wait(lambda: True, "a daemon")
            self.times[name] = round(time.monotonic() - since, 2)
            for label, n in Counter(self.read_points(begin)).items():
                often = n / (1 + self.item_kills)
                self.labels[name][label] = max(often, self.labels[name].get(label, 0))

    # -- special days ----------------------------------------------------------------------------

    def doomed(self, label, times, act=None):
        """The daemon dies times times at a label that begins so; act happens at the first start."""
        label = [x for x in self.spec["statements"] if x.startswith(label)][0]
        for i in range(times):
            self.launch([label, 1, self.rng.choice(("before", "after"))], True)
            if i == 0 and act:
                act()
            end = time.monotonic() + WAIT_S * SLOW
            while self.alive():
                if time.monotonic() > end:
                    self.bad("life", "%s was not reached" % label)
                    raise Wrong()
                time.sleep(0.002)
            if self.b.wait_exit() != -signal.SIGKILL:
                self.bad("life", "the daemon ended by itself at %s" % label)
                raise Wrong()
            self.b.wait_no_orphans(5)
            cells = self.inspect()[1] + [label]
            self.cells.update(cells)
            self.kills.append([label, 1, "", True, self.item, cells])

    def play_birth(self):
        """Deaths while the database is made, then a first conversation."""
        self.item = "birth"
        for label in [x for x in self.spec["statements"] if is_birth(x)]:
            for _ in range(STOP_KILLS):
                for end in ("", "-wal", "-shm", "-journal"):
                    if os.path.exists(self.b.db_path + end):
                        os.unlink(self.b.db_path + end)
                self.doomed(label, 1)
                if self.rng.random() < 0.3:
                    self.launch(None, False)    # what is there must be good to go on with
                    self.b.wait_ready()
                    self.kill()
                    self.b.wait_exit()
        self.launch(None, False)
        self.say((ANN, "say"), (BEN, "tools"))

    def play_hours(self):
        """Deaths in the hourly housekeeping, whose first run is a second after the start."""
        self.item = "hours"
        self.launch(None, False)
        self.say((ANN, "say"))
        self.kill()
        self.b.wait_exit()
        for begins in ("UPDATE inbound SET dedup", "DELETE FROM job_runs", "DELETE FROM batch_items", "DELETE FROM batches",
                       "UPDATE batch_items SET state = 0"):
            self.doomed("step:" + begins, STOP_KILLS)
        self.launch(None, False)
        self.say((ANN, "say"))

    def play_compact(self):
        """Deaths where a conversation begins to be condensed, and in what is written for it."""
        self.item = "compact"
        self.launch(None, False)
        for label in ["step:UPDATE sessions SET compact_tries"] * STOP_KILLS + ["step:UPDATE sessions SET history_seq"] * 4:
            # then the next message fills half of the room, or, when a summary had its try just now, most of it
            while not self.look("SELECT 1 FROM sessions WHERE chat = ?1 AND prompt_tokens >="
                                " CASE WHEN compact_tries THEN 3400 ELSE 1600 END", str(ANN)):
                self.say((ANN, "words 300"))
            self.kill()
            self.b.wait_exit()
            self.doomed(label, 1, lambda: self.send(ANN, "words 300"))
            self.launch(None, False)
            self.say((ANN, "say"))
        if not self.look("SELECT 1 FROM messages WHERE kind = 1"):
            self.bad("history", "nothing was condensed")

    def play_poison(self):
        """A message that kills three times is set aside, said so, and nothing else suffers."""
        self.item = "poison"
        self.doomed("step:INSERT INTO messages", 3, lambda: self.send(ANN, "say"))
        self.doomed("step:UPDATE outbox SET state = ?2, why = 'set aside'", STOP_KILLS)
        self.launch(None, False)
        self.send(BEN, "say")
        self.settle()
        self.say((ANN, "say"))
        self.expected_aside = {"001"}

    # -- the end of the day ------------------------------------------------------------------------

    def run(self):
        begin = time.monotonic()
        self.expected_aside = set()
        try:
            {"day": self.play, "birth": self.play_birth, "hours": self.play_hours,
             "poison": self.play_poison, "programs": self.play_programs, "compact": self.play_compact,
             "schedules": self.play_schedules}[self.spec["kind"]]()
            self.final = True
            if not self.alive() or self.target is not None:
                self.kill()
                self.b.wait_exit()
                self.b.wait_no_orphans(5)
                self.inspect()
                self.launch(None, False)
            self.settle()
            self.verify()
        except Wrong:
            pass
        except Exception:
            self.bad("life", "the day broke: %s" % traceback.format_exc())
        tail = self.b.log_lines()[-12:] if self.wrong else []
        try:
            self.tg.close()
            self.ai.close()
            clean_up()
        except Exception:
            self.bad("life", "cleaning up: %s" % traceback.format_exc())
        return {"spec": {k: self.spec[k] for k in ("seed", "kind", "partials", "durability", "rich", "sessions")},
                "kills": self.kills, "cells": dict(self.cells), "wrong": self.wrong, "tail": tail, "times": self.times,
                "labels": {k: dict(v) for k, v in self.labels.items()}, "seconds": time.monotonic() - begin}

    def verify(self):
        self.check_programs()
        self.check_backup()
        c = self.copy("end")
        try:
            if [r[0] for r in c.execute("PRAGMA integrity_check")] != ["ok"]:
                self.bad("integrity", "at the end of the day")
            self.inspect_promises(c)
            self.check_script(c)
            self.check_unasked(c)
            self.check_seen(c)
            self.check_models(c)
            self.check_tools(c)
            self.check_history(c)
            self.check_ledger(c)
            self.check_files(c)
        finally:
            c.close()
        for text in self.tg.unexpected() + self.ai.unexpected():
            self.bad("fakes", text)
        code = self.b.stop()
        if code != 0:
            self.bad("life", "SIGTERM at the end: exit code %d" % code)
        self.b.wait_no_orphans(5)

    def check_backup(self):
        """A plain copy of the one file, a second later, is a whole backup."""
        path, end = os.path.join(self.b.dir, "backup.db"), time.monotonic() + 1.0 * SLOW
        why = ""
        while True:
            for tail in ("", "-wal", "-shm"):
                if os.path.exists(path + tail):
                    os.unlink(path + tail)
            shutil.copyfile(self.b.db_path, path)
            c = sqlite3.connect(path)
            try:
                why = c.execute("PRAGMA integrity_check").fetchone()[0]
                n = c.execute("SELECT count(*) FROM turns t JOIN inbound i ON i.id = t.inbound_id WHERE t.state = 5"
                              " AND i.kind <> 1").fetchone()[0]
                if why == "ok" and n == sum(1 for s in self.sent if s[2]):
                    return
                why = "%s, %d turns done" % (why, n)
            except sqlite3.Error as e:
                why = str(e)
            finally:
                c.close()
            if time.monotonic() > end:
                self.bad("backup", "a plain copy is not whole after a second: %s" % why)
                return
            time.sleep(0.02)

    def check_script(self, c):
        """Each message is stored once and in order, has one turn, and its reply is the script's."""
        for user in CHATS:
            want = [s[3] for s in self.sent if s[1] == user and (user != SAM or s[2])]
            got = [r[0] for r in c.execute("SELECT i.text FROM inbound i JOIN sessions s ON s.id = i.session_id"
                                           " WHERE s.chat = ?1 AND i.kind = 0 ORDER BY i.id", (str(user),))]
            if want != got:
                self.bad("answers", "messages of %d are stored as %r" % (user, got))
        replies = defaultdict(list)
        for r in c.execute("SELECT o.*, i.text AS asked FROM outbox o JOIN turns t ON t.id = o.turn_id JOIN inbound i"
                           " ON i.id = t.inbound_id WHERE o.kind = 0 ORDER BY o.id"):
            replies[number_of(r["asked"])].append(r)
        turns = defaultdict(list)
        for r in c.execute("SELECT t.*, i.text AS asked FROM turns t JOIN inbound i ON i.id = t.inbound_id"):
            turns[number_of(r["asked"])].append(r)
        notices = Counter()
        for r in c.execute("SELECT text FROM outbox WHERE kind = 1"):
            notices["offer" if "pairing code" in r[0] else re.sub(r"\d+ other.*", "", r[0])[:20]] += 1
        for update, user, number, text in self.sent:
            if number is None or number in self.numbers_gone():
                continue
            if len(turns[number]) != 1 or turns[number][0]["state"] != DONE:
                self.bad("answers", "%s has %d turns" % (text, len(turns[number])))
                continue
            self.check_reply(number, user, text, turns[number][0], replies[number])
        self.check_jobs(turns, replies)
        stops = sum(1 for s in self.sent if s[3] == "/stop")
        stopped = c.execute("SELECT count(*) FROM turns WHERE outcome = ?1", (STOPPED,)).fetchone()[0]
        if stopped + notices["Nothing is running."[:20]] != stops:
            self.bad("answers", "%d /stop, %d stopped, notices %s" % (stops, stopped, dict(notices)))
        for begin, n in (("A fresh conversation", sum(1 for s in self.sent if s[3] == "/new")),
                         ("I am your personal agent"[:20], sum(1 for s in self.sent if s[3] == "/help")),
                         ("offer", 1 if any(s[1] == SAM for s in self.sent) else 0),
                         ("You are paired now. "[:20], 1 if self.paired else 0)):
            if notices[begin] != n:
                self.bad("answers", "notice %r: %d of %d" % (begin, notices[begin], n))

    def check_reply(self, number, user, text, turn, rows):
        kind = text.split(" ", 1)[1]
        kind = kind[6:] if kind.startswith("think ") else kind
        outcome, full = ANSWERED, answer(number, kind)
        if kind == "tools":
            full = "Let me look, #%s.\n\n%s" % (number, full)
        if kind == "refuse":
            outcome, full = REFUSED, "(The model declined"
        if number in self.expected_aside:
            outcome, full = SET_ASIDE, "(I set this message aside"
        if turn["outcome"] == STOPPED:      # only the one that /stop was sent for
            stops = [i for i, s in enumerate(self.sent) if s[3] == "/stop"]
            if any(self.sent[i - 1][2] == number for i in stops):
                outcome = STOPPED
        if turn["outcome"] != outcome:
            self.bad("answers", "%s: outcome %d" % (text, turn["outcome"]))
        if len(rows) != 1:
            self.bad("answers", "%s: %d replies" % (text, len(rows)))
            return
        said, state = self.take_notes(rows[0]["text"]), rows[0]["state"]
        if outcome == STOPPED:
            head = said[:-len("(Stopped.)")].rstrip()
            good = said.endswith("(Stopped.)") and full.startswith(head)
        else:
            good = said == full or (outcome != ANSWERED and said.startswith(full))
        if not good:
            self.bad("answers", "%s: the reply is %r" % (text, said[:200]))
        if state != (3 if user == CAT else 2):
            self.bad("answers", "%s: the reply's row is %s" % (text, OUTBOX_STATES[state]))

    def check_seen(self, c):
        """What people see is the outbox, once and in order; a repeat says that it is one."""
        for user in CHATS:
            edit = user < 0 or self.spec["partials"] == "edit"      # drafts are for private chats
            rows = c.execute("SELECT o.id, o.kind, o.text, o.state, i.text AS asked FROM outbox o LEFT JOIN turns t ON"
                             " t.id = o.turn_id LEFT JOIN inbound i ON i.id = t.inbound_id WHERE o.chat = ?1 ORDER BY"
                             " o.id", (str(user),)).fetchall()
            seen = self.tg.messages(user)
            if user == CAT:
                if seen:
                    self.bad("answers", "somebody who blocks the bot got %r" % seen[0]["text"])
                continue
            got = self.assign(user, rows, seen)
            order = []
            for r in rows:
                mine = got.get(r["id"], [])
                if mine:
                    order.append((mine[0][0], r))
                if r["state"] == 2:
                    self.check_pieces(r, mine, edit)
            often = Counter(r["text"] for r in rows)
            order = [x for x in order if often[x[1]["text"]] == 1]  # of two alike nobody can tell which came first
            for (at, a), (bt, b) in zip(order, order[1:]):
                # a placeholder stands where its answer began, which may be before a notice
                if at > bt and not (edit and (a["kind"] == 1 or b["kind"] == 1)):
                    self.bad("answers", "out of order: %r after %r" % (a["text"][:60], b["text"][:60]))

    def assign(self, user, rows, seen):
        """Visible messages -> outbox rows, by their numbers or, for notices, their words."""
        by_number = {number_of(r["asked"]): r["id"] for r in rows if r["kind"] == 0}
        notices = defaultdict(list)
        for r in rows:
            if r["kind"] == 1 or not re.search(r"#(\d{3}|\d+@)", r["text"]):
                notices[" ".join(words_of(r["text"]))].append(r["id"])
        got, loose = defaultdict(list), []
        used, fresh = Counter(), Counter()
        seen = [(m["text"].startswith(REPEAT), m["text"].replace(REPEAT, "", 1).strip()) for m in seen]
        for marked, text in seen:
            fresh[" ".join(words_of(text))] += not marked
        for at, (marked, text) in enumerate(seen):
            flat = " ".join(words_of(text))
            found = re.search(r"#(\d{3}|\d+@[-:T\d]+)|\b(\d{3})w\d+", text)
            number = found and (found.group(1) or found.group(2))
            if flat in notices:
                ids = notices[flat]
                i = used[flat]
                fresh[flat] -= not marked
                # one that is marked repeats the one before it when the rest is wanted for the others
                if marked and i > 0 and len(ids) - i <= fresh[flat]:
                    i -= 1
                if i >= len(ids):
                    self.bad("answers", "%d got once more: %r" % (user, text[:100]))
                    continue
                used[flat] = i + 1
                row = ids[i]
            elif number in by_number:
                row = by_number[number]
            else:
                loose.append((at, marked, text))
                continue
            got[row] += [(x[0], x[1], x[2]) for x in loose] + [(at, marked, text)]
            loose = []
        for at, marked, text in loose:
            self.bad("answers", "%d got something that nobody said: %r" % (user, text[:100]))
        return got

    def check_pieces(self, row, mine, edit):
        want, at, last = words_of(row["text"]), 0, None
        for i, (_, marked, text) in enumerate(mine):
            words = words_of(text)
            if edit and i == 0 and row["kind"] == 0 and not marked and len(mine) > 1 and mine[1][1]:
                again = words_of(mine[1][2])
                if words != again and want[:len(again)] == again:
                    continue            # a placeholder whose receipt was lost; a marked reply follows
            if words and want[at:at + len(words)] == words and not (last and marked and words == last):
                at += len(words)
                last = words
            elif marked and last and words == last:
                pass                    # the stated window, and it says so
            else:
                self.bad("answers", "%r: message %d of %d is %s%r" % (row["text"][:40], i + 1, len(mine),
                                                                      "marked " if marked else "", text[:100]))
        if at != len(want):
            self.bad("answers", "%r: %d of %d words arrived" % (row["text"][:40], at, len(want)))

    def check_models(self, c):
        """A round that was committed is never asked again; none is asked without its row."""
        with self.ai.lock:
            asked = [key_of(r["body"]) for r in self.ai.requests]
        rows, good = Counter(), Counter()
        for r in c.execute("SELECT i.text, s.round, s.state, s.failed FROM steps s JOIN turns t ON t.id = s.turn_id"
                           " JOIN inbound i ON i.id = t.inbound_id WHERE s.kind = 0 AND i.text <> ''"):
            key = (number_of(r["text"]), r["round"])
            rows[key] += 1
            good[key] += r["state"] == 2 and not r["failed"]
            if r["state"] < 2:
                self.bad("models", "the call %s is still open" % (key,))
        for key, n in Counter(asked).items():
            if n > rows[key] and key[0] not in ("summary", "unasked") and key[0] not in self.numbers_gone():
                self.bad("models", "round %s of #%s was asked %d times, journalled %d times" % (
                    key[1], key[0], n, rows[key]))
        for key, n in self.rounds.items():
            if key in asked[n:]:
                self.bad("models", "round %s of #%s was asked again after its answer was committed" % (key[1], key[0]))
        for key, n in good.items():
            if n > 1:
                self.bad("models", "round %s of #%s was answered %d times" % (key[1], key[0], n))

    def check_tools(self, c):
        results = defaultdict(list)
        for r in c.execute("SELECT content FROM messages WHERE role = 'user' AND void = 0 AND kind = 0"):
            for b in json.loads(r[0]):
                if b["type"] == "tool_result":
                    results[b["tool_use_id"]].append(b)
        seen = Counter()
        for r in c.execute("SELECT * FROM steps WHERE kind = 1 AND turn_id IN (SELECT t.id FROM turns t JOIN sessions s ON"
                           " s.id = t.session_id WHERE s.channel <> 'erased')"):
            seen[(r["turn_id"], r["round"], r["call_id"])] += 1
            found = results[r["call_id"]]
            if r["state"] < 2 or len(found) != 1:
                self.bad("tools", "%s: state %d, %d results" % (r["name"], r["state"], len(found)))
            elif r["state"] == 2 and found[0]["content"] != r["output"]:
                self.bad("tools", "%s: the row and the history differ" % r["name"])
            elif r["state"] == 3 and not found[0]["content"].startswith("interrupted:"):
                self.bad("tools", "%s: interrupted, but the model was told %r" % (r["name"], found[0]["content"]))
            if r["id"] in self.tool_rows and (r["state"] != 2 or r["output"] != self.tool_rows[r["id"]]):
                self.bad("tools", "%s had finished and was run again" % r["name"])
        for key, n in seen.items():
            if n > 1:
                self.bad("tools", "call %s has %d rows" % (key, n))

    def check_history(self, c):
        rows = {tuple(r)[:2]: tuple(r)[2:] for r in c.execute("SELECT session_id, seq, role, content FROM messages")}
        for key, value in self.history.items():
            if rows.get(key) != (None if key[0] in self.erased else value):
                self.bad("history", "message %d of conversation %d was %r and is %r" % (key[1], key[0], value, rows.get(key)))
        # one that was set aside has none, nor one that was stopped before its files were here
        for r in c.execute("SELECT t.id FROM turns t WHERE (SELECT count(*) FROM messages m WHERE m.turn_id = t.id"
                           " AND m.session_id = t.session_id AND m.kind = 0 AND m.role = 'user' AND m.content NOT LIKE '%tool_result%') <> 1"
                           " AND t.outcome <> ?1 AND t.session_id NOT IN (SELECT id FROM sessions WHERE channel = 'erased')"
                           " AND NOT (t.outcome = ?2 AND EXISTS (SELECT 1 FROM attachments a WHERE a.inbound_id ="
                           " t.inbound_id AND a.state = ?3))", (SET_ASIDE, STOPPED, ATTACHMENT_FAILED)):
            self.bad("history", "turn %d does not have exactly one user message" % r["id"])

    def check_ledger(self, c):
        """To the token for every answered round; one estimate for each that was cut off."""
        with self.ai.lock:
            bodies = {r["id"]: key_of(r["body"]) for r in self.ai.requests}
            billed = {bodies[b["id"]]: b["usage"] for b in self.ai.billing if b["completed"]}
        for t in c.execute("SELECT t.id, t.outcome, i.text FROM turns t JOIN inbound i ON i.id = t.inbound_id WHERE i.text <> ''").fetchall():
            number = number_of(t["text"])
            ledger = c.execute("SELECT * FROM cost_ledger WHERE turn_id = ?1", (t["id"],)).fetchall()
            want = []
            cut = 0
            for s in c.execute("SELECT round, state, failed FROM steps WHERE kind = 0 AND turn_id = ?1", (t["id"],)):
                if s["state"] == 2 and not s["failed"]:
                    u = billed.get((number, s["round"]))
                    if u is None:
                        self.bad("ledger", "round %d of #%s was never answered in full" % (s["round"], number))
                        continue
                    want.append((u["input_tokens"], u["output_tokens"], u["cache_read_input_tokens"],
                                 u["cache_creation"]["ephemeral_5m_input_tokens"],
                                 u["cache_creation"]["ephemeral_1h_input_tokens"]))
                cut += s["state"] == 3
            got = [tuple(r[k] for k in ("input", "output", "cache_read", "write_5m", "write_1h")) for r in ledger
                   if not r["estimated"]]
            want = [w for w in want if sum(w)]
            if sorted(got) != sorted(want):
                self.bad("ledger", "#%s: billed %s, booked %s" % (number, want, got))
            estimates = sum(r["estimated"] for r in ledger)
            if estimates > cut or (estimates < cut and t["outcome"] != STOPPED):
                self.bad("ledger", "#%s: %d calls cut off, %d estimates" % (number, cut, estimates))
        # of summaries and of what is said unasked, too; no model writes as fast as the fake whose answer a death cuts
        heard = {r[0] for r in c.execute("SELECT request_id FROM cost_ledger WHERE NOT estimated")}
        with self.ai.lock:
            billed = sum(self.ai.cost(b if b["id"] in heard else dict(b, usage=dict(b["usage"], output_tokens=min(
                b["usage"]["output_tokens"], CUT_TOKENS)))) for b in self.ai.billing)
        booked = c.execute("SELECT total(nano_usd) FROM cost_ledger").fetchone()[0]
        if booked < billed:
            self.bad("ledger", "%d was billed, %d booked" % (billed, booked))
        if c.execute("SELECT 1 FROM reservations").fetchone():
            self.bad("ledger", "something is still set aside")

    def check_files(self, c):
        """What was sent is there, was shown to the model with its words, and nothing else lies about."""
        stopped = {r[0][1:4] for r in c.execute("SELECT i.text FROM turns t JOIN inbound i ON i.id = t.inbound_id WHERE"
                                                " t.outcome = ?1", (STOPPED,))}
        rows = defaultdict(list)
        for r in c.execute("SELECT i.text, a.state FROM attachments a JOIN inbound i ON i.id = a.inbound_id"):
            rows[r["text"][1:4]].append(r["state"])
        for number, n in self.given.items():
            good = [ATTACHMENT_READY] * n
            if rows[number] != good and not (number in stopped and rows[number] == [ATTACHMENT_FAILED]):
                self.bad("files", "of %d files with #%s the states are %s", n, number, rows[number])
        with self.ai.lock:
            bodies = [r["body"] for r in self.ai.requests]
        for body in bodies:
            number, rounds = key_of(body)
            n = sum(b["type"] in ("image", "document") for m in body["messages"] if m["role"] == "user"
                    and any(b.get("text", "").startswith("#%s " % number) for b in m["content"]) for b in m["content"])
            if n != self.given.get(number, 0):
                self.bad("files", "with #%s the model was shown %d files" % (number, n))
        kept = sorted(r[0] for r in c.execute("SELECT hash FROM media WHERE gone = 0"))
        folder = self.b.db_path + ".media"
        files = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        if kept != files:
            self.bad("files", "the rows say %s, the folder has %s", kept, files)


def run_day(spec):
    # a worker is forked: the parent's interrupt is not its business
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.dump_traceback_later(DAY_MAX_S * SLOW, exit=True)      # then it is told where
    try:
        return Day(spec).run()
    finally:
        faulthandler.cancel_dump_traceback_later()


# ---- the campaign ------------------------------------------------------------------------------


def day_spec(n, short, profile, program, shim, kind="day", seed=None):
    return {"seed": seed if seed is not None else 1000 + n, "kind": kind, "partials": ("draft", "edit")[n % 2],
            "durability": ("power", "process")[n // 2 % 2], "rich": n % 3 != 2, "sessions": 1 if n % 5 == 4 else 10,
            "binary": program, "shim": shim, "short": dict(short), "profile": profile}


def describe(result):
    spec = dict(result["spec"], plan=[k[:4] for k in result["kills"]])
    print("    again: python3 tests/kill/campaign.py --day '%s'" % json.dumps(spec))
    for line in result["tail"]:
        print("    | " + line[:300])


class Campaign:
    def __init__(self, program, shim):
        self.program, self.shim = program, shim
        self.labels = statements()
        self.profile = defaultdict(dict)
        self.cells = Counter()
        self.kills = self.all_kills = self.days = self.passed = self.failed = 0
        self.wrong = []

    def wanted(self):
        return {x: CELL_MIN for x in list(self.labels) + STATES + CALLS}

    def short(self):
        return {x: n - self.cells[x] for x, n in self.wanted().items() if self.cells[x] < n}

    def take(self, result, quiet=False):
        self.days += 1
        if result["spec"]["kind"] == "day":
            self.kills += len(result["kills"])
        self.all_kills += len(result["kills"])
        self.cells.update(result["cells"])
        for item, labels in result["labels"].items():
            for label, n in labels.items():
                self.profile[item][label] = max(n, self.profile[item].get(label, 0))
                if label.startswith("step:"):
                    self.labels.add(label)
        bad = {c for c, _ in result["wrong"]}
        self.passed += len([c for c in CHECKS if c not in bad])
        self.failed += len(bad)
        self.wrong += [w[1] for w in result["wrong"]]
        if quiet:
            return
        s = result["spec"]
        left = sorted(self.short())
        print("%s %s %d (%s, %s, %s): %d kills, %.1f s; %d places to go%s" % (
            "not ok" if bad else "ok", s["kind"], s["seed"], s["partials"], s["durability"],
            "rich" if s["rich"] else "html", len(result["kills"]), result["seconds"], len(left),
            ": " + ", ".join(left) if 0 < len(left) < 5 else ""))
        for check, text in result["wrong"][:8]:
            print("    %s: %s" % (check, text[:1500]))
        if bad:
            describe(result)
        sys.stdout.flush()

    def run(self, enough, specials=("birth", "programs", "poison", "hours", "compact", "schedules"), quiet=False, days_max=DAYS_MAX, **more):
        """Days until enough() says so; more goes into what a day is told."""
        context = multiprocessing.get_context("fork")
        with concurrent.futures.ProcessPoolExecutor(JOBS, mp_context=context) as pool:
            running, n = set(), 0
            for kind in specials:
                for seed in (1, 2) if kind == "poison" else (1,):
                    spec = day_spec(seed - 1, {}, {}, self.program, self.shim, kind, seed)
                    spec.update(more, statements=sorted(self.labels))
                    running.add(pool.submit(run_day, spec))
            while running or not enough():
                while len(running) < JOBS and n < days_max and not enough():
                    # the first days learn what there is to hit
                    running.add(pool.submit(run_day, dict(day_spec(n, self.short(), {
                        k: dict(v) for k, v in self.profile.items()}, self.program, self.shim), **more)))
                    n += 1
                if not running:
                    break
                done, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for f in done:
                    self.take(f.result(), quiet)

    def histogram(self):
        print("deaths at each place (at least %d wanted):" % CELL_MIN)
        for group, names in (("turn states", STATES[:6]), ("outbox states", STATES[6:]), ("calls", CALLS),
                             ("statements", sorted(self.labels))):
            print("  %s" % group)
            for name in names:
                print("    %5d%s %s" % (self.cells[name], "  " if self.cells[name] >= CELL_MIN else " !", name))
        left = self.short()
        if left:
            self.failed += 1
            print("not ok: too few deaths at %d places: %s" % (len(left), ", ".join(sorted(left))))
        else:
            self.passed += 1


# ---- planted bugs --------------------------------------------------------------------------------

# What a hasty change could do. Each must be found by the days above: by their first items, or by a special one.
PLANTED_ITEMS = 10
PLANTED = [
    ("what cannot be taken back leaves before its commit", (), "modules/core/agent.c",
     "	if (commit(a) != OK) {\n",
     "	static int late;\n\n	if (a->after.head && a->phase == AGENT_READY) {\n		effects_run(&a->after);\n"
     "		late = 4;\n	}\n	if (late-- > 0) {\n		ev_defer(a->ev, &a->again);\n		return;\n"
     "	}\n	late = 0;\n	if (commit(a) != OK) {\n"),
    ("a reply that may have been sent is sent again without a word", (), "modules/core/store.c",
     "UPDATE outbox SET state = ?1, repeated = 1,", "UPDATE outbox SET state = ?1, repeated = 0,"),
    ("a tool that was running is run again", (), "modules/core/store.c",
     "UPDATE steps SET state = ?2, failed = 1, ended_at = ?4 WHERE turn_id = ?1 AND state = ?3",
     "UPDATE steps SET state = ?2 * 0, failed = 0, ended_at = ?4 WHERE turn_id = ?1 AND state = ?3 AND kind = 1"),
    ("the gateway answers before the commit", ("programs",), "modules/channel/gateway/request.c",
     "	if (r->a->phase != AGENT_STORAGE_FAILED && (!r->stored || r->a->db->in_tx)) {",
     "	if (r->a->phase == AGENT_DRAINING) {"),
    ("a job's time is taken, and what it asks is written in the next turn of the loop", ("schedules",), "modules/core/jobs.c",
     "	if (e == OK && j.due_at) {\n		n = passed(&j, now);\n		e = store_job_run(a->db, id, j.due_at, n, &fresh);\n	}\n",
     "	static int64_t taken;\n	static bool first;\n\n	if (e == OK && j.due_at && taken != j.due_at) {\n"
     "		taken = j.due_at;\n		e = store_job_run(a->db, id, taken, passed(&j, now), &first);\n"
     "		buf_free(&j.text);\n		return e;\n	}\n	n = passed(&j, now);\n	fresh = first;\n"),
    ("a call for what is due is not counted before it is made", ("schedules",), "modules/core/heartbeat.c",
     "	return mark(h, false);\n", "	return OK;\n"),
]


def build_planted(where, program, path, old, new):
    """The program with one text of its sources exchanged, built beside a copy of its objects."""
    tree = os.path.join(where, "tree")
    if not os.path.exists(tree):
        os.makedirs(tree)
        for name in ("modules", "scripts", "Makefile", "blufio.c"):
            source = os.path.join(ROOT, name)
            (shutil.copytree if os.path.isdir(source) else shutil.copy2)(source, os.path.join(tree, name))
        objects = os.path.dirname(os.path.abspath(program))
        if os.path.isdir(os.path.join(objects, "obj")):
            shutil.copytree(os.path.join(objects, "obj"), os.path.join(tree, "build", "obj"))
            for name in ("flags", "features.c", "features.o", "blufio.list", "lib.list", "deps.ok"):
                if os.path.exists(os.path.join(objects, name)):
                    shutil.copy2(os.path.join(objects, name), os.path.join(tree, "build", name))
    target = os.path.join(tree, path)
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        text = f.read()
    if text.count(old) != 1:
        raise AssertionError("%s: the place of the planted bug is not there" % path)
    with open(target, "w", encoding="utf-8") as f:
        f.write(text.replace(old, new))
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "BLUFIO", "B")}
    done = subprocess.run(["make", "-C", tree, "B=build", "all"], env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    shutil.copy2(os.path.join(ROOT, path), target)      # good again for the next one
    os.utime(target)
    if done.returncode != 0:
        raise AssertionError("the planted program does not build: %s" % done.stdout.decode()[-2000:])
    return os.path.join(tree, "build", "blufio")


def planted(shim, profile):
    """(found, missed) of the planted bugs."""
    found = missed = 0
    where = tempfile.mkdtemp(prefix="blufio-planted-")
    try:
        for name, specials, path, old, new in PLANTED:
            begin = time.monotonic()
            try:
                program = build_planted(where, binary(), path, old, new)
            except AssertionError as e:
                print("not ok planted: %s: %s" % (name, e))
                missed += 1
                continue
            c = Campaign(program, shim)
            for item, labels in profile.items():
                c.profile[item].update(labels)
            c.run(lambda: bool(c.wrong), specials, quiet=True, days_max=0 if specials else 16, items=PLANTED_ITEMS,
                  first=True)
            if c.wrong:
                found += 1
                print("ok planted: %s: found after %d days and %d kills (%.1f s): %s" % (
                    name, c.days, c.kills, time.monotonic() - begin, c.wrong[0][:160]))
            else:
                missed += 1
                print("not ok planted: %s: not found in %d days and %d kills" % (name, c.days, c.kills))
            sys.stdout.flush()
    finally:
        shutil.rmtree(where, ignore_errors=True)
    return found, missed


def main():
    shim = os.environ.get("KILLPOINT") or os.path.join(os.path.dirname(binary()), "killpoint.so")
    program = os.path.abspath(binary())
    if not os.access(program, os.X_OK) or not os.path.exists(shim):
        print("no %s or no %s; type `make kill`" % (program, shim))
        print("campaign.py: 0 passed, 1 failed, 0 skipped")
        return 1
    c = Campaign(program, os.path.abspath(shim))
    if len(sys.argv) > 2 and sys.argv[1] == "--day":
        spec = json.loads(sys.argv[2])
        spec.update(binary=program, shim=c.shim, short={}, profile={}, statements=sorted(c.labels))
        if spec["kind"] != "day":
            spec.pop("plan", None)
        c.take(run_day(spec))
        print("campaign.py: %d passed, %d failed, 0 skipped" % (c.passed, c.failed))
        return 1 if c.failed else 0
    begin = time.monotonic()
    if os.environ.get("PLANTED") != "only":
        c.run(lambda: c.kills >= KILLS and not c.short())
        c.histogram()
        print("%d kills in %d days, %.0f s; %d of them after the database was made" % (
            c.all_kills, c.days, time.monotonic() - begin, c.kills))
        if c.kills < KILLS:
            c.failed += 1
            print("not ok: %d kills were wanted" % KILLS)
    if os.environ.get("PLANTED") != "0":
        found, missed = planted(c.shim, c.profile)
        c.passed += found
        c.failed += missed
    print("campaign.py: %d passed, %d failed, 0 skipped" % (c.passed, c.failed))
    return 1 if c.failed else 0


if __name__ == "__main__":
    sys.exit(main())
