"Models and archives of strangers: whatever they hold, none of its code runs, nothing is written outside, and one line says why it is refused."
import shutil

from conftest import fails

def test_checkpoint_that_is_a_pickle(evil, tiny_run, sample_dir, tmp_path, capsys):
    shutil.copytree(tiny_run, tmp_path/'run')
    (tmp_path/'run'/'report.html').unlink()
    (tmp_path/'run'/'models').mkdir()
    shutil.copy(evil, tmp_path/'run'/'models'/'checkpoint.pth')
    fails(capsys, 2, 'train', sample_dir, '--out', tmp_path/'run', '--resume', says=['checkpoint.pth', "can't be read"])
