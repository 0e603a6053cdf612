# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_fakes.py - the fakes, the harness and the kill points test themselves.

A fake that accepts what the real service refuses proves nothing, so most of
this is requests that must be refused. Needs no daemon.
"""
import base64
import copy
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time

from billing import Prompt, nano, over_cap, reconcile
from fake_anthropic import FakeAnthropic
from fake_telegram import CONFORMANCE, FakeTelegram
from harness import ROOT, Blufio, Shell, Skip, _alive, main, toml, wait_for
from telegram_format import NAMES, Refused, parse_html, parse_markdown_v2

USER = 1001


# ---- Telegram ----------------------------------------------------------------------------


class Bot:
    """A Bot API client of a few lines."""

    def __init__(self, tg, token=None):
        self.tg, self.token = tg, token or tg.token

    def raw(self, method, body=None, kind="application/json", query="", timeout=10):
        c = http.client.HTTPConnection("127.0.0.1", self.tg.port, timeout=timeout)
        try:
            c.request("POST", "/bot%s/%s%s" % (self.token, method, query), body=body,
                      headers={"Content-Type": kind} if body is not None else {})
            r = c.getresponse()
            return r.status, r.read()
        finally:
            c.close()

    def call(self, method, timeout=10, **params):
        """(status, result or description)"""
        status, data = self.raw(method, json.dumps(params).encode(), timeout=timeout)
        reply = json.loads(data.decode())
        if reply["ok"] != (status == 200) or (not reply["ok"] and reply["error_code"] != status):
            raise AssertionError("status and body differ: %s" % data)
        return status, reply["result"] if reply["ok"] else reply["description"]


class Telegram:
    """with Telegram() as (tg, bot)"""

    def __init__(self, **options):
        self.tg = FakeTelegram(seed=3, **options)
        self.tg.add_chat(USER)

    def __enter__(self):
        return self.tg, Bot(self.tg)

    def __exit__(self, *exc):
        self.tg.close()
        if exc[0] is None and self.tg.errors:
            raise AssertionError(self.tg.errors)


def equal(got, want):
    if got != want:
        raise AssertionError("got %r, want %r" % (got, want))


def refused(answer, status, words):
    if answer[0] != status or words not in answer[1]:
        raise AssertionError("got %r, want %d with %r" % (answer, status, words))


def in_thread(function, *args, **kw):
    box = []

    def run():
        try:
            box.append(function(*args, **kw))
        except Exception as e:
            box.append(e)
    t = threading.Thread(target=run, daemon=True)
    t.start()
    t.box = box
    return t


def test_markdown_v2_agrees_with_the_conformance_cases():
    path = CONFORMANCE + "/telegram/markdownv2.jsonl"
    if not os.path.exists(path):
        raise Skip("no " + path)
    with open(path, encoding="utf-8") as f:
        cases = [json.loads(line) for line in f]
    for case in cases:
        try:
            text, entities = parse_markdown_v2(bytes.fromhex(case["input_hex"]).decode())
        except Refused as e:
            equal((case["id"], str(e)), (case["id"], case.get("error")))
            continue
        got = []
        for e in entities:
            out = {"type": NAMES[e["type"]], "offset": e["offset"], "length": e["length"]}
            if "language" in e or "url" in e:
                out["argument"] = e.get("language", e.get("url"))
            if "custom_emoji_id" in e:
                out["custom_emoji_id"] = e["custom_emoji_id"]
            got.append(out)
        equal((case["id"], text, got), (case["id"], case.get("text"), case.get("entities")))


def test_markdown_v2_quotations():
    equal(parse_markdown_v2(">a\n>b||\nc"), ("a\nb\nc", [
        {"type": "expandable_blockquote", "offset": 0, "length": 4}]))
    equal(parse_markdown_v2(">a\n**>b"), ("a\nb", [
        {"type": "blockquote", "offset": 0, "length": 2},
        {"type": "blockquote", "offset": 2, "length": 1}]))


def test_html():
    equal(parse_html("a <b>b <i>c</i></b> &lt;&#x1F600;&gt;")[0], "a b c <\U0001f600>")
    equal(parse_html("\U0001f600<b>x</b>")[1], [{"type": "bold", "offset": 2, "length": 1}])
    equal(parse_html('<pre><code class="language-c">x</code></pre>')[0], "x")
    for bad, words in (("<b>x", "Can't find end tag"), ("<b>x</i>", "Unmatched end tag"),
                       ("</b>", "Unexpected end tag"), ("<h1>x</h1>", 'Unsupported start tag "h1"'),
                       ("a & b", "Unescaped '&'"), ("&nbsp;", "Unescaped '&'"),
                       ("a < b", "Unsupported"),
                       ("<b", "Unclosed"), ("<span>x</span>", "span"), ("<br>", "br")):
        try:
            parse_html(bad)
        except Refused as e:
            if words not in str(e):
                raise AssertionError("%r: %s" % (bad, e))
        else:
            raise AssertionError("accepted " + bad)


def test_tokens_and_paths():
    with Telegram() as (tg, bot):
        equal(bot.call("getMe")[1]["username"], tg.username)
        equal(bot.call("GETME")[0], 200)
        refused(Bot(tg, "123456:WRONG").call("getMe"), 401, "Unauthorized")
        refused(Bot(tg, "nonsense").call("getMe"), 404, "Not Found")
        refused(bot.call("noSuchMethod"), 404, "Not Found")
        equal(len(tg.refusals), 3)
        tg.expect_refusal("401")
        equal(len(tg.unexpected()), 2)


def test_parameters_are_checked():
    with Telegram() as (tg, bot):
        if not tg.schema.present:
            raise Skip("no machine copy of the Bot API")
        refused(bot.call("sendMessage", chat_id=USER), 400, '"text"')
        refused(bot.call("sendMessage", chat_id=USER, text="x", colour=1), 400,
                'unknown parameter "colour"')
        refused(bot.call("sendMessage", chat_id=USER, text=5), 400, "must be a String")
        refused(bot.call("sendMessage", chat_id=USER, text="x", disable_notification="yes"), 400,
                "Boolean")
        refused(bot.call("sendMessage", chat_id=USER, text="x", reply_parameters={"message": 1}),
                400,
                "unknown field")
        refused(bot.call("sendMessage", chat_id=USER, text="x", message_thread_id=1 << 52), 400,
                "Integer")
        refused(bot.call("getUpdates", limit=101), 400, "limit")
        refused(bot.call("getUpdates", allowed_updates=["massage"]), 400, "unknown update kind")
        equal(bot.call("sendMessageDraft", chat_id=USER, draft_id=1, text="x", can_stop=True)[0],
              200)
        form = "chat_id=%d&text=a%%20b&disable_notification=true" % USER
        equal(bot.raw("sendMessage", form.encode(), "application/x-www-form-urlencoded")[0], 200)
        equal(bot.raw("sendMessage", query="?chat_id=%d&text=q" % USER)[0], 200)
        part = "--B\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n%s\r\n"
        body = part % ("chat_id", USER) + part % ("text", "m") + "--B--\r\n"
        equal(bot.raw("sendMessage", body.encode(), "multipart/form-data; boundary=B")[0], 200)
        equal(bot.raw("sendMessage", b"{", "application/json")[0], 400)
        equal(bot.raw("sendMessage", b'{"chat_id":1001,"text":"\xff"}', "application/json")[0], 400)
        equal(tg.texts(USER), ["a b", "q", "m"])


def test_texts():
    with Telegram() as (tg, bot):
        def send(text, **more):
            return bot.call("sendMessage", chat_id=USER, text=text, **more)
        equal(send("x" * 4096)[0], 200)
        refused(send("x" * 4097), 400, "message is too long")
        refused(send("\U0001f600" * 2049), 400, "message is too long")
        equal(send("\\." * 4096, parse_mode="MarkdownV2")[0], 200)
        equal(send("<b>" + "x" * 4096 + "</b>", parse_mode="HTML")[0], 200)
        refused(send(" \n"), 400, "message text is empty")
        refused(send("<b></b>", parse_mode="HTML"), 400, "message text is empty")
        refused(send("a.b", parse_mode="MarkdownV2"), 400,
                "can't parse entities: Character '.' is reserved")
        refused(send("x", parse_mode="Textile"), 400, "unsupported parse_mode")
        refused(bot.call("sendMessage", chat_id=777, text="x"), 400, "chat not found")
        tg.block(USER)
        refused(send("x"), 403, "bot was blocked by the user")


def test_updates_and_offsets():
    with Telegram() as (tg, bot):
        first = tg.send_text(USER, "/start@blufio_test_bot one")
        tg.send_text(USER, "two")
        updates = bot.call("getUpdates")[1]
        equal([u["message"]["text"][-3:] for u in updates], ["one", "two"])
        equal(updates[0]["message"]["entities"],
              [{"type": "bot_command", "offset": 0, "length": 22}])
        equal(updates[0]["message"]["message_id"], first)
        equal(updates[1]["update_id"], updates[0]["update_id"] + 1)
        equal(len(bot.call("getUpdates", limit=1)[1]), 1)       # unconfirmed ones come again
        equal(tg.received_updates, [])
        rest = bot.call("getUpdates", offset=updates[1]["update_id"])[1]
        equal(len(rest), 1)
        equal(tg.received_updates, [updates[0]["update_id"]])
        equal(bot.call("getUpdates", offset=updates[1]["update_id"] + 1)[1], [])
        equal(tg.unconfirmed, [])
        for i in range(5):
            tg.send_text(USER, "n%d" % i)
        equal([u["message"]["text"] for u in bot.call("getUpdates", offset=-2)[1]], ["n3", "n4"])
        bot.call("getUpdates",
                 offset=10**9)                    # from before a jump: the queue's head
        equal(len(tg.unconfirmed), 2)
        tg.jump_ids(5)
        equal(tg.push_update({"message": {"text": "raw"}}), 5)


def test_allowed_updates():
    with Telegram() as (tg, bot):
        stop = {"stopped_message_generation": {"chat": {"id": USER}, "draft_id": 1}}
        equal(tg.push_update(stop), None)
        bot.call("getUpdates", allowed_updates=["message", "stopped_message_generation"])
        assert tg.push_update(stop) is not None
        equal(tg.push_update({"poll": {}}), None)
        bot.call("getUpdates")                                   # keeps the setting
        equal(tg.push_update({"poll": {}}), None)
        bot.call("getUpdates", allowed_updates=[])
        assert tg.push_update({"poll": {}}) is not None


def test_long_polls():
    with Telegram() as (tg, bot):
        waiting = in_thread(lambda: bot.raw("getUpdates", b'{"timeout":20}', timeout=30))
        tg.wait(lambda: tg.polling == 1)
        tg.send_text(USER, "wake")
        waiting.join(5)
        equal(json.loads(waiting.box[0][1])["result"][0]["message"]["text"], "wake")
        bot.call("getUpdates", offset=-1)
        bot.call("getUpdates", offset=tg.next_update)
        one = in_thread(lambda: bot.raw("getUpdates", b'{"timeout":20}', timeout=30))
        tg.wait(lambda: tg.polling == 1)
        two = in_thread(lambda: bot.raw("getUpdates", b'{"timeout":1}', timeout=30))
        one.join(5)
        two.join(5)
        equal((one.box[0][0], two.box[0][0]), (409, 200))
        tg.webhook = "https://example.org"
        refused(bot.call("getUpdates"), 409, "webhook is active")
        equal(bot.call("deleteWebhook"), (200, True))
        # A poll whose client died answers nobody and refuses nobody.
        n = len(tg.refusals)
        s = socket.create_connection(("127.0.0.1", tg.port))
        s.sendall(b"GET /bot%s/getUpdates?timeout=30 HTTP/1.1\r\nHost: x\r\n\r\n"
                  % tg.token.encode())
        tg.wait(lambda: tg.polling == 1)
        s.close()
        equal(bot.call("getUpdates")[0], 200)
        tg.wait(lambda: tg.polling == 0)
        equal(len(tg.refusals), n)


def test_edits_and_replies():
    with Telegram() as (tg, bot):
        mine = bot.call("sendMessage", chat_id=USER, text="one")[1]["message_id"]

        def edit(**p):
            return bot.call("editMessageText", chat_id=USER, **p)
        equal(edit(message_id=mine, text="two")[0], 200)
        refused(edit(message_id=mine, text="two"), 400, "message is not modified")
        refused(edit(message_id=999, text="x"), 400, "message to edit not found")
        theirs = tg.send_text(USER, "hi")
        refused(edit(message_id=theirs, text="x"), 400, "can't be edited")
        equal(edit(message_id=mine, rich_message={"markdown": "# three"})[0], 200)
        m = tg.messages(USER)[0]
        equal((m["rich"], m["text"], [e[1] for e in m["edits"]]),
              ("markdown", "# three", ["two", "# three"]))
        refused(bot.call("sendMessage", chat_id=USER, text="x",
                         reply_parameters={"message_id": 999}), 400,
                "message to be replied not found")
        equal(bot.call("sendMessage", chat_id=USER, text="x", reply_parameters={
            "message_id": 999, "allow_sending_without_reply": True})[0], 200)
        bot.call("sendMessage", chat_id=USER, text="re", reply_parameters={"message_id": theirs})
        equal(tg.messages(USER)[-1]["reply_to"], theirs)
        equal(bot.call("deleteMessage", chat_id=USER, message_id=mine), (200, True))
        equal(tg.texts(USER), ["x", "re"])
        refused(bot.call("sendMessage", chat_id=USER, text="x", message_thread_id=4), 400,
                "thread not found")
        tg.send_text(USER, "in a topic", chat_id=-1005, chat_type="supergroup", thread=4)
        equal(bot.call("sendMessage", chat_id=-1005, text="x", message_thread_id=4)[0], 200)


def test_drafts():
    with Telegram() as (tg, bot):
        tg.add_chat(-1005, "supergroup")

        def draft(chat=USER, **p):
            return bot.call("sendMessageDraft", chat_id=chat, **p)
        refused(draft(-1005, draft_id=1, text="x"), 400, "TEXTDRAFT_PEER_INVALID")
        refused(draft(draft_id=0, text="x"), 400, "non-zero")
        equal(draft(draft_id=7, text=""), (200, True))
        equal(draft(draft_id=7, text="abc", can_stop=True)[0], 200)
        equal(tg.draft_shown(USER)["text"], "abc")
        equal(tg.draft_shown(USER, time.time() + 31), None)
        bot.call("getUpdates", allowed_updates=["stopped_message_generation"])
        tg.press_stop(USER)
        equal(bot.call("getUpdates")[1][0]["stopped_message_generation"]["draft_id"], 7)
        equal(bot.call("sendRichMessageDraft", chat_id=USER, draft_id=8,
                       rich_message={"html": "<tg-thinking>x</tg-thinking>"})[0], 200)
        bot.call("sendMessage", chat_id=USER, text="final")
        equal(tg.draft_shown(USER), None)
        equal([d["draft_id"] for d in tg.drafts(USER)], [7, 7, 8])
    with Telegram(drafts=False) as (tg, bot):
        refused(bot.call("sendMessageDraft", chat_id=USER, draft_id=1, text="x"), 404,
                "method not found")


def test_rich_messages():
    with Telegram() as (tg, bot):
        def send(**rich):
            return bot.call("sendRichMessage", chat_id=USER, rich_message=rich)
        equal(send(markdown="# a\n\n| a | b |\n|---|---|\n| 1 | 2 |")[0], 200)
        refused(send(markdown="a", html="b"), 400, "exactly one")
        refused(send(), 400, "exactly one")
        equal(send(markdown="x" * 32768)[0], 200)
        refused(send(markdown="x" * 32769), 400, "too long")
        refused(send(markdown="x\n\n" * 501), 400, "too many blocks")
        equal(send(markdown="```\n" + "x\n\n" * 501 + "```")[0], 200)
        refused(send(markdown="|" + " a |" * 21), 400, "too many columns")
        refused(send(html="<h1>a"), 400, "Can't find end tag")
        equal(send(html="<h1>a</h1><table><tr><td>b</td></tr></table>")[0], 200)
        refused(send(html="<tg-thinking>a</tg-thinking>"), 400, "Unsupported start tag")
    with Telegram(rich=False) as (tg, bot):
        refused(bot.call("sendRichMessage", chat_id=USER, rich_message={"markdown": "a"}), 404,
                "method not found")
    with Telegram(rich="refuse") as (tg, bot):
        refused(bot.call("sendRichMessage", chat_id=USER, rich_message={"markdown": "a"}), 400,
                "NOT_SUPPORTED")


def test_small_methods():
    with Telegram() as (tg, bot):
        equal(bot.call("sendChatAction", chat_id=USER, action="typing")[0], 200)
        refused(bot.call("sendChatAction", chat_id=USER, action="dancing"), 400,
                "wrong parameter action")
        equal(len(tg.actions(USER)), 1)
        equal(bot.call("setMyCommands", commands=[{"command": "stop", "description": "Stop"}])[0],
              200)
        refused(bot.call("setMyCommands", commands=[{"command": "Stop", "description": "S"}]), 400,
                "BOT_COMMAND_INVALID")
        equal(bot.call("getMyCommands")[1][0]["command"], "stop")
        query = tg.press(USER, USER, 1, "data")
        equal(bot.call("answerCallbackQuery", callback_query_id=query)[0], 200)
        refused(bot.call("answerCallbackQuery", callback_query_id=query), 400, "query is too old")
        file_id = tg.add_file(b"content")
        path = bot.call("getFile", file_id=file_id)[1]["file_path"]
        c = http.client.HTTPConnection("127.0.0.1", tg.port)
        c.request("GET", "/file/bot%s/%s" % (tg.token, path))
        equal(c.getresponse().read(), b"content")
        c.close()
        refused(bot.call("getFile", file_id=tg.add_file(b"", size=21 << 20)), 400,
                "file is too big")


def test_flood_control():
    with Telegram() as (tg, bot):
        tg.limits = {"chat": (2, 1.5)}
        for _ in range(2):
            equal(bot.call("sendMessage", chat_id=USER, text="x")[0], 200)
        status, data = bot.raw("sendMessage", b'{"chat_id":1001,"text":"x"}')
        after = json.loads(data)["parameters"]["retry_after"]
        equal((status, after in (1, 2)), (429, True))
        bot.call("sendChatAction", chat_id=USER, action="typing")
        equal(len(tg.flood_violations), 1)
        wait_for(lambda: time.monotonic() > tg.flooded[USER], 5)
        wait_for(lambda: bot.call("sendMessage", chat_id=USER, text="x")[0] == 200, 5)
        equal(tg.unexpected(), [])


def test_telegram_faults():
    with Telegram() as (tg, bot):
        def fails(kind, method="sendMessage", **options):
            tg.fail_next(method, kind, **options)
            n = len(tg.texts(USER))
            try:
                got = bot.raw(method, b'{"chat_id":1001,"text":"x"}' if method == "sendMessage"
                              else None,
                              timeout=0.5 if kind == "hang" else 10)
            except (OSError, http.client.HTTPException) as e:
                got = (type(e).__name__, b"")
            return got[0], got[1], len(tg.texts(USER)) - n
        equal(fails("reset")[::2], ("ConnectionResetError", 0))
        equal(fails("reset_after")[::2], ("ConnectionResetError", 1))
        equal(fails("hang")[0] in ("timeout", "TimeoutError"), True)
        status, body, sent = fails("half_json")
        equal((status, body.endswith(b"}"), sent), (200, False, 1))
        status, body, sent = fails(429, retry_after=3)
        equal((status, json.loads(body)["parameters"], sent), (429, {"retry_after": 3}, 0))
        equal(fails(502)[1][:6], b"<html>")
        for code in (401, 403, 409, 500):
            equal(fails(code)[0], code)
        status, body, _ = fails("garbage", "getUpdates")
        try:
            body.decode()
            raise AssertionError("valid UTF-8")
        except UnicodeDecodeError:
            pass
        status, body, _ = fails("big", "getUpdates")
        equal((status, len(body) > 5 << 20), (200, True))
        status, body, sent = fails("drip", every=0.001)
        equal((status, json.loads(body)["ok"], sent), (200, True, 1))
        equal(tg.unexpected(), [])
        equal([c["fault"] for c in tg.called("sendMessage")][:2], ["reset", "reset_after"])
        tg.down()
        try:
            bot.call("getMe")
            raise AssertionError("it answered")
        except OSError:
            pass
        tg.up()
        equal(bot.call("getMe")[0], 200)


# ---- Anthropic -------------------------------------------------------------------------------


TOOLS = [
    {"name": "text_count", "description": "Counts.", "input_schema": {
        "type": "object", "properties": {"text": {"type": "string"}}}},
    {"name": "time_now", "description": "Time.",
     "input_schema": {"type": "object", "properties": {}}},
]
BASE = {"model": "claude-sonnet-5-5", "max_tokens": 1000, "system": "You are a test.",
        "messages": [{"role": "user", "content": "say hello"}]}


M5, H1 = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}


class Claude:
    """A Messages API client of a few lines: assembles streams, ignores what it does not know."""

    def __init__(self, ai):
        self.ai = ai

    def post(self, body, path="/v1/messages", timeout=10, **headers):
        c = http.client.HTTPConnection("127.0.0.1", self.ai.port, timeout=timeout)
        h = {"x-api-key": self.ai.api_key, "anthropic-version": "2026-10-21",
             "content-type": "application/json"}
        h.update({k.replace("_", "-"): v for k, v in headers.items()})
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        c.request("POST", path, body=data, headers={k: v for k, v in h.items() if v is not None})
        return c, c.getresponse()

    def error(self, body, **headers):
        """(status, type, message)"""
        c, r = self.post(body, **headers)
        data = json.loads(r.read())
        c.close()
        if not r.getheader("request-id") or data.get("request_id") != r.getheader("request-id"):
            raise AssertionError("no request id: %s" % data)
        return r.status, data["error"]["type"], data["error"]["message"]

    def ask(self, body, **headers):
        """The message as the stream assembles it; its stop is "cut" or an error's type too."""
        c, r = self.post(dict(body, stream=True), **headers)
        equal(r.status, 200)
        blocks, usage, stop = {}, {}, "cut"
        try:
            for name, data in events(r):
                equal(name, data["type"])
                stop = self.take(name, data, blocks, usage, stop)
        except (OSError, http.client.HTTPException):
            pass
        c.close()
        content = []
        for i in sorted(blocks):
            b = blocks[i]
            if b["type"] == "tool_use":
                text = b.pop("json")
                b["input"] = json.loads(text or "{}") if stop == "tool_use" else text
            if b["type"] in ("text", "thinking", "tool_use"):
                content.append(b)
        return {"content": content, "usage": usage, "stop": stop}

    @staticmethod
    def take(name, data, blocks, usage, stop):
        if name == "message_start":
            usage.update(data["message"]["usage"], first=data["message"]["usage"]["input_tokens"])
        elif name == "content_block_start":
            blocks[data["index"]] = dict(data["content_block"])
            if data["content_block"]["type"] == "tool_use":
                blocks[data["index"]]["json"] = ""
        elif name == "content_block_delta":
            b, d = blocks[data["index"]], data["delta"]
            if d["type"] == "text_delta":
                b["text"] += d["text"]
            elif d["type"] == "input_json_delta":
                b["json"] += d["partial_json"]
            elif d["type"] == "thinking_delta":
                b["thinking"] += d["thinking"]
            elif d["type"] == "signature_delta":
                b["signature"] = d["signature"]
        elif name == "message_delta":
            usage.update(data["usage"])
            blocks["stop"] = None
            del blocks["stop"]
            return data["delta"]["stop_reason"]
        elif name == "error":
            return data["error"]["type"]
        return stop

    def text(self, body, **headers):
        return "".join(b["text"] for b
                       in self.ask(body, **headers)["content"] if b["type"] == "text")


