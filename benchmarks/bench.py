"""How fast this library is against fastai and bare PyTorch on this machine: one row a pair.

    python benchmarks/bench.py                        all rows but headless and time_to_accuracy
    python benchmarks/bench.py predict scan           these rows alone
    python benchmarks/bench.py --photos 2527 predict  with all of TrashNet, which takes ten times as long
    python benchmarks/bench.py --tiny                 drawn photos and small sizes: does it run at all?

Whatever is compared takes turns in one process, in another order each turn, so that other work on the machine meets all sides alike. The median over
the turns counts: of the seconds, and of each turn's ratio. A ratio of 2 means that ours takes half the time. Photos are TrashNet where
GARBAGE_FASTAI_DATA names the folder of its archive, else drawn ones. Rows are appended to results/bench.csv with the machine and the versions.
"""
import argparse, contextlib, csv, io, os, statistics, subprocess, sys, tempfile, time, warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

warnings.filterwarnings('ignore')
from fastai.vision.all import *
from garbage_fastai.data import build_dataloaders
from garbage_fastai.datasets import get_dataset, dataset_info, local_copy
from garbage_fastai.models import PACKAGED, packaged_weights
from garbage_fastai.engines import installed_engines
from garbage_fastai.runs import processor_name
from garbage_fastai.evaluate import Evaluation
from garbage_fastai.export import Predictor, export_model
from garbage_fastai.runs import versions
from garbage_fastai.learner import compute_features, head_learner
from garbage_fastai.scan import scan_images
from garbage_fastai.infer import low_precision, map_images, pick_format, pick_precision
from garbage_fastai.learner import build_learner
from garbage_fastai.predict import predict_images
from garbage_fastai.train import fit_recipe, full_recipe
from garbage_fastai.sample import draw_sample
from garbage_fastai.splits import split_images

def turns(fs, n, warm=True):
    "Seconds a unit of each function in each of `n` turns, after a short call to warm up; `f(short)` returns how many units it did"
    took,names = {k:[] for k in fs},list(fs)
    if warm: [f(True) for f in fs.values()]
    for i in range(n):
        for k in names[i%len(names):] + names[:i%len(names)]:
            start = time.perf_counter()
            units = fs[k](False)
            took[k].append((time.perf_counter()-start)/units)
    return took

def pair(ours, against, a, b, unit='s'):
    "One row: lists of what `ours` and what `against` took in each turn. The ratio is how many times as fast ours is; of anything but seconds, how many times as much"
    r = [y/x if unit in ('s','s a photo') else x/max(y, 1e-9) for x,y in zip(a, b)]
    return dict(ours=ours, against=against, value_ours=statistics.median(a), value_against=statistics.median(b), unit=unit,
                ratio=statistics.median(r), low=min(r), high=max(r), turns=len(r))

@contextlib.contextmanager
def quiet(*learns):
    with contextlib.ExitStack() as s, contextlib.redirect_stdout(io.StringIO()):
        for l in learns: s.enter_context(l.no_bar()); s.enter_context(l.no_logging())
        yield

class NoValid(Callback):
    def before_validate(self): raise CancelValidException()

def fastai_learner(table, size, bs, arch, **kwargs):
    "As in fastai's tutorials: photos from disk, its default workers and precision"
    dls = DataBlock(blocks=(ImageBlock, CategoryBlock), get_x=ColReader('path'), get_y=ColReader('label'),
        splitter=lambda t: (L(*np.flatnonzero(t['split']=='train')), L(*np.flatnonzero(t['split']=='valid'))),
        item_tfms=Resize(size, ResizeMethod.Squish)).dataloaders(table, bs=bs)
    return vision_learner(dls, arch, metrics=accuracy, **{'pretrained':False, **kwargs})

