"""Every pair of id types, wherever an id can be put: exactly the listed conversions compile.

The tables are read from the headers by the preprocessor. From them a source is generated in which
each use of each type (and of integers and pointers) where another is meant stands on a line of its
own; the lines with errors must be exactly those that the tables do not allow.

usage: pairs.py ID COMPILER... -- FLAG... -- FOLDER_FOR_THE_SOURCE
"""
import os
import re
import subprocess
import sys

from diagnostics import Tap, compile_file, error_lines, parse_arguments

TABLES = r"""
#include "ir/graph.h"
#define R(role, elem, rows, text) @type buf_##role;
#define U(role) @type buf_##role; @union buf_##role as_##role;
ROLES(R) UNIONS(U)
#undef U
#define WR(role, kind, text) @type wt_##role;
#define U(role) @type wt_##role; @union wt_##role as_##role;
WEIGHT_ROLES(WR) WEIGHT_UNIONS(U)
#undef U
#define S(kind) @type state_##kind;
STATES(S)
#undef S
#define C(to, from) @convert buf_##to buf_##from;
#define U(role) CONVERSIONS_##role(C)
UNIONS(U)
#undef C
#undef U
#define C(to, from) @convert wt_##to wt_##from;
#define U(role) WEIGHT_CONVERSIONS_##role(C)
WEIGHT_UNIONS(U)
#define B(op, mode, role, name) @field op name buf_##role;
#define W(op, role, name) @field op name wt_##role;
#define S(op, mode, kind, name) @field op name state_##kind;
#define V(op, type, name)
#define P(op) OP_##op(B, W, S, V)
OPS(P)
#undef P
#define P(w, in, out) @push push_##w buf_##in,wt_##w buf_##out;
PROJECTIONS(P)
#define N(w, in, out) @push push_##w buf_##in,wt_##w,1e-6f buf_##out;
NORMS(N)
#define T(name, in, out) @push push_rope_##name buf_##in,buf_rope_table,8,4 buf_##out;
ROTATIONS(T)
#define A(w, b, in, out) @push push_##w##_biased buf_##in,wt_##w,wt_##b buf_##out;
AFFINES(A)
"""

# What is no id at all.
STRANGERS = ["v_int", "v_pointer", "0", "NULL", "(uint32_t)7"]


def read_tables(compiler, flags):
    run = subprocess.run(compiler[1] + flags + ["-E", "-P", "-x", "c", "-"], input=TABLES,
                         capture_output=True, text=True, check=True)
    tables = {"type": [], "union": [], "convert": [], "field": [], "push": []}
    for kind, rest in re.findall(r"@(\w+)\s+([^;@]*);", run.stdout):
        tables[kind].append(re.sub(r"\s*,\s*", ",", rest).split())
    return tables


class Source:
    """Lines of C; those of a block are uses, each legal or not."""

    def __init__(self):
        self.lines, self.legal, self.blocks, self.block = [], {}, {}, None

    def add(self, text):
        self.lines.append(text)

    def begin(self, block):
        self.block = block
        self.add("static void in_%s(struct graph *g)" % block)
        self.add("{")
        self.add("    (void)g;")

    def use(self, text, legal):
        self.add("    " + text)
        self.legal[len(self.lines)] = legal
        self.blocks[len(self.lines)] = self.block

    def end(self):
        self.add("}")


def value(name):
    return name if name in STRANGERS else "v_" + name


def write_declarations(source, types):
    source.add("/* generated */")
    source.add('#include "ir/graph.h"')
    source.add("extern uint32_t v_int;")
    source.add("extern void *v_pointer;")
    for name in types:
        source.add(f"extern {name} v_{name};")
        source.add(f"void take_{name}({name} id);")


def write_uses(source, tables):
    types = [row[0] for row in tables["type"]]
    everything = types + STRANGERS
    converts = {tuple(row) for row in tables["convert"]}
    source.begin("parameter")
    for want in types:
        for have in everything:
            source.use(f"take_{want}({value(have)});", want == have)
    source.end()
    source.begin("conversion")
    for union, macro in tables["union"]:
        for have in everything:
            source.use(f"take_{union}({macro}({value(have)}));", (union, have) in converts)
    source.end()
    source.begin("payload")
    for op, field, want in tables["field"]:
        for have in everything:
            if have == "0":
                continue  # the same as leaving the field out: id 0, which the builder refuses
            source.use(f"(void)(struct op_{op}){{.{field} = {value(have)}}};", want == have)
    source.end()
    source.begin("push")
    for function, parameters, result in tables["push"]:
        parameters = parameters.split(",")
        names = [p if p[0] in "0123456789" else "v_" + p for p in parameters]
        for n, want in enumerate(parameters):
            if want not in types:
                continue
            for have in everything:
                given = ", ".join(names[:n] + [value(have)] + names[n + 1:])
                source.use(f"{function}(g, {given});", want == have)
        for want in types:
            source.use(f"v_{want} = {function}(g, {', '.join(names)});", want == result)
    source.end()


def check(source, block, lines):
    problems = []
    for n, legal in source.legal.items():
        if source.blocks[n] != block:
            continue
        if legal and n in lines:
            problems.append(f"refused: {source.lines[n - 1].strip()} {lines[n]}")
        elif not legal and n not in lines:
            problems.append(f"accepted: {source.lines[n - 1].strip()}")
    return problems


def main():
    compiler, flags, (folder,) = parse_arguments(sys.argv[1:])
    tables = read_tables(compiler, flags)
    source = Source()
    write_declarations(source, [row[0] for row in tables["type"]])
    write_uses(source, tables)
    path = os.path.join(folder, f"pairs_{compiler[0]}.c")
    with open(path, "w", encoding="ascii") as out:
        out.write("\n".join(source.lines) + "\n")
    _, messages = compile_file(compiler, flags, path)
    lines, elsewhere = error_lines(messages, path)
    blocks = ["parameter", "conversion", "payload", "push"]
    tap = Tap(len(blocks) + 2)
    for block in blocks:
        legal = [n for n in source.legal if source.blocks[n] == block]
        allowed = sum(source.legal[n] for n in legal)
        tap.report(check(source, block, lines),
                   f"{block}: {allowed} of {len(legal)} uses compile and no others")
    stray = [f"{path}:{n}: {text}" for n, text in lines.items() if n not in source.legal]
    tap.report(stray + elsewhere, "there are no other errors")
    counts = {kind: len(rows) for kind, rows in tables.items()}
    small = [f"only {counts[kind]} rows of {kind}" for kind, least in
             {"type": 90, "union": 12, "convert": 60, "field": 80, "push": 20}.items()
             if counts[kind] < least]
    names = [row[0] for row in tables["type"]]
    small += [f"{name} is two types" for name in sorted(set(names)) if names.count(name) > 1]
    tap.report(small, "the tables are not empty and name each type once")
    sys.exit(tap.failed)


main()
