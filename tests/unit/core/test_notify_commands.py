"""J30: which notification command lines may be set."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from openbits.core.commands import PARAMETERS_LIMIT, checked
from openbits.core.names import PATH_LIMIT_BYTES
from openbits.errors import BitsError

LONGEST = "/" + "x" * (PATH_LIMIT_BYTES - 1)


@pytest.mark.parametrize(
    ("program", "parameters", "arguments"),
    [
        ("/bin/echo", None, ("/bin/echo",)),
        ("/bin/echo", ["echo"], ("echo",)),
        ("/bin/echo", ["/bin/echo", "two words", "$HOME", "a;b", "*"], ("/bin/echo", "two words", "$HOME", "a;b", "*")),
        (
            "/bin/echo",
            'echo \'two words\' $HOME "a\\"b" c\\ d ; rm',
            ("echo", "two words", "$HOME", 'a"b', "c d", ";", "rm"),
        ),
        ("/opt/a b/c", "'/opt/a b/c' x", ("/opt/a b/c", "x")),
        ("/bin/\udcff", ["\udcff", "line\nbreak", ""], ("\udcff", "line\nbreak", "")),
        (LONGEST, None, (LONGEST,)),
        ("/bin/x", "x " + "y" * (PARAMETERS_LIMIT - 2), ("x", "y" * (PARAMETERS_LIMIT - 2))),
    ],
)
def test_j30_a_program_and_its_argument_vector(
    program: str, parameters: str | Sequence[str] | None, arguments: tuple[str, ...]
) -> None:
    command = checked(program, parameters)
    assert command is not None
    assert (command.program, command.arguments) == (program, arguments)


def test_j30_neither_is_none() -> None:
    assert checked(None, None) is None


@pytest.mark.parametrize(
    ("program", "parameters", "name"),
    [
        (None, "echo", "E_INVALIDARG"),
        (None, [], "E_INVALIDARG"),
        ("", None, "E_INVALIDARG"),
        ("echo", None, "E_INVALIDARG"),
        ("./echo", None, "E_INVALIDARG"),
        ("$HOME/echo", None, "E_INVALIDARG"),
        ("/bin/", None, "E_INVALIDARG"),
        ("/bin/e\0", None, "E_INVALIDARG"),
        ("/bin/\ud800", None, "E_INVALIDARG"),
        ("/bin/echo", "", "E_INVALIDARG"),
        ("/bin/echo", [], "E_INVALIDARG"),
        ("/bin/echo", "hello", "E_INVALIDARG"),
        ("/bin/echo", ["/usr/bin/echo"], "E_INVALIDARG"),
        ("/bin/echo", ["echo", "a\0b"], "E_INVALIDARG"),
        ("/bin/echo", "echo 'open", "E_INVALIDARG"),
        (LONGEST + "x", None, "BG_E_STRING_TOO_LONG"),
        ("/bin/x", "x " + "y" * (PARAMETERS_LIMIT - 1), "BG_E_STRING_TOO_LONG"),
        ("/bin/x", ["x", "y" * PARAMETERS_LIMIT], "BG_E_STRING_TOO_LONG"),
    ],
)
def test_j30_what_is_refused(program: str | None, parameters: str | Sequence[str] | None, name: str) -> None:
    with pytest.raises(BitsError) as refusal:
        checked(program, parameters)
    assert refusal.value.name == name
