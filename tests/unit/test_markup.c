/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_markup.c - pieces and HTML of Markdown; every result passes a strict checker. */
#include "core/markup.h"
#include "base/json.h"
#include "test.h"

/* Balanced, nested, known tags, escaped text: what the Bot API's parser wants. *units is the
 * visible length, *visible tells of one that is not blank. */
static bool
html_ok(struct str h, size_t *units, bool *visible)
{
	static const char *const open[] = { "<b>", "<i>", "<s>", "<code>", "<pre>", "<blockquote>",
	    "<code class=\"language-", "<a href=\"" };
	static const char *const close[] = { "</b>", "</i>", "</s>", "</code>", "</pre>", "</blockquote>",
	    "</code>", "</a>" };
	static const char *const entities[] = { "&lt;", "&gt;", "&amp;", "&quot;" };
	size_t stack[64], depth = 0, len;

	*units = 0;
	*visible = false;
	for (size_t i = 0; i < h.n; i += len) {
		struct str s = str_sub(h, i, h.n);
		size_t k;

		len = 0;
		for (k = 0; k < 4 && s.p[0] == '&' && !len; k++)
			len = str_starts(s, str_z(entities[k])) ? strlen(entities[k]) : 0;
		if (s.p[0] == '<' && depth && str_starts(s, str_z(close[stack[depth - 1]]))) {
			len = strlen(close[stack[--depth]]);
			continue;
		}
		for (k = 0; k < 8 && s.p[0] == '<' && !len; k++) {
			if (!str_starts(s, str_z(open[k])) || depth == 64)
				continue;
			for (size_t d = 0; d < depth; d++)      /* nothing in pre or code but pre's code */
				if ((stack[d] == 4 && !(k == 6 || k == 3)) || stack[d] == 3 || stack[d] == 6 ||
				    (stack[d] == k && k == 7))
					return false;
			len = str_chr(s, '>') + 1;
			if (k >= 6 && (str_find(s, S("\">")) != len - 2 ||
			    str_chr(str_sub(s, strlen(open[k]), len - 2 - strlen(open[k])), '"') != SIZE_MAX))
				return false;
			stack[depth++] = k;
		}
		if (s.p[0] == '<' || s.p[0] == '>' || s.p[0] == '"' || s.p[0] == '&') {
			if (len == 0)
				return false;
			*units += s.p[0] == '&';
			*visible = *visible || s.p[0] == '&';
			continue;
		}
		utf8_decode(s, &len);
		*units += len == 4 ? 2 : 1;
		*visible = *visible || !strchr(" \t\r\n", s.p[0]) || s.p[0] == '\0';
	}
	return depth == 0;
}

static void
check_html(struct str md, const char *want)
{
	struct buf out = BUF_INIT(1 << 22);
	size_t units;
	bool visible, ok;

	markup_html(&out, md);
	if (out.err == OK) {
		ok = html_ok(buf_view(&out), &units, &visible);
		CHECK(ok);
		CHECK(units <= utf8_units(md));
		CHECK(visible || str_trim(md).n == 0);
		if (!ok && !want)
			printf("  from: %.*s\n  to: %s\n", STR_ARG(md), buf_z(&out));
		if (want)
			CHECK_STR(buf_view(&out), want);
	}
	buf_free(&out);
}

/* All pieces keep the limit, are visible, survive HTML, and lose nothing but blanks and fences. */
static void
check_split(struct str md, size_t max)
{
	struct markup_split it;
	struct buf piece = BUF_INIT(1 << 22);
	size_t kept = 0, given = 0, rounds = 0;

	markup_split_init(&it, md, max);
	while (markup_next(&it, &piece) && piece.err == OK && rounds++ < 1u << 20) {
		CHECK(piece.n && utf8_units(buf_view(&piece)) <= max && utf8_valid(buf_view(&piece)));
		CHECK(str_trim(buf_view(&piece)).n > 0);
		check_html(buf_view(&piece), NULL);
		for (size_t i = 0; i < piece.n; i++)
			kept += strchr(" \t\r\n`~", piece.p[i]) == NULL || !piece.p[i];
	}
	for (size_t i = 0; i < md.n; i++)
		given += strchr(" \t\r\n`~", md.p[i]) == NULL || !md.p[i];
	if (piece.err == OK)
		CHECK(kept >= given);   /* language words of reopened fences come on top */
	buf_free(&piece);
}

