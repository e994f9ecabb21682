"""The worker's part of a step: holes into the runner's block table, masses out of it."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from itertools import zip_longest
from typing import Any

from vllm.platforms import current_platform
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.kv_cache_interface import KVCacheSpec
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, AsyncModelRunnerOutput, ModelRunnerOutput

from .backends import replaced_backends
from .backends.mixin import BackendMixin, ImplMixin
from .cache_stack import CacheStack, cache_layers, stack_layers
from .compat import engine_refusals, model_refusals
from .graph_queries import graph_queries
from .hole_tracker import GROUP, NULL_BLOCK, hole_tracker
from .mass_recorder import PendingMasses, mass_recorder
from .merger import Merger
from .query_recorder import query_recorder
from .settings import read_settings
from .shadow_marks import ShadowMarks
from .slot_statistics import SlotStatistics
from .spec import evictable_specs
from .token_statistics import TokenStatistics
from .worker_io import ShadowCommand, WorkerCommands, attach_masses, commands_of

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as BaseWorker
else:
    from vllm.v1.worker.gpu_worker import Worker as BaseWorker


class OutputWithMasses(AsyncModelRunnerOutput):
    """An output that is still on its way from the device, and its masses."""

    def __init__(self, output: AsyncModelRunnerOutput, masses: PendingMasses) -> None:
        self._output = output
        self._masses = masses

    def get_output(self) -> ModelRunnerOutput:
        output = self._output.get_output()
        if output is not EMPTY_MODEL_RUNNER_OUTPUT:
            attach_masses(output, self._masses.resolve(), self._masses.reads())
        return output


class CrystalWorker(BaseWorker):
    """For `--worker-cls`. Does nothing of its own while the scheduler gives no commands."""

    #: What works on the caches; made when it is first needed, since the caches are not there before.
    _merger: Merger | None = None
    _marks: ShadowMarks | None = None
    _statistics: TokenStatistics | None = None

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """The layers of a supported engine get attention that can leave holes out and be measured."""
        with replaced_backends() if self._supported else nullcontext():
            super().load_model(*args, **kwargs)
        # before vLLM measures how much memory is left
        if self._supported:
            self._reserve_graph_queries()

    def get_kv_cache_spec(self) -> dict[str, KVCacheSpec]:
        """Of a supported model, specs by which the scheduler gets a manager that can evict; else vLLM's own."""
        specs = super().get_kv_cache_spec()
        layers = self.vllm_config.compilation_config.static_forward_context
        acts = self._supported and all(_measures(layers[name]) for name in specs)
        if not acts or model_refusals(self.vllm_config, specs):
            graph_queries.drop()
            return specs
        return evictable_specs(specs)

    def determine_available_memory(self) -> int:
        """For the cache: vLLM's profile counts what a forward pass needs, and the model's weights."""
        available: int = super().determine_available_memory()
        stated = self.vllm_config.cache_config.kv_cache_memory_bytes
        return available if stated else available - graph_queries.bytes

    def _reserve_graph_queries(self) -> None:
        """For full graphs, if there will be any."""
        config = self.vllm_config
        mode, tokens = config.compilation_config.cudagraph_mode, config.compilation_config.max_cudagraph_capture_size
        if tokens is None or not mode.has_full_cudagraphs():
            return
        if mode.separate_routine():
            # they are of decoding alone
            tokens = min(tokens, config.scheduler_config.max_num_seqs)
        layers = config.compilation_config.static_forward_context.items()
        attention = {name: layer.impl for name, layer in layers if isinstance(getattr(layer, "impl", None), ImplMixin)}
        graph_queries.reserve(attention, tokens, config.model_config.dtype, self.device)

    @cached_property
    def _supported(self) -> bool:
        """Whether nothing speaks against acting that is known before the model is loaded."""
        settings = read_settings(os.environ)
        return settings.enabled and not engine_refusals(self.vllm_config, settings)

    def execute_model(self, scheduler_output: SchedulerOutput, *args: Any, **kwargs: Any) -> Any:
        commands = commands_of(scheduler_output)
        hole_tracker.step(scheduler_output, () if commands is None else commands.holes)
        gone = scheduler_output.finished_req_ids | (scheduler_output.preempted_req_ids or set())
        if self._statistics is not None:
            self._statistics.forget(gone)
        if self._merger is not None:
            self._merger.forget(gone)
        if self._marks is not None:
            self._marks.forget(gone)
        if commands is not None:
            self._change(commands, gone)
            # all ranks punch holes, one measures: vLLM takes rank 0's output
            if commands.measure and self.rank == 0:
                mass_recorder.begin(commands, self._row_ids)
        graph_queries.begin()
        return super().execute_model(scheduler_output, *args, **kwargs)

    def sample_tokens(self, *args: Any, **kwargs: Any) -> Any:
        output = super().sample_tokens(*args, **kwargs)
        for name, queries in graph_queries.replayed():
            layer = self.vllm_config.compilation_config.static_forward_context[name]
            layer.impl.record(name, queries, layer.kv_cache)
        # what runs between steps is of no request
        graph_queries.end()
        query_recorder.end()
        masses = mass_recorder.finish(self._marks)
        if masses.codes is None:
            return output
        if isinstance(output, AsyncModelRunnerOutput):
            return OutputWithMasses(output, masses)
        if output is not None and output is not EMPTY_MODEL_RUNNER_OUTPUT:
            attach_masses(output, masses.resolve(), masses.reads())
        return output

    def _change(self, commands: WorkerCommands, gone: set[str]) -> None:
        """Before anything is computed: the blocks that are given up may belong to another request already."""
        merges = {name: of for name, of in commands.merges.items() if name not in gone}
        holes = {name: indices for name, indices in commands.holes.items() if name not in gone}
        # one rank measures
        shadow = {name: of for name, of in commands.shadow.items() if name not in gone and self.rank == 0}
        query_recorder.end()
        statistics = self._kept_statistics(commands)
        if statistics is not None:
            statistics.settle({*merges, *holes, *shadow})
        if merges or shadow:
            self._merger = self._merger or Merger(self._stacks)
        # the first merges of all requests together, then the second ones
        for round_ in zip_longest(*([(name, merge) for merge in of] for name, of in merges.items())):
            assert self._merger is not None
            some = [named for named in round_ if named is not None]
            slots: Sequence[SlotStatistics] = () if statistics is None else statistics.of_merges(some)
            self._merger.merge_all(some, slots)
        if holes:
            self._punch(holes)
        if statistics is not None:
            statistics.punch(holes)
        self._mark(shadow, {*merges, *holes}, statistics)
        if statistics is not None:
            step = statistics.follow(commands.queries)
            if step is not None:
                query_recorder.begin(step, self._row_ids)

    def _mark(
        self, shadow: dict[str, list[ShadowCommand]], changed: set[str], statistics: TokenStatistics | None
    ) -> None:
        """changed: requests that really lose tokens; nothing is marked of them any more."""
        if self._marks is not None:
            self._marks.forget(changed)
        for name, commanded in shadow.items():
            assert self._merger is not None
            self._marks = self._marks or ShadowMarks(self._stacks, self._merger)
            for command in commanded:
                slots: Sequence[SlotStatistics] = ()
                if statistics is not None:
                    slots = statistics.of_blocks(name, command.row)
                    for merge in command.merges:
                        statistics.ask_again(name, merge)
                self._marks.mark(name, command, slots)

    def _kept_statistics(self, commands: WorkerCommands) -> TokenStatistics | None:
        if self._statistics is None and commands.kept is not None:
            ring = read_settings(os.environ).query_ring
            self._statistics = TokenStatistics(self._stacks, self.vllm_config.cache_config.block_size, ring)
        if self._statistics is not None:
            self._statistics.keep(commands.kept)
        return self._statistics

    @cached_property
    def _stacks(self) -> list[CacheStack]:
        context = self.vllm_config.compilation_config.static_forward_context
        return stack_layers(cache_layers(context, self.model_runner.get_model()))

    def _punch(self, holes: dict[str, list[int]]) -> None:
        if self.use_v2_model_runner:
            self._punch_v2(holes)
        else:
            self._punch_v1(holes)

    def _punch_v1(self, holes: dict[str, list[int]]) -> None:
        """A request that is running but not scheduled loses its row and gets it back from `requests`: hence both."""
        runner = self.model_runner
        event = getattr(runner, "prepare_inputs_event", None)
        if event is not None:
            # the table is pinned and copied asynchronously
            event.synchronize()
        batch = runner.input_batch
        for name, indices in holes.items():
            state = runner.requests.get(name)
            if state is None:
                continue
            for index in indices:
                state.block_ids[GROUP][index] = NULL_BLOCK
            row = batch.req_id_to_index.get(name)
            if row is not None:
                batch.block_table[GROUP].block_table.np[row, indices] = NULL_BLOCK

    def _punch_v2(self, holes: dict[str, list[int]]) -> None:
        """Stages the writes; the runner applies them itself, once."""
        runner = self.model_runner
        for name, indices in holes.items():
            slot = runner.req_states.req_id_to_index.get(name)
            if slot is not None:
                for index in indices:
                    runner.block_tables.block_tables[GROUP].stage_write(slot, index, [NULL_BLOCK])

    def _row_ids(self, metadata: CommonAttentionMetadata) -> list[str]:
        runner = self.model_runner
        if self.use_v2_model_runner:
            names = runner.req_states.index_to_req_id
            return [names[int(slot)] for slot in metadata.req_idx]
        return list(runner.input_batch.req_ids)


def _measures(layer: Any) -> bool:
    return issubclass(layer.get_attn_backend(), BackendMixin)
