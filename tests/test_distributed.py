"Several processes train one model: as one process would, with one of them that writes, and with an end when one dies."
import json, multiprocessing, os, signal, socket, sys

import pandas as pd, pytest, torch
from fastai.vision.all import Callback, set_bn_eval

from conftest import SMALL, call, end, epochs_in, fails, fingerprint, kill, wait_for
from garbage_fastai.cli import main
from garbage_fastai.distributed import distributed_fit, init_processes
from garbage_fastai.learner import build_learner
from garbage_fastai.data import build_dataloaders
from garbage_fastai.train import prepare_table

def _child(target, args, env, log):
    os.environ.update(env)
    out = os.open(log, os.O_CREAT|os.O_WRONLY|os.O_TRUNC)
    for fd in (1,2): os.dup2(out, fd)
    sys.stdout,sys.stderr = (open(fd, 'w', buffering=1, closefd=False) for fd in (1,2))
    torch.set_num_threads(1)
    target(*args)

def launch(n, folder, target, *args):
    "What `torchrun` does, in forked processes whose imports are done; what rank `i` prints goes to `folder/log-i`"
    pytest.importorskip('accelerate', reason="several processes need accelerate: pip install 'garbage_fastai[distributed]'")
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    ps = []
    for i in range(n):
        env = dict(RANK=i, LOCAL_RANK=i, WORLD_SIZE=n, LOCAL_WORLD_SIZE=n, MASTER_ADDR='127.0.0.1', MASTER_PORT=port, GLOO_SOCKET_IFNAME='lo')
        ps.append(multiprocessing.get_context('fork').Process(target=_child, args=(target, args, {k:str(v) for k,v in env.items()} if n>1 else {}, folder/f'log-{i}')))
        ps[-1].start()
    return ps

def train(*args): main(['train', *map(str, args)])

class FixedStatistics(Callback):
    "Batch norm as in evaluation, so that no photo is normalised by the others of its batch"
    order = 20
    def before_train(self): set_bn_eval(self.model, use_eval=True)

def fit_plainly(data, bs, file):
    init_processes()
    dls = build_dataloaders(prepare_table(data, progress=False), 32, bs, 'none', seed=1)
    learn = build_learner(dls, 'test_resnet', 'none', 'none', 'fp32', head='linear', path=file.parent)
    for m in learn.model.modules():
        if isinstance(m, torch.nn.BatchNorm2d): [p.requires_grad_(False) for p in m.parameters()]  # what `set_bn_eval` goes by
    with learn.no_bar(), learn.no_logging(), distributed_fit(learn): learn.fit(1, 1e-3, cbs=FixedStatistics())
    rank = os.environ.get('RANK', '0')
    torch.save(dict(weights=learn.model.state_dict(), steps=len(learn.recorder.losses), seed=torch.initial_seed(), valid=list(learn.recorder.values[0])), file.with_suffix(f'.{rank}'))

def test_as_one_process_with_the_same_effective_batch(sample_dir, tmp_path):
    "Neither augmentation nor batch statistics: an epoch of two processes is one of a single process with twice the batch"
    for p in [*launch(2, tmp_path, fit_plainly, sample_dir, 7, tmp_path/'two'), *launch(1, tmp_path, fit_plainly, sample_dir, 14, tmp_path/'one')]: end(p)
    a,b,one = (torch.load(tmp_path/f) for f in ('two.0', 'two.1', 'one.0'))
    assert a['steps'] == b['steps'] == one['steps'] == 2  # 36 training photos, the last eight are left out
    assert a['seed'] == one['seed'] != b['seed']  # augmentation differs
    for k,v in one['weights'].items():
        assert torch.equal(a['weights'][k], b['weights'][k]), k
        assert (a['weights'][k]-v).abs().max() <= 1e-5, k
    assert a['valid'] == b['valid'] == pytest.approx(one['valid'], abs=.05)

@pytest.fixture(scope='module')
def together(sample_dir, tmp_path_factory):
    "A run of two processes"
    run = tmp_path_factory.mktemp('together')/'run'
    before = fingerprint(sample_dir)
    for p in launch(2, run.parent, train, sample_dir, '--out', run, *SMALL): end(p)
    assert fingerprint(sample_dir) == before
    return run

