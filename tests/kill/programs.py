# SPDX-License-Identifier: MIT OR Apache-2.0
"""programs.py - what programs do in a day of campaign.py: they talk through the gateway.

Each repeats its request after every death until it has its answer: a message
under its Idempotency-Key, a stream behind the last event it has, on a socket
behind the last seq. What an answer has told is a promise: the message is stored
and answered once, a key exists, a revoked one is refused, an erased conversation
is gone, and a signature that was taken is taken no second time. A page's session
that was told is there, one that was ended, evicted or is over never works again,
and a ticket opens one socket.
"""
import hashlib
import json
import time
from collections import defaultdict

from gateway_client import Cut, Device, Gateway, text_of
from harness import OWNER
from test_gateway import TOKEN
from test_session import COOKIE, PER_KEY, Browser
from test_socket import Socket

CONFIG = {"enabled": True, "port": 0, "bearer_token": TOKEN}
STOP_KILLS = 11             # deaths of the special days at one statement
COMMIT_KILLS = 4            # and at the commit of each request of the programs'
SENDER = "gateway"          # in place of a Telegram user
# What only programs bring about, in the order in which play_programs dies there.
MINTED = ["INSERT INTO api_keys"]
USED = ["UPDATE api_keys SET used_at"]
SIGNED = ["INSERT INTO nonces", "DELETE FROM nonces"]
OPENED = ["INSERT INTO logins", "DELETE FROM logins WHERE expires_at", "DELETE FROM logins WHERE id IN"]
ENDED = ["DELETE FROM logins WHERE id ="]
REVOKED = ["UPDATE api_keys SET revoked_at"]
BRANCHED = ["INSERT INTO media_uses(hash, session_id, seq) SELECT", "UPDATE sessions SET (prompt"]
ERASED = ["DELETE FROM messages WHERE session_id", "DELETE FROM media_uses WHERE session_id", "UPDATE inbound SET text = ''",
          "UPDATE outbox SET text = ''", "UPDATE steps SET input = ''", "UPDATE turns SET answer = ''",
          "UPDATE jobs SET text = ''", "DELETE FROM heartbeat_notes WHERE session_id",
          "UPDATE sessions SET channel = 'erased'"]
# Of a batch: it is left, and its first item begun; an item ends, with a turn that counts its deaths.
LEFT = ["INSERT INTO batches", "INSERT INTO batch_items", "UPDATE batch_items SET state = ?2"]
ENDED_ITEM = ["step:UPDATE batch_items SET request", "step:UPDATE batches SET completed_at"]


def is_young(headers):
    """Its nonce is needed: by its time alone it would be taken."""
    return int(headers["Blufio-Timestamp"]) > time.time() - 45


def hash_of(secret):
    return hashlib.sha256(secret.encode()).hexdigest()


