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

@pytest.fixture(autouse=True)
def seeded():
    "Each test begins with the same random state, whatever ran before"
    random.seed(42)
    if 'numpy' in sys.modules: sys.modules['numpy'].random.seed(42)
    if 'torch' in sys.modules: sys.modules['torch'].manual_seed(42)
