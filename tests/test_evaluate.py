"Evaluation against scikit-learn, hand counts and tables that people really have"
import json, subprocess, sys

import matplotlib, matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from scipy.stats import binomtest, norm
from sklearn import metrics as skm

from conftest import VOCAB, make_preds
from garbage_fastai.calibrate import fit_temperature, mark_sure, scale_confidence
from garbage_fastai.evaluate import Evaluation, macro_f1_interval, wilson_interval
from garbage_fastai.show import photo_or_tile, plot_history

matplotlib.use('agg')

@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close('all')

# ---- intervals
@settings(deadline=None)
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(.1, 5))
def test_wilson_bounds(kn, z):
    k, n = kn
    lo, hi = wilson_interval(k, n, z)
    assert 0 <= lo <= k/n <= hi <= 1
    if k < n:
        lo2, hi2 = wilson_interval(k+1, n, z)
        assert lo2 >= lo and hi2 >= hi
    lo4, hi4 = wilson_interval(4*k, 4*n, z)
    assert hi4-lo4 < hi-lo
    mlo, mhi = wilson_interval(n-k, n, z)
    assert abs(mlo-(1-hi)) < 1e-9 and abs(mhi-(1-lo)) < 1e-9

@pytest.mark.parametrize('k,n,lo,hi', [(0,10,0,.27753), (9,10,.59585,.98213), (10,10,.72246,1), (50,100,.40383,.59617)])
def test_wilson_known(k, n, lo, hi): assert wilson_interval(k, n) == pytest.approx((lo, hi), abs=2e-5)

@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(kn):
    ci = binomtest(*kn).proportion_ci(method='wilson')
    assert wilson_interval(*kn, z=norm.ppf(.975)) == pytest.approx((ci.low, ci.high), abs=1e-9)

def test_wilson_edges():
    assert wilson_interval(0, 0) == (0, 1)
    for k,n in [(-1,3), (4,3)]:
        with pytest.raises(ValueError, match='between 0 and n'): wilson_interval(k, n)
    lo, hi = wilson_interval([1,0], [2,0])
    assert lo.shape == hi.shape == (2,) and (lo[1], hi[1]) == (0, 1)

def test_wilson_covers():
    "The interval holds the true share in about 95 of 100 samples"
    k = np.random.default_rng(0).binomial(200, .93, 20000)
    lo, hi = wilson_interval(k, np.full(k.shape, 200))
    assert .93 < ((lo <= .93) & (.93 <= hi)).mean() < .97

def test_macro_f1_interval_is_a_bootstrap_of_photos():
    rng = np.random.default_rng(5)
    y = rng.integers(0, 3, 150); p = np.where(rng.random(150) < .8, y, rng.integers(0, 3, 150))
    slow = []
    for _ in range(400):
        at = rng.integers(0, 150, 150)
        slow.append(skm.f1_score(y[at], p[at], average='macro'))
    fast = macro_f1_interval(skm.confusion_matrix(y, p))
    assert fast == pytest.approx(np.percentile(slow, [2.5, 97.5]), abs=.025)
    assert fast == macro_f1_interval(skm.confusion_matrix(y, p)) and fast != macro_f1_interval(skm.confusion_matrix(y, p), seed=1)

# ---- figures
answers = st.integers(2, 6).flatmap(lambda k: st.tuples(st.just(k), st.lists(st.tuples(st.integers(0, k-1), st.integers(0, k-1)), min_size=1, max_size=60)))

@settings(max_examples=25, deadline=None)
@given(answers)
def test_matches_sklearn(case):
    k, pairs = case
    y, p = map(np.array, zip(*pairs))
    ev = Evaluation(make_preds(y, p, [f'c{i}' for i in range(k)]))
    assert ev.accuracy == pytest.approx(skm.accuracy_score(y, p)) and ev.accuracy == np.mean(y == p)
    assert ev.macro_f1 == pytest.approx(skm.f1_score(y, p, labels=np.unique(y), average='macro', zero_division=0))
    t = ev.per_class()
    assert t['support'].sum() == t['predicted'].sum() == ev.n == len(y)
    assert t['recall'].tolist() == pytest.approx(skm.recall_score(y, p, labels=range(k), average=None, zero_division=0))
    assert ((t.recall_lo <= t.recall) & (t.recall <= t.recall_hi) | (t.support == 0)).all()
    cm = ev.confusion_matrix()
    assert (cm == skm.confusion_matrix(y, p, labels=range(k))).all()
    assert isinstance(cm, np.ndarray) and all(cm[i,j] == ((y == i) & (p == j)).sum() for i in range(k) for j in range(k))
    conf = ev.most_confused()
    assert sum(n for *_,n in conf) == (y != p).sum() and [n for *_,n in conf] == sorted([n for *_,n in conf], reverse=True)
    assert all(a != b for a,b,_ in conf) and all(n >= 2 for *_,n in ev.most_confused(2))
    assert ev.loss == pytest.approx(skm.log_loss(y, ev.probs, labels=range(k)))

