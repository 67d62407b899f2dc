"The command line as a user meets it: what it leaves, what it says, how it ends."
import hashlib, json, os, resource, shutil, subprocess, sys

import pandas as pd, pytest
from PIL import Image

from bad_files import make_bad_files
from garbage_fastai.cli import main

TINY = ['--arch','resnet10t', '--weights','none', '--freeze','none', '--size','32', '--epochs','1', '--bs','16', '--augment','light']

def call(*args):
    "Run the command in this process; its exit code"
    with pytest.raises(SystemExit) as e: main([str(a) for a in args])
    return e.value.code or 0

def fails(capsys, code, *args, says):
    "The command ends with `code` and one line on stderr that holds every word of `says`"
    capsys.readouterr()
    assert call(*args) == code
    err = capsys.readouterr().err
    lines = [l for l in err.splitlines() if l.startswith('garbage-fastai: ')]
    assert len(lines) == 1 and 'Traceback' not in err, err
    for word in [says] if isinstance(says, str) else says: assert word in lines[0], lines[0]

def fingerprint(folder):
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()) for p in sorted(folder.rglob('*')) if p.is_file()}

@pytest.fixture(scope='module')
def run(sample_dir, tmp_path_factory):
    "A trained run, made by the command"
    out = tmp_path_factory.mktemp('runs')/'first'
    before = fingerprint(sample_dir)
    assert call('train', sample_dir, '--out', out, *TINY) == 0
    assert fingerprint(sample_dir) == before
    return out

def test_train_leaves_what_it_promises(run):
    assert sorted(p.name for p in run.iterdir()) == ['config.json', 'confusion_matrix.png', 'history.csv', 'history.png', 'maps', 'metrics.json', 'model', 'predictions.csv', 'report.html', 'splits.csv']
    metrics = json.loads((run/'metrics.json').read_text())
    preds = pd.read_csv(run/'predictions.csv').query("split=='test'")
    assert metrics['n'] == len(preds) and metrics['accuracy'] == pytest.approx((preds.predicted==preds.label).mean())
    lo,hi = metrics['accuracy_ci95']
    assert lo <= metrics['accuracy'] <= hi and set(metrics['per_class']) == set(preds.label)
    assert len(pd.read_csv(run/'history.csv')) == 1
    assert json.loads((run/'config.json').read_text())['arch'] == 'resnet10t'
    assert {p.name for p in (run/'model').iterdir()} == {'README.md', 'model.json', 'model.safetensors'}

def test_predict_writes_one_row_a_photo(run, sample_dir, tmp_path, capsys):
    assert call('predict', run/'model', sample_dir/'glass', sample_dir/'metal', '--out', tmp_path/'p.csv', '--copy-into', tmp_path/'sorted') == 0
    preds = pd.read_csv(tmp_path/'p.csv')
    classes = sorted(p.name for p in sample_dir.iterdir() if p.is_dir())
    assert list(preds.columns) == ['path','predicted','confidence','sure','ok','reason'] + classes
    assert len(preds) == 24 and preds.ok.all()
    assert preds[classes].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-4)
    copies = {p.name: p.parent.name for p in (tmp_path/'sorted').rglob('*.jpg')}
    assert len(copies) == 24
    for r in preds.itertuples(): assert copies[os.path.basename(r.path)] == r.predicted and os.path.exists(r.path)

def test_predict_writes_a_submission(run, sample_dir, tmp_path, capsys):
    photos = tmp_path/'test'
    shutil.copytree(sample_dir/'glass', photos)
    assert call('predict', run, photos, '--out', tmp_path/'p.csv', '--submission', tmp_path/'s.csv') == 0
    sub = pd.read_csv(tmp_path/'s.csv')
    assert list(sub.columns) == ['file','species'] and set(sub.file) == {p.name for p in photos.iterdir()}
    assert list(sub.species) == list(pd.read_csv(tmp_path/'p.csv').predicted)
    (photos/'broken.jpg').write_bytes(b'no photo')
    fails(capsys, 2, 'predict', run, photos, '--out', tmp_path/'p2.csv', '--submission', tmp_path/'s2.csv', says=['broken.jpg', 'Kaggle'])
    assert (tmp_path/'p2.csv').exists() and not (tmp_path/'s2.csv').exists()

def test_evaluate_agrees_with_the_run(run, sample_dir, tmp_path, capsys):
    assert call('evaluate', run, sample_dir, '--out', tmp_path/'ev') == 0
    assert 'accuracy' in capsys.readouterr().out
    preds = pd.read_csv(tmp_path/'ev'/'predictions.csv')
    old = pd.read_csv(run/'predictions.csv').set_index('path')
    both = preds.set_index('path').loc[old.index]
    assert (both.predicted == old.predicted).all()

