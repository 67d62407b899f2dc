"Tables as people have them: labels that are numbers, paths that are `Path` objects, an index that repeats"
from pathlib import Path
import numpy as np, pandas as pd, pytest
from hypothesis import given, strategies as st
from garbage_fastai.core import label_text, tidy_table

KINDS = dict(int64=int, Int64=int, int8=int, float=int, Float32=int, str=str, object=int, category=int, boolean=bool, bool=bool)

@given(kind=st.sampled_from(sorted(KINDS)), values=st.lists(st.integers(0, 9), min_size=1), missing=st.sets(st.integers(0, 9)))
def test_labels_of_any_type_are_the_same_names(kind, values, missing):
    made = [KINDS[kind](v) for v in values]
    gaps = kind not in ('int64', 'int8', 'bool', 'str') and missing
    given_ = pd.Series([None if gaps and v in missing else m for v,m in zip(values, made)], dtype=object)
    table = tidy_table(pd.DataFrame(dict(label=given_.astype(kind))))
    assert table['label'].tolist() == ['' if gaps and v in missing else str(m) for v,m in zip(values, made)]
    pd.testing.assert_frame_equal(tidy_table(table), table)

@given(st.text())
def test_text_is_left_alone(text): assert label_text(text) == text

def test_whole_numbers_beside_missing_labels():
    table = pd.DataFrame(dict(label=[1, np.nan, 10, 2.5]))
    assert tidy_table(table)['label'].tolist() == ['1', '', '10', '2.5']

def test_a_label_is_one_class():
    for label in (['glass','metal'], ('glass',), {'glass'}, np.array([0,1])):
        with pytest.raises(ValueError, match='is no label'): label_text(label)

def test_nothing_else_changes():
    table = pd.DataFrame(dict(path=[Path('a/1.jpg'), 'a/2.jpg'], label=['x','y'], more=[1.5, 2]), index=[7,7])
    before = table.copy()
    tidy = tidy_table(table)
    pd.testing.assert_frame_equal(table, before)
    assert tidy['path'].tolist() == [str(Path('a/1.jpg')), 'a/2.jpg'] and all(isinstance(o, str) for o in tidy['path'])
    assert tidy.index.tolist() == [7,7] and tidy['more'].tolist() == [1.5, 2]

def test_names_that_are_no_text():
    "File names on Linux are bytes, and any bytes will do"
    name = 'a/\udcff.jpg'
    assert tidy_table(pd.DataFrame(dict(path=pd.Series([Path(name)], dtype=object))))['path'].tolist() == [name]

def test_ok_out_of_a_spreadsheet():
    table = pd.DataFrame(dict(ok=['True','false','0', None, True, 0]))
    assert tidy_table(table)['ok'].tolist() == [True, False, False, True, True, False]
    assert tidy_table(table)['ok'].dtype == bool
