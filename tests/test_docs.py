"The docs build, and a reader finds what they point at: pages, anchors, files, pictures with their text."
import json, os, re, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mistune, pytest, yaml
from nbdev.config import get_config, nbpath2html

from conftest import ROOT, copy_repo, repo_files, run

CFG = get_config(ROOT)
_ast = mistune.create_markdown(renderer='ast', plugins=['table', 'strikethrough'])

class _Html(HTMLParser):
    "Links, pictures and ids of raw HTML"
    def __init__(self, text):
        super().__init__()
        self.links, self.pics, self.ids = [], [], []
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if attrs.get('id'): self.ids.append(attrs['id'])
        if tag == 'a' and attrs.get('href'): self.links.append(attrs['href'])
        if tag == 'img': self.pics.append((attrs.get('src') or '', (attrs.get('alt') or '').strip()))

def _text(tokens): return ''.join(t.get('raw', '') + _text(t.get('children', [])) for t in tokens)

def _slug(title):
    "The id that pandoc gives a heading"
    s = re.sub(r'[^\w\s.-]', '', title.lower()).strip()
    return re.sub(r'^[^a-z]+', '', re.sub(r'\s+', '-', s)) or 'section'

class Page:
    "What one page of the site links to, shows and can be linked by"
    def __init__(self, name, texts, htmls=()):
        self.name, self.links, self.pics, self.ids = name, [], [], set()
        for t in texts: self._walk(_ast(t))
        for h in htmls: self._html(h)

    def _html(self, text):
        h = _Html(text)
        self.links += h.links
        self.pics += h.pics
        self.ids.update(h.ids)

    def _heading(self, title):
        m = re.search(r'\{([^}]*)\}\s*$', title)
        own = m and re.search(r'#([\w.:-]+)', m[1])
        slug = own[1] if own else _slug(title[:m.start()] if m else title)
        n = 0
        while (f'{slug}-{n}' if n else slug) in self.ids: n += 1
        self.ids.add(f'{slug}-{n}' if n else slug)

    def _walk(self, tokens):
        for t in tokens:
            kids = t.get('children', [])
            if t['type'] == 'heading': self._heading(_text(kids))
            elif t['type'] == 'link': self.links.append(t['attrs']['url'])
            elif t['type'] == 'image': self.pics.append((t['attrs']['url'], _text(kids).strip()))
            elif t['type'] in ('block_html', 'inline_html'): self._html(t['raw'])
            self._walk(kids)

def _nb_page(path, name):
    "The page of a processed notebook, and its front matter"
    texts, htmls, front = [], [], {}
    for c in json.loads(path.read_text(encoding='utf-8'))['cells']:
        src = ''.join(c.get('source') or '')
        if c['cell_type'] == 'raw': front.update(yaml.safe_load(src.strip().strip('-')) or {})
        elif c['cell_type'] == 'markdown': texts.append(src)
        elif not re.search(r'^#\|\s*(output|include):\s*false', src, re.M):
            for o in c.get('outputs', []):
                data = {k: ''.join(v) for k, v in o.get('data', {}).items() if k in ('text/markdown', 'text/html')}
                if 'text/markdown' in data: texts.append(data['text/markdown'])
                elif data: htmls.append(data['text/html'])
    html = Path(name).with_name(front.get('output-file', Path(name).with_suffix('.html').name)).as_posix()
    return html, Page(name, texts, htmls), front

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The processed site as {html path: Page}, from a copy, so that nothing is written into the checkout"
    copy = copy_repo(tmp_path_factory.mktemp('docs')/'checkout')
    run(sys.executable, '-c', 'from nbdev.quarto import refresh_quarto_yml; from nbdev.serve import proc_nbs; '
                              'refresh_quarto_yml(); proc_nbs(n_workers=2)', cwd=copy)
    cache, pages, fronts = copy/'_proc', {}, {}
    for p in sorted(cache.rglob('*.ipynb')):
        name = p.relative_to(cache).as_posix()
        html, page, front = _nb_page(p, name)
        assert html not in pages, f'{name} and {pages[html].name} both become {html}'
        pages[html], fronts[name] = page, front
    for p in sorted(cache.rglob('*.[mq]*d')):
        name = p.relative_to(cache)
        pages[name.with_suffix('.html').as_posix()] = Page(name.as_posix(), [p.read_text(encoding='utf-8')])
    return dict(copy=copy, pages=pages, fronts=fronts)

