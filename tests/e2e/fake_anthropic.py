# SPDX-License-Identifier: MIT OR Apache-2.0
"""fake_anthropic.py - a Messages API server that refuses what the real one refuses.

    ai = FakeAnthropic()
    ai.script = ["first answer", {"blocks": [...], "stop_reason": "tool_use"}]    # or a function
    ai.fail_next("529", n=2)
    ai.hold_after_first_delta = threading.Event()

Without a script the newest user text says what comes: "say X", "words N",
"tools", "tool NAME JSON", "echo history", "think …" (thinking, then the rest),
"search X" (a server tool, its result, a cited answer), "pause X" (the same, but
the turn is paused before the result), else "You said: …"; a turn that ends in
tool results is answered with them.

Beside /v1/messages: count_tokens (.counts, .count_extra, .hold_count), the list
of models in pages (.listings, .hidden_models), and rate limits that bite: limit()
gives a family of models so many requests or tokens until a reset, says so in
every answer, and a call that ignores it is a 429 in .bitten.

Three bookkeepers watch what a client gets wrong silently:
  - thinking blocks carry a signature over the model and everything before
    them; a replay that does not match is the API's own 400;
  - .prefix_violations: a request that continues a conversation must begin with
    the request before it, octet by octet, or the cache is lost (billing.Watch);
  - .billing (accepted calls, as they go) and .log (calls that are over): what
    the provider bills, its cache simulated, for comparison with the client's
    ledger (billing.py). .clock may be a test's own.
"""
import base64
import hashlib
import hmac
import json
import random
import re
import time

import billing
from billing import bare, blocks_of, bytes_of, canonical, compact, is_thinking, normal, picture, size, tokens
from fakehttp import FakeServer, Faults, Gone

BODY_MAX = 32 << 20
IMAGE_SIDE, IMAGE_SIDE_MANY, IMAGES_MANY = 8000, 2000, 20
BREAKPOINTS_MAX = 4
EFFORTS = ("low", "medium", "high", "xhigh", "max")
SECRET = b"fake signature key"
TRACEPARENT = r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[0-3]\Z"


def _model(window, out, **flags):
    """What it takes; what it costs is in billing.py."""
    m = dict(window=window, max_out=out, system=False, forced=True,
             prefill=False, enabled=False, disabled="no", between=False, bound=False, old=False)
    m.update(flags)
    return m


_NEW = dict(system=True, forced=False, bound=True)
MODELS = {
    "claude-fable-5-2": _model(1000000, 128000, **_NEW),
    "claude-fable-5-1": _model(1000000, 128000, **_NEW),
    "claude-opus-5-5": _model(1000000, 128000, **_NEW),
    "claude-sonnet-5-5": _model(1000000, 128000, between=True, **_NEW),
    "claude-haiku-5-5": _model(1000000, 128000, system=True, bound=True, disabled="low"),
    "claude-fable-5": _model(1000000, 128000, system=True),
    "claude-opus-5": _model(1000000, 128000, system=True, disabled="high"),
    "claude-opus-4-8": _model(1000000, 128000, system=True, disabled="max"),
    "claude-opus-4-7": _model(1000000, 128000, disabled="max"),
    "claude-opus-4-6": _model(1000000, 128000, disabled="max", enabled=True, old=True),
    "claude-opus-4-5": _model(200000, 64000, disabled="max", enabled=True, old=True, prefill=True),
    "claude-sonnet-5": _model(1000000, 128000, disabled="max"),
    "claude-sonnet-4-6": _model(1000000, 64000, disabled="max", enabled=True, old=True),
    "claude-haiku-4-5": _model(200000, 64000, disabled="max", enabled=True, old=True, prefill=True),
}
MODELS["claude-haiku-4-5-20251001"] = MODELS["claude-haiku-4-5"]

FIELDS = set(
    "model max_tokens messages system tools tool_choice thinking output_config cache_control "
             "stop_sequences stream metadata service_tier container inference_geo "
             "user_profile_id".split())
SAMPLING = ("temperature", "top_p", "top_k")
BETA_FIELDS = {"context_management": "context-management", "fallbacks": "server-side-fallback",
               "diagnostics": "cache-diagnosis", "speed": "fast-mode", "mcp_servers": "mcp-client"}
TOOL_FIELDS = set("name description input_schema strict cache_control defer_loading type "
                  "eager_input_streaming input_examples allowed_callers".split())
USER_BLOCKS = {
    "text": {"text", "citations"}, "image": {"source", "transformations"},
    "document": {"source", "title", "context", "citations"},
    "search_result": {"source", "title", "content", "citations"},
    "tool_result": {"tool_use_id", "content", "is_error"},
}
ASSISTANT_BLOCKS = {
    "text": {"text", "citations"}, "thinking": {"thinking", "signature"},
    "redacted_thinking": {"data"}, "tool_use": {"id", "name", "input", "caller"},
    "server_tool_use": {"id", "name", "input", "caller"}, "document": {"source", "title"},
}
ERROR_TYPES = {400: "invalid_request_error", 401: "authentication_error", 402: "billing_error",
               403: "permission_error", 404: "not_found_error", 405: "invalid_request_error",
               408: "timeout_error", 413: "request_too_large", 429: "rate_limit_error",
               500: "api_error", 502: "api_error", 503: "api_error", 504: "timeout_error",
               529: "overloaded_error"}
BOUND = ("messages.%d.content.%d: Invalid `signature` in `thinking` block. The block is bound to a "
         "different conversation: it must be replayed with the same model and the same preceding "
         "system prompt, tools and messages.")


class ApiError(Exception):
    def __init__(self, status, text, kind=None):
        super().__init__(text)
        self.status, self.text, self.kind = status, text, kind or ERROR_TYPES[status]


class RateLimited(ApiError):
    def __init__(self, text, wait):
        super().__init__(429, text)
        self.wait = wait


def need(condition, text, *args):
    if not condition:
        raise ApiError(400, text % args if args else text)


def groups_of(messages):
    """[role, [blocks]] with consecutive turns of a role merged."""
    groups = []
    for m in messages:
        if not groups or groups[-1][0] != m["role"]:
            groups.append([m["role"], []])
        groups[-1][1].extend(blocks_of(m["content"]))
    return groups


# ---- validation -------------------------------------------------------------------------


