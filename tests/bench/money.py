# SPDX-License-Identifier: MIT OR Apache-2.0
"""money.py - what conversations cost, by the provider that bills and caches as the real one does (tests/e2e/billing.py).

    python3 tests/bench/money.py        prints the figures; bench.py has them in its table

The daemon's time of day and the provider's are shifted together (shift.c), so that pauses last no time.
"""
import os
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))

from harness import World  # noqa: E402

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

    def __init__(self, place, answers, **config):
        so = os.path.join(place, "shift.so")
        if not os.path.exists(so):
            subprocess.check_call([os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", "-o", so, os.path.join(HERE, "shift.c"),
                                   "-ldl"])
        self.path = os.path.join(place, "shift")
        self.by = 0
        self.write()
        config.setdefault("cost", {"daily_budget_usd": 100})
        config.setdefault("agent", {"system_prompt": PROMPT})
        self.w = World(config, start=False, preload=so, env={"SHIFT": self.path})
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
        bill = s.bill()
        booked = w.b.query("SELECT sum(nano_usd) FROM cost_ledger")[0][0] / 1e9
        if abs(booked - bill[0]) > 1e-12:
            raise AssertionError("billed %.9f, booked %.9f" % (bill[0], booked))
    return bill


def figures(place):
    """(what, value, unit, bar, lower bound?) one after another."""
    dollars, share, output = talk(place, 50)
    yield "50 turns with tools, all on one model: from the cache", share * 100, "%", 95, True
    yield "50 turns with tools, all on one model", dollars, "$", 0.14, False
    yield "of it the answers alone", output * 10e-6, "$", None, False
    dollars, share, output = talk(place, 50, routing={"enabled": True})
    yield "50 turns with tools, routed", dollars, "$", 0.08, False
    dollars, share, output = talk(place, 20, pause=400, tools=False)
    yield "20 turns, 400 s apart", dollars, "$", 0.075, False
    yield "20 turns, 400 s apart: from the cache", share * 100, "%", None, False


def main():
    with tempfile.TemporaryDirectory(prefix="blufio-money-") as place:
        for what, value, unit, bar, least in figures(place):
            met = "" if bar is None else "met" if (value >= bar if least else value <= bar) else "MISSED"
            print("%-56s %8.4f %s %s %s" % (what, value, unit, "" if bar is None else "(bar %g)" % bar, met))


if __name__ == "__main__":
    main()
