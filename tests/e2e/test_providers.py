# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_providers.py - other servers than Claude's: each with its own habits (fake_openai.py), the ledger by their count;
and who answers when one of several providers does not."""
import json
import os
import re
import tempfile
import threading
import time

from fake_openai import MODES, FakeOpenAI
from gateway_client import Gateway
from harness import OWNER, World, built, main, wait_for
from test_telegram import answer, document, photo, png

CLAUDE = "claude-sonnet-5-5"


class Providers(World):
    """The fakes of other servers under their names, [providers] beside Claude."""

    def __init__(self, default, others, config=None, **options):
        self.others = others
        sections = {name: oa.section() for name, oa in others.items()}
        providers = dict(sections, default=default, **(config or {}).pop("providers", {}))
        for name, more in (config or {}).pop("more", {}).items():
            providers[name] = {k: v for k, v in dict(providers[name], **more).items() if v is not None}
        World.__init__(self, dict({"cost": {"daily_budget_usd": 50}, "providers": providers}, **(config or {})), **options)

    def check(self):
        World.check(self)
        for name, oa in self.others.items():
            assert not oa.unexpected(), "%s refused:\n  %s" % (name, "\n  ".join(oa.unexpected()))

    def cleanup(self):
        for oa in self.others.values():
            oa.close()
        World.cleanup(self)


def world(mode, **config):
    w = Providers("far", {"far": FakeOpenAI(mode)}, config)
    w.oa = w.others["far"]
    return w


def pair(fallback=("near/qwen3:8b",), mode="ollama", options=None, **config):
    """Claude, and a server that stands in."""
    w = Providers("anthropic", {"near": FakeOpenAI(mode)}, dict(config, providers={"fallback": list(fallback)}), **options or {})
    w.oa = w.others["near"]
    return w


def at_rest(w):
    w.wait(lambda: not w.b.query("SELECT 1 FROM turns WHERE state < 5"), "all turns over")


def ledger(w, name="far"):
    at_rest(w)
    return w.b.query("SELECT model, input, cache_read, output, write_5m + write_1h, nano_usd, estimated FROM cost_ledger"
                     " WHERE provider = ?1 ORDER BY id", name)


def billed(oa, name="far", prices=(2000, 500, 10000)):
    return [("%s/%s" % (name, e["model"]), e["prompt"] - e["cached"], e["cached"], e["output"], 0,
             (e["prompt"] - e["cached"]) * prices[0] + e["cached"] * prices[1] + e["output"] * prices[2], 0) for e in oa.log]


def books(w, name="far", **more):
    """What the server billed is what is booked, to the token and the nano-dollar."""
    assert ledger(w, name) == billed(w.others[name], name, **more)


def asked(w):
    return w.oa.requests[-1]["body"]


# ---- each server ------------------------------------------------------------------------------


def converse(w):
    """Text, its growth, tools in rounds, thinking that goes back, a picture, a text file; the books at the end."""
    gate = w.oa.hold_after_first_delta = threading.Event()
    w.tg.send_text(OWNER, "say alpha beta gamma delta epsilon zeta eta theta")
    w.wait(lambda: any(d["text"].startswith("a") for d in w.tg.drafts(OWNER)), "the first words as a draft")
    gate.set()
    w.wait(lambda: w.tg.texts(OWNER) == ["alpha beta gamma delta epsilon zeta eta theta"], "the answer")
    w.oa.hold_after_first_delta = None
    reply = w.say("tools")
    assert "Let me look." in reply and "Tool results:" in reply and reply.count(";") == 1, reply
    assert w.say("think tools").count("Tool results:") == 1
    assert w.say("think tool time_now").startswith("Tool results:")
    assert w.say("say Grüße \U0001f30d") == "Grüße \U0001f30d"
    answer(w, photo(w, png(), "what is this?"))
    parts = asked(w)["messages"][-1]["content"]
    assert [p["type"] for p in parts] == ["image_url", "text"] and parts[1]["text"] == "what is this?"
    answer(w, document(w, b"words in a file", "a.txt"))
    assert "words in a file" in json.dumps(asked(w)["messages"][-1]["content"])
    w.b.kill9()
    w.b.start()
    assert w.say("say again") == "again"
    assert all(r["status"] == 200 for r in w.oa.requests)
    books(w)


def server_of_mode(mode):
    def test():
        with world(mode) as w:
            converse(w)
            assert w.ai.requests == []
            assert sum(e["cached"] for e in w.oa.log) > 0 or mode in ("ollama", "llamacpp")
            if mode in ("deepseek", "llamacpp", "openrouter", "groq", "ollama"):
                field = {"openrouter": "reasoning_details", "groq": "reasoning", "ollama": "reasoning"}.get(mode, "reasoning_content")
                back = [m for m in asked(w)["messages"] if m["role"] == "assistant" and field in m]
                assert len(back) == (3 if mode == "deepseek" else 2) and all("tool_calls" in m for m in back), back
                assert "thinking" not in asked(w)
    return test


for _mode in MODES:
    globals()["test_server_" + _mode] = server_of_mode(_mode)


def test_what_nobody_says():
    """What is read from a cache costs as input where no price is given, and a window that is not given is no bound."""
    gateway = {"enabled": True, "host": "127.0.0.1", "port": 0, "bearer_token": "q7Vx2LkP9sZtR4mWb8NcYd3HfJ6aGe"}
    with world("openai", more={"far": {"cache_read": None}}, gateway=gateway, cost={"daily_budget_usd": 0.8}) as w:
        for i in range(2):
            w.say("say number %d " % i + "x y z " * 400)
        for model, fresh, read, out, _, nano, _ in ledger(w):
            assert nano == (fresh + read) * 2000 + out * 10000
        assert read > 0
        g = Gateway(w.b, gateway["bearer_token"])
        n = len(w.oa.requests)
        ask = {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": "say on " + "1 2 3 4 " * 125000}]}
        assert g.ask("POST", "/v1/chat/completions", ask).status == 429 and len(w.oa.requests) == n


SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"], "additionalProperties": False}


def test_what_a_request_asks_for():
    """Each wish as the server takes it, and nothing that nobody asked for: what a server has no word for is left out, tools that
    may not be used are not shown where they cannot be forbidden, a schema is asked for in words."""
    token = "blf-test-token-0123456789abcdef"
    trace = "0af7651916cd43dd8448eb211c80319c"
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    for mode in MODES:
        with world(mode, gateway={"enabled": True, "port": 0, "bearer_token": token}) as w:
            g = Gateway(w.b, token)
            strange = {"tool_choice", "parallel_tool_calls", "stop", "response_format", "reasoning_effort", "reasoning"}

            def wishes(**more):
                doc = dict({"model": "blufio", "messages": [{"role": "user", "content": "say x"}]}, **more)
                r = g.ask("POST", "/v1/chat/completions", doc, {"traceparent": "00-%s-b7ad6b7169203331-01" % trace})
                assert r.status == 200, (mode, r.body)
                assert w.oa.requests[-1]["headers"]["traceparent"].startswith("00-%s-" % trace)
                w.oa.prefix_violations.clear()          # each is a conversation of its own
                return {k: v for k, v in asked(w).items() if k in strange}
            assert wishes() == {} and asked(w)["tools"]
            effort = {"reasoning": {"effort": "high"}} if mode == "openrouter" else {"reasoning_effort": "high"}
            assert wishes(reasoning_effort="high") == effort, mode
            assert wishes(stop=["END", "."]) == {"stop": ["END", "."]}, mode
            words = "Its JSON Schema: " + json.dumps(SCHEMA)
            said = wishes(response_format=form)
            if mode == "deepseek":
                assert said == {} and asked(w)["messages"][-1]["content"].endswith(words), asked(w)["messages"]
            else:
                assert said == {"response_format": form} and words not in json.dumps(asked(w)["messages"]), mode
            assert wishes(parallel_tool_calls=False) == ({} if mode == "deepseek" else {"parallel_tool_calls": False}), mode
            said = wishes(tool_choice="none", parallel_tool_calls=False)
            assert said == ({"tool_choice": "none"} if mode in ("openai", "openrouter") else {}), (mode, said)
            assert ("tools" in asked(w)) == (mode in ("openai", "openrouter"))


def test_a_pdf():
    with world("openrouter") as w:
        pdf = b"%PDF-1.4\n" + b"x" * 5000
        answer(w, document(w, pdf, "a.pdf"))
        assert any(p["type"] == "file" and p["file"]["filename"] == "a.pdf" for p in asked(w)["messages"][-1]["content"])
    with world("groq") as w:
        assert "cannot read PDFs" in answer(w, document(w, pdf, "a.pdf")) and w.oa.requests == []
        assert w.say("say on") == "on"


def test_no_pictures():
    """A model that cannot look at pictures is shown none, and what another saw of them is a note."""
    with world("ollama", more={"far": {"images": False}}) as w:
        w.oa.images = False
        assert "cannot look at pictures" in answer(w, photo(w, png(), "what is this?")) and w.oa.requests == []
        assert "From now on" in w.say("/model opus 5.5")
        answer(w, photo(w, png(), "what is this?"))
        w.say("/model far/qwen3:8b")
        assert w.say("say on") == "on"
        assert "(A picture was here; this model cannot read it.)" in json.dumps(asked(w)["messages"])


def test_rules_beside_a_message():
    for mode, role in (("openai", "developer"), ("llamacpp", "user")):
        with world(mode) as w:
            w.say("say one")
            w.say("/rules add Be brief.")
            w.say("say two")
            last = asked(w)["messages"][-1]
            assert last["role"] == role and "Be brief." in last["content"]
            assert asked(w)["messages"][0]["role"] == ("developer" if role == "developer" else "system")
            w.say("say three")


def test_thinking_that_is_missing():
    """The calls of another model have none: no thinking is asked of the server that insists on it."""
    with world("deepseek") as w:
        w.say("/model sonnet 5.5")
        w.say("tools")
        w.say("/model far/deepseek-v4-flash")
        assert w.say("say on") == "on" and asked(w)["thinking"] == {"type": "disabled"}
        w.say("/new")
        assert w.say("think tool time_now").startswith("Tool results:") and "thinking" not in asked(w)
        assert w.say("say on") == "on" and "thinking" not in asked(w)
        # and back to Claude, who would refuse what is not his
        w.say("/model sonnet 5.5")
        assert w.say("say there") == "there"


def test_streams_that_end_otherwise():
    with world("openrouter") as w:
        for fault, options in (("no_done", {}), ("finish", {"reason": "eos"}), ("finish", {"reason": ""}), ("at_once", {})):
            w.oa.fail_next(fault, **options)
            assert w.say("say it all") == "it all", fault
        books(w)
        w.oa.fail_next("finish", reason="length")
        assert "length limit" in w.say("say it all")
        w.oa.fail_next("finish", reason="content_filter")
        assert "declined to answer" in w.say("say it all")
        w.oa.script = [{"blocks": []}]
        w.oa.fail_next("finish", reason="content_filter")
        assert "declined to answer" in w.say("say nothing")
        books(w)                        # refused, the last without a word, and billed
        assert len(w.oa.prefix_violations) <= 1         # what was declined is left out
        w.oa.prefix_violations.clear()


def test_streams_that_break():
    """Cut, or an error inside a 200: asked again, and what came of the first is booked as an estimate."""
    with world("openrouter") as w:
        for fault in ("error_mid", "error_event", "finish_error", "cut", "fin"):
            n = len(w.oa.requests)
            w.oa.fail_next(fault, k=2)
            assert w.say("say these are some words to be told in pieces") == "these are some words to be told in pieces", fault
            assert len(w.oa.requests) == n + 2, fault
            first, second = ledger(w)[-2:]
            assert first[-1] == 1 and second == billed(w.oa)[-1], fault
            cut = w.oa.log[-2]
            assert first[5] >= cut["prompt"] * 2000 + cut["output"] * 10000, fault
        for fault in ("error_first", "empty", "html", "503", "429"):
            n, rows = len(w.oa.requests), len(ledger(w))
            w.oa.fail_next(fault)
            assert w.say("say on") == "on" and len(w.oa.requests) == n + 2, fault
            if fault != "empty":
                assert len(ledger(w)) == rows + 1, fault        # refused before a word: not billed


def test_absurd_usage():
    """More than can be is not booked, none or nonsense is an estimate; the cap stays in order."""
    with world("groq") as w:
        for usage, flagged in (({"prompt_tokens": 10**18, "completion_tokens": 10**18, "total_tokens": 0}, 1),
                               ({"prompt_tokens": -5, "completion_tokens": 3}, 1), ({"prompt_tokens": 0, "completion_tokens": 0}, 1),
                               ({}, 1), ([], 1), ({"prompt_tokens": "7", "completion_tokens": None}, 1),
                               ({"prompt_tokens": 700, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 10**12}}, 0)):
            w.oa.fail_next("usage", usage=usage)
            assert w.say("say on") == "on"
            row = ledger(w)[-1]
            assert row[-1] == flagged and (0 < row[5] < 2 * 10**9), (usage, row)
        w.oa.fail_next("no_usage")
        w.say("say " + "many words " * 320)
        last, entry = ledger(w)[-1], w.oa.log[-1]
        assert last[-1] == 1 and last[5] >= entry["prompt"] * 2000 + entry["output"] * 10000


def test_rate_limits():
    """One request fits long before all do; what does not fit for long is asked of another."""
    with world("groq") as w:
        w.oa.limits = [("x-ratelimit-limit-requests", "1000"), ("x-ratelimit-remaining-requests", "0"),
                       ("x-ratelimit-reset-requests", "8m20s")]
        assert w.say("say one") == "one"
        begin = time.monotonic()
        assert w.say("say two") == "two"
        assert time.monotonic() - begin > 0.4
        w.oa.limits = [("x-ratelimit-limit-tokens", "60000"), ("x-ratelimit-remaining-tokens", "1"), ("x-ratelimit-reset-tokens", "1h")]
        assert w.say("say three") == "three"
        assert "rate limit is used up" in w.say("say four")
        w.b.configure(providers={"fallback": [CLAUDE]})
        assert w.b.cli("reload")[0] == 0
        assert w.say("say five").startswith("five") and len(w.ai.requests) == 1


# ---- configuration, prices, choice ---------------------------------------------------------------


def test_local_and_free():
    """A server of this machine costs nothing: it answers when the budget is gone, and the ledger has its tokens."""
    with world("ollama", more={"far": {"input": None, "output": None, "cache_read": None}}, cost={"daily_budget_usd": 0}) as w:
        assert w.say("say one") == "one" and w.say("tools")
        books(w, prices=(0, 0, 0))
        assert "Nothing may be spent" in w.say("/model sonnet 5.5") + w.say("say two") and w.ai.requests == []
        w.say("/model default")
        w.b.configure(cost={"daily_budget_usd": 0.01})
        assert w.b.cli("reload")[0] == 0
        assert w.say("say three") == "three"


def test_prices():
    with Providers("far", {"far": FakeOpenAI("groq")}, {"more": {"far": {"input": None, "output": None}}}, start=False) as w:
        w.oa = w.others["far"]
        # over loopback all is free unless it is said otherwise; the rest is the price of a model that has none
        w.b.configure(providers={"default": "anthropic"}, anthropic={"default_model": "claude-next"})
        w.b.start()
        text = w.say("say one")
        assert '[pricing."claude-next"]' in text and "config set anthropic.default_model" in text and w.ai.requests == []
        w.b.configure(providers={"far": {"input": -1}})
        rc, out, err = w.b.cli("config", "validate")
        assert rc == 78 and "providers.far.input wants US dollars" in err and "got -1" in err, err
        w.b.configure(providers={"far": {"input": "0.0001"}})
        assert "at most 3 decimals" in w.b.cli("config", "validate")[2]
        w.b.configure(providers={"far": {"input": "0.05", "output": "0.08"}})
        assert w.b.cli("config", "validate")[0] == 0 and w.b.cli("reload")[0] == 0
        w.say("/model far/llama-3.3-70b-versatile")
        w.say("say two")
        books(w, prices=(50, 500, 80))
        w.b.configure(pricing={"far/llama-3.3-70b-versatile": {"input": 1, "output": 2, "cache_read": 1}})
        assert w.b.cli("reload")[0] == 0
        w.say("say three")
        e = w.oa.log[-1]
        assert ledger(w)[-1][5] == e["prompt"] * 1000 + e["output"] * 2000


def test_configuration():
    key = {"BLUFIO__PROVIDERS__FAR__API_KEY": "sk-test-groq-0123456789"}
    with Providers("far", {"far": FakeOpenAI("groq")}, {"more": {"far": {"api_key": "wrong"}}}, start=False, env=key) as w:
        w.oa = w.others["far"]
        rc, out, err = w.b.cli("config", "show", "--origin")
        assert 'api_key = "***"  # BLUFIO__PROVIDERS__FAR__API_KEY' in out and "sk-test" not in out + err
        w.b.start()
        assert w.say("say one") == "one"
        w.b.config["providers"]["Big"] = dict(w.b.config["providers"]["far"])
        w.b.write_config()
        out = w.b.cli("config", "show", "--origin", env={"BLUFIO__PROVIDERS__BIG__MODEL": "other"})[1]
        assert 'model = "other"  # BLUFIO__PROVIDERS__BIG__MODEL' in out and out.count("[providers.Big]") == 1 and "[providers.big]" not in out
        del w.b.config["providers"]["Big"]
        w.b.write_config()
        rc, out, err = w.b.cli("config", "validate")
        assert rc == 0, err
        for change, words in (({"model": None}, "[providers.far] has no model; next: `blufio config set providers.far.model"),
                              ({"base_url": None}, "providers.default names \"far\""),
                              ({"base_url": "http://far.example/v1"}, "must begin with https://"),
                              ({"modell": "x"}, "did you mean \"model\"?"), ({"images": "yes"}, "wants true or false"),
                              ({"server": "azure"}, '"openrouter"'), ({"max_tokens": 0}, "from 1 to")):
            before = dict(w.b.config["providers"]["far"])
            w.b.config["providers"]["far"] = {k: v for k, v in dict(before, **change).items() if v is not None}
            w.b.write_config()
            rc, out, err = w.b.cli("config", "validate")
            assert rc == 78 and words in err, (change, err)
            w.b.config["providers"]["far"] = before
        for name, words in (("anthropic", "is a provider of its own"), ("a.b", "a name has letters, digits")):
            w.b.config["providers"][name] = dict(w.b.config["providers"]["far"])
            w.b.write_config()
            assert words in w.b.cli("config", "validate")[2], name
            del w.b.config["providers"][name]
        w.b.write_config()
        assert w.b.cli("config", "set", "providers.far.max_tokens", "99")[0] == 0
        assert w.b.cli("reload")[0] == 0
        w.say("say two")
        assert asked(w)["max_tokens"] == 99


def test_the_only_provider_is_the_default():
    """Without a key of Claude's and without providers.default the one that is configured answers."""
    oa = FakeOpenAI("llamacpp")
    with Providers("far", {"far": oa}, start=False) as w:
        del w.b.config["providers"]["default"], w.b.config["anthropic"]
        w.b.write_config()
        w.b.start()
        assert w.say("say one") == "one"
        assert "model: far/gemma-4.gguf of far, answering" in w.b.cli("status")[1]
        assert w.b.stop() == 0
        text = w.b.cli("shell", input="say two\n")
        assert "two" in text[1] and "OFFLINE" not in text[1] + text[2], text


