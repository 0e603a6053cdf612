# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_answers.py - the main job: a message in, an answer out, every fact on disk."""
import json
import re
import signal
import threading
import time

from harness import OWNER, Blufio, FakeAnthropic, FakeTelegram, World, main, wait_for

STATES = ["PREPARE", "CALL", "STREAM", "TOOLS", "REPLY", "DONE"]
ANSWERED, STOPPED, FAILED, REFUSED, NO_BUDGET, SET_ASIDE = range(1, 7)


def rows(w, sql, *values):
    return w.b.query(sql, *values)


def outcomes(w):
    return [r[0] for r in rows(w, "SELECT outcome FROM turns WHERE state = 5 ORDER BY id")]


def all_done(w):
    return not rows(w, "SELECT 1 FROM turns WHERE state < 5") and not rows(
        w, "SELECT 1 FROM outbox WHERE state < 2") and not rows(
        w, "SELECT 1 FROM inbound WHERE state < 2")


def conversation(w):
    """Stored history as (role, content without the ids that differ from run to run)."""
    out = []
    for role, content in rows(w, "SELECT role, content FROM messages ORDER BY session_id, seq"):
        text = re.sub(r'"(signature|tool_use_id|id)":"[^"]*"', r'"\1":"*"', content)
        text = re.sub(r'\d{4}-\d\d-\d\dT[0-9:.]+Z?|"unix\\*":\d+|unix\\":\d+', "*", text)
        out.append((role, text))
    return out


# ---- conversations -----------------------------------------------------------------------------


def test_conversation():
    with World() as w:
        assert w.say("say hello") == "hello"
        assert w.say("What is up?") == "You said: What is up?"
        w.wait(lambda: all_done(w), "all rows done")
        assert outcomes(w) == [ANSWERED, ANSWERED]
        assert [r[0] for r in rows(w, "SELECT role FROM messages ORDER BY seq")] == [
            "user", "assistant", "user", "assistant"]
        assert len(w.ai.requests) == 2
        body = w.ai.requests[1]["body"]
        assert [m["role"] for m in body["messages"]] == ["user", "assistant", "user"]
        assert body["stream"] is True and body["model"] == "claude-sonnet-5-5"
        for field in ("temperature", "top_p", "top_k", "thinking", "tool_choice"):
            assert field not in body, field
        assert w.ai.requests[0]["headers"]["anthropic-version"] == "2026-10-21"


def test_streaming():
    """The first delta reaches the user while the provider still holds back the rest."""
    with World() as w:
        gate = w.ai.hold_after_first_delta = threading.Event()
        w.tg.send_text(OWNER, "say alpha beta gamma delta")
        w.wait(lambda: any("alpha" in d["text"] for d in w.tg.drafts(OWNER)), "the first words as a draft")
        assert w.tg.texts(OWNER) == []          # nothing final yet
        assert [a["action"] for a in w.tg.actions(OWNER)][:1] == ["typing"]
        assert rows(w, "SELECT state FROM turns") == [(STATES.index("STREAM"),)]
        gate.set()
        w.wait(lambda: w.tg.texts(OWNER) == ["alpha beta gamma delta"], "the answer")


def test_streaming_by_edits():
    with World({"telegram": {"partials": "edit"}}) as w:
        gate = w.ai.hold_after_first_delta = threading.Event()
        w.tg.send_text(OWNER, "say one two three")
        w.wait(lambda: any("one" in t for t in w.tg.texts(OWNER)), "the placeholder")
        gate.set()
        w.wait(lambda: w.tg.texts(OWNER) == ["one two three"] and all_done(w), "the edited answer")
        assert w.tg.drafts(OWNER) == []


def test_neutral_status_never_thinking():
    with World() as w:
        w.ai.hold_after_first_delta = gate = threading.Event()
        w.ai.script = [{"blocks": [{"type": "thinking", "thinking": "SECRET-THOUGHT"},
                                   {"type": "text", "text": "done"}]}]
        w.tg.send_text(OWNER, "hard question")
        w.wait(lambda: w.tg.drafts(OWNER), "a neutral draft after 3 s")
        assert all(d["text"] == "" for d in w.tg.drafts(OWNER))
        gate.set()
        w.wait(lambda: w.tg.texts(OWNER) == ["done"], "the answer")
        assert not any("SECRET-THOUGHT" in json.dumps(c) for c in w.tg.calls)


