"""Ratios of speed against named alternatives, on this machine: `make bench`, or `python benchmarks/bench.py --help`.

Whatever is compared runs in turns in one process, and medians count, so that other work on the machine meets both sides. Only ratios mean
something elsewhere. Photos are TrashNet where GARBAGE_FASTAI_DATA or the cache has it, else drawn ones. Rows are appended to results/bench.csv.
"""
import argparse, contextlib, io, os, resource, statistics, subprocess, sys, tempfile, time, warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

warnings.filterwarnings('ignore')
from fastai.vision.all import *
from garbage_fastai.data import build_dataloaders
from garbage_fastai.datasets import get_dataset, dataset_info, local_copy
from garbage_fastai.engines import installed_engines, processor_name
from garbage_fastai.evaluate import Evaluation
from garbage_fastai.export import Predictor, export_model, versions
from garbage_fastai.features import compute_features, head_learner
from garbage_fastai.images import scan_images
from garbage_fastai.infer import low_precision, map_images, pick_format, pick_precision, torch_forward
from garbage_fastai.learner import build_learner
from garbage_fastai.predict import predict_images
from garbage_fastai.sample import draw_sample
from garbage_fastai.splits import split_images

def turns(fs, n):
    "Median seconds of each function, called in turns `n` times after once to warm up; a function may return its own seconds"
    took = {k:[] for k in fs}
    for i in range(n+1):
        for k,f in fs.items():
            start = time.perf_counter(); own = f()
            if i: took[k].append(own if isinstance(own, float) else time.perf_counter()-start)
    return {k:statistics.median(v) for k,v in took.items()}

def row(what, ours, than, a, b, unit='s'):
    "`ours` takes `a`, the alternative `than` takes `b`: how many times as fast ours is"
    return dict(what=what, ours=ours, than=than, value_ours=a, value_than=b, unit=unit, ratio=b/a)

class StepTimes(Callback):
    "Seconds of each training step, without the data; no validation"
    order = -100  # first before a batch
    def before_fit(self): self.took = []
    def before_batch(self): self.start = time.perf_counter()
    def before_validate(self): raise CancelValidException()

class StepEnd(Callback):
    order = 100   # last after a batch
    def after_batch(self):
        if torch.cuda.is_available(): torch.cuda.synchronize()
        self.step_times.took.append(time.perf_counter()-self.step_times.start)
        if len(self.step_times.took)==3: raise CancelFitException()

def fastai_dls(table, size, bs):
    "As in fastai's tutorials: photos from disk in every epoch, default workers"
    return DataBlock(blocks=(ImageBlock, CategoryBlock), get_x=ColReader('path'), get_y=ColReader('label'),
        splitter=lambda t: (L(*np.flatnonzero(t['split']=='train')), L(*np.flatnonzero(t['split']=='valid'))),
        item_tfms=Resize(size, ResizeMethod.Squish), batch_tfms=Normalize.from_stats(*imagenet_stats)).dataloaders(table, bs=bs)

@contextlib.contextmanager
def quiet(*learns):
    with contextlib.ExitStack() as s, contextlib.redirect_stdout(io.StringIO()):
        for l in learns: s.enter_context(l.no_bar()); s.enter_context(l.no_logging())
        yield

