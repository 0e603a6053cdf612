# SPDX-License-Identifier: MIT OR Apache-2.0
"""fake_openai.py - Chat Completions as each of six servers speaks it, strict where that server is strict.

    oa = FakeOpenAI("deepseek")
    oa.script = ["first answer", {"blocks": [...]}]     # or a function of ask; None: what the user's words ask for
    oa.fail_next("502", n=2)

Modes: openai (a reasoning model), ollama, llamacpp, openrouter, groq, deepseek. Each refuses what the real one
refuses, streams as it does (comments, keep-alives, padding, calls without an index or in one piece, usage on the last
chunk, in x_groq or in a chunk of its own, thinking under its own name), and wants back what it wants back. What a
user's words ask for is fake_anthropic's default_answer; "think X" thinks first.

.log has every call that was accepted: model, prompt, cached and output tokens, as billed. A conversation has to go on
from the messages that were sent before (.prefix_violations), as the caches of these servers match prefixes.
"""
import base64
import json
import random
import re

from billing import compact, picture, tokens
from fake_anthropic import TRACEPARENT, default_answer, text_answer, unique
from fakehttp import FakeServer, Faults, Gone

ROLES = ("system", "developer", "user", "assistant", "tool")
COMMON = {"model", "messages", "stream", "stream_options", "tools", "max_tokens", "max_completion_tokens"}
WISHES = {"stop", "response_format", "parallel_tool_calls"}
EFFORTS = ("low", "medium", "high", "xhigh", "max")
CACHE_STEP = 64                 # tokens that a cached prefix is a multiple of
MODES = {
    # base: of its addresses; fields: beside COMMON; message: members of an assistant message beside the usual
    "openai": {"base": "/v1", "models": ["gpt-6.2-sol", "gpt-6-luna"], "fields": WISHES | {"tool_choice", "reasoning_effort"},
               "message": {"refusal"}},
    "ollama": {"base": "/v1", "models": ["qwen3:8b", "llama4:latest"], "fields": WISHES | {"temperature", "reasoning_effort"},
               "message": {"reasoning"}},
    "llamacpp": {"base": "/v1", "models": ["gemma-4.gguf"], "fields": WISHES | {"chat_template_kwargs", "tool_choice", "reasoning_effort"},
                 "message": {"reasoning_content"}},
    "openrouter": {"base": "/api/v1", "models": ["anthropic/claude-sonnet-5", "qwen/qwen3:free"], "fields": WISHES | {"tool_choice", "reasoning"},
                   "message": {"reasoning", "reasoning_details"}},
    "groq": {"base": "/openai/v1", "models": ["llama-3.3-70b-versatile"], "fields": WISHES | {"tool_choice", "reasoning_effort"},
             "message": {"reasoning"}},
    "deepseek": {"base": "", "models": ["deepseek-v4-flash", "deepseek-v4-pro"], "fields": {"thinking", "reasoning_effort", "stop", "response_format"},
                 "message": {"reasoning_content"}},
}
KEYLESS = ("ollama", "llamacpp")
FILES = ("openai", "openrouter")


class Refused(Exception):
    def __init__(self, status, text, code=None, kind="invalid_request_error", param=None):
        super().__init__(text)
        self.status, self.text, self.code, self.kind, self.param = status, text, code, kind, param


def need(condition, text, *args, **more):
    if not condition:
        raise Refused(400, text % args if args else text, **more)