def test_tiers_of_another_default():
    """The router's own models are Claude's: with another default provider they are not asked, unless they are named."""
    with world("groq", routing={"enabled": True}) as w:
        for text in ("hi", "Prove Fermat's last theorem."):
            w.say(text)
        assert len(w.oa.requests) == 2 and w.ai.requests == []
        w.b.configure(routing={"complex_model": "claude-opus-5-5"})
        assert w.b.cli("reload")[0] == 0
        w.say("hi")
        w.say("Prove Fermat's last theorem.")
        assert len(w.oa.requests) == 3 and w.ai.requests[0]["body"]["model"] == "claude-opus-5-5"


def test_reload():
    with world("groq", providers={"fallback": ["far/unpriced", "nobody/x"]}) as w:
        assert not w.b.wait_log("nobody/x")[0].count("far/unpriced")     # [providers.far] prices all it has
        w.b.configure(providers={"other": w.oa.section()})
        assert "the provider other starts at the next start" in w.b.cli("reload")[1]
        w.b.config["providers"]["default"] = "anthropic"
        del w.b.config["providers"]["far"]
        w.b.write_config()
        assert "the provider far ends at the next start" in w.b.cli("reload")[1]
        w.b.config["providers"]["other"] = {"base_url": w.oa.base_url}
        w.b.write_config()
        rc, out, err = w.b.cli("reload")
        assert rc and "[providers.other] has no model" in err, (rc, out, err)
        del w.b.config["providers"]["other"]
        w.b.write_config()
        w.b.restart()
        assert w.say("say one") == "one" and len(w.ai.requests) == 1


