"The command line as a user meets it: what it leaves, what it says, how it ends."
import ast, json, os, re, resource, shutil, subprocess, sys

import garbage_fastai, pandas as pd, pytest, torch
from PIL import Image

from bad_files import make_bad_files
from conftest import ROOT, TINY, call, fails
from garbage_fastai.cli import app, as_typed, command_options, main
from garbage_fastai.recipe import SETTINGS, value_text

def test_predict_writes_one_row_a_photo(first_run, sample_dir, tmp_path, capsys):
    assert call('predict', first_run/'model', sample_dir/'glass', sample_dir/'metal', '--out', tmp_path/'p.csv', '--copy-into', tmp_path/'sorted') == 0
    preds = pd.read_csv(tmp_path/'p.csv')
    classes = sorted(p.name for p in sample_dir.iterdir() if p.is_dir())
    assert list(preds.columns) == ['path','predicted','confidence','sure','ok','reason'] + classes
    assert len(preds) == 24 and preds.ok.all()
    assert preds[classes].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-4)
    copies = {p.name: p.parent.name for p in (tmp_path/'sorted').rglob('*.jpg')}
    assert len(copies) == 24
    for r in preds.itertuples(): assert copies[os.path.basename(r.path)] == r.predicted and os.path.exists(r.path)

def test_predict_writes_a_submission(first_run, sample_dir, tmp_path, capsys):
    photos = tmp_path/'test'
    shutil.copytree(sample_dir/'glass', photos)
    assert call('predict', first_run, photos, '--out', tmp_path/'p.csv', '--submission', tmp_path/'s.csv') == 0
    sub = pd.read_csv(tmp_path/'s.csv')
    assert list(sub.columns) == ['file','species'] and set(sub.file) == {p.name for p in photos.iterdir()}
    assert list(sub.species) == list(pd.read_csv(tmp_path/'p.csv').predicted)
    (photos/'broken.jpg').write_bytes(b'no photo')
    fails(capsys, 2, 'predict', first_run, photos, '--out', tmp_path/'p2.csv', '--submission', tmp_path/'s2.csv', says=['broken.jpg', 'Kaggle'])
    assert (tmp_path/'p2.csv').exists() and not (tmp_path/'s2.csv').exists()

def test_evaluate_agrees_with_the_run(first_run, sample_dir, tmp_path, capsys):
    assert call('evaluate', first_run, sample_dir, '--out', tmp_path/'ev') == 0
    assert 'accuracy' in capsys.readouterr().out
    preds = pd.read_csv(tmp_path/'ev'/'predictions.csv')
    old = pd.read_csv(first_run/'predictions.csv').set_index('path')
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
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', *TINY, '--arch','resnet18', '--weights','hub', says=['resnet18', '--weights FILE', 'pip'])

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

def test_models_that_cannot_be_used(first_run, sample_dir, tmp_path, capsys):
    photo = sample_dir/'glass'/'glass_001.jpg'
    fails(capsys, 2, 'predict', tmp_path/'none', photo, says='none')
    (tmp_path/'old').mkdir()
    (tmp_path/'old'/'export.pkl').write_bytes(b'\x80\x04.')
    fails(capsys, 2, 'predict', tmp_path/'old', photo, says='pickle')
    fails(capsys, 2, 'predict', first_run, tmp_path/'nowhere.jpg', says='nowhere.jpg')
    fails(capsys, 2, 'predict', first_run, photo, '--out', tmp_path, says='is a folder')

def test_debug_shows_where(tmp_path):
    with pytest.raises(FileNotFoundError): main(['scan', str(tmp_path/'nowhere'), '--debug'])

def test_evaluate_under_stress(first_run, sample_dir, tmp_path, capsys):
    assert call('evaluate', first_run, sample_dir, '--out', tmp_path/'ev', '--stress') == 0
    shown = capsys.readouterr().out
    assert 'the model has learned from some of these photos' in shown
    r = pd.read_csv(tmp_path/'ev'/'stress.csv')
    clean = json.loads((tmp_path/'ev'/'metrics.json').read_text())['accuracy']
    assert len(r) == 36 and r.accuracy[0] == pytest.approx(clean) and (r.n == 72).all()
    assert 'darkness' in shown and f"mean under stress {r.accuracy[1:].mean():.1%}" in shown
    assert Image.open(tmp_path/'ev'/'stress.png').width > 400

