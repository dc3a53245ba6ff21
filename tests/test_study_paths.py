"""Where the project is, whose it is, and that files are written whole."""

import ast
import os
import re
import subprocess
import sys

import pytest
from tiny import ENVIRONMENT, ROOT

from snipkit._files import replacing
from snipkit.study import paths
from snipkit.study.report import figures


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in (paths.HOME_VARIABLE, paths.DATA_VARIABLE, paths.PROFILE_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project and a folder inside it, which is the working directory."""
    (tmp_path / "project/notebooks/profiles").mkdir(parents=True)
    (tmp_path / "project/src").mkdir()
    monkeypatch.chdir(tmp_path / "project/src")
    return tmp_path / "project"


def test_home_is_the_project_around_the_working_directory(project):
    assert paths.home() == paths.project() == project
    assert paths.data_root() == project / "data"
    assert paths.results("laptop") == project / "results/laptop"
    assert paths.figures("laptop") == project / "figures/laptop"


def test_elsewhere_it_is_the_checkout_of_the_code(tmp_path, monkeypatch):
    """So a page that papermill runs from any folder finds its records."""
    (tmp_path / "notebooks").mkdir()  # somebody's own: without profiles they are not the study's
    monkeypatch.chdir(tmp_path)
    assert paths.home() == paths.project() == ROOT


def test_without_a_project_the_searched_folder_is_named(tmp_path, monkeypatch):
    """As for a package that was installed from a wheel."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "lib/snipkit/study/paths.py"))
    assert paths.home() == tmp_path and paths.data_root() == tmp_path / "data"
    with pytest.raises(
        ValueError, match=f"neither {tmp_path} nor a folder above it is the project"
    ):
        paths.results("laptop")


def test_a_file_system_without_modes_holds_a_project(project):
    """A clone on a Windows drive in WSL: all folders are open to everybody."""
    for folder in (project, project / "notebooks", project / "notebooks/profiles"):
        folder.chmod(0o777)
    assert paths.home() == project


def test_notebooks_that_anybody_may_have_made_are_no_project(project, monkeypatch):
    project.chmod(0o1777)  # as /tmp is
    assert paths.home() == ROOT
    project.chmod(0o777)
    real = paths.Path.stat

    def stat(path, **options):
        """The notebooks belong to another user than the folder around them."""
        result = list(real(path, **options))
        result[4] += path.name == "notebooks"
        return os.stat_result(result)

    monkeypatch.setattr(paths.Path, "stat", stat)
    assert paths.home() == ROOT


def test_home_and_data_root_by_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SNIPKIT_HOME", str(tmp_path))
    assert (paths.home(), paths.data_root()) == (tmp_path, tmp_path / "data")
    monkeypatch.setenv("SNIPKIT_DATA", str(tmp_path / "elsewhere"))
    assert paths.data_root() == tmp_path / "elsewhere"
    monkeypatch.setenv("SNIPKIT_HOME", str(tmp_path / "mistyped"))
    with pytest.raises(ValueError, match=r"\$SNIPKIT_HOME is '.*mistyped', and there is no such"):
        paths.results("laptop")


def test_a_tilde_is_the_home_folder_and_blanks_are_no_part_of_a_name(tmp_path, monkeypatch):
    """In files of settings no shell expands them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "study").mkdir()
    monkeypatch.setenv("SNIPKIT_HOME", "~/study")
    monkeypatch.setenv("SNIPKIT_DATA", " ~/data ")
    assert paths.home() == tmp_path / "study" and paths.data_root() == tmp_path / "data"
    monkeypatch.setenv("SNIPKIT_DATA", "  ")
    assert paths.data_root() == tmp_path / "study/data"
    monkeypatch.setenv("SNIPKIT_DATA", "~no-such-user/data")
    with pytest.raises(ValueError, match="'~no-such-user/data': .* home folder"):
        paths.data_root()


def test_the_temporary_folder_is_this_users_own(tmp_path, monkeypatch):
    monkeypatch.setattr(paths.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = paths.temporary()
    assert folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700
    assert paths.temporary() == folder
    for mode in (0o720, 0o702):
        folder.chmod(mode)
        with pytest.raises(PermissionError, match=folder.name):
            paths.temporary()
    folder.rmdir()
    (tmp_path / "other").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "other")
    with pytest.raises(PermissionError):
        paths.temporary()
    user = os.getuid() + 1
    (tmp_path / f"snipkit-{user}").mkdir(mode=0o700)
    monkeypatch.setattr(paths.os, "getuid", lambda: user)  # now the folder is somebody else's
    with pytest.raises(PermissionError, match=f"snipkit-{user}"):
        paths.temporary()


def test_a_page_run_by_hand_leaves_committed_figures_alone(tmp_path, monkeypatch):
    """It may have other parameters than the profile's; the study's commands set these."""
    monkeypatch.setenv("SNIPKIT_HOME", str(tmp_path))
    monkeypatch.setattr(paths, "_in_ipython", lambda: True)
    for profile in ("overnight", "paper", "registered"):
        assert paths.figures_to_write(profile) == tmp_path / "figures/by-hand" / profile
    assert paths.figures_to_write("lesson") == tmp_path / "figures/lesson"
    monkeypatch.setenv(paths.PROFILE_VARIABLE, "overnight")
    assert paths.figures_to_write("overnight") == tmp_path / "figures/overnight"
    assert paths.figures_to_write("paper") == tmp_path / "figures/by-hand/paper"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.md"
    paths.write_text(path, "naïve – 1")
    with pytest.raises(RuntimeError), replacing(path) as unfinished:
        unfinished.write_text("half", encoding="utf-8")
        raise RuntimeError
    assert path.read_bytes() == "naïve – 1".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_utf_8_in_every_locale(tmp_path):
    """In the strictest: an old cluster's, which knows ASCII only."""
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code = "import pathlib; from snipkit.study import paths; "
    code += "paths.write_text(pathlib.Path('a'), chr(0x2013))"
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT | locale, check=True)
    assert (tmp_path / "a").read_bytes() == "\u2013".encode()


