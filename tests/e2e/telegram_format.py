# SPDX-License-Identifier: MIT OR Apache-2.0
"""telegram_format.py - what the Bot API's parse modes accept, and what they refuse.

parse_markdown_v2 and parse_html turn a source text into (plain text, entities)
or raise Refused with the words of the Bot API's 400 after "can't parse
entities: ". Offsets and lengths of entities are UTF-16 code units; the offsets
in errors are bytes of UTF-8. The MarkdownV2 parser agrees with TDLib's own
test cases (test_fakes.py runs them). The HTML parser is stricter than the real
one in two points, on purpose: a bare '&' and a bare '>' are refused, because the
documentation says that they must be escaped.
"""
import re
from urllib.parse import urlsplit

RESERVED = b"_*[]()~`>#+-=|{}.!\n"
NAMES = {
    "bold": "Bold", "italic": "Italic", "underline": "Underline", "strikethrough": "Strikethrough",
    "spoiler": "Spoiler", "code": "Code", "pre": "Pre", "pre_code": "PreCode",
    "text_link": "TextUrl", "custom_emoji": "CustomEmoji", "blockquote": "BlockQuote",
    "expandable_blockquote": "ExpandableBlockQuote", "text_mention": "MentionName",
}
# Order in which entities that cover the same text nest, outermost first.
PRIORITY = ["expandable_blockquote", "blockquote", "text_link", "text_mention", "custom_emoji",
            "pre_code", "pre", "code", "bold", "italic", "underline", "strikethrough", "spoiler"]


class Refused(Exception):
    pass


def units(text):
    """Length in UTF-16 code units."""
    return len(text) + sum(1 for c in text if ord(c) > 0xFFFF)


def checked_link(url):
    """The normalised URL of a link, or None when it is none (then there is no entity)."""
    if "://" not in url and not re.match(r"(?i)(tg|ton|mailto|tel):", url):
        url = "http://" + url
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if scheme in ("tg", "ton", "mailto", "tel"):
        return scheme + url[len(scheme):]
    host = (parts.hostname or "").lower()
    if scheme not in ("http", "https") or "." not in host or re.search(r"[\s<>\"\\]", host):
        return None
    last = host.rsplit(".", 1)[1]
    if len(last) < 2 and not last.isdigit():
        return None
    rest = url[len(parts.scheme) + 3 + len(parts.netloc):]
    netloc = parts.netloc.lower()
    return "%s://%s%s" % (scheme, netloc, rest if rest.startswith("/") else "/" + rest)


def emoji_id(url):
    m = re.match(r"(?is)([a-z][a-z0-9+.-]*):(?://)?(.*)\Z", url)
    if not m or m.group(1).lower() != "tg":
        raise Refused("Custom emoji URL must have scheme tg")
    rest = m.group(2)
    cut = re.search(r"[/?#]", rest)
    host, tail = (rest[:cut.start()], rest[cut.start():]) if cut else (rest, "")
    if host.lower() != "emoji":
        raise Refused('Custom emoji URL must have host "emoji"')
    query = tail.split("#", 1)[0].partition("?")[2]
    for arg in query.split("&"):
        key, _, value = arg.partition("=")
        if key == "id":
            if not re.match(r"-?[1-9][0-9]*\Z", value) or not -2**63 <= int(value) < 2**63:
                raise Refused("Invalid custom emoji identifier specified")
            return value
    raise Refused("Custom emoji URL must have an emoji identifier")


def link_user(url):
    m = re.match(r"tg://user\?(?:.*&)?id=(\d+)\Z", url)
    return int(m.group(1)) if m else None


class Open:
    """An entity whose end was not seen yet."""

    def __init__(self, kind, at, out, utf16, argument=None):
        self.kind, self.at, self.out, self.utf16, self.argument = kind, at, out, utf16, argument


def sort_entities(entities):
    entities.sort(key=lambda e: (e["offset"], -e["length"], PRIORITY.index(e["type"])))
    return entities


