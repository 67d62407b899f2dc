"What is the user's stays: results, models, links and permissions; and files that a person edited, or that are odd, are read as they were meant."
import json, os, re, stat
from pathlib import Path

import numpy as np, pandas as pd, pytest
from PIL import Image

from garbage_fastai.predictions import read_bins
from garbage_fastai.cam import write_maps
from garbage_fastai.sort import list_photos
from garbage_fastai.data import build_dataloaders
from garbage_fastai.text.descriptions import read_filelist, seen_in_train
from garbage_fastai.export import export_model
from garbage_fastai.scan import scan_images
from garbage_fastai.infer import map_images
from garbage_fastai.learner import build_learner
from garbage_fastai.predictions import map_labels
from garbage_fastai.datasets import npz_parts, write_npz_photos
from garbage_fastai.report import leak_notes
from garbage_fastai.train import leak_figures, train_run
from garbage_fastai.splits import split_images
from garbage_fastai.stress import stress_test
from garbage_fastai.core import write_file
from test_cli import call, fails

@pytest.fixture(scope='module')
def run(sample_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('run')/'run'
    return train_run(sample_dir, out, arch='test_resnet', weights='none', freeze='none', size=32, epochs=1, bs=8, augment='light', progress=False)

@pytest.fixture(scope='module')
def dls(sample_dir):
    return build_dataloaders(split_images(scan_images(sample_dir, progress=False), (.5,.5), seed=42), size=32, bs=8, seed=42)

def learner(dls): return build_learner(dls, arch='test_resnet', weights='none')

# ------------------------------------------------------------------------------------------------- nothing is lost

def test_a_runs_results(run, sample_dir, tmp_path, capsys, monkeypatch):
    "Neither another test nor a prediction writes over what a run has found"
    before = {f.name:f.read_bytes() for f in run.iterdir() if f.is_file()}
    fails(capsys, 2, 'evaluate', run, sample_dir, '--out', run, says='whose predictions would be lost')
    fails(capsys, 2, 'predict', run, sample_dir/'glass', '--out', run/'predictions.csv', says='whose predictions would be lost')
    assert {f.name:f.read_bytes() for f in run.iterdir() if f.is_file()} == before
    monkeypatch.chdir(tmp_path)
    assert call('predict', run, sample_dir/'glass') == 0
    first = (tmp_path/'predictions.csv').read_bytes()
    fails(capsys, 2, 'predict', run, sample_dir/'metal', says='--out predictions.csv to replace it')
    assert (tmp_path/'predictions.csv').read_bytes() == first
    assert call('predict', run, sample_dir/'metal', '--out', 'predictions.csv') == 0
    assert (tmp_path/'predictions.csv').read_bytes() != first

def test_model_of_another_program(dls, tmp_path):
    (tmp_path/'m').mkdir()
    (tmp_path/'m'/'model.json').write_text('{"format": "layers-model"}')
    (tmp_path/'m'/'weights.bin').write_text('precious')
    with pytest.raises(ValueError, match='model.json lacks'): export_model(learner(dls), tmp_path/'m')
    assert (tmp_path/'m'/'weights.bin').read_text() == 'precious'

def test_old_model_survives(dls, tmp_path, monkeypatch):
    "Where the new one cannot take its place"
    learn = learner(dls)
    folder = export_model(learn, tmp_path/'m', note='old')
    rename = Path.rename
    def refuse(self, to):
        if Path(to)==folder and not self.name.endswith('_old'): raise PermissionError(13, 'in use')
        return rename(self, to)
    monkeypatch.setattr(Path, 'rename', refuse)
    with pytest.raises(PermissionError): export_model(learn, folder, note='new')
    assert json.loads((folder/'model.json').read_text())['note'] == 'old' and os.listdir(tmp_path) == ['m']
    monkeypatch.undo()
    export_model(learn, folder, note='new')
    assert json.loads((folder/'model.json').read_text())['note'] == 'new' and os.listdir(tmp_path) == ['m']

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

def test_npz_twice(tmp_path):
    x = np.zeros((2,8,8,3), np.uint8)
    np.savez(tmp_path/'a.npz', x_train=x, y_train=np.array([0,1]))
    np.savez(tmp_path/'latest.npz', x=x, y=np.array([0,1]))
    assert write_npz_photos(tmp_path/'a.npz', tmp_path/'out', ('can','jar')) == 2
    with pytest.raises(ValueError, match='holds train photos already'): write_npz_photos(tmp_path/'a.npz', tmp_path/'out', ('can','jar'))
    assert len((tmp_path/'out'/'splits.csv').read_text().splitlines()) == 3
    assert [p for p,_,_ in npz_parts(tmp_path/'latest.npz')] == ['train']

# ------------------------------------------------------------------------------------------------- edited by hand

@pytest.mark.parametrize('text', ['material;bin\nglas;Grün\n', '\ufeffmaterial,bin\nglas,Grün\n', 'material\tbin\nglas\tGrün\n'])
def test_bins_from_a_spreadsheet(tmp_path, text):
    (tmp_path/'bins.csv').write_text(text, encoding='utf-8')
    assert read_bins(tmp_path/'bins.csv').values.tolist() == [['glas','Grün']]

def test_another_encoding(tmp_path):
    for f,read in ((tmp_path/'bins.csv', read_bins), (tmp_path/'list.csv', read_filelist)):
        f.write_bytes('material,bin\nglas,Grün\n'.encode('cp1252'))
        with pytest.raises(ValueError, match=re.escape(f'{f} is not a CSV table in UTF-8')): read(f)

def test_list_with_a_mark(tmp_path):
    (tmp_path/'list.txt').write_text('\ufeffa.jpg\nb.jpg\n', encoding='utf-8')
    (tmp_path/'list.csv').write_text('\ufeffpath;note\na.jpg;x\n', encoding='utf-8')
    assert list_photos(tmp_path/'list.txt') == ['a.jpg','b.jpg'] and list_photos(tmp_path/'list.csv') == ['a.jpg']

# ------------------------------------------------------------------------------------------------- odd, and not an error

@pytest.mark.parametrize('size', [(1000,1), (1,1000), (2000,2)])
@pytest.mark.parametrize('resize', ['pad','crop','squish'])
def test_strips(tmp_path, size, resize):
    "A photo that is nothing but a line has a prediction like any other"
    Image.new('RGB', size, 'red').save(tmp_path/'a.png')
    res,reasons = map_images(lambda x: x.reshape(len(x), -1).max(1, keepdims=True).astype(np.float32), [str(tmp_path/'a.png')], (24,32), resize, progress=False)
    assert reasons == [''] and res[0,0] > 200

def test_stress_keeps_descriptions():
    class Model:
        size,model = (8,8),None
        def predict(self, table, **kwargs):
            assert list(table['text']) == ['clean box','greasy box']
            return table.assign(predicted=table['label'], ok=True)
    t = pd.DataFrame(dict(path=['a.jpg','b.jpg'], label=['Blue','Green'], text=['clean box','greasy box']))
    assert stress_test(Model(), t, 'blur', (1,), progress=False)['accuracy'].tolist() == [1,1]

def test_models_of_descriptions(run, tmp_path):
    class Model:
        class model: image_body = None
    rows = pd.read_csv(run/'predictions.csv').head(2)
    with pytest.raises(ValueError, match='looks at descriptions alone'): stress_test(Model(), rows)
    assert len(write_maps(Model(), rows, tmp_path)) == 0

def test_no_words_are_not_seen():
    t = pd.DataFrame(dict(split=['train','train','test','test'], text=['', 'a box', '', 'a box']))
    assert seen_in_train(t).tolist() == [False, True, False, True]

def test_all_that_judge_leak():
    "But for a photo that could not be read"
    t = pd.DataFrame(dict(path=['a','b','c'], label=['x','x','x'], split=['train','test','test'], group=['1','1',''], ok=[True,True,False], reason=['','','broken']))
    preds = pd.DataFrame(dict(path=['b','c'], label=['x','x'], predicted=['x',''], confidence=[1.,np.nan], x=[1.,np.nan], ok=[True,False], reason=['','broken']))
    assert len(leak_notes(t, preds)) == 1 and leak_figures(t, preds) == dict(leaked=1)

def test_no_label(): assert map_labels(pd.DataFrame(dict(label=['soda cans', None])), ['metal'])['label'].tolist() == ['metal', '']

def test_features_channels_last(dls):
    with pytest.raises(ValueError, match='swin_s3_tiny_224.*channels last'): build_learner(dls, arch='swin_s3_tiny_224', weights='none')
