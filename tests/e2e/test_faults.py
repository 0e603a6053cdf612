# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_faults.py - what goes wrong outside: what the user saw, what was stored, what was asked next.

After every fault the next message is answered, within a bounded time. Faults
whose recovery takes as long as a timeout of the daemon run beside one another
(together).
"""
import glob
import json
import os
import re
import signal
import threading
import time
from collections import Counter

from fake_telegram import CONFORMANCE
from fakehttp import FakeServer
from harness import OWNER, SLOW, FakeAnthropic, FakeTelegram, Skip, World, main, merge
from telegram_format import units

STATES = ["PREPARE", "CALL", "STREAM", "TOOLS", "REPLY", "DONE"]
ANSWERED, STOPPED, FAILED, REFUSED, NO_BUDGET, SET_ASIDE = range(1, 7)
READY, SENDING, SENT, UNSENT = range(4)
REPEAT = "(This may be a repeat: I was interrupted while sending it.)\n\n"


def world(config=None, **options):
    """A World whose polls are short."""
    return World(merge({"telegram": {"poll_timeout": 2}}, config or {}), **options)


def rows(w, sql, *values):
    return w.b.query(sql, *values)


def count(w, table, where="1"):
    return rows(w, "SELECT count(*) FROM %s WHERE %s" % (table, where))[0][0]


def all_done(w):
    return not (count(w, "turns", "state < 5") or count(w, "outbox", "state < 2")
                or count(w, "inbound", "state < 2"))


def last_outcome(w):
    w.wait(lambda: all_done(w), "all rows done")
    return rows(w, "SELECT outcome FROM turns ORDER BY id DESC LIMIT 1")[0][0]


def stored(w):
    """[(role, [blocks])] of the history that counts."""
    return [(role, json.loads(content)) for role, content in
            rows(w, "SELECT role, content FROM messages WHERE void = 0 ORDER BY session_id, seq")]


def goes_on(w, user=OWNER, timeout=30.0):
    """The next message is answered, once."""
    word = "say still here %d" % len(w.tg.log)
    asked = len(w.ai.requests)
    assert w.say(word, user=user, timeout=timeout) == word[4:]
    assert len(w.ai.requests) == asked + 1


def channel(w, name="telegram"):
    code, out, err = w.b.cli("status", "--json")
    assert code == 0, err
    return [c for c in json.loads(out)["channels"] if c["name"] == name][0]


def together(*scenes):
    """Runs functions in threads; the first failure is raised."""
    failures = []

    def run(scene):
        try:
            scene()
        except BaseException as e:      # handed to the thread that waits
            e.args = ("%s: %s" % (getattr(scene, "__name__", "scene"), e),)
            failures.append(e)
    threads = [threading.Thread(target=run, args=(s,)) for s in scenes]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failures:
        raise failures[0]


def wait_fault(w, fake, method, kind, n=1):
    """n calls met the fault."""
    w.wait(lambda: len([c for c in fake.called(method) if c["fault"] == kind]) >= n,
           "%s to meet %s" % (method, kind))


# ---- Telegram: intake --------------------------------------------------------------------------


def poll_faults(*kinds):
    with world({"telegram": {"poll_timeout": 1}}) as w:
        for i, (kind, options) in enumerate(kinds):
            w.tg.fail_next("getUpdates", kind, n=2, **options)
            w.tg.send_text(OWNER, "say alpha %d" % i)
            wait_fault(w, w.tg, "getUpdates", kind)
            w.tg.send_text(OWNER, "say beta %d" % i)
            w.wait(lambda: w.tg.texts(OWNER)[-2:] == ["alpha %d" % i, "beta %d" % i]
                   and w.settled(), "both answers after %s" % kind, 30)
            wait_fault(w, w.tg, "getUpdates", kind, 2)
            w.tg.calls.clear()
        goes_on(w)
        n = 2 * len(kinds) + 1
        w.wait(lambda: all_done(w), "all rows done")
        assert (count(w, "inbound"), len(w.ai.requests), len(w.tg.texts(OWNER))) == (n, n, n)
        assert channel(w)["state"] == "polling"


def test_poll_survives_everything():
    """Each getUpdates is lost with all it brings, or its answer is: nothing is lost or doubled."""
    together(lambda: poll_faults(("reset", {}), ("half_json", {}), ("500", {})),
             lambda: poll_faults(("502", {}), ("garbage", {}), ("reset_after", {})),
             lambda: poll_faults(("429", {"retry_after": 1}), ("504", {}), ("413", {})))


def test_poll_conflicts_and_timeouts():
    """The slow ones: a second poller, a webhook, silence, dripping; all come back by themselves."""
    def second_poller():
        with world() as w:
            w.tg.fail_next("getUpdates", "409")
            wait_fault(w, w.tg, "getUpdates", "409")
            w.wait(lambda: channel(w)["state"] == "conflict", "the state conflict")
            detail = channel(w)["detail"]
            assert "another program" in detail and "`blufio config set" in detail, detail
            goes_on(w)
            assert channel(w)["state"] == "polling" and channel(w)["detail"] == ""

    def webhook():
        with world() as w:
            w.say("say before")
            w.tg.expect_refusal("webhook is active")
            with w.tg.cond:
                w.tg.webhook = "https://example.org/"
            w.wait(lambda: channel(w)["state"] == "conflict", "the state conflict")
            assert "deleteWebhook" in channel(w)["detail"]
            w.tg.send_text(OWNER, "say waited")
            with w.tg.cond:
                w.tg.webhook = ""
            w.wait(lambda: w.tg.texts(OWNER)[-1] == "waited", "the answer", 60)
            goes_on(w)

    def silence(kind, **options):
        def scene():
            with world() as w:
                w.say("say before")
                w.tg.fail_next("getUpdates", kind, **options)
                wait_fault(w, w.tg, "getUpdates", kind)
                w.tg.send_text(OWNER, "say waited")     # poll_timeout and 15 s later
                w.wait(lambda: w.tg.texts(OWNER)[-1] == "waited", "the answer after " + kind, 40)
                goes_on(w)
        return scene

    def send_hangs():
        with world() as w:
            w.tg.fail_next("sendRichMessage", "hang")
            w.tg.send_text(OWNER, "say patience")
            w.wait(lambda: w.tg.texts(OWNER) == [REPEAT + "patience"], "the second try", 60)
            goes_on(w)

    def draft_hangs():
        """A hint that hangs holds the final text up to its own deadline, and no longer."""
        with world() as w:
            w.tg.fail_next("sendMessageDraft", "hang")
            w.ai.hold_after_first_delta = gate = threading.Event()
            w.tg.send_text(OWNER, "say not held for ever")
            wait_fault(w, w.tg, "sendMessageDraft", "hang")
            gate.set()
            w.wait(lambda: w.tg.texts(OWNER) == ["not held for ever"], "the answer", 30)
            goes_on(w)

    together(second_poller, webhook, silence("hang"), silence("drip", every=1.0), send_hangs,
             draft_hangs)


def test_liveness_is_a_finished_poll():
    """Neither a poll that drips nor other traffic counts as life."""
    with world({"telegram": {"poll_timeout": 1}}) as w:
        w.say("say before")
        w.wait(lambda: channel(w)["last_poll_age_s"] <= 1, "a young poll")
        w.tg.fail_next("getUpdates", "drip", n=1000, every=0.5)
        wait_fault(w, w.tg, "getUpdates", "drip")
        w.b.shell("--chat", "x", terminal=False).send("say busy")
        w.wait(lambda: channel(w)["last_poll_age_s"] >= 4, "an age that grows", 30)
        w.tg.faults.clear()
        w.tg.expect_refusal("terminated by other getUpdates")   # the one that drips is still there
        w.tg.reset_all()
        w.wait(lambda: channel(w)["last_poll_age_s"] <= 1, "a young poll again", 30)
        goes_on(w)


def test_token_refused_and_restart():
    with world() as w:
        w.tg.fail_next("getUpdates", "401")
        wait_fault(w, w.tg, "getUpdates", "401")
        w.wait(lambda: channel(w)["state"] == "unauthorized", "the state unauthorized")
        assert "`blufio config set telegram.bot_token" in channel(w)["detail"]
        assert w.b.wait_log("blufio config set telegram.bot_token")
        w.tg.send_text(OWNER, "say later")
        w.b.restart()
        w.wait(lambda: w.tg.texts(OWNER) == ["later"], "the answer")
        goes_on(w)


def test_bot_name_asked_until_known():
    with world(start=False) as w:
        for kind in ("500", "reset", "garbage"):
            w.tg.fail_next("getMe", kind)
        w.tg.send_text(OWNER, "say hello")
        w.b.start()
        w.wait(lambda: w.tg.texts(OWNER) == ["hello"], "the answer", 30)
        goes_on(w)


def test_network_gone_and_back():
    with world() as w:
        w.say("say before")
        w.tg.down()
        w.ai.down()
        w.wait(lambda: channel(w)["state"] == "backoff", "the state backoff")
        w.tg.up()
        w.tg.send_text(OWNER, "say between")    # its model call finds nobody at first
        w.wait(lambda: count(w, "turns", "attempt > 0"), "a failed call", 30)
        w.ai.up()
        w.wait(lambda: w.tg.texts(OWNER)[-1] == "between", "the answer", 30)
        goes_on(w)


def test_update_ids_jump():
    with world({"telegram": {"poll_timeout": 1}}) as w:
        for i, to in enumerate((1000, 800000000, 5, None, None, 1)):
            w.tg.jump_ids(to)
            assert w.say("say jump %d" % i) == "jump %d" % i
        assert count(w, "inbound") == 6
        w.b.restart()
        w.tg.jump_ids(3)
        goes_on(w)


def test_same_update_twice():
    """Stored but not acknowledged: it comes again, in the same run and after a death."""
    with world() as w:
        w.tg.fail_next("getUpdates", "reset", n=2)      # the acknowledging polls
        w.tg.send_text(OWNER, "say once")
        w.wait(lambda: w.tg.texts(OWNER) == ["once"] and all_done(w), "the answer")
        w.wait(w.settled, "the acknowledgement")
        m = w.tg.user_message(OWNER, text="say twin")
        w.tg.push_update({"message": m, "update_id": w.tg.next_update})
        w.tg.push_update({"message": m, "update_id": w.tg.next_update})
        w.tg.next_update += 1
        w.wait(lambda: w.tg.texts(OWNER) == ["once", "twin"] and w.settled(), "one answer")
        w.tg.fail_next("getUpdates", "hang", n=5)
        w.tg.send_text(OWNER, "say before death")
        w.wait(lambda: w.tg.texts(OWNER)[-1] == "before death" and all_done(w), "the answer")
        assert w.tg.unconfirmed
        w.b.kill9()
        w.tg.faults.clear()
        w.b.start()
        w.wait(w.settled, "the acknowledgement")
        goes_on(w)
        assert w.tg.texts(OWNER)[:3] == ["once", "twin", "before death"]
        assert len(w.tg.texts(OWNER)) == 4 and count(w, "inbound") == 4


def test_five_megabytes():
    with world({"context": {"budget": 1000000}}) as w:
        w.tg.fail_next("getUpdates", "big")
        w.wait(lambda: w.tg.texts(OWNER), "a word about it", 30)
        assert "too long" in w.tg.texts(OWNER)[0] and len(w.ai.requests) == 0
        goes_on(w)
        w.tg.send_text(OWNER, "y" * ((1 << 20) - 10))   # just fits
        w.wait(lambda: len(w.ai.requests) == 2, "the question")
        assert w.b.rss_kb() < 120000


def test_updates_of_the_future():
    strange = [
        {"shiny_new_update": {"a": [1, {"b": None}]}},
        {"callback_query": {"id": "1", "from": {"id": OWNER}, "data": "x"}},
        {"message": {"message_id": 5, "date": 1, "chat": {"id": OWNER, "type": "private"}}},
        {"message": {"message_id": 6, "date": 1, "chat": {"id": OWNER, "type": "private"},
                     "from": {"id": OWNER, "is_bot": False, "first_name": "A"},
                     "future_content": {"x": 1}}},
        {"message": {"message_id": 7, "date": 1, "chat": {"id": -5, "type": "channel"},
                     "from": {"id": OWNER, "is_bot": False}, "text": "say no"}},
        {"message": {"message_id": 8, "date": 1, "chat": {"id": OWNER, "type": "private"},
                     "from": {"id": 99, "is_bot": True}, "text": "say no"}},
        {"message": {"message_id": "seven", "date": "x", "chat": {"id": "y"}, "from": [],
                     "text": 5}},
        {"message": {"text": {"deep": [[[[[]]]]]}}}, {"message": None}, {"message": []},
        {"edited_message": {"message_id": 5, "chat": {"id": OWNER, "type": "private"},
                            "from": {"id": OWNER}, "text": "say no"}},
        {"stopped_message_generation": {"chat": {}, "draft_id": "x"}},
        {},
    ]
    with world() as w:
        w.tg.expect_refusal("query ID is invalid")
        for update in strange:
            w.tg.push_update(update)
        w.wait(w.settled, "all updates taken")
        assert len(w.ai.requests) == 0 and count(w, "inbound") == 0
        w.tg.send_text(OWNER, "say known", future_field={"x": [None, 1.5e300, "\u0000"]},
                       entities=[{"type": "future", "offset": -5, "length": 10**12}])
        w.wait(lambda: "known" in w.tg.texts(OWNER), "the answer")
        goes_on(w)


# ---- Telegram: delivery ------------------------------------------------------------------------


def delivered(w, kind, expected, method="sendRichMessage", text="hello", **options):
    """One answer whose delivery meets a fault; expected are the texts seen for it."""
    before = len(w.tg.texts(OWNER))
    w.tg.fail_next(method, kind, **options)
    w.tg.send_text(OWNER, "say " + text)
    w.wait(lambda: w.tg.texts(OWNER)[before:] == expected, "%r after %s" % (expected, kind), 30)
    w.wait(lambda: all_done(w), "all rows done")
    row = rows(w, "SELECT state, text FROM outbox ORDER BY id DESC LIMIT 1")[0]
    assert row == (SENT, text), row
    assert last_outcome(w) == ANSWERED


def test_delivery_faults():
    """Known to be undelivered: sent again. Perhaps delivered: sent again and marked."""
    def rich():
        with world() as w:
            delivered(w, "429", ["hello"], retry_after=1)
            again = [c["time"] for c in w.tg.called("sendRichMessage")]
            assert again[1] - again[0] >= 1.0
            delivered(w, "reset_after", ["hello", REPEAT + "hello"])
            delivered(w, "half_json", ["hello", REPEAT + "hello"])
            delivered(w, "drip", ["hello"], every=0.002)
            goes_on(w)

    def doubt():
        with world() as w:
            for kind in ("reset", "500", "502", "garbage"):
                delivered(w, kind, [REPEAT + "hello"])
            goes_on(w)

    def html():
        with world({"telegram": {"rich": False}}) as w:
            delivered(w, "reset_after", ["hello", REPEAT + "hello"], method="sendMessage")
            delivered(w, "429", ["hello"], method="sendMessage", retry_after=1)
            delivered(w, "400", ["**bold** & <x>"], method="sendMessage", text="**bold** & <x>")
            assert w.tg.messages(OWNER)[-1]["parse_mode"] is None
            delivered(w, "504", [REPEAT + "hello"], method="sendMessage")
            goes_on(w)
    together(rich, doubt, html)


def test_long_answer_with_a_lost_receipt():
    """Parts whose receipts came are not sent again; the one in doubt is, and says so."""
    with world({"telegram": {"rich": False}}) as w:
        text = "\n\n".join("paragraph %d %s" % (i, "x" * 900) for i in range(12))
        w.ai.script = [text]
        sends = []

        def fault_second():
            n = len(w.tg.called("sendMessage", 200))
            if n == 1 and not sends:
                sends.append(1)
                w.tg.fail_next("sendMessage", "reset_after")
            return all_done(w) and n > 3
        w.tg.fail_next("sendMessage", "drip", every=0.0005)     # time to queue the next fault
        w.tg.send_text(OWNER, "long")
        w.wait(fault_second, "all parts", 40)
        seen = w.tg.texts(OWNER)
        marked = [t for t in seen if t.startswith(REPEAT)]
        assert len(marked) == 1
        at = seen.index(marked[0])
        assert seen[at][len(REPEAT):] == seen[at - 1]
        assert " ".join(seen[:at - 1] + [seen[at][len(REPEAT):]] + seen[at + 1:]).split() \
            == text.split()
        goes_on(w)


def test_user_blocks_the_bot():
    with world() as w:
        w.say("say before")
        w.tg.block(OWNER)
        w.tg.expect_refusal("blocked by the user")
        w.tg.send_text(OWNER, "say nobody there")
        w.wait(lambda: count(w, "outbox", "state = %d" % UNSENT) and all_done(w), "given up")
        why = rows(w, "SELECT why FROM outbox WHERE state = %d" % UNSENT)[0][0]
        assert "blocked" in why
        tries = len([c for c in w.tg.called("sendRichMessage") if c["status"] == 403])
        assert tries == 1
        w.tg.block(OWNER, False)
        goes_on(w)


def test_group_is_gone():
    with world() as w:
        g = -100300
        w.tg.add_chat(g, "supergroup")
        w.say("@blufio_test_bot say in", chat_id=g, chat_type="supergroup")
        w.tg.block(g)
        w.tg.expect_refusal("kicked")
        w.tg.send_text(OWNER, "@blufio_test_bot say out", chat_id=g, chat_type="supergroup")
        w.wait(lambda: count(w, "outbox", "state = %d" % UNSENT) and all_done(w), "given up")
        goes_on(w)


def test_send_unauthorized_keeps_the_reply():
    with world() as w:
        w.tg.fail_next("sendRichMessage", "401")
        w.tg.send_text(OWNER, "say kept")
        w.wait(lambda: count(w, "outbox", "attempts = 1 AND state = 0"), "the reply waits")
        state, wait = rows(w, "SELECT state, next_at - updated_at FROM outbox")[0]
        assert state == READY and 0 < wait <= 61e6
        assert rows(w, "SELECT state FROM turns") == [(STATES.index("REPLY"),)]
        w.tg.add_chat(1002)
        w.b.configure(telegram={"allowed_users": [OWNER, 1002]})
        assert w.b.cli("reload")[0] == 0
        goes_on(w, user=1002)           # others do not wait


def test_old_servers():
    """Rich messages or drafts unknown: HTML and edits, asked for once."""
    def no_rich():
        with world(tg=FakeTelegram(rich=False)) as w:
            w.tg.expect_refusal("method not found")
            assert w.say("say **strong** word") == "strong word"
            assert w.say("say **strong** again") == "strong again"
            assert len(w.tg.called("sendRichMessage")) == 1
            goes_on(w)

    def rich_refused():
        with world(tg=FakeTelegram(rich="refuse")) as w:
            w.tg.expect_refusal("RICH_MESSAGE_NOT_SUPPORTED")
            assert w.say("say **strong** word") == "strong word"
            assert w.tg.messages(OWNER)[-1]["entities"][0]["type"] == "bold"
            goes_on(w)

    def drafts(answer, refusal):
        def scene():
            with world(tg=FakeTelegram(drafts=answer)) as w:
                w.tg.expect_refusal(refusal)
                w.ai.hold_after_first_delta = gate = threading.Event()
                w.tg.send_text(OWNER, "say shown by edits")
                w.wait(lambda: any("shown" in t for t in w.tg.texts(OWNER)), "the placeholder")
                gate.set()
                w.wait(lambda: w.tg.texts(OWNER) == ["shown by edits"] and all_done(w),
                       "the answer")
                goes_on(w)
        return scene
    together(no_rich, rich_refused, drafts(False, "method not found"),
             drafts("refuse", "TEXTDRAFT_PEER_INVALID"))


def test_hints_that_fail_do_no_harm():
    def drafts(kind, **options):
        def scene():
            with world() as w:
                options.setdefault("n", 3)
                w.tg.fail_next("sendMessageDraft", kind, **options)
                w.tg.fail_next("sendChatAction", kind, **options)
                w.ai.hold_after_first_delta = gate = threading.Event()
                w.tg.send_text(OWNER, "say one answer after " + kind)
                wait_fault(w, w.tg, "sendMessageDraft", kind)
                if kind == "429":       # what is shown must wait, and then goes on
                    w.wait(lambda: w.tg.drafts(OWNER), "a draft after the pause")
                gate.set()
                w.wait(lambda: w.tg.texts(OWNER) == ["one answer after " + kind], "the answer")
                w.tg.faults.clear()
                assert too_early(w, 2.0) == []
                goes_on(w)
        return scene
    together(drafts("429", retry_after=2, n=1), drafts("reset"), drafts("502"), drafts("garbage"),
             drafts("400", text="future reason"), drafts("half_json"))


def test_placeholder_vanishes():
    with world({"telegram": {"partials": "edit"}}) as w:
        w.tg.expect_refusal("message to edit not found")
        w.ai.hold_after_first_delta = gate = threading.Event()
        w.tg.send_text(OWNER, "say deleted meanwhile")
        w.wait(lambda: w.tg.texts(OWNER), "the placeholder")
        with w.tg.cond:
            w.tg.find(OWNER, w.tg.messages(OWNER)[0]["message_id"])["deleted"] = True
        gate.set()
        w.wait(lambda: w.tg.texts(OWNER) == ["deleted meanwhile"] and all_done(w), "the answer")
        goes_on(w)


def test_placeholder_receipt_lost():
    """The placeholder may stand there without its id: the answer says that it may be a repeat."""
    def scene(kind, seen):
        def run():
            with world({"telegram": {"partials": "edit"}}) as w:
                w.tg.fail_next("sendMessage", kind)
                w.ai.hold_after_first_delta = gate = threading.Event()
                w.tg.send_text(OWNER, "say where is it")
                wait_fault(w, w.tg, "sendMessage", kind)
                gate.set()
                w.wait(lambda: all_done(w) and count(w, "outbox"), "the delivery", 30)
                texts = w.tg.texts(OWNER)
                assert texts[-1] == seen and len(texts) <= 2, texts
                goes_on(w)
        return run
    together(scene("reset_after", REPEAT + "where is it"), scene("429", "where is it"),
             scene("400", "where is it"))


def too_early(w, seconds):
    """Calls of a method to a chat that come while the same one was told to wait."""
    out, until = [], {}
    for c in w.tg.calls:
        key = (c["method"].lower(), (c["params"] or {}).get("chat_id"))
        if c["time"] < until.get(key, 0):
            out.append((key, until[key] - c["time"]))
        if c["status"] == 429:
            until[key] = c["time"] + seconds - 0.1
    return out


def test_flood_limits_are_kept():
    """No call comes again before the time it was told."""
    with world() as w:
        w.tg.limits = {"chat": (3, 2.0), "all": (30, 1.0)}
        for i in range(4):
            w.tg.send_text(OWNER, "say number %d" % i)
        w.wait(lambda: w.tg.texts(OWNER) == ["number %d" % i for i in range(4)] and all_done(w),
               "all answers in order", 60)
        assert len([c for c in w.tg.calls if c["status"] == 429]) > 0
        assert too_early(w, 2.0) == []
        w.tg.limits = None
        goes_on(w)


# ---- Claude: refusals ----------------------------------------------------------------------------


def model_fails(w, words, outcome, fault, n=1, requests=1, **options):
    """The user reads words; nothing of it is asked for again unless requests says so."""
    asked = len(w.ai.requests)
    w.ai.fail_next(fault, n=n, **options)
    answer = w.say("say unanswered " + fault, timeout=40)
    for word in words:
        assert word in answer, (fault, word, answer)
    assert last_outcome(w) == outcome, fault
    assert len(w.ai.requests) == asked + requests, (fault, len(w.ai.requests) - asked)
    goes_on(w)


def test_model_says_no():
    with world() as w:
        model_fails(w, ["API key", "`blufio config set anthropic.api_key -`", "`blufio reload`"],
                    FAILED, "401")
        model_fails(w, ["API key", "`blufio config set anthropic.api_key -`"], FAILED, "403")
        model_fails(w, ["credit", "billing"], FAILED, "402")
        model_fails(w, ["credit", "billing"], FAILED, "400", type="invalid_request_error",
                    text="Your credit balance is too low to access the Anthropic API.")
        model_fails(w, ["claude-sonnet-5-5", "`blufio config set anthropic.default_model"],
                    FAILED, "404")
        model_fails(w, ["too large", "/new"], FAILED, "413")
        model_fails(w, ["too large", "/new"], FAILED, "400", text="prompt is too long: 1000001 "
                    "tokens > 1000000 maximum")
        model_fails(w, ["refused the request", "injected refusal", "/new"], FAILED, "400")
        model_fails(w, ["refused the request"], FAILED, "529", should_retry=False)
        model_fails(w, ["wait", "10 min"], FAILED, "429", retry_after=600)
        assert count(w, "cost_ledger") == 10    # refused calls cost nothing
        assert [r for r, _ in stored(w)].count("assistant") == 10
        assert w.ai.prefix_violations == []


def test_model_busy_then_answers():
    def once(*faults):
        def scene():
            with world() as w:
                for fault, least, options in faults:
                    asked = len(w.ai.requests)
                    w.ai.fail_next(fault, **options)
                    begin = time.monotonic()
                    assert w.say("say answered") == "answered", fault
                    assert time.monotonic() - begin >= least, fault
                    assert len(w.ai.requests) == asked + 2, fault
                    assert w.ai.requests[-1]["raw"] == w.ai.requests[-2]["raw"], fault
                goes_on(w)
                assert count(w, "cost_ledger", "estimated = 0") == len(faults) + 1
                # a status is a word on the bill; silence is none
                assert count(w, "cost_ledger", "estimated = 1") == len([f for f in faults if f[0] in ("reset", "empty")])
                assert count(w, "turns", "outcome <> 1 OR attempt > 1") == 0
        return scene

    def always():
        with world() as w:
            model_fails(w, ["after 5 tries", "Overloaded", "send it again"], FAILED, "529", n=5,
                        requests=5)
            asked = [r["time"] for r in w.ai.requests[:5]]
            gaps = [b - a for a, b in zip(asked, asked[1:])]
            for gap, wait in zip(gaps, (0.5, 1, 2, 4)):
                assert wait * 0.74 <= gap <= wait + 1.0 * SLOW, gaps
    together(once(("529", 0.3, {}), ("500", 0.3, {}), ("reset", 0.0, {}), ("html", 0.3, {})),
             once(("429", 1.0, {"retry_after": 1}), ("429", 0.05, {"retry_after_ms": 50}),
                  ("529", 1.2, {"retry_after": "1.2"}), ("400", 0.3, {"should_retry": True})),
             once(("504", 0.3, {}), ("empty", 0.3, {}), ("529", 0.3, {"retry_after": "soon"}),
                  ("529", 0.0, {"retry_after": 0})), always)


def test_stop_while_the_model_is_silent():
    def hang(kind, seen, **options):
        def scene():
            with world() as w:
                w.ai.fail_next(kind, **options)
                w.tg.send_text(OWNER, "say silence please")
                w.wait(lambda: w.ai.requests and w.ai.requests[-1]["fault"] == kind, "the call")
                if seen:
                    w.wait(lambda: any(seen in d["text"] for d in w.tg.drafts(OWNER)), "a draft")
                elif kind == "hang_mid":        # message_start shows nowhere: give it time to be read
                    w.wait(lambda: w.ai.requests[-1].get("status") == 200, "the stream's begin")
                    time.sleep(0.3 * SLOW)
                begin = time.monotonic()
                w.tg.send_text(OWNER, "/stop")
                w.wait(lambda: w.tg.texts(OWNER), "the stopped answer")
                assert time.monotonic() - begin < 2 * SLOW
                assert w.tg.texts(OWNER)[0].endswith("(Stopped.)")
                assert w.tg.texts(OWNER)[0].startswith(seen)
                assert last_outcome(w) == STOPPED
                kept = [b for r, b in stored(w) if r == "assistant"]
                assert len(kept) == (1 if seen else 0)
                booked = rows(w, "SELECT estimated FROM cost_ledger")
                assert booked == [(1,)]         # who was asked may bill it
                goes_on(w)
        return scene

    def backing_off():
        with world() as w:
            w.ai.fail_next("529", retry_after=100)
            w.tg.send_text(OWNER, "say waits long")
            w.wait(lambda: count(w, "turns", "attempt = 1"), "the back-off")
            w.tg.send_text(OWNER, "/stop")
            w.wait(lambda: w.tg.texts(OWNER) == ["(Stopped.)"], "the stop", 5)
            goes_on(w)
    together(hang("hang", ""), hang("hang_mid", "s", k=2), hang("hang_mid", "", k=0), backing_off)


# ---- Claude: streams -------------------------------------------------------------------------------


def test_stream_breaks_off():
    """After k deltas the stream ends: the text begins again, the answer comes once."""
    def cut(kind):
        def scene():
            ai = FakeAnthropic()
            ai.piece = 1
            with world(ai=ai) as w:
                for k in range(6):
                    asked = len(w.ai.requests)
                    w.ai.fail_next(kind, k=k)
                    assert w.say("say abcd") == "abcd", k
                    assert len(w.ai.requests) == asked + 2, k
                assert last_outcome(w) == ANSWERED
                texts = [b[0]["text"] for r, b in stored(w) if r == "assistant"]
                assert texts == ["abcd"] * 6
                ledger = rows(w, "SELECT estimated, output FROM cost_ledger ORDER BY id")
                assert [x for x in ledger if not x[0]] == [(0, 1)] * 6
                assert sum(x[0] for x in ledger) >= 5       # what was cut is booked, too
                goes_on(w)
        return scene
    together(cut("cut"), cut("fin"), cut("error_event"))


def test_stream_restarts_in_the_draft():
    with world() as w:
        w.ai.script = ["first words that are long enough", "second answer"]
        w.ai.piece = 6
        w.ai.hold_after_first_delta = gate = threading.Event()
        w.ai.fail_next("error_event", k=3)
        w.tg.send_text(OWNER, "go")
        w.wait(lambda: any(d["text"].startswith("first") for d in w.tg.drafts(OWNER)), "a draft")
        gate.set()
        w.wait(lambda: w.tg.texts(OWNER) == ["second answer"], "the second answer")
        goes_on(w)


def test_errors_in_mid_stream_by_type():
    with world() as w:
        for kind in ("api_error", "rate_limit_error", "timeout_error", "future_error"):
            w.ai.fail_next("error_event", k=2, type=kind)
            assert w.say("say after all") == "after all", kind
        model_fails(w, ["refused the request", "Broken"], FAILED, "error_event", k=2,
                    type="invalid_request_error", text="Broken")
        model_fails(w, ["API key"], FAILED, "error_event", k=1, type="authentication_error")
        model_fails(w, ["billing"], FAILED, "error_event", k=1, type="billing_error")


def test_refusals_leave_history():
    with world() as w:
        w.say("say kept before")
        for fault in ("refusal", "refusal_mid"):
            w.ai.fail_next(fault, k=2)
            answer = w.say("say something forbidden")
            assert answer.startswith("(The model declined to answer"), answer
            assert last_outcome(w) == REFUSED
            assert w.say("say kept after " + fault) == "kept after " + fault
            asked = json.dumps(w.ai.requests[-1]["body"]["messages"])
            assert "forbidden" not in asked and "kept before" in asked
        texts = json.dumps(stored(w))
        assert "forbidden" not in texts
        assert count(w, "messages", "void = 1") >= 2        # on disk, out of the conversation


def test_stop_reasons():
    with world() as w:
        w.ai.fail_next("stop", reason="max_tokens")
        answer = w.say("say half of it")
        assert answer.startswith("half of it\n\n(The answer reached its length limit."), answer
        assert last_outcome(w) == ANSWERED
        w.ai.fail_next("stop", reason="model_context_window_exceeded")
        answer = w.say("say full")
        assert answer.startswith("full\n\n") and "/new" in answer
        goes_on(w)
        for reason in ("stop_sequence", "future_reason"):
            w.ai.fail_next("stop", reason=reason)
            assert w.say("say as usual") == "as usual", reason
        assert [b for r, b in stored(w) if r == "assistant"][0] == [
            {"type": "text", "text": "half of it"}]
        asked = len(w.ai.requests)
        w.ai.fail_next("stop", reason="pause_turn")
        answer = w.say("say long work")
        assert answer.split() == "long work And the rest.".split(), answer
        assert len(w.ai.requests) == asked + 2
        assert w.ai.requests[-1]["body"]["messages"][-1]["role"] == "assistant"
        goes_on(w)
        assert w.ai.prefix_violations == []


def test_cut_tool_call_is_not_run():
    with world() as w:
        w.ai.fail_next("tool_cut")
        answer = w.say('tool text_count {"text": "abc"}')
        assert "length limit" in answer, answer
        assert count(w, "steps", "kind = 1") == 0 and len(w.ai.requests) == 1
        assert not any(b["type"] == "tool_use" for _, blocks in stored(w) for b in blocks)
        goes_on(w)
        w.ai.fail_next("cut", k=6)              # in the middle of its input
        assert "characters" in w.say('tool text_count {"text": "abcdefgh"}')
        assert count(w, "steps", "kind = 1") == 1
        goes_on(w)


def test_empty_answer():
    with world() as w:
        w.ai.script = [{"blocks": []}, {"blocks": [{"type": "text", "text": " \n "}]}]
        assert "without any text" in w.say("nothing")
        assert "without any text" in w.say("blanks")
        w.ai.script = None
        goes_on(w)              # blank blocks are refused in requests: they may not be replayed


# ---- Claude: recorded streams ----------------------------------------------------------------------


class Recorded(FakeServer):
    """Serves recorded bodies: "play NAME HOW K N" in the newest user text says which, and how.

    whole: at once; octets: one at a time; cut: the first K bytes, the first time it is asked.
    The answer to a tool's result is a short text."""
    DONE = (b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":'
            b'1,"output_tokens":1}}}\n\nevent: content_block_start\ndata: {"type":'
            b'"content_block_start","index":0,"content_block":{"type":"text","text":"done"}}\n\n'
            b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
            b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"}'
            b',"usage":{"output_tokens":1}}\n\nevent: message_stop\ndata: {"type":"message_stop"}'
            b'\n\n')

    def __init__(self, streams):
        self.api_key = "sk-ant-test-0123456789abcdef"
        self.streams, self.requests, self.seen = streams, [], set()
        super().__init__()

    def handle(self, conn, request):
        body = json.loads(request.body)
        with self.lock:
            self.requests.append(body)
        last = body["messages"][-1]["content"][-1]
        data, how, k = self.DONE, "whole", 0
        if last["type"] == "text" and last["text"].startswith("play "):
            _, name, how, k, _ = last["text"].split(" ")
            data, k = self.streams[name], int(k)
        if how.startswith("cut"):
            with self.lock:
                first = last["text"] not in self.seen
                self.seen.add(last["text"])
            data, how = (data[:k], how) if first else (data, "whole")
        conn.start_chunked(200, [("Content-Type", "text/event-stream"), ("request-id", "req_x")])
        if how == "octets":
            for i in range(len(data)):
                conn.chunk(data[i:i + 1])
        else:
            conn.chunk(data)
        if how == "cut-reset":
            conn.reset()
        elif how == "cut-fin":
            conn.keep = False
            return
        conn.end_chunked()


