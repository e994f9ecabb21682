"""A keep rule keeps the tokens that a slow float64 reference keeps, in each head group by itself."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm", reason="vLLM is not installed: run with the Python that scripts/vllm-env.sh prints")

from conftest import ROOT  # noqa: E402
from keep_reference import COMPUTED, Rule, Tokens, figures, keep  # noqa: E402
from record_keep_rules import KEPT, NAMED, draw_rule, draw_tokens, is_certain  # noqa: E402

from crystal_kv_vllm.gen import policy_pb2 as pb  # noqa: E402
from crystal_kv_vllm.keep_rule import KEPT_STATISTICS, KeepRule, read_keep_rule  # noqa: E402
from crystal_kv_vllm.rotation import Rotation  # noqa: E402
from crystal_kv_vllm.token_figures import MergedTokens, figures_of  # noqa: E402
from crystal_kv_vllm.token_selection import select_tokens  # noqa: E402

FIXTURE: dict[str, Any] = json.loads((ROOT / "test" / "fixtures" / "keep-rules.json").read_text())


def statistic(name: str) -> "pb.Statistic.ValueType":
    return pb.Statistic.Value(f"STATISTIC_{name.upper()}")


def message(rule: Rule) -> pb.KeepRule:
    """A rule of the fixture as a plan carries it."""
    stages = [
        pb.KeepStage(
            share=stage["share"],
            sampled=stage.get("sampled", False),
            terms=[
                pb.KeepTerm(
                    statistic=statistic(term["statistic"]),
                    weight=term["weight"],
                    scale=pb.Scale.Value(f"SCALE_{term.get('scale', 'unspecified').upper()}"),
                    pool=term.get("pool", 0),
                )
                for term in stage["terms"]
            ],
        )
        for stage in rule["stages"]
    ]
    return pb.KeepRule(stages=stages, seed=rule["seed"])


def read(rule: Rule) -> KeepRule:
    known = read_keep_rule(pb.Merge(rule=message(rule)), KEPT_STATISTICS)
    assert known is not None
    return known


def rotation() -> Rotation:
    angles = torch.arange(400)[:, None] * FIXTURE["theta"] ** (
        -torch.arange(0, FIXTURE["headSize"], 2, dtype=torch.float64) / FIXTURE["headSize"]
    )
    return Rotation(torch.cat([angles.cos(), angles.sin()], -1).float(), halves=True)


def made(count: int, positions: Any, keys: Any, values: Any, **rest: Any) -> MergedTokens:
    """A merge of tokens that are all given at once, candidates first."""

    def others(of_keys: bool) -> list[Any]:
        # one after the other
        every = keys if of_keys else values
        return [(every[:, i : i + 1], positions[:, i : i + 1]) for i in range(count, every.shape[1])]

    return MergedTokens(
        positions=positions[:, :count],
        vectors=lambda of_keys: (keys if of_keys else values)[:, :count],
        rotation=rotation(),
        others=others,
        seeds=torch.full(positions.shape[:1], 7),
        **rest,
    )


def recorded(merge: dict[str, Any]) -> MergedTokens:
    return made(
        merge["candidates"],
        torch.tensor([merge["positions"]], dtype=torch.int32),
        torch.tensor([merge["keys"]]),
        torch.tensor([merge["values"]]),
        head_groups=torch.tensor([merge["headGroup"]]),
        kept={statistic(name): torch.tensor([figure]) for name, figure in merge["statistics"].items()},
    )


def choose(rule: KeepRule, tokens: MergedTokens, room: int) -> Any:
    return select_tokens(rule, replace(tokens, seeds=torch.full_like(tokens.seeds, rule.seed)), room)


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda case: f"{case['name']}-{case['merge']}-{case['room']}")
def test_what_was_recorded_for_all_engines_stays(case: dict[str, Any]) -> None:
    tokens = recorded(FIXTURE["merges"][case["merge"]])
    chosen = choose(read(case["rule"]), tokens, case["room"])
    assert tokens.positions.gather(1, chosen).tolist() == [case["kept"]]


@pytest.mark.parametrize("name", COMPUTED)
def test_every_computed_statistic_is_what_was_recorded(name: str) -> None:
    for merge in FIXTURE["merges"]:
        got = figures_of(statistic(name), recorded(merge))
        assert got.dtype == torch.float32
        np.testing.assert_allclose(got[0].numpy(), merge["figures"][name], atol=2e-6)


def together(groups: list[Tokens]) -> MergedTokens:
    """Head groups of equal size as one merge."""
    return made(
        groups[0].candidates,
        torch.tensor([tokens.positions for tokens in groups], dtype=torch.int32),
        torch.tensor(np.array([tokens.keys for tokens in groups])).float(),
        torch.tensor(np.array([tokens.values for tokens in groups])).float(),
        head_groups=torch.tensor([tokens.group for tokens in groups]),
        kept={
            statistic(name): torch.tensor(np.array([tokens.kept[name] for tokens in groups])).float() for name in KEPT
        },
    )


@pytest.mark.parametrize("seed", range(10))
def test_random_rules_keep_the_references_tokens_in_several_head_groups_at_once(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # also where not all cosines may be held at once
    monkeypatch.setattr("crystal_kv_vllm.token_figures.MAX_COSINES_CPU", [1 << 22, 300][seed % 2])
    rng = np.random.default_rng(seed)
    candidates, others, room = (int(rng.integers(*bounds)) for bounds in ((10, 20), (0, 8), (3, 9)))
    groups = [draw_tokens(rng, candidates, others) for _ in range(4)]
    tokens = together(groups)
    compared = 0
    for rule in [draw_rule(rng) for _ in range(6)]:
        chosen = tokens.positions.gather(1, choose(read(rule), tokens, room)).tolist()
        for group, kept in zip(groups, chosen, strict=True):
            if is_certain(group, rule, room, tries=3):
                assert kept == keep(group, rule, room), rule
                compared += 1
    assert compared >= 16, "few cases are left where rounding cannot decide"


def test_a_merge_without_a_rule_keeps_the_most_distinct_keys() -> None:
    rule = read_keep_rule(pb.Merge(), kept=())
    assert rule is not None
    tokens = recorded(FIXTURE["merges"][2])
    wanted = choose(read(NAMED["distinct_keys"]), tokens, 12)
    assert torch.equal(choose(rule, tokens, 12), wanted)


def test_figures_that_are_no_numbers_still_leave_as_many_tokens_as_there_is_room() -> None:
    tokens = recorded(FIXTURE["merges"][1])
    broken = replace(tokens, kept={name: figure * float("inf") for name, figure in tokens.kept.items()})
    term = {"statistic": "answer", "weight": -3e38}
    rule = read({"seed": 0, "stages": [{"share": 0.5, "terms": [term]}, {"share": 1, "terms": [term]}]})
    assert len(set(choose(rule, broken, 9)[0].tolist())) == 9


def one(**changes: Any) -> dict[str, Any]:
    return {"statistic": pb.STATISTIC_POSITION, "weight": 1.0, **changes}


def stage(share: float = 1.0, **term: Any) -> pb.KeepStage:
    return pb.KeepStage(share=share, terms=[pb.KeepTerm(**one(**term))])


@pytest.mark.parametrize(
    "stages",
    [
        [],
        [pb.KeepStage(share=1)],
        [stage(statistic=0)],
        [stage(statistic=99)],
        [stage(statistic=pb.STATISTIC_PEAK)],
        [stage(scale=9)],
        [stage(pool=4)],
        [stage(weight=float("nan"))],
        [stage(weight=float("-inf"))],
        [stage(share=0.0), stage()],
        [stage(share=1.5), stage()],
        [stage(share=float("nan")), stage()],
        [stage(), pb.KeepStage(share=1)],
    ],
    ids=str,
)
def test_a_rule_that_cannot_be_followed_is_none(stages: list[pb.KeepStage]) -> None:
    kept = {pb.STATISTIC_ATTENTION}
    assert read_keep_rule(pb.Merge(rule=pb.KeepRule(stages=stages)), kept) is None
    good = [stage(share=0.5), stage(statistic=pb.STATISTIC_ATTENTION, pool=3), stage(share=-1)]
    assert read_keep_rule(pb.Merge(rule=pb.KeepRule(stages=good)), kept) is not None


def test_computed_statistics_of_a_merge_are_those_of_its_candidates() -> None:
    # the reference is not the plugin's own arithmetic: a sample by hand
    tokens = Tokens(
        candidates=2,
        group=0,
        positions=[3, 5, 9],
        plain=np.array([[1.0, 0], [0, 1], [1, 1]]),
        keys=np.array([[1.0, 0], [1, 0], [0, 1]]),
        values=np.array([[1.0, 4], [2, -1], [0, 0]]),
        kept={},
    )
    assert figures("distinct_keys", tokens, 0).tolist() == [-0.707, -0.707]
    assert figures("key_similarity", tokens, 0).tolist() == [1, 1]
    assert figures("value_range", tokens, 0).tolist() == [3, 3]
