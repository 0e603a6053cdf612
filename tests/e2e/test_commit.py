# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_commit.py - nothing leaves before it is on disk, and a full disk loses nothing.

The shipped binary runs under tests/kill/killpoint.so, whose log has every
statement, write, sync and transfer in order. So "after the commit" is read off
the system calls, not believed.
"""
import atexit
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading

from harness import OWNER, ROOT, Skip, World, binary, main, wait_for

SECOND = 1002
REPEAT = "(This may be a repeat: I was interrupted while sending it.)"
DONE = 5
CASES_AT_A_TIME = 6         # each mostly waits for the daemon's next look at the disk
EX_IO = 74

_shim = []


def shim():
    """The library, built once; a test that cannot use it is skipped."""
    if not _shim:
        cc = shutil.which("cc")
        given = os.environ.get("KILLPOINT")
        if os.environ.get("BLUFIO_WRAP"):
            raise Skip("the shim does not run under a wrapper")
        if not given and not cc:
            raise Skip("no C compiler")
        if not given:
            where = tempfile.mkdtemp(prefix="blufio-shim-")
            atexit.register(shutil.rmtree, where, True)
            given = os.path.join(where, "killpoint.so")
            subprocess.check_call([cc, "-shared", "-fPIC", "-O2", "-o", given,
                                   os.path.join(ROOT, "tests/kill/killpoint.c"), "-ldl", "-lpthread"])
        if subprocess.run([binary(), "version"], env={"LD_PRELOAD": given}, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode != 0:
            raise Skip("this build does not take a preloaded library (a sanitizer?)")
        _shim.append(given)
    return _shim[0]


class Point:
    """One line of the shim's log."""

    def __init__(self, line):
        rest = line.split(" ", 1)[1]
        self.failed = " !" in rest[:110]
        self.worker = rest.endswith(" worker")
        m = re.match(r"((?:send|recv|sendmsg|write|writev):socket)(?: !)?(?: :(\d*) (.*))?\Z", rest)
        self.label = m.group(1) if m else rest.replace(" !", "").replace(" worker", "")
        self.port = int(m.group(2) or 0) if m else 0
        self.text = (m.group(3) or "") if m else ""

    def writes(self):
        return self.label.startswith(("step:INSERT", "step:UPDATE", "step:DELETE"))

    def final(self):
        """What a byte of this kind does cannot be taken back: its name, or ""."""
        if not self.label.startswith(("send", "write")) or not self.text.startswith("POST "):
            return ""
        if self.text.startswith("POST /v1/messages"):
            return "ask"
        m = re.match(r"POST /bot[^/ ]*/(\w+) ", self.text)
        if not m:
            return ""
        if m.group(1) == "getUpdates":
            # without an offset nothing is acknowledged
            return "acknowledge" if '"offset":' in self.text else ""
        return "say" if m.group(1) in ("sendMessage", "sendRichMessage", "editMessageText") else ""


def points(path, begin=0, end=None):
    with open(path, "rb") as f:
        data = f.read()[begin:end].decode("utf-8", "replace")
    return [Point(line) for line in data.splitlines() if " " in line]


def traced(w, **env):
    """Environment of a daemon that writes its points to w.points."""
    w.points = os.path.join(w.b.dir, "points")
    return dict({"KP_LOG": w.points, "KP_DETAIL": "1"}, **env)


# ---- (a) in this order -----------------------------------------------------------------------------


def check_order(log, power):
    """Counts what left; raises when something left before the commit it belongs to."""
    uncommitted = unsynced = received = False
    left = {"ask": 0, "acknowledge": 0, "say": 0}
    for i, p in enumerate(log):
        if p.worker:
            continue
        if p.writes():
            uncommitted = True
        elif p.label == "step:COMMIT":
            uncommitted, unsynced = False, True
            received = received and power
        elif p.label == "fdatasync:db-wal":
            unsynced = False
            received = received and uncommitted
        elif p.label == "recv:socket" and '"update_id":' in p.text:
            received = True
        elif p.final():
            state = ("an update that is not on disk" if received else "statements not committed" if uncommitted
                     else "a commit that is not synced" if unsynced and power else "")
            if state:
                raise AssertionError("point %d: %s with %s: %s" % (i, p.final(), state, p.text[:120]))
            left[p.final()] += 1
    return left


