# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_telegram.py - every kind of Telegram message has a stated outcome; files from Telegram to Claude;
albums, buttons, groups that move, long rich replies."""
import base64
import json
import os
import re
import struct
import time
import zlib

import fake_telegram
from fake_anthropic import default_answer
from harness import OWNER, World, main

DONE = 5
GROUP = -1001234567890


def png(width=40, height=30):
    """A picture of one colour."""
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    rows = (b"\0" + b"\x80" * (width * 3)) * height
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def pdf(n=1000):
    return b"%PDF-1.4\n" + os.urandom(n) + b"\n%%EOF\n"


def give(w, content, user=OWNER, **more):
    """A message of any kind."""
    w.tg.add_chat(user)
    message = w.tg.user_message(user, **content, **more)
    w.tg.push_update({"message": message})
    return message


def photo(w, data, caption=None, **more):
    fid = w.tg.add_file(data, "p%d.png" % len(w.tg.files))
    content = {"photo": [{"file_id": "small" + fid, "file_unique_id": "s", "width": 90, "height": 60, "file_size": 100},
                         {"file_id": fid, "file_unique_id": "u", "width": 800, "height": 600, "file_size": len(data)},
                         {"file_id": "huge" + fid, "file_unique_id": "h", "width": 2560, "height": 1920,
                          "file_size": 9000000}]}
    if caption:
        content["caption"] = caption
    return dict(content, **more)


def document(w, data, name, caption=None, mime="application/octet-stream", **more):
    fid = w.tg.add_file(data, name)
    content = {"document": {"file_id": fid, "file_unique_id": "u", "file_name": name, "mime_type": mime,
                            "file_size": len(data)}}
    if caption:
        content["caption"] = caption
    return dict(content, **more)


def voice(w, data=b"OggS" + b"\0" * 100, **more):
    fid = w.tg.add_file(data, "v%d.oga" % len(w.tg.files))
    return dict({"voice": {"file_id": fid, "file_unique_id": "u", "duration": 3, "mime_type": "audio/ogg",
                           "file_size": len(data)}}, **more)


def answer(w, content, **more):
    n = len(w.tg.texts(OWNER))
    give(w, content, **more)
    w.wait(lambda: len(w.tg.texts(OWNER)) > n, "an answer")
    return w.tg.texts(OWNER)[-1]


def newest(w):
    """Blocks of the newest user message that the model was asked."""
    return w.ai.requests[-1]["body"]["messages"][-1]["content"]


def files(w):
    folder = w.b.db_path + ".media"
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


# ---- files ------------------------------------------------------------------------------------------


def test_a_photo_is_seen():
    with World() as w:
        data = png()
        answer(w, photo(w, data, "what is this?"))
        image, text = newest(w)
        assert image["source"]["media_type"] == "image/png"
        assert base64.b64decode(image["source"]["data"]) == data
        assert text["text"] == "what is this?"
        assert len(files(w)) == 1 and len(files(w)[0]) == 64
        w.say("say and again")                  # byte for byte as it was sent
        assert w.ai.requests[-1]["body"]["messages"][0]["content"][0] == image


def test_documents():
    with World() as w:
        data = pdf()
        answer(w, document(w, data, "a b\".pdf", "read it"))
        block = newest(w)[0]
        assert block["type"] == "document" and block["title"] == "a b\".pdf"
        assert base64.b64decode(block["source"]["data"]) == data
        answer(w, document(w, "Grüße\t\"x\"\n".encode(), "notes.md"))
        block = newest(w)[0]
        assert block["source"] == {"type": "text", "media_type": "text/plain", "data": "Grüße\t\"x\"\n"}
        # what it is decides, not what it is called
        answer(w, document(w, png(), "x.exe"))
        assert newest(w)[0]["type"] == "image"
        n = len(w.ai.requests)
        told = answer(w, document(w, b"PK\3\4\0\0", "x.zip"))
        assert "\"x.zip\" could not be read: it is neither a picture" in told and len(w.ai.requests) == n
        answer(w, document(w, b"PK\3\4\0\0", "y.zip", "and this?"))     # the words are answered
        assert "y.zip" in newest(w)[0]["text"] and newest(w)[0]["text"].endswith("and this?")


ROOM = {"context": {"budget": 900000}, "cost": {"daily_budget_usd": 20, "monthly_budget_usd": 20}}


def test_too_large():
    with World(ROOM) as w:
        content = document(w, b"x", "big.bin")
        content["document"]["file_size"] = 21 << 20
        assert "20 MB at most" in answer(w, content)
        # what was announced was not true
        content = document(w, b"x", "liar.txt")
        list(w.tg.files.values())[-1]["size"] = 30 << 20
        w.tg.expect_refusal("file is too big")
        assert "20 MB at most" in answer(w, content)
        # as much as Telegram hands out, without holding it
        data = pdf((20 << 20) - 100)
        peak = peak_kb(w)
        answer(w, document(w, data, "big.pdf"))
        assert len(base64.b64decode(newest(w)[0]["source"]["data"])) == len(data)
        if os.environ.get("E2E_MEMORY") != "0":         # a sanitizer's memory is its own affair
            assert peak_kb(w) - peak <= 1024, (peak, peak_kb(w))


def peak_kb(w):
    with open("/proc/%d/status" % w.b.pid, encoding="ascii") as f:
        return int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1))


def test_downloads_that_fail():
    with World() as w:
        for kind in ("500", "429", "reset", "half_json"):
            w.tg.fail_next("getFile", kind, retry_after=1)
            answer(w, photo(w, png(), "after " + kind))
            assert newest(w)[0]["type"] == "image", kind
        content = document(w, b"gone", "gone.txt")
        content["document"]["file_id"] = "unknown"
        w.tg.expect_refusal("invalid file_id")
        assert "invalid file_id" in answer(w, content)


def test_killed_while_it_comes():
    with World() as w:
        w.tg.fail_next("getFile", "hang")
        give(w, photo(w, png(), "still there?"))
        w.wait(lambda: w.tg.called("getFile"), "asked for the file")
        w.b.kill9()
        w.b.start()
        w.wait(lambda: w.b.query("SELECT state FROM turns") == [(DONE,)], "answered")
        assert [x["type"] for x in newest(w)] == ["image", "text"]
        assert not [f for f in files(w) if len(f) != 64]


def test_deaths_while_it_waits_for_its_file():
    """Nothing works on this message when the daemon dies: it is not to blame."""
    with World() as w:
        w.tg.fail_next("getFile", "429", retry_after=5)
        give(w, photo(w, png(), "innocent"))
        w.wait(lambda: w.b.query("SELECT attempts FROM attachments") == [(1,)], "tried")
        for _ in range(3):
            w.b.kill9()
            w.b.start()
        assert w.b.query("SELECT deaths FROM turns") == [(0,)]
        w.wait(lambda: w.b.query("SELECT state FROM turns") == [(DONE,)], "answered")
        assert newest(w)[0]["type"] == "image"


def test_local_server():
    with World() as w:
        path = os.path.join(w.b.dir, "local.png")
        with open(path, "wb") as f:
            f.write(png(50, 50))
        content = photo(w, b"unused", "here")
        list(w.tg.files.values())[-1]["path"] = path
        answer(w, content)
        assert base64.b64decode(newest(w)[0]["source"]["data"]) == png(50, 50)
        content = photo(w, b"unused")
        list(w.tg.files.values())[-1]["path"] = "/etc/../etc/hostname"
        assert "could not be read" in answer(w, content)


# ---- albums -----------------------------------------------------------------------------------------


def test_album_is_one_message():
    with World() as w:
        for i in range(4):
            give(w, photo(w, png(40 + i, 30), "four" if i == 0 else None, media_group_id="77"))
        w.wait(lambda: w.b.query("SELECT state FROM turns") == [(DONE,)], "answered")
        assert [b["type"] for b in newest(w)] == ["image"] * 4 + ["text"]
        assert len(w.ai.requests) == 1 and len(w.tg.texts(OWNER)) == 1
        sizes = [struct.unpack(">I", base64.b64decode(b["source"]["data"])[16:20])[0] for b in newest(w)[:4]]
        assert sizes == [40, 41, 42, 43]


def test_album_killed_in_the_middle():
    with World() as w:
        for i in range(2):
            give(w, photo(w, png(40 + i, 30), media_group_id="78"))
        w.wait(lambda: w.b.query("SELECT count(*) FROM attachments") == [(2,)], "stored")
        w.b.kill9()
        give(w, photo(w, png(60, 30), "three", media_group_id="78"))
        w.b.start()
        w.wait(lambda: w.b.query("SELECT count(*) FROM turns WHERE state = 5") > [(0,)] and w.settled(), "answered")
        seen = [b["type"] for r in w.ai.requests[-1:] for m in r["body"]["messages"] if m["role"] == "user"
                for b in m["content"]]
        assert seen.count("image") == 3, seen


def test_album_in_a_group():
    with World() as w:
        w.tg.add_chat(GROUP, "supergroup")
        for i in range(3):
            give(w, photo(w, png(40 + i, 30), "@blufio_test_bot what?" if i == 0 else None, media_group_id="79"),
                 chat_id=GROUP, chat_type="supergroup")
        give(w, photo(w, png(), "not for the bot", media_group_id="80"), chat_id=GROUP, chat_type="supergroup")
        w.wait(lambda: w.tg.texts(GROUP), "the answer")
        w.wait(w.settled, "quiet")
        assert [b["type"] for b in newest(w)] == ["image"] * 3 + ["text"] and len(w.ai.requests) == 1
        assert newest(w)[-1]["text"] == "what?"


# ---- voice --------------------------------------------------------------------------------------------


def test_voice():
    with World() as w:
        assert "transcribe_command" in answer(w, voice(w)) and w.ai.requests == []
    script = "test \"$(head -c 4 \"$0\")\" = OggS && echo '  good morning '"
    for argv in (["/bin/sh", "-c", script, "{file}"],
                 ["/bin/sh", "-c", "test \"$(head -c 4)\" = OggS && echo good morning"]):
        with World({"telegram": {"transcribe_command": argv}}) as w:
            answer(w, voice(w))
            assert newest(w)[0]["text"].endswith("\ngood morning"), newest(w)
            fds = "/proc/%d/fd/" % w.b.pid
            assert not [n for n in os.listdir(fds) if ".media/" in os.readlink(fds + n)], "a recording is still open"
    with World({"telegram": {"transcribe_command": ["/bin/sh", "-c", "echo no model >&2; exit 3"]}}) as w:
        assert "transcription command failed (exit status not 0: no model)" in answer(w, voice(w))
        w.b.configure(telegram={"transcribe_command": ["/bin/true"]})
        assert w.b.cli("reload")[0] == 0
        assert "nothing could be understood" in answer(w, voice(w))


def test_killed_while_it_listens():
    with World({"telegram": {"transcribe_command": ["/bin/sh", "-c", "test -e go || sleep 60; echo heard", "x"]}}) as w:
        give(w, voice(w))
        w.wait(lambda: w.b.query("SELECT hash <> '' FROM attachments") == [(1,)], "it is here")
        w.b.kill9()
        w.b.configure(telegram={"transcribe_command": ["/bin/echo", "heard"]})
        w.b.start()
        w.wait(lambda: w.b.query("SELECT state FROM turns") == [(DONE,)], "answered")
        assert newest(w)[0]["text"].endswith("heard")
        assert len(w.tg.called("getFile")) == 1


# ---- what is neither text nor file -----------------------------------------------------------------------


def test_things_become_words():
    things = [
        ({"sticker": {"file_id": "s", "emoji": "😀", "type": "regular"}}, "(sent a sticker: 😀)"),
        ({"location": {"latitude": 52.5, "longitude": 13.4}}, "(sent a location: 52.5, 13.4)"),
        ({"venue": {"title": "Café", "address": "Main St 1", "location": {"latitude": 1.5, "longitude": 2}},
          "location": {"latitude": 1.5, "longitude": 2}}, "(sent a place: Café, Main St 1, 1.5, 2)"),
        ({"contact": {"first_name": "Ben", "last_name": "X", "phone_number": "+491"}}, "(sent a contact: Ben X, +491)"),
        ({"poll": {"id": "1", "question": "Tea?", "options": [{"text": "yes"}, {"text": "no"}]}},
         "(sent a poll: Tea?; yes, no)"),
        ({"dice": {"emoji": "🎲", "value": 5}}, "(threw 🎲: 5)"),
        ({"text": "read\nthis", "forward_origin": {"type": "user", "sender_user": {"id": 5, "first_name": "Cat\nX"}}},
         "(forwarded from Cat X:)\nread\nthis"),
        ({"text": "why?", "quote": {"text": "because\nof", "position": 0}}, "(in reply to: \"because of\")\nwhy?"),
        ({"rich_message": {"blocks": [
            {"type": "paragraph", "text": ["a ", {"type": "bold", "text": "b"}]},
            {"type": "list", "items": [{"blocks": [{"type": "paragraph", "text": "one"}]},
                                       {"blocks": [{"type": "paragraph", "text": "two"}]}]},
            {"type": "preformatted", "text": "x = 1", "language": "python"},
            {"type": "never_heard_of", "text": "still read"}]}},
         "a b\n- one\n- two\n```\nx = 1\n```\nstill read"),
    ]
    with World() as w:
        for content, text in things:
            answer(w, content)
            assert newest(w)[-1]["text"] == text, newest(w)


def test_what_cannot_be_read_is_said():
    with World() as w:
        assert answer(w, {"video": {"file_id": "v", "duration": 1}}) == "I cannot watch videos."
        assert "cannot read that kind" in answer(w, {"story": {"id": 1}})
        n = len(w.tg.texts(OWNER))
        give(w, {"video": {"file_id": "v"}, "caption": "my cat"})       # told, and the words are answered
        w.wait(lambda: len(w.tg.texts(OWNER)) == n + 2, "both")
        assert newest(w)[-1]["text"] == "my cat"
        n = len(w.tg.texts(OWNER))
        for i in range(3):
            give(w, {"video": {"file_id": "v%d" % i}, "media_group_id": "5"})
        give(w, {"pinned_message": {"message_id": 1, "date": 0, "chat": {"id": OWNER, "type": "private"}}})
        w.say("say done")
        assert len(w.tg.texts(OWNER)) == n + 2          # one notice for an album, none for service messages


# ---- buttons, groups that move, long replies ----------------------------------------------------------------


def test_buttons():
    with World() as w:
        w.say("/model")
        shown = w.tg.messages(OWNER)[-1]
        keys = shown["reply_markup"]["inline_keyboard"]
        data = [b["callback_data"] for row in keys for b in row]
        assert "/model claude-opus-5-5" in data
        n = len(w.tg.texts(OWNER))
        query = w.tg.press(OWNER, OWNER, shown["message_id"], "/model claude-opus-5-5")
        w.wait(lambda: len(w.tg.texts(OWNER)) > n, "the answer")
        assert "claude-opus-5-5" in w.tg.texts(OWNER)[-1]
        w.wait(lambda: w.tg.callbacks[query], "the press is answered")
        # anybody can press, only some are heard; a word of ours begins with a slash
        w.tg.add_chat(6666)
        query = w.tg.press(6666, OWNER, shown["message_id"], "/model default")
        w.wait(lambda: w.tg.callbacks[query], "answered")
        assert "not for you" in w.tg.callbacks[query]["text"]
        query = w.tg.press(OWNER, OWNER, shown["message_id"], "no command")
        w.wait(lambda: w.tg.callbacks[query], "answered")
        w.wait(w.settled, "quiet")
        assert w.b.query("SELECT model FROM sessions") == [("claude-opus-5-5",)]
        w.tg.fail_next("answerCallbackQuery", "400")
        w.tg.press(OWNER, OWNER, shown["message_id"], "/model default")
        w.wait(lambda: w.b.query("SELECT model FROM sessions") == [("",)], "done all the same")


def test_a_group_moves():
    new = -1009876543210
    with World() as w:
        w.tg.add_chat(-555, "group")
        w.tg.fail_next("sendRichMessage", "drip", every=0.002)          # it moves before what it was sent is confirmed
        w.tg.send_text(OWNER, "@blufio_test_bot say one", chat_id=-555, chat_type="group")
        w.wait(lambda: w.tg.texts(-555), "the answer")
        w.tg.add_chat(new, "supergroup")
        w.tg.push_update({"message": {"message_id": 900, "date": int(time.time()), "migrate_to_chat_id": new,
                                      "chat": {"id": -555, "type": "group"}, "from": {"id": OWNER, "is_bot": False,
                                                                                      "first_name": "Ann"}}})
        w.tg.send_text(OWNER, "@blufio_test_bot say two", chat_id=new, chat_type="supergroup")
        w.wait(lambda: w.tg.texts(new), "the answer in the new chat")
        assert (w.tg.texts(-555), w.tg.texts(new)) == (["one"], ["two"])
        assert w.b.query("SELECT chat FROM sessions") == [(str(new),)]
        assert len(w.ai.requests[-1]["body"]["messages"]) == 3          # the history went with it


def test_a_group_moves_while_the_model_answers():
    """The reply goes to the new chat as what it is: one that was certainly not delivered before."""
    new = -1009876543210
    with World() as w:
        w.tg.add_chat(-555, "group")
        w.ai.script = lambda ask: time.sleep(1) or default_answer(ask)
        w.tg.expect_refusal("upgraded to a supergroup")
        w.tg.send_text(OWNER, "@blufio_test_bot say one", chat_id=-555, chat_type="group")
        w.wait(lambda: w.ai.requests, "asked")
        with w.tg.lock:
            w.tg.add_chat(new, "supergroup")
            w.tg.chats[-555]["migrated"] = new
        w.wait(lambda: w.tg.texts(new), "the answer")
        assert w.tg.texts(new) == ["one"], w.tg.texts(new)


def test_notices_are_said_once():
    """The batch that holds a refused message comes again, after a reload and after a death."""
    with World() as w:
        w.tg.add_chat(-555, "group")
        w.tg.send_text(OWNER, "@blufio_test_bot say one", chat_id=-555, chat_type="group")
        w.wait(lambda: w.tg.texts(-555), "the answer")
        w.tg.add_chat(-1009876543210, "supergroup")
        with w.tg.cond:
            give(w, {"video": {"file_id": "v"}})
            w.tg.push_update({"message": {"message_id": 900, "date": int(time.time()), "migrate_to_chat_id": -1009876543210,
                                          "chat": {"id": -555, "type": "group"},
                                          "from": {"id": OWNER, "is_bot": False, "first_name": "Ann"}}})
        w.wait(lambda: w.tg.texts(OWNER), "the notice")
        assert w.say("say two") == "two"
        assert sum("I cannot watch videos." in t for t in w.tg.texts(OWNER)) == 1, w.tg.texts(OWNER)


def test_an_old_button_changes_nothing():
    """Of an old message Telegram does not say in which topic it is."""
    with World() as w:
        w.tg.add_chat(-1001234567890, "supergroup", is_forum=True, threads=[7])
        where = {"chat_id": -1001234567890, "chat_type": "supergroup", "thread": 7}
        w.say("/model", **where)
        shown = w.tg.messages(-1001234567890)[-1]["message_id"]
        query = w.tg.press(OWNER, -1001234567890, shown, "/model claude-opus-5-5", thread=7, accessible=False)
        w.wait(lambda: w.tg.callbacks[query] is not None, "answered")
        assert "too old" in w.tg.callbacks[query]["text"]
        w.tg.press(OWNER, -1001234567890, shown, "/model claude-opus-5-5", thread=7)
        w.wait(lambda: w.b.query("SELECT thread, model FROM sessions") == [("7", "claude-opus-5-5")], "this one does")


def test_a_later_part_that_is_refused():
    """What is not taken as a rich message goes as another kind, behind the parts that are there."""
    with World() as w:
        text = "\n\n".join("paragraph %d %s" % (i, "x" * 60) for i in range(700))
        rich = w.tg.rich_content

        def refuse(p, draft=False):
            if "paragraph 500 " in rich(p, draft)[1]:
                raise fake_telegram.bad("can't parse rich message: tag")
            return rich(p, draft)
        w.tg.rich_content = refuse
        w.tg.expect_refusal("can't parse rich message")
        w.ai.script = lambda ask: text
        w.tg.send_text(OWNER, "long")
        w.wait(lambda: w.b.query("SELECT state FROM turns") == [(DONE,)], "delivered")
        sent = w.tg.messages(OWNER)
        assert [bool(m["rich"]) for m in sent[:2]] == [True, False] and not any(m["rich"] for m in sent[1:])
        said = "\n".join(m["text"] for m in sent)
        assert re.findall(r"paragraph (\d+) ", said) == [str(i) for i in range(700)]


def test_long_rich_reply_is_several():
    with World() as w:
        text = "\n\n".join("paragraph %d %s" % (i, "x" * 60) for i in range(700))
        w.ai.script = lambda ask: text
        w.tg.send_text(OWNER, "long")
        w.wait(lambda: w.b.query("SELECT state FROM turns") == [(DONE,)], "delivered")
        sent = w.tg.messages(OWNER)
        assert len(sent) > 1 and all(m["rich"] for m in sent)
        said = "\n".join(m["text"] for m in sent)
        assert all("paragraph %d " % i in said for i in range(700))
        table = "|" + "a|" * 25 + "\n|" + "-|" * 25 + "\n|" + "b|" * 25
        w.ai.script = lambda ask: "wide:\n\n" + table + "\n\nend"
        n = len(w.tg.messages(OWNER))
        w.tg.send_text(OWNER, "wide")
        w.wait(lambda: len(w.tg.messages(OWNER)) > n, "delivered")
        assert w.tg.messages(OWNER)[-1]["rich"] and "````" in w.tg.messages(OWNER)[-1]["text"]


# ---- room ------------------------------------------------------------------------------------------------------


def changed(w):
    """A file that went took the cache with it, once. (Where it stood first, the watch takes what is left for a new history.)"""
    assert ["no longer stored" in v for v in w.ai.prefix_violations + w.ai.watch.fresh] == [True]
    w.ai.prefix_violations.clear()


def test_quota():
    with World({"storage": {"media_quota": 1}} | ROOM) as w:
        for i in range(3):
            answer(w, document(w, (b"%d" % i) * 400000, "f%d.txt" % i))
        assert len(files(w)) == 2
        first = w.ai.requests[-1]["body"]["messages"][0]["content"][0]
        assert first["text"] == "(A document was here; it is no longer stored.)"
        assert w.b.query("SELECT count(*), sum(gone) FROM media") == [(3, 1)]
        changed(w)


def test_the_database_alone():
    """Restored without its folder it works; what is missing is said to the model."""
    with World() as w:
        w.ai.think = True
        answer(w, photo(w, png(), "look"))
        w.b.stop()
        for f in files(w):
            os.remove(os.path.join(w.b.db_path + ".media", f))
        w.b.start()
        w.say("say and now")
        body = json.dumps(w.ai.requests[-1]["body"])
        assert "A picture was here; it is no longer stored." in body and "signature" not in body
        changed(w)


def test_edits_mode_with_a_photo():
    with World({"telegram": {"partials": "edit"}}) as w:
        answer(w, photo(w, png(), "what?"))
        assert newest(w)[0]["type"] == "image"


if __name__ == "__main__":
    main(globals())
