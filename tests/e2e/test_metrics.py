# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_metrics.py - a day on Telegram, through the gateway and at the terminal; then /metrics says what the fakes counted."""
import re
from collections import Counter

from gateway_client import Gateway
from harness import OWNER, main
from test_gateway import SSE, held, release, world
from test_socket import Socket

SECOND, BLOCKED, STRANGER = 1002, 1003, 777
# What the fake does to a call, and the class of it.
CLASSES = {None: "ok", "refusal": "ok", "529": "retry", "error_event": "retry", "fin": "retry", "401": "bad_key",
           "402": "billing", "404": "bad_model", "413": "too_large", "400": "bad_request", "signature": "thinking"}
HAIKU = "claude-haiku-5-5"


def page(w):
    """Samples by series and types by family."""
    r = Gateway(w.b, None).ask("GET", "/metrics")
    assert r.status == 200, r
    samples, types = {}, {}
    for line in r.body.decode().splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            types[name] = kind
        elif not line.startswith("#"):
            series, value = line.rsplit(" ", 1)
            assert series not in samples, series
            samples[series] = float(value)
    return samples, types


def counted(w):
    """All counters, and of histograms how many they have seen, that are not 0. Nobody else counts commits, processor time
    and what of a prompt is overhead (test_budget.py does); what blufio_gateway_ counts is no business of turns."""
    samples, types = page(w)
    out = {}
    for series, value in samples.items():
        name = series.split("{")[0]
        family = name if name in types else re.sub("_(bucket|sum|count)$", "", name)
        if types[family] == "histogram" and name.endswith("_bucket"):
            assert value <= samples[family + "_count"], series
        elif value and (types[family] == "counter" or name == family + "_count") and family not in (
                "blufio_commit_seconds", "process_cpu_seconds_total", "blufio_prompt_overhead_tokens_total") and not family.startswith("blufio_gateway_"):
            series = name if "tier=" in series else series      # of all tiers together
            out[series] = round(out.get(series, 0) + value, 9)
    return out


