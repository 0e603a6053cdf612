# SPDX-License-Identifier: MIT OR Apache-2.0
"""money.py - what conversations cost, by the provider that bills and caches as the real one does (tests/e2e/billing.py).

    python3 tests/bench/money.py        prints the figures; bench.py has them in its table

The daemon's time of day and the provider's are shifted together (shift.c), so that pauses last no time.
"""
import json
import os
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))

import billing  # noqa: E402
from harness import OWNER, World  # noqa: E402

PROMPT = ("You are the personal assistant of one person. Be brief and concrete; say when you are not sure. Use the tools for"
          " times, counts and sums, never guess them. ") * 3
TOPICS = ("the move to the new flat", "a birthday dinner for eight", "the tax return", "a week of hiking", "the garden shed",
          "a talk about bees", "the insurance claim", "learning Portuguese", "the bicycle's brakes", "a reading list")
# half of what a person says to an assistant is small
ASKS = ("What should I look at first for %s?", "How many words is that?", "Thanks!", "What day is it?", "Put that into a short list.",
        "ok", "Good morning!", "What time is it?", "Remind me what we said about %s.", "Who wrote Hamlet?")
ANSWER = "For %s I would begin with what cannot wait, then the costs, then whom to ask; each of these is an evening's work. "


class Shifted:
    """A world whose clock is moved by hand."""

    def __init__(self, place, answers, all_clocks=False, **config):
        so = os.path.join(place, "shift.so")
        if not os.path.exists(so):
            subprocess.check_call([os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", "-o", so, os.path.join(HERE, "shift.c"),
                                   "-ldl"])
        self.path = os.path.join(place, "shift")
        self.by = 0
        self.write()
        config.setdefault("cost", {"daily_budget_usd": 100})
        config.setdefault("agent", {"system_prompt": PROMPT})
        self.w = World(config, start=False, preload=so, env=dict({"SHIFT": self.path}, **{"SHIFT_ALL": "1"} if all_clocks else {}))
        self.w.ai.clock = lambda: time.time() + self.by
        self.w.ai.script = answers
        self.w.b.start()

    def write(self):
        with open(self.path, "r+b" if os.path.exists(self.path) else "wb") as f:
            f.write(struct.pack("<q", self.by))

    def pause(self, seconds):
        self.by += seconds
        self.write()

    def bill(self):
        """(dollars, share of the prompts that was read from the cache, output tokens)"""
        usages = [c["usage"] for c in self.w.ai.log]
        read = sum(u["cache_read_input_tokens"] for u in usages)
        prompt = read + sum(u["input_tokens"] + u["cache_creation_input_tokens"] for u in usages)
        return sum(c["nano"] for c in self.w.ai.log) / 1e9, read / prompt, sum(u["output_tokens"] for u in usages)


    def uncached(self):
        """Dollars of the same calls of a provider that caches nothing."""
        total = 0
        for c in self.w.ai.log:
            prompt = sum(billing.counts(c["usage"])) - c["usage"]["output_tokens"]
            dear = billing.prices(c["model"], prompt)
            total += prompt * dear[0] + c["usage"]["output_tokens"] * dear[1]
        return total / 1e9


