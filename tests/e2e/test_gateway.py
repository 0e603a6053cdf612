# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_gateway.py - the agent reached by programs: HTTP, event streams, keys, and whoever means it no good."""
import json
import os
import re
import resource
import socket
import sqlite3
import threading
import urllib.error
import urllib.request

from fake_anthropic import default_answer
from gateway_client import Connection, Cut, Gateway, text_of
from harness import OWNER, Skip, World, main

TOKEN = "q7Vx2LkP9sZtR4mWb8NcYd3HfJ6aGe"
EX_IO, EX_CONFIG = 74, 78
DONE = 5
HALF_OPEN = 500
CONNECTIONS_MAX = 100
SSE = {"Accept": "text/event-stream"}
TALK = ("say one", "think say two", "/help", "tools", "echo history", "words 400")

# What is promised of each route: scopes that do not suffice alone; None: no credential is asked for.
ROUTES = {
    ("GET", "/health"): None, ("GET", "/ready"): None, ("GET", "/openapi.json"): (),
    ("GET", "/v1/health"): ("chat", "tools"),
    ("POST", "/v1/messages"): ("read", "tools"), ("GET", "/v1/messages/{turn}"): ("tools",),
    ("GET", "/v1/sessions"): ("tools",), ("GET", "/v1/sessions/{id}/messages"): ("tools",),
    ("DELETE", "/v1/sessions/{id}"): ("read", "tools"), ("POST", "/v1/sessions/{id}/stop"): ("read", "tools"),
    ("GET", "/v1/cost"): ("chat", "tools"), ("GET", "/v1/tools"): ("chat",),
    ("POST", "/v1/tools/invoke"): ("chat", "read"),
    ("POST", "/v1/api-keys"): ("chat", "read", "tools"), ("GET", "/v1/api-keys"): ("chat", "read", "tools"),
    ("DELETE", "/v1/api-keys/{id}"): ("chat", "read", "tools"),
    ("POST", "/v1/session"): (), ("GET", "/v1/session"): (), ("DELETE", "/v1/session"): (),
    ("POST", "/v1/session/ticket"): ("read", "tools"),
    ("POST", "/v1/chat/completions"): ("read", "tools"), ("POST", "/v1/responses"): ("read", "tools"),
    ("GET", "/v1/models"): ("tools",), ("GET", "/v1/models/{id}"): ("tools",),
    ("POST", "/v1/batch"): ("read", "tools"), ("GET", "/v1/batch"): ("read", "tools"), ("GET", "/v1/batch/{id}"): ("read", "tools"),
}


def world(config=None, **options):
    gateway = dict({"enabled": True, "host": "127.0.0.1", "port": 0, "bearer_token": TOKEN},
                   **(config or {}).pop("gateway", {}) if config else {})
    w = World(dict({"gateway": gateway}, **(config or {})), **options)
    w.g = Gateway(w.b, TOKEN)
    return w


def shape(path):
    """A route without the names of its braces."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def refused(r, status, param=None, message=None):
    """The answer is an error in the one shape, or in that of the OpenAI API; returns what is inside."""
    assert r.status == status, (status, r)
    doc = r.json()
    assert set(doc) == {"error"}, doc
    e = doc["error"]
    if "code" in e:                                     # which routes have it says test_openai.py
        assert set(e) == {"type", "message", "param", "code"} and e["type"] and e["message"] and r.get("X-Request-Id"), (e, r)
    else:
        assert {"type", "message", "request_id"} <= set(e) <= {"type", "message", "request_id", "param", "hint", "turn_id"}, e
        assert all(isinstance(v, str) and v.strip() for v in e.values()), e
        assert r.get("X-Request-Id") == e["request_id"], r
    if param is not None:
        assert e.get("param") == param, e
    if message is not None:
        assert re.search(message, e["message"]), e
    if status == 401:
        assert (r.get("WWW-Authenticate") or "").startswith("Bearer"), r
    if status == 429:
        assert re.match(r"[1-9][0-9]*\Z", r.get("Retry-After") or ""), r
    return e


def all_done(w):
    return not w.b.query("SELECT 1 FROM turns WHERE state < 5 UNION ALL SELECT 1 FROM outbox WHERE state < 2")


def held(w):
    """The model begins its answers and holds the rest back until the event is set."""
    w.ai.piece = 6
    w.ai.hold_after_first_delta = threading.Event()
    return w.ai.hold_after_first_delta


def release(w, gate):
    w.ai.hold_after_first_delta = None
    gate.set()


# ---- conversations ------------------------------------------------------------------------------------


def test_a_message_is_answered():
    with world() as w:
        first = w.g.say("say one")
        assert set(first) == {"id", "content", "session_id", "created_at"} and first["content"] == "one", first
        assert isinstance(first["id"], str) and isinstance(first["session_id"], str)
        assert w.b.query("SELECT CAST(id AS TEXT) FROM turns") == [(first["id"],)]
        second = w.g.say("echo history", first["session_id"])
        assert second["content"] == "You wrote: say one" and second["session_id"] == first["session_id"]
        other = w.g.say("echo history")                 # none named: a new one
        assert other["content"].strip() == "You wrote:" and other["session_id"] != first["session_id"]
        assert [(m["role"], m["content"]) for m in w.g.messages(first["session_id"])] == [
            ("user", "say one"), ("assistant", "one"), ("user", "echo history"), ("assistant", "You wrote: say one")]
        ids = [m["id"] for m in w.g.messages(first["session_id"])]
        assert len(set(ids)) == 4 and all(set(m) >= {"id", "role", "content", "created_at"}
                                          for m in w.g.messages(first["session_id"]))
        assert {s["id"] for s in w.g.sessions()} == {first["session_id"], other["session_id"]}
        for s in w.g.sessions():
            assert set(s) >= {"id", "created_at", "updated_at", "user", "state"}, s
        again = w.g.ask("GET", "/v1/messages/" + first["id"])
        assert again.status == 200 and again.json() == first, (again, first)


def test_users_are_apart():
    """user, or sender_id: a name inside the key; never an identity of another channel."""
    with world() as w:
        w.say("say hello")                              # OWNER, on Telegram
        one = w.g.say("say one", user="ann")
        two = w.g.say("say two", sender_id="ann")
        three = w.g.say("say three", user=str(OWNER))
        users = {s["id"]: s["user"] for s in w.g.sessions()}
        assert users[one["session_id"]] == users[two["session_id"]] == "ann"
        assert users[three["session_id"]] == str(OWNER)
        owners = w.b.query("SELECT channel, user_id FROM sessions ORDER BY id")
        assert owners[1][1] == owners[2][1] and len({u for _, u in owners}) == 3, owners
        assert owners[0][0] == "telegram" and {c for c, _ in owners[1:]} == {"gateway"}
        assert len(w.g.sessions()) == 3                 # Telegram's is no business of it
        telegrams = w.b.query("SELECT CAST(id AS TEXT) FROM sessions WHERE channel = 'telegram'")[0][0]
        refused(w.g.ask("GET", "/v1/sessions/%s/messages" % telegrams), 404)
        refused(w.g.ask("POST", "/v1/messages", {"content": "x", "session_id": telegrams}), 404)
        refused(w.g.ask("DELETE", "/v1/sessions/" + telegrams), 404)


def stored(w):
    """What a conversation leaves in the database, without ids, times and the channel's own names."""
    w.wait(lambda: all_done(w), "everything done")

    def rows(sql):
        out = w.b.query(sql)
        # the time of day, in the output of time.now
        return [tuple(re.sub(r"\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d(\.\d+)?|\b\d{10}\b", "#", v) if isinstance(v, str) else v
                      for v in r) for r in out]
    return {
        "inbound": rows("SELECT text, state FROM inbound ORDER BY id"),
        "messages": rows("SELECT seq, role, content, void FROM messages ORDER BY session_id, seq"),
        "turns": rows("SELECT state, outcome, round, attempt, deaths FROM turns ORDER BY id"),
        "steps": rows("SELECT round, idx, kind, name, input, output, failed, state FROM steps ORDER BY turn_id, round, idx"),
        "outbox": rows("SELECT kind, text, state, repeated FROM outbox ORDER BY id"),
        "ledger": rows("SELECT feature, provider, model, output, estimated FROM cost_ledger ORDER BY id"),
        "sessions": rows("SELECT agent, history_seq, thinking_seq, prompt, model FROM sessions ORDER BY id"),
    }


