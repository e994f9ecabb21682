"""The official Python SDK through the gateway to the embedded engine."""

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
    completion = client.completions.create(model="crystal-mini", prompt="L2 iron 1 6", max_tokens=5)
    assert completion.usage and completion.usage.completion_tokens == 5


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["crystal-mini"]


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nope", messages=PROGRAM)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="crystal-mini", messages=PROGRAM, temperature=-1)


def test_leaving_frees_the_engine(client: openai.OpenAI, servers: dict[str, str]) -> None:
    import urllib.request

    def running() -> float:
        with urllib.request.urlopen(f"{servers['engine']}/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running"))

    stream = client.chat.completions.create(
        model="crystal-mini", messages=PROGRAM, max_tokens=1900, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    assert running() == 1
    stream.close()
    until(lambda: running() == 0, "the engine is idle")