class Bench:
    "The photos, and what all rows share"
    def __init__(self, photos, turns, size, bs, epochs, tiny, work):
        self.n,self.size,self.bs,self.epochs,self.tiny,self.work = turns,size,bs,epochs,tiny,work
        real = None if tiny else local_copy(dataset_info('trashnet'))
        self.folder = get_dataset('trashnet', progress=False) if real else draw_sample(work/'sample', **(dict(n=8, size=(96,72)) if tiny else {}))
        self.data,self.photos = 'TrashNet' if real else 'drawn',photos
        self.device = default_device()
        self.precision = pick_precision('auto', self.device)

    def table(self, n):
        "`n` photos, or as many as --photos asks for, split by half, quarter and quarter"
        paths = get_image_files(self.folder).sorted().map(str)
        n = len(paths) if self.tiny else min(self.photos or n, len(paths))
        t = pd.DataFrame(dict(path=paths)).sample(n, random_state=0).sort_values('path', ignore_index=True)
        t['label'] = [Path(p).parent.name for p in t['path']]
        return split_images(t, (.5,.25,.25), seed=42, groups=None)

    def learner(self, table, size=None, arch=PACKAGED, weights='none', freeze='none', cache='ram'):
        with contextlib.redirect_stdout(io.StringIO()):
            return build_learner(build_dataloaders(table, size or self.size, self.bs, 'none', cache=cache, seed=42), arch, weights, freeze)

    def train_step(self, arch):
        "Steps on batches that are in memory: forward, loss, backward and optimizer; random weights, all of them trained"
        table,steps = self.table(100),1 if self.tiny else 2 if self.device.type=='cpu' else 20
        ours,theirs = self.learner(table, arch=arch, cache='disk'),fastai_learner(table, self.size, self.bs, arch)
        theirs.unfreeze()
        net,fmt = fastai_learner(table, self.size, self.bs, arch).model,pick_format(self.precision, self.device)
        x,y = torch.randn(self.bs, 3, *self.size),torch.randint(len(ours.dls.vocab), (self.bs,))
        x,y = x.to(self.device),y.to(self.device)
        def dls(n): return DataLoaders(*[DataLoader([(x,y)]*n, bs=None, num_workers=0, device=self.device)]*2, device=self.device)
        full,short = dls(steps),dls(1)
        def fit(learn, is_short):
            learn.dls = short if is_short else full
            with quiet(learn): learn.fit(1, 1e-4, cbs=NoValid())
            return len(learn.dls.train)
        net = net.to(self.device, memory_format=fmt).train()
        opt,scaler = torch.optim.AdamW(net.parameters(), 1e-4),torch.amp.GradScaler(self.device.type, enabled=self.precision=='fp16')
        loss_func = nn.CrossEntropyLoss(label_smoothing=.1)
        def bare(is_short):
            dl = (short if is_short else full).train
            for xb,yb in dl:
                with low_precision(self.precision, self.device): loss = loss_func(net(xb.contiguous(memory_format=fmt)), yb)
                scaler.scale(loss).backward(); scaler.step(opt); scaler.update(); opt.zero_grad()
            loss.item()
            return len(dl)
        t = turns(dict(ours=partial(fit, ours), fastai=partial(fit, theirs), bare=bare), self.n)
        yield pair('build_learner', "fastai's default", t['ours'], t['fastai'])
        yield pair('build_learner', f'bare PyTorch loop, {self.precision}, {str(fmt)[6:]}', t['ours'], t['bare'])

    def predict(self, size):
        "From files to a table of predictions; random weights. The limit is the fastest network alone and decoding alone, one after the other"
        table = self.table(256)
        ours,theirs = self.learner(table, size, cache='disk'),fastai_learner(table, size, self.bs, PACKAGED)
        folder = export_model(ours, self.work/f'model-{size[0]}')
        torch_,auto = Predictor(folder),Predictor(folder, engine='auto')
        pixels,engines = np.random.default_rng(0).integers(0, 256, (64,*size,3), dtype=np.uint8),{'torch':torch_}
        engines[auto.engine] = auto
        def part(short): return table[:16] if short else table
        def predict(f, short): f(part(short), progress=False); return len(part(short))
        def get_preds(short):
            with quiet(theirs): theirs.get_preds(dl=theirs.dls.test_dl(part(short)))
            return len(part(short))
        def autocast(short):
            with low_precision(self.precision, self.device): return get_preds(short)
        def one_by_one(short):
            few = part(short)['path'][:1 if short else 8]
            with quiet(theirs): [theirs.predict(p) for p in few]
            return len(few)
        def network(p, short):
            n = 16 if short else min(128, len(table))
            for i in range(0, n, 64): p.forward(pixels[:n-i])
            return n
        def decode(short):
            map_images(lambda x: x[:,0,0].astype(np.float32), part(short)['path'].tolist(), size, progress=False)
            return len(part(short))
        fs = dict(ours=partial(predict, partial(predict_images, ours)), auto=partial(predict, auto.predict), get_preds=get_preds, one_by_one=one_by_one, decode=decode)
        if auto.engine=='torch': fs.pop('auto')
        if self.precision!='fp32': fs['autocast'] = autocast
        t = turns(fs | {f'net {k}':partial(network, p) for k,p in engines.items()}, self.n)
        best = min(engines, key=lambda k: statistics.median(t[f'net {k}']))
        limit = [a+b for a,b in zip(t[f'net {best}'], t['decode'])]
        for k,name,e in ('auto',"Predictor with engine='auto'",auto.engine),('ours','predict_images','torch'):
            if k not in t: continue
            against = {"fastai's get_preds, default":t['get_preds'], 'learn.predict in a loop':t['one_by_one'], f'limit: {best} alone, then decoding alone':limit,
                       f'network alone, {e}':t[f'net {e}'], 'decoding alone':t['decode']}
            if 'autocast' in t: against[f"fastai's get_preds, {self.precision} autocast"] = t['autocast']
            for other,took in against.items(): yield pair(f'{name}, {e}', other, t[k], took, 's a photo')

    def evaluate(self):
        "Confusion matrix, most confused and report; the same Learner in the same precision answers both"
        table = self.table(128)
        learn = self.learner(table, cache='disk')
        def one_pass(short):
            part = table[:16] if short else table
            ev = Evaluation(predict_images(learn, part, progress=False))
            with quiet(): ev.confusion_matrix(), ev.most_confused(), ev.print_classification_report()
            return len(part)
        def interpretation(short):
            part = table[:16] if short else table
            with quiet(learn):
                i = ClassificationInterpretation.from_learner(learn, dl=learn.dls.test_dl(part, with_labels=True))
                i.confusion_matrix(), i.most_confused(), i.print_classification_report()
            return len(part)
        t = turns(dict(ours=one_pass, fastai=interpretation), self.n)
        yield pair('Evaluation', 'ClassificationInterpretation', t['ours'], t['fastai'], 's a photo')

    def frozen(self):
        "Epochs of the head on pretrained weights, validation included; and the test accuracy after as many epochs of both"
        table = self.table(600)
        ours = self.learner(table, weights='packaged', freeze='body')
        theirs = fastai_learner(table, self.size, self.bs, PACKAGED, pretrained=True,
                                pretrained_cfg_overlay=dict(state_dict=packaged_weights(), mean=(.5,)*3, std=(.5,)*3))
        start = time.perf_counter()
        head = head_learner(ours, compute_features(ours, progress=False), bs=self.bs)
        once = time.perf_counter()-start
        def epoch(learn, short):
            with quiet(learn): learn.fit(1, 3e-3)
            return 1
        n = 1 if self.tiny else 2
        t = [turns(dict(ours=partial(epoch, head), fastai=partial(epoch, theirs)), 1, warm=False) for _ in range(n)]
        a,b = ([o[k][0] for o in t] for k in ('ours','fastai'))
        yield pair('first frozen epoch, computing the features too', "fastai's first frozen epoch", [once+a[0]], b[:1])
        yield pair('second frozen epoch, on the features', "fastai's second frozen epoch", a[-1:], b[-1:])
        test = table[table['split']=='test']
        mine = (lambda p: (p['predicted']==p['label']).mean())(predict_images(ours, test, progress=False))
        with quiet(theirs): probs,_ = theirs.get_preds(dl=theirs.dls.test_dl(test))
        other = (np.array(theirs.dls.vocab)[probs.argmax(1)]==test['label']).mean()
        se = math.sqrt(other*(1-other)/len(test))
        yield pair(f'test accuracy after {n} epochs', "fastai's", [mine], [other], f'share of {len(test)}, standard error {se:.3f}')

    def scan(self):
        "All that `scan_images` tells of a photo, against opening it"
        table = self.table(1000)
        def part(short): return table['path'][:16 if short else None].tolist()
        def ours(short): return len(scan_images(part(short), progress=False))
        def bare(short):
            with ThreadPoolExecutor(num_cpus()) as ex: return len(list(ex.map(lambda p: Image.open(p).convert('RGB') and 1, part(short))))
        t = turns(dict(ours=ours, bare=bare), self.n)
        yield pair('scan_images', 'decoding alone, a thread a core', t['ours'], t['bare'], 's a photo')

    def start_up(self):
        "New processes"
        def python(code): return lambda short: subprocess.run([sys.executable, '-c', code], capture_output=True, check=True) and 1
        t = turns({'--help':python("from garbage_fastai.cli import main; main(['--help'])"), 'python alone':python('pass'),
                   'import fastai.vision.all':python('import fastai.vision.all'), 'all':python('import garbage_fastai.all')}, self.n)
        for k in ('python alone','import fastai.vision.all'): yield pair('garbage-fastai --help', k, t['--help'], t[k])
        yield pair('import garbage_fastai.all', 'import fastai.vision.all', t['all'], t['import fastai.vision.all'])

    def memory(self):
        "Peak memory of processes that predict many and few photos, with a small network so that they end soon"
        few,many = (30,300) if self.tiny else (1000,20000)
        model = export_model(self.learner(self.table(100), (32,32), 'resnet10t', cache='disk'), self.work/'small')
        paths,links = get_image_files(self.folder).sorted(),self.work/'links'
        links.mkdir()
        for i in range(many): (links/f'{i}.jpg').symlink_to(paths[i%len(paths)])
        # of Linux's two answers only VmHWM forgets the process that started this one
        code = ('import re, resource, sys; from pathlib import Path; from garbage_fastai.export import Predictor; from garbage_fastai.images import find_images\n'
                'files = [f for f,_ in find_images(sys.argv[2])[:int(sys.argv[3])]]\n'
                'assert len(Predictor(sys.argv[1], device="cpu").predict(files, progress=False))==int(sys.argv[3])\n'
                'status = Path("/proc/self/status")\n'
                'print(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1] if status.exists() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)')
        def mb(n):  # kilobytes on Linux, bytes on macOS
            out = subprocess.run([sys.executable, '-c', code, model, links, str(n)], capture_output=True, text=True, check=True).stdout
            return int(out.split()[-1])/(2**20 if sys.platform=='darwin' else 2**10)
        a,b = mb(many),mb(few)
        yield pair(f'predicting {many} photos', f'predicting {few} photos', [a], [b], 'MB at the peak')

    def time_to_accuracy(self, goal=.921):
        "From the folder to a network: seconds until an epoch ends with `goal` of the test photos right, without the time of looking"
        seen,start,r = [],time.perf_counter(),full_recipe(epochs=1 if self.tiny else self.epochs)
        table = split_images(scan_images(self.folder, progress=False), (.5,.25,.25), seed=42)
        test = table[table['split']=='test']
        with contextlib.redirect_stdout(io.StringIO()):
            dls = build_dataloaders(table, r['size'], r['bs'], r['augment'], train_size=r['train_size'], seed=42)
            learn = build_learner(dls, freeze=r['freeze'])
        class Watch(Callback):
            order,looked = 80,0.  # after all that an epoch brings
            def after_epoch(self):
                now = time.perf_counter()
                p = predict_images(learn, test, progress=False)
                seen.append((now-start-self.looked, (p['predicted']==p['label']).mean()))
                self.looked += time.perf_counter()-now
        with quiet(learn): fit_recipe(learn, r, cbs=Watch())
        took,acc = next((o for o in seen if o[1]>=goal), seen[-1])
        how = f'{acc:.4f} of {len(test)} test photos right after {seen.index((took,acc))+1} of {len(seen)} epochs'
        yield pair(how + f', in {took:.0f} s', f'the aim: {goal} in 5 minutes', [took if acc>=goal else math.inf], [300.])

    def headless(self):
        "The same recipe as a command, and as a notebook without a browser; with a third of the pixels each way, since only what stands around training differs"
        import nbformat
        bin,size,n = Path(sys.executable).parent,32 if self.tiny else 64,1 if self.tiny else 2
        def run(*cmd): subprocess.run([str(o) for o in cmd], check=True, capture_output=True)
        def new(): return Path(tempfile.mkdtemp(dir=self.work))/'run'
        def notebook():
            out = new()
            code = f"from garbage_fastai.all import *\ntrain_run({str(self.folder)!r}, {str(out)!r}, size={size}, epochs={n})"
            nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in code.splitlines()]), out.parent/'in.ipynb')
            return out,out.parent/'in.ipynb'
        said = {}
        def command(short):
            if short: return 1
            out = new()
            run(bin/'garbage-fastai', 'train', self.folder, '--out', out, '--size', size, '--epochs', n)
            said.setdefault('command', (out/'predictions.csv').read_bytes())
            return 1
        def executed(*cmd):
            def f(short):
                if short: return 1
                out,nb = notebook()
                run(*[{'IN':nb, 'OUT':nb.with_name('out.ipynb')}.get(o, o) for o in cmd])
                assert (out/'predictions.csv').read_bytes()==said['command'], 'the notebook predicts something else than the command'
                return 1
            return f
        command(False)  # also fills the cache of files
        t = turns({'command':command, 'exec_nb':executed(bin/'exec_nb', 'IN', '--dest', 'OUT', '--exc-stop'),
                   'jupyter nbconvert':executed(bin/'jupyter', 'nbconvert', '--to', 'notebook', '--execute', 'IN', '--output', 'OUT')}, self.n)
        for k in ('exec_nb','jupyter nbconvert'): yield pair(f'garbage-fastai train --size {size} --epochs {n}', f'a notebook by {k}', t['command'], t[k])

