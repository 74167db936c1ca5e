"""`bits completion`: the scripts come from click; what they offer comes from the commands themselves."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from openbits.cli.bitsadmin.completion import bitsadmin_completion
from openbits.cli.common import COMPLETE_VARIABLE, say


@click.command()
@click.argument("shell", metavar="bash|zsh|fish", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell, job ids included.

    bash: put `eval "$(bits completion bash)"` into ~/.bashrc. zsh: the same into ~/.zshrc. fish: save the output as
    ~/.config/fish/completions/bits.fish.
    """
    shells = get_completion_class(shell)
    assert shells is not None
    say(shells(ctx.find_root().command, {}, "bits", COMPLETE_VARIABLE).source())
    if shell != "fish":  # which looks for the completions of a command in a file of its name
        say(bitsadmin_completion(shell))