def test_model_word():
    with world("openrouter") as w:
        text = w.say("/model")
        assert "answered by far/anthropic/claude-sonnet-5, the default" in text
        assert "- far/qwen/qwen3:free: $2 in, $10 out" in text and "- claude-opus-5-5: $4 in" in text and "could not be had" not in text
        assert w.oa.listings == 1
        assert "answered by far/qwen/qwen3:free." in w.say("/model qwen3")
        w.say("say one")
        assert asked(w)["model"] == "qwen/qwen3:free"
        assert "I know no model \"far/nothing\"" in w.say("/model far/nothing")
        assert "answered by claude-opus-5-5." in w.say("/model opus 5.5")
        assert "Which one?" in w.say("/model claude")
        w.say("/model default")
        w.say("say two")
        assert asked(w)["model"] == "anthropic/claude-sonnet-5"
    with world("llamacpp", more={"far": {"input": None, "output": None}}) as w:
        w.oa.faults.add("models", "500", 9)
        assert "could not be had" in w.say("/model")
        assert "answered by far/other.gguf." in w.say("/model far/other.gguf")       # nobody says that it is not there
        w.oa.expect_refusal("404 model 'other.gguf' not found")
        text = w.say("say one")
        assert "does not know the model far/other.gguf" in text and "config set providers.far.model" in text, text