def test_hand_count():
    ev = Evaluation(make_preds([0,0,0,1,1,2], [0,0,1,1,1,1]))
    assert ev.accuracy == 4/6 and ev.n == 6
    t = ev.per_class()
    assert t.loc['glass', ['precision', 'recall', 'support', 'predicted']].tolist() == [.5, 1, 2, 4]
    assert t.loc['metal', ['precision', 'recall', 'f1']].tolist() == [0, 0, 0]
    assert ev.macro_f1 == pytest.approx((4/5 + 2*.5/1.5 + 0)/3)
    assert ev.most_confused() == [('cardboard', 'glass', 1), ('metal', 'glass', 1)] and ev.most_confused(2) == []

def test_absent_class():
    ev = Evaluation(make_preds([0,0,0,1], [0,0,2,1]))
    assert ev.per_class().loc['metal', ['recall', 'f1', 'support', 'predicted', 'recall_lo', 'recall_hi']].tolist() == [0, 0, 0, 1, 0, 1]
    assert ev.macro_f1 == pytest.approx((.8 + 1)/2)
    assert not np.isnan(ev.macro_f1_ci95).any() and 'metal' in ev.classification_report()
    ev.plot_confusion_matrix(normalize=True)

def test_metrics_is_json():
    m = Evaluation(make_preds([0,1,2,2], [0,1,2,0])).metrics()
    assert json.loads(json.dumps(m, allow_nan=False)) == m
    assert {'accuracy', 'accuracy_ci95', 'macro_f1', 'n', 'per_class', 'loss'} <= set(m) and set(m['per_class']) == set(VOCAB)
    assert set(m['per_class']['glass']) == {'precision', 'recall', 'f1', 'support'}
    no_probs = Evaluation(make_preds([0,1], [0,1])[['path', 'label', 'predicted']], vocab=VOCAB)
    assert no_probs.metrics()['loss'] is None and no_probs.accuracy == 1
    json.dumps(no_probs.metrics(), allow_nan=False)

def test_one_photo_and_one_class():
    ev = Evaluation(make_preds([0], [0], ['only']))
    assert (ev.accuracy, ev.macro_f1, ev.n) == (1, 1, 1) and ev.accuracy_ci95[0] < .21
    assert '100.0%' in repr(ev) and '100.0%' in ev._repr_markdown_()

# ---- which rows count
def test_bad_and_unlabelled_rows_are_counted():
    t = make_preds([0,1,2,0,1], [0,1,2,1,0])
    t.loc[3, ['ok', 'reason', 'predicted'] + VOCAB] = [False, 'truncated file', np.nan, np.nan, np.nan, np.nan]
    t['label'] = t['label'].astype(object); t.loc[4, 'label'] = None
    ev = Evaluation(t)
    assert (ev.n, ev.n_bad, ev.n_unlabelled, ev.accuracy) == (3, 1, 1, 1)
    assert '1 unreadable, 1 without a label' in ev._repr_markdown_()
    t['label'] = ''
    with pytest.raises(ValueError, match='nothing to evaluate: of 5 rows 1 could not be read and 4 have no label'): Evaluation(t)

def test_losses_and_answers_from_probabilities():
    t = make_preds([0,1,2,2], [0,1,2,0])
    ev, full = Evaluation(t.drop(columns=['loss', 'confidence', 'predicted'])), Evaluation(t)
    pd.testing.assert_frame_equal(ev.rows, full.rows)
    t.loc[1, 'loss'] = np.nan  # the label was filled in later
    assert Evaluation(t).rows.loss.tolist() == pytest.approx(full.rows.loss.tolist())

def test_top_losses():
    ev = Evaluation(make_preds([0,1,2,2], [0,2,2,0]))
    top = ev.top_losses(2)
    assert list(top.columns) == ['path', 'label', 'predicted', 'confidence', 'loss'] and top.index.tolist() == [1, 3]
    assert ev.top_losses(largest=False).index[-1] in (1, 3) and len(ev.top_losses()) == 4 == len(ev.top_losses(99))

