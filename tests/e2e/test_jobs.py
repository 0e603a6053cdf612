# SPDX-License-Identifier: MIT OR Apache-2.0
"""What is done at its time: jobs and checklists on the real binary, over kill -9, caps, pauses and bad input."""

import json
import os
import sqlite3
import threading
import time

from fake_anthropic import default_answer
from harness import OWNER, World, main

CHAT = "telegram:%d" % OWNER
HAIKU = "claude-haiku-5-5"


def asked(w):
    return len(w.ai.requests)


def change(w, sql, *values):
    """One statement on the database of a daemon that does not run."""
    with sqlite3.connect(w.b.db_path) as db:
        db.execute(sql, values)
    db.close()


def make_due(w, seconds=2):
    """The next time of every job has just come."""
    w.b.stop()
    change(w, "UPDATE jobs SET due_at = ? WHERE over = 0", (int(time.time()) - seconds) * 10**6)
    w.b.start()


def value(notify, message):
    return json.dumps({"notify": notify, "message": message})


def answers(w, due=None):
    """A job is answered by what stands behind its head, a checklist by due."""
    def script(ask):
        if "output_config" in ask.body:
            return due
        head, _, text = ask.text.partition("\n\n")
        return default_answer(ask, text) if head.startswith("Scheduled job ") else None
    w.ai.script = script


def beat(w, checklist, **more):
    """Switches the heartbeat on; it looks at once."""
    with open(os.path.join(w.b.dir, "list.md"), "w", encoding="utf-8") as f:
        f.write(checklist)
    w.b.configure(heartbeat=dict({"enabled": True, "chat": CHAT, "checklist": "list.md", "quiet_hours": ""}, **more))
    code, _, err = w.b.cli("reload")
    assert code == 0, err


def status(w):
    return json.loads(w.b.cli("status", "--json")[1])


# ---- jobs ------------------------------------------------------------------------------------------


def test_a_job_over_kill_9():
    """Killed between its time and its answer: answered once, from the cap of jobs, and its words are the model's alone."""
    with World() as w:
        answers(w)
        w.say("say hello")
        assert "Job 1: next" in w.say("/job add 0 9 * * 1-5 say /job add * * * * * more")
        w.ai.hold = threading.Event()
        make_due(w)
        w.wait(lambda: asked(w) == 2, "the job's question")
        w.b.kill9()
        w.ai.hold.set()
        w.ai.hold = None
        w.b.start()
        w.wait(lambda: "/job add * * * * * more" in w.tg.texts(OWNER)[-1], "the answer")
        w.wait(lambda: w.quiet(OWNER), "its end")
        text = w.ai.requests[-1]["body"]["messages"][-1]["content"][-1]["text"]
        assert text.startswith("Scheduled job 1, due ") and "\n\nsay /job add" in text
        assert len(w.tg.messages(OWNER)) == 3, w.tg.texts(OWNER)
        assert w.b.query("SELECT count(*) FROM job_runs") == [(1,)]
        assert w.b.query("SELECT count(*) FROM jobs") == [(1,)]
        assert w.b.query("SELECT feature, count(*) FROM cost_ledger GROUP BY 1") == [("job", 2), ("message", 1)]
        w.b.restart()
        assert asked(w) == 3 and w.b.query("SELECT count(*) FROM job_runs") == [(1,)]
        assert not w.settle_up()


def test_the_whole_minute():
    """No trick with the clock: the next minute comes, and the job with it."""
    with World() as w:
        answers(w)
        w.say("/job add * * * * * say tick")
        w.wait(lambda: "tick" in w.tg.texts(OWNER), "the next minute", 90)
        assert w.say("/job remove 1") == "Job 1 is gone."
        assert w.b.query("SELECT due_at % 60000000, missed FROM job_runs") == [(0, 1)]