# ---- who answers when one does not ------------------------------------------------------------------


def health(w, name):
    return next(p for p in json.loads(w.b.cli("status", "--json")[1])["providers"] if p["name"] == name)


def test_another_answers_the_failing_request():
    """Claude fails twice: the same message is answered by the next in the chain, people are told once and why, and then
    Claude is back."""
    with pair() as w:
        assert w.say("say one") == "one"
        w.ai.fail_next("529", n=4)
        text = w.say("say two")
        assert text.startswith("two\n\n(anthropic does not answer at the moment (Overloaded), so this is from near/qwen3:8b.)"), text
        assert [m["content"] for m in asked(w)["messages"] if m["role"] == "user"] == ["say one", "say two"]
        assert w.say("say three") == "three" and len(w.oa.requests) == 2        # told once
        assert w.say("say four") == "four" and len(w.oa.requests) == 2 and health(w, "anthropic")["state"] == "answering"
        w.ai.fail_next("529", n=2)
        assert "does not answer" in w.say("say five")                           # another outage
        books(w, "near")
        models = w.b.query("SELECT model, intended FROM cost_ledger ORDER BY id")
        assert models == [(m, CLAUDE) for m in (CLAUDE, "near/qwen3:8b", "near/qwen3:8b", CLAUDE, "near/qwen3:8b")]