class MarkdownV2:
    """TDLib's grammar, octet by octet. The text ends as if a NUL stood behind it."""

    def __init__(self, source):
        self.src = source.encode("utf-8", "surrogatepass") + b"\0\0\0\0"
        self.end = len(self.src) - 4
        self.i = 0
        self.out = bytearray()
        self.utf16 = 0
        self.stack = []
        self.entities = []
        self.line_start = True

    def at(self, k=0):
        return self.src[self.i + k]

    def put(self, c):
        if c & 0xC0 != 0x80:
            self.utf16 += 1 + (c >= 0xF0)
        self.out.append(c)

    def reserved(self):
        raise Refused("Character '%s' is reserved and must be escaped with the preceding '\\'"
                      % chr(self.at()))

    def unclosed(self, entity):
        raise Refused("Can't find end of %s entity at byte offset %d"
                      % (NAMES[entity.kind], entity.at))

    def quoted(self):
        return any(e.kind == "blockquote" for e in self.stack)

    def push(self, kind, at, argument=None):
        self.stack.append(Open(kind, at, len(self.out), self.utf16, argument))

    def close(self, kind=None, **fields):
        e = self.stack.pop()
        length = self.utf16 - e.utf16
        if length == 0 or kind == "":
            return
        kind = kind or e.kind
        entity = {"type": kind, "offset": e.utf16, "length": length}
        if e.argument is not None:
            entity["language"] = e.argument
        entity.update(fields)
        self.entities.append(entity)

    def ends(self, c):
        """Does the octet end the innermost entity?"""
        kind = self.stack[-1].kind
        two, three = self.at(1), self.at(2)
        if kind == "bold":
            return c == ord("*")
        if kind == "italic":
            return c == ord("_") and two != ord("_")
        if kind == "underline":
            return c == ord("_") and two == ord("_")
        if kind == "strikethrough":
            return c == ord("~")
        if kind == "spoiler":
            return c == ord("|") and two == ord("|")
        if kind == "code":
            return c == ord("`")
        if kind in ("pre", "pre_code"):
            return c == two == three == ord("`")
        if kind in ("text_link", "custom_emoji"):
            return c == ord("]")
        return False

    def url(self, what):
        """After ']': the text up to the closing parenthesis."""
        self.i += 2
        begin, url = self.i, bytearray()
        while self.i < self.end and self.at() != ord(")"):
            if self.at() == ord("\\") and 0 < self.at(1) <= 126:
                self.i += 1
            url.append(self.at())
            self.i += 1
        if self.at() != ord(")"):
            raise Refused("Can't find end of a %s at byte offset %d" % (what, begin))
        return url.decode("utf-8", "replace")

    def finish(self):
        kind = self.stack[-1].kind
        if kind in ("underline", "spoiler"):
            self.i += 1
        elif kind in ("pre", "pre_code"):
            self.i += 2
        if kind == "text_link":
            if self.at(1) != ord("("):
                url = self.out[self.stack[-1].out:].decode("utf-8", "replace")
            else:
                url = self.url("URL")
            user, link = link_user(url), checked_link(url)
            if user is not None:
                self.close("text_mention", user=user)
            elif link is not None:
                self.close(url=link)
            else:
                self.close("")
        elif kind == "custom_emoji":
            if self.at(1) != ord("("):
                raise Refused("Custom emoji entity must contain a tg://emoji URL")
            self.close(custom_emoji_id=emoji_id(self.url("custom emoji URL")))
        else:
            self.close()

    def pre(self):
        at = self.i
        self.i += 3
        end = self.i
        while self.src[end] not in b" \t\r\n\0\v`":
            end += 1
        language = None
        if end != self.i and end < self.end and self.src[end] != ord("`"):
            language = self.src[self.i:end].decode("utf-8", "replace")
            self.i = end
        if self.at() in b"\r\n":
            self.i += 2 if self.at(1) in b"\r\n" and self.at() != self.at(1) else 1
        self.i -= 1
        self.push("pre" if language is None else "pre_code", at, language)

    def begin(self, c):
        at, two = self.i, self.at(1)
        if c == ord("_"):
            double = two == ord("_")
            self.i += double
            self.push("underline" if double else "italic", at)
        elif c == ord("*"):
            self.push("bold", at)
        elif c == ord("~"):
            self.push("strikethrough", at)
        elif c == ord("[") or (c == ord("!") and two == ord("[")):
            self.i += c == ord("!")
            self.push("text_link" if c == ord("[") else "custom_emoji", at)
        elif c == ord("|") and two == ord("|"):
            self.i += 1
            self.push("spoiler", at)
        elif c == ord("`"):
            if two == self.at(2) == ord("`"):
                self.pre()
            else:
                self.push("code", at)
        elif c == ord(">") and self.line_start and not self.quoted():
            self.push("blockquote", at)
        else:
            self.reserved()

    def newline(self):
        """A line's end; inside a quotation it also ends it unless the next line goes on."""
        self.put(ord("\n"))
        self.line_start = True
        if not self.quoted():
            return
        if self.at(1) == ord(">"):
            self.i += 1
            self.line_start = False
            return
        if self.stack[-1].kind != "blockquote":
            self.unclosed(self.stack[-1])
        self.close()

    def expandable(self, c):
        """'||' at the end of a quotation's last line."""
        if not (self.stack and self.stack[-1].kind == "blockquote" and c == self.at(1) == ord("|")):
            return False
        last = self.i + 2 >= self.end or (self.at(2) == ord("\n") and self.at(3) != ord(">"))
        return last

    def step(self):
        c = self.at()
        if c == ord("\\") and 0 < self.at(1) <= 126:
            self.i += 1
            self.put(self.at())
            self.line_start = False
            return
        verbatim = self.stack and self.stack[-1].kind in ("code", "pre", "pre_code")
        if c not in (b"`" if verbatim else RESERVED):
            self.put(c)
            self.line_start = False
        elif c == ord("\n"):
            self.newline()
        elif self.expandable(c):
            self.i += 1
            if self.i + 1 < self.end:       # the line's end belongs to the quotation
                self.i += 1
                self.put(ord("\n"))
                self.line_start = True
            self.close("expandable_blockquote")
        elif self.stack and self.ends(c):
            self.finish()
        else:
            self.begin(c)

    def parse(self):
        while self.i < self.end:
            self.step()
            self.i += 1
        if self.stack and self.stack[-1].kind == "blockquote":
            self.close()
        if self.stack:
            self.unclosed(self.stack[-1])
        return self.out.decode("utf-8", "replace"), sort_entities(self.entities)


