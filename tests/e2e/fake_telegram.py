# SPDX-License-Identifier: MIT OR Apache-2.0
"""fake_telegram.py - a Bot API server that refuses what the real one refuses.

    tg = FakeTelegram()
    tg.send_text(1001, "hello")                 # an update waits for the bot
    tg.wait(lambda: tg.messages(1001))          # what the bot said
    tg.fail_next("sendMessage", "reset_after")  # the side effect happens, the receipt is lost

The state (updates, messages, ids) lives in this process, so a daemon that dies
and comes back finds what it left. Parameters are checked against the machine
copy of the Bot API where it is installed (BOT_API below; Bot API 10.1 plus the
additions of 10.2 and 10.3 kept here); an unknown parameter, which the real
server ignores, is refused here, because it is a mistake of ours. Every refusal
that no test declared fails the test (harness.py).
"""
import json
import os
import random
import re
import time
from urllib.parse import parse_qsl, unquote

from fakehttp import FakeServer, Faults, Gone
from telegram_format import (Refused, markdown_blocks, parse_html, parse_markdown_v2, units)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONFORMANCE = os.environ.get("CONFORMANCE") or os.path.join(ROOT, "..", "shared", "conformance")
BOT_API = os.path.join(CONFORMANCE, "telegram", "bot-api.json")
TEXT_MAX, RICH_MAX, RICH_BLOCKS_MAX, RICH_COLUMNS_MAX = 4096, 32768, 500, 20
DRAFT_TTL = 30.0
DOWNLOAD_MAX = 20 << 20
DEFAULT_EXCLUDED = {"chat_member", "message_reaction", "message_reaction_count",
                    "stopped_message_generation"}
UPDATE_KINDS = set(
    "message edited_message channel_post edited_channel_post business_connection business_message "
    "edited_business_message deleted_business_messages guest_message message_reaction "
    "message_reaction_count inline_query chosen_inline_result callback_query shipping_query "
    "pre_checkout_query purchased_paid_media poll poll_answer my_chat_member chat_member "
    "chat_join_request chat_boost removed_chat_boost managed_bot subscription "
    "stopped_message_generation".split())
ACTIONS = set("typing upload_photo record_video upload_video record_voice upload_voice "
              "upload_document choose_sticker find_location record_video_note "
              "upload_video_note".split())

# For form values where the machine copy is not there to tell numbers from texts.
INTEGERS = ("offset limit timeout chat_id message_id message_thread_id draft_id cache_time").split()


def _field(name, kind, required=False):
    return {"name": name, "types": [kind], "required": required}


# What Bot API 10.2 and 10.3 added to the parameters and objects that a bot sends.
NEW_PARAMETERS = {
    "sendMessageDraft": [_field("can_stop", "Boolean"), _field("keep_on_stop", "Boolean")],
    "sendRichMessageDraft": [_field("can_stop", "Boolean"), _field("keep_on_stop", "Boolean")],
    "sendMessage": [_field("ephemeral_message_parameters", "EphemeralMessageParameters")],
    "sendRichMessage": [_field("ephemeral_message_parameters", "EphemeralMessageParameters")],
}
NEW_FIELDS = {
    "EphemeralMessageParameters": [_field("receiver_user_id", "Integer", True),
                                   _field("callback_query_id", "String"),
                                   _field("replace_callback_query_message", "Boolean")],
    "InputRichMessage": [_field("blocks", "Array of AnyObject"),
                         _field("media", "Array of AnyObject")],
    "ReplyParameters": [_field("ephemeral_message_id", "Integer")],
    "BotCommand": [_field("is_ephemeral", "Boolean")],
    "InlineKeyboardButton": [_field("style", "String"), _field("icon_custom_emoji_id", "String")],
}


class BotError(Exception):
    def __init__(self, code, text, **parameters):
        super().__init__(text)
        self.code, self.text, self.parameters = code, text, parameters


def bad(text, **parameters):
    return BotError(400, "Bad Request: " + text, **parameters)


