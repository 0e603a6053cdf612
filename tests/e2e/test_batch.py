# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_batch.py - requests that are left to be answered: each once, over deaths, caps and pauses."""
import json
import sqlite3
import threading
from collections import Counter

from fake_anthropic import tool_answer
from harness import main
from test_gateway import refused
from test_openai import MODEL, body, data_url, picture, usage_in, user, world as plain_world

ITEMS_MAX, OPEN_MAX, BODY_MAX = 100, 1000, 8 << 20
RUNNING_MAX = 4
PATH = "/v1/batch"


def world(**sections):
    sections.setdefault("cost", {"daily_budget_usd": 50})
    sections.setdefault("batch", {"daily_usd": 20})
    return plain_world(sections)


def says(*texts, **more):
    return {"items": [body("say " + t, **more) for t in texts]}


def submit(g, batch, headers=None):
    r = g.ask("POST", PATH, batch, headers)
    assert r.status == 202, r
    made = r.json()
    assert set(made) >= {"id", "status", "total_items", "created_at"} and made["total_items"] == len(batch["items"]), made
    return made["id"]


def get(g, id_, query=""):
    r = g.ask("GET", "%s/%s%s" % (PATH, id_, query))
    assert r.status == 200, r
    doc = r.json()
    assert [i["index"] for i in doc["items"]] == sorted(i["index"] for i in doc["items"]), doc
    for i in doc["items"]:
        assert (i["response"] is not None) == (i["status"] == "completed"), i
        assert (i["error"] is not None) == (i["status"] == "failed"), i
    return doc


def finished(w, id_, timeout=60.0, g=None):
    done = []

    def look():
        done[:] = [get(g or w.g, id_)]
        return done[0]["status"] == "completed"
    w.wait(look, "the batch", timeout)
    doc = done[0]
    assert doc["completed_items"] + doc["failed_items"] == doc["total_items"] and doc["completed_at"] and not doc["waiting"], doc
    return doc


def texts(doc):
    return [i["response"]["choices"][0]["message"]["content"] for i in doc["items"]]


def words_of(request):
    """The newest text of a request that the provider got."""
    return request["body"]["messages"][-1]["content"][-1]["text"]


def completions(w):
    """How often each text was answered to its end, by the provider's own log."""
    ids = {c["id"] for c in w.ai.log if c["outcome"] == "completed"}
    return Counter(words_of(r) for r in w.ai.requests if r["id"] in ids)


def books(w, **options):
    wrong = w.settle_up(**options)
    assert wrong == [], "\n".join(wrong)


def features(w):
    return {r[0] for r in w.b.query("SELECT DISTINCT feature FROM cost_ledger")}


def change(w, sql, *values):
    with sqlite3.connect(w.b.db_path) as db:
        db.execute(sql, values)
    db.close()


def hold_after(w, n):
    """The provider answers n requests, and then none until the event is set."""
    gate, lock, seen = threading.Event(), threading.Lock(), [0]

    def script(ask):
        with lock:
            seen[0] += 1
            free = seen[0] <= n
        if not free:
            gate.wait(120)
        return None
    w.ai.script = script
    return gate


# ---- a batch --------------------------------------------------------------------------------------


def test_models_and_the_agent():
    """In the order of the items, each with its usage; the ledger says what for."""
    with world() as w:
        id_ = submit(w.g, {"items": [body("say one"), body("tools", model="blufio"), body("say three", model="claude-sonnet-5-5"),
                                     body("say four", model="blufio", user="ann")]})
        doc = finished(w, id_)
        assert texts(doc)[0] == "one" and "Tool results" in texts(doc)[1] and texts(doc)[2:] == ["three", "four"], doc
        assert [i["response"]["model"] for i in doc["items"]] == [MODEL, "blufio", "claude-sonnet-5-5", "blufio"]
        assert all(usage_in(i["response"]["usage"])["completion_tokens"] > 0 for i in doc["items"])
        assert all(i["response"]["object"] == "chat.completion" for i in doc["items"])
        assert features(w) == {"batch"}, features(w)
        cost = w.g.ask("GET", "/v1/cost").json()
        spent = [c for c in cost["caps"] if c["key"] == "batch.daily_usd"][0]["spent_nano_usd"]
        assert spent == sum(r["nano_usd"] for r in w.b.ledger()) > 0, cost
        books(w, flagged=False)


