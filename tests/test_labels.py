"Photo quality and suspect labels: odd files stop nothing, flipped labels are found, and the review sheet gives back what was decided"
import base64, hashlib, json, re, shutil, subprocess, sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib, matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st

from conftest import TINY, call, fails, fingerprint
from garbage_fastai.labels import LabelReview, out_of_fold_probs, plot_suspects, suspect_labels, write_review
from garbage_fastai.splits import apply_decisions, read_decisions
from garbage_fastai.scan import check_quality, plot_worst
from garbage_fastai.train import prepare_table

matplotlib.use('agg')

@pytest.mark.parametrize('module', ['cleanvision', 'cleanlab.rank', 'ipywidgets'])
def test_missing_extra(module, monkeypatch, odd_files, suspects, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    table,X = _clusters()
    f = dict(cleanvision=lambda: check_quality(odd_files), ipywidgets=lambda: LabelReview(suspects, tmp_path/'d.csv')).get(module, lambda: suspect_labels(table, X))
    with pytest.raises(ValueError, match=rf"{module.split('.')[0]} is not installed: pip install 'garbage_fastai\[trust\]'$"): f()

def _clusters(n=120, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    table = pd.DataFrame(dict(path=[f'p/{i}.jpg' for i in range(n)], label=np.array(['glass', 'metal', 'paper'], object)[y], ok=True, reason=''))
    return table, rng.normal(size=(n, 8)) + 8*np.eye(8)[y]

@pytest.fixture(scope='module')
def suspects():
    table,X = _clusters()
    table.loc[:5, 'label'] = ['metal', 'paper', 'glass']*2
    return suspect_labels(table, X)

def _flipped(seed):
    "Clusters of which six labels are wrong: the places, the true labels, and what is suspected"
    table,X = _clusters(seed=seed)
    flipped = np.random.default_rng(seed).choice(len(table), 6, replace=False)
    true = table['label'][flipped]
    table.loc[flipped, 'label'] = true.map(dict(glass='metal', metal='paper', paper='glass'))
    return flipped,true,suspect_labels(table, X)

@given(st.integers(0, 2**32-1))
@settings(max_examples=5, deadline=None)
def test_flipped_labels_come_first(seed):
    flipped,true,s = _flipped(seed)
    assert set(s.index[:6]) == set(flipped) and s['label_quality'].is_monotonic_increasing
    assert (s['suggested'][flipped] == true).all()

def test_flipped_labels_are_flagged():
    "Most of them, over several draws: one alone may have few"
    found = [_flipped(seed)[2]['is_issue'].iloc[:6].sum() for seed in range(5)]
    assert sum(found) >= 24

def test_unusable_rows_are_left_out():
    table,X = _clusters()
    before = table.copy()
    X[3],table.loc[7, 'ok'],table.loc[9, 'label'] = np.nan,False,''
    s = suspect_labels(table, X)
    assert set(table.index) - set(s.index) == {3, 7, 9} and (before['path'] == table['path']).all() and 'suggested' not in table

def test_copies_stay_together():
    "With labels that mean nothing, only a leak can make a model better than chance"
    rng = np.random.default_rng(0)
    X,y = rng.normal(size=(90, 200)),np.arange(90) % 3
    X2,y2,g = np.r_[X, X],np.r_[y, y],np.r_[np.arange(90), np.arange(90)].astype(str)
    right = [(out_of_fold_probs(X2, y2, o).argmax(1) == y2).mean() for o in (None, g)]
    assert right[0] > .7 and right[1] < .5
    assert np.allclose(out_of_fold_probs(X2, y2, g).sum(1), 1)

@pytest.mark.parametrize('labels,groups,says', [(['a']*6, None, 'two classes'), (['a']*5+['b']*2, None, "class 'b' has 2"),
                                               (['a']*6+['b']*6, ['x']*12, "class 'a' has 1"), (['a']*5, 'shape', 'a row for each')])
def test_out_of_fold_says_what_is_wrong(labels, groups, says):
    X = np.zeros((len(labels)+(groups == 'shape'), 3))
    with pytest.raises(ValueError, match=says): out_of_fold_probs(X, labels, None if groups == 'shape' else groups)

def test_plots(suspects, odd_files):
    plot_suspects(suspects, 3)
    assert [a.get_title().split('\n')[1] for a in plt.gcf().axes] == [Path(o).name for o in suspects['path'][:3]]
    plot_worst(check_quality(odd_files), 'overexposed', 2)
    assert plt.gcf().get_suptitle() == 'Highest overexposed'
    plt.close('all')

class _Page(HTMLParser):
    def __init__(self, text): super().__init__(); self.tags = []; self.feed(text)
    def handle_starttag(self, tag, attrs): self.tags.append((tag, dict(attrs)))
    def all(self, tag): return [a for t,a in self.tags if t == tag]

NASTY = ['p/<script>alert(1)</script>.jpg', 'p/"><img src=x onerror=alert(1)>.jpg', "p/it's, \"quoted\".jpg", 'p/{{ 7*7 }}.jpg', 'p/line\nbreak.jpg', 'p/caf\udce9.jpg']

def _nasty():
    return pd.DataFrame(dict(path=NASTY, label=['glass', '<b>'] * 3, ok=True, reason='', suggested=['<b>', 'glass'] * 3, label_quality=.1, is_issue=True))

def test_review_sheet_is_harmless_and_complete(tmp_path):
    html = write_review(_nasty(), tmp_path/'r.html').read_text(encoding='utf-8')
    page = _Page(html)
    scripts = re.findall(r'<script>(.*?)</script>', html, re.S)
    assert len(scripts) == len(page.all('script')) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = next(a['content'] for a in page.all('meta') if 'http-equiv' in a)
    assert policy.startswith("default-src 'none'") and f"script-src 'sha256-{digest}'" in policy
    assert not any(k.startswith('on') for _,a in page.tags for k in a) and all(i['src'].startswith('data:') for i in page.all('img'))
    assert not re.search(r'https?://', html) and 'prefers-color-scheme: dark' in html and 'name="viewport"' in html
    cards = [json.loads(a['data-path']) for a in page.all('figure')]
    assert cards[:5] == NASTY[:5] and cards[5] == 'p/caf?.jpg'

NODE = r'''
const fs = require('fs'), cards = JSON.parse(fs.readFileSync(process.argv[2])), store = {}
const el = (o) => Object.assign({on: {}, addEventListener(k, f) { this.on[k] = f }}, o)
const figures = cards.map(c => { const radios = ['keep', 'relabel', 'leave_out'].map(value => el({value, checked: false})), select = el({value: c.suggested})
  return {dataset: {path: JSON.stringify(c.path)}, radios, select, querySelectorAll: () => radios, querySelector: () => select} })
const save = el({}), count = {}, link = {click() {}}
let text
global.document = {querySelectorAll: () => figures, body: {dataset: {key: 'k'}}, getElementById: i => i == 'save' ? save : count, createElement: () => link}
global.localStorage = {getItem: k => store[k] ?? null, setItem(k, v) { store[k] = v }}
global.Blob = class { constructor(parts) { text = parts.join('') } }
URL.createObjectURL = () => 'blob:x'
const js = fs.readFileSync(process.argv[3], 'utf8')
new Function(js)()
cards.forEach((c, i) => { if (!c.choose) return
  for (const r of figures[i].radios) r.checked = r.value == c.choose
  figures[i].radios[0].on.change() })
figures.forEach(f => f.radios.forEach(r => r.checked = false))
new Function(js)()
save.on.click()
fs.writeFileSync(process.argv[4], text)
console.log(JSON.stringify({count: count.textContent, checked: figures.map(f => f.radios.filter(r => r.checked).map(r => r.value).join()), name: link.download}))
'''

@pytest.mark.skipif(not shutil.which('node'), reason='node is not installed')
def test_review_script_saves_what_was_chosen(tmp_path):
    "The page's own script on a stand-in for a browser: choices outlive a reload, and the file fits the table"
    t = _nasty()
    html = write_review(t, tmp_path/'r.html').read_text(encoding='utf-8')
    chosen = ['keep', 'relabel', 'leave_out', None, 'relabel', 'leave_out']
    paths = [json.loads(a['data-path']) for a in _Page(html).all('figure')]
    for name,text in {'run.js': NODE, 'page.js': re.search(r'<script>(.*?)</script>', html, re.S)[1],
                      'cards.json': json.dumps([dict(path=p, suggested=s, choose=c) for p,s,c in zip(paths, t['suggested'], chosen)])}.items():
        (tmp_path/name).write_text(text, encoding='utf-8')
    res = subprocess.run(['node', *(str(tmp_path/o) for o in ('run.js', 'cards.json', 'page.js', 'decisions.csv'))], capture_output=True, text=True)
    assert not res.returncode, res.stderr
    assert json.loads(res.stdout) == dict(count='5 of 6 decided', checked=[c or '' for c in chosen], name='decisions.csv')
    new = apply_decisions(t, read_decisions(tmp_path/'decisions.csv'))
    assert list(new['label']) == ['glass', 'glass', 'glass', '<b>', '<b>', '<b>'] and list(new['ok']) == [True, True, False, True, True, False]

@given(st.lists(st.tuples(st.text(st.characters(exclude_characters='\r\0', exclude_categories=['Cs']), min_size=1), st.sampled_from(['keep', 'relabel', 'leave_out'])), min_size=1, unique_by=lambda o: o[0]))
@settings(max_examples=30, deadline=None)
def test_decisions_round_trip(tmp_path_factory, rows):
    csv = tmp_path_factory.mktemp('d')/'d.csv'
    d = pd.DataFrame([(p, c, 'b' if c == 'relabel' else '') for p,c in rows], columns=['path', 'decision', 'label'])
    d.to_csv(csv, index=False)
    table = pd.DataFrame(dict(path=d['path'][::-1], label='a', ok=True, reason=''))
    table = pd.concat([table, pd.DataFrame(dict(path=['\0'], label='b', ok=True, reason=''))])
    new = apply_decisions(table, read_decisions(csv)).set_index('path')
    assert new['ok'].dtype == bool and (table['label'].iloc[:-1] == 'a').all() and table['ok'].all()
    for p,c in rows: assert (new['label'][p], new['ok'][p], new['reason'][p]) == ('b' if c == 'relabel' else 'a', c != 'leave_out', 'left out by review' if c == 'leave_out' else '')

@pytest.mark.parametrize('text,says', [('path,decision\na,keep\n', "no column 'label'"), ('path,decision,label\na,drop,\n', "'drop' for a is none of keep, relabel, leave_out"),
    ('path,decision,label\na,relabel,\n', 'needs a label'), ('path,decision,label\na,keep,\na,leave_out,\n', 'decides twice'), ('', 'not a CSV table')])
def test_bad_decisions(tmp_path, text, says):
    (tmp_path/'d.csv').write_text(text)
    with pytest.raises(ValueError, match=says) as e: read_decisions(tmp_path/'d.csv')
    assert '\n' not in str(e.value)

def test_spreadsheets_semicolons(tmp_path):
    (tmp_path/'d.csv').write_bytes('\ufeffpath;decision;label\r\na.jpg;relabel;glass\r\na.jpg;relabel;glass\r\n'.encode())
    assert read_decisions(tmp_path/'d.csv').values.tolist() == [['a.jpg', 'relabel', 'glass']]
    with pytest.raises(FileNotFoundError, match='no such file of decisions'): read_decisions(tmp_path/'none.csv')

def test_widget_writes_at_each_click(tmp_path):
    t,csv = _nasty(),tmp_path/'d.csv'
    r = LabelReview(t, csv)
    r.show(1)
    assert '<img' not in r.text.value and '&lt;img' in r.text.value and '&lt;b&gt;' in r.text.value
    r.show(0)
    r.buttons['relabel'].click()
    assert len(read_decisions(csv)) == 1
    r.buttons['back'].click(); r.buttons['keep'].click(); r.buttons['next'].click(); r.buttons['leave_out'].click()
    d = read_decisions(csv)
    assert list(zip(d['path'], d['decision'])) == [(NASTY[0], 'keep'), (NASTY[2], 'leave_out')]
    again = LabelReview(t, csv)
    assert again.at == 1 and 'application/vnd.jupyter.widget-view+json' in again._repr_mimebundle_()
    again.show(5); again.buttons['leave_out'].click()
    assert list(apply_decisions(t, read_decisions(csv))['ok']) == [True, True, False, True, True, False]

@pytest.fixture(scope='module')
def photos(sample_dir, tmp_path_factory):
    "The sample with one glass photo among the metal ones"
    folder = tmp_path_factory.mktemp('review')/'photos'
    shutil.copytree(sample_dir, folder)
    shutil.move(folder/'glass'/'glass_001.jpg', folder/'metal'/'glass_001.jpg')
    return folder

@pytest.fixture(scope='module')
def decided(photos, tmp_path_factory):
    "Decisions as the sheet saves them: one label changed, one kept, one photo left out"
    csv = tmp_path_factory.mktemp('decided')/'decisions.csv'
    rows = [('metal/glass_001.jpg', 'relabel', 'glass'), ('paper/paper_001.jpg', 'keep', ''), ('trash/trash_001.jpg', 'leave_out', '')]
    pd.DataFrame([(photos/p, *o) for p,*o in rows], columns=['path','decision','label']).to_csv(csv, index=False)
    return csv

def test_review_writes_a_sheet_and_touches_no_photo(photos, tmp_path, capsys, monkeypatch):
    before = fingerprint(photos)
    monkeypatch.chdir(photos.parent)
    assert call('review', photos.name, '--out', tmp_path/'review', '--photos', 20) == 0
    assert fingerprint(photos) == before
    out = capsys.readouterr().out
    assert str(tmp_path/'review'/'review.html') in out and f'garbage-fastai train {photos.name} --decisions decisions.csv' in out
    suspects = pd.read_csv(tmp_path/'review'/'suspects.csv', keep_default_na=False)
    assert len(suspects) == 72 and suspects.label_quality.is_monotonic_increasing and Path(suspects.path[0]).is_absolute()
    assert suspects.path.map(lambda p: Path(p).name).tolist().index('glass_001.jpg') < 20
    assert (tmp_path/'review'/'review.html').read_text().count('class="card"') == 20

def test_review_says_what_is_wrong(photos, tmp_path, capsys):
    fails(capsys, 2, 'review', tmp_path/'nowhere', '--out', tmp_path/'r', says='nowhere')
    (tmp_path/'file').write_text('mine')
    fails(capsys, 2, 'review', photos, '--out', tmp_path/'file', says='is a file')
    fails(capsys, 2, 'review', photos, '--out', tmp_path/'r', '--folds', 13, says=['--folds 13', 'fewer folds'])
    assert not (tmp_path/'r').exists()

def test_train_with_decisions(photos, decided, tmp_path, capsys):
    before = fingerprint(photos)
    assert call('train', photos, '--out', tmp_path/'run', '--decisions', decided, *TINY) == 0
    assert fingerprint(photos) == before
    assert 'decisions.csv: 1 relabelled, 1 left out' in capsys.readouterr().out
    config = json.loads((tmp_path/'run'/'config.json').read_text())
    assert config['decisions'] == dict(file='decisions.csv', relabelled=1, left_out=1) and config['bad_files'] == 0
    splits = pd.read_csv(tmp_path/'run'/'splits.csv', keep_default_na=False)
    splits.index = splits.path.map(lambda p: Path(p).name)
    assert splits.label['glass_001.jpg'] == 'glass' and splits.split['glass_001.jpg'] and not splits.split['trash_001.jpg']
    report = (tmp_path/'run'/'report.html').read_text()
    assert 'as decisions.csv says: 1 label changed, 1 photo left out' in report and 'could not be read' not in report

def test_decisions_outlive_a_move(photos, decided, tmp_path):
    "Paths on the machine where the photos were reviewed are other ones than where the model is trained"
    shutil.copytree(photos, tmp_path/'elsewhere')
    table = prepare_table(tmp_path/'elsewhere', progress=False, decisions=decided)
    assert table.decision.value_counts().to_dict() == {'':69, 'relabel':1, 'keep':1, 'leave_out':1}
    assert (table.label=='glass').sum() == 12

def test_decisions_that_cannot_be_applied(photos, tmp_path, capsys):
    fails(capsys, 2, 'train', photos, '--out', tmp_path/'run', '--decisions', tmp_path/'none.csv', *TINY, says='none.csv')
    (tmp_path/'d.csv').write_text('path,decision,label\nglass/gone.jpg,leave_out,\n')
    fails(capsys, 2, 'train', photos, '--out', tmp_path/'run', '--decisions', tmp_path/'d.csv', *TINY, says=['glass/gone.jpg', 'no such photo'])
    assert not (tmp_path/'run').exists()
