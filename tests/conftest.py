"Fixtures that the tests share. The environment is set before anything imports torch or matplotlib."
import os, random, shutil, subprocess, sys
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE='1', MPLBACKEND='Agg')
os.environ.setdefault('OMP_NUM_THREADS', '2')  # torch's threads: the tests are small, and machines are shared
os.environ.pop('IN_TEST', None)  # nbdev exports nothing where it is set

import pytest

ROOT = Path(__file__).resolve().parents[1]

def repo_files():
    "What git holds or would add, relative to the root; without git, everything that is not built"
    cmd = ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
    try: names = subprocess.run(cmd, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split('\0')
    except (OSError, subprocess.CalledProcessError):
        built = {'.git', '.venv', '_proc', '_docs', 'build', 'dist', 'runs', '__pycache__', '.ipynb_checkpoints', '.pytest_cache'}
        names = [p.relative_to(ROOT) for p in ROOT.rglob('*') if not built & set(p.relative_to(ROOT).parts)]
    return sorted({Path(n) for n in names if n and (ROOT/n).is_file()})

def copy_repo(dest):
    "A copy of the repository that a test may write in"
    for f in repo_files():
        (dest/f).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT/f, dest/f)
    return dest

def run(*cmd, cwd):
    "Run a command; where it fails, the test fails with what it printed"
    res = subprocess.run([str(c) for c in cmd], cwd=cwd, capture_output=True, text=True)
    if res.returncode: pytest.fail(f"{' '.join(map(str, cmd))}\nended with {res.returncode}\n{res.stdout[-3000:]}\n{res.stderr[-3000:]}", False)
    return res

@pytest.fixture(scope='session')
def data_dir():
    "The folder with the real photos' archives"
    folder = os.environ.get('GARBAGE_FASTAI_DATA')
    if not folder: pytest.skip('real photos: set GARBAGE_FASTAI_DATA to the folder that holds dataset-resized.zip')
    if not Path(folder).is_dir(): pytest.fail(f'GARBAGE_FASTAI_DATA={folder} is not a folder')
    return Path(folder)

@pytest.fixture(scope='session')
def sample_dir(tmp_path_factory):
    "A small drawn sample: one folder a class. Shared, so only to be read"
    from garbage_fastai.sample import draw_sample
    dest = tmp_path_factory.mktemp('sample')/'sample'
    draw_sample(dest, n=12, size=(96,96), seed=0)
    return dest

@pytest.fixture(params=['fp32','bf16'])
def precision(request, monkeypatch):
    "What 'auto' means in training: a test that takes this runs in both, whatever the machine. bfloat16 may be imitated, so keep it small"
    monkeypatch.setenv('GARBAGE_FASTAI_PRECISION', request.param)
    return request.param

@pytest.fixture
def own_home(tmp_path, monkeypatch):
    "A cache of its own, no ready data, and no proxy"
    for name in ('GARBAGE_FASTAI_DATA', 'XDG_CACHE_HOME', 'http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('GARBAGE_FASTAI_CACHE', str(tmp_path/'cache'))

@pytest.fixture(autouse=True)
def seeded():
    "Each test begins with the same random state, whatever ran before"
    random.seed(42)
    if 'numpy' in sys.modules: sys.modules['numpy'].random.seed(42)
    if 'torch' in sys.modules: sys.modules['torch'].manual_seed(42)

# What the tests of several rooms call
import hashlib, io, multiprocessing, resource, signal, tarfile, time, warnings, zipfile

import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from hypothesis import settings, strategies as st, HealthCheck
from safetensors.torch import load_file
from fastai.vision.all import PILImage, get_image_files

from bad_files import picture
from garbage_fastai.data import build_dataloaders
from garbage_fastai.scan import scan_images
from garbage_fastai.train import train_run
from garbage_fastai.splits import split_images
from garbage_fastai.cli import main
from garbage_fastai.predictions import probability_column
from garbage_fastai.sample import draw_sample

@pytest.fixture(scope='session')
def tiny_run(sample_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('run')/'run'
    return train_run(sample_dir, out, arch='test_resnet', weights='none', freeze='none', size=32, epochs=1, bs=8, augment='light', progress=False)

@pytest.fixture(scope='session')
def tiny_dls(sample_dir):
    return build_dataloaders(split_images(scan_images(sample_dir, progress=False), (.5,.5), seed=42), size=32, bs=8, seed=42)

TINY = ['--arch','resnet10t', '--weights','none', '--freeze','none', '--size','32', '--epochs','1', '--bs','16', '--augment','light']

def call(*args):
    "Run the command in this process; its exit code"
    with pytest.raises(SystemExit) as e: main([str(a) for a in args])
    return e.value.code or 0

def fails(capsys, code, *args, says):
    "The command ends with `code` and one line on stderr that holds every word of `says`"
    capsys.readouterr()
    assert call(*args) == code
    err = capsys.readouterr().err
    lines = [l for l in err.splitlines() if l.startswith('garbage-fastai: ')]
    assert len(lines) == 1 and 'Traceback' not in err, err
    for word in [says] if isinstance(says, str) else says: assert word in lines[0], lines[0]

def fingerprint(folder):
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()) for p in sorted(folder.rglob('*')) if p.is_file()}