class Check:
    """One request against what its server takes."""

    def __init__(self, fake, body):
        self.fake, self.mode, self.rules, self.body = fake, fake.mode, MODES[fake.mode], body

    def run(self):
        body, mode = self.body, self.mode
        need(isinstance(body, dict), "request body must be a JSON object")
        if body.get("model") not in self.fake.models:
            self.no_model(body.get("model"))
        for name in body:
            need(name in COMMON | self.rules["fields"], "Unrecognized request argument supplied: %s", name, param=name)
        limit = "max_completion_tokens" if mode == "openai" else "max_tokens"
        for name in ("max_tokens", "max_completion_tokens"):
            need(name not in body or name == limit, "Unsupported parameter: '%s' is not supported with this model. Use '%s' "
                 "instead.", name, limit, code="unsupported_parameter", param=name)
        need(type(body.get(limit)) is int and 0 < body[limit] <= 200000, "%s: integer above 0 expected", limit)
        need(type(body.get("stream", False)) is bool, "stream: boolean expected")
        options = body.get("stream_options")
        need(options is None or (body.get("stream") and set(options) <= {"include_usage", "include_obfuscation"}),
             "stream_options: only with stream")
        self.tools(body.get("tools"))
        self.wishes(body)
        need(isinstance(body.get("messages"), list) and body["messages"], "messages: [] is too short")
        for i, m in enumerate(body["messages"]):
            self.message("messages[%d]" % i, m)
        self.order()
        if mode in ("deepseek", "openrouter"):
            self.thinking()

    def no_model(self, name):
        if self.mode == "deepseek":
            raise Refused(400, "Model Not Exist")
        if self.mode == "openrouter":
            raise Refused(400, "%s is not a valid model ID" % name, 400)
        if self.mode in KEYLESS:
            raise Refused(404, "model '%s' not found" % name, None, "not_found_error")
        raise Refused(404, "The model `%s` does not exist or you do not have access to it." % name, "model_not_found")

    def tools(self, tools):
        need(tools is None or isinstance(tools, list) and tools, "tools: a non-empty array expected")
        for t in tools or []:
            need(set(t) == {"type", "function"} and t["type"] == "function", "tools: only functions")
            f = t["function"]
            need(set(f) <= {"name", "description", "parameters", "strict"} and f["name"].replace("_", "").replace("-", "").isalnum()
                 and len(f["name"]) <= 64 and isinstance(f["parameters"], dict), "tools[].function: not as it should be")

    def wishes(self, body):
        for name in ("tool_choice", "parallel_tool_calls"):
            need(name not in body or body.get("tools"), "'%s' is only allowed when 'tools' are specified.", name)
        need(body.get("tool_choice", "auto") in ("auto", "none"), "tool_choice: %s", body.get("tool_choice"))
        need(type(body.get("parallel_tool_calls", False)) is bool, "parallel_tool_calls: boolean expected")
        stop = body.get("stop", ["x"])
        need(isinstance(stop, list) and 0 < len(stop) <= 4 and all(isinstance(s, str) and s for s in stop), "stop: up to four strings")
        need(body.get("reasoning_effort", "low") in EFFORTS, "reasoning_effort: %s", body.get("reasoning_effort"))
        need(body.get("reasoning", {"effort": "low"}).get("effort") in EFFORTS, "reasoning: %s", body.get("reasoning"))
        form = body.get("response_format", {"type": "text"})
        if form["type"] == "json_schema":
            need(self.mode != "deepseek", "This response_format type is unavailable now")
            need(set(form) == {"type", "json_schema"} and {"name", "schema"} <= set(form["json_schema"]) <= {"name", "schema", "strict"}
                 and isinstance(form["json_schema"]["schema"], dict), "response_format: not as it should be")
        else:
            need(form in ({"type": "text"}, {"type": "json_object"}), "response_format: %s", form)

    def message(self, where, m):
        role, extra = m.get("role"), {"tool_calls"} | self.rules["message"]
        need(role in ROLES and (role != "developer" or self.mode == "openai"), "%s.role: %s", where, role)
        need(set(m) <= {"role", "content"} | ({"tool_call_id"} if role == "tool" else extra if role == "assistant" else set()),
             "%s: property unsupported among %s", where, sorted(m))
        content = m.get("content")
        if role == "assistant":
            calls = m.get("tool_calls")
            need(calls is None or isinstance(calls, list) and calls, "%s.tool_calls: too short", where)
            need(isinstance(content, str) and content or content is None and calls, "%s: content or tool_calls wanted", where)
            for c in calls or []:
                need(set(c) == {"id", "type", "function"} and c["type"] == "function" and isinstance(c["id"], str) and c["id"],
                     "%s.tool_calls: not as they should be", where)
                need(isinstance(c["function"]["arguments"], str) and isinstance(json.loads(c["function"]["arguments"]), dict),
                     "%s.tool_calls: arguments are a string of JSON", where)
        elif role == "user" and isinstance(content, list):
            need(content, "%s.content: too short", where)
            for part in content:
                self.part(where, part)
        else:
            need(isinstance(content, str) and (content or role == "tool"), "%s.content: a string expected", where)

    def part(self, where, part):
        kind = part.get("type")
        need(kind in ("text", "image_url", "file") and set(part) == {"type", kind}, "%s.content: part of type %s", where, kind)
        if kind == "text":
            need(isinstance(part["text"], str) and part["text"], "%s: empty text", where)
            return
        need(kind == "image_url" or self.mode in FILES, "%s: 'file' parts are not supported", where)
        need(self.fake.images or kind != "image_url", "%s: this model does not support image input", where)
        head, _, data = (part["image_url"]["url"] if kind == "image_url" else part["file"]["file_data"]).partition(",")
        data = base64.b64decode(data, validate=True)
        if kind == "file":
            need(head == "data:application/pdf;base64" and data.startswith(b"%PDF-") and part["file"]["filename"], "%s: no PDF", where)
            return
        found = picture(data)
        need(found and head == "data:%s;base64" % found[0], "%s: could not process image", where)

    def order(self):
        """Every call is answered directly behind it, once, in its order."""
        pending, seen, before = [], set(), None
        for i, m in enumerate(self.body["messages"]):
            if m["role"] == "tool":
                need(m["tool_call_id"] in pending, "messages[%d]: tool_call_id %s answers no call", i, m["tool_call_id"])
                pending.remove(m["tool_call_id"])
                continue
            need(not pending, "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                 "'tool_call_id'. The following did not have response messages: %s", ", ".join(pending))
            pending = [c["id"] for c in m.get("tool_calls", [])]
            need(not seen & set(pending) and len(set(pending)) == len(pending), "messages[%d]: a call id comes twice", i)
            seen |= set(pending)
            if self.mode == "llamacpp":     # a template that knows nothing else
                need(m["role"] != "system" or i == 0, "System role must be the first message")
                if m["role"] == before == "user":
                    raise Refused(500, "Conversation roles must alternate user/assistant", 500, "server_error")
            before = m["role"]
        need(not pending and before != "assistant" or self.body["messages"][-1]["role"] == "tool", "messages: the last is the model's")

    def thinking(self):
        """What it thought before its calls has to come back, word for word."""
        if self.body.get("thinking", {"type": "enabled"}) == {"type": "disabled"}:
            return
        for m in self.body["messages"]:
            for c in m.get("tool_calls", []):
                thought = self.fake.thoughts.get(c["id"])
                if self.mode == "openrouter":
                    need(not thought or m.get("reasoning_details") == [{"type": "reasoning.text", "index": 0, "text": thought,
                         "format": "x-v1", "signature": "c2ln"}], "reasoning_details: not as they were sent: %s", m)
                    continue
                need(m.get("reasoning_content") and thought in (None, m["reasoning_content"]),
                     "The `reasoning_content` in the thinking mode must be passed back to the API.")


class Ask:
    """A request as scripts and default_answer see it."""

    def __init__(self, body, number):
        self.body, self.number, self.model, self.resumed = body, number, body["model"], False
        messages = [m for m in body["messages"] if m["role"] not in ("system", "developer")]
        self.results = []
        for m in reversed(messages):
            if m["role"] != "tool":
                break
            self.results.insert(0, m)
        self.user_texts = [t for m in messages if m["role"] == "user" for t in self.texts(m)]
        self.text = self.user_texts[-1].split("\n\n")[-1] if self.user_texts else ""     # what failed may stand before it
        self.tools = {t["function"]["name"] for t in body.get("tools", [])} if body.get("tool_choice") != "none" else set()

    @staticmethod
    def texts(m):
        return [m["content"]] if isinstance(m["content"], str) else [p["text"] for p in m["content"] if p["type"] == "text"]

    def result_texts(self):
        return [r["content"] for r in self.results]


class FakeOpenAI(FakeServer):
    def __init__(self, mode="openai", seed=5):
        self.mode, self.models = mode, list(MODES[mode]["models"])
        self.api_key = None if mode in KEYLESS else "sk-test-%s-0123456789" % mode
        self.rng = random.Random(seed)
        self.script = None
        self.images = True              # does its model look at pictures?
        self.hold_after_first_delta = None
        self.requests = []              # every POST, accepted or not
        self.log = []                   # accepted ones, as billed
        self.listings = 0
        self.faults = Faults()
        self.thoughts = {}              # call id -> what was thought before it
        self.prompts = []               # for its cache
        self.prefix_violations = []
        self.heads = {}                 # (system, first message) -> messages of the newest request
        self.limits = None              # headers of rate limits
        self.ids = 0
        super().__init__()

    @property
    def base_url(self):
        return self.url + MODES[self.mode]["base"]

    def section(self, **more):
        """[providers.NAME] for it, with a price."""
        server = self.mode if self.mode in ("openai", "openrouter", "deepseek") else "other"
        out = {"base_url": self.base_url, "model": self.models[0], "server": server, "input": 2, "output": 10, "cache_read": 0.5}
        if self.api_key:
            out["api_key"] = self.api_key
        out.update(more)
        return {k: v for k, v in out.items() if v is not None}

    def fail_next(self, kind, n=1, **options):
        """The next n calls fail. Kinds: a status (text=, code=, type=, retry_after=), "reset", "hang", "html", "empty",
        "cut", "fin", "error_mid", "error_event", "finish_error" (after k= deltas), "error_first", "no_done", "no_usage",
        "usage" (usage=), "finish" (reason=), "at_once"."""
        self.faults.add("chat", str(kind), n, **options)

    def unexpected(self):
        return super().unexpected() + list(self.prefix_violations)

    def completed(self):
        with self.lock:
            return [e for e in self.log if e["completed"]]

    # -- HTTP ---------------------------------------------------------------------------------

    def handle(self, conn, request):
        try:
            self.route(conn, request)
        except Refused as e:
            self.refuse("%s %s: %d %s" % (request.method, request.path, e.status, e.text))
            self.send_error(conn, e)

    def send_error(self, conn, e, more=()):
        error = {"message": e.text, "type": e.kind, "param": e.param, "code": e.code}
        if self.mode == "openrouter":
            error = {"message": e.text, "code": e.status, "metadata": {"provider_name": "x"}}
        body = {"error": e.text} if self.mode == "ollama" and e.status >= 500 else {"error": error}
        conn.respond(e.status, [("Content-Type", "application/json"), ("x-request-id", "req-%d" % self.ids)] + list(more),
                     compact(body).encode())

    def route(self, conn, request):
        if self.api_key and request.header("authorization") != "Bearer " + self.api_key:
            raise Refused(401, "Incorrect API key provided", "invalid_api_key", "authentication_error")
        base = MODES[self.mode]["base"]
        if (request.method, request.path) == ("GET", base + "/models"):
            self.listings += 1
            kind, _ = self.faults.take("models")
            if kind == "hang":
                conn.hang()
            elif kind:
                self.send_error(conn, Refused(int(kind), "injected"))
                return
            conn.respond(200, [("Content-Type", "application/json")], compact({"object": "list", "data": [
                {"id": m, "object": "model", "created": 1, "owned_by": "x"} for m in self.models]}).encode())
            return
        if (request.method, request.path) != ("POST", base + "/chat/completions"):
            raise Refused(404, "Unknown request URL: %s %s" % (request.method, request.path), "unknown_url")
        need(request.header("content-type").split(";")[0] == "application/json", "content-type")
        trace = request.header("traceparent")
        need(not trace or re.match(TRACEPARENT, trace), "traceparent: %s is not one", trace)
        body = json.loads(request.body.decode("utf-8"), object_pairs_hook=unique)
        record = {"body": body, "raw": request.body, "headers": request.headers, "status": None}
        with self.cond:
            self.requests.append(record)
            number = len(self.requests)
            self.ids += 1
            self.cond.notify_all()
        kind, options = self.faults.take("chat")
        try:
            Check(self, body).run()
        except Refused as e:
            record["status"] = e.status
            raise
        self.compare(body)
        if kind and self.fault_before(conn, kind, options, record):
            return
        answer = self.script(Ask(body, number)) if callable(self.script) else self.script.pop(0) if self.script else None
        if answer is None:
            answer = default_answer(Ask(body, number))
        answer = text_answer(answer) if isinstance(answer, str) else answer
        Answer(self, conn, body, answer, record, kind, options).send()

    def fault_before(self, conn, kind, options, record):
        if kind == "hang":
            conn.hang()
        if kind == "reset":
            conn.reset()
        if kind == "html":
            conn.respond(502, [("Content-Type", "text/html")], b"<html>Bad Gateway</html>")
            return True
        if not kind.isdigit():
            return False
        record["status"] = int(kind)
        more = [("retry-after", str(options["retry_after"]))] if "retry_after" in options else []
        self.send_error(conn, Refused(int(kind), options.get("text", "injected"), options.get("code"),
                                      options.get("type", "server_error")), more)
        return True

    def compare(self, body):
        """Goes on from what was sent; thinking that is left out changes nothing that is cached for long."""
        said = [{k: v for k, v in m.items() if not k.startswith("reasoning")} for m in body["messages"]]
        first = next(i for i, m in enumerate(said) if m["role"] == "user")
        with self.lock:
            key = compact([body["model"], said[:first + 1]])
            old = self.heads.get(key, [])
            new = said[:len(old)]
            if new and new[-1] != old[-1] and compact(new[-1]).startswith(compact(old[-1])[:-2]):
                new[-1] = old[-1]       # nobody answered it: what was said next stands in the same message
            if any(m["role"] == "assistant" for m in said) and new != old:
                self.prefix_violations.append("prefix changed: was %s, now %s" % (compact(old[-1]), compact(said[:len(old)][-1])))
            self.heads[key] = said

    def cached(self, body):
        """Tokens of the longest prefix that an earlier request had."""
        text = compact([body["model"], body.get("tools"), body["messages"]])
        with self.lock:
            common = max([sum(1 for _ in prefix(text, p)) for p in self.prompts] or [0])
            self.prompts = self.prompts[-7:] + [text]
        return tokens(common) // CACHE_STEP * CACHE_STEP


def prefix(a, b):
    for x, y in zip(a, b):
        if x != y:
            return
        yield x


class Answer:
    """One answer on its way."""

    def __init__(self, fake, conn, body, answer, record, kind, options):
        self.fake, self.conn, self.body, self.mode, self.record = fake, conn, body, fake.mode, record
        self.kind, self.options = kind, options
        self.rng = random.Random(fake.rng.random())
        self.blocks = answer["blocks"]
        if self.mode == "deepseek" and "thinking" not in body and self.blocks[0]["type"] != "thinking":
            self.blocks = [{"type": "thinking"}] + self.blocks      # it does unless it is told not to
        self.deltas = self.texts = self.output = 0
        weight = len(compact([{k: v for k, v in m.items() if k != "content" or isinstance(v, str)} for m in body["messages"]]))
        prompt = tokens(weight + len(compact(body.get("tools", []))))
        parts = [p for m in body["messages"] if isinstance(m.get("content"), list) for p in m["content"]]
        prompt += sum(tokens(len(p["text"].encode())) if p["type"] == "text" else 60 for p in parts)
        cached = min(fake.cached(body), prompt // CACHE_STEP * CACHE_STEP) if self.mode not in KEYLESS else 0
        self.entry = {"model": body["model"], "prompt": prompt, "cached": cached, "output": 0, "completed": False}
        with fake.lock:
            fake.log.append(self.entry)

    # -- bytes ----------------------------------------------------------------------------------

    def raw(self, data):
        while data:
            n = self.rng.choice((1, 5, 40, 4096, 4096))
            self.conn.chunk(data[:n])
            data = data[n:]

    def event(self, value, name=None):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=self.rng.random() < 0.3)
        end = "\r\n" if self.mode == "openrouter" else "\n"
        head = "event: %s%s" % (name, end) if name else ""
        blank = "" if self.mode == "llamacpp" and self.rng.random() < 0.5 else " "
        self.raw((head + "data:" + blank + text + end + end).encode())
        if self.mode == "openrouter" and self.rng.random() < 0.4:
            self.raw(b": OPENROUTER PROCESSING\r\n\r\n")
        if self.mode == "deepseek" and self.rng.random() < 0.4:
            self.raw(self.rng.choice((b": keep-alive\n\n", b"\n\n")))

    def chunk(self, delta, finish=None, **more):
        c = {"id": "chatcmpl-%d" % self.fake.ids, "object": "chat.completion.chunk", "created": 1, "model": self.body["model"],
             "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        if self.mode == "openai":
            c.update(obfuscation="x" * self.rng.randrange(9), usage=None, system_fingerprint=None)
        if self.mode == "openrouter":
            c["choices"][0]["native_finish_reason"] = finish
        c.update(more)
        self.event(c)

    def delta(self, delta, n_bytes):
        if self.texts == 1 and self.fake.hold_after_first_delta is not None:
            self.conn.hold(self.fake.hold_after_first_delta)
        self.texts += bool(delta.get("content"))
        if self.kind in ("cut", "fin", "error_mid", "error_event", "finish_error") and self.deltas >= self.options.get("k", 1):
            self.break_off()
        self.deltas += 1
        self.output += n_bytes
        with self.fake.lock:
            self.entry["output"] = tokens(self.output)
        if self.mode == "ollama":
            delta = dict(delta, role="assistant")
        self.chunk(delta)

    def break_off(self):
        if self.kind == "cut":
            self.conn.reset()
        if self.kind == "fin":
            raise Gone()
        error = {"code": 502, "message": "Provider disconnected"}
        if self.kind == "finish_error":
            self.chunk({"content": ""}, "error")
        elif self.kind == "error_event":
            self.event({"message": "overloaded"}, "error")
        else:
            self.event({"id": "x", "error": error, "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]})
        raise Over()

    # -- the stream ------------------------------------------------------------------------------

    def send(self):
        self.record["status"] = 200
        if self.kind == "at_once":
            return self.at_once()
        self.conn.start_chunked(200, [("Content-Type", "text/event-stream"), ("x-request-id", "req-%d" % self.fake.ids)]
                                + (self.fake.limits or []))
        try:
            self.stream()
        except Over:
            pass
        self.conn.end_chunked()

    def stream(self):
        if self.kind == "empty":
            return
        if self.kind == "error_first":
            self.event({"error": {"code": self.options.get("code", 503), "message": "no instances available"}})
            return
        if self.mode == "groq":
            self.chunk({"role": "assistant", "content": ""}, x_groq={"id": "req"})
        else:
            self.chunk({"role": "assistant", "content": None if self.mode == "llamacpp" else ""})
        calls = []
        for b in self.blocks:
            if b["type"] == "thinking":
                self.think("Let me think about %s. " % self.body["model"])
            elif b["type"] == "text":
                self.text(b["text"])
            else:
                calls.append(b)
        self.calls(calls)
        if self.kind in ("cut", "fin", "error_mid", "error_event", "finish_error"):
            self.break_off()
        if self.texts == 1 and self.fake.hold_after_first_delta is not None:
            self.conn.hold(self.fake.hold_after_first_delta)
        self.finish(calls)

    def finish(self, calls):
        reason = "tool_calls" if calls else "stop"
        if self.mode in ("ollama", "llamacpp"):
            reason = "stop"
        if self.kind == "finish":
            reason = self.options["reason"]
        with self.fake.cond:
            self.entry["completed"] = True
            self.fake.cond.notify_all()
        usage = self.usage()
        if not usage:
            self.chunk({}, reason)
        elif self.mode == "groq":
            self.chunk({}, reason, x_groq={"id": "req", "usage": usage})
        elif self.mode == "deepseek":
            self.chunk({"content": ""}, reason, usage=usage)
        else:
            more = {"timings": {"predicted_n": 1}} if self.mode == "llamacpp" else {}
            self.chunk({}, reason, **more)
            self.event({"id": "x", "object": "chat.completion.chunk", "choices": [] if self.mode != "openrouter" else
                        [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}], "usage": usage})
        if self.kind != "no_done":
            self.event("[DONE]")

    def usage(self):
        if self.kind == "usage":
            return self.options["usage"]
        if self.kind == "no_usage" or not self.body.get("stream_options", {}).get("include_usage"):
            return None
        e = self.entry
        u = {"prompt_tokens": e["prompt"], "completion_tokens": e["output"], "total_tokens": e["prompt"] + e["output"]}
        if self.mode == "deepseek":
            u.update(prompt_cache_hit_tokens=e["cached"], prompt_cache_miss_tokens=e["prompt"] - e["cached"])
        elif self.mode not in KEYLESS:
            u["prompt_tokens_details"] = {"cached_tokens": e["cached"]}
        if self.mode == "openrouter":
            u["cost"] = 0.001
        return u

    def text(self, text):
        i = 0
        while i < len(text):
            n = self.rng.randint(1, 24)
            self.delta({"content": text[i:i + n]}, len(text[i:i + n].encode()))
            i += n

    def think(self, text):
        self.thought = text
        for i in range(0, len(text), 9):
            piece = text[i:i + 9]
            if self.mode in ("deepseek", "llamacpp"):
                self.delta({"content": None, "reasoning_content": piece}, len(piece))
            elif self.mode in ("groq", "ollama"):
                self.delta({"reasoning": piece}, len(piece))
            elif self.mode == "openrouter":
                self.delta({"content": "", "reasoning": piece, "reasoning_details": [
                    {"type": "reasoning.text", "text": piece, "format": "x-v1", "index": 0}]}, len(piece))
            else:
                self.output += len(piece)       # thought unseen, and billed
        if self.mode == "openrouter":
            self.delta({"content": "", "reasoning_details": [{"type": "reasoning.text", "signature": "c2ln", "format": "x-v1", "index": 0}]}, 0)

    thought = None

    def calls(self, calls):
        """In pieces with an index; whole with one; whole without; by the mode."""
        for i, b in enumerate(calls):
            with self.fake.lock:
                self.fake.ids += 1
                call_id = "call_%08d" % self.fake.ids if self.mode != "llamacpp" else "%d" % i
                if self.mode in ("deepseek", "openrouter"):
                    self.fake.thoughts[call_id] = self.thought
            args = json.dumps(b["input"], ensure_ascii=self.rng.random() < 0.5)
            call = {"index": i, "id": call_id, "type": "function", "function": {"name": b["name"], "arguments": ""}}
            size = len(b["name"]) + len(args.encode())
            if self.mode in ("groq", "ollama"):
                call["function"]["arguments"] = args
                if self.mode == "groq":
                    del call["index"]
                else:
                    call["index"] = 0
                self.delta({"tool_calls": [call]}, size)
                continue
            self.delta({"tool_calls": [call]}, len(b["name"]))
            for k in range(0, len(args), 7):
                piece = {"index": i, "function": {"arguments": args[k:k + 7]}}
                self.delta({"tool_calls": [piece]}, len(args[k:k + 7].encode()))

    def at_once(self):
        text = "".join(b.get("text", "") for b in self.blocks)
        self.output = len(text.encode())
        with self.fake.lock:
            self.entry.update(output=tokens(self.output), completed=True)
        body = {"object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content": text},
                                                          "finish_reason": "stop"}], "usage": self.usage()}
        self.conn.respond(200, [("Content-Type", "application/json")], compact(body).encode())


class Over(Exception):
    pass