def test_what_was_missed():
    with World() as w:
        answers(w)
        w.b.configure(jobs={"told": {"schedule": "@hourly", "prompt": "say told", "chat": CHAT, "missed": "report"},
                            "done": {"schedule": "@hourly", "prompt": "say done", "chat": CHAT}})
        w.say("/help")
        w.b.restart()
        make_due(w, 7205)
        w.wait(lambda: any(t.startswith("Missed while nothing ran: job ") for t in w.tg.texts(OWNER)), "the report")
        w.wait(lambda: "done" in w.tg.texts(OWNER), "the late answer")
        text = w.ai.requests[-1]["body"]["messages"][-1]["content"][-1]["text"]
        assert "nothing ran then, and it is now" in text and asked(w) == 1
        assert "told" not in w.tg.texts(OWNER)


def test_reloads():
    """A configuration that is read again takes no timer with it: neither the jobs' nor those that wait beside it."""
    with World({"jobs": {"a": {"schedule": "30 9 * * *", "prompt": "x", "chat": CHAT}}}) as w:
        for i in range(3):
            n = asked(w)
            w.ai.fail_next("529", retry_after=2)
            w.tg.send_text(OWNER, "say number %d" % i)
            w.wait(lambda: asked(w) > n, "the question")
            for _ in range(12):
                assert w.b.cli("reload")[0] == 0
            w.wait(lambda: "number %d" % i in w.tg.texts(OWNER), "the answer after another try")
        assert status(w)["jobs"]["next_local"].endswith(" 09:30")


def test_words_of_people():
    with World({"agent": {"timezone": "CET-1CEST,M3.5.0,M10.5.0/3"}}) as w:
        assert "There are no jobs here." in w.say("/jobs")
        assert "once, Thu 2099-12-24 18:00: Sing" in w.say("/job at 2099-12-24 18:00 Sing")
        assert w.b.query("SELECT due_at / 1000000 FROM jobs") == [(4101814800,)]
        listed = w.say("/jobs")
        assert "1. next Thu 2099-12-24 18:00: Sing" in listed and "in CET-1CEST" in listed
        for words, answer in (
                ("/job add", "I do not understand when: five fields are wanted"), ("/job add 61 * * * * x", "“61”"),
                ("/job add 0 0 30 2 * x", "it would never happen"), ("/job add @daily", "What is to be done then?"),
                ("/job at 0 9 * * * x", "one moment is wanted"), ("/job at 2001-01-01 09:00 x", "2001-01-01 09:00 is past."),
                ("/job at 2099-02-30 09:00 x", "is no date"), ("/job add @daily " + "x" * 2001, "at most 2000 bytes"),
                ("/job remove", "Which one?"), ("/job remove 7", "There is no job 7 here."), ("/job make", "I do not know"),
                ("/job remove 1", "Job 1 is gone."), ("/jobs", "There are no jobs here.")):
            said = w.say(words)
            assert answer.replace("“", '"').replace("”", '"') in said.replace("“", '"').replace("”", '"'), (words, said)
        for i in range(50):
            w.say("/job add @yearly number %d" % i)
        assert "You have 50 jobs already" in w.say("/job add @yearly one more")
        assert asked(w) == 0


def test_others_do_not_see_them():
    with World({"telegram": {"allowed_users": [OWNER, 1002]}}) as w:
        w.tg.add_chat(1002)
        w.say("/job add @yearly My secret")
        assert "secret" not in w.say("/jobs", user=1002)
        assert "no job 1 here" in w.say("/job remove 1", user=1002)
        assert "My secret" in w.say("/jobs")


# ---- checklists --------------------------------------------------------------------------------------


