"Two models on the same photos: the statistics against others' formulas, tables and runs as people have them, folds, and the command"
import hashlib, json, shutil, warnings

import numpy as np, pandas as pd, pytest
from hypothesis import given, strategies as st
from scipy.stats import binom

from conftest import CLASSES, make_table, quick_folds
from garbage_fastai.cli import main
from garbage_fastai.compare import Comparison, compare_predictions, compare_runs, mean_sd
from garbage_fastai.runs import read_metrics
from garbage_fastai.splits import PARTS, split_images

cells = st.tuples(*[st.integers(0, 300)]*4).filter(any)

def with_content(table, of=None):
    "As a scan gives it: the content of each photo, here that of `of` or of its own class and name"
    return table.assign(sha256=[hashlib.sha256(k.encode()).hexdigest() for k in (of or ['/'.join(p.split('/')[-2:]) for p in table.path])])

def answers(table, right):
    wrong = table.label.map(dict(zip(CLASSES, np.roll(CLASSES, 1))))
    return table.assign(predicted=np.where(right, table.label, wrong))

def caught(call):
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        res = call()
    return res, [str(o.message) for o in w]

# ---- statistics
@quick_folds
@given(cells)
def test_statistics_and_their_mirror_image(c):
    r, m = Comparison(*c), Comparison(c[0], c[2], c[1], c[3])
    n, a, b = sum(c), c[1], c[2]
    assert r.n == n and r.accuracy == ((c[0]+a)/n, (c[0]+b)/n) == m.accuracy[::-1] and r.accuracy_ci95 == m.accuracy_ci95[::-1]
    assert r.difference == pytest.approx(r.accuracy[1]-r.accuracy[0]) and r.difference == -m.difference
    lo, hi = r.difference_ci95
    assert -1 <= lo <= r.difference <= hi <= 1 and m.difference_ci95 == pytest.approx((-hi, -lo))
    assert r.pvalue == pytest.approx(m.pvalue) == pytest.approx(min(1, 2*binom.cdf(min(a, b), a+b, .5)))
    assert Comparison(c[0]+7, a, b, c[3]).pvalue == r.pvalue  # photos that both get right say nothing
    if r.pvalue < .05: assert lo*hi > 0 and r.verdict.startswith(f'{r.names[b > a]} is better')
    else: assert r.verdict.startswith(('No evidence of a difference', 'Too close to call')) and 'equal' not in r.verdict

def test_interval_holds_what_it_should():
    rng = np.random.default_rng(0)
    for n, p in ((60, (.7, .1, .15, .05)), (600, (.86, .03, .045, .065))):
        ends = [Comparison(*x).difference_ci95 for x in rng.multinomial(n, p, 500)]
        assert np.mean([lo <= p[2]-p[1] <= hi for lo,hi in ends]) >= .92

def test_shown_as_text_and_as_a_table():
    r = Comparison(80, 2, 15, 3, ('a|b', 'new'), ['read me'])
    assert 'difference +13.0 points' in repr(r) and '80 both right, 2 only a|b, 15 only new, 3 neither' in repr(r) and repr(r).endswith('Note: read me')
    lines = r._repr_markdown_().splitlines()
    assert lines[2] == '| a\\|b | 82.0% | 73.3% to 88.3% |' and 'new is better' in lines[-3] and lines[-1] == 'read me'

# ---- predictions
@quick_folds
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=60, max_size=60), st.randoms(use_true_random=False))
def test_place_and_order_do_not_matter(right, rnd):
    x, y = map(np.array, zip(*right))
    order = list(range(60))
    rnd.shuffle(order)
    a, b = answers(make_table(), x), answers(make_table(folder='D:\\elsewhere').assign(path=lambda t: t.path.str.replace('/', '\\')), y).iloc[order]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        r = compare_predictions(a, b)
        same = compare_predictions(a, a)
    assert (r.both, r.only_a, r.only_b, r.neither) == ((x&y).sum(), (x&~y).sum(), (~x&y).sum(), (~x&~y).sum())
    assert same.difference == 0 and same.pvalue == 1 and same.only_a == same.only_b == 0

