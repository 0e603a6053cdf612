# SPDX-License-Identifier: MIT OR Apache-2.0
"""schedules.py - standing instructions, jobs and checklists in a day of campaign.py.

The daemon's clock is ahead of ours (KP_CLOCK): while it is down the clock goes to
just before the next minute, so that what is due then comes while it runs, dies and
is started again. A word (/rules, /job) that is stored is done, and done once. Each
minute of a job has one row, one message and one answer, and no minute is left out:
a row says how many passed with it, and the next one begins there. An item of a
checklist is told once, known to the model of its conversation once, and asked for
three times at most, then never again.
"""
import json
import os
import re
import time
from collections import Counter

MINUTE = 60 * 10**6
BEFORE = 300 * 1000         # microseconds to the minute, enough for most starts
CLOCK_SLACK = 5 * 10**6     # between two looks at a clock in one loop turn
TRIES = 3                   # calls for an item
ROUNDS = 6                  # of two deaths at each of some statements
WILD_ROUNDS = 12            # of two deaths anywhere
DEATHS_AT = 11              # at a statement
ANN, BEN = 1001, 1002       # Ann is told at once, Ben in front of the next answer
ANYWHERE = {"step:COMMIT": 8, "step:BEGIN IMMEDIATE": 8, "epoll": 24, "send:socket": 10, "recv:socket": 16, "pwrite:db-wal": 20}
FRONT = "\n\n---\n\n"
SAID = "Due now: "
FOLLOWS = {"/rules add": "From now on, and in every conversation of yours:\n%d. ", "/rules remove": "Instruction %d no longer holds.",
           "/job add": "Job %d: next ", "/job at": "Job %d: once, ", "/job remove": "Job %d is gone."}


def is_unasked(body):
    """A checklist's question: no other wants a value."""
    return "format" in body.get("output_config", {})


def items_of(body):
    return re.findall(r"^- (.*)$", body["messages"][0]["content"][0]["text"].partition("\n\nThe newest lines")[0], re.M)


def speak(body):
    return json.dumps({"notify": True, "message": SAID + "; ".join(items_of(body))})


def said_items(text):
    return text[len(SAID):].split("; ")


