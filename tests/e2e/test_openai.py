# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_openai.py - the agent and its models reached by programs that speak the OpenAI API."""
import base64
import json
import os
import re
import struct
import threading
import time
import zlib

from fake_anthropic import tool_answer
from gateway_client import Connection, Cut, Gateway
from harness import OWNER, ROOT, World, main

TOKEN = "q7Vx2LkP9sZtR4mWb8NcYd3HfJ6aGe"
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
MODEL = "claude-haiku-5-5"
DOCS = os.path.join(ROOT, "docs", "API.md")
FEATURE_API = "SELECT input, output, cache_read, write_5m + write_1h, model, session_id, turn_id, estimated FROM cost_ledger" \
    " WHERE feature = 'api' ORDER BY id"


def world(config=None, **options):
    config = dict(config or {})
    gateway = dict({"enabled": True, "host": "127.0.0.1", "port": 0, "bearer_token": TOKEN}, **config.pop("gateway", {}))
    w = World(dict({"gateway": gateway}, **config), **options)
    w.g = Gateway(w.b, TOKEN)
    return w


def picture(width=4, height=4, colour=0):
    """A PNG."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = (b"\0" + bytes([colour]) * width) * height
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def data_url(data, kind="image/png"):
    return "data:%s;base64,%s" % (kind, base64.b64encode(data).decode())


def user(text):
    return {"role": "user", "content": text}


def said(text):
    return {"role": "assistant", "content": text}


def body(*messages, model=MODEL, **more):
    return dict({"model": model, "messages": [user(m) if isinstance(m, str) else m for m in messages]}, **more)


def refused(r, status, param=None, code=None, message=None):
    """The answer is an error as the OpenAI API has them; returns what is inside."""
    assert r.status == status, (status, r)
    doc = r.json()
    return error_in(doc, param, code, message)


def error_in(doc, param=None, code=None, message=None):
    assert set(doc) == {"error"}, doc
    e = doc["error"]
    assert set(e) == {"message", "type", "param", "code"}, e
    assert all(isinstance(e[k], str) and e[k].strip() for k in ("message", "type")), e
    assert all(e[k] is None or isinstance(e[k], str) for k in ("param", "code")), e
    if param is not None:
        assert e["param"] == param, (param, e)
    if code is not None:
        assert e["code"] == code, (code, e)
    if message is not None:
        assert re.search(message, e["message"]), (message, e)
    return e


def whole(r):
    """A chat completion, checked; its one choice."""
    assert r.status == 200, r
    doc = r.json()
    assert doc["object"] == "chat.completion" and doc["id"].startswith("chatcmpl-"), doc
    assert type(doc["created"]) is int and isinstance(doc["model"], str), doc
    assert len(doc["choices"]) == 1 and doc["choices"][0]["index"] == 0, doc
    m = doc["choices"][0]["message"]
    assert m["role"] == "assistant" and m["refusal"] is None and isinstance(m["content"], (str, type(None))), doc
    usage_in(doc["usage"])
    return doc


def usage_in(u):
    assert u["total_tokens"] == u["prompt_tokens"] + u["completion_tokens"], u
    assert 0 <= u["prompt_tokens_details"]["cached_tokens"] <= u["prompt_tokens"], u
    assert u["completion_tokens_details"]["reasoning_tokens"] == 0, u
    return u


def text_of(r):
    return whole(r)["choices"][0]["message"]["content"]


class Stream:
    """Data lines of an answer that is a stream, as they come; .error is what ended it."""

    def __init__(self, connection, response):
        self.connection, self.response = connection, response
        assert response.status == 200 and response.get("Content-Type").startswith("text/event-stream"), response
        assert response.get("Cache-Control") == "no-cache" and response.get("X-Accel-Buffering") == "no"
        self._pieces, self._data = connection.pieces(response), b""
        self.comments, self.error, self.done = 0, None, False

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.connection.close()

    def lines(self):
        while True:
            while b"\n\n" not in self._data:
                piece = next(self._pieces, None)
                if piece is None:
                    assert self._data == b"", self._data
                    return
                self._data += piece
            event, _, self._data = self._data.partition(b"\n\n")
            yield event.decode("utf-8")

    def __iter__(self):
        """Chunks; [DONE] ends them and must be the last."""
        for event in self.lines():
            if event.startswith(":"):
                self.comments += 1
                continue
            assert event.startswith("data: ") and "\n" not in event, event
            assert not self.done and self.error is None, event
            if event == "data: [DONE]":
                self.done = True
                continue
            doc = json.loads(event[6:])
            if "error" in doc:
                self.error = error_in(doc)
                continue
            assert doc["object"] == "chat.completion.chunk" and doc["id"].startswith("chatcmpl-"), doc
            assert type(doc["created"]) is int and isinstance(doc["choices"], list), doc
            yield doc


class Told:
    """What a client makes of a whole stream."""

    def __init__(self, chunks):
        self.text, self.finish, self.usage, self.calls, roles = "", None, None, {}, 0
        assert len({(c["id"], c["created"], c["model"]) for c in chunks}) <= 1, chunks
        for i, c in enumerate(chunks):
            if not c["choices"]:
                assert self.finish and i == len(chunks) - 1, c
                self.usage = usage_in(c["usage"])
                continue
            choice = c["choices"][0]
            assert choice["index"] == 0 and self.finish is None, c
            delta = choice["delta"]
            assert ("role" in delta) == (i == 0), c
            roles += "role" in delta
            self.text += delta.get("content") or ""
            for call in delta.get("tool_calls", []):
                known = self.calls.setdefault(call["index"], dict(call["function"], id=call["id"]))
                assert known["id"] == call["id"]
            self.finish = choice["finish_reason"]
        assert roles == 1 or not chunks


def stream(g, doc, path=CHAT, headers=None):
    c = g.start("POST", path, dict(doc, stream=True), headers)
    return Stream(c, c.head())


def told(g, doc, headers=None):
    with stream(g, doc, headers=headers) as s:
        chunks = list(s)
        assert s.done and s.error is None, (s.error, chunks)
    return Told(chunks)


def sent(w, i=-1):
    """What a request to the provider held."""
    return w.ai.requests[i]["body"]


def held(w):
    w.ai.piece = 6
    w.ai.hold_after_first_delta = threading.Event()
    return w.ai.hold_after_first_delta


def release(w, gate):
    w.ai.hold_after_first_delta = None
    gate.set()


# ---- models -------------------------------------------------------------------------------------------


def test_models():
    with world({"pricing": {"my-model": {"input": 1, "output": 2}, MODEL: {"input": 1, "output": 2}}}) as w:
        doc = w.g.ask("GET", "/v1/models").json()
        assert doc["object"] == "list" and doc["data"][0]["id"] == "blufio", doc
        ids = [m["id"] for m in doc["data"]]
        assert len(ids) == len(set(ids)) and {MODEL, "claude-opus-5-5", "my-model"} <= set(ids), ids
        for m in doc["data"]:
            assert set(m) == {"id", "object", "created", "owned_by"} and m["object"] == "model", m
            assert type(m["created"]) is int, m
            assert w.g.ask("GET", "/v1/models/" + m["id"]).json() == m
        refused(w.g.ask("GET", "/v1/models/claude-haiku-5"), 404, "model", "model_not_found", "claude-haiku-5-5")
        for scope in ("chat", "read"):
            assert w.g.mint(scope).ask("GET", "/v1/models").status == 200, scope
        refused(w.g.mint("tools").ask("GET", "/v1/models"), 403)


# ---- a model as it is -----------------------------------------------------------------------------------


def test_pass_through():
    """Nothing of the agent goes with it, and nothing of it is kept but the bill."""
    with world() as w:
        doc = whole(w.g.ask("POST", CHAT, body({"role": "system", "content": "Be brief."}, "say hello")))
        choice = doc["choices"][0]
        assert choice["message"]["content"] == "hello" and choice["finish_reason"] == "stop" and doc["model"] == MODEL
        asked = sent(w)
        assert [b["text"] for b in asked["system"]] == ["Be brief."] and "tools" not in asked
        assert asked["model"] == MODEL and len(asked["messages"]) == 1
        t = told(w.g, body("words 30", stream_options={"include_usage": True}))
        assert t.text == " ".join("w%d" % (i + 1) for i in range(30)) and t.finish == "stop"
        plain = told(w.g, body("words 30"))
        assert plain.usage is None and plain.text == t.text
        for table in ("sessions", "inbound", "messages", "turns"):
            assert w.b.query("SELECT count(*) FROM " + table) == [(0,)], table
        rows = w.b.query(FEATURE_API)
        assert len(rows) == 3 and all(r[4:] == (MODEL, 0, 0, 0) for r in rows), rows
        for u, row in ((doc["usage"], rows[0]), (t.usage, rows[1])):
            assert u["prompt_tokens"] == row[0] + row[2] + row[3] and u["completion_tokens"] == row[1], (u, row)
            assert u["prompt_tokens_details"]["cached_tokens"] == row[2]
        assert w.b.query("SELECT sum(nano_usd) FROM cost_ledger") == [(sum(w.ai.cost(b) for b in w.ai.billing),)]


def test_pass_through_of_a_whole_conversation():
    with world() as w:
        png = base64.b64encode(picture()).decode()
        tool = {"type": "function", "function": {"name": "weather", "description": "Looks outside.", "parameters": {
            "type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"], "additionalProperties": False},
            "strict": True}}
        doc = body({"role": "developer", "content": [{"type": "text", "text": "One."}]}, {"role": "system", "content": "Two."},
                   {"role": "user", "name": "ann", "content": [
                       {"type": "text", "text": "Look."}, {"type": "image_url", "image_url": {"url": "data:image/png;base64," + png}},
                       {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,"
                                                 + base64.b64encode("Grüße".encode()).decode()}}]},
                   user("And?"),
                   {"role": "assistant", "content": None, "tool_calls": [
                       {"id": "call:1", "type": "function", "function": {"name": "weather", "arguments": "{\"town\": \"Bern\"}"}},
                       {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": ""}}]},
                   {"role": "tool", "tool_call_id": "call:1", "content": "rain"},
                   {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "s"}, {"type": "text", "text": "un"}]},
                   user("echo history"), tools=[tool])
        assert text_of(w.g.ask("POST", CHAT, doc)).startswith("Tool results: rain; sun")
        asked = sent(w)
        assert [b["text"] for b in asked["system"]] == ["One.\n\nTwo."]
        assert asked["tools"] == [{"name": "weather", "description": "Looks outside.", "strict": True,
                                   "input_schema": tool["function"]["parameters"]}]
        assert [m["role"] for m in asked["messages"]] == ["user", "assistant", "user"]
        first, second, third = [m["content"] for m in asked["messages"]]
        assert first == [{"type": "text", "text": "Look."},
                         {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png}},
                         {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"},
                          "title": "a.txt"}, {"type": "text", "text": "And?"}]
        assert second == [{"type": "tool_use", "id": "call_1", "name": "weather", "input": {"town": "Bern"}},
                          {"type": "tool_use", "id": "call_2", "name": "weather", "input": {}}]
        assert third == [{"type": "tool_result", "tool_use_id": "call_1", "content": "rain"},
                         {"type": "tool_result", "tool_use_id": "call_2", "content": "sun"}, {"type": "text", "text": "echo history"}]
        # an assistant that greets first
        assert text_of(w.g.ask("POST", CHAT, body(said("Hello, I am here."), "say hi"))) == "hi"


def test_pass_through_calls_come_back():
    with world() as w:
        tools = [{"type": "function", "function": {"name": n, "parameters": {"type": "object", "properties": {}}}}
                 for n in ("zeta", "alpha")]
        w.ai.script = [tool_answer([("alpha", {"a": "ü\"\\"}), ("zeta", {})], say="Let me look."),
                       tool_answer([("alpha", {})])] * 2
        doc = whole(w.g.ask("POST", CHAT, body("go", tools=tools)))["choices"][0]
        assert doc["finish_reason"] == "tool_calls" and doc["message"]["content"] == "Let me look."
        calls = doc["message"]["tool_calls"]
        assert [c["function"]["name"] for c in calls] == ["alpha", "zeta"] and all(c["type"] == "function" for c in calls)
        assert json.loads(calls[0]["function"]["arguments"]) == {"a": "ü\"\\"} and len({c["id"] for c in calls}) == 2
        assert [t["name"] for t in sent(w)["tools"]] == ["alpha", "zeta"]
        doc = whole(w.g.ask("POST", CHAT, body("go", tools=tools)))["choices"][0]
        assert doc["message"]["content"] is None and doc["finish_reason"] == "tool_calls"
        t = told(w.g, body("go", tools=tools))
        assert t.finish == "tool_calls" and t.text == "Let me look." and [t.calls[i]["name"] for i in (0, 1)] == ["alpha", "zeta"]
        assert json.loads(t.calls[0]["arguments"]) == {"a": "ü\"\\"}


def test_pass_through_of_the_offline_provider():
    with world({"providers": {"default": "echo"}}) as w:
        assert text_of(w.g.ask("POST", CHAT, body("hello", model="echo"))) == "[offline echo] hello"
        assert told(w.g, body("hello", model="echo")).text == "[offline echo] hello"


def test_a_length_limit():
    with world() as w:
        for key in ("max_tokens", "max_completion_tokens"):
            doc = whole(w.g.ask("POST", CHAT, body("words 100", **{key: 5})))
            assert doc["choices"][0]["finish_reason"] == "length" and sent(w)["max_tokens"] == 5
        assert told(w.g, body("words 100", max_tokens=5)).finish == "length"
        whole(w.g.ask("POST", CHAT, body("say x", max_tokens=10**9)))
        assert sent(w)["max_tokens"] == 128000


# ---- every field ------------------------------------------------------------------------------------------


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


def wish(asked, *path):
    for name in path:
        asked = asked.get(name, {}) if isinstance(asked, dict) else None
    return asked


# docs/API.md has this table in words. Of each field: values and what the provider is asked then.
HONOURED = {
    "model": [(MODEL, lambda a: a["model"] == MODEL), ("claude-sonnet-5-5", lambda a: a["model"] == "claude-sonnet-5-5")],
    "messages": [([user("say this")], lambda a: a["messages"][0]["content"] == [{"type": "text", "text": "say this"}])],
    "max_tokens": [(77, lambda a: a["max_tokens"] == 77)],
    "max_completion_tokens": [(78, lambda a: a["max_tokens"] == 78)],
    "stop": [("END", lambda a: a["stop_sequences"] == ["END"]), (["a", "b"], lambda a: a["stop_sequences"] == ["a", "b"]),
             ([], lambda a: "stop_sequences" not in a)],
    "tools": [(TOOLS, lambda a: [t["name"] for t in a["tools"]] == ["f"]), ([], lambda a: "tools" not in a)],
    "tool_choice": [("auto", lambda a: "tool_choice" not in a), ("none", lambda a: a["tool_choice"] == {"type": "none"})],
    "parallel_tool_calls": [(True, lambda a: "tool_choice" not in a),
                            (False, lambda a: a["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True})],
    "response_format": [({"type": "text"}, lambda a: "output_config" not in a),
                        ({"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}},
                         lambda a: a["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}),
                        ({"type": "json_object"}, lambda a: "JSON object" in a["system"][-1]["text"])],
    "reasoning_effort": [("none", lambda a: a["output_config"]["effort"] == "low"),
                         ("minimal", lambda a: a["output_config"]["effort"] == "low")]
    + [(e, lambda a, e=e: a["output_config"] == {"effort": e}) for e in ("low", "medium", "high", "xhigh", "max")],
}
# of the answer, not of what the provider is asked: proven by tests of their own
ELSEWHERE = {"stream", "stream_options", "user", "safety_identifier", "prompt_cache_key"}
# may be there as long as they ask for nothing; else refused
REFUSED = {
    "n": ([1, None], [2, 0, "1", True]), "logprobs": ([False, None], [True]), "top_logprobs": ([0, None], [3]),
    "logit_bias": ([{}, None], [{"50256": -100}]), "audio": ([None], [{"voice": "alloy", "format": "wav"}]),
    "modalities": ([["text"], None], [["text", "audio"], ["audio"]]), "web_search_options": ([None], [{"x": 1}]),
    "functions": ([None, []], [[{"name": "f"}]]), "function_call": ([None], ["auto", {"name": "f"}]),
}
IGNORED = {
    "temperature": [0, 1, 2], "top_p": [1, 0.1], "presence_penalty": [0, 1], "frequency_penalty": [0, -1], "seed": [7],
    "store": [True], "metadata": [{"a": "b"}], "service_tier": ["flex"], "prediction": [{"type": "content", "content": "x"}],
    "verbosity": ["low"], "prompt_cache_options": [{"mode": "implicit"}], "moderation": [{"x": 1}], "something_new": [{"y": [1]}],
}
WRONG_TYPES = {
    "model": [5, [], {}, True, ""], "messages": ["x", {}, 5, True], "max_tokens": ["5", 0, -1, 1.5, [], True],
    "max_completion_tokens": ["5", 0, {}], "stop": [5, {}, [5], [""], [" \n"], "", [["x"]], ["x"] * 17, [None]],
    "stream": ["true", 1, []], "stream_options": ["x", 5, []], "tools": ["x", {}, 5, [5], [{}], [{"type": "custom", "custom": {}}],
                                                                   [{"type": "function"}], TOOLS * 2,
                                                                   [{"type": "function", "function": {"name": "a b"}}],
                                                                   [{"type": "function", "function": {"name": "f", "parameters": []}}],
                                                                   [{"type": "function", "function": {"name": "f", "parameters": {
                                                                       "type": "array"}}}]],
    "tool_choice": ["required", 5, {"type": "function", "function": {"name": "f"}}, {"type": "allowed_tools"}, [], "any"],
    "parallel_tool_calls": ["x", 1], "response_format": ["json", 5, [], {"type": "xml"}, {"type": "json_schema"},
                                                        {"type": "json_schema", "json_schema": {"schema": []}}],
    "reasoning_effort": [5, "very", {}], "user": [5, []], "safety_identifier": [{}], "prompt_cache_key": [1],
}


def every_field(w, path, plain, needed, honoured, refuses, ignores, wrong):
    def ask(**more):
        n = len(w.ai.requests)
        r = w.g.ask("POST", path, dict(plain, **more))
        return r, [x["body"] for x in w.ai.requests[n:]]
    r, (base,) = ask()
    assert r.status == 200, r
    for name, values in honoured.items():
        for value, holds in values:
            r, asked = ask(**{name: value})
            assert r.status == 200 and len(asked) == 1 and holds(asked[0]), (name, value, r, asked)
        if name not in needed:
            assert ask(**{name: None})[0].status == 200, name
    for name, (fine, bad) in refuses.items():
        for value in fine:
            r, asked = ask(**{name: value})
            assert r.status == 200 and asked == [base], (name, value, r)
        for value in bad:
            r, asked = ask(**{name: value})
            refused(r, 400, name)
            assert asked == [], (name, value)
    for name, values in ignores.items():
        for value in values + [None, "x", []]:
            r, asked = ask(**{name: value})
            assert r.status == 200 and asked == [base], (name, value, r)
    for name, values in wrong.items():
        for value in values:
            r, asked = ask(**{name: value})
            try:
                refused(r, 400, name)
            except AssertionError as e:
                raise AssertionError("%s = %r: %s" % (name, value, e))
            assert asked == []
    for name in needed:
        refused(w.g.ask("POST", path, {k: v for k, v in plain.items() if k != name}), 400, name)


def test_every_field_of_chat_completions():
    assert set(WRONG_TYPES) == set(HONOURED) | ELSEWHERE
    with world() as w:
        every_field(w, CHAT, dict(body("say x"), tools=TOOLS), ("model", "messages"), HONOURED, REFUSED, IGNORED, WRONG_TYPES)


# The same of the Responses API.
FLAT = [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": None}]
R_HONOURED = {
    "model": HONOURED["model"], "tool_choice": HONOURED["tool_choice"], "parallel_tool_calls": HONOURED["parallel_tool_calls"],
    "input": [("say this", lambda a: a["messages"][0]["content"] == [{"type": "text", "text": "say this"}]),
              ([user("say that")], lambda a: a["messages"][0]["content"] == [{"type": "text", "text": "say that"}]),
              ([{"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
                {"type": "message", "role": "user", "content": [
                    {"type": "input_text", "text": "say this"},
                    {"type": "input_image", "image_url": data_url(picture())},
                    {"type": "input_file", "filename": "a.txt", "file_data": data_url(b"text", "text/plain")}]},
                {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
                {"type": "message", "role": "assistant", "id": "m", "status": "completed", "phase": "commentary",
                 "content": [{"type": "output_text", "text": "Wait.", "annotations": []}]},
                {"type": "function_call", "id": "fc", "call_id": "c1", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "done"}],
               lambda a: [[b["type"] for b in m["content"]] for m in a["messages"]] == [
                   ["text", "image", "document"], ["text", "tool_use"], ["tool_result"]]
               and a["system"][0]["text"] == "Be brief.")],
    "instructions": [("Be brief.", lambda a: a["system"][0]["text"] == "Be brief.")],
    "max_output_tokens": [(77, lambda a: a["max_tokens"] == 77)],
    "reasoning": [({"effort": "low", "summary": "auto"}, lambda a: a["output_config"] == {"effort": "low"}),
                  ({"summary": "auto"}, lambda a: "output_config" not in a)],
    "text": [({"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}},
              lambda a: a["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}),
             ({"verbosity": "low", "format": {"type": "text"}}, lambda a: "output_config" not in a)],
    "tools": [(FLAT, lambda a: [t["name"] for t in a["tools"]] == ["f"]), ([], lambda a: "tools" not in a)],
}
R_ELSEWHERE = {"stream", "stream_options", "user", "safety_identifier", "prompt_cache_key", "previous_response_id"}
R_REFUSED = {"conversation": ([None], ["conv_1", {"id": "conv_1"}]), "background": ([False, None], [True]),
             "prompt": ([None], [{"id": "pmpt_1"}]), "top_logprobs": ([0, None], [3])}
R_IGNORED = {"temperature": [0, 1], "top_p": [0.5], "store": [False], "metadata": [{"a": "b"}], "service_tier": ["flex"],
             "include": [["reasoning.encrypted_content"]], "truncation": ["auto"], "max_tool_calls": [3],
             "context_management": [[{"type": "compaction"}]], "something_new": [{"y": [1]}]}
R_WRONG = dict({k: WRONG_TYPES[k] for k in ("model", "stream", "stream_options", "tool_choice", "parallel_tool_calls", "user",
                                            "safety_identifier", "prompt_cache_key")}, **{
    "input": [5, {}, True, "", " ", [], ["x"], [{"type": "web_search_call"}], [{"type": "item_reference", "id": "x"}], [said("begun")],
              [{"type": "function_call_output", "output": "x"}],
              [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]],
    "instructions": [5, {}], "max_output_tokens": [0, "5"], "reasoning": ["low", {"effort": "very"}], "previous_response_id": [5, []],
    "text": ["x", {"format": {"type": "xml"}}], "tools": ["x", [5], [{"type": "web_search"}], TOOLS, FLAT * 2]})


def test_every_field_of_responses():
    assert set(R_WRONG) == set(R_HONOURED) | R_ELSEWHERE
    with world() as w:
        every_field(w, RESPONSES, {"model": MODEL, "input": "say x", "tools": FLAT}, ("model", "input"), R_HONOURED, R_REFUSED,
                    R_IGNORED, R_WRONG)
        refused(w.g.ask("POST", RESPONSES, {"model": MODEL, "input": "x", "previous_response_id": "resp_1"}), 400,
                "previous_response_id")
        w.ai.prefix_violations.clear()                  # these are no conversation


def test_the_table_of_fields_is_in_the_documents():
    """docs/API.md says of each field what the tests above prove."""
    with open(DOCS, encoding="utf-8") as f:
        text = f.read()
    for table in (HONOURED, ELSEWHERE, REFUSED, IGNORED, R_HONOURED, R_ELSEWHERE, R_REFUSED, R_IGNORED):
        for name in table:
            assert "`%s`" % name in text or name == "something_new", name


def test_messages_that_are_none():
    bad = [
        [], ["x"], [5], [{}], [{"role": "user"}], [{"role": "user", "content": ""}], [{"role": "user", "content": 5}],
        [{"role": "user", "content": {}}], [{"role": "user", "content": ["x"]}], [{"role": "wizard", "content": "x"}],
        [{"role": 5, "content": "x"}], [{"role": "system", "content": "x"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,@@@"}}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AAAA"}}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(b"no picture at all")}}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(picture(), "image/jpeg")}}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(picture(8001, 1))}}]}],
        [{"role": "user", "content": [{"type": "file", "file": {"file_data": data_url(b"none", "application/pdf")}}]}],
        [{"role": "user", "content": [{"type": "image_url"}]}],
        [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]}],
        [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}],
        [{"role": "user", "content": [{"type": "file", "file": {"file_data": "data:text/plain;base64,/w=="}}]}],
        [{"role": "user", "content": [{"type": "video"}]}],
        [user("x"), {"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
         user("y")],
        [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}, user("x")],
        [user("x"), said("begun")],                     # what has been begun is not gone on with
        [user("x"), {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}]}, user("y")],
        [user("x"), {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "[]"}}]}, user("y")],
        [user("x"), {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "", "arguments": "{}"}}]}, user("y")],
        [user("x"), {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}, user("y")],
        [user("x"), {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "[" * 126 + "]" * 126}}]},
         user("y")],
        [user("x"), {"role": "tool", "content": "x"}], [{"role": "tool", "tool_call_id": "a", "content": [{"type": "image_url"}]}],
        [{"role": "tool", "tool_call_id": "a", "content": "1"}, {"role": "tool", "tool_call_id": "a", "content": "2"}],
        [user("x")] + [m for i in range(1001) for m in (said("a"), user("b"))],
    ]
    with world() as w:
        for model in (MODEL, "blufio"):
            for messages in bad:
                try:
                    refused(w.g.ask("POST", CHAT, {"model": model, "messages": messages}), 400, "messages")
                except AssertionError as e:
                    raise AssertionError("%s: %s" % (json.dumps(messages)[:300], e))
        for data in (b"", b"{", b"[]", b"null", b'{"model": "\xff"}', b"[" * 5000):
            refused(w.g.ask("POST", CHAT, data), 400)
        assert w.ai.requests == [] and w.b.query("SELECT count(*) FROM inbound") == [(0,)]


# ---- what is refused before a route runs --------------------------------------------------------------------


def test_errors_have_one_shape():
    with world() as w:
        nobody, wrong = Gateway(w.b), Gateway(w.b, "blf_sk_" + "0" * 64)
        e = refused(nobody.ask("POST", CHAT, body("x")), 401, code="invalid_api_key")
        assert e["type"] == "invalid_request_error"
        refused(wrong.ask("GET", "/v1/models"), 401, code="invalid_api_key")
        refused(w.g.mint("read").ask("POST", CHAT, body("x")), 403)
        refused(w.g.ask("GET", "/v1/chat/nothing"), 404)
        r = w.g.ask("GET", CHAT)
        refused(r, 405)
        assert "POST" in r.get("Allow")
        refused(w.g.ask("POST", CHAT, body("x"), {"Content-Type": "text/plain"}), 415)
        with w.g.start("POST", CHAT, b"", {"Content-Length": str(1 << 30)}) as c:
            refused(c.response(), 413)
        refused(w.g.ask("POST", CHAT, body("x", model="gpt-4o")), 404, "model", "model_not_found", "claude")
        slow = w.g.mint("chat", rate_limit_per_minute=1)
        slow.ask("GET", "/v1/models")
        r = slow.ask("GET", "/v1/models")
        e = refused(r, 429, code="rate_limit_exceeded")
        assert e["type"] == "rate_limit_exceeded" and int(r.get("Retry-After")) > 0
        # and those of the other routes have theirs
        assert set(nobody.ask("GET", "/v1/cost").json()["error"]) == {"type", "message", "hint", "request_id"}


def test_more_than_a_body_may_have():
    with world() as w:
        with w.g.connect() as c:
            c.request("POST", CHAT, [b"x" * 65536] * 1024, w.g.headers(b"", None))
            try:
                refused(c.response(), 413)
            except Cut:                                 # it hung up while we still wrote
                assert c.reset
        assert text_of(w.g.ask("POST", CHAT, body("say x" + " " * 1800000))) == "x"


# ---- a provider that fails -----------------------------------------------------------------------------------


def test_pass_through_failures():
    with world() as w:
        for kind, options, status, code in (
                ("529", {}, 503, "overloaded"), ("500", {}, 503, "overloaded"), ("reset", {}, 503, "overloaded"),
                ("html", {}, 503, "overloaded"), ("empty", {}, 503, "overloaded"), ("cut", {"k": 0}, 503, "overloaded"),
                ("429", {"retry_after": 7}, 429, "rate_limit_exceeded"), ("401", {}, 502, "provider_refused"),
                ("402", {}, 402, "insufficient_quota"), ("404", {}, 404, "model_not_found"),
                ("413", {}, 400, "context_length_exceeded"), ("400", {}, 400, "invalid_request")):
            for ask in (lambda: w.g.ask("POST", CHAT, body("say x")), lambda: w.g.ask("POST", CHAT, body("say x", stream=True))):
                n = len(w.ai.requests)
                w.ai.fail_next(kind, **options)
                r = ask()
                try:
                    refused(r, status, code=code)
                except AssertionError as e:
                    raise AssertionError("%s: %s" % (kind, e))
                assert len(w.ai.requests) == n + 1      # the client decides whether it comes again
                assert kind != "429" or r.get("Retry-After") == "7"
        for kind, options in (("cut", {"k": 2}), ("error_event", {"k": 2}), ("fin", {"k": 2})):
            w.ai.piece = 3
            w.ai.fail_next(kind, **options)
            with stream(w.g, body("say alpha beta gamma")) as s:
                chunks = list(s)
            assert chunks and s.error["code"] == "overloaded" and not s.done, (kind, s.error)
        # what they cost is booked, as far as it is known
        w.ai.piece = None
        assert text_of(w.g.ask("POST", CHAT, body("say on"))) == "on"
        assert [r[7] for r in w.b.query(FEATURE_API)][-4:] == [1, 1, 1, 0]


def test_a_cap_that_is_reached():
    with world({"cost": {"daily_budget_usd": 0.0001}}) as w:
        for doc in (body("say two"), body("say two", stream=True)):
            e = refused(w.g.ask("POST", CHAT, doc), 429, code="insufficient_quota", message="budget")
            assert e["type"] == "insufficient_quota"
        assert len(w.ai.requests) == 0          # it might have cost more


def test_rate_limits_of_the_provider():
    with world() as w:
        w.ai.limit("claude-haiku", 30, requests=1)
        whole(w.g.ask("POST", CHAT, body("say one")))
        r = w.g.ask("POST", CHAT, body("say two"))
        refused(r, 429, code="rate_limit_exceeded")
        assert int(r.get("Retry-After")) > 1 and len(w.ai.requests) == 1 and not w.ai.bitten


def test_a_refusal():
    with world() as w:
        w.ai.fail_next("refusal", n=2)
        doc = whole(w.g.ask("POST", CHAT, body("say x")))["choices"][0]
        assert doc["finish_reason"] == "content_filter" and "refused" in doc["message"]["content"]
        t = told(w.g, body("say x"))
        assert t.finish == "content_filter" and "refused" in t.text


# ---- clients that leave ----------------------------------------------------------------------------------------


def test_a_client_that_leaves_ends_its_call():
    """It is not waited for, and what was used is booked."""
    with world() as w:
        def begun():
            text = w.g.ask("GET", "/metrics").body.decode()
            return int(re.search(r"blufio_first_token_seconds_count (\d+)", text).group(1))
        for n, doc in enumerate((body("say alpha beta gamma", stream=True), body("say alpha beta gamma")), 1):
            gate = held(w)
            c = w.g.start("POST", CHAT, doc)
            w.wait(lambda: begun() == n, "the first piece of the answer")
            c.close()
            w.wait(lambda: len(w.b.query(FEATURE_API)) == n, "booked")
            assert w.b.query(FEATURE_API)[-1][7] == 1 and w.b.query(FEATURE_API)[-1][0] > 0
            release(w, gate)
        assert text_of(w.g.ask("POST", CHAT, body("say on"))) == "on"


def test_a_call_that_runs_when_the_daemon_ends():
    with world({"agent": {"drain_timeout": 1}}) as w:
        gate = held(w)
        with stream(w.g, body("say alpha beta gamma")) as s:
            first = iter(s)
            next(first)
            next(first)
            assert w.b.stop() == 0
            release(w, gate)
        assert [r[7] for r in w.b.query(FEATURE_API)] == [1]
        w.b.start()


def test_a_call_that_ends_while_the_daemon_drains():
    with world({"agent": {"drain_timeout": 20}}) as w:
        gate = held(w)
        with stream(w.g, body("say alpha beta gamma")) as s:
            first = iter(s)
            chunks = [next(first), next(first)]
            w.b.signal(15)
            w.b.wait_log("stopping")
            release(w, gate)
            chunks += list(first)
            assert s.done and Told(chunks).text == "alpha beta gamma"
        assert w.b.wait_exit() == 0
        assert [r[7] for r in w.b.query(FEATURE_API)] == [0]
        w.b.start()


def test_a_pause_ends_calls():
    """Of models as they are too, and what was used is booked."""
    with world() as w:
        gate = held(w)
        s = stream(w.g, body("say alpha beta gamma"))
        c = w.g.start("POST", CHAT, body("say delta"))
        w.wait(lambda: len(w.ai.requests) == 2 and next(iter(s)), "the first piece of an answer")
        assert w.b.cli("pause")[0] == 0
        assert len(w.b.query(FEATURE_API)) == 2 and w.b.query("SELECT count(*) FROM reservations") == [(0,)]
        list(s)
        error_in({"error": s.error}, code="insufficient_quota", message="paused")
        refused(c.response(), 429, code="insufficient_quota", message="paused")
        release(w, gate)
        refused(w.g.ask("POST", CHAT, body("say no")), 429, code="insufficient_quota", message="paused")
        assert w.b.cli("resume")[0] == 0 and text_of(w.g.ask("POST", CHAT, body("say on"))) == "on"


def test_memory_that_is_made_anew_ends_calls():
    """A group moved: what was set aside for a call is booked then, so the call may not go on."""
    group, new = -555, -1009876543210
    with world() as w:
        w.tg.add_chat(group, "group")
        w.tg.send_text(OWNER, "@blufio_test_bot say one", chat_id=group, chat_type="group")
        w.wait(lambda: w.tg.texts(group), "the answer")
        gate = held(w)
        s = stream(w.g, body("words 900"))
        c = w.g.start("POST", CHAT, body("words 900"))
        w.wait(lambda: len(w.ai.requests) == 3 and next(iter(s)), "the first piece of an answer")
        w.tg.add_chat(new, "supergroup")
        w.tg.push_update({"message": {"message_id": 900, "date": int(time.time()), "migrate_to_chat_id": new, "chat": {
            "id": group, "type": "group"}, "from": {"id": OWNER, "is_bot": False, "first_name": "Ann"}}})
        list(s)
        error_in({"error": s.error}, message="ask again")
        refused(c.response(), 503, message="ask again")
        w.wait(lambda: not w.ai.book.open, "the provider to see that nobody listens")
        release(w, gate)
        assert text_of(w.g.ask("POST", CHAT, body("say on"))) == "on" and w.settle_up() == []
        assert not [line for line in w.b.logs(True) if line["level"] == "error"]


def test_a_slow_reader():
    with world() as w:
        w.ai.script = lambda ask: "x" * 500000
        w.ai.piece = 5000
        c = Connection(w.g.port, receive_buffer=4096)
        w.g.start("POST", CHAT, body("go", stream=True, max_tokens=128000), connection=c)
        w.wait(lambda: w.ai.requests, "asked")
        with Stream(c, c.head()) as s:
            assert Told(list(s)).text == "x" * 500000


def test_many_failures_at_once():
    """Calls that were under way when the provider failed are one outage, of which people are told in seconds."""
    with world() as w:
        w.ai.fail_next("500", n=16)
        gate = w.ai.hold = threading.Event()
        asked = [w.g.start("POST", CHAT, body("say %d" % i)) for i in range(16)]
        w.wait(lambda: len(w.ai.requests) == 16, "asked")
        w.ai.hold = None
        gate.set()
        assert [c.response().status for c in asked] == [503] * 16
        assert w.say("say on", timeout=60) == "on"


def test_so_many_calls_at_once():
    with world() as w:
        gate = held(w)
        many = [w.g.start("POST", CHAT, body("say %d abcdefgh" % i)) for i in range(32)]
        w.wait(lambda: len(w.ai.requests) == 32, "all asked")
        r = w.g.ask("POST", CHAT, body("say more"))
        refused(r, 429, code="rate_limit_exceeded")
        assert r.get("Retry-After") == "1"
        release(w, gate)
        for i, c in enumerate(many):
            with c:
                assert text_of(c.response()) == "%d abcdefgh" % i
        assert text_of(w.g.ask("POST", CHAT, body("say more"))) == "more"


# ---- the agent ---------------------------------------------------------------------------------------------------


def agent(*messages, **more):
    return body(*messages, model="blufio", **more)


def rows(w, session=None):
    """What stands in the histories, in words."""
    def words(content):
        return " ".join(b.get("text", b["type"]) for b in json.loads(content))
    where = "WHERE void = 0" + ("" if session is None else " AND session_id = %d" % session)
    return [(s, role, words(content)) for s, role, content in w.b.query(
        "SELECT session_id, role, content FROM messages %s ORDER BY session_id, seq" % where)]


def talk(w, history, text, g=None, headers=None, **more):
    """The client's way: all that was said, and the answer is added to it."""
    history.append(user(text))
    answer = text_of((g or w.g).ask("POST", CHAT, agent(*history, **more), headers))
    history.append(said(answer))
    return answer


