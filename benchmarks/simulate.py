"""Ten-second records per second that the simulator makes on one core. Prints one JSON object.

    python benchmarks/simulate.py [--records 400] [--repeats 5]

``samples_per_s`` counts drawing patients, findings, 12-lead signals at 500 Hz, noise and recorder; ``with_reports`` the
report too. Processor time of one process, the best of the repeats: other work on the machine can only slow it down.
``same_bytes`` says whether two runs gave the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time

from deri.simulate.reports import machine_report
from deri.simulate.studies import draw_studies


def run(records: int, seed: int, *, reports: bool) -> tuple[float, str]:
    """Seconds of processor time, and a digest of all signals."""
    digest, spent = hashlib.sha256(), 0.0
    start = time.process_time()
    for study in draw_studies(seed, 0, records, more=0.3, mains_hz=60.0):
        if reports:
            machine_report(study.tracing, study.rng)
        spent += time.process_time() - start
        digest.update(study.tracing.signal.tobytes())
        start = time.process_time()
    return spent, digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    run(20, options.seed, reports=False)  # banks of noise are made once
    plain = [run(options.records, options.seed, reports=False) for _ in range(options.repeats)]
    full = [run(options.records, options.seed, reports=True) for _ in range(options.repeats)]
    print(
        json.dumps(
            {
                "records": options.records,
                "samples_per_s": round(options.records / min(spent for spent, _ in plain), 1),
                "with_reports": round(options.records / min(spent for spent, _ in full), 1),
                "same_bytes": len({digest for _, digest in plain}) == 1,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
