"""Sort waste photos with fastai: notebooks, a library and a command line you can read, run and trust

`garbage_fastai` turns a folder of waste photos into a classifier that you understand: which photos it learned from, how often it is right and how sure that figure
is, what it confuses, and where it fails. It is fastai from end to end: the DataLoaders are a `DataBlock`, the model is a `Learner`, and every method you know works on them. It trains on a laptop in minutes,
with pretrained weights that install with pip."""

__version__ = "0.1.0"
