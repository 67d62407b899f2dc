"The report page: complete, self-contained, harmless, and drawn from whatever files are there"
import base64, io, json, os, re, shutil
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib, numpy as np, pandas as pd, pytest, yaml
from hypothesis import given, strategies as st
from matplotlib.figure import Figure
from PIL import Image

from conftest import call
from garbage_fastai.evaluate import Evaluation
from garbage_fastai.report import (
    copy_notes, duration_words, interval_words, scored, write_report, escape_markdown, push_model, weights_license,
    write_card, leak_notes)
from garbage_fastai.show import figure_uri, thumbnail_uri
from garbage_fastai.runs import read_run
from garbage_fastai.predictions import probability_column
from garbage_fastai.train import train_run, leak_figures

matplotlib.use('agg')

VOID = {'meta', 'link', 'img', 'br', 'input', 'hr'}

class Page(HTMLParser):
    "A page's tags, images and text; fails on tags that are not closed in order"
    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open, self.html = [], [], [], html
        self.feed(html); self.close()
        assert not self.open, self.open
        self.images = [a for t,a in self.tags if t == 'img']
        self.said = ' '.join(self.text)
        self.ids = {a['id'] for _,a in self.tags if 'id' in a}
    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID: self.open.append(tag)
    def handle_endtag(self, tag):
        if tag not in VOID: assert self.open.pop() == tag, tag
    def handle_data(self, data):
        if self.open and self.open[-1] != 'style': self.text.append(data.strip())

def check(html):
    "What holds for every page"
    page = Page(html)
    for a in page.images:
        assert a['alt'].strip() and a['src'].startswith('data:image/')
        data = base64.b64decode(a['src'].split(',', 1)[1])
        if 'svg' in a['src'][:20]: ElementTree.fromstring(data)
        else: Image.open(io.BytesIO(data)).load()
    for tag,a in page.tags:
        assert tag not in ('script', 'iframe', 'object', 'embed', 'form', 'base') and not any(k.startswith('on') for k in a)
        for k in ('src', 'href', 'srcset', 'data', 'action', 'poster'):
            assert a.get(k, 'data:').startswith(('data:', '#')), (tag, a[k][:80])
        if a.get('href', '').startswith('#'): assert a['href'][1:] in page.ids
    assert not re.search(r'url\(|@import|javascript:', ''.join(re.findall(r'<style>(.*?)</style>', html, re.S)))
    assert re.search(r"default-src 'none'", html) and 'prefers-color-scheme: dark' in html and 'name="viewport"' in html
    return page

def make_run(folder, vocab=('glass', 'metal', 'paper'), n=90, seed=0, photos=True, extras=True, splits=('train', 'valid', 'test')):
    rng = np.random.default_rng(seed)
    vocab = list(vocab)
    labels = rng.integers(0, len(vocab), n)
    probs = rng.dirichlet(np.ones(len(vocab))*.5, n)*.5 + .5*np.eye(len(vocab))[labels]*(rng.random(n) < .9)[:, None]
    probs /= probs.sum(1, keepdims=True)
    (folder/'photos').mkdir(parents=True)
    paths = [folder/'photos'/f'{i:03d}.jpg' for i in range(n)]
    if photos:
        for p in paths: Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((64, 48)).save(p)
    t = pd.DataFrame(dict(path=[str(p) for p in paths], label=np.array(vocab, dtype=object)[labels], split=[splits[i % len(splits)] for i in range(n)],
                          predicted=np.array(vocab, dtype=object)[probs.argmax(1)], confidence=probs.max(1), ok=True, reason=''))
    for i,c in enumerate(vocab): t[probability_column(c)] = probs[:, i]
    run = folder/'run'
    run.mkdir()
    t.to_csv(run/'predictions.csv', index=False)
    if extras:
        (run/'model').mkdir()
        bad = pd.DataFrame(dict(path=[str(folder/'photos'/'bad.jpg')], label=vocab[0], split='', ok=False, reason='truncated file'))
        pd.concat([t[['path', 'label', 'split', 'ok', 'reason']], bad]).to_csv(run/'splits.csv', index=False)
        pd.DataFrame(dict(epoch=range(4), train_loss=[2, 1, .5, .4], valid_loss=[2, 1.2, .8, .7], accuracy=[.4, .6, .8, .85], time='00:10')).to_csv(run/'history.csv', index=False)
        pd.DataFrame(dict(lr=np.logspace(-6, 0, 40), loss=np.r_[np.linspace(2, 1, 30), np.logspace(0, 2, 10)])).to_csv(run/'lr_find.csv', index=False)
        (run/'config.json').write_text(json.dumps(dict(data='/data/waste', arch='resnet18', epochs=4, seed=42, seconds=1684, date='2025-11-23', lr=.002,
                                                       lr_suggestion=.0021, split_hash='3f9c1a', versions=dict(torch='2.15.0'))))
        (run/'metrics.json').write_text(json.dumps(dict(accuracy=Evaluation(t[t.split == splits[-1]]).accuracy)))
    return run

