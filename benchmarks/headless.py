"""The same recipe as a command, as a headless notebook that calls the library, and as one that is run by Jupyter's own tool

python benchmarks/headless.py trashnet --turns 3 --size 64 --epochs 3
"""
import argparse, statistics, subprocess, sys, tempfile, time
from pathlib import Path
import nbformat as nbf

BIN = Path(sys.executable).parent
CELLS = ['import time; begin = time.time()\nfrom garbage_fastai.all import *\nprint("import", time.time()-begin)',
         'begin = time.time()\nrun = train_run({data!r}, {out!r}, size={size}, epochs={epochs}, seed={seed})\nprint("train_run", time.time()-begin)',
         'begin = time.time()\nprint(open(run/"metrics.json").read())']

def notebook(path, **kwargs):
    nb = nbf.v4.new_notebook(cells=[nbf.v4.new_code_cell(c.format(**kwargs) if '{data' in c else c) for c in CELLS])
    nbf.write(nb, path)

def seconds(cmd, log):
    start = time.time()
    with open(log, 'w') as f: subprocess.run(cmd, check=True, stdout=f, stderr=subprocess.STDOUT)
    return time.time()-start

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data'); p.add_argument('--turns', type=int, default=3); p.add_argument('--size', type=int, default=64)
    p.add_argument('--epochs', type=int, default=3); p.add_argument('--seed', type=int, default=42)
    a = p.parse_args()
    took,inside = {},{}
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        for turn in range(a.turns):
            for name in ('command','notebook, exec_nb','notebook, jupyter'):
                out = d/f'{name[:8]}-{name[-3:]}-{turn}'
                notebook(d/'in.ipynb', data=a.data, out=str(out), size=a.size, epochs=a.epochs, seed=a.seed)
                cmd = {'command': [BIN/'garbage-fastai','train',a.data,'--out',out,'--size',str(a.size),'--epochs',str(a.epochs),'--seed',str(a.seed)],
                       'notebook, exec_nb': [BIN/'exec_nb',d/'in.ipynb','--dest',d/'out.ipynb','--exc-stop'],
                       'notebook, jupyter': [BIN/'jupyter','nbconvert','--to','notebook','--execute',d/'in.ipynb','--output',d/'out.ipynb']}[name]
                took.setdefault(name, []).append(seconds(cmd, d/'log'))
                same = (out/'predictions.csv').read_bytes()
                inside.setdefault('predictions', same)
                print(f"turn {turn+1}  {name:18} {took[name][-1]:6.1f} s  {'same' if same==inside['predictions'] else 'other'} predictions", flush=True)
    base = statistics.median(took['command'])
    for name,t in took.items(): print(f'{name:18} median {statistics.median(t):6.1f} s, {statistics.median(t)/base:.2f} of the command')

if __name__=='__main__': main()
