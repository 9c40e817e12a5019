"""Where the extra `train` is not installed, what needs it says so; the rest works."""

import subprocess
import sys

import pytest

from tests.paths import ROOT

WITHOUT = "import sys; sys.modules['torch'] = None; import edgeproof as ep; from runtime.errors import EdgeproofError\n"


def told(code):
    """Return what code prints in a process that cannot import torch."""
    done = subprocess.run([sys.executable, "-c", WITHOUT + code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("use", ["ep.methods.AdaAD", "ep.export", "from edgeproof import methods"])
def test_what_trains_or_exports_names_the_extra_that_it_needs(use):
    text = told(f"try:\n    {use}\nexcept EdgeproofError as error:\n    print(error.message, error.hint)")
    assert "needs the extra 'train': torch is not installed" in text
    assert "pip install '.[train]'" in text


@pytest.mark.parametrize("use", ["from edgeproof import export", "ep.methods"])
def test_code_that_can_do_without_catches_it_as_any_import_that_fails(use):
    assert told(f"try:\n    {use}\nexcept ImportError:\n    print('without')") == "without\n"


def test_what_judges_is_there():
    assert told("print(ep.verify.__name__, ep.attack.__name__)") == "verify attack\n"
