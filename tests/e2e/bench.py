"""
bench, trace and cache-sim on the storyteller: the structure of what they print, the golden gate, and
that the numbers agree with each other. Times are whatever they are.
"""
from xml.etree import ElementTree

import harness

MODEL = harness.STORYTELLER
LAYERS, EXPERTS, USED = 8, 32, 4
ATTEMPTS = 3
ALL = LAYERS * EXPERTS
POLICIES = ["lru", "lfu", "lfuda", "auto", "optimum"]
SHORT = ("--pairs", 2, "-n", 4)
PROBE = ("--probe", 2)
PROMPTS = ("Once upon a time there was a fox who", "The old house by the river")
IDS = " ".join(str(17 * i % 900 + 3) for i in range(40)).encode()


def streamed(sluice, *options):
    result = sluice.good("bench", MODEL, "--stream", *SHORT, *PROBE, "--json", *options)
    return result.json


def check_figures(complaints, name, f):
    """What must hold of one measurement, however long it took."""
    for key in ("ms", "tokens_per_second"):
        if not f[key] > 0:
            complaints.append(f"{name}: {key} is {f[key]}")
    if f["hits"] + f["misses"] != LAYERS * USED:
        complaints.append(f"{name}: {f['hits']} hits and {f['misses']} misses a token")
    if (f["bytes_read"] > 0) != (f["misses"] > 0):
        complaints.append(f"{name}: {f['bytes_read']} bytes for {f['misses']} misses")
    if f["wait_ms"] > f["ms"]:
        complaints.append(f"{name}: waits longer than it takes")
    if abs(f["limit_ms"] / f["ms"] - f["of_limit"]) > 1e-6:
        complaints.append(f"{name}: of_limit is {f['of_limit']}")


def check_report(complaints, report, slots):
    if report["experts"] != ALL or [r["slots"] for r in report["results"]] != slots:
        complaints.append(f"experts or slots: {report}")
    drive = report["drive"]
    rates = drive["before"] + drive["after"] + [drive["rate"], report["dram_rate"]]
    if drive["depths"] != [1, 4, 16, 64] or not all(rate > 0 for rate in rates):
        complaints.append(f"drive: {drive}")
    if drive["rate"] < max(drive["before"] + drive["after"]) * (1 - 1e-9):
        complaints.append("the best rate of the drive is not the best")
    for result in report["results"]:
        check_figures(complaints, "cold", result["cold"])
        if len(result["samples"]) != 2:
            complaints.append(f"{len(result['samples'])} samples")
        for sample in result["samples"]:
            check_figures(complaints, "sample", sample)
        if not result["optimum_misses"] <= min(result["misses"], result["lru_misses"]):
            complaints.append(f"misses: {result}")
        if not result["warm"]["ms_low"] <= result["warm"]["ms"] <= result["warm"]["ms_high"]:
            complaints.append(f"spread: {result['warm']}")
    gate = report["gate"]
    if gate["tokens_made"] < 12 or gate["tokens_agreed"] != gate["tokens_made"]:
        complaints.append(f"gate: {gate}")