def test_only_shared_photos_count():
    a, b = answers(make_table(), True), answers(make_table(), False)
    b.loc[0, 'ok'] = False  # could not be opened there
    b.loc[1, 'label'] = None
    r, said = caught(lambda: compare_predictions(a[:50], b, ('old', 'new')))
    assert r.n == 48 and r.only_a == 48 and said == r.notes and len(said) == 1
    assert 'the 48 photos' in said[0] and '2 were tested by old alone and 10 by new alone' in said[0]
    with pytest.raises(ValueError, match=r'no photo was tested by both first \(30\) and second \(30\)'): compare_predictions(a[:30], a[30:])
    with pytest.raises(ValueError, match="the labels disagree: glass/3.jpg is glass in first and metal in second"):
        compare_predictions(a, a.assign(label=a.label.where(a.index != 3, 'metal')))
    with pytest.raises(ValueError, match="old: not a predictions table: column 'predicted'"): compare_predictions(make_table(), a, ('old', 'new'))
    with pytest.raises(ValueError, match='twice'): compare_predictions(pd.concat([a, a]), a)

# ---- runs
def make_run(folder, table, right=True, **config):
    folder.mkdir(parents=True)
    preds = answers(table, right)
    preds[preds.split.isin(['valid', 'test'])].to_csv(folder/'predictions.csv', index=False)
    table.to_csv(folder/'splits.csv', index=False)
    (folder/'config.json').write_text(json.dumps(dict(arch='resnet18', seed=42, **config)))
    test = preds[preds.split=='test']
    acc = float((test.predicted==test.label).mean())
    (folder/'metrics.json').write_text(json.dumps(dict(split='test', accuracy=acc, macro_f1=acc, n=len(test))))
    return folder

@pytest.fixture
def runs(tmp_path):
    "Two runs of one split, in folders that lie in different places: the second has 9 of 15 test photos right, the first all"
    t = with_content(split_images(make_table()))
    right = np.ones(60, bool)
    right[np.flatnonzero(t.split=='test')[:6]] = False
    u = t.assign(path=t.path.str.replace('photos', '/mnt/copy'))
    return make_run(tmp_path/'first', t, lr=.1, data='photos'), make_run(tmp_path/'second', u, right, lr=.2, data='/mnt/copy')

def test_runs_of_one_split(runs):
    r, said = caught(lambda: compare_runs(*runs))
    assert (r.both, r.only_a, r.only_b, r.neither) == (9, 6, 0, 0) and r.names == ('first', 'second')
    assert not said and r.notes == ['the recipes differ: lr 0.1 and 0.2']

def test_what_the_other_run_learned_from_is_left_out(runs, tmp_path):
    t = with_content(split_images(make_table(), seed=1))
    third = make_run(tmp_path/'third', t)
    first_test = set(split_images(make_table()).query("split=='test'").path)
    shared = first_test & set(t[t.split=='test'].path)
    r, said = caught(lambda: compare_runs(runs[0], third))
    assert r.n == len(shared) < 15 and len(said) == 3
    assert f'{15-len(shared)} test photos of first were in the train or valid part of third: left out' in said
    none = t.assign(split=np.where(t.path.isin(first_test), 'train', 'test'))
    with pytest.raises(ValueError, match=r'no photo was tested by both.*--split .*first/splits\.csv'): compare_runs(runs[0], make_run(tmp_path/'none', none))
    again = with_content(split_images(make_table(), runs[0]/'splits.csv'))  # the mend that the message names
    assert caught(lambda: compare_runs(runs[0], make_run(tmp_path/'again', again)))[0].n == 15

def test_same_names_in_sub_folders_are_told_apart(tmp_path):
    "1.jpg of two cameras: only one of them was tested in each run, and they are not the same photo"
    t = pd.concat([make_table(9, f'photos/{cam}') for cam in 'xy'], ignore_index=True).assign(split='train')
    a, b = (t.assign(split=np.where(t.path.str.contains(f'/{cam}/'), 'test', 'train')) for cam in 'xy')
    with pytest.raises(ValueError, match='no photo was tested by both'): compare_runs(make_run(tmp_path/'a', a), make_run(tmp_path/'b', b))

def test_other_photos_under_the_same_names(tmp_path):
    "Two folders with glass/1.jpg in both, of two cameras: nothing to compare, and no way to train on the first's split would help"
    t = split_images(make_table())
    a,b = make_run(tmp_path/'a', with_content(t)), make_run(tmp_path/'b', with_content(t, [f'other {i}' for i in range(60)]))
    with pytest.raises(ValueError, match=r'no photo was tested by both a \(15\) and b \(15\): no photo of the one is in the other, so train both on the same photos') as e:
        compare_runs(a, b)
    assert '--split' not in str(e.value)

def test_some_photos_are_others(tmp_path):
    "A folder in which some photos were replaced: those are left out"
    t = split_images(make_table())
    test = np.flatnonzero(t.split=='test')
    content = [f'photo {i}' for i in range(60)]
    right = np.ones(60, bool)
    right[test[:4]] = False
    a = make_run(tmp_path/'a', with_content(t, content))
    for i in test[:3]: content[i] = f'new {i}'
    r,said = caught(lambda: compare_runs(a, make_run(tmp_path/'b', with_content(t, content), right)))
    assert (r.n, r.both, r.only_a) == (12, 11, 1)
    assert said == r.notes == ['only the 12 photos that both were tested on count; 3 were tested by a alone and 3 by b alone']