def test_what_was_shown_is_void():
    """Claude breaks off in mid-sentence, twice: the other begins anew, and both beginnings are booked."""
    with pair() as w:
        w.ai.fail_next("cut", n=2, k=3)
        text = w.say("say one two three four five six seven eight")
        assert text.startswith("one two three four five six seven eight\n\n(anthropic does not answer"), text
        assert [r[0] for r in w.b.query("SELECT estimated FROM cost_ledger ORDER BY id")] == [1, 1, 0]


def test_in_mid_turn():
    """The round of tools is Claude's, the next is another's: the calls are answered, thinking is left behind; the rest of
    the turn stays there, and both ways work."""
    with pair() as w:
        w.ai.think = True

        def fails_after_tools(ask):
            if ask.results:
                w.ai.fail_next("500", n=1)
        w.ai.script = fails_after_tools
        w.say("say one")
        w.ai.script = None
        w.ai.fail_next("529", n=0)
        w.say("think tools")
        # the second request of a turn fails twice
        w.ai.script = lambda ask: (w.ai.fail_next("529", n=2) if not ask.results else None)
        text = w.say("tools")
        assert "Tool results:" in text and "from near/qwen3:8b" in text and len(w.oa.requests) == 1, text
        w.ai.script = None
        w.ai.watch.forget_all()         # it goes on without its thinking
        assert w.say("say on") == "on" and w.say("think tools").count("Tool results:") == 1
        books(w, "near")