def check_stream(tap, sluice):
    with tap.case("bench --stream: the model's routing, three budgets") as complaints:
        report = streamed(sluice)
        check_report(complaints, report, [ALL // 4, ALL // 2, 3 * ALL // 4])
        if report["forced"] or report["route"] is not None or not report["resident_ms"] > 0:
            complaints.append(f"route or resident: {report}")
    with tap.case("bench --stream --ram, against mapped experts") as complaints:
        report = streamed(sluice, "--ram", "40M", "--against", "mmap")
        check_report(complaints, report, [report["results"][0]["slots"]])
        result = report["results"][0]
        if result["plan_bytes"] > 40 << 20 or result["ram"] != 40 << 20:
            complaints.append(f"plan: {result['plan_bytes']}")
        if not all(s["times_mmap"] > 0 for s in result["samples"]):
            complaints.append(f"mmap: {result['samples']}")
    with tap.case("bench --stream --gate: a smaller model stands for the large one") as complaints:
        report = streamed(sluice, "--gate", MODEL, "--slots", 40, "--route", "uniform")
        if report["resident_ms"] is not None or "smaller" not in report["gate"]["reference"]:
            complaints.append(report["gate"])
    with tap.case("bench --stream: a table for people") as complaints:
        lines = sluice.good("bench", MODEL, "--stream", *SHORT, *PROBE, "--slots", 40).text.splitlines()
        words = [line.split()[0] for line in lines if line.strip()]
        if words[:6] != ["model", "routing", "DRAM", "load", "drive", "resident"]:
            complaints.append(words)
        rows = [line.split() for line in lines if "% " in line and line.strip().startswith("40 ")]
        if [row[2] for row in rows] != ["cold", "warm"]:
            complaints.append(rows)


def check_routing(tap, sluice):
    with tap.case("bench --stream: the same seed, the same misses") as complaints:
        options = ("--route", "uniform", "--slots", 64, "--io", "pread", "--seed")
        runs = [streamed(sluice, *options, seed)["results"][0] for seed in (1, 1, 2)]
        misses = [[s["misses"] for s in run["samples"]] for run in runs]
        if misses[0] != misses[1] or misses[0] == misses[2]:
            complaints.append(misses)
    with tap.case("bench --stream --policy lru misses what cache-sim says") as complaints:
        result = streamed(sluice, "--route", "zipf:1", "--slots", 50, "--policy", "lru")["results"][0]
        if not result["lru_misses"] * 0.9 < result["misses"] < result["lru_misses"] * 1.02:
            complaints.append(result)
        if any(result["prefetch"].values()):
            complaints.append(result["prefetch"])
    with tap.case("bench --stream --prefetch counts what was predicted") as complaints:
        guessed = streamed(sluice, "--slots", 50, "--prefetch", "router")["results"][0]["prefetch"]
        if not (guessed["predicted"] >= guessed["right"] > 0 and guessed["useful"] + guessed["late"] > 0):
            complaints.append(guessed)


def check_routes(tap, sluice):
    for route in ("uniform", "zipf:1", "reuse:0.5"):
        with tap.case(f"bench --stream --route {route}") as complaints:
            report = streamed(sluice, "--route", route, "--slots", 40, "--slots", 200)
            check_report(complaints, report, [40, 200])
            if not report["forced"] or report["route"] != route:
                complaints.append(f"route: {report['route']}")
            few, many = (r["samples"][-1]["misses"] for r in report["results"])
            if few < many:
                complaints.append(f"{few} misses with 40 slots, {many} with 200")


def phases(report):
    return [report["decode"], *report["prefill"], *report["contexts"]]


def check_profiled(complaints, sluice, svg):
    contexts = [64, 200, 700]
    options = [word for n in contexts for word in ("--context", n)]
    # Where other programs run, a system may take the processor away between any two steps.
    for _ in range(ATTEMPTS):
        report = sluice.good("bench", MODEL, *SHORT, "--profile", "--svg", svg, *options,
                             "--json").json
        if min(phase["profile"]["in_steps"] for phase in phases(report)) >= 0.95:
            break
    if [c["context"] for c in report["contexts"]] != contexts or report["context_growth"] is None:
        complaints.append(report["contexts"])
    bytes_read = [c["bytes_per_token"] for c in report["contexts"]]
    info = sluice.good("inspect", MODEL, "--json").json
    if bytes_read[2] - bytes_read[0] != (700 - 64) * info["kv_bytes_per_token"]:
        complaints.append(bytes_read)
    for phase in phases(report):
        profile = phase["profile"]
        if not 0.95 <= profile["in_steps"] <= 1 or profile["tokens"] != phase["tokens"]:
            complaints.append(f"{profile['in_steps']} of the time is in steps")
        for key in ("us", "bytes", "products", "steps"):
            total = sum(op[key] for op in profile["ops"])
            if abs(total - profile["all"][key]) > 1e-6 * total:
                complaints.append(f"{key}: {total} is not {profile['all'][key]}")
        if abs(profile["all"]["products"] / phase["products_per_token"] - 1) > 1e-3:
            complaints.append(f"products: {profile['all']}, expected {phase['products_per_token']}")
        for op in [phase, *profile["ops"]]:
            part = op.get("of_dram") or op.get("of_int8_peak") or {"high": op.get("of_limit") or 0}
            if op["suspect"] != (part["high"] > 1.03):
                complaints.append(f"suspect: {op}")
        of_limit = phase.get("of_dram") or phase["of_int8_peak"]
        if not of_limit["low"] > 0:
            complaints.append(of_limit)
    decode = report["decode"]
    if abs(decode["profile"]["all"]["bytes"] / decode["bytes_per_token"] - 1) > 1e-3:
        complaints.append(f"bytes: {decode}")
    root = ElementTree.parse(svg).getroot()
    name = decode["profile"]["ops"][0]["op"]
    if not root.tag.endswith("svg") or name not in "".join(root.itertext()):
        complaints.append(f"the plot, without {name}")


def check_resident(tap, sluice, folder):
    with tap.case("bench: prefill and decoding in memory") as complaints:
        report = sluice.good("bench", MODEL, *SHORT, "--json").json
        if [p["tokens"] for p in report["prefill"]] != [512, 2048]:
            complaints.append(report["prefill"])
        decode = report["decode"]
        for spread in (report["dram_rate"], decode["tokens_per_second"], decode["of_dram"],
                       *(p["tokens_per_second"] for p in report["prefill"])):
            if not 0 < spread["low"] <= spread["median"] <= spread["high"]:
                complaints.append(spread)
        gate = report["gate"]
        if gate["exact_tokens"] != 8 or gate["exact_agreed"] < 7 or not 0 < gate["exact_kl"] < 5e-3:
            complaints.append(gate)
        info = sluice.good("inspect", MODEL, "--json").json
        whole = info["dense_bytes"] + info["expert_bytes"]
        if not info["expert_bytes"] * USED / EXPERTS < decode["bytes_per_token"] < whole:
            complaints.append(f"{decode['bytes_per_token']} bytes a token of {whole}")
    with tap.case("bench --prefill: prompts of other lengths") as complaints:
        report = sluice.good("bench", MODEL, *SHORT, "--prefill", 7, "--prefill", 600,
                             "--json").json
        if [p["tokens"] for p in report["prefill"]] != [7, 600] or not report["dram_cached"]:
            complaints.append(report)
    with tap.case("bench --profile --context --svg: what it is made of adds up") as complaints:
        check_profiled(complaints, sluice, folder / "bench.svg")
    with tap.case("bench --profile: tables for people") as complaints:
        text = sluice.good("bench", MODEL, *SHORT, "--profile", "--context", 70).text
        for word in ("int8 peak", "of memory", "decode at 70", "matmul lm_head", "outside of steps"):
            if word not in text:
                complaints.append(f"no '{word}' in {text}")
    with tap.case("bench: what does not fit is refused, and --stream named") as complaints:
        result = sluice.run("bench", MODEL, "--slots", 40)
        if result.code != 1 or "--stream" not in result.err or result.out:
            complaints.append(result)


def check_errors(tap, sluice, folder):
    trace = folder / "other.trace"
    sluice.good("trace", harness.REFERENCES / "qwen3_5_moe", "--ids", "-", "-n", 2, "--out", trace,
                stdin=b"1 2 3")
    cases = [
        (("--stream", "--route", "sideways"), 1, "neither uniform"),
        (("--stream", "--route", "zipf:"), 1, "neither uniform"),
        (("--stream", "--route", "zipf:-1"), 1, "zipf"),
        (("--stream", "--route", "reuse:2"), 1, "reuse"),
        (("--stream", "--route", trace), 1, "the trace has"),
        (("--stream", "--route", MODEL / "config.json"), 1, "config.json: trace"),
        (("--stream", "--ram", "1M"), 1, "smallest budget"),
        (("--stream", "-n", 0), 1, "-n 0"),
        (("--stream", "--gate", folder / "nowhere"), 1, "nowhere"),
        (("--route", "uniform"), 2, "needs '--stream'"),
        (("--against", "mmap"), 2, "needs '--stream'"),
        (("--gate", "x"), 2, "needs '--stream'"),
        (("--probe", 30), 2, "needs '--stream'"),
        (("--slots", 4, "--slots", 5), 2, "need '--stream'"),
        (("--stream", "--profile"), 2, "does not go with '--stream'"),
        (("--stream", "--context", 5), 2, "does not go with '--stream'"),
        (("--svg", folder / "x.svg"), 2, "needs '--profile' or '--context'"),
        (("--context", 1 << 20), 1, "trained for"),
        (("--prefill", 1 << 20), 1, "trained for"),
        (("--stream", "--prefill", 5), 2, "does not go with '--stream'"),
    ]
    for options, code, word in cases:
        name = " ".join(str(o) for o in options[:3]).replace(str(folder), "")
        with tap.case(f"bench {name} is refused") as complaints:
            result = sluice.run("bench", MODEL, "--pairs", 1, *options)
            if result.code != code or word.lower() not in result.err.lower() or result.out:
                complaints.append(result)


def simulate(sluice, trace, *options):
    return sluice.good("cache-sim", trace, "--json", *options).json


def check_trace(tap, sluice, folder):
    trace = folder / "run.trace"
    with tap.case("trace: a prompt and what followed") as complaints:
        report = sluice.good("trace", MODEL, "--ids", "-", "-n", 60, "--out", trace, "--json",
                             stdin=IDS).json
        if (report["prompt_tokens"], report["decoded_tokens"]) != (40, 60):
            complaints.append(report)
        if report["bytes"] != trace.stat().st_size or trace.read_bytes()[:8] != b"SluiceRT":
            complaints.append(f"{trace.stat().st_size} bytes: {report}")
    with tap.case("trace: cache, threads and I/O change no byte of it") as complaints:
        other = folder / "other.trace"
        for options in (("--slots", 40), ("--threads", 1), ("--io", "pread", "--slots", 9),
                        ("--io", "mmap")):
            sluice.good("trace", MODEL, "--ids", "-", "-n", 60, "--out", other, *options, stdin=IDS)
            if other.read_bytes() != trace.read_bytes():
                complaints.append(f"{options}: another trace")
    with tap.case("trace: nothing is left of a run that fails") as complaints:
        target = folder / "never.trace"
        for options in (("-n", 5000), ("--slots", 0), ("--ids", folder / "nowhere")):
            result = sluice.run("trace", MODEL, "--ids", "-", "--out", target, *options, stdin=IDS)
            if result.code == 0:
                complaints.append(f"{options}: {result}")
        result = sluice.run("trace", MODEL, "--ids", "-", "--out", folder / "no" / "where",
                            stdin=IDS)
        if result.code != 1 or "No such file" not in result.err:
            complaints.append(result)
        if list(folder.glob("never*")):
            complaints.append(list(folder.iterdir()))
    with tap.case("cache-sim: all policies, no policy above the optimum") as complaints:
        report = simulate(sluice, trace)
        if (report["batches"], report["layers"], report["experts"]) != (61, LAYERS, EXPERTS):
            complaints.append(report)
        slots = sorted({row["slots"] for row in report["rows"]})
        if len(slots) != 10 or slots[-1] != ALL:
            complaints.append(slots)
        last = {policy: 0 for policy in POLICIES}
        for at in slots:
            rates = {r["policy"]: r["hit_rate"] for r in report["rows"] if r["slots"] == at}
            if list(rates) != POLICIES or max(rates.values()) > rates["optimum"] + 1e-9:
                complaints.append(f"{at}: {rates}")
            if rates["optimum"] < last["optimum"]:
                complaints.append(f"{at} slots are worse than fewer")
            last = rates
        if len(set(last.values())) != 1:
            complaints.append(f"with room for all, policies differ: {last}")
    with tap.case("cache-sim: as many uses as the engine counted") as complaints:
        ids = sluice.good("run", MODEL, "--ids", "-", "-n", 61, "--temperature", 0, "--ignore-eos",
                          "--json", stdin=IDS).json
        uses = ids["stats"]["engine"]["expert_uses"]
        row = simulate(sluice, trace, "--capacity", 70)["rows"][0]
        sum_of_row = sum(row[key] for key in ("decode_hits", "decode_misses", "prefill_hits",
                                              "prefill_misses"))
        if row["slots"] != 70 or sum_of_row != uses:
            complaints.append(f"{sum_of_row} uses replayed, {uses} counted")
    with tap.case("bench --route TRACE: a recorded run is forced") as complaints:
        report = streamed(sluice, "--route", trace, "--slots", 64)
        check_report(complaints, report, [64])
    with tap.case("cache-sim: with a quarter of the experts, auto is near the best policy") as complaints:
        for seed in (1, 2):
            other = folder / f"long-{seed}.trace"
            sluice.good("trace", MODEL, "--prompt", PROMPTS[seed - 1], "-n", 300, "--out", other)
            rates = {row["policy"]: row["hit_rate"]
                     for row in simulate(sluice, other, "--capacity", ALL // 4)["rows"]}
            best = max(rates[policy] for policy in ("lru", "lfu", "lfuda"))
            if not best - 0.01 <= rates["auto"] <= rates["optimum"]:
                complaints.append(f"{PROMPTS[seed - 1]}: {rates}")
    with tap.case("cache-sim: a table, and a plot") as complaints:
        svg = folder / "plot.svg"
        lines = sluice.good("cache-sim", trace, "--svg", svg, "--capacity", 64, "--capacity",
                            128).text.splitlines()
        if lines[1].split() != ["slots", "of", "all", *POLICIES] or len(lines) != 4:
            complaints.append(lines)
        if lines[3].split()[:2] != ["128", "50.0%"] or not svg.read_text().startswith("<svg "):
            complaints.append(lines)
    with tap.case("cache-sim: what is no trace is refused") as complaints:
        cut = folder / "cut.trace"
        cut.write_bytes(trace.read_bytes()[:-5])
        for options, code, word in (((cut,), 1, "cut.trace"), ((MODEL / "config.json",), 1, "trace"),
                                    ((folder / "nowhere",), 1, "No such file"),
                                    ((trace, "--capacity", 9, "--capacity", 8), 1, "ascend"),
                                    ((trace, "--svg", folder / "no" / "where"), 1, "No such file"),
                                    ((), 2, "needs the trace"), ((trace, "--capacity", 0), 2, "[1, ")):
            result = sluice.run("cache-sim", *options)
            if result.code != code or word not in result.err or result.out:
                complaints.append(result)


def tests(tap, sluice):
    if harness.SLOW:
        check_stream(tap, sluice)
        check_routing(tap, sluice)
        with harness.temporary_folder() as folder:
            check_resident(tap, sluice, folder)
    else:
        tap.skip("bench: its measurements", "they take too long under a sanitizer")
    if harness.THOROUGH:
        check_routes(tap, sluice)
    else:
        tap.skip("bench: every kind of route",
                 "they take minutes; SLUICE_TEST_SLOW=2 runs them")
    with harness.temporary_folder() as folder:
        check_errors(tap, sluice, folder)
    with harness.temporary_folder() as folder:
        check_trace(tap, sluice, folder)


if __name__ == "__main__":
    harness.main(tests)
