"""The official Python SDK through the gateway to what a real vLLM answered."""

import threading
from collections.abc import Callable, Iterator

import openai
import pytest
from pydantic import BaseModel

from conftest import until

MESSAGES = [{"role": "user", "content": "hello"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
    },
}


class Answer(BaseModel):
    """What the model is asked to answer in."""

    city: str
    degrees: int


@pytest.fixture
def client(gateway: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


def test_chat_with_reasoning_and_request_id(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="crystal-mini",
        messages=MESSAGES,
        extra_body={"crystal_kv": {"budget_tokens": 256}, "top_k": 5, "vllm_xargs": {"mine": 1}},
    )
    message = completion.choices[0].message
    assert message.content == " Q1 iron =2 Q2 jay =4"
    assert message.reasoning.startswith(" L3 iron 1 1")
    assert completion.usage and completion.usage.completion_tokens == 58
    assert completion._request_id and completion._request_id.startswith("req-")


def test_raw_response_has_the_gateways_headers(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="demo", messages=MESSAGES, extra_headers={"x-request-id": "mine-1"}
    )
    assert raw.headers["x-request-id"] == "mine-1"
    assert raw.headers["x-crystalkv-id"].startswith("ckv-")
    assert raw.parse().choices


def test_logprobs_and_token_ids(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="demo", messages=MESSAGES, logprobs=True, top_logprobs=2, extra_body={"return_token_ids": True}
    )
    logprobs = completion.choices[0].logprobs
    assert logprobs and logprobs.content
    assert logprobs.content[0].logprob == -0.38836878538131714
    assert [top.token for top in logprobs.content[0].top_logprobs] == ["L3", "L5"]
    assert completion.choices[0].token_ids


def test_stream_with_usage(client: openai.OpenAI) -> None:
    text = reasoning = ""
    usage = None
    for chunk in client.chat.completions.create(
        model="demo", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reasoning += getattr(choice.delta, "reasoning", None) or ""
    assert text == " Q1 iron =2 Q2 jay =4"
    assert reasoning.startswith(" L3 iron 1 1")
    assert usage and usage.completion_tokens == 58


def test_stream_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="demo", messages=MESSAGES) as stream:
        kinds = [event.type for event in stream]
        # The recorded answer ended at max_tokens, which the helper reports as an error that holds the answer.
        with pytest.raises(openai.LengthFinishReasonError) as length:
            stream.get_final_completion()
    assert "chunk" in kinds
    choice = length.value.completion.choices[0]
    assert choice.finish_reason == "length"
    assert choice.message.role == "assistant"


def test_tools(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="demo", messages=MESSAGES, tools=[TOOL], tool_choice="required")
    calls = completion.choices[0].message.tool_calls
    assert calls and [call.function.name for call in calls] == ["get_weather"] * 3
    assert len({call.id for call in calls}) == 3
    named = {"type": "function", "function": {"name": "get_weather"}}
    completion = client.chat.completions.create(model="demo", messages=MESSAGES, tools=[TOOL], tool_choice=named)
    assert completion.choices[0].message.tool_calls


def test_tools_streamed_by_the_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="demo", messages=MESSAGES, tools=[TOOL], tool_choice="required"
    ) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls and len(calls) == len(done) == 3
    assert [call.function.arguments for call in calls] == [event.arguments for event in done]
    assert len({call.id for call in calls}) == len(calls)


def test_structured_outputs(client: openai.OpenAI) -> None:
    completion = client.chat.completions.parse(model="demo", messages=MESSAGES, response_format=Answer)
    answer = completion.choices[0].message.parsed
    assert isinstance(answer, Answer) and answer.city in ("Paris", "San Francisco")
    with client.chat.completions.stream(model="demo", messages=MESSAGES, response_format=Answer) as stream:
        for _ in stream:
            pass
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert isinstance(parsed, Answer)


def test_completions(client: openai.OpenAI) -> None:
    assert client.completions.create(model="demo", prompt="dog").choices[0].text == " dog dog dog dog dog"
    stream = client.completions.create(model="demo", prompt="dog", stream=True)
    assert "".join(part.choices[0].text for part in stream if part.choices) == " dog dog dog dog dog"


def test_responses(client: openai.OpenAI) -> None:
    response = client.responses.create(model="demo", input="hello")
    assert response.id.startswith("resp_") and response.output
    kinds = [event.type for event in client.responses.create(model="demo", input="hello", stream=True)]
    assert kinds[0] == "response.created" and kinds[-1] in ("response.completed", "response.incomplete")


def test_embeddings(client: openai.OpenAI) -> None:
    # The SDK asks for base64 by itself and decodes it; this model was recorded with floats.
    embedding = client.embeddings.create(model="demo", input="dog", encoding_format="float").data[0].embedding
    assert len(embedding) == 128 and all(isinstance(value, float) for value in embedding)


def test_models(client: openai.OpenAI) -> None:
    assert "crystal-mini" in [model.id for model in client.models.list()]


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nope", messages=MESSAGES)
    assert "The model `nope` does not exist" in str(missing.value)
    with pytest.raises(openai.BadRequestError) as value:
        client.chat.completions.create(model="demo", messages=MESSAGES, temperature=-1)
    assert value.value.body["param"] == "temperature"
    with pytest.raises(openai.BadRequestError) as option:
        client.chat.completions.create(model="demo", messages=MESSAGES, extra_body={"crystal_kv": {"mode": "on"}})
    assert option.value.body["type"] == "gateway_invalid_option"
    assert option.value.request_id
    with pytest.raises(openai.RateLimitError) as busy:
        client.chat.completions.create(model="busy", messages=MESSAGES)
    assert busy.value.response.headers["retry-after"] == "7"


def test_a_stream_that_breaks_is_an_error(client: openai.OpenAI) -> None:
    parts = 0
    with pytest.raises(openai.APIError) as broken:
        for _ in client.chat.completions.create(model="breaks", messages=MESSAGES, stream=True):
            parts += 1
    assert parts == 3
    assert broken.value.type == "gateway_upstream_broken"
    with pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(model="breaks", messages=MESSAGES)


def test_leaving_a_stream_aborts_the_backend(client: openai.OpenAI, aborts: Callable[[], int]) -> None:
    before = aborts()
    stream = client.chat.completions.create(model="slow", messages=MESSAGES, stream=True)
    next(iter(stream))
    assert aborts() == before
    stream.close()
    until(lambda: aborts() == before + 1, "the backend sees it")


def test_a_timeout_aborts_the_backend(client: openai.OpenAI, aborts: Callable[[], int]) -> None:
    before = aborts()
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="hangs", messages=MESSAGES, timeout=0.5)
    until(lambda: aborts() == before + 1, "the backend sees it")


def test_many_at_once(client: openai.OpenAI) -> None:
    texts: list[str | None] = []

    def ask() -> None:
        completion = client.chat.completions.create(model="demo", messages=MESSAGES)
        texts.append(completion.choices[0].message.content)

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert texts == [" Q1 iron =2 Q2 jay =4"] * 32
