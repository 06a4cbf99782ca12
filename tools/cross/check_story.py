#!/usr/bin/env python3
"""
Runs a cross-built sluice under the wrapper that meson names and compares its greedy continuations
with those of the reference, up to the first step whose two best logits are too near to call.
usage: check_story.py SLUICE MODEL
"""
import json
import os
import pathlib
import shlex
import subprocess
import sys

MARGIN = 1e-3


def continuation(command, prompt_ids, n):
    args = ["--ids", "-", "--print-ids", "--ignore-eos", "--temperature", "0", "--precision", "exact"]
    run = subprocess.run([*command, *args, "-n", str(n)], input=" ".join(map(str, prompt_ids)),
                         capture_output=True, text=True, check=False)
    if run.returncode:
        print(f"# exit status {run.returncode}: {run.stderr.strip()}")
    return [int(word) for word in run.stdout.split()]


def main():
    sluice, model = sys.argv[1:]
    command = [*shlex.split(os.environ.get("MESON_EXE_WRAPPER", "")), sluice, "run", model]
    entries = json.loads((pathlib.Path(model) / "greedy.json").read_text())
    print(f"1..{len(entries)}")
    bad = 0
    for n, entry in enumerate(entries, 1):
        want = entry["greedy_ids"]
        sure = next((i for i, m in enumerate(entry["margins"]) if m < MARGIN), len(want))
        good = sure > 0 and continuation(command, entry["prompt_ids"], len(want))[:sure] == want[:sure]
        print(f"{'ok' if good else 'not ok'} {n} - {entry['prompt']}", flush=True)
        bad += not good
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
