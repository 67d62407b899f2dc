"What is the user's stays: results, models, links and permissions; and files that a person edited, or that are odd, are read as they were meant."
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st

from conftest import VOCAB, make_preds
from garbage_fastai.predictions import (
    read_bins, map_labels, RESERVED_COLUMNS, class_columns, class_name, probability_column, read_predictions)
from garbage_fastai.calibrate import scale_confidence
from garbage_fastai.evaluate import Evaluation

@pytest.mark.parametrize('text', ['material;bin\nglas;Grün\n', '\ufeffmaterial,bin\nglas,Grün\n', 'material\tbin\nglas\tGrün\n'])
def test_bins_from_a_spreadsheet(tmp_path, text):
    (tmp_path/'bins.csv').write_text(text, encoding='utf-8')
    assert read_bins(tmp_path/'bins.csv').values.tolist() == [['glas','Grün']]

def test_no_label(): assert map_labels(pd.DataFrame(dict(label=['soda cans', None])), ['metal'])['label'].tolist() == ['metal', '']

# ---- columns
@settings(max_examples=50, deadline=None)
@given(st.one_of(st.sampled_from(sorted(RESERVED_COLUMNS)).flatmap(lambda o: st.sampled_from([o, f'p_{o}', f'p_p_{o}', f'{o}s', f'p_{o}_'])), st.text(min_size=1)))
def test_column_names_go_back(cls):
    assert class_name(probability_column(cls)) == cls and probability_column(cls) not in RESERVED_COLUMNS

def test_awkward_classes_through_csv(tmp_path):
    "Classes called as a column, as a number, as nothing, with quotes and other scripts"
    vocab = ['path', 'p_path', 'ok', 'NA', '1', '007', 'None', 'a,"b"', 'стекло', 'True', '<b>']
    y = np.tile(np.arange(len(vocab)), 3); p = np.where(np.arange(len(y)) % 4, y, 0)
    t = make_preds(y, p, vocab, split='test')
    assert class_columns(t) == [probability_column(c) for c in vocab]
    t.to_csv(tmp_path/'p.csv', index=False)
    ev = Evaluation.from_csv(tmp_path/'p.csv', split='test')
    assert ev.vocab == vocab
    pd.testing.assert_frame_equal(ev.rows, Evaluation(t).rows)
    assert (ev.confusion_matrix() == Evaluation(t).confusion_matrix()).all()

def test_csv_with_gaps_and_remarks(tmp_path):
    t = make_preds([0,1,2,0], [0,1,2,1], split=['train', 'test', 'test', ''])
    t['ok'] = [True, True, True, False]
    t.loc[3, VOCAB + ['loss', 'confidence']] = np.nan
    t['remark'] = ['', 'blurred', '', '']
    t.to_csv(tmp_path/'p.csv', index=False)
    back = read_predictions(tmp_path/'p.csv')
    assert class_columns(back) == VOCAB and back.ok.tolist() == [True, True, True, False] and back.split.tolist()[-1] == ''
    ev = Evaluation.from_csv(tmp_path/'p.csv')
    assert (ev.n, ev.n_bad) == (3, 1) and ev.splits == {'test': 2, 'train': 1}
    assert '2 test, 1 train' in ev._repr_markdown_()
    with pytest.raises(ValueError, match=r"no rows of split 'valid' \(there: , test, train\)"): Evaluation.from_csv(tmp_path/'p.csv', split='valid')

def test_unreadable_csv(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such predictions file'): Evaluation.from_csv(tmp_path/'none.csv')
    for i,b in enumerate([b'', b'\xff\xfe\x00\x01', b'a,b\n1\n2,3,4\n']):
        (tmp_path/f'{i}.csv').write_bytes(b)
        with pytest.raises(ValueError) as e: Evaluation.from_csv(tmp_path/f'{i}.csv')
        assert '\n' not in str(e.value)

# ---- labels that are no text
@pytest.mark.parametrize('kind', [int, float, 'Int64', 'category', object])
def test_labels_that_are_numbers(kind):
    "As pandas reads them from a CSV file: the figures are those of the same names as text"
    text = make_preds([0,1,2,0,1], [0,1,1,0,2], vocab=['0','1','2'])
    t = text.copy()
    for c in ('label','predicted'): t[c] = t[c].astype(int).astype(kind)
    ev = Evaluation(t)
    assert ev.vocab == ['0','1','2'] and ev.metrics() == Evaluation(text).metrics() and ev.most_confused() == Evaluation(text).most_confused()
    assert Evaluation(t, vocab=[0,1,2]).accuracy == ev.accuracy
    scaled = scale_confidence(t, 1.5)
    assert scaled['confidence'].notna().all() and np.allclose(scaled['loss'], scale_confidence(text, 1.5)['loss'])

def test_numbers_beside_missing_labels():
    t = make_preds([0,1,1,0], [0,1,1,1], vocab=['0','1'])
    t['label'] = [0, np.nan, 1, 0]
    ev = Evaluation(t)
    assert (ev.n, ev.n_unlabelled) == (3, 1) and ev.accuracy == pytest.approx(2/3)

def test_order_of_a_csv_is_the_order_of_the_classes(tmp_path):
    vocab = ['10','2','1']
    make_preds([0,1,2], [0,1,1], vocab=vocab).to_csv(tmp_path/'p.csv', index=False)
    ev = Evaluation.from_csv(tmp_path/'p.csv')
    assert ev.vocab == vocab and ev.confusion_matrix().tolist() == [[1,0,0],[0,1,0],[0,1,0]]
