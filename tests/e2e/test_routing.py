# SPDX-License-Identifier: MIT OR Apache-2.0
"""Which model answers: by the message, the caches and the money; what a person chooses goes before all of it."""

from harness import World, main

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"


def world(**sections):
    sections.setdefault("routing", {"enabled": True})
    sections.setdefault("cost", {"daily_budget_usd": 20})
    return World(sections)


def models(w):
    return [r["body"]["model"] for r in w.ai.requests]


def test_by_the_message():
    with world() as w:
        for text, model in (("hi", HAIKU), ("What time is it?", HAIKU),
                            ("Prove Fermat's last theorem.", OPUS)):
            w.say("/new")
            w.say(text)
            assert models(w)[-1] == model, (text, models(w)[-1])
            assert model in w.say("/why")
        assert "a proof" in w.say("/why")
        ledger = w.b.query("SELECT model, intended FROM cost_ledger ORDER BY id")
        assert ledger == [(HAIKU, HAIKU), (HAIKU, HAIKU), (OPUS, OPUS)]


def test_a_warm_cache_is_kept():
    """After a letter a simple word stays where the conversation is cached, when that is cheaper; the ledger has both
    names."""
    with world(agent={"system_prompt": "You are a test. " * 6000}) as w:
        w.say("Write a friendly letter to my neighbour about the noise.")
        w.say("thanks")
        assert models(w) == [SONNET, SONNET]
        assert w.b.query("SELECT model, intended FROM cost_ledger ORDER BY id")[-1] == (SONNET, HAIKU)
        assert "kept while its cache is warm" in w.say("/why")
        # a tool round stays with its model
        w.say("/new")
        w.say("tools")
        assert len(set(models(w)[2:])) == 1


def test_a_person_chooses():
    with world() as w:
        w.say("/opus")
        w.say("hi")
        assert models(w)[-1] == OPUS
        w.say("/haiku")
        w.say("Prove Fermat's last theorem.")
        assert models(w)[-1] == HAIKU
        w.say("/model default")
        w.say("/new")
        w.say("Prove Fermat's last theorem.")
        assert models(w)[-1] == OPUS
    with world(routing={"enabled": True, "force_model": SONNET}) as w:
        w.say("hi")
        assert models(w) == [SONNET]
    with world(routing={"enabled": False}) as w:
        w.say("hi")
        assert models(w) == [SONNET]


def test_little_money_left():
    """What does not fit for the large model goes to a smaller one, with a note once a day; intended and actual are booked."""
    with world(cost={"daily_budget_usd": 0.015}) as w:
        text = w.say("Prove Fermat's last theorem.")
        assert models(w)[-1] != OPUS and "Little of the budget is left" in text, (models(w), text)
        assert w.b.query("SELECT intended FROM cost_ledger") == [(OPUS,)]
        w.say("/new")
        assert "Little of the budget" not in w.say("Prove Fermat's last theorem.")


def test_thinking_does_not_cross_models():
    with world() as w:
        w.say("/opus")
        w.say("think one")
        w.say("/haiku")
        w.say("say two")
        w.say("/opus")
        w.say("say three")


if __name__ == "__main__":
    main(globals())
