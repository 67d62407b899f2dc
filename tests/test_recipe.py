"The command line as a user meets it: what it leaves, what it says, how it ends."
import re

import pytest
from hypothesis import given, settings, strategies as st

from garbage_fastai.cli import as_typed
from garbage_fastai.recipe import SETTINGS, is_allowed, read_setting
from garbage_fastai.train import train_run

def test_refused_from_python_as_well(sample_dir, tmp_path):
    for kw in (dict(size=0), dict(size=(224,-5)), dict(bs=1), dict(seed=10**20), dict(seed=1.5), dict(augment='strong'), dict(lr=float('nan')), dict(normalize=1)):
        with pytest.raises(ValueError, match=f'{next(iter(kw))}='): train_run(sample_dir, tmp_path/'run', **kw)

@given(st.sampled_from(sorted(SETTINGS)), st.one_of(st.text(max_size=8), st.integers().map(str), st.floats().map(str), st.sampled_from(['auto','none','0','1x1','224x','x'])))
@settings(deadline=None)
def test_a_setting_is_read_right_or_refused_by_its_name(name, text):
    "Whatever is typed: a value that is allowed, or one line that names the option and what was typed"
    try: value = read_setting(name, text)
    except ValueError as e:
        assert str(e).startswith(f'{name}=') and ': give ' in str(e)
        assert as_typed(str(e), [name]).startswith(f"--{name.replace('_','-')} ") or re.search(r"[\s'.,;:()]", text) or not text
    else: assert is_allowed(SETTINGS[name], value)
