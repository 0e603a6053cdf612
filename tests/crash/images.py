# SPDX-License-Identifier: MIT OR Apache-2.0
"""images.py - what a power failure leaves, at every sync and between: nothing the outside saw is missing.

blufio-crash (vfs.c) writes down every write, truncation, sync and deletion of
the database, its log and its journal while a scripted day passes between the
fakes. From that record images of the disk are built: what was synced is there;
of what came later nothing, all, each beginning, all but one, random choices,
and writes torn at sectors of 512 bytes. In each image SQLite must recover a
sound database in which stands whatever the outside had seen by then: the row
of an update that was acknowledged to Telegram, the step of a call that the
provider received, the outbox row of a message that Telegram received. The
fakes' times and those of the record are both CLOCK_MONOTONIC. On some images
the shipped program is started and has to finish the day.

With durability "process" the same holds for all writes up to a point, and a
power failure must leave the file sound. At last bugs are planted (a disk or a
program that does not sync), and each must be found. Then, on a short day, each
write and each sync fails once: the daemon goes on by itself, or ends with 70
or 74 and a sentence, and a start answers everything.

    CRASH_MAX=n     at most n images of a day, n / 60 starts of each kind, n / 60 writes that fail
    CRASH=path      the program (build/tests/crash/blufio-crash)
"""
import concurrent.futures
import copy
import os
import random
import re
import shutil
import sqlite3
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))

from harness import FakeAnthropic, FakeTelegram, World, binary, clean_up  # noqa: E402
from fake_anthropic import default_answer  # noqa: E402
from test_telegram import photo, png  # noqa: E402

CRASH = os.environ.get("CRASH") or os.path.join(ROOT, "build/tests/crash/blufio-crash")
CRASH_MAX = int(os.environ.get("CRASH_MAX") or 0)
SHARE_OF_POINTS = 60        # an image takes milliseconds, a point of failure seconds
STARTS = 24
AT_A_TIME = 3               # daemons, each of which mostly waits
RANDOM_SUBSETS = 8          # of each kind at each crash point
SECTOR = 512
MENDING = 80                # calls behind a failed sync that are looked at closely
ANN, BEN = 1001, 1002
REPEAT = "(This may be a repeat: I was interrupted while sending it.)"
WRITE, TRUNCATE, SYNC, DELETE, SWALLOWED = range(5)
DB, WAL, JOURNAL = range(3)
SUFFIX = ["", "-wal", "-journal"]
RECORD = struct.Struct("=QBBBBIq")
EX_SOFTWARE, EX_IO = 70, 74
ANSWERED, STOPPED = 1, 2


# ---- the record of a day --------------------------------------------------------------------