def order(power):
    so = shim()
    with World({"storage": {"durability": "power" if power else "process"}}, start=False, preload=so) as w:
        w.b.start(env=traced(w))
        for text in ("say one", "tools", "think say three", "/help", "words 9000"):
            w.say(text)
        w.wait(lambda: not w.b.query("SELECT 1 FROM turns WHERE state < 5"), "all done")
        left = check_order(points(w.points), power)
    # five messages, of which four ask (one twice) and all are answered
    assert left["ask"] == 5 and left["say"] >= 5 and left["acknowledge"] >= 5, left


def test_commit_before_every_final_byte():
    order(True)


def test_commit_before_every_final_byte_process():
    order(False)


def test_the_check_of_the_order_bites():
    """The same log with the syncs taken out is refused."""
    so = shim()
    with World(start=False, preload=so) as w:
        w.b.start(env=traced(w))
        w.say("say hello")
        log = points(w.points)
        check_order(log, True)
        for label in ("fdatasync:db-wal", "step:COMMIT"):
            try:
                check_order([p for p in log if p.label != label], True)
            except AssertionError:
                continue
            raise AssertionError("a log without %s passed" % label)


# ---- (b) what it costs --------------------------------------------------------------------------------


def test_many_sessions_one_sync():
    """Twenty people in one getUpdates: two commits, one sync, then twenty questions."""
    so, n = shim(), 20
    people = list(range(2001, 2001 + n))
    with World({"agent": {"max_sessions": n}, "telegram": {"allowed_users": people}, "cost": {"daily_budget_usd": 10}},
               start=False, preload=so) as w:
        gate = w.ai.hold_after_first_delta = threading.Event()
        for p in people:
            w.tg.add_chat(p)
            w.tg.send_text(p, "say hello %d" % p)
        w.b.start(env=traced(w))
        w.wait(lambda: len(w.ai.requests) == n, "every question")
        log = [p for p in points(w.points) if not p.worker]
        first = [i for i, p in enumerate(log) if '"update_id":' in p.text][0]
        last = [i for i, p in enumerate(log) if p.final() == "ask"][n - 1]
        span = [p.label for p in log[first:last]]
        assert span.count("step:COMMIT") == 2, span.count("step:COMMIT")
        assert span.count("fdatasync:db-wal") == 1, span.count("fdatasync:db-wal")
        gate.set()
        for p in people:
            w.wait(lambda: w.tg.texts(p) == ["hello %d" % p], "the answer of %d" % p)


# ---- (c) the disk is full, or broken ----------------------------------------------------------------------


def dumps_agree(w, where):
    """State in memory against what a start on a copy of the files loads."""
    code, live, err = w.b.cli("dump")
    assert code == 0, err
    there = tempfile.mkdtemp(dir=w.b.dir)
    db = os.path.join(there, "copy.db")
    shutil.copyfile(w.b.db_path + "-wal", db + "-wal")
    shutil.copyfile(w.b.db_path, db)
    with open(w.b.config_path, encoding="utf-8") as f:
        text = f.read().replace(w.b.db_path, db)
    path = os.path.join(there, "blufio.toml")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(path, 0o600)
    code, rest, err = w.b.cli("--config", path, "dump", "--at-rest")
    assert code == 0, err

    def plain(dump):
        dump = json.loads(dump)
        for item in dump["outbox"]:     # "sending" is "ready" where no channel runs
            item["state"] = item["state"].replace("sending", "ready")
        return dump
    assert plain(live) == plain(rest), "%s: in memory %s, on disk %s" % (where, live, rest)
    return plain(live)


