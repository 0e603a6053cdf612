# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a person sees of money and of standing instructions: /cost, /pause, caps, /rules, over restarts and kill -9."""

import json
import re
import sqlite3
import threading

from billing import TOOLS_PROMPT, blocks_of, compact, tokens
from gateway_client import Gateway
from harness import OWNER, World, main
from test_metrics import page

TOKEN = "q7Vx2LkP9sZtR4mWb8NcYd3HfJ6aGe"


def asked(w):
    return len(w.ai.requests)


def test_cost_is_told_everywhere():
    with World({"cost": {"daily_budget_usd": 2, "monthly_budget_usd": 30}}) as w:
        w.say("say one")
        spent = w.b.query("SELECT sum(nano_usd) FROM cost_ledger")[0][0]
        text = w.say("/cost")
        assert "Today's budget: $%d.%04d of $2.0000 spent; resets in" % (spent // 10**9, spent % 10**9 // 10**5) in text
        assert "This month's budget:" in text and "of $30.0000" in text and "claude-sonnet-5-5: $" in text
        rc, out, err = w.b.cli("cost")
        assert rc == 0 and "claude-sonnet-5-5: $" in out and "message: $" in out, err
        rc, out, err = w.b.cli("cost", "--json")
        report = json.loads(out)
        assert report["caps"][0] == dict(report["caps"][0], key="cost.daily_budget_usd", cap_nano_usd=2 * 10**9,
                                         spent_nano_usd=spent, reserved_nano_usd=0)
        assert report["today"]["by_model"] == [dict(report["today"]["by_model"][0], name="claude-sonnet-5-5", calls=1,
                                                    nano_usd=spent, estimated_calls=0)]
        assert report["month"]["total"][0]["nano_usd"] == spent


def own_tokens(body):
    """What of a prompt is neither what was said nor its history."""
    return sum(tokens(len(compact(b).encode())) for b in body["tools"] + blocks_of(body["system"]) + [
        {"type": "text", "text": m["content"]} for m in body["messages"] if m["role"] == "system"])


def test_prompt_overhead():
    """What a prompt has beside what was said: counted by tier, told in /cost, the same in a long conversation as in a short
    one, and within the goals: 3,000 tokens for simple messages, 5,000 on the whole."""
    asks = ["hi", "What time is it?", "Write a short email to my landlord: the heating does not work since Monday, and it is cold.",
            "Prove Fermat's last theorem. " + "I have read a lot of it. " * 300, "thanks!"]
    with World({"routing": {"enabled": True}, "gateway": {"enabled": True, "port": 0}, "cost": {"daily_budget_usd": 20}}) as w:
        for text in asks:
            w.say(text)

        def of(name):
            w.wait(lambda: not w.b.query("SELECT 1 FROM turns WHERE state < 5"), "all done")
            samples = page(w)[0]
            return {t: samples['blufio_%s_total{tier="%s"}' % (name, t)] for t in ("simple", "standard", "complex")}
        before = of("prompt_overhead_tokens")["simple"]
        w.say("/rules add Answer in English. " + "It is my language. " * 40)
        w.say("hi")
        assert of("prompt_overhead_tokens")["simple"] - before > 0.9 * own_tokens(w.ai.requests[-1]["body"]) > 400
        n, overhead = of("prompts"), of("prompt_overhead_tokens")
        assert sum(n.values()) == len(w.ai.requests) == 6 and n == {"simple": 4, "standard": 1, "complex": 1}, n
        mine = sum(own_tokens(r["body"]) for r in w.ai.requests)
        most = mine + sum(TOOLS_PROMPT.get(r["body"]["model"], 0) for r in w.ai.requests)      # the provider's own words count, too
        assert 0.9 * mine < sum(overhead.values()) < 1.1 * most, (overhead, mine, most)
        assert overhead["complex"] < 1.2 * own_tokens(w.ai.requests[3]["body"]), overhead      # behind 7 KB of history
        assert overhead["simple"] <= 3000 * n["simple"] and sum(overhead.values()) <= 5000 * 6, overhead
        told = {t: "%d tokens (%s, %d)" % (overhead[t] // n[t], t, n[t]) for t in n}
        assert "Beside what was said a prompt had, since the start: " + ", ".join(told.values()) + "." in w.say("/cost")
        report = json.loads(w.b.cli("cost", "--json")[1])
        assert report["prompts"] == [{"tier": t, "prompts": n[t], "overhead_tokens": overhead[t]} for t in n]


def test_tokens_are_reckoned_as_they_were_counted():
    """A first guess, then what the provider has counted for models of that family: of a conversation that begins anew
    the size is known before it is asked."""
    with World({"agent": {"system_prompt": "You know all about rivers. " * 500}, "context": {"static_budget": 9000}}) as w:
        def errors():
            at = w.b.query("SELECT s.estimate, c.input + c.cache_read + c.write_5m + c.write_1h FROM steps s JOIN cost_ledger c"
                           " ON c.turn_id = s.turn_id WHERE s.kind = 0 ORDER BY s.id")
            return [abs(guess - real) / real for guess, real in at]
        w.say("say one")
        w.say("/new")
        w.say("say two")
        w.say("/model claude-sonnet-4-6")          # counts 30 % fewer
        w.say("/new")
        w.say("say three")
        w.say("/new")
        w.say("say four")
        w.wait(lambda: not w.b.query("SELECT 1 FROM turns WHERE state < 5"), "all done")
        first, then, other, other_then = errors()
        assert first > 0.08 and then < 0.03 and other > 0.2 and other_then < 0.03, errors()


def test_pause_stops_everything_over_restarts():
    with World() as w:
        gate = w.ai.hold_after_first_delta = threading.Event()
        w.tg.send_text(OWNER, "say one two three")
        w.wait(lambda: asked(w) == 1, "the question")
        w.tg.send_text(OWNER, "/pause")
        w.wait(lambda: any("(Stopped.)" in t for t in w.tg.texts(OWNER)), "the running answer's end")
        w.ai.hold_after_first_delta = None
        gate.set()
        assert "I am paused" in w.say("say four") and asked(w) == 1
        assert "paused" in w.b.cli("status")[1]
        w.b.kill9()
        w.b.start()
        assert "I am paused" in w.say("say five") and asked(w) == 1
        assert w.b.query("SELECT count(*) FROM reservations") == [(0,)]
        assert w.b.cli("resume")[0] == 0
        assert w.say("say six") == "six" and asked(w) == 2
        assert w.b.cli("pause")[0] == 0 and "I am paused" in w.say("say seven")
        assert "I go on." in w.say("/resume") and w.say("say eight") == "eight"


def test_a_death_is_booked():
    """What was asked when the process died may be billed: it is booked, as an estimate, before anything new is asked."""
    with World() as w:
        gate = w.ai.hold_after_first_delta = threading.Event()
        w.tg.send_text(OWNER, "say one two three")
        w.wait(lambda: asked(w) == 1, "the question")
        w.wait(lambda: w.b.query("SELECT count(*) FROM reservations") == [(1,)], "its reservation")
        w.b.kill9()
        w.ai.hold_after_first_delta = None
        gate.set()
        w.b.start()
        w.wait(lambda: "one two three" in w.tg.texts(OWNER), "the answer")
        ledger = w.b.query("SELECT estimated, input + write_5m + write_1h > 300, output >= 256 FROM cost_ledger ORDER BY id")
        assert ledger[0] == (1, 1, 1) and ledger[1][0] == 0 and len(ledger) == 2, ledger


def test_caps_refuse_in_words():
    with World({"cost": {"daily_budget_usd": 0}}) as w:
        assert "Nothing may be spent" in w.say("say one") and asked(w) == 0
        w.b.configure(cost={"daily_budget_usd": 5, "monthly_budget_usd": 0.0001})
        assert w.b.cli("reload")[0] == 0
        text = w.say("say two")
        assert "This month's budget does not reach" in text and "blufio config set cost.monthly_budget_usd" in text
        w.b.configure(cost={"daily_budget_usd": 5, "monthly_budget_usd": 5, "user_daily_usd": 0.0001})
        assert w.b.cli("reload")[0] == 0
        assert "Your budget for today does not reach" in w.say("say three") and asked(w) == 0


def test_prices_missing_and_negative():
    """What cannot be counted is not spent, and the line that prices it is told; a price below nothing is no price."""
    with World({"anthropic": {"default_model": "claude-new-7"}}) as w:
        text = w.say("say one")
        assert "has no price" in text and '[pricing."claude-new-7"]' in text and asked(w) == 0, text
        for bad in (-2, -0.001):
            w.b.configure(pricing={"claude-new-7": {"input": bad, "output": 10}})
            code, _, err = w.b.cli("reload")
            assert code != 0 and "blufio.toml:" in err and "input" in err and "from 0.00" in err, err
            assert "has no price" in w.say("say two") and asked(w) == 0
        assert w.b.query("SELECT count(*) FROM cost_ledger") == [(0,)]


def test_eighty_percent_is_told_once():
    with World({"anthropic": {"max_tokens": 100}}) as w:
        w.say("say one")
        spent = w.b.query("SELECT sum(nano_usd) FROM cost_ledger")[0][0]
        # the next answers take it over 80 %, and their reservations still fit
        w.b.configure(cost={"daily_budget_usd": round(spent * 2.2 / 1e9 + 0.01, 6)})
        assert w.b.cli("reload")[0] == 0
        for i in range(40):
            w.say("say number %d" % i)
            if any("80 % of today's budget is used" in t for t in w.tg.texts(OWNER)):
                break
        told = [t for t in w.tg.texts(OWNER) if "80 % of today's budget is used" in t]
        assert len(told) == 1
        w.say("say again")
        assert len([t for t in w.tg.texts(OWNER) if "80 % of today's budget is used" in t]) == 1


def test_eighty_percent_of_ones_own():
    """Also of a person's own budget; and where a program's call passed it, the next person is told."""
    for own in (True, False):
        with World({"anthropic": {"max_tokens": 100}, "gateway": {"enabled": True, "host": "127.0.0.1", "port": 0,
                                                                   "bearer_token": TOKEN}}) as w:
            w.say("say one")
            spent = w.b.query("SELECT sum(nano_usd) FROM cost_ledger")[0][0]
            cap = round(spent * 2.2 / 1e9 + 0.01, 6) if own else 0.03
            w.b.configure(cost={"user_daily_usd" if own else "daily_budget_usd": cap})
            assert w.b.cli("reload")[0] == 0
            told = "80 %% of %s budget" % ("your" if own else "today's")
            g = Gateway(w.b, TOKEN)
            for i in range(200):
                if own:
                    w.say("say number %d" % i)
                else:
                    assert g.ask("POST", "/v1/chat/completions", {"model": "claude-sonnet-5-5", "messages": [
                        {"role": "user", "content": "words 90"}]}).status == 200
                if w.b.query("SELECT sum(nano_usd) FROM cost_ledger")[0][0] >= 0.8 * cap * 1e9:
                    break
            w.wait(lambda: own or not any(told in t for t in w.tg.texts(OWNER)) and w.say("say on"), "a word")
            w.wait(lambda: len([t for t in w.tg.texts(OWNER) if told in t]) == 1, "the warning")
            w.say("say again")
            assert len([t for t in w.tg.texts(OWNER) if told in t]) == 1


# ---- standing instructions -------------------------------------------------------------------------


def system_of(request):
    s = request["body"].get("system")
    return s if isinstance(s, str) else "".join(b["text"] for b in s or [])


def test_rules():
    """A rule holds from the next message on without moving the prefix, stands in the prompt of the next history, and is
    told word for word."""
    rule = "Answer in at most 3 sentences; call me “Captain” & <never> \"you\"."
    with World() as w:
        w.say("say one")
        assert "There are no standing instructions" in w.say("/rules")
        assert "1. " + rule in w.say("/rules add " + rule)
        assert "1. " + rule in w.say("/rules list")
        w.say("say two")
        body = w.ai.requests[-1]["body"]
        assert body["messages"][-1]["role"] == "system" and rule in body["messages"][-1]["content"]
        assert rule not in system_of(w.ai.requests[-1])
        w.say("say three")
        assert sum(m["role"] == "system" for m in w.ai.requests[-1]["body"]["messages"]) == 1
        w.b.kill9()
        w.b.start()
        w.say("/new")
        w.say("say four")
        assert "1. " + rule in system_of(w.ai.requests[-1])
        assert all(m["role"] != "system" for m in w.ai.requests[-1]["body"]["messages"])
        assert "no instruction 7" in w.say("/rules remove 7")
        assert "no longer holds" in w.say("/rules remove 1")
        w.say("say five")
        assert "instruction 1 no longer holds" in w.ai.requests[-1]["body"]["messages"][-1]["content"]
        w.say("/new")
        w.say("say six")
        assert rule not in system_of(w.ai.requests[-1])
        assert "What shall hold?" in w.say("/rules add") and "Which one?" in w.say("/rules remove it")
        assert "at most 1000 bytes" in w.say("/rules add " + "x" * 1001)


def budgets(w, **context):
    w.b.configure(context=context)
    assert w.b.cli("reload")[0] == 0


def static_bytes(request):
    return len(system_of(request).encode()) + len(compact(request["body"]["tools"]).encode())


def test_the_static_budget():
    """What begins every request has a budget. At its limit a rule is taken, beyond it refused with what to do, and nothing
    of what held is lost; a prompt that is more by itself is told at the start, and sent whole."""
    with World() as w:
        w.say("say one")
        heading = len("\n\nStanding instructions of the person you talk with. They hold always:\n1. ")
        for n, (before, extra) in enumerate((((), heading), ((700,), len("\n2. ")))):
            for length in before:
                budgets(w, static_budget=100000)
                assert "From now on" in w.say("/rules add " + "a" * length)
                w.say("/new")
                w.say("say on")
            # so long that it fills whole tokens: two for each seven bytes
            length = 900 - (static_bytes(w.ai.requests[-1]) + extra + 900) % 7
            exact = (static_bytes(w.ai.requests[-1]) + extra + length) * 2 // 7
            budgets(w, static_budget=exact)
            text = w.say("/rules add " + "b" * (length + 1))
            assert text.startswith("There is no room for it") and "about %d tokens and may have %d" % (exact + 1, exact) in text, text
            assert "bbb" not in w.say("/rules")
            assert "From now on" in w.say("/rules add " + "b" * length)
            w.say("/new")
            w.say("say on")
            assert static_bytes(w.ai.requests[-1]) * 2 == exact * 7 and "b" * length in system_of(w.ai.requests[-1])
            if n == 0:
                assert "no longer holds" in w.say("/rules remove 1")
                w.say("/new")
                w.say("say on")
        # as it was said, it goes
        more = text.partition("config set ")[2].partition("`")[0].split()
        assert w.b.cli("config", "set", *more)[0] == 0 and w.b.cli("reload")[0] == 0
        assert "From now on" in w.say("/rules add " + "c" * 500)
        assert not [x for x in w.b.logs() if "more than context.static_budget" in x["msg"]]
    with World({"agent": {"system_prompt": "You know all about rivers. " * 500}}) as w:
        line, *_ = [x["msg"] for x in w.b.logs() if "more than context.static_budget = 3000" in x["msg"]]
        assert "agent.system_prompt" in line and "next: shorten it, or `blufio config set context.static_budget 5000`" in line, line
        assert w.say("say one") == "one" and system_of(w.ai.requests[-1]) == "You know all about rivers. " * 500
        assert w.say("/rules add Be brief.").startswith("There is no room for it")


def test_the_conditional_budget():
    """What is told beside a message has a budget: of many changed rules those are told that hold now, of many notes the oldest
    that fit, and the others beside the messages that follow."""
    with World({"context": {"conditional_budget": 2000, "static_budget": 9000}}) as w:
        most = 2000 * 7 // 2
        w.say("say one")

        def beside(text):
            w.say(text)
            last = w.ai.requests[-1]["body"]["messages"][-1]
            return last["content"] if last["role"] == "system" else None
        head = "New standing instruction 1, which holds from now on: "
        rules = ["%d" % i * 900 for i in range(1, 8)]
        for rule in rules:
            w.say("/rules add " + rule)
        told = sum(len(head) + len(rule) + 1 for rule in rules) - 1
        last = "8" * (most - told - len(head) - 1)
        w.say("/rules add " + last)
        whole = beside("say two")
        assert len(whole) == most and whole.count("New standing instruction") == 8
        for i in range(1, 8):
            w.say("/rules remove %d" % i)
        for i in range(9, 17):
            w.say("/rules add " + "%d" % (i % 10) * 900)
        text = beside("say three")
        assert text.startswith("The standing instructions have changed. No other holds any longer than these:"), text
        assert "8. " + last in text and "\n1. 111" not in text and all("%d. %d%d" % (i, i % 10, i % 10) in text for i in range(9, 17))
        assert beside("say four") is None
        w.b.stop()
        session = w.b.query("SELECT id FROM sessions")[0][0]
        with sqlite3.connect(w.b.db_path) as db:
            db.executemany("INSERT INTO heartbeat_notes(session_id, text, shown, created_at) VALUES(?, ?, 1, 1)",
                           [(session, "note %02d " % i + "n" * 992) for i in range(30)])
        db.close()
        w.b.start()
        found = []
        for k in range(6):
            text = beside("say %d" % k)
            if text is None:
                break
            assert len(text) <= most
            found.append([int(n) for n in re.findall(r"note (\d\d)", text)])
        assert [n for part in found for n in part] == list(range(30)) and len(found) == 5 and len(found[0]) == 6, found
        assert w.b.query("SELECT count(*) FROM heartbeat_notes") == [(0,)]


def test_rules_of_a_model_without_system_turns():
    with World({"anthropic": {"default_model": "claude-sonnet-5"}}) as w:
        w.say("say one")
        w.say("/rules add Be brief.")
        w.say("say two")
        last = w.ai.requests[-1]["body"]["messages"][-1]
        assert last["role"] == "user" and "Be brief." in last["content"][-1]["text"]
        w.say("say three")


if __name__ == "__main__":
    main(globals())
