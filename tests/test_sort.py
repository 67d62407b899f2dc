"What is the user's stays: results, models, links and permissions; and files that a person edited, or that are odd, are read as they were meant."
import json, os, shutil, signal, sys, threading, time, warnings
from urllib.parse import unquote

import numpy as np, pandas as pd, psutil, pytest
from hypothesis import given, settings, strategies as st

from conftest import _job, call, fails, fingerprint
from garbage_fastai.sort import (
    list_photos, PartPredictor, predict_cluster, read_parts, copy_sorted, evaluate_model, learned_words, take_shard)
from garbage_fastai.train import train_run, load_table
from garbage_fastai.layout import folder_names
from garbage_fastai.predictions import assemble_predictions, read_predictions
from garbage_fastai.export import learned_photos, read_learned

def test_a_runs_results(tiny_run, sample_dir, tmp_path, capsys, monkeypatch):
    "Neither another test nor a prediction writes over what a run has found"
    before = {f.name:f.read_bytes() for f in tiny_run.iterdir() if f.is_file()}
    fails(capsys, 2, 'evaluate', tiny_run, sample_dir, '--out', tiny_run, says='whose predictions would be lost')
    fails(capsys, 2, 'predict', tiny_run, sample_dir/'glass', '--out', tiny_run/'predictions.csv', says='whose predictions would be lost')
    assert {f.name:f.read_bytes() for f in tiny_run.iterdir() if f.is_file()} == before
    monkeypatch.chdir(tmp_path)
    assert call('predict', tiny_run, sample_dir/'glass') == 0
    first = (tmp_path/'predictions.csv').read_bytes()
    fails(capsys, 2, 'predict', tiny_run, sample_dir/'metal', says='--out predictions.csv to replace it')
    assert (tmp_path/'predictions.csv').read_bytes() == first
    assert call('predict', tiny_run, sample_dir/'metal', '--out', 'predictions.csv') == 0
    assert (tmp_path/'predictions.csv').read_bytes() != first

@pytest.fixture(scope='module')
def model(sample_dir, tmp_path_factory):
    run = tmp_path_factory.mktemp('run')/'run'
    return train_run(sample_dir, run, arch='test_resnet', weights='none', freeze='none', size=32, epochs=1, bs=8, augment='light', progress=False)

@pytest.fixture(scope='module')
def cluster():
    "A local cluster with room for two workers, all that a test needs"
    ray = pytest.importorskip('ray', reason="a cluster needs Ray: pip install 'garbage_fastai[ray]'")
    os.environ['RAY_BACKEND_LOG_LEVEL'] = 'fatal'
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level='error')
    yield
    ray.shutdown()

@pytest.fixture
def photos(sample_dir, tmp_path):
    folder = tmp_path/'photos'
    shutil.copytree(sample_dir, folder)
    (folder/'glass'/'broken.jpg').write_bytes(b'no photo')
    (folder/'glass'/os.fsdecode(b'caf\xe9.jpg')).write_bytes((folder/'glass'/'glass_001.jpg').read_bytes())
    return folder

def test_one_row_a_photo_and_nothing_twice(model, photos, cluster, tmp_path, capsys):
    out = tmp_path/'out'
    assert call('predict', model, photos, '--out', out, '--engine', 'ray', '--workers', '2') == 0
    assert 'left out' in capsys.readouterr().out
    rows = read_parts(out)
    assert len(rows) == 74 == rows['path'].nunique() and (~rows['ok']).sum() == 1
    bad = rows[~rows['ok']].iloc[0]
    assert bad['path'].endswith('broken.jpg') and bad['reason'] and pd.isna(bad['confidence'])
    assert call('predict', model, photos, '--out', tmp_path/'p.csv') == 0
    one = pd.read_csv(tmp_path/'p.csv', encoding_errors='surrogateescape').set_index('path')['predicted'].to_dict()
    assert all(one[p]==c for p,c in zip(rows['path'], rows['predicted']) if p in one and isinstance(one[p], str)) and len(set(one) & set(rows['path'])) == 73
    before = fingerprint(out)
    assert call('predict', model, photos, '--out', out, '--engine', 'ray') == 0
    assert ', 0 of 74 new' in capsys.readouterr().out and fingerprint(out) == before
    shutil.copy(photos/'glass'/'glass_001.jpg', photos/'glass'/'new.jpg')
    assert predict_cluster(model, photos, out, workers=1, progress=False) == 1
    assert len(read_parts(out)) == 75 and set(fingerprint(out)) > set(before)