def test_own_warnings_are_lines_and_those_of_others_are_not(sample_dir, tmp_path, capsys):
    "A split file that names strangers and misses photos, a class of which nothing can be read, and a photo beside the folders"
    photos = tmp_path/'photos'
    for c in ('glass','metal'): shutil.copytree(sample_dir/c, photos/c)
    (photos/'wood').mkdir()
    (photos/'wood'/'bad.jpg').write_bytes(b'\xff\xd8\xff\xe0 nothing')
    rows = [(p.relative_to(photos), 'train' if i%2 else 'valid') for i,p in enumerate(sorted(photos.rglob('*_0*.jpg'))[:-1])]
    pd.DataFrame([*rows, ('glass/gone.jpg','train')], columns=['path','split']).to_csv(tmp_path/'s.csv', index=False)
    assert call('train', photos, '--out', tmp_path/'run', '--split', tmp_path/'s.csv', *TINY, '--epochs', 0) == 0
    notes = [l for l in capsys.readouterr().err.splitlines() if l.strip()]
    assert all(l.startswith('note: ') for l in notes) and len(set(notes)) == len(notes) >= 2, notes
    assert any('1 named there is not found (glass/gone.jpg)' in l and 'not named there' in l for l in notes)
    assert any('no photo of wood can be used' in l for l in notes)

