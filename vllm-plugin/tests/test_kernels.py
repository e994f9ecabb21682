"""The Triton kernels compute what torch computes."""

import sys
from pathlib import Path

import pytest
from conftest import ROOT
from processes import run_to_end


@pytest.mark.vllm
def test_the_kernels_equal_torch_under_the_interpreter() -> None:
    script = Path(__file__).with_name("check_kernels.py")
    code, output = run_to_end([sys.executable, str(script)])
    assert code == 0, output[-3000:]


@pytest.mark.vllm
def test_the_check_for_gpus_passes_under_the_interpreter() -> None:
    code, output = run_to_end(["env", "TRITON_INTERPRET=1", sys.executable, str(ROOT / "bench" / "gpu" / "check.py")])
    assert code == 0, output[-3000:]
    assert output.count("\nok ") >= 8


@pytest.mark.vllm
@pytest.mark.parametrize("name", ["FLASH_ATTN", "TRITON_ATTN", "CPU_ATTN"])
def test_a_backend_is_the_one_it_replaces_with_builder_and_implementation_of_the_plugin(name: str) -> None:
    from vllm.utils.import_utils import resolve_obj_by_qualname

    from crystal_kv_vllm.backends import BACKENDS
    from crystal_kv_vllm.backends.mixin import BackendMixin, BuilderMixin, ImplMixin

    backend = resolve_obj_by_qualname(BACKENDS[name])
    assert backend.get_name() == name
    assert issubclass(backend, BackendMixin)
    assert issubclass(backend.get_builder_cls(), BuilderMixin)
    assert issubclass(backend.get_impl_cls(), ImplMixin)
    assert not backend.get_builder_cls().supports_update_block_table