class Check:
    """One request against the rules of its version and model."""

    def __init__(self, body, version, betas, counting=False):
        self.body, self.version, self.betas, self.counting = body, version, betas, counting
        self.breakpoints = []
        self.images = []                # (where, width, height)

    def run(self, resumable):
        body = self.body
        need(isinstance(body, dict), "request body must be a JSON object")
        need(isinstance(body.get("model"), str), "model: Field required")
        if body["model"] not in MODELS:
            raise ApiError(404, "model: %s" % body["model"])
        self.model = MODELS[body["model"]]
        self.top()
        self.thinking()
        self.tools()
        self.system()
        need(isinstance(body.get("messages"), list), "messages: Field required")
        need(body["messages"], "messages: at least one message is required")
        need(len(body["messages"]) <= 100000, "messages: too many messages")
        for i, m in enumerate(body["messages"]):
            self.message(i, m)
        self.turns(resumable)
        self.pairs()
        self.server_pairs()
        self.pictures()
        self.cache()

    def top(self):
        body = self.body
        for name in body:
            if name in SAMPLING:
                self.sampling(name, body[name])
            elif name in BETA_FIELDS:
                need(any(b.startswith(BETA_FIELDS[name]) for b in self.betas),
                     "%s: Extra inputs are not permitted", name)
            else:
                need(name in FIELDS, "%s: Extra inputs are not permitted", name)
        stream = body.get("stream", False)
        need(type(stream) is bool, "stream: Input should be a valid boolean")
        if not self.counting:
            n = body.get("max_tokens")
            need("max_tokens" in body, "max_tokens: Field required")
            need(type(n) is int and n >= 0,
                 "max_tokens: Input should be a valid non-negative integer")
            need(n <= self.model["max_out"],
                 "max_tokens: %d > %d, which is the maximum allowed number of "
                 "output tokens for %s", n if type(n) is int else 0, self.model["max_out"],
                 body["model"])
            need(n > 0 or not stream, "max_tokens: 0 is not allowed with stream")
        else:
            need("max_tokens" not in body and "stream" not in body,
                 "max_tokens, stream: Extra inputs are not permitted")
        for s in body.get("stop_sequences", []):
            need(isinstance(s, str) and s.strip(),
                 "stop_sequences: each must contain non-whitespace")
        metadata = body.get("metadata", {})
        need(isinstance(metadata, dict) and set(metadata) <= {"user_id"},
             "metadata: Extra inputs are not permitted")
        need(body.get("service_tier", "auto") in ("auto", "standard_only"),
             "service_tier: Input should be "
             "'auto' or 'standard_only'")
        self.output_config()

    def sampling(self, name, value):
        need(self.version != "2026-10-21", "`%s` is not supported in this API version. Remove it.",
             name)
        if not self.model["old"]:
            ok = (name == "temperature" and value == 1) or (name == "top_p" and value >= 0.99)
            need(ok, "`%s` is deprecated for this model.", name)

    def output_config(self):
        config = self.body.get("output_config", {})
        need(isinstance(config, dict) and set(config) <= {"effort", "format"},
             "output_config: Extra inputs are not permitted")
        self.effort = config.get("effort")
        need(self.effort is None or self.effort in EFFORTS,
             "output_config.effort: Input should be one of "
             "%s", ", ".join(EFFORTS))

    def thinking(self):
        thinking = self.body.get("thinking")
        if thinking is None:
            return
        need(isinstance(thinking, dict) and isinstance(thinking.get("type"), str),
             "thinking.type: Field required")
        kind, m = thinking["type"], self.model
        fields = {"enabled": {"type", "budget_tokens", "display"}, "disabled": {"type"},
                  "adaptive": {"type", "display", "block_binding"},
                  "between_tools": {"type", "display"}}
        need(kind in fields, "thinking.type: Input tag '%s' is not known", kind)
        need(set(thinking) <= fields[kind], "thinking: Extra inputs are not permitted")
        need(thinking.get("display", "omitted") in ("summarized", "omitted"),
             "thinking.display: Input "
             "should be 'summarized' or 'omitted'")
        need("block_binding" not in thinking
             or any(b.startswith("thinking-binding-controls") for b in self.betas),
             "thinking.block_binding: Extra inputs are not permitted")
        if kind == "enabled":
            need(m["enabled"], '"thinking.type.enabled" is not supported for this model. Use '
                 '"thinking.type.adaptive" and "output_config.effort" to control thinking '
                 'behavior.')
            budget = thinking.get("budget_tokens")
            need(type(budget) is int and 1024 <= budget < self.body.get("max_tokens", 1 << 30),
                 "thinking.budget_tokens: must be at least 1024 and less than max_tokens")
        elif kind == "disabled":
            limit = m["disabled"]
            effort = self.effort or "medium"
            need(limit != "no" and EFFORTS.index(effort) <= EFFORTS.index(limit) + (limit == "low"),
                 '"thinking.type.disabled" is not supported for this model.')
        elif kind == "between_tools":
            need(m["between"] and self.effort in (None, "low", "medium", "high"),
                 '"thinking.type.between_tools" is not supported for this model or effort.')

    def control(self, where, holder, order=True):
        """A cache_control member, wherever it may stand."""
        control = holder.get("cache_control")
        if control is None:
            return
        need(isinstance(control, dict) and control.get("type") == "ephemeral"
             and set(control) <= {"type", "ttl"} and control.get("ttl", "5m") in ("5m", "1h"),
             "%s.cache_control: Input should be {\"type\":\"ephemeral\",\"ttl\":\"5m\"|\"1h\"}",
             where)
        if order:
            self.breakpoints.append((where, control.get("ttl", "5m")))

    def tools(self):
        tools, names = self.body.get("tools", []), set()
        need(isinstance(tools, list), "tools: Input should be a valid list")
        for i, t in enumerate(tools):
            need(isinstance(t, dict) and isinstance(t.get("name"), str),
                 "tools.%d.name: Field required", i)
            for k in t:
                need(k in TOOL_FIELDS, "tools.%d.custom.%s: Extra inputs are not permitted", i, k)
            need(re.match(r"[a-zA-Z0-9_-]{1,128}\Z", t["name"]),
                 "tools.%d.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'", i)
            need(t["name"] not in names, "tools: Tool names must be unique.")
            names.add(t["name"])
            if t.get("type", "custom") == "custom":
                schema = t.get("input_schema")
                need(isinstance(schema, dict), "tools.%d.custom.input_schema: Field required", i)
                need(schema.get("type") == "object",
                     "tools.%d.custom.input_schema.type: Input should be 'object'", i)
                need(isinstance(t.get("description", ""), str),
                     "tools.%d.custom.description: Input "
                     "should be a valid string", i)
            self.control("tools.%d" % i, t)
        need(not tools or any(not t.get("defer_loading") for t in tools),
             "tools: at least one tool must have defer_loading=false")
        choice = self.body.get("tool_choice")
        if choice is not None:
            need(isinstance(choice, dict) and choice.get("type") in ("auto", "any", "none", "tool")
                 and set(choice) <= {"type", "name", "disable_parallel_tool_use"},
                 "tool_choice: Input is not a known choice")
            need(tools, "tool_choice: tool_choice may only be specified while providing tools.")
            need(self.model["forced"] or choice["type"] in ("auto", "none"),
                 "tool_choice: type '%s' is not supported for this model.", choice["type"])
            need(choice["type"] != "tool" or choice.get("name") in names,
                 "tool_choice.name: unknown tool")
        self.tool_names = names

    def system(self):
        system = self.body.get("system")
        if system is None or isinstance(system, str):
            return
        need(isinstance(system, list), "system: Input should be a valid string or list")
        for i, b in enumerate(system):
            self.text_block("system.%d" % i, b)
            self.control("system.%d" % i, b)

    def text_block(self, where, b):
        need(isinstance(b, dict) and b.get("type") == "text", "%s.type: Input should be 'text'",
             where)
        need(set(b) <= {"type", "text", "cache_control", "citations"},
             "%s: Extra inputs are not permitted", where)
        need(isinstance(b.get("text"), str), "%s.text: Field required", where)
        need(b["text"] != "", "%s: text content blocks must be non-empty", where)
        need(b["text"].strip(), "%s: text content blocks must contain non-whitespace text", where)

    def message(self, i, m):
        where = "messages.%d" % i
        need(isinstance(m, dict), "%s: Input should be an object", where)
        need(set(m) <= {"role", "content"}, "%s: Extra inputs are not permitted", where)
        need(m.get("role") in ("user", "assistant", "system"), "%s.role: Input should be 'user' or "
             "'assistant'", where)
        need("content" in m, "%s.content: Field required", where)
        content = m["content"]
        need(isinstance(content, (str, list)),
             "%s.content: Input should be a valid string or list", where)
        if m["role"] == "system":
            need(self.model["system"],
                 "%s.role: `system` messages are not supported for this model", where)
        if isinstance(content, str):
            need(content.strip(), "%s: %s messages must have non-empty content", where, m["role"])
            return
        need(content, "%s: %s messages must have non-empty content", where, m["role"])
        for j, b in enumerate(content):
            self.block("%s.content.%d" % (where, j), m["role"], b)

    def block(self, where, role, b):
        need(isinstance(b, dict) and isinstance(b.get("type"), str), "%s.type: Field required",
             where)
        kind = b["type"]
        if role == "system":
            self.text_block(where, b)
            self.control(where, b)
            return
        known = USER_BLOCKS if role == "user" else ASSISTANT_BLOCKS
        if role == "assistant" and (kind.startswith("future_") or kind.endswith("_tool_result")):
            return
        need(kind in known, "%s: Input tag '%s' is not allowed for role %s", where, kind, role)
        for k in b:
            need(k in known[kind] or k in ("type", "cache_control"),
                 "%s.%s.%s: Extra inputs are not permitted", where, kind, k)
        need("cache_control" not in b or kind not in ("thinking", "redacted_thinking"),
             "%s.%s.cache_control: Extra inputs are not permitted", where, kind)
        getattr(self, "block_" + kind)(where, role, b)
        self.control(where, b)

    def block_text(self, where, role, b):
        self.text_block(where, b)
        need(self.version != "2026-10-21" or role != "user" or not b.get("citations"),
             "%s.text.citations: citations are not allowed on user text", where)

        citations = b.get("citations")
        need(citations is None or isinstance(citations, list)
             and all(isinstance(c, dict) and isinstance(c.get("type"), str) for c in citations),
             "%s.text.citations: Input should be a valid list", where)

    def block_thinking(self, where, role, b):
        need(isinstance(b.get("thinking"), str), "%s.thinking.thinking: Field required", where)
        need(isinstance(b.get("signature"), str) and b["signature"],
             "%s.thinking.signature: Field required", where)

    def block_redacted_thinking(self, where, role, b):
        need(isinstance(b.get("data"), str) and b["data"],
             "%s.redacted_thinking.data: Field required",
             where)

    def block_tool_use(self, where, role, b):
        need(isinstance(b.get("id"), str) and re.match(r"[a-zA-Z0-9_-]+\Z", b["id"]),
             "%s.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'", where)
        need(isinstance(b.get("name"), str) and re.match(r"[a-zA-Z0-9_-]{1,200}\Z", b["name"]),
             "%s.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{1,200}$'", where)
        need(isinstance(b.get("input"), dict),
             "%s.tool_use.input: Input should be a valid dictionary",
             where)

    block_server_tool_use = block_tool_use

    def block_tool_result(self, where, role, b):
        need(isinstance(b.get("tool_use_id"), str), "%s.tool_result.tool_use_id: Field required",
             where)
        need(type(b.get("is_error", False)) is bool,
             "%s.tool_result.is_error: Input should be a valid "
             "boolean", where)
        content = b.get("content", "")
        if isinstance(content, str):
            return
        need(isinstance(content, list), "%s.tool_result.content: Input should be a string or list",
             where)
        for k, part in enumerate(content):
            inner = "%s.tool_result.content.%d" % (where, k)
            need(isinstance(part, dict) and part.get("type") in
                 ("text", "image", "document", "search_result", "tool_reference"),
                 "%s.type: Input tag is not allowed", inner)
            need("cache_control" not in part, "%s.cache_control: a breakpoint stands on the result", inner)
            if part["type"] == "text":
                self.text_block(inner, part)
            elif part["type"] in ("image", "document"):
                getattr(self, "block_" + part["type"])(inner, role, part)

    def block_image(self, where, role, b):
        data = self.source(where, b, ("image/jpeg", "image/png", "image/gif", "image/webp"))
        if data is not None:
            found = picture(data)
            need(found, "%s.image.source.base64.data: Could not process image", where)
            need(found[0] == b["source"]["media_type"],
                 "%s.image.source.base64.data: The image was specified using the %s media type, but "
                 "the image appears to be a %s image", where, b["source"]["media_type"], found[0])
        self.images.append((where,) + (found[1:] if data is not None else (1, 1)))

    def block_document(self, where, role, b):
        need(role == "user" or self.version != "2026-10-21",
             "%s: `document` blocks are not allowed in assistant messages", where)
        data = self.source(where, b, ("application/pdf",), "text/plain")
        need(data is None or b["source"]["type"] == "text" or data.startswith(b"%PDF-"),
             "%s.document.source.base64.data: The PDF specified was not valid.", where)
        need(isinstance(b.get("title", ""), str) and isinstance(b.get("context", ""), str),
             "%s.document.title: Input should be a valid string", where)

    def block_search_result(self, where, role, b):
        need("source" in b and "title" in b and isinstance(b.get("content"), list),
             "%s.search_result: source, title and content are required", where)

    def source(self, where, b, kinds, text=None):
        """The bytes of a block's source, None when they are elsewhere."""
        source = b.get("source")
        need(isinstance(source, dict) and source.get("type") in ("base64", "url", "file", "text",
                                                                 "content"),
             "%s.source: Field required", where)
        fields = {"base64": {"media_type", "data"}, "text": {"media_type", "data"}, "url": {"url"},
                  "file": {"file_id"}, "content": {"content"}}[source["type"]]
        need(set(source) == fields | {"type"}, "%s.source.%s: fields should be %s", where,
             source["type"], ", ".join(sorted(fields)))
        need(text or source["type"] not in ("text", "content"), "%s.source.type: not known", where)
        if source["type"] == "text":
            need(source["media_type"] == text and isinstance(source["data"], str)
                 and source["data"].strip(), "%s.source.text: empty or no %s", where, text)
            return source["data"].encode("utf-8", "surrogatepass")
        if source["type"] != "base64":
            return None
        need(source["media_type"] in kinds, "%s.source.media_type: Input should be one of %s",
             where, ", ".join(kinds))
        try:
            data = base64.b64decode(source["data"], validate=True)
        except (ValueError, TypeError):
            raise ApiError(400, "%s.source.base64.data: invalid base64" % where)
        need(data, "%s.source: empty", where)
        return data

    def pictures(self):
        """So many and so large; a model with a small window takes fewer."""
        most = 600 if self.model["window"] >= 1000000 else 100
        need(len(self.images) <= most, "messages: too many images and documents: %d + 0 > %d",
             len(self.images), most)
        side = IMAGE_SIDE_MANY if len(self.images) > IMAGES_MANY else IMAGE_SIDE
        for where, width, height in self.images:
            need(0 < width <= side and 0 < height <= side,
                 "%s.image.source.base64.data: At least one of the image dimensions exceed max "
                 "allowed size%s: %d pixels", where,
                 " for many-image requests" if side < IMAGE_SIDE else "", side)

    def server_pairs(self):
        """What the provider's own tools were asked stands before its result, in the same turn; it
        may be open only where the provider goes on with it."""
        turns = []
        for i, m in enumerate(self.body["messages"]):
            if not turns or turns[-1][0] != m["role"]:
                turns.append((m["role"], i, []))
            turns[-1][2].extend(blocks_of(m["content"]))
        for n, (role, i, blocks) in enumerate(turns):
            opened = []
            for b in blocks if role == "assistant" else []:
                if b["type"] == "server_tool_use":
                    opened.append(b["id"])
                elif b["type"].endswith("_tool_result"):
                    need(b.get("tool_use_id") in opened,
                         "messages.%d: `%s` without its `server_tool_use`: %s", i, b["type"],
                         b.get("tool_use_id"))
                    opened.remove(b["tool_use_id"])
            need(not opened or n + 1 == len(turns) or any(b["type"] == "tool_use" for b in blocks),
                 "messages.%d: `server_tool_use` ids were found without a corresponding result: %s",
                 i, ", ".join(opened))

    def turns(self, resumable):
        messages = self.body["messages"]
        need(messages[0]["role"] == "user", "messages: first message must use the \"user\" role")
        for i, m in enumerate(messages):
            if m["role"] != "system":
                continue
            before = messages[i - 1]
            server = isinstance(before["content"], list) and before["role"] == "assistant" \
                and before["content"][-1].get("type") == "server_tool_use"
            need(before["role"] in ("user", "system") or server,
                 "messages.%d: `system` messages must follow a user message", i)
            need(i + 1 == len(messages) or messages[i + 1]["role"] in ("assistant", "system"),
                 "messages.%d: `system` messages must be last or be followed by an assistant "
                 "message", i)
        last = messages[-1]
        for i, m in enumerate(messages):
            need(m["role"] != "assistant" or "thinking" not in blocks_of(m["content"])[-1]["type"] or m is last,
                 "messages.%d: The final block in an assistant message cannot be `thinking`.", i)
        if last["role"] == "assistant" and not resumable(last):
            need(self.model["prefill"],
                 "This model does not support assistant message prefill. The "
                 "conversation must end with a user message.")
            end = blocks_of(last["content"])[-1].get("text", "x")
            need(end == end.rstrip(), "messages: final assistant content cannot end with trailing "
                 "whitespace")

    def pairs(self):
        """Every tool_use is answered in the next turn, first thing, once; nothing else is."""
        turns, seen = [], set()
        for i, m in enumerate(self.body["messages"]):
            if m["role"] == "system":
                continue
            blocks = [(i, j, b) for j, b in enumerate(blocks_of(m["content"]))]
            if turns and turns[-1][0] == m["role"]:
                turns[-1][1].extend(blocks)
            else:
                turns.append((m["role"], blocks))
        open_ids, open_at = [], 0
        for role, blocks in turns + [("user", [])]:
            if role == "assistant":
                for i, j, b in blocks:
                    if b["type"] == "tool_use":
                        need(b["id"] not in seen,
                             "messages.%d.content.%d: `tool_use` ids must be unique",
                             i, j)
                        seen.add(b["id"])
                        open_ids.append(b["id"])
                        open_at = i
                continue
            left, others = list(open_ids), False
            for i, j, b in blocks:
                if b["type"] != "tool_result":
                    others = True
                    continue
                need(b["tool_use_id"] in open_ids,
                     "messages.%d.content.%d: unexpected `tool_use_id` found "
                     "in `tool_result` blocks: %s. Each `tool_result` block must have a "
                     "corresponding "
                     "`tool_use` block in the previous message.", i, j, b["tool_use_id"])
                need(b["tool_use_id"] in left,
                     "messages.%d.content.%d: each tool_use must have a single "
                     "result. Found multiple `tool_result` blocks with id: %s", i, j,
                     b["tool_use_id"])
                need(not others,
                     "messages.%d.content.%d: `tool_result` blocks must come first in the "
                     "message", i, j)
                left.remove(b["tool_use_id"])
            need(not left,
                 "messages.%d: `tool_use` ids were found without `tool_result` blocks immediately "
                 "after: %s. Each `tool_use` block must have a corresponding `tool_result` "
                 "block in the "
                 "next message.", open_at, ", ".join(left))
            open_ids = []

    def cache(self):
        self.control("request", self.body, order=False)
        automatic = self.body.get("cache_control")
        need(len(self.breakpoints) + (automatic is not None) <= BREAKPOINTS_MAX,
             "A maximum of 4 blocks with cache_control may be provided. Found %d.",
             len(self.breakpoints) + (automatic is not None))
        ttls = [ttl for _, ttl in self.breakpoints]
        if automatic is not None:
            last = blocks_of(self.body["messages"][-1]["content"])[-1].get("cache_control")
            need(last is None or last.get("ttl", "5m") == automatic.get("ttl", "5m"),
                 "cache_control: the last block has an explicit breakpoint with another ttl")
            ttls.append(automatic.get("ttl", "5m"))
        need("1h" not in ttls[ttls.index("5m"):] if "5m" in ttls else True,
             "cache_control: a ttl='1h' cache_control block must not come after a ttl='5m' "
             "cache_control block.")


