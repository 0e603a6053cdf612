/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_message.c - what a Telegram message says, each kind of it; and texts within the limits of rich messages. */
#include "channel/telegram/message.h"
#include "core/markup.h"
#include "test.h"

static struct tg_content c;
static struct arena ar;

static bool
reads(const char *json, bool hears)
{
	const struct json *m;

	tg_content_init(&c);
	arena_init(&ar, 4u << 20);
	if (json_parse(&ar, str_z(json), &m, NULL) == OK && tg_content_read(m, hears, "my_bot", &c) == OK)
		return true;
	CHECK(FAULTED());
	return false;
}

static void
done(void)
{
	tg_content_free(&c);
	arena_free(&ar);
}

TEST(text_and_things)
{
	static const struct { const char *json, *before, *text; } kinds[] = {
		{ "{\"text\":\"hi\"}", "", "hi" },
		{ "{\"caption\":\"cap\",\"photo\":[]}", "", "cap" },
		{ "{\"sticker\":{\"emoji\":\"x\"}}", "", "(sent a sticker: x)" },
		{ "{\"sticker\":{}}", "", "(sent a sticker:)" },
		{ "{\"location\":{\"latitude\":-1.25,\"longitude\":3}}", "", "(sent a location: -1.25, 3)" },
		{ "{\"contact\":{\"first_name\":\"A\\nB\",\"phone_number\":\"+1\"}}", "", "(sent a contact: A B, +1)" },
		{ "{\"checklist\":{\"title\":\"T\",\"tasks\":[{\"text\":\"a\"},{\"text\":\"b\"}]}}", "",
		    "(sent a checklist: T; a, b)" },
		{ "{\"text\":\"t\",\"forward_origin\":{\"type\":\"hidden_user\",\"sender_user_name\":\"N\"}}",
		    "(forwarded from N:)\n", "t" },
		{ "{\"text\":\"t\",\"forward_origin\":{\"type\":\"new\"}}", "(forwarded from somebody:)\n", "t" },
		{ "{\"text\":\"t\",\"reply_to_message\":{\"text\":\"old\",\"from\":{\"username\":\"ann\"}}}",
		    "(in reply to: \"old\")\n", "t" },
		{ "{\"text\":\"t\",\"reply_to_message\":{\"text\":\"ours\",\"from\":{\"username\":\"my_bot\"}}}", "", "t" },
		{ "{\"text\":\"/stop\",\"quote\":{\"text\":\"q\"}}", "", "/stop" },
		{ "{\"pinned_message\":{}}", "", "" }, { "{}", "", "" }, { "[]", "", "" },
		{ "{\"rich_message\":{\"blocks\":[{\"type\":\"table\",\"rows\":[{\"cells\":[\"a\",[\"b\",\"c\"]]}]},"
		    "{\"type\":\"details\",\"summary\":\"S\",\"blocks\":[{\"type\":\"paragraph\",\"text\":\"in\"}]},"
		    "{\"type\":\"divider\"}]}}", "", "| a | bc |\nS\nin\n---\n" },
	};

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (reads(kinds[i].json, false) && !FAULTED()) {
			CHECK_STR(buf_view(&c.before), kinds[i].before);
			CHECK_STR(buf_view(&c.text), kinds[i].text);
			CHECK(!c.has_file && !c.cannot);
		}
		done();
	}
}

TEST(files)
{
	static const struct { const char *json; bool hears; int kind; const char *source, *cannot; } kinds[] = {
		{ "{\"photo\":[{\"file_id\":\"s\",\"width\":90,\"height\":60},{\"file_id\":\"m\",\"width\":2000,\"height\":1500},"
		    "{\"file_id\":\"l\",\"width\":2560,\"height\":1920}]}", false, ATTACHMENT_IMAGE, "m", NULL },
		{ "{\"photo\":[{\"file_id\":\"l\",\"width\":2560,\"height\":1920}]}", false, ATTACHMENT_IMAGE, "l", NULL },
		{ "{\"document\":{\"file_id\":\"d\",\"file_name\":\"n\"}}", false, ATTACHMENT_DOCUMENT, "d", NULL },
		{ "{\"document\":{\"file_id\":\"d\",\"mime_type\":\"image/webp\"}}", false, ATTACHMENT_IMAGE, "d", NULL },
		{ "{\"document\":{\"file_id\":\"d\",\"file_size\":20971521}}", false, 0, NULL, "20 MB" },
		{ "{\"voice\":{\"file_id\":\"v\"}}", true, ATTACHMENT_AUDIO, "v", NULL },
		{ "{\"voice\":{\"file_id\":\"v\"}}", false, 0, NULL, "transcribe_command" },
		{ "{\"animation\":{\"file_id\":\"a\"},\"document\":{\"file_id\":\"a\"}}", true, 0, NULL, "videos" },
		{ "{\"game\":{}}", true, 0, NULL, "that kind" },
	};

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (reads(kinds[i].json, kinds[i].hears) && !FAULTED()) {
			CHECK(c.has_file == (kinds[i].source != NULL));
			if (c.has_file && kinds[i].source) {
				CHECK((int)c.file.kind == kinds[i].kind);
				CHECK_STR(c.file.source, kinds[i].source);
			}
			CHECK((c.cannot != NULL) == (kinds[i].cannot != NULL));
			CHECK(!c.cannot || (kinds[i].cannot && strstr(c.cannot, kinds[i].cannot)));
		}
		done();
	}
}

