"Stress: the same photos, changed the same way for every model, and counted right."
from pathlib import Path

import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st

from garbage_fastai.stress import GROUNDS, STRESSES, plot_stress, stress_score, stress_test
from garbage_fastai.evaluate import wilson_interval
from garbage_fastai.predict import predict_table

@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(list(STRESSES)), strength=st.integers(1, 5), h=st.integers(1, 90), w=st.integers(1, 90), seed=st.integers(0, 50), flat=st.booleans())
def test_any_photo_gives_a_photo(name, strength, h, w, seed, flat):
    rng = np.random.default_rng(seed)
    img = np.full((h,w,3), rng.integers(256, size=3), np.uint8) if flat else rng.integers(256, size=(h,w,3), dtype=np.uint8)
    img.flags.writeable = False   # as decoded photos are
    a,b = (STRESSES[name](img, strength, np.random.default_rng(seed)) for _ in range(2))
    assert a.shape==img.shape and a.dtype==np.uint8 and np.array_equal(a, b)

@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(list(GROUNDS)), h=st.integers(1, 120), w=st.integers(1, 120), seed=st.integers(0, 50))
def test_any_ground_fills_the_photo(name, h, w, seed):
    g = GROUNDS[name](np.random.default_rng(seed), h, w)
    assert g.shape==(h,w,3) and np.isfinite(g).all()

class Model:
    "Says what the pixels' mean is: 'dark' or 'light'"
    vocab,size,resize = ['dark','light'],(32,32),'squish'
    def __init__(self): self.seen = []
    def predict(self, photos, bs=64, workers=None, progress=True, change=None, cache=None):
        def forward(x):
            self.seen.append(x.copy())
            light = x.mean((1,2,3))>100
            return np.stack([~light, light], 1).astype(np.float32)
        return predict_table(forward, photos, self.vocab, self.size, self.resize, bs, workers, progress, change, cache)

@pytest.fixture
def table(tmp_path):
    from PIL import Image
    rows = []
    for i in range(20):
        f = tmp_path/f'{i}.png'
        Image.new('RGB', (40,40), (200,)*3 if i%4 else (20,)*3).save(f)
        rows.append((str(f), 'light' if i%4 else 'dark'))
    return pd.DataFrame(rows, columns=['path','label'])

def test_darkness_turns_light_photos_dark(table):
    r = stress_test(Model(), table, ['darkness','blur'], (1,5), progress=False).set_index(['stress','strength'])
    assert r.loc[('clean',0),'accuracy']==1 and r.loc[('blur',5),'accuracy']==1
    assert r.loc[('darkness',5),'accuracy']==.25   # only the dark ones are still named right
    assert r.loc[('darkness',5),['lo','hi']].tolist()==pytest.approx(wilson_interval(5, 20))
    assert stress_score(r.reset_index())==pytest.approx(r.accuracy[1:].mean())

def test_pixels_repeat_whatever_the_order_and_the_company(table):
    a,b = Model(),Model()
    stress_test(a, table, ['glare'], (3,), progress=False)
    stress_test(b, table[::-1], ['darkness','glare'], (3,), progress=False)
    assert np.array_equal(a.seen[1], b.seen[2][::-1]) and not np.array_equal(a.seen[1][1], a.seen[1][2])   # like photos, unlike names

def test_the_sample_keeps_the_proportions(table):
    m = Model()
    r = stress_test(m, table, ['blur'], (1,), n=8, progress=False)
    assert r.n.tolist()==[8,8] and sum(len(np.unique(o))==1 and o.flat[0]==20 for o in m.seen[0])==2

def test_photos_are_decoded_once_and_stay_as_they_are(table, monkeypatch):
    import garbage_fastai.infer as p
    calls,real,before = [],p.presize_image,{f:Path(f).read_bytes() for f in table.path}
    monkeypatch.setattr(p, 'presize_image', lambda *a: calls.append(a) or real(*a))
    stress_test(Model(), table, strengths=(2,), progress=False)
    assert len(calls)==20 and before=={f:Path(f).read_bytes() for f in table.path}

def test_a_bad_file_is_left_out(table, tmp_path):
    (tmp_path/'bad.png').write_text('no photo')
    t = pd.concat([table, pd.DataFrame(dict(path=[str(tmp_path/'bad.png')], label=['dark']))])
    assert (stress_test(Model(), t, ['jpeg'], (1,), progress=False).n==20).all()

def test_own_stress_and_plot(table):
    r = stress_test(Model(), table, dict(invert=lambda img,s,rng: 255-img), (1,), progress=False)
    assert r.accuracy.tolist()==[1,0]
    fig = plot_stress({'a':r, 'b':r})
    assert [ax.get_title() for ax in fig.axes if ax.get_title()]==['invert'] and len(fig.axes[0].lines)==2

def test_wrong_use_is_one_line(table):
    for kw,says in ((dict(stresses=['fog']),'fog'), (dict(strengths=(7,)),'1 to 5'), (dict(n=0),'n=0')):
        with pytest.raises(ValueError, match=says): stress_test(Model(), table, **kw)
    with pytest.raises(ValueError, match='label'): stress_test(Model(), table[['path']])

def test_stress_keeps_descriptions():
    class Model:
        size,model = (8,8),None
        def predict(self, table, **kwargs):
            assert list(table['text']) == ['clean box','greasy box']
            return table.assign(predicted=table['label'], ok=True)
    t = pd.DataFrame(dict(path=['a.jpg','b.jpg'], label=['Blue','Green'], text=['clean box','greasy box']))
    assert stress_test(Model(), t, 'blur', (1,), progress=False)['accuracy'].tolist() == [1,1]