# ---- thinking signatures --------------------------------------------------------------------


def prefix_digest(body, groups):
    """What a thinking block is bound to, itself and other thinking aside, and the marks of the
    thinking before it. Reordering tools, deferred tools and moved breakpoints do not count."""
    tools = sorted((canonical(bare(t)) for t
                    in body.get("tools", []) if not t.get("defer_loading")))
    system = [b["text"] for b in blocks_of(body.get("system", ""))]
    marks, rest = [], []
    for role, blocks in groups:
        kept = []
        for b in blocks:
            if is_thinking(b):
                marks.append(hashlib.sha256(canonical(b).encode()).hexdigest()[:8])
            elif not b["type"].startswith("future_"):
                kept.append(normal(b))
        rest.append([role, kept])
    whole = canonical([tools, system, rest])
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:32], marks


def sign(model, body, groups, thinking):
    digest, marks = prefix_digest(body, groups)
    claim = canonical([model, digest, marks,
                       hashlib.sha256(thinking.encode()).hexdigest()[:16]]).encode()
    mac = hmac.new(SECRET, claim, hashlib.sha256).digest()[:16]
    return base64.b64encode(mac + claim).decode()


def verify(body):
    """Every thinking block of a request; the API's own 400 for the first that does not fit."""
    messages = body["messages"]
    for i, m in enumerate(messages):
        for j, b in enumerate(blocks_of(m["content"])):
            if b.get("type") != "thinking":
                continue
            try:
                raw = base64.b64decode(b["signature"], validate=True)
                mac, claim = raw[:16], raw[16:]
                model, digest, marks, text = json.loads(claim)
            except ValueError:
                raise ApiError(400, BOUND % (i, j))
            good = hmac.compare_digest(mac, hmac.new(SECRET, claim, hashlib.sha256).digest()[:16]) \
                and text == hashlib.sha256(b["thinking"].encode()).hexdigest()[:16]
            if good and MODELS[body["model"]]["bound"]:
                groups = groups_of(messages[:i])
                if not groups or groups[-1][0] != "assistant":
                    groups.append(["assistant", []])
                groups[-1] = [groups[-1][0], groups[-1][1] + blocks_of(m["content"])[:j]]
                now, present = prefix_digest(body, groups)
                good = model == body["model"] and now == digest \
                    and present == marks[len(marks) - len(present):]
            if not good:
                raise ApiError(400, BOUND % (i, j))


