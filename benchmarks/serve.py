"""Send many requests from several clients to a served page: answers lost, seconds an answer, and the memory of the server.

    python benchmarks/serve.py runs/first PHOTOS

Without a run and photos it trains for some seconds on drawn ones. Each request is one photo, sent as Gradio's own clients send it: upload, call, wait for the answer."""
import argparse, json, os, re, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np

def start(run, log):
    "A server in a process of its own, and its address"
    with log.open('w') as f: p = subprocess.Popen([sys.executable, '-m', 'garbage_fastai.cli', 'serve', str(run)], stdout=f, stderr=f)
    while not (m := re.search(r'(http://\S+?)/? shows the page', log.read_text())):
        if p.poll() is not None: sys.exit(log.read_text())
        time.sleep(.1)
    return p,m[1]

def ask(http, file):
    "Seconds until the answer about one photo is there, and the answer, None where it was lost"
    begin = time.perf_counter()
    try:
        path, = http.post('/gradio_api/upload', files=[('files', (file.name, file.read_bytes()))]).raise_for_status().json()
        data = dict(data=[[dict(path=path, meta=dict(_type='gradio.FileData'))]])
        event = http.post('/gradio_api/call/predict', json=data).raise_for_status().json()['event_id']
        said = http.get(f'/gradio_api/call/predict/{event}').raise_for_status().text
        (answer,), = json.loads(said.partition('event: complete\ndata: ')[2])
        return time.perf_counter()-begin,answer if answer['file']==file.name and answer['class'] else None
    except Exception as e:
        print(f'lost: {type(e).__name__} {e}', file=sys.stderr)
        return time.perf_counter()-begin,None

def memory(pid): return int(re.search(r'VmRSS:\s+(\d+)', Path(f'/proc/{pid}/status').read_text())[1])/1024

def main():
    import httpx
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('run', nargs='?', type=Path, help='a run folder')
    a.add_argument('photos', nargs='?', type=Path, help='a folder of photos')
    a.add_argument('--requests', type=int, default=200)
    a.add_argument('--clients', type=int, default=8)
    a = a.parse_args()
    from garbage_fastai.scan import find_images
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        if a.run is None:
            from garbage_fastai.train import train_run
            from garbage_fastai.sample import draw_sample
            a.run = train_run(draw_sample(work/'photos', n=30), work/'run', epochs=0, progress=False)
        files = [Path(f) for f,_ in find_images(a.photos or work/'photos')]
        files = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
        p,url = start(a.run, work/'log')
        try:
            took,lost,n = [],0,0
            print(f'0 requests: {memory(p.pid):.0f} MB')
            with ThreadPoolExecutor(a.clients) as ex:
                clients = [httpx.Client(base_url=url, timeout=300) for _ in range(a.clients)]
                begin = time.perf_counter()
                for upto in sorted({*(o for o in (20,100) if o < a.requests), a.requests}):
                    for t,answer in ex.map(lambda i: ask(clients[i%a.clients], files[i%len(files)]), range(n, upto)):
                        took.append(t)
                        lost += answer is None
                    n = upto
                    print(f'{n} requests: {memory(p.pid):.0f} MB', flush=True)
            print(f'{a.requests} requests from {a.clients} clients on {len(os.sched_getaffinity(0))} cores: {lost} lost, p50 {np.quantile(took, .5):.2f} s, p95 {np.quantile(took, .95):.2f} s, '
                  f'{a.requests/(time.perf_counter()-begin):.1f} photos a second')
        finally:
            p.terminate()
            p.wait()

if __name__=='__main__': main()