def test_rows_are_those_of_telegram_and_shell():
    with World() as w:
        for text in TALK:
            w.say(text)
        telegram = stored(w)
    with World() as w:
        assert w.b.cli("shell", input="".join(t + "\n" for t in TALK))[0] == 0
        shell = stored(w)
    with world() as w:
        session = None
        for text in TALK:
            session = w.g.say(text, session)["session_id"]
        gateway = stored(w)
    for table in telegram:
        assert telegram[table] == shell[table], (table, telegram[table], shell[table])
        assert gateway[table] == telegram[table], (table, gateway[table], telegram[table])
    assert len(gateway["messages"]) > 10 and len(gateway["steps"]) > len(TALK)


def test_deltas_make_the_answer():
    with world() as w:
        for content in ("words 300", "tools", "think say Grüße 🌍 \"quoted\"\nline"):
            with w.g.stream(content) as s:
                events = list(s)
            assert s.retry == [2000], s.retry
            last = events[-1]
            assert [e.name for e in events].count("message_stop") == 1 and last.name == "message_stop", events
            assert set(last.data) == {"content", "session_id", "id"}
            assert text_of(events) == last.data["content"], (text_of(events), last)
            numbers = [e.id.split("-") for e in events]
            assert {n[0] for n in numbers} == {last.data["id"]}
            counts = [int(n[1]) for n in numbers]
            assert counts == sorted(set(counts)), counts
            assert w.g.messages(last.data["session_id"])[-1]["content"] in last.data["content"]
            assert w.g.ask("GET", "/v1/messages/" + last.data["id"]).json()["content"] == last.data["content"]
        # a finished answer can be streamed as well
        with w.g.events("GET", "/v1/messages/" + last.data["id"]) as s:
            events = list(s)
        assert events[-1].data == last.data and text_of(events) == last.data["content"]


def test_deltas_come_while_the_model_speaks():
    with world() as w:
        gate = held(w)
        with w.g.stream("say alpha beta gamma") as s:
            first = next(s)
            assert first.name == "text_delta" and "alpha beta gamma".startswith(first.data["text"])
            turn = first.id.split("-")[0]
            r = w.g.ask("GET", "/v1/messages/" + turn)
            assert r.status == 202 and r.json()["status"] == "running", r
            release(w, gate)
            assert s.until("message_stop").data["content"] == "alpha beta gamma"
            assert list(s) == []


def test_a_stream_is_for_who_asks_for_one():
    """"*/*", which most clients send, does not mean an event stream."""
    with world() as w:
        for accept in (None, "*/*", "application/json", "text/*", "application/json, */*;q=0.1", "text/event-stream;q=0, */*"):
            r = w.g.ask("POST", "/v1/messages", {"content": "say plain"}, {"Accept": accept})
            assert r.status == 200 and r.json()["content"] == "plain", (accept, r)
        for accept in ("text/event-stream", "Text/Event-Stream; charset=utf-8", "text/event-stream, */*;q=0.1"):
            with w.g.stream("say streamed", {"Accept": accept}) as s:
                assert s.until("message_stop").data["content"] == "streamed", accept


def test_a_broken_answer_begins_again():
    """What was shown is void: restart, and the text from its beginning."""
    with world() as w:
        w.ai.piece = 6
        w.ai.fail_next("cut", k=2)
        with w.g.stream("say alpha beta gamma") as s:
            events = list(s)
        names = [e.name for e in events]
        assert "restart" in names and names[-1] == "message_stop", names
        assert events[names.index("restart")].data == {}
        assert text_of(events) == events[-1].data["content"] == "alpha beta gamma"


def test_a_failure_is_the_same_in_both_forms():
    with world() as w:
        w.ai.fail_next("400", n=2)
        r = w.g.ask("POST", "/v1/messages", {"content": "say never"})
        with w.g.stream("say never") as s:
            last = list(s)[-1]
        if r.status == 200:
            assert last.name == "message_stop" and last.data["content"] == r.json()["content"] != ""
        else:
            e = refused(r, r.status)
            assert last.name == "error" and last.data["error"]["type"] == e["type"], last
            assert last.data["error"]["request_id"] == s.response.get("X-Request-Id")
        assert w.g.say("say on")["content"] == "on"


def test_control_words():
    with world() as w:
        session = w.g.say("say one")["session_id"]
        assert "/stop" in w.g.say("/help", session)["content"]
        w.g.say("/new", session)
        assert w.g.say("echo history", session)["content"].strip() == "You wrote:"


def test_stop():
    with world() as w:
        gate = held(w)
        with w.g.stream("say alpha beta gamma") as s:
            next(s)
            session = w.g.sessions()[0]["id"]
            r = w.g.ask("POST", "/v1/sessions/%s/stop" % session)
            assert r.status == 200 and r.json() == {"stopped": True}, r
            assert list(s)[-1].name in ("message_stop", "error")
        w.wait(lambda: w.b.query("SELECT state, outcome FROM turns") == [(DONE, 2)], "stopped")
        assert w.g.ask("POST", "/v1/sessions/%s/stop" % session).json() == {"stopped": False}
        release(w, gate)
        assert w.g.say("say on", session)["content"] == "on"
        refused(w.g.ask("POST", "/v1/sessions/999999/stop"), 404)