# ---- answers ------------------------------------------------------------------------------


class Ask:
    """A request as scripts see it."""

    def __init__(self, body, number):
        self.body, self.number, self.model = body, number, body["model"]
        self.groups = groups_of([m for m in body["messages"] if m["role"] != "system"])
        self.resumed = self.groups[-1][0] == "assistant"      # after pause_turn
        last = self.groups[-1][1]
        self.results = [b for b in last if b["type"] == "tool_result"]
        texts = [b["text"] for b in last if b["type"] == "text"]
        self.text = texts[-1] if texts else ""
        self.user_texts = [b["text"] for role, blocks in self.groups if role == "user"
                           for b in blocks if b["type"] == "text"]
        self.tools = {t["name"] for t in body.get("tools", [])}

    def result_texts(self):
        out = []
        for r in self.results:
            parts = r.get("content", "")
            out.append(parts if isinstance(parts, str) else
                       " ".join(p.get("text", p["type"]) for p in parts))
        return out


def text_answer(text, **more):
    return dict({"blocks": [{"type": "text", "text": text}]}, **more)


def tool_answer(calls, say=None):
    blocks = [{"type": "text", "text": say}] if say else []
    return {"blocks": blocks + [{"type": "tool_use", "name": n, "input": i} for n, i in calls]}