TEST(html)
{
	check_html(S("**bold** *it* _it_ ~~gone~~ `a<b` ***both***"), "<b>bold</b> <i>it</i> <i>it</i> "
	    "<s>gone</s> <code>a&lt;b</code> <b><i>both</i></b>");
	check_html(S("snake_case_name 2 * 3 * 4 2*3*4 a**b**c ~~a **b~~ c**"),
	    "snake_case_name 2 * 3 * 4 2*3*4 a**b**c <s>a **b</s> c**");
	check_html(S("*a **b** c* *a **b*** **a *b* \\* c** \xe6\xbc\xa2**\xe5\xad\x97**\xe6\xbc\xa2"),
	    "<i>a <b>b</b> c</i> <i>a <b>b</b></i> <b>a <i>b</i> * c</b> \xe6\xbc\xa2<b>\xe5\xad\x97</b>\xe6\xbc\xa2");
	check_html(S("[a **b**](https://x.y/?a=1&b=\"2) ![p](http://i) [no](javascript:x) <https://z.y>"),
	    "<a href=\"https://x.y/?a=1&amp;b=&quot;2\">a <b>b</b></a> <a href=\"http://i\">p</a> "
	    "[no](javascript:x) &lt;https://z.y&gt;");
	check_html(S("[a [b] c](http://x/(y)_z) [x [y](http://z)](http://w)"),
	    "<a href=\"http://x/(y)_z\">a [b] c</a> <a href=\"http://w\">x [y](http://z)</a>");
	check_html(S("# Head **x**\ntext\n\n- one\n  * two\n- [x] done\n1. first\n---\nend \\*no\\*"),
	    "<b>Head <b>x</b></b>\ntext\n\n• one\n  • two\n• [x] done\n1. first\n---\nend *no*");
	check_html(S("a\n```c++\nif (a < b)\n\n  x;\n```\nb\n~~~\nopen"),
	    "a\n<pre><code class=\"language-c++\">if (a &lt; b)\n\n  x;</code></pre>\nb\n<pre><code>open</code></pre>");
	check_html(S("> q **b**\n>> r\nafter"), "<blockquote>q <b>b</b>\nr</blockquote>\nafter");
	check_html(S("> q\n```\n> code\n```\n```\n```\nafter"), "<blockquote>q</blockquote>\n"
	    "<pre><code>&gt; code</code></pre>\n<pre><code></code></pre>\nafter");
	check_html(S("a\n| a | bee |\n|---|:-:|\n| **x** | `x\\|y` |\n\nz"),
	    "a\n<pre>| a | bee |\n|---|:-:|\n| **x** | `x\\|y` |</pre>\n\nz");
	check_html(S("**two\nlines** <b>&amp;"), "**two\nlines** &lt;b&gt;&amp;amp;");
	check_html(S("```\n```"), "```\n```");
	check_html(S("**"), "**");
	check_html(S("``a`b`` `open"), "<code>a`b</code> `open");
}

TEST(split)
{
	struct markup_split it;
	struct buf md = BUF_INIT(1 << 20), piece = BUF_INIT(1 << 20);

	for (int i = 0; i < 40; i++)
		buf_puts(&md, i == 20 ? "\n\n" : "Seven words make a nice short sentence. ");
	markup_split_init(&it, buf_view(&md), 1000);
	if (markup_next(&it, &piece) && md.err == OK && piece.err == OK) {
		CHECK(piece.n == 800 - 1);
		CHECK(str_ends(buf_view(&piece), S("sentence.")));
	}
	buf_reset(&md);
	buf_puts(&md, "Intro.\n\n```py\n");
	for (int i = 0; i < 100; i++)
		buf_fmt(&md, "line%d()\n", i);
	buf_puts(&md, "```\nOutro.\n");
	markup_split_init(&it, buf_view(&md), 300);
	for (int i = 0; md.err == OK && markup_next(&it, &piece) && piece.err == OK; i++) {
		CHECK(i == 0 || str_starts(buf_view(&piece), S("```py\nline")) || str_starts(buf_view(&piece), S("Outro")));
		CHECK(it.rest.n == 0 || str_ends(buf_view(&piece), S(")\n```")));
	}
	markup_split_init(&it, S(" \n\n  "), 300);
	CHECK(!markup_next(&it, &piece));
	buf_free(&md);
	buf_free(&piece);
}

/* Texts made of what Markdown is made of. */
TEST(random)
{
	static const char *const bits[] = { "*", "**", "_", "`", "```", "```c\n", "\n", "\n\n", "~~", "[", "](",
	    ")", "http://a", "|", "\n|-|-|\n", "> ", "- ", "# ", "<", ">", "&", "\"", "\\", "a", "word ", "sentence. ",
	    "\xf0\x9f\x98\x80", "\xc3\xa9", "    ", "1. ", "---\n", "!", "~~~\n", "- [ ] ", "________", "aaaaaaaaaaaaaaaa" };
	uint32_t seed = 12345;

	for (uint32_t round = 0; round < 1500; round++) {
		struct buf md = BUF_INIT(1 << 20);
		uint32_t n = round % 250;

		for (uint32_t i = 0; i < n; i++) {
			seed = seed * 1664525u + 1013904223u;
			buf_puts(&md, bits[(seed >> 16) % ARRAY_LEN(bits)]);
		}
		if (md.err == OK) {
			check_html(buf_view(&md), NULL);
			check_split(buf_view(&md), MARKUP_PIECE_MIN);
		}
		buf_free(&md);
		if (FAULTED())
			return;
	}
}

TEST(naughty)
{
	const char *path = test_data("utf8/blns.json");
	struct buf text = BUF_INIT(4 << 20), all = BUF_INIT(4 << 20);
	struct arena ar = ARENA_INIT(64 << 20);
	const struct json *v = NULL;

	if (!path) {
		SKIP("no conformance data");
		return;
	}
	if (file_read(path, 4 << 20, &text, NULL) == OK && json_parse(&ar, buf_view(&text), &v, NULL) == OK) {
		for (const struct json *c = v->first; c; c = c->next) {
			check_html(c->s, NULL);
			buf_str(&all, c->s);
			buf_putc(&all, '\n');
		}
		check_split(buf_view(&all), 400);
		check_split(buf_view(&all), 3500);
	} else {
		CHECK(FAULTED());
	}
	buf_free(&text);
	buf_free(&all);
	arena_free(&ar);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(html);
	RUN(split);
	RUN(random);
	RUN(naughty);
	return TEST_END();
}