def test_good_and_bad_items():
    """What fails is told of its item alone, as the API would have told it."""
    with world(pricing={"claude-gone-1": {"input": "1.00", "output": "2.00"}}) as w:
        w.ai.expect_refusal("404 model: claude-gone-1")
        shot = {"type": "image_url", "image_url": {"url": data_url(picture())}}
        call = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
        w.ai.script = lambda ask: tool_answer([("look", {"at": 1})]) if ask.text == "look" else None
        id_ = submit(w.g, {"items": [body("say one"), body("say two", model="claude-gone-1"), body("look", tools=[call]),
                                     body([user([{"type": "text", "text": "say four"}, shot])][0]),
                                     body("say five", model="blufio", tools=[dict(call, function={"name": "time_now"})])]})
        doc = finished(w, id_)
        assert [i["status"] for i in doc["items"]] == ["completed", "failed", "completed", "completed", "failed"], doc
        assert doc["completed_items"] == 3 and doc["failed_items"] == 2
        assert doc["items"][1]["error"]["code"] == "model_not_found", doc
        assert set(doc["items"][1]["error"]) == {"message", "type", "param", "code"}
        assert doc["items"][2]["response"]["choices"][0]["finish_reason"] == "tool_calls"
        assert doc["items"][4]["error"]["param"] == "tools" and "time_now" in doc["items"][4]["error"]["message"]
        books(w)


def test_a_provider_that_fails_for_now():
    """It is asked again; what never works fails after five tries, and nobody else with it."""
    with world() as w:
        w.ai.fail_next("529")
        w.ai.fail_next("429", retry_after=1)
        w.ai.fail_next("cut", k=2)
        assert texts(finished(w, submit(w.g, says("one", "two")))) == ["one", "two"]
        books(w)
        w.ai.fail_next("500", n=5)
        doc = finished(w, submit(w.g, says("three")))
        assert doc["failed_items"] == 1 and doc["items"][0]["error"]["code"] == "overloaded", doc
        assert texts(finished(w, submit(w.g, says("four")))) == ["four"]