def events(stream):
    name, data = None, ""
    while True:
        line = stream.readline().decode()
        if not line:
            return
        line = line.rstrip("\n")
        if not line and name:
            yield name, json.loads(data)
            name, data = None, ""
        elif line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            data += line[6:]


def req(**changes):
    out = copy.deepcopy(BASE)
    out.update(changes)
    return {k: v for k, v in out.items() if v is not None}


def user(*content):
    return {"role": "user", "content": list(content) if len(content) != 1
            or isinstance(content[0], dict)
            else content[0]}


def text(s, **more):
    return dict({"type": "text", "text": s}, **more)


def test_answers():
    with FakeAnthropic() as ai:
        c = Claude(ai)

        def reply(words):
            return c.text(req(messages=[user(words)], tools=TOOLS))
        equal(reply("say Gr\u00fc\u00dfe \U0001f30d"), "Gr\u00fc\u00dfe \U0001f30d")
        equal(reply("words 300").split()[-1], "w300")
        equal(reply("what?"), "You said: what?")
        history = [user("a"), {"role": "assistant", "content": "b"}, user("echo history")]
        equal(c.text(req(messages=history)), "You wrote: a")
        _, r = c.post(req(messages=[user("say plain")]))
        equal(json.loads(r.read())["content"], [text("plain")])
        equal(ai.unexpected(), [])
        equal(len(ai.answered()), 5)


