# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_money.py - the ledger against the provider's own log (billing.py): what was billed is booked."""
import threading

import billing
from fake_anthropic import Answer
from harness import OWNER, World, main
from test_telegram import answer, document

SYSTEM = "You are a test. " * 1500      # beyond every model's minimum for the cache


def world(**sections):
    sections.setdefault("cost", {"daily_budget_usd": 50})
    return World(sections)


def held(w, words, first=None):
    """Asks for something and waits until its answer stands still, after the first words or before anything came.
    Returns what lets the provider go on once the call is over."""
    gate = threading.Event()
    if first is None:
        w.ai.hold = gate
    else:
        w.ai.hold_after_first_delta = gate
    n = len(w.ai.requests)
    w.tg.send_text(OWNER, words)
    w.wait(lambda: len(w.ai.requests) > n, "asked")
    if first is not None:
        w.wait(lambda: any(first in d["text"] for d in w.tg.drafts(OWNER)), "a draft")

    def go_on():
        w.wait(lambda: not w.ai.book.open, "the provider to see that nobody listens")
        w.ai.hold = w.ai.hold_after_first_delta = None
        gate.set()
    return go_on


def at_rest(w):
    w.wait(lambda: not w.b.query("SELECT 1 FROM turns WHERE state < 5"), "all turns over")


def books(w, **options):
    """Nothing is wrong between the ledger and the provider's log."""
    at_rest(w)
    wrong = w.settle_up(**options)
    assert wrong == [], "\n".join(wrong)


def stop(w):
    w.tg.send_text(OWNER, "/stop")
    w.wait(lambda: "(Stopped.)" in w.tg.texts(OWNER)[-1], "stopped")


def day(w):
    """Tools, thinking, long answers, refusals, every kind of retry, a stop, a kill, restarts, another model, a terminal."""
    assert w.say("say good morning") == "good morning"
    w.say("tools")
    w.say("think tools")
    w.say("words 900")
    for fault, options in (("529", {}), ("429", {"retry_after": 0}), ("500", {}), ("reset", {}),
                           ("cut", {"k": 3}), ("error_event", {"k": 2})):
        w.ai.fail_next(fault, **options)
        assert w.say("say after %s" % fault) == "after " + fault
    w.ai.fail_next("refusal")
    assert "declined" in w.say("say no")
    w.ai.fail_next("refusal_mid", k=2)
    assert "declined" in w.say("say half of it and no more")
    w.b.restart()
    assert w.say("say restarted") == "restarted"
    w.say("/model haiku")
    w.say("tools")
    w.say("/model default")
    w.say("say back again")
    go_on = held(w, "say this is never finished", "this")
    stop(w)
    go_on()
    go_on = held(w, "say after the kill", "after")
    w.b.kill9()
    go_on()
    w.b.start()
    w.wait(lambda: w.tg.texts(OWNER)[-1:] == ["after the kill"], "the answer after the kill")
    code, out, err = w.b.cli("shell", input="say from the terminal\n")
    assert code == 0 and "from the terminal" in out, err
    at_rest(w)
    assert {c["outcome"] for c in w.ai.log} == {"completed", "refused", "cut", "error"}


def test_a_day():
    """Whatever came to its end is booked once, to the token and the nano-dollar; nothing else is, but by estimate."""
    with world(agent={"system_prompt": SYSTEM}) as w:
        day(w)
        books(w, flagged=False)


def test_a_day_of_estimates():
    """What broke off is booked by at least what it was billed."""
    for piece in (None, 200):
        with world(agent={"system_prompt": SYSTEM}) as w:
            w.ai.piece = piece
            day(w)
            books(w)