def parted(w):
    """Histories that part are meant to; in all other tests the fake watches that none changes."""
    w.ai.prefix_violations.clear()


def count(w, table):
    return w.b.query("SELECT count(*) FROM " + table)[0][0]


def test_the_agent_answers():
    with world({"agent": {"system_prompt": "You are Blufio."}}) as w:
        doc = whole(w.g.ask("POST", CHAT, agent("tools")))
        choice = doc["choices"][0]
        assert doc["model"] == "blufio" and choice["finish_reason"] == "stop"
        assert choice["message"]["content"].startswith("Let me look.") and "Tool results" in choice["message"]["content"]
        asked = sent(w, 0)
        assert asked["system"][0]["text"] == "You are Blufio." and {"time_now"} <= {t["name"] for t in asked["tools"]}
        ledger = w.b.query("SELECT sum(input + cache_read + write_5m + write_1h), sum(output), sum(cache_read) FROM cost_ledger")
        u = doc["usage"]
        assert (u["prompt_tokens"], u["completion_tokens"], u["prompt_tokens_details"]["cached_tokens"]) == ledger[0]
        t = told(w.g, agent("words 50", stream_options={"include_usage": True}))
        assert t.text == " ".join("w%d" % (i + 1) for i in range(50)) and t.finish == "stop" and t.usage["total_tokens"] > 0
        ledger = w.b.query("SELECT sum(input + output + cache_read + write_5m + write_1h) FROM cost_ledger GROUP BY turn_id")
        assert [(u["total_tokens"],), (t.usage["total_tokens"],)] == ledger
        assert whole(w.g.ask("POST", CHAT, agent("tools"), {"X-Stainless-Retry-Count": "1"})) == doc
        ids = [r[0] for r in w.b.query("SELECT id FROM inbound ORDER BY id")]
        assert doc["id"] == "chatcmpl-%d" % ids[0]