@pytest.fixture(scope='module')
def run(tmp_path_factory): return make_run(tmp_path_factory.mktemp('full'))

@pytest.fixture(scope='module')
def page(run): return check(write_report(run).read_text(encoding='utf-8'))

def test_everything_is_there(run, page):
    assert {'photos', 'training', 'results', 'confused', 'losses', 'use', 'record', 'limits'} <= page.ids
    ev = Evaluation.from_csv(run/'predictions.csv', split='test')
    right = int((ev.y_true == ev.y_pred).sum())
    for words in (f'{right} of {ev.n} test photos were sorted right', f'{100*ev.accuracy:.1f}%', interval_words(*ev.accuracy_ci95), 'resnet18', '28 min', '42',
                  '2025-11-23', '3f9c1a', 'versions.torch', '2.15.0', 'photos/bad.jpg', 'truncated file', f'{ev.macro_f1:.3f}',
                  f'garbage-fastai predict {run}/model PHOTOS --out predictions.csv'):
        assert words in page.said, words
    assert 'metrics.json' not in page.said
    for a,p,n in ev.most_confused()[:6]: assert any(f'{a} taken for {p}: ' in i['alt'] for i in page.images)
    for r in ev.top_losses(12).itertuples(): assert any(i['alt'] == f'{r.label}, predicted {r.predicted}: {os.path.basename(r.path)}' for i in page.images)
    assert sum('svg' in i['src'][:20] for i in page.images) == 3 and sum(i['alt'].startswith('Photo of') for i in page.images) == 12

def test_confusion_matrix_cells(run, page):
    cells = re.search(r'<table class="cm">.*?</table>', page.html, re.S).group()
    got = np.array([int(o) for o in re.findall(r'<td[^>]*>(\d+)</td>', cells)]).reshape(3, 3)
    assert (got == Evaluation.from_csv(run/'predictions.csv', split='test').confusion_matrix()).all()

def test_counts(page):
    rows = re.findall(r'<tr><th scope="row">(\w+)</th><td>(\d+)</td><td>(\d+)</td><td>(\d+)</td><td>(\d+)</td>', page.html)[:3]
    assert [o[0] for o in rows] == ['glass', 'metal', 'paper'] and sum(int(o[4]) for o in rows) == 90
    assert all(int(a)+int(b)+int(c) == int(d) for _,a,b,c,d in rows)

@pytest.mark.parametrize('gone', [['lr_find.csv', 'model'], ['config.json', 'metrics.json'], ['history.csv', 'splits.csv'], ['lr_find.csv', 'history.csv']], ids=' '.join)
def test_missing_parts(run, tmp_path, gone):
    copy = shutil.copytree(run, tmp_path/'copy')
    for o in gone: shutil.rmtree(copy/o) if (copy/o).is_dir() else (copy/o).unlink()
    page = check(write_report(copy).read_text(encoding='utf-8'))
    assert {'photos', 'results', 'limits'} <= page.ids
    assert ('use' in page.ids) == ('model' not in gone) and ('record' in page.ids) == ('config.json' not in gone)
    assert ('training' in page.ids) == (gone != ['lr_find.csv', 'history.csv']) and 'Undefined' not in page.said

def test_predictions_alone(tmp_path):
    "No other file, no photo, no split: still a page, and it says what is not known"
    run = make_run(tmp_path, extras=False, photos=False)
    t = pd.read_csv(run/'predictions.csv').drop(columns='split')
    t.to_csv(run/'predictions.csv', index=False)
    page = check(write_report(run).read_text(encoding='utf-8'))
    assert not {'training', 'use', 'record'} & page.ids and 'name no test split' in page.said and len(page.images) > 20
    for word in ('None', 'nan', 'Undefined'): assert word not in page.said, word

def test_valid_only_is_said_to_flatter(tmp_path):
    page = check(write_report(make_run(tmp_path, splits=('train', 'valid'))).read_text(encoding='utf-8'))
    assert '45 valid photos' in page.said and 'too kind' in page.said

