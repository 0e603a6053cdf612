# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_claude.py - what only Claude has: its models, what its own tools leave behind, tokens counted
before they are paid for, rate limits that are minded before they bite."""
import json
import socket
import threading

from billing import SHEET, floor_of, normal, prices
from fake_anthropic import MODELS, default_answer
from harness import OWNER, World, main

DONE = 5
STATUS_PRICES = ("in", "out", "write_5m", "write_1h", "read")
LARGE = "say fine " + "x" * 180000      # more than 50,000 tokens by estimate


def world(**sections):
    return World({"cost": {"daily_budget_usd": "100"}, **sections})


def status(w):
    return json.loads(w.b.cli("status", "--json")[1])


def asked(w, n=-1):
    return w.ai.requests[n]["body"]


def say_large(w, text=LARGE):
    """Telegram's messages are short: by terminal, in one line; what was answered."""
    rc, out, err = w.b.cli("shell", "--chat", "large", input=text + "\n")
    assert rc == 0, (out, err)
    return (out + err).strip()


class Line:
    """The control socket by hand, as a terminal that does not wait for answers."""

    def __init__(self, w):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(w.b.db_path + ".sock")
        self.lines, self.ids = self.socket.makefile("rb"), 0
        self.ask({"cmd": "chat", "chat": "large"})

    def ask(self, request):
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            answer = json.loads(self.lines.readline())
            if "ok" in answer:
                assert answer["ok"], answer
                return

    def say(self, text):
        """Returns when it is stored."""
        self.ids += 1
        self.ask({"cmd": "message", "id": "m%d" % self.ids, "text": text})

    def close(self):
        self.lines.close()
        self.socket.close()


def sent_by(ai_blocks):
    """Blocks as they have to come back."""
    return [normal(b) for b in ai_blocks]


# ---- the table ------------------------------------------------------------------------------


def test_table_of_models():
    """Two tables that were written independently of one another say the same."""
    with world() as w:
        ours = status(w)["provider"]["models"]
        assert set(ours) == set(MODELS)
        for name, m in MODELS.items():
            o, can = ours[name], set(ours[name]["can"])
            assert (o["window"], o["max_output"], o["cache_min"]) == (m["window"], m["max_out"],
                                                                      floor_of(name)), name
            ours_price = tuple(o[k] for k in STATUS_PRICES)
            assert ours_price == prices(name), name
            assert (o["band_above"] or (1 << 62)) == SHEET[name][1][0][0], name
            assert tuple(p * o["band_factor"] for p in ours_price) == SHEET[name][1][-1][1], name
            for flag, theirs in (("system_turns", m["system"]), ("thinking_enabled", m["enabled"]),
                                 ("thinking_between_tools", m["between"]),
                                 ("thinking_bound", m["bound"]),
                                 ("thinking_disabled", m["disabled"] not in ("no", "low"))):
                assert (flag in can) == theirs, (name, flag)


# ---- blocks -----------------------------------------------------------------------------------


def test_server_tools_are_kept_verbatim():
    """What a server tool was asked and found, and what was cited, goes back as it came: later
    thinking is bound to it, so a byte less is a refused request."""
    with world() as w:
        w.ai.think = True
        sent = []

        def script(ask):
            answer = default_answer(ask)
            sent.append(answer["blocks"])
            return answer
        w.ai.script = script
        assert w.say("search tides") == "Found tides"
        assert w.say("tool time_now") .startswith("Tool results")
        assert w.say("say on") == "on"
        kept = asked(w)["messages"][1]
        assert kept["role"] == "assistant" and kept["content"][0]["type"] == "thinking"
        assert sent_by(kept["content"][1:]) == sent_by(sent[0]), kept
        assert len(kept["content"][3]["citations"]) == 2
        assert not w.ai.bitten and all(r["status"] == 200 for r in w.ai.requests)


def test_pause_is_resumed_unchanged():
    with world() as w:
        for think in (False, True):
            w.ai.think = think
            n = len(w.ai.requests)
            answer = w.say("pause %s" % think)
            assert answer.split() == ["Searching.", "Found", str(think)], answer
            assert len(w.ai.requests) == n + 2
            last = asked(w)["messages"][-1]
            assert last["role"] == "assistant" and last["content"][-1]["type"] == "server_tool_use"
            assert w.say("say on") == "on"


