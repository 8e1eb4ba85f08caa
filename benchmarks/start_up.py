"""How long one waits for nothing: `noiseproof --help`, and `import noiseproof` beyond `import torch`.

    python benchmarks/start_up.py [--rounds 10]

Goals: 0.3 s and 0.1 s.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from _timing import in_turn


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=10)
    chosen = options.parse_args()

    def python(*words: str):
        return lambda: subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)

    contenders = {"python": python("-c", "pass"), "noiseproof --help": python("-m", "noiseproof", "--help")}
    seconds = {name: statistics.median(times) for name, times in in_turn(contenders, chosen.rounds).items()}
    beyond = statistics.median(_beyond_torch() for _ in range(3))
    print(f"noiseproof --help: {seconds['noiseproof --help']:.3f} s, of which python itself {seconds['python']:.3f} s (goal 0.3)")
    print(f"import noiseproof beyond torch: {beyond:.3f} s (goal 0.1)")


def _beyond_torch() -> float:
    code = "import time, torch; begun = time.perf_counter(); import noiseproof; print(time.perf_counter() - begun)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