def test_a_deleted_session_is_gone():
    with world() as w:
        keep, gone = w.g.say("say keep")["session_id"], w.g.say("say gone")["session_id"]
        r = w.g.ask("DELETE", "/v1/sessions/" + gone)
        assert r.status == 204 and r.body == b"", r
        for attempt in range(2):
            refused(w.g.ask("GET", "/v1/sessions/%s/messages" % gone), 404)
            refused(w.g.ask("POST", "/v1/messages", {"content": "echo history", "session_id": gone}), 404)
            refused(w.g.ask("DELETE", "/v1/sessions/" + gone), 404)
            refused(w.g.ask("POST", "/v1/sessions/%s/stop" % gone), 404)
            assert [s["id"] for s in w.g.sessions()] == [keep]
            w.b.restart(hard=True)
        assert w.g.say("echo history", keep)["content"] == "You wrote: say keep"


def test_messages_of_one_session_wait_for_one_another():
    with world() as w:
        session = w.g.say("say zero")["session_id"]
        gate = held(w)
        first = w.g.start("POST", "/v1/messages", {"content": "say first", "session_id": session})
        w.wait(lambda: len(w.ai.requests) == 2, "asked")
        second = w.g.start("POST", "/v1/messages", {"content": "echo history", "session_id": session})
        w.wait(lambda: len(w.b.query("SELECT 1 FROM inbound")) == 3, "stored")
        assert w.g.say("/help")["content"]              # another conversation does not wait
        release(w, gate)
        with first, second:
            assert first.response().json()["content"] == "first"
            assert second.response().json()["content"] == "You wrote: say zero | say first"


# ---- clients that leave, and daemons that die -----------------------------------------------------------


def test_a_client_that_left_finds_its_answer():
    with world() as w:
        for headers in (None, SSE):
            n = len(w.ai.requests)
            gate = held(w)
            c = w.g.start("POST", "/v1/messages", {"content": "say patience", "user": "ann"}, headers)
            w.wait(lambda: len(w.ai.requests) > n, "asked")
            c.close()
            release(w, gate)
            w.wait(lambda: all_done(w), "answered")
        found = [w.g.messages(s["id"]) for s in w.g.sessions()]
        assert [[m["content"] for m in f] for f in found] == [["say patience", "patience"]] * 2, found


def test_after_reply_timeout_the_turn_goes_on():
    with world({"gateway": {"reply_timeout": 1}}) as w:
        gate = held(w)
        r = w.g.ask("POST", "/v1/messages", {"content": "say late but there"})
        turn = refused(r, 504)["turn_id"]
        assert w.g.ask("GET", "/v1/messages/" + turn).status == 202
        release(w, gate)
        w.wait(lambda: w.g.ask("GET", "/v1/messages/" + turn).status == 200, "the answer")
        doc = w.g.ask("GET", "/v1/messages/" + turn).json()
        assert doc["content"] == "late but there" and doc["id"] == turn
        refused(w.g.ask("GET", "/v1/messages/999999"), 404)
        refused(w.g.ask("GET", "/v1/messages/x"), 404)


def test_resume_by_last_event_id():
    """Whoever comes back with the last id it saw ends with the whole text."""
    with world() as w:
        w.ai.piece = 4
        gate = held(w)
        s = w.g.stream("say one two three four five six")
        seen = [next(s)]
        s.connection.close()
        turn = seen[0].id.split("-")[0]
        with w.g.events("GET", "/v1/messages/" + turn, headers={"Last-Event-ID": seen[-1].id}) as s:
            release(w, gate)
            later = list(s)
        assert later[-1].name == "message_stop" and not {e.id for e in later} & {e.id for e in seen}
        assert text_of(seen + later) == later[-1].data["content"] == "one two three four five six"
        # from the beginning, without an id
        with w.g.events("GET", "/v1/messages/" + turn) as s:
            assert text_of(list(s)) == "one two three four five six"


def test_resume_after_kill9():
    with world() as w:
        gate = held(w)
        s = w.g.stream("say alpha beta gamma")
        seen = [next(s)]
        w.b.kill9()
        seen += s.ends()
        s.connection.close()
        assert "message_stop" not in [e.name for e in seen]
        release(w, gate)
        w.b.start()
        turn = seen[0].id.split("-")[0]
        with w.g.events("GET", "/v1/messages/" + turn, headers={"Last-Event-ID": seen[-1].id}) as s:
            later = list(s)
        assert later[-1].name == "message_stop", later
        assert text_of(seen + later) == later[-1].data["content"] == "alpha beta gamma"
        assert w.g.ask("GET", "/v1/messages/" + turn).json()["content"] == "alpha beta gamma"
        assert w.b.query("SELECT count(*) FROM turns") == [(1,)]


def test_idempotency():
    with world() as w:
        key = {"Idempotency-Key": "order-1"}

        def ask(content, headers=key, g=w.g):
            return g.ask("POST", "/v1/messages", {"content": content}, headers)
        first = ask("say one").json()
        assert first["content"] == "one"
        assert ask("say one").json() == first
        refused(ask("say two"), 409)
        w.b.restart(hard=True)
        assert ask("say one").json() == first
        refused(ask("say two"), 409)
        # the same words to be streamed are the same request
        with w.g.stream("say one", key) as s:
            assert s.until("message_stop").data["id"] == first["id"]
        assert len(w.ai.requests) == 1 and w.b.query("SELECT count(*) FROM inbound") == [(1,)]
        # it belongs to the credential
        other = w.g.mint("chat", "read")
        assert ask("say one", g=other).json()["id"] != first["id"]
        for bad in ("", " ", "two words", "x" * 256, "\u00fc"):
            refused(ask("say bad", {"Idempotency-Key": bad}), 400)
        assert ask("say long", {"Idempotency-Key": "k" * 255}).status == 200


def test_idempotency_over_kill9_in_mid_answer():
    with world() as w:
        gate = held(w)
        key, body = {"Idempotency-Key": "7f0e"}, {"content": "say only once"}
        c = w.g.start("POST", "/v1/messages", body, key)
        w.wait(lambda: w.ai.requests, "asked")
        twin = w.g.start("POST", "/v1/messages", body, key)         # while the first still waits
        w.b.kill9()
        c.close()
        twin.close()
        release(w, gate)
        w.b.start()
        answers = [w.g.ask("POST", "/v1/messages", body, key).json() for _ in range(2)]
        assert answers[0] == answers[1] and answers[0]["content"] == "only once"
        assert w.b.query("SELECT count(*) FROM inbound") == [(1,)]
        assert w.b.query("SELECT count(*) FROM turns") == [(1,)]


def test_twins_get_one_answer():
    with world() as w:
        gate = held(w)
        key, body = {"Idempotency-Key": "twin"}, {"content": "say the same"}
        first = w.g.start("POST", "/v1/messages", body, key)
        w.wait(lambda: w.ai.requests, "asked")
        with first, w.g.events("POST", "/v1/messages", body, key) as second:
            assert next(second).name == "text_delta"    # it is in the turn that runs
            release(w, gate)
            assert first.response().json()["id"] == second.until("message_stop").data["id"]
        assert len(w.ai.requests) == 1


