# SPDX-License-Identifier: MIT OR Apache-2.0
"""Long conversations: what is condensed, when, by whom, and what is never lost. Small windows, so that it happens soon."""
import json
import os
import random
import threading

import billing
from harness import OWNER, ROOT, World, main
from test_gateway import world as gateway_world

BUDGET = 6000           # tokens of a request
SUMMARISED = "<conversation>"
CONDENSED = "What was said before in this conversation"
TOPICS = ("bread weather films gardens sea trains music tea cooking mountains cats sleep rain summer books walking chess paint "
          "pottery stamps").split()


def world(budget=BUDGET, **sections):
    return World({"context": {"budget": budget}, "routing": {"enabled": False}, "cost": {"daily_budget_usd": 50},
                  "anthropic": {"max_tokens": 2000}, **sections})


def plants(seed, n=30):
    """[(who, parts that must be found again, sentence)]"""
    with open(os.path.join(ROOT, "tests/data/plants.tsv"), encoding="utf-8") as f:
        lines = [x.rstrip("\n").split("\t") for x in f if x[0] != "#"]
    return [(who, keys.split("|"), text) for _, who, keys, text in random.Random(seed).sample(lines, n)]


def found(planted, text):
    return [p for p in planted if all(key in text for key in p[1])]


def is_summary(body):
    return body["messages"][0]["content"][0]["text"].startswith(SUMMARISED) and len(body["messages"]) == 1


def text_of(body):
    return json.dumps(body["messages"], ensure_ascii=False)


def first_text(body):
    return body["messages"][0]["content"][0]["text"]


def is_condensed(body):
    return first_text(body).startswith(CONDENSED)


def talks(w):
    """Requests that are no summaries, in order; and the summaries."""
    with w.ai.lock:
        bodies = [r["body"] for r in w.ai.requests]
    return [b for b in bodies if not is_summary(b)], [b for b in bodies if is_summary(b)]


