"What stands around a network: the device, the weights, the pixels it is given, what is exported, and how runs are compared."
import numpy as np, pandas as pd, pytest, torch
from fastai.vision.all import (
    CategoryBlock, ImageDataLoaders, Path, PILImage, RandomResizedCrop, Resize, ResizeMethod, aug_transforms,
    get_image_files, resnet18, vision_learner)

from conftest import loaders
from garbage_fastai.callbacks import plot_training
from garbage_fastai.data import photo_loader
from garbage_fastai.duplicates import group_duplicates
from garbage_fastai.evaluate import Evaluation
from garbage_fastai.export import Predictor, export_model, read_model_json
from garbage_fastai.scan import scan_images
from garbage_fastai.learner import build_learner, fetch_weights
from garbage_fastai.predict import predict_images
from garbage_fastai.train import full_recipe
from garbage_fastai.predictions import class_columns

def test_network_lies_where_the_batches_do(table):
    "Before the first fit too: the head is trained on features that are computed then"
    learn = build_learner(loaders(table, augment='none', device='meta'), 'test_resnet', weights='none')
    assert {p.device.type for p in learn.model.parameters()} == {b.device.type for b in learn.model.buffers()} == {'meta'}

def test_from_scratch_all_layers_learn(table):
    assert all(p.requires_grad for p in build_learner(loaders(table), 'test_resnet', weights='none').model.parameters())
    assert full_recipe(weights='none')['freeze'] == full_recipe(arch='resnet9', weights='none')['freeze'] == full_recipe(arch='resnet9')['freeze'] == 'none'
    assert full_recipe(weights='none', freeze=5)['freeze'] == full_recipe()['freeze'] == 5

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

def test_graph_with_training_metrics():
    "The line that is called valid is the validation loss"
    class Recorder:
        metric_names = ['epoch','train_loss','train_accuracy','valid_loss','valid_accuracy','time']
        values,losses = [[.9,.5,.8,.4],[.7,.6,.75,.45]],[1.,.9,.8,.7]
    lines = {l.get_label():list(l.get_ydata()) for ax in plot_training(Recorder, [2,4]).axes for l in ax.lines}
    assert lines == {'train (smoothed)':[1.,.9,.8,.7], 'valid':[.8,.75], 'train_accuracy':[.5,.6], 'valid_accuracy':[.4,.45]}

def test_groups_of_a_table_with_a_repeated_index(sample_dir):
    one = scan_images(sample_dir/'glass', progress=False)
    both = pd.concat([one, one.assign(path='copy/'+one['path'])])
    same = lambda paths: np.eye(len(paths))
    groups = group_duplicates(both, embed=same)
    assert groups.index.tolist() == both.index.tolist() and groups['group'].tolist() == group_duplicates(both.reset_index(drop=True), embed=same)['group'].tolist()
    assert (groups['group']!='').all() and groups['group'].iloc[0] == groups['group'].iloc[len(one)]

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

def test_features_channels_last(tiny_dls):
    with pytest.raises(ValueError, match='swin_s3_tiny_224.*channels last'): build_learner(tiny_dls, arch='swin_s3_tiny_224', weights='none')
