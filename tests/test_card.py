"The model card tells what the run found, names of strangers do nothing in it, and only what may travel is uploaded."
import json, re, shutil

import pandas as pd, pytest, yaml
from hypothesis import given, strategies as st

from garbage_fastai.report import escape_markdown, push_model, weights_license, write_card
from garbage_fastai.train import train_run
from test_cli import call

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