def test_what_is_refused():
    with FakeAnthropic() as ai:
        c = Claude(ai)
        equal(c.error(req(), x_api_key="sk-wrong")[:2], (401, "authentication_error"))
        equal(c.error(req(), x_api_key=None)[:2], (401, "authentication_error"))
        equal(c.error(req(), anthropic_version=None)[0], 400)
        equal(c.error(req(), anthropic_version="2024-01-01")[0], 400)
        equal(c.error(req(model="claude-nothing"))[:2], (404, "not_found_error"))
        tool_use = {"type": "tool_use", "id": "t1", "name": "time_now", "input": {}}
        result = {"type": "tool_result", "tool_use_id": "t1", "content": "x"}
        called = [user("a"), {"role": "assistant", "content": [tool_use]}]
        mark = {"cache_control": {"type": "ephemeral"}}
        hour = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
        for words, body in (
                ("temperature", req(temperature=1)), ("max_tokens: Field", req(max_tokens=None)),
                ("maximum allowed", req(max_tokens=128001)),
                ("max_tokens: 0", req(max_tokens=0, stream=True)),
                ("bogus: Extra", req(bogus=1)), ("at least one message", req(messages=[])),
                ("first message", req(messages=[{"role": "assistant", "content": "x"}])),
                ("prefill", req(messages=[user("a"), {"role": "assistant", "content": "x"}])),
                ("non-empty", req(messages=[user(text(""))])),
                ("non-empty", req(messages=[user("")])),
                ("non-whitespace", req(messages=[user(text(" \n"))])),
                ("role", req(messages=[{"role": "tool", "content": "x"}])),
                ("system.0", req(system=[text("")])),
                ("pattern", req(tools=[dict(TOOLS[0], name="time.now")])),
                ("unique", req(tools=[TOOLS[0], TOOLS[0]])),
                ("input_schema", req(tools=[{"name": "x", "description": "y"}])),
                ("tool_choice", req(tools=TOOLS, tool_choice={"type": "any"})),
                ("tool_choice", req(tool_choice={"type": "auto"})),
                ("thinking.type.enabled", req(thinking={"type": "enabled", "budget_tokens": 2000})),
                ("thinking.type.disabled", req(thinking={"type": "disabled"})),
                ("effort", req(output_config={"effort": "extreme"})),
                ("without `tool_result`", req(messages=called + [user("next")])),
                ("prefill", req(messages=called)),
                ("must come first", req(messages=called + [user(text("x"), result)])),
                ("single", req(messages=called + [user(result, result)])),
                ("unexpected `tool_use_id`", req(messages=[user(result)])),
                ("unexpected `tool_use_id`", req(messages=called + [user(result), user("b"), {
                    "role": "assistant", "content": "c"}, user(result)])),
                ("maximum of 4", req(messages=[user(*[text("x", **mark) for _ in range(5)])])),
                ("maximum of 4",
                 req(messages=[user(*[text("x", **mark) for _ in range(4)])], **mark)),
                ("must not come after", req(messages=[user(text("x", **mark), text("y", **hour))])),
                ("must not come after", req(messages=[user(text("x", **mark), text("y"))], cache_control=H1)),
                ("must not come after", req(system=[text("x", **mark)], messages=[user(text("y", **hour))])),
                ("another ttl", req(messages=[user(text("x", **hour))], cache_control=M5)),
                ("stands on the result", req(messages=called + [user(dict(result, content=[text("x", **mark)]))])),
                ("thinking.cache_control", req(messages=[user("a"), {"role": "assistant", "content": [dict(
                    {"type": "thinking", "thinking": "", "signature": "x"}, **mark), text("b")]}, user("c")])),
                ("follow a user", req(messages=[user("a"), {"role": "assistant", "content": "x"},
                                                {"role": "system", "content": "s"}, user("b")])),
                ("not supported for this model", req(model="claude-sonnet-5", messages=[
                    user("a"), {"role": "system", "content": "s"}])),
                ("not allowed in assistant",
                 req(messages=[user("a"), {"role": "assistant", "content": [
                    {"type": "document", "source": {"type": "url", "url": "x"}}]}, user("b")])),
                ("signature: Field", req(messages=[user("a"), {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": ""}]}, user("b")])),
                ("citations", req(messages=[user(text("x", citations=[{"x": 1}]))])),
        ):
            status, kind, message = c.error(body)
            if (status, kind) != (400, "invalid_request_error") or words not in message:
                raise AssertionError("%r: %r" % (words, (status, kind, message)))
        equal(c.error(b"{\"a\":1,\"a\":2}")[0], 400)
        equal(c.error(b"not json")[0], 400)
        equal(c.error(b" " * ((32 << 20) + 1))[:2], (413, "request_too_large"))
        equal(len(ai.billing), 0)
        ai.refusals.clear()
        old = dict(anthropic_version="2023-06-01")
        equal(c.text(req(temperature=1, model="claude-haiku-4-5"), **old), "hello")
        equal(c.text(req(thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2000,
                         model="claude-haiku-4-5")), "hello")
        equal(c.text(req(messages=[user("a"), user("say b"), {"role": "system", "content": "s"}])),
              "b")
        equal(c.text(req(thinking={"type": "adaptive"}, cache_control={"type": "ephemeral"})),
              "hello")
        equal(ai.unexpected(), [])


def test_other_endpoints():
    with FakeAnthropic() as ai:
        c = http.client.HTTPConnection("127.0.0.1", ai.port)
        h = {"x-api-key": ai.api_key, "anthropic-version": "2023-06-01"}
        c.request("GET", "/v1/models/claude-haiku-5-5", headers=h)
        equal(json.loads(c.getresponse().read())["max_tokens"], 128000)
        c.request("GET", "/v1/models", headers=h)
        equal("claude-opus-5-5" in [m["id"] for m in json.loads(c.getresponse().read())["data"]],
              True)
        c.request("GET", "/v1/nothing", headers=h)
        equal(c.getresponse().status, 404)
        c.close()
        _, r = Claude(ai).post(req(max_tokens=None), path="/v1/messages/count_tokens")
        assert json.loads(r.read())["input_tokens"] > 5


def loop(c, first, **more):
    """A conversation to its end through tool rounds; the messages."""
    messages = [user(first)]
    while True:
        m = c.ask(req(messages=messages, tools=TOOLS, **more))
        messages = messages + [{"role": "assistant", "content": m["content"]}]
        if m["stop"] not in ("tool_use", "pause_turn"):
            return messages
        if m["stop"] == "tool_use":
            messages.append(user(*[{"type": "tool_result", "tool_use_id": b["id"],
                                    "content": "%s %s" % (b["name"], b["input"].get("text", ""))}
                                   for b in m["content"] if b["type"] == "tool_use"]))


def test_tools_and_thinking():
    with FakeAnthropic() as ai:
        c = Claude(ai)
        messages = loop(c, "think tools")
        kinds = [b["type"] for b in messages[1]["content"]]
        equal(kinds, ["thinking", "text", "tool_use", "tool_use"])
        equal(messages[-1]["content"][0]["text"],
              "Tool results: time_now ; text_count Gr\u00fc\u00dfe \U0001f30d")
        more = messages + [user("think say again")]
        more.append({"role": "assistant",
                     "content": c.ask(req(messages=more, tools=TOOLS))["content"]})
        final = more + [user("say end")]
        # Tools may move without harm to the thinking, but the cache is lost.
        equal(c.text(req(messages=final, tools=list(reversed(TOOLS)))), "end")
        equal(len(ai.prefix_violations), 1)
        ai.prefix_violations.clear()
        # The leading run of thinking may go, a later one alone may not.
        lead = copy.deepcopy(final)
        lead[1]["content"] = lead[1]["content"][1:]
        equal(c.text(req(messages=lead, tools=TOOLS)), "end")
        late = copy.deepcopy(final)
        late[5]["content"] = late[5]["content"][1:]
        ai.forget(req(messages=late))
        equal(c.text(req(messages=late, tools=TOOLS)), "end")     # nothing after it is bound to it
        for change in ("system", "model", "text", "signature"):
            bad = req(messages=copy.deepcopy(final), tools=TOOLS)
            if change == "system":
                bad["system"] += "!"
            elif change == "model":
                bad["model"] = "claude-opus-5-5"
            elif change == "text":
                bad["messages"][0]["content"] = "think tools "
            else:
                bad["messages"][1]["content"][0]["signature"] = "AAAA" + \
                    bad["messages"][1]["content"][0]["signature"][4:]
            status, _, message = c.error(bad)
            equal((status, "messages.1.content.0: Invalid `signature` in `thinking` block"
                   in message),
                  (400, True))


def test_prefix_watch():
    with FakeAnthropic() as ai:
        c = Claude(ai)
        turns = loop(c, "say one") + [user(text("say two", cache_control={"type": "ephemeral"}))]
        c.ask(req(messages=turns, tools=TOOLS))
        turns = turns[:-1] + [user("say two"), {"role": "assistant", "content": "two"},
                              user("say three")]
        c.ask(req(messages=turns, tools=TOOLS))
        equal(ai.prefix_violations, [])
        bad = copy.deepcopy(turns)
        bad[2]["content"] = "say tWo"
        c.ask(req(messages=bad, tools=TOOLS))
        equal(len(ai.prefix_violations), 1)
        v = ai.prefix_violations.pop()
        equal(("messages[2]" in v, "say two" in v, "say tWo" in v), (True, True, True))
        c.ask(req(messages=bad + [user("more")], tools=TOOLS, system="Other."))
        equal("system at byte" in ai.prefix_violations.pop(), True)
        c.ask(req(messages=[user("say one")], tools=TOOLS))     # a new conversation binds nobody
        equal(ai.prefix_violations, [])
        # A refused turn is dropped; what stood before it still binds.
        turns = [user("say x"), {"role": "assistant", "content": "x"}, user("say bad")]
        c.ask(req(messages=turns[:1]))
        ai.fail_next("refusal")
        equal(c.ask(req(messages=turns))["stop"], "refusal")
        c.ask(req(messages=turns[:2] + [user("say good")]))
        equal(ai.prefix_violations, [])


def test_cache_and_billing():
    with FakeAnthropic() as ai:
        c = Claude(ai)
        mark = {"type": "ephemeral"}
        system = [text("s" * 4000, cache_control={"type": "ephemeral", "ttl": "1h"})]
        one = c.ask(req(system=system, messages=[user("say one")], cache_control=mark))["usage"]
        assert one["cache_creation"]["ephemeral_1h_input_tokens"] >= 1000
        equal(one["cache_read_input_tokens"], 0)
        equal(one["first"] - one["input_tokens"], ai.correction)
        turns = [user("say one"), {"role": "assistant", "content": "one"}, user("words 50")]
        two = c.ask(req(system=system, messages=turns, cache_control=mark))["usage"]
        total = one["cache_creation_input_tokens"]
        equal(two["cache_read_input_tokens"], total)
        assert 0 < two["cache_creation_input_tokens"] < 60
        ai.clock = lambda: time.time() + 301    # the five-minute entries are gone, the hour's is not
        three = c.ask(req(system=system, messages=turns, cache_control=mark))["usage"]
        equal(three["cache_read_input_tokens"], one["cache_creation"]["ephemeral_1h_input_tokens"])
        small = c.ask(req(cache_control=mark))["usage"]
        equal((small["cache_read_input_tokens"], small["cache_creation_input_tokens"]), (0, 0))
        b = ai.billing[1]
        equal((b["completed"], b["usage"]["output_tokens"]), (True, two["output_tokens"]))
        prompt = two["cache_read_input_tokens"] * 100 + two["input_tokens"] * 2000
        equal(ai.cost(b), prompt + two["cache_creation"]["ephemeral_5m_input_tokens"] * 2500
              + two["output_tokens"] * 10000)
        capped = c.ask(req(max_tokens=5, messages=[user("words 100")]))
        equal((capped["stop"], capped["usage"]["output_tokens"]), ("max_tokens", 5))


def test_prefix_watch_of_conversations():
    """Known by their first text, or by an answer that no other was given."""
    def assistant(s):
        return {"role": "assistant", "content": s}

    def watch(*bodies, answers="one"):
        with FakeAnthropic() as ai:
            ai.script = lambda ask: answers if isinstance(answers, str) else answers[ask.number - 1]
            for body in bodies:
                Claude(ai).ask(body)
            return ai.prefix_violations, ai.watch.fresh
    a, b = [user("a"), assistant("one"), user("b")], [user("A"), assistant("one"), user("b")]
    broken, _ = watch(req(messages=a[:1]), req(messages=b))         # the first text itself is another
    equal((len(broken), "messages[0] at byte" in broken[0]), (1, True))
    # two that were answered alike: nobody can tell, so nobody is accused
    equal(watch(req(messages=a[:1]), req(messages=[user("z")]), req(messages=b)), ([], []))
    # fewer blocks under another first text: a new history
    long = a + [assistant("two"), user("c")]
    broken, fresh = watch(req(messages=long), req(messages=[user("in short"), assistant("one"), user("d")]))
    equal((broken, [f.split(":")[0] for f in fresh]), ([], ["new history"]))
    # tools that come or go are a reason, one that is described otherwise is none
    broken, fresh = watch(req(messages=a[:1], tools=TOOLS), req(messages=a, tools=TOOLS[1:]))
    equal((broken, fresh[0].split(":")[0]), ([], "tools changed (%s)" % TOOLS[0]["name"]))
    broken, _ = watch(req(messages=a[:1], tools=TOOLS),
                      req(messages=a, tools=[dict(TOOLS[0], description="Other.")] + TOOLS[1:]))
    equal((len(broken), "tools at byte" in broken[0]), (1, True))
    # two conversations that begin alike stay two
    equal(watch(req(messages=a[:1]), req(messages=a[:1]), req(messages=a),
                req(messages=[user("a"), assistant("two"), user("c")]), answers=["one", "two", "x", "y"])[0], [])
    # gone to another model and back, a conversation is without its thinking
    with FakeAnthropic() as ai:
        c = Claude(ai)
        turns = loop(c, "think say one") + [user("b")]
        c.ask(req(messages=turns, tools=TOOLS))
        bare = copy.deepcopy(turns)
        bare[1]["content"] = [x for x in bare[1]["content"] if x["type"] != "thinking"]
        c.ask(req(messages=bare, tools=TOOLS, model="claude-haiku-5-5"))
        bare += [assistant("x"), user("c")]
        c.ask(req(messages=bare, tools=TOOLS))
        bare[2] = user("B")
        equal(ai.prefix_violations, [])
        c.ask(req(messages=bare + [assistant("y"), user("d")], tools=TOOLS))
        equal("messages[2] at byte" in ai.unexpected()[0], True)


def test_prices_of_the_sheet():
    """By hand from the sheet, dollars a million tokens being thousandths of a nano-dollar a token."""
    def usage(i, o, w5=0, w1=0, r=0):
        return {"input_tokens": i, "output_tokens": o, "cache_read_input_tokens": r,
                "cache_creation": {"ephemeral_5m_input_tokens": w5, "ephemeral_1h_input_tokens": w1}}
    for model, used, want in (
            ("claude-sonnet-5-5", usage(1000, 200, 3000, 400, 5000), 2000000 + 2000000 + 7500000 + 1600000 + 500000),
            ("claude-fable-5-1", usage(0, 0, r=1000000), 250000000),            # $0.25
            ("claude-fable-5-2", usage(7, 3, w1=2), 7 * 8000 + 3 * 40000 + 2 * 16000),
            ("claude-opus-5-5", usage(1, 1, 1, 1, 1), 4000 + 20000 + 5000 + 8000 + 200),
            ("claude-opus-5", usage(1, 1, 1, 1, 1), 5000 + 25000 + 6250 + 10000 + 500),
            ("claude-haiku-4-5", usage(1000000, 100000), 1500000000),           # $1 and $0.50
            # the band is the whole prompt's, and it is everything's
            ("claude-haiku-5-5", usage(40000, 1000, 20000, 10000, 30000), 4000000 + 500000 + 2500000 + 2000000 + 300000),
            ("claude-haiku-5-5", usage(40001, 1000, 20000, 10000, 30000), 5 * 9300100)):
        equal((model, nano(model, used)), (model, want))
    equal(nano("claude-sonnet-5-5", usage(1, 0), "us"), 2200)


def sized(n, **more):
    """A text block of exactly n tokens: 25 bytes are its own."""
    return text("x" * (4 * n - 25), **more)


class Till:
    """with Till() as t: a fake on a clock of its own; t.ask() gives (uncached, read, written 5 m, written 1 h)."""

    def __init__(self):
        self.ai, self.at = FakeAnthropic(), 1800000000.0
        self.ai.clock = lambda: self.at
        self.c = Claude(self.ai)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.ai.close()

    def ask(self, after=0, **body):
        self.at += after
        n = len(self.ai.log)
        u = self.c.ask(req(**dict({"system": None}, **body)))["usage"]
        self.ai.wait(lambda: len(self.ai.log) > n)
        made = u["cache_creation"]      # of the answer's start: in its end the sum alone stands
        if u["cache_creation_input_tokens"] == 0:
            made = dict.fromkeys(made, 0)
        equal(u["cache_creation_input_tokens"], sum(made.values()))
        return (u["input_tokens"], u["cache_read_input_tokens"], made["ephemeral_5m_input_tokens"],
                made["ephemeral_1h_input_tokens"])


def test_tokens_by_hand():
    with Till() as t:
        def count(**body):
            """As count_tokens says, and as it is billed."""
            body = dict({"system": None}, **body)
            conn, r = t.c.post(req(max_tokens=None, **body), path="/v1/messages/count_tokens")
            n = json.loads(r.read())["input_tokens"]
            conn.close()
            equal(sum(t.ask(**body)), n)
            return n
        two = dict(system=[sized(1000)], messages=[user(sized(10))])
        equal(count(**two), 1010)
        equal(count(cache_control=M5, **two), 1010)
        equal(count(model="claude-haiku-4-5", **two), 770 + 8)          # 5.2 bytes a token
        equal(count(messages=[user("x")]), 7)                           # 26 bytes
        tools = sum(-(-len(json.dumps(t, separators=(",", ":"))) // 4) for t in TOOLS)
        equal(count(messages=[user("x")], tools=TOOLS), 7 + tools)
        equal(count(messages=[user("x")], tools=TOOLS, model="claude-haiku-5-5"), 7 + tools + 286)
        png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 1500, 1000)
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
        frame = -(-len(json.dumps(image, separators=(",", ":"))) // 4)
        image["source"]["data"] = base64.b64encode(png).decode()
        equal(count(messages=[user(image)]), frame + 2000)              # 1500 x 1000 / 750


def test_cache_lives():
    long = dict(system=[sized(600, cache_control=M5)], messages=[user(sized(10))])
    with Till() as t:
        equal(t.ask(**long), (10, 0, 600, 0))
        equal(t.ask(299, **long), (10, 600, 0, 0))
        equal(t.ask(299, **long), (10, 600, 0, 0))              # it was read: five minutes more
        equal(t.ask(300, **long), (10, 0, 600, 0))              # that were over
        equal([e["miss"] for e in t.ai.log], [None, None, None, "expired"])
        t.ai.workspaces["sk-other"] = "other"
        equal(t.c.ask(req(**long), x_api_key="sk-other")["usage"]["cache_read_input_tokens"], 0)
        equal(t.ask(model="claude-opus-5-5", **long), (10, 0, 600, 0))
    with Till() as t:       # an hour costs an hour: five minutes are not made longer for nothing
        hour = dict(system=[sized(600, cache_control=H1)], messages=[user(sized(10))])
        t.ask(**long)
        equal(t.ask(299, **hour), (10, 600, 0, 0))
        equal(t.ask(300, **hour), (10, 0, 0, 600))
        equal(t.ask(3599, **long), (10, 600, 0, 0))             # nor is an hour made shorter
        equal(t.ask(3599, **long), (10, 600, 0, 0))
        equal(t.ask(3600, **long), (10, 0, 600, 0))
    with Till() as t:       # from the start of the request, readable from the start of the answer
        gate = threading.Event()

        def slowly(ask):
            if ask.number == 1:
                gate.wait(10)
                t.at += 200
            return "x"
        t.ai.script = slowly
        first = in_thread(t.ask, **long)
        wait_for(lambda: t.ai.requests, 5, "the first")
        equal(t.ask(**long), (10, 0, 600, 0))
        t.ai.cache.entries.clear()
        gate.set()
        first.join(10)
        equal(first.box, [(10, 0, 600, 0)])
        equal(t.ask(99, **long), (10, 600, 0, 0))
        t.ai.cache.entries.clear()
        t.ai.script = lambda ask: setattr(t, "at", t.at + 200)
        t.ask(**long)
        equal(t.ask(100, **long), (10, 0, 600, 0))
        t.ai.cache.entries.clear()
        t.ai.fail_next("refusal")                               # not billed, so nothing of it is kept
        equal(t.ask(**long), (0, 0, 0, 0))
        equal(t.ask(**long), (10, 0, 600, 0))


def test_cache_minimum():
    with Till() as t:
        for model, least in (("claude-sonnet-5-5", 512), ("claude-sonnet-5", 1024), ("claude-opus-4-7", 2048)):
            short = dict(model=model, system=[sized(500)], cache_control=M5)
            equal(t.ask(messages=[user(sized(least - 501))], **short), (least - 1, 0, 0, 0))
            equal(t.ask(messages=[user(sized(least - 500))], **short), (0, 0, least, 0))
        # several breakpoints: each life is paid for its own part, what is below the minimum with the next
        mixed = dict(system=[sized(100, cache_control=H1), sized(500, cache_control=H1)], cache_control=M5)
        equal(t.ask(messages=[user(sized(50))], **mixed), (0, 0, 50, 600))
        equal(t.ask(messages=[user(sized(50), sized(30))], **mixed), (0, 650, 30, 0))


def test_cache_looks_back():
    def grown(n, *marks):
        blocks = [sized(600)] + [sized(10) for _ in range(n)]
        for i in marks:
            blocks[i]["cache_control"] = M5
        return dict(messages=[user(*blocks)])
    with Till() as t:
        equal(t.ask(**grown(0, 0)), (0, 0, 600, 0))
        equal(t.ask(**grown(19, 19)), (0, 600, 190, 0))
        equal(t.ask(**grown(39, 39)), (0, 0, 990, 0))           # the last entry is the 21st
        equal(t.ai.log[-1]["miss"], "no breakpoint within 20 blocks")
        equal(t.ask(**grown(60, 55, 60)), (0, 990, 210, 0))     # one more breakpoint finds it


def test_cache_levels():
    """A change takes its level and all behind it, and the log says where it was."""
    tool = dict(TOOLS[0], description="d" * 4000)
    base = dict(tools=[dict(tool, cache_control=M5), TOOLS[1]], system=[sized(600, cache_control=M5)],
                messages=[user(sized(700, cache_control=M5))])
    with Till() as t:
        t.ai.script = lambda ask: "x"
        _, _, whole, _ = t.ask(**base)
        system = whole - 700
        tools = t.ask(**dict(base, system=[sized(601)], messages=[user("x")]))[1]
        equal(1000 < tools < system, True)

        def read(**change):
            """What is left of the cache for that; the base is kept warm."""
            t.ask(**base)
            t.ai.watch.forget_all()
            t.ask(**base)
            n = t.ask(**dict(base, **change))[1]
            return n, t.ai.log[-1]["miss"]
        switched = "messages: tool_choice, thinking, effort or the presence of images changed"
        equal(read(), (whole, None))
        equal(read(tool_choice={"type": "auto"}), (whole, None))        # as it is without
        equal(read(tool_choice={"type": "none"}), (system, switched))
        equal(read(output_config={"effort": "low"}), (system, switched))
        png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 10, 10)
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png",
                                             "data": base64.b64encode(png).decode()}}
        equal(read(messages=[user(sized(700), image)], cache_control=M5), (system, switched))
        equal(read(tools=[base["tools"][0], TOOLS[1], dict(TOOLS[1], name="later", defer_loading=True)]), (whole, None))
        later = [user(sized(700)), {"role": "assistant", "content": "x"}, user("y")]
        t.ask(**dict(base, messages=later[:1]))
        for change, zone, left in (
                ({"system": [sized(599, cache_control=M5)]}, "system", tools),
                ({"tools": [dict(tool, description="D" * 4000, cache_control=M5), TOOLS[1]]}, "tools", 0),
                ({"messages": [user(sized(699))] + later[1:]}, "messages[0]", system)):
            t.ai.watch.forget_all()
            t.ask(**base)
            n = t.ask(**dict(base, messages=change.pop("messages", later), **change))[1]
            equal((n, zone + " at byte" in t.ai.log[-1]["miss"]), (left, True))
        # an automatic breakpoint stands on the newest block that may have one
        t.ai.script = None
        answer = t.c.ask(req(messages=[user("think say x")]))["content"]
        paused = [user("pause " + "x" * 4000), {"role": "assistant", "content": answer[:1]}]
        marks = Prompt(req(messages=paused, cache_control=H1)).marks
        equal([m[2] for m in marks[-2:]], ["1h", None])


def test_the_log_and_the_bill():
    with FakeAnthropic() as ai:
        c, long = Claude(ai), req(messages=[user("words 200")], cache_control=M5, system=[sized(1000)])

        def call(fault=None, body=long, **options):
            if fault:
                ai.fail_next(fault, **options)
            try:
                c.ask(body)
            except (AssertionError, OSError, http.client.HTTPException):
                pass
            ai.wait(lambda: not ai.book.open)
            e = ai.log[-1]
            equal(e["nano"], nano(e["model"], e["usage"]))
            return e["outcome"], e["stop"], e["status"], e["nano"] > 0, e["usage"]["output_tokens"]
        whole = call()
        equal(whole[:4], ("completed", "end_turn", 200, True))
        cut = call("cut", k=4)
        equal((cut[:4], 0 < cut[4] < whole[4]), (("cut", None, 200, True), True))
        equal(call("error_event", k=4)[:4], ("error", None, 200, True))
        equal(call("529"), ("error", None, 529, False, 0))
        equal(call("reset"), ("error", None, None, False, 0))
        for fault in ("empty", "lost"):         # accepted: the prompt is billed, though nobody hears of it
            equal(call(fault)[0], "cut")
            equal((call(fault)[3:]), (True, 0))
        equal(call("refusal"), ("refused", "refusal", 200, False, 0))
        mid = call("refusal_mid", k=4)
        equal((mid[:4], 0 < mid[4] < whole[4]), (("refused", "refusal", 200, True), True))
        equal(call(body=req(max_tokens=-1))[:4], ("error", None, 400, False))
        # thinking that is not shown is billed, and is part of max_tokens
        ai.script = [{"blocks": [{"type": "thinking", "tokens": 500}, text("abcd")]}] * 2
        equal(call()[4], 501)
        equal(call(body=dict(long, max_tokens=400))[1:], ("max_tokens", 200, True, 400))
        equal(len({e["id"] for e in ai.log}), len(ai.log))
        equal(sum(more for _, _, _, more in ai.book.charges), sum(e["nano"] for e in ai.log))
        equal(sum(ai.cost(b) for b in ai.billing), sum(e["nano"] for e in ai.log))
        equal(over_cap(ai.book.charges, sum(e["nano"] for e in ai.log) + 10**9), None)
        equal(over_cap(ai.book.charges, ai.log[0]["nano"] - 1).split(" ")[-1], ai.log[0]["id"])


def test_caps():
    day = 1800000000 // 86400 * 86400
    charges = [(day + 10, "a", day + 10, 60), (day + 86390, "b", day + 86390, 30), (day + 86410, "b", day + 86390, 10),
               (day + 86420, "c", day + 86420, 100)]
    equal(over_cap(charges, 100), None)                 # a call is of the day on which it began
    equal("by b" in over_cap(charges, 99), True)
    equal("by c" in over_cap(charges, 199, "%Y-%m"), True)
    refused = [(1, "d", 1, 80), (2, "d", 1, -80), (3, "e", 3, 70)]
    equal(over_cap(refused, 80), None)
    equal("by d" in over_cap(refused, 79), True)        # every instant counts, not the end alone


def test_reconciling():
    """Each way in which a ledger can be wrong is found, with a column of request ids and without."""
    def call(request_id, output, outcome="completed", input=100):
        usage = {"input_tokens": input, "output_tokens": output, "cache_read_input_tokens": 0,
                 "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}}
        return {"id": request_id, "model": "claude-sonnet-5-5", "outcome": outcome, "usage": usage,
                "nano": nano("claude-sonnet-5-5", usage)}
    calls = [call("r1", 10), call("r2", 20), call("r3", 30, "refused"), call("r4", 40, "cut"), call("r5", 5, "cut"),
             call("r6", 0, "error", 0)]

    def row(c, estimated=0, more=0, **over):
        out = dict(model=c["model"], input=c["usage"]["input_tokens"], output=c["usage"]["output_tokens"] + more,
                   write_5m=0, write_1h=0, cache_read=0, nano_usd=c["nano"] + more * 10000, estimated=estimated,
                   request_id=c["id"])
        out.update(over)
        return out
    good = [row(c) for c in calls[:3]] + [row(calls[3], 1, 3), row(calls[4], 1)]
    spare = row(calls[5], 1, 9)                         # nobody could know that it was not billed
    for named in (True, False):
        def check(rows, lost=()):
            return reconcile([r if named else dict(r, request_id="") for r in rows], calls, lost)
        equal(check(good), [])
        equal(check(good[::-1] + [spare]), [])
        for i in range(len(good)):
            equal((i, len(check(good[:i] + good[i + 1:])) > 0), (i, True))          # not booked
        for i in range(3):
            bad = list(good)
            for change in (dict(nano_usd=good[i]["nano_usd"] + 1), dict(output=good[i]["output"] + 1),
                           dict(model="claude-opus-5-5"), dict(estimated=1)):
                bad[i] = dict(good[i], **change)
                equal((i, change, len(check(bad)) > 0), (i, change, True))
            equal(len(check(good + [good[i]])) > 0, True)                           # booked twice
        equal(len(check(good[:3] + [row(calls[3], 1, -1), good[4]])), 1)            # less than was billed
        equal(len(check(good[:3] + [row(calls[3], 0), good[4]])) > 0, not named)    # exact, by luck: only a name tells
        equal(check([row(calls[0], 1)] + good[1:], lost=["r1"]), [])                # nobody was left to hear its end
        equal(len(check([row(calls[0], 1, -1)] + good[1:], lost=["r1"])), 1)
    equal(reconcile([dict(r) for r in good[:4]] + [dict(good[4], request_id="")], calls), [])
    equal([len(reconcile(good + [row(call("r9", 1), e)], calls)) for e in (0, 1)], [1, 1])     # never made


def test_anthropic_faults():
    with FakeAnthropic() as ai:
        c = Claude(ai)
        for code, kind in ((529, "overloaded_error"), (500, "api_error"),
                           (413, "request_too_large"),
                           (404, "not_found_error"), (400, "invalid_request_error")):
            ai.fail_next(code)
            equal(c.error(req())[:2], (code, kind))
        ai.fail_next(403, type="billing_error")
        equal(c.error(req())[1], "billing_error")
        ai.fail_next(429, retry_after=2, retry_after_ms=1500, should_retry=False)
        _, r = c.post(req())
        r.read()
        equal([r.getheader(h) for h in ("retry-after", "retry-after-ms", "x-should-retry")],
              ["2", "1500", "false"])
        long = req(messages=[user("words 200")])
        ai.fail_next("error_event", k=3)
        equal(c.ask(long)["stop"], "overloaded_error")
        ai.fail_next("cut", k=3)
        equal(c.ask(long)["stop"], "cut")
        equal((ai.billing[-1]["completed"], ai.billing[-1]["usage"]["output_tokens"] > 0),
              (False, True))
        ai.fail_next("refusal")
        m = c.ask(long)
        equal((m["stop"], m["content"], m["usage"]["input_tokens"]), ("refusal", [], 0))
        ai.fail_next("refusal_mid", k=3)
        m = c.ask(long)
        equal((m["stop"], len(m["content"])), ("refusal", 1))
        ai.fail_next("stop", reason="model_context_window_exceeded")
        equal(c.ask(long)["stop"], "model_context_window_exceeded")
        ai.fail_next("stop", reason="never_heard_of")
        equal(c.ask(long)["stop"], "never_heard_of")
        ai.fail_next("tool_cut")
        m = c.ask(req(messages=[user('tool text_count {"text":"abc"}')], tools=TOOLS))
        equal((m["stop"], m["content"][0]["input"].endswith("}")), ("max_tokens", False))
        ai.fail_next("empty")
        equal(c.ask(long)["stop"], "cut")
        for kind in ("hang", "hang_mid"):
            ai.fail_next(kind, k=2)
            try:
                _, r = c.post(dict(long, stream=True), timeout=0.5)
                r.read()
                raise AssertionError("it went on")
            except OSError:
                pass
        ai.fail_next("signature")
        equal("Invalid `signature`" in c.error(req())[2], True)
        ai.fail_next("stop", reason="pause_turn")
        equal([m["role"] for m in loop(c, "say paused")], ["user", "assistant", "assistant"])
        equal(ai.unexpected(), [])


def test_hold_and_script():
    with FakeAnthropic() as ai:
        c = Claude(ai)
        ai.hold_after_first_delta = threading.Event()
        ai.script = ["scripted answer", {"blocks": [
            {"type": "tool_use", "name": "text_count", "input": {"text": "x"}}]}]
        conn, r = c.post(req(stream=True))
        seen = []
        t = in_thread(lambda: [seen.append(d) for _, d in events(r)])
        wait_for(lambda: any(d["type"] == "content_block_delta" for d in list(seen)), 5,
                 "the first delta")
        t.join(0.3)
        equal(any(d["type"] == "message_stop" for d in list(seen)), False)
        ai.hold_after_first_delta.set()
        t.join(10)
        equal(seen[-1]["type"], "message_stop")
        conn.close()
        equal(c.ask(req())["stop"], "tool_use")
        equal(c.text(req()), "hello")
        ai.script = lambda ask: "asked " + ask.text.upper()
        equal(c.text(req()), "asked SAY HELLO")
        equal([r["body"]["model"] for r in ai.requests], ["claude-sonnet-5-5"] * 4)


def test_noise_is_there():
    with FakeAnthropic() as ai:
        names = set()
        for _ in range(10):
            _, r = Claude(ai).post(dict(req(messages=[user("words 60")]), stream=True))
            for name, data in events(r):
                names.add(name)
                if name == "content_block_start":
                    names.add(data["content_block"]["type"])
                if name == "content_block_delta":
                    names.add(data["delta"]["type"])
        missing = {"ping", "future_thing", "future_block", "future_delta", "text_delta"} - names
        equal(missing, set())


# ---- harness and kill points --------------------------------------------------------------------


def test_toml():
    equal(toml({"a": 1, "s": {"x": 'q"\\\n', "ids": [1, 2], "on": True,
                              "claude-x.1": {"input": 2.5}}, "t": [{"n": 1}, {"n": 2}]}),
          'a = 1\n\n[s]\nx = "q\\"\\\\\\u000a"\nids = [1, 2]\non = true\n\n'
          '[s."claude-x.1"]\ninput = 2.5\n\n[[t]]\nn = 1\n\n[[t]]\nn = 2\n')


def test_shells():
    script = "read a; trap 'exit 7' INT; echo \"got $a\"; while :; do sleep 0.05; done"
    s = Shell(["sh", "-c", script], "/", dict(os.environ), True)
    _alive.append(s)
    s.send("Gr\u00fc\u00dfe")
    s.expect("got Gr\u00fc\u00dfe")
    s.interrupt()
    equal(s.wait_exit(), 7)
    s = Shell(["cat"], "/", dict(os.environ), False)
    _alive.append(s)
    s.send("Gr\u00fc\u00dfe")
    s.expect("Gr\u00fc\u00dfe")
    s.eof()
    equal(s.wait_exit(), 0)


def test_daemon_life_with_a_stand_in():
    """Start, ready, database copy, kill -9 and restart of a small program instead of the daemon."""
    d = tempfile.mkdtemp()
    path = os.path.join(d, "standin")
    with open(path, "w") as f:
        f.write("""#!%s
import json, os, signal, sqlite3, sys
if sys.argv[1] == "version":
    print("stand-in", sys.stdin.read()); sys.exit(3)
c = sqlite3.connect(os.path.join(os.environ["HOME"], "blufio.db"), isolation_level=None)
c.execute("PRAGMA journal_mode=WAL")
c.execute("CREATE TABLE IF NOT EXISTS t(a)")
c.execute("INSERT INTO t VALUES(1)")
print(json.dumps({"level": "info", "msg": "ready: now"}), file=sys.stderr, flush=True)
signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))
while True:
    signal.pause()
""" % sys.executable)
    os.chmod(path, 0o755)
    old = os.environ.get("BLUFIO_BIN")
    os.environ["BLUFIO_BIN"] = path
    try:
        b = Blufio()
        b.start()
        equal(b.query("SELECT count(*) FROM t"), [(1,)])
        equal(b.kill9(), -signal.SIGKILL)
        b.start()
        equal(b.query("SELECT count(*) FROM t"), [(2,)])
        equal(len(b.logs(running=True)), 1)
        b.restart()
        equal(b.stop(), 0)
        b.wait_no_orphans()
        equal(b.cli("version", input="in"), (3, "stand-in in\n", ""))
    finally:
        if old is None:
            del os.environ["BLUFIO_BIN"]
        else:
            os.environ["BLUFIO_BIN"] = old
        shutil.rmtree(d)


KILLED = """
import select, socket, sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("PRAGMA journal_mode=WAL"); c.execute("PRAGMA synchronous=FULL")
c.execute("CREATE TABLE IF NOT EXISTS t(a)")
a, b = socket.socketpair()
for i in range(3):
    try:
        c.execute("BEGIN"); c.execute("INSERT INTO t VALUES(1)"); c.execute("COMMIT")
    except sqlite3.Error:
        if c.in_transaction: c.execute("ROLLBACK")
    a.send(b"x"); select.epoll().poll(0)
"""


def test_killpoints():
    cc, lib = shutil.which("cc"), [p for p in (
        "/usr/lib/x86_64-linux-gnu/libsqlite3.so.0", "/usr/lib/aarch64-linux-gnu/libsqlite3.so.0")
        if os.path.exists(p)]
    if not cc or not lib:
        raise Skip("no C compiler or no libsqlite3")
    d = tempfile.mkdtemp()
    so = os.path.join(d, "killpoint.so")
    subprocess.check_call([cc, "-shared", "-fPIC", "-O2", "-o", so,
                           os.path.join(ROOT, "tests/kill/killpoint.c"), "-ldl", "-lpthread"])

    def run(**env):
        """(exit code, rows afterwards) of KILLED under the library."""
        path = os.path.join(d, "x.db")
        for name in os.listdir(d):
            if name.startswith("x.db"):
                os.unlink(os.path.join(d, name))
        # Python loads SQLite late and privately; preloaded too, it is found as in the real binary.
        done = subprocess.run([sys.executable, "-c", KILLED, path],
                              env=dict(os.environ, LD_PRELOAD=so + " " + lib[0], **env),
                              stderr=subprocess.PIPE)
        return done.returncode, sqlite3.connect(path).execute("SELECT count(*) FROM t").fetchone()[
            0]
    try:
        log, gate = os.path.join(d, "log"), os.path.join(d, "gate")
        equal(run(KP_LOG=log), (0, 3))
        with open(log) as f:
            lines = [x.split(" ", 1)[1] for x in f.read().splitlines()]
        equal(lines.count("step:COMMIT"), 3)
        equal(lines.count("step:INSERT INTO t VALUES(1)"), 3)
        equal((lines.count("send:socket"), lines.count("epoll")), (3, 3))
        assert "pwrite:db-wal" in lines and "fdatasync:db-wal" in lines
        equal(run(KP_AT="step:COMMIT#2"), (-9, 1))
        equal(run(KP_AT="step:COMMIT#2", KP_WHEN="after"), (-9, 2))
        equal(run(KP_AT="send#3"), (-9, 3))
        equal(run(KP_AT="send#4"), (0, 3))
        equal(run(KP_AT="epoll#1", KP_ARM=gate), (0, 3))
        equal(run(KP_FAIL="step:INSERT#2:EIO"), (0, 2))
        # A commit whose sync failed is rolled back, yet the last one's frames are in the file and
        # come back with the next opening: "failed" means "not known to be durable".
        equal(run(KP_FAIL="fdatasync:db-wal#3:EIO:inf")[1] < 2, True)
        equal(run(KP_FAIL="fdatasync:db-wal#3:EIO:inf", KP_FAIL_WHILE=gate), (0, 3))
        walls = [i for i, x in enumerate(lines) if x == "pwrite:db-wal"]
        commits = [i for i, x in enumerate(lines) if x == "step:COMMIT"]
        k = sum(1 for w in walls if w < commits[1]) + 2     # the page of the second transaction
        equal(run(KP_FAIL="pwrite:db-wal#%d:ENOSPC" % k), (0, 2))
        equal(run(KP_LOG=os.path.join(d, "no", "such"))[0], 0)
    finally:
        shutil.rmtree(d)


if __name__ == "__main__":
    main(globals())