class Schema:
    """Which parameters a method knows, and of which types."""

    def __init__(self):
        self.methods, self.types, self.subtypes = {}, {}, {}
        self.present = os.path.exists(BOT_API)
        if not self.present:
            return
        with open(BOT_API, encoding="utf-8") as f:
            api = json.load(f)
        for name, method in api["methods"].items():
            self.methods[name.lower()] = method.get("fields", []) + NEW_PARAMETERS.get(name, [])
        for name, kind in api["types"].items():
            self.types[name] = kind.get("fields", []) + NEW_FIELDS.get(name, [])
            self.subtypes[name] = kind.get("subtypes", [])
        for name, fields in NEW_FIELDS.items():
            self.types.setdefault(name, fields)

    def check(self, method, params):
        fields = self.methods.get(method.lower())
        if fields is None:
            return
        known = {f["name"]: f for f in fields}
        for name in params:
            if name not in known:
                raise bad('unknown parameter "%s" of %s' % (name, method))
        for f in fields:
            if f["required"] and f["name"] not in params:
                raise bad('parameter "%s" of %s is required' % (f["name"], method))
        for name, value in params.items():
            self.check_any(known[name]["types"], value, name)

    def check_any(self, types, value, where):
        problems = []
        for kind in types:
            try:
                return self.check_one(kind, value, where)
            except BotError as e:
                problems.append(e)
        raise problems[-1] if len(types) == 1 else bad('field "%s" fits none of %s'
                                                       % (where, types))

    def check_one(self, kind, value, where):
        if kind.startswith("Array of "):
            if not isinstance(value, list):
                raise bad('field "%s" must be an Array' % where)
            for i, item in enumerate(value):
                self.check_one(kind[9:], item, "%s[%d]" % (where, i))
        elif kind == "Integer":
            if type(value) is not int or abs(value) >= 2**52:
                raise bad('field "%s" must be an Integer of 52 bits' % where)
        elif kind == "String":
            if not isinstance(value, str):
                raise bad('field "%s" must be a String' % where)
        elif kind == "Boolean":
            if type(value) is not bool:
                raise bad('field "%s" must be a Boolean' % where)
        elif kind == "Float":
            if type(value) not in (int, float):
                raise bad('field "%s" must be a Number' % where)
        elif kind == "AnyObject" or (kind not in self.types and kind != "RichText"):
            if kind != "InputFile" and not isinstance(value, dict):
                raise bad('field "%s" must be an Object' % where)
        elif self.subtypes.get(kind):
            self.check_any(self.subtypes[kind], value, where)
        else:
            self.check_object(kind, value, where)

    def check_object(self, kind, value, where):
        if not isinstance(value, dict):
            raise bad('field "%s" must be an Object' % where)
        known = {f["name"]: f for f in self.types[kind]}
        for name, item in value.items():
            if name not in known:
                raise bad('unknown field "%s.%s" of %s' % (where, name, kind))
            self.check_any(known[name]["types"], item, where + "." + name)
        for f in known.values():
            if f["required"] and f["name"] not in value:
                raise bad('field "%s.%s" of %s is required' % (where, f["name"], kind))

    def convert(self, method, params):
        """Form and query values are text: numbers, booleans and JSON come out of it."""
        known = {f["name"]: f["types"] for f in self.methods.get(method.lower(), [])}
        if not self.present:
            known = {name: ["Integer"] for name in INTEGERS}
        out = {}
        for name, value in params.items():
            types = known.get(name, ["String"])
            if not isinstance(value, str) or types == ["String"]:
                out[name] = value
            elif "Integer" in types and re.match(r"-?\d+\Z", value):
                out[name] = int(value)
            elif types == ["Boolean"] and value.lower() in ("true", "false"):
                out[name] = value.lower() == "true"
            elif any(t.startswith("Array") or t not in ("Integer", "String", "Boolean") for t
                     in types):
                try:
                    out[name] = json.loads(value)
                except ValueError:
                    raise bad("can't parse %s: it is not JSON" % name)
            else:
                out[name] = value
        return out


def multipart(content_type, body):
    m = re.search(r'boundary="?([^";]+)"?', content_type)
    if not m:
        raise bad("multipart body without a boundary")
    params = {}
    for part in body.split(b"--" + m.group(1).encode())[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]*)"', head)
        if not name or not value.endswith(b"\r\n"):
            raise bad("malformed part of a multipart body")
        value = value[:-2]
        name = name.group(1).decode()
        params[name] = {"file": value} if b"filename=" in head else value.decode("utf-8")
    return params


