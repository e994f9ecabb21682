"""Writes what vLLM's own classes read in request bodies that no two readers should understand differently.

    python vllm-plugin/tests/record_request_bodies.py

The gateway's test holds its own reader against the file; a test here holds the file against the installed vLLM.
"""

import json
import random
from pathlib import Path
from typing import Any

PATH = Path(__file__).resolve().parents[2] / "test" / "gateway" / "vllm-bodies.json"
BODIES = 2000
SEED = 16

#: Values of flags and of counts as they stand in JSON: what pydantic takes for one, and what it refuses.
FLAGS = ["true", "false", "null", "1", "0", "1.0", "0.0", "2", '"true"', '"TRUE"', '"yes"', '"on"', '"y"', '"t"', '"1"']
FLAGS += ['"false"', '"no"', '"off"', '"n"', '"f"', '"0"', '" true"', '""', "[]", "{}", '"\\u0074rue"']
COUNTS = [
    "1",
    "7",
    "16",
    "250",
    "4096",
    "7.0",
    "2.5e2",
    "1e3",
    "1.5",
    "true",
    "null",
    '"7"',
    '" 250 "',
    '"+16"',
    '"7.0"',
]
COUNTS += [
    '"1_000"',
    '"007"',
    '"\\u0037"',
    '"1e3"',
    '"many"',
    '""',
    "[]",
    '"\\u00a07"',
    "1E2",
    '"4096.000"',
    '"-0"',
    "0",
]
PROMPTS = ['"a"', '["a","b"]', "[1,2,3]", "[[1],[2,3]]", '["a, [b","]",""]', "[[1,2]]", '"[1,2]"', '["a"]', '["1","2"]']
OPTIONS = ["{}", "null", '{"x":1}', '"no"', "[]"]
CHAT = '[{"role":"user","content":"a, [b"},{"role":"user","content":"c"}]'


def make_bodies() -> list[dict[str, str]]:
    """Path and body of each, always the same ones."""
    pick = random.Random(SEED)
    return [make_body(pick) for _ in range(BODIES)]


def make_body(pick: random.Random) -> dict[str, str]:
    path = pick.choice(["/v1/chat/completions", "/v1/completions", "/v1/messages"])
    members = ['"model":"m"']
    members.append('"prompt":' + pick.choice(PROMPTS) if path == "/v1/completions" else '"messages":' + CHAT)
    for name in ("max_tokens", "max_completion_tokens", "n"):
        for _ in range(pick.choice([0, 0, 1, 1, 1, 2]) if name != "n" else pick.choice([0, 1])):
            members.append(f'"{name}":{pick.choice(COUNTS)}')
    for _ in range(pick.choice([0, 1, 1, 2])):
        members.append(f'"stream":{pick.choice(FLAGS)}')
    if pick.random() < 0.4:
        options = pick.choice(OPTIONS)
        if pick.random() < 0.6:
            named = pick.choices(["include_usage", "continuous_usage_stats"], k=pick.choice([1, 2]))
            options = "{" + ",".join(f'"{name}":{pick.choice(FLAGS)}' for name in named) + "}"
        members.append(f'"stream_options":{options}')
    pick.shuffle(members)
    return {"path": path, "body": "{" + ",".join(members) + "}"}


def what_vllm_reads(path: str, body: str) -> dict[str, Any] | None:
    """None: it refuses the body."""
    from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    request: Any
    try:
        data = json.loads(body)
        if path == "/v1/messages":
            request = AnthropicMessagesRequest.model_validate(data)
            return read(bool(request.stream), 1, 1, request.max_tokens, usage=True)
        if path == "/v1/completions":
            request = CompletionRequest.model_validate(data)
            prompts = len(request.prompt) if isinstance(request.prompt, list) and is_batch(request.prompt) else 1
            return read(
                bool(request.stream), request.n, prompts, request.max_tokens, usage=asks(request.stream_options)
            )
        request = ChatCompletionRequest.model_validate(data)
        most = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
        return read(bool(request.stream), request.n or 1, 1, most, usage=asks(request.stream_options))
    except Exception:  # whatever it is, the server answers with an error
        return None


def is_batch(prompt: list[Any]) -> bool:
    return bool(prompt) and not isinstance(prompt[0], int)


def asks(options: Any) -> bool:
    return options is not None and bool(options.include_usage)


def read(stream: bool, n: int, prompts: int, most: int | None, *, usage: bool) -> dict[str, Any]:
    return {"stream": stream, "n": n, "prompts": prompts, "max_tokens": most, "usage": usage}


def record() -> list[dict[str, Any]]:
    return [{**one, "read": what_vllm_reads(**one)} for one in make_bodies()]


def as_text(records: list[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(json.dumps(one, ensure_ascii=True) for one in records) + "\n]\n"


if __name__ == "__main__":
    PATH.write_text(as_text(record()))
