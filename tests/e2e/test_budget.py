# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a person sees of money and of standing instructions: /cost, /pause, caps, /rules, over restarts and kill -9."""

import json
import threading

from harness import OWNER, World, main


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
