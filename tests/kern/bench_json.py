"""kerncheck --bench --json: one object a line, the machine first, and what each row must hold."""
import json
import subprocess
import sys

GLOBS = ["add *", "rope_pairs *", "dequant_row/q4 *"]
ROW = {"name", "from", "n", "threads", "seconds", "low", "high", "best", "cycles", "gb_per_s", "gop_per_s"}


def main(program):
    result = subprocess.run([program, "--bench", "--json", "--seed", "7", *GLOBS], stdout=subprocess.PIPE,
                            text=True, check=True)
    machine, read, *rows = (json.loads(line) for line in result.stdout.splitlines())
    assert set(machine) == {"processor", "sets", "threads", "seed"}, machine
    assert machine["processor"] and machine["sets"] and machine["threads"] == 1 and machine["seed"] == 7
    assert read["name"] == "streaming read" and read["gb_per_s"] > 0, read
    sets = set(machine["sets"].split()) - {"scalar", "streams", "bf16pairs"}  # these add no instructions
    levels = 1 + len(sets)
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names) == levels * len(GLOBS), names
    assert {name.split()[0] for name in names} == {glob.split()[0] for glob in GLOBS}, names
    for row in rows:
        assert ROW <= set(row), row
        assert 0 < row["best"] <= row["low"] <= row["seconds"] <= row["high"], row
        assert row["gb_per_s"] > 0 and row["gop_per_s"] > 0 and row["cycles"] > 0, row


main(sys.argv[1])
