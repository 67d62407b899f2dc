"What stands around a network: the device, the weights, the pixels it is given, what is exported, and how runs are compared."
import contextlib, io, shutil

import numpy as np, pytest, torch
from fastai.vision.all import Brightness, load_learner

from garbage_fastai.callbacks import plot_training
from garbage_fastai.cli import _setting
from garbage_fastai.data import build_dataloaders, photo_loader
from garbage_fastai.experiments import run_recipe
from garbage_fastai.folder import differences
from garbage_fastai.images import scan_images
from garbage_fastai.learner import build_learner, fetch_weights
from garbage_fastai.run import full_recipe
from garbage_fastai.sample import draw_sample
from garbage_fastai.splits import split_images
from garbage_fastai.table import read_predictions

@pytest.fixture(scope='module')
def table(sample_dir): return split_images(scan_images(sample_dir, progress=False), (.5,.5), seed=42)

def loaders(table, **kwargs): return build_dataloaders(table, **{**dict(size=32, bs=8, seed=42), **kwargs})

def test_network_lies_where_the_batches_do(table):
    "Before the first fit too: the head is trained on features that are computed then"
    learn = build_learner(loaders(table, augment='none', device='meta'), 'test_resnet', weights='none')
    assert {p.device.type for p in learn.model.parameters()} == {b.device.type for b in learn.model.buffers()} == {'meta'}

def test_from_scratch_all_layers_learn(table):
    assert all(p.requires_grad for p in build_learner(loaders(table), 'test_resnet', weights='none').model.parameters())
    assert full_recipe(weights='none')['freeze'] == full_recipe(arch='resnet9', weights='none')['freeze'] == full_recipe(arch='resnet9')['freeze'] == 'none'
    assert full_recipe(weights='none', freeze=5)['freeze'] == full_recipe()['freeze'] == 5

def test_loaders_of_another_network(table):
    "Their means are not those of the weights, and that is said"
    dls = loaders(table)
    build_learner(dls, 'test_resnet', weights='none')
    with pytest.warns(UserWarning, match='mean .*0.485.* the weights want .*0.5.*: build them anew'): build_learner(dls, 'tf_efficientnet_lite0')
    with pytest.warns(UserWarning, match='normalize=False, but'): build_learner(dls, 'test_resnet', weights='none', normalize=False)

def test_no_network_is_asked_in_vain(table, monkeypatch, tmp_path):
    "Weights that are here, or none at all, need no hub; and a file of another network is called that"
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', False)
    monkeypatch.setattr('socket.create_connection', lambda *a, **kw: pytest.fail('asked the network'))
    learn = build_learner(loaders(table), 'test_resnet', weights='none')
    sd = learn.model[0].model.state_dict()
    torch.save(sd, tmp_path/'this.pth')
    torch.save({f'module.{k}':v for k,v in sd.items()}, tmp_path/'other.pth')
    again = build_learner(loaders(table), 'test_resnet', weights=tmp_path/'this.pth').model[0].model.state_dict()
    assert all(torch.equal(again[k], v) for k,v in sd.items())
    with pytest.raises(ValueError, match='other.pth does not fit test_resnet'): build_learner(loaders(table), 'test_resnet', weights=tmp_path/'other.pth')
    with pytest.raises(FileNotFoundError, match='typo.pth'): fetch_weights('test_resnet', tmp_path/'typo.pth')

@pytest.mark.parametrize('kwargs', [dict(augment='none', background=.5), dict(augment=[Brightness()]), dict(augment='waste'), dict(augment=[Brightness()], train_size=24)])
def test_size_of_a_training_batch(table, kwargs):
    s = kwargs.get('train_size', 32)
    dls = loaders(table, **kwargs)
    assert dls.one_batch()[0].shape[-2:] == (s,s) and dls.valid.one_batch()[0].shape[-2:] == (32,32)

def test_export_holds_no_photos(table, tmp_path):
    learn = build_learner(loaders(table, cache='ram'), 'test_resnet', weights='none', path=tmp_path)
    assert photo_loader(learn.dls).ram
    learn.export('m.pkl')
    back = load_learner(tmp_path/'m.pkl')
    path = table['path'][0]
    assert not photo_loader(back.dls).ram and photo_loader(learn.dls).ram
    with learn.no_bar(), back.no_bar(): assert torch.allclose(back.predict(path)[2], learn.predict(path)[2], atol=1e-5)

def test_graph_with_training_metrics():
    "The line that is called valid is the validation loss"
    class Recorder:
        metric_names = ['epoch','train_loss','train_accuracy','valid_loss','valid_accuracy','time']
        values,losses = [[.9,.5,.8,.4],[.7,.6,.75,.45]],[1.,.9,.8,.7]
    lines = {l.get_label():list(l.get_ydata()) for ax in plot_training(Recorder, [2,4]).axes for l in ax.lines}
    assert lines == {'train (smoothed)':[1.,.9,.8,.7], 'valid':[.8,.75], 'train_accuracy':[.5,.6], 'valid_accuracy':[.4,.45]}

def test_two_classes_by_sift(tmp_path):
    "Probabilities of both, and the more likely one is what the machine says"
    folder = draw_sample(tmp_path/'photos', n=12, size=(96,96))
    for c in ('glass','metal','plastic','trash'): shutil.rmtree(folder/c)
    with contextlib.redirect_stdout(io.StringIO()): run_recipe('sift_svm', folder, seeds=1, out=tmp_path/'runs', progress=False, size=(96,96), words=20)
    preds = read_predictions(next((tmp_path/'runs').rglob('predictions.csv')))
    assert np.allclose(preds[['cardboard','paper']].sum(axis=1), 1, atol=1e-4) and preds['predicted'].nunique() == 2

def test_the_same_size_in_other_words():
    assert differences(dict(size=224, train_size=[192,192], epochs=3), dict(size=(224,224), train_size=192, epochs=4)) == ['epochs 3 and not 4']
    assert _setting('train_size=same') == ('train_size','same') and _setting('size=64') == ('size',(64,64))