def _words(text):
    "The words that a reader sees, without where links lead"
    return ' '.join(re.findall(r'\w+', re.sub(r'\]\(\s*\S*\s*\)', ']', text)))

def test_no_sentence_is_lost(site):
    "What a source page says, the processed page says: nbdev makes the title cell into front matter, and drops all else that stands in it"
    lost,seen = [],0
    for f in sorted((ROOT/'nbs').rglob('*.ipynb')):
        name = f.relative_to(ROOT/'nbs').as_posix()
        if '.ipynb_checkpoints' in name: continue
        processed = json.loads((site['copy']/'_proc'/name).read_text(encoding='utf-8'))['cells']
        shown = _words('\n'.join(''.join(c['source']) for c in processed))
        for c in json.loads(f.read_text(encoding='utf-8'))['cells']:
            if c['cell_type'] != 'markdown': continue
            text = re.sub(r'^#\|.*$', '', ''.join(c['source']), flags=re.M)
            for part in re.split(r'\n\s*\n', text):
                seen += 1
                if _words(part) not in shown: lost.append(f'{name}: {part[:80]}')
    assert seen > 500 and not lost, '\n'.join(lost[:20])

def _repo_path(url):
    "The file in this repository that a link to GitHub or to a hosted notebook names, else None"
    blob = rf'{re.escape(CFG.user)}/{re.escape(CFG.repo)}/(?:blob|tree|raw|edit)/{re.escape(CFG.branch)}/([^?#]+)'
    m = re.match(r'https://(?:github\.com|colab\.research\.google\.com/github|raw\.githubusercontent\.com)/' + blob, url)
    return m and unquote(m[1])

def _fault(url, base, page, pages, folder):
    "What is wrong with a link of `page`, whose relative links start at `base` within `folder`; '' where nothing is"
    if url.startswith(CFG.doc_url): url, base = url[len(CFG.doc_url):].lstrip('/') or 'index.html', ''
    u = urlsplit(url)
    if u.scheme in ('http', 'https'):
        if not u.netloc or '.' not in u.netloc and u.hostname not in ('localhost', '127.0.0.1') or ' ' in url: return 'is no address'
        f = _repo_path(url)
        if f and not (ROOT/f).exists(): return f'names {f}, which is not in the repository'
        return 'has no line' if f and u.fragment == 'LNone' else ''
    if u.scheme in ('mailto', 'data'): return ''
    if u.scheme: return f'has the unknown scheme {u.scheme}'
    target = page
    if u.path:
        path = os.path.normpath(os.path.join(base, unquote(u.path)))
        if path.endswith('.html.md'): path = path[:-3]
        html = nbpath2html(path).as_posix() if path.endswith('.ipynb') else path
        if path.endswith('.ipynb') and not (folder/path).exists(): return 'names no notebook'
        target = pages.get(html)
        if not target: return '' if not path.endswith(('.html', '.ipynb')) and (folder/path).exists() else 'leads nowhere'
    return f'has no heading or name #{u.fragment} at its end' if u.fragment and u.fragment not in target.ids else ''

def test_links_lead_somewhere(site):
    faults = []
    for html, page in site['pages'].items():
        for url in dict.fromkeys(page.links):
            fault = _fault(url, str(Path(html).parent), page, site['pages'], ROOT/'nbs')
            if fault: faults.append(f'{page.name}: {url} {fault}')
    assert site['pages'] and not faults, '\n'.join(faults)

