"The web page in a real browser, and its answers to programs"
import os, re, shutil, signal, struct, subprocess, sys, time, zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np, pytest
from PIL import Image

from bad_files import png_chunk
from conftest import ROOT
from garbage_fastai.train import train_run

sys.path.insert(0, str(ROOT/'benchmarks'))
from serve import ask as request

pytest.importorskip('gradio', '6.0', reason="the web page needs gradio: pip install 'garbage_fastai[app]'")
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'))), None)

@pytest.fixture(scope='module')
def run(sample_dir, tmp_path_factory):
    return train_run(sample_dir, tmp_path_factory.mktemp('app')/'run', size=64, epochs=0, head_epochs=5, precision='fp32', progress=False)

class Page:
    "The command `serve` in a process of its own, the only one that writes into `work`"
    def __init__(self, run, work, *args):
        self.work,self.log = work,work/'log'
        (work/'tmp').mkdir()
        env = {**os.environ, 'TMPDIR': str(work/'tmp'), 'PYTHONPATH': str(ROOT)}
        with self.log.open('w') as log:
            self.p = subprocess.Popen([sys.executable, '-m', 'garbage_fastai.cli', 'serve', str(run), *map(str, args)], env=env, stdout=log, stderr=log)
        end = time.time()+120
        while not (m := re.search(r'(http://\S+?)/? shows the page', self.log.read_text())):
            assert self.p.poll() is None and time.time() < end, self.log.read_text()
            time.sleep(.1)
        self.url = m[1]
    def left(self): return [p for p in (self.work/'tmp').rglob('*') if p.is_file()]
    def stop(self):
        self.p.send_signal(signal.SIGTERM)
        return self.p.wait(30)

@pytest.fixture(scope='module')
def bins(sample_dir, tmp_path_factory):
    file = tmp_path_factory.mktemp('bins')/'bins.csv'
    file.write_text('material,bin\n' + ''.join(f'{p.name},Yellow\n' for p in sample_dir.iterdir() if p.is_dir()))
    return file

@pytest.fixture(scope='module')
def page(run, bins, tmp_path_factory):
    work = tmp_path_factory.mktemp('page')
    p = Page(run, work, '--max-mb', 60, '--keep', work/'kept', '--bins', bins)
    yield p
    if p.p.poll() is None: p.stop()

@pytest.fixture(scope='module')
def browser():
    pw = pytest.importorskip('playwright.sync_api', reason='a browser is driven by playwright: pip install playwright')
    if CHROMIUM is None: pytest.skip('no Chromium here: apt install chromium')
    with pw.sync_playwright() as p:
        yield p.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'])

@pytest.fixture(scope='module')
def tabs(): return {}

@pytest.fixture
def tab(browser, page, tabs, request):
    "The page in a browser. Whatever that fetched, it fetched from the server; nothing it was sent ran; no photo is left"
    size = getattr(request, 'param', (1280,900))
    if size not in tabs:
        c = browser.new_context(viewport=dict(width=size[0], height=size[1]), permissions=['camera'])
        seen,dialogs,t = [],[],c.new_page()
        c.on('request', lambda r: seen.append(r.url))
        t.on('dialog', lambda d: (dialogs.append(d.message), d.dismiss()))
        t.goto(page.url)
        t.wait_for_selector('#files input[type=file]', state='attached')
        tabs[size] = t,seen,dialogs
    t,seen,dialogs = tabs[size]
    yield t
    assert seen and not [u for u in seen if not u.startswith((page.url, 'data:', 'blob:'))]
    assert not dialogs and t.title()=='What is it?'
    assert not page.left()

def clear(tab): tab.evaluate("document.querySelectorAll('#answers article').forEach(o => o.remove())")

def send(tab, *files, n=None):
    "Drop files, and read the cards that come"
    clear(tab)
    tab.set_input_files('#files input[type=file]', [str(f) for f in files])
    tab.wait_for_function(f"document.querySelectorAll('#answers article').length=={n or len(files)}", timeout=30000)
    return [c.inner_text() for c in tab.query_selector_all('#answers article')]

@pytest.mark.parametrize('tab', [(1280,900), (390,844)], ids=['desktop', 'phone'], indirect=True)
def test_photos(tab, sample_dir):
    three = [sample_dir/'glass'/'glass_001.jpg', sample_dir/'metal'/'metal_002.jpg', sample_dir/'paper'/'paper_003.jpg']
    said = send(tab, three[0])
    assert three[0].name in said[0] and re.search(r'\d+%', said[0]) and 'Yellow bin' in said[0]
    said = send(tab, *three)
    assert all(f.name in s and '%' in s for f,s in zip(three, said))
    assert len(tab.query_selector_all('#answers article img[src^="data:image/jpeg"]')) == 3
    assert tab.evaluate('document.documentElement.scrollWidth') <= tab.viewport_size['width']  # nothing sticks out
    tab.get_by_role('tab', name='How good').click()
    report = tab.frame_locator('iframe').locator('body').inner_text(timeout=20000)
    assert 'test photos were sorted right' in report
    tab.get_by_role('tab', name='Photos').click()

def test_unsure(tab, run, sample_dir):
    "What the model's threshold says, the page says"
    import pandas as pd
    preds = pd.read_csv(run/'predictions.csv').sort_values('confidence')
    files = [preds['path'].iloc[0], preds['path'].iloc[-1]]
    for said,sure in zip(send(tab, *files), [preds['sure'].iloc[0], preds['sure'].iloc[-1]]): assert ('ask a person' in said) != sure

