"Published systems: their datasets as they are packed, their networks, freezing as they counted it, and a batch of experiments that is killed."
import io, json, random, shutil, tarfile, time, zipfile

import numpy as np, pandas as pd, pytest, torch
from safetensors.torch import save_file

from garbage_fastai.datasets import DATASETS, count_classes, get_dataset
from garbage_fastai.scan import scan_images
from garbage_fastai.splits import split_images
from test_cli import call, fails
from test_resume import begin, end, kill, wait_for

# ---- datasets

@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('GARBAGE_FASTAI_CACHE', str(tmp_path/'cache'))
    monkeypatch.setenv('GARBAGE_FASTAI_DATA', str(tmp_path/'data'))
    (tmp_path/'data').mkdir()
    return tmp_path/'data'

@pytest.mark.filterwarnings('ignore:Kaggle copy')
def test_kaggle_copy_has_the_published_split(cache, sample_dir):
    "One folder more around the classes, and the lists beside them"
    names = {c: sorted(p.name for p in (sample_dir/c).iterdir()) for c in DATASETS['trashnet'].counts}
    number = dict(zip(('glass','paper','cardboard','plastic','metal','trash'), range(1, 7)))
    with zipfile.ZipFile(cache/'garbage-classification.zip', 'w') as z:
        for c,files in names.items():
            for i,f in enumerate(files): z.write(sample_dir/c/f, f'Garbage classification/Garbage classification/{c}/{c}{i+1}.jpg')
        for part,rows in (('train',range(1,7)), ('val',range(7,9)), ('test',range(9,13))):
            z.writestr(f'one-indexed-files-notrash_{part}.txt', ''.join(f'{c}{i}.jpg {k}\n' for c,k in number.items() for i in rows))
    folder = get_dataset('garbage-classification', progress=False)
    assert count_classes(folder) == {c:12 for c in sorted(names)}
    table = split_images(scan_images(folder, progress=False), 'published')
    assert table['split'].value_counts().to_dict() == dict(train=36, valid=12, test=24)
    assert table.loc[table['path'].str.endswith('metal12.jpg'), 'split'].item() == 'test'

def npz(**arrays):
    buf = io.BytesIO()
    np.savez_compressed(buf, **arrays)
    return buf.getvalue()

def pack(path, **files):
    with tarfile.open(path, 'w:gz') as t:
        for name,data in files.items():
            m = tarfile.TarInfo(f'recycled/{name}.npz')
            m.size = len(data)
            t.addfile(m, io.BytesIO(data))

@pytest.mark.parametrize('layout', ['one', 'two', 'bare'])
def test_singh_set_in_each_packing(cache, layout):
    "One .npz with four arrays, bare or in an archive, or two with channels first: the same photos come out"
    rng = np.random.default_rng(0)
    x,y = rng.integers(0, 256, (60,16,16,3), dtype=np.uint8),np.arange(60)%5
    four = npz(x_train=x[:50], y_train=y[:50,None], x_test=x[50:], y_test=y[50:,None])
    if layout=='one': pack(cache/'recycle_data_shuffled.tar.gz', recycle_data_shuffled=four)
    elif layout=='bare': (cache/'recycle_data_shuffled.npz').write_bytes(four)
    else: pack(cache/'recycled_32.tar.gz', recycled_32_train=npz(x=x[:50].transpose(0,3,1,2), y=y[:50]), recycled_32_test=npz(x=x[50:].transpose(0,3,1,2), y=y[50:]))
    folder = get_dataset('singh', progress=False)
    assert count_classes(folder) == {c:12 for c in sorted(DATASETS['singh'].arrays)}
    assert get_dataset('singh', progress=False) == folder and not list(folder.glob('.*'))
    table = split_images(scan_images(folder, progress=False), folder/'splits.csv')
    assert table['split'].value_counts().to_dict() == dict(train=45, valid=5, test=10) and table['ok'].all()
    from PIL import Image
    assert (np.asarray(Image.open(folder/'crushed soda cans'/'train_00003.png')) == x[3]).all()

@pytest.mark.parametrize('content,says', [(b'no arrays', 'damaged|not an archive'), (None, 'no .npz'), (npz(x=np.zeros((2,4,4)), y=np.zeros(2)), 'not bytes of RGB'),
                                          (npz(x=np.zeros((2,4,4,3), np.uint8), y=np.array([0,7])), 'labels from 0 to 7')])
