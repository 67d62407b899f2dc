"Hands setuptools what settings.ini holds: requirements, extras, console scripts and classifiers."
from configparser import ConfigParser
from setuptools import setup

cfg = ConfigParser(delimiters=['='])
cfg.read('settings.ini', encoding='utf-8')

def lines(key): return [l.strip() for l in cfg['DEFAULT'].get(key, '').splitlines() if l.strip()]

suffix = '_requirements'
extras = {k[:-len(suffix)]: lines(k) for k in cfg['DEFAULT'] if k.endswith(suffix)}

setup(install_requires=lines('requirements'), extras_require=extras, classifiers=lines('classifiers'),
      entry_points=dict(console_scripts=lines('console_scripts'), nbdev=['garbage_fastai=garbage_fastai._modidx:d']))