def moment(us):
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(us // 10**6))


class Schedules:
    """A part of class Day."""

    def begin_schedules(self):
        self.ahead = 0              # microseconds
        self.scheduled = False
        self.lists = {ANN: [], BEN: []}
        self.given_up = set()
        self.told_at = {}           # item -> requests before the death that found it told
        self.taken = {}             # (job, time) -> the row that a death found
        self.notes = []             # what stood in front of answers

    # -- the day ---------------------------------------------------------------------------------

    def up(self):
        self.launch(None, False)

    def down(self):
        self.kill()
        self.b.wait_exit()
        self.b.wait_no_orphans(5)
        self.inspect()

    def now(self):
        return time.time_ns() // 1000 + self.ahead

    def minute(self):
        """While it is down: the next minute is about to come. Its moment."""
        now = self.now() + BEFORE
        self.ahead += MINUTE - now % MINUTE
        return moment(now + MINUTE - now % MINUTE)

    def add_item(self, user, at):
        item = "Item %03d @%s" % (1 + sum(len(x) for x in self.lists.values()), at)
        self.lists[user].append(item)
        with open(os.path.join(self.b.dir, "%d.md" % user), "w", encoding="utf-8") as f:
            f.writelines("- [ ] %s\n" % x for x in self.lists[user])
        return item

    def all_told(self):
        """Every item that is due is done with."""
        rows = self.look("SELECT count(*) FROM heartbeat_items WHERE told = 1")
        return rows and rows[0][0] == sum(len(x) for x in self.lists.values()) and self.quiet()

    def nothing_due(self):
        rows = self.look("SELECT count(*) FROM jobs WHERE over = 0 AND due_at <= ?1", self.now())
        return rows and rows[0][0] == 0 and self.quiet()

    def play_schedules(self):
        self.item = "schedules"
        self.launch(None, False)
        self.say((ANN, "say"), (BEN, "say"))
        self.scheduled = True
        self.down()
        self.play_rules()
        self.play_jobs()
        self.play_items()
        self.play_wild()

    def play_rules(self):
        for statement, word in (("INSERT INTO rules", "add Answer in verse."), ("UPDATE rules", "remove 1")):
            self.doomed("step:" + statement, DEATHS_AT, lambda word=word: self.send(ANN, "/rules " + word))
            self.up()
            self.say((ANN, "say"))
            self.down()

    def play_jobs(self):
        self.doomed("step:INSERT INTO jobs", DEATHS_AT, lambda: self.send(ANN, "/job add * * * * * tools"))
        self.up()
        self.settle()
        self.say((BEN, "/job at %s say" % moment(self.now() + 2 * MINUTE)))
        for times in (DEATHS_AT // 2, DEATHS_AT - DEATHS_AT // 2, 1):
            self.down()
            self.minute()
            self.doomed("step:INSERT INTO job_runs", times)
            self.doomed("step:UPDATE jobs SET due_at", times)
            self.up()
            self.wait(self.nothing_due, "the answers to jobs")
        self.down()
        self.doomed("step:UPDATE jobs SET due_at", 2, lambda: self.send(ANN, "/job remove 1"))

    def play_items(self):
        for user in (ANN, BEN):
            self.b.configure(heartbeat={"enabled": True, "quiet_hours": "", "daily_usd": 100, str(user): {
                "chat": "telegram:%d" % user, "checklist": "%d.md" % user,
                "delivery": "immediate" if user == ANN else "on_next_message"}})
        for _ in range(ROUNDS):
            at = self.minute()
            self.add_item(ANN, at)
            self.add_item(BEN, at)
            self.doomed("step:INSERT INTO heartbeat_items", 2)
            self.doomed("step:DELETE FROM heartbeat_items", 2)
            self.doomed("step:INSERT INTO heartbeat_notes", TRIES - 1)
            self.up()
            self.wait(self.all_told, "what is due")
            self.down()
            # two deaths of a message at a time: with three it would be set aside
            self.doomed("step:UPDATE heartbeat_notes SET known", 2, lambda: self.send(ANN, "say"))
            self.up()
            self.settle()
            self.down()
            self.doomed("step:DELETE FROM heartbeat_notes WHERE shown", 2, lambda: self.send(BEN, "tools"))
            self.doomed("step:UPDATE heartbeat_notes SET shown", 2)
            self.up()
            self.settle()
            self.down()
        self.given_up.add(self.add_item(ANN, self.minute()))
        self.doomed("step:INSERT INTO heartbeat_notes", TRIES)
        self.up()
        self.wait(self.all_told, "an item to be given up")
        self.down()

    def play_wild(self):
        """All of it at one minute, and two deaths anywhere."""
        self.b.configure(jobs={"tick": {"schedule": "* * * * *", "prompt": "tools", "chat": "telegram:%d" % ANN}})
        self.doomed("step:INSERT INTO jobs", 2)
        self.up()
        self.settle()
        for i in range(WILD_ROUNDS):
            self.down()
            at = self.minute()
            self.add_item(ANN, at)
            self.add_item(BEN, at)
            self.plan = []
            for _ in range(2):
                place = self.rng.choice(sorted(ANYWHERE))
                self.plan.append([place, self.rng.randint(1, ANYWHERE[place]), self.rng.choice(("before", "after")), True])
            self.launch(*self.next_target(0))
            self.send(ANN, "/rules add Rule %d." % i)
            self.send(ANN, "say")
            self.send(BEN, "say")
            self.wait(lambda: self.all_told() and self.nothing_due(), "all that is due")
            self.plan = None
        self.down()
        self.b.configure(jobs={"tick": None})
        self.doomed("step:UPDATE jobs SET due_at", 2)
        self.up()
        self.say((ANN, "say"), (BEN, "say"))

    # -- promises --------------------------------------------------------------------------------

    def inspect_schedules(self, c):
        """At a death, and at the end."""
        if self.scheduled:
            self.inspect_words(c)
            self.inspect_jobs(c)
            self.inspect_items(c)

    def inspect_words(self, c):
        """What is stored is done."""
        rules, jobs = [], []
        for r in c.execute("SELECT text FROM inbound WHERE text LIKE '/rules %' OR text LIKE '/job %' ORDER BY id"):
            word, what, rest = r["text"].split(" ", 2)
            rows = rules if word == "/rules" else jobs
            if what == "remove":
                rows[int(rest) - 1][2] = 1
            else:
                rows.append([len(rows) + 1, rest, 0])
        runs = {r[0] for r in c.execute("SELECT job_id FROM job_runs")}
        for job in jobs:
            job[2] |= job[1][0] != "*" and job[0] in runs       # once
        for what, want, sql in (("instructions", rules, "SELECT number, text, removed FROM rules ORDER BY id"),
                                ("jobs", jobs, "SELECT id, schedule || ' ' || text, over FROM jobs WHERE name = '' ORDER BY id")):
            got = [list(r) for r in c.execute(sql)]
            if got != want:
                self.bad("schedules", "the %s are %r, told were %r", what, got, want)

    def inspect_jobs(self, c):
        """No time is left out, none comes twice."""
        rows = c.execute("SELECT job_id, due_at, missed, at FROM job_runs ORDER BY due_at").fetchall()
        asked = Counter(r[0] for r in c.execute("SELECT dedup FROM inbound WHERE kind = 1"))
        if asked != Counter("job:%d:%d" % (r["job_id"], r["due_at"]) for r in rows):
            self.bad("schedules", "times taken %s, asked %s", [tuple(r) for r in rows], dict(asked))
        for key, row in self.taken.items():
            if row not in [tuple(r) for r in rows]:
                self.bad("schedules", "the time %s of a job was %s and is not", key, row)
        self.taken.update(((r["job_id"], r["due_at"]), tuple(r)) for r in rows)
        for job in c.execute("SELECT * FROM jobs").fetchall():
            runs = [r for r in rows if r["job_id"] == job["id"]]
            if job["schedule"][0] != "*":
                if len(runs) > 1 or (runs and moment(runs[0]["due_at"]) != job["schedule"]):
                    self.bad("schedules", "job %d, once at %s, came at %s", job["id"], job["schedule"],
                             [moment(r["due_at"]) for r in runs])
                continue
            made = job["created_at"]
            comes = [(made + d) // MINUTE * MINUTE + MINUTE for d in (-CLOCK_SLACK, CLOCK_SLACK)]
            times = [r["due_at"] for r in runs] + ([] if job["over"] else [job["due_at"]])
            for at, r in zip(times, runs):
                if at not in comes:
                    break
                comes = [at + r["missed"] * MINUTE]
            else:
                at = times[-1] if len(times) > len(runs) else comes[0]
            if at not in comes and at != 0:     # 0: its next time is looked for at the start
                self.bad("schedules", "job %d came at %s, not at %s", job["id"], moment(at), [moment(x) for x in comes])

    def inspect_items(self, c):
        """A call for it is counted before it is made."""
        with self.ai.lock:
            asked = [items_of(r["body"]) if is_unasked(r["body"]) else [] for r in self.ai.requests]
        tries, told = Counter(), set()
        for r in c.execute("SELECT item, tries, told FROM heartbeat_items"):
            tries[r["item"]] = r["tries"]
            if r["told"]:
                told.add(r["item"])
                self.told_at.setdefault(r["item"], len(asked))
        for item in {x for items in asked for x in items}:
            often = sum(item in x for x in asked)
            if often > tries[item] or tries[item] > TRIES or item in sum(asked[self.told_at.get(item, len(asked)):], []):
                self.bad("schedules", "%s was asked for %d times, or when it had been told; %d are counted", item, often, tries[item])
        for item in set(self.told_at) - told:
            self.bad("schedules", "%s had been told and is not", item)

    # -- at the end ------------------------------------------------------------------------------

    def take_notes(self, said):
        """A reply without what stands in front of it."""
        head, _, rest = said.rpartition(FRONT)
        self.notes += head.split(FRONT) if head else []
        return rest

    def check_jobs(self, turns, replies):
        """Each time of a job has one answer."""
        for number in [x for x in turns if "@" in x]:
            kind = turns[number][0]["asked"].split("\n\n", 1)[1]
            if len(turns[number]) != 1:
                self.bad("schedules", "%s has %d turns", number, len(turns[number]))
            self.check_reply(number, None, "#%s %s" % (number, kind), turns[number][0], replies[number])
        if len([x for x in turns if "@" in x]) != len(self.taken):
            self.bad("schedules", "%d times of jobs were answered of %d", len([x for x in turns if "@" in x]), len(self.taken))

    def check_unasked(self, c):
        """What is due is told once, and is the news of one message; so is an instruction."""
        if not self.scheduled:
            return
        notices = [r[0] for r in c.execute("SELECT text FROM outbox WHERE kind = 1 ORDER BY id")]
        told = Counter(x for text in notices + self.notes if text.startswith(SAID) for x in said_items(text))
        wanted = Counter(x for items in self.lists.values() for x in items if x not in self.given_up)
        if told != wanted:
            self.bad("schedules", "told too often %s, not told %s", told - wanted, wanted - told)
        news = [line for r in c.execute("SELECT content FROM messages WHERE role = 'system' AND kind = 0")
                for line in json.loads(r[0]).split("\n")]
        known = Counter(x for line in news if SAID in line for x in said_items(line[line.index(SAID):]))
        if known != wanted:
            self.bad("schedules", "known too often %s, not known %s", known - wanted, wanted - known)
        for n, removed in c.execute("SELECT number, removed FROM rules").fetchall():
            often = [sum(line.startswith(x) for line in news) for x in
                     ("New standing instruction %d, " % n, "Standing instruction %d no longer holds." % n)]
            if often != [1, removed]:
                self.bad("schedules", "of instruction %d the model was told %s", n, often)
        self.check_words(notices)

    def check_words(self, notices):
        """Each has one answer."""
        n, wanted = Counter(), []
        for text in [s[3] for s in self.sent if s[3].startswith(("/rules ", "/job "))]:
            word, what, rest = text.split(" ", 2)
            n[word] += what != "remove"
            wanted.append(FOLLOWS[word + " " + what] % (int(rest) if what == "remove" else n[word]))
        left = [x for x in notices if not x.startswith((SAID, "I am busy with "))]
        for begin in wanted:
            found = [x for x in left if x.startswith(begin)]
            if len(found) != 1:
                self.bad("schedules", "%d answers begin with %r", len(found), begin)
            left = [x for x in left if x not in found]
        if left:
            self.bad("schedules", "nobody asked for %r", left)