/* Other people's words are cut, whole characters at a time. */
TEST(quotes_end)
{
	struct buf b = BUF_INIT(65536);

	buf_puts(&b, "{\"text\":\"t\",\"quote\":{\"text\":\"");
	for (size_t i = 0; i < 400; i++)
		buf_puts(&b, "\xf0\x9f\x98\x80");
	buf_puts(&b, "\"}}");
	if (b.err == OK && reads(buf_z(&b), false) && !FAULTED()) {
		CHECK(utf8_valid(buf_view(&c.before)) && utf8_units(buf_view(&c.before)) < TG_QUOTE_MAX + 32);
		CHECK(strstr(buf_z(&c.before), "\xe2\x80\xa6\")"));
	}
	if (b.err == OK)
		done();
	buf_free(&b);
}

TEST(tame)
{
	static const char wide[] = "a\n|1|2|3|4|5|6|7|8|9|10|11|12|13|14|15|16|17|18|19|20|21|\n|-|\nb";
	struct buf out = BUF_INIT(65536), deep = BUF_INIT(4096);

	markup_tame(&out, S("# h\n\n|a|b|\n|-|-|\n> q\n```\n|1|\n```\nend"));
	if (!FAULTED())
		CHECK_STR(buf_view(&out), "# h\n\n|a|b|\n|-|-|\n> q\n```\n|1|\n```\nend");
	buf_reset(&out);
	markup_tame(&out, str_z(wide));
	if (!FAULTED())
		CHECK_STR(buf_view(&out), "a\n````\n|1|2|3|4|5|6|7|8|9|10|11|12|13|14|15|16|17|18|19|20|21|\n|-|\n````\nb");
	buf_reset(&out);
	for (size_t i = 0; i < 20; i++)
		buf_puts(&deep, "> ");
	buf_puts(&deep, "x");
	markup_tame(&out, buf_view(&deep));
	if (!FAULTED()) {
		size_t n = 0;

		for (size_t i = 0; i < out.n; i++)
			n += out.p[i] == '>';
		CHECK(n == MARKUP_DEPTH_MAX && str_ends(buf_view(&out), S("x")));
	}
	buf_free(&out);
	buf_free(&deep);
}

TEST(pieces_of_few_lines)
{
	struct buf md = BUF_INIT(1u << 20), piece = BUF_INIT(1u << 20);
	struct markup_split it;
	size_t pieces = 0, lines = 0;

	for (size_t i = 0; i < 1000; i++)
		buf_fmt(&md, i % 3 ? "line %zu\n" : "line %zu\n\n", i);
	markup_split_init(&it, buf_view(&md), 32000);
	it.max_blocks = 300;
	while (markup_next(&it, &piece)) {
		size_t n = 0;

		for (struct str rest = buf_view(&piece), line; rest.n;) {
			(void)str_cut(&rest, '\n', &line);
			n += str_trim(line).n > 0;
		}
		CHECK(n <= 300);
		lines += n;
		pieces++;
	}
	CHECK((pieces == 4 && lines == 1000) || FAULTED());
	buf_free(&md);
	buf_free(&piece);
}

int
main(int argc, char **argv)
{
	TEST_BEGIN(argc, argv);
	RUN(text_and_things);
	RUN(files);
	RUN(quotes_end);
	RUN(tame);
	RUN(pieces_of_few_lines);
	return TEST_END();
}
