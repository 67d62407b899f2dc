"What stands around a network: the device, the weights, the pixels it is given, what is exported, and how runs are compared."
import contextlib, io, shutil

import numpy as np, pandas as pd, pytest, torch
from hypothesis import HealthCheck, given, settings, strategies as st
from fastai.vision.all import (Brightness, Callback, CategoryBlock, CrossEntropyLossFlat, ImageDataLoaders, Learner, Path, PILImage, RandomResizedCrop, Resize, ResizeMethod, aug_transforms, MixUp,
                               get_image_files, load_learner, nn, resnet18, vision_learner)

from garbage_fastai.callbacks import plot_training, used_precision
from garbage_fastai.cli import read_change
from garbage_fastai.data import build_dataloaders, photo_loader
from garbage_fastai.duplicates import group_duplicates
from garbage_fastai.evaluate import Evaluation
from garbage_fastai.experiments import run_experiment
from garbage_fastai.export import Predictor, export_model, read_model_json
from garbage_fastai.learner import compute_features
from garbage_fastai.runs import differences
from garbage_fastai.scan import scan_images
from garbage_fastai.infer import pick_precision, predict_precision
from garbage_fastai.learner import build_learner, fetch_weights
from garbage_fastai.predict import predict_images
from garbage_fastai.train import full_recipe
from garbage_fastai.sample import draw_sample
from garbage_fastai.splits import split_images
from garbage_fastai.predictions import class_columns, read_predictions
from garbage_fastai.core import label_text

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
    with contextlib.redirect_stdout(io.StringIO()): run_experiment('sift_svm', folder, seeds=1, out=tmp_path/'runs', progress=False, size=(96,96), words=20)
    preds = read_predictions(next((tmp_path/'runs').rglob('predictions.csv')))
    assert np.allclose(preds[['cardboard','paper']].sum(axis=1), 1, atol=1e-4) and preds['predicted'].nunique() == 2

def test_the_same_size_in_other_words():
    assert differences(dict(size=224, train_size=[192,192], epochs=3), dict(size=(224,224), train_size=192, epochs=4)) == ['epochs 3 and not 4']
    assert read_change('train_size=same') == ('train_size','same') and read_change('size=64') == ('size',(64,64))

# Classes: their names, their order

LABELS = dict(int=lambda i: i, float=float, bool=lambda i: i>2, text=lambda i: f'c{i}', mixed=lambda i: i if i%2 else f'c{i}')

@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(LABELS)), dtype=st.sampled_from(['object','category','best']), seed=st.integers(0, 3))
def test_labels_of_any_type_give_the_classes_of_their_text(table, kind, dtype, seed):
    codes = pd.factorize(table['label'])[0]
    labels = pd.Series([LABELS[kind](i) for i in codes], dtype=object)
    t = table.assign(label=labels.infer_objects() if dtype=='best' else labels.astype(dtype)).sample(frac=1, random_state=seed)
    dls,want = loaders(t, cache='disk', num_workers=0),[label_text(o) for o in labels]
    assert list(dls.vocab) == sorted(set(want)) and {type(o) for o in dls.vocab} == {str}
    assert [dls.vocab[i] for i in dls.valid_ds.tls[1]] == t[t['split']=='valid']['label'].map(label_text).tolist()

@pytest.mark.parametrize('labels', [int, float, 'Int64', bool])
def test_numbers_as_classes_all_the_way(table, tmp_path, labels):
    t = table.assign(label=pd.Series(pd.factorize(table['label'])[0] > (2 if labels is bool else -1)) if labels is bool else pd.Series(pd.factorize(table['label'])[0]).astype(labels))
    learn = build_learner(loaders(t), 'test_resnet', weights='none', precision='fp32')
    valid = t[t['split']=='valid']
    preds = predict_images(learn, valid, progress=False)
    export_model(learn, tmp_path/'m', temperature=2.)
    again = Predictor(tmp_path/'m', 'fp32').predict(valid, progress=False)
    assert read_model_json(tmp_path/'m')['vocab'] == list(learn.dls.vocab) == class_columns(preds) and preds['label'].tolist() == valid['label'].map(label_text).tolist()
    for p in (preds, again): assert p[['confidence','loss']].notna().all(axis=None) and set(p['predicted']) <= set(learn.dls.vocab)
    again.to_csv(tmp_path/'p.csv', index=False)
    assert Evaluation.from_csv(tmp_path/'p.csv').accuracy == Evaluation(again).accuracy == Evaluation(preds).accuracy == (preds['label']==preds['predicted']).mean()
    loss,acc = learn.validate(dl=learn.dls.test_dl(valid, with_labels=True))
    assert acc == pytest.approx(Evaluation(preds).accuracy)