def test_a_stand_in_keeps_its_turn():
    """Its tools are its own: the rounds that follow go where the calls came from."""
    with pair(mode="deepseek", fallback=["near/deepseek-v4-pro"]) as w:
        w.ai.fail_next("529", n=2)
        text = w.say("think tools")
        assert "Tool results:" in text and text.count("so this is from near/deepseek-v4-pro") == 1, text
        assert len(w.oa.requests) == 2 and "thinking" not in asked(w)
        assert w.say("say on") == "on" and len(w.ai.requests) == 3


def test_refused_for_good():
    """A key that is refused, an account without credit, a model that is gone: the next answers at once."""
    cases = (("401", {}, "invalid x-api-key"), ("402", {"type": "billing_error"}, "credit balance"),
             ("404", {"text": "model: " + CLAUDE}, "model: " + CLAUDE))
    for status, options, cause in cases:
        with pair() as w:
            w.ai.fail_next(status, n=2, **options)
            text = w.say("say one")
            assert text.startswith("one\n\n(anthropic does not answer") and cause in text, text
            assert len(w.ai.requests) == 1
            assert w.say("say two") == "two" and len(w.oa.requests) == 2        # told once
            assert w.say("say three") == "three" and len(w.oa.requests) == 2


def test_refused_without_another():
    with world("groq") as w:
        w.oa.api_key = "sk-another"
        w.oa.expect_refusal("401")
        text = w.say("say one")
        assert "refused the API key (far: Incorrect API key provided)" in text and "config set providers.far.api_key -" in text, text
        w.b.configure(providers={"far": {"api_key": "sk-another"}})
        assert w.b.cli("reload")[0] == 0
        assert w.say("say two") == "two"
        w.oa.models = ["llama-9"]
        w.oa.expect_refusal("does not exist")
        text = w.say("say three")
        assert "does not know the model far/llama-3.3-70b-versatile" in text and "config set providers.far.model" in text, text