def test_markup_in_names_is_harmless(tmp_path):
    vocab = ['<script>alert(1)</script>', '"><img src=x onerror=alert(2)>', "it's & co", '{{ 7*7 }}', 'path', '纸']
    run = make_run(tmp_path, vocab=vocab, n=120)
    t = pd.read_csv(run/'predictions.csv')
    bad = tmp_path/'photos'/'<b onclick=x>&"\'.jpg'
    t['path'] = [str(bad)]*len(t)
    t.to_csv(run/'predictions.csv', index=False)
    config = json.loads((run/'config.json').read_text())
    (run/'config.json').write_text(json.dumps(config | {'arch': '<i>x</i>', '<u>key</u>': '</dd><script>3</script>', 'data': '/d/<s>d</s>'}))
    page = check(write_report(run, title='</title><script>4</script>').read_text(encoding='utf-8'))
    assert not {'u', 's', 'script'} & {t for t,_ in page.tags} and not any('onclick' in a or 'onerror' in a for _,a in page.tags)
    for name in vocab: assert name in page.said
    assert '<b onclick=x>&"\'.jpg' in page.said and any('<b onclick=x>&"\'.jpg' in i['alt'] for i in page.images)
    assert '</title><script>4</script>' in page.said

def test_many_classes_use_a_picture(tmp_path):
    run = make_run(tmp_path, vocab=[f'class {i:02d}' for i in range(60)], n=180)
    path = write_report(run)
    page = check(path.read_text(encoding='utf-8'))
    assert any('Confusion matrix of 60 classes' in i['alt'] for i in page.images) and '<table class="cm">' not in page.html
    assert path.stat().st_size < 3e6

def test_no_mistakes_and_one_class(tmp_path):
    run = make_run(tmp_path, vocab=['only'], n=30)
    page = check(write_report(run).read_text(encoding='utf-8'))
    assert '100.0%' in page.said and 'confused' not in page.ids and 'losses' in page.ids
    assert check(write_report(run, n_top=0).read_text(encoding='utf-8')).ids.isdisjoint({'losses'})

def test_large_photos_stay_small(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (900, 1200, 3), dtype=np.uint8)).save(tmp_path/'noise.jpg', quality=95)
    uri = thumbnail_uri(tmp_path/'noise.jpg')
    im = Image.open(io.BytesIO(base64.b64decode(uri.split(',')[1])))
    assert max(im.size) == 200 and im.format == 'JPEG' and len(uri) < 40_000

def test_figures_are_reproducible():
    def draw():
        fig = Figure(figsize=(3, 2)); fig.add_subplot().plot([1, 2, 3], label='a'); return figure_uri(fig)
    assert draw() == draw()

def test_same_run_same_page(run, tmp_path):
    assert write_report(run, tmp_path/'a.html').read_bytes() == write_report(run, tmp_path/'b.html').read_bytes()

# ---- writing
def test_written_atomically(tmp_path, monkeypatch):
    run = make_run(tmp_path/'r', n=12, extras=False, photos=False)
    tmp_path = tmp_path/'out'; tmp_path.mkdir()
    out = tmp_path/'page.html'
    out.write_text('old')
    def full_disk(*args): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'replace', full_disk)
    with pytest.raises(OSError, match='No space left'): write_report(run, out)
    assert out.read_text() == 'old' and os.listdir(tmp_path) == ['page.html']
    monkeypatch.undo()
    assert write_report(run, out) == out and out.read_text(encoding='utf-8').startswith('<!doctype html>') and os.listdir(tmp_path) == ['page.html']

def test_clear_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such run folder'): write_report(tmp_path/'none')
    with pytest.raises(FileNotFoundError, match='predictions.csv is missing'): write_report(tmp_path)
    run = make_run(tmp_path, extras=False)
    (run/'config.json').write_text('{')
    with pytest.raises(ValueError, match='config.json is not a JSON object'): write_report(run)
    (run/'config.json').unlink()
    (run/'predictions.csv').write_text('path,label,glass\n')
    with pytest.raises(ValueError) as e: write_report(run)
    assert 'predictions.csv' in str(e.value) and not (run/'report.html').exists()

def test_what_train_writes(tmp_path):
    "Seconds of each phase, other key names, and splits without a reason"
    run = make_run(tmp_path)
    config = json.loads((run/'config.json').read_text())
    config.update(seconds=dict(head=60, fit=600, evaluate=5000), started='2025-01-02 03:04:05', lr_found=.003)
    for k in ('date', 'lr_suggestion'): del config[k]
    (run/'config.json').write_text(json.dumps(config))
    pd.read_csv(run/'splits.csv')[['path', 'label', 'split']].to_csv(run/'splits.csv', index=False)
    page = check(write_report(run).read_text(encoding='utf-8'))
    assert '11 min' in page.said and '2025-01-02 03:04:05' in page.said and 'photos/bad.jpg' in page.said