def test_the_whole_history_every_time_is_told_once():
    """Without a name: found by what was told before."""
    with world() as w:
        history = [{"role": "system", "content": "Be kind."}]
        for text in ("say one", "think say two", "tools", "words 30"):
            talk(w, history, text)
        assert talk(w, history, "echo history") == "You wrote: say one | think say two | tools | words 30"
        assert count(w, "sessions") == 1 and count(w, "turns") == 5
        assert [r[1] for r in rows(w) if not r[2].startswith("tool_result")].count("user") == 5
        # the same client, another conversation; and another client with the same words
        assert talk(w, [], "echo history").strip() == "You wrote:"
        other = w.g.mint("chat")
        assert talk(w, [], "say one", other) == "one" and count(w, "sessions") == 3
        w.b.restart(hard=True)
        assert talk(w, history, "say after") == "after" and count(w, "sessions") == 3


def test_two_keys_do_not_meet():
    with world() as w:
        g1, g2 = w.g.mint("chat"), w.g.mint("chat")
        one, two = [], []
        talk(w, one, "say secret", g1)
        two = list(one)
        assert talk(w, two, "echo history", g2) == "You wrote: say secret"     # because it says so itself
        assert count(w, "sessions") == 2
        talk(w, [], "say hidden", g1, {"Blufio-Session": "x"})
        assert talk(w, [], "echo history", g2, {"Blufio-Session": "x"}).strip() == "You wrote:"
        assert count(w, "sessions") == 4
        # the same words of each are its own, also of one that may see all
        retry = {"X-Stainless-Retry-Count": "1"}
        same = [whole(g.ask("POST", CHAT, agent("say the same")))["id"] for g in (g1, g2, w.g)]
        assert [whole(g.ask("POST", CHAT, agent("say the same"), retry))["id"] for g in (g1, g2, w.g)] == same
        assert len(set(same)) == 3


