# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_shell.py - blufio shell, on a terminal and by pipe, with and without a daemon."""
import os
import re
import signal
import subprocess
import threading
import time

from harness import OWNER, SLOW, Blufio, FakeAnthropic, World, main, wait_for

PROMPT = "you> "


def quiet():
    """A daemon without Telegram traffic matters: only the shell talks."""
    return World()


def rows(w, sql):
    return w.b.query(sql)


def visible(text):
    """What is left on a terminal's lines without control sequences."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return re.sub(r"[\x00-\x08\x0b-\x1f]", "", text.replace("\r", ""))


def answer(text):
    """The text as it comes behind a cleared line: said, not typed."""
    return re.compile(r"\x1b\[K" + re.escape(text).replace("\\\n", r"\r?\n"))


def said(s, line, text):
    s.expect(PROMPT)
    s.send(line)
    s.expect(answer(text))


# ---- by pipe ---------------------------------------------------------------------------------------


def test_pipe_through_the_daemon():
    with quiet() as w:
        code, out, err = w.b.cli("shell", input="say one\n\nsay two\n/help\nsay three")
        assert code == 0, err
        lines = [x for x in out.splitlines() if x]
        assert lines[0:2] == ["one", "two"] and lines[-1] == "three" and "/stop" in out
        assert PROMPT not in out and "\x1b" not in out and "terminal chat" not in out + err
        assert rows(w, "SELECT count(*) FROM turns WHERE state = 5 AND outcome = 1") == [(3,)]
        assert [c for c in w.tg.calls if c["method"].startswith("send")] == []


def test_pipe_without_a_daemon():
    """The same code in the shell's own process, under the database's lock; nothing is left behind."""
    with World(start=False) as w:
        code, out, err = w.b.cli("shell", input="say inside\ntools\n")
        assert code == 0 and out.startswith("inside\n") and "Tool results" in out, (out, err)
        assert "OFFLINE" not in out + err
        assert not os.path.exists(w.b.db_path + ".sock")
        assert not [f for f in os.listdir(w.b.dir) if f.endswith("-wal")]
        code, out, err = w.b.cli("shell", input="echo history\n")
        assert "You wrote: say inside" in out
        w.b.start()                     # the lock is free and the conversation goes on here
        code, out, err = w.b.cli("shell", input="echo history\n")
        assert "say inside" in out and "tools" in out
        assert w.ai.prefix_violations == []


def test_pipe_words_and_end():
    with quiet() as w:
        code, out, err = w.b.cli("shell", input="/quit\nsay never\n")
        assert code == 0 and out == "" and len(w.ai.requests) == 0
        code, out, err = w.b.cli("shell", input="")
        assert (code, out) == (0, "")
        code, out, err = w.b.cli("shell", "--chat", "x" * 65, input="say y\n", timeout=10)
        assert code != 0 or "64 bytes" in err, (code, out, err)


def test_chats_are_apart():
    with quiet() as w:
        w.b.cli("shell", "--chat", "a", input="say alpha\n")
        w.b.cli("shell", "--chat", "b", input="say beta\n")
        out = w.b.cli("shell", "--chat", "a", input="echo history\n")[1]
        assert "alpha" in out and "beta" not in out
        assert w.say("echo history").strip() == "You wrote:"    # nor does Telegram see it


def test_offline_echo():
    """Nothing configured: the echo provider, labelled, in a chat of its own."""
    b = Blufio()
    os.unlink(b.config_path)
    env = {"BLUFIO_CONFIG": None}
    code, out, err = b.cli("shell", input="hello echo\n", env=env)
    assert code == 0 and "hello echo" in out, (out, err)
    assert "OFFLINE" in err and "blufio config set anthropic.api_key" in err
    found = subprocess.run(["find", b.dir, "-name", "blufio.db"], stdout=subprocess.PIPE)
    path = found.stdout.decode().strip()
    b.db_path = path
    assert b.query("SELECT chat FROM sessions") == [("offline",)]
    assert b.query("SELECT coalesce(sum(nano_usd), 0) FROM cost_ledger") == [(0,)]
    with FakeAnthropic() as ai:         # with a key it is a real conversation, and says nothing
        env.update(ANTHROPIC_API_KEY=ai.api_key, BLUFIO__ANTHROPIC__BASE_URL=ai.url)
        code, out, err = b.cli("shell", input="echo history\n", env=env)
        assert code == 0 and out == "You wrote: \n" and "OFFLINE" not in err, (out, err)
        assert ai.unexpected() == []


def test_control_characters_do_not_reach_the_terminal():
    with quiet() as w:
        w.ai.script = ["red \x1b[31mtext\x07 \x9b1m end\x08\x08"]
        out = w.b.cli("shell", input="go\n")[1]
        assert "\x1b" not in out and "\x07" not in out and "\x08" not in out
        assert "red" in out and "text" in out and "end" in out


# ---- on a terminal ----------------------------------------------------------------------------------


def test_terminal_streams():
    with quiet() as w:
        gate = w.ai.hold_after_first_delta = threading.Event()
        w.ai.piece = 6
        s = w.b.shell()
        s.expect("terminal chat")
        s.expect(PROMPT)
        s.send("say first second third")
        s.expect(answer("first "))      # the beginning while the rest is held back
        time.sleep(0.2)                 # would it come, it had come by now
        assert s.text[s.seen:] == ""
        gate.set()
        s.expect("second third")
        s.expect(PROMPT)
        assert s.text[s.seen:].count("third") == 0      # streamed, not said again
        s.send("/quit")
        assert s.wait_exit() == 0


def test_terminal_tools_are_shown():
    with quiet() as w:
        s = w.b.shell()
        said(s, "tools", "Let me look.")
        s.expect("[time_now]")
        s.expect("Tool results")
        s.expect(PROMPT)
        s.eof()
        assert s.wait_exit() == 0


def test_ctrl_c_stops_the_answer():
    with quiet() as w:
        w.ai.hold_after_first_delta = gate = threading.Event()
        w.ai.piece = 8
        s = w.b.shell()
        said(s, "say patience is over", "patience")
        begin = time.monotonic()
        s.interrupt()
        s.expect("(Stopped.)")
        assert time.monotonic() - begin < 2 * SLOW
        gate.set()
        w.ai.hold_after_first_delta = None
        said(s, "say go on", "go on")
        s.expect(PROMPT)
        s.interrupt()                   # nothing runs and nothing is typed: it leaves
        assert s.wait_exit() == 0
        assert [r[0] for r in rows(w, "SELECT outcome FROM turns ORDER BY id")] == [2, 1]


def test_ctrl_c_discards_a_line():
    with quiet() as w:
        s = w.b.shell()
        s.expect(PROMPT)
        s.write("say discarded")
        s.expect("discarded")
        s.interrupt()
        s.expect(PROMPT)
        s.send("say kept")
        s.expect(answer("kept"))
        s.expect(PROMPT)
        s.eof()
        assert s.wait_exit() == 0
        assert len(w.ai.requests) == 1


def test_ctrl_d_and_hangup():
    with quiet() as w:
        s = w.b.shell()
        s.expect(PROMPT)
        s.eof()
        assert s.wait_exit() == 0
        s = w.b.shell()
        s.expect(PROMPT)
        s.process.send_signal(signal.SIGTERM)
        assert s.wait_exit() == 0
        w.ai.piece = 1
        w.ai.hold_after_first_delta = gate = threading.Event()
        s = w.b.shell()
        s.expect(PROMPT)
        s.send("say interrupted by leaving")
        w.wait(lambda: len(w.ai.requests) == 1, "the question")
        s.expect(re.compile("\x1b\\[Ki"))
        s.process.send_signal(signal.SIGTERM)
        assert s.wait_exit() == 0
        gate.set()
        w.wait(lambda: rows(w, "SELECT 1 FROM turns WHERE state = 5"), "the turn's end")


def test_terminal_is_given_back():
    import termios
    with quiet() as w:
        s = w.b.shell()
        before = None
        s.expect(PROMPT)
        raw = termios.tcgetattr(s.fd)
        assert not raw[3] & termios.ICANON
        s.send("/quit")
        wait_for(lambda: s.process.poll() is not None, what="the end")
        before = termios.tcgetattr(s.fd)
        assert before[3] & termios.ICANON and before[3] & termios.ECHO
        assert s.wait_exit() == 0


def test_editing_unicode():
    with quiet() as w:
        s = w.b.shell()
        s.expect(PROMPT)
        # wide, combined and astral characters: each backspace takes one whole character
        s.write("say a\u6f22\U0001f30d\u00e9")
        s.write("\x7f\x7f")                             # é and the globe
        s.write("\x1b[D\x1b[D" + "X" + "\x05" + "Y")    # left twice, X, end of line, Y
        s.write("\x15say Xa\u6f22Y\x01\x06\x06\x06\x06\x0b" + "Z\u6f22\r")   # kill all, and the tail
        w.wait(lambda: w.ai.requests, "the question")
        asked = w.ai.requests[0]["body"]["messages"][-1]["content"][-1]["text"]
        assert asked == "say Z\u6f22", asked
        s.expect(answer("Z\u6f22"))
        s.expect(PROMPT)
        s.send("/quit")
        assert s.wait_exit() == 0


def test_paste_of_many_lines_is_one_message():
    with quiet() as w:
        s = w.b.shell()
        s.expect(PROMPT)
        s.write("\x1b[200~say line one\nline two\x1b[201~\r")
        w.wait(lambda: w.ai.requests, "the question")
        asked = w.ai.requests[0]["body"]["messages"][-1]["content"][-1]["text"]
        assert asked == "say line one\nline two", asked
        s.expect(answer("line one\nline two"))
        s.expect(PROMPT)
        s.eof()
        assert s.wait_exit() == 0


def test_history():
    with quiet() as w:
        s = w.b.shell()
        said(s, "say older", "older")
        said(s, "say newer", "newer")
        s.expect(PROMPT)
        s.send("/quit")
        assert s.wait_exit() == 0
        history = w.b.db_path + ".history"
        assert os.stat(history).st_mode & 0o777 == 0o600
        s = w.b.shell()
        s.expect(PROMPT)
        s.write("\x1b[A\x1b[A\x1b[A")                   # /quit, newer, older
        s.write("\r")
        w.wait(lambda: len(w.ai.requests) == 3, "the third question")
        asked = w.ai.requests[2]["body"]["messages"][-1]["content"][-1]["text"]
        assert asked == "say older", asked
        s.expect(answer("older"))
        s.expect(PROMPT)
        s.eof()
        assert s.wait_exit() == 0


# ---- shells come and go ---------------------------------------------------------------------------------


def test_reply_waits_for_the_next_shell():
    """Killed in mid-answer: the answer is kept, and shown once."""
    with quiet() as w:
        w.ai.piece = 1
        w.ai.hold_after_first_delta = gate = threading.Event()
        s = w.b.shell()
        said(s, "say kept for later", "k")
        w.wait(lambda: w.ai.requests and w.ai.requests[0]["status"] == 200, "the question")
        s.process.kill()
        s.process.wait()
        gate.set()
        w.ai.hold_after_first_delta = None
        w.wait(lambda: rows(w, "SELECT 1 FROM outbox WHERE state = 0 AND why = 'nobody is there'"),
               "the parked answer")
        s = w.b.shell()
        s.expect(answer("kept for later"))
        s.expect(PROMPT)
        s.send("say more")
        s.expect(answer("more"))
        s.expect(PROMPT)
        s.eof()
        assert s.wait_exit() == 0
        assert visible(s.text).count("kept for later") == 1
        w.wait(lambda: rows(w, "SELECT state FROM outbox") == [(2,), (2,)], "both delivered")
        out = w.b.cli("shell", input="say last\n")[1]
        assert out == "last\n", out


def test_parked_reply_survives_the_daemon():
    with quiet() as w:
        w.ai.hold_after_first_delta = gate = threading.Event()
        s = w.b.shell(terminal=False)
        s.send("say after the restart")
        w.wait(lambda: w.ai.requests and w.ai.requests[0]["status"] == 200, "the question")
        s.process.kill()
        s.process.wait()
        gate.set()
        w.wait(lambda: rows(w, "SELECT 1 FROM outbox WHERE state = 0"), "the parked answer")
        w.b.restart(hard=True)
        s = w.b.shell()
        s.expect("after the restart")
        s.expect(PROMPT)
        s.eof()
        assert s.wait_exit() == 0
        w.wait(lambda: rows(w, "SELECT state FROM outbox") == [(2,)], "delivered")


def test_daemon_dies_under_a_shell():
    with quiet() as w:
        w.ai.piece = 1
        w.ai.hold_after_first_delta = gate = threading.Event()
        s = w.b.shell()
        said(s, "say resumed", "r")
        w.wait(lambda: w.ai.requests and w.ai.requests[0]["status"] == 200, "the question")
        w.b.kill9()
        s.expect("the daemon went away")
        s.expect("`blufio status`")
        assert s.wait_exit() == 74
        gate.set()
        w.b.start()
        s = w.b.shell()
        s.expect("resumed")
        s.expect(PROMPT)
        s.eof()
        assert s.wait_exit() == 0


def test_two_shells():
    with quiet() as w:
        one, two = w.b.shell("--chat", "one"), w.b.shell("--chat", "two")
        w.ai.piece = 1
        w.ai.hold_after_first_delta = gate = threading.Event()
        said(one, "say to the first", "t")
        said(two, "say to the second", "t")
        w.wait(lambda: len(w.ai.requests) == 2, "both asked at once")
        gate.set()
        one.expect("o the first")
        two.expect("o the second")
        assert "second" not in one.text and "to the first" not in two.text
        for s in (one, two):
            s.expect(PROMPT)
            s.eof()
            assert s.wait_exit() == 0


def test_two_shells_of_one_chat():
    """Both see the answer grow; it is delivered once, and neither hangs."""
    with quiet() as w:
        one, two = w.b.shell(), w.b.shell()
        one.expect(PROMPT)
        two.expect(PROMPT)
        one.send("say shared words")
        w.wait(lambda: rows(w, "SELECT 1 FROM outbox WHERE state = 2"), "the delivery")
        for s in (one, two):
            s.eof()
        for s in (one, two):
            s.wait_exit()
        assert "shared words" in visible(two.text)
        assert w.b.cli("shell", input="say next\n")[1] == "next\n"


def test_shell_beside_a_locked_database():
    """Two shells without a daemon: the second says who holds the database."""
    with World(start=False) as w:
        s = w.b.shell()
        s.expect(PROMPT)
        code, out, err = w.b.cli("shell", input="say x\n")
        assert code == 74 and "in use" in err and "`blufio s" in err, (code, err)
        s.send("say mine")
        s.expect(answer("mine"))
        s.expect(PROMPT)
        s.eof()
        assert s.wait_exit() == 0


def test_big_answer():
    """Half a megabyte through one line: all of it, once."""
    with World({"anthropic": {"max_tokens": 128000}, "cost": {"daily_budget_usd": 50}}) as w:
        w.ai.piece = 4000
        text = " ".join("word%d" % i for i in range(45000))
        w.ai.script = [text]
        s = w.b.shell(terminal=False)
        s.send("go")
        s.eof()
        assert s.wait_exit(60) == 0
        assert s.text.split() == text.split()


if __name__ == "__main__":
    main(globals())