class Op:
    """One call: its time, what, of which file, whether it failed, where, the bytes."""

    def __init__(self, ns, op, kind, failed, at, data):
        self.ns, self.op, self.kind, self.failed, self.at, self.data = ns, op, kind, failed, at, data

    def changes(self):
        return self.op in (WRITE, TRUNCATE, DELETE)

    def apply(self, content, sectors=None):
        """The file (None: there is none) after the call; only these sectors of a write, if given."""
        if self.op == DELETE:
            return content if self.failed else None
        if self.op == TRUNCATE:
            if not self.failed and content is not None:
                del content[self.at:]
                content.extend(bytes(self.at - len(content)))
            return content
        content = bytearray() if content is None else content
        if not self.data:
            return content
        end = self.at + len(self.data)
        if len(content) < end:          # the length may be there before the bytes are
            content.extend(bytes(end - len(content)))
        if sectors is None:
            content[self.at:end] = self.data
            return content
        for s in sectors:
            a, b = max(self.at, s * SECTOR), min(end, (s + 1) * SECTOR)
            content[a:b] = self.data[a - self.at:b - self.at]
        return content

    def sectors(self):
        return range(self.at // SECTOR, (self.at + len(self.data) - 1) // SECTOR + 1) if self.data else range(0)


def read_log(path):
    if not os.path.exists(path):
        return []
    with open(path, "rb") as f:
        data = f.read()
    ops, i = [], 0
    while i + RECORD.size <= len(data):
        ns, op, kind, failed, _, n, at = RECORD.unpack_from(data, i)
        i += RECORD.size
        if i + n > len(data):           # being written just now
            break
        if kind < len(SUFFIX):
            ops.append(Op(ns, op, kind, failed, at, data[i:i + n]))
        i += n
    return ops


# ---- what the outside saw --------------------------------------------------------------------


def number_of(text):
    found = re.match(r"#\d{3}", text)
    return found.group(0) if found else ""


def key_of(body):
    """(message number, round) of a request: its newest numbered text, tool results after it."""
    number, rounds = "", 0
    for m in body["messages"]:
        blocks = m["content"] if isinstance(m["content"], list) else [{"type": "text", "text": m["content"]}]
        if m["role"] != "user":
            continue
        for b in blocks:
            if b["type"] == "text" and number_of(b["text"]):
                number, rounds = number_of(b["text"]), 0
        rounds += any(b["type"] == "tool_result" for b in blocks)
    return number, rounds


def owed(events):
    """Numbers of messages that were sent and of which the model has not been asked."""
    sent = [e[3].get("message", {}) for e in events if e[1] == "pushed"]
    return {number_of(m.get("text") or m.get("caption", "")) for m in sent} - {e[2] for e in events if e[1] == "asked"} - {""}


def words_of(text):
    return " ".join(text.replace("`", "").split())


class Seen:
    """(time, what, ...) in order: "pushed" and "acknowledged" updates, "asked" and "told"."""

    def __init__(self):
        self.events = []

    def add(self, *event):
        self.events.append((time.monotonic_ns(),) + event)

    def before(self, ns):
        return [e for e in self.events if e[0] < ns]


class Telegram(FakeTelegram):
    def __init__(self, seen):
        self.seen = seen
        super().__init__(seed=11)
        for user in (ANN, BEN):
            self.add_chat(user)

    def push_update(self, update):
        with self.cond:
            number = super().push_update(update)
            self.seen.add("pushed", number, self.pending[-1])
            return number

    def confirm(self, offset):
        n = len(self.received_updates)
        super().confirm(offset)
        for update in self.received_updates[n:]:
            self.seen.add("acknowledged", str(update))

    def store(self, chat, p, content):
        text = content["text"]
        self.seen.add("repeated" if REPEAT in text else "told", str(chat["id"]), words_of(text.replace(REPEAT, "")))
        return super().store(chat, p, content)


class Anthropic(FakeAnthropic):
    def __init__(self, seen):
        self.seen = seen
        super().__init__()
        self.script = lambda ask: default_answer(ask, re.sub(r"\A#\d{3} ", "", ask.text))

    def messages(self, conn, request, request_id, body, check):
        self.seen.add("asked", *key_of(body))
        return super().messages(conn, request, request_id, body, check)


def missing(path, events):
    """What is wrong with the database at path, the outside having seen these events: (check, text)."""
    wrong = []
    c = sqlite3.connect(path)
    try:
        ok = [r[0] for r in c.execute("PRAGMA integrity_check")]
        ok += ["row %s of %s refers to nothing" % (r[1], r[0]) for r in c.execute("PRAGMA foreign_key_check")]
        if ok != ["ok"]:
            return [("integrity", "; ".join(ok[:2]))]
        stored, asked, outbox = set(), set(), Counter()
        if c.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('inbound', 'steps', 'outbox')").fetchone()[0] == 3:
            stored = {r[0].split(":")[0] for r in c.execute("SELECT dedup FROM inbound")}
            asked = {(number_of(r[0]), r[1]) for r in c.execute(
                "SELECT i.text, s.round FROM steps s JOIN turns t ON t.id = s.turn_id JOIN inbound i ON"
                " i.id = t.inbound_id WHERE s.kind = 0")}
            outbox = Counter((r[0], words_of(r[1])) for r in c.execute("SELECT chat, text FROM outbox"))
    except sqlite3.DatabaseError as e:
        return [("integrity", str(e))]
    finally:
        c.close()
    told = Counter()
    for e in events:
        if e[1] == "acknowledged" and e[2] not in stored:
            wrong.append(("seen", "update %s was acknowledged and is not there" % e[2]))
        elif e[1] == "asked" and e[2:] not in asked:
            wrong.append(("seen", "the model was asked for %s, round %d, and no step says so" % e[2:]))
        elif e[1] == "told":
            told[e[2:]] += 1
        elif e[1] == "repeated":        # of the same row
            told[e[2:]] = max(told[e[2:]], 1)
    wrong += [("seen", "%s was told %r and the outbox does not know" % (k[0], k[1][:60]))
              for k, n in told.items() if outbox[k] < n]
    return wrong


# ---- images -------------------------------------------------------------------------------------


class Disk:
    """The files while the record is played: what is safe, and what came after."""

    def __init__(self):
        self.safe = [None] * len(SUFFIX)
        self.pending = []               # calls behind the last sync of their file, in order

    def play(self, op):
        if op.changes():
            self.pending.append(op)
        elif op.op == SYNC and not op.failed:
            # the first sync of a new file syncs its directory too, so what was deleted stays so
            names = op.kind != DB and self.safe[op.kind] is None
            left = []
            for p in self.pending:
                if p.kind == op.kind or (names and p.op == DELETE):
                    self.safe[p.kind] = p.apply(self.safe[p.kind])
                else:
                    left.append(p)
            self.pending = left
        elif op.op == SYNC:
            # the kernel may have dropped what it could not write, and the next sync knows nothing of it
            self.pending = [p for p in self.pending if p.kind != op.kind]

    def choices(self, rng, everything):
        """Which of the pending calls reached the disk: name, {index: sectors or None}."""
        n = len(self.pending)
        whole = {i: None for i in range(n)}
        yield "all", whole
        if not n:
            return
        last = self.pending[-1]
        if len(last.sectors()) > 1:
            yield "torn", {**whole, n - 1: rng.sample(last.sectors(), len(last.sectors()) // 2)}
        if not everything:
            return
        yield "none", {}
        for i in range(1, n):
            yield "prefix", {k: None for k in range(i)}
        for i in range(n - 1):
            yield "drop-one", {k: None for k in whole if k != i}
        for _ in range(RANDOM_SUBSETS if n > 2 else 0):
            yield "subset", {k: None for k in whole if rng.random() < 0.5}
        torn = [i for i in range(n) if len(self.pending[i].sectors()) > 1]
        for _ in range(RANDOM_SUBSETS if torn else 0):
            i = rng.choice(torn)
            sectors = self.pending[i].sectors()
            yield "torn", {**{k: None for k in whole if k < i or rng.random() < 0.5},
                           i: rng.sample(sectors, rng.randrange(1, len(sectors)))}

    def write(self, choice, path):
        for kind, suffix in enumerate(SUFFIX):
            content = None if self.safe[kind] is None else bytearray(self.safe[kind])
            for i, op in enumerate(self.pending):
                if op.kind == kind and i in choice:
                    content = op.apply(content, choice[i])
            if content is not None:
                with open(path + suffix, "wb") as f:
                    f.write(content)
            elif os.path.exists(path + suffix):
                os.unlink(path + suffix)
        if os.path.exists(path + "-shm"):
            os.unlink(path + "-shm")


class Images:
    """Every image of a day: power failures, or deaths of the process (all that was written is there)."""

    def __init__(self, day, power=True, sound_only=False, seed=1):
        self.ops, self.seen, self.power, self.sound_only, self.seed = day.ops, day.seen, power, sound_only, seed
        self.points = self.built = 0
        self.kinds, self.wrong = Counter(), []

    def candidates(self):
        """(position, name, choice, disk), in order; position p: the machine stops before the p-th call."""
        rng, disk, known = random.Random(self.seed), Disk(), 0
        for p in range(len(self.ops) + 1):
            op = self.ops[p] if p < len(self.ops) else None
            events = len(self.events(p))
            # what was seen since the call before must not need what is only pending
            point = op is None or op.op in (SYNC, SWALLOWED, DELETE) or events > known
            known = events
            self.points += op is not None and op.op in (SYNC, SWALLOWED)
            for name, choice in disk.choices(rng, point and self.power):
                if self.power or name == "all":
                    yield p, name, choice, disk
            if op is not None:
                disk.play(op)

    def events(self, p):
        return self.seen.before(self.ops[p].ns if p < len(self.ops) else float("inf"))

    def check(self, most=0, until=None):
        """Builds and looks at them; most: an even choice of so many. until(self): stop early."""
        total = sum(1 for _ in self.candidates())
        self.points = 0
        step = max(1.0, total / most) if most else 1.0
        where = tempfile.mkdtemp(prefix="blufio-image-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        path, due = os.path.join(where, "blufio.db"), 0.0
        try:
            for n, (p, name, choice, disk) in enumerate(self.candidates()):
                if n < due:
                    continue
                due += step
                disk.write(choice, path)
                self.built += 1
                self.kinds[name] += 1
                wrong = missing(path, self.events(p))
                if self.sound_only:
                    wrong = [w for w in wrong if w[0] == "integrity"]
                self.wrong += [(check, "before call %d of %d, %s: %s" % (p, len(self.ops), name, text))
                               for check, text in wrong]
                if until and until(self):
                    break
        finally:
            shutil.rmtree(where)
        return self

    def save(self, wanted, where):
        """Some images as files: (folder, position). For starts, one of which at least has the model to ask."""
        rng, positions = random.Random(self.seed), [p for p, _, _, _ in self.candidates()]
        owing = {p for p in set(positions) if owed(self.events(p))}
        chosen = rng.sample(range(len(positions)), min(wanted, len(positions)))
        if not any(positions[n] in owing for n in chosen):
            chosen[0] = rng.choice([n for n, p in enumerate(positions) if p in owing])
        out = []
        for n, (p, name, choice, disk) in enumerate(self.candidates()):
            if n in chosen:
                folder = os.path.join(where, str(n))
                os.mkdir(folder)
                disk.write(choice, os.path.join(folder, "blufio.db"))
                out.append((folder, p, name))
        return out


# ---- days ---------------------------------------------------------------------------------------


def program(name):
    """The daemons that are started from now on."""
    os.environ["BLUFIO"] = name
    os.environ.pop("BLUFIO_BIN", None)


class Day:
    """A World under the recording program."""

    def __init__(self, durability="power", env=None):
        self.seen = Seen()
        self.w = World({"storage": {"durability": durability}, "telegram": {"allowed_users": [ANN, BEN]}},
                       start=False, tg=Telegram(self.seen), ai=Anthropic(self.seen))
        self.log = os.path.join(self.w.b.dir, "calls")
        self.env = dict({"CRASH_LOG": self.log}, **(env or {}))
        self.ops = []

    def rest(self):
        """Nothing is open, and nothing waits at Telegram."""
        w = self.w
        return not w.tg.unconfirmed and not w.b.query("SELECT 1 FROM turns WHERE state < 5 UNION ALL SELECT 1 FROM"
                                                      " inbound WHERE state = 0 UNION ALL SELECT 1 FROM outbox"
                                                      " WHERE state < 2")

    def say(self, *pairs):
        n = len(self.w.tg.messages())
        for user, text in pairs:
            self.w.tg.send_text(user, text)
        self.w.wait(lambda: len(self.w.tg.messages()) >= n + len(pairs) and self.rest(), "answers to %r" % (pairs,))

    def folded(self):
        """A quiet time: the log is folded into the file by the thread for that."""
        self.w.wait(lambda: [op for op in read_log(self.log)[-1:] if op.kind == DB and
                             op.op in (SYNC, SWALLOWED)], "a checkpoint")

    def run(self):
        w = self.w
        w.b.start(env=self.env)
        self.say((ANN, "#001 say hello"), (BEN, "#002 words 150"))
        self.say((ANN, "#003 tools"))
        self.say((ANN, "/new"))
        self.folded()
        self.say((ANN, "#004 say fresh"))
        gate = w.ai.hold_after_first_delta = threading.Event()
        n = len(w.ai.requests)
        w.tg.send_text(BEN, "#005 words 300")
        w.wait(lambda: len(w.ai.requests) > n, "the question")
        self.say((BEN, "/stop"))
        gate.set()
        w.ai.hold_after_first_delta = None
        n = len(w.tg.messages())
        w.tg.push_update({"message": w.tg.user_message(ANN, **photo(w, png(), "#006 what is this?"))})
        w.wait(lambda: len(w.tg.messages()) > n and self.rest(), "words on the photo")
        self.folded()
        self.say((BEN, "#007 say bye"))
        code = w.b.stop()
        assert code == 0, code
        w.check()
        self.ops = read_log(self.log)
        writes = [op for op in self.ops if op.op == WRITE]
        assert {op.kind for op in writes} >= {DB, WAL} and any(op.op in (SYNC, SWALLOWED) for op in self.ops)
        return self


def start_on(image, day):
    """The shipped program on an image: it finishes what is there and what Telegram still has."""
    folder, p, name = image
    events = day.seen.before(day.ops[p].ns if p < len(day.ops) else float("inf"))
    acknowledged = {e[2] for e in events if e[1] == "acknowledged"}
    seen = Seen()
    with World({"telegram": {"allowed_users": [ANN, BEN]}}, start=False, tg=Telegram(seen),
               ai=Anthropic(seen)) as w:
        for entry in os.listdir(folder):
            shutil.copy(os.path.join(folder, entry), w.b.dir)
        media = os.path.join(day.w.b.dir, "media")
        if os.path.isdir(media):
            shutil.copytree(media, os.path.join(w.b.dir, "media"))
        w.tg.files, w.tg.counters = dict(day.w.tg.files), dict(day.w.tg.counters)
        w.tg.log += [m for m in day.w.tg.log if not m["bot"]]       # what replies refer to
        for e in events:
            if e[1] == "pushed" and str(e[2]) not in acknowledged:
                w.tg.push_update(e[3])
        w.b.start()
        w.wait(lambda: w.tg.polling and not w.tg.unconfirmed and not w.b.query(
            "SELECT 1 FROM turns WHERE state < 5 UNION ALL SELECT 1 FROM inbound WHERE state = 0 UNION ALL"
            " SELECT 1 FROM outbox WHERE state < 2"), "the end of the day of call %d, %s" % (p, name))
        code, out, err = w.b.cli("status", "--json")
        assert code == 0 and '"state":"running"' in out.replace(" ", ""), (code, out, err)
        pushed = sorted(str(e[2]) for e in events if e[1] == "pushed")
        stored = sorted(r[0].split(":")[0] for r in w.b.query("SELECT dedup FROM inbound"))
        assert stored == pushed, "call %d, %s: stored %s, of %s" % (p, name, stored, pushed)
        odd = w.b.query("SELECT id, outcome FROM turns WHERE outcome NOT IN (?1, ?2)", ANSWERED, STOPPED)
        assert not odd, "call %d, %s: outcomes %s" % (p, name, odd)
        left = owed(events) - {e[2] for e in seen.events if e[1] == "asked"}
        assert not left, "call %d, %s: the model was not asked for %s" % (p, name, left)
        return len(w.ai.requests)


# ---- each write and each sync fails once -----------------------------------------------------------

SHORT = [(ANN, "#001 say one"), (BEN, "#002 tools"), (ANN, "#003 say three")]


def short_day(fail=None):
    """(day, name of the end) of three messages, during which one call fails."""
    day = Day(env={"CRASH_FAIL": fail} if fail else None)
    w = day.w
    ends = []

    def ended(code):
        """It has ended: that takes a code and a sentence, and happens once; then it starts anew."""
        said = [x for x in w.b.log_lines(running=True) if x.startswith("blufio: ") or '"level":"error"' in x]
        assert fail and code in (EX_IO, EX_SOFTWARE) and said, "%s: ended with %d, saying %s" % (fail, code, said)
        ends.append(code)
        assert len(ends) == 1, "%s: ended twice" % fail
        w.b.start(wait=False, env={"CRASH_LOG": day.log})

    def alive():
        if not w.b.running():
            ended(w.b.wait_exit())
        return True

    w.b.start(wait=False, env=day.env)
    w.wait(lambda: alive() and w.tg.polling, "%s: a poll" % fail)
    for i, (user, text) in enumerate(SHORT):
        n = len(w.tg.messages(user))
        w.tg.send_text(user, text)
        w.wait(lambda: alive() and len(w.tg.messages(user)) > n and day.rest(), "%s: an answer to %s" % (fail, text))
        if i == 1:
            w.wait(lambda: alive() and [op for op in read_log(day.log)[-1:] if op.kind == DB and op.op == SYNC],
                   "%s: a checkpoint" % fail)
    code = w.b.stop()
    if code != 0:
        ended(code)
        w.wait(lambda: w.tg.polling and day.rest(), "%s: rest after the end" % fail)
        assert w.b.stop() == 0, fail
    w.check()
    for user, want in ((ANN, ["one", "three"]), (BEN, ["Let me look."])):
        got, last = [], None
        for text in w.tg.texts(user):
            bare = text.replace(REPEAT, "").strip()
            if not (REPEAT in text and bare == last):
                got.append(bare)
            last = bare
        assert len(got) == len(want) and all(g.startswith(x) for g, x in zip(got, want)), (fail, user, got)
    day.ops = read_log(day.log)
    return day, ("%d" % ends[0] if ends else "went on")


def forget(day):
    day.w.cleanup()
    day.w.b.cleanup()


def point_of_failure(fail):
    """One of them: how it ended, and images at whatever the outside saw after the failure."""
    day, end = short_day(fail)
    try:
        failed = [p for p, op in enumerate(day.ops) if op.failed and op.op != DELETE]
        if not failed:
            return "not reached", 0
        images = Images(day)
        after, path = [], os.path.join(day.w.b.dir, "image.db")
        known = -1
        for p, name, choice, disk in images.candidates():
            events = len(images.events(p))
            # behind a failed sync what the daemon does to mend it must be safe at each step
            close = day.ops[failed[0]].op == SYNC and p <= failed[0] + MENDING
            if p > failed[0] and (close or (name in ("all", "none") and events != known)):
                disk.write(choice, path)
                after += missing(path, images.events(p))
                images.built += 1
                known = events if name == "none" or not disk.pending else known
        assert not after, "%s: %s" % (fail, after[:3])
        return end, images.built
    finally:
        forget(day)


# ---- the whole ----------------------------------------------------------------------------------------


class Tally:
    def __init__(self):
        self.passed = self.failed = 0

    def part(self, name, function):
        begin = time.monotonic()
        try:
            said = function()
            self.passed += 1
            print("ok %s: %s (%.1f s)" % (name, said, time.monotonic() - begin))
        except Exception:
            self.failed += 1
            print("not ok %s (%.1f s)\n%s" % (name, time.monotonic() - begin, traceback.format_exc()))
        sys.stdout.flush()


def sound(images):
    assert images.built and images.points, "nothing was looked at"
    assert not images.wrong, "%d of %d images: %s" % (len(images.wrong), images.built,
                                                      "\n".join("%s: %s" % w for w in images.wrong[:8]))
    return "%d sync points, %d images (%s)" % (images.points, images.built, ", ".join(
        "%s %d" % kv for kv in images.kinds.most_common()))


def power_failures(day):
    return sound(Images(day).check(CRASH_MAX))


def process_deaths(day):
    return sound(Images(day, power=False).check(CRASH_MAX))


def power_failures_leave_it_sound(day):
    return sound(Images(day, sound_only=True).check(CRASH_MAX // 4))


def starts(day, power=True):
    where = tempfile.mkdtemp(prefix="blufio-starts-")
    try:
        images = Images(day, power).save(min(STARTS, max(1, CRASH_MAX // SHARE_OF_POINTS)) if CRASH_MAX else STARTS, where)
        with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
            asked = list(pool.map(lambda image: start_on(image, day), images))
        assert any(asked), "none had anything left to do"
        return "%d starts, each finished its day; %d had the model to ask again" % (len(images), sum(n > 0 for n in asked))
    finally:
        shutil.rmtree(where)


def found(day, check, note):
    """The images of a planted bug must show it."""
    images = Images(day).check(CRASH_MAX, lambda x: any(w[0] in check for w in x.wrong))
    hits = [w for w in images.wrong if w[0] in check]
    assert hits, "%s was not found in %d images" % (note, images.built)
    return "found after %d images: %s: %s" % (images.built, hits[0][0], hits[0][1])


def without_syncs(day, kind):
    """The same day on a disk that ignores syncs of one file, once there is a log."""
    out = copy.copy(day)
    first = [op.op == SYNC and op.kind == WAL for op in day.ops].index(True)
    out.ops = day.ops[:first] + [Op(op.ns, SWALLOWED, op.kind, 0, 0, b"") if op.op == SYNC and op.kind == kind else op
                                 for op in day.ops[first:]]
    return out


def failures():
    day, _ = short_day()
    counts = [sum(op.op == WRITE for op in day.ops), sum(op.op == SYNC for op in day.ops)]
    forget(day)
    writes = ["write:%d:%s" % (n + 1, e) for n in range(counts[0]) for e in ("FULL", "IOERR")]
    syncs = ["sync:%d:IOERR" % (n + 1) for n in range(counts[1])]
    if CRASH_MAX:
        writes = random.Random(1).sample(writes, min(len(writes), max(1, CRASH_MAX // SHARE_OF_POINTS)))
    points = writes + syncs
    ends, images, wrong = Counter(), 0, []
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        for one in [pool.submit(point_of_failure, point) for point in points]:
            try:
                end, n = one.result()
                ends[end] += 1
                images += n
            except AssertionError as e:
                wrong.append(str(e))
    assert not wrong, "%d of %d points: %s" % (len(wrong), len(points), "\n".join(wrong[:8]))
    reached = sum(ends.values()) - ends["not reached"]
    # the number of writes differs a little from day to day: a last point may not be reached
    assert reached >= len(points) * 3 // 4 and images, ends
    return "%d points of %d writes and %d syncs, %d images: %s" % (
        reached, counts[0], counts[1], images, ", ".join("%s %d" % kv for kv in ends.most_common()))


def main():
    shipped, t = binary(), Tally()
    days = {}

    def live(name, *args):
        program(CRASH)
        days[name] = Day(*args).run()
        program(shipped)
        return "%d calls, %d events" % (len(days[name].ops), len(days[name].seen.events))

    try:
        t.part("a day, power", lambda: live("power"))
        t.part("power failures", lambda: power_failures(days["power"]))
        t.part("starts", lambda: starts(days["power"]))
        t.part("a day, process", lambda: live("process", "process"))
        t.part("deaths of the process", lambda: process_deaths(days["process"]))
        t.part("starts after a death", lambda: starts(days["process"], False))
        t.part("power failures, process", lambda: power_failures_leave_it_sound(days["process"]))
        t.part("a day without syncs", lambda: live("nosync", "power", {"CRASH_NOSYNC": "1"}))
        t.part("planted: syncs are swallowed", lambda: found(days["nosync"], ("seen",), "a disk without syncs"))
        t.part("planted: the log is not synced", lambda: found(
            without_syncs(days["power"], WAL), ("seen",), "a log without syncs"))
        t.part("planted: the file is not synced", lambda: found(
            without_syncs(days["power"], DB), ("seen", "integrity"), "a checkpoint without a sync"))
        program(CRASH)
        t.part("each write and sync fails", failures)
    finally:
        clean_up()
    print("crash: %d passed, %d failed, 0 skipped" % (t.passed, t.failed))
    return 1 if t.failed or not t.passed else 0


if __name__ == "__main__":
    sys.exit(main())
