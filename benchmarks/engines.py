"""One trained model by each engine: what it gets right, how far it is from PyTorch, how large its file is, how fast it answers.

    python benchmarks/engines.py runs/first            on the test photos of that run
"""
import argparse, statistics, tempfile, time
from pathlib import Path

import numpy as np, pandas as pd
from garbage_fastai.engines import installed_engines
from garbage_fastai.runs import processor_name
from garbage_fastai.evaluate import Evaluation
from garbage_fastai.export import Predictor, export_onnx
from garbage_fastai.predictions import class_columns, read_predictions

def compare(run, turns=3):
    "A row an engine; the turns of all engines are interleaved, decoded photos are kept, so that the network alone is timed"
    rows = read_predictions(run/'predictions.csv').query("split=='test'")[['path','label','split']]
    models,cache,took,preds = {e:Predictor(run/'model', engine=e) for e in installed_engines()},{},{},{}
    for i in range(turns+1):  # the first turn fills the cache and warms up
        for e,p in models.items():
            start = time.perf_counter()
            preds[e] = p.predict(rows, cache=cache, progress=False)
            if i: took.setdefault(e, []).append(time.perf_counter()-start)
    size = {'torch': (run/'model'/'model.safetensors').stat().st_size}
    with tempfile.TemporaryDirectory() as tmp: onnx = export_onnx(run/'model', Path(tmp)/'model.onnx').stat().st_size
    names = class_columns(preds['torch'])
    for e in models:
        ev = Evaluation(preds[e])
        yield dict(engine=e, accuracy=ev.accuracy, lo=ev.accuracy_ci95[0], hi=ev.accuracy_ci95[1], photos=ev.n,
                   same_class=(preds[e]['predicted'].array==preds['torch']['predicted'].array).mean(),
                   greatest_difference=np.abs(preds[e][names].to_numpy()-preds['torch'][names].to_numpy()).max(),
                   megabytes=size.get(e, onnx)/1e6, photos_a_second=len(rows)/statistics.median(took[e]))

if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('run', type=Path, help='a folder that `garbage-fastai train` made')
    run = parser.parse_args().run
    table = pd.DataFrame(compare(run)).set_index('engine')
    print(processor_name()); print(table.to_string(float_format=lambda v: f'{v:.4g}'))
