"""Full CUDA graphs: a replay computes and measures what the layers would have done themselves."""

import sys
from pathlib import Path

import pytest
from processes import run_to_end


@pytest.mark.vllm
def test_replays_of_full_graphs_leave_holes_out_and_are_measured(model: str) -> None:
    script = Path(__file__).with_name("check_graphs.py")
    code, output = run_to_end([sys.executable, str(script), model])
    assert code == 0, output[-3000:]
    assert output.endswith("checked\n")


@pytest.mark.vllm
@pytest.mark.parametrize(("acts", "mode"), [(True, "PIECEWISE"), (False, "FULL_AND_PIECEWISE")])
def test_vllm_captures_no_attention_whose_tables_are_made_for_each_batch(acts: bool, mode: str) -> None:
    import torch
    from vllm.config import CompilationConfig, CompilationMode, CUDAGraphMode
    from vllm.v1.attention.backends.triton_attn import TritonAttentionMetadataBuilder
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    from crystal_kv_vllm.backends.mixin import UncapturedBuilderMixin
    from crystal_kv_vllm.spec import CrystalSpec

    class Builder(UncapturedBuilderMixin, TritonAttentionMetadataBuilder):
        """Of a backend that vLLM would capture."""

    spec = (CrystalSpec if acts else FullAttentionSpec)(
        block_size=32, num_kv_heads=2, head_size=16, dtype=torch.float32
    )
    config = CompilationConfig(mode=CompilationMode.VLLM_COMPILE, cudagraph_mode=CUDAGraphMode.FULL_AND_PIECEWISE)
    config.splitting_ops = list(config._attention_ops)
    config.cudagraph_capture_sizes = [1, 2]
    config.max_cudagraph_capture_size = 2
    support = Builder.get_cudagraph_support(None, spec)
    assert config.resolve_cudagraph_mode_and_sizes(support, "backend").name == mode