def test_a_named_conversation():
    with world() as w:
        for n, (headers, more) in enumerate((({"Blufio-Session": "a"}, {}), (None, {"user": "ann"}),
                                             (None, {"safety_identifier": "ben"}), (None, {"prompt_cache_key": "k" * 200}))):
            # one that sends what is new alone
            assert talk(w, [], "say one", headers=headers, **more) == "one"
            assert talk(w, [], "echo history", headers=headers, **more) == "You wrote: say one"
            # one that sends everything, and has something of before
            history = [user("before"), said("aha")]
            assert talk(w, history, "say two", headers=headers, **more) == "two"
            assert talk(w, history, "echo history", headers=headers, **more) == "You wrote: say one | echo history | say two"
            assert count(w, "sessions") == n + 1
        # the header is worth more than the others
        assert talk(w, [], "echo history", headers={"Blufio-Session": "a"}, user="ann").startswith("You wrote: say one | echo")
        users = {r[0] for r in w.b.query("SELECT external_id FROM identities WHERE channel = 'gateway'")}
        assert {u.partition("/")[2] for u in users} == {"", "ann", "ben"}, users


def test_a_conversation_that_began_elsewhere():
    """What is not in our rows comes from what the client tells, pictures and calls too."""
    with world() as w:
        call = {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]}
        history = [{"role": "user", "content": [{"type": "text", "text": "first"},
                                                {"type": "image_url", "image_url": {"url": data_url(picture())}}]},
                   call, {"role": "tool", "tool_call_id": "c1", "content": "rain"}, said("It rains.")]
        assert talk(w, history, "echo history") == "You wrote: first | (A picture was here.)"
        assert [m["role"] for m in sent(w)["messages"]] == ["user", "assistant", "user", "assistant", "user"]
        assert talk(w, history, "echo history") == "You wrote: first | (A picture was here.) | echo history"
        assert count(w, "sessions") == 1
        assert talk(w, [user("x"), said("y")], "echo history", headers={"Blufio-Session": "n"}) == "You wrote: x"


