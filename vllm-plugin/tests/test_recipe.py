"""The recipe of the repository's README for vLLM, as it is written: its commands, its file, its request."""

import json
import re
import shlex
import sys
import urllib.request
from typing import Any

import pytest
from engine import program
from ports import free_port
from processes import ROOT, Processes
from scrape import fetch
from waiting import PATIENCE_S

pytestmark = pytest.mark.vllm

README = (ROOT / "README.md").read_text()
#: What a CPU and its vLLM need beside the recipe. Full and piecewise graphs alike need a GPU.
FOR_THE_CPU = ["--dtype", "float32", "--block-size", "32", "--enforce-eager", "--served-model-name", "crystal-mini"]


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## )", README, re.M | re.S)
    assert found is not None, title
    return found[1]


def block(text: str, language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", text, re.M | re.S)
    assert found is not None, language
    return found[1]


RECIPE = section("With vLLM")


class Recipe:
    """Its commands, by what they start: variables and words, on ports that are free."""

    def __init__(self, names: dict[str, str]) -> None:
        lines = block(RECIPE, "").replace("\\\n", " ").splitlines()
        self._commands = [shlex.split(line, comments=True) for line in lines]
        self._names = names

    def step(self, program: str) -> tuple[list[str], dict[str, str]]:
        [found] = [words for words in self._commands if program in words]
        words = [self.fill(word) for word in found]
        variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
        return words[len(variables) :], variables

    def fill(self, text: str) -> str:
        for name, value in self._names.items():
            text = text.replace(name, value)
        return text


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def test_what_the_recipe_starts_keeps_a_budget_and_reports_it(model: str, processes: Processes) -> None:
    policy, vllm, gateway = (free_port() for _ in "abc")
    file = processes.logs / "gateway.yaml"
    names = {"localhost:50051": f"localhost:{policy}", "localhost:8000": f"localhost:{vllm}"}
    recipe = Recipe({**names, "gateway.yaml": str(file), "MODEL": model})
    file.write_text(recipe.fill(block(RECIPE, "yaml")))

    command, variables = recipe.step("policy-service/main.ts")
    metrics = {"CRYSTALKV_POLICY_SERVICE_METRICS_PORT": str(free_port())}
    processes.start("policy-service", command, CRYSTALKV_POLICY_SERVICE_PORT=str(policy), **metrics, **variables)
    command, variables = recipe.step("crystal-kv-vllm")
    plugin = [sys.executable, "-m", "crystal_kv_vllm.cli"]
    command = plugin + command[1:] + FOR_THE_CPU + ["--port", str(vllm), "--num-gpu-blocks-override", "200"]
    processes.start("vllm", command, VLLM_ENABLE_V1_MULTIPROCESSING="1", **variables)
    command, variables = recipe.step("gateway/main.ts")
    processes.start("gateway", command, CRYSTALKV_GATEWAY_PORT=str(gateway), **variables)

    url = f"http://127.0.0.1:{gateway}"
    processes.until(lambda: fetch(f"http://127.0.0.1:{vllm}/health") == "", "vLLM is up")
    processes.until(lambda: "crystal-mini" in fetch(f"{url}/v1/models"), "the gateway is up")

    options = json.loads(block(section("Options of a request"), "json"))
    body = {"model": "crystal-mini", "messages": [{"role": "user", "content": program(3, 18)}], **options}
    answer = post(f"{url}/v1/chat/completions", {**body, "temperature": 0, "ignore_eos": True, "max_tokens": 900})
    report = answer["usage"]["crystal_kv"]
    budget = options["crystal_kv"]["budget_tokens"]
    assert report["blocks"] >= 900 // 32
    # the prompt and blocks that are too new come on top
    assert report["blocks_evicted"] >= (900 - budget) // 32 - 4, report
    assert report["blocks_kept"] == report["blocks"] - report["blocks_evicted"], report
