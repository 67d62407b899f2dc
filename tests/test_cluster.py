"Photos predicted by several workers: one row each, whatever is broken, killed or done already."
import os, shutil, signal, sys, threading, time
from urllib.parse import unquote

import pandas as pd, psutil, pytest

from garbage_fastai.sort import PartPredictor, list_photos, predict_cluster, read_parts
from garbage_fastai.train import train_run
from test_cli import call, fails, fingerprint

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