def test_another_model_of_the_same_provider():
    with pair(fallback=["anthropic/claude-haiku-5-5", "near/qwen3:8b"]) as w:
        w.ai.script = lambda ask: None
        w.ai.fail_next("404", text="model: gone")
        text = w.say("say one")
        assert text.startswith("one\n\n") and "from anthropic/claude-haiku-5-5" in text and w.oa.requests == [], text
        w.ai.fail_next("529", n=2)      # not answering is the provider's: its other model is no help
        assert "from near/qwen3:8b" in w.say("say two")


def test_a_chain_of_three():
    """Each is asked before any is asked again; one without a price is passed over."""
    others = {"b": FakeOpenAI("groq"), "c": FakeOpenAI("llamacpp")}
    providers = {"dear": {"base_url": "https://127.0.0.1:1/v1", "model": "x"},
                 "fallback": ["dear/x", "b/llama-3.3-70b-versatile", "c/gemma-4.gguf"]}
    with Providers("anthropic", others, {"providers": providers}) as w:
        w.ai.fail_next("529", n=2)
        others["b"].fail_next("503")
        assert "so this is from c/gemma-4.gguf" in w.say("say one")
        assert (len(w.ai.requests), len(others["b"].requests), len(others["c"].requests)) == (2, 1, 1)
        w.ai.fail_next("529", n=9)
        others["b"].fail_next("503", n=9)
        others["c"].fail_next("500", n=1)
        assert "after 5 tries" in w.say("say two")


def test_all_are_asked_once_more():
    with pair() as w:
        w.ai.fail_next("529", n=99)
        w.oa.fail_next("503")
        assert w.say("say one").startswith("one\n\n(anthropic does not answer")
        assert (len(w.ai.requests), len(w.oa.requests)) == (3, 2)


def down(w, n=99):
    w.ai.fail_next("529", n=n)
    for oa in w.others.values():
        oa.fail_next("503", n=n, text="Loading model")


def up(w):
    w.ai.faults.clear()
    for oa in w.others.values():
        oa.faults.clear()


class Hasty:
    """A pair whose daemon's clocks can be made to run faster. A sanitizer wants to be loaded first: then it takes its time."""

    def __enter__(self):
        self.file = tempfile.NamedTemporaryFile()
        self.run(1)
        options = {} if os.environ.get("E2E_MEMORY") == "0" else {"preload": built("haste.so"), "env": {"HASTE": self.file.name}}
        self.w = pair(options=options, telegram={"poll_timeout": 1})
        return self.w.__enter__(), self.run

    def run(self, speed):
        os.pwrite(self.file.fileno(), bytes([speed]), 0)

    def __exit__(self, *what):
        self.w.__exit__(*what)
        self.file.close()