class Speaker:
    """Answers at length; what it is told to say comes first. summary: what a condensing call gets."""

    def __init__(self, seed=1, summary=None, size=120):
        self.rng, self.summary, self.size, self.next = random.Random(seed), summary, size, ""
        self.gate = self.hold = None    # summaries wait for the one, answers for the other

    def filler(self, n):
        return " ".join("Many people enjoy %s as much as %s." % tuple(self.rng.sample(TOPICS, 2)) for _ in range(n // 8))

    def __call__(self, ask):
        if is_summary(ask.body):
            if self.gate:
                self.gate.wait(60)
            return self.summary(ask) if callable(self.summary) else self.summary
        if self.hold:
            self.hold.wait(60)
        said, self.next = self.next, ""
        return (said + " " + self.filler(self.size)).strip()


def tell(w, speaker, planted):
    """One exchange, with something in it that must be kept, or with nothing."""
    words = "Tell me about %s and %s. " % tuple(speaker.rng.sample(TOPICS, 2)) + speaker.filler(speaker.size)
    if planted and planted[0] == "assistant":
        speaker.next = planted[2]
    elif planted:
        words = planted[2] + " " + words if speaker.rng.random() < 0.3 else planted[2]
    return w.say(words)


def short(ask):
    """A summary as models write them: fluent, and with half of it lost."""
    return "The person talked about everyday things at length and told a few things about themselves and their plans."


def until_condensed(w, speaker, planted, most=200):
    """Talks until a request begins with what is condensed."""
    queue = list(planted)
    for i in range(most):
        tell(w, speaker, queue.pop(0) if queue else None)
        if not queue and is_condensed(talks(w)[0][-1]):
            return
    raise AssertionError("%d exchanges, and nothing was condensed" % most)


def status(w):
    return json.loads(w.b.cli("status", "--json")[1])["compactions"]


def wait_idle(w):
    w.wait(lambda: status(w)["running"] == 0, "no summary under way")


# ---- what is kept ----------------------------------------------------------------------------------


def test_thirty_plants_with_a_summary():
    for seed in (1, 2):
        planted, speaker = plants(seed), Speaker(seed, short)
        with world() as w:
            w.ai.script = speaker
            until_condensed(w, speaker, planted)
            body = talks(w)[0][-1]
            kept = found(planted, text_of(body))
            assert len(kept) >= 28, [p for p in planted if p not in kept]
            assert len(talks(w)[1]) >= 1 and status(w)["model"] >= 1
            assert short(None) in first_text(body)
            assert not any("cache_control" in json.dumps(b) or "tools" in b for b in talks(w)[1])
            assert all(b["output_config"] == {"effort": "low"} for b in talks(w)[1])
            assert w.settle_up() == []
            assert w.b.query("SELECT count(*) FROM cost_ledger WHERE feature = 'compaction' AND model = 'claude-haiku-5-5'"
                             " AND estimated = 0 AND session_id = 1 AND user_id = 1")[0][0] == len(talks(w)[1])


def test_thirty_plants_and_the_model_fails():
    answers = ({"blocks": [], "stop_reason": "refusal", "stop_details": None}, "", {
        "blocks": [{"type": "text", "text": "And then"}], "stop_reason": "max_tokens"})
    for seed, answer in enumerate(answers):
        planted, speaker = plants(10 + seed), Speaker(seed, lambda ask: answer or " \n")
        with world() as w:
            w.ai.script = speaker
            until_condensed(w, speaker, planted)
            kept = found(planted, text_of(talks(w)[0][-1]))
            assert len(kept) >= 28, [p for p in planted if p not in kept]
            assert len(talks(w)[1]) == 1 and status(w) == {"arithmetic": 1, "model": 0, "failed": 1, "running": 0}, status(w)


def test_a_summary_in_another_script_is_none():
    with world() as w:
        w.ai.script = lambda ask: short(ask) if is_summary(ask.body) else "И так далее, и тому подобное. " * 40
        for i in range(40):
            w.say("Расскажи мне ещё что-нибудь о погоде и о море. " * 10)
            if status(w)["failed"]:
                break
        assert status(w)["failed"] == 1 and status(w)["model"] == 0


def test_no_model_at_all():
    planted, speaker = plants(20), Speaker(3)
    with world(context={"budget": BUDGET, "compaction_model": ""}) as w:
        w.ai.script = speaker
        until_condensed(w, speaker, planted)
        kept = found(planted, text_of(talks(w)[0][-1]))
        assert len(kept) >= 28, [p for p in planted if p not in kept]
        assert talks(w)[1] == [] and status(w) == {"arithmetic": 1, "model": 0, "failed": 0, "running": 0}


def test_ten_windows():
    """Every message is answered, no request is larger than it may be, and what was said at the beginning is there at the
    end; the ledger is the provider's log."""
    planted, speaker = plants(30), Speaker(4, short, size=300)
    with world() as w:
        w.ai.script = speaker
        said = 0
        for i in range(1000):
            said += 2 * len(tell(w, speaker, planted[i // 2] if i % 2 and i // 2 < 30 else None))
            if said > 10 * BUDGET * 4 and i > 60:
                break
        for body in talks(w)[0]:
            assert billing.Prompt(body).total <= BUDGET * 0.85, billing.Prompt(body).total
        last = text_of(talks(w)[0][-1])
        kept = found(planted, last)
        assert len(kept) >= 28, [p for p in planted if p not in kept]
        assert status(w)["model"] >= 5 and status(w)["failed"] == 0, status(w)
        wait_idle(w)
        assert w.settle_up() == []


def test_rules_stay_word_for_word():
    rule = "Answer in „at most“ 3 sentences; call me \"Captain\" & <never> 'you'."
    speaker = Speaker(5, short, size=400)
    with world() as w:
        w.ai.script = speaker
        w.say("/rules add " + rule)
        for i in range(200):
            tell(w, speaker, None)
            if i == 5:
                w.say("/rules add Be kind.")
            if status(w)["model"] >= 10:
                break
        tell(w, speaker, None)
        system = talks(w)[0][-1]["system"]
        assert "1. %s\n2. Be kind." % rule in (system if isinstance(system, str) else system[0]["text"])
        assert "New standing instruction" not in text_of(talks(w)[0][-1])


# ---- when, and what happens meanwhile -------------------------------------------------------------------


def fill(w, speaker):
    """Talks until a summary is under way and stands still."""
    speaker.gate = threading.Event()
    for i in range(100):
        tell(w, speaker, None)
        if status(w)["running"]:
            w.wait(lambda: talks(w)[1], "asked for a summary")
            return
    raise AssertionError("no summary was asked for")


def test_nobody_waits_for_it():
    speaker = Speaker(6, short)
    with world() as w:
        w.ai.script = speaker
        fill(w, speaker)
        first = first_text(talks(w)[0][0])
        w.say("My locker is number 4417, remember it.")
        assert first_text(talks(w)[0][-1]) == first             # the old history goes on
        speaker.gate.set()
        wait_idle(w)
        w.say("and now?")
        body = talks(w)[0][-1]
        assert is_condensed(body) and "My locker is number 4417" in text_of(body) and short(None) in first_text(body)
        # it comes while a turn runs: it waits for its end
        fill(w, speaker)
        speaker.hold = threading.Event()
        w.tg.send_text(OWNER, "say a long thing")
        w.wait(lambda: w.b.query("SELECT 1 FROM turns WHERE state = 2"), "asked")
        n, booked = w.b.query("SELECT (SELECT count(*) FROM messages WHERE kind = 1), count(*) FROM cost_ledger"
                              " WHERE feature = 'compaction'")[0]
        speaker.gate.set()
        w.wait(lambda: w.b.query("SELECT count(*) FROM cost_ledger WHERE feature = 'compaction'")[0][0] > booked, "the summary")
        assert w.b.query("SELECT count(*) FROM messages WHERE kind = 1") == [(n,)] and status(w)["running"] == 1
        speaker.hold.set()
        w.wait(lambda: w.b.query("SELECT count(*) FROM messages WHERE kind = 1") == [(n + 2,)], "the new history")
        w.wait(lambda: not w.b.query("SELECT 1 FROM turns WHERE state < 5"), "peace")
        w.say("and at last?")
        assert is_condensed(talks(w)[0][-1]) and "say a long thing" in text_of(talks(w)[0][-1])


def test_a_new_conversation_drops_it():
    speaker = Speaker(7, short)
    with world() as w:
        w.ai.script = speaker
        fill(w, speaker)
        w.say("/new")
        assert status(w)["running"] == 0
        speaker.gate.set()
        w.say("hello")
        assert first_text(talks(w)[0][-1]) == "hello" and status(w)["model"] == 0
        assert w.b.query("SELECT count(*) FROM cost_ledger WHERE feature = 'compaction' AND estimated = 1") == [(1,)]
        assert w.b.query("SELECT count(*) FROM reservations") == [(0,)]


def test_pause_ends_it():
    speaker = Speaker(8, short)
    with world() as w:
        w.ai.script = speaker
        fill(w, speaker)
        w.say("/pause")
        assert status(w)["running"] == 0 and w.b.query("SELECT count(*) FROM reservations") == [(0,)]
        speaker.gate.set()
        n = len(w.ai.requests)
        w.say("hello")
        assert len(w.ai.requests) == n


def test_kill_while_it_is_written():
    speaker = Speaker(9, short)
    with world() as w:
        w.ai.script = speaker
        fill(w, speaker)
        before = w.b.query("SELECT history_seq, prompt, (SELECT count(*) FROM messages) FROM sessions")
        w.b.kill9()
        speaker.gate.set()
        w.b.start()
        assert w.b.query("SELECT history_seq, prompt, (SELECT count(*) FROM messages) FROM sessions") == before
        assert w.b.query("SELECT count(*), sum(estimated) FROM cost_ledger WHERE feature = 'compaction'") == [(1, 1)]
        assert w.b.query("SELECT count(*) FROM reservations") == [(0,)]
        w.say("go on")
        assert not is_condensed(talks(w)[0][-1]) and len(talks(w)[1]) == 1      # a try that failed, and it is remembered
        until_condensed(w, speaker, [])
        assert w.settle_up(lost={c["id"] for c in w.ai.log if c["model"] == "claude-haiku-5-5"}) == []


def test_a_failure_is_remembered():
    speaker = Speaker(10, lambda ask: {"blocks": [], "stop_reason": "refusal", "stop_details": None})
    with world() as w:
        w.ai.script = speaker
        fill(w, speaker)
        speaker.gate.set()
        w.wait(lambda: status(w)["failed"] == 1, "the failure")
        tries, at, seq = w.b.query("SELECT compact_tries, compact_at, compact_seq FROM sessions")[0]
        assert tries == 1 and at > 0 and seq > 0
        w.b.restart()
        tell(w, speaker, None)
        assert len(talks(w)[1]) == 1 and not is_condensed(talks(w)[0][-1])
        until_condensed(w, speaker, [])
        assert len(talks(w)[1]) == 1 and w.b.query("SELECT compact_tries FROM sessions") == [(1,)]
        text = w.b.cli("status")[1]
        assert "compactions: 0 by a model, 1 without, 0 failed" in text, text


# ---- tools, and messages that are too large ---------------------------------------------------------------


def test_a_turn_of_many_tools():
    """One turn that would fill the window three times: it goes on, and is answered."""
    rounds = [0]

    def script(ask):
        if is_summary(ask.body):
            return short(ask)
        rounds[0] += 1
        if rounds[0] > 20:
            return "counted"
        return {"blocks": [{"type": "thinking", "thinking": "hm"}, {"type": "tool_use", "name": "text_count", "input": {
            "text": "round %d " % rounds[0] + "x" * 4000}}]}
    with world() as w:
        w.ai.script = script
        assert w.say("Count everything, by 14 May.", timeout=60) == "counted"
        bodies = talks(w)[0]
        assert len(bodies) == 21 and max(billing.Prompt(b).total for b in bodies) < BUDGET
        assert "Count everything, by 14 May." in text_of(bodies[-1]) and status(w)["arithmetic"] >= 2
        assert w.say("say so") and w.settle_up() == []


def test_one_message_that_is_too_large():
    speaker = Speaker(11, short)
    with world() as w:
        w.ai.script = speaker
        w.say("My locker is number 4417, remember it.")
        answer = w.say("z" * 30000)
        assert "a request would have about 9" in answer and "it may have 6000" in answer and "in parts" in answer
        assert "blufio config set context.budget 10000" in answer and "left out" in answer
        assert len(talks(w)[0]) == 1
        w.say("hello")
        body = talks(w)[0][-1]
        assert "zzz" not in text_of(body) and "4417" in text_of(body) and not is_condensed(body)
        # one that fits alone takes the place of what was before
        for i in range(3):
            tell(w, speaker, None)
        w.say("y" * 13000)
        body = talks(w)[0][-1]
        assert is_condensed(body) and "yyy" in text_of(body) and "4417" in text_of(body)


def test_a_provider_that_takes_less():
    """It says that a request is too large, whatever we reckon: once more, with what was before it condensed."""
    speaker = Speaker(14, short)
    with world() as w:
        w.ai.script = speaker
        w.say("My locker is number 4417, remember it.")
        for i in range(3):
            tell(w, speaker, None)
        w.ai.fail_next("400", text="prompt is too long: 1000001 tokens > 1000000 maximum")
        assert "Many people" in w.say("hello") and is_condensed(talks(w)[0][-1]) and "4417" in text_of(talks(w)[0][-1])
        w.ai.fail_next("400", n=2, text="prompt is too long: 1000001 tokens > 1000000 maximum")
        assert "too large" in w.say("hello again")


# ---- what was said is still there --------------------------------------------------------------------------


def test_history():
    planted, speaker = plants(40, 3), Speaker(12, short)
    with world() as w:
        w.ai.script = speaker
        until_condensed(w, speaker, planted)
        shown = w.say("/history 200")
        assert len(found(planted, shown)) == 3 and CONDENSED not in shown and short(None) not in shown
        for p in planted:
            assert shown.count(p[2]) == 1, shown.count(p[2])
        assert "/history" in w.say("/help") and "How many messages" in w.say("/history many")


def test_history_by_the_gateway():
    speaker = Speaker(13, short)
    with gateway_world({"context": {"budget": BUDGET}, "routing": {"enabled": False}, "cost": {"daily_budget_usd": 50}}) as w:
        w.ai.script = speaker
        session = w.g.ask("POST", "/v1/messages", {"content": "My locker is number 4417."}).json()["session_id"]
        for i in range(100):
            w.g.ask("POST", "/v1/messages", {"content": "%d. Tell me more. " % i + speaker.filler(200), "session_id": session})
            if is_condensed(talks(w)[0][-1]):
                break
        listed = w.g.ask("GET", "/v1/sessions/%s/messages" % session).json()["messages"]
        users = [m["content"] for m in listed if m["role"] == "user"]
        assert users.count("My locker is number 4417.") == 1 and len(users) == len(set(users)) == len(listed) / 2
        assert not any(m["content"].startswith(CONDENSED) for m in listed)
        w.wait(lambda: w.g.ask("DELETE", "/v1/sessions/%s" % session).status == 204, "it to be idle")


if __name__ == "__main__":
    main(globals())