def test_singh_set_damaged(cache, content, says):
    file = cache/'recycle_data_shuffled.tar.gz'
    if content==b'no arrays': file.write_bytes(content)
    elif content is None: tarfile.open(file, 'w:gz').close()
    else: pack(file, recycle_data_shuffled=content)
    with pytest.raises(ValueError, match=says) as e: get_dataset('singh', progress=False)
    assert '\n' not in str(e.value) and not list((cache.parent/'cache').glob('*'))

# ---- networks and freezing

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

# ---- experiments

SMALL = [o for s in ('arch=test_resnet', 'size=32', 'epochs=2', 'bs=8', 'split=50/25/25') for o in ('--set', s)]
MEASURED = ['recipe','changes','data','split','split_hash','seed','size','epochs','photos','n','accuracy_valid','accuracy','macro_f1']

def test_killed_experiment_gives_the_same_table(sample_dir, tmp_path):
    "SIGKILL during the second run, and again: the rows are those of a batch that nothing interrupted, each there once"
    args = lambda out: ('experiment', 'resnet9', '--data', sample_dir, '--seeds', 2, '--out', tmp_path/out, '--results', tmp_path/f'{out}.csv', *SMALL)
    start = time.time()
    end(begin(tmp_path/'log', *args('whole')))
    seconds,file = time.time()-start,tmp_path/'killed.csv'
    for i in range(2):
        log = tmp_path/f'log{i}'
        p = begin(log, *args('killed'))
        wait_for(lambda: log.exists() and 'seed-43' in log.read_text(), p)
        time.sleep(random.uniform(0, .3*seconds))
        kill(p)
        assert len(pd.read_csv(file)) >= 1
    end(begin(tmp_path/'log', *args('killed')))
    whole,killed = (pd.read_csv(tmp_path/f'{o}.csv') for o in ('whole','killed'))
    pd.testing.assert_frame_equal(killed[MEASURED], whole[MEASURED], check_exact=True)
    before = file.read_text()
    end(begin(tmp_path/'log', *args('killed')))
    assert file.read_text() == before and list(whole['seed']) == [42,43]
    file.unlink()
    end(begin(tmp_path/'log', *args('killed')))  # lost rows come back from the runs
    pd.testing.assert_frame_equal(pd.read_csv(file)[MEASURED], whole[MEASURED], check_exact=True)

def test_photos_are_looked_through_once(sample_dir, tmp_path, capsys):
    "Two recipes on the same photos share what was found out about them, and stand in one table"
    assert call('experiment', 'resnet9', 'trashnet_cnn', '--data', sample_dir, '--seeds', 1, '--out', tmp_path/'out', *SMALL) == 0
    shown = capsys.readouterr().out
    assert shown.count('72 photos in 6 classes') == 1 and pd.read_csv(tmp_path/'out'/'experiments.csv')['recipe'].tolist() == ['resnet9','trashnet_cnn']

def test_experiment_lists_and_refuses(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call('experiment') == 0
    shown = capsys.readouterr().out
    assert 'trashnet_cnn' in shown and '63%' in shown and '355 s on a K80' in shown
    fails(capsys, 2, 'experiment', 'resnet-9', says='did you mean resnet9')
    fails(capsys, 2, 'experiment', 'resnet9', '--set', 'epochs', says='name=value')
    fails(capsys, 2, 'experiment', 'resnet9', '--set', 'colour=red', says='colour')
    fails(capsys, 2, 'experiment', 'sift_svm', '--set', 'epochs=3', says='epochs')
    (tmp_path/'notes.csv').write_text('day,what\n1,2\n')
    fails(capsys, 2, 'experiment', 'resnet9', '--results', 'notes.csv', says='notes.csv')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['notes.csv']

def test_sift_is_reproducible(sample_dir, tmp_path):
    from garbage_fastai.experiments import run_experiment
    pytest.importorskip('cv2')
    tables = [run_experiment('sift_svm', sample_dir, 1, tmp_path/o, progress=False, size=(96,96), words=30) for o in 'ab']
    cols = ['split_hash','n','accuracy','macro_f1']
    assert tables[0][cols].equals(tables[1][cols]) and len(list((tmp_path/'a').rglob('report.html'))) == 1
