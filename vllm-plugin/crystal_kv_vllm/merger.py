"""The worker's part of a merge: moves the tokens that are kept into the blocks that stay."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .repetition import Rotation, most_repeated
from .worker_io import MergeCommand, TableEntry

logger = logging.getLogger("vllm.crystal_kv")


@dataclass(frozen=True)
class MergeLayer:
    """A layer's cache as a merge sees it: views, so that writing to them changes the cache."""

    #: [kernel blocks, kv heads, block size, head size]
    keys: torch.Tensor
    values: torch.Tensor
    #: None: positions are not in the keys, or the model does not say how; keys are compared as they are.
    rotation: Rotation | None


def merge_layers(forward_context: Mapping[str, Any], model: torch.nn.Module) -> list[MergeLayer]:
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
        layers.append(MergeLayer(keys, values, rotation))
    if plain:
        logger.warning("crystal-kv: no rotary positions found for %s: merges compare its keys as stored", plain[0])
    return layers


class Merger:
    """Carries merges out, layer by layer and head by head; keeps where in a merged block which token is."""

    def __init__(self, layers: list[MergeLayer]) -> None:
        self._layers = layers
        #: Positions of the tokens in merged blocks, by request and logical kernel block.
        #: int32 [layers, heads, block size]
        self._positions: dict[str, dict[int, torch.Tensor]] = {}

    def forget(self, request_ids: Iterable[str]) -> None:
        """The caches of these requests are gone."""
        for request_id in request_ids:
            self._positions.pop(request_id, None)

    def merge(self, request_id: str, order: MergeCommand) -> None:
        """Afterwards `into` holds the tokens that are kept, in any order, and what is in `from_` means nothing."""
        if not self._layers:
            return
        split = order.block_size // self._layers[0].keys.shape[2]
        into, given = _kernel_blocks(order.into, split), _kernel_blocks(order.from_, split)
        slots = [*into, *given, *_kernel_blocks(order.beside, split)]
        known = self._positions.setdefault(request_id, {})
        positions = self._positions_of(slots, known)
        for layer, own in zip(self._layers, positions, strict=True):
            own[:] = self._merge_layer(layer, [slot.block for slot in slots], own, len(into), len(given))
        size = self._layers[0].keys.shape[2]
        for place, slot in enumerate(into):
            known[slot.index] = positions[:, :, place * size : (place + 1) * size].clone()
        for slot in given:
            known.pop(slot.index, None)

    def _positions_of(self, slots: list[TableEntry], known: dict[int, torch.Tensor]) -> torch.Tensor:
        """int32 [layers, heads, tokens]"""
        _, heads, size, _ = self._layers[0].keys.shape
        device = self._layers[0].keys.device
        inside = torch.arange(size, dtype=torch.int32, device=device).expand(len(self._layers), heads, size)
        parts = [known.get(slot.index, inside + slot.index * size) for slot in slots]
        return torch.cat(parts, -1)

    @staticmethod
    def _merge_layer(
        layer: MergeLayer, blocks: list[int], positions: torch.Tensor, into: int, given: int
    ) -> torch.Tensor:
        """Returns the positions [heads, tokens] after the move; those of what is given up mean nothing."""
        size = layer.keys.shape[2]
        ids = torch.tensor(blocks, device=layer.keys.device)
        keys = layer.keys[ids].transpose(0, 1).flatten(1, 2)
        plain = keys if layer.rotation is None else layer.rotation.undo(keys.float(), positions)
        dropped = most_repeated(plain, positions, (into + given) * size, given * size)
        # per head as many tokens stay in `given` as places get free in `into`: both lists go head by head
        head, source = (~dropped[:, into * size :]).nonzero(as_tuple=True)
        source += into * size
        _, target = dropped[:, : into * size].nonzero(as_tuple=True)
        from_block, to_block = ids[source // size], ids[target // size]
        for cache in (layer.keys, layer.values):
            cache[to_block, head, target % size] = cache[from_block, head, source % size]
        moved = positions.clone()
        moved[head, target] = positions[head, source]
        return moved


def _kernel_blocks(slots: list[TableEntry], split: int) -> list[TableEntry]:
    """Blocks of the scheduler, each split into as many of the attention kernel."""
    return [TableEntry(slot.index * split + i, slot.block * split + i) for slot in slots for i in range(split)]


def _rotation(model: torch.nn.Module, attention: str) -> Rotation | None:
    """Of the module that an attention layer is part of."""
    try:
        rotary: Any = model.get_submodule(attention.rpartition(".")[0]).rotary_emb
        return Rotation(rotary.cos_sin_cache, rotary.is_neox_style)
    except AttributeError:
        return None