@pytest.mark.parametrize('name', ['README.md', 'CONTRIBUTING.md'])
def test_links_of_top_pages(site, name):
    page = Page(name, [(ROOT/name).read_text(encoding='utf-8')])
    faults = [f'{u} {f}' for u in page.links if (f := _fault(u, '', page, site['pages'], ROOT))]
    faults += [f'{src}: no such picture' for src, _ in page.pics if not urlsplit(src).scheme and not (ROOT/src).exists()]
    faults += [f'{src}: no text for those who cannot see it' for src, alt in page.pics if not alt]
    assert not faults, '\n'.join([name, *faults])

def test_pictures_exist_and_have_text(site):
    faults = []
    for html, page in site['pages'].items():
        for src, alt in page.pics:
            if not alt: faults.append(f'{page.name}: {src[:60]}: no text for those who cannot see it')
            if not src or not urlsplit(src).scheme and not (ROOT/'nbs'/Path(html).parent/unquote(src)).exists():
                faults.append(f'{page.name}: {src}: no such picture')
    assert not faults, '\n'.join(faults)

def test_every_page_has_title_and_description(site):
    lacking = [n for n, f in site['fronts'].items() if not f.get('title') or (n != 'index.ipynb' and not f.get('description'))]
    assert not lacking, f'no H1 title or `>` description: {", ".join(lacking)}'

def _hrefs(node):
    "Every page that part of a Quarto configuration names"
    if isinstance(node, str): yield node
    elif isinstance(node, list):
        for o in node: yield from _hrefs(o)
    elif isinstance(node, dict):
        for k in ('href', 'file', 'contents', 'left', 'right', 'menu'): yield from _hrefs(node.get(k))

def test_site_configuration(site):
    nbs = ROOT/'nbs'
    cfg = yaml.safe_load((nbs/'_quarto.yml').read_text(encoding='utf-8'))
    listed = list(_hrefs(cfg['website']['sidebar']))
    listed_files = {o for o in listed if not urlsplit(o).scheme}
    named = listed_files | {o for o in _hrefs(cfg['website']['navbar']) if not urlsplit(o).scheme}
    css = cfg['format']['html']['css']
    named |= {css} if isinstance(css, str) else set(css)
    named |= set(cfg['metadata-files'])
    absent = sorted(o for o in named if not (nbs/o).exists())
    assert not absent, f'nbs/_quarto.yml names what is not there: {", ".join(absent)}'
    pages = {f.relative_to('nbs').as_posix() for f in repo_files() if f.suffix == '.ipynb' and f.parts[0] == 'nbs'}
    assert not pages - listed_files, f'not in the sidebar of nbs/_quarto.yml: {", ".join(sorted(pages - listed_files))}'
    assert len(listed) == len(set(listed)), 'a page is twice in the sidebar'
    fresh = (site['copy']/'nbs/nbdev.yml').read_text(encoding='utf-8')
    assert (nbs/'nbdev.yml').read_text(encoding='utf-8') == fresh, 'nbs/nbdev.yml is older than pyproject.toml: run `make docs`'

def test_the_checks_can_fail():
    "A link checker that finds nothing wrong must be able to"
    page = Page('a', ['# One `two` three!\n\n## B {#own}\n\n![](x.png) ![t](y.png) [l](#own) <img src="z.png">'])
    assert page.ids == {'one-two-three', 'own'} and page.links == ['#own']
    assert page.pics == [('x.png', ''), ('y.png', 't'), ('z.png', '')]
    fault = lambda url: _fault(url, '', page, {'a.html': page, 'index.html': page}, ROOT/'nbs')
    good = ['#own', 'a.html#one-two-three', CFG.doc_url, f'{CFG.doc_url}/a.html#own', 'https://fast.ai', 'styles.css',
            f'{CFG.git_url}/blob/main/settings.ini#L1']
    bad = ['#other', 'b.html', 'a.html#x', f'{CFG.doc_url}/b.html', f'{CFG.doc_url}/a.html#x', 'https:///x', 'nothing.css',
           f'{CFG.git_url}/blob/main/nothing.py', f'{CFG.git_url}/blob/main/settings.ini#LNone', '99_none.ipynb']
    assert [u for u in good if fault(u)] == [] and [u for u in bad if not fault(u)] == []
