"""`crystal-kv-vllm serve MODEL [any vLLM option]`: vLLM's own `vllm serve` with the plugin's classes.

`crystal-kv-vllm settings` prints the environment variables, as a Markdown table.
"""

import os
import sys

from .compat import SCHEDULER, WORKER_CLASS
from .settings import SettingsError, read_settings, settings_table

USAGE = "usage: crystal-kv-vllm serve MODEL [any option of `vllm serve`] | crystal-kv-vllm settings"


def serve() -> None:
    """Runs vLLM's `serve`, whose options are the process's own; a class that they name stays.

    By its parts, since vLLM's main function asks for the version of a distribution that its wheel for CPUs is not.
    """
    from vllm.entrypoints.cli.serve import cmd_init
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.logger import configure_logging_from_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    cli_env_setup()
    parser = FlexibleArgumentParser(prog="crystal-kv-vllm")
    (command,) = cmd_init()
    command.subparser_init(parser.add_subparsers(dest="subparser")).set_defaults(
        scheduler_cls=SCHEDULER, worker_cls=WORKER_CLASS
    )
    arguments = parser.parse_args()
    configure_logging_from_args(arguments)
    command.validate(arguments)
    command.cmd(arguments)


def main() -> None:
    """Raises SystemExit for a command that there is not, and for settings that are not valid."""
    match sys.argv[1:]:
        case ["settings"]:
            sys.stdout.write(settings_table())
        # alone, vLLM would fetch a model of its own choice
        case ["serve", _, *_]:
            try:
                read_settings(os.environ)
            except SettingsError as error:
                raise SystemExit(f"crystal-kv: {error}") from error
            serve()
        case _:
            raise SystemExit(USAGE)


if __name__ == "__main__":
    main()