@pytest.fixture(scope='session')
def first_run(sample_dir, tmp_path_factory):
    "A trained run, made by the command"
    out = tmp_path_factory.mktemp('runs')/'first'
    before = fingerprint(sample_dir)
    assert call('train', sample_dir, '--out', out, *TINY) == 0
    assert fingerprint(sample_dir) == before
    return out

CLASSES = ['glass', 'metal', 'paper']

quick_folds = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))

def make_table(n=20, folder='photos'):
    "The same names in every class, as cameras give them"
    return pd.DataFrame([(f'{folder}/{c}/{i}.jpg', c, True, '') for c in CLASSES for i in range(n)], columns=['path', 'label', 'ok', 'reason'])

buf = io.BytesIO()

Image.new('RGB', (4,4), 'red').save(buf, 'jpeg')

PHOTO = buf.getvalue()

def make_zip(path, entries, compress=zipfile.ZIP_STORED):
    "entries: names, or pairs of name (or ZipInfo) and bytes"
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), zipfile.ZipFile(path, 'w', compress) as z:
        warnings.simplefilter('ignore')  # of names that come twice
        for e in entries: z.writestr(*((e, PHOTO) if isinstance(e, str) else e))
    return path

def make_tar(path, entries, mode='w'):
    "entries: names, or TarInfo"
    with tarfile.open(path, mode) as t:
        for e in entries:
            m = tarfile.TarInfo(e) if isinstance(e, str) else e
            if m.isreg(): m.size = len(PHOTO)
            t.addfile(m, io.BytesIO(PHOTO) if m.isreg() else None)
    return path

def one_line(err):
    msg = str(err.value)
    assert '\n' not in msg and len(msg) < 500, msg
    return msg

def tree(folder): return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob('*') if p.is_file())

VOCAB = ['cardboard', 'glass', 'metal']

def make_preds(y, p, vocab=VOCAB, **extra):
    "A predictions table whose answers are `p` where the truth is `y`"
    y, p, k = np.asarray(y), np.asarray(p), len(vocab)
    probs = np.full((len(y), k), .4/max(k-1, 1))
    probs[np.arange(len(y)), p] = .6 if k > 1 else 1.
    t = pd.DataFrame(dict(path=[f'photos/{i:04d}.jpg' for i in range(len(y))], label=[vocab[i] for i in y], predicted=[vocab[i] for i in p],
                          confidence=probs.max(1), loss=-np.log(probs[np.arange(len(y)), y]), ok=True, reason='', **extra))
    for i,c in enumerate(vocab): t[probability_column(c)] = probs[:, i]
    t.attrs['vocab'] = list(vocab)
    return t

class Evil:
    "Unpickled, it leaves a mark"
    def __init__(self, mark): self.mark = mark
    def __reduce__(self): return Path.touch, (self.mark,)

@pytest.fixture
def evil(tmp_path):
    "A pickle that would leave the file `tmp_path/mark`"
    file = tmp_path/'evil.pth'
    torch.save(dict(model=Evil(tmp_path/'mark')), file)
    torch.load(file, weights_only=False)
    assert (tmp_path/'mark').exists()
    (tmp_path/'mark').unlink()
    yield file
    assert not (tmp_path/'mark').exists(), 'the code of a stranger ran'

@pytest.fixture(params=['drawn', 'photo'])
def im(request):
    "A drawn picture, and one of TrashNet's photos where they are at hand"
    if request.param == 'drawn': return picture()
    data = request.getfixturevalue('data_dir')/'dataset-resized.zip'
    if not data.is_file(): pytest.skip(f'real photos: no {data}')
    with zipfile.ZipFile(data) as z: return Image.open(io.BytesIO(z.read('dataset-resized/glass/glass100.jpg'))).convert('RGB')

