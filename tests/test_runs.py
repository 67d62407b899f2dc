"The folder of a run."
import numpy as np, pandas as pd, pytest

from conftest import ROOT
from garbage_fastai.export import Predictor
from garbage_fastai.runs import find_model_dir, read_run

BEFORE = ROOT/'tests/data/made_before'  # by version 0.0.1, with what it predicted then

@pytest.mark.parametrize('name', ['run', 'model'])
def test_what_was_made_before_predicts_what_it_did(name):
    then = pd.read_csv(BEFORE/f'{name}.csv')
    predictor = Predictor(find_model_dir(BEFORE/name), precision='fp32')
    now = predictor.predict([BEFORE/'photos'/p for p in then['path']], progress=False)
    assert now['predicted'].tolist() == then['predicted'].tolist()
    np.testing.assert_allclose(now[predictor.vocab], then[predictor.vocab], atol=1e-5)

def test_a_run_that_was_made_before_is_read():
    run = read_run(BEFORE/'run')
    assert run.config['classes'] == ['cardboard', 'glass', 'metal', 'paper', 'plastic', 'trash'] and run.metrics['n'] == 18
    assert len(run.preds) and len(run.history) == 2