def test_pause_survives_death():
    """Killed while the paused turn goes on: it is resumed from the rows, still unchanged."""
    with world() as w:
        w.ai.think = True
        gate = threading.Event()
        w.ai.script = lambda ask: (w.ai.answered() and gate.wait(20) and None) or default_answer(ask)
        w.tg.send_text(OWNER, "pause tides")
        w.wait(lambda: len(w.ai.requests) == 2, "paused, and asked to go on")
        w.b.kill9()
        w.ai.script = None
        gate.set()
        w.b.start()
        w.wait(lambda: w.b.query("SELECT state FROM turns") == [(DONE,)], "over")
        assert "Found tides" in w.tg.texts(OWNER)[-1]
        assert all(r["status"] in (200, None) for r in w.ai.requests)


def test_pauses_end():
    with world() as w:
        w.ai.script = lambda ask: {"blocks": [{"type": "text", "text": "part %d" % ask.number}],
                                   "stop_reason": "pause_turn"}
        answer = w.say("go")
        assert "part 25" in answer and "part 26" not in answer and "too many rounds" in answer
        assert len(w.ai.requests) == 25


def test_a_pause_that_is_stopped():
    """What the provider had begun stays without a result: the conversation goes on without it."""
    with world() as w:
        gate = threading.Event()
        w.ai.script = lambda ask: (ask.resumed and gate.wait(20) and None) or default_answer(ask)
        w.tg.send_text(OWNER, "pause tides")
        w.wait(lambda: len(w.ai.requests) == 2, "paused, and asked to go on")
        w.tg.send_text(OWNER, "/stop")
        w.wait(lambda: "Stopped" in "".join(w.tg.texts(OWNER)), "stopped")
        gate.set()
        w.ai.script = None
        assert w.say("say on") == "on" and w.say("say and on") == "and on"
        assert len(w.ai.prefix_violations) == 1         # what was left out, once
        w.ai.prefix_violations.clear()


def test_an_answer_of_thinking_only():
    """The limit came before the first word: the API refuses thinking at the end of an answer that is sent back."""
    with world() as w:
        w.ai.script = lambda ask: {"blocks": [{"type": "thinking", "thinking": "hm"}], "stop_reason": "max_tokens"}
        assert "length limit" in w.say("go")
        w.ai.script = lambda ask: {"blocks": [{"type": "text", "text": "so"}, {"type": "thinking", "thinking": "hm"}],
                                   "stop_reason": "max_tokens"}
        assert w.say("go").startswith("so")
        w.ai.script = None
        assert w.say("say on") == "on"
        assert [[b["type"] for b in m["content"]] for m in asked(w)["messages"][-2:]] == [["text"], ["text"]]


def test_refusal_says_why():
    with world() as w:
        w.ai.fail_next("refusal")
        answer = w.say("say it")
        assert answer.startswith("(The model declined to answer this: This request was refused. The")
        w.ai.fail_next("stop", reason="refusal", details={"type": "refusal", "category": "bio"})
        assert w.say("say it").startswith("(The model declined to answer this: bio. The")
        w.ai.fail_next("stop", reason="refusal", details={"type": "refusal", "category": None})
        assert w.say("say it").startswith("(The model declined to answer this. The")


# ---- tokens counted before they are paid for --------------------------------------------------------


def test_large_input_is_counted():
    with world() as w:
        assert w.say("say small") == "small" and w.ai.counts == []
        assert say_large(w).startswith("fine")
        body = dict(asked(w))
        assert body.pop("max_tokens") and body.pop("stream") and w.ai.counts == [body]
        counted = w.b.query("SELECT estimate FROM steps ORDER BY id DESC LIMIT 1")[0][0]
        assert 45000 < counted < 50000, counted         # the provider's figure, not our estimate
        for kind in ("500", "429", "garbage", "reset"):
            w.ai.faults.add("count", kind, 1)
            assert say_large(w, "say %s" % kind) == kind
        assert len(w.ai.counts) >= 5            # a count that was cut may be asked for again


