#!/usr/bin/env python3
"""The `openai` package, unchanged, against the real server."""
import asyncio
import math
import sys

import openai

import harness

harness.limit(240)
PROMPT = "Once upon a time"
KEY = "key-of-the-test"


def completion(**more):
    arguments = dict(model=harness.MODEL_NAME, prompt=PROMPT, max_tokens=8, temperature=0)
    return client.completions.create(**{**arguments, **more})


def test_completion():
    answer = completion()
    assert answer.object == "text_completion" and answer.model == harness.MODEL_NAME
    assert answer.choices[0].text and answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8
    assert completion().choices[0].text == answer.choices[0].text  # greedy
    ids = completion(prompt=[5, 6, 7]).usage
    assert ids.prompt_tokens == 3, ids
    batch = completion(prompt=[PROMPT, "It was"], n=2, temperature=1, seed=7).choices
    assert [c.index for c in batch] == [0, 1, 2, 3]
    assert completion(echo=True).choices[0].text == PROMPT + answer.choices[0].text


def test_stream():
    whole = completion()
    chunks = list(completion(stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"


def test_logprobs():
    logprobs = completion(logprobs=3).choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 8
    for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs):
        assert logprob <= 0 and top[token] == max(top.values()), (token, top)  # greedy takes the best
        assert sum(math.exp(v) for v in top.values()) <= 1.0001


def test_stop_and_extra_parameters():
    text = completion(max_tokens=30).choices[0].text
    word = text.split()[3]
    stopped = completion(max_tokens=30, stop=[word]).choices[0]
    assert stopped.finish_reason == "stop" and stopped.text == text[:text.index(word)]
    answer = completion(extra_body={"top_k": 1, "return_token_ids": True, "ignore_eos": True, "min_tokens": 8})
    assert len(answer.choices[0].token_ids) == 8


def test_chat():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}]
    arguments = dict(model=harness.MODEL_NAME, messages=messages, max_tokens=12, temperature=0)
    answer = client.chat.completions.create(**arguments)
    assert answer.object == "chat.completion" and answer.choices[0].message.role == "assistant"
    chunks = list(client.chat.completions.create(stream=True, **arguments))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == answer.choices[0].message.content
    scored = client.chat.completions.create(logprobs=True, top_logprobs=2, **arguments)
    assert len(scored.choices[0].logprobs.content) == scored.usage.completion_tokens


def test_models():
    assert [m.id for m in client.models.list()] == [harness.MODEL_NAME]
    assert client.models.retrieve(harness.MODEL_NAME).id == harness.MODEL_NAME


def expect(error, call):
    try:
        call()
    except error as e:
        return e
    raise AssertionError(f"no {error.__name__}")


def test_errors():
    bad = expect(openai.BadRequestError, lambda: completion(temperature=-1))
    assert "temperature" in str(bad) and bad.param == "temperature"
    expect(openai.NotFoundError, lambda: completion(model="no-such-model"))
    stranger = openai.OpenAI(base_url=server.base_url, api_key="wrong", max_retries=0)
    expect(openai.AuthenticationError, stranger.models.list)
    huge = expect(openai.APIStatusError, lambda: completion(prompt="x" * (8 << 20)))
    assert huge.status_code == 413


def test_fifty_at_once():
    async def run():
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY, timeout=120) as many:
            async def one(i):
                stream = await many.completions.create(model=harness.MODEL_NAME, prompt=PROMPT, max_tokens=16,
                                                       temperature=0.8, seed=i, stream=True)
                return "".join([c.choices[0].text async for c in stream])
            return await asyncio.gather(*[one(i) for i in range(50)])
    texts = asyncio.run(run())
    assert len(texts) == 50 and all(texts)
    # What a request gets does not depend on who else is there.
    assert texts[3] == completion(max_tokens=16, temperature=0.8, seed=3).choices[0].text


with harness.Server(sys.argv[1], "--http-api-key", KEY) as server:
    client = openai.OpenAI(base_url=server.base_url, api_key=KEY, max_retries=0, timeout=60)
    harness.run_tests(globals())
