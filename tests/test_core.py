"What is the user's stays: results, models, links and permissions; and files that a person edited, or that are odd, are read as they were meant."
import os, re, stat
from pathlib import Path

import numpy as np, pandas as pd, pytest
from hypothesis import given, strategies as st

from garbage_fastai.predictions import read_bins
from garbage_fastai.text.descriptions import read_filelist
from garbage_fastai.core import write_file, label_text, tidy_table

@pytest.mark.skipif(os.name=='nt', reason='permissions and links as Unix has them')
def test_links_and_permissions(tmp_path):
    (tmp_path/'far').mkdir()
    (tmp_path/'far'/'real.csv').write_text('old')
    (tmp_path/'link.csv').symlink_to(tmp_path/'far'/'real.csv')
    old = os.umask(0o077)
    try: write_file(tmp_path/'link.csv', 'new'); write_file(tmp_path/'mine.csv', 'x')
    finally: os.umask(old)
    assert (tmp_path/'link.csv').is_symlink() and (tmp_path/'far'/'real.csv').read_text() == 'new'
    assert stat.S_IMODE((tmp_path/'mine.csv').stat().st_mode) == 0o600

def test_another_encoding(tmp_path):
    for f,read in ((tmp_path/'bins.csv', read_bins), (tmp_path/'list.csv', read_filelist)):
        f.write_bytes('material,bin\nglas,Grün\n'.encode('cp1252'))
        with pytest.raises(ValueError, match=re.escape(f'{f} is not a CSV table in UTF-8')): read(f)

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