def test_bad_files(tab, tmp_path):
    (tmp_path/'fake.heic').write_text('these are words')
    (tmp_path/'script.svg').write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    head = struct.pack('>IIBBBBB', 100_000, 100_000, 8, 2, 0, 0, 0)
    (tmp_path/'bomb.png').write_bytes(b'\x89PNG\r\n\x1a\n' + png_chunk(b'IHDR', head) + png_chunk(b'IDAT', zlib.compress(bytes(10**6))) + png_chunk(b'IEND', b''))
    (tmp_path/'empty.jpg').write_bytes(b'')
    names = 'fake.heic','script.svg','bomb.png','empty.jpg'
    for name,said,why in zip(names, send(tab, *[tmp_path/n for n in names]), ('not an image (text)', 'SVG is a drawing', 'too many pixels', 'empty file')):
        assert name in said and why in said

def test_names_are_no_html(tab, tmp_path):
    name = tmp_path/"<img src=x onerror=document.title=1>'&amp;${document.title=2}{{value}}.png"
    Image.new('RGB', (40,30), 'green').save(name)
    said, = send(tab, name)
    assert 'onerror' in said and '&amp;' in said and not tab.query_selector('#answers img[src="x"]')

def test_large_files(tab, tmp_path):
    "A photo of about 30 MB, as from a good camera; and one that is larger than the page takes"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (3000,4000,3), dtype=np.uint8)).save(tmp_path/'large.jpg', quality=97, subsampling=0)
    assert 25e6 < (tmp_path/'large.jpg').stat().st_size < 40e6
    assert '%' in send(tab, tmp_path/'large.jpg')[0]
    with (tmp_path/'huge.jpg').open('wb') as f: f.truncate(61*2**20)
    tab.set_input_files('#files input[type=file]', str(tmp_path/'huge.jpg'))
    assert 'maximum allowed size of 60' in tab.wait_for_selector('.toast-body', timeout=20000).inner_text().replace('\xa0', ' ')

def test_camera(tab):
    "Chromium's pretended camera"
    clear(tab)
    tab.get_by_text("This device's camera").click()
    tab.get_by_role('button', name='Click to Access Webcam').click()
    tab.wait_for_function("document.querySelector('#camera video')?.videoWidth > 0")  # it shows something
    tab.get_by_role('button', name='Capture').click()
    tab.wait_for_selector('#answers article img', timeout=20000)
    assert '%' in tab.inner_text('#answers article')

# ------------------------------------------------------------------------------------------------- programs

def client(page):
    from gradio_client import Client
    return Client(page.url, verbose=False)

def ask(c, *files):
    from gradio_client import handle_file
    return c.predict([handle_file(str(f)) for f in files], api_name='/predict')

def test_api(page, run, sample_dir, tmp_path):
    "A program gets what `predict` would say, and a reason where that says nothing"
    from garbage_fastai.export import Predictor
    (tmp_path/'notes.jpg').write_text('these are words')
    files = [sample_dir/'glass'/'glass_001.jpg', tmp_path/'notes.jpg']
    good,bad = ask(client(page), *files)
    row = Predictor(run/'model', 'fp32').predict(files, progress=False).iloc[0]
    assert (good['class'], good['sure']) == (row['predicted'], row['sure']) and good['confidence'] == pytest.approx(row['confidence'], abs=1e-4)
    assert set(good['probabilities']) == {p.name for p in sample_dir.iterdir() if p.is_dir()} and sum(good['probabilities'].values()) == pytest.approx(1, abs=1e-3)
    assert bad['class'] is None and 'text' in bad['reason']
    assert ask(client(page)) == [] and not page.left()

def test_the_servers_own_files_are_safe(page, sample_dir, run):
    "A path of the server's own, or an address, sent by hand, is neither read nor removed"
    import httpx
    for file in (str(sample_dir/'glass'/'glass_001.jpg'), str(run/'report.html'), f'{page.url}/theme.css', '../../../etc/passwd'):
        data = dict(data=[[dict(path=file, meta=dict(_type='gradio.FileData'))]])
        event = httpx.post(f'{page.url}/gradio_api/call/predict', json=data).json()['event_id']
        said = httpx.get(f'{page.url}/gradio_api/call/predict/{event}', timeout=30).text
        assert 'event: error' in said and 'class' not in said, said
    assert (sample_dir/'glass'/'glass_001.jpg').exists() and (run/'report.html').exists() and not page.left()

def test_many_at_once(page, sample_dir):
    "Eight clients, who often send the same photo: each gets its own answer"
    import httpx
    files = sorted(sample_dir.rglob('*.jpg'))[:3]
    with httpx.Client(base_url=page.url, timeout=60) as http, ThreadPoolExecutor(8) as ex:
        said = [a for _,a in ex.map(lambda i: request(http, files[i%3]), range(48))]
    assert None not in said and [a['file'] for a in said] == [files[i%3].name for i in range(48)]
    assert not page.left()

def test_used_wrongly(run, tmp_path, capsys):
    from garbage_fastai.cli import main
    def says(*args):
        with pytest.raises(SystemExit) as e: main(['serve', *map(str, args)])
        assert e.value.code==2
        return capsys.readouterr().err
    assert 'nothing' in says(tmp_path/'nothing')
    (tmp_path/'bins.csv').write_text('material,bin\nglass,Blue\n')
    assert "no bin for 'cardboard'" in says(run, '--bins', tmp_path/'bins.csv')

def test_photos_are_kept_when_asked_and_nothing_else_is(page, sample_dir):
    "Last, since it ends the server"
    a, = ask(client(page), photo := sample_dir/'glass'/'glass_001.jpg')
    same = [f for f in (page.work/'kept').rglob('*') if f.is_file() and f.read_bytes()==photo.read_bytes()]
    assert same and {f.parent.name for f in same}=={a['class']}
    assert page.stop()==143 and not list((page.work/'tmp').iterdir())