def test_two_tools_in_parallel():
    with World() as w:
        w.say("tools")
        w.wait(lambda: all_done(w), "rows done")
        first, second = [r["body"] for r in w.ai.requests]
        assert second["messages"][:1] == first["messages"]
        results = second["messages"][2]["content"]
        assert [b["type"] for b in results[:2]] == ["tool_result"] * 2
        assert not any(b.get("is_error") for b in results)
        tools = rows(w, "SELECT name, state, failed FROM steps WHERE kind = 1 ORDER BY idx")
        assert sorted(t[0] for t in tools) == ["text_count", "time_now"]
        assert all(t[1:] == (2, 0) for t in tools)
        names = [t["name"] for t in first["tools"]]
        assert names == sorted(names) and "session_info" in names
        assert len(rows(w, "SELECT 1 FROM cost_ledger")) == 2


def test_unknown_tool_and_bad_input_are_told_to_the_model():
    with World() as w:
        w.ai.script = [
            {"blocks": [{"type": "tool_use", "name": "no_such", "input": {}},
                        {"type": "tool_use", "name": "text_count", "input": {"txt": 1}}],
             "stop_reason": "tool_use"}, "fine"]
        assert w.say("go") == "fine"
        results = w.ai.requests[1]["body"]["messages"][2]["content"]
        assert [r["is_error"] for r in results] == [True, True]
        assert "no tool" in results[0]["content"] and "text" in results[1]["content"]


def test_thinking_is_replayed_verbatim():
    with World() as w:
        w.say("think tools")
        w.say("think say again")
        w.say("say third")
        kinds = [b["type"] for m in w.ai.requests[-1]["body"]["messages"] if m["role"] == "assistant"
                 for b in m["content"]]
        assert kinds.count("thinking") >= 2, kinds
        assert w.ai.prefix_violations == []


def test_thinking_refused_once_then_without():
    """A history whose thinking the provider no longer accepts is asked once more without it."""
    with World() as w:
        w.say("think say one")
        w.b.stop()
        w.b.start()
        w.ai.fail_next("400", text="messages.1.content.0: Invalid `signature` in `thinking` block. The block is"
                       " bound to a different conversation")
        w.ai.expect_refusal("Invalid `signature`")
        assert w.say("say two") == "two"
        assert not any(b["type"] == "thinking" for m in w.ai.requests[-1]["body"]["messages"]
                       if m["role"] == "assistant" for b in m["content"])
        w.ai.prefix_violations.clear()


def test_restart_remembers():
    with World() as w:
        w.say("my name is Zoe")
        w.b.restart()
        assert "my name is Zoe" in w.say("echo history")
        w.b.restart(hard=True)
        assert "my name is Zoe" in w.say("echo history")
        assert w.ai.prefix_violations == []


def test_resume_in_mid_stream():
    with World() as w:
        w.ai.hold_after_first_delta = gate = threading.Event()
        w.tg.send_text(OWNER, "say resume me please")
        w.wait(lambda: any("resume" in d["text"] for d in w.tg.drafts(OWNER)), "a draft")
        w.b.kill9()
        gate.set()
        w.b.start()
        w.wait(lambda: w.tg.texts(OWNER) == ["resume me please"] and all_done(w), "the answer")
        assert len(w.ai.requests) == 2
        ledger = rows(w, "SELECT estimated FROM cost_ledger ORDER BY id")
        assert ledger == [(1,), (0,)], ledger


def test_two_users_in_parallel():
    with World({"telegram": {"allowed_users": [OWNER, 1002]}}) as w:
        w.tg.add_chat(1002)
        w.ai.hold_after_first_delta = gate = threading.Event()
        w.tg.send_text(OWNER, "say first user")
        w.tg.send_text(1002, "say second user")
        w.wait(lambda: len(w.ai.requests) == 2, "both asked at once")
        gate.set()
        w.wait(lambda: w.tg.texts(OWNER) == ["first user"] and w.tg.texts(1002) == ["second user"],
               "both answers")


def test_order_within_a_conversation():
    with World() as w:
        w.ai.hold_after_first_delta = gate = threading.Event()
        for i in range(4):
            w.tg.send_text(OWNER, "say number %d" % i)
        w.wait(lambda: len(rows(w, "SELECT 1 FROM inbound")) == 4 and w.ai.requests, "all stored")
        assert len(w.ai.requests) == 1
        gate.set()
        w.ai.hold_after_first_delta = None
        w.wait(lambda: w.tg.texts(OWNER) == ["number %d" % i for i in range(4)], "answers in order")


