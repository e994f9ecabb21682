"""The official Python SDK through the gateway to the embedded engine."""

import urllib.request
from collections.abc import Iterator

import openai
import pytest

from conftest import until

PROGRAM = [{"role": "user", "content": "L2 iron 1 6 : L1 jay iron iron : Q1 iron Q2 jay"}]


@pytest.fixture
def client(servers: dict[str, str]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{servers['engine_gateway']}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def test_chat_whole_and_streamed_are_the_same(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="crystal-mini", messages=PROGRAM, temperature=0, max_tokens=300)
    message = completion.choices[0].message
    assert message.content and "Q1 iron" in message.content
    assert completion.choices[0].finish_reason == "stop"
    text = reasoning = ""
    for chunk in client.chat.completions.create(
        model="crystal-mini", messages=PROGRAM, temperature=0, max_tokens=300, stream=True
    ):
        text += chunk.choices[0].delta.content or ""
        reasoning += getattr(chunk.choices[0].delta, "reasoning", None) or ""
    assert (text, reasoning) == (message.content, message.reasoning)


def test_completions(client: openai.OpenAI) -> None:
    completion = client.completions.create(model="crystal-mini", prompt="L2 iron 1 6", max_tokens=5, temperature=0)
    assert completion.usage and completion.usage.completion_tokens == 5
    stream = client.completions.create(
        model="crystal-mini", prompt="L2 iron 1 6", max_tokens=5, temperature=0, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == completion.choices[0].text


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["crystal-mini"]
    assert client.models.retrieve("crystal-mini").id == "crystal-mini"


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="nope"):
        client.chat.completions.create(model="nope", messages=PROGRAM)
    with pytest.raises(openai.NotFoundError, match="nope"):
        client.models.retrieve("nope")
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="crystal-mini", messages=PROGRAM, temperature=-1)


def test_leaving_frees_the_engine(client: openai.OpenAI, servers: dict[str, str]) -> None:
    def metric(name: str) -> float:
        with urllib.request.urlopen(f"{servers['engine']}/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    stream = client.chat.completions.create(
        model="crystal-mini", messages=PROGRAM, max_tokens=1900, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    assert metric("vllm:num_requests_running") == 1
    assert metric("vllm:kv_cache_usage_perc") > 0
    stream.close()
    until(lambda: metric("vllm:num_requests_running") == 0, "the engine is idle")
    until(lambda: metric("vllm:kv_cache_usage_perc") == 0, "the blocks are free")