def test_order_of_vocab_is_that_of_the_outputs(table, tmp_path):
    vocab = ['trash','glass','metal','never','paper','plastic','cardboard']
    with pytest.warns(UserWarning, match='of never'): dls = loaders(table, vocab=vocab)
    assert list(dls.vocab) == vocab
    learn = build_learner(dls, 'test_resnet', weights='none', precision='fp32', head='linear')
    with torch.no_grad():
        learn.model[1][-1].weight.zero_()
        learn.model[1][-1].bias.copy_(torch.arange(7.).flip(0))  # the first output is the greatest, whatever the photo
    preds = predict_images(learn, table, progress=False)
    assert set(preds['predicted']) == {'trash'} and class_columns(preds) == vocab
    again = Predictor(export_model(learn, tmp_path/'m'), 'fp32')
    assert again.vocab == vocab and set(again.predict(table, progress=False)['predicted']) == {'trash'}
    ev = Evaluation(preds)
    assert ev.vocab == vocab and ev.confusion_matrix()[:,0].tolist() == [int((table['label']==c).sum()) for c in vocab]

@pytest.mark.parametrize('vocab,says', [(['glass'], 'vocab lacks cardboard, metal'), (['glass','glass'], 'names glass twice'), ('glass', 'no list'), (['glass',None], 'without a name')])
def test_a_vocab_that_is_wrong(table, vocab, says):
    with pytest.raises(ValueError, match=says): loaders(table, vocab=vocab)

# Paths and indexes

def test_paths_and_a_repeated_index_change_nothing(table):
    odd = table.assign(path=pd.Series([Path(p) for p in table['path']], dtype=object))
    odd.index = np.arange(len(odd))//2
    plain,odd = (loaders(t, cache='ram', augment=[Brightness()], train_size=24) for t in (table, odd))
    assert photo_loader(plain).ram.keys() == photo_loader(odd).ram.keys()
    for a,b in ((plain.train, odd.train), (plain.valid, odd.valid)):
        (x,y),(u,v) = a.one_batch(),b.one_batch()
        assert x.shape == u.shape and torch.equal(y, v)
    assert torch.equal(plain.valid.one_batch()[0], odd.valid.one_batch()[0])

def test_groups_of_a_table_with_a_repeated_index(sample_dir):
    one = scan_images(sample_dir/'glass', progress=False)
    both = pd.concat([one, one.assign(path='copy/'+one['path'])])
    same = lambda paths: np.eye(len(paths))
    groups = group_duplicates(both, embed=same)
    assert groups.index.tolist() == both.index.tolist() and groups['group'].tolist() == group_duplicates(both.reset_index(drop=True), embed=same)['group'].tolist()
    assert (groups['group']!='').all() and groups['group'].iloc[0] == groups['group'].iloc[len(one)]

# fastai's habits

