#!/usr/bin/env python3
"""
Counts the cases of meson test runs: each TAP line is one case, a test without TAP is one.
usage: count_tests.py [--failures N] meson-logs/NAME.json...
N is added to the failed cases (steps that broke before any test could say so).
Prints "N passed, N failed, N skipped"; exit status 1 when a case failed or none ran.
"""
import argparse
import json
import pathlib
import re
import sys

CASE = re.compile(r"(not )?ok\b(?:[^#\n]|\\#)*(?:#\s*(skip))?", re.I)
PLAN = re.compile(r"^1\.\.\d+", re.M)
GOOD = {"OK", "EXPECTEDFAIL"}


def count_tap(text):
    passed = failed = skipped = 0
    for line in text.splitlines():
        case = CASE.match(line)
        if not case:
            continue
        if case[2]:
            skipped += 1
        elif case[1]:
            failed += 1
        else:
            passed += 1
    return passed, failed, skipped


def count_test(row):
    stdout = row.get("stdout") or ""
    good, skip = row["result"] in GOOD, row["result"] == "SKIP"
    counts = count_tap(stdout) if PLAN.search(stdout) else (0, 0, 0)
    if not any(counts):
        return int(good), int(not good and not skip), int(skip)
    passed, failed, skipped = counts
    if not good and not skip and failed == 0:
        failed = 1  # died between cases, or told more or fewer than it planned
    return passed, failed, skipped


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--failures", type=int, default=0)
    parser.add_argument("logs", nargs="*", type=pathlib.Path)
    args = parser.parse_args()
    total = [0, args.failures, 0]
    for log in args.logs:
        for line in log.read_text().splitlines():
            total = [a + b for a, b in zip(total, count_test(json.loads(line)))]
    print("{} passed, {} failed, {} skipped".format(*total))
    return 1 if total[1] or not total[0] else 0


if __name__ == "__main__":
    sys.exit(main())
