# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_day.py - one day in the life of the daemon, everything once; run under valgrind too."""
import json
import re
import threading

from gateway_client import Device, Gateway, text_of
from harness import OWNER, main
from test_gateway import world
from test_socket import Socket


def test_a_day():
    with world({"telegram": {"allowed_users": [OWNER, 1002]}, "agent": {"max_sessions": 2}}) as w:
        w.tg.add_chat(1002)
        w.tg.add_chat(777)
        # morning: talk, think, tools, a long answer, two people at once
        assert w.say("say good morning") == "good morning"
        w.say("think tools")
        w.say("words 1500")
        w.ai.hold_after_first_delta = gate = threading.Event()
        w.tg.send_text(OWNER, "say one")
        w.tg.send_text(1002, "say two")
        w.wait(lambda: len(w.ai.requests) >= 6, "both asked")
        gate.set()
        w.ai.hold_after_first_delta = None
        w.wait(lambda: w.tg.texts(1002) == ["two"] and w.tg.texts(OWNER)[-1] == "one", "both answered")
        # a stranger is paired by the owner
        w.tg.send_text(777, "hello?")
        w.wait(lambda: w.tg.texts(777), "the offer")
        code = re.search(r"[2-9A-Z]{4}-[2-9A-Z]{4}", w.tg.texts(777)[0]).group(0)
        assert w.b.cli("pair", code)[0] == 0
        w.wait(lambda: len(w.tg.texts(777)) == 2, "told")
        # trouble: the model is overloaded, a stream is cut, Telegram hiccups
        w.ai.fail_next("529")
        assert w.say("say overloaded") == "overloaded"
        w.ai.fail_next("cut", after=2)
        assert w.say("say cut in the middle of it") == "cut in the middle of it"
        w.tg.fail_next("sendRichMessage", "500")
        w.tg.fail_next("getUpdates", "502")
        w.say("say hiccup")
        # stop in mid-stream, a fresh conversation
        w.ai.hold_after_first_delta = gate = threading.Event()
        w.tg.send_text(OWNER, "say this is never finished")
        w.wait(lambda: any("this" in d["text"] for d in w.tg.drafts(OWNER)), "a draft")
        w.tg.send_text(OWNER, "/stop")
        w.wait(lambda: "(Stopped.)" in w.tg.texts(OWNER)[-1], "stopped")
        gate.set()
        w.ai.hold_after_first_delta = None
        w.say("/new")
        # the terminal beside it, commands, a new configuration
        s = w.b.shell("--chat", "day", terminal=False)
        s.send("say from the terminal")
        s.eof()
        assert s.wait_exit() == 0 and "from the terminal" in s.text
        assert w.b.cli("status")[0] == 0
        w.b.configure(cost={"daily_budget_usd": 3})
        assert w.b.cli("reload")[0] == 0
        # night: killed in mid-stream, started again
        w.ai.hold_after_first_delta = gate = threading.Event()
        w.tg.send_text(OWNER, "say after the kill")
        w.wait(lambda: any("after" in d["text"] for d in w.tg.drafts(OWNER)), "a draft")
        w.b.kill9()
        gate.set()
        w.ai.hold_after_first_delta = None
        w.b.start()
        w.wait(lambda: w.tg.texts(OWNER)[-1] == "after the kill", "the answer after the kill")
        w.wait(lambda: not w.b.query("SELECT 1 FROM turns WHERE state < 5"), "all done")
        programs(w)


def programs(w):
    """The next morning, through the gateway."""
    first = w.g.say("think tools")
    assert w.g.say("echo history", first["session_id"])["content"] == "You wrote: think tools"
    with w.g.stream("words 300", {"Idempotency-Key": "k"}) as s:
        events = list(s)
    assert text_of(events) == events[-1].data["content"]
    with w.g.events("GET", "/v1/messages/" + events[-1].data["id"], headers={"Last-Event-ID": events[0].id}) as s:
        assert text_of([events[0]] + list(s)) == events[-1].data["content"]
    # somebody who leaves in mid-answer, and one that is stopped
    w.ai.hold_after_first_delta = gate = threading.Event()
    left, stopped = w.g.stream("say left alone"), w.g.stream("say never")
    next(left)
    next(stopped)
    left.connection.close()
    session = w.b.query("SELECT CAST(s.id AS TEXT) FROM sessions s JOIN inbound i ON i.session_id = s.id WHERE i.text = 'say never'")
    assert w.g.ask("POST", "/v1/sessions/%s/stop" % session[0][0]).json() == {"stopped": True}
    gate.set()
    w.ai.hold_after_first_delta = None
    assert "(Stopped.)" in stopped.until("message_stop").data["content"]
    stopped.connection.close()
    # a socket, and one that is cut off
    with Socket(w.g.port, Sec_WebSocket_Extensions="permessage-deflate") as s:
        s.send({"type": "message", "content": "say by socket"})
        assert s.until("done")[-1]["content"] == "by socket"
    # keys and a device
    key, device = w.g.mint("chat", "read"), Device()
    assert len(key.sessions()) == 0
    assert w.g.ask("POST", "/v1/api-keys", {"name": "d", "scopes": ["chat"], "device": device.public.hex()}).status == 201
    body = json.dumps({"content": "say signed"}).encode()
    signed = device.headers("POST", "/v1/messages", body)
    assert [Gateway(w.b).ask("POST", "/v1/messages", body, signed).status for _ in range(2)] == [200, 401]
    assert w.g.ask("DELETE", "/v1/api-keys/%d" % key.made["id"]).status == 200
    assert key.ask("GET", "/v1/sessions").status == 401
    # the rest of the routes; an error; a conversation that is erased
    assert w.g.ask("POST", "/v1/tools/invoke", {"name": "time.now"}).status == 200
    for path in ("/health", "/ready", "/openapi.json", "/metrics", "/v1/health", "/v1/cost", "/v1/tools", "/v1/api-keys"):
        assert w.g.ask("GET", path).status == 200, path
    assert w.g.ask("POST", "/v1/messages", b"{").status == 400
    w.wait(lambda: w.g.ask("DELETE", "/v1/sessions/" + first["session_id"]).status == 204, "erased")


if __name__ == "__main__":
    main(globals())
