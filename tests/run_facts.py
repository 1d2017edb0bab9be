"""What two runs must share to be the same run."""

import json
from pathlib import Path

OF_THE_MACHINE = ("seconds", "throughput", "memory_mb", "memory")


def facts(run: Path) -> dict[str, object]:
    """What must be equal between two runs that are the same: all masks, weights and numbers, but no times and no memory."""
    found: dict[str, object] = {str(f.relative_to(run)): f.read_bytes() for f in sorted(run.rglob("*.safetensors"))}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found["metrics"] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    outcomes = json.loads((run / "report.json").read_text())["outcomes"]
    found["outcomes"] = [{k: v for k, v in outcome.items() if k not in OF_THE_MACHINE} for outcome in outcomes]
    return found