def test_admission_limit_waits_and_says_so():
    with World({"agent": {"max_sessions": 1}, "telegram": {"allowed_users": [OWNER, 1002]}}) as w:
        w.tg.add_chat(1002)
        w.ai.hold_after_first_delta = gate = threading.Event()
        w.tg.send_text(OWNER, "say slow one")
        w.wait(lambda: len(w.ai.requests) == 1, "the first is asked")
        w.tg.send_text(1002, "say other")
        w.wait(lambda: w.tg.texts(1002), "a notice")
        assert "busy" in w.tg.texts(1002)[0] and len(w.ai.requests) == 1
        gate.set()
        w.wait(lambda: w.tg.texts(1002)[-1] == "other", "the waiting one answered")


def test_same_conversation_by_telegram_and_shell():
    lines = ["say hello", "tools", "what did I say?"]
    with World() as w:
        for line in lines:
            w.say(line)
        by_telegram = conversation(w)
    with World() as w:
        s = w.b.shell("--chat", "x", terminal=False)
        for line in lines:
            s.send(line)
        s.eof()
        assert s.wait_exit() == 0
        assert "hello" in s.text
        by_shell = conversation(w)
    with World(start=False) as w:               # the same code inside the shell's own process
        code, out, err = w.b.cli("shell", "--chat", "x", input="\n".join(lines) + "\n")
        assert code == 0, err
        assert conversation(w) == by_shell
    assert by_telegram == by_shell


def test_sigterm_in_mid_stream():
    with World({"agent": {"drain_timeout": 20}}) as w:
        w.ai.hold_after_first_delta = gate = threading.Event()
        w.tg.send_text(OWNER, "say drained well")
        w.wait(lambda: w.tg.drafts(OWNER), "a draft")
        w.b.signal(signal.SIGTERM)
        w.b.wait_log("stopping")
        gate.set()
        assert w.b.wait_exit() == 0
        assert w.tg.texts(OWNER) == ["drained well"]
        w.b.start()
        w.wait(lambda: all_done(w), "rows done")


def test_drain_timeout_keeps_the_turn():
    with World({"agent": {"drain_timeout": 1}}) as w:
        w.ai.hold_after_first_delta = gate = threading.Event()
        w.tg.send_text(OWNER, "say kept for later")
        w.wait(lambda: w.tg.drafts(OWNER), "a draft")
        begin = time.monotonic()
        assert w.b.stop() == 0
        assert time.monotonic() - begin < 2.5 * float(__import__("harness").SLOW)
        gate.set()
        assert rows(w, "SELECT state, deaths FROM turns") == [(STATES.index("STREAM"), 0)]
        w.b.start()
        w.wait(lambda: w.tg.texts(OWNER) == ["kept for later"], "answered after the start")


def test_second_signal_exits():
    with World({"agent": {"drain_timeout": 600}}) as w:
        w.ai.hold_after_first_delta = threading.Event()
        w.tg.send_text(OWNER, "say never")
        w.wait(lambda: w.tg.drafts(OWNER), "a draft")
        w.b.signal(signal.SIGTERM)
        w.b.wait_log("stopping")
        w.b.signal(signal.SIGTERM)
        assert w.b.wait_exit(10) == 0
        w.ai.hold_after_first_delta.set()


def test_ten_thousand_words():
    with World() as w:
        w.tg.send_text(OWNER, "words 10000")
        w.wait(lambda: w.tg.texts(OWNER) and all_done(w), "the long answer", timeout=60)
        stored = json.loads(rows(w, "SELECT content FROM messages WHERE role = 'assistant'")[0][0])[-1]["text"]
        sent = " ".join(w.tg.texts(OWNER))
        assert len(stored.split()) >= 10000
        assert sent.split() == stored.split()


# ---- control words --------------------------------------------------------------------------------


def test_stop_within_a_second():
    with World() as w:
        w.ai.hold_after_first_delta = gate = threading.Event()
        w.tg.send_text(OWNER, "say partial text here")
        w.wait(lambda: any("partial" in d["text"] for d in w.tg.drafts(OWNER)), "a draft")
        begin = time.monotonic()
        w.tg.send_text(OWNER, "/stop")
        w.wait(lambda: w.tg.texts(OWNER), "the stopped answer")
        assert time.monotonic() - begin < 1.0 * float(__import__("harness").SLOW)
        gate.set()
        assert w.tg.texts(OWNER)[0].startswith("partial") and "(Stopped.)" in w.tg.texts(OWNER)[0]
        w.wait(lambda: outcomes(w) == [STOPPED], "the outcome")
        assert w.say("say go on") == "go on"
        history = w.ai.requests[-1]["body"]["messages"]
        assert history[1]["role"] == "assistant" and history[1]["content"][0]["text"].startswith("partial")