def search_blocks(query, use_id=None):
    """A server tool's call, its result, and an answer that cites it."""
    use_id = use_id or "srvtoolu_" + hashlib.sha256(query.encode()).hexdigest()[:20]
    return ({"type": "server_tool_use", "id": use_id, "name": "web_search",
             "input": {"query": query}, "caller": {"type": "direct"}},
            {"type": "web_search_tool_result", "tool_use_id": use_id, "content": [
                {"type": "web_search_result", "url": "https://a.example/", "title": "A \"title\"",
                 "encrypted_content": "Zm9v" * 40, "page_age": None}]},
            {"type": "text", "text": "Found " + query, "citations": [
                {"type": "web_search_result_location", "url": "https://a.example/",
                 "title": "A \"title\"", "encrypted_index": "Zm9v", "cited_text": query},
                {"type": "web_search_result_location", "url": "https://b.example/",
                 "title": None, "encrypted_index": "YmFy", "cited_text": "\u00fc"}]})


def default_answer(ask, text=None):
    """What a user's own words ask for."""
    text = ask.text if text is None else text
    if ask.resumed and ask.groups[-1][1][-1]["type"] == "server_tool_use":
        use = ask.groups[-1][1][-1]
        return {"blocks": list(search_blocks(use["input"]["query"], use["id"])[1:])}
    if ask.resumed:
        return text_answer(" And the rest.")
    if ask.results:
        return text_answer("Tool results: " + "; ".join(ask.result_texts()))
    word, _, rest = text.strip().partition(" ")
    if word == "say" and rest:
        return text_answer(rest)
    if word == "words" and rest.strip().isdigit():
        return text_answer(" ".join("w%d" % (i + 1) for i in range(int(rest))))
    if text.strip() == "tools":
        return tool_answer([("time_now", {}),
                            ("text_count", {"text": "Gr\u00fc\u00dfe \U0001f30d"})],
                           say="Let me look.")
    if word == "tool" and rest:
        name, _, arg = rest.partition(" ")
        return tool_answer([(name, json.loads(arg or "{}"))])
    if word == "search" and rest:
        use, found, cited = search_blocks(rest)
        return {"blocks": [use, found, cited]}
    if word == "pause" and rest:
        use, _, _ = search_blocks(rest)
        return {"blocks": [{"type": "text", "text": "Searching."}, use], "stop_reason": "pause_turn"}
    if text.strip() == "echo history":
        return text_answer("You wrote: " + " | ".join(ask.user_texts[:-1]))
    if word == "think":
        inner = default_answer(ask, rest or "say done")
        return dict(inner, blocks=[{"type": "thinking", "thinking": ""}] + inner["blocks"])
    return text_answer("You said: " + (text.strip() or "nothing"))