def outcomes(w):
    return w.b.query("SELECT state, outcome FROM turns ORDER BY id")


def test_stop_while_counting():
    with world() as w:
        w.ai.hold_count = gate = threading.Event()
        line = Line(w)
        line.say(LARGE)
        w.wait(lambda: w.ai.counts, "asked for the count")
        line.say("/stop")
        w.wait(lambda: w.b.query("SELECT text FROM outbox") == [("(Stopped.)",)], "stopped")
        gate.set()
        assert w.ai.requests == [] and w.b.query("SELECT count(*) FROM cost_ledger") == [(0,)]
        line.close()
        w.ai.hold_count = None
        assert say_large(w, "say after it").startswith("after it")


def test_death_while_counting():
    with world() as w:
        w.ai.hold_count = gate = threading.Event()
        line = Line(w)
        line.say(LARGE)
        w.wait(lambda: w.ai.counts, "asked for the count")
        w.b.kill9()
        w.ai.hold_count = None
        gate.set()
        line.close()
        w.b.start()
        w.wait(lambda: outcomes(w) == [(4, 1)], "answered, and nobody is there to take it")
        assert len(w.ai.requests) == 1 and len(w.ai.counts) == 2
        assert w.b.query("SELECT count(*) FROM cost_ledger") == [(1,)]


def test_question_and_answer_share_the_window():
    with world(anthropic={"default_model": "claude-haiku-4-5"}, context={"budget": 1000000}) as w:
        w.ai.count_extra = 158000
        assert say_large(w).startswith("fine")
        counted = w.b.query("SELECT estimate FROM steps ORDER BY id DESC LIMIT 1")[0][0]
        assert counted > 190000 and asked(w)["max_tokens"] == 200000 - counted < 16384
        spent = w.b.query("SELECT sum(nano_usd) FROM cost_ledger")
        say_large(w, "/new")
        w.ai.count_extra = 141500               # room is left, but not for an answer
        answer = say_large(w, "say more " + "x" * 300000)       # how many bytes a token has here is known by now
        assert "a request would have 19" in answer and "claude-haiku-4-5 takes 200000" in answer, answer[:200]
        assert "in parts" in answer and len(w.ai.requests) == 1
        assert w.b.query("SELECT sum(nano_usd) FROM cost_ledger") == spent
        w.ai.count_extra = 0                    # what did not fit was left out
        assert say_large(w, "echo history") == "You wrote:"
        assert "say more" not in json.dumps(asked(w))


# ---- which model ------------------------------------------------------------------------------------


def buttons(w):
    return json.loads(w.b.query("SELECT buttons FROM outbox ORDER BY id DESC LIMIT 1")[0][0] or "[]")


def test_model_word_shows_what_there_is():
    with world() as w:
        w.ai.page_max = 4
        w.ai.hidden_models = {"claude-opus-4-5", "claude-haiku-4-5"}    # the dated form is listed
        shown = w.say("/model")
        assert shown.startswith("This conversation is answered by claude-sonnet-5-5 (Claude Sonnet 5.5)")
        assert "claude-opus-5-5: $4 in, $20 out" in shown and "100000 tokens 5 times" in shown
        assert "claude-opus-4-5" not in shown and "could not be had" not in shown
        assert "- claude-haiku-4-5:" in shown and "20251001" not in shown
        last = [n for n in MODELS if n not in w.ai.hidden_models][3::4]
        assert [q.get("after_id") for q in w.ai.listings] == [None] + last[:3], w.ai.listings
        words = dict(buttons(w))
        assert words["Claude Opus 5.5"] == "/model claude-opus-5-5" and len(words) == 13
        w.say("/model")
        assert len(w.ai.listings) == 4 and w.ai.requests == []          # for an hour
        # what it does not have cannot be chosen
        assert "no model \"claude-opus-4-5\"" in w.say("/model claude-opus-4-5")
        assert w.b.query("SELECT model FROM sessions") == [("",)]


