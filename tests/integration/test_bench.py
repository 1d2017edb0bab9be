import json
import sys

import pytest

from spikeprune import cli


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


def test_the_quick_form_measures_checks_and_tells(call, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    wanted = ("mlp", "blocks", "size")
    status, out, err = call("bench", "--quick", *(word for name in wanted for word in ("--workload", name)), "--rounds", 2)
    assert status == 0, err
    report = json.loads((tmp_path / "runs" / "bench-quick" / "report.json").read_text())
    assert {"machine", "versions", "options", "threads", "command"} <= report.keys()
    assert [case["workload"] for case in report["cases"]] == [*wanted]
    for case in report["cases"]:
        assert case["correctness"]["right"] is True
        assert case["correctness"]["tested"] == 64
        assert 0 <= case["correctness"]["accuracy"] <= 1
        assert case["layers"]
        assert all(layer["kernel"] for layer in case["layers"])
    mlp, blocks, size = ({row["name"]: row for row in case["rows"]} for case in report["cases"])
    assert next(iter(mlp)) == next(iter(blocks)) == "spikeprune"
    told = mlp["torch folded"]
    assert told["spread"]["least"] <= told["ratio"] <= told["spread"]["most"]
    assert min(told["amount"], told["wall"], told["least"]) > 0
    assert mlp["SpikingJelly"]["verdict"] in ("met", "missed", "stretch met")
    assert mlp["SpikingJelly"]["same_class"] == 1
    assert blocks["OpenVINO int8"]["amount"] is None
    assert blocks["OpenVINO int8"]["verdict"] == "not measured"
    assert blocks["OpenVINO int8"]["note"] == "not installed: openvino"
    assert blocks["spikeprune, unpruned by scatter"]["accuracy"] is not None
    assert size["dense float32 state_dict"]["amount"] > size["spikeprune, saved engine"]["amount"]
    text = (tmp_path / "runs" / "bench-quick" / "report.md").read_text()
    assert "not installed: openvino" in text
    assert "mean nothing" in text
    assert "Answers right" in out


def test_workloads_are_listed_and_others_refused(call):
    status, out, _ = call("bench", "--list")
    assert status == 0
    assert all(word in out for word in ("mlp", "together", "I10", "M1"))
    status, _, err = call("bench", "--workload", "mpl")
    assert status == 1
    assert "there is no workload 'mpl'; there are mlp, vgg, bits" in " ".join(err.split())


def test_wrong_answers_end_with_an_error(call, monkeypatch):
    from spikeprune.bench.cases import Case, Correctness
    from spikeprune.bench.workloads import WORKLOADS, Workload

    wrong = Case("size", "a title", "a net", "", 1, 8, [], {}, Correctness(1.0, 0, 1, 64, 1.0), [])
    monkeypatch.setitem(WORKLOADS, "size", Workload("M1", "", lambda name, ground: iter([wrong])))
    status, out, err = call("bench", "--quick", "--workload", "size")
    assert status == 1
    assert "WRONG" in out
    assert "wrong answers" in err
