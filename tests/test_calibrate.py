"Confidence: what scaling may and may not change, whether the intervals keep their promise, and thresholds that are not luck"
import matplotlib, matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from scipy.special import softmax
from scipy.stats import norm

from garbage_fastai.calibrate import (
    calibration_error, coverage_curve, fit_temperature, mark_sure, pick_threshold, plot_coverage, plot_reliability,
    scale_confidence, sort_alone)
from garbage_fastai.evaluate import Evaluation, wilson_interval
from garbage_fastai.predictions import class_columns, probability_column, read_predictions

matplotlib.use('agg')

VOCAB = ['glass', 'path', 'metal', 'sure']  # two are called as columns of the table

COLS = [probability_column(c) for c in VOCAB]

quick = settings(max_examples=40, deadline=None)

def make_preds(n=200, seed=0, boast=1., sd=3., dtype=np.float64):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, sd, (n, 4))
    y = (logits + rng.gumbel(size=(n, 4))).argmax(1)
    p = softmax(boast*logits, axis=1).astype(dtype)
    t = pd.DataFrame(dict(path=[f'photos/{i}.jpg' for i in range(n)], label=np.array(VOCAB)[y], predicted=np.array(VOCAB)[p.argmax(1)], confidence=p.max(1),
                          loss=-np.log(np.clip(p[np.arange(n), y], 1e-12, 1)), ok=True, reason=''))
    t[COLS] = p
    t.attrs['vocab'] = list(VOCAB)
    return t

def right_wrong(confidence, right):
    "A table of two classes with just these confidences"
    c = np.asarray(confidence, float)
    t = pd.DataFrame(dict(path=[f'{i}.jpg' for i in range(len(c))], label=np.where(right, 'a', 'b'), predicted='a', confidence=c, a=c, b=1-c))
    t.attrs['vocab'] = ['a', 'b']
    return t

tables = st.builds(make_preds, n=st.integers(2, 60), seed=st.integers(0, 10**6), boast=st.floats(.2, 8), sd=st.floats(.1, 8), dtype=st.sampled_from([np.float64, np.float32]))

temperatures = st.floats(.05, 20)

@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close('all')

# ---- temperature
@quick
@given(tables, temperatures)
def test_scaling_keeps_answers_and_sums(t, temperature):
    before = t.copy(deep=True)
    s = scale_confidence(t, temperature)
    pd.testing.assert_frame_equal(t, before)  # what was given is as it was
    assert s.predicted.tolist() == t.predicted.tolist() and s.columns.tolist() == t.columns.tolist() and s.attrs['vocab'] == VOCAB
    p, q = t[COLS].to_numpy(float), s[COLS].to_numpy(float)
    assert np.allclose(q.sum(1), 1) and np.allclose(s.confidence, q.max(1)) and (q >= 0).all()
    order = np.argsort(p, axis=1)  # within a photo the classes keep their order; between photos the confidences need not
    assert (np.diff(np.take_along_axis(q, order, 1), axis=1) >= -1e-12).all()
    assert (Evaluation(s).confusion_matrix() == Evaluation(t).confusion_matrix()).all()
    assert np.allclose(s.loss, Evaluation(s[['path', 'label', 'predicted', *COLS]], VOCAB).rows.loss)

@quick
@given(tables, temperatures, temperatures)
def test_scaling_composes(t, a, b):
    one = scale_confidence(t, 1)
    assert np.allclose(one[COLS], t[COLS], atol=1e-6) and np.allclose(one.confidence, t.confidence, atol=1e-6)
    sure = t[COLS].min(axis=1) > 1e-8  # elsewhere probabilities were cut off
    if 1 <= a: assert (scale_confidence(t, a).confidence <= t.confidence + 1e-6).all()
    else: assert (scale_confidence(t, a).confidence >= t.confidence - 1e-6).all()
    if a >= 1 and b >= 1: assert np.allclose(scale_confidence(scale_confidence(t, a), b)[COLS][sure], scale_confidence(t, a*b)[COLS][sure], atol=1e-5)

def test_confidences_of_two_photos_may_change_places():
    "The reason why the threshold is picked after scaling"
    t = pd.DataFrame(dict(path=['1', '2'], label='a', predicted='a', confidence=[.5, .48], a=[.5, .48], b=[.49, .26], c=[.01, .26]))
    assert np.diff(t.confidence) < 0 < np.diff(scale_confidence(t, .3).confidence)

