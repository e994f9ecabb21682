"""Checks the plugin's Triton kernels against torch, and times them, on a CUDA machine.

    python bench/gpu/check.py [--record]

Needs this repository, torch, triton and numpy; neither vLLM nor a network. Takes less than four minutes. Prints a table and
writes tmp/bench/gpu.json, or with --record bench/results/gpu.json. With TRITON_INTERPRET=1 it checks small shapes on a
CPU, and times nothing. The exit code is 1 if a check fails.
"""

import argparse
import importlib
import json
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRETED:
    import triton.backends

    driver = types.SimpleNamespace(is_active=lambda: True)
    triton.backends.backends["cpu"] = types.SimpleNamespace(driver=driver, compiler=None)

import torch  # noqa: E402
import triton  # noqa: E402
import triton.language as tl  # noqa: E402


def plugin(module: str) -> Any:
    """A module of the plugin, without the package's own start, which needs vLLM."""
    if "crystal_kv_vllm" not in sys.modules:
        package = types.ModuleType("crystal_kv_vllm")
        package.__path__ = [str(ROOT / "vllm-plugin" / "crystal_kv_vllm")]
        utils = types.ModuleType("vllm.triton_utils")
        utils.tl, utils.triton = tl, triton  # type: ignore[attr-defined]
        sys.modules |= {"crystal_kv_vllm": package, "vllm": types.ModuleType("vllm"), "vllm.triton_utils": utils}
    return importlib.import_module(f"crystal_kv_vllm.{module}")


sys.path.insert(0, str(Path(__file__).parent))
from decode_kernel import Decode  # noqa: E402

compact_into, paged_logsumexp = plugin("kernels").compact_into, plugin("kernels").paged_logsumexp
highest_cosines = plugin("cosine_kernel").highest_cosines
masses, weights = plugin("masses"), plugin("attention_weights")
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
DTYPE = torch.float32 if INTERPRETED else torch.bfloat16
figures: dict[str, float] = {}
failures: list[str] = []


def check(name: str, good: bool) -> None:
    print(f"{'ok    ' if good else 'FAILED'} {name}", flush=True)
    if not good:
        failures.append(name)


