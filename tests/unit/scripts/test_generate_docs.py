"""The drawn pages of the documentation say what the tables in the code say."""

import importlib.util
import pathlib
import sys
from types import ModuleType

import pytest

from openbits.core.model import JobState
from openbits.core.settings import PROPERTY_NAMES
from openbits.errors import ERRORS

SCRIPT = pathlib.Path(__file__).resolve().parents[3] / "scripts" / "generate_docs.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # As when it is run: what stands beside it can be imported.
        patch.syspath_prepend(SCRIPT.parent)
        spec.loader.exec_module(module)
    return module


def test_pages_are_up_to_date(script: ModuleType) -> None:
    assert script.main(["--check"]) == 0, "run scripts/generate_docs.py"


def test_a_page_that_is_out_of_date_is_found(
    script: ModuleType, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(script, "ROOT", tmp_path)
    assert script.main(["--check"]) == 1
    assert script.main([]) == 0
    assert script.main(["--check"]) == 0
    page = tmp_path / "docs" / "states.md"
    page.write_text(page.read_text().replace("SUSPENDED", "PAUSED", 1))
    assert script.main(["--check"]) == 1
    assert "docs/states.md: run" in capsys.readouterr().err


def test_every_state_and_every_error_is_on_its_page(script: ModuleType) -> None:
    states, errors = script.states_page(), script.errors_page()
    assert all(f"| **{state.name}** |" in states for state in JobState)
    assert all(f"| `{name}` | `{row.hresult:#010x}` |" in errors for name, row in ERRORS.items())
    assert "generate_docs" not in sys.modules


def test_every_property_is_on_its_page(script: ModuleType) -> None:
    """Also that there is a text for each, and none for what is no property."""
    page = script.properties_page()
    assert script.PROPERTIES.keys() == set(PROPERTY_NAMES)
    assert all(f"| `{name}` |" in page for name in PROPERTY_NAMES)
