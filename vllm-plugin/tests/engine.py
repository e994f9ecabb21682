"""A real vLLM with the plugin, in the test's own process."""

import gc
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scripted_peer import ScriptedPeer

BLOCK_SIZE = 32

#: Settings of an engine that waits for each plan: as long as a setting allows, since a plan that is missed on a busy
#: machine makes other evictions.
LOCKSTEP = {"LOCKSTEP": "1", "LOCKSTEP_TIMEOUT_MS": "60000", "STRICT": "1"}

PLUGIN = {
    "scheduler_cls": "crystal_kv_vllm.scheduler.scheduler",
    "worker_cls": "crystal_kv_vllm.worker.CrystalWorker",
}


def engine_arguments(model: str, **overrides: Any) -> dict[str, Any]:
    return {
        "model": model,
        "dtype": "float32",
        "max_model_len": 1024,
        "block_size": BLOCK_SIZE,
        "enforce_eager": True,
        "max_num_seqs": 16,
        "num_gpu_blocks_override": 200,
        "max_logprobs": -1,
        "logprobs_mode": "raw_logits",
        "seed": 0,
        **overrides,
    }


NAMES = [
    "ant",
    "bee",
    "cat",
    "dog",
    "elk",
    "fox",
    "gnu",
    "hen",
    "ibis",
    "jay",
    "kiwi",
    "lynx",
    "mole",
    "newt",
    "owl",
    "pig",
    "quail",
    "ram",
    "seal",
    "toad",
    "vole",
    "wasp",
    "yak",
]


def program(seed: int, lines: int) -> str:
    """A program of crystal-mini's task: registers that are sums of digits and of registers before them."""
    rng = random.Random(seed)
    names = rng.sample(NAMES, lines)
    text = []
    for line, name in enumerate(names):
        operands = [str(rng.randrange(10)) if line < 2 else rng.choice(names[max(0, line - 3) : line]) for _ in "ab"]
        text.append(f"L{lines - line} {name} {operands[0]} {operands[1]} :")
    asked = [names[0], names[lines // 2], names[-1]]
    return " ".join(text + [f"Q{number} {name}" for number, name in enumerate(asked, 1)])


def prompt(seed: int, length: int) -> list[int]:
    """Made-up tokens of crystal-mini's vocabulary, without its special ones."""
    return [1] + [10 + (seed * 31 + place * 17 + place * place * seed) % 150 for place in range(length - 1)]


@dataclass
class Output:
    tokens: list[int]
    #: For each generated token the logits of the whole vocabulary.
    logits: list[dict[int, float]]
    finish_reason: str | None


def use_settings(settings: dict[str, str]) -> None:
    """Makes these the plugin's settings, and all others the defaults."""
    for name in list(os.environ):
        if name.startswith("CRYSTALKV_") and name != "CRYSTALKV_TEST_MODEL":
            del os.environ[name]
    os.environ.update({f"CRYSTALKV_{name}": value for name, value in settings.items()})


class RunningEngine:
    def __init__(self, model: str, peer: ScriptedPeer | None, settings: dict[str, str], **overrides: Any) -> None:
        use_settings({"POLICY_ADDRESS": "" if peer is None else peer.address, **settings})
        from vllm import LLM

        self.peer = peer
        try:
            self.llm = LLM(**engine_arguments(model, **{**PLUGIN, **overrides}))
        except BaseException:
            forget_groups()
            raise
        self.core: Any = self.llm.llm_engine.engine_core.engine_core
        if peer is not None:
            try:
                peer.wait_for(peer.attached.is_set)
            except TimeoutError:
                self.close()
                raise

    @property
    def scheduler(self) -> Any:
        return self.core.scheduler

    @property
    def hooks(self) -> Any:
        return self.scheduler._hooks

    @property
    def manager(self) -> Any:
        return self.scheduler.kv_cache_manager.coordinator.single_type_managers[0]

    @property
    def pool(self) -> Any:
        return self.scheduler.kv_cache_manager.block_pool

    def program(self, seed: int, lines: int) -> list[int]:
        """The tokens of a program in the chat template, up to the begin of thinking."""
        messages = [{"role": "user", "content": program(seed, lines)}]
        tokens: list[int] = self.llm.get_tokenizer().apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return tokens

    def generate(
        self, prompts: Sequence[Sequence[int]], tokens: int, logits: bool = False, **sampling: Any
    ) -> list[Output]:
        from vllm import SamplingParams

        params = SamplingParams(
            **{
                "temperature": 0.0,
                "max_tokens": tokens,
                "ignore_eos": True,
                "logprobs": -1 if logits else None,
                "detokenize": False,
                **sampling,
            }
        )
        results = self.llm.generate([{"prompt_token_ids": list(p)} for p in prompts], params, use_tqdm=False)
        peer = self.peer
        if peer is not None:
            assert self.hooks.reporter.attached, "the engine has lost the peer"
            peer.wait_for(lambda: len(peer.requests) >= len(prompts) and peer.all_finished())
        return [
            Output(
                list(result.outputs[0].token_ids),
                [
                    {token: entry.logprob for token, entry in place.items()}
                    for place in result.outputs[0].logprobs or []
                ],
                result.outputs[0].finish_reason,
            )
            for result in results
        ]

    def abort_all(self) -> None:
        """Ends what a failed test left running."""
        core = self.llm.llm_engine
        core.abort_request(list(core.output_processor.request_states), internal=True)
        while core.has_unfinished_requests():
            core.step()

    def close(self) -> None:
        """May be called again."""
        if not hasattr(self, "llm"):
            return
        # By the client, which shuts down only once: else it would do so again when it is collected. After a failure
        # that is late, since the traceback holds it, and would take the groups of the engine that runs by then.
        try:
            self.llm.llm_engine.engine_core.shutdown()
        finally:
            del self.llm, self.core
            forget_groups()


def forget_groups() -> None:
    """Lets the process start another engine, whatever became of the last one."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    gc.collect()
    cleanup_dist_env_and_memory()
