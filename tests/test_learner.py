"What stands around a network: the device, the weights, the pixels it is given, what is exported, and how runs are compared."
import contextlib, io, shutil

import numpy as np, pytest, torch
from fastai.vision.all import Brightness, Callback, MixUp, load_learner

from garbage_fastai.callbacks import plot_training, used_precision
from garbage_fastai.cli import _setting
from garbage_fastai.data import build_dataloaders, photo_loader
from garbage_fastai.experiments import run_recipe
from garbage_fastai.export import Predictor, export_model
from garbage_fastai.features import compute_features
from garbage_fastai.folder import differences
from garbage_fastai.images import scan_images
from garbage_fastai.infer import pick_precision, predict_precision
from garbage_fastai.learner import build_learner, fetch_weights
from garbage_fastai.predict import predict_images
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

# ---- precision

def fit(learn, *args, **kwargs):
    with learn.no_bar(), learn.no_logging(): learn.fit(*args, **kwargs)

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

class InFloat32(Callback):
    "Notes where autocast reaches, before and after any other callback"
    def __init__(self, order): self.order,self.seen = order,set()
    def note(self): self.seen.add((torch.is_autocast_enabled('cpu'), str(self.pred.dtype) if torch.is_tensor(getattr(self.learn, 'pred', None)) else ''))
    def before_batch(self): self.learn.pred = None; self.note()
    after_pred = after_loss = after_batch = note

@pytest.mark.parametrize('kwargs', [dict(), dict(balance=True, label_smoothing=.2), dict(head='sigmoid'), dict(cbs=MixUp()), 'own'])
def test_losses_and_callbacks_get_float32(table, precision, kwargs):
    "Only the network runs in few bits: class weights, smoothing, mixing, an own loss and what stands around it don't"
    def own(pred, targ):
        assert pred.dtype==torch.float32 and not torch.is_autocast_enabled('cpu')
        return torch.nn.functional.binary_cross_entropy(pred.softmax(1), torch.nn.functional.one_hot(targ, pred.shape[1]).float())
    learn = build_learner(loaders(table), 'test_resnet', weights='none', **(dict(loss_func=own) if kwargs=='own' else kwargs))
    spies = InFloat32(-90),InFloat32(11),InFloat32(90)
    fit(learn, 1, 1e-2, cbs=spies)
    with learn.no_bar(): learn.lr_find(num_it=4, show_plot=False); learn.get_preds()
    assert np.isfinite(learn.recorder.losses).all()
    for spy in spies: assert all(not on for on,_ in spy.seen)
    for spy in spies[1:]: assert {d for _,d in spy.seen} <= {'','torch.float32'}

@pytest.mark.parametrize('augment', ['none','waste'])
def test_augmentation_is_not_rounded(table, precision, augment):
    "The pixels that the network gets are the same in any precision, also where the head is trained alone"
    got = []
    def run(how):
        learn = build_learner(loaders(table, augment=augment, background=.5), 'test_resnet', weights='none', precision=how, freeze='body')
        learn.model[0].register_forward_pre_hook(lambda m,args: got[-1].append(args[0].detach().clone()))
        got.append([])
        torch.manual_seed(1); np.random.seed(1); __import__('random').seed(1)
        feats = compute_features(learn, 1, progress=False)
        assert all(x.dtype==torch.float32 for x,_ in feats)
    run('fp32'); run('auto')
    assert len(got[0])==len(got[1]) > 2 and all(torch.equal(a, b) for a,b in zip(*got)) and got[0][0].dtype==torch.float32

def test_autocast_ends_where_the_network_fails(table):
    class Broken(torch.nn.Module):
        def __init__(self): super().__init__(); self.p = torch.nn.Parameter(torch.ones(1))
        def forward(self, x): raise MemoryError('too large')
    learn = build_learner(loaders(table), 'test_resnet', weights='none', precision='bf16')
    learn.model = Broken()
    with pytest.raises(MemoryError): fit(learn, 1)
    assert not torch.is_autocast_enabled('cpu')

def test_what_auto_means(monkeypatch):
    for told in ('fp32','bf16'):
        monkeypatch.setenv('GARBAGE_FASTAI_PRECISION', told)
        assert (pick_precision(), predict_precision(), pick_precision('bf16'), predict_precision('bf16')) == (told, 'fp32', 'bf16', 'bf16')
        assert pick_precision('auto', 'cuda')==told   # no GPU is asked
    monkeypatch.setenv('GARBAGE_FASTAI_PRECISION', 'fp16')
    assert pick_precision('auto', 'cuda')=='fp16'
    with pytest.raises(ValueError, match="GARBAGE_FASTAI_PRECISION='fp16' needs a GPU"): pick_precision()
    monkeypatch.setenv('GARBAGE_FASTAI_PRECISION', 'fp64')
    with pytest.raises(ValueError, match="GARBAGE_FASTAI_PRECISION='fp64' is not known; choose one of auto, fp32, bf16, fp16"): pick_precision()

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
