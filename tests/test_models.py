"Published systems: their datasets as they are packed, their networks, freezing as they counted it, and a batch of experiments that is killed."
import json, shutil

import pandas as pd, pytest, torch
from safetensors.torch import save_file

from conftest import call, fails
from garbage_fastai.scan import scan_images
from garbage_fastai.splits import split_images

@pytest.fixture(scope='module')
def dls(sample_dir):
    from garbage_fastai.data import build_dataloaders
    return lambda size: build_dataloaders(split_images(scan_images(sample_dir, progress=False), (.5,.25,.25)), size, 8, 'none', seed=0)

@pytest.mark.parametrize('arch,n', [('torchvision/resnet18',0), ('torchvision/resnet18',6), ('torchvision/resnet18',7), ('torchvision/resnet18',9), ('resnet18',7),
                                    ('tf_efficientnet_lite0',5), ('tf_efficientnet_lite0',11)])
def test_frozen_is_frozen(dls, arch, n):
    "Below the cut no parameter and no statistic changes by a bit and no gradient arrives; above it everything learns, each group at its rate"
    from garbage_fastai.learner import build_learner
    from garbage_fastai.models import body_stages
    torch.manual_seed(0)
    learn = build_learner(dls(64), arch, 'none', n, 'fp32', head='linear')
    stages = body_stages(learn.model[0])
    before = [{k:v.clone() for k,v in m.state_dict().items()} for _,m in stages]
    head = learn.model[1][-1].weight.clone()
    with learn.no_bar(): learn.fit_one_cycle(1, slice(1e-3, 4e-3))
    for i,(name,m) in enumerate(stages):
        now = m.state_dict()
        same = [torch.equal(v, now[k]) for k,v in before[i].items()]
        assert all(same) if i<n else not any(s for s,(k,v) in zip(same, before[i].items()) if v.is_floating_point()), (name, i)
        assert all((p.grad is None)==(i<n) for p in m.parameters()), name
    assert not torch.equal(head, learn.model[1][-1].weight)
    assert [len(g) for g in learn.opt.param_lists][0] == sum(1 for _,m in stages[:n] for _ in m.parameters())

@pytest.mark.parametrize('arch,size', [('torchvision/resnet50',64), ('torchvision/resnet34',64), ('inception_v3',96)])
def test_published_bodies_from_a_file(dls, arch, size, tmp_path):
    "Weights come from a file, here random ones, and the network answers"
    import timm
    from garbage_fastai.learner import build_learner
    from garbage_fastai.models import find_arch
    net = find_arch(arch)
    net = net(weights=None) if callable(net) else timm.create_model(net)
    first = next(p for p in net.parameters() if p.ndim==4).detach().clone()
    save_file(net.state_dict(), tmp_path/'w.safetensors')
    learn = build_learner(dls(size), arch, tmp_path/'w.safetensors', 0, 'fp32', head='sigmoid')
    assert torch.equal(next(p for p in learn.model.parameters() if p.ndim==4).detach(), first)
    x,_ = learn.dls.one_batch()
    out = learn.model.eval()(x[:2])
    assert out.shape==(2,6) and 0<=out.min() and out.max()<=1

def test_a_network_from_scratch_trains_and_travels(sample_dir, tmp_path, capsys):
    "Trained by its name alone, as a whole; the exported model, sigmoid and bare pixels included, says what the run said; other class names are understood"
    from garbage_fastai.export import Predictor
    from garbage_fastai.train import train_run
    run = train_run(sample_dir, tmp_path/'run', progress=False, arch='resnet9', size=32, epochs=1, bs=16, head='sigmoid', normalize=False, groups='auto')
    config = json.loads((run/'config.json').read_text())
    assert (config['weights'], config['freeze'], config['head'], config['normalize']) == ('none', 'none', 'sigmoid', False)
    preds = pd.read_csv(run/'predictions.csv')
    again = Predictor(run/'model').predict(preds[['path','label']], progress=False)
    assert again['glass'].to_numpy() == pytest.approx(preds['glass'].to_numpy(), abs=1e-4)
    other = tmp_path/'other'
    for new,old in (('Soda_cans','metal'), ('crushed soda cans','metal'), ('boxes','cardboard')): shutil.copytree(sample_dir/old, other/new)
    capsys.readouterr()
    assert call('evaluate', run, other) == 0
    assert 'boxes for cardboard' in capsys.readouterr().out
    (other/'boxes').rename(other/'shoes')
    fails(capsys, 2, 'evaluate', run, other, says='shoes')