ROWS = dict(train_resnet34=partial(Bench.train_step, arch='resnet34'), train_efficientnet=partial(Bench.train_step, arch=PACKAGED),
            predict=lambda b: b.predict(b.size), predict_224=lambda b: b.predict((48,48) if b.tiny else (224,224)), evaluate=Bench.evaluate,
            frozen=Bench.frozen, scan=Bench.scan, start_up=Bench.start_up, memory=Bench.memory, headless=Bench.headless, time_to_accuracy=Bench.time_to_accuracy)
LONG = 'headless','time_to_accuracy'

def amount(x, unit):
    "For reading"
    if unit not in ('s','s a photo'): return f'{x:.4g}'
    return f'{x*1000:.1f} ms' if x<1 else f'{x:.2f} s'

def append(file, row):
    "One row more in a CSV file"
    file.parent.mkdir(parents=True, exist_ok=True)
    new = not file.exists()
    with file.open('a', newline='', encoding='utf-8') as f:
        w = csv.DictWriter(f, list(row))
        if new: w.writeheader()
        w.writerow({k: f'{v:.4g}' if isinstance(v, float) else v for k,v in row.items()})

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('rows', nargs='*', metavar='ROW', help=', '.join(ROWS) + f". All but {', '.join(LONG)} where none is named")
    p.add_argument('--photos', type=int, help='photos a row, instead of each row\'s own number')
    p.add_argument('--turns', type=int, help='how often each is measured')
    p.add_argument('--size', nargs=2, type=int, metavar=('HEIGHT','WIDTH'), help='192 256 unless told')
    p.add_argument('--bs', type=int, help='photos a training batch: 32 unless told')
    p.add_argument('--epochs', type=int, default=6, help='for time_to_accuracy')
    p.add_argument('--threads', type=int, help="PyTorch's threads")
    p.add_argument('--out', type=Path, help='CSV file to append to: results/bench.csv unless told, with --tiny none')
    p.add_argument('--tiny', action='store_true', help='a small try on drawn photos, to see that everything runs')
    a = p.parse_args()
    unknown = set(a.rows) - set(ROWS)
    if unknown: p.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    if a.threads: torch.set_num_threads(a.threads)
    out = a.out or (None if a.tiny else Path(__file__).parent/'results'/'bench.csv')
    with tempfile.TemporaryDirectory() as work:
        if a.tiny: os.environ['GARBAGE_FASTAI_CACHE'] = f'{work}/cache'
        b = Bench(a.photos, a.turns or (1 if a.tiny else 3), tuple(a.size or ((32,32) if a.tiny else (192,256))),
                  a.bs or (4 if a.tiny else 32), a.epochs, a.tiny, Path(work))
        engines = {{'onnx':'onnxruntime'}.get(k, k):v for k,v in installed_engines().items()}
        packages = ' '.join(f'{k}={v}' for k,v in {**versions(), **engines}.items())
        about = dict(date=time.strftime('%Y-%m-%d'), processor=processor_name(), cpus=num_cpus(), threads=torch.get_num_threads(),
                     gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else '', precision=b.precision, data=b.data, photos=a.photos or '',
                     size='x'.join(map(str, b.size)), bs=b.bs, versions=packages)
        print(', '.join(f'{k} {v}' for k,v in about.items() if v!=''))
        print('ratio (lowest to highest turn)', flush=True)
        for name in a.rows or [r for r in ROWS if r not in LONG]:
            start = time.perf_counter()
            for r in ROWS[name](b):
                print(f"{r['ratio']:7.2f} ({r['low']:.2f} to {r['high']:.2f})  {name}: {r['ours']} {amount(r['value_ours'], r['unit'])}, "
                      f"{r['against']} {amount(r['value_against'], r['unit'])}" + f" ({r['unit']})"*(r['unit']!='s'), flush=True)
                if out: append(out, dict(row=name, **r, load=round(os.getloadavg()[0], 1), **about))
            print(f'        {name} took {time.perf_counter()-start:.0f} s', flush=True)

if __name__=='__main__': main()