def test_model_list_that_cannot_be_had():
    with world() as w:
        for kind in ("500", "garbage"):         # a reset is repeated: it changes nothing there
            w.ai.faults.add("models", kind, 1)
            shown = w.say("/model")
            assert "could not be had" in shown and "- claude-opus-4-5: $5 in" in shown, kind
            assert len(buttons(w)) == 14
        w.ai.hold_models = gate = threading.Event()     # it waits for so long, and no longer
        assert "could not be had" in w.say("/model")
        gate.set()
        w.ai.hold_models = None
        assert "could not be had" not in w.say("/model")


def test_another_model():
    with world() as w:
        assert w.say("say a") == "a" and asked(w)["model"] == "claude-sonnet-5-5"
        for word, model in (("opus", "claude-opus-5-5"), ("Opus 5", "claude-opus-5"),
                            ("haiku 4.5", "claude-haiku-4-5"), ("fable", "claude-fable-5-2"),
                            ("claude-sonnet-4-6", "claude-sonnet-4-6"), ("4.7", "claude-opus-4-7")):
            told = w.say("/model " + word)
            assert told.startswith("From now on this conversation is answered by %s." % model), told
            assert w.say("say b") == "b" and asked(w)["model"] == model
        w.b.restart()
        assert w.say("say c") == "c" and asked(w)["model"] == "claude-opus-4-7"
        assert "claude-opus-4-7 (" in w.say("/model").split("\n")[0]
        for words in (" 5.5", " claude"):
            told = w.say("/model" + words)
            assert "several models" in told and len(buttons(w)) > 2, told
        assert "/model claude-opus-5-5" in [b[1] for b in buttons(w)]
        told = w.say("/model claude-opsu-5-5")
        assert "Nearest: claude-opus-5-5" in told, told
        assert w.say("/model default").endswith("claude-sonnet-5-5.")
        assert w.say("say d") == "d" and asked(w)["model"] == "claude-sonnet-5-5"
        # a message is a message
        assert w.say("/stop now please") == "You said: /stop now please"
        assert w.say("/modelopus").startswith("I do not know the command")
        assert "/model" in w.say("/help")


def test_model_without_a_price():
    with world(pricing={"claude-next-6": {"input": 7, "output": 9}}) as w:
        for table in (MODELS, SHEET):
            table["claude-new-7"] = table["claude-next-6"] = table["claude-opus-5-5"]
        try:
            assert "claude-next-6: $7 in, $9 out" in w.say("/model")
            assert "no price" in w.say("/model claude-new-7")
            assert w.b.query("SELECT model FROM sessions") == [("",)]
            w.say("/model next")
            assert w.say("say x") == "x" and asked(w)["model"] == "claude-next-6"
        finally:
            for table in (MODELS, SHEET):
                del table["claude-new-7"], table["claude-next-6"]


def test_another_model_is_given_no_foreign_thinking():
    """Thinking is bound to its model: chosen between two messages, and while one is answered."""
    with world() as w:
        w.ai.think = True
        assert w.say("say a") == "a"
        w.say("/model opus")
        assert w.say("say b") == "b"
        w.ai.hold_after_first_delta = gate = threading.Event()
        w.tg.send_text(OWNER, "tool time_now")
        w.wait(lambda: len(w.ai.requests) == 3, "asked")
        w.tg.send_text(OWNER, "/model haiku")
        w.wait(lambda: w.b.query("SELECT model FROM sessions") == [("claude-haiku-5-5",)], "chosen")
        w.ai.hold_after_first_delta = None
        gate.set()
        w.wait(lambda: [r[0] for r in w.b.query("SELECT state FROM turns")] == [DONE] * 3, "answered")
        assert [r["body"]["model"] for r in w.ai.requests[-2:]] == ["claude-opus-5-5", "claude-haiku-5-5"]
        assert w.say("say c") == "c"
        assert all(r["status"] == 200 for r in w.ai.requests)


def test_unknown_model_names_others():
    with world(anthropic={"default_model": "claude-opus-5-6"},
               pricing={"claude-opus-5-6": {"input": 4, "output": 20}}) as w:
        w.ai.expect_refusal("404")
        told = w.say("hello")
        assert "does not know the model claude-opus-5-6" in told and "claude-opus-5-5" in told, told
        w.say("/model opus 5.5")
        assert w.say("say well") == "well"