# ---- clear errors
@pytest.mark.parametrize('change,message', [
    (lambda t: t.replace({'label': {'glass': 'glas'}}), "label 'glas' of photos/0001.jpg is not among"),
    (lambda t: t.replace({'predicted': {'metal': 'steel'}}), "prediction 'steel' of photos/0002.jpg"),
    (lambda t: t.drop(columns='label'), "column 'label' is missing"),
    (lambda t: t.drop(columns=['predicted']+VOCAB), 'is missing|no probability columns'),
    (lambda t: t.assign(glass=.9), 'sum to'),
    (lambda t: t.iloc[:0], 'nothing to evaluate'),
])
def test_clear_errors(change, message):
    with pytest.raises(ValueError, match=message) as e: Evaluation(change(make_preds([0,1,2], [0,1,2])))
    assert '\n' not in str(e.value)

def test_vocab_errors():
    t = make_preds([0,1], [0,1])
    with pytest.raises(ValueError, match='twice'): Evaluation(t, vocab=['a', 'a'])
    with pytest.raises(ValueError, match='probability column missing for: steel'): Evaluation(t, vocab=['cardboard', 'glass', 'steel'])
    t['weight_in_gram'] = 12.; t.attrs = {}
    with pytest.raises(ValueError, match='vocab='): Evaluation(t)
    assert Evaluation(t, vocab=VOCAB).accuracy == 1

# ---- plots
def test_plot_top_losses_never_fails(tmp_path):
    Image.new('RGB', (40, 30), 'red').save(tmp_path/'a$b$c_{x}.jpg')
    (tmp_path/'broken.jpg').write_bytes(b'not a photo')
    t = make_preds([0,1,2], [1,2,0])
    t['path'] = [str(tmp_path/'a$b$c_{x}.jpg'), str(tmp_path/'broken.jpg'), str(tmp_path/'gone.jpg')]
    ev = Evaluation(t)
    for k in (3, range(1, 3), 0, np.int64(2)): ev.plot_top_losses(k); plt.gcf().canvas.draw()
    ev.plot_top_losses(3, ncols=1, figsize=(3, 8))
    fig = plt.gcf(); fig.canvas.draw()
    titles = ' '.join(a.get_title() for a in fig.axes)
    assert all(o in titles for o in ('a$b$c_{x}.jpg', 'gone.jpg', 'glass/cardboard / ')) and fig.get_facecolor() == (1, 1, 1, 1)
    assert photo_or_tile(tmp_path/'a$b$c_{x}.jpg').getpixel((5, 5))[0] > 200 and photo_or_tile(tmp_path/'gone.jpg', 90).size == (90, 67)
    assert photo_or_tile(float('nan')).mode == 'RGB'

def test_plots_are_dark_on_white_in_a_dark_style(tmp_path):
    ev = Evaluation(make_preds([0,1,2], [1,1,2], ['a$x$', 'b_{', 'c']))
    with plt.style.context('dark_background'):
        ev.plot_confusion_matrix(normalize=True)
        fig = plt.gcf(); fig.canvas.draw()
        assert fig.get_facecolor() == (1, 1, 1, 1) and fig.axes[0].title.get_color() == 'black'
        assert [o.get_text() for o in fig.axes[0].get_xticklabels()] == ['a$x$', 'b_{', 'c']
    w, h = fig.canvas.get_width_height()
    assert all(0 <= b.x0 and b.x1 <= w and 0 <= b.y0 and b.y1 <= h for b in  # nothing cropped
               (o.get_window_extent() for o in [*fig.axes[0].get_xticklabels(), *fig.axes[0].get_yticklabels(), fig.axes[0].xaxis.label, fig.axes[0].yaxis.label]))

def test_plot_history():
    h = pd.DataFrame(dict(epoch=[0, 1, 'epoch', 0], train_loss=[2, 1, 'train_loss', .5], valid_loss=[2, 1.5, 'valid_loss', None],
                          accuracy=[.5, .6, 'accuracy', .7], time=['00:01']*4))
    plot_history(h)
    left, right = plt.gcf().axes
    assert [len(o.get_xdata()) for o in left.lines] == [3, 3] and right.lines[0].get_label() == 'accuracy'
    plot_history(h[['train_loss']].iloc[:1])
    with pytest.raises(ValueError, match='no losses'): plot_history(pd.DataFrame(dict(epoch=[1], time=['x'])))

def test_import_is_light():
    "Evaluating a table needs no torch"
    code = 'import sys, garbage_fastai.evaluate as e; sys.exit(int("torch" in sys.modules or "fastai" in sys.modules))'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0

def test_an_index_that_repeats():
    t = make_preds([0,1,2], [0,1,1])
    twice = pd.concat([t, t])
    twice.attrs = t.attrs
    assert not twice.index.is_unique and Evaluation(twice).accuracy == Evaluation(t).accuracy
    assert fit_temperature(twice) == pytest.approx(fit_temperature(t)) and len(mark_sure(scale_confidence(twice, 2.), .5)) == 6