class FakeAnthropic(FakeServer):
    def __init__(self, api_key="sk-ant-test-0123456789abcdef", seed=7):
        self.api_key = api_key
        self.workspaces = {}            # more keys -> the workspace of each; the first is in ""
        self.clock = time.time          # of the cache and the log; a test may set its own
        self.rng = random.Random(seed)
        self.script = None              # callable(ask) or list of answers; None: default_answer
        self.think = False              # every answer begins with a thinking block
        self.noise = True               # unknown events, blocks, deltas, fields and pings
        self.delay = 0.0                # seconds before each delta
        self.piece = None               # characters per text delta; None: 1..24 at random
        self.hold = None                # an event: what is accepted is answered only then
        self.hold_after_first_delta = None
        self.correction = 7             # message_start claims so many input tokens too many
        self.requests = []              # every POST /v1/messages, accepted or not
        self.billing = []               # accepted calls, as they go
        self.book = billing.Book()
        self.log = self.book.calls      # calls that are over
        self.watch = billing.Watch()
        self.prefix_violations = self.watch.violations
        self.paused = set()
        self.cache = billing.Cache()
        self.faults = Faults()
        self.counts = []                # bodies of count_tokens
        self.count_extra = 0            # tokens that it finds beside those of the text
        self.hold_count = None          # an event: counts are answered only then
        self.listings = []              # paths of GET /v1/models
        self.hold_models = None
        self.page_max = 1000            # models of one page, whatever is asked for
        self.hidden_models = set()      # those that this account does not have
        self.limits = {}                # family -> its limits
        self.bitten = []                # calls that ignored them
        self.ids = 0
        super().__init__()

    def limit(self, family, seconds, **limits):
        """limit("claude-sonnet", 3, requests=1, input_tokens=5000): from now until the reset."""
        with self.lock:
            self.limits[family] = {"reset": time.time() + seconds, "limit": limits,
                                   "left": dict(limits)}

    # -- for tests ----------------------------------------------------------------------

    def fail_next(self, kind, n=1, **options):
        """The next n calls fail ("count" and "models" in faults are those of the other endpoints).
        Kinds: a status ("529", "429" … with retry_after=,
        retry_after_ms=, should_retry=, type=, text=), "signature", "hang", "reset",
        "hang_mid" (k=), "error_event" (k=, type=),
        "cut" (k=), "fin" (k=), "refusal", "refusal_mid" (k=), "stop" (reason=), "tool_cut",
        "empty" (a head, no event), "lost" (accepted, nothing comes back), "html"."""
        self.faults.add("messages", str(kind), n, **options)

    def answered(self):
        """Requests that got a complete 200."""
        with self.lock:
            return [r for r in self.requests if r["status"] == 200 and r["complete"]]

    def completed(self):
        with self.lock:
            return [b for b in self.billing if b["completed"]]

    @staticmethod
    def cost(entry):
        """Nano-dollars of a billing entry."""
        return billing.nano(entry["model"], entry["usage"], entry["geo"])

    def unexpected(self):
        return super().unexpected() + list(self.prefix_violations)

    # -- HTTP ---------------------------------------------------------------------------------

    def new_id(self, prefix):
        with self.lock:
            self.ids += 1
            return "%s_01fake%014d" % (prefix, self.ids)

    def headers(self, request_id, more=()):
        return [("Content-Type", "application/json"), ("request-id", request_id),
                ("anthropic-organization-id", "00000000-0000-4000-8000-000000000000"),
                ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
                ("server", "cloudflare")] + list(more)

    # -- rate limits ----------------------------------------------------------------------

    def limit_of(self, model):
        return next((v for k, v in self.limits.items() if model.startswith(k + "-")), None)

    def limit_headers(self, model):
        """As of now; without a limit of its own a family has plenty."""
        with self.lock:
            own = self.limit_of(model)
            limit, left = (own["limit"], own["left"]) if own else ({"requests": 1000},
                                                                   {"requests": 999})
            reset = own["reset"] if own else time.time() + 60
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(reset + self.clock_skew))
            out = []
            for name in limit:
                head = "anthropic-ratelimit-" + name.replace("_", "-")
                out += [(head + "-limit", str(limit[name])),
                        (head + "-remaining", str(max(0, left[name]))), (head + "-reset", at)]
            return out

    def take_limit(self, model, input_tokens, cached):
        """One call more; the 429 of one that the last answer's headers had warned of."""
        with self.lock:
            own = self.limit_of(model)
            if own is None:
                return
            if time.time() >= own["reset"]:     # whole again, and nothing is said any more
                self.limits = {k: v for k, v in self.limits.items() if v is not own}
                return
            left = own["left"]
            # Reads from the cache do not count; whoever asks cannot know more than the total.
            need_now = {"requests": 1, "tokens": input_tokens - cached,
                        "input_tokens": input_tokens - cached, "output_tokens": 1}
            for name in left:
                if left[name] < need_now[name]:
                    self.bitten.append((model, name, left[name], need_now[name]))
                    wait = max(1, int(own["reset"] - time.time() + 1))
                    raise RateLimited("This request would exceed your rate limit (%s)." % name, wait)
            for name in left:
                left[name] -= need_now[name]

    def send_error(self, conn, request_id, e, more=()):
        body = {"type": "error", "error": {"type": e.kind, "message": e.text},
                "request_id": request_id}
        conn.respond(e.status, self.headers(request_id, more), compact(body).encode())

    def handle(self, conn, request):
        request_id = self.new_id("req")
        try:
            self.route(conn, request, request_id)
        except ApiError as e:
            self.refuse("%s %s: %d %s" % (request.method, request.path, e.status, e.text))
            self.send_error(conn, request_id, e)

    def route(self, conn, request, request_id):
        key = request.header("x-api-key")
        if not key:
            raise ApiError(401, "x-api-key header is required")
        if key != self.api_key and key not in self.workspaces:
            raise ApiError(401, "invalid x-api-key")
        version = request.header("anthropic-version")
        need(version, "anthropic-version: header is required")
        need(version in ("2023-06-01", "2026-10-21"),
             'anthropic-version: "%s" is not a valid version',
             version)
        trace = request.header("traceparent")
        need(not trace or re.match(TRACEPARENT, trace), "traceparent: %s is not one", trace)
        m = re.match(r"/v1/models(?:/([^/]+))?\Z", request.path)
        if m:
            if request.method != "GET":
                raise ApiError(405, "Method Not Allowed")
            need(not request.body, "GET: a body is not permitted")
            pairs = [p.partition("=") for p in request.query.split("&") if p]
            return self.models(conn, request_id, m.group(1), {k: v for k, _, v in pairs})
        counting = request.path == "/v1/messages/count_tokens"
        if request.path != "/v1/messages" and not counting:
            raise ApiError(404, "Not found")
        if request.method != "POST":
            raise ApiError(405, "Method Not Allowed")
        if len(request.body) > BODY_MAX:
            raise ApiError(413, "Request exceeds the maximum size")
        need(request.header("content-type").split(";")[0].strip() == "application/json",
             "content-type: must be application/json")
        try:
            body = json.loads(request.body.decode("utf-8"), object_pairs_hook=unique)
        except ValueError as e:
            raise ApiError(400, "The request body is not valid JSON: %s" % e)
        betas = [b.strip() for b in request.header("anthropic-beta").split(",") if b.strip()]
        check = Check(body, version, betas, counting)
        if counting:
            return self.count(conn, request_id, body, check)
        return self.messages(conn, request, request_id, body, check)

    def plain_fault(self, conn, name, request_id):
        """Faults of the small endpoints; True when the call is over."""
        kind, options = self.faults.take(name)
        if kind == "hang":
            conn.hang()
        if kind == "reset":
            conn.reset()
        if kind == "garbage":
            conn.respond(200, self.headers(request_id), b'{"input_tokens": "many", "data": [{')
        elif kind:
            self.send_error(conn, request_id, ApiError(int(kind), options.get("text", "injected")))
        return bool(kind)

    def count(self, conn, request_id, body, check):
        with self.cond:
            self.counts.append(body)
            self.cond.notify_all()
        if self.plain_fault(conn, "count", request_id):
            return
        check.run(self.resumable)
        verify(body)
        if self.hold_count is not None:
            conn.hold(self.hold_count)
        n = billing.Prompt(body).total + self.count_extra
        conn.respond(200, self.headers(request_id), compact({"input_tokens": n}).encode())

    def models(self, conn, request_id, wanted, query):
        with self.cond:
            self.listings.append(query)
            self.cond.notify_all()
        if self.plain_fault(conn, "models", request_id):
            return
        if self.hold_models is not None:
            conn.hold(self.hold_models)
        have = [n for n in MODELS if n not in self.hidden_models]
        if wanted is not None and wanted not in have:
            raise ApiError(404, "model: %s" % wanted)
        for name in query:
            need(name in ("limit", "after_id", "before_id"), "%s: Extra inputs are not permitted", name)
        limit = query.get("limit", "20")
        need(limit.isdigit() and 1 <= int(limit) <= 1000, "limit: Input should be between 1 and 1000")
        limit, start = min(int(limit), self.page_max), 0
        if "after_id" in query:
            need(query["after_id"] in have, "after_id: not found")
            start = have.index(query["after_id"]) + 1
        page = [wanted] if wanted else have[start:start + limit]
        data = [self.model_entry(name) for name in page]
        out = data[0] if wanted else {
            "data": data, "has_more": start + limit < len(have),
            "first_id": page[0] if page else None, "last_id": page[-1] if page else None}
        conn.respond(200, self.headers(request_id), compact(out).encode())

    @staticmethod
    def model_entry(name):
        m = MODELS[name]
        words = name.replace("-20251001", "").split("-")
        return {"type": "model", "id": name,
                "display_name": "%s %s" % (" ".join(w.title() for w in words if not w.isdigit()),
                                           ".".join(w for w in words if w.isdigit())),
                "created_at": "2026-01-01T00:00:00Z", "max_input_tokens": m["window"],
                "max_tokens": m["max_out"],
                "capabilities": {"image_input": {"supported": True}, "pdf_input": {"supported": True},
                                 "thinking": {"supported": True,
                                              "types": {"adaptive": {"supported": not m["enabled"]},
                                                        "enabled": {"supported": m["enabled"]}}}}}

    def resumable(self, message):
        """Is this the assistant turn of an answer that ended in pause_turn?"""
        return canonical([normal(b) for b in blocks_of(message["content"])]) in self.paused

    def messages(self, conn, request, request_id, body, check):
        record = {"id": request_id, "time": request.time, "headers": request.headers, "body": body,
                  "raw": request.body, "status": None, "complete": False, "fault": None,
                  "stop": None}
        model = body.get("model") if isinstance(body, dict) else None
        with self.cond:
            self.requests.append(record)
            entry = self.book.begin(request_id, model, self.workspaces.get(request.header("x-api-key"), ""),
                                    self.clock())
            entry["number"] = len(self.requests)
            self.cond.notify_all()
        try:
            self.serve(conn, request_id, body, check, record, entry)
        finally:
            with self.cond:
                entry.update(status=record["status"], stop=record["stop"])
                self.book.end(entry, self.clock())
                self.cond.notify_all()

    def serve(self, conn, request_id, body, check, record, entry):
        kind, options = self.faults.take("messages")
        record["fault"] = kind
        space = entry["workspace"]
        try:
            check.run(self.resumable)
            verify(body)
        except ApiError as e:
            record["status"] = e.status
            if "Invalid `signature`" in e.text:
                self.forget(body, space)
            raise
        entry["geo"] = body.get("inference_geo")
        with self.lock:
            head, differs = self.watch.compare(space, body)
        if kind and self.fault_before(conn, request_id, kind, options, record):
            return
        prompt = billing.Prompt(body, space)
        try:
            known = self.cache.look(prompt, entry["time"])[0]
            self.take_limit(body["model"], prompt.total, known["cache_read_input_tokens"])
        except RateLimited as e:
            record["status"] = 429
            self.send_error(conn, request_id, e, [("retry-after", str(e.wait))]
                            + self.limit_headers(body["model"]))
            return
        ask = Ask(body, entry["number"])
        answer = self.answer_for(ask)
        with self.cond:
            entry["usage"], kept = self.cache.look(prompt, entry["time"])
            entry["miss"] = self.cache.missed(head, differs, prompt, entry["usage"], entry["time"])
            entry["outcome"] = "cut"
            self.book.charge(entry, self.clock())
            self.billing.append(entry)
        if self.hold is not None:
            conn.hold(self.hold)
        out = Answer(self, conn, ask, answer, entry, kept, record, kind, options)
        try:
            out.send()
        finally:
            with self.cond:
                entry["bytes"] = out.sent
                self.cond.notify_all()

    def answer_for(self, ask):
        answer = None
        if callable(self.script):
            answer = self.script(ask)
        elif self.script:
            answer = self.script.pop(0)
        if answer is None:
            answer = default_answer(ask)
        answer = text_answer(answer) if isinstance(answer, str) else answer
        if self.think and answer["blocks"] and answer["blocks"][0]["type"] != "thinking":
            answer = dict(answer, blocks=[{"type": "thinking", "thinking": ""}] + answer["blocks"])
        return answer

    def fault_before(self, conn, request_id, kind, options, record):
        """Faults instead of an answer. True when the call is over."""
        if kind == "hang":
            conn.hang()
        if kind == "reset":
            conn.reset()
        if kind == "signature":
            record["status"] = 400
            self.forget(record["body"])
            self.send_error(conn, request_id, ApiError(400, BOUND % (1, 0)))
            return True
        if kind == "html":
            record["status"] = 502
            conn.respond(502, [("Content-Type", "text/html"), ("request-id", request_id)],
                         b"<html><body>Bad Gateway</body></html>")
            return True
        if not kind.isdigit():
            return False
        status = record["status"] = int(kind)
        words = {400: "messages: injected refusal", 401: "invalid x-api-key",
                 402: "Your credit balance is too low to access the Anthropic API.",
                 403: "Your API key does not have permission to use the specified resource.",
                 404: "model: injected", 413: "Request exceeds the maximum size",
                 429: "This request would exceed your organization's rate limit.",
                 500: "Internal server error", 504: "Request timed out", 529: "Overloaded"}
        more = []
        if options.get("retry_after") is not None:
            more.append(("retry-after", str(options["retry_after"])))
        if options.get("retry_after_ms") is not None:
            more.append(("retry-after-ms", str(options["retry_after_ms"])))
        if options.get("should_retry") is not None:
            more.append(("x-should-retry", "true" if options["should_retry"] else "false"))
        self.send_error(conn, request_id,
                        ApiError(status, options.get("text", words.get(status, "error")),
                                                   options.get("type")), more)
        return True

    def forget(self, body, workspace=""):
        """The next request of this conversation may look different: it was told to."""
        with self.lock:
            self.watch.forget(workspace, body)