def test_an_edited_history_is_another_conversation():
    with world() as w:
        history = []
        for text in ("say one", "say two", "say three"):
            talk(w, history, text)
        # an answer was edited: only the client knows it
        edited = history[:3] + [said("TWO")]
        assert talk(w, edited, "echo history") == "You wrote: say one | say two"
        assert "TWO" in [r[2] for r in rows(w)] and count(w, "sessions") == 2
        # a question in the middle was edited: what was before it stands in our rows, thoughts and all
        branch = history[:2]
        assert talk(w, branch, "echo history") == "You wrote: say one" and count(w, "sessions") == 3
        assert talk(w, branch, "echo history") == "You wrote: say one | echo history" and count(w, "sessions") == 3
        # and the first conversation goes on where it was
        assert talk(w, history, "echo history") == "You wrote: say one | say two | say three" and count(w, "sessions") == 3
        parted(w)


def test_a_branch_keeps_what_was_thought():
    """The copy is byte for byte what was sent before, so that the provider's cache and its signatures hold."""
    with world() as w:
        history = []
        for text in ("think say one", "think say two", "think say three"):
            talk(w, history, text)
        branch = history[:4]
        assert talk(w, branch, "think say other") == "other"
        thoughts = [b for m in sent(w)["messages"] for b in m["content"] if b["type"] == "thinking"]
        assert len(thoughts) == 2 and count(w, "sessions") == 2 and w.b.query("SELECT max(thinking_seq) FROM sessions") == [(0,)]
        parted(w)


def test_another_answer_to_the_same():
    """A client's button "regenerate": it tells the same again, although it has the answer."""
    with world() as w:
        answers = iter(["first", "second", "third", "fourth", "fifth"])
        w.ai.script = lambda ask: next(answers)
        ask = [user("a question")]
        assert text_of(w.g.ask("POST", CHAT, agent(*ask))) == "first"
        assert text_of(w.g.ask("POST", CHAT, agent(*ask))) == "second"
        assert [r[1:] for r in rows(w)] == [("user", "a question"), ("assistant", "first"),
                                            ("user", "a question"), ("assistant", "second")]
        assert len({r[0] for r in rows(w)}) == 2        # a branch, not a conversation that asks twice
        # both go on
        assert text_of(w.g.ask("POST", CHAT, agent(*ask, said("second"), user("and")))) == "third"
        assert text_of(w.g.ask("POST", CHAT, agent(*ask, said("first"), user("and")))) == "fourth"
        assert [[t for s, _, t in rows(w) if s == n] for n in (1, 2)] == [
            ["a question", "first", "and", "fourth"], ["a question", "second", "and", "third"]]
        # in the middle of a longer one
        assert text_of(w.g.ask("POST", CHAT, agent(*ask, said("first"), user("and")))) == "fifth"
        assert [t for s, _, t in rows(w) if s == 3] == ["a question", "first", "and", "fifth"]
        parted(w)


def test_another_answer_in_a_named_conversation():
    with world() as w:
        answers = iter(["first", "second", "third", "fourth"])
        w.ai.script = lambda ask: next(answers)
        n = {"Blufio-Session": "n"}
        history = []
        talk(w, history, "one", headers=n)
        talk(w, history, "two", headers=n)
        assert text_of(w.g.ask("POST", CHAT, agent(*history[:-1]), n)) == "third"
        assert [r[2] for r in rows(w)] == ["one", "first", "two", "third"] and count(w, "sessions") == 1
        # a client that sends what is new alone may say the same twice
        text_of(w.g.ask("POST", CHAT, agent("two"), n))
        assert [r[2] for r in rows(w)][-2:] == ["two", "fourth"]


def test_a_retry_is_not_another_question():
    """A client that lost its connection gets the one answer that there is, and it is paid once."""
    retry = {"X-Stainless-Retry-Count": "1"}
    with world() as w:
        doc = agent("say alpha beta gamma")
        gate = held(w)
        first = w.g.start("POST", CHAT, doc)
        w.wait(lambda: w.ai.requests, "asked")
        first.close()
        with stream(w.g, doc, headers=retry) as s:      # while it is made
            it = iter(s)
            chunks = [next(it), next(it)]
            release(w, gate)
            chunks += list(it)
        assert Told(chunks).text == "alpha beta gamma"
        assert text_of(w.g.ask("POST", CHAT, doc, retry)) == "alpha beta gamma"        # when it is there
        assert len(w.ai.requests) == 1 and count(w, "turns") == 1
        # nobody was there to take it: whoever comes first gets it
        gate = held(w)
        c = w.g.start("POST", CHAT, agent("say delta epsilon"))
        w.wait(lambda: len(w.ai.requests) == 2, "asked")
        c.close()
        release(w, gate)
        w.wait(lambda: w.b.query("SELECT state FROM turns ORDER BY id DESC LIMIT 1") == [(5,)], "answered")
        assert text_of(w.g.ask("POST", CHAT, agent("say delta epsilon"))) == "delta epsilon"
        assert len(w.ai.requests) == 2
        # both at once
        gate = held(w)
        many = [w.g.start("POST", CHAT, agent("say zeta eta theta")) for i in range(5)]
        w.wait(lambda: len(w.ai.requests) == 3, "asked")
        release(w, gate)
        for c in many:
            with c:
                assert text_of(c.response()) == "zeta eta theta"
        assert len(w.ai.requests) == 3


def test_a_stopped_client_goes_on():
    """Its user pressed stop: what it has is the beginning of our answer."""
    with world() as w:
        gate = held(w)
        with stream(w.g, agent("say alpha beta gamma")) as s:
            it = iter(s)
            next(it)
            part = next(it)["choices"][0]["delta"]["content"]
        c = w.g.start("POST", CHAT, agent("say alpha beta gamma", said(part), "echo history"))  # while the first is still made
        w.wait(lambda: count(w, "inbound") == 2, "stored")
        release(w, gate)
        with c:
            assert text_of(c.response()) == "You wrote: say alpha beta gamma"
        assert count(w, "sessions") == 1