def test_a_checklist_over_kill_9():
    """One small question without tools and without the conversation; killed meanwhile, it is said once."""
    with World() as w:
        w.say("say the weather is fine")
        w.ai.script = lambda ask: value(True, "Do not forget: " + ask.text.split("- ")[1].split("\n")[0]) \
            if "output_config" in ask.body else None
        w.ai.hold = threading.Event()
        beat(w, "- [ ] Dentist @2020-01-01 09:00\n- [x] Old\n- [ ] Far @2099-01-01 09:00\n")
        w.wait(lambda: asked(w) == 2, "the question")
        w.b.kill9()
        w.ai.hold.set()
        w.ai.hold = None
        w.b.start()
        said = "Do not forget: Dentist @2020-01-01 09:00"
        w.wait(lambda: said in w.tg.texts(OWNER), "what is due")
        body = w.ai.requests[-1]["body"]
        assert body["model"] == HAIKU and "tools" not in body and len(body["messages"]) == 1
        assert body["output_config"]["format"]["schema"]["required"] == ["notify", "message"]
        assert body["output_config"]["effort"] == "low"
        text = body["messages"][0]["content"][0]["text"]
        assert "Far" not in text and "Old" not in text and "You: the weather is fine" in text
        w.b.restart(hard=True)
        w.b.wait_log("ready")
        w.wait(lambda: status(w)["heartbeat"][0]["open"] == 2, "a look")
        assert w.tg.texts(OWNER).count(said) == 1 and asked(w) == 3
        assert w.b.query("SELECT feature, count(*), sum(estimated) FROM cost_ledger GROUP BY 1") == [
            ("heartbeat", 2, 1), ("message", 1, 0)]
        # its own conversation knows of it, from the next message on
        w.say("say and now")
        assert "you have told this person: " + said in json.dumps(w.ai.requests[-1]["body"]["messages"][-1])
        assert not w.settle_up()


def test_answers_that_say_nothing():
    """Silence is a value; anything that is no value is silence, too, and is asked for three times at most."""
    for answer, tries in ((value(False, ""), 1), ("NO_HEARTBEAT", 3), (value(True, ""), 3), ('{"notify": "yes", "message": "x"}', 3),
                          ('{"notify": true}', 3), ('{"notify": true, "message": "x", "more": 1}', 3), ("Well: " + value(True, "x"), 3)):
        with World() as w:
            w.say("/help")
            w.ai.script = lambda ask, answer=answer: answer
            beat(w, "- [ ] Dentist\n")
            for i in range(tries):
                w.wait(lambda: w.b.query("SELECT count(*) FROM cost_ledger") == [(i + 1,)], "a question")
                assert w.b.cli("reload")[0] == 0
            w.wait(lambda: w.b.query("SELECT told FROM heartbeat_items") == [(1,)], "the end of it")
            assert w.b.cli("reload")[0] == 0
            assert len(w.tg.messages(OWNER)) == 1 and asked(w) == tries, (answer, asked(w), w.tg.texts(OWNER))


def test_in_front_of_the_next_answer():
    with World() as w:
        answers(w, value(True, "Milk is due."))
        w.say("/help")
        beat(w, "- [ ] Milk\n", delivery="on_next_message", model="claude-haiku-4-5")
        w.wait(lambda: w.b.query("SELECT shown, known FROM heartbeat_notes") == [(0, 0)], "the note")
        assert "effort" not in w.ai.requests[-1]["body"]["output_config"]       # it does not steer its thinking by that
        w.b.kill9()
        w.b.start()
        assert w.say("say good morning") == "Milk is due.\n\n---\n\ngood morning"
        assert w.say("say and on") == "and on"
        assert w.b.query("SELECT count(*) FROM heartbeat_notes") == [(0,)]


def test_the_cap_of_heartbeats():
    with World() as w:
        w.say("/help")
        beat(w, "- [ ] Milk\n", daily_usd=0.0001)
        w.wait(lambda: any("Today's budget for heartbeats does not reach" in t for t in w.tg.texts(OWNER)), "one word about it")
        w.b.restart()
        assert w.b.cli("reload")[0] == 0
        assert status(w)["heartbeat"][0]["due"] == 1
        assert len(w.tg.messages(OWNER)) == 2 and asked(w) == 0
        w.ai.script = lambda ask: value(True, "Milk is due.")
        w.b.configure(heartbeat={"daily_usd": 1})
        assert w.b.cli("reload")[0] == 0
        w.wait(lambda: "Milk is due." in w.tg.texts(OWNER), "what waited")
        assert "Today's budget for heartbeats: $" in w.say("/cost")


