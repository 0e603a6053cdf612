# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_day.py - one day in the life of the daemon, everything once; run under valgrind too."""
import re
import threading

from harness import OWNER, World, main


def test_a_day():
    with World({"telegram": {"allowed_users": [OWNER, 1002]}, "agent": {"max_sessions": 2}}) as w:
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


if __name__ == "__main__":
    main(globals())