def test_stop_of_the_daemon_with_clients():
    """Idle, half-asked and streamed-to clients do not keep it from ending well."""
    with world({"agent": {"drain_timeout": 1}}) as w:
        gate = held(w)
        idle = w.g.connect()
        idle.request("GET", "/health")
        assert idle.response().status == 200
        half = w.g.connect()
        half.send(b"POST /v1/messages HTTP/1.1\r\nHost:")
        stream = w.g.stream("say alpha beta")
        next(stream)
        assert w.b.stop() == 0
        for c in (idle, half):
            c.responses()                               # 408 or nothing, then the end
            c.close()
        assert not stream.ends() or stream.events[-1].name in ("error", "text_delta"), stream.events
        stream.connection.close()
        release(w, gate)
        w.b.start()
        w.wait(lambda: all_done(w), "answered all the same")


# ---- what is refused -------------------------------------------------------------------------------------


def test_health():
    with world() as w:
        nobody = Gateway(w.b)
        r = nobody.ask("GET", "/health")
        assert r.status == 200 and r.json() == {"status": "ok"}
        assert nobody.ask("GET", "/ready").status == 200
        refused(nobody.ask("GET", "/v1/health"), 401)
        doc = w.g.ask("GET", "/v1/health").json()
        assert set(doc) >= {"status", "version", "uptime_secs", "features", "channels", "storage"}, doc
        assert doc["version"] in w.b.cli("version")[1] and doc["uptime_secs"] >= 0
        text = json.dumps(doc)
        assert "gateway" in text and "telegram" in text and TOKEN not in text and w.tg.token not in text


def test_openapi_is_the_table():
    """What it names is there, what it does not name is not, and nothing of ours is missing."""
    with world() as w:
        doc = w.g.ask("GET", "/openapi.json").json()
        assert re.match(r"3\.1\.\d+\Z", doc["openapi"]) and doc["info"]["title"] and doc["info"]["version"]
        named = {(m.upper(), shape(p)) for p, item in doc["paths"].items() for m in item
                 if m in ("get", "put", "post", "delete", "patch", "head", "options")}
        missing = {(m, shape(p)) for m, p in ROUTES} - named
        assert not missing, missing
        for path in doc["paths"]:
            real = shape(path).replace("{}", "999999")
            allowed = {m for m, p in named if p == shape(path)}
            for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
                r = w.g.ask(method, real, b"{" if method != "GET" else None)
                if method in allowed:
                    assert r.status != 405 and (r.status != 404 or "{" in path), (method, path, r)
                else:
                    refused(r, 405)
                    assert allowed <= set(re.split(r", ?", r.get("Allow"))), (path, r)
            names = re.findall(r"\{([^}]*)\}", path)
            given = [p["name"] for item in doc["paths"][path].values() if isinstance(item, dict)
                     for p in item.get("parameters", []) if p.get("in") == "path"]
            given += [p["name"] for p in doc["paths"][path].get("parameters", [])]
            assert set(names) <= set(given), path


def test_every_route_wants_a_credential_that_suffices():
    with world() as w:
        keys = {s: w.g.mint(s) for s in ("chat", "read", "tools")}
        expired = w.g.mint("chat", "read", "tools", "admin", expires_in_seconds=1)
        revoked = w.g.mint("chat", "read", "tools", "admin")
        assert w.g.ask("DELETE", "/v1/api-keys/%s" % revoked.made["id"]).status == 200
        w.wait(lambda: expired.ask("GET", "/v1/cost").status == 401, "expired")

        def ask(g, method, path, headers=None):
            return g.ask(method, shape(path).replace("{}", "999999"), {} if method == "POST" else None, headers)
        closed = [r for r in ROUTES if ROUTES[r]]
        for method, path in closed:
            refused(ask(Gateway(w.b), method, path), 401)
            for scope in ROUTES[method, path]:
                refused(ask(keys[scope], method, path), 403)
            assert ask(w.g, method, path).status not in (401, 403), path
        tries = 0
        for method, path in closed:                     # wrong ones last: who tries many is made to wait
            for key, headers in ((expired.key, None), (revoked.key, None), (TOKEN[:-1], None), (TOKEN + "x", None),
                                 ("blf_sk_" + "A" * 43, None), (None, {"Authorization": "Bearer"}),
                                 (None, {"Authorization": "Bearer  "}), (None, {"Authorization": "Basic " + TOKEN}),
                                 (None, {"Authorization": TOKEN})):
                r = ask(Gateway(w.b, key), method, path, headers)
                tries += 1
                refused(r, 429 if r.status == 429 and tries > 4 else 401)
        assert w.b.query("SELECT count(*) FROM inbound") == [(0,)]


def test_bad_bodies():
    cases = [
        (b'{"content": "a",\n  oops}', 400, None, r"line 2\b.*column 3\b"),
        (b'{"content": "a"', 400, None, r"line 1\b.*column \d"),
        (b'{"content": "a"} x', 400, None, r"line 1\b.*column 18\b"),
        (b"", 400, None, None), (b"[]", 400, None, None), (b'"x"', 400, None, None), (b"null", 400, None, None),
        (b'{"content": "\xff"}', 400, None, None), (b'\xef\xbb\xbf{"content": "x"', 400, None, None),
        (b"[" * 5000, 400, None, None),
        (b"{}", 400, "content", None), (b'{"content": 5}', 400, "content", None),
        (b'{"content": null}', 400, "content", None), (b'{"content": ["x"]}', 400, "content", None),
        (b'{"content": ""}', 400, "content", None), (b'{"content": " \\n\\t"}', 400, "content", None),
        (b'{"content": "x", "contnt": "y"}', 400, "contnt", None),
        (b'{"content": "x", "session_id": 5}', 400, "session_id", None),
        (b'{"content": "x", "user": []}', 400, "user", None),
        (b'{"content": "x", "sender_id": {}}', 400, "sender_id", None),
        (b'{"content": "x", "session_id": "999999"}', 404, None, None),
        (b'{"content": "x", "session_id": "no such"}', 404, None, None),
    ]
    with world() as w:
        for data, status, param, message in cases:
            try:
                refused(w.g.ask("POST", "/v1/messages", data), status, param, message)
                refused(w.g.ask("POST", "/v1/messages", data, SSE), status, param, message)
            except AssertionError as e:
                raise AssertionError("%r: %s" % (data[:60], e))
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
                     "application/jsonx"):
            refused(w.g.ask("POST", "/v1/messages", {"content": "x"}, {"Content-Type": kind}), 415)
        for path, data, param in (("/v1/tools/invoke", {"nome": "time.now"}, "nome"), ("/v1/api-keys", {"name": 1}, "name"),
                                  ("/v1/api-keys", {"name": "x", "scopes": ["root"]}, "scopes"),
                                  ("/v1/api-keys", {"name": "x", "scopes": []}, "scopes")):
            refused(w.g.ask("POST", path, data), 400, param)
        r = w.g.ask("POST", "/v1/messages", {"content": "say typed"}, {"Content-Type": "Application/JSON; charset=UTF-8"})
        assert r.json()["content"] == "typed"
        # nothing half-done
        assert w.b.query("SELECT text FROM inbound") == [("say typed",)] and len(w.ai.requests) == 1
        assert len(w.g.sessions()) == 1 and w.g.ask("GET", "/v1/api-keys").status == 200