def recorded_streams():
    paths = sorted(glob.glob(os.path.join(CONFORMANCE, "anthropic", "*.txt"))
                   + glob.glob(os.path.join(CONFORMANCE, "anthropic", "*.sse")))
    if not paths:
        raise Skip("no recorded streams in %s" % CONFORMANCE)
    out = {}
    for path in paths:
        with open(path, "rb") as f:
            data = f.read()
        out[os.path.basename(path)] = data if data.endswith(b"\n\n") else data.rstrip() + b"\n\n"
    return out


def assembled(data):
    """What a stream says: (complete blocks, stop reason, output tokens), the API's own rules."""
    blocks, inputs, stop, output, closed = {}, {}, None, 0, set()
    for event in re.split(rb"\r?\n\r?\n", data):
        payload = [x[5:] for x in event.split(b"\n") if x.startswith(b"data:")]
        if not payload:
            continue
        e = json.loads(b"\n".join(payload))
        if e["type"] == "content_block_start":
            blocks[e["index"]] = dict(e["content_block"])
            inputs[e["index"]] = ""
        elif e["type"] == "content_block_delta":
            d = e["delta"]
            if d["type"] == "text_delta":
                blocks[e["index"]]["text"] += d["text"]
            elif d["type"] == "input_json_delta":
                inputs[e["index"]] += d["partial_json"]
        elif e["type"] == "content_block_stop":
            closed.add(e["index"])
        elif e["type"] == "message_delta":
            stop = e["delta"]["stop_reason"]
            output = e.get("usage", {}).get("output_tokens", output)
    out = []
    for i, b in sorted(blocks.items()):
        if b["type"] == "text" and b["text"]:
            out.append({"type": "text", "text": b["text"]})
        elif b["type"] == "tool_use" and stop == "tool_use" and i in closed:
            out.append({"type": "tool_use", "id": b["id"], "name": b["name"],
                        "input": json.loads(inputs[i] or "{}")})
    return out, stop, output


