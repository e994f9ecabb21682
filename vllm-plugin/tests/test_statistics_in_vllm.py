"""The statistics that vLLM's workers keep of crystal-mini's tokens are those of its attention in transformers."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from engine import BLOCK_SIZE, Output, RunningEngine, prompt
from reference import Reference, visible_keys
from scripted_peer import RequestHistory, ScriptedPeer, keep_at_most
from statistics_reference import NAMES, TokenFigures
from test_probe import probe_once, watch_probes

from crystal_kv_vllm.gen import policy_pb2 as pb
from crystal_kv_vllm.keep_rule import KEPT_STATISTICS
from crystal_kv_vllm.token_statistics import TokenStatistics

pytestmark = pytest.mark.vllm

HALF_LIVES = (50.0, 120.0)
PROMPT, TOKENS = 45, 230
#: By request: its row, and float32 [layers, KV heads, tokens, statistics] of the tokens in its blocks.
Kept = dict[str, tuple[list[int], Any]]


@pytest.fixture(autouse=True)
def configured(peer: ScriptedPeer) -> Iterator[None]:
    before = peer.configure
    peer.configure = pb.Configure(
        measure_every=1,
        probe_tokens=8,
        statistics=pb.KeptStatistics(
            statistics=sorted(KEPT_STATISTICS),
            attention_half_life_tokens=HALF_LIVES[0],
            peak_half_life_tokens=HALF_LIVES[1],
        ),
    )
    yield
    peer.configure = before


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    """What workers know of each request when they forget it."""
    seen: Kept = {}
    forget = TokenStatistics.forget

    def watched(self: TokenStatistics, request_ids: Any) -> None:
        names = list(request_ids)
        # probes come first: what they read counts too
        self.settle(name for name in [*self._followed] if name.startswith("crystal-kv-probe-"))
        self.settle(names)
        for name in names:
            if name in self._followed:
                row = list(self._followed[name].row)
                (slots,) = self._slots
                figures = slots.figures(slots.read(slice(0, 99), torch.tensor(row)))
                rows = [figures[pb.Statistic.Value(f"STATISTIC_{name.upper()}")] for name in NAMES]
                seen[name] = (row, torch.stack(rows, -1))
        forget(self, names)

    monkeypatch.setattr(TokenStatistics, "forget", watched)
    return seen


class Expected:
    """Figures of every output token of a request, from a forward pass over all of its tokens."""

    def __init__(self, attention: Any, first_query: int, kv_heads: int) -> None:
        """attention: [layers, query heads, tokens, tokens]; the newest token is not computed."""
        layers, heads, length, _ = attention.shape
        self.attention = attention.double().view(layers, kv_heads, heads // kv_heads, length, length)
        self.first_query = first_query

    def figures(self, layer: int, head: int, position: int, probes: list[tuple[int, float]]) -> list[float]:
        """probes: queries of the request before each query of a probe, and what that gave at most."""
        figures = TokenFigures()
        given = self.attention[layer, head, :, :, position]
        for query in range(max(position, self.first_query), given.shape[1]):
            figures.query(query, float(given[:, query].mean()), float(given[:, query].max()), HALF_LIVES)
            for after, most in probes:
                if after == query - self.first_query + 1:
                    figures.probe(most)
        return figures.all()


def generate_and_forget(engine: RunningEngine, prompts: list[list[int]]) -> list[Output]:
    """Workers learn only with the next step, of whatever request, that requests have ended."""
    outputs = engine.generate(prompts, TOKENS)
    engine.generate([prompt(9, 5)], 2)
    return outputs


def compare(kept: tuple[list[int], Any], expected: Expected, positions: range, probes: Any = None) -> None:
    row, got = kept
    layers, kv_heads = expected.attention.shape[:2]
    got = got.view(layers, kv_heads, len(row), BLOCK_SIZE, len(NAMES))
    for layer in range(layers):
        for head in range(kv_heads):
            for position in positions:
                block, slot = divmod(position, BLOCK_SIZE)
                if row[block]:
                    of_probes = [] if probes is None else probes(layer, head, position)
                    wanted = expected.figures(layer, head, position, of_probes)
                    values = got[layer, head, block, slot].tolist()
                    assert values == pytest.approx(wanted, rel=5e-3, abs=2e-5), (layer, head, position)


def test_holes_and_probes(
    start_engine: Callable[..., RunningEngine],
    peer: ScriptedPeer,
    kept: Kept,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = start_engine()
    forks = watch_probes(engine, monkeypatch)
    peer.decide = probe_once(170, keep_at_most(4, seed=1))
    prompts = [prompt(seed, PROMPT + 9 * seed) for seed in range(2)]
    outputs = generate_and_forget(engine, prompts)
    assert len(forks) == len(peer.probes) == 2
    assert all(history.evicted for history in peer.requests[: len(prompts)])
    reference = Reference(model)
    groups = engine.hooks.options.head_groups
    for number, (history, output) in enumerate(zip(peer.requests, outputs, strict=False)):
        tokens = [*prompts[number], *output.tokens]
        length = len(prompts[number])
        (name,) = [name for name in kept if name.split("-")[0] == str(number)]
        attention = reference.forward(tokens, visible_keys(len(tokens), history, BLOCK_SIZE)).attention
        # the last token is never computed
        expected = Expected(attention[:, :, :-1, :-1], length, groups.kv_heads)
        (probe,) = [it for it in peer.probes if it.started.parent_handle == history.started.handle]
        (fork,) = [it for it in forks if it.num_prompt_tokens == 172 and it.all_token_ids[:length] == tokens[:length]]
        raised = probe_weights(reference, list(fork.all_token_ids), probe, history, groups.kv_heads)
        compare(kept[name], expected, range(length, len(tokens) - 1), raised)


def probe_weights(
    reference: Reference, tokens: list[int], probe: RequestHistory, parent: RequestHistory, kv_heads: int
) -> Callable[[int, int, int], list[tuple[int, float]]]:
    """What each query of a probe gives a token at most, and how many queries of its parent there were before it."""
    shared = probe.started.computed_tokens
    visible = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
    for block in probe.started.evicted:
        # by then the parent had computed all that is shared
        visible[shared:, block * BLOCK_SIZE : (block + 1) * BLOCK_SIZE] = False
    # what the parent's own tokens saw of blocks that were holes later does not matter to these queries' keys
    for block, since in parent.evicted.items():
        steps = [entry.computed_tokens for step, entry in parent.steps if step >= since]
        visible[min(steps) - 1 : shared, block * BLOCK_SIZE : (block + 1) * BLOCK_SIZE] = False
    attention = reference.forward(tokens, visible).attention.double()
    heads = attention.shape[1] // kv_heads
    parents = {step: entry.computed_tokens - parent.started.prompt_tokens for step, entry in parent.steps}

    def raised(layer: int, head: int, position: int) -> list[tuple[int, float]]:
        if position >= shared:
            return []
        result = []
        before = 171
        for step, entry in probe.steps:
            for query in range(before, entry.computed_tokens):
                most = float(attention[layer, head * heads : (head + 1) * heads, query, position].max())
                result.append((parents[step], most))
            before = entry.computed_tokens
        return result

    return raised


def test_a_resumed_request_begins_anew(
    start_engine: Callable[..., RunningEngine], peer: ScriptedPeer, kept: Kept, model: str
) -> None:
    # without a prefix cache all queries of its output are computed again, most of them in one long chunk
    engine = start_engine(num_gpu_blocks_override=26, max_model_len=512, enable_prefix_caching=False)
    prompts = [prompt(seed, PROMPT + 9 * seed) for seed in range(4)]
    outputs = generate_and_forget(engine, prompts)
    assert any(history.epochs for history in peer.requests)
    reference = Reference(model)
    for number, output in enumerate(outputs):
        tokens = [*prompts[number], *output.tokens]
        length = len(prompts[number])
        # the last time: it is forgotten at each preemption
        (name,) = [name for name in kept if name.split("-")[0] == str(number)]
        visible = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
        attention = reference.forward(tokens, visible).attention[:, :, :-1, :-1]
        expected = Expected(attention, length, engine.hooks.options.head_groups.kv_heads)
        compare(kept[name], expected, range(length, len(tokens) - 1))
