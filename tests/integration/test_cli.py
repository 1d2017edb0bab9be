import json
import os
import subprocess
import sys

import pytest

from spikeprune import cli
from spikeprune.recipes.methods import METHODS
from spikeprune.report.page import Claim, Section
from spikeprune.studies.cqp import study as cqp
from spikeprune.studies.rows import Rows
from spikeprune.studies.slamp import study as slamp
from spikeprune.studies.study import Study


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Run the command line in this process, in an empty folder; gives status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["spikeprune", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return end.value.code or 0, out, err

    return call


def test_run_report_and_profile_work_together(call, tiny, tmp_path, monkeypatch):
    status, out, _ = call("run", tiny, "--seeds", 2, "prune.stages=[0.9]")
    assert status == 0
    folder = tmp_path / "runs" / "tiny-prune.stages=[0.9]"  # square brackets must survive the printing
    assert (folder / "seed-0" / "report.html").exists()
    assert (folder / "seed-1" / "report.html").exists()
    assert all(word in out for word in ("dense", "cqp", "random", "±", "SynOps", "energy", str(folder.relative_to(tmp_path))))

    status, out, _ = call("run", folder / "seed-0")
    assert status == 0
    assert f"Report: {folder / 'seed-0' / 'report.html'}" in out.replace("\n", "")

    assert call("run", tiny, "prune.stages=[0.9]", "method.alpha=1.0", "--out", "other[/x]")[0] == 0
    status, out, _ = call("report", folder, "other[/x]/seed-0")
    assert status == 0
    joined = json.loads((tmp_path / "comparison" / "report.json").read_text())
    assert [(o["label"], o["seed"]) for o in joined["outcomes"]] == [
        ("dense", 0), ("cqp", 0), ("random", 0), ("dense", 1), ("cqp", 1), ("random", 1), ("cqp alpha=1.0", 0),
    ]  # fmt: skip
    assert all(word in out for word in ("cqp alpha=1.0", "peak MB", "revived"))
    monkeypatch.setattr(cli.out, "width", 80)
    narrow = call("report", folder, "other[/x]/seed-0")[1]
    assert all(word in narrow for word in ("cqp alpha=1.0", "accuracy"))
    assert not any(word in narrow for word in ("peak MB", "revived"))

    status, out, _ = call("profile", folder / "seed-0")
    assert status == 0
    assert all(word in out for word in ("cqp", "fc1", "fc2", "MAC", "lif1"))
    status, out, _ = call("profile", folder / "seed-0", "--network", "dense", "--json")
    assert json.loads(out)["density"] == 1.0

    for args, part in (
        (["profile", folder], "holds 2 runs; name one"),
        (["profile", folder / "seed-0", "--network", "lamp"], "it has dense, cqp, random"),
        (["run", folder / "seed-0", "seed=1"], "whose recipe is fixed"),
        (["run", tiny, "--out", folder / "seed-0"], "is a run directory itself"),
    ):
        status, _, err = call(*args)
        assert status == 1
        assert part in err.replace("\n", " ")
    (folder / "seed-0" / "report.json").write_text("{}")
    status, _, err = call("profile", folder / "seed-0")
    assert status == 1
    assert "damaged" in err


def test_methods_lists_every_method_with_its_paper(call):
    status, out, _ = call("methods")
    assert status == 0
    for name, entry in METHODS.items():
        assert name in out
        assert entry.paper.split(",")[0] in out


def test_help_and_version(call):
    for args in (["--help"], ["run", "--help"], ["--version"]):
        assert call(*args)[0] == 0


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["run", "cqp-mnits"], ["cqp-mnist"]),
        (["run", "demo", "prune.epoch=3"], ["prune.epoch", "epochs"]),
        (["run", "demo", "prune.stages=[1.5]"], ["prune.stages", "[0, 1)"]),
        (["run", "demo", "prune.layers=['fc9']", "train.epochs=1"], ["fc9", "fc1, fc2, fc3"]),
        (["run", "nowhere.toml"], ["nowhere.toml", "No such file"]),
        (["run", "demo", "baselines=3"], ["baselines", "list", "3"]),
        (["run", "demo", "train.lr=inf"], ["train.lr", "finite"]),
        (["run", "demo", "train.batch=100000000000000000000"], ["train.batch", "1000000"]),
        (["report", "nowhere"], ["nowhere", "no run directory"]),
        (["profile", "nowhere"], ["nowhere", "no run directory"]),
    ],
)
def test_an_error_is_one_message_and_no_traceback(call, args, parts):
    status, _, err = call(*args)
    assert status == 1
    assert "error:" in err
    assert "Traceback" not in err
    assert all(part in err for part in parts), err


