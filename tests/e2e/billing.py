# SPDX-License-Identifier: MIT OR Apache-2.0
"""billing.py - what the model provider counts, keeps in its cache and charges.

Written down from the provider's own price sheet and caching rules, never from the program's tables: where the two
differ, one of them is wrong. fake_anthropic.py serves requests with it; tests compare the program's ledger with it.

Tokens are counted block by block, so that they can be checked by hand:
  - a block (tool, system text, content block) is its compact JSON without cache_control and without the bytes of
    files, 4 bytes a token, rounded up; 5.2 with the models up to 4.6, whose tokenizer gives 30 % fewer;
  - a picture adds width x height / 750, a PDF 2,000 for each 50,000 bytes that are begun;
  - tools add what the sheet says the provider puts before them (TOOLS_PROMPT);
  - an answer is its text, thinking and tool input by the same bytes a token.
What a request is billed for is the sum over its blocks, and count_tokens says the same.

The cache holds prefixes that end in a block. A breakpoint looks for one at its own block and the 19 before it, the
longest found by any is read and lives on, and what lies between it and the breakpoints is written, once it has the
model's minimum. An entry lives 5 minutes or an hour from the start of the request that wrote or read it.
"""
import base64
import hashlib
import json
import struct
import time
from collections import Counter
from decimal import Decimal

LOOKBACK = 20
TTL = {"5m": 300, "1h": 3600}

# Shortest prefix that is cached, then US dollars a million tokens: input, output, write for 5 minutes, for an hour,
# read; last the largest prompt (input, reads and writes) that this line is for. A prompt's line prices its answer too.
SHEET_TEXT = """
claude-fable-5-2           512   8     40    10     16    0.20
claude-fable-5-1           512  10     50    12.50  20    0.25
claude-opus-5-5            512   4     20     5      8    0.20
claude-sonnet-5-5          512   2     10     2.50   4    0.10
claude-haiku-5-5           512   0.10   0.50  0.125  0.20 0.01  100000
claude-haiku-5-5           512   0.50   2.50  0.625  1.00 0.05
claude-fable-5             512  10     50    12.50  20    1.00
claude-opus-5              512   5     25     6.25  10    0.50
claude-opus-4-8           1024   5     25     6.25  10    0.50
claude-opus-4-7           2048   5     25     6.25  10    0.50
claude-opus-4-6           4096   5     25     6.25  10    0.50
claude-opus-4-5           4096   5     25     6.25  10    0.50
claude-sonnet-5           1024   2     10     2.50   4    0.20
claude-sonnet-4-6         1024   3     15     3.75   6    0.30
claude-haiku-4-5          4096   1      5     1.25   2    0.10
claude-haiku-4-5-20251001 4096   1      5     1.25   2    0.10
"""
COARSE = {"claude-opus-4-6", "claude-opus-4-5", "claude-sonnet-4-6", "claude-haiku-4-5", "claude-haiku-4-5-20251001"}
TOOLS_PROMPT = {"claude-haiku-5-5": 286}        # the one figure that the sheet has
UNBOUNDED = 1 << 62


def _sheet():
    """model -> (minimum, [(largest prompt, nano-dollars a token, five of them)])"""
    out = {}
    for line in SHEET_TEXT.strip().split("\n"):
        model, floor, *rest = line.split()
        nano = tuple(int(Decimal(usd) * 1000) for usd in rest[:5])
        out.setdefault(model, (int(floor), []))[1].append((int(rest[5]) if rest[5:] else UNBOUNDED, nano))
    return out


SHEET = _sheet()


def floor_of(model):
    return SHEET[model][0]


def prices(model, prompt=0):
    """Nano-dollars a token for a prompt of that size: input, output, write 5 m, write 1 h, read."""
    return next(nano for most, nano in SHEET[model][1] if prompt <= most)


