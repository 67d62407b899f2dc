"What stands around a network: the device, the weights, the pixels it is given, what is exported, and how runs are compared."
import numpy as np, pytest, torch
from fastai.vision.all import Callback, MixUp

from conftest import fit, loaders
from garbage_fastai.learner import compute_features, build_learner
from garbage_fastai.infer import pick_precision, predict_precision

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