def test_file_name_that_is_no_text(tmp_path):
    run = make_run(tmp_path, extras=False, n=12)
    t = pd.read_csv(run/'predictions.csv')
    t.loc[:, 'path'] = os.fsdecode(b'caf\xe9.jpg')
    t.to_csv(run/'predictions.csv', index=False, errors='surrogateescape')
    check(write_report(run).read_text(encoding='utf-8'))
    Evaluation.from_csv(run/'predictions.csv').plot_top_losses(2)
    matplotlib.pyplot.gcf().canvas.draw()

def test_metrics_of_another_run_are_noticed(tmp_path):
    run = make_run(tmp_path)
    (run/'metrics.json').write_text('{"accuracy": 0.123}')
    assert 'metrics.json says 12.3%' in check(write_report(run).read_text(encoding='utf-8')).said

# ---- words and notes
@given(st.floats(0, 1), st.floats(0, 1))
def test_words_never_promise_more_than_the_interval(a, b):
    lo, hi = sorted((a, b))
    said = [int(o) for o in re.findall(r'\d+', interval_words(lo, hi))]
    assert said[0] <= lo*100 + 1e-5 and said[-1] >= hi*100 - 1e-5 and said[0] > lo*100-1.00001 and said[-1] < hi*100+1.00001

@pytest.mark.parametrize('s,said', [(0, '0 s'), (41.7, '42 s'), (89, '89 s'), (90, '2 min'), (1684, '28 min'), (3599, '1 h'), (7500, '2 h 5 min')])
def test_durations(s, said): assert duration_words(s) == said

def test_copy_notes():
    t = pd.DataFrame(dict(path=list('abcdef'), label=list('xyxxxx'), split=['train', 'train', 'test', 'train', 'test', ''], sha256=['1', '1', '2', '2', '3', '4'], ok=True))
    labels, splits = copy_notes(t)
    assert 'a = b' in labels and 'c = d' in splits and 'e' not in re.findall(r'\b[a-f]\b', labels+splits)
    assert copy_notes(t.assign(sha256='')) == copy_notes(t.drop(columns='sha256')) == []

def test_scored_prefers_test(run):
    preds = read_run(run).preds
    assert scored(preds)[1] == 'test' and scored(preds[preds.split != 'test'])[1] == 'valid' and scored(preds[preds.split == 'train'])[1] == ''
    blank = preds.assign(label=preds.label.where(preds.split != 'test', ''))
    assert scored(blank)[1] == 'valid'

def test_maps_are_shown_where_there_are_any(tmp_path):
    "Pictures of where the network looked stand in the page; a table that points out of the folder shows nothing from there"
    (tmp_path/'maps').mkdir()
    pd.DataFrame(dict(path=['a/1.jpg','a/2.jpg'], label=['a','b'], predicted=['a','a'], a=[.9,.8], b=[.1,.2], split='test', ok=True, reason='')).to_csv(tmp_path/'predictions.csv', index=False)
    assert 'Where the network looked' not in write_report(tmp_path).read_text()
    (tmp_path/'maps'/'1.jpg').write_bytes(b'map')
    (tmp_path/'secret').write_bytes(b'secret')
    pd.DataFrame(dict(path=['a/2.jpg','a/1.jpg'], label=['b','a'], predicted=['a','a'], file=['1.jpg','../secret'])).to_csv(tmp_path/'maps'/'maps.csv', index=False)
    page = write_report(tmp_path).read_text()
    assert page.count('alt="Where the network looked') == 1 and base64.b64encode(b'secret').decode() not in page

NASTY = ['<script>alert(1)</script>', '[x](http:__evil.org)', '| a | b |', '![p](q)', 'www.evil.org', '*b*']

@pytest.fixture(scope='module')
def nasty_run(sample_dir, tmp_path_factory):
    "A run whose classes have names from a stranger"
    work = tmp_path_factory.mktemp('nasty')
    data = work/'---\nlicense: mit\n# <b>data'
    for old,new in zip(sorted(p for p in sample_dir.iterdir() if p.is_dir()), NASTY): shutil.copytree(old, data/new.replace('/', '_'))
    return train_run(data, work/'run', arch='test_resnet', weights='none', freeze='none', size=32, epochs=1, bs=8, augment='light', progress=False)

def parts(run):
    text = (run/'model'/'README.md').read_text(encoding='utf-8')
    _,head,body = text.split('---\n', 2)
    return yaml.safe_load(head),body