class Programs:
    """A part of class Day."""

    def begin_programs(self):
        self.gateway = Gateway(self.b, TOKEN)
        self.asked, self.told = {}, {}          # number -> (body, Idempotency-Key), the answer
        self.keys, self.revoked = {}, set()     # id -> secret or Device of what was minted, and ids
        self.gone, self.erased = {}, set()      # session -> numbers, from the first try on; confirmed
        self.signatures = []                    # (path, headers) that were answered
        self.batches = []                       # (the request, its Idempotency-Key, the answers)
        self.chats = []                         # (all that was said, Idempotency-Key, answer) by the OpenAI API
        self.pages = defaultdict(list)          # key -> what each try to log in gave: a Browser, or None when nobody was told
        self.spent = []                         # tickets that opened their socket
        self.in_request = False                 # points count from a request on, not from the start

    def reach(self, act):
        """What act(gateway) gives, however often a death cuts it. A cut without a death is wrong."""
        while True:
            self.wait(self.gateway.listening, "the gateway to listen")
            pid = self.b.pid
            if self.in_request:
                self.arm()
            try:
                return act(self.gateway)
            except (Cut, EOFError, OSError):
                self.wait(lambda: self.b.pid != pid, "the death that cut a connection")

    def ask(self, method, path, body=None, headers=None, key=TOKEN):
        return self.reach(lambda g: Gateway(g.b, key).ask(method, path, body, headers))

    def granted(self, r, *statuses):
        """The answer's object, or None where there is none."""
        if r.status not in statuses:
            self.bad("programs", "item %s: %r", self.item, r)
            return {}
        return r.json() if r.body else None

    # -- messages --------------------------------------------------------------------------------

    def compose(self, kind, session=None):
        number = self.next_number()
        text = "#%s %s" % (number, kind)
        self.sent.append((None, SENDER, number, text))
        body = dict({"content": text}, **({"session_id": session} if session else {}))
        self.asked[number] = body, {"Idempotency-Key": "order-" + number}
        return (number,) + self.asked[number]

    def answered(self, number, answer):
        """It is the same each time."""
        before = self.told.setdefault(number, answer)
        for name in set(before) & set(answer):
            if before[name] != answer[name]:
                self.bad("programs", "#%s: %s was %r and is %r", number, name, before[name], answer[name])
        return answer

    def post(self, kind, session=None):
        number, body, key = self.compose(kind, session)
        return self.answered(number, self.granted(self.ask("POST", "/v1/messages", body, key), 200))

    def chat(self, kind, history):
        """As clients of the OpenAI API do: all that was said, each time; it grows by the answer."""
        number, body, key = self.compose(kind)
        del self.asked[number]                  # it has no session_id of its own
        history.append({"role": "user", "content": body["content"]})
        self.chats.append((list(history), key, self.chatted(history, key)))
        history.append({"role": "assistant", "content": self.chats[-1][2]})

    def chatted(self, history, key):
        r = self.granted(self.ask("POST", "/v1/chat/completions", {"model": "blufio", "messages": history}, key), 200)
        return r["choices"][0]["message"]["content"] if r else None

    def batch(self, n):
        """Requests to be answered in time."""
        items = []
        for _ in range(n):
            number, body, key = self.compose("say")
            del self.asked[number]
            items.append({"model": "blufio", "messages": [{"role": "user", "content": body["content"]}]})
        return {"items": items}, key

    def left(self, batch):
        """It was left, perhaps before, and is answered."""
        made = self.granted(self.ask("POST", "/v1/batch", *batch), 202)
        while self.granted(self.ask("GET", "/v1/batch/" + made["id"]), 200)["status"] != "completed":
            time.sleep(0.01)
        self.batches.append(batch + (self.fetched(batch),))
        want = ["%s answered" % i["messages"][0]["content"].split()[0] for i in batch[0]["items"]]
        if self.batches[-1][2] != want:
            self.bad("programs", "a batch of %r was answered %r", want, self.batches[-1][2])

    def fetched(self, batch):
        id_ = self.granted(self.ask("POST", "/v1/batch", *batch), 202)["id"]
        return [(i["response"] or {"choices": [{"message": {"content": i["error"]}}]})["choices"][0]["message"]["content"]
                for i in self.granted(self.ask("GET", "/v1/batch/" + id_), 200)["items"]]

    def doomed_batch(self, label, times):
        """Left, and so many deaths at that label."""
        def leave():
            try:
                self.wait(self.gateway.listening, "the gateway to listen")
                self.gateway.ask("POST", "/v1/batch", *batch)
            except (Cut, EOFError, OSError):
                pass                            # it may be stored
        self.settle()
        self.kill()
        self.b.wait_exit()
        batch = self.batch(1)
        self.doomed(label, times, leave)
        self.launch(None, False)
        self.left(batch)

    def item_batch(self):
        self.left(self.batch(3))
        self.settle()

    def item_programs(self):
        """Beside somebody on Telegram; the second message continues the first one's conversation."""
        self.send(OWNER, "say")
        session = self.post("think tools")["session_id"]
        history = []
        self.chat("think tools", history)
        self.post("say", session)
        self.chat("say", history)
        self.settle()

    def item_stream(self):
        number, body, key = self.compose("words 400")
        seen = []

        def go(g):
            if seen:
                s = g.events("GET", "/v1/messages/" + seen[-1].id.split("-")[0], headers={"Last-Event-ID": seen[-1].id})
            else:
                s = g.events("POST", "/v1/messages", body, key)
            with s:
                for event in s:
                    seen.append(event)
        self.slowly(lambda: self.reach(go))
        if not seen or seen[-1].name != "message_stop" or text_of(seen) != seen[-1].data["content"]:
            self.bad("programs", "the stream of #%s ends with %r, its text %r", number, seen[-1:], text_of(seen)[-200:])
        else:
            self.answered(number, seen[-1].data)
        self.settle()

    def item_socket(self):
        number, body, key = self.compose("words 400")
        seen = []

        def go(g):
            last = [e["seq"] for e in seen if "seq" in e]
            with Socket(g.port) as s:
                s.send({"type": "resume", "seq": last[-1]} if last else
                       dict(body, type="message", idempotency_key=key["Idempotency-Key"]))
                while not seen or seen[-1]["type"] not in ("done", "error"):
                    seen.append(s.next())
        self.slowly(lambda: self.reach(go))
        text = ""
        for e in seen:
            text = "" if e["type"] == "restart" else text + e.get("text", "")
        if seen[-1]["type"] != "done" or text != seen[-1]["content"]:
            self.bad("programs", "the socket's answer to #%s ends with %r, its text %r", number, seen[-1:], text[-200:])
        else:
            self.answered(number, {k: seen[-1][k] for k in ("id", "session_id", "content")})
        self.settle()

    def slowly(self, act):
        """While the model speaks in pieces."""
        self.ai.delay, self.ai.piece = 0.01, 120
        try:
            act()
        finally:
            self.ai.delay, self.ai.piece = 0.0, None

    # -- credentials --------------------------------------------------------------------------------

    def mint(self):
        """The id of a key that was told. One whose answer a death swallowed nobody knows."""
        made = self.granted(self.ask("POST", "/v1/api-keys", {"name": "a key", "scopes": ["read", "chat"]}), 201)
        self.keys[made["id"]] = made["key"]
        return made["id"]

    def use(self, id_):
        self.granted(self.ask("GET", "/v1/sessions", key=self.keys[id_]), 200)

    def revoke(self, id_):
        """Once more after a death; then it is refused for ever."""
        self.revoked.discard(id_)
        self.granted(self.ask("DELETE", "/v1/api-keys/%d" % id_), 200)
        self.revoked.add(id_)
        self.granted(self.ask("GET", "/v1/sessions", key=self.keys[id_]), 401)

    def item_keys(self):
        kept, gone = self.mint(), self.mint()
        self.use(kept)
        self.use(gone)
        self.revoke(gone)
        self.post("say")

    def register(self):
        """The id of a device. A death may hide that it is known already."""
        device, deaths = Device(), len(self.kills)
        r = self.ask("POST", "/v1/api-keys", {"name": "a device", "scopes": ["read", "chat"], "device": device.public.hex()})
        self.granted(r, 201, *([409] if len(self.kills) > deaths else []))
        known = self.granted(self.ask("GET", "/v1/api-keys"), 200)["api_keys"]
        id_ = [k["id"] for k in known if k.get("device") == device.public.hex()][0]
        self.keys[id_] = device
        return id_

    def signed(self, id_, path="/v1/sessions"):
        """A request of a device: each try has a signature of its own; the one that was taken is kept."""
        def go(g):
            headers = self.keys[id_].headers("GET", path)
            r = Gateway(g.b).ask("GET", path, headers=headers)
            self.signatures.append((path, headers))
            return r
        self.granted(self.reach(go), 200)

    def replay(self):
        """What was taken is refused, over deaths too."""
        path, headers = self.signatures[-1]
        e = self.granted(self.ask("GET", path, headers=headers, key=None), 401)
        if is_young(headers) and "used before" not in json.dumps(e):
            self.bad("programs", "a signature that comes again is told %r", e)

    def item_device(self):
        device = self.register()
        self.signed(device)
        self.replay()
        self.die_here()
        self.replay()

        def ask(body, key):
            body = json.dumps(body).encode()
            return Gateway(self.b).ask("POST", "/v1/messages", body, dict(
                self.keys[device].headers("POST", "/v1/messages", body), **key))
        self.post_by(ask)

    def post_by(self, ask):
        """A message of ask's credential, to which its Idempotency-Key belongs: nobody else can ask again."""
        number, body, key = self.compose("say")
        del self.asked[number]
        answer = self.granted(self.reach(lambda g: ask(body, key)), 200)
        if answer.get("content") != "#%s answered" % number:
            self.bad("programs", "item %s: #%s was answered %r", self.item, number, answer)
        self.settle()

    def die_here(self):
        """kill -9 now, whatever was planned."""
        self.settle()
        self.target = ["outside", 0, ""]
        self.kill()
        self.wait(lambda: True, "a daemon")

    # -- pages --------------------------------------------------------------------------------------------

    def log_in(self, key, *others):
        """A Browser with its session, or None where one of the other statuses came."""
        page, tries = Browser(self.b), self.pages[key]

        def go(_):
            tries.append(None)
            return page.ask("POST", "/v1/session", None, {"Authorization": "Bearer " + key})
        r = self.reach(go)
        made = self.granted(r, 201, *others)
        if r.status != 201:
            return None
        page.opener, page.secret, page.csrf, page.ends = key, page.jar[COOKIE], made["csrf_token"], made["expires_at"]
        page.over = False               # None while it is being ended
        tries[-1] = page
        return page

    def by_page(self, page, method, path, body=None, headers=None):
        """With its cookie, which it may have been told to forget, and with the token of the page."""
        page.jar[COOKIE] = page.secret
        return page.ask(method, path, body, headers)

    def stands(self, page):
        """Does its session work? None: that cannot be known."""
        tries = self.pages[page.opener]
        later = tries[tries.index(page) + 1:]
        if page.over or time.time() > page.ends + 1 or len([p for p in later if p]) >= PER_KEY or \
                page.opener in [self.keys[id_] for id_ in self.revoked]:
            return False
        return None if page.over is None or len(later) >= PER_KEY or time.time() > page.ends - 60 else True

    def look_in(self, page):
        """Its session works, or never again."""
        stands = self.stands(page)
        r = self.reach(lambda g: self.by_page(page, "GET", "/v1/session"))
        told = self.granted(r, *{True: (200,), False: (401,), None: (200, 401)}[stands])
        if r.status == 200 and told["csrf_token"] != page.csrf:
            self.bad("programs", "item %s: a page is told another token", self.item)

    def log_out(self, page):
        deaths, page.over = len(self.kills), None
        r = self.reach(lambda g: self.by_page(page, "DELETE", "/v1/session"))
        self.granted(r, 204, *([401] if len(self.kills) > deaths else []))
        page.over = True
        self.look_in(page)

    def ticket(self, page):
        return self.granted(self.reach(lambda g: self.by_page(page, "POST", "/v1/session/ticket")), 201)["ticket"]

    def offer(self, ticket, status):
        """The ticket, for a socket."""
        self.reach(lambda g: Socket(g.port, None, status, Sec_WebSocket_Protocol="blufio, blufio.ticket." + ticket).s.close())

    def enter(self, page):
        """A socket by a ticket. One that a death kept from its socket may be spent: then by another."""
        while True:
            ticket, deaths = self.ticket(page), len(self.kills)
            try:
                self.offer(ticket, 101)
                self.spent.append(ticket)
                return
            except AssertionError:
                if len(self.kills) == deaths:
                    raise

    def item_page(self):
        self.log_in(self.short_key(), 401)
        page = self.log_in(self.keys[self.mint()])
        self.post_by(lambda body, key: self.by_page(page, "POST", "/v1/messages", body, key))
        self.enter(page)
        self.offer(self.spent[-1], 401)
        left = self.ticket(page)
        self.die_here()
        self.offer(self.spent[-1], 401)
        self.look_in(page)
        self.log_out(page)
        self.offer(left, 401)           # it ends with its session

    def short_key(self):
        """One that is over before the day is, and what was opened with it."""
        return self.granted(self.ask("POST", "/v1/api-keys", {"name": "short", "scopes": ["read"], "expires_in_seconds": 2}), 201)["key"]

    def item_pages(self):
        """One more than a key may have: the oldest gives way."""
        id_ = self.mint()
        for _ in range(PER_KEY + 1):
            page = self.log_in(self.keys[id_])
        for p in self.pages[page.opener]:
            if p:
                self.look_in(p)
        self.revoke(id_)
        self.look_in(page)

    # -- conversations -----------------------------------------------------------------------------------

    def erase(self, session, numbers):
        deaths = len(self.kills)
        self.settle()
        self.gone[int(session)] = numbers
        while True:
            r = self.ask("DELETE", "/v1/sessions/" + session)
            if r.status != 409:         # the turn is over, but its conversation is still in memory
                break
            time.sleep(0.002)
        self.granted(r, 204, *([404] if len(self.kills) > deaths else []))
        self.erased.add(int(session))
        self.granted(self.ask("GET", "/v1/sessions/%s/messages" % session), 404)

    def item_erase(self):
        first = self.post("tools")
        self.post("say", first["session_id"])
        self.erase(first["session_id"], sorted(self.asked)[-2:])
        self.post("say")

    # -- a special day --------------------------------------------------------------------------------------

    def play_programs(self):
        """Deaths at each statement that only programs bring about; the client repeats through all of them."""
        self.item = "programs"
        self.launch(None, False)
        first = self.post("tools")
        numbers = sorted(self.asked)
        device = self.register()
        self.post("say")

        def at(begins, act):
            """act, with so many deaths at each of these statements in it, and before its commit."""
            self.settle()
            labels = [x for begin in begins for x in self.spec["statements"] if x.startswith("step:" + begin)]
            self.plan = [[x, 1, self.rng.choice(("before", "after")), False] for x in labels for _ in range(STOP_KILLS)]
            self.plan += [["step:COMMIT", 1, "before", False]] * COMMIT_KILLS
            n = len(self.kills) + len(self.plan) + 1
            self.in_request = True
            self.die_here()
            act()
            self.in_request = False
            end = time.monotonic() + 0.5        # it may die behind its answer
            self.wait(lambda: len(self.kills) == n or time.monotonic() > end, "the last death")
            if self.plan or len(self.kills) != n:
                self.bad("life", "%s was not reached", begins)
        keys = []
        at(MINTED, lambda: keys.append(self.mint()))
        at(USED, lambda: self.use(keys[0]))
        at(SIGNED, lambda: self.signed(device))
        self.replay()
        self.log_in(self.short_key(), 401)
        pages = [self.log_in(TOKEN) for _ in range(PER_KEY)]
        at(OPENED, lambda: pages.append(self.log_in(TOKEN)))
        at(ENDED, lambda: self.enter(pages[-1]))
        at(ENDED, lambda: self.log_out(pages[-1]))
        at(REVOKED, lambda: self.revoke(keys[0]))
        at(ERASED, lambda: self.erase(first["session_id"], numbers))
        history = []
        self.chat("say", history)
        self.chat("say", history)
        at(BRANCHED, lambda: self.chat("say", history[:2]))
        self.ai.prefix_violations.clear()       # where they part it was meant to change
        batch = self.batch(2)
        at(LEFT, lambda: self.left(batch))
        for label in ENDED_ITEM * (STOP_KILLS // 2):
            self.doomed_batch(label, 2)

    # -- promises ---------------------------------------------------------------------------------------------

    def inspect_programs(self, c):
        """At a death, and at the end: what was told is there."""
        if not self.asked and not self.keys:
            return                      # nor may the tables be there
        keys = {r["id"]: r for r in c.execute("SELECT * FROM api_keys")}
        for id_ in self.keys:
            if id_ not in keys:
                self.bad("programs", "key %d was told and is not stored", id_)
            elif (keys[id_]["revoked_at"] != 0) != (id_ in self.revoked) and id_ in self.revoked:
                self.bad("programs", "key %d was revoked and is not", id_)
        nonces = {r[0] for r in c.execute("SELECT nonce FROM nonces")}
        for _, headers in self.signatures:
            if is_young(headers) and headers["Blufio-Nonce"] not in nonces:
                self.bad("programs", "the nonce of a signature that was taken is not stored")
        logins = {r[0] for r in c.execute("SELECT hash FROM logins")}
        for page in [p for tries in self.pages.values() for p in tries if p]:
            there = hash_of(page.secret) in logins
            if not there if self.stands(page) else there and page.over:
                self.bad("programs", "a session that was %s", "told is not stored" if not there else "ended is there")
        if logins & {hash_of(t) for t in self.spent}:
            self.bad("programs", "a ticket that opened its socket is there")
        stored = {str(r["id"]): r for r in c.execute("SELECT i.*, o.text AS reply FROM inbound i LEFT JOIN turns t ON t.inbound_id ="
                                                     " i.id LEFT JOIN outbox o ON o.turn_id = t.id AND o.kind = 0")}
        for number, answer in self.told.items():
            row = stored.get(answer["id"])
            if number in self.numbers_gone():
                continue
            if row is None or row["text"] != self.asked[number][0]["content"] or row["reply"] != answer["content"]:
                self.bad("programs", "#%s was answered %r, stored is %r", number, answer, row and tuple(row))
        for session in self.erased:
            for what, sql in (("the history", "SELECT content FROM messages WHERE session_id = ?1"),
                              ("a message", "SELECT text FROM inbound WHERE session_id = ?1"),
                              ("a reply", "SELECT text FROM outbox WHERE session_id = ?1"),
                              ("a turn", "SELECT answer || partial FROM turns WHERE session_id = ?1"),
                              ("a step", "SELECT input || output FROM steps WHERE turn_id IN (SELECT id FROM turns WHERE"
                                         " session_id = ?1)")):
                if any(r[0] for r in c.execute(sql, (session,))):
                    self.bad("programs", "of an erased conversation %s is there", what)

    def numbers_gone(self):
        return {n for numbers in self.gone.values() for n in numbers}

    def check_programs(self):
        """At the end of the day, in peace: each key of a message has the one answer, and each credential what it was told."""
        for number, (body, key) in self.asked.items():
            if number not in self.told:
                self.bad("programs", "#%s was never answered", number)
            elif number not in self.numbers_gone():
                self.answered(number, self.granted(self.ask("POST", "/v1/messages", body, key), 200))
                self.granted(self.ask("POST", "/v1/messages", {"content": "another"}, key), 409)
        for history, key, answer in self.chats:
            if self.chatted(history, key) != answer:
                self.bad("programs", "%r was answered %r, and is no more", history[-1], answer)
        for body, key, answers in self.batches:
            if self.fetched((body, key)) != answers:
                self.bad("programs", "a batch was answered %r, and is no more", answers)
        if self.signatures:
            self.replay()
        for page in [p for tries in self.pages.values() for p in tries if p]:
            self.look_in(page)
        if self.spent:
            self.offer(self.spent[-1], 401)
        for id_, secret in self.keys.items():
            headers = secret.headers("GET", "/v1/sessions") if isinstance(secret, Device) else None
            self.granted(self.ask("GET", "/v1/sessions", headers=headers, key=None if headers else secret),
                         401 if id_ in self.revoked else 200)