def unique(pairs):
    out = {}
    for k, v in pairs:
        if k in out:
            raise ValueError("duplicate key %r" % k)
        out[k] = v
    return out


class Answer:
    """One answer on its way: blocks in, events out."""

    def __init__(self, fake, conn, ask, answer, entry, kept, record, kind, options):
        self.fake, self.conn, self.ask, self.entry, self.kept = fake, conn, ask, entry, kept
        self.record, self.kind, self.options = record, kind, options
        self.rng = random.Random(fake.rng.random())
        self.sent = 0
        self.deltas = 0
        self.out_bytes = 0
        self.hidden = {}                # signature -> bytes of thinking that is not shown
        self.cap = ask.body["max_tokens"]
        self.stop, self.details = answer.get("stop_reason"), answer.get("stop_details")
        self.blocks = self.complete(answer["blocks"])

    def complete(self, specs):
        """Specs to blocks as the API would return them: ids, signatures, the cap on tokens."""
        fake, body = self.fake, self.ask.body
        if self.cap == 0:               # to keep the cache warm
            self.stop, specs = "max_tokens", []
        if self.kind == "refusal":
            self.stop, self.details = "refusal", self.refusal()
            specs = []
        if self.kind == "stop":
            self.stop = self.options.get("reason", "max_tokens")
            self.details = self.options.get("details")
        groups = groups_of(body["messages"])
        if not groups or groups[-1][0] != "assistant":
            groups.append(["assistant", []])
        blocks = []
        for spec in specs:
            b = dict(spec)
            room = max(0, bytes_of(self.cap, body["model"]) - self.out_bytes)
            if b["type"] == "thinking":
                b.setdefault("thinking", "")
                hidden = bytes_of(b.pop("tokens", 20), body["model"])   # billed and never shown
                before = groups[:-1] + [["assistant", groups[-1][1] + blocks]]
                b["signature"] = sign(body["model"], body, before, b["thinking"])
                if hidden + size(b["thinking"]) > room:
                    hidden, self.stop = max(0, room - size(b["thinking"])), "max_tokens"
                self.hidden[b["signature"]] = hidden
                self.out_bytes += hidden + size(b["thinking"])
            elif b["type"] == "tool_use":
                b.setdefault("id", fake.new_id("toolu"))
                self.out_bytes += size(b["name"]) + size(b["input"])
            elif b["type"] == "text":
                data = b["text"].encode()
                if len(data) > room:
                    b["text"] = data[:room].decode("utf-8", "ignore")
                    self.stop = "max_tokens"
                self.out_bytes += size(b["text"])
            blocks.append(b)
            if self.stop == "max_tokens" and self.kind != "stop":
                break
        if self.stop is None:
            self.stop = "tool_use" if any(b["type"] == "tool_use" for b in blocks) else "end_turn"
        if self.kind == "tool_cut":
            self.stop = "max_tokens"
        return [b for b in blocks if b["type"] != "text" or b["text"]]

    @staticmethod
    def refusal():
        return {"type": "refusal", "category": "cyber", "explanation": "This request was refused."}

    def usage(self, **more):
        return dict(self.entry["usage"], **more)

    def settle(self, n_bytes, done=False):
        """What has been generated so far is billed; a refusal before any output is not."""
        entry, fake = self.entry, self.fake
        with fake.lock:
            entry["usage"]["output_tokens"] = tokens(n_bytes, self.ask.model)
            entry["completed"] = done
            if done:
                entry["outcome"] = "refused" if self.stop == "refusal" else "completed"
            if self.unbilled():
                entry["usage"] = dict(billing.NO_USAGE)
            fake.book.charge(entry, fake.clock())

    def unbilled(self):
        return self.stop == "refusal" and not self.blocks

    def finish(self):
        """The books after a complete answer."""
        fake = self.fake
        with fake.cond:
            self.record.update(status=200, complete=True, stop=self.stop)
            if self.stop == "pause_turn":
                fake.paused.add(canonical([normal(b) for b in self.blocks]))
            if self.stop == "refusal":
                fake.watch.unbind(self.entry["workspace"], self.ask.body, self.head)
            self.head.over = True
            fake.cond.notify_all()

    def send(self):
        if self.kind == "lost":
            self.conn.reset()
        with self.fake.lock:
            kept = [] if self.unbilled() else self.kept
            self.fake.cache.keep(kept, self.entry["time"])
            self.head = self.fake.watch.bind(
                self.entry["workspace"], self.ask.body, self.blocks, max(kept, key=lambda k: k[1])[:2] if kept else None)
        if self.ask.body.get("stream"):
            return self.stream()
        message = self.message(self.blocks, self.stop)
        self.settle(self.out_bytes, done=True)
        message["usage"] = self.usage()
        self.finish()
        data = compact(message).encode()
        self.sent = len(data)
        self.conn.respond(200, self.fake.headers(self.entry["id"],
                                                 self.fake.limit_headers(self.ask.model)), data)

    def message(self, content, stop):
        return {"id": self.fake.new_id("msg"), "type": "message", "role": "assistant",
                "model": self.ask.model, "content": content, "stop_reason": stop,
                "stop_sequence": None,
                "stop_details": self.details if stop else None, "usage": None}

    # -- events ----------------------------------------------------------------------------------

    def event(self, name, data):
        """One event, in pieces that respect neither characters nor lines."""
        ascii_only = self.rng.random() < 0.3
        text = json.dumps(data, ensure_ascii=ascii_only, separators=(",", ":"))
        raw = ("event: %s\ndata: %s%s\n\n"
               % (name, text, " " * self.rng.choice((0, 0, 5)))).encode()
        i = 0
        while i < len(raw):
            n = len(raw) if not self.fake.noise else self.rng.choice((1, 3, 17, 4096, 4096))
            self.conn.chunk(raw[i:i + n])
            self.sent += len(raw[i:i + n])
            i += n

    def maybe_noise(self, always=False):
        """What the API may add at any time and a client must pass over."""
        if not self.fake.noise or not (always or self.rng.random() < 0.25):
            return
        kind = self.rng.randrange(4)
        if kind == 0:
            self.event("ping", {"type": "ping"})
        elif kind == 1:
            self.event("future_thing",
                       {"type": "future_thing", "index": 0, "delta": {"text": "no"}})
        elif kind == 2:
            self.conn.chunk(b": a comment\n\n")
        else:
            self.event("ping", {"type": "ping", "future_field": [{"a": None}]})

    def before_delta(self):
        """Delays, holds and mid-stream faults, at delta number self.deltas."""
        fake = self.fake
        if self.deltas == 1 and fake.hold_after_first_delta is not None:
            self.conn.hold(fake.hold_after_first_delta)
        if fake.delay:
            self.conn.pause(fake.delay)
        k = self.options.get("k", 1)
        if self.kind in ("cut", "fin", "hang_mid", "error_event",
                         "refusal_mid") and self.deltas >= k:
            self.break_off()
        self.deltas += 1

    def break_off(self):
        kind = self.kind
        self.record.update(status=200)
        if kind == "cut":
            self.conn.reset()
        if kind == "fin":
            raise Gone()
        if kind == "hang_mid":
            self.conn.hang()
        if kind == "error_event":
            name = self.options.get("type", "overloaded_error")
            self.entry["outcome"] = "error"
            self.event("error", {"type": "error", "error": {
                "type": name, "message": self.options.get("text", "Overloaded")}})
            raise EndOfStream()
        self.stop, self.details = "refusal", self.refusal()
        raise Refusal()

    def delta(self, index, delta, n_bytes=0):
        self.before_delta()
        if self.fake.noise and self.rng.random() < 0.15:
            self.event("content_block_delta", {"type": "content_block_delta", "index": index,
                                               "delta": {"type": "future_delta", "text": "no"}})
        data = {"type": "content_block_delta", "index": index, "delta": delta}
        if self.fake.noise and self.rng.random() < 0.15:
            data["future_field"] = {"text": "no"}
        self.event("content_block_delta", data)
        self.generated += n_bytes
        self.settle(self.generated)
        self.maybe_noise()

    def stream(self):
        fake, conn = self.fake, self.conn
        headers = [(k, v) for k, v in fake.headers(self.entry["id"], fake.limit_headers(self.ask.model))
                   if k != "Content-Type"]
        conn.start_chunked(200, headers + [("Content-Type", "text/event-stream; charset=utf-8"),
                                           ("Cache-Control", "no-cache")])
        with fake.cond:
            self.record["status"] = 200
            fake.cond.notify_all()
        if self.kind == "empty":
            conn.end_chunked()
            return
        self.generated = 0
        try:
            self.events()
        except EndOfStream:
            conn.end_chunked()
            return
        conn.end_chunked()

    def events(self):
        start = self.message([], None)
        start["usage"] = self.usage(output_tokens=1, service_tier="standard", inference_geo="global")
        start["usage"]["input_tokens"] += self.fake.correction
        self.event("message_start", {"type": "message_start", "message": start})
        self.maybe_noise(always=True)
        index = 0
        try:
            for b in self.blocks:
                if self.fake.noise and self.rng.random() < 0.2:
                    self.unknown_block(index)
                    index += 1
                self.block(index, b)
                index += 1
            if self.kind in ("cut", "fin", "hang_mid", "error_event", "refusal_mid"):
                self.break_off()        # the answer had fewer deltas than k
            if self.deltas == 1 and self.fake.hold_after_first_delta is not None:
                self.conn.hold(self.fake.hold_after_first_delta)
            self.out_total = self.out_bytes
        except Refusal:
            self.out_total = self.generated
        self.settle(self.out_total, done=True)
        # In the books before the last event leaves: a client that has it all may ask again.
        self.finish()
        usage = self.usage(output_tokens_details={"thinking_tokens": 0})
        del usage["cache_creation"]     # as in recorded streams: the life of what was written is said at the start alone
        self.event("message_delta", {
            "type": "message_delta", "usage": usage,
            "delta": {"stop_reason": self.stop, "stop_sequence": None,
                      "stop_details": self.details}})
        self.maybe_noise(always=True)
        self.event("message_stop", {"type": "message_stop"})

    def unknown_block(self, index):
        self.event("content_block_start", {"type": "content_block_start", "index": index,
                                           "content_block": {"type": "future_block", "x": {}}})
        self.event("content_block_delta", {"type": "content_block_delta", "index": index,
                                           "delta": {"type": "future_delta", "x": "no"}})
        self.event("content_block_stop", {"type": "content_block_stop", "index": index})

    def block(self, index, b):
        start = {"text": dict({"type": "text", "text": ""},
                              **({"citations": []} if b.get("citations") else {})),
                 "server_tool_use": {k: ({} if k == "input" else v) for k, v in b.items()},
                 "thinking": {"type": "thinking", "thinking": "", "signature": ""},
                 "tool_use": {"type": "tool_use", "id": b.get("id"), "name": b.get("name"),
                              "input": {},
                              "caller": {"type": "direct"}}}.get(b["type"], b)
        self.event("content_block_start", {"type": "content_block_start", "index": index,
                                           "content_block": start})
        if b["type"] == "text":
            self.text(index, b["text"])
            for c in b.get("citations", []):
                self.delta(index, {"type": "citations_delta", "citation": c})
        elif b["type"] == "thinking":
            if b["thinking"]:
                self.delta(index, {"type": "thinking_delta", "thinking": b["thinking"]},
                           size(b["thinking"]))
            self.delta(index, {"type": "signature_delta", "signature": b["signature"]},
                       self.hidden[b["signature"]])
        elif b["type"] in ("tool_use", "server_tool_use"):
            self.tool(index, b)
        self.event("content_block_stop", {"type": "content_block_stop", "index": index})

    def text(self, index, text):
        i = 0
        while i < len(text):
            n = self.fake.piece or self.rng.randint(1, 24)
            self.delta(index, {"type": "text_delta", "text": text[i:i + n]}, size(text[i:i + n]))
            i += n

    def tool(self, index, b):
        text = b.get("raw_input", json.dumps(b["input"], ensure_ascii=self.rng.random() < 0.5))
        self.generated += size(b["name"])
        if b["input"] == {} and "raw_input" not in b and self.rng.random() < 0.5:
            return              # an empty concatenation means {}
        if self.kind == "tool_cut":
            text = text[:max(1, len(text) - 2)] if len(text) > 2 else "{"
        self.delta(index, {"type": "input_json_delta", "partial_json": ""})
        step = 1 if len(text) <= 400 else 50
        for i in range(0, len(text), step):
            self.delta(index, {"type": "input_json_delta", "partial_json": text[i:i + step]},
                       len(text[i:i + step].encode()))


class Refusal(Exception):
    pass


class EndOfStream(Exception):
    pass