class Bench:
    def __init__(self, args):
        self.quick,self.n,self.bs,self.size = args.quick,args.turns,args.bs,tuple(args.size)
        self.work = Path(tempfile.mkdtemp())
        real = None if self.quick else local_copy(dataset_info('trashnet'))
        self.folder = get_dataset('trashnet') if real else draw_sample(self.work/'sample', **(dict(n=8, size=(96,72)) if self.quick else {}))
        table = scan_images(self.folder, progress=False)
        if args.photos: table = table.sample(min(args.photos, len(table)), random_state=0)
        self.table = split_images(table.sort_values('path').reset_index(drop=True), (.5,.25,.25), seed=42)
        self.data = ('TrashNet' if real else 'drawn') + f', {len(self.table)} photos, {self.size[0]}x{self.size[1]}'
        self.archs = ['resnet18' if self.quick else 'resnet34', 'tf_efficientnet_lite0']

    def learners(self, arch, cache='ram'):
        "(ours, fastai's default)"
        dls = build_dataloaders(self.table, size=self.size, bs=self.bs, augment='none', cache=cache, seed=42)
        ours = build_learner(dls, arch, weights='none', freeze='none')
        theirs = vision_learner(fastai_dls(self.table, self.size, self.bs), arch, pretrained=False, metrics=accuracy)
        theirs.unfreeze()
        return ours,theirs

    def train_step(self):
        for arch in self.archs:
            ours,theirs = self.learners(arch)
            x,y = (o.as_subclass(Tensor) for o in ours.dls.one_batch())
            precision,device = pick_precision('auto', x.device),x.device
            fmt = pick_format(precision, device)
            bare = build_learner(ours.dls, arch, weights='none', freeze='none').model
            for m in bare.modules():  # without our fast backward pass
                if type(m).__name__.startswith('DepthwiseConv2d'): m.__class__ = type(m).__mro__[1]
            bare = bare.to(device, memory_format=fmt).train()
            opt = torch.optim.AdamW(bare.parameters(), 1e-4)
            def bare_step():
                start = time.perf_counter()
                with low_precision(precision, device): loss = F.cross_entropy(bare(x.contiguous(memory_format=fmt)).float(), y)
                loss.backward(); opt.step(); opt.zero_grad()
                if torch.cuda.is_available(): torch.cuda.synchronize()
                return time.perf_counter()-start
            def fit(learn):
                times = StepTimes()
                with quiet(learn): learn.fit(3, 1e-4, cbs=[times,StepEnd()])
                return statistics.median(times.took)
            t = turns(dict(ours=lambda: fit(ours), fastai=lambda: fit(theirs), bare=lambda: statistics.median(bare_step() for _ in range(3))), self.n)
            yield row(f'train step {arch}', 'build_learner', "fastai's default", t['ours'], t['fastai'])
            yield row(f'train step {arch}', 'build_learner', f'bare loop in {precision}, same layout', t['ours'], t['bare'])

    def predict(self):
        ours,theirs = self.learners(self.archs[1], cache=None)
        folder,paths = export_model(ours, self.work/'model'),self.table['path'].tolist()
        few = paths[:4 if self.quick else 8]
        dls = theirs.dls
        pixels = self._pixels(paths[:2*64])
        auto = Predictor(folder, engine='auto')
        batches = [np.stack(pixels[i:i+64]) for i in range(0, len(pixels), 64)]
        engines = dict(torch=Predictor(folder).forward, **{auto.engine:auto.forward})
        def get_preds():
            with quiet(theirs): theirs.get_preds(dl=dls.test_dl(self.table))
        def one_by_one():
            with quiet(theirs): [theirs.predict(p) for p in few]
        decode = lambda: map_images(lambda x: x[:,0,0].astype(np.float32), paths, self.size, progress=False)
        fs = dict(ours=lambda: predict_images(ours, self.table, progress=False), auto=lambda: auto.predict(self.table, progress=False),
                  get_preds=get_preds, one_by_one=one_by_one, decode=decode)
        fs |= {f'net {k}': (lambda f=f: [f(b) for b in batches]) for k,f in engines.items()}
        t = turns(fs, self.n)
        net = {k: t[f'net {k}']*len(paths)/len(pixels) for k in engines}
        yield row('predict a folder', 'predict_images', "fastai's get_preds, default", t['ours'], t['get_preds'])
        yield row('predict a folder', f'Predictor, auto={auto.engine}', "fastai's get_preds, default", t['auto'], t['get_preds'])
        yield row('predict a folder', f'Predictor, auto={auto.engine}', 'learn.predict in a loop', t['auto'], t['one_by_one']*len(paths)/len(few))
        yield row('predict a folder', 'predict_images', 'limit: network and decoding alone', t['ours'], net['torch']+t['decode'])
        yield row('predict a folder', f'Predictor, auto={auto.engine}', 'limit: network and decoding alone', t['auto'], net[auto.engine]+t['decode'])
        yield row('network alone', auto.engine, 'torch', net[auto.engine], net['torch'])
        if pick_precision('auto','cpu')=='bf16':
            def autocast():
                with low_precision('bf16','cpu'): get_preds()
            t = turns(dict(auto=fs['auto'], autocast=autocast), self.n)
            yield row('predict a folder', f'Predictor, auto={auto.engine}', 'get_preds under bf16 autocast', t['auto'], t['autocast'])

    def _pixels(self, paths):
        kept = {}
        map_images(lambda x: x[:,0,0].astype(np.float32), paths, self.size, progress=False, cache=kept)
        return list(kept.values())

    def evaluate(self):
        ours,_ = self.learners(self.archs[1], cache=None)
        test = self.table.query("split!='train'")
        dl = ours.dls.test_dl(test, with_labels=True)
        def one_pass():
            ev = Evaluation(predict_images(ours, test, progress=False))
            return ev.confusion_matrix, ev.most_confused(), ev.classification_report()
        def interpretation():
            with quiet(ours):
                i = ClassificationInterpretation.from_learner(ours, dl=dl)
                i.confusion_matrix(); i.most_confused(); i.print_classification_report()
        t = turns(dict(ours=one_pass, fastai=interpretation), self.n)
        yield row('three questions', 'Evaluation', 'ClassificationInterpretation, same Learner', t['ours'], t['fastai'])

    def frozen(self):
        ours,theirs = self.learners(self.archs[1])
        ours.freeze(); theirs.freeze()
        start = time.perf_counter()
        head = head_learner(ours, compute_features(ours, progress=False))
        once = time.perf_counter()-start
        def epoch(learn):
            with quiet(learn): learn.fit(1, 1e-4)
        t = turns(dict(ours=lambda: epoch(head), fastai=lambda: epoch(theirs)), self.n)
        yield row('second frozen epoch', 'head on computed features', "fastai's frozen epoch", t['ours'], t['fastai'])
        yield row('first frozen epoch', 'computing the features too', "fastai's frozen epoch", once+t['ours'], t['fastai'])

    def scan(self):
        paths = self.table['path'].tolist()
        def bare():
            with ThreadPoolExecutor(num_cpus()) as ex: list(ex.map(lambda p: Image.open(p).convert('RGB'), paths))
        t = turns(dict(ours=lambda: scan_images(paths, progress=False), bare=bare), self.n)
        yield row('scan', 'scan_images', 'decoding only, a thread a core', t['ours'], t['bare'])

    def start_up(self):
        def python(code): return lambda: subprocess.run([sys.executable, '-c', code], capture_output=True, check=True)
        t = turns(dict(ours=python("from garbage_fastai.cli import main; main(['--help'])"), bare=python('pass'),
                       fastai=python('import fastai.vision.all')), self.n)
        yield row('start-up', 'garbage-fastai --help', 'python alone', t['ours'], t['bare'])
        yield row('start-up', 'garbage-fastai --help', 'importing fastai.vision.all', t['ours'], t['fastai'])

    def memory(self):
        few,many = (200,2000) if self.quick else (1000,20000)
        def mb(n):
            cmd = [sys.executable, __file__, '--peak', str(n), '--folder', str(self.folder)]
            return int(subprocess.run(cmd, capture_output=True, text=True, check=True).stdout)/2**20
        yield row('peak memory', f'predicting {many} photos', f'predicting {few} photos', mb(many), mb(few), 'MB')

