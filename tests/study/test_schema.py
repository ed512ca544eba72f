"""study.json: what is written is read, and nothing else is."""

import json

import pytest

from fasternet_mm.errors import UserError
from fasternet_mm.study import find_pictures, load_study, study_approximation, study_redundancy, study_salient
from fasternet_mm.study.schema import RESULTS, from_json, to_json

from .conftest import make_net


@pytest.fixture(scope='module')
def written(image_folder, tmp_path_factory):
    """The folder that a study of each kind was written to, by its name, and the studies."""
    net, pictures, folder = make_net(), image_folder / 'train', tmp_path_factory.mktemp('studies')
    net.labels.append('made here')
    approximation = study_approximation(net, pictures, folder / 'approximation', ['body.0'], rows=300, steps=10)
    redundancy = study_redundancy(net, pictures, folder / 'redundancy')
    return folder, [approximation, redundancy, study_salient(net, folder / 'salient')]


def test_what_is_written_is_what_is_read(written, pictures):
    folder, studies = written
    assert {study.study for study in studies} <= RESULTS.keys()
    for study in studies:
        assert load_study(folder / study.study) == study
        assert load_study(folder / study.study / 'study.json') == study
        assert study.schema == 'fasternet_mm.study/1' and 'made here' in study.labels
        assert study.environment.packages['torch'] and study.model == 'net'
        if study.study != 'salient':
            assert (study.images.number, study.images.folder) == (len(find_pictures(pictures)), pictures.name)
        files = {path.suffix for path in (folder / study.study).iterdir()}
        assert files == {'.json', '.md', '.png'}
        text = (folder / study.study / 'study.md').read_text()
        assert '**made here**' in text and '## Environment' in text


def test_other_files_are_refused_by_name(written, tmp_path):
    data = json.loads(json.dumps(to_json(written[1][0])))
    layer = data['result']['layers'][0]
    for change, said in (
        (lambda: layer.pop('variance'), r"x: study.result.layers\[0\] has no field 'variance'"),
        (lambda: layer.update(variance='1'), r"variance is '1', expected float"),
        (lambda: layer.update(variance=1.0, other=2), "has an unknown field 'other'"),
        (lambda: data.update(study='features9'), "study.study is 'features9', expected one of approximation"),
        (lambda: data.update(schema='fasternet_mm.report/1'), "has schema 'fasternet_mm.report/1', not"),
    ):
        change()
        with pytest.raises(UserError, match=said):
            from_json(data, 'x')
    with pytest.raises(UserError, match='study not found: .*nothing'):
        load_study(tmp_path / 'nothing')
    (tmp_path / 'study.json').write_text('{')
    with pytest.raises(UserError, match='study.json is not JSON'):
        load_study(tmp_path)