def parse_markdown_v2(source):
    return MarkdownV2(source).parse()


HTML_TAGS = {
    "b": "bold", "strong": "bold", "i": "italic", "em": "italic", "u": "underline",
    "ins": "underline", "s": "strikethrough", "strike": "strikethrough", "del": "strikethrough",
    "tg-spoiler": "spoiler", "span": "spoiler", "a": "text_link", "code": "code", "pre": "pre",
    "blockquote": "blockquote", "tg-emoji": "custom_emoji", "tg-time": "date_time",
}
# What rich messages know besides (a checker of tags, not of their layout).
RICH_TAGS = set(HTML_TAGS) | set(
    "h1 h2 h3 h4 h5 h6 p br hr ul ol li table caption thead tbody tr td th details summary mark "
    "sub sup img video audio figure figcaption aside footer input cite tg-math tg-math-block "
    "tg-thinking tg-map tg-collage tg-slideshow tg-reference tg-button tg-buttons".split())
VOID_TAGS = {"br", "hr", "img", "input"}
ENTITY = re.compile(r"&(?:(lt|gt|amp|quot)|#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6}));")
TAG_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")
ATTRIBUTE = re.compile(
    r"\s+([a-zA-Z][a-zA-Z0-9_-]*)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'=<>`]+)))?")


def decode_entity(source, i, offset):
    m = ENTITY.match(source, i)
    if not m:
        raise Refused("Unescaped '&' at byte offset %d" % offset(i))
    if m.group(1):
        return {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}[m.group(1)], m.end()
    code = int(m.group(2)) if m.group(2) else int(m.group(3), 16)
    if not 0 < code <= 0x10FFFF or 0xD800 <= code < 0xE000:
        raise Refused("Invalid character reference at byte offset %d" % offset(i))
    return chr(code), m.end()


def unescape(value, offset):
    out, i = "", 0
    while i < len(value):
        if value[i] == "&":
            c, i = decode_entity(value, i, lambda _: offset)
            out += c
        else:
            out += value[i]
            i += 1
    return out


def start_tag(source, i, offset):
    """(name, attributes, self-closing, index behind '>')"""
    m = TAG_NAME.match(source, i + 1)
    if not m:
        raise Refused("Unsupported start tag \"%s\" at byte offset %d"
                      % (source[i + 1:i + 2], offset(i)))
    name, attrs, j = m.group(0).lower(), {}, m.end()
    while True:
        a = ATTRIBUTE.match(source, j)
        if not a:
            break
        value = a.group(2) or a.group(3) or a.group(4) or ""
        attrs[a.group(1).lower()] = unescape(value, offset(i))
        j = a.end()
    m = re.compile(r"\s*(/?)>").match(source, j)
    if not m:
        raise Refused("Unclosed start tag at byte offset %d" % offset(i))
    return name, attrs, bool(m.group(1)), m.end()