def test_scan_counts(sample_dir, tmp_path, capsys):
    assert call('scan', sample_dir, '--out', tmp_path/'t.csv') == 0
    assert '12  glass' in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path/'t.csv')) == 72

def test_bad_files_are_named_and_stop_nothing(sample_dir, tmp_path, capsys):
    "A folder with every kind of bad file among the photos trains and predicts to the end"
    data = tmp_path/'data'
    shutil.copytree(sample_dir, data)
    kinds = make_bad_files(data/'glass')
    assert len(set(kinds.values())) >= 20
    assert call('train', data, '--out', tmp_path/'run', *TINY) == 0
    out = capsys.readouterr().out
    splits = pd.read_csv(tmp_path/'run'/'splits.csv', keep_default_na=False, encoding_errors='surrogateescape')
    bad = splits[~splits.ok]
    assert len(bad) >= 20 and (bad.reason!='').all() and (bad.split=='').all()
    assert splits.ok.sum() == 72
    for reason in bad.reason.head(50): assert reason in out
    assert call('predict', tmp_path/'run', data/'glass', '--out', tmp_path/'p.csv') == 0
    preds = pd.read_csv(tmp_path/'p.csv', keep_default_na=False, encoding_errors='surrogateescape')
    assert preds.ok.sum() == 12 and len(preds) == 12 + len(bad)
    assert (preds[~preds.ok].reason!='').all() and (preds[~preds.ok].predicted=='').all()

def one_class(tmp, sample):
    shutil.copytree(sample/'glass', tmp/'d'/'glass')
    return tmp/'d'

def one_photo(tmp, sample):
    shutil.copytree(sample/'glass', tmp/'d'/'glass')
    (tmp/'d'/'cork').mkdir()
    shutil.copy(sample/'metal'/'metal_001.jpg', tmp/'d'/'cork')
    return tmp/'d'

def empty(tmp, sample):
    (tmp/'d').mkdir()
    return tmp/'d'

@pytest.mark.parametrize('make,says', [(one_class, ['only one class', 'glass']), (one_photo, ["'cork'"]), (empty, ['photo']),
                                       (lambda t,s: t/'nowhere', ['nowhere']), (lambda t,s: s/'glass'/'glass_001.jpg', ['glass_001.jpg'])],
                         ids=['one class', 'one photo', 'empty', 'missing path', 'file for a folder'])
def test_data_that_cannot_be_trained_on(make, says, sample_dir, tmp_path, capsys):
    fails(capsys, 2, 'train', make(tmp_path, sample_dir), '--out', tmp_path/'run', *TINY, says=says)
    assert not (tmp_path/'run').exists()

def test_class_missing_from_valid(sample_dir, tmp_path, capsys):
    rows = [(p.relative_to(sample_dir), 'train' if p.parent.name=='glass' or i%2 else 'valid') for i,p in enumerate(sorted(sample_dir.rglob('*.jpg')))]
    pd.DataFrame(rows, columns=['path','split']).to_csv(tmp_path/'s.csv', index=False)
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', '--split', tmp_path/'s.csv', *TINY, says=["'glass'", 'valid'])
    assert not (tmp_path/'run').exists()

@pytest.mark.parametrize('args,says', [
    (['--arch','resnet43'], ['resnet43', 'did you mean']), (['--weights','nowhere.pth'], 'nowhere.pth'), (['--augment','strong'], 'strong'),
    (['--precision','fp64'], 'fp64'), (['--freeze','deep'], 'deep'), (['--freeze','99'], '99'), (['--size','big'], 'big'), (['--split','90/20/10'], '90/20/10')])
def test_arguments_that_mean_nothing(args, says, sample_dir, tmp_path, capsys):
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', *TINY, *args, says=says)
    assert not (tmp_path/'run').exists()

def test_weights_that_no_hub_gives(sample_dir, tmp_path, capsys):
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', *TINY, '--arch','resnet18', '--weights','hub', says=['resnet18', 'weights=FILE', 'pip'])

def test_a_run_is_not_overwritten_unasked(run, sample_dir, tmp_path, capsys):
    before = fingerprint(run)
    fails(capsys, 2, 'train', sample_dir, '--out', run, *TINY, says='--overwrite')
    fails(capsys, 2, 'train', sample_dir, '--out', sample_dir, *TINY, says='other files')
    fails(capsys, 2, 'train', tmp_path/'nowhere', '--out', run, '--overwrite', *TINY, says='nowhere')
    assert fingerprint(run) == before
    again = tmp_path/'again'
    shutil.copytree(run, again)
    (again/'notes.txt').write_text('mine')
    assert call('train', sample_dir, '--out', again, '--overwrite', *TINY, '--seed', 7) == 0
    assert json.loads((again/'config.json').read_text())['seed'] == 7
    assert (again/'notes.txt').read_text() == 'mine'