def test_front_matter_and_figures(nasty_run):
    head,body = parts(nasty_run)
    m = json.loads((nasty_run/'metrics.json').read_text())
    assert (head['library_name'], head['pipeline_tag'], head['license']) == ('garbage_fastai', 'image-classification', 'unknown')
    assert {r['type']: r['value'] for r in head['model-index'][0]['results'][0]['metrics']}['accuracy'] == pytest.approx(m['accuracy'], abs=1e-4)
    lo,hi = m['accuracy_ci95']
    assert f"**{100*m['accuracy']:.1f}%** are right (95% interval {100*lo:.1f}% to {100*hi:.1f}%)" in body and f"Macro F1 {m['macro_f1']:.3f}" in body
    for said in ('Calibration error', 'No photos from elsewhere', 'Predictor(', '32 pixels high', '36 train, 18 valid, 18 test', 'from scratch', '`50/25/25`'): assert said in body, said
    rows = [l for l in body.splitlines() if l.startswith('| ') and '% to ' in l]
    assert len(rows) == 6 and all(len(re.findall(r'(?<!\\)\|', l)) == 6 for l in rows)
    assert str(nasty_run.parent) not in body

def test_names_do_nothing(nasty_run):
    from html.parser import HTMLParser
    import mistune
    page = mistune.create_markdown(escape=False, plugins=['table','url','strikethrough'])(parts(nasty_run)[1])
    tags = set()
    class Tags(HTMLParser):
        def handle_starttag(self, tag, attrs): tags.add(tag)
    Tags().feed(page)
    assert not tags & {'script','img','a','b'} and '<em>b' not in page
    assert page.count('<h1') == 1 and 'license: mit' not in (nasty_run/'model'/'README.md').read_text().split('---\n')[1].splitlines()

@given(st.text(max_size=60))
def test_escaped_stays_on_a_line(text):
    out = escape_markdown(text)
    assert len(out.splitlines()) <= 1 and '<' not in out and not re.search(r'(?<!\\)(\\\\)*[|`\[\]*_]', out)

def test_written_again(nasty_run):
    file = nasty_run/'model'/'README.md'
    before = file.read_text()
    file.unlink()
    assert write_card(nasty_run) == file and file.read_text() == before

def test_licence_of_the_weights():
    assert weights_license(dict(arch='tf_efficientnet_lite0', weights='auto'))[0] == 'apache-2.0'
    assert weights_license(dict(arch='resnet18', weights='/home/me/secret/mine.safetensors')) == ('unknown', 'Trained on from weights of resnet18 that came from elsewhere (mine.safetensors): look up their licence before publishing these.')

class Hub:
    def create_repo(self, repo, private, exist_ok): self.repo,self.private = repo,private
    def create_commit(self, repo, operations, commit_message): self.got = {o.path_in_repo: o for o in operations}

def test_only_what_may_travel(nasty_run, tmp_path, capsys, monkeypatch):
    run,secret = tmp_path/'run',tmp_path/'secret.json'
    shutil.copytree(nasty_run, run)
    secret.write_text('{}')
    for n in ('model.pkl','model.pth','photo.jpg','notes.txt','.env','encoder/photo.png'):
        (run/'model'/n).parent.mkdir(exist_ok=True)
        (run/'model'/n).write_bytes(b'x')
    (run/'model'/'model.onnx').write_bytes(b'x')
    (run/'model'/'link.json').symlink_to(secret)
    (run/'model'/'folder').symlink_to(tmp_path)
    (run/'model'/'README.md').unlink()
    hub = Hub()
    monkeypatch.setattr('huggingface_hub.HfApi', lambda: hub)
    assert call('push', run, 'you/waste') == 0
    assert set(hub.got) == {'README.md','model.json','model.onnx','model.safetensors'} == set(capsys.readouterr().out.split()) and hub.private
    assert call('push', tmp_path, 'you/waste') == 2
    push_model(run/'model', 'you/waste', public=True, api=hub)
    assert not hub.private

def test_all_that_judge_leak():
    "But for a photo that could not be read"
    t = pd.DataFrame(dict(path=['a','b','c'], label=['x','x','x'], split=['train','test','test'], group=['1','1',''], ok=[True,True,False], reason=['','','broken']))
    preds = pd.DataFrame(dict(path=['b','c'], label=['x','x'], predicted=['x',''], confidence=[1.,np.nan], x=[1.,np.nan], ok=[True,False], reason=['','broken']))
    assert len(leak_notes(t, preds)) == 1 and leak_figures(t, preds) == dict(leaked=1)