def peak(n, folder):
    "Peak memory in bytes of a process that predicts `n` photos with a very small network, so that it ends today"
    net = nn.Sequential(nn.Conv2d(3,8,3,2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8,6))
    paths = get_image_files(folder).sorted()
    map_images(torch_forward(net, [.5]*3, [.25]*3, 'fp32'), [str(paths[i%len(paths)]) for i in range(n)], (64,64), progress=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*(1 if sys.platform=='darwin' else 1024)

PARTS = 'train_step predict evaluate frozen scan start_up memory'.split()

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--quick', action='store_true', help='a small try on drawn photos, to see that everything runs')
    p.add_argument('--only', nargs='+', choices=PARTS, default=PARTS)
    p.add_argument('--size', nargs=2, type=int, metavar=('HEIGHT','WIDTH'))
    p.add_argument('--bs', type=int, help='photos a training batch')
    p.add_argument('--photos', type=int, default=0, help='use no more than so many')
    p.add_argument('--turns', type=int, help='times that each is measured')
    p.add_argument('--threads', type=int, help="PyTorch's threads")
    p.add_argument('--out', type=Path, help='CSV file to append to; results/bench.csv, with --quick none')
    p.add_argument('--peak', type=int, help=argparse.SUPPRESS)
    p.add_argument('--folder', help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.peak: return print(peak(args.peak, args.folder))
    size,bs,n = ([64,64],8,1) if args.quick else ([192,256],32,5)
    args.size,args.bs,args.turns = args.size or size,args.bs or bs,args.turns or n
    if args.threads: torch.set_num_threads(args.threads)
    if not args.quick and not args.out: args.out = Path(__file__).parent/'results'/'bench.csv'
    bench = Bench(args)
    about = dict(date=time.strftime('%Y-%m-%d'), processor=processor_name(), cpus=num_cpus(), threads=torch.get_num_threads(),
                 gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else '', load=round(os.getloadavg()[0], 1),
                 precision=pick_precision('auto', default_device()), data=bench.data, bs=args.bs, turns=args.turns, quick=args.quick)
    packages = ' '.join(f'{k}={v}' for k,v in {**versions(), **installed_engines()}.items())
    rows = []
    for part in args.only:
        for r in getattr(bench, part)():
            rows.append(r)
            print(f"{r['ratio']:8.2f}  {r['what']}: {r['ours']}, against {r['than']}", flush=True)
    table = pd.DataFrame(rows)
    print('\n', about, '\n', packages, '\n', table.round(3).to_string(index=False), sep='')
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        table.assign(**about, versions=packages).to_csv(args.out, mode='a', header=not args.out.exists(), index=False)

if __name__=='__main__': main()
