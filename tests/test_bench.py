"`make bench`: rows come with a finite ratio, the machine and the versions. How fast it is depends on the machine and is not tested."
import csv, math, subprocess, sys

from conftest import ROOT

def bench(*args): return subprocess.run([sys.executable, ROOT/'benchmarks/bench.py', '--tiny', *map(str, args)], capture_output=True, text=True, cwd=ROOT)

def test_rows_by_name(tmp_path):
    out = tmp_path/'results'/'b.csv'
    res = bench('train_efficientnet', 'evaluate', '--out', out)
    assert res.returncode == 0, res.stderr[-3000:]
    with out.open(newline='', encoding='utf-8') as f: rows = list(csv.DictReader(f))
    assert [r['row'] for r in rows] == ['train_efficientnet', 'train_efficientnet', 'evaluate']
    assert rows[0]['against'] == "fastai's default" and rows[1]['against'].startswith('bare PyTorch loop, ')
    for r in rows:
        a,b,ratio = (float(r[k]) for k in ('value_ours','value_against','ratio'))
        assert math.isclose(ratio, b/a, rel_tol=.01) and a > 0, r  # one turn: the ratio is that of the seconds
        assert all(r[k] for k in ('processor','threads','precision','size','date')) and 'torch=' in r['versions'], r
        assert r['against'] in res.stdout

def test_unknown_row_is_said():
    res = bench('predcit')
    assert res.returncode == 2 and 'predcit' in res.stderr and 'predict_224' in res.stderr