def test_many_calls_at_once():
    """A breakpoint looks back over 20 blocks. Behind an answer with many calls the end of the request before is found all the
    same, whatever stands around it, and what was cached is read."""
    for calls, think, config in ((8, False, {}), (10, False, {}), (10, True, {}), (18, False, {}), (19, True, {}), (32, True, {}),
                                 (12, True, {"anthropic": {"default_model": "claude-sonnet-5"}})):
        with world(agent={"system_prompt": SYSTEM}, **config) as w:
            def answers(ask):
                if len(ask.results) and ask.number % 4 == 0:
                    return "done"
                uses = [{"type": "tool_use", "name": "text_count", "input": {"text": "word %d" % i}} for i in range(calls)]
                return {"blocks": ([{"type": "thinking", "thinking": ""}] if think else []) + uses, "stop_reason": "tool_use"}
            w.ai.script = answers
            w.say("one")
            w.say("/rules add Be brief.")
            w.say("two")                # a system message is the end of its first request
            at_rest(w)
            log = w.ai.log
            assert len(log) == 8 and [c["miss"] for c in log] == [None] * 8, (calls, think, [c["miss"] for c in log])
            marks = [str(r["body"]["messages"]).count("cache_control") for r in w.ai.requests]
            assert set(marks) <= {0, 1} and any(marks) == (calls > 8), marks
            books(w, flagged=False)


def test_thinking_that_is_not_shown():
    """A stream that is cut after its thinking was billed for all of it, though nothing of it was to be seen: as much as a
    model thinks in the time."""
    with world() as w:
        w.ai.script = [{"blocks": [{"type": "thinking", "tokens": 200}, {"type": "text", "text": "so be it"}]}, "again"]
        w.ai.fail_next("cut", k=2)
        assert w.say("go") == "again"
        books(w)


def test_cut_before_the_first_word():
    """Accepted, therefore billed: the connection is lost, or the person stops, before anything came back."""
    with world(agent={"system_prompt": SYSTEM}) as w:
        for fault in ("empty", "lost"):
            w.ai.fail_next(fault)
            assert w.say("say after %s" % fault) == "after " + fault
        go_on = held(w, "say nothing at all")
        stop(w)
        go_on()
        books(w)


def test_killed_before_the_first_word():
    with world(agent={"system_prompt": SYSTEM}) as w:
        w.say("say the cache is warm")
        go_on = held(w, "say after the kill")
        w.b.kill9()
        go_on()
        w.b.start()
        w.wait(lambda: w.tg.texts(OWNER)[-1:] == ["after the kill"], "the answer after the kill")
        books(w)


def test_killed_behind_many_words():
    """What was on disk of an answer counts, however fast it came."""
    with World({"cost": {"daily_budget_usd": 5}}) as w:
        w.ai.delay, w.ai.piece = 0.3, 2500
        w.tg.send_text(OWNER, "words 5000")
        w.wait(lambda: w.b.query("SELECT 1 FROM turns WHERE length(partial) > 10000"), "much on disk")
        on_disk = w.b.query("SELECT length(partial) FROM turns")[0][0]
        w.b.kill9()
        w.wait(lambda: not w.ai.book.open, "the end of the call")
        w.ai.delay = 0
        w.b.start()
        w.wait(lambda: w.b.query("SELECT state FROM turns") == [(5,)], "the answer")
        booked, estimated = w.b.query("SELECT output, estimated FROM cost_ledger ORDER BY id")[0]
        assert estimated and booked >= on_disk * 2 // 7 + 256, (booked, on_disk)


def test_killed_at_the_first_question():
    """All of the prompt is written to the cache, which is dearer than input."""
    with world(agent={"system_prompt": SYSTEM}) as w:
        go_on = held(w, "say after the kill")
        w.b.kill9()
        go_on()
        w.b.start()
        w.wait(lambda: w.tg.texts(OWNER)[-1:] == ["after the kill"], "the answer after the kill")
        books(w)


