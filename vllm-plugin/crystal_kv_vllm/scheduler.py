"""vLLM's schedulers, sync and async, that obey plans."""

from collections.abc import Callable
from typing import Any

from vllm.config import VllmConfig
from vllm.v1.core.kv_cache_manager import KVCacheBlocks
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.metrics.stats import SchedulerStats
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from .scheduler_hooks import SchedulerHooks
from .startup import start_plugin
from .worker_io import commands_of, masses_of, reads_of


class SchedulerMixin:
    """Comes before the scheduler class. Where the plugin is not active, everything is the base class's."""

    _hooks: SchedulerHooks | None = None
    _stop_plugin: Callable[[], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hooks, self._stop_plugin = start_plugin(self)

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        if self._hooks is None:
            return super().schedule(*args, **kwargs)  # type: ignore[misc]
        hooks = self._hooks
        with hooks.lock:
            # before the base class: it publishes blocks in the prefix cache before they are computed
            hooks.before_schedule()
            output = super().schedule(*args, **kwargs)  # type: ignore[misc]
            hooks.after_schedule(output)
        return output

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput, *args: Any, **kwargs: Any
    ) -> dict[int, EngineCoreOutputs]:
        if self._hooks is None:
            return super().update_from_output(  # type: ignore[misc]
                scheduler_output, model_runner_output, *args, **kwargs
            )
        hooks = self._hooks
        with hooks.lock:
            hooks.before_update()
            outputs = super().update_from_output(  # type: ignore[misc]
                scheduler_output, model_runner_output, *args, **kwargs
            )
            commands = commands_of(scheduler_output)
            step = 0 if commands is None else commands.step
            hooks.after_update(step, masses_of(model_runner_output), reads_of(model_runner_output), outputs)
        return outputs

    def add_request(self, request: Request) -> None:
        if self._hooks is None:
            super().add_request(request)  # type: ignore[misc]
            return
        with self._hooks.lock:
            super().add_request(request)  # type: ignore[misc]
            # else it was the next input, or the end, of a request that streams its input
            if self.requests.get(request.request_id) is request:  # type: ignore[attr-defined]
                self._hooks.request_added(request)

    def finish_requests(self, request_ids: Any, finished_status: RequestStatus) -> list[Request]:
        if self._hooks is None:
            return super().finish_requests(request_ids, finished_status)  # type: ignore[misc]
        with self._hooks.lock:
            finished = super().finish_requests(request_ids, finished_status)  # type: ignore[misc]
            self._hooks.after_finish()
        return finished

    def _free_request(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        if self._hooks is not None:
            self._hooks.request_ending(request)
        return super()._free_request(request, *args, **kwargs)  # type: ignore[misc]

    def _get_local_prefix_cache_hit(
        self, request: Request, *args: Any, **kwargs: Any
    ) -> tuple[KVCacheBlocks, int, int, bool]:
        shared = None if self._hooks is None else self._hooks.probes.shared_prefix(request)
        if shared is None:
            return super()._get_local_prefix_cache_hit(request, *args, **kwargs)  # type: ignore[misc]
        blocks = self.kv_cache_manager.create_kv_cache_blocks((shared,))  # type: ignore[attr-defined]
        return blocks, len(shared) * self.block_size, 0, False  # type: ignore[attr-defined]

    def make_stats(self, *args: Any, **kwargs: Any) -> SchedulerStats | None:
        stats: SchedulerStats | None = super().make_stats(*args, **kwargs)  # type: ignore[misc]
        if stats is not None and self._hooks is not None:
            stats.num_running_reqs -= self._hooks.probes.count_running()
        return stats

    def shutdown(self) -> None:
        self._stop_plugin()
        super().shutdown()  # type: ignore[misc]


class CrystalScheduler(SchedulerMixin, Scheduler):
    """One step at a time."""


class CrystalAsyncScheduler(SchedulerMixin, AsyncScheduler):
    """Steps overlap."""


def scheduler(vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> Scheduler:
    """For `--scheduler-cls`: vLLM neither picks an async variant of a custom class nor turns async scheduling off."""
    variant = CrystalAsyncScheduler if vllm_config.scheduler_config.async_scheduling else CrystalScheduler
    return variant(vllm_config, *args, **kwargs)