def test_killed_in_the_middle():
    """100 items, kill -9 when 50 are answered: all are, none was answered twice, and all that was billed is booked."""
    with world() as w:
        gate = hold_after(w, ITEMS_MAX // 2)
        id_ = submit(w.g, says(*("item %d" % i for i in range(ITEMS_MAX))))
        w.wait(lambda: get(w.g, id_)["completed_items"] == ITEMS_MAX // 2, "half of it", 60.0)
        w.wait(lambda: len(w.ai.requests) == ITEMS_MAX // 2 + RUNNING_MAX, "those under way")
        w.b.kill9()
        gate.set()
        w.wait(lambda: not w.ai.book.open, "the provider to see it")
        w.ai.script = None
        w.b.start()
        assert texts(finished(w, id_)) == ["item %d" % i for i in range(ITEMS_MAX)]
        assert completions(w) == {"say item %d" % i: 1 for i in range(ITEMS_MAX)}
        assert len(w.ai.requests) == ITEMS_MAX + RUNNING_MAX, len(w.ai.requests)
        assert len([r for r in w.b.ledger() if r["estimated"]]) == RUNNING_MAX
        books(w)


def test_killed_with_the_agent():
    """Turns of a batch go on, and none is begun twice."""
    with world() as w:
        gate = hold_after(w, 6)
        id_ = submit(w.g, says(*("item %d" % i for i in range(12)), model="blufio"))
        w.wait(lambda: get(w.g, id_)["completed_items"] == 6 and len(w.ai.requests) == 6 + RUNNING_MAX, "half of it", 60.0)
        w.b.kill9()
        gate.set()
        w.wait(lambda: not w.ai.book.open, "the provider to see it")
        w.ai.script = None
        w.b.start()
        assert texts(finished(w, id_)) == ["item %d" % i for i in range(12)]
        assert set(completions(w).values()) == {1}, completions(w)
        assert w.b.query("SELECT count(*) FROM inbound") == [(12,)]
        assert features(w) == {"batch"}
        books(w)


def test_killed_anywhere():
    """At any moment: only what was under way can be asked for again."""
    with world() as w:
        id_ = submit(w.g, says(*("item %d" % i for i in range(40))))
        for n in (1, 9, 17, 25):
            w.wait(lambda: len(w.ai.requests) > n, "%d requests" % n)
            w.b.kill9()
            w.b.start()
        assert texts(finished(w, id_)) == ["item %d" % i for i in range(40)]
        w.wait(lambda: not w.ai.book.open, "the end of every call")
        told = {r["request_id"] for r in w.b.ledger()}
        lost = {c["id"] for c in w.ai.log if c["outcome"] == "completed"} - told        # answered while it died
        assert len(lost) <= 4 * RUNNING_MAX and len(w.ai.requests) <= 40 + 4 * RUNNING_MAX
        books(w, lost=lost)


def test_an_answer_that_takes_long():
    """Longer than gateway.reply_timeout, and longer than five times that: it is waited for, and not asked again."""
    with plain_world({"gateway": {"reply_timeout": 1}}) as w:
        gate = hold_after(w, 0)
        id_ = submit(w.g, says("one", model="blufio"))
        w.wait(lambda: len([e for e in w.b.logs(running=True) if "504 to request" in e["msg"]]) > 5, "six times of it", 60.0)
        gate.set()
        assert texts(finished(w, id_)) == ["one"]
        assert len(w.ai.requests) == 1
        books(w, flagged=False)


def test_a_clean_stop():
    with world() as w:
        gate = hold_after(w, 3)
        id_ = submit(w.g, says(*("item %d" % i for i in range(12))))
        w.wait(lambda: len(w.ai.requests) == 3 + RUNNING_MAX, "those under way")
        threading.Timer(0.3, gate.set).start()
        w.b.restart()
        assert texts(finished(w, id_)) == ["item %d" % i for i in range(12)]
        assert set(completions(w).values()) == {1} and len(w.ai.requests) == 12
        books(w, flagged=False)


def test_one_that_kills():
    """Five deaths at the same item: it is set aside. Those that were asked beside it are answered: they are soon kept apart."""
    with world() as w:
        deadly = threading.Event()

        def script(ask):
            if ask.text == "say die":
                deadly.set()
                w.b.process.kill()
            elif not deadly.wait(1):
                return None
            threading.Event().wait(1)           # the death comes first
            return None
        w.ai.script = script
        id_ = submit(w.g, says("one", "die", "three"))
        for _ in range(5):
            w.wait(lambda: not w.b.running(), "a death", 40.0)
            w.b.kill9()
            deadly.clear()
            w.b.start()
        doc = finished(w, id_)
        assert [i["status"] for i in doc["items"]] == ["completed", "failed", "completed"], doc
        assert doc["items"][1]["error"]["code"] == "set_aside"
        books(w, lost={c["id"] for c in w.ai.log})


# ---- money ------------------------------------------------------------------------------------------


def test_the_cap_in_the_middle():
    """What the cap does not reach waits, and says why; raised, it goes on. People are not kept waiting."""
    with world(batch={"daily_usd": "0.0001"}) as w:
        big = says(*("item %d" % i for i in range(8)), max_tokens=1024, model="claude-sonnet-5-5")
        id_ = submit(w.g, big)
        w.wait(lambda: "batch.daily_usd" in (get(w.g, id_)["waiting"] or ""), "the sentence")
        doc = get(w.g, id_)
        assert doc["status"] == "processing" and doc["completed_items"] < 8 and doc["failed_items"] == 0, doc
        assert w.g.ask("POST", "/v1/chat/completions", body("say hello")).status == 200
        w.b.restart()
        assert "batch.daily_usd" in get(w.g, id_)["waiting"]
        n = len(w.ai.requests)
        w.b.configure(batch={"daily_usd": "5"})
        assert w.b.cli("reload")[0] == 0
        assert texts(finished(w, id_)) == ["item %d" % i for i in range(8)]
        assert len(w.ai.requests) - n == 8 - doc["completed_items"]
        books(w)


def test_the_cap_used_up():
    """Spent and reserved never exceed it, and the agent's items wait as well."""
    with world(batch={"daily_usd": "0.03"}, routing={"force_model": "claude-sonnet-5-5"}) as w:
        id_ = submit(w.g, {"items": [body("words 700", model="claude-sonnet-5-5", max_tokens=1100) for _ in range(6)]})
        other = submit(w.g, says("from the agent", model="blufio"))
        w.wait(lambda: get(w.g, id_)["waiting"] and get(w.g, other)["waiting"], "both to wait", 60.0)
        spent = sum(r["nano_usd"] for r in w.b.ledger())
        assert 15_000_000 < spent <= 30_000_000, spent
        w.b.configure(batch={"daily_usd": "9"})
        assert w.b.cli("reload")[0] == 0
        assert finished(w, id_)["completed_items"] == 6
        assert texts(finished(w, other)) == ["from the agent"]
        books(w)


def test_tomorrow():
    """At midnight the caps are new: what they refused is asked."""
    with world(batch={"daily_usd": "0.0001"}) as w:
        id_ = submit(w.g, says("one", max_tokens=1024, model="claude-sonnet-5-5"))
        w.wait(lambda: "batch.daily_usd" in (get(w.g, id_)["waiting"] or ""), "the sentence")
        assert w.b.query("SELECT next_at % 86400000000, room > 0 FROM batch_items") == [(0, 1)]
        assert len(w.ai.requests) == 0


def test_a_cap_of_nothing():
    with world(batch={"daily_usd": "0"}) as w:
        refused(w.g.ask("POST", PATH, says("one")), 403, message="batches is \\$0.*config set batch.daily_usd")
        assert w.b.query("SELECT count(*) FROM batch_items") == [(0,)]
        assert len(w.ai.requests) == 0


def test_pause():
    """All calls end at once, nothing is lost, and after it all go on."""
    for model in (MODEL, "blufio"):
        with world() as w:
            gate = hold_after(w, 2)
            id_ = submit(w.g, says(*("item %d" % i for i in range(8)), model=model))
            w.wait(lambda: len(w.ai.requests) == 2 + RUNNING_MAX, "those under way")
            assert w.b.cli("pause")[0] == 0
            w.wait(lambda: {i["status"] for i in get(w.g, id_)["items"]} == {"completed", "pending"}, "all to stand still")
            assert "paused" in get(w.g, id_)["waiting"]
            gate.set()
            w.wait(lambda: not w.ai.book.open, "the provider to see it")
            w.b.restart()
            assert "paused" in get(w.g, id_)["waiting"]
            assert w.b.cli("resume")[0] == 0
            assert texts(finished(w, id_)) == ["item %d" % i for i in range(8)]
            assert set(completions(w).values()) == {1}, completions(w)
            books(w)


# ---- whose it is --------------------------------------------------------------------------------------


def test_others():
    """Another key's batch is not there; an admin sees all; a revoked key's items are not asked."""
    with world() as w:
        ann, ben, reads = w.g.mint("chat"), w.g.mint("chat"), w.g.mint("read")
        id_ = submit(ann, says("one"))
        assert get(ann, id_)["api_key_id"] == str(ann.made["id"])
        refused(ben.ask("GET", "%s/%s" % (PATH, id_)), 404)
        refused(ben.ask("GET", PATH + "/0"), 404)
        refused(ben.ask("GET", PATH + "/x"), 404)
        refused(reads.ask("POST", PATH, says("one")), 403)
        assert texts(finished(w, id_)) == ["one"]
        second = submit(ann, says("two"))
        assert [b["id"] for b in ann.ask("GET", PATH).json()["batches"]] == [second, id_]
        assert ann.ask("GET", PATH + "?limit=1").json()["next"] == second
        assert [b["id"] for b in ann.ask("GET", PATH + "?limit=1&after=" + second).json()["batches"]] == [id_]
        assert [b["id"] for b in ann.ask("GET", PATH + "?order=asc").json()["batches"]] == [id_, second]
        assert ben.ask("GET", PATH).json()["batches"] == []
        assert len(w.g.ask("GET", PATH).json()["batches"]) == 2
        finished(w, second)
        gate = hold_after(w, 0)
        n = len(w.ai.requests)
        third = submit(ann, says(*"abcdefgh"))
        w.wait(lambda: len(w.ai.requests) == n + RUNNING_MAX, "those under way")
        assert w.g.ask("DELETE", "/v1/api-keys/%d" % ann.made["id"]).status == 200
        gate.set()
        doc = finished(w, third)
        assert doc["completed_items"] == RUNNING_MAX and doc["failed_items"] == 4, doc
        assert {i["error"]["code"] for i in doc["items"] if i["error"]} == {"invalid_api_key"}
        assert len(w.ai.requests) == n + RUNNING_MAX
        books(w)


def test_idempotency():
    with world() as w:
        key = {"Idempotency-Key": "order-1"}
        id_ = submit(w.g, says("one"), key)
        assert submit(w.g, says("one"), key) == id_
        refused(w.g.ask("POST", PATH, says("other"), key), 409)
        w.b.restart(hard=True)
        assert submit(w.g, says("one"), key) == id_
        finished(w, id_)
        assert w.g.ask("POST", PATH, says("one"), key).json()["status"] == "completed"
        assert w.b.query("SELECT count(*) FROM batches") == [(1,)]


def test_pages():
    with world() as w:
        id_ = submit(w.g, says(*(str(i) for i in range(5))))
        whole = finished(w, id_)
        assert whole["next"] is None and whole["has_more"] is False
        first = get(w.g, id_, "?limit=2")
        assert [i["index"] for i in first["items"]] == [0, 1] and first["has_more"]
        assert [i["index"] for i in get(w.g, id_, "?after=" + first["next"])["items"]] == [2, 3, 4]
        refused(w.g.ask("GET", "%s/%s?limit=0" % (PATH, id_)), 400, "limit")


# ---- bad input --------------------------------------------------------------------------------------------


def test_bad_input():
    """Refused whole, by the item and the field, and nothing is stored."""
    with world() as w:
        for batch, param, words in (
                ({"items": []}, "items", "1 to 100"),
                (says(*"x" * (ITEMS_MAX + 1)), "items", "1 to 100 requests; here are 101"),
                ({"items": {}}, "items", "an array"), ({}, "items", "missing"), ({"items": [], "x": 1}, "x", "not known"),
                ({"items": [body("say a"), 1]}, "items[1]", "JSON object"), ({"items": [None]}, "items[0]", "JSON object"),
                ({"items": [body("say a"), body("say b", stream=True)]}, "items[1].stream", "no stream"),
                ({"items": [body("say a", model="nobody-1")]}, "items[0].model", "there is no model"),
                ({"items": [body("say a"), body("say b", n=2)]}, "items[1].n", "one answer"),
                ({"items": [{"model": MODEL}]}, "items[0].messages", "missing"),
                ({"items": [body("say a", max_tokens="many")]}, "items[0].max_tokens", "whole number"),
                ({"items": [body("say a", tool_choice="required")]}, "items[0].tool_choice", "tool")):
            e = refused(w.g.ask("POST", PATH, batch), 400, param)
            assert words in e["message"], (words, e)
        refused(w.g.ask("POST", PATH, b"[]"), 400)
        refused(w.g.ask("POST", PATH, b'{"items":['), 400)
        refused(w.g.ask("POST", PATH, says("a"), {"Idempotency-Key": "two words"}), 400)
        large = {"items": [body("say " + "x" * (1 << 20)) for _ in range(9)]}
        refused(w.g.ask("POST", PATH, large), 413)
        assert w.b.query("SELECT count(*) FROM batches") == [(0,)] and not w.ai.requests


def test_edges():
    """What is just within the limits is taken; one more is not."""
    with world(cost={"daily_budget_usd": 50}, batch={"daily_usd": 40}) as w:
        assert w.b.cli("pause")[0] == 0
        for _ in range(OPEN_MAX // ITEMS_MAX):
            submit(w.g, says(*"x" * ITEMS_MAX))
        refused(w.g.ask("POST", PATH, says("x")), 429, message="1000 items")
        other = w.g.mint("chat")
        rest = BODY_MAX - len(json.dumps(says(*"x" * 9)))
        batch = says(*("x" + "y" * (rest // 9) for _ in range(9)))
        assert BODY_MAX - 9 <= len(json.dumps(batch)) <= BODY_MAX
        submit(other, batch)
        assert w.b.query("SELECT count(*) FROM batch_items") == [(OPEN_MAX + 9,)]
        assert not w.ai.requests


def test_retention():
    """A complete batch goes after 30 days; one that is not stays."""
    with world() as w:
        old, kept = submit(w.g, says("one")), submit(w.g, says("two"))
        finished(w, old)
        finished(w, kept)
        assert w.b.query("SELECT count(*) FROM batch_items WHERE request <> ''") == [(0,)]
        w.b.stop()
        change(w, "UPDATE batches SET completed_at = completed_at - 31 * 86400000000 WHERE id = ?", int(old))
        w.b.start()
        w.wait(lambda: w.g.ask("GET", "%s/%s" % (PATH, old)).status == 404, "the old one to go")
        assert texts(get(w.g, kept)) == ["two"]
        assert w.b.query("SELECT count(*) FROM batch_items") == [(1,)]


if __name__ == "__main__":
    main(globals())