def test_stop_button_of_the_draft():
    with World() as w:
        w.ai.hold_after_first_delta = gate = threading.Event()
        w.tg.send_text(OWNER, "say pressed stop now")
        w.wait(lambda: any("pressed" in d["text"] for d in w.tg.drafts(OWNER)), "a draft")
        w.tg.press_stop(OWNER)
        w.wait(lambda: w.tg.texts(OWNER) and "(Stopped.)" in w.tg.texts(OWNER)[0], "the stopped answer")
        gate.set()


def test_new_help_start_unknown():
    with World() as w:
        w.say("say remember this")
        assert "fresh conversation" in w.say("/new")
        w.say("say clean")
        assert len(w.ai.requests[-1]["body"]["messages"]) == 1
        assert "/stop" in w.say("/help")
        assert "/stop" in w.say("/start")
        assert "Nothing is running" in w.say("/stop")
        assert "/frobnicate" in w.say("/frobnicate")
        assert len(w.ai.requests) == 2
        commands = [c for c in w.tg.calls if c["method"].lower() == "setmycommands"]
        assert len(commands) == 1


def test_edit_before_start_corrects():
    with World() as w:
        w.ai.hold_after_first_delta = gate = threading.Event()
        w.tg.send_text(OWNER, "say one")
        w.wait(lambda: len(w.ai.requests) == 1, "the first is asked")
        m = w.tg.send_text(OWNER, "say wrnog")
        w.wait(lambda: len(rows(w, "SELECT 1 FROM inbound")) == 2, "stored")
        w.tg.edit_text(OWNER, m, "say right")
        w.wait(lambda: rows(w, "SELECT 1 FROM inbound WHERE text = 'say right'"), "corrected")
        gate.set()
        w.ai.hold_after_first_delta = None
        w.wait(lambda: w.tg.texts(OWNER) == ["one", "right"], "the corrected answer")


# ---- who may speak ----------------------------------------------------------------------------------


def test_stranger_is_told_once_and_paired():
    with World({"telegram": {"allowed_users": []}}) as w:
        w.tg.add_chat(777)
        w.tg.send_text(777, "say hi")
        w.wait(lambda: w.tg.texts(777), "the offer")
        offer = w.tg.texts(777)[0]
        code = re.search(r"[2-9A-Z]{4}-[2-9A-Z]{4}", offer).group(0)
        assert "777" in offer and "blufio pair" in offer
        w.tg.send_text(777, "say hi again")
        w.wait(lambda: not w.tg.unconfirmed, "the second message taken")
        rc, out, _ = w.b.cli("pair")
        assert rc == 0 and code in out and "777" in out
        rc, _, err = w.b.cli("pair", "AAAA-AAAA")
        assert rc != 0 and "AAAA-AAAA" in err
        rc, out, err = w.b.cli("pair", code.lower())
        assert rc == 0 and "777" in out, err
        w.wait(lambda: any("paired" in t for t in w.tg.texts(777)), "told")
        n = len(w.tg.texts(777))
        assert n == 2                           # the offer was made once
        assert w.say("say welcome", user=777) == "welcome"
        w.b.restart()
        assert w.say("say still here", user=777) == "still here"


def test_twenty_strangers_an_hour():
    with World({"telegram": {"allowed_users": []}}) as w:
        for i in range(25):
            w.tg.add_chat(5000 + i)
            w.tg.send_text(5000 + i, "hello")
        w.wait(lambda: not w.tg.unconfirmed and not rows(w, "SELECT 1 FROM outbox WHERE state < 2"), "all taken")
        assert sum(1 for i in range(25) if w.tg.texts(5000 + i)) == 20
        assert len(w.ai.requests) == 0


def test_groups_only_when_addressed():
    with World() as w:
        g = -100200
        w.tg.add_chat(g, "supergroup")
        w.tg.send_text(OWNER, "say nobody asked", chat_id=g, chat_type="supergroup")
        assert w.say("@blufio_test_bot say mentioned", chat_id=g, chat_type="supergroup") == "mentioned"
        assert "Nothing is running" in w.say("/stop@blufio_test_bot", chat_id=g, chat_type="supergroup")
        w.tg.send_text(OWNER, "/stop@other_bot", chat_id=g, chat_type="supergroup")
        w.wait(lambda: not w.tg.unconfirmed, "taken")
        assert len(w.ai.requests) == 1
        last = w.tg.messages(g)[-1]["message_id"]
        assert w.say("say replied", chat_id=g, chat_type="supergroup", reply_to=last) == "replied"


