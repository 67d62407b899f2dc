"What stands around a network: the device, the weights, the pixels it is given, what is exported, and how runs are compared."
import numpy as np, pandas as pd, pytest, torch
from hypothesis import HealthCheck, given, settings, strategies as st
from fastai.vision.all import Brightness, Path

from conftest import loaders
from garbage_fastai.cli import read_change
from garbage_fastai.data import photo_loader
from garbage_fastai.evaluate import Evaluation
from garbage_fastai.export import Predictor, export_model, read_model_json
from garbage_fastai.runs import differences
from garbage_fastai.learner import build_learner
from garbage_fastai.predict import predict_images
from garbage_fastai.predictions import class_columns
from garbage_fastai.core import label_text

def test_loaders_of_another_network(table):
    "Their means are not those of the weights, and that is said"
    dls = loaders(table)
    build_learner(dls, 'test_resnet', weights='none')
    with pytest.warns(UserWarning, match='mean .*0.485.* the weights want .*0.5.*: build them anew'): build_learner(dls, 'tf_efficientnet_lite0')
    with pytest.warns(UserWarning, match='normalize=False, but'): build_learner(dls, 'test_resnet', weights='none', normalize=False)

@pytest.mark.parametrize('kwargs', [dict(augment='none', background=.5), dict(augment=[Brightness()]), dict(augment='waste'), dict(augment=[Brightness()], train_size=24)])
def test_size_of_a_training_batch(table, kwargs):
    s = kwargs.get('train_size', 32)
    dls = loaders(table, **kwargs)
    assert dls.one_batch()[0].shape[-2:] == (s,s) and dls.valid.one_batch()[0].shape[-2:] == (32,32)

def test_the_same_size_in_other_words():
    assert differences(dict(size=224, train_size=[192,192], epochs=3), dict(size=(224,224), train_size=192, epochs=4)) == ['epochs 3 and not 4']
    assert read_change('train_size=same') == ('train_size','same') and read_change('size=64') == ('size',(64,64))

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

def test_paths_and_a_repeated_index_change_nothing(table):
    odd = table.assign(path=pd.Series([Path(p) for p in table['path']], dtype=object))
    odd.index = np.arange(len(odd))//2
    plain,odd = (loaders(t, cache='ram', augment=[Brightness()], train_size=24) for t in (table, odd))
    assert photo_loader(plain).ram.keys() == photo_loader(odd).ram.keys()
    for a,b in ((plain.train, odd.train), (plain.valid, odd.valid)):
        (x,y),(u,v) = a.one_batch(),b.one_batch()
        assert x.shape == u.shape and torch.equal(y, v)
    assert torch.equal(plain.valid.one_batch()[0], odd.valid.one_batch()[0])
