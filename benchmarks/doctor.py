"""Seconds of one core that each rule of the doctor takes on a set of invented comparisons.

python benchmarks/doctor.py                    # 50,000 pairs, answers of 150 words on average
python benchmarks/doctor.py --pairs 10000
"""

import argparse
import time

import numpy as np

from keel.data.doctor.examine import RULES
from keel.data.doctor.limits import Limits
from keel.data.doctor.patient import patient_of
from keel.data.records import Comparison


def invented(count: int, seed: int = 0) -> list[Comparison]:
    """Pairs of texts whose words are drawn by Zipf's law, the longer one preferred in 60 %."""
    rng = np.random.default_rng(seed)
    words = np.array([f"w{number}" for number in range(30_000)])
    chances = 1 / np.arange(1, len(words) + 1)
    drawn = rng.choice(words, size=2_000_000, p=chances / chances.sum())

    def text(length: int) -> str:
        at = int(rng.integers(0, len(drawn) - length))
        return " ".join(drawn[at : at + length]) + "."

    pairs = []
    for number in range(count):
        a, b = text(int(rng.integers(20, 280))), text(int(rng.integers(20, 280)))
        longer = (len(a) > len(b)) == (rng.random() < 0.6)
        pairs.append(Comparison(text(30), a, b, float(longer), source=f"invented:{number + 1}"))
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=50_000)
    patient = patient_of(invented(parser.parse_args().pairs))
    size = sum(len(text) for _, text in patient.answers) / 1e6
    print(f"{len(patient.entries):,} pairs, {size:.0f} million characters of answers")
    total = 0.0
    for name, rule in RULES.items():
        begun = time.process_time()
        rule(patient, Limits())
        seconds = time.process_time() - begun
        total += seconds
        print(f"{name:18} {seconds:6.1f} s")
    print(f"{'all rules':18} {total:6.1f} s")


if __name__ == "__main__":
    main()