def test_photos_that_were_trained_on_are_ordinary_ones_later(table):
    "Training photos are kept larger; a prediction sees them as any other"
    learn = build_learner(loaders(table, augment='waste'), 'test_resnet', weights='none', precision='fp32')
    assert photo_loader(learn.dls).train_size != (32,32)
    files = table['path'].tolist()
    want = predict_images(learn, files, progress=False)[list(learn.dls.vocab)].values
    with learn.no_bar():
        assert np.allclose(learn.get_preds(dl=learn.dls.test_dl(files))[0], want, atol=1e-5)
        assert np.allclose(learn.get_preds(dl=learn.dls.test_dl([Path(f) for f in files]))[0], want, atol=1e-5)
        assert np.allclose(learn.get_preds(dl=learn.dls.test_dl(table))[0], want, atol=1e-5)
        for o in (files[0], Path(files[0]), PILImage.create(files[0]), np.array(PILImage.create(files[0])), Path(files[0]).read_bytes(), table.iloc[0]):
            name,i,probs = learn.predict(o)
            assert np.allclose(probs, want[0], atol=1e-5) and name == learn.dls.vocab[i]

@pytest.fixture(scope='module')
def odd_shapes(tmp_path_factory):
    "Photos in folders, upright and lying"
    folder = draw_sample(tmp_path_factory.mktemp('odd')/'photos', n=4, size=(96,72), seed=0)
    for i,f in enumerate(sorted(get_image_files(folder))):
        im = PILImage.create(f)
        im.resize((70+9*(i%5), 60+11*(i%7))).save(f)
    return folder

OWN = dict(crop=(dict(item_tfms=Resize(64)), 'fastai-crop'), squish=(dict(item_tfms=Resize((48,64), ResizeMethod.Squish), batch_tfms=aug_transforms()), 'fastai-squish'),
           pad=(dict(item_tfms=Resize(64, ResizeMethod.Pad)), None), presized=(dict(item_tfms=Resize(90), batch_tfms=aug_transforms(size=48)), None), random=(dict(item_tfms=RandomResizedCrop(48)), None))

@pytest.mark.parametrize('kind', sorted(OWN))
@pytest.mark.filterwarnings('ignore')
def test_a_learner_of_ones_own(odd_shapes, kind, tmp_path):
    "`predict_images` says what `get_preds` does; a model folder says the same, or is not written"
    kwargs,resize = OWN[kind]
    dls = ImageDataLoaders.from_folder(odd_shapes, valid_pct=.3, seed=1, bs=8, num_workers=0, **kwargs)
    learn = vision_learner(dls, resnet18, pretrained=False)
    files = sorted(get_image_files(odd_shapes))
    with learn.no_bar(): want = learn.get_preds(dl=dls.test_dl(files))[0].numpy()
    asked = [files[5], 'missing.jpg', *files, files[5]]
    preds = predict_images(learn, asked, bs=5, progress=False)
    assert preds['path'].tolist() == [str(f) for f in asked] and preds['ok'].tolist() == [f!='missing.jpg' for f in asked] and preds['reason'][1] == 'no such file'
    assert np.allclose(preds.loc[preds['ok'], list(dls.vocab)], np.concatenate([want[5:6], want, want[5:6]]), atol=1e-6)
    pictures = predict_images(learn, [PILImage.create(f) for f in files[:4]], progress=False)
    assert np.allclose(pictures[list(dls.vocab)], want[:4], atol=1e-6)
    ev = Evaluation(predict_images(learn, pd.DataFrame(dict(path=files, label=[f.parent.name for f in files])), progress=False))
    assert ev.accuracy == pytest.approx((want.argmax(1) == [dls.vocab.o2i[f.parent.name] for f in files]).mean())
    if resize is None:
        with pytest.raises(ValueError, match='predict_images'): export_model(learn, tmp_path/'m')
        return
    assert read_model_json(export_model(learn, tmp_path/'m'))['resize'] == resize
    assert np.allclose(Predictor(tmp_path/'m', 'fp32').predict(files, progress=False)[list(dls.vocab)], want, atol=1e-5)

