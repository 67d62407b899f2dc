"Several seeds and folds on the command line: the runs, the summary, and going on after a stop"
import json, shutil, warnings

import pandas as pd, pytest

from conftest import TINY, call, fails
from garbage_fastai.experiments import COLUMNS, results_table
from garbage_fastai.repeat import summarize_runs

@pytest.fixture(scope='module')
def folds(sample_dir, tmp_path_factory):
    "Three folds, made by the command"
    out = tmp_path_factory.mktemp('repeat')/'folds'
    assert call('train', sample_dir, '--out', out, '--folds', 3, *TINY) == 0
    return out

def test_folds_test_every_photo_once(folds):
    assert sorted(p.name for p in folds.iterdir()) == ['fold-1', 'fold-2', 'fold-3', 'summary.csv']
    preds = pd.concat(pd.read_csv(folds/f'fold-{i}'/'predictions.csv').query("split=='test'") for i in (1,2,3))
    assert len(preds) == 72 and preds.path.is_unique
    s = pd.read_csv(folds/'summary.csv', index_col='run')
    assert list(s.index) == ['fold-1', 'fold-2', 'fold-3', 'mean', 'sd', 'pooled'] and list(s.columns) == ['n', 'accuracy', 'lo', 'hi', 'macro_f1']
    right = (preds.predicted==preds.label).mean()
    assert s.accuracy['pooled'] == pytest.approx(right) and s.n['pooled'] == 72 and s.lo['pooled'] < right < s.hi['pooled']
    runs = s.loc[['fold-1', 'fold-2', 'fold-3'], 'accuracy']
    assert s.accuracy['mean'] == pytest.approx(runs.mean()) and s.accuracy['sd'] == pytest.approx(runs.std())

def test_a_stopped_repetition_goes_on(folds, sample_dir, tmp_path, capsys):
    "Finished runs are left as they are, one that was cut short is made anew, one that is missing is made"
    out = tmp_path/'folds'
    shutil.copytree(folds, out)
    for name in ('report.html', 'metrics.json'): (out/'fold-2'/name).unlink()
    shutil.rmtree(out/'fold-3')
    (out/'summary.csv').unlink()
    first = (out/'fold-1'/'predictions.csv').stat().st_mtime_ns
    assert call('train', sample_dir, '--out', out, '--folds', 3, *TINY) == 0
    shown = capsys.readouterr().out
    assert 'fold-1: finished before' in shown and 'fold-2: finished' not in shown and 'pooled' in shown
    assert (out/'fold-1'/'predictions.csv').stat().st_mtime_ns == first
    assert (out/'summary.csv').read_text() == (folds/'summary.csv').read_text()

def test_seeds(sample_dir, tmp_path, capsys):
    assert call('train', sample_dir, '--out', tmp_path/'seeds', '--seeds', 2, '--seed', 7, *TINY) == 0
    configs = [json.loads((tmp_path/'seeds'/f'seed-{s}'/'config.json').read_text()) for s in (7,8)]
    assert [c['seed'] for c in configs] == [7,8] and configs[0]['split_hash'] != configs[1]['split_hash']
    tested = set().union(*(pd.read_csv(tmp_path/'seeds'/f'seed-{s}'/'predictions.csv').query("split=='test'").path for s in (7,8)))
    s = pd.read_csv(tmp_path/'seeds'/'summary.csv', index_col='run')
    assert s.n['pooled'] == len(tested) < s.n['seed-7'] + s.n['seed-8']
    assert f"summary: {tmp_path/'seeds'/'summary.csv'}" in capsys.readouterr().out

def test_what_does_not_fit(folds, sample_dir, tmp_path, capsys):
    before = sorted(folds.rglob('*'))
    fails(capsys, 2, 'train', sample_dir, '--out', folds, '--folds', 3, *TINY, '--epochs', 2, says=['fold-1', 'epochs 1 and not 2', '--overwrite'])
    fails(capsys, 2, 'train', sample_dir, '--out', folds, '--folds', 4, *TINY, says=['fold 1 of 3 and not fold 1 of 4'])
    fails(capsys, 2, 'train', sample_dir, '--out', folds, '--seeds', 2, *TINY, says='holds other files')
    fails(capsys, 2, 'train', sample_dir, '--out', folds/'fold-1', '--folds', 3, *TINY, says='holds other files')
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'new', '--folds', 3, '--seeds', 2, *TINY, says=['--seeds or --folds'])
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'new', '--folds', 3, '--split', '50/25/25', *TINY, says='--split')
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'new', '--folds', 13, *TINY, says='13 folds')
    more = tmp_path/'more'
    shutil.copytree(sample_dir, more)
    shutil.copy(more/'glass'/'glass_001.jpg', more/'metal'/'new.jpg')
    fails(capsys, 2, 'train', more, '--out', folds, '--folds', 3, *TINY, says='other photos or labels')
    assert sorted(folds.rglob('*')) == before and not (tmp_path/'new').exists()

def test_pooled_by_content(folds, tmp_path):
    "The same photos elsewhere are the same photos; others under the same paths are not; copies are one each"
    runs = []
    for i,(folder,prefix) in enumerate((('/a',''), ('/b',''), ('/a','new '))):
        run = tmp_path/f'r{i}'
        run.mkdir()
        t = pd.DataFrame(dict(path=[f'{folder}/glass/{k}.jpg' for k in range(4)], label='glass', split='test', sha256=[f'{prefix}{k}' for k in (0,0,1,2)]))
        t.to_csv(run/'splits.csv', index=False)
        t.drop(columns='sha256').assign(predicted=['glass','glass','glass','metal' if i else 'glass'], ok=True).to_csv(run/'predictions.csv', index=False)
        (run/'metrics.json').write_text(json.dumps(dict(split='test', n=4, accuracy=.75 if i else 1., macro_f1=1.)))
        runs.append(run)
    one = summarize_runs(runs[:1]).loc['pooled']
    assert (one.n, one.accuracy) == (4, 1)
    moved = summarize_runs(runs[:2]).loc['pooled']
    assert (moved.n, moved.accuracy) == (4, pytest.approx(3.5/4))
    other = summarize_runs([runs[0], runs[2]]).loc['pooled']
    assert (other.n, other.accuracy) == (8, pytest.approx(7/8))

def test_other_photos_under_the_same_names(folds, sample_dir, tmp_path, capsys):
    "A finished run of other photos is not taken for one of these, though classes and names are the same"
    other = tmp_path/'other'
    shutil.copytree(sample_dir, other)
    a = other/'glass'/'glass_001.jpg'
    data = a.read_bytes()
    a.write_bytes(data + b'\0')
    fails(capsys, 2, 'train', other, '--out', folds, '--folds', 3, *TINY, says=['fold-1', 'other photos or labels'])
    a.write_bytes(data)
    assert call('train', other, '--out', folds, '--folds', 3, *TINY) == 0  # the same photos in another place

def test_two_folders_of_one_name_in_one_table(tmp_path):
    "A mean over runs of different photos is told"
    def rows(hashes): return pd.DataFrame([dict.fromkeys(COLUMNS, 1) | dict(recipe='lite0', changes='', data='photos', split='50/25/25', seed=42+i//2, split_hash=h, machine='m')
                                           for i,h in enumerate(hashes)], columns=COLUMNS)
    with pytest.warns(UserWarning, match='lite0 on .photos. with split 50/25/25 and seed 43 is there with different photos .split hashes b, c.'): results_table(rows('aabc'))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert results_table(rows('aabb'))['runs'].tolist() == [4]
