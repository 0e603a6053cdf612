# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_openai_sdk.py - the OpenAI API as its own clients use it: Python's package openai, and npm's."""
import base64
import json
import os
import subprocess
import threading

from clients import FOLDER, module, program
from fake_anthropic import tool_answer
from harness import SLOW, main
from test_gateway import held, release
from test_openai import MODEL, TOKEN, count, data_url, picture, world

WEATHER = {"name": "weather", "description": "Looks outside.", "parameters": {
    "type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"], "additionalProperties": False}}


def client(w, **more):
    os.environ["NO_PROXY"] = "*"
    options = dict({"api_key": TOKEN, "base_url": "http://127.0.0.1:%d/v1" % w.g.port, "timeout": 60 * SLOW}, **more)
    return module("openai").OpenAI(**options)


def test_python_chat():
    module("openai")
    with world() as w:
        c = client(w)
        ids = [m.id for m in c.models.list()]
        assert ids[0] == "blufio" and MODEL in ids and c.models.retrieve(MODEL).id == MODEL
        history = []
        for text, answer in (("say one", "one"), ("think say two", "two"), ("echo history", "You wrote: say one | think say two")):
            history.append({"role": "user", "content": text})
            done = c.chat.completions.create(model="blufio", messages=history)
            assert done.choices[0].message.content == answer and done.choices[0].finish_reason == "stop"
            history.append(done.choices[0].message.model_dump(exclude_none=True))
        assert count(w, "sessions") == 1 and done.usage.total_tokens > 0
        for model in ("blufio", MODEL):
            text, usage = "", None
            with c.chat.completions.create(model=model, messages=[{"role": "user", "content": "words 60"}], stream=True,
                                           stream_options={"include_usage": True}) as s:
                for chunk in s:
                    usage = chunk.usage or usage
                    text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            assert text == " ".join("w%d" % (i + 1) for i in range(60)) and usage.prompt_tokens > 0
        # its own helper puts a stream together
        with c.chat.completions.stream(model="blufio", messages=[{"role": "user", "content": "words 50"}]) as s:
            for _ in s:
                pass
            assert s.get_final_completion().choices[0].message.content.endswith("w50")
        part = {"type": "image_url", "image_url": {"url": data_url(picture())}}
        done = c.chat.completions.create(model="blufio", messages=[{"role": "user", "content": [{"type": "text", "text": "say seen"}, part]}])
        assert done.choices[0].message.content == "seen"
        assert base64.b64decode(w.ai.requests[-1]["body"]["messages"][0]["content"][0]["source"]["data"]) == picture()