def test_one_process_writes(together, sample_dir, tmp_path, capsys):
    assert sorted(p.name for p in together.parent.iterdir()) == ['log-0', 'log-1', 'run'] and (together.parent/'log-1').read_text() == ''
    log = (together.parent/'log-0').read_text()
    assert log.count('report: ') == 1 and log.count('photos of 6 classes') == 1
    assert call('train', sample_dir, '--out', tmp_path/'alone', *SMALL) == 0
    assert {p.name for p in together.iterdir()} == {p.name for p in (tmp_path/'alone').iterdir()}
    for f in ('splits.csv',): assert (together/f).read_bytes() == (tmp_path/'alone'/f).read_bytes()
    config,alone = (json.loads((d/'config.json').read_text()) for d in (together, tmp_path/'alone'))
    assert (config['processes'], alone['processes']) == (2, 1) and config['split_hash'] == alone['split_hash']
    n = json.loads((together/'metrics.json').read_text())['n']
    assert n == (pd.read_csv(together/'predictions.csv')['split']=='test').sum() and epochs_in(together) == 3

def test_finished_or_wrong(together, sample_dir, tmp_path):
    before = fingerprint(together)
    for p in launch(2, tmp_path, train, sample_dir, '--out', together, '--resume'): end(p)
    assert (tmp_path/'log-0').read_text().splitlines() == [f'{together} holds this run, and it is finished'] and fingerprint(together) == before
    a,b = launch(2, tmp_path, train, tmp_path/'nowhere', '--out', tmp_path/'new')
    end(a, 2); end(b, 1)
    assert 'nowhere' in (tmp_path/'log-0').read_text() and (tmp_path/'log-1').read_text() == '' and not (tmp_path/'new').exists()

@pytest.mark.parametrize('dies', [0, 1])
def test_killed(dies, sample_dir, tmp_path):
    "SIGKILL for one: the other says so in one line and ends, and one process goes on with what they did"
    run = tmp_path/'run'
    ps = launch(2, tmp_path, train, sample_dir, '--out', run, *SMALL, '--resume')
    wait_for(lambda: epochs_in(run)>=1, ps[0])
    kill(ps[dies])
    end(ps[1-dies], 1)
    log = (tmp_path/f'log-{1-dies}').read_text()
    said = [l for l in log.splitlines() if l.startswith('garbage-fastai: ')]
    assert len(said) == 1 and said[0].startswith('garbage-fastai: another process') and '--resume' in said[0] and 'Traceback' not in log, log
    end(launch(1, tmp_path, train, sample_dir, '--out', run, *SMALL, '--resume')[0])
    assert 'going on after' in (tmp_path/'log-0').read_text() and epochs_in(run) == 3 and (run/'report.html').exists()

def test_told_to_end_and_limited(sample_dir, tmp_path):
    "SIGTERM, as a launcher sends it, means the same; a limit of time ends all processes after the same epoch; two may go on where one was"
    run = tmp_path/'run'
    args = sample_dir, '--out', run, *SMALL, '--resume'
    end(launch(1, tmp_path, train, *args, '--time-limit', '1s')[0], 3)
    ps = launch(2, tmp_path, train, *args)
    wait_for(lambda: epochs_in(run)>=2, ps[0])
    for p in ps: os.kill(p.pid, signal.SIGTERM)
    for i,p in enumerate(ps):
        end(p, 1)
        assert sum(l.startswith('garbage-fastai: another process') for l in (tmp_path/f'log-{i}').read_text().splitlines()) == 1
    a,b = launch(2, tmp_path, train, sample_dir, '--out', tmp_path/'other', *SMALL, '--time-limit', '1s')
    end(a, 3); end(b)
    assert epochs_in(tmp_path/'other') == 1
    for p in launch(2, tmp_path, train, *args): end(p)
    assert (run/'report.html').exists() and epochs_in(run) == 3

def test_what_is_missing_is_named(sample_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('ACCELERATE_USE_CPU', 'True')
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', says=['accelerate launch --cpu', 'torchrun'])
    monkeypatch.setenv('WORLD_SIZE', '2')
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', '--seeds', '2', says='--seeds')
    monkeypatch.setitem(sys.modules, 'accelerate', None)
    monkeypatch.setattr('garbage_fastai.distributed.default_device', lambda *a: torch.device('cpu'))
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', says="pip install 'garbage_fastai[distributed]'")
