"""`crystal-kv-vllm serve MODEL [any vLLM option]`: vLLM's OpenAI server with the plugin's classes.

`crystal-kv-vllm settings` prints the environment variables, as a Markdown table.
"""

import os
import sys
from collections.abc import Sequence

from .compat import WORKER_CLASS
from .settings import settings_table

SCHEDULER = "crystal_kv_vllm.scheduler.scheduler"
USAGE = "usage: crystal-kv-vllm serve MODEL [any option of vLLM's OpenAI server] | crystal-kv-vllm settings"


def server_arguments(arguments: Sequence[str]) -> list[str]:
    """The options of vLLM's server for `serve MODEL ...`; a class that is named already stays. Raises SystemExit."""
    if len(arguments) < 2 or arguments[0] != "serve" or arguments[1].startswith("-"):
        raise SystemExit(USAGE)
    options = ["--model", arguments[1], *arguments[2:]]
    for name, value in (("--scheduler-cls", SCHEDULER), ("--worker-cls", WORKER_CLASS)):
        if not any(option == name or option.startswith(f"{name}=") for option in options):
            options += [name, value]
    return options


def main() -> None:
    """Becomes vLLM's server: by its module, since the `vllm` command is missing where the wheel has another name."""
    if sys.argv[1:] == ["settings"]:
        sys.stdout.write(settings_table())
        return
    options = server_arguments(sys.argv[1:])
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *options]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