def test_python_tools():
    openai = module("openai")
    tools = [{"type": "function", "function": dict(WEATHER, strict=True)}]
    with world() as w:
        c = client(w)
        w.ai.script = [tool_answer([("weather", {"town": "Bern"}), ("time_now", {})], say="Looking."), None] * 2
        for stream in (False, True):
            history = [{"role": "user", "content": "Take an umbrella? %s" % stream}]
            if stream:
                with c.chat.completions.stream(model="blufio", messages=history, tools=tools) as s:
                    for _ in s:
                        pass
                    message = s.get_final_completion().choices[0].message
            else:
                message = c.chat.completions.create(model="blufio", messages=history, tools=tools).choices[0].message
            assert message.content == "Looking." and len(message.tool_calls) == 1
            call = message.tool_calls[0]
            assert call.function.name == "weather" and json.loads(call.function.arguments) == {"town": "Bern"}
            w.b.restart(hard=True)
            c = client(w)
            history += [message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
            done = c.chat.completions.create(model="blufio", messages=history, tools=tools)
            assert done.choices[0].message.content.startswith("Tool results: rain; "), done
        assert count(w, "sessions") == 2 and openai.VERSION


def test_python_typed_answers():
    openai, pydantic = module("openai"), module("pydantic")

    class Answer(pydantic.BaseModel):
        a: int

    with world() as w:
        w.ai.script = ['{"a": 5}'] * 3
        c = client(w)
        for model in ("blufio", MODEL):
            done = c.chat.completions.parse(model=model, messages=[{"role": "user", "content": "go"}], response_format=Answer)
            assert done.choices[0].message.parsed == Answer(a=5)
            schema = w.ai.requests[-1]["body"]["output_config"]["format"]["schema"]
            assert schema["additionalProperties"] is False and schema["required"] == ["a"]
        assert c.responses.parse(model=MODEL, input="go", text_format=Answer).output_parsed == Answer(a=5) and openai


def test_python_responses():
    module("openai")
    with world() as w:
        c = client(w)
        one = c.responses.create(model="blufio", input="say one", instructions="Be kind.")
        assert one.output_text == "one" and one.status == "completed"
        two = c.responses.create(model="blufio", input="echo history", previous_response_id=one.id)
        assert two.output_text == "You wrote: say one" and count(w, "sessions") == 1
        text, kinds = "", []
        for event in c.responses.create(model="blufio", input="words 60", stream=True):
            kinds.append(event.type)
            text += event.delta if event.type == "response.output_text.delta" else ""
        assert text.endswith("w60") and kinds[0] == "response.created" and kinds[-1] == "response.completed"
        with c.responses.stream(model="blufio", input="words 40") as s:
            for _ in s:
                pass
            assert s.get_final_response().output_text.endswith("w40")
        w.ai.script = [tool_answer([("weather", {"town": "Bern"})]), None]
        tools = [dict(WEATHER, type="function", strict=True)]
        with c.responses.stream(model="blufio", input="go", tools=tools) as s:
            for _ in s:
                pass
            first = s.get_final_response()
        call = first.output[0]
        assert call.type == "function_call" and json.loads(call.arguments) == {"town": "Bern"}
        done = c.responses.create(model="blufio", tools=tools, previous_response_id=first.id, input=[
            {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}])
        assert done.output_text == "Tool results: rain"


def test_python_errors_and_retries():
    openai = module("openai")

    def fails(kind, act):
        try:
            act()
        except kind as e:
            return e
        raise AssertionError("no %s" % kind.__name__)
    ask = {"model": "blufio", "messages": [{"role": "user", "content": "say x"}]}
    with world({"cost": {"daily_budget_usd": 1}}) as w:
        c = client(w, max_retries=0)
        e = fails(openai.AuthenticationError, lambda: client(w, api_key="wrong").chat.completions.create(**ask))
        assert e.code == "invalid_api_key" and e.request_id
        e = fails(openai.NotFoundError, lambda: c.chat.completions.create(**dict(ask, model="gpt-4o")))
        assert e.code == "model_not_found" and e.param == "model"
        e = fails(openai.BadRequestError, lambda: c.chat.completions.create(**dict(ask, n=2)))
        assert e.param == "n"
        w.ai.fail_next("529")
        fails(openai.InternalServerError, lambda: c.chat.completions.create(**dict(ask, model=MODEL)))
        w.ai.fail_next("529", n=2)
        done = client(w, max_retries=2).chat.completions.create(**dict(ask, model=MODEL))       # its own patience
        assert done.choices[0].message.content == "x"
        w.ai.piece = 3
        w.ai.fail_next("error_event", k=2)
        e = fails(openai.APIError, lambda: list(c.chat.completions.create(stream=True, model=MODEL, messages=[
            {"role": "user", "content": "say alpha beta gamma"}])))
        assert e.code == "overloaded"
        # a client that gives up and asks again gets the one answer
        w.ai.piece = None
        n = len(w.ai.requests)
        gate = held(w)
        patient = client(w, max_retries=5, timeout=1.0 * SLOW)
        threading.Timer(2.5 * SLOW, lambda: release(w, gate)).start()
        done = patient.chat.completions.create(model="blufio", messages=[{"role": "user", "content": "say alpha beta gamma"}])
        assert done.choices[0].message.content == "alpha beta gamma" and len(w.ai.requests) == n + 1
        w.b.configure(cost={"daily_budget_usd": 0.0001})
        assert w.b.cli("reload")[0] == 0
        e = fails(openai.RateLimitError, lambda: c.chat.completions.create(**ask))
        assert e.code == "insufficient_quota"


def test_node():
    """The same by npm's package: what it makes of answers, streams, calls and errors."""
    folder = os.path.join(FOLDER, "openai")
    if not os.path.exists(os.path.join(folder, "node_modules", "openai")):
        module("the package openai of npm")             # skips
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "openai.js")
    with world() as w:
        w.ai.script = lambda ask: tool_answer([("weather", {"town": "Bern"})], say="Looking.") \
            if ask.text.startswith("Take") and not ask.results else None
        done = subprocess.run([program("node"), script, "http://127.0.0.1:%d/v1" % w.g.port, TOKEN, MODEL], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=60 * SLOW,
                              env=dict(os.environ, NODE_PATH=os.path.join(folder, "node_modules")))
        assert done.returncode == 0, done
        out = json.loads(done.stdout.decode().splitlines()[-1])
        assert out["models"][0] == "blufio" and MODEL in out["models"]
        assert out["texts"] == ["one", "You wrote: say one"] and out["streamed"] == " ".join("w%d" % (i + 1) for i in range(60))
        assert out["usage"] > 0 and out["call"] == {"name": "weather", "arguments": {"town": "Bern"}}
        assert out["after"] == "Tool results: rain" and out["response"] == "one" and out["next"] == "You wrote: say one"
        assert out["events"][0] == "response.created" and out["events"][-1] == "response.completed"
        assert out["errors"] == [[401, "invalid_api_key"], [404, "model_not_found"], [400, "invalid_request"]]


if __name__ == "__main__":
    main(globals())
