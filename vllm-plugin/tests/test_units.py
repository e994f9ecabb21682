"""Parts that need no engine."""

import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm", reason="vLLM is not installed: run with the Python that scripts/vllm-env.sh prints")

from types import SimpleNamespace  # noqa: E402

from crystal_kv_vllm.compact import compact  # noqa: E402
from crystal_kv_vllm.compat import TESTED_VERSIONS, missing_names, version_refusals  # noqa: E402
from crystal_kv_vllm.evict import Protection, check_evictions, check_merge, evictable_range  # noqa: E402
from crystal_kv_vllm.gen import policy_pb2 as pb  # noqa: E402
from crystal_kv_vllm.head_groups import HeadGroups  # noqa: E402
from crystal_kv_vllm.masses import block_logsumexp, block_masses, log_codes, select_rows  # noqa: E402
from crystal_kv_vllm.outbox import Outbox  # noqa: E402
from crystal_kv_vllm.output_markers import OutputMarkers  # noqa: E402
from crystal_kv_vllm.protocol import MODES, PROTOCOL_MAX, PROTOCOL_MIN, REJECTS  # noqa: E402
from crystal_kv_vllm.reporter import MAX_MASS_BYTES, ComputedRequest, Reporter  # noqa: E402
from crystal_kv_vllm.request_options import choice_index, request_options  # noqa: E402
from crystal_kv_vllm.startup import engine_name  # noqa: E402
from crystal_kv_vllm.tracked_request import TrackedRequest  # noqa: E402


def block(references: int = 1, null: bool = False) -> SimpleNamespace:
    return SimpleNamespace(ref_cnt=references, is_null=null)


class TestEvict:
    protection = Protection(sink_tokens=4, recent_tokens=64)

    def test_prompt_sinks_and_the_newest_tokens_are_outside_the_range(self) -> None:
        assert evictable_range(40, 200, 32, self.protection) == (2, 4)
        assert evictable_range(1, 200, 32, self.protection) == (1, 4)
        assert evictable_range(40, 90, 32, self.protection) == (2, 2)

    def test_each_block_goes_or_stays_with_a_reason(self) -> None:
        row = [block(), block(), block(null=True), block(2), block(), block()]
        check = check_evictions([9, 4, 3, 2, 0, 4], row, (), (1, 5))
        assert check.allowed == [4]
        assert check.rejected == {
            pb.REJECT_PROTECTED: [0],
            pb.REJECT_NOT_RESIDENT: [2],
            pb.REJECT_SHARED: [3],
            pb.REJECT_OUT_OF_RANGE: [9],
        }

    def test_a_block_shared_only_with_the_own_probe_may_go(self) -> None:
        row = [block(), block(2), block(3)]
        assert check_evictions([1, 2], row, row, (1, 3)).allowed == [1]


class TestCheckMerge:
    row = [block(), block(), block(null=True), block(2), block(), block()]  # noqa: RUF012

    def test_private_full_blocks_beyond_the_prompt_may_be_merged(self) -> None:
        assert check_merge([4], [1], self.row, (1, 5)) == {}

    def test_each_block_in_the_way_is_named_with_its_reason(self) -> None:
        assert check_merge([4, 0], [3, 2, 9], self.row, (1, 5)) == {
            pb.REJECT_PROTECTED: [0],
            pb.REJECT_NOT_RESIDENT: [2],
            pb.REJECT_SHARED: [3],
            pb.REJECT_OUT_OF_RANGE: [9],
        }

    @pytest.mark.parametrize(("into", "from_"), [([], [1]), ([1], []), ([1, 4], [4]), ([1, 1], [4])])
    def test_a_merge_needs_a_block_to_keep_and_one_to_free_and_no_block_twice(
        self, into: list[int], from_: list[int]
    ) -> None:
        assert list(check_merge(into, from_, self.row, (1, 5))) == [pb.REJECT_INVALID_MERGE]


class TestCompact:
    def test_holes_are_dropped_and_lengths_reduced_by_row(self) -> None:
        table = torch.tensor([[5, 0, 6, 0, 7, 9], [3, 4, 9, 9, 9, 9], [0, 8, 9, 9, 9, 9]], dtype=torch.int32)
        lengths = torch.tensor([18, 7, 6], dtype=torch.int32)
        before = table.clone(), lengths.clone()
        result = compact(table, lengths, 4, 1)
        assert result is not None
        compacted, seq_lens, counts = result
        assert compacted[0, :3].tolist() == [5, 6, 7]
        assert compacted[1, :2].tolist() == [3, 4]
        assert compacted[2, :1].tolist() == [8]
        assert seq_lens.tolist() == [10, 7, 2]
        assert counts.tolist() == [2, 0, 1]
        assert torch.equal(table, before[0])
        assert torch.equal(lengths, before[1])

    def test_a_null_block_may_be_split_into_several_kernel_blocks(self) -> None:
        table = torch.tensor([[4, 5, 0, 1, 6, 7]], dtype=torch.int32)
        result = compact(table, torch.tensor([22], dtype=torch.int32), 4, 2)
        assert result is not None
        assert result[0][0, :4].tolist() == [4, 5, 6, 7]
        assert result[1].tolist() == [14]

    def test_rows_of_no_request_pass_unchanged(self) -> None:
        assert compact(torch.zeros(2, 4, dtype=torch.int32), torch.tensor([16, 1], dtype=torch.int32), 4, 1) is None


