"""`sandbox completion`."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a completion script for a shell: commands, options, and the names of pods, containers and images.

    \b
    Examples:
      source <(sandbox completion bash)
      sandbox completion bash > /etc/bash_completion.d/sandbox
      sandbox completion zsh > "${fpath[1]}/_sandbox"
      sandbox completion fish > ~/.config/fish/completions/sandbox.fish
    """
    from click.shell_completion import get_completion_class

    from sandbox.cli.root import COMPLETE_VARIABLE

    kind = get_completion_class(shell)
    assert kind is not None, shell
    script = kind(ctx.find_root().command, {}, "sandbox", COMPLETE_VARIABLE).source()
    click.echo(script.strip())