def still(w):
    """Everything waits for the model, or nothing is left."""
    if w.tg.unconfirmed or w.b.query("SELECT 1 FROM outbox WHERE state < 2"):
        return False
    rows = w.b.query("SELECT t.state, (SELECT count(*) FROM steps s WHERE s.turn_id = t.id AND s.state = 1)"
                     " FROM turns t WHERE t.state < 5")
    queued = w.b.query("SELECT 1 FROM inbound i WHERE i.state = 0 AND NOT EXISTS (SELECT 1 FROM turns t WHERE"
                       " t.state < 5 AND t.session_id = i.session_id)")
    return not queued and all(r == (2, 1) for r in rows)


class Outage:
    """A short day in which the k-th call of a kind and all after it fail until it is over."""

    STEPS = (("one", [(OWNER, "say one")], False),
             ("held", [(OWNER, "say two"), (OWNER, "say three"), (SECOND, "say four")], True),
             ("end", [], False))

    def __init__(self, w, label, k, error, failures=1):
        self.w, self.name = w, "%s#%d:%s" % (label, k, error)
        self.outage = os.path.join(w.b.dir, "outage")
        self.armed = os.path.join(w.b.dir, "armed")
        self.env = traced(w, KP_ARM=self.armed)
        if label:
            self.env.update(KP_FAIL=self.name + ":inf", KP_FAIL_WHILE=self.outage)
        self.wanted, self.failures = failures, 0
        w.tg.add_chat(SECOND)

    def failed(self):
        return (not self.over and any("a write failed" in x for x in self.w.b.log_lines()) and
                sum(p.failed for p in points(self.w.points)) >= self.wanted)

    def run(self):
        w = self.w
        self.over = False
        open(self.outage, "w").close()
        w.b.start(env=self.env)
        w.wait(lambda: w.tg.polling, "a poll")
        open(self.armed, "w").close()
        gates = []
        for name, texts, hold in self.STEPS:
            if hold:
                gates.append(threading.Event())
                w.ai.hold_after_first_delta = gates[-1]
            elif gates:
                w.ai.hold_after_first_delta = None
                gates.pop().set()
            for user, text in texts:
                w.tg.send_text(user, text)
            w.wait(lambda: self.failed() or (still(w) and self.gone_on(hold)), "%s: %s" % (self.name, name))
            if self.failed():
                if not gates:
                    gates.append(threading.Event())
                    w.ai.hold_after_first_delta = gates[-1]
                self.recover()
                w.wait(lambda: still(w), "%s: %s, after the outage" % (self.name, name))
                dumps_agree(w, self.name)
                if not hold:
                    w.ai.hold_after_first_delta = None
                    gates.pop().set()
                    w.wait(lambda: still(w) and self.gone_on(False), "%s: %s, to its end" % (self.name, name))
            if hold:
                dump = dumps_agree(w, self.name)
                assert len(dump["sessions"]) == 2, dump
        self.check()
        return self.failures

    def gone_on(self, hold):
        return hold or not self.w.b.query("SELECT 1 FROM turns WHERE state < 5")

    def recover(self):
        w = self.w
        code, out, err = w.b.cli("status", "--json")
        status = json.loads(out)
        assert status["state"] == "storage failed" and status["storage"]["problem"], (self.name, out, err)
        assert [x for x in w.b.logs() if x["level"] == "error" and "df -h" in x["msg"]], self.name
        end = os.path.getsize(w.points)
        log = points(w.points, 0, end)
        first = [i for i, p in enumerate(log) if p.failed][0]
        late = [p.text[:100] for p in log[first:] if p.final()]
        assert late == [], "%s: left while nothing could be stored: %s" % (self.name, late)
        self.failures = sum(p.failed for p in log)
        self.over = True
        os.unlink(self.outage)
        w.b.wait_log("works again")

    def check(self):
        w = self.w
        for user, want in ((OWNER, ["one", "two", "three"]), (SECOND, ["four"])):
            got, last = [], None
            for text in w.tg.texts(user):
                marked = text.startswith(REPEAT)
                text = text.replace(REPEAT, "").strip()
                if not (marked and text == last):
                    got.append(text)
                last = text
            assert got == want, (self.name, user, w.tg.texts(user))
        assert not w.b.query("SELECT 1 FROM turns WHERE state < 5 OR outcome <> 1"), self.name
        booked = w.b.query("SELECT count(*) FROM cost_ledger WHERE estimated = 0")
        assert booked == [(4,)], (self.name, booked)
        code, out, _ = w.b.cli("status", "--json")
        assert json.loads(out)["state"] == "running", (self.name, out)