def ends_of_events(data):
    return [m.end() for m in re.finditer(rb"\n\n", data)]


def play(w, plays, user):
    """Each play in a conversation of its own, all at once; then looks at what was stored."""
    for i, p in enumerate(plays):
        w.tg.add_chat(user + i)
        w.tg.send_text(user + i, "play %s %s %d %d" % (p + (i,)))
    before = getattr(w, "played", 0)
    w.played = before + len(plays)
    w.wait(lambda: count(w, "turns", "state = 5") == w.played and all_done(w), "all plays", 60)
    for i, (name, how, k) in enumerate(plays):
        where = (name, how, k)
        blocks, stop, output = assembled(w.ai.streams[name])
        chat = str(user + i)
        session = "(SELECT id FROM sessions WHERE chat = '%s')" % chat
        history = [(r, json.loads(c)) for r, c in rows(
            w, "SELECT role, content FROM messages WHERE void = 0 AND session_id = %s"
            " ORDER BY seq" % session)]
        answers = [c for r, c in history if r == "assistant"]
        text = "\n\n".join(w.tg.texts(user + i))
        said = "".join(b["text"] for b in blocks if b["type"] == "text").strip()
        if stop == "refusal":
            assert history == [] and "declined" in text and said[:20] not in text[:20] or not said, \
                (where, history, text)
            continue
        assert answers[0] == blocks, (where, answers[0], blocks)
        assert said in text and len(w.tg.texts(user + i)) == 1, (where, text)
        tools = [b for b in blocks if b["type"] == "tool_use"]
        steps = rows(w, "SELECT name, input FROM steps WHERE kind = 1 AND turn_id IN (SELECT id "
                     "FROM turns WHERE session_id = %s)" % session)
        assert [(n, json.loads(x)) for n, x in steps] == [(b["name"], b["input"]) for b in tools]
        if tools:
            assert answers[1] == [{"type": "text", "text": "done"}], where
        booked = rows(w, "SELECT output FROM cost_ledger WHERE estimated = 0 AND session_id = %s"
                      " ORDER BY id" % session)
        assert booked[0] == (output,), (where, booked, output)