def test_a_worker_is_killed(model, photos, cluster, tmp_path):
    out,killed = tmp_path/'out',[]
    def kill_one():
        while len(list(out.glob('part-*'))) < 3: time.sleep(.02)
        busy = [p for p in psutil.process_iter(['cmdline']) if 'MapBatches(PartPredictor)' in ' '.join(p.info['cmdline'] or ())]
        busy[0].send_signal(signal.SIGKILL)
        killed.append(len(list(out.glob('part-*'))))
    t = threading.Thread(target=kill_one, daemon=True)
    t.start()
    predict_cluster(model, photos, out, workers=2, part=3, progress=False)
    t.join(10)
    rows = read_parts(out)
    assert killed and killed[0] < 25 and len(rows) == 74 == rows['path'].nunique()

def test_lists_and_stores(model, photos, cluster, tmp_path):
    (photos/'glass'/os.fsdecode(b'caf\xe9.jpg')).unlink()  # pyarrow reads no such names, and stores have none
    paths = list_photos(photos)
    (tmp_path/'list.txt').write_text('\n'.join(paths[:3]) + '\n\n')
    pd.DataFrame(dict(path=paths[3:5])).to_csv(tmp_path/'list.csv', index=False)
    assert list_photos([tmp_path/'list.txt', tmp_path/'list.csv']) == sorted(paths[:5])
    stored = list_photos(f'file://{photos}')
    assert [p.removeprefix('file://') for p in stored] == paths
    (photos/'gone.txt').write_text(f"file://{photos}/glass/gone.jpg\nfile://{photos}/glass/glass_001.jpg")
    assert predict_cluster(model, photos/'gone.txt', tmp_path/'out', workers=1, progress=False) == 2
    assert read_parts(tmp_path/'out')['ok'].tolist() == [True, False]
    pd.DataFrame(dict(file=[1])).to_csv(tmp_path/'odd.csv')
    with pytest.raises(ValueError, match="no column 'path'"): list_photos(tmp_path/'odd.csv')

def test_photos_in_an_object_store(model, photos, tmp_path, monkeypatch):
    "The protocol of S3 spoken with a server on this machine, odd names included; what it gives is what the folder gives"
    server = pytest.importorskip('moto.server', reason="an object store is played by moto: pip install 'moto[s3,server]'").ThreadedMotoServer('127.0.0.1', 0, verbose=False)
    from pyarrow.fs import FileSystem
    server.start()
    try:
        where = 'endpoint_override={}:{}&scheme=http&allow_bucket_creation=true'.format(*server.get_host_and_port())
        for k,v in dict(AWS_ACCESS_KEY_ID='x', AWS_SECRET_ACCESS_KEY='y', AWS_DEFAULT_REGION='us-east-1').items(): monkeypatch.setenv(k, v)
        store,_ = FileSystem.from_uri(f's3://waste?{where}')
        store.create_dir('waste')
        sent = {f'glass/{n}': (photos/'glass'/f'glass_00{i+1}.jpg').read_bytes() for i,n in enumerate(('plain.jpg', 'two words.jpg', 'half%20.jpg', 'straße#1?.jpg'))}
        for name,data in (*sent.items(), ('glass/broken.jpg', b'no photo'), ('glass/notes.txt', b'none')):
            with store.open_output_stream(f'waste/in/{name}') as f: f.write(data)
        found = list_photos(f's3://waste/in?{where}')
        assert len(found) == 5 and list_photos(found[0]) == [found[0]]
        with pytest.raises(ValueError, match="nowhere.*can't be listed"): list_photos(f's3://nowhere/in?{where}')
        assert PartPredictor(model/'model', tmp_path).write_part(found).exists()
    finally: server.stop()
    rows = read_parts(tmp_path)
    assert rows['path'].tolist() == found and (~rows['ok']).sum() == 1 and 'broken' in rows.loc[~rows['ok'], 'path'].item()
    for (name,_),i in zip(sent.items(), range(1, 5)):
        near = PartPredictor(model/'model', tmp_path).predictor.predict([photos/'glass'/f'glass_00{i}.jpg'], progress=False)
        row = rows[rows['path'].map(lambda p: unquote(p.partition('?')[0]).endswith(name))]
        assert row['confidence'].item() == pytest.approx(near['confidence'].item(), abs=1e-4) and row['predicted'].item() == near['predicted'].item()

