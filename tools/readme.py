"Writes README.md from nbs/index.ipynb as `nbdev-readme` does, but without Quarto. `--check` only compares."
import os, re, sys
from pathlib import Path

from fastcore.nbio import read_nb
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup
from nbdev.readme_filter import doc_link

root = Path(__file__).resolve().parents[1]
_fence = re.compile(r'^(`{3,}|~{3,})')
_link = re.compile(r'(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)((?:\s+"[^"]*")?)\)(\{[^}]*\})?')
_src = re.compile(r'(<(?:img|source)\b[^>]*?\bsrc(?:set)?=")([^"]+)"')
_ansi = re.compile(r'\x1B\[[0-?]*[ -/]*[@-~]')

def _is_relative(url): return not re.match(r'[a-z][a-z0-9+.-]*:|#|/', url, re.I)

def _from_root(url):
    "A path relative to `nbs`, as seen from the repository's root"
    return os.path.normpath(f'nbs/{url}') if _is_relative(url) else url

def _fix_line(line, doc_url, lookup):
    "Symbols and pages link to the docs site, files and pictures to their place in the repository; Quarto's `{attributes}` go"
    def _one(m):
        bang, label, url, title = m.groups()[:4]
        if not bang: label = _link.sub(_one, label)  # a badge: a picture inside a link
        url = _from_root(url if bang else doc_link(url, doc_url))
        return f'{bang}[{label}]({url}{title})'
    res, at = [], 0
    for m in _link.finditer(line):
        res += [lookup.link_line(line[at:m.start()]), _one(m)]
        at = m.end()
    res.append(lookup.link_line(line[at:]))
    return _src.sub(lambda m: f'{m[1]}{_from_root(m[2])}"', ''.join(res))

def _markdown(text, doc_url, lookup):
    "Markdown for a reader on GitHub; fenced code is left alone"
    res, fence = [], None
    for line in text.splitlines():
        m = _fence.match(line)
        if fence: fence = None if m and line.startswith(fence) else fence
        elif m: fence = m[1]
        elif line.startswith(':::'): continue
        elif not line.startswith('    '): line = _fix_line(line, doc_url, lookup)
        res.append(line)
    return '\n'.join(res).strip()

def _code(src):
    "A fenced block: shell commands as such, the rest as Python"
    lines = src.strip().splitlines()
    if lines[0].startswith('%%bash'): return '```sh\n' + '\n'.join(lines[1:]) + '\n```'
    if all(l.startswith('!') for l in lines): return '```sh\n' + '\n'.join(l[1:] for l in lines) + '\n```'
    return '```python\n' + '\n'.join(lines) + '\n```'

def _output(out, cell):
    "What a cell showed, as Markdown"
    data = out.get('data', {})
    text = {k: ''.join(v) for k, v in data.items() if k.startswith('text/')}
    if 'text/markdown' in text: return text['text/markdown'].strip()
    if any(k.startswith('image/') for k in data):
        sys.exit(f'nbs/index.ipynb: cell {cell.id} shows a picture; save it in nbs/images and refer to it in markdown')
    if 'text/html' in text: return re.sub(r'(?s)<(style|script)\b.*?</\1>\s*', '', text['text/html']).strip()
    plain = text.get('text/plain') or ''.join(out.get('text', ''))
    plain = _ansi.sub('', plain).rstrip()
    return f'```\n{plain}\n```' if plain else ''

def _cell(cell, *args):
    "The Markdown blocks of one cell"
    dirs = cell.directives
    if cell.cell_type == 'raw' or dirs.keys() & {'hide', 'export', 'exporti', 'default_exp'} or dirs.get('include') == 'false': return
    cell.remove_directives()
    if not cell.source.strip(): return
    if cell.cell_type == 'markdown': yield _markdown(cell.source, *args)
    else:
        if dirs.get('echo') != 'false': yield _code(cell.source)
        if dirs.get('output') != 'false': yield from (_output(o, cell) for o in cell.get('outputs', []))

def make_readme(
    nb_path=root/'nbs/index.ipynb' # The notebook that becomes README.md
) -> str: # Markdown
    "README.md's text"
    cfg = get_config(root)
    args = cfg.doc_url, NbdevLookup(incl_libs=())  # links to this library's own docs only
    blocks = [b for c in read_nb(nb_path).cells for b in _cell(c, *args) if b]
    return '\n\n'.join(['<!-- Written from nbs/index.ipynb by `make export`: edit the notebook, not this file -->', *blocks]) + '\n'

def main():
    readme, text = root/'README.md', make_readme()
    if readme.exists() and readme.read_text(encoding='utf-8') == text: return
    if '--check' in sys.argv[1:]: sys.exit('README.md does not match nbs/index.ipynb: run `make export`')
    tmp = readme.with_suffix('.tmp')
    tmp.write_text(text, encoding='utf-8')
    os.replace(tmp, readme)

if __name__ == '__main__': main()