def test_renamed_photos_are_found_again(tmp_path):
    "The same photos, renamed and in other sub-folders; b was tested on all of them and has the first 5 wrong"
    t = split_images(make_table())
    content = [f'photo {i}' for i in range(60)]
    right = np.ones(60, bool)
    right[np.flatnonzero(t.split=='test')[:5]] = False
    a = make_run(tmp_path/'a', with_content(t, content))
    u = t.assign(path=[f'/mnt/{c}/day/IMG_{(7*i)%60}.jpg' for i,c in enumerate(t.label)])
    b = make_run(tmp_path/'b', with_content(u, content).iloc[::-1], right[::-1])
    r,said = caught(lambda: compare_runs(a, b))
    assert (r.n, r.both, r.only_a) == (15, 10, 5) and not said

def test_names_swapped_between_two_photos(tmp_path):
    "Matched by name, each would be judged by the other's answer"
    t = split_images(make_table())
    i,j = np.flatnonzero((t.split=='test') & (t.label=='glass'))[:2]
    content = [f'photo {k}' for k in range(60)]
    right = np.ones(60, bool); right[i] = False
    a = make_run(tmp_path/'a', with_content(t, content), right)
    content[i],content[j] = content[j],content[i]
    right[[i,j]] = True,False
    r,_ = caught(lambda: compare_runs(a, make_run(tmp_path/'b', with_content(t, content), right)))
    assert (r.n, r.neither, r.only_a, r.only_b) == (15, 1, 0, 0)

def test_labels_that_a_review_changed(tmp_path):
    "Left out and named; refused where no label agrees"
    t = split_images(make_table())
    content = [f'photo {k}' for k in range(60)]
    i = np.flatnonzero(t.split=='test')[0]
    u = t.assign(label=t.label.where(t.index!=i, 'metal'))
    a,b = make_run(tmp_path/'a', with_content(t, content)), make_run(tmp_path/'b', with_content(u, content))
    r,said = caught(lambda: compare_runs(a, b))
    assert r.n == 14 and len(said) == 1 and said[0].startswith('1 photo with other labels in the two, such as glass/') and 'is glass in a and metal in b: left out' in said[0]
    c = make_run(tmp_path/'c', with_content(t.assign(label=t.label.str.upper()), content))
    with pytest.raises(ValueError, match='the labels disagree: .* is glass in a and GLASS in c, and 14 more'): compare_runs(a, c)

def test_a_photo_that_is_there_several_times(tmp_path):
    t = split_images(make_table()).assign(where=range(60))
    test,train = np.flatnonzero(t.split=='test'),np.flatnonzero(t.split=='train')
    content = [f'photo {k}' for k in range(60)]
    content[test[1]] = content[test[0]]        # one photo, twice in the test part under one label
    content[test[-1]] = content[test[2]]       # one under two labels
    content[test[3]] = content[train[0]]       # one that was also learned from
    a = make_run(tmp_path/'a', with_content(t, content))
    r,said = caught(lambda: compare_runs(a, make_run(tmp_path/'b', with_content(t, content))))
    assert r.n == r.both == 15 - 1 - 2 - 1
    assert [o for o in said if 'of a ' in o] == ['1 photo of a in its test part as well as in train or valid: left out', '1 photo of a under several labels: left out']

def test_runs_from_before_contents_were_kept(tmp_path):
    t = split_images(make_table())
    old,new = make_run(tmp_path/'old', t), make_run(tmp_path/'new', with_content(t))
    r,_ = caught(lambda: compare_runs(old, new))
    assert r.n == 15 and r.notes == ['photos are matched by class and file name alone, since their contents are not known in splits.csv of old']
    with pytest.raises(ValueError, match='twice'): compare_runs(old, make_run(tmp_path/'twice', pd.concat([t, t])))