def test_all_are_down():
    """One sentence with the cause and when it is tried again; what needs no model works meanwhile; then all is well again by
    itself, and what nobody asked for is not asked."""
    with Hasty() as (w, run):
        w.say("say one")
        down(w)
        run(10)
        replies, again = [], 0
        while again < 30 and len(replies) < 12:         # well beyond what one waits for
            replies.append(w.say("say %d" % len(replies), timeout=60))
            again = int((re.findall(r"I try again in (\d+) s", replies[-1]) + [0])[0])
        run(1)
        last = replies[-1]
        assert "The model provider anthropic does not answer (Overloaded), nor do those that could stand in. I try again in" in last, replies
        assert all("after 5 tries (" in t or "I try again in" in t for t in replies), replies
        n = len(w.ai.requests) + len(w.oa.requests)
        assert "I try again in" in w.say("say seven")
        assert "of $50.0000 spent" in w.say("/cost") and "no standing instructions" in w.say("/rules")
        assert "/new starts" in w.say("/help") and "1. Be brief." in w.say("/rules add Be brief.")
        assert len(w.ai.requests) + len(w.oa.requests) == n
        states = [health(w, name) for name in ("anthropic", "near")]
        assert [s["state"] for s in states] == ["not asked", "not asked"] and all(s["next_try_s"] > 0 for s in states), states
        text = w.b.cli("status")[1]
        assert "anthropic, not asked (Overloaded), next try in" in text and "beside it: near/qwen3:8b of near, not asked (" in text, text
        up(w)
        run(10)
        wait_for(lambda: "I try again in" not in w.say("say eight", timeout=60), 180, "an answer")
        wait_for(lambda: w.say("say on", timeout=60) and health(w, "anthropic")["state"] == "answering", 180, "Claude's return")
        assert w.say("say nine") == "nine"


def test_one_provider_recovers():
    """With one alone: after five failures it is left alone, a message waits for the probe, and the probe's success ends it."""
    with World() as w:
        w.ai.fail_next("529", n=5)
        assert "after 5 tries (anthropic: Overloaded)" in w.say("say one")
        state = json.loads(w.b.cli("status", "--json")[1])["provider"]
        assert state["state"] == "not asked" and 0 <= state["next_try_s"] <= 5, state
        n = len(w.ai.requests)
        assert w.say("say two") == "two" and len(w.ai.requests) == n + 1         # waited, asked once
        assert json.loads(w.b.cli("status", "--json")[1])["provider"]["state"] == "answering"
        assert w.say("say three") == "three"


def test_the_probe_is_one_call():
    """While one message tries the provider, the others go to the stand-in; a failed probe is followed by the stand-in's answer
    to the same message."""
    with pair() as w:
        w.ai.fail_next("529", n=6)
        for i in range(3):
            assert w.say("say %d" % i).startswith(str(i))
        assert health(w, "anthropic")["state"] == "not asked" and len(w.ai.requests) == 5
        assert w.say("say quick") == "quick" and len(w.ai.requests) == 5         # not asked meanwhile
        wait_for(lambda: health(w, "anthropic")["next_try_s"] == 0, 30, "the time of the probe")
        assert w.say("say probe") == "probe" and len(w.ai.requests) == 6         # it failed; the stand-in answered
        assert health(w, "anthropic")["next_try_s"] > 5                          # and is left alone for longer
        wait_for(lambda: health(w, "anthropic")["next_try_s"] == 0, 30, "the time of the next probe")
        assert w.say("say back") == "back" and len(w.ai.requests) == 7
        assert health(w, "anthropic")["state"] == "answering"


def test_health_over_http():
    token = "blf-test-token-0123456789abcdef"
    with pair(gateway={"enabled": True, "host": "127.0.0.1", "port": 0, "bearer_token": token}) as w:
        g = Gateway(w.b, token)
        w.ai.fail_next("529", n=6)
        for i in range(3):
            w.say("say %d" % i)
        doc = g.ask("GET", "/v1/health").json()
        states = {p["name"]: (p["model"], p["state"], p["problem"]) for p in doc["providers"]}
        assert states == {"anthropic": (CLAUDE, "not asked", "Overloaded"), "near": ("near/qwen3:8b", "answering", "")}, states
        assert doc["provider"]["name"] == "anthropic" and doc["status"] == "ok"
        assert b'model="near/qwen3:8b"' in g.ask("GET", "/metrics").body


if __name__ == "__main__":
    main(globals())
