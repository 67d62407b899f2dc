"Backgrounds: whatever the photos are, what comes out is photos, and the object stays."
import pytest, torch
from fastai.torch_core import TensorImage, set_seed
from fastai.vision.augment import aug_transforms
from fastai.data.transforms import IntToFloatTensor, Normalize
from fastai.vision.core import imagenet_stats
from fasttransform import Pipeline
from hypothesis import given, settings, strategies as st

from garbage_fastai.augment import ChangeBackground, background_mask

def board(n=3, h=96, w=128):
    "Photos of a green disc on a white board, and where the disc is"
    v,u = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing='ij')
    disc = (u**2*(w/h)**2+v**2<.25).float()
    ground,thing = (torch.tensor(c)[:,None,None] for c in ([.85,.84,.8],[.15,.5,.3]))
    return ((ground*(1-.03*(u+v)**2))*(1-disc)+thing*disc).repeat(n,1,1,1), disc>.5

@settings(max_examples=25, deadline=None)
@given(h=st.integers(1, 150), w=st.integers(1, 150), n=st.integers(1, 4), seed=st.integers(0, 99), kind=st.sampled_from(['noise','flat','board']))
def test_any_photos_give_photos(h, w, n, seed, kind):
    torch.manual_seed(seed)
    x = torch.rand(n,3,h,w) if kind=='noise' else torch.rand(n,3,1,1).expand(n,3,h,w).clone()
    if kind=='board' and min(h, w)>6: x[...,h//3:h-h//3,w//3:w-w//3] = torch.rand(3,1,1)
    m = background_mask(x)
    assert m.shape==(n,1,h,w) and torch.isfinite(m).all() and 0<=m.min() and m.max()<=1+1e-6
    out = ChangeBackground(p=1)(TensorImage(x.clone()), split_idx=0)
    assert type(out) is TensorImage and out.shape==x.shape and out.dtype==x.dtype and torch.isfinite(out).all()
    assert out.min()>=-1e-6 and out.max()<=1+1e-6

def test_the_mask_is_the_board():
    x,disc = board()
    m = background_mask(x)[:,0]
    assert (m[:,disc]>.5).float().mean()<.05 and (m[:,~disc]>.5).float().mean()>.93

def test_the_object_stays_and_the_board_goes():
    x,disc = board(8)
    moved = (ChangeBackground(p=1)(TensorImage(x), split_idx=0)-x).abs().mean(1)
    assert moved[:,disc].mean()<.02 and moved[:,~disc].mean()>.1

def test_float32_inside_autocast():
    "The same photos come out as without it; sixteen-bit photos stay sixteen-bit"
    def run(x): set_seed(3); return ChangeBackground(p=1)(TensorImage(x), split_idx=0)
    x,_ = board(6)
    plain,mask = run(x),background_mask(x)
    with torch.autocast('cpu', torch.bfloat16): assert torch.equal(run(x), plain) and torch.equal(background_mask(x), mask)
    half = run(x.bfloat16())
    assert half.dtype==torch.bfloat16 and type(half) is TensorImage and (half.float()-run(x.bfloat16().float())).abs().max()<.01

def test_share_seed_and_split():
    x,change = TensorImage(board(200, 48, 64)[0]),ChangeBackground(p=.5)
    def run(): set_seed(1); return change(x, split_idx=0)
    a = run()
    changed = ((a-x).abs().amax((1,2,3))>.02).float().mean()
    assert .35<changed<.65 and torch.equal(a, run())
    assert torch.equal(change(x, split_idx=1), x) and torch.equal(ChangeBackground(p=0)(x, split_idx=0), x)
    assert torch.equal(x, board(200, 48, 64)[0])   # the batch that went in is as it was

def test_it_runs_before_turning_and_normalising():
    tfms = Pipeline([Normalize.from_stats(*imagenet_stats, cuda=False), *aug_transforms(size=64), ChangeBackground(), IntToFloatTensor()], split_idx=0)
    names = [type(f).__name__ for f in tfms.fs]
    assert names.index('IntToFloatTensor')<names.index('ChangeBackground')<min(i for i,n in enumerate(names) if n in ('Flip','Brightness','Normalize'))
    x = TensorImage((board(4)[0]*255).byte())
    assert tfms(x).shape==(4,3,64,64)

@pytest.mark.parametrize('x', [torch.zeros(3,8,8), torch.zeros(1,1,8,8), torch.zeros(1,3,8,8, dtype=torch.uint8)])
def test_wrong_photos_are_refused(x):
    with pytest.raises(ValueError, match='shape'): background_mask(x)