# ---- money ----------------------------------------------------------------------------------------------


def test_ledger_equals_the_bill():
    with World() as w:
        w.say("say one")
        w.say("tools")
        w.wait(lambda: all_done(w), "rows done")
        ours = rows(w, "SELECT model, input, output, cache_read, write_5m, write_1h, nano_usd FROM cost_ledger ORDER BY id")
        assert len(ours) == 3
        bill = w.ai.completed()
        assert [r[6] for r in ours] == [w.ai.cost(e) for e in bill]
        assert all(r[0] == "claude-sonnet-5-5" for r in ours)


def test_daily_cap_refuses_in_words():
    with World({"cost": {"daily_budget_usd": 0.0001}}) as w:
        answer = w.say("say two")
        assert "budget" in answer and "blufio config set cost.daily_budget_usd" in answer
        assert not w.ai.requests        # it might have cost more
        w.b.configure(cost={"daily_budget_usd": 0.05})
        assert w.b.cli("reload")[0] == 0
        assert w.say("say one") == "one"                # with a shorter answer, it fits
        assert 1024 <= w.ai.requests[-1]["body"]["max_tokens"] < 5000
        w.b.configure(cost={"daily_budget_usd": 5})
        rc, out, err = w.b.cli("reload")
        assert rc == 0, err
        assert w.say("say three") == "three"


def test_unknown_model_needs_a_price():
    with World({"anthropic": {"default_model": "claude-new-9"}}) as w:
        answer = w.say("say x")
        assert '[pricing."claude-new-9"]' in answer and len(w.ai.requests) == 0


# ---- commands -----------------------------------------------------------------------------------------------


def test_status_and_stop():
    with World() as w:
        w.say("say x")
        rc, out, _ = w.b.cli("status", "--json")
        s = json.loads(out)
        assert rc == 0 and s["state"] == "running" and s["sessions"]["stored"] == 1
        assert s["cost"]["today_nano_usd"] > 0 and s["spawner"] is True
        assert s["provider"]["state"] == "answering" and s["provider"]["calls"] == 1
        assert s["provider"]["model"] in s["provider"]["models"]
        tg = [c for c in s["channels"] if c["name"] == "telegram"][0]
        assert 0 <= tg["last_poll_age_s"] < 60 and tg["state"] == "polling"
        rc, out, _ = w.b.cli("status")
        assert rc == 0 and "telegram" in out and "conversations" in out
        rc, out, _ = w.b.cli("log", "trace")
        assert rc == 0
        rc, out, _ = w.b.cli("stop")
        assert rc == 0
        assert w.b.wait_exit() == 0
        assert w.b.cli("status")[0] == 3


def test_second_serve_says_who_holds_it():
    with World() as w:
        rc, _, err = w.b.cli("serve")
        assert rc == 74 and str(w.b.pid) in err and "blufio status" in err, (rc, err)


def test_systemd_is_told():
    import os
    import socket
    with World(start=False) as w:
        path = os.path.join(w.b.dir, "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.bind(path)
            s.settimeout(20)
            w.b.start(env={"NOTIFY_SOCKET": path})
            assert s.recv(100) == b"READY=1"
            assert w.b.stop() == 0
            assert s.recv(100) == b"STOPPING=1"
        w.b.start()


def test_copy_is_a_backup():
    import os, shutil, sqlite3
    with World() as w:
        w.say("say backed up")
        wait_for(lambda: all_done(w), what="rows done")
        def whole():
            shutil.copyfile(w.b.db_path, w.b.db_path + ".copy")
            for end in ("-wal", "-shm"):
                if os.path.exists(w.b.db_path + ".copy" + end):
                    os.unlink(w.b.db_path + ".copy" + end)
            c = sqlite3.connect(w.b.db_path + ".copy")
            try:
                return c.execute("PRAGMA integrity_check").fetchone()[0] == "ok" and c.execute(
                    "SELECT count(*) FROM turns WHERE state = 5").fetchone()[0] == 1
            except sqlite3.DatabaseError:
                return False
            finally:
                c.close()
        wait_for(whole, 2, "a plain copy that is whole")


def test_no_token_in_the_log():
    with World({"log": {"level": "trace"}}) as w:
        w.tg.fail_next("sendRichMessage", "500")
        w.ai.fail_next("500")
        w.say("say secretive")
        text = "\n".join(w.b.log_lines())
        assert w.tg.token not in text and w.ai.api_key not in text
        assert w.tg.token.split(":")[1] not in text


if __name__ == "__main__":
    main(globals())
