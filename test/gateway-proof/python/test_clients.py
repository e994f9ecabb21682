"""Client libraries on top of the API, as docs/clients.md sets them up."""

import litellm
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

QUESTION = "hello"


def test_langchain(gateway: str) -> None:
    model = ChatOpenAI(
        base_url=f"{gateway}/v1",
        api_key="none",
        model="demo",
        max_retries=0,
        extra_body={"crystal_kv": {"profile": "crystal"}},
    )
    assert model.invoke(QUESTION).content == " Q1 iron =2 Q2 jay =4"
    parts = list(model.stream(QUESTION))
    assert len(parts) > 2


def test_langchain_embeddings(gateway: str) -> None:
    model = OpenAIEmbeddings(base_url=f"{gateway}/v1", api_key="none", model="demo", check_embedding_ctx_length=False)
    assert len(model.embed_query(QUESTION)) == 128


def test_litellm(gateway: str) -> None:
    answer = litellm.completion(
        model="openai/demo",
        api_base=f"{gateway}/v1",
        api_key="none",
        messages=[{"role": "user", "content": QUESTION}],
        extra_body={"crystal_kv": {"profile": "crystal"}},
    )
    assert answer.choices[0].message.content == " Q1 iron =2 Q2 jay =4"
    stream = litellm.completion(
        model="openai/demo",
        api_base=f"{gateway}/v1",
        api_key="none",
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
    )
    assert len(list(stream)) > 2