class FakeTelegram(FakeServer):
    SCHEMA = None

    def __init__(self, token="123456:TEST-TOKEN_abcdefghijklmnopqrstuvwxyz012", rich=True,
                 drafts=True,
                 seed=None):
        self.token = token
        self.bot_id = int(token.split(":")[0])
        self.username = "blufio_test_bot"
        self.rich = rich            # True; False: an old local server (404); "refuse": 400
        self.use_drafts = drafts    # the same for drafts
        self.draft_ttl = DRAFT_TTL
        self.rng = random.Random(seed)
        self.next_update = self.rng.randrange(100000000, 900000000)
        self.pending = []           # unconfirmed updates, oldest first
        self.received_updates = []  # ids that the bot confirmed
        self.filtered = []          # updates that allowed_updates kept back
        self.allowed = None         # None: the default kinds
        self.poll = 0               # generation: a new getUpdates ends the one before
        self.poll_offset = None     # of the newest poll; what it delivered stays pending
        self.last_poll = 0.0
        self.polling = 0
        self.webhook = ""
        self.chats = {}
        self.log = []               # every message of every chat, the users' too
        self.counters = {}
        self.draft_log = []
        self.action_log = []
        self.commands = {}
        self.callbacks = {}
        self.callback_answers = []
        self.files = {}
        self.calls = []
        self.faults = Faults()
        self.limits = None          # {"chat": (n, s), "group": (n, s), "all": (n, s)}
        self.windows = {}
        self.flooded = {}           # chat -> time before which no call may come
        self.flood_violations = []  # calls that came while they had been told to wait
        if FakeTelegram.SCHEMA is None:
            FakeTelegram.SCHEMA = Schema()
        self.schema = FakeTelegram.SCHEMA
        super().__init__()

    # -- what tests do -------------------------------------------------------------

    def add_chat(self, chat_id, kind="private", **fields):
        """Makes a chat known to the bot. For a group: title, is_forum, threads (a list of ids)."""
        with self.cond:
            chat = self.chats.setdefault(chat_id, {"id": chat_id, "type": kind, "blocked": False,
                                                   "threads": set(), "migrated": None})
            chat.update({k: set(v) if k == "threads" else v for k, v in fields.items()})
            return chat

    def block(self, chat_id, blocked=True):
        """The user blocks the bot (or the group throws it out)."""
        with self.cond:
            self.chats[chat_id]["blocked"] = blocked

    def jump_ids(self, to=None):
        """After a silent week the update ids go on somewhere else; also downwards."""
        with self.cond:
            self.next_update = to if to is not None else self.rng.randrange(1000, 900000000)

    def push_update(self, update):
        """Queues a raw update (without update_id); its id, or None when allowed_updates bars it."""
        with self.cond:
            kinds = [k for k in update if k != "update_id"]
            barred = any(k in DEFAULT_EXCLUDED if self.allowed is None else
                         (k in UPDATE_KINDS and k not in self.allowed) for k in kinds)
            if barred:
                self.filtered.append(update)
                return None
            update = dict(update)
            if "update_id" not in update:
                update["update_id"] = self.next_update
                self.next_update += 1
            update = dict([("update_id", update.pop("update_id"))], **update)
            self.pending.append(update)
            self.cond.notify_all()
            return update["update_id"]

    def chat_object(self, chat_id, name="Ann"):
        chat = self.chats[chat_id]
        out = {"id": chat_id, "type": chat["type"]}
        if chat["type"] == "private":
            out["first_name"] = name
        else:
            out["title"] = chat.get("title", "A group")
            if chat.get("is_forum"):
                out["is_forum"] = True
        return out

    def new_message_id(self, chat_id):
        """Private chats and basic groups share one counter, a supergroup has its own."""
        key = chat_id if self.chats[chat_id]["type"] in ("supergroup", "channel") else 0
        self.counters[key] = self.counters.get(key, self.rng.randrange(10, 99)) + 1
        return self.counters[key]

    def user_message(self, user_id, chat_id=None, chat_type="private", thread=None, reply_to=None,
                     name="Ann", **content):
        """Registers a user's message and returns it as a Message object."""
        chat_id = user_id if chat_id is None else chat_id
        with self.cond:
            chat = self.add_chat(chat_id, chat_type)
            message = {"message_id": self.new_message_id(chat_id), "date": int(time.time()),
                       "chat": self.chat_object(chat_id, name),
                       "from": {"id": user_id, "is_bot": False, "first_name": name,
                                "language_code": "en"}}
            if thread is not None:
                chat["threads"].add(thread)
                message.update(message_thread_id=thread, is_topic_message=True)
            if reply_to is not None:
                earlier = self.find(chat_id, reply_to)
                message["reply_to_message"] = {
                    "message_id": reply_to, "date": int(time.time()), "chat": message["chat"],
                    "text": earlier["text"] if earlier else "?",
                    "from": {"id": self.bot_id, "is_bot": True, "first_name": "Blufio test",
                             "username": self.username} if earlier and earlier["bot"] else
                    {"id": user_id, "is_bot": False, "first_name": name}}
            message.update(content)
            self.log.append({"chat_id": chat_id, "message_id": message["message_id"], "bot": False,
                             "text": message.get("text", ""), "deleted": False, "thread": thread})
            return message

    def send_text(self, user_id, text, chat_id=None, chat_type="private", thread=None,
                  reply_to=None,
                  entities="auto", name="Ann", **more):
        """A user writes to the bot; the message's id."""
        content = {"text": text}
        found = text_entities(text) if entities == "auto" else entities
        if found:
            content["entities"] = found
        content.update(more)
        message = self.user_message(user_id, chat_id, chat_type, thread, reply_to, name, **content)
        self.push_update({"message": message})
        return message["message_id"]

    def edit_text(self, user_id, message_id, text, chat_id=None, name="Ann", **more):
        """A user corrects a message."""
        chat_id = user_id if chat_id is None else chat_id
        with self.cond:
            mine = self.find(chat_id, message_id)
            mine["text"] = text
            message = {"message_id": message_id, "date": int(time.time()),
                       "edit_date": int(time.time()),
                       "chat": self.chat_object(chat_id, name), "text": text,
                       "from": {"id": user_id, "is_bot": False, "first_name": name}}
            if mine["thread"] is not None:
                message.update(message_thread_id=mine["thread"], is_topic_message=True)
            if text_entities(text):
                message["entities"] = text_entities(text)
            message.update(more)
        return self.push_update({"edited_message": message})

    def press(self, user_id, chat_id, message_id, data, name="Ann", thread=None, accessible=True):
        """A user presses an inline button; the callback query's id. Of a message that is too old Telegram says only
        where it was, with date 0."""
        message = {"message_id": message_id, "chat": self.chat_object(chat_id), "date": 1 if accessible else 0}
        if thread is not None and accessible:
            message.update(message_thread_id=thread, is_topic_message=True)
        with self.cond:
            query = str(self.rng.randrange(10**17, 10**18))
            self.callbacks[query] = None
        self.push_update({"callback_query": {
            "id": query, "from": {"id": user_id, "is_bot": False, "first_name": name},
            "message": message,
            "chat_instance": "1", "data": data}})
        return query

    def press_stop(self, chat_id):
        """A user presses the stop button under the draft that is shown."""
        with self.cond:
            draft = self.draft_shown(chat_id)
            if draft is None or not draft["can_stop"]:
                raise AssertionError("no draft with a stop button is shown")
            update = {"chat": self.chat_object(chat_id), "draft_id": draft["draft_id"]}
            if draft["thread"] is not None:
                update["message_thread_id"] = draft["thread"]
            draft["gone"] = True
        return self.push_update({"stopped_message_generation": update})

    def add_file(self, data, name="file_1.bin", size=None):
        with self.cond:
            file_id = "BQACAgIAAxkBAAI%012d" % len(self.files)
            self.files[file_id] = {"data": data, "path": "documents/" + name,
                                   "size": len(data) if size is None else size}
            return file_id

    def fail_next(self, method, kind, n=1, **options):
        """The next n calls of method ("*": any) fail. Kinds: hang, drip, reset, reset_after,
        half_json, garbage, big, and the statuses 400 401 403 404 409 413 429 (retry_after=)
        500 502 504."""
        self.faults.add(method, str(kind), n, **options)

    # -- what tests look at ----------------------------------------------------------

    @property
    def unconfirmed(self):
        with self.lock:
            return [u["update_id"] for u in self.pending]

    def find(self, chat_id, message_id):
        for m in self.log:
            if m["chat_id"] == chat_id and m["message_id"] == message_id and not m["deleted"]:
                return m
        return None

    def messages(self, chat_id=None):
        """The bot's visible messages in order: text, source, parse_mode, rich, edits …"""
        with self.lock:
            return [dict(m, edits=list(m["edits"])) for m in self.log
                    if m["bot"] and not m["deleted"] and chat_id in (None, m["chat_id"])]

    def texts(self, chat_id=None):
        """What a person reads: plain texts, rich sources."""
        return [m["text"] for m in self.messages(chat_id)]

    def drafts(self, chat_id=None):
        with self.lock:
            return [dict(d) for d in self.draft_log if chat_id in (None, d["chat_id"])]

    def draft_shown(self, chat_id, at=None):
        """The draft that the person sees now, or None: it vanishes after 30 s and by a message."""
        with self.lock:
            now = time.time() if at is None else at
            for d in reversed(self.draft_log):
                if d["chat_id"] == chat_id:
                    return d if not d["gone"] and now - d["time"] < self.draft_ttl else None
            return None

    def actions(self, chat_id=None):
        with self.lock:
            return [dict(a) for a in self.action_log if chat_id in (None, a["chat_id"])]

    def called(self, method, status=None):
        with self.lock:
            return [c for c in self.calls if c["method"].lower() == method.lower()
                    and status in (None, c["status"])]

    # -- HTTP --------------------------------------------------------------------------

    HEADERS = [("Server", "nginx/1.18.0"), ("Content-Type", "application/json"),
               ("Strict-Transport-Security", "max-age=31536000; includeSubDomains; preload"),
               ("Access-Control-Allow-Origin", "*"),
               ("Access-Control-Expose-Headers",
                "Content-Length,Content-Type,Date,Server,Connection")]

    def handle(self, conn, request):
        path = unquote(request.path)
        m = re.match(r"/(file/)?bot([^/]*)/(.*)\Z", path)
        if not m or not re.match(r"\d+:[A-Za-z0-9_-]+\Z", m.group(2)):
            self.refuse("404 path %s" % re.sub(r"bot[^/]*", "bot…", path))
            return self.answer(conn, 404, "Not Found")
        if m.group(2) != self.token:
            self.refuse("401 wrong token")
            return self.answer(conn, 401, "Unauthorized")
        if m.group(1):
            return self.download(conn, m.group(3))
        if request.method not in ("GET", "POST"):
            self.refuse("405 %s" % request.method)
            return self.answer(conn, 405, "Method Not Allowed")
        return self.call(conn, request, m.group(3))

    def answer(self, conn, code, result, parameters=None):
        conn.respond(code, self.HEADERS, self.body(code, result, parameters))

    def body(self, code, result, parameters=None):
        if code == 200:
            out = {"ok": True, "result": result}
        else:
            out = {"ok": False, "error_code": code, "description": result}
            if parameters:
                out["parameters"] = parameters
        return json.dumps(out, ensure_ascii=self.rng.random() < 0.5,
                          separators=(",", ":")).encode("utf-8", "surrogatepass")

    def download(self, conn, path):
        with self.lock:
            found = [f for f in self.files.values() if f["path"] == unquote(path)]
        if not found:
            return self.answer(conn, 404, "Not Found")
        conn.respond(200, [("Content-Type", "application/octet-stream")], found[0]["data"])

    def read_params(self, request, method):
        params = {}
        kind = request.header("content-type").split(";")[0].strip().lower()
        try:
            for k, v in parse_qsl(request.query, keep_blank_values=True,
                                  strict_parsing=bool(request.query),
                                  errors="strict"):
                params[k] = v
            if request.body and kind == "application/json":
                body = json.loads(request.body.decode("utf-8"))
                if not isinstance(body, dict):
                    raise bad("body must be a JSON object")
                params.update(body)
                return self.schema.convert(method,
                                           {k: v for k, v in params.items() if v is not None})
            if request.body and kind == "application/x-www-form-urlencoded":
                params.update(parse_qsl(request.body.decode("ascii"), keep_blank_values=True,
                                        strict_parsing=True, errors="strict"))
            elif request.body and kind == "multipart/form-data":
                params.update(multipart(request.header("content-type"), request.body))
            elif request.body:
                raise bad("unsupported content type \"%s\"" % kind)
        except (ValueError, UnicodeError) as e:
            if isinstance(e, BotError):
                raise
            raise bad("strings must be encoded in UTF-8, or the body can't be parsed: %s" % e)
        return self.schema.convert(method, params)

    def call(self, conn, request, method):
        entry = {"method": method, "params": None, "time": request.time, "status": None,
                 "fault": None, "ended": None}
        with self.cond:
            self.calls.append(entry)
            self.cond.notify_all()
        kind, options = self.faults.take(method)
        entry["fault"] = kind
        try:
            try:
                entry["params"] = self.read_params(request, method)
            except BotError as e:
                if kind is None:
                    raise
            if kind and self.fault_before(conn, kind, options, entry):
                return
            code, result, parameters = 200, self.run(conn, method, entry["params"] or {}), None
        except BotError as e:
            code, result, parameters = e.code, e.text, e.parameters
            if e.code != 429:
                self.refuse("%s: %d %s" % (method, code, result))
        finally:
            with self.cond:
                entry["ended"] = time.time()
                self.cond.notify_all()
        entry["status"] = code
        self.fault_after(conn, kind, options, code, result, parameters)

    def fault_before(self, conn, kind, options, entry):
        """Faults instead of an answer. True when the call is over."""
        if kind == "hang":
            conn.hang()
        if kind == "reset":
            conn.reset()
        if kind == "big":
            self.send_text(options.get("user", 1001), "x" * (5 << 20))
            return False
        if kind == "garbage":
            entry["status"] = 200
            conn.respond(200, self.HEADERS, b'{"ok":true,"result":"\xff\xfe\xc0\x80\xed\xa0\x80"}')
            return True
        if not kind.isdigit():
            return False
        code = entry["status"] = int(kind)
        after = options.get("retry_after", 1)
        words = {
            400: "Bad Request: %s" % options.get("text", "can't parse entities: injected"),
            401: "Unauthorized", 403: "Forbidden: bot was blocked by the user", 404: "Not Found",
            409: "Conflict: terminated by other getUpdates request; make sure that only one bot "
                 "instance is running",
            413: "Request Entity Too Large", 429: "Too Many Requests: retry after %s" % after,
            500: "Internal Server Error", 504: "Gateway Timeout",
        }
        if code == 502:
            conn.respond(502, [("Server", "nginx/1.18.0"), ("Content-Type", "text/html")],
                         b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
                         b"<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n")
        else:
            self.answer(conn, code, options.get("description", words.get(code, "Error")),
                        {"retry_after": after} if code == 429 and after is not None else
                        options.get("parameters"))
        return True

    def fault_after(self, conn, kind, options, code, result, parameters):
        """Faults of the answer to a call that took effect."""
        body = self.body(code, result, parameters)
        if kind == "reset_after":
            conn.reset()
        elif kind == "half_json":
            conn.respond(code, self.HEADERS, body[:len(body) // 2])
        elif kind == "drip":
            conn.respond_drip(code, self.HEADERS, body, options.get("every", 0.5))
        else:
            conn.respond(code, self.HEADERS, body)

    # -- methods --------------------------------------------------------------------------

    def run(self, conn, method, params):
        name = method.lower()
        if "rich" in name and self.rich is False:
            raise BotError(404, "Not Found: method not found")
        if "draft" in name and self.use_drafts is False:
            raise BotError(404, "Not Found: method not found")
        function = getattr(self, "do_" + name, None)
        if function is None:
            raise BotError(404, "Not Found: method not found")
        self.schema.check(method, params)
        if name == "getupdates":
            return function(conn, params)
        with self.cond:
            try:
                return function(params)
            except KeyError as e:       # only where the machine copy of the API is not installed
                raise bad("parameter %s of %s is required" % (e, method))
            finally:
                self.cond.notify_all()

    def do_getme(self, p):
        return {"id": self.bot_id, "is_bot": True, "first_name": "Blufio test",
                "username": self.username,
                "can_join_groups": True, "can_read_all_group_messages": False,
                "supports_inline_queries": False, "can_connect_to_business": False,
                "has_main_web_app": False, "has_topics_enabled": False,
                "allows_users_to_create_topics": False}

    def do_getupdates(self, conn, p):
        limit, timeout = p.get("limit", 100), p.get("timeout", 0)
        offset = p.get("offset", 0)
        if not 1 <= limit <= 100:
            raise bad("limit must be between 1 and 100")
        if not 0 <= timeout <= 50:
            raise bad("timeout must be between 0 and 50")
        unknown = [k for k in p.get("allowed_updates", []) if k not in UPDATE_KINDS]
        if unknown:
            raise bad("unknown update kind %s" % unknown)
        with self.cond:
            if self.webhook:
                raise BotError(409,
                               "Conflict: can't use getUpdates method while webhook is active; "
                                    "use deleteWebhook to delete the webhook first")
            self.poll += 1
            mine = self.poll
            self.poll_offset = offset
            self.polling += 1
            self.cond.notify_all()
            if "allowed_updates" in p:
                self.allowed = set(p["allowed_updates"]) or None
            self.confirm(offset)
        try:
            return self.await_updates(conn, mine, limit, time.monotonic() + timeout)
        finally:
            with self.cond:
                self.polling -= 1
                self.last_poll = time.time()
                self.cond.notify_all()

    def confirm(self, offset):
        if offset > self.next_update + 10:
            offset = 0      # an offset from before a jump: the real queue starts at its head
        if offset < 0:
            keep = self.pending[offset:]
        else:
            keep = [u for u in self.pending if u["update_id"] >= offset]
        if offset:
            kept = set(id(u) for u in keep)
            self.received_updates += [u["update_id"] for u in self.pending if id(u) not in kept]
            self.pending = keep

    def await_updates(self, conn, mine, limit, until):
        while True:
            with self.cond:
                if self.poll != mine:
                    if conn.gone():
                        raise Gone()
                    raise BotError(409,
                                   "Conflict: terminated by other getUpdates request; make sure "
                                        "that only one bot instance is running")
                if self.pending or time.monotonic() >= until:
                    return self.pending[:limit]
                self.cond.wait(min(0.1, max(0.001, until - time.monotonic())))
            if conn.gone():
                raise Gone()

    def target(self, p, private_only=False):
        chat_id = p["chat_id"]
        if isinstance(chat_id, str):
            if re.match(r"-?\d+\Z", chat_id):
                chat_id = int(chat_id)
            else:
                raise bad("chat not found")
        chat = self.chats.get(chat_id)
        if chat is None or chat_id == 0:
            raise bad("chat not found")
        self.flood(chat)
        if private_only and (chat["type"] != "private" or self.use_drafts == "refuse"):
            raise bad("TEXTDRAFT_PEER_INVALID")
        if chat["migrated"]:
            raise bad("group chat was upgraded to a supergroup chat",
                      migrate_to_chat_id=chat["migrated"])
        if chat["blocked"]:
            raise BotError(403, "Forbidden: bot was blocked by the user"
                           if chat["type"] == "private"
                           else "Forbidden: bot was kicked from the %s chat" % chat["type"])
        thread = p.get("message_thread_id")
        if thread is not None and thread not in chat["threads"]:
            raise bad("message thread not found")
        return chat

    def flood(self, chat):
        if not self.limits:
            return
        now = time.monotonic()
        if now < self.flooded.get(chat["id"], 0):
            self.flood_violations.append((chat["id"], self.flooded[chat["id"]] - now))
        kind = "group" if chat["type"] != "private" else "chat"
        for key, limit in (((kind, chat["id"]), self.limits.get(kind)),
                           ("all", self.limits.get("all"))):
            if not limit:
                continue
            count, seconds = limit
            window = self.windows.setdefault(key, [])
            window[:] = [t for t in window if now - t < seconds]
            if len(window) >= count:
                after = max(1, int(window[0] + seconds - now + 0.999))
                self.flooded[chat["id"]] = now + after - 0.05
                raise BotError(429, "Too Many Requests: retry after %d" % after, retry_after=after)
            window.append(now)

    def formatted(self, p, empty=False):
        """(plain text, entities) of text with its parse mode."""
        source, mode = p.get("text", ""), p.get("parse_mode", "")
        if mode and "entities" in p:
            raise bad("parse_mode and entities exclude each other")
        if "\0" in source or any(0xD800 <= ord(c) < 0xE000 for c in source):
            raise bad("strings must be encoded in UTF-8")
        try:
            if mode.lower() == "markdownv2":
                text, entities = parse_markdown_v2(source)
            elif mode.lower() == "html":
                text, entities = parse_html(source)
            elif mode:
                raise bad("unsupported parse_mode")
            else:
                text, entities = source, p.get("entities", [])
        except Refused as e:
            raise bad("can't parse entities: %s" % e)
        for e in entities:
            if e["offset"] < 0 or e["length"] <= 0 or e["offset"] + e["length"] > units(text):
                raise bad("entity beyond the text's end")
        if not text.strip() and not empty:
            raise bad("message text is empty")
        if units(text) > TEXT_MAX:
            raise bad("message is too long")
        return text, entities

    def rich_content(self, p, draft=False):
        """The one source of a rich message."""
        rich = p["rich_message"]
        if self.rich == "refuse":
            raise bad("RICH_MESSAGE_NOT_SUPPORTED")
        given = [k for k in ("markdown", "html", "blocks") if k in rich]
        if len(given) != 1:
            raise bad("exactly one of the fields markdown, html and blocks must be used")
        source = rich[given[0]]
        if given[0] == "blocks":
            if not source or len(source) > RICH_BLOCKS_MAX:
                raise bad("rich message must have 1-%d blocks" % RICH_BLOCKS_MAX)
            source = json.dumps(source, ensure_ascii=False)
        if not source.strip():
            raise bad("rich message is empty")
        if units(source) > RICH_MAX:
            raise bad("rich message is too long")
        if given[0] == "html":
            try:
                parse_html(source, rich=True, thinking=draft)
            except Refused as e:
                raise bad("can't parse rich message: %s" % e)
        if given[0] == "markdown":
            blocks, columns = markdown_blocks(source)
            if blocks > RICH_BLOCKS_MAX:
                raise bad("rich message has too many blocks")
            if columns > RICH_COLUMNS_MAX:
                raise bad("rich message has a table with too many columns")
            if "<tg-thinking" in source and not draft:
                raise bad("thinking blocks are allowed in drafts only")
        return given[0], source

    def reply_of(self, chat, p):
        reply = p.get("reply_parameters")
        if reply is None:
            return None
        if "message_id" not in reply:
            raise bad("reply_parameters without message_id")
        if self.find(reply.get("chat_id", chat["id"]), reply["message_id"]) is None:
            if reply.get("allow_sending_without_reply"):
                return None
            raise bad("message to be replied not found")
        return reply["message_id"]

    def markup_of(self, p):
        markup = p.get("reply_markup")
        for row in (markup or {}).get("inline_keyboard", []):
            for button in row:
                data = button.get("callback_data")
                if data is not None and not 1 <= len(data.encode()) <= 64:
                    raise bad("BUTTON_DATA_INVALID")
                if len([k for k in button if k not
                        in ("text", "style", "icon_custom_emoji_id")]) != 1:
                    raise bad("text buttons are unallowed in the inline keyboard")
        return markup

    def store(self, chat, p, content):
        for d in self.draft_log:
            if d["chat_id"] == chat["id"] and d["thread"] == p.get("message_thread_id"):
                d["gone"] = True
        message = dict({"chat_id": chat["id"], "message_id": self.new_message_id(chat["id"]),
                        "bot": True,
                        "thread": p.get("message_thread_id"), "reply_to": self.reply_of(chat, p),
                        "reply_markup": self.markup_of(p), "sent_at": time.time(), "edits": [],
                        "deleted": False}, **content)
        self.log.append(message)
        return self.message_object(chat, message)

    def message_object(self, chat, m):
        out = {"message_id": m["message_id"], "date": int(m["sent_at"]),
               "chat": self.chat_object(chat["id"]),
               "from": {"id": self.bot_id, "is_bot": True, "first_name": "Blufio test",
                        "username": self.username}}
        if m["rich"]:
            out["rich_message"] = {"blocks": []}
        else:
            out["text"] = m["text"]
            if m["entities"]:
                out["entities"] = m["entities"]
        if m["thread"] is not None:
            out.update(message_thread_id=m["thread"], is_topic_message=True)
        if m["edits"]:
            out["edit_date"] = int(time.time())
        return out

    def text_content(self, p):
        text, entities = self.formatted(p)
        return {"text": text.strip() if not entities else text, "source": p["text"],
                "parse_mode": p.get("parse_mode"), "entities": entities, "rich": None}

    def rich_fields(self, p):
        kind, source = self.rich_content(p)
        return {"text": source, "source": source, "parse_mode": None, "entities": [], "rich": kind}

    def do_sendmessage(self, p):
        chat = self.target(p)
        return self.store(chat, p, self.text_content(p))

    def do_sendrichmessage(self, p):
        chat = self.target(p)
        return self.store(chat, p, self.rich_fields(p))

    def do_editmessagetext(self, p):
        if "chat_id" not in p or "message_id" not in p:
            raise bad("message identifier is not specified")
        if self.rich is False and "rich_message" in p:
            p = {k: v for k, v in p.items() if k != "rich_message"}
        chat = self.target(p)
        message = self.find(chat["id"], p["message_id"])
        if message is None:
            raise bad("message to edit not found")
        if not message["bot"]:
            raise bad("message can't be edited")
        if "rich_message" in p and "text" in p:
            raise bad("text and rich_message exclude each other")
        content = self.rich_fields(p) if "rich_message" in p else self.text_content(
            dict({"text": ""}, **p))
        markup = self.markup_of(p)
        if all(message[k] == content[k] for k in ("text", "entities", "rich")) \
                and message["reply_markup"] == markup:
            raise bad("message is not modified: specified new message content and reply markup are "
                      "exactly the same as a current content and reply markup of the message")
        message["edits"].append((time.time(), content["text"]))
        message.update(content, reply_markup=markup)
        return self.message_object(chat, message)

    def do_deletemessage(self, p):
        chat = self.target(p)
        message = self.find(chat["id"], p["message_id"])
        if message is None:
            raise bad("message to delete not found")
        message["deleted"] = True
        return True

    def draft(self, p, fields):
        if p["draft_id"] == 0:
            raise bad("draft identifier must be non-zero")
        self.draft_log.append(dict({
            "chat_id": p["chat_id"], "draft_id": p["draft_id"], "time": time.time(), "gone": False,
            "thread": p.get("message_thread_id"), "can_stop": p.get("can_stop", False),
            "keep_on_stop": p.get("keep_on_stop", False)}, **fields))
        return True

    def do_sendmessagedraft(self, p):
        self.target(p, private_only=True)
        text, entities = self.formatted(p, empty=True)
        return self.draft(p, {"text": text, "entities": entities, "rich": None,
                              "parse_mode": p.get("parse_mode")})

    def do_sendrichmessagedraft(self, p):
        self.target(p, private_only=True)
        kind, source = self.rich_content(p, draft=True)
        return self.draft(p, {"text": source, "entities": [], "rich": kind, "parse_mode": None})

    def do_sendchataction(self, p):
        chat = self.target(p)
        if p["action"] not in ACTIONS:
            raise bad("wrong parameter action in request")
        self.action_log.append({"chat_id": chat["id"], "action": p["action"], "time": time.time(),
                                "thread": p.get("message_thread_id")})
        return True

    def do_setmycommands(self, p):
        if len(p["commands"]) > 100:
            raise bad("BOT_COMMANDS_TOO_MUCH")
        for c in p["commands"]:
            if not re.match(r"[a-z0-9_]{1,32}\Z", c["command"]):
                raise bad("BOT_COMMAND_INVALID")
            if not 1 <= len(c["description"]) <= 256:
                raise bad("BOT_COMMAND_DESCRIPTION_INVALID")
        self.commands[json.dumps([p.get("scope"), p.get("language_code", "")])] = p["commands"]
        return True

    def do_getmycommands(self, p):
        return self.commands.get(json.dumps([p.get("scope"), p.get("language_code", "")]), [])

    def do_setwebhook(self, p):
        if p["url"] and not p["url"].startswith("https://"):
            raise bad("bad webhook: An HTTPS URL must be provided for webhook")
        self.webhook = p["url"]
        return True

    def do_deletewebhook(self, p):
        self.webhook = ""
        if p.get("drop_pending_updates"):
            self.pending = []
        return True

    def do_getwebhookinfo(self, p):
        return {"url": self.webhook, "has_custom_certificate": False,
                "pending_update_count": len(self.pending)}

    def do_answercallbackquery(self, p):
        query = p["callback_query_id"]
        if self.callbacks.get(query, "unknown") is not None:
            raise bad("query is too old and response timeout expired or query ID is invalid")
        if len(p.get("text", "")) > 200:
            raise bad("MESSAGE_TOO_LONG")
        self.callbacks[query] = dict(p, time=time.time())
        self.callback_answers.append(dict(p))
        return True

    def do_getfile(self, p):
        f = self.files.get(p["file_id"])
        if f is None:
            raise bad("invalid file_id")
        if f["size"] > DOWNLOAD_MAX:
            raise bad("file is too big")
        return {"file_id": p["file_id"], "file_unique_id": "AQ" + p["file_id"][-10:],
                "file_size": f["size"], "file_path": f["path"]}


def text_entities(text):
    """Commands and mentions as Telegram's own clients mark them, in UTF-16 units."""
    out = []
    for m in re.finditer(
        r"(?<![\w/@])(/[A-Za-z0-9_]{1,64}(?:@[A-Za-z0-9_]{3,32})?|@[A-Za-z0-9_]{3,32})(?![\w/])",
                         text):
        out.append({"type": "bot_command" if m.group(0)[0] == "/" else "mention",
                    "offset": units(text[:m.start()]), "length": units(m.group(0))})
    return out