def test_bodies_without_measure():
    with world() as w:
        big = 3 << 20
        for headers in ({"Content-Length": str(big)}, {"Content-Length": str(big), "Expect": "100-continue"},
                        {"Content-Length": "9223372036854775807"}):
            with w.g.start("POST", "/v1/messages", b"", headers) as c:
                refused(c.response(), 413)              # before it is sent, and no 100 before it
        with w.g.connect() as c:
            assert c.request("POST", "/v1/messages", [b"x" * 65536] * 48, w.g.headers(b"", None))
            refused(c.response(), 413)                  # and is heard, although he still wrote
            assert c.closed() and not c.reset
        assert w.g.say("say small")["content"] == "small"
        assert w.b.query("SELECT count(*) FROM inbound") == [(1,)]


def test_wrong_addresses():
    with world() as w:
        for path in ("/", "/v1", "/v1/", "/v2/messages", "/v1/messages/", "/v1/sessions//messages", "/v1/Messages",
                     "/v1/sessions/1/nothing", "/v1/../health", "/%2e%2e/health", "/v1%2fcost", "/health%00"):
            r = w.g.ask("GET", path)
            assert r.status in ((400, 404) if "%" in path or ".." in path else (404,)), (path, r)
            refused(r, r.status)
        for name in ("token", "key", "access_token"):
            secret = "blf_sk_" + "S" * 30
            refused(w.g.ask("GET", "/v1/cost?%s=%s" % (name, secret)), 400)
            assert Gateway(w.b).ask("GET", "/v1/cost?%s=%s" % (name, TOKEN)).status in (400, 401)
            assert not [x for x in w.b.log_lines() if secret in x or TOKEN in x]
        r = w.g.ask("PUT", "/v1/messages", {"content": "x"})
        refused(r, 405)
        assert "POST" in r.get("Allow")


def test_rebound_names_are_misdirected():
    with world({"gateway": {"allowed_hosts": ["agent.example"]}}) as w:
        port = w.g.port
        for host in ("127.0.0.1:%d" % port, "localhost:%d" % port, "LOCALHOST:%d" % port, "agent.example"):
            assert w.g.ask("GET", "/health", headers={"Host": host}).status == 200, host
        for host in ("evil.example", "evil.example:%d" % port, "127.0.0.1.evil.example", "agent.example.evil.example",
                     "localhost.evil.example", "0.0.0.0:%d" % port, "10.0.0.1"):
            for path in ("/health", "/v1/cost", "/nothing"):
                refused(w.g.ask("GET", path, headers={"Host": host}), 421)
        with w.g.connect() as c:                        # an absolute target's host is the one that counts
            c.send(b"GET http://evil.example/health HTTP/1.1\r\nHost: agent.example\r\n\r\n")
            refused(c.response(), 421)


def test_origins():
    """A web page of somebody else changes nothing and reads nothing."""
    with world({"gateway": {"allowed_origins": ["https://app.example"]}}) as w:
        body = {"content": "say from a page"}
        for origin in ("https://evil.example", "null", "https://app.example.evil.example", "http://app.example"):
            refused(w.g.ask("POST", "/v1/messages", body, {"Origin": origin}), 403)
            r = w.g.ask("GET", "/v1/cost", headers={"Origin": origin})
            assert r.get("Access-Control-Allow-Origin") is None, r
        r = w.g.ask("POST", "/v1/messages", body, {"Origin": "https://app.example"})
        assert r.status == 200 and r.get("Access-Control-Allow-Origin") == "https://app.example", r
        assert "origin" in (r.get("Vary") or "").lower()
        for two in (("https://app.example", "https://evil.example"), ("https://evil.example", "https://app.example")):
            with w.g.connect() as c:                    # which of them would another reader believe?
                data = json.dumps(body).encode()
                c.request("POST", "/v1/messages", data, w.g.headers(data, None) + [("Origin", o) for o in two])
                refused(c.response(), 400)
        assert len(w.ai.requests) == 1


def test_request_ids():
    with world() as w:
        ids, n = set(), 40
        for i in range(n):
            r = w.g.ask("GET", ("/health", "/v1/cost", "/nothing", "/v1/sessions")[i % 4])
            ids.add(r.get("X-Request-Id"))
        assert len(ids) == n and None not in ids
        begin = len(w.b.logs())
        rid = refused(Gateway(w.b, "wrong" + TOKEN).ask("GET", "/v1/cost"), 401)["request_id"]
        said = [x for x in w.b.logs()[begin:] if x.get("component") in ("gateway", "keypair", "auth")]
        assert not said or any(rid in json.dumps(x) for x in said), (rid, said)


# ---- HTTP itself --------------------------------------------------------------------------------------------


def test_kept_connections():
    with world() as w:
        with w.g.connect() as c:
            for i in range(20):
                w.g.start("GET", "/v1/cost", connection=c)
                assert c.response().status == 200
            w.g.start("POST", "/v1/messages", {"content": "say kept"}, connection=c)
            assert c.response().json()["content"] == "kept"
            w.g.start("GET", "/nothing", connection=c)  # an error of ours ends nothing
            refused(c.response(), 404)
            w.g.start("GET", "/health", headers={"Connection": "close"}, connection=c)
            r = c.response()
            assert r.status == 200 and r.get("Connection").lower() == "close"
            c.closed()


