"""Records what PyTorch's own allocator library does with random traces, without a GPU.

Needs a CUDA build of torch, unpacked (a wheel is a zip file; only torch/lib/libc10*.so and
torch/include are used), g++, and the headers of the CUDA toolkit. The library runs over the
stand-ins beside this file. To write the recording, or to compare N fresh traces with the model:

    python scripts/allocator_oracle/record.py TORCH_FOLDER CUDA_INCLUDE
    python scripts/allocator_oracle/record.py TORCH_FOLDER CUDA_INCLUDE --compare N
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RECORDING = ROOT / "tests" / "data" / "allocator_recorded.json"
PINNED_RECORDING = RECORDING.with_name("allocator_pinned_recorded.json")
MIB = 2**20
CONFIGS = (
    "",
    "expandable_segments:True",
    "max_split_size_mb:20",
    "max_split_size_mb:64",
    "max_split_size_mb:40,max_non_split_rounding_mb:30",
    "large_segment_size_mb:40,max_split_size_mb:40",
    "large_segment_size_mb:13",
    "garbage_collection_threshold:0.6",
    "garbage_collection_threshold:0.3,max_split_size_mb:32",
    "roundup_power2_divisions:8",
    "roundup_power2_divisions:[2:4,16:2,64:8,>:1]",
    "expandable_segments:True,large_segment_size_mb:12",
    "expandable_segments:True,garbage_collection_threshold:0.5",
    "expandable_segments:True,max_split_size_mb:40,roundup_power2_divisions:4",
    "per_process_memory_fraction:0.5,garbage_collection_threshold:0.5",
    "per_process_memory_fraction:0.4,throw_on_cudamalloc_oom:True",
    "throw_on_cudamalloc_oom:True",
    "throw_on_cudamalloc_oom:True,expandable_segments:True",
)
PINNED_CONFIGS = (  # a round threshold below a request makes PyTorch 2.13 fail its own assertions
    "",
    "pinned_max_cached_size_mb:4",
    "pinned_max_cached_size_mb:0",
    "pinned_max_round_threshold_mb:1024",
)
EDGES = (1, 512, MIB, MIB + 1, 2 * MIB, 10 * MIB - 1, 10 * MIB, 20 * MIB, 64 * MIB, 200 * MIB)


def build(torch_folder: Path, cuda_include: Path, into: Path) -> Path:
    """Compiles the stand-ins and the replayer; returns the program."""
    lib = torch_folder / "lib"
    command = ["nm", "-D", "--undefined-only", str(lib / "libc10_cuda.so")]
    wanted = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    soname = re.search(r"@(libcudart\.so\.\d+)", wanted)
    if soname is None:
        raise SystemExit(f"{lib}/libc10_cuda.so asks for no libcudart")
    have = (HERE / "fake_cudart.cpp").read_text()
    rest = [name for name in re.findall(r"(cuda\w+)@libcudart", wanted) if f" {name}(" not in have]
    stops = "".join(f'extern "C" void {name}() {{ abort(); }}\n' for name in rest)
    (into / "rest.cpp").write_text("#include <cstdlib>\n" + stops)
    version_map = into / "version.map"
    version_map.write_text(soname[1] + " { global: cuda*; local: *; };\n")
    runtime, nvml, program = into / soname[1], into / "libnvidia-ml.so.1", into / "replay"
    cxx, shared = ("g++", "-std=c++20", "-O1"), ("-shared", "-fPIC")
    named = f"-Wl,-soname,{soname[1]},--version-script={version_map}"
    cuda, torch = f"-I{cuda_include}", f"-I{torch_folder / 'include'}"
    _run(*cxx, *shared, cuda, HERE / "fake_cudart.cpp", into / "rest.cpp", named, "-o", runtime)
    _run("gcc", *shared, HERE / "fake_nvml.c", f"-Wl,-soname,{nvml.name}", "-o", nvml)
    libraries = (f"-L{lib}", "-lc10_cuda", "-lc10", runtime, f"-Wl,-rpath,{into}:{lib}")
    _run(*cxx, torch, cuda, HERE / "replay.cpp", *libraries, "-o", program)
    pinned = into / "replay_pinned"
    _run(*cxx, "-w", torch, HERE / "replay_pinned.cpp", *libraries, "-o", pinned)
    return program


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True)


def replay(program: Path, case: dict) -> dict:
    """``case`` with what the library answered: rows after each event, and the last segments."""
    env = os.environ | {
        "FAKE_TOTAL_BYTES": str(case["total"]),
        "PYTORCH_ALLOC_CONF": case["config"],
    }
    env["LD_LIBRARY_PATH"] = str(program.parent)  # libnvidia-ml.so.1 is opened by name
    result = subprocess.run(
        [program],
        input="\n".join(case["events"]) + "\n",
        check=True,
        capture_output=True,
        text=True,
        env=env,
    )
    lines = result.stdout.splitlines()
    rows = [line.split() for line in lines if not line.startswith("S ")]
    return case | {
        "rows": [[row[0], *map(int, row[1:])] for row in rows],
        "segments": [line[2:] for line in lines if line.startswith("S ")],
    }


def replay_pinned(program: Path, case: dict) -> dict:
    """``case`` with the bytes in use and the bytes locked after each event."""
    env = os.environ | {"PYTORCH_ALLOC_CONF": case["config"]}
    text = "\n".join(case["events"]) + "\n"
    command = [program.with_name("replay_pinned")]
    result = subprocess.run(
        command, input=text, check=True, capture_output=True, text=True, env=env
    )
    return case | {"rows": [[int(n) for n in line.split()] for line in result.stdout.splitlines()]}


def make_pinned_case(seed: int, length: int) -> dict:
    """The allocations and frees of ``make_case``, for the host."""
    events = make_case(len(CONFIGS) * seed, length)["events"]
    plain = [" ".join(event.split()[:3]) for event in events if event[0] != "f"]
    return {"config": PINNED_CONFIGS[seed % len(PINNED_CONFIGS)], "events": plain}


def make_case(seed: int, length: int) -> dict:
    """A random trace under one of ``CONFIGS``; the device is often too small for it."""
    rng = random.Random(seed)
    config = CONFIGS[seed % len(CONFIGS)]
    streams = rng.choice([[0], [0], [0, 7], [0, 7, 9]])
    fraction = None if "per_process" in config else rng.choice([None, 0.9, 0.5])
    if "throw" in config:
        fraction = None
    total = rng.choice([80 * 1024 * MIB, 1024 * MIB, 700 * MIB + 12345, 300 * MIB])
    events, live, number = [f"f {fraction}"] if fraction else [], [], 0
    while len(events) < length:
        draw, growing = rng.random(), (len(events) // 100) % 2 == 0
        if draw < 0.005:
            events.append("e")
        elif draw < (0.62 if growing else 0.38) or not live:
            number += 1
            live.append(number)
            events.append(f"a {number} {_size(rng)} {rng.choice(streams)}")
        else:
            events.append(f"d {live.pop(rng.randrange(len(live)))}")
    return {"config": config, "total": total, "events": events}


def _size(rng: random.Random) -> int:
    bounds = rng.choice([(1, 4096), (1, 2 * MIB), (MIB, 12 * MIB), (10 * MIB, 80 * MIB), None])
    return rng.choice(EDGES) if bounds is None else rng.randint(*bounds)


def main() -> int:
    """Builds, then records or compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("torch_folder", type=Path)
    parser.add_argument("cuda_include", type=Path)
    parser.add_argument("--compare", type=int, default=0, metavar="N")
    args = parser.parse_args()
    torch_folder = args.torch_folder.resolve()
    version = re.search(r"__version__ = '(.*)'", (torch_folder / "version.py").read_text())
    with tempfile.TemporaryDirectory() as folder:
        program = build(torch_folder, args.cuda_include.resolve(), Path(folder))
        if args.compare:
            return compare(program, args.compare)
        cases = [replay(program, make_case(seed, 160)) for seed in range(len(CONFIGS))]
        seeds = range(len(PINNED_CONFIGS))
        pinned = [replay_pinned(program, make_pinned_case(seed, 160)) for seed in seeds]
    library = f"of torch {version[1] if version else '?'}, by scripts/allocator_oracle/record.py"
    _write(RECORDING, f"libc10_cuda.so {library}", cases)
    _write(PINNED_RECORDING, f"ATen/core/CachingHostAllocator.h {library}", pinned)
    return 0


def _write(path: Path, source: str, cases: list[dict]) -> None:
    text = json.dumps({"source": source, "cases": cases}, separators=(",", ":"))
    path.write_text(text.replace('{"config"', '\n{"config"') + "\n")


def compare(program: Path, count: int) -> int:
    """Runs ``count`` fresh traces through library and model; 1 if any figure differs."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from support.allocator_cases import first_difference

    differing = 0
    for seed in range(count):
        difference = first_difference(replay(program, make_case(seed, 1200)))
        if difference:
            differing += 1
            print(f"seed {seed}: {difference}")
    print(f"{count} traces of 1200 events, {differing} differ")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
