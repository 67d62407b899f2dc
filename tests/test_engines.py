"The same answers from every engine, and `auto` that never gets in the way."
import importlib.util, json, sys

import numpy as np, pytest

from garbage_fastai import engines
from garbage_fastai.export import Predictor, export_model, export_onnx

def needs(*packages):
    missing = [p for p in packages if not importlib.util.find_spec(p)]
    return pytest.mark.skipif(bool(missing), reason=f'not installed: {", ".join(missing)}')

@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch): monkeypatch.setenv('GARBAGE_FASTAI_CACHE', str(tmp_path/'cache'))

@pytest.fixture(scope='module')
def model_dir(sample_dir, tmp_path_factory):
    "A model whose depthwise convolutions, batch norms and temperature all matter"
    import torch
    from garbage_fastai.data import build_dataloaders
    from garbage_fastai.scan import scan_images
    from garbage_fastai.learner import build_learner
    from garbage_fastai.splits import split_images
    dls = build_dataloaders(split_images(scan_images(sample_dir, progress=False), (.5,.25,.25), seed=0), size=(48,64), bs=12, seed=0, device='cpu')
    learn = build_learner(dls, 'tf_efficientnet_lite0', weights='none', freeze='none', precision='fp32')
    torch.manual_seed(0)
    for k,v in learn.model.named_buffers():
        if k.endswith('running_mean'): v.normal_(0, .1)
        if k.endswith('running_var'): v.uniform_(.5, 1.5)
    return export_model(learn, tmp_path_factory.mktemp('m')/'model', temperature=.5, threshold=.4)

@pytest.mark.parametrize('engine', [pytest.param('onnx', marks=needs('onnx','onnxruntime')), pytest.param('openvino', marks=needs('onnx','openvino'))])
def test_engines_agree(model_dir, sample_dir, engine):
    before = {p.name: p.stat().st_mtime_ns for p in model_dir.iterdir()}
    ref,other = (Predictor(model_dir, 'fp32', 'cpu', e).predict(sample_dir, bs=20, progress=False) for e in ('torch',engine))
    vocab = Predictor(model_dir).vocab
    assert np.abs(ref[vocab].values-other[vocab].values).max() < 1e-4
    assert ref[vocab].values.std(0).max() > 1e-3  # not all alike
    far = (ref.confidence-.4).abs() > 1e-4
    assert (ref.sure[far] == other.sure[far]).all()
    assert before == {p.name: p.stat().st_mtime_ns for p in model_dir.iterdir()}  # nothing is written into the model folder

@needs('onnx', 'onnxruntime')
def test_onnx_file_tells_all_it_takes(model_dir, tmp_path):
    import onnxruntime
    file = export_onnx(model_dir, tmp_path/'sub'/'waste.onnx')
    s = onnxruntime.InferenceSession(file)
    config,meta = json.loads((model_dir/'model.json').read_text()),s.get_modelmeta().custom_metadata_map
    for k in ('vocab','size','mean','std','temperature','threshold'): assert json.loads(meta[k]) == config[k]
    for n in (1, 7):
        probs = s.run(['probabilities'], {'photos': np.zeros((n,48,64,3), np.uint8)})[0]
        assert probs.shape == (n,6) and probs.sum(1) == pytest.approx(1, abs=1e-5)

def test_auto_without_extras_is_torch(model_dir, monkeypatch, capsys):
    monkeypatch.setattr(engines, 'installed_engines', lambda: dict(torch='1'))
    monkeypatch.setattr(engines, 'time_engines', None)  # nothing is measured
    assert Predictor(model_dir, device='cpu', engine='auto').engine == 'torch'
    assert not ''.join(capsys.readouterr())

def test_engine_that_is_not_there_is_said(model_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, 'openvino', None)
    monkeypatch.setattr(engines, 'cached_onnx', lambda *a: b'')
    with pytest.raises(ValueError, match=r'pip install .garbage_fastai\[openvino\]'): Predictor(model_dir, device='cpu', engine='openvino')
    with pytest.raises(ValueError, match='auto, torch, onnx, openvino'): Predictor(model_dir, engine='tensorrt')

def test_auto_survives_a_broken_engine(model_dir, monkeypatch, tmp_path):
    "An engine that fails, and a cache that can't be written, cost nothing but the speed"
    def broken(*args): raise RuntimeError('no such instruction')
    monkeypatch.setattr(engines, 'installed_engines', lambda: dict(torch='1', onnx='1'))
    monkeypatch.setattr(engines, 'onnx_forward', broken)
    monkeypatch.setattr(engines, 'cached_onnx', lambda *a: b'')
    (tmp_path/'file').write_text('')
    monkeypatch.setenv('GARBAGE_FASTAI_CACHE', str(tmp_path/'file'))
    assert Predictor(model_dir, device='cpu', engine='auto').engine == 'torch'

def test_auto_measures_once(model_dir, monkeypatch, tmp_path):
    calls = []
    def forward(*args): return lambda x: np.full((len(x),6), 1/6, np.float32)
    def rates(forwards, size): calls.append(sorted(forwards)); return dict(torch=1., onnx=2.)
    monkeypatch.setattr(engines, 'installed_engines', lambda: dict(torch='1', onnx='1'))
    for k,v in dict(cached_onnx=lambda *a: b'', onnx_forward=forward, time_engines=rates).items(): monkeypatch.setattr(engines, k, v)
    assert [Predictor(model_dir, device='cpu', engine='auto').engine for _ in range(3)] == ['onnx']*3
    assert calls == [['onnx','torch']]
    file, = (tmp_path/'cache'/'engines').glob('*.json')
    for damaged in ('[1]', '{', '{"here": 1}'):  # as if nothing were remembered
        file.write_text(damaged)
        Predictor(model_dir, device='cpu', engine='auto')
    assert len(calls) == 4
    monkeypatch.setattr(engines, 'installed_engines', lambda: dict(torch='2', onnx='1'))  # another version: measured anew
    Predictor(model_dir, device='cpu', engine='auto')
    assert len(calls) == 5