@quick
@given(st.integers(0, 10**6), st.floats(.4, 3))
def test_temperature_is_the_best(seed, boast):
    t = make_preds(300, seed, boast)
    T = fit_temperature(t)
    loss = lambda T: scale_confidence(t, T).loss.mean()
    assert loss(T) <= min(loss(T*f) for f in (.8, .95, 1.05, 1.25)) + 1e-9 and loss(T) <= t.loss.mean() + 1e-9
    assert T == pytest.approx(fit_temperature(t.sample(frac=1, random_state=1)), rel=1e-3)
    assert fit_temperature(scale_confidence(t, T)) == pytest.approx(1, abs=.02)  # scaled once, there is nothing left to scale
    assert fit_temperature(make_preds(20_000, seed, boast)) == pytest.approx(boast, rel=.1)

def test_temperature_from_valid_alone():
    a, b = make_preds(300, 1, 2.), make_preds(300, 2, .5)
    t = pd.concat([a.assign(split='valid'), b.assign(split='test')], ignore_index=True)
    assert fit_temperature(t) == fit_temperature(a) == fit_temperature(a.assign(split='')) != fit_temperature(b)
    assert pick_threshold(t, .9) == pick_threshold(a, .9)
    for f in (fit_temperature, pick_threshold):
        with pytest.raises(ValueError, match=r"no rows of split 'valid' \(there: test\)"): f(b.assign(split='test'))
    assert fit_temperature(a[a.label==a.predicted]) == 1  # no mistake, no limit to how sure one could get
    with pytest.raises(ValueError, match='temperature must be'): scale_confidence(a, float('nan'))
    with pytest.raises(ValueError, match='not a predictions table'): scale_confidence(a[['path', 'label']], 2)

def test_bad_and_unlabelled_rows():
    t = make_preds(6)
    t.loc[2, ['confidence', 'loss', *COLS]] = np.nan
    t.loc[2, ['ok', 'predicted', 'reason']] = [False, '', 'not a photo']
    t.loc[4, ['label', 'loss']] = ['', np.nan]
    s = scale_confidence(t, 2)
    assert s.loc[2, ['confidence', 'loss', *COLS]].isna().all() and s.reason[2] == 'not a photo'
    assert np.isnan(s.loss[4]) and not s.loc[4, COLS].isna().any() and s.drop(index=[2, 4]).notna().all(axis=None)
    assert mark_sure(t, 0).sure.tolist() == [True, True, False, True, True, True]
    assert coverage_curve(t).photos.max() == sort_alone(t, 0)['n'] == 4

# ---- calibration error
def test_ece_by_hand():
    t = right_wrong([.6]*10 + [.9]*10, [True]*3 + [False]*7 + [True]*10)
    assert calibration_error(t, bins=2)['ece'] == pytest.approx((.3+.1)/2)
    assert calibration_error(t, bins=1)['ece'] == pytest.approx(.75-.65)
    assert calibration_error(t)['ece'] == pytest.approx(.2)  # equal confidences stay together, so there are two bins at most
    e = calibration_error(t)
    assert e == calibration_error(Evaluation(t)) == calibration_error(t.sample(frac=1, random_state=0)) | dict(ece_ci95=e['ece_ci95'], ece_chance=e['ece_chance'])
    with pytest.raises(ValueError, match='bins'): calibration_error(t, bins=0)

@quick
@given(tables, st.integers(1, 20))
def test_ece_bounds(t, bins):
    e = calibration_error(t, bins, n_boot=40)
    lo, hi = e['ece_ci95']
    assert 0 <= lo <= e['ece'] <= hi and e['ece'] <= 1 and e['n'] == len(t)

def test_ece_interval_holds_what_it_should():
    "Photos drawn anew: the interval has the error of 200,000 photos in it about as often as it says"
    def draw(n, seed):
        rng = np.random.default_rng(seed)
        c = 1-.7*rng.random(n)**3
        return right_wrong(c, rng.random(n) < c**1.5)
    true = calibration_error(draw(200_000, 0), n_boot=5)['ece']
    ends = np.array([calibration_error(draw(600, s), n_boot=200)['ece_ci95'] for s in range(1, 101)])
    assert ((ends[:,0] <= true) & (true <= ends[:,1])).mean() >= .88