@quick_folds
@given(st.data())
def test_only_the_same_content_is_compared(tmp_path_factory, data):
    "Any two runs over photos of a small world, under any names: the counts are those of a plain look at each content"
    folder = tmp_path_factory.mktemp('runs')
    tables = []
    for name in 'ab':
        k = data.draw(st.integers(1, 12))
        rows = data.draw(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(PARTS), st.booleans()), min_size=k, max_size=k))
        names = data.draw(st.permutations(range(k)))
        t = pd.DataFrame(dict(path=[f'p/{CLASSES[c%3]}/{n}.jpg' for n,(c,_,_) in zip(names, rows)], label=[CLASSES[c%3] for c,_,_ in rows], split=[s for _,s,_ in rows]))
        right = {c: r for c,_,r in rows}
        tables.append((with_content(t, [f'{c}' for c,_,_ in rows]), [right[c] for c,_,_ in rows], rows))
    of = lambda rows, parts: {c for c,s,_ in rows if s in parts}
    both = set.intersection(*(of(r, ['test'])-of(r, ['train','valid']) for *_,r in tables))
    folder_of = lambda i: make_run(folder/'ab'[i], tables[i][0], np.array(tables[i][1]))
    try: a,b = map(folder_of, (0, 1)); r,_ = caught(lambda: compare_runs(a, b))
    except ValueError as e: assert not both and ('no photo was tested by both' in str(e) or 'tested no photos' in str(e))
    else:
        one,two = ({c: x for (c,_,_),x in zip(rows, right)} for _,right,rows in tables)
        assert r.n == len(both)
        assert (r.both, r.only_a, r.only_b) == (sum(one[c] and two[c] for c in both), sum(one[c] and not two[c] for c in both), sum(two[c] and not one[c] for c in both))

def test_predictions_by_content(tmp_path):
    "Files that are there are looked into; a table that says what its photos hold is believed"
    a,b = (tmp_path/o for o in 'ab')
    for d in (a, b): (d/'glass').mkdir(parents=True)
    for i in range(4):
        (a/'glass'/f'{i}.jpg').write_text(f'photo {i}')
        (b/'glass'/f'{i}.jpg').write_text(f'photo {3-i}')  # the same photos under other names
    t = [pd.DataFrame(dict(path=[str(d/'glass'/f'{i}.jpg') for i in range(4)], label='glass', predicted=['glass','metal','glass','glass'])) for d in (a, b)]
    r = compare_predictions(*t)
    assert (r.both, r.only_a, r.only_b, r.notes) == (2, 1, 1, [])
    for i in range(4): (b/'glass'/f'{i}.jpg').write_text(f'another {i}')
    with pytest.raises(ValueError, match='no photo was tested by both'): compare_predictions(*t)
    told = [o.assign(path=o.path.str.replace(str(tmp_path), f'{i}:'), sha256=[f'{k+i}' for k in range(4)]) for i,o in enumerate(t)]
    r,_ = caught(lambda: compare_predictions(*told))
    assert r.n == 3
    r,_ = caught(lambda: compare_predictions(*(o.drop(columns='sha256') for o in told)))
    assert r.n == 4 and r.notes == ['photos are matched by class and file name alone, since their contents are not known']

def test_folders_that_are_no_runs(runs, tmp_path):
    with pytest.raises(FileNotFoundError, match='has no predictions.csv'): compare_runs(runs[0], tmp_path)
    valid_only = make_run(tmp_path/'valid', split_images(make_table(), '75/25'))
    with pytest.raises(ValueError, match='tested no photos: train with a test part'): compare_runs(valid_only, runs[0])
    (runs[1]/'config.json').write_text('{')
    with pytest.raises(ValueError, match=r'second/config\.json is not JSON'): compare_runs(*runs)

def test_command(runs, tmp_path, capsys):
    with pytest.raises(SystemExit) as e: main(['compare', *map(str, runs)])
    out = capsys.readouterr()
    assert not e.value.code and out.err == '' and len(out.out.splitlines()) == 6
    assert 'first: 100.0% right' in out.out and 'second: 60.0% right' in out.out and 'first is better' in out.out
    shutil.rmtree(runs[1])
    with pytest.raises(SystemExit) as e: main(['compare', *map(str, runs)])
    err = capsys.readouterr().err
    assert e.value.code == 2 and len(err.splitlines()) == 1 and 'second has no predictions.csv' in err

def test_mean_and_sd(runs, tmp_path):
    m = read_metrics(runs)
    assert m.accuracy.tolist() == [1, .6] and m.n.tolist() == [15, 15]
    t = mean_sd(m)
    assert t.loc['accuracy'].tolist() == pytest.approx([.8, np.std([1, .6], ddof=1), 2]) and t.index.tolist() == ['accuracy', 'macro_f1']
    assert np.isnan(mean_sd(m[:1]).sd).all()
    with pytest.raises(ValueError, match='give runs of one kind'): mean_sd(m.assign(split=['test', 'valid']))
    with pytest.raises(FileNotFoundError, match='has no metrics.json'): read_metrics([tmp_path])
    with pytest.raises(ValueError, match='runs is empty'): read_metrics([])