@pytest.fixture
def odd_files(tmp_path, sample_dir):
    import pillow_heif
    pillow_heif.register_heif_opener()
    im = Image.open(sorted(sample_dir.rglob('*.jpg'))[0])
    folder = tmp_path/'odd'
    folder.mkdir()
    im.save(folder/'rgb.png')
    im.convert('CMYK').save(folder/'cmyk.jpg', quality=95)
    im.convert('P').save(folder/'palette.png')
    im.save(folder/'apple.heic', quality=95)
    Image.fromarray(np.asarray(im.convert('L')).astype(np.uint16)*257).save(folder/'bits16.png')
    im.save(folder/'a::b.png')
    im.save(folder/'gone.png')
    (folder/'broken.jpg').write_bytes(b'\xff\xd8\xff')
    table = scan_images(folder, progress=False)
    (folder/'gone.png').unlink()
    return table

@pytest.fixture(scope='module')
def table(sample_dir): return split_images(scan_images(sample_dir, progress=False), (.5,.5), seed=42)

def loaders(table, **kwargs): return build_dataloaders(table, **{**dict(size=32, bs=8, seed=42), **kwargs})

def fit(learn, *args, **kwargs):
    with learn.no_bar(), learn.no_logging(): learn.fit(*args, **kwargs)

@pytest.fixture(scope='module')
def odd_shapes(tmp_path_factory):
    "Photos in folders, upright and lying"
    folder = draw_sample(tmp_path_factory.mktemp('odd')/'photos', n=4, size=(96,72), seed=0)
    for i,f in enumerate(sorted(get_image_files(folder))):
        im = PILImage.create(f)
        im.resize((70+9*(i%5), 60+11*(i%7))).save(f)
    return folder

often = settings(max_examples=150, deadline=None)

names = st.one_of(st.text(max_size=8), st.text('aAéE\u0301 ._/\\:-2', max_size=6), st.sampled_from(['CON','con','Aux','nul.txt','COM1','LPT¹','a/b','a:b','a_b','a_b-2','..','.','','-','~']))

EPOCHS = 3

SMALL = ['--arch','test_resnet', '--weights','none', '--freeze','none', '--size','32', '--epochs',str(EPOCHS), '--bs','8', '--augment','light', '--precision','fp32']

def _child(args, log, limit):
    out = os.open(log, os.O_CREAT|os.O_WRONLY|os.O_TRUNC)
    for fd in (1,2): os.dup2(out, fd)
    sys.stdout,sys.stderr = (open(fd, 'w', buffering=1, closefd=False) for fd in (1,2))
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests in the background has it ignored
    if limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit,limit))
    main([str(a) for a in args])

def begin(log, *args, limit=None):
    "The command in a process of its own, whose imports are done; what it prints goes to `log`"
    p = multiprocessing.get_context('fork').Process(target=_child, args=(args, log, limit))
    p.start()
    return p

def end(p, code=0):
    p.join(300)
    assert p.exitcode == code, p.exitcode

def wait_for(what, p):
    while not what() and p.is_alive(): time.sleep(.01)

def kill(p):
    if p.is_alive(): os.kill(p.pid, signal.SIGKILL)
    p.join()

def epochs_in(run):
    "How many epochs are on record; the file may be looked at in the moment in which a run that goes on writes it again"
    return max(0, len((run/'history.csv').read_text().splitlines())-1) if (run/'history.csv').exists() else 0

def same(run, whole):
    "The two runs agree in every weight, prediction, figure and loss"
    a,b = (load_file(d/'model'/'model.safetensors') for d in (run, whole))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    for f in ('predictions.csv', 'metrics.json', 'splits.csv'): assert (run/f).read_bytes() == (whole/f).read_bytes(), f
    h,w = (pd.read_csv(d/'history.csv').drop(columns='time') for d in (run, whole))
    pd.testing.assert_frame_equal(h, w, check_exact=True)
    assert {p.name for p in run.iterdir()} == {p.name for p in whole.iterdir()}

@pytest.fixture(scope='module')
def whole(sample_dir, tmp_path_factory):
    "Finished runs that nothing interrupted, by number of workers, and the seconds they took"
    done = {}
    def get(workers):
        if workers not in done:
            out,start = tmp_path_factory.mktemp('whole')/'run',time.time()
            end(begin(out.parent/'log', 'train', sample_dir, '--out', out, *SMALL, '--workers', workers))
            done[workers] = out,time.time()-start
        return done[workers]
    return get

def _job(tmp_path, script, *args, stub='', **env):
    "Run a batch script with stand-ins for the cluster and for the command; what they were called with"
    bin = tmp_path/'bin'
    bin.mkdir()
    for name,body in (('scontrol', ''), ('garbage-fastai', stub)):
        (bin/name).write_text(f'#!/bin/bash\necho "{name} $*" >> {tmp_path}/calls\n{body}\n')
        (bin/name).chmod(0o755)
    env = {**os.environ, 'PATH': f"{bin}:{os.environ['PATH']}", 'SLURM_JOB_ID': '7', **env}
    return subprocess.Popen(['bash', ROOT/'slurm'/script, *args], env=env, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