def outage(label, k, error, failures=1):
    with World({"telegram": {"allowed_users": [OWNER, SECOND]}}, start=False, preload=shim()) as w:
        return Outage(w, label, k, error, failures).run()


def commits_of_a_day():
    """(number of the first log write of each commit, number of syncs) on a day without an outage."""
    with World({"telegram": {"allowed_users": [OWNER, SECOND]}}, start=False, preload=shim()) as w:
        Outage(w, "", 0, "").run()
        log = points(w.points)
    writes, commits, wants = 0, [], False
    for p in log:
        wants = wants or p.label == "step:COMMIT"
        if p.label == "pwrite:db-wal":
            writes += 1
            if wants:
                commits.append(writes)
                wants = False
    return commits, sum(p.label == "fdatasync:db-wal" and not p.worker for p in log)


def outages(cases):
    assert len(cases) >= 8, cases
    with concurrent.futures.ThreadPoolExecutor(CASES_AT_A_TIME) as pool:
        done = [pool.submit(outage, *case) for case in cases]
        failures = [f.result() for f in done]
    # the order of events differs a little from day to day: a last point may not be reached
    assert sum(n > 0 for n in failures) >= len(cases) * 3 // 4, (cases, failures)


def test_full_disk_at_every_commit():
    commits, _ = commits_of_a_day()
    outages([("pwrite:db-wal", k, "ENOSPC") for k in commits])


def test_broken_disk_at_every_sync():
    _, syncs = commits_of_a_day()
    outages([("fdatasync:db-wal", k, "EIO") for k in range(1, syncs + 1)])


def test_broken_disk_in_mid_commit():
    """Writes that fail behind the first frame: half a commit is none."""
    commits, _ = commits_of_a_day()
    outages([("pwrite:db-wal", k + 3, "EIO") for k in commits])


def test_long_outage():
    """It tries again every second, and says nothing to anybody meanwhile."""
    assert outage("pwrite:db-wal", 1, "ENOSPC", failures=3) >= 3


# ---- (d) a disk that is full from the start ------------------------------------------------------------------


def test_full_disk_at_start():
    """Whatever cannot be written first: exit code 74, one sentence, and a good start later."""
    so = shim()
    with World(start=False, preload=so) as w:
        for label in ("pwrite:db", "fdatasync:db", "pwrite:db-journal#1", "pwrite:db-wal", "fdatasync:db-wal",
                      "step:COMMIT"):
            rule = label if "#" in label else label + "#1"
            for end in ("", "-wal", "-shm", "-journal"):
                if os.path.exists(w.b.db_path + end):
                    os.unlink(w.b.db_path + end)
            code, out, err = w.b.cli("serve", env={"LD_PRELOAD": so, "KP_FAIL": rule + ":ENOSPC:inf"}, timeout=20)
            lines = [x for x in (out + err).splitlines() if x.startswith("blufio: ")]
            assert code == EX_IO and len(lines) == 1 and w.b.db_path in lines[0], (label, code, out, err)
        w.b.start()
        assert w.say("say now") == "now"


if __name__ == "__main__":
    main(globals())
