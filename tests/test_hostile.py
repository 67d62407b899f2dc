"Models and archives of strangers: whatever they hold, none of its code runs, nothing is written outside, and one line says why it is refused."
import json, pickle, shutil, zipfile
from pathlib import Path

import pytest, torch

from garbage_fastai.train import train_run
from test_cli import TINY, call, fails

class Evil:
    "Unpickled, it leaves a mark"
    def __init__(self, mark): self.mark = mark
    def __reduce__(self): return Path.touch, (self.mark,)

@pytest.fixture
def evil(tmp_path):
    "A pickle that would leave the file `tmp_path/mark`"
    file = tmp_path/'evil.pth'
    torch.save(dict(model=Evil(tmp_path/'mark')), file)
    torch.load(file, weights_only=False)
    assert (tmp_path/'mark').exists()
    (tmp_path/'mark').unlink()
    yield file
    assert not (tmp_path/'mark').exists(), 'the code of a stranger ran'

@pytest.fixture(scope='module')
def run(sample_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('run')/'run'
    return train_run(sample_dir, out, arch='test_resnet', weights='none', freeze='none', size=32, epochs=1, bs=8, augment='light', progress=False)

@pytest.fixture
def model(run, tmp_path):
    shutil.copytree(run/'model', tmp_path/'model')
    return tmp_path/'model'

def change(model, **kwargs):
    "Let `model.json` say something else"
    file = model/'model.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), **kwargs}))

def test_weights_that_are_a_pickle(evil, sample_dir, tmp_path, capsys):
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', *TINY, '--weights', evil, says=['evil.pth', 'safe'])
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', '--epochs', '1', '--size', '32', '--weights', evil, says=['evil.pth', 'safe'])
    assert not (tmp_path/'run').exists()

def test_checkpoint_that_is_a_pickle(evil, run, sample_dir, tmp_path, capsys):
    shutil.copytree(run, tmp_path/'run')
    (tmp_path/'run'/'report.html').unlink()
    (tmp_path/'run'/'models').mkdir()
    shutil.copy(evil, tmp_path/'run'/'models'/'checkpoint.pth')
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', '--resume', says=['checkpoint.pth', "can't be read"])

def test_model_folder_that_holds_a_pickle(evil, model, sample_dir, tmp_path, capsys):
    shutil.copy(evil, model/'model.safetensors')
    fails(capsys, 2, 'predict', model, sample_dir, '--out', tmp_path/'p.csv', says=['model.safetensors', 'damaged'])
    (model/'model.json').unlink()
    shutil.copy(evil, model/'model.pkl')
    fails(capsys, 2, 'predict', model, sample_dir, '--out', tmp_path/'p.csv', says='is a pickle')

@pytest.mark.parametrize('key', ['checkpoint_path', 'pretrained', 'pretrained_cfg', 'cache_dir'])
def test_model_folder_that_points_elsewhere(key, evil, model, sample_dir, tmp_path, capsys):
    "timm loads what `checkpoint_path` names, and unpickles it"
    change(model, head={key: str(evil)})
    fails(capsys, 2, 'predict', model, sample_dir, '--out', tmp_path/'p.csv', says=['model.json', key])

@pytest.mark.parametrize('arch', ['local-dir:{}', 'hf-hub:stranger/model', '../{}', 'torchvision/../evil', ['resnet18'], 7])
def test_model_folder_of_an_odd_network(arch, evil, model, sample_dir, tmp_path, capsys):
    shutil.copy(evil, tmp_path/'pytorch_model.bin')
    change(model, arch=arch.format(tmp_path) if isinstance(arch, str) else arch)
    fails(capsys, 2, 'predict', model, sample_dir, '--out', tmp_path/'p.csv', says='arch')

def test_classes_that_are_paths(model, sample_dir, tmp_path):
    change(model, vocab=['../../up', '/etc/x', '..', 'a\\..\\b', '', '.'])
    before = {p for p in tmp_path.rglob('*') if 'inside' not in p.parts}
    assert call('predict', model, sample_dir/'glass', '--out', tmp_path/'inside'/'p.csv', '--copy-into', tmp_path/'inside'/'sorted') == 0
    assert {p for p in tmp_path.rglob('*') if 'inside' not in p.parts} == before
    copies = [p for p in (tmp_path/'inside'/'sorted').rglob('*') if p.is_file()]
    assert len(copies) == 12 and all(p.parent.parent == tmp_path/'inside'/'sorted' for p in copies)

@pytest.mark.parametrize('name,mode,why', [('glass/../../evil.jpg', 0o100644, "'..'"), ('/tmp/evil.jpg', 0o100644, 'absolute'), ('glass/l.jpg', 0o120777, 'is a link')], ids=['climbs','absolute','link'])
def test_archives_that_reach_outside(name, mode, why, sample_dir, tmp_path, capsys):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode<<16
    with zipfile.ZipFile(tmp_path/'evil.zip', 'w') as z:
        z.write(sample_dir/'glass'/'glass_001.jpg', 'glass/1.jpg')
        z.writestr(info, b'/etc/passwd')
    for command in (['train', tmp_path/'evil.zip', '--out', tmp_path/'run'], ['scan', tmp_path/'evil.zip']):
        fails(capsys, 2, *command, says=['evil.zip is refused', why])
    assert [p.name for p in tmp_path.iterdir()] == ['evil.zip'] and not Path('/tmp/evil.jpg').exists()
