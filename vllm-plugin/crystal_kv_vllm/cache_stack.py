"""The caches of a model's attention layers, so that one operation reads or writes those of many layers."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from vllm.model_executor.models.utils import extract_layer_index

from .attention_weights import Scoring
from .rotation import Rotation

logger = logging.getLogger("vllm.crystal_kv")


@dataclass(frozen=True)
class CacheLayer:
    """A layer's cache: views, so that writing to them changes the cache."""

    #: vLLM's name of it.
    name: str
    #: [kernel blocks, kv heads, block size, head size]
    keys: torch.Tensor
    values: torch.Tensor
    #: None: positions are not in the keys, or the model does not say how; keys are compared as they are.
    rotation: Rotation | None
    #: None: its weights are not to be computed.
    scoring: Scoring | None = None


@dataclass(frozen=True)
class CacheStack:
    """Layers whose caches lie at equal distances in one allocation, as vLLM lays them out: a view of all of them."""

    #: vLLM's names of them.
    layers: tuple[str, ...]
    #: Number of the first one among all layers with attention.
    first: int
    #: [layers, kernel blocks, kv heads, block size, head size]
    keys: torch.Tensor
    values: torch.Tensor
    rotation: Rotation | None
    #: Of all its head groups.
    scoring: Scoring | None = None

    @property
    def block_size(self) -> int:
        """Tokens in a block of the attention kernel."""
        return self.keys.shape[3]

    @property
    def kv_heads(self) -> int:
        return self.keys.shape[2]


def cache_layers(forward_context: Mapping[str, Any], model: torch.nn.Module) -> list[CacheLayer]:
    """The attention layers of a model whose caches are allocated. `forward_context`: vLLM's layers by name."""
    layers, plain = [], []
    for name, attention in forward_context.items():
        cache = getattr(attention, "kv_cache", None)
        views = getattr(getattr(attention, "impl", None), "keys_and_values", None)
        if views is None or not isinstance(cache, torch.Tensor) or not cache.numel():
            continue
        rotation = _rotation(model, name)
        if rotation is None:
            plain.append(name)
        keys, values = views(cache)
        layers.append(CacheLayer(name, keys, values, rotation, attention.impl.scoring))
    if plain:
        logger.warning("crystal-kv: no rotary positions found for %s: merges compare its keys as stored", plain[0])
    return sorted(layers, key=lambda layer: extract_layer_index(layer.name))


def stack_layers(layers: Sequence[CacheLayer]) -> list[CacheStack]:
    """As few stacks as possible of neighbouring layers; at worst one for each layer. layers: all, in their order."""
    runs: list[list[CacheLayer]] = []
    for layer in layers:
        if runs and _continues(runs[-1], layer):
            runs[-1].append(layer)
        else:
            runs.append([layer])
    stacks = []
    first = 0
    for run in runs:
        names = tuple(layer.name for layer in run)
        keys, values = _stacked([layer.keys for layer in run]), _stacked([layer.values for layer in run])
        stacks.append(CacheStack(names, first, keys, values, run[0].rotation, _scoring(run)))
        first += len(run)
    return stacks


def read_blocks(cache: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """A copy of some blocks of a stack's cache: [requests * layers * kv heads, tokens, head size].

    blocks: int64 [requests, blocks], or [blocks] of one request.
    """
    rows = blocks if blocks.dim() == 2 else blocks[None]
    # in the order of memory, which is several times faster than against it
    turned = cache.stride(-1) > cache.stride(-2)
    some = cache.mT[:, rows].mT if turned else cache[:, rows]
    return some.permute(1, 0, 3, 2, 4, 5).flatten(3, 4).flatten(0, 2)


def write_blocks(cache: torch.Tensor, blocks: torch.Tensor, tokens: torch.Tensor) -> None:
    """Fills some blocks of a stack's cache, with what `read_blocks` would return. blocks: int64 [requests, blocks]"""
    layers, _, heads, size, width = cache.shape
    some = tokens.view(len(blocks), layers, heads, blocks.shape[1], size, width).permute(1, 0, 3, 2, 4, 5)
    if cache.stride(-1) > cache.stride(-2):
        cache.mT[:, blocks] = some.mT
    else:
        cache[:, blocks] = some


def _stacked(views: Sequence[torch.Tensor]) -> torch.Tensor:
    distance = 0 if len(views) == 1 else views[1].storage_offset() - views[0].storage_offset()
    first = views[0]
    return first.as_strided((len(views), *first.shape), (distance, *first.stride()))


def _scoring(run: Sequence[CacheLayer]) -> Scoring | None:
    of = run[0].scoring
    if of is None or of.sinks is None:
        return of
    sinks = [layer.scoring.sinks for layer in run if layer.scoring is not None and layer.scoring.sinks is not None]
    return replace(of, sinks=torch.cat(sinks))


def _continues(run: Sequence[CacheLayer], layer: CacheLayer) -> bool:
    """Whether a layer lies as far behind the last one of a run as that one behind its own predecessor."""
    last = run[-1]
    if not _same_rotation(last.rotation, layer.rotation) or not _same_scoring(last.scoring, layer.scoring):
        return False
    for before, here, after in (
        (run[-2].keys if len(run) > 1 else None, last.keys, layer.keys),
        (run[-2].values if len(run) > 1 else None, last.values, layer.values),
    ):
        if (here.shape, here.stride(), here.dtype) != (after.shape, after.stride(), after.dtype):
            return False
        if here.untyped_storage().data_ptr() != after.untyped_storage().data_ptr():
            return False
        distance = after.storage_offset() - here.storage_offset()
        if distance <= 0 or (before is not None and distance != here.storage_offset() - before.storage_offset()):
            return False
    return True


def _same_rotation(a: Rotation | None, b: Rotation | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.halves == b.halves and (a.cos_sin is b.cos_sin or torch.equal(a.cos_sin, b.cos_sin))


def _same_scoring(a: Scoring | None, b: Scoring | None) -> bool:
    """Whether they differ in the sinks' values alone."""
    if a is None or b is None:
        return a is b
    return (a.scale, a.softcap, a.sinks is None) == (b.scale, b.softcap, b.sinks is None)


def _rotation(model: torch.nn.Module, attention: str) -> Rotation | None:
    """Of the module that an attention layer is part of."""
    try:
        rotary: Any = model.get_submodule(attention.rpartition(".")[0]).rotary_emb
        return Rotation(rotary.cos_sin_cache, rotary.is_neox_style)
    except AttributeError:
        return None
