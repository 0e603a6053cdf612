# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_review.py - defects that a review found, each once more from outside."""
import os
import subprocess
import threading

from harness import OWNER, World, main

STREAM, DONE, ANSWERED, SET_ASIDE = 2, 5, 1, 6


def states(w):
    return [r[0] for r in w.b.query("SELECT state FROM turns ORDER BY id")]


def test_innocent_message_is_not_set_aside():
    """Two messages see two deaths; the third start runs the first alone: only that one is blamed."""
    with World({"telegram": {"allowed_users": [OWNER, 1002]}}) as w:
        w.tg.add_chat(1002)
        w.ai.hold_after_first_delta = gate = threading.Event()
        w.tg.send_text(OWNER, "say poison")
        w.wait(lambda: len(w.ai.requests) == 1, "the first is asked")
        w.tg.send_text(1002, "say innocent")
        w.wait(lambda: len(w.ai.requests) == 2, "the second is asked")
        for n in (4, 5):
            w.b.kill9()
            w.b.start()
            w.wait(lambda: len(w.ai.requests) >= n, "asked again")
        w.b.wait_log("CALL -> STREAM")
        w.b.kill9()
        w.ai.hold_after_first_delta = None
        gate.set()
        w.b.start()
        w.wait(lambda: states(w) == [DONE, DONE], "both over")
        assert w.b.query("SELECT outcome FROM turns ORDER BY id") == [(SET_ASIDE,), (ANSWERED,)]
        assert w.tg.texts(1002)[-1] == "innocent" and "aside" in w.tg.texts(OWNER)[-1]
        assert not any("repeat" in t for t in w.tg.texts(OWNER))


def test_more_places_wake_all_who_wait():
    users = [OWNER, 1002, 1003, 1004]
    with World({"agent": {"max_sessions": 1}, "telegram": {"allowed_users": users}}) as w:
        w.ai.hold_after_first_delta = gate = threading.Event()
        for n, u in enumerate(users):
            w.tg.add_chat(u)
            w.tg.send_text(u, "say u%d" % u)
            w.wait(lambda: len(states(w)) == n + 1, "stored")
        w.wait(lambda: len(w.ai.requests) == 1, "one is asked")
        w.b.configure(agent={"max_sessions": 4})
        assert w.b.cli("reload")[0] == 0
        w.wait(lambda: len(w.ai.requests) == 4, "all are asked")
        gate.set()
        w.wait(lambda: states(w) == [DONE] * 4, "all over")


def test_too_many_tool_calls_end():
    """33 calls in one answer, or a huge input: answered once, not asked for ever."""
    with World() as w:
        call = {"type": "tool_use", "name": "time_now", "input": {}}
        w.ai.script = [{"blocks": [dict(call) for _ in range(33)], "stop_reason": "tool_use"}, "enough"]
        assert w.say("go") == "enough"
        big = {"type": "tool_use", "name": "text_count", "input": {"text": "x", "a": [1] * 8000}}
        w.ai.script = [{"blocks": [big], "stop_reason": "tool_use"}, "fine"]
        assert w.say("go") == "fine"
        assert len(w.ai.requests) == 4


def test_terminal_reads_a_file_to_its_end():
    with World() as w:
        path = os.path.join(w.b.dir, "lines.txt")
        with open(path, "w") as f:
            f.write("".join("say line %d of a file that is longer than one read %s\n" % (i, "x" * 80) for i in range(200)))
            f.write("say the last one without an end")
        with open(path) as f:
            done = subprocess.run(w.b.command("shell", "--chat", "f"), cwd=w.b.dir, env=w.b.environment(), stdin=f,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
        lines = done.stdout.decode().splitlines()
        assert done.returncode == 0 and len(lines) == 201 and lines[-1] == "the last one without an end", lines[-2:]


def test_terminal_refuses_a_long_line_whole():
    with World() as w:
        rc, out, err = w.b.cli("shell", input="x" * 1500000 + "\nsay after it\n")
        assert out == "after it\n" and "at most" in err and len(w.ai.requests) == 1


def test_pipe_prints_its_own_answer():
    """An answer that waits for a terminal is told apart from the answer to this question."""
    with World() as w:
        w.ai.hold_after_first_delta = gate = threading.Event()
        s = w.b.shell(terminal=False)
        s.send("say for nobody")
        w.wait(lambda: w.ai.requests, "asked")
        s.process.kill()
        s.process.wait()
        gate.set()
        w.ai.hold_after_first_delta = None
        w.wait(lambda: w.b.query("SELECT 1 FROM outbox WHERE why = 'nobody is there'"), "parked")
        for word in ("second", "third"):
            rc, out, err = w.b.cli("shell", input="say %s\n" % word)
            assert rc == 0 and out == word + "\n", (out, err)
            assert ("for nobody" in err) == (word == "second")


def test_control_characters_do_not_reach_the_terminal():
    with World() as w:
        w.ai.script = [{"blocks": [{"type": "text", "text": "a\x1b[2Jb\x9b2Jc\x9d0;owned\x9cd\x07"}]}]
        rc, out, _ = w.b.cli("shell", input="x\n")
        assert rc == 0 and out == "a[2Jb2Jc0;ownedd\n", repr(out)


if __name__ == "__main__":
    main(globals())