def test_every_warning_is_known_as_ours():
    "One without the class would be silenced together with those of other libraries"
    plain = []
    for py in (ROOT/'garbage_fastai').glob('*.py'):
        for node in ast.walk(ast.parse(py.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ('warn', 'warnings.warn') and 'GarbageWarning' not in ast.unparse(node):
                plain.append(f'{py.name}:{node.lineno}')
    assert not plain, f'without GarbageWarning: {", ".join(plain)}'

@pytest.mark.parametrize('args,says', [
    (['--bs','1'], '--bs 1: give'), (['--size','0'], '--size 0: give'), (['--size','-5'], '--size -5: give'), (['--size','1'], '--size 1: give'),
    (['--size','32','--arch','vit_tiny_patch16_224'], ['--size 32x32 does not fit', 'that does is 224']),
    (['--seed','9'*20], ['--seed 9999', '4294967295']), (['--augment','strong'], ['--augment strong is not known', 'waste']), (['--mult','-1'], '--mult -1'),
    (['--mult','nan'], '--mult nan'), (['--lr','0'], '--lr 0'), (['--lr','inf'], '--lr inf'), (['--schedule','fast'], '--schedule fast'),
    (['--precision','fp16'], '--precision fp16 needs a GPU'), (['--precision','fp64'], '--precision fp64'), (['--cache','tape'], '--cache tape'),
    (['--arch','resnet43'], '--arch resnet43'), (['--freeze','99'], '--freeze 99'), (['--balance','maybe'], '--balance maybe'), (['--share','0'], '--share 0'),
    (['--train-size','5'], '--train-size 5'), (['--label-smoothing','2'], '--label-smoothing 2'), (['--head','big'], '--head big'), (['--epochs','-1'], '--epochs -1'),
    (['--weights','nowhere.pth'], 'nowhere.pth'), (['--weights','packaged'], '--weights packaged go with --arch tf_efficientnet_lite0'),
    (['--arch','swin_tiny_patch4_window7_224','--size','224'], '--arch swin_tiny_patch4_window7_224 gives its features channels last'), (['--log','paper'], '--log paper')], ids=' '.join)
def test_refused_before_the_photos_are_looked_through(args, says, sample_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('garbage_fastai.train.scan_images', lambda *a, **k: pytest.fail('the photos were looked through'))
    if torch.cuda.is_available() and 'fp16' in args: pytest.skip('a GPU has fp16')
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', *TINY, *args, says=says)
    assert not (tmp_path/'run').exists()

def test_weights_that_do_not_fit_are_told_first(sample_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('garbage_fastai.train.scan_images', lambda *a, **k: pytest.fail('the photos were looked through'))
    (tmp_path/'text.pth').write_text('no weights')
    torch.save({'layer.weight': torch.zeros(2)}, tmp_path/'other.pth')
    for name,says in (('text.pth', 'not a safe weights file'), ('other.pth', ['does not fit resnet10t', 'its name with --arch NAME'])):
        fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', *TINY, '--weights', tmp_path/name, says=says)
    assert not (tmp_path/'run').exists()

def test_options_are_named_as_typed():
    options = command_options('train')
    assert {'weights','train_size','wanted_precision','out'} <= set(options)
    for said,typed in {"weights='packaged' go with arch='x1.a', not 'y'": "--weights packaged go with --arch x1.a, not 'y'",
                       'train_size=5x5: give more': '--train-size 5x5: give more', 'Either give weights=FILE (.pth), or': 'Either give --weights FILE (.pth), or',
                       'no photos in runs/size=3/x': 'no photos in runs/size=3/x', 'the-seed=4 is no setting': 'the-seed=4 is no setting',
                       'epochs=3.': '--epochs 3.', "seeds='a b'": '--seeds a b'}.items(): assert as_typed(said, options) == typed
    assert as_typed('epochs=-1: give', command_options('experiment')) == 'epochs=-1: give'
    assert as_typed('size=3', command_options('no-such-command')) == 'size=3'

def test_places_that_cannot_be_written_are_told_first(first_run, sample_dir, tmp_path, capsys, monkeypatch):
    for name in ('predict.predict_table','labels.scan_images','scan.scan_images','sort.find_images'):
        monkeypatch.setattr(f'garbage_fastai.{name}', lambda *a, **k: pytest.fail('work was done first'), raising=False)
    file,folder = tmp_path/'afile',tmp_path/'folder'
    file.write_text('mine')
    folder.mkdir()
    fails(capsys, 2, 'scan', sample_dir, '--out', file/'t.csv', says=['afile', 'no folder'])
    fails(capsys, 2, 'scan', sample_dir, '--out', folder, says='is a folder')
    fails(capsys, 2, 'review', sample_dir, '--out', file, says=['afile', 'is a file'])
    fails(capsys, 2, 'evaluate', first_run, sample_dir, '--out', file/'ev', says=['afile', 'no folder'])
    monkeypatch.undo()
    monkeypatch.setattr('garbage_fastai.sort.Predictor', lambda *a, **k: pytest.fail('the model was loaded first'))
    photo = sample_dir/'glass'
    for args,says in ((['--out', file/'deep'/'p.csv'], ['--out', 'no folder']), (['--copy-into', file], ['--copy-into', 'is a file']),
                      (['--submission', folder], ['--submission', 'is a folder']), (['--out', tmp_path/('x'*300)], 'name too long')):
        args = [*args] if '--out' in args else ['--out', tmp_path/'p.csv', *args]
        fails(capsys, 1 if 'x'*300 in str(args[1]) else 2, 'predict', first_run, photo, *args, says=says)
    assert file.read_text() == 'mine' and sorted(p.name for p in tmp_path.iterdir()) == ['afile', 'folder']

def test_no_photo_can_be_read(first_run, tmp_path, capsys):
    "The table is written and says why, and the exit code tells whoever only looks at that"
    photos = tmp_path/'photos'
    photos.mkdir()
    for i in range(3): (photos/f'{i}.jpg').write_bytes(b'no photo')
    fails(capsys, 1, 'predict', first_run, photos, '--out', tmp_path/'p.csv', says='none of the 3 photos can be read')
    preds = pd.read_csv(tmp_path/'p.csv')
    assert len(preds) == 3 and not preds.ok.any() and preds.reason.str.len().min() > 0

@pytest.mark.parametrize('name,head', [('a.rar', b'Rar!\x1a\x07\x01\x00'), ('a.7z', b"7z\xbc\xaf'\x1c"), ('photos.zip', b'Rar!\x1a\x07\x00'), ('old.RAR', b'cut')])
def test_archives_of_other_packers(name, head, sample_dir, first_run, tmp_path, capsys):
    file = tmp_path/name
    file.write_bytes(head+b'x'*100)
    for args in (['scan', file], ['train', file, '--out', tmp_path/'run']):
        fails(capsys, 2, *args, says=[name, 'RAR' if 'ar' in name.lower() and '7z' not in name or name=='photos.zip' else '7z', 'unpack it'])
    if name == 'photos.zip': fails(capsys, 2, 'predict', first_run, file, '--out', tmp_path/'p.csv', says='unpack it')
    elif head != b'cut':
        fails(capsys, 1, 'predict', first_run, file, '--out', tmp_path/'p.csv', says='none of the 1 photos')
        assert 'archive' in pd.read_csv(tmp_path/'p.csv').reason[0] and 'unpack it' in pd.read_csv(tmp_path/'p.csv').reason[0]

def test_what_is_piped_has_a_header(sample_dir, tmp_path, capsys):
    assert call('train', sample_dir, '--out', tmp_path/'run', *TINY, '--epochs', 2) == 0
    lines = [l.split() for l in capsys.readouterr().out.splitlines()]
    at = lines.index(['epoch','train_loss','valid_loss','accuracy','time'])
    assert [l[0] for l in lines[at+1:at+3]] == ['0','1'] and {len(l) for l in lines[at:at+3]} == {5}

def test_version(capsys):
    assert call('--version') == 0
    shown = capsys.readouterr().out
    assert re.fullmatch(rf'garbage-fastai {re.escape(garbage_fastai.__version__)} \(torch \S+, fastai \S+, Python \S+\)\n', shown)
    code = "import sys; from garbage_fastai.cli import main\ntry: main(['--version'])\nfinally: assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True).returncode == 0

def test_run_as_a_module():
    res = subprocess.run([sys.executable, '-m', 'garbage_fastai', 'evaluate', 'no-such-model', 'x'], capture_output=True, text=True)
    assert res.returncode == 2 and res.stderr.splitlines()[-1].startswith('garbage-fastai: ') and 'no-such-model' in res.stderr

def test_every_option_shows_its_default():
    "Or says that it is needed, or what it means not to give it; switches are off"
    import typer
    commands,lacking = typer.main.get_command(app).commands,[]
    for name,command in commands.items():
        for o in command.params:
            if o.param_type_name != 'option' or o.is_flag or o.required or o.name == 'help': continue
            shown = o.default not in (None, ()) and o.show_default or '[default: ' in o.help or 'not given:' in o.help
            if not shown: lacking.append(f'{name} --{o.name}')
    assert not lacking, f'no default in the help: {", ".join(lacking)}'
    recipe = {o.name: o.help for o in commands['train'].params}
    for k,s in SETTINGS.items():
        assert k in recipe and (s.default is None or f'[default: {value_text(s.default).lower()}]' in recipe[k]), k

def _complete(shell, line):
    "What the shell is given for completing `line`"
    env = {**os.environ, '_GARBAGE_FASTAI_COMPLETE': f'complete_{shell}', 'COMP_WORDS': line, 'COMP_CWORD': str(len(line.split(' '))-1), '_TYPER_COMPLETE_ARGS': line}
    return subprocess.run([sys.executable, '-m', 'garbage_fastai'], env=env, capture_output=True, text=True).stdout

def test_completion():
    assert 'train' in _complete('bash', 'garbage-fastai tr').split()
    assert '--augment' in _complete('bash', 'garbage-fastai train --aug').split()
    assert _complete('bash', 'garbage-fastai train photos --augment se').split() == ['seedlings']
    assert 'seedlings' in _complete('zsh', 'garbage-fastai train photos --augment se')
    env = {**os.environ, '_GARBAGE_FASTAI_COMPLETE': 'source_bash'}
    script = subprocess.run([sys.executable, '-m', 'garbage_fastai'], env=env, capture_output=True, text=True).stdout
    assert '-o default' in script and 'garbage-fastai' in script  # files and folders where there is nothing else
    assert _complete('bash', 'garbage-fastai predict run --out ').strip() == ''

def test_the_last_of_several_seeds_is_looked_at_first(sample_dir, tmp_path, capsys):
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'runs', *TINY, '--seed', 2**32-2, '--seeds', 3, says='--seed 4294967296: give')
    assert not (tmp_path/'runs').exists()