class TestMasses:
    @pytest.mark.parametrize("softcap", [0.0, 5.0])
    @pytest.mark.parametrize("with_sinks", [False, True])
    def test_masses_are_the_softmax_summed_by_block(self, softcap: float, with_sinks: bool) -> None:
        torch.manual_seed(0)
        size, kv_heads, heads, head_size = 4, 2, 3, 8
        lengths = torch.tensor([9, 4, 3], dtype=torch.int32)
        table = torch.tensor([[3, 1, 5], [2, 0, 0], [4, 0, 0]], dtype=torch.int32)
        cache = torch.randn(6, kv_heads, head_size, size)
        starts = torch.tensor([0, 1, 3, 4], dtype=torch.int32)
        rows = select_rows([(0, "a"), (2, "c")], table, lengths, starts, size)
        assert rows is not None
        assert rows.counts == [3, 1]
        assert rows.tokens.tolist() == [0, 3]
        query = torch.randn(2, kv_heads, heads, head_size)
        sinks = torch.randn(kv_heads, heads) if with_sinks else None
        lse = block_logsumexp(query, cache[rows.blocks], rows, 0.3, softcap)
        masses = block_masses(lse, rows, sinks)
        start = 0
        for place, row in enumerate([0, 2]):
            count, length = rows.counts[place], int(lengths[row])
            keys = torch.cat([cache[int(b)] for b in table[row, :count]], 2)[:, :, :length]
            scores = torch.einsum("ghd,gdt->ght", query[place], keys) * 0.3
            if softcap:
                scores = softcap * torch.tanh(scores / softcap)
            extra = scores if sinks is None else torch.cat([scores, sinks[:, :, None]], 2)
            weights = extra.softmax(2)[:, :, :length].mean(1)
            wanted = torch.stack([weights[:, i * size : (i + 1) * size].sum(1) for i in range(count)])
            assert torch.allclose(masses[start : start + count], wanted, atol=1e-6)
            start += count

    @pytest.mark.parametrize("mass", [1.0, 0.9, 0.5, 0.1, 2**-7.5, 1e-9, 0.0])
    def test_a_log_code_is_what_the_contract_says(self, mass: float) -> None:
        wanted = 31 if mass == 0 else min(31, math.floor(-2 * math.log2(mass)))
        assert log_codes(torch.tensor([mass])).tolist() == [wanted]


class TestProtocol:
    def test_a_word_is_the_contracts_name_without_its_prefix(self) -> None:
        assert REJECTS[pb.REJECT_STALE_EPOCH] == "stale_epoch"
        assert set(MODES.values()) == {"enforce", "shadow", "off"}
        assert len(REJECTS) == len(pb.Reject.values()) - 1, "all but the unspecified one"

    def test_every_version_of_the_contract_is_spoken(self) -> None:
        assert {PROTOCOL_MIN, PROTOCOL_MAX} <= set(pb.ProtocolVersion.values())
        assert 0 < PROTOCOL_MIN <= PROTOCOL_MAX


class TestOptions:
    @pytest.mark.parametrize(("mode", "word"), MODES.items())
    def test_every_mode_of_the_contract_may_be_asked_for(self, mode: "pb.Mode.ValueType", word: str) -> None:
        assert request_options({"crystalkv_mode": word})[1].mode == mode

    def test_options_come_from_the_flat_keys(self) -> None:
        name, options = request_options(
            {"crystalkv_id": "x", "crystalkv_profile": "p", "crystalkv_budget_tokens": 0, "crystalkv_mode": "shadow"}
        )
        assert name == "x"
        assert options == pb.RequestOptions(profile="p", budget_tokens=0, mode=pb.MODE_SHADOW)

    def test_nothing_and_nonsense_mean_the_defaults(self) -> None:
        assert request_options(None) == ("", pb.RequestOptions())
        assert request_options({"crystalkv_budget_tokens": -1, "crystalkv_mode": "x"}) == ("", pb.RequestOptions())

    def test_the_choice_is_in_the_request_id(self) -> None:
        assert choice_index("2_chatcmpl-abc-1f") == 2
        assert choice_index("chatcmpl-abc-1f") == 0


