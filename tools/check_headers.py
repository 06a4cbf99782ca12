#!/usr/bin/env python3
"""
Fails when a header does not compile alone (and twice in a row), or the public one not as C++.
usage: check_headers.py [--root DIR] [--cxx C++ COMPILER] -- C COMPILER AND FLAGS
"""
import argparse
import concurrent.futures
import os
import pathlib
import subprocess
import sys

# Headers that only compile with the flags of their instruction set.
SPECIAL = {pathlib.PurePath("kernel/x86"), pathlib.PurePath("kernel/arm"), pathlib.PurePath("kernel/simd")}
CXX_FLAGS = ["-std=c++11", "-pedantic", "-Wall", "-Wextra", "-Werror"]


def compile_twice(command, language, header, root):
    source = f'#include "{header}"\n' * 2 + "int check_headers_here;\n"
    run = subprocess.run([*command, "-fsyntax-only", f"-I{root}/include", f"-I{root}/src",
                          "-x", language, "-"], input=source, capture_output=True, text=True)
    return "" if run.returncode == 0 else f"{header}: does not compile alone as {language}\n{run.stderr}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path("."))
    parser.add_argument("--cxx", default="")
    parser.add_argument("cc", nargs="+")
    args = parser.parse_args()
    jobs = []
    for top in ("include", "src"):
        for path in sorted((args.root / top).rglob("*.h")):
            header = path.relative_to(args.root / top)
            if header.parent in SPECIAL:
                continue
            jobs.append((args.cc, "c", header, args.root))
            if top == "include" and args.cxx:
                jobs.append((args.cxx.split() + CXX_FLAGS, "c++", header, args.root))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [text for text in pool.map(lambda job: compile_twice(*job), jobs) if text]
    print("\n".join(found) or f"{len(jobs)} headers")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
