/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* fuzz_ed25519.c - what was signed verifies, and with any one bit changed does not. */
#include "crypto/ed25519.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MSG_MAX 512u

/* The first 32 bytes are the seed, two more say which bit, the rest is the message. */
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* One after the other, so that one number names a bit of them all. */
	struct {
		unsigned char public[ED25519_PUBLIC_SIZE], sig[ED25519_SIG_SIZE], msg[MSG_MAX];
	} all;
	unsigned char *bytes = (unsigned char *)&all;
	struct str public = str_make((char *)all.public, sizeof(all.public));
	struct str sig = str_make((char *)all.sig, sizeof(all.sig)), msg;
	struct ed25519_key k;
	size_t bit;

	if (size < 34)
		return 0;
	ed25519_key_init(&k, data);
	bit = (size_t)data[32] << 8 | data[33];
	data += 34;
	size -= 34;
	/* Bytes of whatever kind are judged without harm. */
	if (size >= sizeof(all.public) + sizeof(all.sig))
		IGNORE(ed25519_verify(str_make((const char *)data, public.n), STR_NONE,
		    str_make((const char *)data + public.n, sig.n)));     /* it could be a good one */
	msg = str_make((char *)all.msg, size < MSG_MAX ? size : MSG_MAX);
	if (msg.n)
		memcpy(all.msg, data, msg.n);
	memcpy(all.public, k.public, sizeof(all.public));
	ed25519_sign(&k, msg, all.sig);
	if (ed25519_verify(public, msg, sig) != OK)
		abort();
	bit %= 8 * (public.n + sig.n + msg.n);
	bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
	if (ed25519_verify(public, msg, sig) != ERR_AUTH)
		abort();
	return 0;
}