def step_message(step: int, more: bool = False) -> pb.AttachRequest:
    return pb.AttachRequest(step=pb.Step(step=step, more=more))


class TestOutbox:
    def test_a_full_box_drops_the_oldest_step_and_keeps_the_rest_in_order(self) -> None:
        box = Outbox(max_steps=2)
        box.put(step_message(1))
        box.put(pb.AttachRequest(ack=pb.Ack(plan_sequence=7)))
        box.put(step_message(2))
        box.put(step_message(3))
        assert box.dropped_steps == 1
        messages = iter(box)
        assert next(messages).WhichOneof("message") == "ack"
        assert [next(messages).step.step for _ in "ab"] == [2, 3]

    def test_a_step_in_several_messages_is_one_step_and_is_dropped_whole(self) -> None:
        box = Outbox(max_steps=2)
        for step, more in ((1, True), (1, True), (1, False), (2, True), (2, False)):
            box.put(step_message(step, more))
        assert box.dropped_steps == 0
        messages = iter(box)
        assert next(messages).step.step == 1
        box.put(step_message(3))
        assert box.dropped_steps == 1
        box.put(step_message(4))
        assert box.dropped_steps == 2
        assert [next(messages).step.step for _ in "ab"] == [3, 4]

    def test_a_step_that_was_sent_makes_room(self) -> None:
        box = Outbox(max_steps=1)
        messages = iter(box)
        for step in range(1, 4):
            box.put(step_message(step, more=True))
            box.put(step_message(step))
            assert [next(messages).step.more for _ in "ab"] == [True, False]
        assert box.dropped_steps == 0

    def test_too_many_other_messages_close_it(self) -> None:
        box = Outbox(max_messages=2)
        for _ in range(3):
            box.put(pb.AttachRequest(ack=pb.Ack()))
        assert box.closed
        assert list(box) == []


def tracked(name: str = "r", tokens: int = 8, prompt: int = 4) -> TrackedRequest:
    request = SimpleNamespace(
        request_id=name,
        num_preemptions=0,
        num_computed_tokens=tokens,
        num_in_flight_tokens=0,
        num_prompt_tokens=prompt,
        num_output_tokens=tokens - prompt,
        num_output_placeholders=0,
        num_tokens=tokens,
        all_token_ids=list(range(tokens)),
    )
    return TrackedRequest(1, request, "", pb.RequestOptions(), scanned=prompt)


class TestTracked:
    def test_segments_and_the_end_of_thinking_are_found_once(self) -> None:
        one = tracked()
        one.request.all_token_ids[4:] = [9, 5, 6, 9]
        one.scan(OutputMarkers(end_of_thinking=((5, 6),), segments=frozenset([9])))
        assert one.segment_starts == [5, 8]
        assert one.thinking_end == 7
        assert one.phase == pb.PHASE_ANSWER
        one.scan(OutputMarkers(segments=frozenset([9])))
        assert one.segment_starts == [5, 8]

    def test_tokens_in_flight_are_not_computed_also_after_a_preemption(self) -> None:
        one = tracked()
        one.request.num_in_flight_tokens = 2
        assert one.computed == 6
        one.request.num_computed_tokens = 0
        assert one.computed == 0


def received(box: Outbox) -> list[pb.AttachRequest]:
    box._changed.acquire()
    messages = list(box._messages)
    box._changed.release()
    return messages