def test_absurd_usage():
    """No count of the provider's takes the ledger beyond what was reserved, or out of order; more than can be is marked."""
    usage = Answer.usage
    with world() as w:
        try:
            for said, flagged in (({"output_tokens": 10**18}, 1), ({"output_tokens": 17000}, 1), ({"input_tokens": 2**63 - 1}, 1),
                                  ({"cache_read_input_tokens": 10**12}, 1), ({"output_tokens": -5}, 1), ({"output_tokens": 10**400}, 1),
                                  ({"output_tokens": "many"}, 1), ({"input_tokens": None, "output_tokens": []}, 1),
                                  ({"cache_creation_input_tokens": 10**18}, 1),
                                  ({"input_tokens": 10**400}, 0)):              # message_start has said it
                n = len(w.b.ledger())
                Answer.usage = lambda self, said=said, **more: dict(
                    usage(self, **more), **(said if "output_tokens_details" in more else {}))
                assert w.say("say on") == "on", said
                Answer.usage = usage
                rows = w.b.ledger()
                assert len(rows) == n + 1 and rows[-1]["estimated"] == flagged, (said, tuple(rows[-1]))
                assert w.ai.log[-1]["nano"] <= rows[-1]["nano_usd"] < 4 * 10**8, (said, tuple(rows[-1]), w.ai.log[-1])
                assert w.say("say and on") == "and on"
        finally:
            Answer.usage = usage
        rows = w.b.ledger()
        assert w.b.query("SELECT sum(nano_usd) FROM cost_days") == [(sum(r["nano_usd"] for r in rows),)]
        assert all(r["input"] >= 0 and r["output"] >= 0 and r["cache_read"] >= 0 for r in rows)


def test_every_model():
    """A prompt that is written to the cache and then read, by each model of the price sheet."""
    with world(agent={"system_prompt": SYSTEM}) as w:
        for model in billing.SHEET:
            w.say("/model " + model)
            assert w.say("say one") == "one" and w.say("think tools").startswith("Let me look.")
        books(w)
        for model in billing.SHEET:
            used = [billing.counts(c["usage"]) for c in w.ai.log if c["model"] == model]
            assert len(used) == 3 and any(u[2] for u in used) and any(u[4] for u in used), (model, used)


def test_beyond_the_band():
    """One prompt below 100,000 tokens, one above: all of it at the other price."""
    with world(anthropic={"default_model": "claude-haiku-5-5"}, context={"budget": 200000}) as w:
        for size in (1000, 420000):
            assert answer(w, document(w, b"word " * (size // 5), "%d.txt" % size, "say read")) == "read"
        books(w)
        per_token = [c["nano"] / sum(billing.counts(c["usage"])) for c in w.ai.log]
        assert per_token[1] > 4 * per_token[0], per_token


def test_a_pdf_for_another_model():
    """What only one model's tokens were counted of is counted for the next one, before it is asked; and once."""
    with world() as w:
        answer(w, document(w, b"%PDF-1.4\n" + b"x" * 5000, "a.pdf", "say read"))
        assert len(w.ai.counts) == 1 and w.say("say on") == "on" and len(w.ai.counts) == 1
        w.say("/model haiku")
        assert w.say("say small") == "small" and len(w.ai.counts) == 2
        assert w.say("say on") == "on" and len(w.ai.counts) == 2
        books(w)


def test_a_text_file_has_no_more_tokens_than_bytes():
    """Digits have nearly as many: what is reserved is their number."""
    with world() as w:
        seen = []
        w.ai.script = lambda ask: seen.append(w.b.query("SELECT input FROM reservations")[0][0]) or "so many digits"
        assert answer(w, document(w, b"0123456789" * 2000, "digits.txt")) == "so many digits"
        assert 20000 < seen[0] < 30000
        books(w)


def test_no_instant_is_over_the_cap():
    """Many at once, each near what is left: what the provider bills never exceeds the cap, and much of it is used."""
    people = range(3001, 3009)
    with world(cost={"daily_budget_usd": 0.2}, agent={"system_prompt": SYSTEM, "max_sessions": 8},
               telegram={"allowed_users": list(people)}) as w:
        for user in people:
            w.tg.add_chat(user)
        w.ai.hold = gate = threading.Event()
        for user in people:
            w.tg.send_text(user, "words 2000")
        w.wait(lambda: w.ai.requests, "asked")
        gate.set()
        w.ai.hold = None
        w.wait(lambda: all(w.tg.texts(user) for user in people), "answered or refused", timeout=60)
        for user in people:
            w.say("words 2000", user=user)
        books(w)
        over = billing.over_cap(w.ai.book.charges, 200000000)
        assert over is None, over
        assert sum(c["nano"] for c in w.ai.log) > 100000000


if __name__ == "__main__":
    main(globals())