def test_out_without_permission(sample_dir, tmp_path, capsys):
    file = tmp_path/'file'
    file.write_text('mine')
    fails(capsys, 2, 'train', sample_dir, '--out', file, *TINY, says='is a file')
    fails(capsys, 1, 'train', sample_dir, '--out', file/'run', *TINY, says=["can't write into", 'another folder'])
    assert file.read_text() == 'mine'
    locked = tmp_path/'locked'
    locked.mkdir(mode=0o500)
    if os.geteuid()==0: locked = '/proc/sys'  # root may write nearly everywhere, but not there
    fails(capsys, 1, 'train', sample_dir, '--out', f'{locked}/run', *TINY, says=["can't write into", 'permission'])

def test_full_disk_leaves_nothing_half_written(sample_dir, tmp_path):
    "A limit on the size of files stands for a full disk: the weights don't fit"
    code = "from garbage_fastai.cli import main; main()"
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    res = subprocess.run([sys.executable, '-c', code, 'train', sample_dir, '--out', tmp_path/'run', *TINY], preexec_fn=limit, capture_output=True, text=True)
    assert res.returncode == 1, res.stderr
    lines = [l for l in res.stderr.splitlines() if l.startswith('garbage-fastai: ')]
    assert len(lines) == 1 and 'Traceback' not in res.stderr, res.stderr
    assert not (tmp_path/'run').exists()

def test_models_that_cannot_be_used(run, sample_dir, tmp_path, capsys):
    photo = sample_dir/'glass'/'glass_001.jpg'
    fails(capsys, 2, 'predict', tmp_path/'none', photo, says='none')
    (tmp_path/'old').mkdir()
    (tmp_path/'old'/'export.pkl').write_bytes(b'\x80\x04.')
    fails(capsys, 2, 'predict', tmp_path/'old', photo, says='pickle')
    fails(capsys, 2, 'predict', run, tmp_path/'nowhere.jpg', says='nowhere.jpg')
    fails(capsys, 2, 'predict', run, photo, '--out', tmp_path, says='is a folder')

def test_debug_shows_where(tmp_path):
    with pytest.raises(FileNotFoundError): main(['scan', str(tmp_path/'nowhere'), '--debug'])

def test_same_seed_same_model(run, sample_dir, tmp_path):
    assert call('train', sample_dir, '--out', tmp_path/'again', *TINY) == 0
    a,b = ((d/'predictions.csv').read_text() for d in (run, tmp_path/'again'))
    assert a == b

def test_evaluate_under_stress(run, sample_dir, tmp_path, capsys):
    assert call('evaluate', run, sample_dir, '--out', tmp_path/'ev', '--stress') == 0
    shown = capsys.readouterr().out
    assert 'the model has learned from some of these photos' in shown
    r = pd.read_csv(tmp_path/'ev'/'stress.csv')
    clean = json.loads((tmp_path/'ev'/'metrics.json').read_text())['accuracy']
    assert len(r) == 36 and r.accuracy[0] == pytest.approx(clean) and (r.n == 72).all()
    assert 'darkness' in shown and f"mean under stress {r.accuracy[1:].mean():.1%}" in shown
    assert Image.open(tmp_path/'ev'/'stress.png').width > 400

def test_leaks_are_named_and_what_they_do(sample_dir, tmp_path, capsys):
    "A photo of test that stands in train once more is said on the command line, in the figures and in the report"
    photos = tmp_path/'photos'
    shutil.copytree(sample_dir, photos)
    rows = [(p, ('train','train','valid','test')[i%4]) for i,p in enumerate(sorted(photos.rglob('*.jpg')))]
    twin = next(p for p,s in rows if s=='test' and p.parent.name=='glass')
    rows.append((shutil.copy(twin, twin.with_name('zz-again.jpg')), 'train'))
    pd.DataFrame(rows, columns=['path','split']).to_csv(tmp_path/'split.csv', index=False)
    assert call('train', photos, '--out', tmp_path/'run', '--split', tmp_path/'split.csv', *TINY) == 0
    out = capsys.readouterr().out
    assert 'have a duplicate in train' in out and twin.name in out
    metrics = json.loads((tmp_path/'run'/'metrics.json').read_text())
    preds = pd.read_csv(tmp_path/'run'/'predictions.csv').query("split=='test'")
    rest = preds[preds.path.map(os.path.basename) != twin.name]
    assert metrics['leaked'] >= 1 and 0 <= metrics['accuracy_without_leaked'] <= 1
    if metrics['leaked'] == 1: assert metrics['accuracy_without_leaked'] == pytest.approx((rest.predicted==rest.label).mean())
    report = (tmp_path/'run'/'report.html').read_text()
    assert 'a duplicate in train' in report and 'When to ask a person' in report