def test_refused_in_one_line(model, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('garbage_fastai.sort.import_extra', lambda *a: None)
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'notes.txt').write_text('mine')
    fails(capsys, 2, 'predict', model, photos, '--out', tmp_path/'mine', '--engine', 'ray', says='other files')
    (tmp_path/'theirs').mkdir()
    (tmp_path/'theirs'/'_model.json').write_text('{"model": "x", "sha256": "y"}')
    fails(capsys, 2, 'predict', model, photos, '--out', tmp_path/'theirs', '--engine', 'ray', says='another model')
    fails(capsys, 2, 'predict', model, photos, '--engine', 'ray', '--shard', '1/2', says='--shard')
    fails(capsys, 2, 'predict', model, photos, '--workers', '2', says='--engine ray')
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, 'ray', None)
    fails(capsys, 2, 'predict', model, photos, '--out', tmp_path/'new', '--engine', 'ray', says="pip install 'garbage_fastai[ray]'")

@pytest.fixture(scope='module')
def run(sample_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('run')/'run'
    return train_run(sample_dir, out, arch='test_resnet', weights='none', freeze='none', size=32, epochs=1, bs=8, augment='light', progress=False)

@pytest.fixture(scope='module')
def parts(run): return read_predictions(run/'splits.csv')

def told(call, *args, **kwargs):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        res = call(*args, **kwargs)
    return res, [str(o.message) for o in said if 'byte for byte' in str(o.message) or 'learned from' in str(o.message)]

def copy_part(parts, part, folder):
    "The photos of one part, in another place and under other names"
    for i,r in enumerate(parts[parts['split']==part].itertuples()):
        (folder/r.label).mkdir(parents=True, exist_ok=True)
        shutil.copy(r.path, folder/r.label/f'new_{i}.jpg')
    return folder

@pytest.mark.parametrize('what', ['run', 'model', 'copy of the model', 'run from before'])
def test_the_folder_that_it_was_trained_on(run, parts, sample_dir, tmp_path, what):
    "Wherever the model lies, the figure without its own photos stands beside, and is that of the run's test part"
    model = dict(run=run, model=run/'model').get(what)
    if what=='copy of the model': model = shutil.copytree(run/'model', tmp_path/'elsewhere')
    if what=='run from before':
        model = shutil.copytree(run, tmp_path/'old')
        config = json.loads((model/'model'/'model.json').read_text())
        del config['learned_from']
        (model/'model'/'model.json').write_text(json.dumps(config))
    ev,said = told(evaluate_model, model, sample_dir, tmp_path/'out', progress=False)
    n = parts['split'].value_counts()
    metrics = json.loads((tmp_path/'out'/'metrics.json').read_text())
    assert ev.n == 72 and [ev.learned[k] for k in ('trained_on','chosen_by','n_new')] == [n['train'], n['valid'], n['test']]
    assert {k: metrics[k] for k in ev.learned} == ev.learned and metrics['n'] == 72
    preds = read_predictions(run/'predictions.csv').query('split=="test"')
    assert ev.learned['accuracy_new'] == pytest.approx((preds.predicted==preds.label).mean()) and sorted(ev.new.rows['path']) == sorted(preds['path'])
    assert len(said) == 1 and f"of these 72 photos {n['train']} were trained on and {n['valid']} chose the model" in said[0] and f"{ev.learned['accuracy_new']:.1%}" in said[0]

def test_by_content_not_by_name(run, parts, tmp_path):
    for part,counts in dict(train=[36,0,0], valid=[0,18,0], test=[0,0,18]).items():
        ev,said = told(evaluate_model, run/'model', copy_part(parts, part, tmp_path/part), progress=False)
        assert [ev.learned[k] for k in ('trained_on','chosen_by','n_new')] == counts and len(said) == (part!='test')
        assert (ev.new is None) == (part!='test') and ('accuracy_new' in ev.learned) == (part=='test')
        if part!='test': assert 'says nothing about new photos' in said[0]
    assert ev.new is ev

def test_other_photos_under_the_same_names(run, parts, sample_dir, tmp_path):
    folder = shutil.copytree(sample_dir, tmp_path/'same_names')
    for p in folder.rglob('*.jpg'): p.write_bytes(p.read_bytes()+b'\0')
    ev,said = told(evaluate_model, run, folder, progress=False)
    assert ev.learned['n_new'] == 72 and not said

def test_a_model_that_does_not_tell(run, sample_dir, tmp_path):
    model = shutil.copytree(run/'model', tmp_path/'model')
    for value in (None, 'text', ['list'], {}):
        config = json.loads((run/'model'/'model.json').read_text())
        config['learned_from'] = value
        (model/'model.json').write_text(json.dumps(config))
        assert read_learned(model) == {}
    ev,said = told(evaluate_model, model, sample_dir, progress=False)
    assert ev.learned == {} and ev.new is ev and len(said) == 1 and 'does not tell which photos it has learned from' in said[0]

def test_nothing_of_the_photos_is_in_the_model(run, parts):
    text = (run/'model'/'model.json').read_text()
    assert not any(os.path.basename(p) in text or h in text for p,h in zip(parts['path'], parts['sha256']))
    learned = read_learned(run/'model')
    assert learned == {p: {h[:16] for h in parts.loc[parts['split']==p, 'sha256']} for p in ('train','valid')} and len(learned['train']) == 36

def test_command(run, sample_dir, parts, tmp_path, capsys):
    assert call('evaluate', run/'model', sample_dir) == 0
    out = capsys.readouterr().out.splitlines()
    at = next(i for i,l in enumerate(out) if l.startswith('accuracy ') and 'interval' in l)
    assert '72 photos' in out[at] and out[at+1].startswith('of these 72 photos 36 were trained on and 18 chose the model') and out[at+1].endswith('18 photos)')
    assert call('evaluate', run, copy_part(parts, 'test', tmp_path/'test')) == 0
    assert 'trained on' not in capsys.readouterr().out
    assert call('evaluate', run, copy_part(parts, 'valid', tmp_path/'valid')) == 0
    assert 'of these 18 photos 18 chose the model, byte for byte: none is new to the model' in capsys.readouterr().out

def test_words():
    assert learned_words({}) == '' == learned_words(dict(trained_on=0, chosen_by=0, n_new=5))
    assert learned_photos(pd.DataFrame(dict(path=['a'], split=['train']))) == {}
    t = pd.DataFrame(dict(path=list('abcd'), split=['train','','test','train'], sha256=['1'*64, '2'*64, '3'*64, '']))
    assert learned_photos(t) == dict(train='1'*16, valid='')

def test_accents_put_together_otherwise(run, sample_dir, tmp_path):
    "A folder from a Mac, whose disk splits accents"
    model = shutil.copytree(run/'model', tmp_path/'model')
    config = json.loads((model/'model.json').read_text())
    config['vocab'][0] = 'm\u00e9tal'
    (model/'model.json').write_text(json.dumps(config))
    shutil.copytree(sample_dir/'glass', tmp_path/'photos'/'me\u0301tal')
    shutil.copytree(sample_dir/'glass', tmp_path/'photos'/'glass')
    ev,_ = told(evaluate_model, model, tmp_path/'photos', progress=False)
    assert set(ev.rows['label']) == {'m\u00e9tal', 'glass'}

def sorted_table(tmp_path, classes):
    "A photo of each class, all of the same file name"
    rows = []
    for i,c in enumerate(classes):
        f = tmp_path/'in'/str(i)/'photo.jpg'
        f.parent.mkdir(parents=True)
        f.write_text(c)
        rows.append(dict(path=str(f)))
    return assemble_predictions(pd.DataFrame(rows), np.eye(len(classes), dtype=np.float32), ['']*len(classes), list(classes))

@pytest.mark.parametrize('classes', [('Glass','glass'), ('glass','glass '), ('a/b','a:b','a_b'), ('con','CON','_con'), ('x','x.'), ('..','.'), ('m\u00e9tal','me\u0301tal'),
                                     ('label','p_label','glass'), ('paper*','paper?')])
def test_no_two_classes_in_one_folder(tmp_path, classes):
    preds = sorted_table(tmp_path, classes)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert copy_sorted(preds, tmp_path/'out') == len(classes)
    copies = {p.parent.name: p.read_text() for p in (tmp_path/'out').rglob('*.jpg')}
    assert sorted(copies.values()) == sorted(classes) and len({k.casefold() for k in copies}) == len(classes)
    assert {k: v for v,k in copies.items()} == folder_names(classes)

def test_a_class_has_the_same_folder_each_time(tmp_path):
    "Also where a call meets only one of two twins"
    classes = ('a/b','a:b','metal')
    preds = sorted_table(tmp_path, classes)
    for i in (1,0,2):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter('always')
            copy_sorted(preds[i:i+1].set_axis([0]), tmp_path/'out', list(classes))
        assert [str(o.message) for o in said] == [f"photos of class {classes[i]!r} are copied into the folder {folder_names(classes)[classes[i]]!r}, since not every disk can hold that name beside the others"]*(i<2)
    assert sorted((p.parent.name, p.read_text()) for p in (tmp_path/'out').rglob('*.jpg')) == [('a_b','a/b'), ('a_b-2','a:b'), ('metal','metal')]

def test_nothing_is_overwritten(tmp_path):
    preds = sorted_table(tmp_path, ['glass'])
    (tmp_path/'out'/'glass').mkdir(parents=True)
    (tmp_path/'out'/'glass'/'photo.jpg').symlink_to(tmp_path/'gone.jpg')  # leads nowhere: a copy would be written through it
    for _ in range(2): copy_sorted(preds, tmp_path/'out')
    assert sorted(p.name for p in (tmp_path/'out'/'glass').iterdir()) == ['photo-2.jpg','photo-3.jpg','photo.jpg'] and not (tmp_path/'gone.jpg').exists()

def test_twins_are_told_when_a_folder_is_looked_through(sample_dir, tmp_path):
    for name in ('glass','Glass','metal'): shutil.copytree(sample_dir/'glass', tmp_path/'photos'/name)
    with pytest.warns(UserWarning, match="classes 'Glass' and 'glass' differ only in capitals"): table = load_table(tmp_path/'photos', progress=False)
    assert table['label'].value_counts().to_dict() == dict(glass=12, Glass=12, metal=12)

def test_served_photos_are_kept_apart(tmp_path):
    "The page that keeps photos has a folder for each class too"
    from garbage_fastai.app import keep_photos
    classes = ['Glass','glass','a/b','a:b']
    for i in range(4): (tmp_path/f'{i}.jpg').write_text(classes[i])
    keep_photos([tmp_path/f'{i}.jpg' for i in range(4)], [{'class':c, 'probabilities':dict.fromkeys(classes, .25)} for c in classes], tmp_path/'kept')
    assert {p.parent.name: p.read_text() for p in (tmp_path/'kept').rglob('*.jpg')} == {v:k for k,v in folder_names(classes).items()}
    assert len({p.parent.name.casefold() for p in (tmp_path/'kept').rglob('*.jpg')}) == 4

@given(files=st.lists(st.text(min_size=1), unique=True, max_size=60).map(sorted), n=st.integers(1, 70))
@settings(deadline=None)
def test_shards_are_everything_and_do_not_overlap(files, n):
    parts = [take_shard(files, i, n) for i in range(1, n+1)]
    assert sorted(f for p in parts for f in p) == files
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for i in (0, n+1):
        with pytest.raises(ValueError, match='shard'): take_shard(files, i, n)

def test_predict_in_shards(sample_dir, whole, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = whole(0)[0]
    assert call('predict', model, sample_dir, '--out', 'all.csv') == 0
    for i in (1,2,3): assert call('predict', model, sample_dir, '--shard', f'{i}/3') == 0
    everything = pd.concat(pd.read_csv(f'predictions-{i}-of-3.csv') for i in (1,2,3)).sort_values('path').reset_index(drop=True)
    pd.testing.assert_frame_equal(everything, pd.read_csv('all.csv').sort_values('path').reset_index(drop=True), rtol=1e-4)
    assert call('predict', model, sample_dir/'glass', '--shard', '13/13', '--out', 'none.csv') == 0  # more parts than photos
    assert list(pd.read_csv('none.csv').columns) == list(everything.columns)
    for wrong in ('0/3', '4/3', '3'): fails(capsys, 2, 'predict', model, sample_dir, '--shard', wrong, says=[wrong, '1/8'])

def test_predict_job(tmp_path):
    assert _job(tmp_path, 'predict.sbatch', 'runs/first', 'photos', 'out', SLURM_ARRAY_TASK_ID='3', SLURM_ARRAY_TASK_COUNT='8').wait(60) == 0
    assert (tmp_path/'calls').read_text() == 'garbage-fastai predict runs/first photos --shard 3/8 --out out/part-3.csv\n'