def test_recorded_streams():
    streams = recorded_streams()
    plays = [(name, how, 0) for name in streams for how in ("whole", "octets")]
    cuts = []
    for name, data in sorted(streams.items()):
        ends = ends_of_events(data)
        for i, end in enumerate(ends[:-1]):
            cuts.append((name, ("cut-reset", "cut-fin", "cut-end")[i % 3], end))
        cuts.append((name, "cut-fin", ends[len(ends) // 2] - 7))    # inside an event
        cuts.append((name, "cut-end", 0))
    users = list(range(2000, 2000 + len(plays) + len(cuts)))
    with world({"telegram": {"allowed_users": users}, "agent": {"max_sessions": 100},
                "cost": {"daily_budget_usd": 100}}, ai=Recorded(streams)) as w:
        play(w, plays, 2000)
    with world({"telegram": {"allowed_users": users}, "agent": {"max_sessions": 100},
                "cost": {"daily_budget_usd": 100}}, ai=Recorded(streams)) as w:
        for i in range(0, len(cuts), 4):        # five failures in a row would open the breaker
            play(w, cuts[i:i + 4], 2000 + len(plays) + i)


# ---- messages that kill ------------------------------------------------------------------------------


def asked_times(w, n):
    """The n-th request is being answered, and the row says so."""
    w.wait(lambda: len(w.ai.requests) >= n and w.ai.requests[n - 1]["status"] == 200
           and count(w, "turns", "state = 2"), "request %d" % n)


def test_poison_message_is_set_aside():
    with world() as w:
        w.say("say before")
        w.ai.hold_after_first_delta = threading.Event()
        w.tg.send_text(OWNER, "say poison")
        for i in range(3):
            asked_times(w, 2 + i)
            w.b.kill9()
            w.b.start()
        w.ai.hold_after_first_delta = None
        w.wait(lambda: len(w.tg.texts(OWNER)) == 2, "a word about it")
        assert "set this message aside" in w.tg.texts(OWNER)[1]
        assert last_outcome(w) == SET_ASIDE
        assert len(w.ai.requests) == 4
        goes_on(w)
        w.b.restart(hard=True)
        goes_on(w)
        assert len(w.tg.texts(OWNER)) == 4


def test_clean_stop_is_no_death():
    with world({"agent": {"drain_timeout": 0}}) as w:
        w.ai.hold_after_first_delta = gate = threading.Event()
        w.tg.send_text(OWNER, "say harmless")
        for i in range(4):
            asked_times(w, i + 1)
            w.b.signal(signal.SIGTERM)
            assert w.b.wait_exit() == 0
            assert rows(w, "SELECT deaths FROM turns") == [(0,)]
            w.b.start()
        gate.set()
        w.wait(lambda: w.tg.texts(OWNER) == ["harmless"], "the answer")
        assert last_outcome(w) == ANSWERED


def test_deaths_while_it_waits_do_not_count():
    """Who waits for the provider to be there again is not what the daemon dies of."""
    with world() as w:
        w.ai.fail_next("529", retry_after=10)
        w.tg.send_text(OWNER, "say at last")
        w.wait(lambda: rows(w, "SELECT 1 FROM turns WHERE next_at > 0"), "it waits")
        for _ in range(3):
            w.b.kill9()
            w.b.start()
        deaths, waits = rows(w, "SELECT deaths, next_at > ? FROM turns", time.time() * 1e6)[0]
        assert deaths == 0 or not waits         # on a machine that is too slow nothing is shown
        w.wait(lambda: w.tg.texts(OWNER) == ["at last"], "the answer")


def test_deaths_with_progress_do_not_count():
    """Two deaths in each of two rounds: the tool round between them was progress."""
    with world() as w:
        w.ai.script = lambda ask: None if ask.results else {
            "blocks": [{"type": "tool_use", "name": "time_now", "input": {}}]}
        for _ in range(2):
            w.ai.fail_next("hang_mid", k=0)
        w.tg.send_text(OWNER, "go")
        for i in range(2):
            asked_times(w, i + 1)
            w.b.kill9()
            if i == 1:
                for _ in range(2):
                    w.ai.fail_next("hang_mid", k=0)
                # the call that makes progress comes before the next two
                w.ai.faults.queues["messages"].insert(0, ["none", 1, {}])
            w.b.start()
        for i in range(2):
            asked_times(w, 4 + i)
            w.b.kill9()
            w.b.start()
        w.wait(lambda: w.tg.texts(OWNER), "the answer")
        assert w.tg.texts(OWNER)[0].startswith("Tool results:"), w.tg.texts(OWNER)
        assert last_outcome(w) == ANSWERED
        assert count(w, "steps", "kind = 1") == 1       # the tool ran once


# ---- formatting --------------------------------------------------------------------------------------


TORTURE = [
    "**bold *italic `code` more* end**", "***all three*** and ~~gone~~ __under__",
    "**unclosed *nested `tick", "*a **b *c **d *e", "a * b * c ** d ** e _ f _ g",
    "```\nno end", "```python\nprint('<a & b>')\n```\nafter", "````\n```\ninner\n```\n````",
    "```\n```\n```\n```", "~~~\ntilde\n~~~", "text ```inline fence``` text", "`` ` ``", "`",
    "```` four", "> quote\n> more\n\nafter\n> > nested\n>", ">", "# Title\n## Sub\n####### seven",
    "| a | b |\n|---|:-:|\n| 1 | `x|y` |\n| **b** | \u6f22\u5b57 |", "|||\n|-|-|\n|",
    "| no | separator |\n| row | two |", "- a\n  - b\n    - c\n1. one\n2. two\n- [ ] todo\n- [x] ok",
    "<b>html</b> <script>alert(1)</script> <br> </div> <a href=\"x\">y</a> <!-- c -->",
    "&amp; &lt;b&gt; &#65; &nope; & &; AT&T", "a < b > c && d << e >> f",
    "[link](https://example.org/a_(b)_c) end", "[a [b] c](https://example.org/?q=1&r=\"2\")",
    "[x](javascript:alert(1)) [y]() [](https://example.org) [z](<https://example.org/a b>)",
    "![image](https://example.org/i.png) https://example.org/a_b_c*d* <https://example.org/>",
    "[unclosed](https://example.org", "[ref][1]\n\n[1]: https://example.org",
    "\u05e9\u05dc\u05d5\u05dd **\u05e2\u05d5\u05dc\u05dd** \u202eRTL\u202c \u0645\u0631\u062d\u0628\u0627",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 **\U0001f1fa\U0001f1f3** "
    "e\u0301\u0323\u0323 \ufe0f", "zero\u200bwidth\u200djoin\ufeff **\u200b** \u2060x",
    "nul \x00 inside **b\x00ld** `\x00`",
    "control \x01\x02\x07\x08\x0b\x0c\x1b[31m\x7f\x85 end", "tab\tand\r\ncarriage\rreturn",
    "*" * 300 + "x" + "*" * 300, "_" * 50 + " " + "~" * 50 + "`" * 33, "[" * 200 + "]" * 200,
    "(" * 100 + "[a](" * 50, "> " * 60 + "deep", "\\*escaped\\* \\`no code\\` \\\\ \\_",
    "a\n\n\n\n\n\nb\n \n\t\nc", "---\n***\n___", "$x^2$ $$\\int_0^1$$ ||spoiler|| ==mark== H~2~O",
    "5 * 3 = 15 and 2*3*4, snake_case_name, __init__, a**b**c", "1) x\n* y\n+ z\n\u2022 w",
    "<tg-spoiler>x</tg-spoiler> <tg-emoji emoji-id=\"1\">y</tg-emoji> <tg-thinking>t</tg-thinking>",
    "x" * 5000, "\u6f22" * 5000, "\U0001f600" * 3000, "word " * 2000,
    "```\n" + "code line <&>\n" * 700 + "```", "```\n" + "z" * 10000 + "\n```",
    "**" + "bold " * 1500 + "**", "\n".join("- item %d with `code` & <b>" % i for i in range(600)),
    "".join("| %d | `a` |\n" % i + ("|---|---|\n" if i == 0 else "") for i in range(300)),
    "| " + " | ".join("c%d" % i for i in range(25)) + " |\n" + "|---" * 25 + "|\n",
    "\n\n".join("paragraph %d **b** _i_ `c` <&> %s" % (i, "lorem ipsum " * 30) for i in range(100)),
    "\n\n".join("block %d" % i for i in range(700)), "\n".join("> quoted %d" % i for i in range(900)),
]


def signs(text):
    """Letters and digits of all scripts, in order."""
    return re.sub(r"[\W_]+", "", text)


def check_signs(md, messages, where):
    """Every letter and digit of md can be read in messages or followed in their links. Only the
    languages of fences and the ticks of tasks may be shown otherwise."""
    shown = "".join(m["text"] for m in messages)
    behind = "".join(e.get("url", "") + e.get("language", "")
                     for m in messages for e in m["entities"] or [])
    dropped = "".join(re.findall(r"(?m)^[ >]*(?:```+|~~~+)\s*(\S*)", md)
                      + re.findall(r"(?m)^\s*[-*+] \[(x)\]", md))
    missing = Counter(signs(md)) - Counter(signs(shown + behind + dropped))
    assert not missing, (where, md[:200], dict(missing), shown[:300])
    if "[" not in md and not dropped:
        assert signs(shown) == signs(md), (where, "order", md[:200], shown[:300])


def torture(texts, rich):
    users = list(range(3000, 3000 + len(texts)))
    with world({"telegram": {"allowed_users": users, "rich": rich},
                "agent": {"max_sessions": 100}, "cost": {"daily_budget_usd": 100}}) as w:
        # what no count of ours foresees: refused as rich, sent as HTML
        w.tg.expect_refusal("thinking blocks are allowed")
        w.ai.script = lambda ask: texts[int(ask.text.split()[1])]
        w.ai.piece = 500
        for i, user in enumerate(users):
            w.tg.add_chat(user)
            w.tg.send_text(user, "case %d" % i)
        w.wait(lambda: count(w, "turns", "state = 5") == len(texts) and all_done(w),
               "all answers", 90)
        kept = dict(rows(w, "SELECT chat, content FROM messages JOIN sessions ON session_id ="
                         " sessions.id WHERE role = 'assistant'"))
        for i, user in enumerate(users):
            where, md = ("rich" if rich else "html", i), texts[i]
            assert json.loads(kept[str(user)]) == [{"type": "text", "text": md}], where
            messages = w.tg.messages(user)
            assert messages, where
            for m in messages:
                assert units(m["text"]) <= (32768 if m["rich"] else 4096), where
            if rich and len(messages) == 1 and messages[0]["rich"]:
                said = messages[0]["text"]
                def plain(text):        # but for what was nested or wide beyond the limits
                    return re.sub(r">|````", "", text).split()
                assert plain(said) == plain(md.replace("\0", " ")), (where, said[:99])
            else:
                check_signs(md, messages, where)
        states = rows(w, "SELECT state, why, text FROM outbox WHERE state <> %d" % SENT)
        assert not states, [(s, y, t[:60]) for s, y, t in states]
        w.ai.script = None
        goes_on(w, user=users[0])


def test_formatting_torture():
    """Whatever the model writes is accepted by Telegram, rich and classic, and nothing is lost."""
    together(lambda: torture(TORTURE, False), lambda: torture(TORTURE, True))


def test_naughty_strings():
    path = os.path.join(CONFORMANCE, "utf8", "blns.json")
    if not os.path.exists(path):
        raise Skip("no %s" % path)
    with open(path, encoding="utf-8") as f:
        strings = [s for s in json.load(f) if s.strip()]
    batches = ["\n\n".join(strings[i:i + 8]) for i in range(0, len(strings), 8)]
    users = list(range(4000, 4000 + len(batches)))

    def scene(rich):
        def run():
            with world({"telegram": {"allowed_users": users, "rich": rich},
                        "agent": {"max_sessions": 100}, "cost": {"daily_budget_usd": 100}}) as w:
                for user, batch in zip(users, batches):
                    w.tg.add_chat(user)
                    w.tg.send_text(user, "say " + batch)
                w.wait(lambda: count(w, "turns", "state = 5") == len(users) and all_done(w),
                       "all answers", 90)
                asked = dict(rows(w, "SELECT chat, text FROM inbound JOIN sessions ON"
                                  " inbound.session_id = sessions.id"))
                for user, batch in zip(users, batches):
                    assert asked[str(user)].split() == ("say " + batch).split(), batch[:60]
                    check_signs(batch, w.tg.messages(user), (rich, batch[:60]))
        return run
    together(scene(True), scene(False))


if __name__ == "__main__":
    main(globals())
