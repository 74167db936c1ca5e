"""What a shell offers behind `bitsadmin`: the switches of the table, those of a group behind it, then files."""

from __future__ import annotations

from typing import Final

from openbits.cli.bitsadmin.switches import GROUPS, all_switches

_BASH: Final = r"""
_bitsadmin_completion() {{
    local first=1 switches
    while [[ $first -lt $COMP_CWORD && "${{COMP_WORDS[first],,}}" =~ ^/(rawreturn|wrap|nowrap)$ ]]; do
        first=$((first + 1))
    done
    switches="{switches} /rawreturn /wrap /nowrap"
    if [[ $COMP_CWORD -gt $first ]]; then
        [[ $COMP_CWORD -eq $((first + 1)) ]] || return
        case "${{COMP_WORDS[first],,}}" in
{groups}
            *) return ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$switches" -- "${{COMP_WORDS[COMP_CWORD],,}}"))
}}
complete -o default -F _bitsadmin_completion bitsadmin
"""
_BASH_GROUP: Final = '            {group}) switches="{switches}" ;;'
_ZSH: Final = r"""
_bitsadmin_completion() {{
    if (( CURRENT == 2 )); then
        compadd -- {switches} /rawreturn /wrap /nowrap
{groups}
    else
        _files
    fi
}}
compdef _bitsadmin_completion bitsadmin
"""
_ZSH_GROUP: Final = """    elif (( CURRENT == 3 )) && [[ "${{(L)words[2]}}" == {group} ]]; then
        compadd -- {switches}"""


def bitsadmin_completion(shell: str) -> str:
    """Return the completion script of `bitsadmin` for bash or zsh."""
    whole, one = (_BASH, _BASH_GROUP) if shell == "bash" else (_ZSH, _ZSH_GROUP)
    groups = "\n".join(one.format(group=group, switches=_names(group)) for group in GROUPS)
    return whole.format(switches=f"{_names('')} {' '.join(GROUPS)}", groups=groups)


def _names(group: str) -> str:
    return " ".join(["/help", *(switch.name for switch in all_switches() if switch.group == group)])