@pytest.mark.filterwarnings('ignore')
def test_a_learner_on_a_table_with_numbers(odd_shapes, tmp_path):
    files = sorted(get_image_files(odd_shapes))
    df = pd.DataFrame(dict(name=[str(f.relative_to(odd_shapes)) for f in files], label=[len(f.parent.name) for f in files]))
    dls = ImageDataLoaders.from_df(df, odd_shapes, valid_pct=.3, seed=1, bs=8, num_workers=0, item_tfms=Resize(48), y_block=CategoryBlock())
    learn = vision_learner(dls, 'resnet10t', pretrained=False, lin_ftrs=[64,32], ps=[.1,0.,.3])
    preds = predict_images(learn, pd.DataFrame(dict(path=files, label=df['label'])), progress=False)
    with learn.no_bar(): want = learn.get_preds(dl=dls.test_dl(df))[0].numpy()
    vocab = [str(o) for o in dls.vocab]
    assert class_columns(preds) == vocab and np.allclose(preds[vocab], want, atol=1e-6) and preds['loss'].notna().all()
    model = Predictor(export_model(learn, tmp_path/'m'), 'fp32')
    assert model.vocab == vocab and np.allclose(model.predict(files, progress=False)[vocab], want, atol=1e-5)

@pytest.mark.filterwarnings('ignore')
def test_what_cannot_be_exported(odd_shapes, tmp_path):
    dls = ImageDataLoaders.from_folder(odd_shapes, valid_pct=.3, seed=1, bs=8, num_workers=0, item_tfms=Resize(48))
    def net(n, *more, first=()): return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *first, nn.Linear(n, 6), *more)
    def resnet_like(**kwargs): return resnet18(**{**kwargs, 'weights':None} if 'weights' in kwargs else {})
    for learn,says in ((Learner(dls, net(3), CrossEntropyLossFlat()), 'does not know its architecture'), (vision_learner(dls, resnet18, pretrained=False, custom_head=net(512, nn.Tanh())), "other answers"), (vision_learner(dls, resnet18, pretrained=False, custom_head=net(512, first=[nn.Tanh()])), "can't be built anew"),
                       (vision_learner(dls, resnet18, pretrained=False, cut=-3, custom_head=net(256)), "can't be built anew"), (vision_learner(dls, resnet_like, pretrained=False, cut=-2), 'neither timm')):
        with pytest.raises(ValueError, match=says): export_model(learn, tmp_path/'m')
        assert not list(tmp_path.iterdir())

# ---- schedules

def _rates(fit):
    "The learning rates of every batch in a tiny training of eight batches an epoch"
    from fastai.vision.all import Callback, CrossEntropyLossFlat, DataLoaders, Learner, nn
    class Record(Callback):
        order,rates = 61,None  # after ParamScheduler
        def before_fit(self): self.rates = []
        def before_batch(self):
            if self.training: self.rates.append([h['lr'] for h in self.opt.hypers])
    rows = [(torch.rand(4), i%2) for i in range(16)]
    learn,seen = Learner(DataLoaders.from_dsets(rows, rows, bs=2, device='cpu'), nn.Linear(4, 2), CrossEntropyLossFlat()),Record()
    with learn.no_bar(), learn.no_logging(): fit(learn, seen)
    return np.array(seen.rates)

def test_one_cycle_is_that_of_fastai():
    from garbage_fastai.learner import lr_schedule
    theirs = _rates(lambda learn, cb: learn.fit_one_cycle(5, 2e-3, pct_start=.2, cbs=cb))
    np.testing.assert_array_equal(_rates(lambda learn, cb: learn.fit_schedule('one-cycle', 5, 2e-3, cbs=cb)), theirs)
    shape = lr_schedule('one-cycle')
    np.testing.assert_allclose(theirs[:,0], [2e-3*shape(i/40) for i in range(40)], atol=1e-7)

@pytest.mark.parametrize('cycles', range(1, 12))
def test_cycles_share_out_the_whole_training(cycles):
    from garbage_fastai.learner import lr_schedule
    shape = lr_schedule('cyclic', cycles=cycles)
    assert abs(shape(0.)-1) < 1e-6 and shape(.9999) < 1e-3

def test_a_rate_of_zero_stays_finite(): assert np.isfinite(_rates(lambda learn, cb: learn.fit_schedule('smooth', 1, 0., cbs=cb))).all()