def answers(n, tools):
    """Answers to n messages, each third of them after a tool; nearly 120 tokens a message."""
    out = []
    for i in range(n):
        topic = TOPICS[i // 5 % len(TOPICS)]
        if tools and i % 3 == 1:
            out.append({"blocks": [{"type": "tool_use", "name": "text_count", "input": {"text": ANSWER % topic}}],
                        "stop_reason": "tool_use"})
        out.append(ANSWER % topic * (3 if i % 3 else 4))
    return out


def talk(place, n, pause=0, tools=True, **config):
    s = Shifted(place, answers(n, tools), **config)
    with s.w as w:
        for i in range(n):
            ask = ASKS[i % len(ASKS)]
            w.say(ask % TOPICS[i // 5 % len(TOPICS)] if "%s" in ask else ask, timeout=60)
            s.pause(pause)
        bill = s.bill() + (s.uncached(), json.loads(w.b.cli("cost", "--json")[1])["prompts"])
        booked = w.b.query("SELECT sum(nano_usd) FROM cost_ledger")[0][0] / 1e9
        if abs(booked - bill[0]) > 1e-12:
            raise AssertionError("billed %.9f, booked %.9f" % (bill[0], booked))
    return bill


def idle_day(place, item):
    """24 hours in which nobody writes, in steps of ten minutes, with a checklist that has one item for noon or none: (dollars,
    requests, what was said)"""
    def answer(ask):
        if "output_config" in ask.body:
            return json.dumps({"notify": True, "message": "It is time to water the tomatoes."})
    s = Shifted(place, answer, all_clocks=True, telegram={"poll_timeout": 1})
    with s.w as w:
        for i in range(3):
            w.say("say %s" % ANSWER % TOPICS[i], timeout=60)
        noon = time.strftime("%H:%M", time.gmtime(time.time() + 12 * 3600))
        with open(os.path.join(w.b.dir, "list.md"), "w", encoding="utf-8") as f:
            f.write("# Mine\n\n- [x] Buy soil\n" + ("- [ ] Water the tomatoes @%s\n" % noon if item else ""))
        w.b.configure(heartbeat={"enabled": True, "chat": "telegram:%d" % OWNER, "checklist": "list.md", "quiet_hours": ""})
        if w.b.cli("reload")[0] != 0:
            raise AssertionError("the heartbeat does not begin")
        before, calls = s.bill()[0], len(w.ai.requests)
        looks = last = 0
        for _ in range(24 * 6):
            s.pause(600)
            w.b.cli("status")           # wakes it: what has become due is done
            w.wait(lambda: not w.ai.book.open, "an answer")
            left = json.loads(w.b.cli("status", "--json")[1])["heartbeat"][0]["next_look_s"]
            looks, last = looks + (left > last), left
        if looks < 40:
            raise AssertionError("it looked %d times" % looks)
        w.wait(lambda: not item or any("tomatoes" in t for t in w.tg.texts(OWNER)), "what was due", 60)
        w.wait(lambda: not w.b.query("SELECT 1 FROM reservations"), "its bill")
        told = [t for t in w.tg.texts(OWNER) if "tomatoes" in t]
        return s.bill()[0] - before, len(w.ai.requests) - calls, told


def figures(place):
    """(what, value, unit, bar, lower bound?) one after another."""
    dollars, share, output, plain, _ = talk(place, 50)
    yield "50 turns with tools, all on one model: from the cache", share * 100, "%", 95, True
    yield "50 turns with tools, all on one model", dollars, "$", 0.14, False
    yield "of it the answers alone", output * 10e-6, "$", None, False
    yield "50 turns with tools, all on one model, without caching", plain, "$", None, False
    dollars, share, output, plain, prompts = talk(place, 50, routing={"enabled": True})
    yield "50 turns with tools, routed", dollars, "$", 0.08, False
    yield "50 turns with tools, routed, without caching", plain, "$", None, False
    for t in prompts:
        if t["prompts"]:
            yield "prompt beside what was said, %s, mean" % t["tier"], t["overhead_tokens"] / t["prompts"], "tokens", \
                3000 if t["tier"] == "simple" else None, False
    yield "prompt beside what was said, weighted", sum(t["overhead_tokens"] for t in prompts) / sum(t["prompts"] for t in prompts), \
        "tokens", 5000, False
    dollars, share, output, _, _ = talk(place, 20, pause=400, tools=False)
    yield "20 turns, 400 s apart", dollars, "$", 0.075, False
    yield "20 turns, 400 s apart: from the cache", share * 100, "%", None, False
    for item, bar, calls in ((False, 0, 0), (True, 0.02, 1)):
        dollars, requests, told = idle_day(place, item)
        if len(told) != calls:
            raise AssertionError("told %s" % told)
        name = "an idle day, %s" % ("one item due" if item else "empty checklist")
        yield name, dollars, "$", bar, False
        yield name + ": requests", requests, "", calls, False


def main():
    with tempfile.TemporaryDirectory(prefix="blufio-money-") as place:
        for what, value, unit, bar, least in figures(place):
            met = "" if bar is None else "met" if (value >= bar if least else value <= bar) else "MISSED"
            print("%-56s %10.6g %s %s %s" % (what, value, unit, "" if bar is None else "(bar %g)" % bar, met))


if __name__ == "__main__":
    main()