def test_idempotency():
    with world() as w:
        key = {"Idempotency-Key": "order-1"}
        answers = iter(["other", "first", "second"])
        w.ai.script = lambda ask: next(answers)
        assert text_of(w.g.ask("POST", CHAT, agent("other"))) == "other"
        one = whole(w.g.ask("POST", CHAT, agent("hello"), key))
        assert whole(w.g.ask("POST", CHAT, agent("hello"), key)) == one
        w.b.restart(hard=True)
        assert whole(w.g.ask("POST", CHAT, agent("hello"), key)) == one
        assert told(w.g, agent("hello"), key).text == "first"
        refused(w.g.ask("POST", CHAT, agent("other"), key), 409)
        refused(w.g.ask("POST", CHAT, agent("x"), {"Idempotency-Key": "two words"}), 400)
        assert len(w.ai.requests) == 2 and count(w, "inbound") == 2
        # the key of a message that is gone on with
        assert text_of(w.g.ask("POST", CHAT, agent("hello", said("first"), "next"), {"Idempotency-Key": "order-2"})) == "second"
        assert count(w, "sessions") == 2


def test_instructions_that_change():
    """Behind the agent's own where the conversation begins; others come with the message, and the prefix stays."""
    with world({"agent": {"system_prompt": "You are Blufio."}}) as w:
        history = []

        def ask(text, system):
            history.append(user(text))
            messages = ([{"role": "system", "content": system}] if system else []) + history
            history.append(said(text_of(w.g.ask("POST", CHAT, agent(*messages)))))
            return sent(w)
        first = ask("say one", "It is Monday.")
        assert first["system"][0]["text"] == "You are Blufio.\n\nIt is Monday."
        for text, system, said_now in (("say two", "It is Monday.", False), ("say three", "It is Tuesday.", True),
                                       ("say four", "It is Tuesday.", False), ("say five", "It is Monday.", True),
                                       ("say six", None, False)):
            body = ask(text, system)
            assert body["system"][0]["text"] == first["system"][0]["text"]
            texts = [b["text"] for b in body["messages"][-1]["content"]]
            assert texts[-1] == text and (len(texts) == 2 and texts[0].endswith(system)) == said_now, texts
        assert count(w, "sessions") == 1                # and the fake has compared every prefix
        text_of(w.g.ask("POST", CHAT, agent("say x", {"role": "system", "content": "no instructions"}, {"role": "user", "content": " "})))
        e = refused(w.g.ask("POST", CHAT, agent({"role": "system", "content": "x" * 300000}, "say x")), 400)
        assert "system" in e["message"]


def test_chores_of_chat_programs():
    """Titles, tags and the like open no conversation and use no tools; a cheap answer will do."""
    chores = ["### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history.\n### Guidelines: …",
              "### Task:\nGenerate 1-3 broad tags categorizing the main themes of the chat history",
              "### Task:\nSuggest 3-5 relevant follow-up questions or prompts",
              "Provide a concise, 5-word-or-less title for the conversation, using title case conventions."]
    with world() as w:
        for chore in chores:
            doc = whole(w.g.ask("POST", CHAT, agent(chore)))
            assert doc["model"] == "blufio" and "tools" not in sent(w)
            assert told(w.g, agent(chore)).finish == "stop"
        assert count(w, "sessions") == count(w, "turns") == 0
        assert len(w.b.query(FEATURE_API)) == 2 * len(chores)
        assert "You said" in text_of(w.g.ask("POST", CHAT, agent("Tell me: ### Task:\n what is it?"))) and count(w, "sessions") == 1


def test_words_for_the_agent_itself():
    with world() as w:
        history = []
        talk(w, history, "say one")
        assert "/stop" in talk(w, history, "/help")
        assert talk(w, history, "echo history") == "You wrote: say one" and count(w, "sessions") == 1
        assert "fresh" in talk(w, history, "/new")
        assert talk(w, history, "echo history").strip() == "You wrote:" and count(w, "sessions") == 1