def html_entity(name, attrs, stack, text, at):
    """Fields of the entity that a tag makes, or None when it makes none."""
    if name == "a":
        url = attrs.get("href") or text
        user = link_user(url)
        if user is not None:
            return {"type": "text_mention", "user": user}
        link = checked_link(url)
        return {"type": "text_link", "url": link} if link else None
    if name == "tg-emoji":
        return {"type": "custom_emoji", "custom_emoji_id": attrs["emoji-id"]}
    if name == "blockquote" and "expandable" in attrs:
        return {"type": "expandable_blockquote"}
    if name == "code" and stack and stack[-1][0] == "pre" and attrs.get("class",
                                                                        "").startswith("language-"):
        return None
    return {"type": HTML_TAGS.get(name, name)}


def parse_html(source, rich=False, thinking=False):
    """(text, entities); with rich, only the tags and their balance matter."""
    known = RICH_TAGS if rich else set(HTML_TAGS)
    if not thinking:
        known = known - {"tg-thinking"}
    out, stack, entities, i = [], [], [], 0

    def offset(k):
        return len(source[:k].encode("utf-8", "surrogatepass"))

    while i < len(source):
        c = source[i]
        if c == "&":
            c, i = decode_entity(source, i, offset)
            out.append(c)
        elif c == ">":
            raise Refused("Unescaped '>' at byte offset %d" % offset(i))
        elif c != "<":
            out.append(c)
            i += 1
        elif source.startswith("</", i):
            m = re.compile(r"</([a-zA-Z][a-zA-Z0-9-]*)?\s*>").match(source, i)
            if not m:
                raise Refused("Unclosed end tag at byte offset %d" % offset(i))
            name = (m.group(1) or "").lower()
            if not stack:
                raise Refused("Unexpected end tag at byte offset %d" % offset(i))
            opened, attrs, begin = stack.pop()
            if name and name != opened:
                raise Refused('Unmatched end tag at byte offset %d, expected "</%s>", found "</%s>"'
                              % (offset(i), opened, name))
            text = "".join(out[begin:])
            entity = html_entity(opened, attrs, stack, text, i)
            if entity and text and not rich:
                entity.update(offset=units("".join(out[:begin])), length=units(text))
                entities.append(entity)
            i = m.end()
        else:
            name, attrs, closed, j = start_tag(source, i, offset)
            if name not in known or (name == "span" and attrs.get("class") != "tg-spoiler") \
                    or (name == "tg-emoji" and not re.match(r"\d+\Z", attrs.get("emoji-id", ""))):
                raise Refused('Unsupported start tag "%s" at byte offset %d' % (name, offset(i)))
            if name not in VOID_TAGS and not closed:
                stack.append((name, attrs, len(out)))
            elif closed and not rich:
                raise Refused('Unsupported start tag "%s/" at byte offset %d' % (name, offset(i)))
            i = j
    if stack:
        raise Refused('Can\'t find end tag corresponding to start tag "%s"' % stack[-1][0])
    entities.sort(key=lambda e: (e["offset"], -e["length"]))
    return "".join(out), entities


def markdown_blocks(source):
    """(number of top-level blocks, columns of the widest table) of rich Markdown."""
    blocks, wide, fence, inside = 0, 0, None, False
    for line in source.split("\n"):
        mark = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if fence:
            if mark and mark.group(1)[0] == fence[0] and len(mark.group(1)) >= len(fence) \
                    and not line.strip(" `~"):
                fence, inside = None, False
            continue
        if mark:
            fence, blocks, inside = mark.group(1), blocks + 1, True
            continue
        if not line.strip():
            inside = False
            continue
        if not inside or re.match(r" {0,3}(#{1,6} |([-*_] *){3,}$)", line):
            blocks += 1
            inside = not re.match(r" {0,3}#{1,6} ", line)
        if re.match(r"\s*\|.*\|\s*$", line):
            wide = max(wide, len(re.findall(r"(?<!\\)\|", line)) - 1)
    return blocks, wide