def tables(rows: int, width: int, size: int, holes: float, pool: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random block tables with holes, never in the last block, and lengths."""
    lengths = torch.randint(size * width // 2, size * width, (rows,), dtype=torch.int32)
    table = torch.randint(1, pool, (rows, width), dtype=torch.int32)
    last = (lengths + size - 1) // size - 1
    hole = (torch.rand(rows, width) < holes) & (torch.arange(width)[None] != last[:, None])
    return table.masked_fill(hole, 0).to(DEVICE), lengths.to(DEVICE)


def check_compaction(size: int) -> None:
    rows, width = (4, 9) if INTERPRETED else (256, 8192 // size)
    table, lengths = tables(rows, width, size, 0.5, 1000)
    out, short = torch.full_like(table, -1), torch.empty_like(lengths)
    compact_into(table, lengths, out, short, size, 1)
    good = True
    for row, length in enumerate(lengths.tolist()):
        blocks = table[row, : -(-length // size)]
        kept = blocks[blocks > 0]
        good &= torch.equal(out[row, : len(kept)], kept) and int(short[row]) == length - size * (len(blocks) - len(kept))
    check(f"compaction, blocks of {size}", bool(good))


def check_masses(size: int, head: int) -> None:
    rows, width, heads, group = (3, 3, 2, 2) if INTERPRETED else (64, 2048 // size, 8, 4)
    table, lengths = tables(rows, width, size, 0.0, rows * width)
    starts = torch.arange(rows + 1, dtype=torch.int32, device=DEVICE)
    chosen = masses.select_rows([(row, str(row)) for row in range(rows)], table, lengths, starts, size)
    query = torch.randn(rows, heads, group, head, device=DEVICE, dtype=DTYPE)
    cache = torch.randn(rows * width, heads, size, 2 * head, device=DEVICE, dtype=DTYPE)
    got = paged_logsumexp(query, cache, chosen, head**-0.5)
    keys = cache[chosen.blocks][..., :head].transpose(2, 3)
    wanted = masses.block_logsumexp(query.double(), keys.double(), chosen, head**-0.5)
    check(f"block masses, blocks of {size}, heads of {head}", torch.allclose(got, wanted.float(), atol=1e-3))


def check_cosines(size: int, head: int) -> None:
    layers, heads, count, own = (2, 2, 5, 2) if INTERPRETED else (4, 8, 4096 // size, max(1, 1024 // size))
    cache = torch.randn(layers, count + 1, heads, size, head, device=DEVICE, dtype=DTYPE)
    angles = torch.rand(count * size, head // 2, device=DEVICE) * 6
    blocks = torch.randperm(count, device=DEVICE)[None] + 1
    logical = torch.arange(count, device=DEVICE)[None].clone()
    table = torch.full((layers, count + 1, heads, size), -1, dtype=torch.int32, device=DEVICE)
    cos_sin = torch.cat([angles.cos(), angles.sin()], 1)
    got = highest_cosines(cache, blocks, logical, table, own, cos_sin, True)
    keys = cache[:, blocks[0]].transpose(1, 2).flatten(2, 3).flatten(0, 1).double()
    first, second = keys.chunk(2, -1)
    cos, sin = angles.cos().double(), angles.sin().double()
    unit = torch.nn.functional.normalize(torch.cat([first * cos + second * sin, second * cos - first * sin], -1), dim=-1)
    place = torch.arange(count * size, device=DEVICE)
    wanted = unit[:, : own * size] @ unit.transpose(1, 2)
    wanted = wanted.masked_fill(place[None] <= place[: own * size, None], -1).amax(-1)
    check(f"key cosines, blocks of {size}, heads of {head}", torch.allclose(got.double(), wanted, atol=2e-4))


def check_statistics(head: int) -> None:
    """Of torch alone: float32 on the device against float64."""
    groups, queries, heads, tokens = (2, 4, 2, 40) if INTERPRETED else (8, 32, 4, 4096)
    query = torch.randn(groups, queries, heads, head, device=DEVICE, dtype=DTYPE)
    keys = torch.randn(groups, tokens, head, device=DEVICE, dtype=DTYPE)
    visible = torch.rand(queries, tokens, device=DEVICE) < 0.9
    got = weights.attention_weights(query, keys, visible, slice(0, tokens), weights.Scoring(head**-0.5, 0.0, None))
    scores = torch.einsum("gqhd,gtd->gqht", query.double(), keys.double()) * head**-0.5
    exact = scores.masked_fill(~visible[None, :, None], float("-inf")).softmax(-1)
    good = torch.allclose(got.mean.double(), exact.mean(2), rtol=5e-3, atol=1e-6)
    check(f"token statistics of a ring, heads of {head}", good and torch.allclose(got.most.double(), exact.amax(2), rtol=5e-3, atol=1e-6))


def eager(query: torch.Tensor, cache: torch.Tensor, table: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """One row after the other, holes left out."""
    head, size, rows = query.shape[-1], cache.shape[2], []
    for row, length in enumerate(lengths.tolist()):
        blocks = table[row, : -(-length // size)].long()
        inside = torch.arange(len(blocks) * size, device=DEVICE).view(-1, size) < length
        inside &= (blocks > 0)[:, None]
        keys, values = cache[blocks].double().transpose(0, 1).flatten(1, 2).split(head, -1)
        scores = torch.einsum("hgd,htd->hgt", query[row].double(), keys) * head**-0.5
        scores = scores.masked_fill(~inside.flatten(), float("-inf"))
        rows.append(torch.einsum("hgt,htd->hgd", scores.softmax(-1), values))
    return torch.stack(rows).float()


def check_decode(graph: bool) -> None:
    """Tables are compacted into buffers; in a graph, that and the attention are captured and the tables then change."""
    rows, width, heads, group, head, size = (2, 4, 2, 2, 16, 16) if INTERPRETED else (32, 64, 8, 4, 128, 16)
    query = torch.randn(rows, heads, group, head, device=DEVICE, dtype=DTYPE)
    cache = torch.randn(rows * width, heads, size, 2 * head, device=DEVICE, dtype=DTYPE)
    table, lengths = tables(rows, width, size, 0.0, rows * width)
    compacted, short = torch.zeros_like(table), torch.zeros_like(lengths)
    attend = Decode(rows, heads, group, head, width * size, DEVICE)

    def step() -> torch.Tensor:
        compact_into(table, lengths, compacted, short, size, 1)
        return attend(query, cache, compacted, short, head**-0.5)

    replay: Callable[[], torch.Tensor] = step
    if graph:
        step()
        torch.cuda.synchronize()
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            result = step()

        def replay() -> torch.Tensor:
            captured.replay()
            return result

    good = True
    for holes in (0.0, 0.5, 0.75):
        fresh, ends = tables(rows, width, size, holes, rows * width)
        table.copy_(fresh)
        lengths.copy_(ends)
        good &= torch.allclose(replay(), eager(query, cache, table, lengths), atol=2e-2)
    check("decode over compacted tables" + (", replayed from a graph" if graph else ""), bool(good))


def milliseconds(action: Callable[[], object], times: int = 10) -> float:
    for _ in range(3):
        action()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in "ab")
    start.record()
    for _ in range(times):
        action()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / times


def time_decode(rows: int, tokens: int) -> None:
    heads, group, head, size = 8, 8, 128, 16
    free, _ = torch.cuda.mem_get_info()
    # of one layer; a small GPU gets fewer requests
    rows = max(1, min(rows, int(free * 0.4) // (tokens * heads * 2 * head * 2)))
    blocks = tokens // size
    cache = torch.empty(rows * blocks + 1, heads, size, 2 * head, device=DEVICE, dtype=DTYPE).normal_()
    query = torch.randn(rows, heads, group, head, device=DEVICE, dtype=DTYPE)
    table = (torch.randperm(rows * blocks, device=DEVICE, dtype=torch.int32) + 1).view(rows, blocks)
    attend = Decode(rows, heads, group, head, tokens, DEVICE)
    name = f"{rows}x{tokens // 1024}k"
    for percent in (100, 50, 25):
        lengths = torch.full((rows,), tokens * percent // 100, dtype=torch.int32, device=DEVICE)
        took = milliseconds(lambda lengths=lengths: attend(query, cache, table, lengths, head**-0.5))
        figures[f"decode_ms_{name}_{percent}"] = took
    full = figures[f"decode_ms_{name}_100"]
    lengths = torch.full((rows,), tokens, dtype=torch.int32, device=DEVICE)
    out, short = torch.empty_like(table), torch.empty_like(lengths)
    figures[f"compaction_share_{name}"] = milliseconds(lambda: compact_into(table, lengths, out, short, size, 1)) / full
    starts = torch.arange(rows + 1, dtype=torch.int32, device=DEVICE)
    chosen = masses.select_rows([(row, str(row)) for row in range(rows)], table, lengths, starts, size)

    def measure() -> object:
        return masses.log_codes(masses.block_masses(paged_logsumexp(query, cache, chosen, head**-0.5), chosen))

    # of a layer that is measured, as a share of a layer's decode step
    figures[f"measured_layer_share_{name}"] = milliseconds(measure, 3) / full
    if tokens > 8192:
        return
    own, logical = 64, torch.arange(blocks, device=DEVICE)[None]
    positions = torch.full((1, len(cache), heads, size), -1, dtype=torch.int32, device=DEVICE)
    angles = torch.rand(tokens, head, device=DEVICE)

    def compare() -> object:
        return highest_cosines(cache[None, ..., :head], table[:1].long(), logical, positions, own, angles, True)

    figures[f"merge_compare_share_{name}"] = milliseconds(compare) / full
    one = weights.Scoring(head**-0.5, 0.0, None)
    keys = cache[table[0].long(), ..., :head].transpose(0, 1).flatten(1, 2)
    ring = torch.randn(heads, 32, group, head, device=DEVICE, dtype=DTYPE)
    visible = torch.ones(32, tokens, dtype=torch.bool, device=DEVICE)
    # of one request and layer, every 32 steps
    took = milliseconds(lambda: weights.attention_weights(ring, keys, visible, slice(0, tokens), one))
    figures[f"ring_pass_share_{name}"] = took / full


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--record", action="store_true", help="write bench/results/gpu.json")
    record = arguments.parse_args().record
    if not INTERPRETED and not torch.cuda.is_available():
        print("there is no CUDA device; with TRITON_INTERPRET=1 small shapes are checked on the CPU", file=sys.stderr)
        return 2
    start = time.monotonic()
    torch.manual_seed(0)
    for size in (16, 32) if INTERPRETED else (16, 32, 64, 128):
        check_compaction(size)
        for head in (64, 128) if not INTERPRETED else (64,):
            check_masses(size, head)
            check_cosines(size, head)
    check_statistics(64)
    check_statistics(128)
    check_decode(graph=False)
    if not INTERPRETED:
        check_decode(graph=True)
        time_decode(256, 8192)
        torch.cuda.empty_cache()
        time_decode(32, 32768)
        for name, value in figures.items():
            print(f"{name:<40} {value:.4f}")
        folder = ROOT / ("bench/results" if record else "tmp/bench")
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "bench": "gpu",
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "conditions": {
                "device": torch.cuda.get_device_name(),
                "torch": torch.__version__,
                "triton": triton.__version__,
                "seconds": round(time.monotonic() - start),
            },
            "figures": {name: round(value, 5) for name, value in figures.items()} | {"failed_checks": len(failures)},
            "rows": [],
        }
        (folder / "gpu.json").write_text(json.dumps(content, indent=2) + "\n")
    print(f"{len(failures)} failed" if failures else "all good")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