def test_options_of_an_agents_turn():
    with world() as w:
        doc = whole(w.g.ask("POST", CHAT, agent("words 100", max_tokens=5)))
        assert doc["choices"][0]["finish_reason"] == "length" and sent(w)["max_tokens"] == 5
        assert "go on" not in doc["choices"][0]["message"]["content"]
        text_of(w.g.ask("POST", CHAT, agent("say x", stop=["END"], reasoning_effort="high", parallel_tool_calls=False,
                                            response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}})))
        asked = sent(w)
        assert asked["stop_sequences"] == ["END"] and asked["output_config"] == {
            "effort": "high", "format": {"type": "json_schema", "schema": SCHEMA}}
        assert asked["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
        text_of(w.g.ask("POST", CHAT, agent("say y", tool_choice="none")))
        assert sent(w)["tool_choice"] == {"type": "none"}
        # they hold over a death
        gate = held(w)
        c = w.g.start("POST", CHAT, agent("say alpha beta", stop=["STOP"]))
        w.wait(lambda: len(w.ai.requests) == 4, "asked")
        w.b.kill9()
        c.close()
        release(w, gate)
        w.b.start()
        w.wait(lambda: len(w.ai.requests) == 5, "asked again")
        assert sent(w)["stop_sequences"] == ["STOP"]
        assert text_of(w.g.ask("POST", CHAT, agent("say alpha beta", stop=["STOP"]))) == "alpha beta"
        assert count(w, "turns") == 4


def test_a_restart_in_mid_stream():
    with world() as w:
        gate = held(w)
        doc = agent("say alpha beta gamma")
        with stream(w.g, doc) as s:
            it = iter(s)
            next(it), next(it)
            w.b.kill9()
            try:
                list(it)
            except Cut:
                pass
            assert not s.done
        release(w, gate)
        w.b.start()
        assert told(w.g, doc).text == "alpha beta gamma"        # nobody had it
        assert count(w, "turns") == 1


def test_an_answer_that_is_begun_anew():
    """It goes on where it was when it begins with the same words; else the stream ends in an error."""
    with world() as w:
        w.ai.piece = 6
        w.ai.fail_next("cut", k=2)
        t = told(w.g, agent("say alpha beta gamma"))
        assert t.text == "alpha beta gamma" and t.finish == "stop"
        answers = iter(["alpha beta gamma", "other words, and many more of them"])
        w.ai.script = lambda ask: next(answers)
        w.ai.fail_next("cut", k=2)
        with stream(w.g, agent("go")) as s:
            chunks = list(s)
        assert s.error["code"] == "begun_anew" and not s.done and chunks
        assert text_of(w.g.ask("POST", CHAT, agent("go"))) == "other words, and many more of them"      # it was not taken


def test_failures_of_the_agent():
    with world({"cost": {"daily_budget_usd": 1000}}) as w:
        history = []
        talk(w, history, "say one")
        w.ai.fail_next("401", n=2)
        for s in (False, True):
            e = refused(w.g.ask("POST", CHAT, agent(*history, "say two", stream=s)), 502, code="agent_failed", message="API key")
            assert e["type"] == "server_error"
        assert [r[2] for r in rows(w)] == ["say one", "one"]    # what failed did not happen
        # the same again is a new try, in the same conversation
        assert text_of(w.g.ask("POST", CHAT, agent(*history, "say two"))) == "two"
        assert [r[2] for r in rows(w)] == ["say one", "one", "say two", "two"] and count(w, "sessions") == 1
        # unless tools had run: what they gave is known to the next try
        w.ai.script = lambda ask: (w.ai.fail_next("401"), tool_answer([("time_now", {})]))[1]
        refused(w.g.ask("POST", CHAT, agent("try")), 502, code="agent_failed")
        w.ai.script = ["done"]
        assert text_of(w.g.ask("POST", CHAT, agent("try"))) == "done" and count(w, "sessions") == 2
        assert [r[2] for r in rows(w, 2)] == ["try", "tool_use", "tool_result", "try", "done"]
        w.ai.fail_next("refusal")
        doc = whole(w.g.ask("POST", CHAT, agent("say x")))["choices"][0]
        assert doc["finish_reason"] == "content_filter" and "declined" in doc["message"]["content"]
        assert text_of(w.g.ask("POST", CHAT, agent("say x", said(doc["message"]["content"]), "echo history"))).strip() == "You wrote:"
        assert count(w, "sessions") == 3
    with world({"cost": {"daily_budget_usd": 0.001}}) as w:
        for s in (False, True):
            e = refused(w.g.ask("POST", CHAT, agent("say two", stream=s)), 429, code="insufficient_quota", message="budget")


def test_an_answer_that_takes_long():
    with world({"gateway": {"reply_timeout": 1}}) as w:
        gate = held(w)
        doc = agent("say late but there")
        e = refused(w.g.ask("POST", CHAT, doc), 504)
        turn = re.search(r"turn_id: (\d+)", e["message"]).group(1)
        release(w, gate)
        w.wait(lambda: w.g.ask("GET", "/v1/messages/" + turn).status == 200, "the answer")
        assert text_of(w.g.ask("POST", CHAT, doc)) == "late but there" and len(w.ai.requests) == 1


# ---- tools of the client ------------------------------------------------------------------------------------------------


WEATHER = [{"type": "function", "function": {"name": "weather", "description": "Looks outside.", "parameters": {
    "type": "object", "properties": {"town": {"type": "string"}}}}},
           {"type": "function", "function": {"name": "alarm", "parameters": {"type": "object", "properties": {}}}}]


def calls_in(doc):
    choice = doc["choices"][0]
    assert choice["finish_reason"] == "tool_calls", choice
    return choice["message"]


def result(call, content):
    return {"role": "tool", "tool_call_id": call["id"], "content": content}


def test_tools_of_the_client():
    """The calls go to the client; its results come with its next message, over a death between them too."""
    with world() as w:
        w.ai.script = [tool_answer([("weather", {"town": "Bern"}), ("alarm", {})], say="Let me look."), None,
                       tool_answer([("weather", {})]), None, None]
        history = [user("Take an umbrella?")]
        m = calls_in(whole(w.g.ask("POST", CHAT, agent(*history, tools=WEATHER))))
        names = [t["name"] for t in sent(w)["tools"]]
        assert names == sorted(names) and {"weather", "alarm", "time_now"} <= set(names)
        assert m["content"] == "Let me look." and [c["function"]["name"] for c in m["tool_calls"]] == ["weather", "alarm"]
        assert json.loads(m["tool_calls"][0]["function"]["arguments"]) == {"town": "Bern"}
        assert w.b.query("SELECT outcome FROM turns") == [(8,)]
        # a retry gets the same calls
        again = calls_in(whole(w.g.ask("POST", CHAT, agent(*history, tools=WEATHER), {"X-Stainless-Retry-Count": "1"})))
        assert again == m
        w.b.kill9()
        w.b.start()
        history += [m, result(m["tool_calls"][1], "rings"), result(m["tool_calls"][0], "rain")]
        assert text_of(w.g.ask("POST", CHAT, agent(*history, tools=WEATHER))) == "Tool results: rain; rings"
        history.append(said("Tool results: rain; rings"))
        assert count(w, "sessions") == 1 and len(w.ai.requests) == 2
        # a stream; and the result comes with words
        history.append(user("Again?"))
        t = told(w.g, agent(*history, tools=WEATHER))
        assert t.finish == "tool_calls" and t.text == "" and t.calls[0]["name"] == "weather"
        call = {"id": t.calls[0]["id"], "type": "function", "function": {k: t.calls[0][k] for k in ("name", "arguments")}}
        history += [{"role": "assistant", "content": "", "tool_calls": [call]}, result(call, "sun"), user("Well?")]
        assert text_of(w.g.ask("POST", CHAT, agent(*history, tools=WEATHER))) == "Tool results: sun"
        assert [b["type"] for b in sent(w)["messages"][-1]["content"]] == ["tool_result", "text"]
        assert talk(w, history + [said("Tool results: sun")], "echo history", tools=WEATHER).startswith("You wrote: Take an umbrella?")
        assert count(w, "sessions") == 1


def test_tools_of_both():
    """The agent's own run here, at once; their results wait in their rows for the client's."""
    with world() as w:
        w.ai.script = [tool_answer([("text_count", {"text": "abc"}), ("weather", {"town": "Bern"}), ("time_now", {})]), None,
                       tool_answer([("time_now", {})]), tool_answer([("alarm", {})]), None]
        m = calls_in(whole(w.g.ask("POST", CHAT, agent("go", tools=WEATHER))))
        assert [c["function"]["name"] for c in m["tool_calls"]] == ["weather"] and m["content"] is None
        assert w.b.query("SELECT name, state FROM steps WHERE kind = 1 ORDER BY idx") == [
            ("text_count", 2), ("weather", 4), ("time_now", 2)]
        w.b.restart(hard=True)
        text = text_of(w.g.ask("POST", CHAT, agent("go", m, result(m["tool_calls"][0], "rain"), tools=WEATHER)))
        assert re.match(r'Tool results: \{.*\b3\b.*\}; rain; \{.*\d\d:\d\d.*\}', text), text
        assert [b["tool_use_id"] for b in sent(w)["messages"][-1]["content"]] == [
            b["id"] for b in sent(w)["messages"][-2]["content"] if b["type"] == "tool_use"]
        # rounds of its own before one of the client's
        m = calls_in(whole(w.g.ask("POST", CHAT, agent("other", tools=WEATHER))))
        assert [c["function"]["name"] for c in m["tool_calls"]] == ["alarm"]
        assert text_of(w.g.ask("POST", CHAT, agent("other", m, result(m["tool_calls"][0], "rings"), tools=WEATHER))) \
            == "Tool results: rings"
        assert count(w, "sessions") == 2


def test_a_client_that_brings_no_result():
    with world() as w:
        name = {"Blufio-Session": "n"}
        w.ai.script = [tool_answer([("weather", {}), ("time_now", {}), ("alarm", {})]), None, None]
        m = calls_in(whole(w.g.ask("POST", CHAT, agent("go", tools=WEATHER), name)))
        assert len(m["tool_calls"]) == 2
        text = text_of(w.g.ask("POST", CHAT, agent(user("go"), m, result(m["tool_calls"][1], "rings"), tools=WEATHER), name))
        assert re.match(r"Tool results: the program gave no result; .*; rings\Z", text), text
        # none at all: it says something else
        w.ai.script = [tool_answer([("weather", {})]), "fine"]
        calls_in(whole(w.g.ask("POST", CHAT, agent("once more", tools=WEATHER), name)))
        assert text_of(w.g.ask("POST", CHAT, agent("never mind", tools=WEATHER), name)) == "fine"
        content = sent(w)["messages"][-1]["content"]
        assert content[0]["type"] == "tool_result" and content[0]["is_error"] and content[1]["text"] == "never mind"
        # one that is not known, and one of a call that the agent made: neither breaks the conversation
        w.ai.script = ["well"]
        assert text_of(w.g.ask("POST", CHAT, agent({"role": "tool", "tool_call_id": "nobody", "content": "x"}, "so", tools=WEATHER),
                               name)) == "well"
        assert [b["type"] for b in sent(w)["messages"][-1]["content"]] == ["text"]


def test_tools_that_are_stopped():
    with world() as w:
        w.ai.script = [tool_answer([("weather", {})])]
        m = calls_in(whole(w.g.ask("POST", CHAT, agent("go", tools=WEATHER))))
        session = w.g.sessions()[0]["id"]
        assert w.g.ask("POST", "/v1/sessions/%s/stop" % session).json() == {"stopped": False}
        # somebody goes on by another way
        w.ai.script = ["fine"]
        assert w.g.say("never mind", session)["content"] == "fine"
        assert sent(w)["messages"][-1]["content"][0]["is_error"] and m
        parted(w)                                       # without the tools


def test_tools_that_change():
    """What was thought before other tools were there is no longer valid; the conversation goes on without it."""
    with world() as w:
        w.ai.expect_refusal("Invalid `signature`")
        history = []
        talk(w, history, "think say one")
        assert talk(w, history, "think say two", tools=WEATHER) == "two"
        assert talk(w, history, "echo history", tools=WEATHER) == "You wrote: think say one | think say two"
        assert count(w, "sessions") == 1 and len(w.ai.requests) == 4
        w.ai.prefix_violations.clear()


def test_tools_that_grow():
    """What is set aside holds for the tools that come now, not for those that the provider has counted."""
    large = [{"type": "function", "function": {"name": "large", "description": "some words " * 10000}}]
    with world({"cost": {"daily_budget_usd": 0.02}, "routing": {"enabled": False}}) as w:
        history = []
        talk(w, history, "say one", max_tokens=50)
        e = refused(w.g.ask("POST", CHAT, agent(*history, user("say two"), max_tokens=50, tools=large)), 429, code="insufficient_quota")
        assert "does not reach" in e["message"] and len(w.ai.requests) == 1, e


def test_names_of_tools_that_clash():
    with world() as w:
        for name in ("time_now", "text_count"):
            tool = {"type": "function", "function": {"name": name}}
            refused(w.g.ask("POST", CHAT, agent("x", tools=[tool])), 400, "tools", message=name)
            assert w.g.ask("POST", CHAT, body("say x", tools=[tool])).status == 200       # no clash: nothing of the agent is there
        refused(w.g.ask("POST", CHAT, agent("x", tools=WEATHER * 65)), 400, "tools")


def test_tools_of_the_client_by_responses():
    flat = [dict(t["function"], type="function") for t in WEATHER]
    with world() as w:
        w.ai.script = [tool_answer([("weather", {"town": "Bern"})], say="Looking."), None, tool_answer([("alarm", {})]), None]
        out = events(w.g, {"model": "blufio", "input": "go", "tools": flat})[-1]["response"]
        text, calls = response_in(out)
        assert text == "Looking." and json.loads(calls[0]["arguments"]) == {"town": "Bern"}
        w.b.restart(hard=True)
        doc = respond(w.g, [{"type": "function_call_output", "call_id": calls[0]["call_id"], "output": "rain"}], tools=flat,
                      previous_response_id=out["id"])
        assert response_in(doc)[0] == "Tool results: rain" and count(w, "sessions") == 1
        # by all that was said
        history = [user("other")]
        out = respond(w.g, history, tools=flat)
        history += out["output"] + [{"type": "function_call_output", "call_id": out["output"][-1]["call_id"], "output": "rings"}]
        assert response_in(respond(w.g, history, tools=flat))[0] == "Tool results: rings" and count(w, "sessions") == 2


# ---- pictures and files -------------------------------------------------------------------------------------------------


def shows(*pictures, text=None):
    parts = [{"type": "image_url", "image_url": {"url": data_url(p), "detail": "low"}} for p in pictures]
    return {"role": "user", "content": ([{"type": "text", "text": text}] if text else []) + parts}


def images(message):
    return [base64.b64decode(b["source"]["data"]) for b in message["content"] if b["type"] == "image"]


def test_pictures_and_files():
    with world() as w:
        one, two = picture(40, 30, 1), picture(30, 40, 2)
        history = [shows(one, two, text="say seen")]
        assert text_of(w.g.ask("POST", CHAT, agent(*history))) == "seen"
        assert images(sent(w)["messages"][0]) == [one, two] and sent(w)["messages"][0]["content"][-1]["text"] == "say seen"
        # they come with every request, and are one and the same
        history += [said("seen"), {"role": "user", "content": [
            {"type": "text", "text": "say read"},
            {"type": "file", "file": {"filename": "notes.txt", "file_data": data_url("Grüße".encode(), "text/plain")}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": data_url(b"%PDF-1.4 x", "application/pdf")}}]}]
        assert text_of(w.g.ask("POST", CHAT, agent(*history))) == "read"
        assert images(sent(w)["messages"][0]) == [one, two]
        text, pdf = [b for b in sent(w)["messages"][-1]["content"] if b["type"] == "document"]
        assert text["source"]["data"] == "Grüße" and text["title"] == "notes.txt" and pdf["title"] == "a.pdf"
        assert base64.b64decode(pdf["source"]["data"]) == b"%PDF-1.4 x"
        assert count(w, "sessions") == 1 and count(w, "attachments") == 4 and count(w, "media") == 4
        # a picture alone; the same picture again
        assert text_of(w.g.ask("POST", CHAT, agent(shows(one)))) == "You said: nothing" and count(w, "media") == 4
        assert images(sent(w)["messages"][-1]) == [one]
        # the bytes are in files now, and nowhere else
        assert w.b.query("SELECT count(*) FROM attachments WHERE text <> '' OR state <> 1") == [(0,)]
        doc = respond(w.g, [{"role": "user", "content": [{"type": "input_text", "text": "say shown"},
                                                         {"type": "input_image", "image_url": data_url(two)}]}])
        assert response_in(doc)[0] == "shown" and images(sent(w)["messages"][-1]) == [two]
        refused(w.g.ask("POST", CHAT, agent(shows(*[one] * 17))), 400, "messages")


def test_a_picture_over_a_death():
    """It is on the disk before anything is answered."""
    with world() as w:
        gate = held(w)
        one = picture(400, 300, 7)
        doc = agent(shows(one, text="say alpha beta gamma"))
        c = w.g.start("POST", CHAT, doc)
        w.wait(lambda: w.ai.requests, "asked")
        w.b.kill9()
        c.close()
        release(w, gate)
        w.b.start()
        assert text_of(w.g.ask("POST", CHAT, doc)) == "alpha beta gamma" and count(w, "turns") == 1
        assert images(sent(w, 0)["messages"][0]) == images(sent(w)["messages"][0]) == [one]


def test_a_pdf_is_counted():
    """What is set aside for a model as it is holds, whatever a file shows."""
    with world({"cost": {"daily_budget_usd": 0.006}}) as w:
        pdf = {"type": "file", "file": {"filename": "a.pdf", "file_data": data_url(b"%PDF-1.4 x", "application/pdf")}}
        ask = body({"role": "user", "content": [{"type": "text", "text": "say on"}, pdf]}, model="claude-sonnet-5-5", max_tokens=10)
        assert text_of(w.g.ask("POST", CHAT, ask)) == "on" and len(w.ai.counts) == 1 and w.settle_up() == []
        refused(w.g.ask("POST", CHAT, ask), 429, code="insufficient_quota")
        assert len(w.ai.requests) == 1 and len(w.ai.counts) == 2
        gate = w.ai.hold_count = threading.Event()
        c = w.g.start("POST", CHAT, ask)
        w.wait(lambda: len(w.ai.counts) == 3, "the count")
        c.close()
        gate.set()
        assert w.g.ask("GET", "/health").status == 200


def test_a_large_picture():
    with world() as w:
        noise = bytes(bytearray((i * 7919 >> 3) & 255 for i in range(1 << 16)))
        rows = b"".join(b"\0" + noise[i:i + 2000] for i in range(0, 42000, 30))

        def chunk(kind, data):
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        large = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2000, 1400, 8, 0, 0, 0, 0))
                 + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b""))
        assert len(large) > 2700000
        for model in ("blufio", MODEL):
            assert text_of(w.g.ask("POST", CHAT, {"model": model, "messages": [shows(large, text="say large")]})) == "large"
            assert images(sent(w)["messages"][0]) == [large]
        # what has no files takes less
        with w.g.start("POST", "/v1/messages", b"", {"Content-Length": str(3 << 20)}) as c:
            assert c.response().status == 413


# ---- the Responses API ----------------------------------------------------------------------------------------------


ECHOED = {"id", "object", "created_at", "status", "error", "incomplete_details", "instructions", "metadata", "model", "output",
          "parallel_tool_calls", "previous_response_id", "tool_choice", "tools", "text", "temperature", "top_p", "truncation", "usage"}


def response_in(doc):
    """A response, checked; its text and its calls."""
    assert set(doc) == ECHOED and doc["object"] == "response" and doc["id"].startswith("resp_"), doc
    assert type(doc["created_at"]) is int and doc["error"] is None
    text, calls = "", []
    for item in doc["output"]:
        assert item["id"] and item["status"] in ("completed", "incomplete"), item
        if item["type"] == "message":
            assert item["role"] == "assistant" and [p["type"] for p in item["content"]] == ["output_text"], item
            text += item["content"][0]["text"]
        else:
            assert item["type"] == "function_call" and set(item) == {"id", "type", "status", "call_id", "name", "arguments"}, item
            calls.append(item)
    return text, calls


def respond(g, text, headers=None, **more):
    r = g.ask("POST", RESPONSES, dict({"model": "blufio", "input": text}, **more), headers)
    assert r.status == 200, r
    doc = r.json()
    u = doc["usage"]
    assert u["total_tokens"] == u["input_tokens"] + u["output_tokens"] and "cached_tokens" in u["input_tokens_details"]
    return doc


def events(g, doc, fails=False):
    """The events of a stream, in order and complete."""
    c = g.start("POST", RESPONSES, dict(doc, stream=True))
    with Stream(c, c.head()) as s:
        out = []
        for event in s.lines():
            if event.startswith(":"):
                continue
            name, data = event.split("\n")
            assert name.startswith("event: ") and data.startswith("data: "), event
            e = json.loads(data[6:])
            assert e["type"] == name[7:] and e["sequence_number"] == len(out), e
            out.append(e)
    if fails:
        assert out[-1]["type"] == "error" and {"code", "message", "param"} <= set(out[-1]), out[-1]
        return out
    types = [e["type"] for e in out]
    assert types[:2] == ["response.created", "response.in_progress"] and out[0]["response"]["status"] == "in_progress"
    assert types[-1] in ("response.completed", "response.incomplete") and types.count(types[-1]) == 1
    final = out[-1]["response"]
    items = [e["item"] for e in out if e["type"] == "response.output_item.done"]
    assert items == final["output"] and [e["item"]["id"] for e in out if e["type"] == "response.output_item.added"] == [
        i["id"] for i in items]
    for n, item in enumerate(items):
        mine = [e for e in out if e.get("item_id") == item["id"]]
        assert all(e["output_index"] == n for e in mine)
        if item["type"] == "message":
            whole_text = item["content"][0]["text"]
            assert "".join(e["delta"] for e in mine if e["type"] == "response.output_text.delta") == whole_text
            assert [e["text"] for e in mine if e["type"] == "response.output_text.done"] == [whole_text]
            assert [e["type"] for e in mine][0] == "response.content_part.added"
            assert [e["type"] for e in mine][-1] == "response.content_part.done"
        else:
            assert "".join(e["delta"] for e in mine if e["type"].endswith("arguments.delta")) == item["arguments"]
            assert [e["arguments"] for e in mine if e["type"].endswith("arguments.done")] == [item["arguments"]]
    return out


def test_responses_of_a_model_as_it_is():
    with world() as w:
        doc = respond(w.g, "say hello", model=MODEL)
        assert response_in(doc)[0] == "hello" and doc["status"] == "completed" and doc["model"] == MODEL
        out = events(w.g, {"model": MODEL, "input": "words 40"})
        assert response_in(out[-1]["response"])[0] == " ".join("w%d" % (i + 1) for i in range(40))
        w.ai.script = [tool_answer([("f", {"a": 1}), ("f", {})], say="Let me look."), tool_answer([("f", {})])]
        out = events(w.g, {"model": MODEL, "input": "go", "tools": FLAT})
        text, calls = response_in(out[-1]["response"])
        assert text == "Let me look." and [json.loads(c["arguments"]) for c in calls] == [{"a": 1}, {}]
        text, calls = response_in(respond(w.g, "go", model=MODEL, tools=FLAT))
        assert text == "" and len(calls) == 1
        doc = respond(w.g, "words 100", model=MODEL, max_output_tokens=5)
        assert doc["status"] == "incomplete" and doc["incomplete_details"] == {"reason": "max_output_tokens"}
        assert events(w.g, {"model": MODEL, "input": "words 100", "max_output_tokens": 5})[-1]["type"] == "response.incomplete"
        w.ai.fail_next("529")
        refused(w.g.ask("POST", RESPONSES, {"model": MODEL, "input": "x", "stream": True}), 503)
        w.ai.piece = 3
        w.ai.fail_next("cut", k=2)
        out = events(w.g, {"model": MODEL, "input": "say alpha beta gamma"}, fails=True)
        assert out[-1]["code"] == "overloaded" and len(out) > 4


def test_responses_of_the_agent():
    """Named by the response before, or by all that was said."""
    with world() as w:
        one = respond(w.g, "say one", instructions="Be kind.")
        assert response_in(one)[0] == "one" and "Be kind." in sent(w)["system"][0]["text"]
        two = respond(w.g, "echo history", previous_response_id=one["id"])
        assert response_in(two)[0] == "You wrote: say one" and two["previous_response_id"] == one["id"]
        w.b.restart(hard=True)
        three = respond(w.g, [user("echo history")], previous_response_id=two["id"])
        assert response_in(three)[0] == "You wrote: say one | echo history" and count(w, "sessions") == 1
        # from an earlier one: a branch
        other = respond(w.g, "echo history and", previous_response_id=one["id"])
        assert count(w, "sessions") == 2
        assert response_in(respond(w.g, "echo history", previous_response_id=other["id"]))[0] == "You wrote: say one | echo history and"
        # the whole again, with what came out
        history = [user("say red")]
        history += respond(w.g, history)["output"] + [user("echo history")]
        assert response_in(respond(w.g, history))[0] == "You wrote: say red" and count(w, "sessions") == 3
        out = events(w.g, {"model": "blufio", "input": "tools"})
        assert response_in(out[-1]["response"])[0].startswith("Let me look.")
        for bad in ("resp_999999", "resp_x", "12", "resp_"):
            refused(w.g.ask("POST", RESPONSES, {"model": "blufio", "input": "x", "previous_response_id": bad}), 404,
                    "previous_response_id")
        refused(w.g.mint("chat").ask("POST", RESPONSES, {"model": "blufio", "input": "x", "previous_response_id": one["id"]}), 404)
        # the same once more, told again
        first = respond(w.g, "say same", previous_response_id=three["id"])
        assert respond(w.g, "say same", {"X-Stainless-Retry-Count": "2"}, previous_response_id=three["id"]) == first
        parted(w)


if __name__ == "__main__":
    main(globals())