NO_USAGE = {"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}, "output_tokens": 0}


def counts(usage):
    """input, output, write 5 m, write 1 h, read"""
    made = usage["cache_creation"]
    return (usage["input_tokens"], usage["output_tokens"], made["ephemeral_5m_input_tokens"],
            made["ephemeral_1h_input_tokens"], usage["cache_read_input_tokens"])


def nano(model, usage, geo=None):
    """Nano-dollars of a call; inference in the US alone is a tenth dearer."""
    n = counts(usage)
    total = sum(k * price for k, price in zip(n, prices(model, sum(n) - n[1])))
    return (total * 11 + 9) // 10 if geo == "us" else total


# ---- what is counted ------------------------------------------------------------------------------


def compact(value):
    """JSON as it came, order of keys kept."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def canonical(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def size(value):
    return len((value if isinstance(value, str) else compact(value)).encode("utf-8", "surrogatepass"))


def tokens(n_bytes, model=None):
    return -(-n_bytes * 10 // 52) if model in COARSE else -(-n_bytes // 4)


def bytes_of(n_tokens, model=None):
    """The most bytes that are no more than so many tokens."""
    return n_tokens * 52 // 10 if model in COARSE else n_tokens * 4


def blocks_of(content):
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def bare(block):
    """Without its breakpoint: moving one changes nothing."""
    return {k: v for k, v in block.items() if k != "cache_control"}


def normal(block):
    """A block as it counts for replays: caller may be left out, breakpoints move freely."""
    return {k: v for k, v in bare(block).items() if k not in ("caller", "raw_input")}


def is_thinking(b):
    return b.get("type") in ("thinking", "redacted_thinking")


def picture(data):
    """(media type, width, height) by the first bytes, None for what is no picture."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24:
        return ("image/png",) + struct.unpack(">II", data[16:24])
    if data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= 10:
        return ("image/gif",) + struct.unpack("<HH", data[6:10])
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30:
        if data[12:16] == b"VP8X":
            return ("image/webp", 1 + int.from_bytes(data[24:27], "little"),
                    1 + int.from_bytes(data[27:30], "little"))
        if data[12:16] == b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return "image/webp", 1 + (bits & 0x3fff), 1 + (bits >> 14 & 0x3fff)
        if data[12:16] == b"VP8 ":
            width, height = struct.unpack("<HH", data[26:30])
            return "image/webp", width & 0x3fff, height & 0x3fff
    if data[:2] == b"\xff\xd8":
        at = 2
        while at + 9 <= len(data) and data[at] == 0xff:
            kind = data[at + 1]
            if kind in (0xff, 0x01) or 0xd0 <= kind <= 0xd8:
                at += 1 if kind == 0xff else 2
                continue
            if 0xc0 <= kind <= 0xcf and kind not in (0xc4, 0xc8, 0xcc):
                height, width = struct.unpack(">HH", data[at + 5:at + 9])
                return "image/jpeg", width, height
            at += 2 + struct.unpack(">H", data[at + 2:at + 4])[0]
    return None


def files_out(block):
    """(the block with a digest for each file's bytes, the same with nothing there, tokens of what the files show)"""
    marked, empty, shown = dict(block), dict(block), 0
    source = block.get("source")
    if isinstance(source, dict) and source.get("type") == "base64":
        data = base64.b64decode(source["data"])
        found = picture(data)
        shown = -(-found[1] * found[2] // 750) if found else 2000 * -(-len(data) // 50000)
        marked["source"] = dict(source, data=hashlib.sha256(data).hexdigest())
        empty["source"] = dict(source, data="")
    if isinstance(block.get("content"), list) and block["type"] == "tool_result":
        parts = [files_out(b) for b in block["content"]]
        marked["content"], empty["content"] = [p[0] for p in parts], [p[1] for p in parts]
        shown = sum(p[2] for p in parts)
    return marked, empty, shown


def has(kind, body):
    """Is there a block of that kind in the messages, inside results too?"""
    return any(b["type"] == kind or (b["type"] == "tool_result" and isinstance(b.get("content"), list)
                                     and any(part["type"] == kind for part in b["content"]))
               for m in body["messages"] for b in blocks_of(m["content"]))


class Prompt:
    """A request as the cache sees it. marks: for each block the key of the prefix that it ends, the tokens up to its
    end, and the life of the breakpoint on it, or None."""

    def __init__(self, body, workspace=""):
        self.model, self.marks = body["model"], []
        self.chain, self.total = hashlib.sha256(), 0
        self.into(compact([workspace, self.model]))
        tools = [t for t in body.get("tools", []) if not t.get("defer_loading")]
        for i, t in enumerate(tools):
            self.add(compact(bare(t)), size(bare(t)), 0 if i else TOOLS_PROMPT.get(self.model, 0), t)
        # What is switched at a level changes it and all behind it.
        self.into(compact(["S", body.get("speed"), self.cites(body)]))
        for b in blocks_of(body.get("system") or []):
            self.add(compact(bare(b)), size(bare(b)), 0, b)
        self.into(compact(["M", body.get("tool_choice") or {"type": "auto"}, body.get("thinking"),
                           body.get("output_config"), has("image", body)]))
        last = None
        for m in body["messages"]:
            for b in blocks_of(m["content"]):
                marked, empty, shown = files_out(bare(b))
                self.add(m["role"][0] + compact(marked), size(empty), shown, b)
                last = last if is_thinking(b) else len(self.marks) - 1
        control = body.get("cache_control")
        if control and last is not None and self.marks[last][2] is None:        # automatic
            self.marks[last] = self.marks[last][:2] + (control.get("ttl", "5m"),)

    @staticmethod
    def cites(body):
        return any((b.get("citations") or {}).get("enabled") for m in body["messages"] for b in blocks_of(m["content"])
                   if b["type"] in ("document", "search_result") and isinstance(b.get("citations"), dict))

    def into(self, text):
        self.chain.update(text.encode("utf-8", "surrogatepass") + b"\0")

    def add(self, text, n_bytes, more, holder):
        self.into(text)
        self.total += tokens(n_bytes, self.model) + more
        control = holder.get("cache_control")
        self.marks.append((self.chain.hexdigest(), self.total, control.get("ttl", "5m") if control else None))


class Cache:
    """Prefixes with the time at which they end and the life that a read gives them anew."""

    def __init__(self):
        self.entries = {}

    def alive(self, key, now):
        return key in self.entries and self.entries[key][0] > now

    def look(self, prompt, now):
        """(usage of a request that starts now, what is to be kept when its answer begins: key, tokens, life)"""
        marks, floor = prompt.marks, floor_of(prompt.model)
        points = [i for i, mark in enumerate(marks) if mark[2] and mark[1] >= floor]
        read, kept, written = 0, [], {"5m": 0, "1h": 0}
        for i in points:
            for key, upto, _ in reversed(marks[max(0, i + 1 - LOOKBACK):i + 1]):
                if self.alive(key, now):
                    kept.append((key, upto, self.entries[key][1]))      # its own life again, never a longer one
                    read = max(read, upto)
                    break
        done = read
        for i in points:
            key, upto, ttl = marks[i]
            if upto > done:
                written[ttl] += upto - done
                done = upto
                kept.append((key, upto, ttl))
        return {
            "input_tokens": prompt.total - done, "cache_creation_input_tokens": done - read,
            "cache_read_input_tokens": read, "output_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": written["5m"],
                               "ephemeral_1h_input_tokens": written["1h"]},
        }, kept

    def missed(self, head, differs, prompt, usage, now):
        """Why less was read than the request before this one had kept; None when it was not less."""
        if head is None or head.cached is None or usage["cache_read_input_tokens"] >= head.cached[1]:
            return None
        if differs:
            return differs
        if head.cached[0] not in [mark[0] for mark in prompt.marks]:
            return "messages: tool_choice, thinking, effort or the presence of images changed"
        if not self.alive(head.cached[0], now):
            return "expired"
        return "no breakpoint within %d blocks" % LOOKBACK

    def keep(self, kept, start):
        for key, _, ttl in kept:
            until = start + TTL[ttl]
            if self.entries.get(key, (0, ""))[0] < until:
                self.entries[key] = (until, ttl)


# ---- the log --------------------------------------------------------------------------------------


class Book:
    """calls: one entry for each call that is over, in that order, never changed again. charges: (when, id, start of
    the call, nano-dollars more), as they arise: the prompt when it is accepted, the answer as it is generated."""

    def __init__(self):
        self.calls, self.charges, self.open = [], [], 0

    def begin(self, request_id, model, workspace, now):
        self.open += 1
        return {"id": request_id, "time": now, "ended": None, "model": model, "workspace": workspace, "geo": None,
                "usage": NO_USAGE, "nano": 0, "outcome": "error", "status": None, "stop": None, "miss": None,
                "completed": False, "bytes": 0}

    def charge(self, entry, now):
        total = nano(entry["model"], entry["usage"], entry["geo"])
        if total != entry["nano"]:
            self.charges.append((now, entry["id"], entry["time"], total - entry["nano"]))
            entry["nano"] = total

    def end(self, entry, now):
        entry["ended"] = now
        self.open -= 1
        self.calls.append(dict(entry, usage=json.loads(json.dumps(entry["usage"]))))


def over_cap(charges, cap, per="%Y-%m-%d"):
    """The first instant at which more than cap was billed in a period (of UTC, by the start of the calls), or None."""
    sums = Counter()
    for when, request_id, start, more in charges:
        period = time.strftime(per, time.gmtime(start))
        sums[period] += more
        if sums[period] > cap:
            return "%s: %d of %d nano-dollars billed at %.3f by %s" % (period, sums[period], cap, when, request_id)
    return None


def booked(row):
    """A row of the ledger as a call is known: model, counts, nano-dollars."""
    return (row["model"], row["input"], row["output"], row["write_5m"], row["write_1h"], row["cache_read"],
            row["nano_usd"])


def billed(call):
    return (call["model"],) + counts(call["usage"]) + (call["nano"],)


FINAL = ("completed", "refused")        # the provider told the client what it had used


def reconcile(rows, calls, lost=(), flagged=True):
    """What is wrong with the ledger's rows, by the provider's log; an empty list is a pass.

    A call whose usage the provider told is booked once, to the token and the nano-dollar. One that broke off (or of
    which the end was lost by the client's death: lost are their ids) has a flagged row of its own of at least what
    was billed; this half can be left out. No row stands for nothing, but a flagged one may: a client cannot know
    what was not billed. With a column request_id rows are joined by it; those without one by what they hold."""
    wrong, under, exact, estimates = [], [], [], []
    by_id = {c["id"]: c for c in calls}
    left = {c["id"]: c for c in calls if sum(billed(c)[1:])}
    for row in rows:
        if not sum(booked(row)[1:]):
            continue
        name = row["request_id"] if "request_id" in row.keys() else None
        call = left.pop(name, None) if name else None
        if name and name not in by_id:
            wrong.append("%s: booked, never made" % name)
        elif name and call is None and not row["estimated"]:
            wrong.append("%s: booked twice, or not billed: %s" % (name, booked(row)))
        elif call is None and not name:
            (estimates if row["estimated"] else exact).append(row)
        elif call and row["estimated"]:
            under += short(call, row)
            if call["outcome"] in FINAL and name not in lost:
                wrong.append("%s: %s, but booked by estimate" % (name, call["outcome"]))
        elif call and booked(row) != billed(call):
            wrong.append("%s: billed %s, booked %s" % (name, billed(call), booked(row)))
    have = Counter(booked(r) for r in exact)
    broken = []
    for call in sorted(left.values(), key=lambda c: c["id"] in lost):
        if call["outcome"] in FINAL and have[billed(call)]:
            have[billed(call)] -= 1
        elif call["outcome"] in FINAL and call["id"] not in lost:
            wrong.append("%s: %s, billed %s, no such row" % (call["id"], call["outcome"], billed(call)))
        else:
            broken.append(call)
    wrong += ["no call for the row %s" % (key,) for key, n in have.items() for _ in range(n)]
    # The dearest against the dearest: if that fails, no other way of pairing them holds either.
    for model in {c["model"] for c in broken}:
        ours = sorted((r for r in estimates if r["model"] == model), key=lambda r: -r["nano_usd"])
        theirs = sorted((c for c in broken if c["model"] == model), key=lambda c: -c["nano"])
        for i, call in enumerate(theirs):
            under += short(call, ours[i] if i < len(ours) else None)
    return wrong + under if flagged else wrong


def short(call, row):
    if row is None:
        return ["%s: %s, billed %s, not booked" % (call["id"], call["outcome"], billed(call))]
    if row["nano_usd"] < call["nano"]:
        return ["%s: %s, billed %s, booked only %s" % (call["id"], call["outcome"], billed(call), booked(row))]
    return []


# ---- the standing check: a conversation goes on where it was ----------------------------------------


def zones(body):
    """[(zone, text)]: what the provider's cache sees, in its order."""
    out = [("tools", compact([bare(t) for t in body.get("tools", []) if not t.get("defer_loading")])),
           ("system", compact([bare(b) for b in blocks_of(body.get("system", ""))]))]
    for i, m in enumerate(body["messages"]):
        out += [("messages[%d]" % i, m["role"] + " " + compact(bare(b))) for b in blocks_of(m["content"])]
    return out


def octets(of_zones):
    return sum(len(text) for _, text in of_zones)


def first_text(body):
    return "\n".join(b["text"] for b in blocks_of(body["messages"][0]["content"]) if b["type"] == "text")


def said(blocks):
    """What an answer said, in a form that survives its being sent back."""
    return [canonical(normal(b)) for b in blocks if not is_thinking(b)]


def last_said(body):
    """The same of the newest answer in a request."""
    out = []
    for m in reversed(body["messages"]):
        if m["role"] == "assistant":
            out = said(blocks_of(m["content"])) + out
        elif out:
            break
    return out


THINKING = ('assistant {"type":"thinking"', 'assistant {"type":"redacted_thinking"')


class Head:
    """The newest request of a conversation: the next one begins with it."""

    def __init__(self, body, answer, cached):
        self.zones = zones(body)
        self.first = first_text(body)
        self.tools = {t["name"] for t in body.get("tools", [])}
        self.answer, self.cached = said(answer), cached         # cached: key and tokens of what was kept, or None
        self.over, self.before = False, None                    # its answer was given in full; what it went on from

    def leads(self, new):
        return new[:len(self.zones)] == self.zones

    def common(self, new):
        return next((i for i, (a, b) in enumerate(zip(self.zones, new)) if a != b), min(len(self.zones), len(new)))

    def speech(self):
        return [z for z in self.zones if not z[1].startswith(THINKING)]


class Watch:
    """Prefix equality of all conversations. violations: those that changed for no good reason; fresh: those that
    began anew for one. A conversation is known by its first text, or by an answer that only it was given."""

    def __init__(self):
        self.heads = {}         # (workspace, model) -> heads, newest last: each has a cache of its own
        self.violations, self.fresh = [], []

    def of(self, workspace, body):
        return self.heads.setdefault((workspace, body["model"]), [])

    def compare(self, workspace, body):
        """(the head that this request goes on with or None, how it differs from it or None)"""
        new, heads = zones(body), self.of(workspace, body)
        leading = [h for h in heads if h.leads(new)]
        if leading:
            return max(leading, key=lambda h: len(h.zones)), None
        kin = self.kin(heads, body) if any(m["role"] == "assistant" for m in body["messages"]) else []
        if not kin:
            return None, None
        head = max(kin, key=lambda h: h.common(new))            # most in common: that is the one that was broken
        heads.remove(head)
        text = difference(head.zones, new, head.common(new))
        why = self.reason(head, body, new)
        if why:
            self.fresh.append("%s: %s" % (why, text))
        else:
            self.violations.append(text)
        return head, text

    def kin(self, heads, body):
        answer = last_said(body)
        given = [h for all_heads in self.heads.values() for h in all_heads
                 if h.answer and answer[-len(h.answer):] == h.answer]
        return [h for h in heads if h.first == first_text(body) or given == [h]]

    @staticmethod
    def reason(head, body, new):
        names = {t["name"] for t in body.get("tools", [])}
        if names != head.tools:
            return "tools changed (%s)" % ", ".join(sorted(names ^ head.tools))
        smaller = len(new) < len(head.zones) or octets(new) < octets(head.zones)
        return "new history" if smaller and head.first != first_text(body) else None

    def bind(self, workspace, body, answer, cached):
        """The answer begins, the prefix is in the cache: what comes next must start with it. Returns the head; it
        knows the one before, for a turn that is to be dropped (a refusal)."""
        new, heads = Head(body, answer, cached), self.of(workspace, body)
        leading = [h for h in heads if h.leads(new.zones)]
        before = max(leading, key=lambda h: len(h.zones), default=None)
        # The same again, though it had been answered, is another conversation that begins alike.
        if before and (before.zones != new.zones or not before.over):
            heads.remove(before)
            if before.zones == new.zones:       # a try that broke off
                before = before.before
        new.before = before
        heads.append(new)
        # Gone to another model, a conversation leaves its thinking behind and has none of the old one's cache to keep.
        speech = new.speech()
        for (where, model), others in self.heads.items():
            if where == workspace and model != body["model"]:
                others[:] = [h for h in others if speech[:len(h.speech())] != h.speech()]
        return new

    def unbind(self, workspace, body, head):
        """Others may have come and gone meanwhile."""
        heads = self.of(workspace, body)
        heads[:] = [h for h in heads if h not in (head, head.before)] + [h for h in (head.before,) if h]

    def forget(self, workspace, body):
        """The next request of this conversation may look different: it was told to."""
        heads = self.of(workspace, body)
        heads[:] = [h for h in heads if h.first != first_text(body)]

    def forget_all(self):
        self.heads.clear()


def difference(base, new, k):
    zone, old = base[k]
    text = new[k][1] if k < len(new) else ""
    a, b = old.encode("utf-8", "surrogatepass"), text.encode("utf-8", "surrogatepass")
    at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    cut = slice(max(0, at - 40), at + 60)
    return "prefix changed in %s at byte %d: was %r, now %r" % (zone, at, a[cut], b[cut])