class Day:
    """What is known from outside: by the fakes, and by the clients of gateway and terminal."""

    def __init__(self, w):
        self.w, self.seen = w, Counter()
        # a new process counts from 0
        self.begin = len(w.ai.requests), len(w.ai.billing), w.b.query("SELECT count(*) FROM cost_ledger")[0][0]
        with w.tg.lock:
            self.log = len(w.tg.log)

    def add(self, name, n=1, **labels):
        self.seen["blufio_" + name + ("{%s}" % ",".join('%s="%s"' % x for x in labels.items()) if labels else "")] += n

    def telegram(self, text, outcome="answered", user=OWNER, sent=1):
        """A message there; None: a word that no turn answers."""
        with self.w.tg.lock:
            self.w.tg.send_text(user, text)
        self.w.wait(lambda: self.w.settled() and self.w.quiet(user), "peace")
        self.over(outcome, sent)

    def gateway(self, text, outcome="answered", headers=None, **more):
        self.add("messages_total", channel="gateway")
        r = self.w.g.ask("POST", "/v1/messages", dict({"content": text}, **more), headers)
        assert r.status == 200, r
        self.over(outcome)
        return r.json() if headers is None else r

    def over(self, outcome, sent=1):
        if outcome:
            self.add("turns_total", outcome=outcome)
        self.add("deliveries_total", sent, result="sent")
        self.add("response_latency_seconds_count", sent if outcome else 0)

    def told(self):
        """Those of the clients, and those of the fakes."""
        out = Counter(self.seen)
        with self.w.tg.lock:
            out['blufio_messages_total{channel="telegram"}'] += len([
                m for m in self.w.tg.log[self.log:] if not m["bot"] and m["chat_id"] != STRANGER])
        with self.w.ai.lock:
            requests, billing = self.w.ai.requests[self.begin[0]:], self.w.ai.billing[self.begin[1]:]
        self.seen, mine = out, self.seen
        for r in requests:
            gone = r["fault"] is None and not r["complete"]     # nobody read it to its end
            name = "cancelled" if gone else CLASSES[r["fault"]]
            self.add("model_calls_total", **{"class": name})
            self.add("model_call_seconds_count", not gone)
            self.add("errors_total", not gone and name != "ok", **{"class": "model"})
        used = []
        for b in billing:
            u = b["usage"]
            self.add("first_token_seconds_count", u["output_tokens"] > 0)
            if b["completed"]:
                self.add("prompts_total", self.w.ai.cost(b) > 0)        # what is refused before a word is not billed
                used.append((b["model"], self.w.ai.cost(b), u["input_tokens"], u["output_tokens"], u["cache_read_input_tokens"],
                             u["cache_creation_input_tokens"]))
        # what a call that was cut has cost the ledger estimates, and not too low
        cut = self.w.b.query("SELECT model, nano_usd, input, output, cache_read, write_5m + write_1h FROM cost_ledger WHERE"
                             " estimated AND id > ?1", self.begin[2])
        bills = [self.w.ai.cost(b) for b in billing if not b["completed"]]
        assert len(cut) == len(bills) and sum(r[1] for r in cut) >= sum(bills), (cut, bills)
        for model, cost, *tokens in used + cut:
            self.add("cost_dollars_total", cost, model=model)
            for kind, n in zip(("input", "output", "cache_read", "cache_write"), tokens):
                self.add("tokens_total", n, model=model, kind=kind)
        for r in requests:
            newest = r["body"]["messages"][-1]["content"]
            results = [b for b in newest if b["type"] == "tool_result"] if isinstance(newest, list) else []
            again = r["fault"] is None and len([x for x in requests if x["body"]["messages"] == r["body"]["messages"]]) > 1
            self.add("tool_seconds_count", 0 if again else len([b for b in results if not b.get("is_error")]))
            self.add("errors_total", 0 if again else len([b for b in results if b.get("is_error")]), **{"class": "tool"})
        self.seen, out = mine, self.seen
        return {k: round(v / 1e9, 9) if "dollars" in k else v for k, v in out.items() if v}

    def compare(self):
        self.w.wait(lambda: not self.w.b.query("SELECT 1 FROM turns WHERE state < 5 UNION ALL SELECT 1 FROM outbox WHERE state < 2"),
                    "all done")
        want, have = self.told(), counted(self.w)
        assert want == have, {k: (want.get(k), have.get(k)) for k in set(want) | set(have) if want.get(k) != have.get(k)}
        samples = page(self.w)[0]
        assert samples["blufio_active_sessions"] == sum(v for k, v in samples.items() if k.startswith("blufio_queue{")) == 0
        assert samples["blufio_commit_seconds_count"] >= want.get('blufio_turns_total{outcome="answered"}', 0)
        return want


