"""Checks attention in full graphs: `test_graphs` starts it as a process of its own, with Triton's interpreter.

vLLM's dispatcher and its metadata builder for Triton are the real ones. Its kernel is replaced by torch, and CUDA's
graph by one that carries the recorded operations out again.
"""

import random
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

# before torch and vLLM
import interpreter  # noqa: F401
import torch
from recorded_graph import RecordedGraph
from vllm.config import CompilationMode, CUDAGraphMode
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher

from crystal_kv_vllm.backends.gpu import GPUImplMixin
from crystal_kv_vllm.backends.triton_attn import CrystalTritonAttentionMetadataBuilder
from crystal_kv_vllm.graph_queries import graph_queries
from crystal_kv_vllm.mass_recorder import mass_recorder
from crystal_kv_vllm.query_recorder import query_recorder
from crystal_kv_vllm.spec import CrystalSpec
from crystal_kv_vllm.worker_io import WorkerCommands

LAYERS = ("model.layers.0.attn", "model.layers.1.attn")
SIZE, KV_HEADS, HEADS, WIDTH, POOL, MAX_REQUESTS = 32, 2, 4, 6, 60, 8
HEAD_SIZE = 16
HIDDEN = HEADS * HEAD_SIZE


class TorchAttention:
    """In the place of a backend's implementation: reads table and lengths of the metadata, as the kernels do."""

    num_heads, num_kv_heads, head_size, scale, logits_soft_cap = HEADS, KV_HEADS, HEAD_SIZE, 0.3, None

    def forward(
        self,
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        metadata: Any,
        output: torch.Tensor,
    ) -> torch.Tensor:
        tokens = kv_cache[metadata.block_table.long()].transpose(2, 3).flatten(1, 2)
        keys, values = tokens[..., :HEAD_SIZE], tokens[..., HEAD_SIZE:]
        heads = query.view(-1, KV_HEADS, HEADS // KV_HEADS, HEAD_SIZE)
        scores = torch.einsum("nkgh,ntkh->nkgt", heads, keys) * self.scale
        unused = torch.arange(tokens.shape[1]) >= metadata.seq_lens[:, None]
        weights = scores.masked_fill(unused[:, None, None], -1e9).softmax(-1)
        return output.copy_(torch.einsum("nkgt,ntkh->nkgh", weights, values).reshape(output.shape))


class CheckedAttention(GPUImplMixin, TorchAttention):  # type: ignore[misc]
    """With the plugin's part."""


class Runner:
    """What vLLM's model runner has: buffers that never move, a model, graphs by size."""

    def __init__(self, model: str) -> None:
        config = EngineArgs(model=model, dtype="float32", max_model_len=SIZE * WIDTH, max_num_seqs=MAX_REQUESTS)
        self.config = config.create_engine_config()
        compilation = self.config.compilation_config
        # the CPU platform turns graphs off
        compilation.mode = CompilationMode.VLLM_COMPILE
        compilation.splitting_ops = list(compilation._attention_ops)
        compilation.cudagraph_mode = CUDAGraphMode.FULL_AND_PIECEWISE
        compilation.cudagraph_capture_sizes = [1, 2, 4, 8]
        compilation.max_cudagraph_capture_size = 8
        self.config.cache_config.block_size = SIZE
        self.dispatcher = CudagraphDispatcher(self.config)
        self.dispatcher.initialize_cudagraph_keys(CUDAGraphMode.FULL_AND_PIECEWISE)
        spec = CrystalSpec(block_size=SIZE, num_kv_heads=KV_HEADS, head_size=HEAD_SIZE, dtype=torch.float32)
        device = torch.device("cpu")
        self.builder = CrystalTritonAttentionMetadataBuilder(spec, list(LAYERS), self.config, device)
        self.weights = [torch.randn(3, HIDDEN, HIDDEN) / HIDDEN**0.5 for _ in LAYERS]
        self.layers = {name: SimpleNamespace(layer_name=name, impl=CheckedAttention()) for name in LAYERS}
        for layer in self.layers.values():
            layer.kv_cache = torch.randn(POOL, KV_HEADS, SIZE, 2 * HEAD_SIZE)
        graph_queries.reserve({name: it.impl for name, it in self.layers.items()}, 8, torch.float32, device)
        self.hidden, self.output = torch.zeros(MAX_REQUESTS, HIDDEN), torch.zeros(MAX_REQUESTS, HIDDEN)
        self.table = torch.zeros(MAX_REQUESTS, WIDTH, dtype=torch.int32)
        self.lens = torch.zeros(MAX_REQUESTS, dtype=torch.int32)
        self.slots = torch.zeros(MAX_REQUESTS, dtype=torch.int64)
        self.starts = torch.arange(MAX_REQUESTS + 1, dtype=torch.int32)
        self.graphs: dict[int, RecordedGraph] = {}

    def metadata(self, rows: int) -> CommonAttentionMetadata:
        return CommonAttentionMetadata(
            query_start_loc=self.starts[: rows + 1],
            query_start_loc_cpu=self.starts[: rows + 1],
            seq_lens=self.lens[:rows],
            num_reqs=rows,
            num_actual_tokens=rows,
            max_query_len=1,
            max_seq_len=SIZE * WIDTH,
            block_table_tensor=self.table[:rows],
            slot_mapping=self.slots[:rows],
        )

    def forward(self, rows: int, attention: Any) -> None:
        hidden = self.hidden[:rows]
        for weights, layer in zip(self.weights, self.layers.values(), strict=True):
            query, key, value = (hidden @ part for part in weights)
            slots = self.slots[:rows]
            layer.kv_cache[slots // SIZE, :, slots % SIZE] = torch.cat(
                [key.view(rows, HEADS, HEAD_SIZE)[:, :KV_HEADS], value.view(rows, HEADS, HEAD_SIZE)[:, :KV_HEADS]], -1
            )
            made = torch.empty_like(hidden)
            hidden = hidden + layer.impl.forward(layer, query, key, value, layer.kv_cache, attention, made)
        self.output[:rows].copy_(hidden)

    def replay(self, rows: int, _: Any) -> None:
        self.graphs[rows].replay()

    def capture(self) -> None:
        for mode, descriptors in self.dispatcher.get_capture_descs():
            for descriptor in descriptors if mode == CUDAGraphMode.FULL else ():
                rows = descriptor.num_tokens
                self.lens.fill_(SIZE * WIDTH)
                self.forward(rows, self.builder.build_for_cudagraph_capture(self.metadata(rows)))
                attention = self.builder.build_for_cudagraph_capture(self.metadata(rows))
                with RecordedGraph() as graph:
                    self.forward(rows, attention)
                self.graphs[rows] = graph
        self.lens.zero_()


class Queries:
    """What is recorded of a step."""

    def __init__(self, names: list[str]) -> None:
        self.copies = {name: (0, range(place, place + 1)) for place, name in enumerate(names)}
        self.long: dict[str, int] = {}
        self.stored: dict[str, torch.Tensor] = {}

    def store(self, layer: str, queries: torch.Tensor, places: torch.Tensor) -> None:
        assert places.tolist() == list(range(len(self.copies)))
        self.stored[layer] = queries.clone()

    def count(self, layer: str, request_id: str, queries: torch.Tensor) -> None:
        raise AssertionError("no chunk is longer than a ring")


def step(runner: Runner, names: list[str], run: Callable[[Any], None], rows: int, measured: bool) -> dict[str, Any]:
    """What the worker does in a step."""
    graph_queries.begin()
    queries = Queries(names)
    if measured:
        groups = tuple((layer, head) for layer in LAYERS for head in range(KV_HEADS))
        mass_recorder.begin(WorkerCommands(measure=set(names), head_groups=groups), lambda _: names)
    query_recorder.begin(queries, lambda _: names)
    run(runner.builder.build(0, runner.metadata(rows)))
    for name, kept in graph_queries.replayed():
        layer = runner.layers[name]
        layer.impl.record(name, kept, layer.kv_cache)
    graph_queries.end()
    query_recorder.end()
    return {
        "output": runner.output[: len(names)].clone(),
        "queries": queries.stored,
        "masses": mass_recorder.finish().resolve(),
    }


def expected(runner: Runner, count: int) -> torch.Tensor:
    """Attention over the tokens that are not in holes, request by request. After the step: its keys are stored."""
    outputs = []
    for row in range(count):
        hidden = runner.hidden[row]
        length = int(runner.lens[row])
        resident = [place for place in range(length) if runner.table[row, place // SIZE] != 0]
        blocks = torch.tensor([int(runner.table[row, place // SIZE]) for place in resident])
        for weights, layer in zip(runner.weights, runner.layers.values(), strict=True):
            query = (hidden @ weights[0]).view(KV_HEADS, HEADS // KV_HEADS, HEAD_SIZE)
            tokens = layer.kv_cache[blocks, :, torch.tensor(resident) % SIZE]
            keys, values = tokens[..., :HEAD_SIZE], tokens[..., HEAD_SIZE:]
            shares = (torch.einsum("kgh,tkh->kgt", query, keys) * TorchAttention.scale).softmax(-1)
            hidden = hidden + torch.einsum("kgt,tkh->kgh", shares, values).reshape(-1)
        outputs.append(hidden)
    return torch.stack(outputs)


def main(model: str) -> None:
    torch.manual_seed(0)
    rng = random.Random(0)
    runner = Runner(model)
    runner.capture()
    assert set(runner.graphs) == {1, 2, 4, 8}
    holes = 0
    for number in range(24):
        # the kernel that measures takes long when it is interpreted
        measured = number % 6 == 0
        count = rng.randint(1, MAX_REQUESTS)
        mode, descriptor = runner.dispatcher.dispatch(count, uniform_decode=True)
        assert mode == CUDAGraphMode.FULL
        rows = descriptor.num_tokens
        free = rng.sample(range(1, POOL), POOL - 1)
        # rows of padding keep what was in them
        for row in range(rows):
            runner.lens[row] = length = rng.randint(1, SIZE * WIDTH) if row < count else 0
            for block in range(-(-length // SIZE)):
                tail = block == (length - 1) // SIZE
                runner.table[row, block] = free.pop() if tail or rng.random() < 0.6 else 0
                holes += int(runner.table[row, block] == 0)
            last = length - 1
            runner.slots[row] = runner.table[row, last // SIZE] * SIZE + last % SIZE if row < count else 0
        runner.hidden.normal_()
        names = [f"request {row}" for row in range(count)]
        caches = {name: layer.kv_cache.clone() for name, layer in runner.layers.items()}
        replayed = step(runner, names, partial(runner.replay, rows), rows, measured)
        assert torch.allclose(replayed["output"], expected(runner, count), atol=1e-5)
        for name, cache in caches.items():
            runner.layers[name].kv_cache.copy_(cache)
        eager = step(runner, names, partial(runner.forward, rows), rows, measured)
        assert torch.allclose(replayed["output"], eager["output"], atol=1e-6)
        assert set(replayed["queries"]) == set(LAYERS)
        for layer in LAYERS:
            assert torch.allclose(replayed["queries"][layer], eager["queries"][layer], atol=1e-6)
        assert replayed["masses"].keys() == (set(names) if measured else set())
        assert replayed["masses"] == eager["masses"]
    assert holes > 100
    sys.stdout.write("checked\n")


main(sys.argv[1])