def by_the_locale(path):
    """The calls in a Python file that read or write text by the locale's encoding."""
    calls = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        function, text = ast.unparse(node.func), ast.unparse(node)
        by_path = (
            function.endswith((".read_text", ".write_text")) and function != "paths.write_text"
        )
        by_name = function == "open" and not re.search(r"'[rwa]b\+?'", text)
        if (by_path or by_name) and "encoding=" not in text:
            calls.append(f"{path.relative_to(ROOT)}:{node.lineno} {text}")
    return calls


def test_every_text_file_is_read_and_written_by_a_named_encoding():
    calls, count = [], 0
    for folder in ("snipkit", "docs", "notebooks"):
        for path in (ROOT / folder).rglob("*.py"):
            calls += by_the_locale(path)
            count += 1
    assert count > 40 and not calls


def test_figures_go_through_the_same_door(tmp_path, monkeypatch):
    """A table whose writing fails leaves the one that was there."""
    monkeypatch.setenv("SNIPKIT_HOME", str(tmp_path))
    frame = figures.pd.DataFrame({"a": [1]})
    figures.save_table(frame, "table", "lesson")
    before = (tmp_path / "figures/lesson/table.csv").read_bytes()
    monkeypatch.setattr(paths.Path, "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        figures.save_table(frame * 2, "table", "lesson")
    assert (tmp_path / "figures/lesson/table.csv").read_bytes() == before


def test_a_blank_variable_is_none(project, monkeypatch):
    monkeypatch.setenv(paths.HOME_VARIABLE, "  ")
    assert paths.home() == paths.project() == project


def test_another_clones_code_is_told(project):
    """As where Jupyter's environment has the package of one clone, and shows a page of another."""
    module = project / "snipkit/study/paths.py"
    module.parent.mkdir(parents=True)
    module.touch()
    with pytest.warns(UserWarning, match=f"the project is {project}, but .* {ROOT}") as caught:
        paths.home()
        paths.home()
    assert len(caught) == 1


def test_the_projects_own_code_is_not_told(monkeypatch, recwarn):
    monkeypatch.chdir(ROOT)
    assert paths.home() == ROOT and not recwarn


def test_a_link_to_a_file_stays_a_link(tmp_path):
    (tmp_path / "real.md").write_text("old")
    (tmp_path / "link.md").symlink_to(tmp_path / "real.md")
    paths.write_text(tmp_path / "link.md", "new")
    assert (tmp_path / "link.md").is_symlink() and (tmp_path / "real.md").read_text() == "new"