def test_terminal_shows_words():
    with world() as w:
        s = w.b.shell(terminal=False)
        s.send("/model")
        s.expect("/model claude-opus-5-5  /model claude-opus-5")
        s.send("/model fable")
        s.expect("answered by claude-fable-5-2")
        s.eof()
        s.wait_exit()


# ---- rate limits -------------------------------------------------------------------------------------


def test_limits_are_minded():
    """The call that would have been refused waits for the reset, whatever the two clocks say."""
    for skew in (0, 5000, -5000):
        with world() as w:
            w.ai.clock_skew = skew
            w.ai.limit("claude-sonnet", 3, requests=2)
            assert w.say("say a") == "a"
            assert status(w)["provider"]["rate_limits"]["claude-sonnet"]["requests"]["remaining"] == 1
            assert w.say("say b") == "b"
            assert "0 of 2 requests" in w.b.cli("status")[1]
            assert w.say("say c") == "c"
            assert w.ai.bitten == [] and w.b.wait_log("waits")
            assert w.ai.requests[2]["time"] >= w.ai.requests[1]["time"] + 1
            assert w.b.query("SELECT count(*) FROM steps WHERE kind = 0") == [(3,)]


def test_limits_of_tokens_and_families():
    with world() as w:
        w.ai.limit("claude-sonnet", 3, requests=50, input_tokens=5000)
        assert w.say("say " + "x" * 3900).startswith("xxx")     # of 5,000 tokens some 3,000 are left
        w.tg.add_chat(OWNER)
        n = len(w.ai.requests)
        assert w.say("say " + "y" * 3900).startswith("yyy")
        assert w.say("say " + "z" * 3900).startswith("zzz")
        w.ai.limit("claude-sonnet", 600, requests=1)
        assert w.say("say last") == "last"
        told = w.say("say too late")
        assert "rate limit is used up for the next" in told and "min" in told, told
        assert w.ai.bitten == [] and len(w.ai.requests) == n + 3
        w.say("/model opus")                                    # another family has limits of its own
        assert w.say("say but here") == "but here"


def test_many_wait_for_one_reset():
    users = [OWNER, 1002, 1003, 1004]
    with world(telegram={"allowed_users": users}) as w:
        w.ai.limit("claude-sonnet", 3, requests=1)
        assert w.say("say first") == "first"
        for u in users:
            w.tg.add_chat(u)
            w.tg.send_text(u, "say u%d" % u)
        w.wait(lambda: all(w.tg.texts(u)[-1:] == ["u%d" % u] for u in users), "all answered")
        assert w.ai.bitten == []
        assert len({r["time"] for r in w.ai.requests[1:]}) == 4
        waits = [m for m in w.b.logs(running=True) if "waits" in str(m)]
        assert len(waits) == 4, waits


def test_limit_wait_can_be_stopped_and_survives():
    with world() as w:
        w.ai.limit("claude-sonnet", 60, requests=1)
        assert w.say("say first") == "first"
        w.tg.send_text(OWNER, "say never")
        w.b.wait_log("waits")
        assert w.say("/stop") == "(Stopped.)"
        assert len(w.ai.requests) == 1
        w.ai.limit("claude-sonnet", 4, requests=1)      # it learns of it by the next answer only
        w.say("/model haiku")
        assert w.say("say haiku") == "haiku"
        w.say("/model default")
        w.b.restart()                                   # what was in memory is gone with it
        assert w.say("say again") == "again"
        w.tg.send_text(OWNER, "say later")
        w.b.wait_log("waits")
        at = w.b.query("SELECT next_at FROM turns ORDER BY id DESC LIMIT 1")[0][0]
        w.b.kill9()
        w.b.start()
        w.wait(lambda: w.tg.texts(OWNER)[-1] == "later", "answered")
        assert w.ai.requests[-1]["time"] * 1e6 >= at and w.ai.bitten == []


if __name__ == "__main__":
    main(globals())