def test_a_day_in_figures():
    with world({"telegram": {"allowed_users": [OWNER, SECOND, BLOCKED]}}) as w:
        for user in (SECOND, BLOCKED, STRANGER):
            w.tg.add_chat(user)
        w.tg.block(BLOCKED)
        w.tg.expect_refusal("bot was blocked by the user")
        day = Day(w)
        # Telegram: tools, thinking, words that no model hears, a stranger, somebody who blocks the bot
        for text in ("say one", "think tools", "words 1500"):
            day.telegram(text)
        day.telegram("/help", None)
        day.telegram("say anew", user=SECOND)
        w.tg.send_text(STRANGER, "hello?")
        w.wait(lambda: w.tg.texts(STRANGER), "the offer")
        day.over(None)
        day.telegram("say nobody hears", user=BLOCKED, sent=0)
        day.add("deliveries_total", result="failed")
        day.add("errors_total", **{"class": "delivery"})
        w.tg.fail_next("sendRichMessage", "500")
        day.telegram("say twice")
        day.add("deliveries_total", result="retried")
        # the gateway: repeats do not count; another model; a stream; a socket; a tool that is asked for
        first = day.gateway("think tools")
        one = day.gateway("say two", headers={"Idempotency-Key": "k"}).json()
        assert w.g.ask("POST", "/v1/messages", {"content": "say two"}, {"Idempotency-Key": "k"}).json() == one
        day.gateway("/model haiku", None, session_id=first["session_id"])
        day.gateway("say three", session_id=first["session_id"])
        assert b"message_stop" in day.gateway("words 300", headers=SSE).body
        with Socket(w.g.port) as s:
            s.send({"type": "message", "content": "tool text_count {\"text\": 3}"})
            s.until("done")
        day.add("messages_total", channel="gateway")
        day.over("answered")
        assert w.g.ask("POST", "/v1/tools/invoke", {"name": "time.now"}).status == 200
        day.add("tool_seconds_count")
        # the terminal
        code, out, err = w.b.cli("shell", input="say four\n/help\ntools\n")
        assert code == 0 and out.startswith("four\n"), (out, err)
        day.add("messages_total", 3, channel="shell")
        for outcome in ("answered", None, "answered"):
            day.over(outcome)
        # what goes wrong at the model's
        w.ai.fail_next("529", n=2)
        day.telegram("say overloaded")
        for fault in ("401", "402", "404", "413", "400"):
            w.ai.fail_next(fault, **({"type": "billing_error"} if fault == "402" else {}))
            day.gateway("say " + fault, "failed")
        w.ai.fail_next("signature")
        day.gateway("say unsigned", session_id=first["session_id"])
        w.ai.fail_next("refusal")
        day.gateway("say refused", "refused")
        # and no money for more
        w.b.configure(cost={"daily_budget_usd": 0.0001})
        assert w.b.cli("reload")[0] == 0
        day.telegram("say poor", "no_budget")
        w.b.configure(cost={"daily_budget_usd": 5})
        assert w.b.cli("reload")[0] == 0
        want = day.compare()
        assert {k for k in want if "model_calls" in k} == {'blufio_model_calls_total{class="%s"}' % c for c in CLASSES.values()}
        assert any(HAIKU in k for k in want)


def test_what_is_cut_short_in_figures():
    """Streams that break, answers that are stopped, a death: what is lost is estimated, and a start begins at 0."""
    with world() as w:
        day = Day(w)
        for fault, more in (("fin", {"k": 2}), ("error_event", {"k": 1})):
            w.ai.fail_next(fault, **more)
            day.gateway("say this comes in two parts and more")
        for stop in (lambda id_: w.g.ask("POST", "/v1/sessions/%s/stop" % id_), lambda id_: w.g.say("/stop", id_)):
            gate = held(w)
            with w.g.stream("say this is never finished") as s:
                next(s)
                stop(w.b.query("SELECT CAST(max(id) AS TEXT) FROM sessions")[0][0])
                s.until("message_stop")
            release(w, gate)
            day.add("messages_total", channel="gateway")
            day.over("stopped")
        day.add("messages_total", channel="gateway")            # the word; it has no answer of its own
        day.compare()
        # killed in mid-answer: what comes then belongs to the next process, the lost call's estimate too
        gate, before = held(w), w.b.query("SELECT count(*) FROM cost_ledger")[0][0]
        with w.g.stream("say after the night") as s:
            next(s)
            w.b.kill9()
        release(w, gate)
        w.b.start()
        w.wait(lambda: not w.b.query("SELECT 1 FROM turns WHERE state < 5"), "the answer")
        have = counted(w)
        booked = w.b.query("SELECT sum(input), sum(nano_usd), count(*), sum(estimated) FROM cost_ledger WHERE id > ?1", before)[0]
        assert booked[2:] == (2, 1), booked
        model = w.ai.billing[-1]["model"]
        assert have['blufio_tokens_total{model="%s",kind="input"}' % model] == booked[0], (have, booked)
        assert have['blufio_cost_dollars_total{model="%s"}' % model] == round(booked[1] / 1e9, 9), (have, booked)
        assert {k: v for k, v in have.items() if "{model" not in k} == {
            'blufio_turns_total{outcome="answered"}': 1, 'blufio_deliveries_total{result="sent"}': 1,
            'blufio_response_latency_seconds_count': 1, 'blufio_model_calls_total{class="ok"}': 1,
            'blufio_model_call_seconds_count': 1, 'blufio_first_token_seconds_count': 1, 'blufio_prompts_total': 1}, have


if __name__ == "__main__":
    main(globals())