def test_pipelining():
    """Answers in the order of the requests, although the first is the slowest."""
    with world() as w:
        ask = json.dumps({"content": "say slow"}).encode()
        head = "Host: localhost\r\nAuthorization: Bearer %s\r\n" % TOKEN
        data = ("POST /v1/messages HTTP/1.1\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                "GET /health HTTP/1.1\r\n%s\r\n" "HEAD /v1/cost HTTP/1.1\r\n%s\r\n" "GET /nothing HTTP/1.1\r\n%s\r\n"
                "POST /v1/messages HTTP/1.1\r\n%sContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                "5\r\n{\"con\r\n15;x=y\r\ntent\": \"say chunked\"}\r\n0\r\n\r\n"
                "GET /v1/cost HTTP/1.1\r\nConnection: close\r\n%s\r\n"
                "GET /health HTTP/1.1\r\n%s\r\n" % (head, len(ask), ask.decode(), head, head, head, head, head, head)).encode()
        for piece in (0, 1, 7, 100):
            n = len(w.ai.requests)
            gate = held(w)
            with w.g.connect() as c:
                c.send(data, piece)
                w.wait(lambda: len(w.ai.requests) > n, "asked")
                release(w, gate)
                assert c.response().json()["content"] == "slow"
                assert c.response().json() == {"status": "ok"}
                assert c.response("HEAD").status == 200
                refused(c.response(), 404)
                assert c.response().json()["content"] == "chunked"
                assert "caps" in c.response().json()
                c.closed()                              # what stood behind "close" is not looked at


def test_head_and_options():
    with world() as w:
        for path in ("/health", "/v1/cost", "/openapi.json", "/nothing"):
            with w.g.start("HEAD", path) as c:
                head = c.response("HEAD")
                w.g.start("GET", path, connection=c)    # and the connection is still in step
                get = c.response()
                assert head.status == get.status and head.body == b""
                assert head.get("Content-Type") == get.get("Content-Type")
                if head.get("Content-Length") is not None and path != "/nothing":
                    assert head.get("Content-Length") == str(len(get.body)), (path, head)
        r = w.g.ask("OPTIONS", "/v1/messages")
        assert r.status in (200, 204) and "POST" in r.get("Allow"), r
        refused(w.g.ask("TRACE", "/health"), 405)


def test_expect_continue():
    with world() as w:
        body = json.dumps({"content": "say continued"}).encode()
        with w.g.start("POST", "/v1/messages", b"", {"Expect": "100-continue", "Content-Length": str(len(body))}) as c:
            assert c.response().status == 100
            c.send(body)
            assert c.response().json()["content"] == "continued"
        # who may not send is told before he does
        with Gateway(w.b).start("POST", "/v1/messages", b"", {"Expect": "100-continue", "Content-Length": "100"}) as c:
            refused(c.response(), 401)
        with w.g.start("POST", "/v1/messages", b"", {"Expect": "magic", "Content-Length": "100"}) as c:
            refused(c.response(), 417)


def test_http_1_0():
    with world() as w:
        with w.g.connect() as c:
            c.send(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
            assert c.response(asked_minor=0).status == 200
            c.closed()
        body = b'{"content": "words 200"}'
        with w.g.connect() as c:                        # a stream without chunks ends with the connection
            c.request("POST", "/v1/messages", body, w.g.headers(body, SSE), minor=0)
            r = c.head()
            data = b"".join(c.pieces(r, asked_minor=0))
            assert b"event: message_stop" in data and data.endswith(b"\n\n")


def test_heads_without_measure():
    with world() as w:
        for data, status in ((b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20000 + b"\r\n\r\n", (431,)),
                             (b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 5000 + b"\r\n", (431,)),
                             (b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", (414, 431)),
                             (b"GET /health HTTP/2.0\r\nHost: localhost\r\n\r\n", (400, 505)),
                             (b"GET /health HTTP/1.1\r\n\r\n", (400,)),
                             (b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", (400,)),
                             (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40 + b"\r\n\r\n", (400,))):
            with w.g.connect() as c:
                c.send(data)
                r = c.response()
                assert r.status in status, (data[:60], r)
                refused(r, r.status)
                c.closed()


def test_a_head_that_never_ends():
    """Neither silence nor a drip holds a connection for good."""
    with world() as w:
        with w.g.connect(timeout=60) as c:
            c.send(b"GET /health HTTP/1.1\r\nHost: local")
            answers = c.responses()
            assert [r.status for r in answers] in ([], [408]), answers
            for r in answers:
                refused(r, 408)


# ---- keys ------------------------------------------------------------------------------------------------------


def test_keys():
    with world() as w:
        g = w.g.mint("chat", "read", name="laptop")
        assert set(g.made) >= {"id", "name", "key", "scopes", "created_at", "expires_at"}
        assert re.match(r"blf_sk_[A-Za-z0-9_-]{22,}\Z", g.key) and g.made["name"] == "laptop"
        assert sorted(g.made["scopes"]) == ["chat", "read"]
        assert g.say("say mine")["content"] == "mine"
        shown = w.g.ask("GET", "/v1/api-keys")
        assert g.key not in shown.body.decode() and "laptop" in shown.body.decode()
        w.b.restart(hard=True)                          # it was told, so it holds
        assert g.say("say still")["content"] == "still"
        w.b.stop()
        with open(w.b.db_path, "rb") as f:              # of the key itself nothing is kept
            assert g.key[7:].encode() not in f.read()
        w.b.start()
        assert not [x for x in w.b.log_lines() if g.key[7:] in x or TOKEN in x]
        refused(w.g.ask("DELETE", "/v1/api-keys/999999"), 404)


def test_a_key_sees_its_own():
    with world() as w:
        ann, bob = w.g.mint("chat", "read"), w.g.mint("chat", "read")
        a, b = ann.say("say of ann", user="x"), bob.say("say of bob", user="x")
        assert [s["id"] for s in ann.sessions()] == [a["session_id"]]
        assert [s["id"] for s in bob.sessions()] == [b["session_id"]]
        assert {s["id"] for s in w.g.sessions()} == {a["session_id"], b["session_id"]}      # admin
        refused(bob.ask("GET", "/v1/sessions/%s/messages" % a["session_id"]), 404)
        refused(bob.ask("DELETE", "/v1/sessions/" + a["session_id"]), 404)
        refused(bob.ask("POST", "/v1/sessions/%s/stop" % a["session_id"]), 404)
        refused(bob.ask("POST", "/v1/messages", {"content": "echo history", "session_id": a["session_id"]}), 404)
        refused(bob.ask("GET", "/v1/messages/" + a["id"]), 404)
        refused(bob.ask("GET", "/v1/messages/" + a["id"], headers=SSE), 404)
        assert len(ann.messages(a["session_id"])) == 2
        assert w.b.query("SELECT count(DISTINCT user_id) FROM sessions") == [(2,)]      # x is not x


def test_a_key_mints_no_more_than_it_has():
    with world() as w:
        small = w.g.mint("admin", "read")
        refused(small.ask("POST", "/v1/api-keys", {"name": "x", "scopes": ["chat"]}), 403)
        refused(small.ask("POST", "/v1/api-keys", {"name": "x", "scopes": ["read", "tools"]}), 403)
        assert small.mint("read").ask("GET", "/v1/cost").status == 200
        brief = w.g.mint("admin", "read", expires_in_seconds=600)
        r = brief.ask("POST", "/v1/api-keys", {"name": "x", "scopes": ["read"]})
        assert r.status == 403 or r.json()["expires_at"] not in (None, 0), r       # nor lives longer


def test_a_revoked_key_ends_its_streams():
    with world() as w:
        g, gate = w.g.mint("chat", "read"), held(w)
        kept = g.connect()
        g.start("GET", "/v1/sessions", connection=kept)
        assert kept.response().status == 200
        with g.stream("say alpha beta") as s, kept:
            next(s)
            assert w.g.ask("DELETE", "/v1/api-keys/%s" % g.made["id"]).status == 200
            assert "message_stop" not in [e.name for e in s.ends()]     # it ends while the model still holds back
            try:
                g.start("GET", "/v1/sessions", connection=kept)
                refused(kept.response(), 401)
            except Cut:                                 # closed as well
                pass
        w.wait(lambda: g.ask("GET", "/v1/sessions").status == 401, "refused")
        refused(g.ask("POST", "/v1/messages", {"content": "say no"}), 401)
        release(w, gate)
        w.wait(lambda: all_done(w), "the turn goes on")
        w.b.restart(hard=True)
        refused(g.ask("GET", "/v1/sessions"), 401)


def test_an_expired_key_ends_its_streams():
    with world() as w:
        g, gate = w.g.mint("chat", "read", expires_in_seconds=2), held(w)
        with g.stream("say alpha beta") as s:
            next(s)
            assert "message_stop" not in [e.name for e in s.ends()]
        refused(g.ask("GET", "/v1/sessions"), 401)
        release(w, gate)
        w.wait(lambda: all_done(w), "the turn goes on")


def test_a_rate_limit():
    with world() as w:
        g = w.g.mint("read", rate_limit_per_minute=3)
        answers = [g.ask("GET", "/v1/cost") for _ in range(10)]
        statuses = [r.status for r in answers]
        assert statuses[:3] == [200] * 3 and 429 in statuses, statuses
        refused(answers[statuses.index(429)], 429)
        assert w.g.ask("GET", "/v1/cost").status == 200     # of that key alone


# ---- tools and money ------------------------------------------------------------------------------------------------


def test_tools_and_cost():
    with world({"cost": {"daily_budget_usd": 2.5}}) as w:
        doc = w.g.ask("GET", "/v1/tools").json()
        for name in ("time.now", "text.count"):
            assert name in json.dumps(doc)

        def invoke(name, value):
            return w.g.ask("POST", "/v1/tools/invoke", {"name": name, "input": value})
        r = invoke("text.count", {"text": "one two\n"})
        assert r.status == 200, r
        assert re.search(r'"words\\*": ?2\b', r.body.decode()), r
        assert invoke("time.now", {}).status == 200
        assert invoke("no.such", {}).status in (403, 404)
        refused(invoke("text.count", {"txt": 1}), 400)
        refused(invoke("text.count", []), 400)
        assert len(w.ai.requests) == 0
        w.g.say("words 50")
        doc = w.g.ask("GET", "/v1/cost").json()
        spent = w.b.query("SELECT sum(nano_usd) FROM cost_ledger")[0][0]
        assert set(doc) == {"paused", "caps", "today", "month", "prompts"} and doc["paused"] is False, doc
        day = doc["caps"][0]
        assert day["key"] == "cost.daily_budget_usd" and day["cap_nano_usd"] == 2.5e9 and day["reserved_nano_usd"] == 0, doc
        assert day["spent_nano_usd"] == spent > 0 and doc["today"]["total"][0]["nano_usd"] == spent, (doc, spent)


# ---- starting --------------------------------------------------------------------------------------------------------


def fails_to_start(config, codes, *words):
    with World({"gateway": dict({"enabled": True, "port": 0, "bearer_token": TOKEN}, **config)}, start=False) as w:
        code, out, err = w.b.cli("serve", timeout=30)
        said = [x for x in (out + err).splitlines() if x.startswith("blufio: ")]
        assert code in codes and len(said) == 1, (code, out, err)
        assert all(x in said[0] for x in words), said
        assert TOKEN not in out + err


def test_words_of_control_over_again():
    """They have no turn: their answer is a notice, which a repeat and a look-up find."""
    with world() as w:
        first = w.g.ask("POST", "/v1/messages", {"content": "/help"}, {"Idempotency-Key": "h"}).json()
        assert "/stop" in first["content"]
        again = w.g.ask("POST", "/v1/messages", {"content": "/help"}, {"Idempotency-Key": "h"}).json()
        assert (again["id"], again["content"]) == (first["id"], first["content"])
        assert w.g.ask("GET", "/v1/messages/" + first["id"]).json()["content"] == first["content"]


def test_stop_as_a_word():
    with world() as w:
        gate = held(w)
        with w.g.stream("say never") as s:
            session = None
            w.wait(lambda: w.ai.requests, "asked")
            session = w.g.ask("GET", "/v1/sessions").json()["sessions"][0]["id"]
            r = w.g.ask("POST", "/v1/messages", {"content": "/stop", "session_id": session})
            assert r.status == 200 and r.json()["content"] == "Stopping."
            assert "(Stopped.)" in s.until("message_stop").data["content"]
        release(w, gate)


def test_a_head_has_no_body():
    with world() as w:
        first = w.g.ask("POST", "/v1/messages", {"content": "say one"}).json()
        r = w.g.ask("HEAD", "/v1/messages/" + first["id"], None, {"Accept": "text/event-stream"})
        assert r.status == 200 and r.body == b""


def test_a_body_that_turns_bad():
    """The request is answered once, and all of it is given back: many of them cost no memory."""
    with world() as w:
        head = ("POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
                "Transfer-Encoding: chunked\r\n\r\n" % TOKEN).encode()
        for _ in range(20):
            with w.g.connect() as c:
                c.send(head + b"1ff000\r\n" + b" " * 0x1ff000 + b"\r\nZZ\r\n")
                assert [r.status for r in c.responses()] == [400]
        with w.g.connect() as c:
            c.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 3000 + b"\r\nBad field\r\n\r\n")
            assert [r.status for r in c.responses()] == [400]
        rss = int(re.search(r"VmRSS:\s+(\d+)", open("/proc/%d/status" % w.b.pid).read()).group(1))
        assert rss < 32000 or os.environ.get("E2E_MEMORY") == "0", rss


def test_storage_that_fails():
    """No answer is lost with a commit: 503, and it goes on by itself."""
    with world() as w:
        assert w.g.ask("POST", "/v1/messages", {"content": "say one"}).status == 200
        w.wait(w.settled, "quiet")
        other = sqlite3.connect(w.b.db_path, timeout=10, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            assert w.g.ask("POST", "/v1/messages", {"content": "say two"}).status == 503
            assert w.g.ask("GET", "/v1/health").status == 503
        finally:
            other.execute("ROLLBACK")
            other.close()
        w.wait(lambda: w.g.ask("GET", "/ready").status == 200, "it works again")
        assert w.g.ask("POST", "/v1/messages", {"content": "say three"}).json()["content"] == "three"


def test_preflight():
    with world({"gateway": {"allowed_origins": ["https://app.example"]}}) as w:
        wants = "authorization,content-type,x-stainless-lang"
        r = w.g.ask("OPTIONS", "/v1/messages", None, {"Origin": "https://app.example", "Access-Control-Request-Method": "POST",
                                                      "Access-Control-Request-Headers": wants})
        assert r.status == 204 and r.get("Access-Control-Allow-Headers") == wants
        assert r.get("Access-Control-Allow-Origin") == "https://app.example"


def test_metrics():
    """Figures are open on this machine, unless it is configured otherwise, and count what was said."""
    with world() as w:
        for i in range(3):
            w.g.ask("POST", "/v1/messages", {"content": "say %d" % i})
        anybody = Gateway(w.b, None)
        r = anybody.ask("GET", "/metrics")
        assert r.status == 200 and r.get("Content-Type").startswith("text/plain; version=0.0.4")
        text = r.body.decode()
        assert 'blufio_messages_total{channel="gateway"} 3\n' in text, text
        assert 'blufio_turns_total{outcome="answered"} 3\n' in text
        r = anybody.ask("GET", "/metrics", None, {"Accept": "application/openmetrics-text; version=1.0.0"})
        assert r.body.endswith(b"# EOF\n")
    with world({"prometheus": {"require_auth": True}}) as w:
        refused(Gateway(w.b, None).ask("GET", "/metrics"), 401)
        assert w.g.ask("GET", "/metrics").status == 200


def test_a_public_address_is_refused():
    for host in ("0.0.0.0", "192.0.2.1", "::"):
        fails_to_start({"host": host}, (EX_CONFIG,), "TLS", "allow_public")


def test_a_weak_token_is_refused():
    for token in ("short", "x" * 21):
        fails_to_start({"bearer_token": token}, (EX_CONFIG,), "bearer_token")


def test_a_bad_host_is_refused():
    fails_to_start({"host": "not an address"}, (EX_CONFIG,), "gateway.host")


def test_a_taken_port_is_said():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(1)
        port = s.getsockname()[1]
        fails_to_start({"port": port}, (EX_IO, EX_CONFIG), str(port))


def test_a_port_is_free_again_at_once():
    """After kill -9 with open connections the same port can be had."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with world({"gateway": {"port": port}}) as w:
        with w.g.connect() as c:
            assert w.g.port == port
            c.request("GET", "/health")
            assert c.response().status == 200
            w.b.restart(hard=True)
        assert w.g.say("say again")["content"] == "again"


def test_off_by_default():
    with World() as w:
        assert not [x for x in w.b.logs() if x.get("component") == "gateway"]


# ---- many, slow and hanging --------------------------------------------------------------------------------------------


def need_descriptors(n):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < n + 200:
        if hard < n + 200:
            raise Skip("only %d descriptors here" % hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (n + 200, hard))


def crowd(w, n):
    """n connections that have begun and do not go on."""
    need_descriptors(n)
    starts = (b"", b"G", b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Le",
              b"GET /health HTTP/1.1\r\nHost: localhost\r\n", b"\r\n")
    out, port = [], w.g.port
    for i in range(n):
        c = Connection(port)
        c.send(starts[i % len(starts)])
        out.append(c)
    return out


def test_half_open_connections_stop_nobody():
    with world() as w:
        many = crowd(w, HALF_OPEN)
        try:
            assert w.g.say("say through")["content"] == "through"
            assert w.say("say here too") == "here too"
            assert Gateway(w.b).ask("GET", "/health").status == 200
        finally:
            for c in many:
                c.close()
        w.wait(lambda: w.b.fds() < 100, "they are forgotten")


def test_more_connections_than_there_may_be():
    """At the cap the oldest without a whole head goes; who asks properly gets in."""
    with world({"gateway": {"max_connections": CONNECTIONS_MAX}}) as w:
        kept = w.g.connect()
        w.g.start("GET", "/v1/cost", connection=kept)
        assert kept.response().status == 200
        gate = held(w)
        with w.g.stream("say alpha beta gamma") as s:
            next(s)
            many = crowd(w, CONNECTIONS_MAX + 100)
            try:
                assert w.g.ask("GET", "/v1/cost").status == 200
                assert w.b.fds() <= CONNECTIONS_MAX + 100
                release(w, gate)                        # and who has been heard is not thrown out
                assert s.until("message_stop").data["content"] == "alpha beta gamma"
            finally:
                for c in many + [kept]:
                    c.close()


def test_a_client_that_does_not_read():
    """Neither is it buffered for without end, nor does anybody wait for it."""
    with world() as w:
        before = w.b.rss_kb()
        one = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n" % TOKEN
        deaf = w.g.connect(receive_buffer=4096)
        deaf.socket.settimeout(2)
        sent = 0
        try:
            while sent < 64 << 20 and deaf.send(one.encode() * 500):
                sent += len(one) * 500
        except socket.timeout:
            pass
        assert sent < 64 << 20, "it reads on although nobody takes the answers"
        assert w.g.say("say past him")["content"] == "past him"
        # a sanitizer keeps what is freed
        assert w.b.rss_kb() - before < 16 << 10 or os.environ.get("E2E_MEMORY") == "0", (before, w.b.rss_kb())
        deaf.close()


def test_a_hanging_telegram_does_not_stop_the_gateway():
    with world({"agent": {"drain_timeout": 1}}) as w:
        w.say("say one")
        w.tg.fail_next("*", "hang", n=1000)
        w.tg.send_text(OWNER, "say never delivered")    # the poll that runs brings it; the answer hangs
        session = None
        for i in range(5):
            answer = w.g.say("say %d" % i, session)
            assert answer["content"] == str(i)
            session = answer["session_id"]
        with w.g.stream("words 300", session_id=session) as s:
            assert text_of(list(s)).endswith("w300")
        w.tg.faults.clear()


def test_a_waiting_gateway_does_not_stop_telegram():
    with world() as w:
        gate = threading.Event()
        w.ai.script = lambda ask: (gate.wait(60) if "slow" in ask.text else None) and default_answer(ask)
        waiting = [w.g.start("POST", "/v1/messages", {"content": "say slow %d" % i}, SSE if i % 2 else None) for i in range(4)]
        w.wait(lambda: len(w.ai.requests) == 4, "all asked")
        with w.g.connect() as deaf:
            deaf.send(b"GET /health HTTP/1.1\r\nHost")
            for i in range(3):
                assert w.say("say %d" % i) == str(i)
        gate.set()
        for i, c in enumerate(waiting):
            with c:
                assert ("slow %d" % i).encode() in c.response().body


# ---- clients of others ---------------------------------------------------------------------------------------------------


def test_urllib():
    with world() as w:
        base = "http://127.0.0.1:%d" % w.g.port
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        ask = urllib.request.Request(base + "/v1/messages", b'{"content": "say by python"}',
                                     {"Authorization": "Bearer " + TOKEN, "Content-Type": "application/json"})
        with opener.open(ask, timeout=60) as r:
            assert json.load(r)["content"] == "by python"
        try:
            opener.open(base + "/v1/cost", timeout=60)
            raise AssertionError("no credential, and no refusal")
        except urllib.error.HTTPError as e:
            with e:
                assert e.code == 401 and "error" in json.load(e)


if __name__ == "__main__":
    main(globals())