class TestReporter:
    def attached(self) -> tuple[Reporter, Outbox]:
        reporter, box = Reporter(4, 8, every_step=True), Outbox()
        assert reporter.configure(pb.Configure(measure_every=2, probe_tokens=4), box, [])
        return reporter, box

    def test_a_new_stream_begins_with_a_snapshot_and_a_new_configuration_does_not(self) -> None:
        reporter, box = self.attached()
        assert not reporter.configure(pb.Configure(measure_every=3), box, [])
        assert [message.WhichOneof("message") for message in received(box)] == ["snapshot"]

    def test_every_second_decode_step_is_measured_and_every_step_of_a_probe(self) -> None:
        reporter, _ = self.attached()
        one, probe = tracked(), tracked()
        probe.parent = one
        assert [reporter.wants_masses(one, 1, n) for n in range(4)] == [True, False, True, False]
        assert reporter.wants_masses(probe, 1, 1)
        assert not Reporter(4, 8, every_step=True).wants_masses(one, 1, 0)

    def test_without_lockstep_all_requests_are_measured_at_the_same_steps(self) -> None:
        reporter = Reporter(4, 8, every_step=False)
        reporter.configure(pb.Configure(measure_every=2), Outbox(), [])
        wanted = [[reporter.wants_masses(tracked(), step, n) for n in (0, 1)] for step in (1, 2)]
        assert wanted == [[False, False], [True, True]]

    def test_an_ack_waits_for_the_steps_that_ran_with_the_blocks(self) -> None:
        reporter, box = self.attached()
        reporter.step(4, pb.PoolState(), [], {}, {})
        reporter.ack(1, 6, [])
        assert received(box)[-1].WhichOneof("message") == "step"
        reporter.step(5, pb.PoolState(), [], {}, {})
        assert [message.WhichOneof("message") for message in received(box)[-2:]] == ["step", "ack"]

    def test_a_large_step_is_split(self) -> None:
        reporter, box = self.attached()
        requests = [tracked(str(i)) for i in range(3)]
        masses = {str(i): bytes(MAX_MASS_BYTES // 2 + 1) for i in range(3)}
        reporter.step(1, pb.PoolState(), [ComputedRequest(one, 0, 8) for one in requests], masses, {})
        steps = [message.step for message in received(box)[1:]]
        assert [(len(step.requests), step.more) for step in steps] == [(1, True), (1, True), (1, False)]
        assert all(message.ByteSize() < 4 << 20 for message in received(box))

    def test_without_lockstep_only_news_is_reported(self) -> None:
        reporter, box = Reporter(4, 6, every_step=False), Outbox()
        reporter.configure(pb.Configure(measure_every=2), box, [])
        one, pool = tracked(prompt=1), pb.PoolState(free_blocks=9)
        for step, tokens in enumerate(range(8, 21), 1):
            reporter.step(step, pool, [ComputedRequest(one, 0, tokens)], {"r": b"x"} if tokens == 15 else {}, {})
        told = [message.step for message in received(box) if message.HasField("step")]
        # a block begins at 9, 13 and 17, is full at 8, 12, 16 and 20, and leaves the newest tokens at 10, 14 and 18
        assert [step.requests[0].computed_tokens for step in told] == [8, 9, 10, 12, 13, 14, 15, 16, 17, 18, 20]
        reporter.step(20, pb.PoolState(free_blocks=8), [], {}, {})
        reporter.step(21, pb.PoolState(free_blocks=8), [], {}, {})
        assert [message.step.step for message in received(box)][-1] == 20

    def test_a_step_of_an_earlier_epoch_is_not_reported(self) -> None:
        reporter, box = self.attached()
        one = tracked()
        entry = ComputedRequest(one, 0, 8)
        one.request.num_preemptions = 1
        reporter.step(1, pb.PoolState(), [entry], {"r": b"x"}, {})
        assert not received(box)[-1].step.requests


class TestHeadGroups:
    groups = HeadGroups(("layers.0", "layers.2"), 2)

    def test_they_are_numbered_layer_by_layer_and_layers_without_attention_have_none(self) -> None:
        assert len(self.groups) == 4
        assert self.groups.select([3, 0]) == (("layers.2", 1), ("layers.0", 0))
        assert self.groups.select([]) == self.groups.select(range(4))

    def test_a_large_pool_is_measured_in_a_spread_of_layers_and_heads_that_takes_two_megabytes_a_step(self) -> None:
        layers = [f"layers.{layer}" for layer in range(64)]
        spec = SimpleNamespace(num_kv_heads=8)
        group = SimpleNamespace(layer_names=layers, kv_cache_spec=spec)
        groups = HeadGroups.of(SimpleNamespace(kv_cache_groups=[group], num_blocks=256 * 512))
        chosen = groups.select([])
        assert len(groups) == len(set(chosen)) == 16
        assert len({layer for layer, _ in chosen}) == 16
        assert {head for _, head in chosen} == set(range(8))
        assert groups.select([3]) == (chosen[3],)
        small = HeadGroups.of(SimpleNamespace(kv_cache_groups=[group], num_blocks=2000))
        assert small.select([]) == tuple((layer, head) for layer in layers for head in range(8))


class TestRanks:
    def test_data_parallel_ranks_are_engines_of_their_own(self) -> None:
        assert [engine_name("vllm", rank) for rank in range(2)] == ["vllm", "vllm-dp1"]


class TestCompatibility:
    def test_every_private_name_exists_in_the_tested_version(self) -> None:
        assert missing_names() == []

    def test_another_version_is_refused(self) -> None:
        assert not list(version_refusals(TESTED_VERSIONS[0] + "+cpu"))
        assert [refusal.feature for refusal in version_refusals("0.99.0")] == ["version"]