def test_an_unfinished_run_is_not_reported(call, tiny, tmp_path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "recipe.toml").write_text(tiny.read_text())
    status, _, err = call("report", "half")
    assert status == 1
    assert "not finished" in err


def test_a_full_disk_is_one_message_and_leaves_earlier_files_intact(tiny, tmp_path):
    """A limit on the size of files stands in for a full disk: the write itself fails, in the middle."""
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    whole = subprocess.run(
        [sys.executable, "-m", "spikeprune", "run", tiny, "--out", "runs", "prune.stages=[0.9]"], cwd=tmp_path, env=env
    )
    assert whole.returncode == 0
    before = {f: f.read_bytes() for f in sorted((tmp_path / "runs").rglob("*")) if f.is_file()}
    limit = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "from spikeprune import cli; sys.argv[0] = 'spikeprune'; cli.main()"
    )
    args = ["run", str(tiny), "--out", "runs", "prune.stages=[0.9]", "seed=1"]
    full = subprocess.run([sys.executable, "-c", limit, *args], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert full.returncode == 1
    assert "error:" in full.stderr
    assert "File too large" in full.stderr
    assert "Traceback" not in full.stderr
    assert {f: f.read_bytes() for f in before} == before
    assert not list((tmp_path / "runs").rglob("*.part"))


@pytest.fixture
def asked(monkeypatch):
    """What studies are called with; none is run."""
    calls = []

    def run(data, path, **options):
        options.pop("watch")
        calls.append((data, str(path), options))
        return Study("t", "", [Section("a", "A", claims=[Claim("it holds", "9", "8", "partly", "rule")])], {}, Rows([]))

    for module in (cqp, slamp):
        monkeypatch.setattr(module, "run", run)
    return calls


@pytest.mark.parametrize("extra", [["--net", "vgg16"], ["net.width=0.25"]])
def test_the_study_of_a_fixed_network_takes_no_other(call, asked, extra):
    status, _, err = call("study", "cqp", "--quick", *extra)
    assert status == 1
    assert "takes no --net and no key=value" in " ".join(err.split())
    assert asked == []


def test_a_network_named_twice_is_refused(call, asked):
    status, _, err = call("study", "slamp", "--quick", "--net", "vgg9", "net.name=vgg16")
    assert (status, asked) == (1, [])
    assert "named twice" in " ".join(err.split())


def test_a_study_without_changes_is_given_none(call, asked):
    assert call("study", "cqp", "--data", "mnist", "--seeds", 2)[0] == 0
    assert call("study", "slamp", "--quick", "--fresh")[0] == 0
    assert asked == [
        ("mnist", "runs/study-cqp-mnist", {"seeds": 2, "quick": False, "fresh": False}),
        ("fashion-sample", "runs/study-slamp-fashion-sample-quick", {"seeds": 1, "quick": True, "fresh": True, "overrides": []}),
    ]


def test_a_study_of_another_network_has_a_folder_of_its_own(call, asked):
    status, out, _ = call("study", "slamp", "net.width=0.25", "train.epochs=2", "--data", "cifar10", "--net", "vgg16")
    assert status == 0
    ((data, path, options),) = asked
    assert (data, options["seeds"]) == ("cifar10", 3)
    assert options["overrides"] == ["net.name=vgg16", "net.width=0.25", "train.epochs=2"]
    assert path == "runs/study-slamp-cifar10-net.name=vgg16-net.width=0.25-train.epochs=2"
    assert all(word in out for word in ("it holds", "partly", f"{path}/report.html"))


def test_a_study_needs_data_unless_it_is_quick(call, asked):
    status, _, err = call("study", "slamp")
    assert status == 1
    assert "name the data with --data: fashion-mnist, nmnist-1k" in " ".join(err.split())
    assert asked == []
