"What is the user's stays: results, models, links and permissions; and files that a person edited, or that are odd, are read as they were meant."
import json, os, shutil
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
from fastai.vision.all import (
    CrossEntropyLossFlat, ImageDataLoaders, Learner, Resize, load_learner, nn, resnet18, vision_learner)

from conftest import TINY, call, fails, fit, loaders
from garbage_fastai.cam import write_maps
from garbage_fastai.export import export_model, Predictor
from garbage_fastai.learner import build_learner
from garbage_fastai.stress import stress_test
from garbage_fastai.callbacks import used_precision
from garbage_fastai.data import photo_loader
from garbage_fastai.predict import predict_images

def learner(tiny_dls): return build_learner(tiny_dls, arch='test_resnet', weights='none')

def test_model_of_another_program(tiny_dls, tmp_path):
    (tmp_path/'m').mkdir()
    (tmp_path/'m'/'model.json').write_text('{"format": "layers-model"}')
    (tmp_path/'m'/'weights.bin').write_text('precious')
    with pytest.raises(ValueError, match='model.json lacks'): export_model(learner(tiny_dls), tmp_path/'m')
    assert (tmp_path/'m'/'weights.bin').read_text() == 'precious'

def test_old_model_survives(tiny_dls, tmp_path, monkeypatch):
    "Where the new one cannot take its place"
    learn = learner(tiny_dls)
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

def test_models_of_descriptions(tiny_run, tmp_path):
    class Model:
        class model: image_body = None
    rows = pd.read_csv(tiny_run/'predictions.csv').head(2)
    with pytest.raises(ValueError, match='looks at descriptions alone'): stress_test(Model(), rows)
    assert len(write_maps(Model(), rows, tmp_path)) == 0

@pytest.fixture
def model(tiny_run, tmp_path):
    shutil.copytree(tiny_run/'model', tmp_path/'model')
    return tmp_path/'model'

def change(model, **kwargs):
    "Let `model.json` say something else"
    file = model/'model.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), **kwargs}))

def test_weights_that_are_a_pickle(evil, sample_dir, tmp_path, capsys):
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', *TINY, '--weights', evil, says=['evil.pth', 'safe'])
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', '--epochs', '1', '--size', '32', '--weights', evil, says=['evil.pth', 'safe'])
    assert not (tmp_path/'run').exists()

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

def test_export_holds_no_photos(table, tmp_path):
    learn = build_learner(loaders(table, cache='ram'), 'test_resnet', weights='none', path=tmp_path)
    assert photo_loader(learn.dls).ram
    learn.export('m.pkl')
    back = load_learner(tmp_path/'m.pkl')
    path = table['path'][0]
    assert not photo_loader(back.dls).ram and photo_loader(learn.dls).ram
    with learn.no_bar(), back.no_bar(): assert torch.allclose(back.predict(path)[2], learn.predict(path)[2], atol=1e-5)

def test_all_predictions_are_the_same(table, tmp_path, precision):
    "A Learner, its table, the exported model and the single photo agree to 1e-5, whatever was trained in"
    learn = build_learner(loaders(table, augment='none'), 'test_resnet', weights='none', path=tmp_path)
    assert used_precision(learn) == precision
    fit(learn, 2, 1e-2)
    last = learn.recorder.values[-1][1]
    vocab,valid = list(learn.dls.vocab),table[table['split']=='valid']
    with learn.no_bar():
        probs = learn.get_preds()[0].numpy()
        again = learn.get_preds(dl=learn.dls.test_dl(valid))[0].numpy()
        single = learn.predict(valid['path'].iloc[0])[2].numpy()
        loss,acc = learn.validate()
    preds = predict_images(learn, valid, progress=False)
    export_model(learn, tmp_path/'model')
    exported = Predictor(tmp_path/'model').predict(valid, progress=False)
    for o in (again, preds[vocab], exported[vocab]): np.testing.assert_allclose(probs, o, atol=1e-5)
    np.testing.assert_allclose(single, probs[0], atol=1e-5)
    assert preds['loss'].mean() > 0 and acc == pytest.approx((preds['predicted']==preds['label']).mean())
    rough = predict_images(learn, valid, progress=False, precision='bf16')[vocab].to_numpy()
    assert 0 < np.abs(rough-probs).max() < .05   # who asks for it gets it
    assert last == pytest.approx(loss, abs=1e-5 if precision=='fp32' else .02*loss)   # a fit validates in the precision it trains in

@pytest.mark.filterwarnings('ignore')
def test_what_cannot_be_exported(odd_shapes, tmp_path):
    dls = ImageDataLoaders.from_folder(odd_shapes, valid_pct=.3, seed=1, bs=8, num_workers=0, item_tfms=Resize(48))
    def net(n, *more, first=()): return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *first, nn.Linear(n, 6), *more)
    def resnet_like(**kwargs): return resnet18(**{**kwargs, 'weights':None} if 'weights' in kwargs else {})
    for learn,says in ((Learner(dls, net(3), CrossEntropyLossFlat()), 'does not know its architecture'), (vision_learner(dls, resnet18, pretrained=False, custom_head=net(512, nn.Tanh())), "other answers"), (vision_learner(dls, resnet18, pretrained=False, custom_head=net(512, first=[nn.Tanh()])), "can't be built anew"),
                       (vision_learner(dls, resnet18, pretrained=False, cut=-3, custom_head=net(256)), "can't be built anew"), (vision_learner(dls, resnet_like, pretrained=False, cut=-2), 'neither timm')):
        with pytest.raises(ValueError, match=says): export_model(learn, tmp_path/'m')
        assert not list(tmp_path.iterdir())