def test_chance_is_what_a_calibrated_model_gets():
    eces = [calibration_error(make_preds(400, s), n_boot=100) for s in range(30)]
    assert np.mean([e['ece'] for e in eces]) == pytest.approx(np.mean([e['ece_chance'] for e in eces]), rel=.15)
    assert calibration_error(make_preds(400, 1, boast=3.))['ece_ci95'][0] > .03

# ---- coverage and threshold
@quick
@given(st.lists(st.tuples(st.sampled_from([.5, .6, .7, .8, .9, .99, 1.]), st.booleans()), min_size=1, max_size=80), st.floats(.5, 1), st.floats(.5, .99))
def test_threshold_and_coverage_agree(photos, precision, level):
    c, right = map(np.array, zip(*photos))
    t = right_wrong(c, right)
    curve = coverage_curve(t)
    assert curve.threshold.is_monotonic_decreasing and curve.coverage.is_monotonic_increasing and curve.coverage.iloc[-1] == 1
    for r in curve.itertuples(): assert (r.photos, r.right) == ((c >= r.threshold).sum(), right[c >= r.threshold].sum())
    assert ((curve.accuracy_lo <= curve.accuracy) & (curve.accuracy <= curve.accuracy_hi)).all()
    threshold = pick_threshold(t, precision, level)
    alone = sort_alone(t, threshold)
    assert alone['sure'] == mark_sure(t, threshold).sure.sum() and alone['coverage'] == alone['sure']/len(t)
    if threshold == 1.01: assert alone['precision'] is None and alone['precision_ci95'] == [0, 1]
    else:
        assert alone['precision'] >= precision
        assert wilson_interval(right[c >= threshold].sum(), (c >= threshold).sum(), norm.ppf(level))[0] >= precision
    assert pick_threshold(t, precision, .99) >= threshold  # more to be sure of, fewer answers
    assert pick_threshold(t, min(precision+.1, 1), level) >= threshold

def test_few_photos_are_not_enough():
    for n in (1, 10, 22): assert pick_threshold(right_wrong([.9]*n, [True]*n)) == 1.01
    assert pick_threshold(right_wrong([.9]*23, [True]*23)) == .9
    assert pick_threshold(right_wrong([.9]*100, [False]*100)) == 1.01
    for kw in (dict(precision=0), dict(precision=98), dict(level=.2), dict(level=1)):
        with pytest.raises(ValueError, match='precision must|level must'): pick_threshold(right_wrong([.9], [True]), **kw)

def test_a_lucky_point_is_not_taken():
    "98 of 100 right is 98%, and no evidence of it"
    t = right_wrong(np.linspace(.99, .5, 100), [True]*98 + [False]*2)
    assert pick_threshold(t, .98, level=.5) == .5 < pick_threshold(t, .98)

def test_what_was_promised_is_kept_on_average():
    new, got = make_preds(20_000, 9, sd=6), []
    for s in range(40): got.append([sort_alone(new, pick_threshold(make_preds(500, 50+s, sd=6), .95, level))['precision'] for level in (.5, .75)])
    lucky, careful = np.mean(got, axis=0)
    assert careful >= .95 and careful > lucky

def test_sure_survives_csv(tmp_path):
    t = mark_sure(make_preds(20), .8)
    t.to_csv(tmp_path/'p.csv', index=False)
    back = read_predictions(tmp_path/'p.csv')
    assert back.sure.dtype == bool and back.sure.tolist() == t.sure.tolist() and class_columns(back) == class_columns(t) == COLS
    assert Evaluation(back).vocab == VOCAB

# ---- plots
def test_plots_draw_what_the_tables_say():
    t = make_preds(90)
    plot_reliability(t, bins=10)
    top, below = plt.gcf().axes
    plt.gcf().canvas.draw()
    assert '9 photos a point' in top.get_legend().get_texts()[1].get_text() and sum(b.get_height() for b in below.patches) == 90
    plot_coverage(Evaluation(t), .7)
    line, dot = plt.gca().lines
    assert len(line.get_xdata()) == len(coverage_curve(t)) and dot.get_xdata()[0] == pytest.approx((t.confidence >= .7).mean())
    for one in (right_wrong([1.], [True]), right_wrong([.4], [False])):
        plot_reliability(one); plt.gcf().canvas.draw()
        plot_coverage(one, 1.01); plt.gcf().canvas.draw()