def test_pause_stops_it():
    with World() as w:
        w.say("/help")
        w.say("/job add 0 9 * * 1-5 say stretch")
        answers(w, value(True, "Milk is due."))
        gate = w.ai.hold_after_first_delta = threading.Event()
        beat(w, "- [ ] Milk\n")
        w.wait(lambda: asked(w) == 1, "the question")
        w.say("/pause")
        assert w.b.query("SELECT count(*) FROM reservations") == [(0,)]
        w.ai.hold_after_first_delta = None
        gate.set()
        make_due(w)
        assert status(w)["heartbeat"][0]["state"] == "paused" and asked(w) == 1
        w.say("/resume")
        w.wait(lambda: {"Milk is due.", "stretch"} <= set(w.tg.texts(OWNER)), "what waited")
        assert asked(w) == 3


def test_checklists_that_cannot_be_read():
    with World() as w:
        path = os.path.join(w.b.dir, "list.md")
        w.say("/help")
        beat(w, "")
        os.remove(path)

        def problem():
            assert w.b.cli("reload")[0] == 0
            return w.wait(lambda: status(w)["heartbeat"][0]["problem"], "the problem")
        assert "cannot open" in problem() and "list.md" in problem()
        os.mkdir(path)
        assert "not a regular file" in problem()
        os.rmdir(path)
        with open(path, "w", encoding="utf-8") as f:
            f.write("- [ ] Milk\n" * 7000)
        assert "larger than the 65536 bytes" in problem()
        with open(path, "wb") as f:
            f.write(b"- [ ] Milk \xff\n")
        assert "not text in UTF-8" in problem()
        with open(path, "w", encoding="utf-8") as f:
            f.write("- [x] Milk\n\n- [x] More @25:00\n")
        assert w.b.cli("reload")[0] == 0
        w.wait(lambda: status(w)["heartbeat"][0]["problem"] == "", "a list that can be read")
        assert asked(w) == 0 and len(w.tg.messages(OWNER)) == 1
        w.b.configure(heartbeat={"checklist": None})
        assert "wants `chat` and `checklist`" in problem()
        out = w.b.cli("status")[1]
        assert "heartbeat of " + CHAT + ": problem" in out, out


def test_status_tells_what_comes():
    with World({"jobs": {"a": {"schedule": "30 9 * * *", "prompt": "x", "chat": CHAT}}}) as w:
        s = status(w)
        assert s["jobs"]["count"] == 1 and s["jobs"]["next_local"].endswith(" 09:30") and s["heartbeat"] == []
        assert "jobs: 1, next is job 1 on " in w.b.cli("status")[1]


def test_configuration_refused():
    with World(start=False) as w:
        for section, key, bad, words in (
                ("agent", "timezone", "Europe/Berlim", 'this system knows no time zone "Europe/Berlim"'),
                ("heartbeat", "quiet_hours", "22-7", "is no time of the day"), ("heartbeat", "chat", "me", "names no channel"),
                ("heartbeat", "chat", "fax:1", '"fax" is no channel of this build'),
                ("heartbeat", "interval", 5, "from 60 to 86400")):
            w.b.configure(**{section: {key: bad}})
            code, _, err = w.b.cli("config", "validate")
            assert code > 0
            assert words in err and "blufio.toml:" in err and "%s.%s" % (section, key) in err, err
            w.b.configure(**{section: {key: None}})
        w.b.configure(jobs={"x": {"schedule": "0 0 31 2 *", "prompt": "x", "chat": CHAT}})
        code, _, err = w.b.cli("config", "validate")
        assert code > 0 and "jobs.x.schedule: none of these months has such a day" in err, err
        w.b.configure(jobs={"x": {"schedule": "0 0 28 2 *"}})
        assert w.b.cli("config", "validate")[0] == 0
        w.b.start()


if __name__ == "__main__":
    main(globals())
