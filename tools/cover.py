#!/usr/bin/env python3
"""Prints line and branch coverage by layer; fails when a layer is under its floor (needs gcovr)."""
import collections
import json
import subprocess
import sys

# Percent of lines. Kernels are measured by the list of what kerncheck ran, not by lines.
FLOORS = {"base": 90, "format": 85, "io": 75, "ir": 85, "state": 85, "store": 85, "model": 85,
          "token": 85, "engine": 80, "backend": 80}


def main():
    out = subprocess.run(["gcovr", "--root", ".", "--filter", "src/", "--json-summary", "-",
                          "--exclude-unreachable-branches", sys.argv[1]],
                         capture_output=True, text=True, check=True).stdout
    totals = collections.defaultdict(lambda: [0, 0, 0, 0])
    for row in json.loads(out)["files"]:
        sums = totals[row["filename"].split("/")[1]]
        for i, key in enumerate(("line_covered", "line_total", "branch_covered", "branch_total")):
            sums[i] += row[key]
    low = 0
    print(f"{'layer':10}{'lines':>8}{'branches':>10}{'floor':>7}")
    for layer, (lines, all_lines, branches, all_branches) in sorted(totals.items()):
        percent = 100 * lines / max(all_lines, 1)
        under = percent < FLOORS.get(layer, 0)
        low += under
        print(f"{layer:10}{percent:7.1f}%{100 * branches / max(all_branches, 1):9.1f}%"
              f"{FLOORS.get(layer, 0):6}%{'  too low' if under else ''}")
    return 1 if low or not totals else 0


if __name__ == "__main__":
    sys.exit(main())
